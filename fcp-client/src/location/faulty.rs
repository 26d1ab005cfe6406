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
    refuses_sync: bool,
    pretends: bool,
    synced: usize,
}

impl Faults {
    /// None yet; `check` is called before and after every call with its name.
    pub fn new(check: impl Fn(&str) + Send + Sync + 'static) -> Arc<Faults> {
        let state = State {
            seen: Vec::new(),
            plan: None,
            for_good: false,
            durable: true,
            refuses_sync: false,
            pretends: false,
            synced: 0,
        };
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

    /// From now on whoever wants a small file synced is told that there is no such call.
    pub fn refuse_sync(&self) {
        self.lock().refuses_sync = true;
    }

    /// Whether renames say yes and do nothing.
    pub fn pretend_renames(&self, pretend: bool) {
        self.lock().pretends = pretend;
    }

    /// Small files that were synced.
    pub fn synced(&self) -> usize {
        self.lock().synced
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

type Work<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Does the same call on whichever variant it is: a box, as a location holds this one.
macro_rules! within {
    ($self:expr, $it:ident => $call:expr) => {
        match &$self.inner {
            Inner::Local($it) => Box::pin($call),
            Inner::Sftp($it) => Box::pin($call),
        }
    };
    ($self:expr, $it:ident => $call:expr, $wrap:ident) => {
        match &$self.inner {
            Inner::Local($it) => Box::pin(async move { $call.await.map($wrap::Local) }),
            Inner::Sftp($it) => Box::pin(async move { $call.await.map($wrap::Sftp) }),
        }
    };
}

#[derive(Clone, Debug)]
enum Inner {
    Local(super::local::Local),
    Sftp(super::sftp::Sftp),
}

impl Inner {
    fn name(&self) -> &str {
        match self {
            Inner::Local(it) => it.name(),
            Inner::Sftp(it) => it.name(),
        }
    }

    fn capabilities(&self) -> Capabilities {
        match self {
            Inner::Local(it) => it.capabilities(),
            Inner::Sftp(it) => it.capabilities(),
        }
    }
}

/// The location.
#[derive(Clone)]
pub struct Faulty {
    inner: Inner,
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
        let inner = match inner {
            Location::Local(it) => Inner::Local(it),
            Location::Sftp(it) => Inner::Sftp(it),
            Location::Faulty(it) => it.inner,
        };
        Location::Faulty(Faulty { inner, faults: Arc::clone(faults) })
    }

    async fn call<T>(&self, op: Op, path: &RelPath, work: Work<'_, T>) -> Result<T> {
        let name = format!("{op} {}: {path}", self.inner.name());
        let fault = self.faults.next(name.clone());
        (self.faults.check)(&name);
        let failed = |reason| {
            LocationError::new(
                self.inner.name(),
                op,
                path.as_bytes(),
                reason,
                "as the test wants it",
            )
        };
        match fault {
            Some(Fault::Fails(reason)) => return Err(failed(reason)),
            Some(Fault::DiesBefore) => self.die().await,
            _ => {}
        }
        let done = work.await;
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
        self.call(Op::List, dir, within!(self, it => it.list(dir))).await
    }

    pub async fn stat(&self, path: &RelPath) -> Result<Option<Meta>> {
        self.call(Op::Stat, path, within!(self, it => it.stat(path))).await
    }

    pub async fn open(&self, path: &RelPath) -> Result<Source> {
        self.call(Op::Open, path, within!(self, it => it.open(path), Source)).await
    }

    pub async fn create(&self, path: &RelPath) -> Result<Sink> {
        self.call(Op::Create, path, within!(self, it => it.create(path), Sink)).await
    }

    pub async fn reopen(&self, path: &RelPath) -> Result<Sink> {
        self.call(Op::Open, path, within!(self, it => it.reopen(path), Sink)).await
    }

    pub async fn read_small(&self, path: &RelPath, size: u64) -> Result<(Bytes, Meta)> {
        self.call(Op::Read, path, within!(self, it => it.read_small(path, size))).await
    }

    pub async fn write_small(
        &self,
        path: &RelPath,
        content: Bytes,
        meta: SetMeta,
        durable: bool,
    ) -> Result<Option<Meta>> {
        if durable {
            self.faults.lock().synced += 1;
        }
        if durable && self.faults.lock().refuses_sync {
            let (place, path) = (self.inner.name(), path.as_bytes());
            let text = "no such call";
            return Err(LocationError::new(place, Op::Sync, path, Reason::Unsupported, text));
        }
        self.call(
            Op::Write,
            path,
            within!(self, it => it.write_small(path, content, meta, durable)),
        )
        .await
    }

    pub async fn rename_new(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        if self.faults.lock().pretends {
            return self.call(Op::Rename, from, Box::pin(async { Ok(()) })).await;
        }
        self.call(Op::Rename, from, within!(self, it => it.rename_new(from, to))).await
    }

    pub async fn replace(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.call(Op::Rename, from, within!(self, it => it.replace(from, to))).await
    }

    pub async fn recover_replace(&self, to: &RelPath) -> Result<()> {
        self.call(Op::Rename, to, within!(self, it => it.recover_replace(to))).await
    }

    pub async fn remove(&self, path: &RelPath) -> Result<()> {
        self.call(Op::Remove, path, within!(self, it => it.remove(path))).await
    }

    pub async fn make_dirs(&self, dir: &RelPath) -> Result<()> {
        self.call(Op::MakeDir, dir, within!(self, it => it.make_dirs(dir))).await
    }

    pub async fn set_meta(&self, path: &RelPath, meta: SetMeta) -> Result<()> {
        self.call(Op::SetMeta, path, within!(self, it => it.set_meta(path, meta))).await
    }

    pub async fn sync_dir(&self, dir: &RelPath) -> Result<bool> {
        self.call(Op::Sync, dir, within!(self, it => it.sync_dir(dir))).await
    }

    pub async fn clock(&self, dir: &RelPath) -> Result<Clock> {
        self.call(Op::Stat, dir, within!(self, it => it.clock(dir))).await
    }

    pub async fn digest(&self, path: &RelPath, kinds: &[DigestKind]) -> Result<Option<Digest>> {
        self.call(Op::Hash, path, within!(self, it => it.digest(path, kinds))).await
    }

    pub async fn free_bytes(&self) -> Result<Option<u64>> {
        match &self.inner {
            Inner::Local(it) => it.free_bytes().await,
            Inner::Sftp(it) => it.free_bytes().await,
        }
    }

    pub async fn read_link(&self, path: &RelPath) -> Result<Vec<u8>> {
        self.call(Op::ReadLink, path, within!(self, it => it.read_link(path))).await
    }

    pub async fn symlink(&self, content: &[u8], path: &RelPath) -> Result<()> {
        self.call(Op::Symlink, path, within!(self, it => it.symlink(content, path))).await
    }

    pub async fn remove_dir(&self, path: &RelPath) -> Result<()> {
        self.call(Op::Remove, path, within!(self, it => it.remove_dir(path))).await
    }
}
