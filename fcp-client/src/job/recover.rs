//! What is left to do about a file, from what the ledger says and what is there. Pure.
//!
//! A run asks [`next`], does it, records what the step says, and asks again until there is nothing:
//! the first run of a file and the recovery after a crash are the same walk. A step is done only
//! under a claim, and each look is taken after it.
//!
//! `Same` is what holds the content: for the source its size and time are those of the entity; for
//! `temp` and the final name of what is `Verified` it hashes to what was recorded (without a hash:
//! it equals the source, or has its size where that is gone); for others the size is right; for `moved` of a MOVE the size is right, of a zip it
//! was read back whole and equals the source. `Other` is anything else of that name. `*` is all.
//!
//! Whose a temp is: a claim writes down `.tmp.NAME`, and then the file is made, never over another.
//! After a crash in between, what has that name may be somebody else's. It counts as ours, to be
//! gone on with or removed, if we are known to have made it: a range of it is in the ledger (one of
//! no bytes is written down as soon as a file is made that is not there whole at once), or it has
//! the name with a random part, which is written down before anything has it and which nobody else
//! comes to; or it is `Verified`. Else it is removed if it holds nothing but what the source holds
//! at the same places, so that nothing is lost whoever made it. Anything else stays, and the copy
//! goes to a name with a random part.
//!
//! A source that is found while it is `Leaving` is `Same` only if its content hashes to what was
//! copied: the old one may be gone already, and a new one have its size and time. What is
//! `Finished` and went is a new file when it is there again; see [`super::plan::is_settled`].
//!
//! | state | temp | final | source | moved | next |
//! |---|---|---|---|---|---|
//! | Claimed | Gone | * | Same | * | [`Next::Stage`] afresh |
//! | Claimed | Same, Other | * | Same | * | [`Next::Stage`], ranges of the temp count |
//! | Claimed | * | * | Gone, Other | * | [`Next::Forget`] |
//! | Verified | Same | * | * | * | [`Next::Publish`] |
//! | Verified | Gone, Other | Same | * | * | [`Next::NoteDelivered`]: it was renamed |
//! | Verified, hash, DELETE | Gone | Gone | Same | * | [`Next::Spare`]: the consumer may have taken it, or it got lost |
//! | Verified | Gone | Gone | * | * | [`Next::NoteDelivered`]: the consumer may have taken it |
//! | Verified | Gone | Other | Same | * | [`Next::Stage`] afresh: what is there is not ours |
//! | Verified | Gone | Other | Gone, Other | * | [`Next::NoteDelivered`]: nothing can be sent |
//! | Verified | Other | Gone, Other | Same | * | [`Next::Stage`] afresh: a power cut tore a temp that was not synced |
//! | Verified | Other | Gone, Other | Gone, Other | * | [`Next::Ask`] |
//! | Delivered, Leaving | * | * | Gone, Other | * | [`Next::Finish`]: nothing of ours is there |
//! | Delivered, Leaving, KEEP | * | * | * | * | [`Next::Finish`] |
//! | Delivered, Leaving, no hash | * | Same | Same | * | [`Next::Prove`]: a source never goes without |
//! | Delivered, Leaving, no hash | * | Gone, Other | Same | * | [`Next::Finish`], the source stays |
//! | Delivered | * | * | Same | * | [`Next::Leave`] |
//! | Leaving to nowhere, DELETE | * | * | Same | * | [`Next::RemoveSource`] |
//! | Leaving to `moved`, MOVE, DELETE | * | * | Same | Gone | [`Next::MoveSource`] |
//! | Leaving to `moved`, zip | * | * | Same | Gone | [`Next::WriteZip`] |
//! | Leaving to `moved`, zip | * | * | Same | Same | [`Next::RemoveSource`] |
//! | Leaving, any other | * | * | Same | * | [`Next::Leave`]: under a free name, as the job is now |
//! | Finished | * | * | * | * | [`Next::Nothing`] |

use super::ledger::State;

/// What was found under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// Nothing.
    Gone,
    /// What the ledger means.
    Same,
    /// Something else.
    Other,
}

/// What is there, of the names that the ledger's line holds; `Gone` for a name that it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// The temporary name at the destination.
    pub temp: Seen,
    /// The final name at the destination.
    pub last: Seen,
    /// The source.
    pub source: Seen,
    /// Where the source goes.
    pub moved: Seen,
}

/// What the job does with a source that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// Leaves it.
    Keep,
    /// Removes it.
    Delete,
    /// Renames it.
    Move,
    /// Writes a zip of it, and then removes it.
    Zip,
}

/// What became of a source when nothing is left to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Left {
    /// It stays, as the job says.
    Kept,
    /// It stays, as its copy was never proven by content and is not there to be proven now.
    KeptUnproven,
    /// It went as was recorded, or somebody took it, or it is another version by now.
    Away,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Copy it to the temp, prove it, record Verified. Where ranges do not count, remove what has
    /// the temp's name and `restart` first.
    Stage {
        /// Whether the ledger's ranges of the temp count, once they are re-hashed.
        resume: bool,
    },
    /// Rename the temp, by the overwrite rule; then as [`Next::NoteDelivered`].
    Publish,
    /// Record Delivered.
    NoteDelivered,
    /// Compare the content of the final name with the source, make it durable, record Delivered
    /// with the hash; where they differ, finish as [`Left::KeptUnproven`].
    Prove,
    /// Choose a free name where one is needed, record Leaving. What was to be spared still is.
    Leave,
    /// Nobody can see the copy any more: record Leaving, to be moved though it was to be removed.
    Spare,
    /// Rename the source to `moved`, never over anything.
    MoveSource,
    /// Write the zip under a temporary name, read it back, rename it to `moved`.
    WriteZip,
    /// Look at the source once more; remove it if it is unchanged.
    RemoveSource,
    /// Record Finished.
    Finish(Left),
    /// Remove what has the temp's name and drop the line: nothing was delivered.
    Forget,
    /// Touch nothing and tell people: this cannot come about by crashes alone.
    Ask(&'static str),
    /// It is finished.
    Nothing,
}

/// The next step of a file, see the table above.
pub fn next(state: &State, after: After, look: Look) -> Next {
    match state {
        State::Claimed { .. } => claimed(look),
        State::Verified { hash, .. } => verified(after, look, hash.is_some()),
        State::Delivered { hash, .. } => delivered(after, look, hash.is_some(), None),
        State::Leaving { hash, moved, .. } => {
            delivered(after, look, hash.is_some(), Some(moved.is_some()))
        }
        State::Finished { .. } => Next::Nothing,
    }
}

fn claimed(look: Look) -> Next {
    match look.source {
        Seen::Same => Next::Stage { resume: look.temp != Seen::Gone },
        _ => Next::Forget,
    }
}

fn verified(after: After, look: Look, proven: bool) -> Next {
    match (look.temp, look.last, look.source) {
        (Seen::Same, ..) => Next::Publish,
        (_, Seen::Same, _) => Next::NoteDelivered,
        (Seen::Gone, Seen::Gone, Seen::Same) if proven && after == After::Delete => Next::Spare,
        (Seen::Gone, Seen::Gone, _) => Next::NoteDelivered,
        (_, _, Seen::Same) => Next::Stage { resume: false },
        (Seen::Gone, ..) => Next::NoteDelivered,
        (Seen::Other, ..) => {
            Next::Ask("its temporary file at the destination is damaged and its source is gone")
        }
    }
}

/// `leaving`: whether the recorded way out leads somewhere; `None` before one is recorded.
fn delivered(after: After, look: Look, proven: bool, leaving: Option<bool>) -> Next {
    if look.source != Seen::Same {
        return Next::Finish(Left::Away);
    }
    match (after, leaving, look.moved) {
        (After::Keep, ..) => Next::Finish(Left::Kept),
        _ if !proven && look.last == Seen::Same => Next::Prove,
        _ if !proven => Next::Finish(Left::KeptUnproven),
        (After::Delete, Some(false), _) => Next::RemoveSource,
        (After::Move | After::Delete, Some(true), Seen::Gone) => Next::MoveSource,
        (After::Zip, Some(true), Seen::Gone) => Next::WriteZip,
        (After::Zip, Some(true), Seen::Same) => Next::RemoveSource,
        _ => Next::Leave,
    }
}

#[cfg(test)]
mod tests;
