//! Making final names appear: whole, with their metadata, and only over what was expected.

use std::io;
use std::sync::Arc;

use fcp_proto::meta::Timestamp;
use fcp_proto::path::{Name, RelPath};
use rustix::io::Errno;

use super::dir::Dir;
use super::stat::{Kind, Stat};
use super::sys;
use super::temp::{Temp, TempEntry, TempNames};

/// The permission bits that a peer may set: no setuid, setgid or sticky.
const WIRE_MODE: u32 = 0o777;
/// What we need on a directory to fill it.
const FILLABLE: u32 = 0o700;
/// How often a directory is looked at again when somebody changes it between two calls.
const DIR_TRIES: usize = 16;

/// What to set on a file or directory before its final name appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FileMeta {
    /// Permission bits, masked to 0777; `None` leaves what it was created with (0600 for a temp).
    pub mode: Option<u32>,
    /// Modification time; `None` leaves it.
    pub mtime: Option<Timestamp>,
}

/// How much is made durable before `publish` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Nothing: a power cut may take it back.
    #[default]
    None,
    /// The file's data; the caller syncs each directory once, at the end.
    Batch,
    /// The file and its name.
    Always,
}

/// What must be at the final name just before it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// Still this version of this inode.
    Same(Stat),
    /// Anything but a directory.
    Any,
}

/// The step of publishing at which the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Creating the temporary name.
    Create,
    /// Setting the permission bits.
    Mode,
    /// Setting the modification time.
    Times,
    /// Making the file durable; its data is not to be trusted any more.
    Sync,
    /// Looking at what has the final name.
    Check,
    /// Giving the final name.
    Rename,
    /// Making the name durable. The name has already changed.
    SyncDir,
    /// Making or opening a directory.
    Dir,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Create => "create a temporary file",
            Step::Mode => "set the mode",
            Step::Times => "set the times",
            Step::Sync => "sync the file",
            Step::Check => "check the destination",
            Step::Rename => "rename into place",
            Step::SyncDir => "sync the directory",
            Step::Dir => "make the directory",
        })
    }
}

/// Why a final name did not appear. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Somebody else changed what is at the name since we looked.
    #[error("the destination was changed by somebody else")]
    DestinationChanged,
    /// A directory has the name, and is never replaced by something else.
    #[error("a directory is in the way")]
    IsDirectory,
    /// Something that is no directory has the name of a directory.
    #[error("something that is not a directory is in the way")]
    NotDirectory,
    /// The system refused.
    #[error("failed to {step}: {source}")]
    Io {
        /// Where.
        step: Step,
        /// With what.
        source: io::Error,
    },
}

/// Gives `temp` its final name, the only function that makes a file appear.
///
/// On any error the temp is unlinked and the name is as before, except for [`Step::SyncDir`],
/// where the name has changed but a power cut may take it back.
pub fn publish(
    temp: Temp,
    name: &Name,
    meta: &FileMeta,
    sync: SyncPolicy,
    expect: &Expected,
) -> Result<(), PublishError> {
    if let Some(mode) = meta.mode {
        temp.file().set_mode(mode & WIRE_MODE).map_err(at(Step::Mode))?;
    }
    if let Some(mtime) = meta.mtime {
        temp.file().set_mtime(mtime).map_err(at(Step::Times))?;
    }
    match sync {
        SyncPolicy::None => {}
        SyncPolicy::Batch => temp.file().sync_data().map_err(at(Step::Sync))?,
        SyncPolicy::Always => temp.file().sync_all().map_err(at(Step::Sync))?,
    }
    let mut entry = temp.into_entry();
    move_into_place(&mut entry, name, expect)?;
    match sync {
        SyncPolicy::Always => entry.dir.sync().map_err(at(Step::SyncDir)),
        _ => Ok(()),
    }
}

/// Makes a symlink that holds `target` appear at `name`, replacing what `expect` allows.
pub fn publish_symlink(
    temps: &TempNames,
    dir: &Arc<Dir>,
    target: &[u8],
    name: &Name,
    mtime: Option<Timestamp>,
    expect: &Expected,
) -> Result<(), PublishError> {
    let mut entry = temps.create_symlink(dir, target).map_err(at(Step::Create))?;
    if let Some(mtime) = mtime {
        dir.set_times(&entry.name, mtime).map_err(at(Step::Times))?;
    }
    move_into_place(&mut entry, name, expect)
}

/// A directory of the destination, open and ours to fill.
#[derive(Debug)]
pub struct PublishedDir {
    /// The directory.
    pub dir: Arc<Dir>,
    /// Whether it is new.
    pub created: bool,
    /// The mode it had before we made it writable for ourselves: what [`finish_dir`] is to set
    /// when the source's mode is not kept.
    pub restore_mode: Option<u32>,
}

/// Makes or opens the directory `path`, whose parent is held open, ready to be filled.
///
/// A new one has `mode | 0700`, less the umask, until [`finish_dir`]. A symlink to a directory
/// beneath `root` is followed; any other symlink is replaced by a directory, as rsync does.
///
/// # Errors
/// [`PublishError::NotDirectory`] when a file or the like is there.
pub fn publish_dir(
    root: &Dir,
    parent: &Dir,
    path: &RelPath,
    mode: u32,
) -> Result<PublishedDir, PublishError> {
    let Some((_, name)) = path.split_last() else {
        return Err(at(Step::Dir)(Errno::INVAL.into()));
    };
    for _ in 0..DIR_TRIES {
        match try_publish_dir(root, parent, path, &name, mode) {
            // Somebody removed or swapped it between two of our calls.
            Err(error) if sys::is(&error, Errno::NOENT) || sys::is(&error, Errno::EXIST) => {}
            Err(error) if sys::is(&error, Errno::NOTDIR) && !is_plain(parent, &name)? => {}
            Err(error) if sys::is(&error, Errno::NOTDIR) => return Err(PublishError::NotDirectory),
            Err(source) => return Err(PublishError::Io { step: Step::Dir, source }),
            Ok(published) => return Ok(published),
        }
    }
    Err(PublishError::DestinationChanged)
}

/// Sets the final mode and time of a directory that has been filled.
///
/// Its setgid and sticky bits, which are the destination's own, stay.
pub fn finish_dir(dir: &Dir, meta: &FileMeta) -> Result<(), PublishError> {
    let now = dir.own_stat().map_err(at(Step::Mode))?;
    if let Some(mode) = meta.mode {
        let wanted = (now.mode & !WIRE_MODE) | (mode & WIRE_MODE);
        if wanted != now.mode {
            dir.set_own_mode(wanted).map_err(at(Step::Mode))?;
        }
    }
    match meta.mtime {
        // What is as it should be keeps its ctime, too.
        Some(mtime) if mtime != now.mtime => dir.set_own_mtime(mtime).map_err(at(Step::Times)),
        _ => Ok(()),
    }
}

fn move_into_place(
    entry: &mut TempEntry,
    name: &Name,
    expect: &Expected,
) -> Result<(), PublishError> {
    match expect {
        Expected::Absent => rename_absent(&entry.dir, &entry.name, name)?,
        Expected::Same(before) => {
            check_same(&entry.dir, name, before)?;
            rename_over(&entry.dir, &entry.name, name)?;
        }
        Expected::Any => rename_over(&entry.dir, &entry.name, name)?,
    }
    entry.renamed();
    Ok(())
}

fn rename_absent(dir: &Dir, from: &Name, to: &Name) -> Result<(), PublishError> {
    match dir.rename_noreplace(from, to) {
        Err(error) if sys::is(&error, Errno::EXIST) => Err(in_the_way(dir, to)?),
        // A file system or kernel without RENAME_NOREPLACE: a window of two calls remains.
        Err(error) if sys::is(&error, Errno::INVAL) || sys::is(&error, Errno::NOSYS) => {
            match dir.stat(to).map_err(at(Step::Check))? {
                None => rename_over(dir, from, to),
                Some(_) => Err(in_the_way(dir, to)?),
            }
        }
        done => done.map_err(at(Step::Rename)),
    }
}

fn rename_over(dir: &Dir, from: &Name, to: &Name) -> Result<(), PublishError> {
    match dir.rename(from, to) {
        Err(error) if sys::is(&error, Errno::ISDIR) => Err(PublishError::IsDirectory),
        done => done.map_err(at(Step::Rename)),
    }
}

fn check_same(dir: &Dir, name: &Name, before: &Stat) -> Result<(), PublishError> {
    match dir.stat(name).map_err(at(Step::Check))? {
        Some(now) if now.kind == Kind::Dir => Err(PublishError::IsDirectory),
        Some(now) if now.is_same_version(before) => Ok(()),
        _ => Err(PublishError::DestinationChanged),
    }
}

fn in_the_way(dir: &Dir, name: &Name) -> Result<PublishError, PublishError> {
    Ok(match dir.stat(name).map_err(at(Step::Check))? {
        Some(now) if now.kind == Kind::Dir => PublishError::IsDirectory,
        _ => PublishError::DestinationChanged,
    })
}

/// One look at the name; `ENOENT`, `EEXIST` and `ENOTDIR` may mean that it just changed.
fn try_publish_dir(
    root: &Dir,
    parent: &Dir,
    path: &RelPath,
    name: &Name,
    mode: u32,
) -> io::Result<PublishedDir> {
    match parent.mkdir(name, (mode & WIRE_MODE) | FILLABLE) {
        Ok(()) => {
            let dir = Arc::new(parent.open_child_nofollow(name)?);
            return Ok(PublishedDir { dir, created: true, restore_mode: None });
        }
        Err(error) if sys::is(&error, Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    match parent.stat(name)?.map(|stat| (stat.kind, stat)) {
        Some((Kind::Dir, stat)) => open_existing(parent, name, &stat),
        Some((Kind::Symlink, _)) => follow_or_unlink(root, parent, path, name),
        Some(_) => Err(Errno::NOTDIR.into()),
        None => Err(Errno::NOENT.into()),
    }
}

fn open_existing(parent: &Dir, name: &Name, stat: &Stat) -> io::Result<PublishedDir> {
    // Without read and search permission it could not even be opened.
    let restore_mode = needs_opening_up(stat).then_some(stat.mode);
    if let Some(mode) = restore_mode {
        parent.set_mode(name, mode | FILLABLE)?;
    }
    let dir = Arc::new(parent.open_child_nofollow(name)?);
    Ok(PublishedDir { dir, created: false, restore_mode })
}

fn follow_or_unlink(
    root: &Dir,
    parent: &Dir,
    path: &RelPath,
    name: &Name,
) -> io::Result<PublishedDir> {
    let replaced = [Errno::XDEV, Errno::LOOP, Errno::NOENT, Errno::NOTDIR];
    match root.open_beneath(path) {
        Ok(dir) => {
            let stat = dir.own_stat()?;
            let restore_mode = needs_opening_up(&stat).then_some(stat.mode);
            if let Some(mode) = restore_mode {
                dir.set_own_mode(mode | FILLABLE)?;
            }
            Ok(PublishedDir { dir: Arc::new(dir), created: false, restore_mode })
        }
        Err(error) if replaced.iter().any(|errno| sys::is(&error, *errno)) => {
            // Only the link goes; unlink refuses a directory that came in its place.
            parent.unlink(name)?;
            Err(Errno::NOENT.into())
        }
        Err(error) => Err(error),
    }
}

fn needs_opening_up(stat: &Stat) -> bool {
    stat.mode & FILLABLE != FILLABLE && stat.uid == sys::euid()
}

/// Whether the name holds something that is neither a directory nor a link.
fn is_plain(parent: &Dir, name: &Name) -> Result<bool, PublishError> {
    let stat = parent.stat(name).map_err(at(Step::Check))?;
    Ok(stat.is_some_and(|stat| !matches!(stat.kind, Kind::Dir | Kind::Symlink)))
}

fn at(step: Step) -> impl Fn(io::Error) -> PublishError {
    move |source| PublishError::Io { step, source }
}
