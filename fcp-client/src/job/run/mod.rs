//! One run of a job: what an earlier run left is brought to its end, folders are listed and
//! planned, and every file lives its life, many at the same time.
//!
//! One file's failure is its own; a dead host, a broken ledger or a signal ends the run, and what
//! was begun can be gone on with.

mod after;
mod ahead;
mod claim;
mod connect;
mod content;
mod dry;
mod end;
mod file;
pub mod hooks;
mod look;
mod proven;
mod publish;
mod recovery;
mod retry;
mod stage;
mod stop;
mod survey;
mod syncs;
mod tell;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::support as bench;
mod work;
mod zip;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fcp_proto::meta::Timestamp;
use fcp_proto::path::RelPath;

pub use connect::{Tries, Unreached, connect};
pub use dry::dry_run;
pub(crate) use retry::random;
pub use stop::{Halt, Stop};
pub use tell::Listener;

use super::ledger::{Book, Entity, Hold, Ledger, LedgerError};
use super::plan::Skip;
use super::recover::After;
use super::report::JobSummary;
use super::spec::{Action, JobSpec};
use crate::location::{Location, LocationError, Meta};
use retry::Breaker;
use syncs::Syncs;
use tell::Teller;

/// How long a claim holds unless it is renewed; long enough for a laptop's lid.
pub const LEASE: Duration = Duration::from_secs(120);

/// How long after its end was told a run may take for steps that are nearly done, e.g. a rename: less
/// than anybody waits who has pressed Ctrl-C. A server that stalls keeps nobody longer.
const GRACE: Duration = Duration::from_secs(1);

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Order {
    /// The job.
    pub spec: JobSpec,
    /// Its source as the ledger calls it.
    pub place: String,
    /// Where files are picked up.
    pub source: Location,
    /// Where they go.
    pub destination: Location,
    /// Where to look, below the source's base.
    pub folders: Vec<RelPath>,
    /// The year that was asked for.
    pub year: Option<i16>,
    /// Where large files are worked on, with the connections that are made for them; where the
    /// others are, if there is no such place.
    pub large: Option<tokio::runtime::Handle>,
}

/// Runs a job; the job's lock is the caller's. Everything that happens goes to `listener`.
pub async fn run_job<B: Book>(order: Order, book: &B, listener: Listener, stop: &Stop) -> JobSummary
where
    B::Run: 'static,
{
    let began = Instant::now();
    let tell = Arc::new(Teller::new(&order.spec.key, false, listener));
    let stop = stop.child();
    let ledger = match book.begin(&order.spec.key, order.year, LEASE).await {
        Ok(ledger) => Arc::new(ledger),
        Err(error) => {
            stop.halt(Halt::Broken(error.to_string()));
            return summary(&tell, &stop, began);
        }
    };
    let run = Arc::new(Run {
        order,
        ledger,
        tell,
        stop,
        breaker: Breaker::default(),
        made: tokio::sync::Mutex::new(HashSet::new()),
        syncs: Syncs::default(),
        unsynced: AtomicBool::new(false),
    });
    let renewing = tokio::spawn(renew(Arc::clone(&run)));
    tokio::select! {
        () = run.go() => {}
        // Whatever still waits is dropped where it stands, as by a crash, and what it held is given
        // back below; the next run goes on from the ledger.
        () = run.stop.over_for(GRACE) => {}
    }
    renewing.abort();
    // What was told without waiting is durable, or broke the run, before that is summed up.
    if !run.stop.is_over()
        && let Err(error) = run.ledger.renew(LEASE).await
    {
        run.stop.halt(Halt::Broken(error.to_string()));
    }
    let summary = summary(&run.tell, &run.stop, began);
    if let Err(error) = run.ledger.end(&summary).await {
        run.tell.note(error.to_string());
    }
    summary
}

/// The end of a job, with its exit code.
fn summary(tell: &Teller, stop: &Stop, began: Instant) -> JobSummary {
    let mut summary = tell.totals(Clone::clone);
    summary.seconds = began.elapsed().as_secs_f64();
    summary.exit_code = match stop.why() {
        None if summary.failed > 0 => 23,
        None => 0,
        Some(Halt::Cancelled) => {
            summary.error =
                Some("interrupted; the next run goes on where this one ended".to_owned());
            20
        }
        Some(Halt::Dead(text)) => {
            summary.error = Some(text);
            10
        }
        Some(Halt::Broken(text)) => {
            summary.error = Some(text);
            11
        }
    };
    summary
}

async fn renew<L: Ledger + 'static>(run: Arc<Run<L>>) {
    loop {
        tokio::time::sleep(LEASE / 4).await;
        if let Err(error) = run.ledger.renew(LEASE).await {
            run.stop.halt(Halt::Broken(error.to_string()));
        }
    }
}

/// A run while it goes on.
struct Run<L> {
    order: Order,
    ledger: Arc<L>,
    tell: Arc<Teller>,
    stop: Stop,
    breaker: Breaker,
    /// Directories that this run made or found, with the end they are at.
    made: tokio::sync::Mutex<HashSet<(Side, RelPath)>>,
    syncs: Syncs,
    /// The destination announced that it can sync files, and then refused to.
    unsynced: AtomicBool,
}

/// One of both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Source,
    Destination,
}

/// Why a step of a file did not come to its end.
#[derive(Debug)]
enum Trouble {
    /// A location failed.
    Location(LocationError),
    /// The ledger failed: the run ends.
    Ledger(LedgerError),
    /// The file is left alone after all.
    Skip(Skip),
    /// It cannot be done; in words, with what to do.
    Failed(String),
    /// The run ends.
    Halted,
}

impl From<LocationError> for Trouble {
    fn from(error: LocationError) -> Trouble {
        Trouble::Location(error)
    }
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Trouble {
        Trouble::Ledger(error)
    }
}

impl<L: Ledger + 'static> Run<L> {
    async fn go(self: &Arc<Self>) {
        let handled = match recovery::recover(self).await {
            Ok(handled) => handled,
            Err(error) => return self.stop.halt(Halt::Broken(error.to_string())),
        };
        match survey::survey(self, &handled).await {
            Ok(decisions) => work::work(self, decisions).await,
            Err(trouble) => self.end_for(trouble),
        }
    }

    /// Ends the run for what is not one file's trouble.
    fn end_for(&self, trouble: Trouble) {
        match trouble {
            Trouble::Location(error) if error.is_transient() => {
                self.stop.halt(Halt::Dead(error.to_string()));
            }
            Trouble::Location(error) => self.tell.failed(&RelPath::root(), 1, &error.to_string()),
            Trouble::Ledger(error) => self.stop.halt(Halt::Broken(error.to_string())),
            Trouble::Failed(text) => self.tell.failed(&RelPath::root(), 1, &text),
            Trouble::Skip(_) | Trouble::Halted => {}
        }
    }

    fn spec(&self) -> &JobSpec {
        &self.order.spec
    }

    /// Makes a directory unless this run knows that it is there.
    async fn make_dirs(&self, side: Side, dir: &RelPath) -> Result<(), LocationError> {
        if dir.is_root() {
            return Ok(());
        }
        let key = (side, dir.clone());
        let mut made = self.made.lock().await;
        if !made.contains(&key) {
            self.at(side).make_dirs(dir).await?;
            // A folder that is lost takes what is in it along.
            let mut below = dir.clone();
            while let Some((above, _)) = below.split_last() {
                self.sync_dir(side, &above).await?;
                below = above;
            }
            made.insert(key);
        }
        Ok(())
    }

    /// Forgets that a directory is there.
    async fn unmade(&self, side: Side, dir: &RelPath) {
        self.made.lock().await.remove(&(side, dir.clone()));
    }

    /// Does something that no file stands for, with tries.
    async fn patiently<T>(
        &self,
        what: &RelPath,
        mut work: impl AsyncFnMut() -> Result<T, LocationError>,
    ) -> Result<T, Trouble> {
        let mut attempt = 1;
        loop {
            if self.stop.is_over() {
                return Err(Trouble::Halted);
            }
            match work().await {
                Ok(done) => return Ok(done),
                Err(error) if error.is_transient() && attempt < self.spec().transfer.attempts => {
                    self.wait(what, attempt, &error).await;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn wait(&self, file: &RelPath, attempt: u32, error: &LocationError) {
        let base = self.spec().transfer.retry_delay;
        let wait = retry::delay(base, attempt, retry::random());
        self.tell.retried(file, attempt, wait, &error.to_string());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.over() => {}
        }
    }

    fn entity(&self, path: &RelPath, meta: &Meta) -> Entity {
        entity(&self.order, path, meta)
    }

    fn hold(&self) -> Hold {
        match self.spec().done.action {
            Action::Keep => Hold::Shared,
            Action::Move | Action::Delete => Hold::Alone,
        }
    }

    fn after(&self) -> After {
        match (self.spec().done.action, self.spec().done.zip) {
            (Action::Keep, _) => After::Keep,
            (Action::Delete, _) => After::Delete,
            (Action::Move, false) => After::Move,
            (Action::Move, true) => After::Zip,
        }
    }
}

impl<L> Run<L> {
    /// Whether sources go, so that copies must be proven and durable.
    fn sources_go(&self) -> bool {
        self.order.spec.done.action != Action::Keep
    }

    /// Whether copies are made to survive a power cut: wherever that can be had. What is lost under
    /// its final name would never be sent again.
    fn is_durable(&self) -> bool {
        self.order.destination.capabilities().durable && !self.unsynced.load(Ordering::Relaxed)
    }

    fn at(&self, side: Side) -> &Location {
        match side {
            Side::Source => &self.order.source,
            Side::Destination => &self.order.destination,
        }
    }
}

/// A version of a file as the ledger knows it.
fn entity(order: &Order, path: &RelPath, meta: &Meta) -> Entity {
    Entity {
        job: order.spec.key.clone(),
        place: order.place.clone(),
        path: path.clone(),
        size: meta.size,
        mtime: nanos(meta.mtime),
    }
}

/// A place that tells no times has versions by size only.
fn nanos(time: Option<Timestamp>) -> i128 {
    time.map_or(0, |time| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos))
}

fn timestamp(nanos: i128) -> Option<Timestamp> {
    let secs = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    let nanos = u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?;
    Some(Timestamp { secs, nanos })
}
