//! The ledger in a SQLite database, one file for all jobs of a user on this machine.
//!
//! Several processes may use it at the same time. Within one, a single thread writes (`actor`):
//! all calls that wait at the same time share one transaction and one wait for the disk, and are
//! answered after it. `schema` opens and checks the file, `lines` is what a call does to it.
//!
//! SQLite opens the file itself, by its path; that its directory is ours alone is checked before.

mod actor;
mod cells;
mod lines;
mod runs;
mod schema;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fcp_common::private::Process;
use fcp_proto::path::RelPath;

use super::{Book, Claim, Entity, Hold, Ledger, LedgerError, Record, State};
use crate::job::report::JobSummary;
use actor::{Actor, Late, Refused, Tx};
pub(super) use cells::{COLUMNS, record_of};
pub(super) use runs::owner_of;
pub(super) use schema::{failed, open_for_reading};

/// A ledger. Clones are the same one.
#[derive(Clone, Debug)]
pub struct SqliteBook {
    actor: Arc<Actor>,
}

/// What one run sees of it.
#[derive(Debug)]
pub struct SqliteRun {
    actor: Arc<Actor>,
    id: i64,
    /// What went wrong with what was told without waiting.
    late: Late,
}

impl SqliteBook {
    /// Opens the ledger at `path`, or makes it, and its directory for our user only.
    ///
    /// # Errors
    /// It is damaged, of a newer version, others could have changed it, or the disk refuses. It is
    /// never made anew in place of one that is there: files would be sent twice.
    pub fn open(path: &Path) -> Result<SqliteBook, LedgerError> {
        SqliteBook::open_as(path, Process::own())
    }

    /// As [`SqliteBook::open`], in the name of another process.
    pub(super) fn open_as(path: &Path, own: Process) -> Result<SqliteBook, LedgerError> {
        let connection = schema::open(path)?;
        let actor = Actor::start(connection, path, own)?;
        Ok(SqliteBook { actor: Arc::new(actor) })
    }

    /// Transactions so far that waited for the disk.
    pub fn commits(&self) -> u64 {
        self.actor.commits()
    }
}

impl Book for SqliteBook {
    type Run = SqliteRun;

    async fn begin(
        &self,
        job: &str,
        year: Option<i16>,
        lease: Duration,
    ) -> Result<SqliteRun, LedgerError> {
        let job = job.to_owned();
        let id = self.actor.call(move |tx| runs::begin(tx, &job, year, lease)).await?;
        Ok(SqliteRun { actor: self.actor.clone(), id, late: Late::default() })
    }
}

impl Ledger for SqliteRun {
    async fn claim(&self, entity: Entity, temp: RelPath, hold: Hold) -> Result<Claim, LedgerError> {
        let run = self.id;
        self.call(move |tx| lines::claim(tx, run, entity, temp, hold)).await
    }

    async fn claim_all(
        &self,
        wanted: Vec<(Entity, RelPath, Hold)>,
    ) -> Result<Vec<Claim>, LedgerError> {
        let run = self.id;
        self.call(move |tx| lines::claim_all(tx, run, wanted)).await
    }

    async fn renew(&self, lease: Duration) -> Result<(), LedgerError> {
        let run = self.id;
        self.call(move |tx| runs::renew(tx, run, lease)).await
    }

    async fn record(&self, id: i64, state: State) -> Result<(), LedgerError> {
        let run = self.id;
        self.call(move |tx| lines::record(tx, run, id, &state)).await
    }

    fn finish(&self, id: i64, state: State) {
        let run = self.id;
        self.actor.tell_of(&self.late, move |tx| lines::record(tx, run, id, &state));
    }

    fn written(&self, id: i64, range: Range<u64>, digest: u128) {
        let run = self.id;
        self.actor.tell(move |tx| lines::written(tx, run, id, &range, digest));
    }

    async fn restart(&self, id: i64, temp: RelPath) -> Result<(), LedgerError> {
        let run = self.id;
        self.call(move |tx| lines::restart(tx, run, id, temp)).await
    }

    async fn release(&self, id: i64, error: Option<String>) -> Result<(), LedgerError> {
        let run = self.id;
        self.call(move |tx| lines::release(tx, run, id, error.as_deref())).await
    }

    async fn forget(&self, id: i64) -> Result<(), LedgerError> {
        let run = self.id;
        self.call(move |tx| lines::forget(tx, run, id)).await
    }

    async fn open(&self, job: &str) -> Result<Vec<Record>, LedgerError> {
        let job = job.to_owned();
        self.call(move |tx| lines::open(tx, &job)).await
    }

    async fn known(&self, entities: Vec<Entity>) -> Result<Vec<Option<Record>>, LedgerError> {
        self.call(move |tx| lines::known(tx, &entities)).await
    }

    async fn finals(&self, names: Vec<RelPath>) -> Result<Vec<Option<RelPath>>, LedgerError> {
        let run = self.id;
        self.actor.call(move |tx| lines::finals(tx, run, &names)).await
    }

    async fn first_seen(&self, entity: &Entity) -> Result<i64, LedgerError> {
        let entity = entity.clone();
        self.call(move |tx| lines::first_seen(tx, &entity)).await
    }

    async fn end(&self, summary: &JobSummary) -> Result<(), LedgerError> {
        let (run, summary) = (self.id, summary.clone());
        self.call(move |tx| runs::end(tx, run, &summary)).await
    }
}

impl SqliteRun {
    /// Calls, unless something that was told before went wrong, or did in the same transaction.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.late.check()?;
        let done = self.actor.call(work).await?;
        self.late.check()?;
        Ok(done)
    }
}

impl Drop for SqliteRun {
    fn drop(&mut self) {
        let run = self.id;
        self.actor.tell(move |tx| runs::abandon(tx, run));
    }
}

/// A path for a message.
fn shown(path: &Path) -> String {
    fcp_proto::escape(path.as_os_str().as_encoded_bytes())
}

/// The names that SQLite gives to what belongs to the database at `path`.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
