//! Opening a directory beneath a root without `openat2`.
//!
//! A walk by component that follows symlinks itself: every step is taken from a held descriptor,
//! `..` goes back to the descriptor that was held on the
//! way, and never above the root. So it cannot leave the tree, whatever is swapped meanwhile.

use std::collections::VecDeque;
use std::io;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::sys;

/// The most symlinks that one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;
/// The most descriptors held for `..`: a path may be deeper than the descriptors a process has.
const MAX_HELD: usize = 64;
/// Intermediate directories need only be passed through, not listed.
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);

/// Opens the directory `path` beneath `root`; the last step uses `flags`.
///
/// # Errors
/// As `openat2` with `RESOLVE_BENEATH`: `EXDEV` for a link that leads out, `ELOOP` for too many.
pub(super) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> io::Result<OwnedFd> {
    let mut walk = Walk { root, held: VecDeque::new(), forgotten: 0, links: 0, todo: Vec::new() };
    walk.push_parts(path);
    while let Some(part) = walk.todo.pop() {
        match part.as_slice() {
            b"" | b"." => {}
            b".." => walk.up()?,
            name => walk.down(name)?,
        }
    }
    sys::openat(walk.here(), b".", flags, 0)
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// The directories from the root (not included) to where we are; the first ones forgotten.
    held: VecDeque<OwnedFd>,
    forgotten: usize,
    links: usize,
    /// Components still to go, the next one last.
    todo: Vec<Vec<u8>>,
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.held.back().map_or(self.root, |fd| fd.as_fd())
    }

    fn push_parts(&mut self, path: &[u8]) {
        self.todo.extend(path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
    }

    fn up(&mut self) -> io::Result<()> {
        match self.held.pop_back() {
            // Where this leads is no longer held; a link that climbs so far is refused.
            Some(_) if self.held.is_empty() && self.forgotten > 0 => Err(Errno::LOOP.into()),
            Some(_) => Ok(()),
            None => Err(Errno::XDEV.into()),
        }
    }

    fn down(&mut self, name: &[u8]) -> io::Result<()> {
        match sys::openat(self.here(), name, STEP, 0) {
            Ok(fd) => self.hold(fd),
            Err(error) if sys::is(&error, Errno::NOTDIR) || sys::is(&error, Errno::LOOP) => {
                return self.follow(name);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn hold(&mut self, fd: OwnedFd) {
        self.held.push_back(fd);
        if self.held.len() > MAX_HELD {
            self.held.pop_front();
            self.forgotten += 1;
        }
    }

    fn follow(&mut self, name: &[u8]) -> io::Result<()> {
        let target = match sys::readlinkat(self.here(), name) {
            // No link after all: something that is not a directory.
            Err(error) if sys::is(&error, Errno::INVAL) => return Err(Errno::NOTDIR.into()),
            target => target?,
        };
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if target.first() == Some(&b'/') {
            return Err(Errno::XDEV.into());
        }
        self.push_parts(&target);
        Ok(())
    }
}
