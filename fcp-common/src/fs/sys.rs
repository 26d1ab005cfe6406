//! The one layer between this project and the kernel's file calls: a thin function per syscall.
//!
//! Every function begins with [`fault::check`], so that a test can fail or kill at any of them,
//! retries `EINTR`, and carries a short write on to its end. Nothing else in the project names
//! `rustix::fs` or `std::fs` for a user's files.

use std::io::{self, IoSlice, IoSliceMut};
use std::path::Path;

use fcp_proto::meta::Timestamp;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    self as rfs, AtFlags, FlockOperation, Mode, OFlags, RawDir, RenameFlags, ResolveFlags,
    Timespec, Timestamps,
};
use rustix::io::{Errno, ReadWriteFlags};

use super::fault::{self, Op};

/// How many times an `openat2` that lost a race with a rename is asked again.
const OPENAT2_TRIES: usize = 64;

/// Whether `error` is this errno.
pub fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Runs one syscall, asking the fault plan before and asking again after `EINTR`.
#[inline]
fn call<T>(op: Op, mut syscall: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match fault::check(op).and_then(|()| syscall()) {
            Ok(value) => return Ok(value),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// `openat` of one component (or `.`), close-on-exec always.
pub fn openat(dir: impl AsFd, name: &[u8], flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    call(Op::Open, || rfs::openat(dir.as_fd(), name, flags, mode_of(mode)))
}

/// Opens what a user typed, from the working directory, following links except magic ones
/// (`/proc/self/fd/3`, `/dev/stdin`), which name an open file and not a place.
pub fn open_user(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_MAGICLINKS;
    match call(Op::Openat2, || rfs::openat2(rfs::CWD, path, flags, Mode::empty(), resolve)) {
        Err(error) if no_openat2(&error) => {
            call(Op::Open, || rfs::openat(rfs::CWD, path, flags, Mode::empty()))
        }
        done => done,
    }
}

/// `openat2` that never leaves `root`: symlinks are followed while they stay beneath it.
pub fn openat2_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        let opened =
            call(Op::Openat2, || rfs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve));
        tries += 1;
        match opened {
            // The kernel could not prove that `..` stayed beneath, as something was renamed.
            Err(error) if is(&error, Errno::AGAIN) && tries < OPENAT2_TRIES => {}
            done => return done,
        }
    }
}

/// Whether `openat2` itself is missing: an old kernel, or a seccomp filter that refuses it.
pub fn no_openat2(error: &io::Error) -> bool {
    is(error, Errno::NOSYS) || is(error, Errno::PERM)
}

/// `fstatat` of the name itself; a symlink is not followed.
pub fn statat(dir: impl AsFd, name: &[u8]) -> io::Result<rfs::Stat> {
    call(Op::Stat, || rfs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW))
}

/// `fstat`.
pub fn fstat(fd: impl AsFd) -> io::Result<rfs::Stat> {
    call(Op::Fstat, || rfs::fstat(fd.as_fd()))
}

/// Bytes that an unprivileged user may still write to the file system of `fd`.
pub fn free_bytes(fd: impl AsFd) -> io::Result<u64> {
    let stat = call(Op::Statfs, || rfs::fstatvfs(fd.as_fd()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The `f_type` of the file system of `fd`, as in `statfs(2)`.
pub fn fs_magic(fd: impl AsFd) -> io::Result<u64> {
    let stat = call(Op::Statfs, || rfs::fstatfs(fd.as_fd()))?;
    Ok(stat.f_type as u64)
}

/// `mkdirat`; the umask applies.
pub fn mkdirat(dir: impl AsFd, name: &[u8], mode: u32) -> io::Result<()> {
    call(Op::Mkdir, || rfs::mkdirat(dir.as_fd(), name, mode_of(mode)))
}

/// `unlinkat` of anything but a directory.
pub fn unlinkat(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    call(Op::Unlink, || rfs::unlinkat(dir.as_fd(), name, AtFlags::empty()))
}

/// `unlinkat` of an empty directory.
pub fn rmdir(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    call(Op::Rmdir, || rfs::unlinkat(dir.as_fd(), name, AtFlags::REMOVEDIR))
}

/// `renameat` within one directory; replaces what is at `to`, except a directory.
pub fn renameat(dir: impl AsFd, from: &[u8], to: &[u8]) -> io::Result<()> {
    call(Op::Rename, || rfs::renameat(dir.as_fd(), from, dir.as_fd(), to))
}

/// `renameat2` within one directory that fails with `EEXIST` when anything is at `to`.
pub fn renameat_noreplace(dir: impl AsFd, from: &[u8], to: &[u8]) -> io::Result<()> {
    let flags = RenameFlags::NOREPLACE;
    call(Op::Rename, || rfs::renameat_with(dir.as_fd(), from, dir.as_fd(), to, flags))
}

/// `renameat` from one directory to another; replaces what is at `to`, except a directory.
pub fn renameat_to(dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> io::Result<()> {
    call(Op::Rename, || rfs::renameat(dir.as_fd(), from, to_dir.as_fd(), to))
}

/// As [`renameat_to`], but fails with `EEXIST` when anything is at `to`.
pub fn renameat_noreplace_to(
    dir: impl AsFd,
    from: &[u8],
    to_dir: impl AsFd,
    to: &[u8],
) -> io::Result<()> {
    let flags = RenameFlags::NOREPLACE;
    call(Op::Rename, || rfs::renameat_with(dir.as_fd(), from, to_dir.as_fd(), to, flags))
}

/// `renameat2` within one directory that swaps the two names.
pub fn renameat_exchange(dir: impl AsFd, a: &[u8], b: &[u8]) -> io::Result<()> {
    let flags = RenameFlags::EXCHANGE;
    call(Op::Rename, || rfs::renameat_with(dir.as_fd(), a, dir.as_fd(), b, flags))
}

/// `symlinkat`.
pub fn symlinkat(target: &[u8], dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    call(Op::Symlink, || rfs::symlinkat(target, dir.as_fd(), name))
}

/// `readlinkat`.
pub fn readlinkat(dir: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let target = call(Op::Readlink, || rfs::readlinkat(dir.as_fd(), name, Vec::new()))?;
    Ok(target.into_bytes())
}

/// One `pread`: fewer bytes than asked is no error, zero is the end of the file.
pub fn pread(fd: impl AsFd, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    call(Op::Read, || rustix::io::pread(fd.as_fd(), &mut *buf, offset))
}

/// `preadv2` of what is in memory; `None` where it would wait for a disk, or cannot tell.
pub fn pread_nowait(fd: impl AsFd, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    let flags = ReadWriteFlags::NOWAIT;
    let read = call(Op::Read, || {
        rustix::io::preadv2(fd.as_fd(), &mut [IoSliceMut::new(&mut *buf)], offset, flags)
    });
    match read {
        Ok(n) => Ok(Some(n)),
        Err(e) if [Errno::AGAIN, Errno::OPNOTSUPP, Errno::NOSYS].iter().any(|no| is(&e, *no)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `pwrite` until all of `buf` is written.
pub fn pwrite_all(fd: impl AsFd, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let n = call(Op::Write, || rustix::io::pwrite(fd.as_fd(), buf, offset))?;
        buf = buf.get(n..).filter(|_| n > 0).ok_or(io::ErrorKind::WriteZero)?;
        offset += n as u64;
    }
    Ok(())
}

/// `pwritev` until all of `bufs` is written. Uses `bufs` up.
pub fn pwritev_all(fd: impl AsFd, mut bufs: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    // Skips empty leading buffers, for which the kernel would answer 0.
    IoSlice::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        let batch = &bufs[..bufs.len().min(IOV_MAX)];
        let n = call(Op::Write, || rustix::io::pwritev(fd.as_fd(), batch, offset))?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut bufs, n);
        offset += n as u64;
    }
    Ok(())
}

/// The most buffers that the kernel takes in one vectored call (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// `fchmod`.
pub fn fchmod(fd: impl AsFd, mode: u32) -> io::Result<()> {
    call(Op::Chmod, || rfs::fchmod(fd.as_fd(), mode_of(mode)))
}

/// Changes the mode of what an `O_PATH` descriptor holds, for files that we may not read.
///
/// Goes through the descriptor's own magic link, so nothing can be swapped underneath.
pub fn chmod_path_fd(fd: impl AsFd, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    call(Op::Chmod, || rfs::chmodat(rfs::CWD, path.as_str(), mode_of(mode), AtFlags::empty()))
}

/// Sets the modification time through a descriptor; the access time stays.
pub fn futimens(fd: impl AsFd, mtime: Timestamp) -> io::Result<()> {
    let times = times_of(mtime)?;
    call(Op::Utime, || rfs::futimens(fd.as_fd(), &times))
}

/// Sets the modification time of the name itself; a symlink is not followed.
pub fn utimensat(dir: impl AsFd, name: &[u8], mtime: Timestamp) -> io::Result<()> {
    let times = times_of(mtime)?;
    call(Op::Utime, || rfs::utimensat(dir.as_fd(), name, &times, AtFlags::SYMLINK_NOFOLLOW))
}

/// `fsync`. An error means that written data may be gone: never ask again.
pub fn fsync(fd: impl AsFd) -> io::Result<()> {
    call(Op::Fsync, || rfs::fsync(fd.as_fd()))
}

/// `fdatasync`. An error means that written data may be gone: never ask again.
pub fn fdatasync(fd: impl AsFd) -> io::Result<()> {
    call(Op::Fdatasync, || rfs::fdatasync(fd.as_fd()))
}

/// `syncfs`: everything of the file system that holds `fd`.
pub fn syncfs(fd: impl AsFd) -> io::Result<()> {
    call(Op::Syncfs, || rfs::syncfs(fd.as_fd()))
}

/// `ftruncate`, to a shorter or a longer length; a longer one is a hole.
pub fn ftruncate(fd: impl AsFd, len: u64) -> io::Result<()> {
    call(Op::Truncate, || rfs::ftruncate(fd.as_fd(), len))
}

/// One `copy_file_range`: the bytes copied, 0 at the end of the source.
pub fn copy_file_range(
    from: impl AsFd,
    mut from_at: u64,
    to: impl AsFd,
    mut to_at: u64,
    len: usize,
) -> io::Result<usize> {
    call(Op::CopyRange, || {
        rfs::copy_file_range(from.as_fd(), Some(&mut from_at), to.as_fd(), Some(&mut to_at), len)
    })
}

/// `FICLONE`: makes `to` share all of `from`'s data, on file systems that can.
pub fn ficlone(to: impl AsFd, from: impl AsFd) -> io::Result<()> {
    call(Op::Clone, || rfs::ioctl_ficlone(to.as_fd(), from.as_fd()))
}

/// One `getdents64` into `buf`, each entry handed to `each`; false at the end of the directory.
///
/// `buf` is scratch of some KiB capacity; it stays empty.
pub fn getdents(
    dir: BorrowedFd<'_>,
    buf: &mut Vec<u8>,
    mut each: impl FnMut(&[u8], rfs::FileType),
) -> io::Result<bool> {
    let mut raw = RawDir::new(dir, buf.spare_capacity_mut());
    fault::check(Op::Readdir)?;
    loop {
        match raw.next() {
            None => return Ok(false),
            Some(entry) => {
                let entry = entry?;
                each(entry.file_name().to_bytes(), entry.file_type());
            }
        }
        if raw.is_buffer_empty() {
            return Ok(true);
        }
    }
}

/// Takes an exclusive `flock` without waiting; false when somebody else holds one.
pub fn try_flock(fd: impl AsFd) -> io::Result<bool> {
    let op = FlockOperation::NonBlockingLockExclusive;
    match call(Op::Flock, || rfs::flock(fd.as_fd(), op)) {
        Err(error) if is(&error, Errno::WOULDBLOCK) => Ok(false),
        done => done.map(|()| true),
    }
}

/// Takes an exclusive `flock`, waiting for it.
pub fn flock(fd: impl AsFd) -> io::Result<()> {
    call(Op::Flock, || rfs::flock(fd.as_fd(), FlockOperation::LockExclusive))
}

/// Our effective user id.
pub fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The process umask, read once.
///
/// It can only be read by setting it, so the first call belongs where no other thread creates
/// files yet; for that moment it is 077, never looser than asked.
pub fn umask() -> u32 {
    static UMASK: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *UMASK.get_or_init(|| {
        let old = rustix::process::umask(Mode::from_raw_mode(0o077));
        rustix::process::umask(old);
        old.as_raw_mode()
    })
}

fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

fn times_of(mtime: Timestamp) -> io::Result<Timestamps> {
    // UTIME_NOW and UTIME_OMIT are nanosecond values above this, and would be obeyed.
    if mtime.nanos >= 1_000_000_000 {
        return Err(Errno::INVAL.into());
    }
    Ok(Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rfs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    })
}
