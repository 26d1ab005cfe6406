//! What was done with every file, so that nothing is done twice and nothing is forgotten.
//!
//! The interface is small on purpose: another ledger, in a database that several machines share,
//! stands behind the same calls.

pub mod mem;
pub mod overview;
mod owner;
pub mod place;
mod rules;
pub mod sqlite;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use fcp_proto::path::RelPath;

use super::report::JobSummary;

/// One version of one file of a job's source. A late file with an old time is another entity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entity {
    /// The job's key.
    pub job: String,
    /// Where its source is, see [`place::of`]: a copied jobs.yaml does not inherit a ledger, and
    /// two jobs that put away the same files are kept apart.
    pub place: String,
    /// Below `base_path`.
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i128,
}

/// What a run will do with the source of a file that it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It only reads it (KEEP): several jobs may do so at the same time.
    Shared,
    /// It puts it away (MOVE, DELETE): no other job may hold any version of this file meanwhile.
    Alone,
}

/// How far a file has come. Each state is durable before the step that it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Being copied to `temp`.
    Claimed {
        /// Below the destination's base.
        temp: RelPath,
    },
    /// `temp` is whole and proven; it may be renamed.
    Verified {
        /// Below the destination's base.
        temp: RelPath,
        /// Its final name, likewise.
        to: RelPath,
        /// `sha256:<hex>` where content was proven.
        hash: Option<String>,
    },
    /// It had its final name; what the consumer did since is the consumer's business.
    Delivered {
        /// Below the destination's base.
        to: RelPath,
        /// `sha256:<hex>` where content was proven.
        hash: Option<String>,
    },
    /// The source is being put away to `moved` (none for DELETE).
    Leaving {
        /// The final name of the copy.
        to: RelPath,
        /// `sha256:<hex>`.
        hash: Option<String>,
        /// Where the source goes, below its base.
        moved: Option<RelPath>,
    },
    /// Nothing is left to do.
    Finished {
        /// The final name of the copy.
        to: RelPath,
        /// `sha256:<hex>` where content was proven.
        hash: Option<String>,
        /// What became of the source, for people.
        action: String,
        /// The source was put away: what has its name later is another file, even if it has the
        /// same size and time.
        gone: bool,
    },
}

/// A ledger's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The ledger's own number of the entity.
    pub id: i64,
    /// Which file.
    pub entity: Entity,
    /// How far it is.
    pub state: State,
    /// Seconds since the epoch of the last change.
    pub changed: i64,
    /// Claims so far, the present one with them.
    pub attempts: u32,
    /// The last error, if the last try failed.
    pub error: Option<String>,
}

/// What a claim came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Ours, never seen before; its number.
    New(i64),
    /// Ours; an earlier run left it in this state, with these ranges of the temp written.
    Resumed(Record, Vec<(Range<u64>, u128)>),
    /// Done already; not ours. What was put away and is claimed by who puts away is a new file of
    /// the same looks, and [`Claim::New`].
    Done(Record),
    /// Another run holds it, or holds this file for another job and one of both puts it away.
    Taken {
        /// Which: `job NAME, host:pid:start`.
        owner: String,
    },
}

/// A ledger failed; the run must not go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ledger {place}: {text}")]
pub struct LedgerError {
    /// Its file.
    pub place: String,
    /// What is wrong and what to do.
    pub text: String,
}

/// A ledger, of which runs are made.
pub trait Book: Send + Sync {
    /// What one run sees of it.
    type Run: Ledger;
    /// Begins a run. Its claims hold for `lease`, unless they are renewed, or until this process
    /// ends. A run that is dropped without its end gives everything back.
    fn begin(
        &self,
        job: &str,
        year: Option<i16>,
        lease: Duration,
    ) -> impl Future<Output = Result<Self::Run, LedgerError>> + Send;
}

/// What a run needs of a ledger. Calls may come from many tasks at the same time; an answer means
/// that what was told is durable. What another run took over when a lease was over is an error.
pub trait Ledger: Send + Sync {
    /// Claims an entity for this run, until its lease is over or it is released; `temp` is where a
    /// new one will be staged. Claiming what this run holds already is a mistake and is told as
    /// [`Claim::Taken`].
    fn claim(
        &self,
        entity: Entity,
        temp: RelPath,
        hold: Hold,
    ) -> impl Future<Output = Result<Claim, LedgerError>> + Send;
    /// As [`Ledger::claim`] for many entities at once, in their order.
    fn claim_all(
        &self,
        wanted: Vec<(Entity, RelPath, Hold)>,
    ) -> impl Future<Output = Result<Vec<Claim>, LedgerError>> + Send;
    /// Keeps this run and its claims for another `lease`.
    fn renew(&self, lease: Duration) -> impl Future<Output = Result<(), LedgerError>> + Send;
    /// Moves an entity on. States only go forward; what is `Finished` is given back as well.
    fn record(&self, id: i64, state: State)
    -> impl Future<Output = Result<(), LedgerError>> + Send;
    /// As [`Ledger::record`], told without waiting: durable within a fraction of a second, and when
    /// the run ends. Only for what a crash may take back, as another look finds it out again. What
    /// goes wrong is the error of a later call, of [`Ledger::end`] at the latest.
    fn finish(&self, id: i64, state: State);
    /// Notes a written range of a claimed entity's temp. Told without waiting; durable at some time.
    fn written(&self, id: i64, range: Range<u64>, digest: u128);
    /// Forgets the ranges of an entity that is `Claimed`, or `Verified` with a temp that is broken:
    /// it is `Claimed` again, and its temp begins afresh, under this name.
    fn restart(
        &self,
        id: i64,
        temp: RelPath,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;
    /// Gives an entity back, with the error of this try if it failed.
    fn release(
        &self,
        id: i64,
        error: Option<String>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;
    /// Drops an entity that was never delivered and whose source is gone or has changed; its temp
    /// is gone.
    fn forget(&self, id: i64) -> impl Future<Output = Result<(), LedgerError>> + Send;
    /// The lines of a job that are not finished, to be recovered before anything is listed. Each
    /// must be claimed before anything is done about it.
    fn open(&self, job: &str) -> impl Future<Output = Result<Vec<Record>, LedgerError>> + Send;
    /// What is known of these versions of files, in their order. Claims nothing.
    fn known(
        &self,
        entities: Vec<Entity>,
    ) -> impl Future<Output = Result<Vec<Option<Record>>, LedgerError>> + Send;
    /// Whose these names at the destination are, in their order: the paths of the sources of this
    /// run's job that were delivered under them last.
    fn finals(
        &self,
        names: Vec<RelPath>,
    ) -> impl Future<Output = Result<Vec<Option<RelPath>>, LedgerError>> + Send;
    /// When this version of a file was first seen (seconds since the epoch), noting it now if it
    /// never was: for places whose clock cannot be measured.
    fn first_seen(&self, entity: &Entity) -> impl Future<Output = Result<i64, LedgerError>> + Send;
    /// Ends this run; what it still holds is given back.
    fn end(&self, summary: &JobSummary) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
