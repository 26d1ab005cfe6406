//! What dead runs left in a destination: cleaned, or taken over by the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fcp_proto::meta::{Digest, SourceVersion};
use fcp_proto::path::{Name, RelPath};
use rustix::io::Errno;

use super::file::{RunJournal, open_home, remove, remove_home};
use super::names::{RunId, parse_temp};
use super::replay::{Begun, replay};
use crate::fs::temp::PRIVATE;
use crate::fs::{Dir, File, Kind, Temp, TempNames, sys};

/// The most of a journal that is read: blocks of some 8 TiB. What lies beyond is sent again.
const MAX_JOURNAL: u64 = 256 << 20;

/// How long a run that was killed may take to let go of its journal: its process is being taken
/// down, or its server is still writing what had arrived.
const DYING: Duration = Duration::from_secs(1);

/// Finds the runs into `root` that died, cleans up after them and keeps what can be resumed.
///
/// Dead is a run whose journal nobody has locked, or is about to let go of. A journal directory that is a symlink, that is
/// not ours or that others may write to is left alone, with a warning.
pub fn recover(root: &Arc<Dir>) -> Vec<DeadRun> {
    let home = match open_home(root) {
        Ok(home) => Arc::new(home),
        Err(error) if sys::is(&error, Errno::NOENT) => return Vec::new(),
        Err(error) => {
            tracing::warn!("ignoring the journals in the destination: {error}");
            return Vec::new();
        }
    };
    let mut dead = Vec::new();
    let mut runs = journals(&home);
    let deadline = Instant::now() + DYING;
    loop {
        runs.retain(|run| match take_over(root, &home, *run) {
            Found::Dead(run) => {
                dead.push(run);
                false
            }
            Found::Nothing => false,
            Found::Alive => true,
        });
        if runs.is_empty() || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(DYING / 50);
    }
    if dead.is_empty() {
        remove_home(root);
    }
    dead
}

/// A run that died and left something to resume. Holds the lock of its journal.
///
/// Dropped without [`DeadRun::finish`], it leaves everything to the run after this one.
#[derive(Debug)]
pub struct DeadRun {
    root: Arc<Dir>,
    home: Arc<Dir>,
    run: RunId,
    begun: Mutex<BTreeMap<RelPath, Begun>>,
    /// Every temp that may still exist, with its directory.
    temps: Vec<(RelPath, Name)>,
    _lock: File,
}

/// What a dead run has of one file, to be given to [`adopt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The temp beside the destination.
    pub temp: Name,
    /// Blocks that should be in it, and their digests: to be hashed again before use.
    pub kept: Vec<(u32, Digest)>,
}

impl DeadRun {
    /// What there is of `path`, if it was the same version of the source; the temp of another
    /// version is deleted. Each path is given out once.
    pub fn take(&self, path: &RelPath, version: &SourceVersion) -> Option<Partial> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(path)?;
        if begun.version != *version {
            unlink_temp(&self.root, &parent(path), &begun.temp);
            return None;
        }
        Some(Partial { temp: begun.temp, kept: begun.blocks.into_iter().collect() })
    }

    /// Deletes the temps that were not adopted, then the journal.
    ///
    /// To be called when every partial that was taken has been adopted or is not wanted.
    pub fn finish(self) {
        for (dir, temp) in &self.temps {
            unlink_temp(&self.root, dir, temp);
        }
        remove(&self.root, &self.home, self.run);
    }
}

/// Makes a dead run's partial a temp of this run: its number in `journal`, and the open temp.
///
/// This run's journal knows the new name and the kept blocks before the temp is renamed to it, so
/// that a kill at any point leaves one journal of the two that fits. `dir` is the open directory
/// of `path`.
///
/// # Errors
/// The file is to be started afresh; the partial is left to [`DeadRun::finish`] or is gone.
pub fn adopt(
    journal: &RunJournal,
    names: &TempNames,
    dir: &Arc<Dir>,
    path: &RelPath,
    partial: &Partial,
    version: SourceVersion,
) -> io::Result<(u32, Temp)> {
    let name = names.next();
    journal.dir(&parent(path));
    let no = journal.begin(path, &name, version).ok_or(io::ErrorKind::Unsupported)?;
    journal.blocks(no, &partial.kept);
    if let Err(error) = rename_temp(dir, &partial.temp, &name) {
        journal.end(no);
        return Err(error);
    }
    match open_own(dir, &name) {
        Ok(file) => Ok((no, Temp::adopted(file, name, Arc::clone(dir)))),
        Err(error) => {
            let _ = dir.unlink(&name);
            journal.end(no);
            Err(error)
        }
    }
}

/// As `RENAME_NOREPLACE`, also where the file system has none: nobody can guess our names.
fn rename_temp(dir: &Dir, from: &Name, to: &Name) -> io::Result<()> {
    match dir.rename_noreplace(from, to) {
        Err(error) if sys::is(&error, Errno::INVAL) || sys::is(&error, Errno::NOSYS) => {
            dir.rename(from, to)
        }
        done => done,
    }
}

/// Opens a temp of ours for writing, whatever mode a run that died while publishing gave it.
fn open_own(dir: &Dir, name: &Name) -> io::Result<File> {
    dir.set_mode(name, PRIVATE)?;
    let (file, stat) = dir.open_file_rw(name)?;
    // Another link would see our writes, and is none of our making.
    if stat.uid != sys::euid() || stat.nlink != 1 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a temp of ours alone"));
    }
    Ok(file)
}

fn journals(home: &Dir) -> Vec<RunId> {
    let names = home.entries().into_iter().flatten().map_while(Result::ok);
    names.filter_map(|entry| RunId::from_journal_name(&entry.name.ok()?)).collect()
}

/// What a journal turned out to be.
enum Found {
    /// Of a dead run that left something to resume.
    Dead(DeadRun),
    /// Of nobody any more, or not to be used.
    Nothing,
    /// Of a run that lives, or whose last moment it is.
    Alive,
}

/// The run's leftovers if it is dead and left something to resume; else it is cleaned away.
fn take_over(root: &Arc<Dir>, home: &Arc<Dir>, run: RunId) -> Found {
    let (lock, bytes) = match read_if_dead(home, run) {
        Ok(ReadIfDead::Dead(lock, bytes)) => (lock, bytes),
        Ok(ReadIfDead::Gone) => return Found::Nothing,
        Ok(ReadIfDead::Alive) => return Found::Alive,
        Err(error) => {
            tracing::warn!("ignoring the journal {}: {error}", run.journal_name());
            return Found::Nothing;
        }
    };
    let mut told = replay(&bytes, run);
    told.begun.retain(|path, begun| has_temp(root, &parent(path), &begun.temp));
    let keep: BTreeSet<&Name> = told.begun.values().map(|begun| &begun.temp).collect();
    // Every directory, also after one that could not be cleaned.
    let unclean = told.dirs.iter().filter(|dir| !clean_dir(root, dir, run, &keep)).count();
    if told.begun.is_empty() {
        // What could not be removed now, the next run tries again.
        if unclean == 0 {
            remove(root, home, run);
        }
        return Found::Nothing;
    }
    let temps = told.begun.iter().map(|(path, begun)| (parent(path), begun.temp.clone())).collect();
    let (root, home, begun) = (Arc::clone(root), Arc::clone(home), Mutex::new(told.begun));
    Found::Dead(DeadRun { root, home, run, begun, temps, _lock: lock })
}

/// A journal as far as its lock lets it be read.
enum ReadIfDead {
    /// Locked by us now, with its bytes.
    Dead(File, Vec<u8>),
    /// Another run was faster.
    Gone,
    /// Locked by its run.
    Alive,
}

fn read_if_dead(home: &Dir, run: RunId) -> io::Result<ReadIfDead> {
    let (file, _) = match home.open_file_rw(&run.journal_name()) {
        Err(error) if sys::is(&error, Errno::NOENT) => return Ok(ReadIfDead::Gone),
        opened => opened?,
    };
    if !file.try_lock()? {
        return Ok(ReadIfDead::Alive);
    }
    let stat = file.stat()?;
    if stat.nlink == 0 {
        return Ok(ReadIfDead::Gone);
    }
    if stat.uid != sys::euid() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else owns it"));
    }
    let mut bytes = vec![0; stat.size.min(MAX_JOURNAL) as usize];
    let n = file.read_full_at(&mut bytes, 0)?;
    bytes.truncate(n);
    Ok(ReadIfDead::Dead(file, bytes))
}

fn has_temp(root: &Dir, dir: &RelPath, temp: &Name) -> bool {
    let stat = root.open_beneath(dir).and_then(|dir| dir.stat(temp));
    matches!(stat, Ok(Some(stat)) if stat.kind == Kind::File)
}

/// Removes the run's temps from one directory, but those to keep; whether none is left.
fn clean_dir(root: &Dir, path: &RelPath, run: RunId, keep: &BTreeSet<&Name>) -> bool {
    let Ok(dir) = root.open_beneath(path) else { return true };
    let Ok(entries) = dir.entries() else { return false };
    let mut clean = true;
    for entry in entries {
        let Ok(entry) = entry else { return false };
        let Ok(name) = entry.name else { continue };
        let dead = parse_temp(&name).is_some_and(|(of, _)| of == run) && !keep.contains(&name);
        // `unlink` leaves directories alone, and takes a symlink for itself.
        if dead && let Err(error) = dir.unlink(&name) {
            tracing::warn!("cannot remove the temporary file {path}/{name}: {error}");
            clean = false;
        }
    }
    clean
}

fn unlink_temp(root: &Dir, dir: &RelPath, temp: &Name) {
    // Adopted and so renamed, or gone with its directory: both are as they should be.
    let _ = root.open_beneath(dir).and_then(|dir| dir.unlink(temp));
}

fn parent(path: &RelPath) -> RelPath {
    path.split_last().map(|(dir, _)| dir).unwrap_or_default()
}
