//! A connection over two file descriptors: pipes or sockets, such as a process's stdin and stdout.
//!
//! A pipe has neither timeouts nor a shutdown, so the descriptors do not block: a half that cannot
//! go on waits in `poll(2)`, which an eventfd wakes when the connection is closed.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Room of a pipe, so that a block goes in with one call. The most that a user may set by default.
const PIPE_SIZE: usize = 1 << 20;

/// One direction of a connection over file descriptors.
pub(super) struct Half {
    fd: OwnedFd,
    idle: Duration,
    closing: Arc<Closing>,
}

/// Ends both halves.
pub(super) struct Closing {
    closed: AtomicBool,
    /// Readable for ever once the connection is closed.
    wake: OwnedFd,
    /// The descriptors that are sockets: closing tells the peer at once.
    sockets: Vec<OwnedFd>,
}

/// The two halves of a connection that reads from `reader` and writes to `writer`.
///
/// # Errors
/// A descriptor cannot be made non-blocking, or no more can be opened.
pub(super) fn halves(
    reader: OwnedFd,
    writer: OwnedFd,
    idle: Duration,
) -> io::Result<(Half, Half, Arc<Closing>)> {
    let mut sockets = Vec::new();
    for fd in [&reader, &writer] {
        rustix::io::ioctl_fionbio(fd, true)?;
        if is_socket(fd)? {
            sockets.push(fd.try_clone()?);
        } else {
            // Not a pipe, or the user has too many large ones: slower, not wrong.
            let _ = rustix::pipe::fcntl_setpipe_size(fd, PIPE_SIZE);
        }
    }
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let closing = Arc::new(Closing { closed: AtomicBool::new(false), wake, sockets });
    let half = |fd| Half { fd, idle, closing: Arc::clone(&closing) };
    Ok((half(reader), half(writer), Arc::clone(&closing)))
}

fn is_socket(fd: &OwnedFd) -> io::Result<bool> {
    match rustix::net::sockopt::socket_type(fd) {
        Err(Errno::NOTSOCK) => Ok(false),
        kind => Ok(kind.map(|_| true)?),
    }
}

impl Closing {
    /// Both halves fail from now on. What was written and not yet read by the peer still arrives.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Cannot fail: it is written once per call, and never comes near its maximum.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        for socket in &self.sockets {
            // The peer may have hung up before.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed at this end")),
            false => Ok(()),
        }
    }
}

impl Half {
    /// Calls until the descriptor is ready, which it must be within `idle`.
    fn call(
        &self,
        ready: PollFlags,
        mut syscall: impl FnMut(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        let mut deadline = None;
        loop {
            self.closing.check()?;
            match syscall(&self.fd) {
                Err(Errno::AGAIN) => {
                    self.wait(ready, *deadline.get_or_insert_with(|| Instant::now() + self.idle))?;
                }
                Err(Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    fn wait(&self, ready: PollFlags, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // A time that does not fit is as good as for ever.
            let left = Timespec::try_from(left).ok();
            let mut fds = [
                PollFd::from_borrowed_fd(self.fd.as_fd(), ready),
                PollFd::from_borrowed_fd(self.closing.wake.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Read for Half {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.call(PollFlags::IN, |fd| rustix::io::read(fd, &mut *buf))
    }
}

impl Write for Half {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.call(PollFlags::OUT, |fd| rustix::io::write(fd, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.call(PollFlags::OUT, |fd| rustix::io::writev(fd, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::super::conn::Duplex;
    use super::*;

    const IDLE: Duration = Duration::from_secs(20);

    fn pipe() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
    }

    fn over_pipes(idle: Duration) -> (Duplex, Duplex) {
        let ((ar, bw), (br, aw)) = (pipe(), pipe());
        (Duplex::fds(ar, aw, idle).unwrap(), Duplex::fds(br, bw, idle).unwrap())
    }

    fn over_sockets(idle: Duration) -> (Duplex, Duplex) {
        let end = |stream: UnixStream| {
            let writer = stream.try_clone().unwrap();
            Duplex::fds(stream.into(), writer.into(), idle).unwrap()
        };
        let (a, b) = UnixStream::pair().unwrap();
        (end(a), end(b))
    }

    fn both_kinds(idle: Duration) -> [(Duplex, Duplex); 2] {
        [over_pipes(idle), over_sockets(idle)]
    }

    #[test]
    fn data_passes_both_ways_at_once_over_pipes_and_sockets() {
        let content: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        for (a, b) in both_kinds(IDLE) {
            let mut threads = Vec::new();
            for end in [a, b] {
                let Duplex { mut reader, mut writer, .. } = end;
                let sent = content.clone();
                threads.push(thread::spawn(move || writer.write_all(&sent)));
                let expected = content.clone();
                threads.push(thread::spawn(move || {
                    let mut got = vec![0; expected.len()];
                    reader.read_exact(&mut got)?;
                    assert!(got == expected);
                    Ok(())
                }));
            }
            threads.into_iter().for_each(|t| t.join().unwrap().unwrap());
        }
    }

    #[test]
    fn many_slices_go_out_with_one_call() {
        for (mut a, mut b) in both_kinds(IDLE) {
            let slices = [IoSlice::new(b"head"), IoSlice::new(&[7; 60_000]), IoSlice::new(b"tail")];
            assert_eq!(a.writer.write_vectored(&slices).unwrap(), 60_008);
            let mut got = vec![0; 60_008];
            b.reader.read_exact(&mut got).unwrap();
            assert!(got.starts_with(b"head") && got.ends_with(b"tail"));
        }
    }

    /// Runs `blocked`, which never ends by itself, and closes after a while.
    fn closes(end: Duplex, blocked: impl FnOnce(&mut Duplex) -> io::Error + Send + 'static) {
        let Duplex { reader, writer, close, .. } = end;
        let mut half = Duplex::new(reader, writer, || {});
        let thread = thread::spawn(move || blocked(&mut half));
        thread::sleep(Duration::from_millis(50));
        assert!(!thread.is_finished());
        let began = Instant::now();
        close();
        let error = thread.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_ne!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn closing_unblocks_a_blocked_read() {
        for (a, _b) in both_kinds(IDLE) {
            closes(a, |a| match a.reader.read(&mut [0; 10]) {
                // A socket that was shut down reads as ended.
                Ok(n) => io::Error::other(format!("{n} bytes")),
                Err(error) => error,
            });
        }
    }

    #[test]
    fn closing_unblocks_a_blocked_write() {
        for (a, _b) in both_kinds(IDLE) {
            closes(a, |a| a.writer.write_all(&vec![0; 8 << 20]).unwrap_err());
        }
    }

    #[test]
    fn a_closed_connection_moves_nothing_more() {
        for (mut a, mut b) in both_kinds(IDLE) {
            b.writer.write_all(b"late").unwrap();
            (a.close)();
            (a.close)();
            assert_eq!(a.reader.read(&mut [0; 4]).unwrap_err().kind(), aborted());
            assert_eq!(a.writer.write(b"late").unwrap_err().kind(), aborted());
            let Duplex { reader, writer, .. } = a;
            drop((reader, writer));
            assert_eq!(b.reader.read(&mut [0; 4]).unwrap(), 0);
        }
    }

    fn aborted() -> io::ErrorKind {
        io::ErrorKind::ConnectionAborted
    }

    #[test]
    fn silence_and_a_peer_that_does_not_read_time_out() {
        for (mut a, _b) in both_kinds(Duration::from_millis(50)) {
            let kind = |done: io::Result<()>| done.unwrap_err().kind();
            assert_eq!(kind(a.reader.read(&mut [0; 10]).map(drop)), io::ErrorKind::TimedOut);
            assert_eq!(kind(a.writer.write_all(&vec![0; 8 << 20])), io::ErrorKind::TimedOut);
        }
    }

    #[test]
    fn a_peer_that_hangs_up_is_an_end_to_the_reader_and_an_error_to_the_writer() {
        for (mut a, b) in both_kinds(IDLE) {
            let Duplex { reader, writer, close, .. } = b;
            drop((reader, writer, close));
            assert_eq!(a.reader.read(&mut [0; 10]).unwrap(), 0);
            let error = a.writer.write_all(b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }

    #[test]
    fn a_pipe_takes_a_block_at_once() {
        let (reader, writer) = pipe();
        let (spare, _keep) = pipe();
        let mut duplex = Duplex::fds(spare, writer, IDLE).unwrap();
        assert_eq!(duplex.writer.write(&vec![0; PIPE_SIZE]).unwrap(), PIPE_SIZE);
        drop(reader);
    }
}
