//! A directory held open: the only way to a name below it.

use std::io;
use std::path::Path;

use fcp_proto::meta::Timestamp;
use fcp_proto::path::{Name, RelPath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::file::File;
use super::stat::{Kind, Stat};
use super::{sys, walk};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// Never blocks on a FIFO, never takes a terminal, never follows a link.
const SOURCE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// Room for some 800 entries of usual length per `getdents64`, as in glibc.
const LISTING_BUFFER: usize = 32 * 1024;

/// A directory held open. Share it by `Arc`; it stays the same directory wherever it is moved.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

impl Dir {
    /// Opens a directory that a user typed, following symlinks; magic links are refused.
    pub fn open_user(path: &Path) -> io::Result<Dir> {
        or_path_only(DIRECTORY, |flags| sys::open_user(path, flags))
    }

    /// Opens the directory `path` beneath this one, following symlinks while they stay beneath.
    ///
    /// # Errors
    /// `EXDEV` when a link leads out, `ELOOP` for a magic link or too many links.
    pub fn open_beneath(&self, path: &RelPath) -> io::Result<Dir> {
        let spelled = if path.is_root() { b"." } else { path.as_bytes() };
        match or_path_only(DIRECTORY, |flags| sys::openat2_beneath(&self.fd, spelled, flags)) {
            Err(error) if sys::no_openat2(&error) => self.open_beneath_by_walk(path),
            done => done,
        }
    }

    /// What [`Dir::open_beneath`] does where the kernel has no `openat2`.
    pub fn open_beneath_by_walk(&self, path: &RelPath) -> io::Result<Dir> {
        let path = path.as_bytes();
        or_path_only(DIRECTORY, |flags| walk::open_beneath(self.fd.as_fd(), path, flags))
    }

    /// As [`Dir::open_beneath`], for a path that a user typed: it may hold `..`, which never leads
    /// out, and slashes in front of it mean nothing.
    pub fn open_typed(&self, path: &[u8]) -> io::Result<Dir> {
        let path = below_slashes(path);
        let spelled = if path.is_empty() { b"." } else { path };
        match or_path_only(DIRECTORY, |flags| sys::openat2_beneath(&self.fd, spelled, flags)) {
            Err(error) if sys::no_openat2(&error) => self.open_typed_by_walk(path),
            done => done,
        }
    }

    /// What [`Dir::open_typed`] does where the kernel has no `openat2`.
    pub fn open_typed_by_walk(&self, path: &[u8]) -> io::Result<Dir> {
        let path = below_slashes(path);
        or_path_only(DIRECTORY, |flags| walk::open_beneath(self.fd.as_fd(), path, flags))
    }

    /// Opens the directory `name`; `ENOTDIR` when it is anything else, a symlink included.
    pub fn open_child_nofollow(&self, name: &Name) -> io::Result<Dir> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        or_path_only(flags, |flags| sys::openat(&self.fd, name, flags, 0))
    }

    /// Opens the regular file `name` for reading, with what `fstat` said of it.
    ///
    /// # Errors
    /// `ELOOP` for a symlink; [`io::ErrorKind::InvalidInput`] for anything else that is no
    /// regular file. Never blocks.
    pub fn open_file(&self, name: &Name) -> io::Result<(File, Stat)> {
        self.open_regular(name, OFlags::RDONLY)
    }

    /// Opens the regular file `name` for reading and writing; else as [`Dir::open_file`].
    pub fn open_file_rw(&self, name: &Name) -> io::Result<(File, Stat)> {
        self.open_regular(name, OFlags::RDWR)
    }

    /// Creates the file `name` for reading and writing; `EEXIST` when anything has that name.
    pub fn create_new(&self, name: &Name, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        Ok(File::new(sys::openat(&self.fd, name, flags, mode)?))
    }

    /// What is at `name`, links not followed; `None` when nothing is.
    pub fn stat(&self, name: &Name) -> io::Result<Option<Stat>> {
        match sys::statat(&self.fd, name) {
            Ok(st) => Ok(Some(st.into())),
            Err(error) if sys::is(&error, Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What `fstat` says of this directory.
    pub fn own_stat(&self) -> io::Result<Stat> {
        Ok(sys::fstat(&self.fd)?.into())
    }

    /// Makes the directory `name`; the umask applies to `mode`.
    pub fn mkdir(&self, name: &Name, mode: u32) -> io::Result<()> {
        sys::mkdirat(&self.fd, name, mode)
    }

    /// Renames within this directory, replacing what is at `to` unless that is a directory.
    pub fn rename(&self, from: &Name, to: &Name) -> io::Result<()> {
        sys::renameat(&self.fd, from, to)
    }

    /// Renames within this directory; `EEXIST` when anything is at `to`.
    pub fn rename_noreplace(&self, from: &Name, to: &Name) -> io::Result<()> {
        sys::renameat_noreplace(&self.fd, from, to)
    }

    /// Renames into another directory, replacing what is at `to` unless that is a directory.
    ///
    /// # Errors
    /// `EXDEV` when `to_dir` is on another file system.
    pub fn rename_to(&self, from: &Name, to_dir: &Dir, to: &Name) -> io::Result<()> {
        sys::renameat_to(&self.fd, from, to_dir, to)
    }

    /// Renames into another directory; `EEXIST` when anything is at `to`, else as
    /// [`Dir::rename_to`].
    ///
    /// Where the kernel or the file system cannot promise that, a window of two calls remains.
    pub fn rename_noreplace_to(&self, from: &Name, to_dir: &Dir, to: &Name) -> io::Result<()> {
        match sys::renameat_noreplace_to(&self.fd, from, to_dir, to) {
            Err(error) if sys::is(&error, Errno::INVAL) || sys::is(&error, Errno::NOSYS) => {
                match to_dir.stat(to)? {
                    None => self.rename_to(from, to_dir, to),
                    Some(_) => Err(Errno::EXIST.into()),
                }
            }
            done => done,
        }
    }

    /// Swaps two names of this directory at once.
    pub fn exchange(&self, a: &Name, b: &Name) -> io::Result<()> {
        sys::renameat_exchange(&self.fd, a, b)
    }

    /// Removes `name`, which must not be a directory.
    pub fn unlink(&self, name: &Name) -> io::Result<()> {
        sys::unlinkat(&self.fd, name)
    }

    /// Removes the empty directory `name`.
    pub fn rmdir(&self, name: &Name) -> io::Result<()> {
        sys::rmdir(&self.fd, name)
    }

    /// Makes a symlink at `name` that holds `target` as it is.
    pub fn symlink(&self, target: &[u8], name: &Name) -> io::Result<()> {
        sys::symlinkat(target, &self.fd, name)
    }

    /// What the symlink `name` holds.
    pub fn read_link(&self, name: &Name) -> io::Result<Vec<u8>> {
        sys::readlinkat(&self.fd, name)
    }

    /// Sets the modification time of `name` itself; a symlink is not followed.
    pub fn set_times(&self, name: &Name, mtime: Timestamp) -> io::Result<()> {
        sys::utimensat(&self.fd, name, mtime)
    }

    /// Sets the permission bits (07777) of the file or directory `name`, readable or not.
    ///
    /// # Errors
    /// `ELOOP` for a symlink, which is never followed.
    pub fn set_mode(&self, name: &Name, mode: u32) -> io::Result<()> {
        let fd = sys::openat(&self.fd, name, OFlags::PATH | OFlags::NOFOLLOW, 0)?;
        match Stat::from(sys::fstat(&fd)?).kind {
            Kind::Symlink => Err(Errno::LOOP.into()),
            _ => sys::chmod_path_fd(&fd, mode),
        }
    }

    /// Sets the permission bits (07777) of this directory.
    pub fn set_own_mode(&self, mode: u32) -> io::Result<()> {
        match sys::fchmod(&self.fd, mode) {
            // Held by `O_PATH` only.
            Err(error) if sys::is(&error, Errno::BADF) => sys::chmod_path_fd(&self.fd, mode),
            done => done,
        }
    }

    /// Sets the modification time of this directory.
    pub fn set_own_mtime(&self, mtime: Timestamp) -> io::Result<()> {
        match sys::futimens(&self.fd, mtime) {
            Err(error) if sys::is(&error, Errno::BADF) => sys::utimensat(&self.fd, b".", mtime),
            done => done,
        }
    }

    /// Lists this directory without `.` and `..`, in the file system's order.
    pub fn entries(&self) -> io::Result<Entries> {
        let fd = sys::openat(&self.fd, b".", DIRECTORY, 0)?;
        Ok(Entries { fd, buf: Vec::with_capacity(LISTING_BUFFER), batch: Vec::new(), more: true })
    }

    /// Bytes that we may still write here.
    pub fn free_bytes(&self) -> io::Result<u64> {
        sys::free_bytes(&self.fd)
    }

    /// The magic number of the file system, as in `statfs(2)`.
    pub fn fs_magic(&self) -> io::Result<u64> {
        sys::fs_magic(&self.fd)
    }

    /// Makes the names in this directory durable.
    pub fn sync(&self) -> io::Result<()> {
        sys::fsync(&self.fd)
    }

    /// Makes everything on this file system durable.
    pub fn sync_fs(&self) -> io::Result<()> {
        sys::syncfs(&self.fd)
    }

    fn open_regular(&self, name: &Name, access: OFlags) -> io::Result<(File, Stat)> {
        let file = File::new(sys::openat(&self.fd, name, access | SOURCE, 0)?);
        let stat = file.stat()?;
        match stat.kind {
            Kind::File => Ok((file, stat)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A path that a user typed, as bytes: for the few calls that take one.
pub fn user_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn below_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
    &path[start..]
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, or its bytes when they make no [`Name`] (a file system that is out of order).
    pub name: Result<Name, Box<[u8]>>,
    /// What it is, where the file system tells without a `stat`.
    pub kind: Option<Kind>,
}

/// The entries of one directory; ends after the first error.
#[derive(Debug)]
pub struct Entries {
    fd: OwnedFd,
    buf: Vec<u8>,
    /// What was read and not yet yielded, the next one last.
    batch: Vec<DirEntry>,
    more: bool,
}

impl Entries {
    fn fill(&mut self) -> io::Result<()> {
        let batch = &mut self.batch;
        self.more = false;
        self.more = sys::getdents(self.fd.as_fd(), &mut self.buf, |name, file_type| {
            if name != b"." && name != b".." {
                let name = Name::new(name).map_err(|_| name.into());
                batch.push(DirEntry { name, kind: Kind::of(file_type) });
            }
        })?;
        self.batch.reverse();
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.batch.is_empty() && self.more {
            if let Err(error) = self.fill() {
                return Some(Err(error));
            }
        }
        self.batch.pop().map(Ok)
    }
}

/// Opens for listing, or, where we may write but not list (`--wx`), just as a place.
fn or_path_only(flags: OFlags, open: impl Fn(OFlags) -> io::Result<OwnedFd>) -> io::Result<Dir> {
    let fd = match open(flags) {
        Err(error) if sys::is(&error, Errno::ACCESS) => {
            open(flags | OFlags::PATH).map_err(|_| error)?
        }
        done => done?,
    };
    Ok(Dir { fd })
}
