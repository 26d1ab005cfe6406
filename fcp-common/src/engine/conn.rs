//! One connection: two halves that block, and a way to end both from outside.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fcp_proto::Violation;
use fcp_proto::frame::{self, Frame};
use fcp_proto::limits::BLOCK;

use super::fds;
use crate::transfer::{Assembler, Help};

/// Room for one block with its frames, and one more frame behind it.
const BUFFER: usize = BLOCK as usize + Assembler::OVERHEAD + (64 << 10);

/// A connection that the engine can drive.
pub struct Duplex {
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) writer: Box<dyn Write + Send>,
    /// Ends both halves; safe to call from any thread, any number of times.
    pub(crate) close: Box<dyn Fn() + Send + Sync>,
    /// See [`Duplex::spare`].
    pub(crate) hold: Option<(Duration, Help)>,
}

impl Duplex {
    /// A connection of two halves that block; `close` ends both, from any thread.
    pub(crate) fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        close: impl Fn() + Send + Sync + 'static,
    ) -> Duplex {
        let (reader, writer, close) = (Box::new(reader), Box::new(writer), Box::new(close));
        Duplex { reader, writer, close, hold: None }
    }

    /// Drives a TCP connection. Silence of `idle` at either end is an error.
    pub fn tcp(stream: TcpStream, idle: Duration) -> io::Result<Duplex> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(idle))?;
        stream.set_write_timeout(Some(idle))?;
        let (writer, closer) = (stream.try_clone()?, stream.try_clone()?);
        let close = move || drop(closer.shutdown(Shutdown::Both));
        Ok(Duplex::new(stream, writer, close))
    }

    /// Drives a pair of pipes or sockets, which may be the same socket twice. They become
    /// non-blocking, for whoever shares them as well. Silence of `idle` at either end is an error.
    ///
    /// # Errors
    /// A descriptor cannot be made non-blocking, or no more can be opened.
    pub fn fds(reader: OwnedFd, writer: OwnedFd, idle: Duration) -> io::Result<Duplex> {
        let (reader, writer, closing) = fds::halves(reader, writer, idle)?;
        Ok(Duplex::new(reader, writer, move || closing.close()))
    }

    /// Carries messages as ever, but content only while every living connection is a spare one.
    /// Until `hold` has passed since the session began, and while others are new, it carries a
    /// little at a time, or nothing, as `help` says. For a way in that is slower than the direct
    /// connections it leads to.
    pub fn spare(self, hold: Duration, help: Help) -> Duplex {
        Duplex { hold: Some((hold, help)), ..self }
    }

    /// Keeps `guard` alive until the connection is closed, such as the permit that admitted it.
    pub fn with_guard(self, guard: impl Send + Sync + 'static) -> Duplex {
        let Duplex { reader, writer, close, hold } = self;
        let close = move || {
            // Named so that the closure owns it: a session drops this closure when it closes.
            let _ = &guard;
            close();
        };
        Duplex { reader, writer, close: Box::new(close), hold }
    }

    /// As if `early`, which was read from the connection already, were still to come.
    pub fn after(self, early: Vec<u8>) -> Duplex {
        let reader = Box::new(io::Cursor::new(early).chain(self.reader));
        Duplex { reader, ..self }
    }

    /// Two connected ends in this process, for messages only.
    pub(crate) fn pair() -> io::Result<(Duplex, Duplex)> {
        let (a, b) = UnixStream::pair()?;
        Ok((Duplex::unix(a)?, Duplex::unix(b)?))
    }

    fn unix(stream: UnixStream) -> io::Result<Duplex> {
        let (writer, closer) = (stream.try_clone()?, stream.try_clone()?);
        let close = move || drop(closer.shutdown(Shutdown::Both));
        Ok(Duplex::new(stream, writer, close))
    }
}

/// Frames of one connection, read into one buffer and checked in place.
pub(crate) struct FrameReader {
    reader: Box<dyn Read + Send>,
    buf: Box<[u8]>,
    /// Not yet taken: `buf[start..end]`.
    start: usize,
    end: usize,
}

impl FrameReader {
    pub(crate) fn new(reader: Box<dyn Read + Send>) -> FrameReader {
        FrameReader { reader, buf: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Reads once, at most `limit` bytes; answers how many, 0 at a clean end between frames.
    pub(crate) fn fill(&mut self, limit: usize) -> io::Result<usize> {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // The buffer is larger than anything that is kept in it, so there is always room.
        let room = (self.buf.len() - self.end).min(limit.max(1));
        let n = loop {
            match self.reader.read(&mut self.buf[self.end..self.end + room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        self.end += n;
        if n == 0 && self.end > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(n)
    }

    /// The bytes that are not yet taken.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// The frame that begins `at` bytes into [`FrameReader::bytes`].
    pub(crate) fn frame_at(&self, at: usize) -> Result<Option<(Frame<'_>, usize)>, Violation> {
        Ok(frame::decode(&self.bytes()[at..])?)
    }

    /// Forgets the first `n` bytes.
    pub(crate) fn take(&mut self, n: usize) {
        self.start += n;
    }
}
