//! Walks source operands and announces what it finds, directory by directory.
//!
//! A directory's own entries are announced before any of its subdirectories is entered, in sorted
//! order, so at no moment more than one listing is open and only names wait.

mod roots;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use fcp_proto::packet::{Entry, EntryBody, Problem, RootMeta, WireError};
use fcp_proto::{DirId, ErrorCode, FileId, Name, RelPath};

pub(crate) use self::roots::Limit;
pub use self::roots::{Parents, SourceRoot};
use crate::fs::{Dir, Kind, LazyDir, Stat, is_reserved, user_path};
use crate::select::{RuleSet, Verdict};

/// Names that are sorted together; bounds the memory of a directory with millions of them.
const SORTED_AT_ONCE: usize = 16_384;

/// An entry of the source, as the engine gives it back.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its directory.
    pub dir: Arc<LazyDir>,
    /// Its name there.
    pub name: Name,
    display: Arc<[u8]>,
}

/// What to walk, and how.
#[derive(Debug, Default)]
pub struct WalkOptions {
    /// First match wins; paths are relative to the transfer root.
    pub rules: RuleSet,
    /// Descend into directories.
    pub recursive: bool,
    /// Announce symbolic links; otherwise they are reported.
    pub links: bool,
    /// Where the copy goes, if that is on this machine: never copied into itself.
    pub destination: Option<Place>,
}

/// A directory, or where one will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Device and inode of the directory, or of the one that is to hold it.
    holder: (u64, u64),
    /// Its name in there, unless it is there already.
    name: Option<Name>,
}

impl Place {
    /// The place that `path` names; `None` where nothing can be.
    pub fn of(path: &[u8]) -> Option<Place> {
        let mut path = if path.is_empty() { b"." } else { path };
        let mut name = None;
        loop {
            if let Ok(stat) = Dir::open_user(user_path(path)).and_then(|dir| dir.own_stat()) {
                return Some(Place { holder: (stat.dev, stat.ino), name });
            }
            // Missing parents are made, too: what counts is the first that is missing.
            let end = path.iter().rposition(|b| *b != b'/')? + 1;
            let start = path[..end].iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
            name = Some(Name::new(&path[start..end]).ok()?);
            path = if start == 0 { b"." } else { &path[..start] };
        }
    }

    /// Whether it is the directory `name` of `parent`, whose stat is `child`.
    fn is(&self, parent: &Dir, name: &Name, child: &Stat) -> bool {
        match &self.name {
            None => self.holder == (child.dev, child.ino),
            Some(own) if own == name => {
                parent.own_stat().is_ok_and(|stat| self.holder == (stat.dev, stat.ino))
            }
            Some(_) => false,
        }
    }
}

/// Takes what a walk finds; `None` or `false` ends the walk. Ids in entries are for it to set.
pub trait Sink {
    /// A file or a link.
    fn leaf(&mut self, source: Source, entry: Entry) -> bool;
    /// A directory; answers with its number.
    fn dir(&mut self, source: Source, entry: Entry) -> Option<DirId>;
    /// All entries of a directory have been announced.
    fn dir_end(&mut self, dir: DirId) -> bool;
    /// Something that cannot be announced.
    fn problem(&mut self, problem: Problem) -> bool;
    /// Something left out on purpose that the user may like to know; not an error.
    fn skipped(&mut self, path: Vec<u8>, why: &'static str);
}

impl Source {
    /// The path as the user would write it; bytes, to be escaped before printing.
    pub fn path(&self) -> Vec<u8> {
        display_path(&self.display, &self.dir.path().join_unbounded(&self.name))
    }

    /// The path below the operand's directory.
    pub fn rel_path(&self) -> RelPath {
        self.dir.path().join_unbounded(&self.name)
    }
}

/// Walks all `roots`; answers with the metadata that the transfer root gets.
pub fn walk(roots: &[SourceRoot], options: &WalkOptions, sink: &mut dyn Sink) -> Option<RootMeta> {
    let mut walker = Walker {
        options,
        sink,
        seen: (roots.len() > 1).then(HashSet::new),
        root_meta: RootMeta(None),
    };
    for root in roots {
        walker.walk_root(root)?;
    }
    Some(walker.root_meta)
}

struct Walker<'a> {
    options: &'a WalkOptions,
    sink: &'a mut dyn Sink,
    /// Paths announced so far, to notice that two sources have the same name.
    seen: Option<HashSet<RelPath>>,
    root_meta: RootMeta,
}

/// A directory whose entries are announced and whose subdirectories are being entered.
struct Level {
    dir: Arc<LazyDir>,
    id: DirId,
    device: u64,
    subdirs: std::vec::IntoIter<Name>,
    display: Arc<[u8]>,
}

// Every method answers `None` when the sink has ended the walk.
impl Walker<'_> {
    fn walk_root(&mut self, root: &SourceRoot) -> Option<()> {
        match &root.name {
            None => self.walk_contents(root),
            Some(name) => self.walk_named(root, name),
        }
    }

    fn walk_contents(&mut self, root: &SourceRoot) -> Option<()> {
        let stat = match root.dir().get().and_then(|dir| dir.own_stat()) {
            Ok(stat) => stat,
            Err(error) => return self.io_problem(root.display().to_vec(), &error),
        };
        if !self.options.recursive {
            self.sink.skipped(root.display().to_vec(), "directory");
            return Some(());
        }
        // Of several directories whose contents go there the first one counts, as in rsync.
        let meta = ((stat.mode & 0o777) as u16, stat.mtime);
        self.root_meta.0.get_or_insert(meta);
        let level = self.list(root.dir(), DirId::ROOT, stat.dev, root.display())?;
        self.descend(level)
    }

    fn walk_named(&mut self, root: &SourceRoot, name: &Name) -> Option<()> {
        let level = Level {
            dir: Arc::clone(root.dir()),
            id: DirId::ROOT,
            device: 0,
            subdirs: Vec::new().into_iter(),
            display: Arc::clone(root.display()),
        };
        let found = root.stat(name);
        let is_dir = found.as_ref().is_ok_and(|stat| stat.kind == Kind::Dir);
        if self.options.rules.decide(&RelPath::from(name.clone()), is_dir) == Verdict::Exclude {
            return Some(());
        }
        match found {
            Ok(stat) if stat.kind == Kind::Dir => {
                let subdirs = vec![name.clone()].into_iter();
                self.descend(Level { subdirs, ..level })
            }
            Ok(stat) => self.announce_leaf(&level, name, &stat),
            Err(error) => {
                self.io_problem(display_path(&level.display, &name.clone().into()), &error)
            }
        }
    }

    /// Depth first, with the pending levels on the heap: trees may be thousands deep.
    fn descend(&mut self, top: Level) -> Option<()> {
        let mut stack = vec![top];
        while let Some(level) = stack.last_mut() {
            let Some(name) = level.subdirs.next() else {
                let (id, announced) = (level.id, level.id != DirId::ROOT);
                stack.pop();
                if announced && !self.sink.dir_end(id) {
                    return None;
                }
                continue;
            };
            if let Some(next) = self.enter(level, &name)? {
                stack.push(next);
            }
        }
        Some(())
    }

    /// Announces the subdirectory `name` of `level` and lists it.
    fn enter(&mut self, level: &Level, name: &Name) -> Option<Option<Level>> {
        let path = level.dir.path().join_unbounded(name);
        let opened = level.dir.get().and_then(|dir| {
            let child = Arc::new(dir.open_child_nofollow(name)?);
            let stat = child.own_stat()?;
            let place = self.options.destination.as_ref();
            Ok((stat, child, place.is_some_and(|place| place.is(&dir, name, &stat))))
        });
        let (stat, child, is_destination) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let shown = display_path(&level.display, &path);
                return self.io_problem(shown, &error).map(|()| None);
            }
        };
        if !self.options.recursive {
            self.sink.skipped(display_path(&level.display, &path), "directory");
            return Some(None);
        }
        if is_destination {
            if self.options.destination.as_ref().is_some_and(|place| place.name.is_some()) {
                // It was not there when we began.
                return Some(None);
            }
            let shown = display_path(&level.display, &path);
            let text = "it is the destination, and is not copied into itself";
            let error = WireError::new(ErrorCode::COLLISION, text);
            return self.sink.problem(Problem { path: shown, error }).then_some(None);
        }
        if stat.dev != level.device && is_kernel_fs(&child) {
            let shown = display_path(&level.display, &path);
            let text = "a kernel file system whose files have no length";
            let error = WireError::new(ErrorCode::SPECIAL, text);
            return self.sink.problem(Problem { path: shown, error }).then_some(None);
        }
        let (source, entry) = draft(level, name, &stat, EntryBody::Dir);
        if let Some(seen) = &mut self.seen {
            seen.insert(path.clone());
        }
        let id = self.sink.dir(source, entry)?;
        let dir = level.dir.below(path, Some(child));
        self.list(&dir, id, stat.dev, &level.display).map(Some)
    }

    /// Announces everything in `dir` but its subdirectories, which it returns.
    fn list(
        &mut self,
        dir: &Arc<LazyDir>,
        id: DirId,
        device: u64,
        display: &Arc<[u8]>,
    ) -> Option<Level> {
        let (dir, display) = (Arc::clone(dir), Arc::clone(display));
        let mut level = Level { dir, id, device, subdirs: Vec::new().into_iter(), display };
        let mut subdirs = Vec::new();
        let opened = level.dir.get().and_then(|dir| Ok((dir.entries()?, dir)));
        let (mut entries, dir) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.io_problem(display_path(&level.display, level.dir.path()), &error)?;
                return Some(level);
            }
        };
        loop {
            let mut names = Vec::new();
            for entry in entries.by_ref().take(SORTED_AT_ONCE) {
                match entry.map(|e| e.name) {
                    Ok(Ok(name)) => names.push(name),
                    Ok(Err(bytes)) => self.bad_name(&level, &bytes)?,
                    Err(error) => {
                        self.io_problem(display_path(&level.display, level.dir.path()), &error)?;
                    }
                }
            }
            if names.is_empty() {
                break;
            }
            names.sort_unstable();
            self.announce_all(&level, &dir, names, &mut subdirs)?;
        }
        subdirs.sort_unstable();
        level.subdirs = subdirs.into_iter();
        Some(level)
    }

    fn announce_all(
        &mut self,
        level: &Level,
        dir: &Dir,
        names: Vec<Name>,
        subdirs: &mut Vec<Name>,
    ) -> Option<()> {
        for name in names {
            let stat = match dir.stat(&name) {
                Ok(Some(stat)) => stat,
                // It vanished between the listing and the look: it is simply not there.
                Ok(None) => continue,
                Err(error) => {
                    let path = level.dir.path().join_unbounded(&name);
                    self.io_problem(display_path(&level.display, &path), &error)?;
                    continue;
                }
            };
            if !self.options.rules.is_empty() {
                let path = level.dir.path().join_unbounded(&name);
                if self.options.rules.decide(&path, stat.kind == Kind::Dir) == Verdict::Exclude {
                    continue;
                }
            }
            if stat.kind == Kind::Dir && !is_reserved(&name) {
                subdirs.push(name);
            } else {
                self.announce_leaf(level, &name, &stat)?;
            }
        }
        Some(())
    }

    /// Announces a file or link, or reports why not.
    fn announce_leaf(&mut self, level: &Level, name: &Name, stat: &Stat) -> Option<()> {
        let path = || display_path(&level.display, &level.dir.path().join_unbounded(name));
        let skip = match stat.kind {
            _ if is_reserved(name) => Some("temporary file of fcp"),
            Kind::Symlink if !self.options.links => Some("symbolic link"),
            Kind::Other | Kind::Dir => Some("not a regular file, directory or symbolic link"),
            Kind::File | Kind::Symlink => None,
        };
        if let Some(why) = skip {
            self.sink.skipped(path(), why);
            return Some(());
        }
        let body = if stat.kind == Kind::File {
            EntryBody::File { size: stat.size, token: stat.version().token }
        } else {
            match level.dir.get().and_then(|d| d.read_link(name)) {
                Ok(target) => EntryBody::Symlink { target: target.into() },
                Err(error) => return self.io_problem(path(), &error),
            }
        };
        let is_new = |seen: &mut HashSet<_>| seen.insert(level.dir.path().join_unbounded(name));
        if !self.seen.as_mut().is_none_or(is_new) {
            let error = WireError::new(ErrorCode::COLLISION, "another source has this name");
            return self.sink.problem(Problem { path: path(), error }).then_some(());
        }
        let (source, entry) = draft(level, name, stat, body);
        self.sink.leaf(source, entry).then_some(())
    }

    fn bad_name(&mut self, level: &Level, bytes: &[u8]) -> Option<()> {
        let mut path = display_path(&level.display, level.dir.path());
        path.push(b'/');
        path.extend_from_slice(bytes);
        let error = WireError::new(ErrorCode::NAME, "a name that no file system should have");
        self.sink.problem(Problem { path, error }).then_some(())
    }

    fn io_problem(&mut self, path: Vec<u8>, error: &io::Error) -> Option<()> {
        self.sink.problem(Problem { path, error: io_error(error) }).then_some(())
    }
}

/// An entry as announced, but for its id.
fn draft(level: &Level, name: &Name, stat: &Stat, body: EntryBody) -> (Source, Entry) {
    let (dir, display) = (Arc::clone(&level.dir), Arc::clone(&level.display));
    let (mode, mtime) = ((stat.mode & 0o777) as u16, stat.mtime);
    let entry = Entry { id: FileId(0), parent: level.id, name: name.clone(), mode, mtime, body };
    (Source { dir, name: name.clone(), display }, entry)
}

/// An I/O error as it travels.
pub fn io_error(error: &io::Error) -> WireError {
    use io::ErrorKind as K;
    let code = match error.kind() {
        _ if error.get_ref().is_some_and(|own| own.is::<Limit>()) => ErrorCode::LIMIT,
        K::NotFound => ErrorCode::NOT_FOUND,
        K::PermissionDenied => ErrorCode::PERMISSION,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => ErrorCode::NO_SPACE,
        K::ReadOnlyFilesystem => ErrorCode::READ_ONLY,
        K::IsADirectory => ErrorCode::IS_DIRECTORY,
        K::NotADirectory => ErrorCode::NOT_DIRECTORY,
        K::InvalidFilename => ErrorCode::NAME,
        _ => ErrorCode::IO,
    };
    // A code says what it means; only the rest needs the system's own words, or ours.
    let is_ours =
        matches!(code, ErrorCode::PERMISSION | ErrorCode::LIMIT) && error.raw_os_error().is_none();
    let text = if code == ErrorCode::IO || is_ours { error.to_string() } else { code.to_string() };
    WireError::new(code, text)
}

fn display_path(prefix: &[u8], path: &RelPath) -> Vec<u8> {
    [prefix, path.as_bytes()].concat()
}

/// procfs, sysfs and their like: files there say that they are empty and are not.
fn is_kernel_fs(dir: &Dir) -> bool {
    const MAGICS: [u64; 8] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x6367_7270, // cgroup2
        0x27_e0eb,   // cgroup
        0x7363_6673, // securityfs
        0xcafe_4a11, // bpf
    ];
    dir.fs_magic().is_ok_and(|magic| MAGICS.contains(&magic))
}
