//! The one thread that writes, and how calls come to share its transactions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use fcp_common::private::Process;
use rusqlite::{Connection, Statement};
use tokio::sync::oneshot;

use super::schema::{failed, told};
use crate::job::ledger::LedgerError;

/// Those who were answered together call again at about the same time: the next transaction waits
/// so long for as many. Well under a wait for the disk.
const GATHER: Duration = Duration::from_millis(1);

/// What nobody waits for becomes durable after this time at the latest.
const LAZY: Duration = Duration::from_millis(200);

/// Calls in one transaction, so that other processes get their turn.
const MOST: usize = 4096;

/// A call that is refused, or that failed.
pub(super) enum Refused {
    /// The ledger works; only this call is refused. It changed nothing.
    Told(String),
    /// The ledger failed; the whole transaction goes back.
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Refused {
        Refused::Failed(error)
    }
}

/// What calls work on: one transaction.
pub(super) struct Tx<'a, 'c> {
    statements: &'a mut Statements<'c>,
    /// Seconds since the epoch.
    pub(super) now: i64,
    /// This process.
    pub(super) own: &'a Process,
}

impl<'c> Tx<'_, 'c> {
    /// A statement, prepared once in the life of the thread.
    pub(super) fn statement(&mut self, sql: &'static str) -> rusqlite::Result<&mut Statement<'c>> {
        self.statements.get(sql)
    }
}

struct Statements<'c> {
    connection: &'c Connection,
    prepared: HashMap<&'static str, Statement<'c>>,
}

impl<'c> Statements<'c> {
    fn get(&mut self, sql: &'static str) -> rusqlite::Result<&mut Statement<'c>> {
        use std::collections::hash_map::Entry;
        match self.prepared.entry(sql) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(free) => Ok(free.insert(self.connection.prepare(sql)?)),
        }
    }
}

/// The handle of the thread; when it is dropped, what was told is committed and the thread ends.
#[derive(Debug)]
pub(super) struct Actor {
    path: PathBuf,
    /// Unbounded: each waiting task has one call in it, and ranges come at the pace of a disk.
    calls: Mutex<Option<Sender<Box<dyn Call>>>>,
    commits: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Actor {
    pub(super) fn start(
        connection: Connection,
        path: &Path,
        own: Process,
    ) -> Result<Actor, LedgerError> {
        let (calls, queue) = channel();
        let commits = Arc::new(AtomicU64::new(0));
        let writer = Writer { path: path.to_owned(), own, commits: commits.clone() };
        let thread = std::thread::Builder::new().name("ledger".to_owned());
        let thread = thread.spawn(move || writer.run(connection, &queue));
        let thread = thread.map_err(|error| told(path, &format!("no thread for it: {error}")))?;
        let calls = Mutex::new(Some(calls));
        Ok(Actor { path: path.to_owned(), calls, commits, thread: Some(thread) })
    }

    /// Does `work` in the next transaction and answers when that is durable.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Typed { work: Some(work), done: None, reply: Some(reply) });
        answer.await.unwrap_or_else(|_| Err(told(&self.path, "its writer has stopped")))
    }

    /// Does `work` in one of the next transactions.
    pub(super) fn tell(
        &self,
        work: impl FnOnce(&mut Tx<'_, '_>) -> Result<(), Refused> + Send + 'static,
    ) {
        self.send(Typed { work: Some(work), done: None, reply: None });
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn send(&self, call: impl Call + 'static) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = &*calls {
            // A stopped writer drops the call, and with it what its caller waits for.
            let _ = calls.send(Box::new(call));
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One call of whatever kind.
trait Call: Send {
    fn is_waited_for(&self) -> bool;
    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), LedgerError>, path: &Path);
}

struct Typed<T, F> {
    work: Option<F>,
    done: Option<Result<T, String>>,
    reply: Option<oneshot::Sender<Result<T, LedgerError>>>,
}

impl<T: Send, F> Call for Typed<T, F>
where
    F: FnOnce(&mut Tx<'_, '_>) -> Result<T, Refused> + Send,
{
    fn is_waited_for(&self) -> bool {
        self.reply.is_some()
    }

    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.done = match work(tx) {
            Ok(value) => Some(Ok(value)),
            Err(Refused::Told(text)) => Some(Err(text)),
            Err(Refused::Failed(error)) => return Err(error),
        };
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), LedgerError>, path: &Path) {
        let answer = match (committed, self.done) {
            (Ok(()), Some(done)) => done.map_err(|text| told(path, &text)),
            (Ok(()), None) => Err(told(path, "its writer has stopped")),
            (Err(error), _) => Err(error),
        };
        if let Some(reply) = self.reply {
            let _ = reply.send(answer);
        }
    }
}

struct Writer {
    path: PathBuf,
    own: Process,
    commits: Arc<AtomicU64>,
}

impl Writer {
    fn run(self, connection: Connection, queue: &Receiver<Box<dyn Call>>) {
        {
            let mut statements = Statements { connection: &connection, prepared: HashMap::new() };
            let mut last = 0;
            while let Some(group) = gather(queue, last) {
                last = group.iter().filter(|call| call.is_waited_for()).count();
                self.commit(group, &mut statements);
            }
        }
        // Puts the WAL back into the file, so that a copy of it alone is whole.
        let _ = connection.close();
    }

    fn commit(&self, mut group: Vec<Box<dyn Call>>, statements: &mut Statements<'_>) {
        let done = self.transaction(&mut group, statements);
        if done.is_err() && !statements.connection.is_autocommit() {
            let _ = statements.connection.execute_batch("ROLLBACK");
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        let done = done.map_err(|error| failed(&self.path, &error));
        group.into_iter().for_each(|call| call.answer(done.clone(), &self.path));
    }

    fn transaction(
        &self,
        group: &mut [Box<dyn Call>],
        statements: &mut Statements<'_>,
    ) -> rusqlite::Result<()> {
        statements.get("BEGIN IMMEDIATE")?.execute(())?;
        let now = super::super::mem::seconds(SystemTime::now());
        let mut tx = Tx { statements, now, own: &self.own };
        for call in group.iter_mut() {
            call.run(&mut tx)?;
        }
        statements.get("COMMIT")?.execute(())?;
        Ok(())
    }
}

/// The calls of the next transaction; `last` is how many waited for the one before. `None` when
/// there will be no more.
fn gather(queue: &Receiver<Box<dyn Call>>, last: usize) -> Option<Vec<Box<dyn Call>>> {
    let mut group = vec![queue.recv().ok()?];
    let lazy_until = Instant::now() + LAZY;
    let mut waited = usize::from(group[0].is_waited_for());
    let mut until = if waited > 0 { Instant::now() + GATHER } else { lazy_until };
    while group.len() < MOST {
        let enough = waited > 0 && waited >= last;
        let left = if enough { Duration::ZERO } else { until - Instant::now().min(until) };
        match queue.recv_timeout(left) {
            Ok(call) => {
                waited += usize::from(call.is_waited_for());
                group.push(call);
                if waited == 1 {
                    until = until.min(Instant::now() + GATHER);
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    Some(group)
}
