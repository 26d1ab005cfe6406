//! A TLS connection as the engine drives it: a thread that reads and one that writes.
//!
//! Both need the one TLS state, so it is behind a lock that nobody holds while the socket makes
//! him wait: reading takes place before the lock is taken, and ciphertext goes from the state to
//! the socket without waiting, or after a wait without the lock. Only the writing thread writes,
//! except for the last words of whoever closes.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustls::Connection;

use super::tls_error;
use crate::engine::Duplex;

/// Ciphertext of one lock and one write. Measured: as fast as twice as much, and a fourth faster
/// than 1 MiB, which falls out of the cache and makes the allocator return memory each time.
const ENCRYPT_AT_ONCE: usize = 128 << 10;
/// Ciphertext of one read.
const READ_AT_ONCE: usize = 256 << 10;

impl Duplex {
    /// Drives a TLS connection whose handshake is over. Silence of `idle` at either end is an
    /// error, and so is an end that the peer has not announced.
    ///
    /// # Errors
    /// The socket takes no timeouts, or no more descriptors can be opened.
    pub fn tls(
        stream: TcpStream,
        conn: impl Into<Connection>,
        idle: Duration,
    ) -> io::Result<Duplex> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(idle))?;
        let mut conn = conn.into();
        conn.set_buffer_limit(Some(ENCRYPT_AT_ONCE));
        let shared = Arc::new(Shared { stream, tls: Mutex::new(conn) });
        let raw = vec![0; READ_AT_ONCE].into_boxed_slice();
        let reader = Reader { shared: Arc::clone(&shared), raw, start: 0, end: 0, failed: None };
        let writer = Writer { shared: Arc::clone(&shared), idle };
        Ok(Duplex::new(reader, writer, move || shared.close()))
    }
}

struct Shared {
    stream: TcpStream,
    tls: Mutex<Connection>,
}

impl Shared {
    fn tls(&self) -> MutexGuard<'_, Connection> {
        // A thread that panicked has ended the session.
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says goodbye if the socket takes it at once, and ends both halves.
    fn close(&self) {
        let mut tls = self.tls();
        tls.send_close_notify();
        while tls.wants_write() && tls.write_tls(&mut NoWait(&self.stream)).is_ok_and(|n| n > 0) {}
        drop(tls);
        // The peer may have hung up before.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

struct Reader {
    shared: Arc<Shared>,
    raw: Box<[u8]>,
    /// Read from the socket and not yet given to TLS: `raw[start..end]`.
    start: usize,
    end: usize,
    /// Found behind good records; told once those are taken, and ever after.
    failed: Option<rustls::Error>,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            // The handshake may have left something, so this comes first.
            if let Some(n) = self.decrypt(buf)? {
                return Ok(n);
            }
            self.end = self.shared.read_raw(&mut self.raw)?;
            self.start = 0;
        }
    }
}

impl Reader {
    /// Fills `buf` from what was read; `None` when that has no whole record, 0 at the peer's
    /// goodbye.
    fn decrypt(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut tls = self.shared.tls();
        let mut filled = 0;
        loop {
            match tls.reader().read(&mut buf[filled..]) {
                // Either the buffer is full or the peer said goodbye.
                Ok(0) => return Ok(Some(filled)),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if filled == buf.len() || (self.start == self.end && self.failed.is_none()) {
                return Ok(Some(filled).filter(|n| *n > 0));
            }
            if let Some(error) = &self.failed {
                // What came before is good.
                return if filled > 0 { Ok(Some(filled)) } else { Err(tls_error(error.clone())) };
            }
            let mut raw = &self.raw[self.start..self.end];
            let taken = tls.read_tls(&mut raw).and_then(|n| match n {
                // A record of impossible length.
                0 => Err(io::ErrorKind::InvalidData.into()),
                n => Ok(n),
            });
            match taken {
                Ok(n) => self.start += n,
                // What came before is good; nothing was consumed, so the error comes again.
                Err(_) if filled > 0 => return Ok(Some(filled)),
                Err(error) => return Err(error),
            }
            // The records before a bad one have been decrypted, and are taken first.
            self.failed = tls.process_new_packets().err();
        }
    }
}

impl Shared {
    /// Waits for ciphertext.
    fn read_raw(&self, raw: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.stream).read(raw) {
                // Without a goodbye, as `decrypt` would have seen it: cut off by anybody.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                done => return done,
            }
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    idle: Duration,
}

impl Write for Writer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// All that is taken has gone to the socket when this returns.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // What the reading thread has queued goes first, as it takes room.
        let mut tls = self.send(self.shared.tls())?;
        let n = tls.writer().write_vectored(bufs)?;
        self.send(tls).map(|_| n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send(self.shared.tls()).map(drop)
    }
}

impl Writer {
    /// Writes all ciphertext that waits; releases the lock while the socket takes none.
    fn send<'a>(
        &'a self,
        mut tls: MutexGuard<'a, Connection>,
    ) -> io::Result<MutexGuard<'a, Connection>> {
        while tls.wants_write() {
            match tls.write_tls(&mut NoWait(&self.shared.stream)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(tls);
                    self.wait()?;
                    tls = self.shared.tls();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(tls)
    }

    fn wait(&self) -> io::Result<()> {
        let deadline = Instant::now() + self.idle;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // A time that does not fit is as good as for ever.
            let left = Timespec::try_from(left).ok();
            let socket = PollFd::from_borrowed_fd(self.shared.stream.as_fd(), PollFlags::OUT);
            match poll(&mut [socket], left.as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Writes what a socket takes at once, though it blocks for others.
struct NoWait<'a>(&'a TcpStream);

impl Write for NoWait<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut space: [MaybeUninit<u8>; 0] = [];
        let mut nothing = SendAncillaryBuffer::new(&mut space);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(sendmsg(self.0, bufs, &mut nothing, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
