//! The life of one file: staged, proven, published, put away.
//!
//! The ledger's state leads: each step records its result before the next one begins. While nothing
//! went wrong the state alone says what comes next; after a crash or a lost answer both ends are
//! looked at, and [`recover::next`] says it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fcp_proto::path::RelPath;

use super::tell::Meter;
use super::{Run, Side, Trouble, content, nanos, retry};
use crate::job::ledger::{Claim, Ledger, Record, State};
use crate::job::plan::{self, Candidate, Expect, Skip, Stays, Take};
use crate::job::recover::{self, Left, Look, Next, Seen};
use crate::job::report::FileRecord;
use crate::job::spec::Overwrite;
use crate::location::copy::{self, Proof, Stage, StageOptions, Staged, Watch};
use crate::location::{LocationError, Meta, Op, Reason, SetMeta};

/// Names that are tried for a temp before it is given up: a name with 32 random bits is free.
const TEMPS: u32 = 3;
/// Steps of one file, of which there are eight at most: whatever goes in circles ends.
const STEPS: u32 = 64;

/// Who proved a copy that an earlier run made, for people.
pub(super) const BEFORE: &str = "before";

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
    /// What has the temp's name is ours.
    own_temp: bool,
    written: Arc<Mutex<Vec<(Range<u64>, u128)>>>,
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
            own_temp: false,
            written: Arc::default(),
            staged: None,
            began: Instant::now(),
        }
    }

    /// Goes on where an earlier run ended.
    pub(super) fn resumed(mut self, record: Record, ranges: Vec<(Range<u64>, u128)>) -> Self {
        self.state = record.state;
        self.own_temp = true;
        self.unsure = !matches!(self.state, State::Claimed { .. });
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
            let again = error.is_transient() || self.is_worth_a_try(error);
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
            match next {
                Next::Stage { resume } => self.stage(resume).await?,
                Next::Publish => self.publish().await?,
                Next::NoteDelivered => self.note_delivered().await?,
                Next::Prove => self.prove().await?,
                Next::Leave => self.leave().await?,
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

    /// What is there, of the names of the state.
    async fn look(&self) -> Result<Look, Trouble> {
        let none =
            Look { temp: Seen::Gone, last: Seen::Gone, source: Seen::Gone, moved: Seen::Gone };
        let source = self.look_source().await?;
        Ok(match &self.state {
            State::Claimed { temp } => {
                let temp = self.look_there(temp).await?;
                Look { temp, source, ..none }
            }
            State::Verified { temp, to, hash } => {
                let temp = self.look_verified(temp, hash.is_some(), source).await?;
                let last = self.look_there(to).await?;
                Look { temp, last, source, ..none }
            }
            State::Delivered { to, hash } | State::Leaving { to, hash, moved: None } => {
                let last = match hash {
                    Some(_) => Seen::Gone,
                    None => self.look_there(to).await?,
                };
                Look { last, source, ..none }
            }
            State::Leaving { to, moved: Some(moved), .. } => {
                let last = self.look_there(to).await?;
                let moved = self.look_moved(moved, source).await?;
                Look { last, source, moved, ..none }
            }
            State::Finished { .. } => Look { source, ..none },
        })
    }

    async fn look_source(&self) -> Result<Seen, Trouble> {
        let now = self.run.order.source.stat(&self.candidate.path).await?;
        Ok(match now {
            None => Seen::Gone,
            Some(now) if self.is_listed(&now) => Seen::Same,
            Some(_) => Seen::Other,
        })
    }

    async fn look_there(&self, path: &RelPath) -> Result<Seen, Trouble> {
        let now = self.run.order.destination.stat(path).await?;
        Ok(self.by_size(now))
    }

    /// A temp that was neither synced nor hashed may have the right length and nothing in it.
    async fn look_verified(
        &self,
        temp: &RelPath,
        hashed: bool,
        source: Seen,
    ) -> Result<Seen, Trouble> {
        let seen = self.look_there(temp).await?;
        if seen != Seen::Same || hashed || source != Seen::Same {
            return Ok(seen);
        }
        let order = &self.run.order;
        let (ours, theirs) = ((&order.source, &self.candidate.path), (&order.destination, temp));
        let same = content::agree(ours, theirs, self.candidate.meta.size).await?.is_some();
        Ok(if same { Seen::Same } else { Seen::Other })
    }

    fn by_size(&self, now: Option<Meta>) -> Seen {
        match now {
            None => Seen::Gone,
            Some(now) if now.is_file() && now.size == self.candidate.meta.size => Seen::Same,
            Some(_) => Seen::Other,
        }
    }

    /// Whether this is the version of the source that was listed.
    pub(super) fn is_listed(&self, now: &Meta) -> bool {
        let listed = &self.candidate.meta;
        now.is_file() && now.size == listed.size && nanos(now.mtime) == nanos(listed.mtime)
    }

    fn has_ranges(&self) -> bool {
        !self.lock_written().is_empty()
    }

    fn lock_written(&self) -> std::sync::MutexGuard<'_, Vec<(Range<u64>, u128)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stage(&mut self, resume: bool) -> Result<(), Trouble> {
        let dir = self.to.split_last().map(|(dir, _)| dir).unwrap_or_default();
        self.run.make_dirs(Side::Destination, &dir).await?;
        let mut temp = self.temp().clone();
        let resume = resume && self.has_ranges();
        if !resume && (self.own_temp || !matches!(self.state, State::Claimed { .. })) {
            self.discard(&temp).await?;
            self.restart(temp.clone()).await?;
        }
        for _ in 0..TEMPS {
            let fresh = !self.own_temp;
            match self.stage_as(&temp).await {
                Ok(staged) => return self.verified(temp, staged).await,
                // Somebody else's: it stays.
                Err(error) if is_taken(&error) && fresh => {
                    temp = plan::temp_path(&self.to, Some(retry::random()))
                        .ok_or_else(|| Trouble::Failed("its name is too long".to_owned()))?;
                    self.restart(temp.clone()).await?;
                }
                Err(error) => {
                    self.own_temp = true;
                    return Err(error.into());
                }
            }
        }
        Err(Trouble::Failed(format!("no temporary name is free beside {}", self.to)))
    }

    async fn stage_as(&self, temp: &RelPath) -> Result<Staged, LocationError> {
        let run = self.run;
        let transfer = &run.spec().transfer;
        let options = StageOptions {
            large: transfer.large_file_threshold,
            chunk: transfer.chunk_size,
            streams: run.spec().max_connections.max(1),
            proof: self.proof(),
            durable: run.sources_go() && run.order.destination.capabilities().durable,
            meta: SetMeta { mode: self.candidate.meta.mode, mtime: self.candidate.meta.mtime },
        };
        let done = self.lock_written().clone();
        let ledger = transfer.resume.then(|| (Arc::clone(&run.ledger), self.id));
        let watch = Hearing {
            meter: run.tell.meter(&self.candidate.path, self.worker),
            written: Arc::clone(&self.written),
            ledger,
            stop: run.stop.clone(),
        };
        copy::stage(Stage {
            from: &run.order.source,
            source: &self.candidate.path,
            listed: self.candidate.meta,
            to: &run.order.destination,
            temp,
            options: &options,
            done,
            watch: Arc::new(watch),
        })
        .await
    }

    fn proof(&self) -> Proof {
        if self.run.spec().transfer.verify_integrity || self.run.sources_go() {
            Proof::Content
        } else {
            Proof::Size
        }
    }

    async fn verified(&mut self, temp: RelPath, staged: Staged) -> Result<(), Trouble> {
        let hash = staged.digest.as_ref().map(|digest| content::text(&digest.bytes));
        self.staged = Some(staged);
        self.own_temp = true;
        self.record(State::Verified { temp, to: self.to.clone(), hash }).await
    }

    /// Begins afresh, under this temporary name.
    pub(super) async fn restart(&mut self, temp: RelPath) -> Result<(), Trouble> {
        self.run.ledger.restart(self.id, temp.clone()).await?;
        self.lock_written().clear();
        self.own_temp = false;
        self.state = State::Claimed { temp };
        Ok(())
    }

    pub(super) async fn discard(&self, temp: &RelPath) -> Result<(), Trouble> {
        Ok(copy::discard(&self.run.order.destination, temp).await?)
    }

    /// Tells the ledger, and then believes it.
    pub(super) async fn record(&mut self, state: State) -> Result<(), Trouble> {
        self.run.ledger.record(self.id, state.clone()).await?;
        self.state = state;
        Ok(())
    }

    async fn note_delivered(&mut self) -> Result<(), Trouble> {
        let (to, hash) = (self.final_name().clone(), self.hash());
        self.record(State::Delivered { to, hash }).await
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

    /// What a location's failure means for this file.
    fn judge(&self, trouble: Trouble) -> Trouble {
        let Trouble::Location(error) = trouble else { return trouble };
        let at_source = error.place == self.run.order.source.name();
        let before = matches!(self.state, State::Claimed { .. });
        match error.reason {
            Reason::Cancelled => Trouble::Halted,
            Reason::NotFound if at_source && before => Trouble::Skip(Skip::Vanished),
            Reason::Changed if at_source && before => Trouble::Skip(Skip::Unstable),
            Reason::NotFile if at_source && before => Trouble::Skip(Skip::Unstable),
            _ => Trouble::Location(error),
        }
    }

    /// Whether a permanent failure may be none: a folder that was removed under us, a copy that
    /// reads back differently.
    fn is_worth_a_try(&self, error: &LocationError) -> bool {
        let there = error.place == self.run.order.destination.name();
        there && matches!(error.reason, Reason::NotFound | Reason::Changed)
    }

    fn done(self, action: String) -> End {
        self.run.breaker.succeeded(Instant::now());
        let staged = self.staged.as_ref();
        End::Done(Box::new(FileRecord {
            when: jiff::Timestamp::now().to_string(),
            job: self.run.spec().key.clone(),
            source: format!("{}: {}", self.run.order.source.name(), self.candidate.path),
            destination: format!("{}: {}", self.run.order.destination.name(), self.final_name()),
            size: self.candidate.meta.size,
            hash: self.hash(),
            proven_by: staged.map_or(BEFORE, |staged| staged.proven_by).to_owned(),
            attempts: self.attempts,
            seconds: self.began.elapsed().as_secs_f64(),
            action,
            resumed: staged.map_or(0, |staged| staged.resumed),
        }))
    }

    /// Gives the claim back, and what is told of it.
    async fn give_up(mut self, trouble: Trouble) -> End {
        let unstaged = matches!(self.state, State::Claimed { .. });
        match trouble {
            Trouble::Ledger(error) => {
                self.run.stop.halt(super::Halt::Broken(error.to_string()));
                End::Halted
            }
            Trouble::Halted => {
                self.release(None).await;
                End::Halted
            }
            Trouble::Skip(why @ (Skip::Vanished | Skip::Unstable)) if unstaged => {
                let temp = self.temp().clone();
                let cleared = !self.own_temp || self.discard(&temp).await.is_ok();
                let forgotten = cleared && self.run.ledger.forget(self.id).await.is_ok();
                if !forgotten {
                    self.release(Some(why.to_string())).await;
                }
                End::Skipped(why)
            }
            Trouble::Skip(why) => {
                self.release(Some(why.to_string())).await;
                End::Skipped(why)
            }
            Trouble::Failed(text) => {
                self.release(Some(text.clone())).await;
                self.end(text)
            }
            Trouble::Location(error) => self.failed(error, unstaged).await,
        }
    }

    async fn failed(&mut self, error: LocationError, unstaged: bool) -> End {
        if unstaged && !error.is_transient() && self.own_temp {
            // What cannot be gone on with does not stay.
            let temp = self.temp().clone();
            if self.discard(&temp).await.is_ok() {
                let _ = self.restart(temp).await;
            }
        }
        let mut text = error.to_string();
        if !unstaged && !matches!(self.state, State::Verified { .. }) {
            text = format!("delivered as {}, but the source stays: {text}", self.final_name());
        }
        self.release(Some(text.clone())).await;
        // The run's own end is told once, not for every file that was on its way.
        if self.run.stop.is_over() && error.is_transient() { End::Halted } else { self.end(text) }
    }

    fn end(&self, error: String) -> End {
        End::Failed { attempts: self.attempts, error }
    }

    async fn release(&self, error: Option<String>) {
        if let Err(error) = self.run.ledger.release(self.id, error).await {
            self.run.stop.halt(super::Halt::Broken(error.to_string()));
        }
    }
}

/// Copies a file that the plan takes.
pub(super) async fn take<L: Ledger + 'static>(run: &Arc<Run<L>>, take: Take, worker: usize) -> End {
    let Some(temp) = plan::temp_path(&take.to, None) else {
        return End::Skipped(Skip::NoName("too long".to_owned()));
    };
    let entity = run.entity(&take.candidate.path, &take.candidate.meta);
    match run.ledger.claim(entity, temp.clone(), run.hold()).await {
        Ok(Claim::New(id)) => File::new(run, id, take, temp, worker).live().await,
        Ok(Claim::Resumed(record, ranges)) => {
            File::new(run, record.id, take, temp, worker).resumed(record, ranges).live().await
        }
        Ok(Claim::Done(record)) => End::Skipped(delivered(&record)),
        Ok(Claim::Taken { owner }) => End::Skipped(Skip::Elsewhere(owner)),
        Err(error) => broken(run, &error),
    }
}

/// Settles a file of which one with its name and size is there.
pub(super) async fn there<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    candidate: Candidate,
    to: RelPath,
    worker: usize,
) -> End {
    let Some(temp) = plan::temp_path(&to, None) else {
        return End::Skipped(Skip::NoName("too long".to_owned()));
    };
    let entity = run.entity(&candidate.path, &candidate.meta);
    let take = Take { candidate, to: to.clone(), expect: Expect::Absent };
    let mut file = match run.ledger.claim(entity, temp.clone(), run.hold()).await {
        Ok(Claim::New(id)) => File::new(run, id, take, temp, worker),
        Ok(Claim::Resumed(record, ranges)) => {
            File::new(run, record.id, take, temp, worker).resumed(record, ranges)
        }
        Ok(Claim::Done(record)) => return End::Skipped(delivered(&record)),
        Ok(Claim::Taken { owner }) => return End::Skipped(Skip::Elsewhere(owner)),
        Err(error) => return broken(run, &error),
    };
    if !matches!(file.state, State::Claimed { .. }) {
        return file.live().await;
    }
    match file.adopt(&to).await {
        Ok(Some(end)) => end,
        Ok(None) => file.live().await,
        Err(trouble) => {
            let trouble = file.judge(trouble);
            file.give_up(trouble).await
        }
    }
}

impl<L: Ledger + 'static> File<'_, L> {
    /// Takes what is there for the copy, once that is proven as far as the job asks; tells the end
    /// if there is nothing left to do.
    async fn adopt(&mut self, to: &RelPath) -> Result<Option<End>, Trouble> {
        let proving = self.proof() == Proof::Content;
        let hash = match proving {
            false => None,
            true => match self.is_proven_there(to).await? {
                Some(hash) => Some(hash),
                None => {
                    let why = plan::stays(self.run.spec().done.action, Stays::OtherContent);
                    return Err(Trouble::Skip(why));
                }
            },
        };
        if self.run.sources_go() {
            self.record(State::Delivered { to: to.clone(), hash }).await?;
            return Ok(None);
        }
        let action = "kept; it was there already".to_owned();
        self.record(State::Finished { to: to.clone(), hash, action }).await?;
        Ok(Some(End::Skipped(Skip::SameThere)))
    }

    /// The end of a file about which nothing is left to do.
    async fn finish(&mut self, left: Left) -> Result<String, Trouble> {
        let moved = match &self.state {
            State::Leaving { moved, .. } => Some(moved.clone()),
            _ => None,
        };
        let action = match (left, moved) {
            (Left::Kept, _) => "kept".to_owned(),
            (Left::KeptUnproven, _) => "kept: its copy is not there to be proven".to_owned(),
            (Left::Away, Some(Some(moved))) if self.run.spec().done.zip => {
                format!("zipped to {moved}")
            }
            (Left::Away, Some(Some(moved))) => format!("moved to {moved}"),
            (Left::Away, Some(None)) => "deleted".to_owned(),
            (Left::Away, None) => "gone or changed before it was put away".to_owned(),
        };
        let (to, hash) = (self.final_name().clone(), self.hash());
        self.record(State::Finished { to, hash, action: action.clone() }).await?;
        Ok(action)
    }

    /// Whether the overwrite rule gives another file another name.
    pub(super) fn renames(&self) -> bool {
        self.run.spec().overwrite == Overwrite::Rename
    }
}

fn delivered(record: &Record) -> Skip {
    match &record.state {
        State::Finished { to, .. } | State::Delivered { to, .. } => Skip::Delivered(to.to_string()),
        _ => Skip::Delivered("another name".to_owned()),
    }
}

fn broken<L>(run: &Run<L>, error: &crate::job::ledger::LedgerError) -> End {
    run.stop.halt(super::Halt::Broken(error.to_string()));
    End::Halted
}

fn is_taken(error: &LocationError) -> bool {
    error.reason == Reason::Exists && error.op == Op::Create
}

/// Hears of a copy while it goes on.
struct Hearing<L> {
    meter: Meter,
    written: Arc<Mutex<Vec<(Range<u64>, u128)>>>,
    ledger: Option<(Arc<L>, i64)>,
    stop: super::Stop,
}

impl<L: Ledger> Watch for Hearing<L> {
    fn moved(&self, bytes: u64) {
        self.meter.add(bytes);
    }

    fn written(&self, range: Range<u64>, digest: u128) {
        let Some((ledger, id)) = &self.ledger else { return };
        ledger.written(*id, range.clone(), digest);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push((range, digest));
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_over()
    }
}
