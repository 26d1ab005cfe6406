//! A location whose calls fail, lose their answers or never come back, as a test wants it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fcp_proto::path::RelPath;

use super::{
    Capabilities, Clock, Digest, DigestKind, Listing, Location, LocationError, Meta, Op, Reason,
    Result, SetMeta, Sink, Source,
};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails and does nothing.
    Fails(Reason),
    /// It is done, and its answer is lost.
    Unanswered(Reason),
    /// The program dies before it.
    DiesBefore,
    /// The program dies after it.
    DiesAfter,
}

/// Which call fails, and how; shared by all locations of a test.
pub struct Faults {
    state: Mutex<State>,
    /// Asked before and after every call whether all is well.
    check: Box<dyn Fn(&str) + Send + Sync>,
    /// Told when the program is to die.
    pub died: tokio::sync::Notify,
}

struct State {
    seen: Vec<String>,
    plan: Option<(usize, Fault)>,
    /// All calls from the planned one on.
    for_good: bool,
    durable: bool,
}

impl Faults {
    /// None yet; `check` is called before and after every call with its name.
    pub fn new(check: impl Fn(&str) + Send + Sync + 'static) -> Arc<Faults> {
        let state = State { seen: Vec::new(), plan: None, for_good: false, durable: true };
        let check = Box::new(check);
        Arc::new(Faults { state: Mutex::new(state), check, died: tokio::sync::Notify::new() })
    }

    /// The call with this number (the next one is 0) fails so.
    pub fn plan(&self, number: usize, fault: Fault) {
        let mut state = self.lock();
        state.plan = Some((state.seen.len() + number, fault));
    }

    /// The call with this number and all after it fail so.
    pub fn plan_for_good(&self, number: usize, fault: Fault) {
        self.plan(number, fault);
        self.lock().for_good = true;
    }

    /// From here on nothing fails.
    pub fn clear(&self) {
        let mut state = self.lock();
        (state.plan, state.for_good) = (None, false);
    }

    /// No location can promise durability any more.
    pub fn not_durable(&self) {
        self.lock().durable = false;
    }

    /// The calls so far.
    pub fn seen(&self) -> Vec<String> {
        self.lock().seen.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, name: String) -> Option<Fault> {
        let mut state = self.lock();
        let number = state.seen.len();
        state.seen.push(name);
        let (at, fault) = state.plan?;
        (number == at || state.for_good && number > at).then_some(fault)
    }
}

/// The location.
#[derive(Clone)]
pub struct Faulty {
    inner: Box<Location>,
    faults: Arc<Faults>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.inner).finish()
    }
}

#[allow(missing_docs)]
impl Faulty {
    pub fn over(inner: Location, faults: &Arc<Faults>) -> Location {
        Location::Faulty(Faulty { inner: Box::new(inner), faults: Arc::clone(faults) })
    }

    async fn call<T>(&self, op: Op, path: &RelPath, work: impl Future<Output = Result<T>>) -> Result<T> {
        let name = format!("{op} {}: {path}", self.inner.name());
        let fault = self.faults.next(name.clone());
        (self.faults.check)(&name);
        let failed = |reason| {
            LocationError::new(self.inner.name(), op, path.as_bytes(), reason, "as the test wants it")
        };
        match fault {
            Some(Fault::Fails(reason)) => return Err(failed(reason)),
            Some(Fault::DiesBefore) => self.die().await,
            _ => {}
        }
        let done = Box::pin(work).await;
        (self.faults.check)(&name);
        match fault {
            Some(Fault::Unanswered(reason)) => return Err(failed(reason)),
            Some(Fault::DiesAfter) => self.die().await,
            _ => {}
        }
        done
    }

    async fn die(&self) {
        self.faults.died.notify_one();
        std::future::pending::<()>().await;
    }

    pub fn capabilities(&self) -> Capabilities {
        let durable = self.faults.lock().durable;
        let inner = self.inner.capabilities();
        Capabilities { durable: durable && inner.durable, ..inner }
    }

    pub fn name(&self) -> &str {
        self.inner.name()
    }

    pub async fn list(&self, dir: &RelPath) -> Result<Listing> {
        self.call(Op::List, dir, self.inner.list(dir)).await
    }

    pub async fn stat(&self, path: &RelPath) -> Result<Option<Meta>> {
        self.call(Op::Stat, path, self.inner.stat(path)).await
    }

    pub async fn open(&self, path: &RelPath) -> Result<Source> {
        self.call(Op::Open, path, self.inner.open(path)).await
    }

    pub async fn create(&self, path: &RelPath) -> Result<Sink> {
        self.call(Op::Create, path, self.inner.create(path)).await
    }

    pub async fn reopen(&self, path: &RelPath) -> Result<Sink> {
        self.call(Op::Open, path, self.inner.reopen(path)).await
    }

    pub async fn read_small(&self, path: &RelPath, size: u64) -> Result<(Bytes, Meta)> {
        self.call(Op::Read, path, self.inner.read_small(path, size)).await
    }

    pub async fn write_small(
        &self,
        path: &RelPath,
        content: Bytes,
        meta: SetMeta,
        durable: bool,
    ) -> Result<()> {
        self.call(Op::Write, path, self.inner.write_small(path, content, meta, durable)).await
    }

    pub async fn rename_new(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.call(Op::Rename, from, self.inner.rename_new(from, to)).await
    }

    pub async fn replace(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.call(Op::Rename, from, self.inner.replace(from, to)).await
    }

    pub async fn recover_replace(&self, to: &RelPath) -> Result<()> {
        self.call(Op::Rename, to, self.inner.recover_replace(to)).await
    }

    pub async fn remove(&self, path: &RelPath) -> Result<()> {
        self.call(Op::Remove, path, self.inner.remove(path)).await
    }

    pub async fn make_dirs(&self, dir: &RelPath) -> Result<()> {
        self.call(Op::MakeDir, dir, self.inner.make_dirs(dir)).await
    }

    pub async fn set_meta(&self, path: &RelPath, meta: SetMeta) -> Result<()> {
        self.call(Op::SetMeta, path, self.inner.set_meta(path, meta)).await
    }

    pub async fn sync_dir(&self, dir: &RelPath) -> Result<bool> {
        self.call(Op::Sync, dir, self.inner.sync_dir(dir)).await
    }

    pub async fn clock(&self, dir: &RelPath) -> Result<Clock> {
        self.call(Op::Stat, dir, self.inner.clock(dir)).await
    }

    pub async fn digest(&self, path: &RelPath, kinds: &[DigestKind]) -> Result<Option<Digest>> {
        self.call(Op::Hash, path, self.inner.digest(path, kinds)).await
    }

    pub async fn read_link(&self, path: &RelPath) -> Result<Vec<u8>> {
        self.call(Op::ReadLink, path, self.inner.read_link(path)).await
    }

    pub async fn symlink(&self, content: &[u8], path: &RelPath) -> Result<()> {
        self.call(Op::Symlink, path, self.inner.symlink(content, path)).await
    }

    pub async fn remove_dir(&self, path: &RelPath) -> Result<()> {
        self.call(Op::Remove, path, self.inner.remove_dir(path)).await
    }
}
