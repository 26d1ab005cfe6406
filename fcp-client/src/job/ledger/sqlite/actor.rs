//! The one thread that writes, and how calls come to share its transactions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use fcp_common::private::Process;
use rusqlite::{Connection, Statement};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::schema::{failed, told};
use crate::job::ledger::LedgerError;

/// So long a transaction waits for more calls while they keep coming: what a file's work waits
/// itself, less than a wait for most disks. Asleep: callers do not have to wake the thread.
const GATHER: Duration = Duration::from_millis(1);

/// Such waits for one transaction, while those who were answered by the last one are not back.
const NAPS: u32 = 3;

/// A transaction with one call each, so many of them one right after the other, are several callers
/// all the same.
const STREAK: u32 = 3;

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
        let home = Handle::try_current().ok();
        self.send(Typed { work: Some(work), done: None, reply: Reply::To(reply, home) });
        answer.await.unwrap_or_else(|_| Err(told(&self.path, "its writer has stopped")))
    }

    /// Does `work` in one of the next transactions.
    pub(super) fn tell(
        &self,
        work: impl FnOnce(&mut Tx<'_, '_>) -> Result<(), Refused> + Send + 'static,
    ) {
        self.send(Typed { work: Some(work), done: None, reply: Reply::Nobody });
    }

    /// As [`Actor::tell`]; what goes wrong is kept in `late`.
    pub(super) fn tell_of(
        &self,
        late: &Late,
        work: impl FnOnce(&mut Tx<'_, '_>) -> Result<(), Refused> + Send + 'static,
    ) {
        self.send(Typed { work: Some(work), done: None, reply: Reply::Late(late.clone()) });
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn send(&self, call: impl Call + 'static) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = &*calls
            && let Err(stopped) = calls.send(Box::new(call))
        {
            let stop = told(&self.path, "its writer has stopped");
            stopped.0.answer(Err(stop), &self.path);
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
    /// Where its caller waits.
    fn home(&self) -> Option<&Handle>;
    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), LedgerError>, path: &Path);
}

struct Typed<T, F> {
    work: Option<F>,
    done: Option<Result<T, String>>,
    reply: Reply<T>,
}

/// Who hears what a call came to.
enum Reply<T> {
    To(oneshot::Sender<Result<T, LedgerError>>, Option<Handle>),
    Late(Late),
    Nobody,
}

/// Keeps the first error of what nobody waited for. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Late(Arc<OnceLock<LedgerError>>);

impl Late {
    /// The error, if there was one.
    pub(super) fn check(&self) -> Result<(), LedgerError> {
        self.0.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}

impl<T: Send, F> Call for Typed<T, F>
where
    F: FnOnce(&mut Tx<'_, '_>) -> Result<T, Refused> + Send,
{
    fn is_waited_for(&self) -> bool {
        matches!(self.reply, Reply::To(..))
    }

    fn home(&self) -> Option<&Handle> {
        match &self.reply {
            Reply::To(_, home) => home.as_ref(),
            Reply::Late(_) | Reply::Nobody => None,
        }
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
        match (self.reply, answer) {
            (Reply::To(reply, _), answer) => {
                let _ = reply.send(answer);
            }
            (Reply::Late(late), Err(error)) => {
                let _ = late.0.set(error);
            }
            (Reply::Late(_) | Reply::Nobody, _) => {}
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
            let mut pace = Pace::default();
            while let Some(group) = pace.gather(queue) {
                self.commit(group, &mut statements);
                pace.ended = Some(Instant::now());
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
        let path = self.path.clone();
        // First, so that whoever is answered finds what went wrong with what was told before.
        let (group, told): (Vec<_>, Vec<_>) = group.into_iter().partition(|c| c.is_waited_for());
        told.into_iter().for_each(|call| call.answer(done.clone(), &path));
        let home = group.iter().find_map(|call| call.home()).cloned();
        let answer = move || group.into_iter().for_each(|call| call.answer(done.clone(), &path));
        match home {
            // Callers that are woken there wake each other, which costs nothing, and not each one a
            // thread that sleeps.
            Some(home) => drop(home.spawn(async move { answer() })),
            None => answer(),
        }
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

/// How calls come.
#[derive(Default)]
struct Pace {
    /// The end of the last transaction.
    ended: Option<Instant>,
    /// How many waited for it.
    last: usize,
    /// Transactions before it with one call, one right after the other.
    alone: u32,
}

/// The calls of one transaction.
#[derive(Default)]
struct Group {
    calls: Vec<Box<dyn Call>>,
    waited: usize,
}

impl Group {
    fn push(&mut self, call: Box<dyn Call>) {
        self.waited += usize::from(call.is_waited_for());
        self.calls.push(call);
    }

    fn is_full(&self) -> bool {
        self.calls.len() >= MOST
    }
}

impl Pace {
    /// The calls of the next transaction; `None` when there will be no more.
    fn gather(&mut self, queue: &Receiver<Box<dyn Call>>) -> Option<Vec<Box<dyn Call>>> {
        let mut group = Group::default();
        group.push(queue.recv().ok()?);
        let lazy_until = Instant::now() + LAZY;
        while group.waited == 0 && !group.is_full() {
            let Ok(call) = queue.recv_timeout(lazy_until - Instant::now().min(lazy_until)) else {
                break;
            };
            group.push(call);
        }
        let naps = if self.is_busy() { NAPS } else { 0 };
        for nap in 0..=naps {
            while !group.is_full()
                && let Ok(call) = queue.try_recv()
            {
                group.push(call);
            }
            // The first nap is worth it as long as more than one is there to come.
            let enough = nap > 0 && group.waited >= self.last;
            if nap == naps || enough || group.is_full() {
                break;
            }
            std::thread::sleep(GATHER);
        }
        self.alone = if group.waited > 1 { 0 } else { self.alone.saturating_add(1) % (STREAK + 1) };
        self.last = group.waited;
        Some(group.calls)
    }

    /// Whether others are about to call: several did just now.
    fn is_busy(&self) -> bool {
        let just_now = self.ended.is_some_and(|at| at.elapsed() < 2 * GATHER);
        just_now && (self.last > 1 || self.alone >= STREAK)
    }
}
