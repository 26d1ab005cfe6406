//! A ledger in memory: what a ledger is, without a disk. For tests of what uses one.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fcp_common::private::Process;
use fcp_proto::path::RelPath;

use super::owner::Owner;
use super::place::spot;
use super::{Book, Claim, Entity, Hold, Ledger, LedgerError, Record, State, rules};
use crate::job::report::JobSummary;

/// The ledger. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct MemBook {
    shared: Arc<Shared>,
    process: Option<Process>,
}

/// What one run sees of it.
#[derive(Debug)]
pub struct MemRun {
    shared: Arc<Shared>,
    own: Process,
    id: i64,
    /// What went wrong with what was told without waiting.
    late: Mutex<Option<LedgerError>>,
}

#[derive(Debug, Default)]
struct Shared {
    tables: Mutex<Tables>,
    /// Calls so far, and the first one that fails, 0 for none.
    calls: AtomicU64,
    fail_from: AtomicU64,
    /// Added to the clock, in seconds.
    skew: AtomicI64,
}

#[derive(Debug, Default)]
struct Tables {
    last: i64,
    lines: BTreeMap<i64, Line>,
    ids: HashMap<Entity, i64>,
    /// Runs that have not ended.
    runs: BTreeMap<i64, Owner>,
    seen: HashMap<Entity, i64>,
}

#[derive(Debug)]
struct Line {
    record: Record,
    ranges: BTreeMap<u64, (u64, u128)>,
    held: Option<(i64, Hold)>,
}

impl MemBook {
    /// The same ledger as another process has it.
    pub fn seen_by(&self, process: Process) -> MemBook {
        MemBook { shared: self.shared.clone(), process: Some(process) }
    }

    /// From the `nth` call on (1 is the next one) all of them fail, as those of a full disk do;
    /// 0: none does.
    pub fn fail_from(&self, nth: u64) {
        let calls = self.shared.calls.load(Ordering::SeqCst);
        let from = if nth == 0 { 0 } else { calls + nth };
        self.shared.fail_from.store(from, Ordering::SeqCst);
    }

    /// Ends all runs as a crash does: what they told so far is there, what they tell now fails, and
    /// the next run takes over.
    pub fn crash(&self) {
        self.shared.lock().runs.clear();
    }

    /// Puts the clock forward.
    pub fn pass(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.shared.skew.fetch_add(seconds, Ordering::SeqCst);
    }

    /// All lines, of all jobs.
    pub fn records(&self) -> Vec<Record> {
        self.shared.lock().lines.values().map(|line| line.record.clone()).collect()
    }
}

impl Book for MemBook {
    type Run = MemRun;

    async fn begin(
        &self,
        job: &str,
        _year: Option<i16>,
        lease: Duration,
    ) -> Result<MemRun, LedgerError> {
        self.shared.called()?;
        let own = self.process.clone().unwrap_or_else(Process::own);
        let lease = self.shared.until(lease);
        let owner = Owner { job: job.to_owned(), process: own.clone(), lease };
        let mut tables = self.shared.lock();
        tables.last += 1;
        let id = tables.last;
        tables.runs.insert(id, owner);
        drop(tables);
        Ok(MemRun { shared: self.shared.clone(), own, id, late: Mutex::default() })
    }
}

impl Ledger for MemRun {
    async fn claim(&self, entity: Entity, temp: RelPath, hold: Hold) -> Result<Claim, LedgerError> {
        self.called()?;
        let now = self.shared.now();
        let mut tables = self.shared.lock();
        tables.alive(self.id)?;
        if let Some(owner) = tables.in_the_way(&entity, hold, &self.own, now) {
            return Ok(Claim::Taken { owner });
        }
        Ok(tables.claim(self.id, entity, temp, hold, now))
    }

    async fn claim_all(
        &self,
        wanted: Vec<(Entity, RelPath, Hold)>,
    ) -> Result<Vec<Claim>, LedgerError> {
        let mut claims = Vec::new();
        for (entity, temp, hold) in wanted {
            claims.push(self.claim(entity, temp, hold).await?);
        }
        Ok(claims)
    }

    async fn renew(&self, lease: Duration) -> Result<(), LedgerError> {
        self.called()?;
        let until = self.shared.until(lease);
        let mut tables = self.shared.lock();
        tables.alive(self.id)?.lease = until;
        Ok(())
    }

    async fn record(&self, id: i64, state: State) -> Result<(), LedgerError> {
        self.move_on(id, state)
    }

    fn finish(&self, id: i64, state: State) {
        if let Err(error) = self.move_on(id, state) {
            *self.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    fn written(&self, id: i64, range: Range<u64>, digest: u128) {
        let mut tables = self.shared.lock();
        if let Ok(line) = tables.held(self.id, id)
            && matches!(line.record.state, State::Claimed { .. })
        {
            line.ranges.insert(range.start, (range.end, digest));
        }
    }

    async fn restart(&self, id: i64, temp: RelPath) -> Result<(), LedgerError> {
        self.change(id, |line| {
            rules::restart(id, rules::rank(&line.record.state))?;
            line.ranges.clear();
            line.record.state = State::Claimed { temp };
            Ok(())
        })
    }

    async fn release(&self, id: i64, error: Option<String>) -> Result<(), LedgerError> {
        self.change(id, |line| {
            line.held = None;
            line.record.error = error.or(line.record.error.take());
            Ok(())
        })
    }

    async fn forget(&self, id: i64) -> Result<(), LedgerError> {
        self.change(id, |line| rules::forget(id, rules::rank(&line.record.state)))?;
        let mut tables = self.shared.lock();
        if let Some(line) = tables.lines.remove(&id) {
            tables.ids.remove(&line.record.entity);
        }
        Ok(())
    }

    async fn open(&self, job: &str) -> Result<Vec<Record>, LedgerError> {
        self.called()?;
        let tables = self.shared.lock();
        let records = tables.lines.values().map(|line| &line.record);
        let is_open = |record: &&Record| {
            record.entity.job == job && !matches!(record.state, State::Finished { .. })
        };
        Ok(records.filter(is_open).cloned().collect())
    }

    async fn known(&self, entities: Vec<Entity>) -> Result<Vec<Option<Record>>, LedgerError> {
        self.called()?;
        let tables = self.shared.lock();
        let line = |entity: &Entity| tables.lines.get(tables.ids.get(entity)?);
        let record = |entity| line(entity).map(|line| line.record.clone());
        Ok(entities.iter().map(record).collect())
    }

    async fn finals(&self, names: Vec<RelPath>) -> Result<Vec<Option<RelPath>>, LedgerError> {
        self.shared.called()?;
        let mut tables = self.shared.lock();
        let job = tables.alive(self.id)?.job.clone();
        let of = |name: &RelPath| {
            let records = tables.lines.values().map(|line| &line.record);
            let own = records.filter(|record| record.entity.job == job);
            let last = own.filter(|record| delivered_as(&record.state) == Some(name));
            last.max_by_key(|record| (record.changed, record.id)).map(|r| r.entity.path.clone())
        };
        Ok(names.iter().map(of).collect())
    }

    async fn first_seen(&self, entity: &Entity) -> Result<i64, LedgerError> {
        self.called()?;
        let now = self.shared.now();
        let mut tables = self.shared.lock();
        Ok(*tables.seen.entry(entity.clone()).or_insert(now))
    }

    async fn end(&self, _summary: &JobSummary) -> Result<(), LedgerError> {
        self.called()?;
        self.shared.lock().runs.remove(&self.id);
        Ok(())
    }
}

impl MemRun {
    fn called(&self) -> Result<(), LedgerError> {
        match self.late.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(error) => Err(error),
            None => self.shared.called(),
        }
    }

    fn move_on(&self, id: i64, state: State) -> Result<(), LedgerError> {
        self.change(id, |line| {
            rules::advance(id, rules::rank(&line.record.state), rules::rank(&state))?;
            if matches!(state, State::Finished { .. }) {
                line.held = None;
            }
            line.ranges.clear();
            line.record.error = None;
            line.record.state = state;
            Ok(())
        })
    }

    fn change(
        &self,
        id: i64,
        change: impl FnOnce(&mut Line) -> Result<(), String>,
    ) -> Result<(), LedgerError> {
        self.called()?;
        let now = self.shared.now();
        let mut tables = self.shared.lock();
        let line = tables.held(self.id, id)?;
        change(line).map_err(refused)?;
        line.record.changed = now;
        Ok(())
    }
}

impl Drop for MemRun {
    fn drop(&mut self) {
        self.shared.lock().runs.remove(&self.id);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self) -> Result<(), LedgerError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let from = self.fail_from.load(Ordering::SeqCst);
        match from != 0 && call >= from {
            true => Err(refused("it was told to fail".to_owned())),
            false => Ok(()),
        }
    }

    fn now(&self) -> i64 {
        seconds(SystemTime::now()).saturating_add(self.skew.load(Ordering::SeqCst))
    }

    fn until(&self, lease: Duration) -> i64 {
        self.now().saturating_add(i64::try_from(lease.as_secs()).unwrap_or(i64::MAX))
    }
}

impl Tables {
    fn alive(&mut self, run: i64) -> Result<&mut Owner, LedgerError> {
        self.runs.get_mut(&run).ok_or_else(|| refused("this run was ended".to_owned()))
    }

    fn held(&mut self, run: i64, id: i64) -> Result<&mut Line, LedgerError> {
        self.alive(run)?;
        let line =
            self.lines.get_mut(&id).filter(|line| line.held.is_some_and(|(by, _)| by == run));
        line.ok_or_else(|| refused(rules::lost(id)))
    }

    fn in_the_way(&self, entity: &Entity, hold: Hold, own: &Process, now: i64) -> Option<String> {
        let spot_of = |entity: &Entity| spot(&entity.place, &entity.path);
        let here = spot_of(entity);
        self.lines.values().find_map(|line| {
            let (run, held) = line.held.filter(|_| spot_of(&line.record.entity) == here)?;
            let owner = self.runs.get(&run).filter(|owner| owner.holds(own, now))?;
            let alone = held == Hold::Alone || hold == Hold::Alone;
            (alone || line.record.entity == *entity).then(|| owner.shown())
        })
    }

    fn claim(&mut self, run: i64, entity: Entity, temp: RelPath, hold: Hold, now: i64) -> Claim {
        let known = self.ids.get(&entity);
        if let Some(line) = known.and_then(|id| self.lines.get_mut(id)) {
            match line.record.state {
                State::Finished { gone: true, .. } if hold == Hold::Alone => {
                    line.record.state = State::Claimed { temp };
                    line.record.changed = now;
                    line.held = Some((run, hold));
                    return Claim::New(line.record.id);
                }
                State::Finished { .. } => return Claim::Done(line.record.clone()),
                _ => {}
            }
            line.held = Some((run, hold));
            line.record.attempts += 1;
            let ranges = line.ranges.iter().map(|(from, (to, digest))| (*from..*to, *digest));
            return Claim::Resumed(line.record.clone(), ranges.collect());
        }
        self.last += 1;
        let (id, state) = (self.last, State::Claimed { temp });
        self.ids.insert(entity.clone(), id);
        let record = Record { id, entity, state, changed: now, attempts: 1, error: None };
        self.lines.insert(id, Line { record, ranges: BTreeMap::new(), held: Some((run, hold)) });
        Claim::New(id)
    }
}

fn delivered_as(state: &State) -> Option<&RelPath> {
    match state {
        State::Claimed { .. } | State::Verified { .. } => None,
        State::Delivered { to, .. } | State::Leaving { to, .. } | State::Finished { to, .. } => {
            Some(to)
        }
    }
}

fn refused(text: String) -> LedgerError {
    LedgerError { place: "in memory".to_owned(), text }
}

pub(super) fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
