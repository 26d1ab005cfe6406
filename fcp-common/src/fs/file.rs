//! An open regular file, read and written by offset.

use std::io::{self, IoSlice};

use fcp_proto::meta::Timestamp;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::stat::Stat;
use super::sys;

/// An open regular file. All of it works by offset, so threads may share one.
#[derive(Debug)]
pub struct File {
    fd: OwnedFd,
}

impl File {
    pub(super) fn new(fd: OwnedFd) -> File {
        File { fd }
    }

    /// Reads some bytes at `offset`; 0 is the end of the file.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        sys::pread(&self.fd, buf, offset)
    }

    /// As [`File::read_at`], of what needs no wait for a disk; `None` where it would, or where the
    /// file system cannot tell.
    pub fn read_ready_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        sys::pread_nowait(&self.fd, buf, offset)
    }

    /// Reads until `buf` is full or the file ends; the number of bytes read.
    pub fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Writes all of `buf` at `offset`.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        sys::pwrite_all(&self.fd, buf, offset)
    }

    /// Writes all of `bufs` one after the other at `offset`. Uses `bufs` up.
    pub fn write_all_vectored_at(&self, bufs: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        sys::pwritev_all(&self.fd, bufs, offset)
    }

    /// What `fstat` says now.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(sys::fstat(&self.fd)?.into())
    }

    /// Cuts the file, or lengthens it with a hole.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        sys::ftruncate(&self.fd, len)
    }

    /// Sets the permission bits, of which only 07777 count.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        sys::fchmod(&self.fd, mode)
    }

    /// Sets the modification time.
    pub fn set_mtime(&self, mtime: Timestamp) -> io::Result<()> {
        sys::futimens(&self.fd, mtime)
    }

    /// `fdatasync`: the data, and what is needed to find it. Never retry after an error.
    pub fn sync_data(&self) -> io::Result<()> {
        sys::fdatasync(&self.fd)
    }

    /// `fsync`: data and metadata. Never retry after an error.
    pub fn sync_all(&self) -> io::Result<()> {
        sys::fsync(&self.fd)
    }

    /// Shares all of `source`'s data (`FICLONE`); `EOPNOTSUPP`, `EXDEV` or `EINVAL` where that
    /// cannot be done.
    pub fn clone_from_file(&self, source: &File) -> io::Result<()> {
        sys::ficlone(&self.fd, &source.fd)
    }

    /// Copies up to `len` bytes within the kernel; the number copied, 0 at the source's end.
    pub fn copy_range_from(
        &self,
        source: &File,
        from: u64,
        to: u64,
        len: usize,
    ) -> io::Result<usize> {
        sys::copy_file_range(&source.fd, from, &self.fd, to, len)
    }

    /// Takes an exclusive `flock` for as long as the file is open; false when it is held.
    pub fn try_lock(&self) -> io::Result<bool> {
        sys::try_flock(&self.fd)
    }

    /// Waits for an exclusive `flock`, held for as long as the file is open.
    pub fn lock(&self) -> io::Result<()> {
        sys::flock(&self.fd)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
