//! Our own end of a connection: the socket of one descriptor, not merely one with its addresses.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::diag_codec::Query;
use super::row::{Tuple, only_established};
use super::table::Table;
use super::unknown::{End, Unknown};

/// Our descriptor, its addresses, and the two numbers that tell its socket from every other.
pub(super) struct OwnEnd<'a> {
    pub(super) tuple: Tuple,
    fd: BorrowedFd<'a>,
    inode: u64,
    /// `SO_COOKIE`; none on kernels before 4.12, where the inode alone must do.
    cookie: Option<u64>,
}

impl<'a> OwnEnd<'a> {
    pub(super) fn of(fd: BorrowedFd<'a>, tuple: Tuple) -> Result<OwnEnd<'a>, Unknown> {
        let stat = rustix::fs::fstat(fd).map_err(|e| Unknown::OwnSocket(e.to_string()))?;
        let cookie = rustix::net::sockopt::socket_cookie(fd).ok();
        Ok(OwnEnd { tuple, fd, inode: stat.st_ino, cookie })
    }

    /// Refuses a connection whose peer has closed, reset or half closed it.
    pub(super) fn require_no_hang_up(&self) -> Result<(), Unknown> {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let mut fds = [PollFd::from_borrowed_fd(self.fd, PollFlags::RDHUP)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&at_once)).map_err(|e| Unknown::OwnSocket(e.to_string()))?;
        match fds.iter().any(|fd| fd.revents().intersects(gone)) {
            true => Err(Unknown::NotEstablished(End::Ours)),
            false => Ok(()),
        }
    }

    /// Whether `table` shows this very socket as ESTABLISHED.
    pub(super) fn sighting(&self, table: &Table<'_>) -> io::Result<Result<(), Unknown>> {
        let mut rows = table.rows(&Query { tuple: self.tuple, cookie: self.cookie })?;
        rows.retain(|row| u64::from(row.inode) == self.inode);
        Ok(only_established(&rows, End::Ours).map(|_| ()))
    }
}
