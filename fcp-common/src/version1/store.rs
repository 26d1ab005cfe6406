//! The receiver's disk in version 1: directories, temps, and how each action is done.

use std::collections::{BTreeMap, HashMap};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use fcp_proto::packet::{Durability, Outcome, WireError};
use fcp_proto::v1::V1File;
use fcp_proto::{ErrorCode, FileId, Name, RelPath, Timestamp};

use super::session::locked;
use super::source::md5_of;
use crate::fs::{
    self, Dir, DirPool, Expected, FileMeta, Kind, LazyDir, PublishError, RunId, Stat, SyncPolicy,
    Temp, TempNames, is_reserved,
};
use crate::journal::{RunJournal, recover};
use crate::transfer::RootRule;
use crate::walk::io_error;

/// Directories kept open at once; `RLIMIT_NOFILE` is rarely below 1024.
const OPEN_DIRS: usize = 256;
/// Mode of directories that nobody announced, less the umask.
const UNANNOUNCED: u32 = 0o755;
/// Files at least this long are checked against the free space before they begin.
const CHECK_SPACE: u64 = 64 << 20;

/// What is kept of an entry's metadata.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    pub(super) perms: bool,
    pub(super) times: bool,
    pub(super) umask: u16,
}

/// Everything the receiving end does to the disk.
pub(super) struct Store {
    root: Arc<LazyDir>,
    rule: RootRule,
    keep: Keep,
    sync: SyncPolicy,
    names: TempNames,
    journal: RwLock<Option<RunJournal>>,
    dirs: Mutex<BTreeMap<RelPath, MadeDir>>,
    files: Mutex<HashMap<FileId, Arc<DestFile>>>,
}

struct MadeDir {
    lazy: Arc<LazyDir>,
    created: bool,
    /// The mode to set at the end.
    mode: Option<u32>,
}

struct DestFile {
    dir: Arc<LazyDir>,
    name: Name,
    info: V1File,
    before: Option<Stat>,
    temp: Mutex<Option<Arc<Temp>>>,
}

impl Store {
    /// A store below `root`, cleaned of what dead runs left that cannot be resumed.
    pub(super) fn open(
        root: Arc<Dir>,
        rule: RootRule,
        keep: Keep,
        durability: Durability,
    ) -> Store {
        // What can be resumed is left to a run that can.
        drop(recover(&root));
        let run = RunId::random();
        Store {
            root: LazyDir::root(Arc::clone(&root), DirPool::new(OPEN_DIRS)),
            rule,
            keep,
            sync: match durability {
                Durability::None => SyncPolicy::None,
                Durability::Batch => SyncPolicy::Batch,
                Durability::Always => SyncPolicy::Always,
            },
            names: TempNames::new(run),
            journal: RwLock::new(Some(RunJournal::create_lazily(root, run))),
            dirs: Mutex::default(),
            files: Mutex::default(),
        }
    }

    pub(super) fn make_dir(&self, path: &RelPath, mode: u16) -> Result<Outcome, WireError> {
        self.dir(path, mode.into())?;
        let mut dirs = locked(&self.dirs);
        let Some(made) = dirs.get_mut(path) else { return Ok(Outcome::Same) };
        if self.keep.perms {
            made.mode = Some(mode.into());
        } else if made.created {
            made.mode = Some(u32::from(mode & !self.keep.umask));
        }
        Ok(if made.created { Outcome::Created } else { Outcome::Same })
    }

    /// Looks at what stands under a file's name; `None` when content is needed.
    pub(super) fn begin(
        &self,
        info: V1File,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Outcome>, WireError> {
        let (parent, name) = self.place(&info.path)?;
        let dir = self.dir(&parent, UNANNOUNCED)?;
        let before = dir.get().and_then(|d| d.stat(&name)).map_err(|e| io_error(&e))?;
        let (id, size) = (info.id, info.size);
        let file = DestFile { dir, name, info, before, temp: Mutex::default() };
        match &file.before {
            Some(stat) if stat.kind == Kind::Dir => {
                return Err(publish_error(PublishError::IsDirectory));
            }
            Some(stat)
                if stat.kind == Kind::File && stat.size == size && file.is_same(go_on)? =>
            {
                return self.set_meta(&file, stat).map(Some);
            }
            _ => {}
        }
        if size == 0 {
            let temp = self.create_temp(&file)?;
            return self.publish(&file, temp).map(Some);
        }
        locked(&self.files).insert(id, Arc::new(file));
        Ok(None)
    }

    /// Writes content at `offset`.
    pub(super) fn write(
        &self,
        id: FileId,
        offset: u64,
        content: &mut [IoSlice<'_>],
    ) -> Result<(), WireError> {
        let file = self.file(id)?;
        let temp = self.temp_for(&file)?;
        temp.file().write_all_vectored_at(content, offset).map_err(|e| io_error(&e))
    }

    /// Gives a complete file its name; `None` when its MD5 is wrong.
    pub(super) fn verify(
        &self,
        id: FileId,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Outcome>, WireError> {
        let file = self.file(id)?;
        let md5 = self.temp_for(&file).and_then(|temp| {
            md5_of(temp.file(), file.info.size, go_on).map_err(|e| io_error(&e))
        })?;
        if md5 != file.info.md5 {
            return Ok(None);
        }
        // No writer is left when the machine says verify, so this is the only holder.
        let temp = locked(&file.temp).take().and_then(Arc::into_inner);
        let temp = temp.ok_or_else(|| WireError::new(ErrorCode::INTERNAL, "a file in use"))?;
        locked(&self.files).remove(&id);
        self.publish(&file, temp).map(Some)
    }

    /// Drops what there is of a file.
    pub(super) fn discard(&self, id: FileId) {
        locked(&self.files).remove(&id);
    }

    /// Everything was received: directories get their modes, the deepest first, as a directory may
    /// not let us into those below it afterwards.
    pub(super) fn finish(&self) {
        self.abandon();
        for (path, made) in std::mem::take(&mut *locked(&self.dirs)).into_iter().rev() {
            if let Err(error) = self.finish_dir(&made) {
                tracing::warn!("failed to finish the directory {path}: {}", error.text);
            }
        }
        if self.sync != SyncPolicy::None
            && let Err(error) = self.root.root_dir().sync()
        {
            tracing::warn!("failed to sync the destination directory: {error}");
        }
    }

    /// Removes what is not complete, and the journal.
    pub(super) fn abandon(&self) {
        locked(&self.files).clear();
        let journal = self.journal.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(journal) = journal {
            journal.close();
        }
    }

    fn finish_dir(&self, made: &MadeDir) -> Result<(), WireError> {
        if made.mode.is_none() && self.sync == SyncPolicy::None {
            return Ok(());
        }
        let dir = made.lazy.get().map_err(|e| io_error(&e))?;
        fs::finish_dir(&dir, &FileMeta { mode: made.mode, mtime: None }).map_err(publish_error)?;
        if self.sync == SyncPolicy::None {
            return Ok(());
        }
        dir.sync().map_err(|e| io_error(&e))
    }

    /// Where a file goes: its directory's path and its name.
    fn place(&self, path: &RelPath) -> Result<(RelPath, Name), WireError> {
        let at_root = |name: &Name| (RelPath::root(), name.clone());
        let placed = match &self.rule {
            RootRule::Single(name) => Some(at_root(name)),
            RootRule::Keep => path.split_last(),
        };
        let (dir, name) = placed.ok_or_else(|| refused("an empty path"))?;
        refuse_reserved(&name)?;
        Ok((dir, name))
    }

    /// The directory `path`, made with all its parents if it is not there.
    fn dir(&self, path: &RelPath, mode: u32) -> Result<Arc<LazyDir>, WireError> {
        let mut dirs = locked(&self.dirs);
        if let Some(made) = dirs.get(path) {
            return Ok(Arc::clone(&made.lazy));
        }
        let mut at = Arc::clone(&self.root);
        for name in path.components() {
            refuse_reserved(&name)?;
            let below = at.path().join_unbounded(&name);
            at = match dirs.get(&below) {
                Some(made) => Arc::clone(&made.lazy),
                None => {
                    let mode = if below == *path { mode } else { UNANNOUNCED };
                    let made = self.make(&at, &below, mode)?;
                    let lazy = Arc::clone(&made.lazy);
                    dirs.insert(below, made);
                    lazy
                }
            };
        }
        Ok(at)
    }

    fn make(&self, parent: &Arc<LazyDir>, path: &RelPath, mode: u32) -> Result<MadeDir, WireError> {
        let parent = parent.get().map_err(|e| io_error(&e))?;
        let root: &Dir = self.root.root_dir();
        let made = fs::publish_dir(root, &parent, path, mode).map_err(publish_error)?;
        let lazy = self.root.below(path.clone(), Some(made.dir));
        Ok(MadeDir { lazy, created: made.created, mode: made.restore_mode })
    }

    fn file(&self, id: FileId) -> Result<Arc<DestFile>, WireError> {
        let file = locked(&self.files).get(&id).cloned();
        file.ok_or_else(|| WireError::new(ErrorCode::INTERNAL, "a file that was given up"))
    }

    fn temp_for(&self, file: &DestFile) -> Result<Arc<Temp>, WireError> {
        let mut slot = locked(&file.temp);
        if let Some(temp) = &*slot {
            return Ok(Arc::clone(temp));
        }
        file.check_space()?;
        let temp = Arc::new(self.create_temp(file)?);
        *slot = Some(Arc::clone(&temp));
        Ok(temp)
    }

    fn create_temp(&self, file: &DestFile) -> Result<Temp, WireError> {
        // The journal knows the directory before a temp exists in it, so that the next run cleans.
        if let Some(journal) = &*self.journal.read().unwrap_or_else(PoisonError::into_inner) {
            journal.dir(file.dir.path());
        }
        let temp = file.dir.get().and_then(|dir| self.names.create(&dir));
        temp.map_err(|e| io_error(&e))
    }

    fn publish(&self, file: &DestFile, temp: Temp) -> Result<Outcome, WireError> {
        let mode = match file.before {
            _ if self.keep.perms => file.info.mode,
            Some(stat) if stat.kind == Kind::File => (stat.mode & 0o777) as u16,
            _ => file.info.mode & !self.keep.umask,
        };
        let mtime = self.keep.times.then_some(file.info.mtime);
        let meta = FileMeta { mode: Some(mode.into()), mtime };
        let expected = file.before.map_or(Expected::Absent, Expected::Same);
        fs::publish(temp, &file.name, &meta, self.sync, &expected).map_err(publish_error)?;
        Ok(if file.before.is_some() { Outcome::Replaced } else { Outcome::Created })
    }

    /// The content is right: sets mode and mtime where they differ.
    fn set_meta(&self, file: &DestFile, stat: &Stat) -> Result<Outcome, WireError> {
        let dir = file.dir.get().map_err(|e| io_error(&e))?;
        let (mode, mtime) = (u32::from(file.info.mode), file.info.mtime);
        let set_mode = self.keep.perms && stat.mode & 0o777 != mode;
        let set_times = self.keep.times && !is_same_time(stat.mtime, mtime);
        if set_mode {
            dir.set_mode(&file.name, mode).map_err(|e| io_error(&e))?;
        }
        if set_times {
            dir.set_times(&file.name, mtime).map_err(|e| io_error(&e))?;
        }
        Ok(if set_mode || set_times { Outcome::Metadata } else { Outcome::Same })
    }
}

impl DestFile {
    /// Whether what stands there has the content that is announced.
    fn is_same(&self, go_on: &dyn Fn() -> bool) -> Result<bool, WireError> {
        if self.info.size == 0 {
            return Ok(true);
        }
        let dir = self.dir.get().map_err(|e| io_error(&e))?;
        // What we may not read, or what just changed, is not the same.
        let Ok((file, _)) = dir.open_file(&self.name) else { return Ok(false) };
        let md5 = md5_of(&file, self.info.size, go_on).map_err(|e| io_error(&e))?;
        Ok(md5 == self.info.md5)
    }

    fn check_space(&self) -> Result<(), WireError> {
        let size = self.info.size;
        if size < CHECK_SPACE {
            return Ok(());
        }
        let free = self.dir.get().and_then(|dir| dir.free_bytes()).unwrap_or(u64::MAX);
        if free < size {
            let text = format!("it needs {size} bytes and {free} are free");
            return Err(WireError::new(ErrorCode::NO_SPACE, text));
        }
        Ok(())
    }
}

/// Whether two times are the same as far as a double can tell them apart.
fn is_same_time(a: Timestamp, b: Timestamp) -> bool {
    let nanos = |t: Timestamp| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    nanos(a).abs_diff(nanos(b)) < 1000
}

/// Our own names never come from a peer (case P06).
fn refuse_reserved(name: &Name) -> Result<(), WireError> {
    if is_reserved(name) { Err(refused("a name that fcp keeps for itself")) } else { Ok(()) }
}

fn refused(text: &str) -> WireError {
    WireError::new(ErrorCode::NAME, text)
}

fn publish_error(error: PublishError) -> WireError {
    let code = match &error {
        PublishError::Io { source, .. } => io_error(source).code,
        PublishError::DestinationChanged => ErrorCode::DESTINATION_CHANGED,
        PublishError::IsDirectory => ErrorCode::IS_DIRECTORY,
        PublishError::NotDirectory => ErrorCode::NOT_DIRECTORY,
    };
    WireError::new(code, error.to_string())
}
