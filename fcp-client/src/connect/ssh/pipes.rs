//! The two ends of a running program, read and written until a moment and no longer.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// What a program writes and reads; both ends are non-blocking.
#[derive(Debug)]
pub(super) struct Pipes {
    reader: OwnedFd,
    writer: OwnedFd,
    end: Option<Instant>,
}

impl Pipes {
    /// Reads from `reader`, writes to `writer`, and waits for either without limit.
    pub(super) fn new(reader: OwnedFd, writer: OwnedFd) -> io::Result<Pipes> {
        for fd in [&reader, &writer] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Pipes { reader, writer, end: None })
    }

    /// From this moment on reading and writing fail with `TimedOut`; `None` is never.
    pub(super) fn set_end(&mut self, end: Option<Instant>) {
        self.end = end;
    }

    /// What to read from and what to write to.
    pub(super) fn into_fds(self) -> (OwnedFd, OwnedFd) {
        (self.reader, self.writer)
    }
}

impl Read for Pipes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.reader, &mut *buf) {
                Err(Errno::AGAIN) => wait(self.reader.as_fd(), PollFlags::IN, self.end)?,
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }
}

impl Write for Pipes {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.writer, buf) {
                Err(Errno::AGAIN) => wait(self.writer.as_fd(), PollFlags::OUT, self.end)?,
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until `fd` is ready, or its other end gone.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, end: Option<Instant>) -> io::Result<()> {
    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn silence_ends_at_the_deadline() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut pipes = Pipes::new(ours.try_clone().unwrap().into(), ours.into()).unwrap();
        pipes.set_end(Some(Instant::now() + Duration::from_millis(30)));
        let error = pipes.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = pipes.write_all(&vec![0; 8 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
