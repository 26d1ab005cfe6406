//! What every ledger refuses, whatever it keeps its lines in.

use super::State;

const CLAIMED: i64 = 1;
const VERIFIED: i64 = 2;

/// Why a call is refused though the ledger works: our own mistake, or another run was faster.
pub(super) fn lost(id: i64) -> String {
    format!(
        "line {id} is not held by this run any more: its lease was over and another run took it; \
         this run must not touch the file"
    )
}

/// Whether a line may go from one state to another, by their numbers.
pub(super) fn advance(id: i64, from: i64, to: i64) -> Result<(), String> {
    match to >= from {
        true => Ok(()),
        false => Err(format!("line {id} cannot go back from {} to {}", name_of(from), name_of(to))),
    }
}

/// Whether a line may begin afresh.
pub(super) fn restart(id: i64, from: i64) -> Result<(), String> {
    match from {
        CLAIMED | VERIFIED => Ok(()),
        _ => Err(format!("line {id} is {} and cannot begin afresh", name_of(from))),
    }
}

/// Whether a line may be dropped.
pub(super) fn forget(id: i64, from: i64) -> Result<(), String> {
    match from {
        CLAIMED => Ok(()),
        _ => Err(format!("line {id} is {} and cannot be forgotten", name_of(from))),
    }
}

/// The number of a state in the database. They only grow in a file's life; 0 is a file that was
/// seen and never claimed.
pub(super) fn rank(state: &State) -> i64 {
    match state {
        State::Claimed { .. } => CLAIMED,
        State::Verified { .. } => VERIFIED,
        State::Delivered { .. } => 3,
        State::Leaving { .. } => 4,
        State::Finished { .. } => 5,
    }
}

/// A state for people, of its number.
pub(super) fn name_of(rank: i64) -> &'static str {
    match rank {
        0 => "seen",
        1 => "copying",
        2 => "verified",
        3 => "delivered",
        4 => "leaving",
        _ => "finished",
    }
}
