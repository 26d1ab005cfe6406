//! The life of one file: staged, proven, published, put away.
//!
//! The ledger's state leads: each step records its result before the next one begins. While nothing
//! went wrong the state alone says what comes next; after a crash or a lost answer both ends are
//! looked at, and [`recover::next`] says it.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fcp_proto::path::RelPath;

use super::proven::Proven;
use super::{Run, Side, Trouble, content};
use crate::job::ledger::{Ledger, Record, State};
use crate::job::plan::{self, Candidate, Expect, Skip, Stays, Take};
use crate::job::recover::{self, Left, Look, Next, Seen};
use crate::job::report::FileRecord;
use crate::job::spec::Overwrite;
use crate::location::copy::{self, Staged};
use crate::location::{Reason, SetMeta};

/// Steps of one file, of which there are eight at most: whatever goes in circles ends.
const STEPS: u32 = 64;

/// Who proved a copy that an earlier run made, for people.
pub(super) const BEFORE: &str = "an earlier run";

/// What became of a file.
#[derive(Debug)]
pub(super) enum End {
    /// It is delivered and put away.
    Done(Box<FileRecord>),
    /// It is left alone after all.
    Skipped(Skip),
    /// It failed.
    Failed {
        /// Tries.
        attempts: u32,
        /// Why, and what to do where we know.
        error: String,
    },
    /// The run ended first.
    Halted,
}

/// Ranges of a temp, with their digests.
pub(super) type Written = Arc<Mutex<Vec<(Range<u64>, u128)>>>;

/// A claimed file on its way.
pub(super) struct File<'a, L> {
    pub(super) run: &'a Arc<Run<L>>,
    pub(super) id: i64,
    pub(super) candidate: Candidate,
    pub(super) state: State,
    /// Where it goes, unless the state says so already.
    pub(super) to: RelPath,
    pub(super) expect: Expect,
    pub(super) worker: usize,
    pub(super) attempts: u32,
    /// What the state means may not be what is there.
    pub(super) unsure: bool,
    /// The source went as the state says.
    pub(super) away: bool,
    /// The source is another version by now.
    pub(super) changed: bool,
    /// What has the temp's name is ours, provably.
    pub(super) own_temp: bool,
    /// What has the temp's name may be ours: somebody of us may have made it.
    pub(super) tried: bool,
    /// This try made the temp.
    pub(super) made: Arc<AtomicBool>,
    /// The temp may have got its final name already.
    pub(super) maybe_renamed: bool,
    /// The temp was taken away from under us, and was made again.
    pub(super) bereft: bool,
    /// The copy as it looked when it was proven.
    pub(super) proven: Option<Proven>,
    pub(super) written: Written,
    pub(super) staged: Option<Staged>,
    pub(super) began: Instant,
}

impl<'a, L: Ledger + 'static> File<'a, L> {
    /// Takes a claimed entity over: a new one, or as an earlier run left it.
    pub(super) fn new(
        run: &'a Arc<Run<L>>,
        id: i64,
        take: Take,
        temp: RelPath,
        worker: usize,
    ) -> Self {
        File {
            run,
            id,
            candidate: take.candidate,
            state: State::Claimed { temp },
            to: take.to,
            expect: take.expect,
            worker,
            attempts: 0,
            unsure: false,
            away: false,
            changed: false,
            own_temp: false,
            tried: false,
            made: Arc::default(),
            maybe_renamed: false,
            bereft: false,
            proven: None,
            written: Arc::default(),
            staged: None,
            began: Instant::now(),
        }
    }

    /// Goes on where an earlier run ended.
    pub(super) fn resumed(mut self, record: Record, mut ranges: Vec<(Range<u64>, u128)>) -> Self {
        let natural = self.temp().clone();
        self.state = record.state;
        self.unsure = !matches!(self.state, State::Claimed { .. });
        (self.tried, self.maybe_renamed) = (true, self.unsure);
        self.own_temp =
            self.unsure || !ranges.is_empty() || plan::is_salted(self.temp(), Some(&natural));
        ranges.retain(|(range, _)| !range.is_empty());
        if self.run.spec().transfer.resume {
            self.written = Arc::new(Mutex::new(ranges));
        }
        self
    }

    /// Brings it to its end, with tries.
    pub(super) async fn live(mut self) -> End {
        let mut since = None;
        let max = self.run.spec().transfer.attempts.max(1);
        loop {
            self.attempts += 1;
            let trouble = match self.walk().await {
                Ok(action) => return self.done(action),
                Err(trouble) => trouble,
            };
            let trouble = self.judge(trouble);
            let Trouble::Location(error) = &trouble else { return self.give_up(trouble).await };
            let first = *since.get_or_insert_with(Instant::now);
            self.unsure = true;
            let again = error.is_transient() || self.is_worth_a_try(error).await;
            if !again || self.attempts >= max || self.run.stop.is_over() {
                if error.is_transient() && self.run.breaker.exhausted(first, error) {
                    let text =
                        format!("{error}; nothing got through any more, so the run ends here");
                    self.run.stop.halt(super::Halt::Dead(text));
                }
                return self.give_up(trouble).await;
            }
            self.run.wait(&self.candidate.path, self.attempts, error).await;
        }
    }

    /// Steps until there is nothing left to do; tells what became of the source.
    async fn walk(&mut self) -> Result<String, Trouble> {
        for _ in 0..STEPS {
            if self.run.stop.is_over() {
                return Err(Trouble::Halted);
            }
            let next = self.next().await?;
            tracing::debug!(file = %self.candidate.path, ?next, "step");
            self.tell_phase(&next);
            match next {
                Next::Stage { resume } => self.stage(resume).await?,
                Next::Publish => self.publish().await?,
                Next::NoteDelivered => self.note_delivered().await?,
                Next::Prove => self.prove().await?,
                Next::Leave => self.leave().await?,
                Next::Spare => self.spare().await?,
                Next::MoveSource => self.move_source().await?,
                Next::WriteZip => self.write_zip().await?,
                Next::RemoveSource => self.remove_source().await?,
                Next::Finish(left) => return self.finish(left).await,
                Next::Forget => return Err(Trouble::Skip(Skip::Vanished)),
                Next::Ask(text) => return Err(Trouble::Failed(text.to_owned())),
                Next::Nothing => return Ok("done before".to_owned()),
            }
        }
        Err(Trouble::Failed("it does not come to an end; this is a bug".to_owned()))
    }

    async fn next(&mut self) -> Result<Next, Trouble> {
        let after = self.run.after();
        if self.away {
            return Ok(Next::Finish(Left::Away));
        }
        if self.unsure {
            let look = self.look().await?;
            let next = recover::next(&self.state, after, look);
            self.changed = look.source == Seen::Other;
            // From here on we know what is there.
            self.unsure = false;
            return Ok(next);
        }
        Ok(match &self.state {
            State::Claimed { .. } => Next::Stage { resume: self.own_temp && self.has_ranges() },
            State::Verified { .. } => Next::Publish,
            // Nothing is there that stands in the way: as if somebody had looked.
            state => {
                let moved = Seen::Gone;
                let look = Look { temp: Seen::Gone, last: Seen::Same, source: Seen::Same, moved };
                recover::next(state, after, look)
            }
        })
    }

    /// Begins afresh, under this temporary name.
    pub(super) async fn restart(&mut self, temp: RelPath) -> Result<(), Trouble> {
        self.run.ledger.restart(self.id, temp.clone()).await?;
        self.lock_written().clear();
        (self.own_temp, self.tried, self.maybe_renamed) = (false, false, false);
        self.proven = None;
        self.state = State::Claimed { temp };
        Ok(())
    }

    pub(super) async fn discard(&self, temp: &RelPath) -> Result<(), Trouble> {
        Ok(copy::discard(&self.run.order.destination, temp).await?)
    }

    /// Whether what has the temp's name is ours, so that it may be removed: it is the file that was
    /// proven, or its name is one that nobody else comes to, or it holds nothing that the source
    /// does not hold at the same place. That we made a file of this name once is not enough: it may
    /// be gone, and another job's be there.
    pub(super) async fn owns_temp(&self) -> Result<bool, Trouble> {
        let (order, temp) = (&self.run.order, self.temp());
        let natural = plan::temp_path(self.final_name(), None);
        if plan::is_salted(temp, natural.as_ref()) {
            return Ok(true);
        }
        let Some(now) = order.destination.stat(temp).await? else { return Ok(true) };
        if self.proven.is_some_and(|proven| proven.is(&now)) {
            return Ok(true);
        }
        let source = (&order.source, &self.candidate.path);
        content::is_part_of((&order.destination, temp), source).await
    }

    /// Begins afresh: under the same name where that is ours, and is free then; else under another.
    /// The ledger forgets what it knew of the temp before anything is removed.
    pub(super) async fn clear_temp(&mut self, temp: RelPath) -> Result<(), Trouble> {
        if !self.owns_temp().await? {
            return self.restart(self.salted()?).await;
        }
        self.restart(temp.clone()).await?;
        // Until it is gone it may be found there.
        self.tried = true;
        self.discard(&temp).await?;
        self.tried = false;
        Ok(())
    }

    /// Tells the ledger, and then believes it.
    pub(super) async fn record(&mut self, state: State) -> Result<(), Trouble> {
        self.run.ledger.record(self.id, state.clone()).await?;
        self.state = state;
        Ok(())
    }

    pub(super) async fn note_delivered(&mut self) -> Result<(), Trouble> {
        let (to, hash) = (self.final_name().clone(), self.hash());
        copy::end_replace(&self.run.order.destination, &to).await?;
        self.sync_final().await?;
        self.record(State::Delivered { to, hash }).await
    }

    /// Makes the final name durable. A folder that is not there any more was taken with all that
    /// was in it: whether that is what became of it is for [`File::may_go`] to judge.
    async fn sync_final(&self) -> Result<(), Trouble> {
        match self.run.sync_name(Side::Destination, self.final_name()).await {
            Err(error) if error.reason == Reason::NotFound => Ok(()),
            synced => Ok(synced?),
        }
    }

    /// Proves what was delivered without a proof, as the job now wants the source to go.
    async fn prove(&mut self) -> Result<(), Trouble> {
        let to = self.final_name().clone();
        match self.is_proven_there(&to).await? {
            Some(hash) => self.record(State::Delivered { to, hash: Some(hash) }).await,
            None => Err(Trouble::Skip(Skip::Conflict(Stays::OtherContent))),
        }
    }

    /// The hash of the source, if the file there has the same content and survives a power cut.
    pub(super) async fn is_proven_there(&self, to: &RelPath) -> Result<Option<String>, Trouble> {
        let order = &self.run.order;
        let size = self.candidate.meta.size;
        let ours = (&order.source, &self.candidate.path);
        let Some(hash) = content::agree(ours, (&order.destination, to), size).await? else {
            return Ok(None);
        };
        if self.run.sources_go() && order.destination.capabilities().durable {
            let sink = order.destination.reopen(to).await?;
            // Closing gives it this length, and it may have grown since it was read.
            if sink.stat().await?.size != size {
                return Ok(None);
            }
            sink.close(size, SetMeta::default(), true).await?;
        }
        Ok(Some(hash))
    }

    /// The name it has at the destination.
    pub(super) fn final_name(&self) -> &RelPath {
        match &self.state {
            State::Claimed { .. } => &self.to,
            State::Verified { to, .. }
            | State::Delivered { to, .. }
            | State::Leaving { to, .. }
            | State::Finished { to, .. } => to,
        }
    }

    pub(super) fn hash(&self) -> Option<String> {
        match &self.state {
            State::Claimed { .. } => None,
            State::Verified { hash, .. }
            | State::Delivered { hash, .. }
            | State::Leaving { hash, .. }
            | State::Finished { hash, .. } => hash.clone(),
        }
    }

    pub(super) fn temp(&self) -> &RelPath {
        match &self.state {
            State::Claimed { temp } | State::Verified { temp, .. } => temp,
            // No step asks for it.
            _ => &self.to,
        }
    }

    /// Whether the overwrite rule gives another file another name.
    pub(super) fn renames(&self) -> bool {
        self.run.spec().overwrite == Overwrite::Rename
    }
}
