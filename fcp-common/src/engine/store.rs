//! The receiver's disk: where things go, and how each action is done.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{Durability, Outcome, WireError};
use fcp_proto::{Digest, ErrorCode, Name, RelPath, SourceVersion, Timestamp};

use super::destination::Destination;
use crate::fs::{
    self, Dir, DirPool, Expected, File, Kind, LazyDir, PublishError, RunId, Stat, SyncPolicy, Temp,
    TempNames, is_reserved,
};
use crate::journal::{DeadRun, RunJournal, adopt, recover};
use crate::transfer::{Existing, FileMeta, MadeDir, digest};
use crate::walk::io_error;

/// Directories kept open at once; `RLIMIT_NOFILE` is rarely below 1024.
const OPEN_DIRS: usize = 256;
/// Files at least this long are journalled block by block. What is shorter is sent again whole
/// after a crash, which costs no more than the blocks that are in flight.
const RESUMABLE: u64 = 8 << 20;
/// Files at least this long are checked against the free space before they begin.
const CHECK_SPACE: u64 = 64 << 20;

/// Everything the receiving end does to the disk.
pub(super) struct Store {
    root: Arc<DestDir>,
    names: TempNames,
    journal: RwLock<Option<RunJournal>>,
    dead: Mutex<Vec<DeadRun>>,
    sync: SyncPolicy,
    dry_run: bool,
    /// Temps that the journal knows and that are neither published nor given up.
    resumable: AtomicUsize,
    /// Hashes of the paths of the links that this run made: a peer must not first place a link and
    /// then write through it. What was there before is the user's own, and is followed.
    links: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

/// A directory at the destination; in a dry run it may not exist.
pub(super) struct DestDir {
    lazy: Option<Arc<LazyDir>>,
    path: RelPath,
    /// We made it, so nothing stands in it that we have not put there.
    fresh: bool,
    journalled: AtomicBool,
}

/// A file at the destination that may get content.
pub(super) struct DestFile {
    dir: Arc<DestDir>,
    name: Name,
    version: SourceVersion,
    expected: Expected,
    temp: Mutex<Slot>,
}

/// A file's temporary file.
enum Slot {
    /// None yet.
    Empty,
    Open(Arc<OpenTemp>),
    /// The file is published or given up: late content must not make another one.
    Closed,
}

struct OpenTemp {
    /// `None` once published or given up.
    temp: Option<Temp>,
    journal_no: Option<u32>,
    /// Held while a block is written. The kernel lets one thread at a time write to a file and has
    /// the others spin; asleep here, they leave their core to whoever sends.
    writing: Mutex<()>,
    given_up: AtomicBool,
}

impl OpenTemp {
    fn new(temp: Temp, journal_no: Option<u32>) -> OpenTemp {
        let given_up = AtomicBool::new(false);
        OpenTemp { temp: Some(temp), journal_no, writing: Mutex::new(()), given_up }
    }
}

impl Drop for OpenTemp {
    fn drop(&mut self) {
        // Unless the file was given up, the session broke off: what the journal knows is for the
        // next run.
        if let (Some(temp), Some(_)) = (self.temp.take(), self.journal_no)
            && !self.given_up.load(Ordering::Acquire)
        {
            temp.keep();
        }
    }
}

impl Store {
    /// A store below `destination`; looks for what dead runs left there, and cleans after them.
    pub(super) fn open(destination: &Destination, durability: Durability, dry_run: bool) -> Store {
        let run = RunId::random();
        let pool = DirPool::new(OPEN_DIRS);
        let dead = match &destination.root {
            Some(root) if !dry_run => recover(root),
            _ => Vec::new(),
        };
        let lazy = destination.root.as_ref().map(|root| LazyDir::root(Arc::clone(root), pool));
        let journal = destination.root.as_ref().filter(|_| !dry_run);
        Store {
            root: Arc::new(DestDir::new(lazy, RelPath::root(), destination.created)),
            names: TempNames::new(run),
            journal: RwLock::new(journal.map(|r| RunJournal::create_lazily(Arc::clone(r), run))),
            dead: Mutex::new(dead),
            sync: match durability {
                Durability::None => SyncPolicy::None,
                Durability::Batch => SyncPolicy::Batch,
                Durability::Always => SyncPolicy::Always,
            },
            dry_run,
            resumable: AtomicUsize::new(0),
            links: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn root(&self) -> Arc<DestDir> {
        Arc::clone(&self.root)
    }

    pub(super) fn has_dead_runs(&self) -> bool {
        !self.dead.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn make_dir(
        &self,
        parent: &DestDir,
        name: &Name,
        path: RelPath,
        mode: u16,
    ) -> Result<(Arc<DestDir>, MadeDir), WireError> {
        refuse_reserved(name)?;
        if self.dry_run {
            return self.find_dir(parent, name, path);
        }
        if self.links().contains(&self.hasher.hash_one(&path)) {
            return Err(publish_error(PublishError::NotDirectory));
        }
        let (lazy, parent) = parent.open()?;
        let made =
            fs::publish_dir(lazy.root_dir(), &parent, &path, mode.into()).map_err(publish_error)?;
        let before = if made.created {
            MadeDir { created: true, mode, mtime: Timestamp::default(), widened: false }
        } else {
            let stat = made.dir.own_stat().map_err(|e| at_destination(&e))?;
            let mode = made.restore_mode.unwrap_or(stat.mode) as u16 & 0o777;
            let widened = made.restore_mode.is_some();
            MadeDir { created: false, mode, mtime: stat.mtime, widened }
        };
        let below = lazy.below(path.clone(), Some(made.dir));
        Ok((Arc::new(DestDir::new(Some(below), path, made.created)), before))
    }

    pub(super) fn inspect(
        &self,
        dir: &Arc<DestDir>,
        name: Name,
        version: SourceVersion,
    ) -> Result<(Existing, Arc<DestFile>), WireError> {
        refuse_reserved(&name)?;
        let stat = dir.stat(&name)?;
        let existing = match stat {
            None => Existing::Absent,
            Some(s) => match s.kind {
                Kind::File => {
                    Existing::File { size: s.size, mtime: s.mtime, mode: (s.mode & 0o777) as u16 }
                }
                Kind::Dir => Existing::Dir,
                Kind::Symlink => Existing::Symlink { same: false, mtime: s.mtime },
                Kind::Other => Existing::Special,
            },
        };
        let expected = stat.map_or(Expected::Absent, Expected::Same);
        let dir = Arc::clone(dir);
        let file = DestFile { dir, name, version, expected, temp: Mutex::new(Slot::Empty) };
        Ok((existing, Arc::new(file)))
    }

    pub(super) fn link(
        &self,
        parent: &Arc<DestDir>,
        name: &Name,
        target: &[u8],
        mtime: Option<Timestamp>,
    ) -> Result<Outcome, WireError> {
        refuse_reserved(name)?;
        let Some(stat) = parent.stat(name)? else {
            return self.make_link(
                parent,
                name,
                target,
                mtime,
                &Expected::Absent,
                Outcome::Created,
            );
        };
        if stat.kind == Kind::Dir {
            return Err(WireError::new(ErrorCode::IS_DIRECTORY, "a directory is in the way"));
        }
        let (_, dir) = parent.open()?;
        let same_target = stat.kind == Kind::Symlink
            && dir.read_link(name).map_err(|e| at_destination(&e))? == target;
        if same_target {
            let Some(mtime) = mtime.filter(|t| *t != stat.mtime) else { return Ok(Outcome::Same) };
            if !self.dry_run {
                dir.set_times(name, mtime).map_err(|e| at_destination(&e))?;
            }
            return Ok(Outcome::Metadata);
        }
        self.make_link(parent, name, target, mtime, &Expected::Same(stat), Outcome::Replaced)
    }

    /// Writes content that lies in `pieces` of `base` at `offset`.
    pub(super) fn write(
        &self,
        file: &DestFile,
        offset: u64,
        base: &[u8],
        pieces: &[Range<usize>],
        block: Digest,
    ) -> Result<(), WireError> {
        let temp = self.temp_for(file)?;
        let Some(open) = &temp.temp else { return Ok(()) };
        let mut slices: Vec<_> = pieces.iter().map(|p| IoSlice::new(&base[p.clone()])).collect();
        let one_at_a_time = temp.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = open.file().write_all_vectored_at(&mut slices, offset);
        drop(one_at_a_time);
        written.map_err(|e| at_destination(&e))?;
        if let Some(no) = temp.journal_no {
            // A block number fits: the journal refuses files of more than 2^32 blocks at begin.
            self.with_journal(|j| j.blocks(no, &[((offset / BLOCK) as u32, block)]));
        }
        Ok(())
    }

    /// Writes a small file and gives it its name.
    pub(super) fn write_whole(
        &self,
        file: &DestFile,
        content: &[u8],
        meta: FileMeta,
    ) -> Result<(), WireError> {
        let temp = self.create_temp(file)?;
        temp.file().write_all_at(content, 0).map_err(|e| at_destination(&e))?;
        self.rename(file, temp, meta)
    }

    /// Gives a complete file its name; one that got no content is empty.
    pub(super) fn publish(&self, file: &DestFile, meta: FileMeta) -> Result<(), WireError> {
        // No writer is left when the machine says publish, so this is the only holder.
        let Some(mut open) = file.close().and_then(Arc::into_inner) else {
            let temp = self.create_temp(file)?;
            return self.rename(file, temp, meta);
        };
        let (temp, no) = (open.temp.take(), open.journal_no);
        let done = temp.map_or(Ok(()), |temp| self.rename(file, temp, meta));
        self.end(no);
        done
    }

    pub(super) fn set_meta(&self, file: &DestFile, meta: FileMeta) -> Result<(), WireError> {
        let (_, dir) = file.dir.open()?;
        let now = dir.stat(&file.name).map_err(|e| at_destination(&e))?;
        if let (Some(now), Expected::Same(before)) = (&now, &file.expected)
            && !now.is_same_version(before)
        {
            return Err(publish_error(PublishError::DestinationChanged));
        }
        let set = || {
            if let Some(mode) = meta.mode {
                dir.set_mode(&file.name, mode.into())?;
            }
            meta.mtime.map_or(Ok(()), |mtime| dir.set_times(&file.name, mtime))
        };
        set().map_err(|e: io::Error| at_destination(&e))
    }

    /// BLAKE3 of each block of what stands under the file's name.
    pub(super) fn hash(&self, file: &DestFile) -> Result<Vec<[u8; 32]>, WireError> {
        let (_, dir) = file.dir.open()?;
        let hashes = dir.open_file(&file.name).and_then(|(f, stat)| hash_blocks(&f, stat.size));
        hashes.map_err(|e| at_destination(&e))
    }

    /// Takes over what a dead run has of the file.
    pub(super) fn recover(&self, file: &DestFile) -> Vec<(u32, Digest)> {
        if file.version.size < RESUMABLE {
            return Vec::new();
        }
        let path = file.path();
        let mut partials: Vec<_> = {
            let dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
            dead.iter().filter_map(|run| run.take(&path, &file.version)).collect()
        };
        partials.sort_by_key(|p| p.kept.len());
        let Some(best) = partials.pop() else {
            return Vec::new();
        };
        // Now and not at the end: runs that crash again and again would leave one after the other.
        partials
            .iter()
            .for_each(|worse| drop(file.dir.open_io().map(|(_, d)| d.unlink(&worse.temp))));
        self.adopt(file, &path, &best).unwrap_or_else(|error| {
            tracing::info!("cannot resume {path}: {error}");
            Vec::new()
        })
    }

    /// Which of the `kept` blocks do not match their digests.
    pub(super) fn rehash(&self, file: &DestFile, kept: &[(u32, Digest)], size: u64) -> Vec<u32> {
        let temp = match &*file.temp.lock().unwrap_or_else(PoisonError::into_inner) {
            Slot::Open(open) => Some(Arc::clone(open)),
            Slot::Empty | Slot::Closed => None,
        };
        let open = temp.as_ref().and_then(|t| t.temp.as_ref());
        let mut buf = vec![0; BLOCK as usize];
        let mut matches = |n: u32, expected: Digest| {
            let offset = u64::from(n) * BLOCK;
            let len = BLOCK.min(size - offset) as usize;
            let read = open.map(|t| t.file().read_full_at(&mut buf[..len], offset));
            matches!(read, Some(Ok(n)) if n == len) && digest(&buf[..len]) == expected
        };
        kept.iter().filter(|(n, expected)| !matches(*n, *expected)).map(|(n, _)| *n).collect()
    }

    pub(super) fn finish_dir(&self, dir: &DestDir, meta: FileMeta) -> Result<(), WireError> {
        let (_, dir) = dir.open()?;
        fs::finish_dir(&dir, &fs_meta(meta)).map_err(publish_error)?;
        if self.sync != SyncPolicy::None {
            dir.sync().map_err(|e| at_destination(&e))?;
        }
        Ok(())
    }

    pub(super) fn discard(&self, file: &DestFile) {
        if let Some(open) = file.close() {
            // Unlinked when the last writer lets go of it.
            open.given_up.store(true, Ordering::Release);
            self.end(open.journal_no);
        }
    }

    /// Everything was received: the root's metadata, durability, no journal any more.
    pub(super) fn finish(&self, meta: Option<FileMeta>) -> Result<(), WireError> {
        if self.dry_run {
            return Ok(());
        }
        let dead = std::mem::take(&mut *self.dead.lock().unwrap_or_else(PoisonError::into_inner));
        dead.into_iter().for_each(DeadRun::finish);
        self.close_journal();
        if meta.is_some() || self.sync != SyncPolicy::None {
            self.finish_dir(&self.root, meta.unwrap_or_default())?;
        }
        Ok(())
    }

    /// The session broke off: the journal stays only if it has something to resume.
    pub(super) fn abandon(&self) {
        if self.resumable.load(Ordering::Acquire) == 0 {
            self.close_journal();
        }
    }

    fn close_journal(&self) {
        let journal = self.journal.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(journal) = journal {
            journal.close();
        }
    }

    fn find_dir(
        &self,
        parent: &DestDir,
        name: &Name,
        path: RelPath,
    ) -> Result<(Arc<DestDir>, MadeDir), WireError> {
        let stat = parent.stat(name)?;
        let open = match stat.map(|s| s.kind) {
            Some(Kind::Dir | Kind::Symlink) => {
                parent.open().ok().and_then(|(lazy, _)| lazy.root_dir().open_beneath(&path).ok())
            }
            None => None,
            Some(_) => return Err(publish_error(PublishError::NotDirectory)),
        };
        let stat = open.as_ref().and_then(|dir| dir.own_stat().ok());
        let made = MadeDir {
            created: stat.is_none(),
            mode: stat.map_or(0, |s| (s.mode & 0o777) as u16),
            mtime: stat.map(|s| s.mtime).unwrap_or_default(),
            widened: false,
        };
        let lazy = parent.lazy.as_ref().zip(open);
        let lazy = lazy.map(|(lazy, open)| lazy.below(path.clone(), Some(Arc::new(open))));
        Ok((Arc::new(DestDir::new(lazy, path, made.created)), made))
    }

    fn make_link(
        &self,
        parent: &Arc<DestDir>,
        name: &Name,
        target: &[u8],
        mtime: Option<Timestamp>,
        expected: &Expected,
        outcome: Outcome,
    ) -> Result<Outcome, WireError> {
        if !self.dry_run {
            self.announce_temps(parent);
            let (_, dir) = parent.open()?;
            // Before it is there, as another connection's entries may be right behind.
            let hash = self.hasher.hash_one(parent.path.join_unbounded(name));
            self.links().insert(hash);
            fs::publish_symlink(&self.names, &dir, target, name, mtime, expected)
                .map_err(publish_error)?;
        }
        Ok(outcome)
    }

    fn links(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopt(
        &self,
        file: &DestFile,
        path: &RelPath,
        partial: &crate::journal::Partial,
    ) -> io::Result<Vec<(u32, Digest)>> {
        let dir = file.dir.open_io()?.1;
        let adopted = self
            .with_journal(|journal| adopt(journal, &self.names, &dir, path, partial, file.version));
        let (no, temp) = adopted.ok_or(io::ErrorKind::Unsupported)??;
        self.resumable.fetch_add(1, Ordering::AcqRel);
        temp.file().set_len(file.version.size)?;
        let open = Arc::new(OpenTemp::new(temp, Some(no)));
        *file.temp.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Open(open);
        Ok(partial.kept.clone())
    }

    fn temp_for(&self, file: &DestFile) -> Result<Arc<OpenTemp>, WireError> {
        let mut slot = file.temp.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Slot::Open(open) => return Ok(Arc::clone(open)),
            Slot::Closed => return Err(WireError::new(ErrorCode::CHANGED, "it was given up")),
            Slot::Empty => {}
        }
        self.check_space(file)?;
        let temp = self.create_temp(file)?;
        let size = file.version.size;
        let resumable = (RESUMABLE..BLOCK << 32).contains(&size);
        let journal_no = resumable
            .then(|| self.with_journal(|j| j.begin(&file.path(), temp.name(), file.version)))
            .flatten()
            .flatten();
        if journal_no.is_some() {
            self.resumable.fetch_add(1, Ordering::AcqRel);
        }
        let open = Arc::new(OpenTemp::new(temp, journal_no));
        *slot = Slot::Open(Arc::clone(&open));
        Ok(open)
    }

    fn check_space(&self, file: &DestFile) -> Result<(), WireError> {
        let size = file.version.size;
        if size < CHECK_SPACE {
            return Ok(());
        }
        let free = file.dir.open()?.1.free_bytes().unwrap_or(u64::MAX);
        if free < size {
            let text = format!("it needs {size} bytes and {free} are free");
            return Err(WireError::new(ErrorCode::NO_SPACE, text));
        }
        Ok(())
    }

    fn create_temp(&self, file: &DestFile) -> Result<Temp, WireError> {
        self.announce_temps(&file.dir);
        let (_, dir) = file.dir.open()?;
        self.names.create(&dir).map_err(|e| at_destination(&e))
    }

    /// Tells the journal, once a directory, that temps may come to exist in it.
    fn announce_temps(&self, dir: &DestDir) {
        if !dir.journalled.swap(true, Ordering::AcqRel) {
            self.with_journal(|journal| journal.dir(&dir.path));
        }
    }

    fn rename(&self, file: &DestFile, temp: Temp, meta: FileMeta) -> Result<(), WireError> {
        match fs::publish(temp, &file.name, &fs_meta(meta), self.sync, &file.expected) {
            // Somebody who copies the same file to the same place was faster: it is there.
            Err(PublishError::DestinationChanged) if self.is_there(file, meta) => Ok(()),
            done => done.map_err(publish_error),
        }
    }

    /// Whether what stands under the file's name looks like what we would have put there.
    fn is_there(&self, file: &DestFile, meta: FileMeta) -> bool {
        let stat = file.dir.open_io().and_then(|(_, dir)| dir.stat(&file.name));
        stat.ok().flatten().is_some_and(|s| {
            s.kind == Kind::File && s.size == file.version.size && Some(s.mtime) == meta.mtime
        })
    }

    fn end(&self, journal_no: Option<u32>) {
        if let Some(no) = journal_no {
            self.with_journal(|journal| journal.end(no));
            self.resumable.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn with_journal<T>(&self, ask: impl FnOnce(&RunJournal) -> T) -> Option<T> {
        self.journal.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(ask)
    }
}

impl DestDir {
    fn new(lazy: Option<Arc<LazyDir>>, path: RelPath, fresh: bool) -> DestDir {
        DestDir { lazy, path, fresh, journalled: AtomicBool::new(false) }
    }

    fn open(&self) -> Result<(&Arc<LazyDir>, Arc<Dir>), WireError> {
        self.open_io().map_err(|e| at_destination(&e))
    }

    fn open_io(&self) -> io::Result<(&Arc<LazyDir>, Arc<Dir>)> {
        let lazy = self.lazy.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((lazy, lazy.get()?))
    }

    fn stat(&self, name: &Name) -> Result<Option<Stat>, WireError> {
        if self.fresh || self.lazy.is_none() {
            return Ok(None);
        }
        self.open()?.1.stat(name).map_err(|e| at_destination(&e))
    }
}

impl DestFile {
    /// Takes the temporary file away, if there is one, for good.
    fn close(&self) -> Option<Arc<OpenTemp>> {
        let mut slot = self.temp.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Closed) {
            Slot::Open(open) => Some(open),
            Slot::Empty | Slot::Closed => None,
        }
    }

    fn path(&self) -> RelPath {
        self.dir.path.join_unbounded(&self.name)
    }
}

/// BLAKE3 of each block of the first `size` bytes.
pub(super) fn hash_blocks(file: &File, size: u64) -> io::Result<Vec<[u8; 32]>> {
    let mut buf = vec![0; BLOCK as usize];
    let mut hashes = Vec::new();
    let mut offset = 0;
    while offset < size {
        let len = BLOCK.min(size - offset) as usize;
        let n = file.read_full_at(&mut buf[..len], offset)?;
        hashes.push(*blake3::hash(&buf[..n]).as_bytes());
        offset += len as u64;
    }
    Ok(hashes)
}

/// Our own names never come from a peer (case P06).
fn refuse_reserved(name: &Name) -> Result<(), WireError> {
    if is_reserved(name) {
        return Err(WireError::new(ErrorCode::NAME, "a name that fcp keeps for itself"));
    }
    Ok(())
}

/// An error of the destination's file system, which must not look like one of the source.
fn at_destination(error: &io::Error) -> WireError {
    let WireError { code, text } = io_error(error);
    WireError::new(code, format!("cannot write at the destination: {text}"))
}

fn fs_meta(meta: FileMeta) -> fs::FileMeta {
    fs::FileMeta { mode: meta.mode.map(u32::from), mtime: meta.mtime }
}

fn publish_error(error: PublishError) -> WireError {
    match error {
        PublishError::Io { ref source, .. } => {
            WireError::new(io_error(source).code, error.to_string())
        }
        PublishError::DestinationChanged => {
            WireError::new(ErrorCode::DESTINATION_CHANGED, error.to_string())
        }
        PublishError::IsDirectory => WireError::new(ErrorCode::IS_DIRECTORY, error.to_string()),
        PublishError::NotDirectory => WireError::new(ErrorCode::NOT_DIRECTORY, error.to_string()),
    }
}
