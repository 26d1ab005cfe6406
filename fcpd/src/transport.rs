//! What a connection runs over, from its first byte to the engine.

use std::io::{self, Write};
use std::net::Shutdown as Half;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fcp_common::engine::Duplex;
use fcp_common::tls::tune;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// How long a peer may take to take our last words.
const TELL: Duration = Duration::from_secs(5);

/// A connection, while the runtime still drives it.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP, on loopback only.
    Tcp(TcpStream),
    /// TLS, its handshake done.
    Tls(Box<TlsStream<TcpStream>>),
    /// A pair of descriptors: stdin and stdout, ours or handed over.
    Fds(Fds),
}

impl Transport {
    /// Hands the connection to the engine; what was not read yet stays to be read. Silence of
    /// `idle` at either end is an error.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn into_duplex(self, idle: Duration) -> io::Result<Duplex> {
        match self {
            Transport::Tcp(stream) => Duplex::tcp(stream.into_std()?, idle),
            Transport::Tls(stream) => {
                let (stream, conn) = stream.into_inner();
                let stream = stream.into_std()?;
                tune(&stream);
                Duplex::tls(stream, conn, idle)
            }
            Transport::Fds(fds) => {
                let Handed { reader, writer, guard } = fds.into_handed()?;
                Ok(Duplex::fds(reader, writer, idle)?.with_guard(guard))
            }
        }
    }

    /// Whether a peer of version 1 can be at the other end.
    pub fn is_plain_tcp(&self) -> bool {
        matches!(self, Transport::Tcp(_))
    }

    /// Sends `bytes` and closes, without waiting for a peer on TCP: whoever does not take them at
    /// once learns nothing.
    pub(crate) async fn say_at_once(self, bytes: &[u8]) {
        match self {
            Transport::Tcp(stream) => {
                // The runtime may not know yet that a new connection can be written to.
                if let Ok(mut stream) = stream.into_std() {
                    let _ = stream.write(bytes);
                    let _ = stream.shutdown(Half::Write);
                }
            }
            other => other.say(bytes).await,
        }
    }

    /// Sends `bytes` and closes; the peer may be in the middle of sending, and is not read any
    /// more.
    pub(crate) async fn say(mut self, bytes: &[u8]) {
        let said = async {
            self.write_all(bytes).await?;
            self.shutdown().await
        };
        match tokio::time::timeout(TELL, said).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("the peer did not take the last words: {error}"),
            Err(_) => tracing::debug!("the peer did not take the last words in time"),
        }
    }
}

macro_rules! each {
    ($transport:expr, $io:ident => $call:expr) => {
        match $transport.get_mut() {
            Transport::Tcp(io) => {
                let $io = Pin::new(io);
                $call
            }
            Transport::Tls(io) => {
                let $io = Pin::new(&mut **io);
                $call
            }
            Transport::Fds(io) => {
                let $io = Pin::new(io);
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_shutdown(cx))
    }
}

/// A descriptor to read from and one to write to: pipes or sockets, or one socket twice.
#[derive(Debug)]
pub struct Fds {
    reader: AsyncFd<OwnedFd>,
    /// Until it is shut down.
    writer: Option<AsyncFd<OwnedFd>>,
    guard: Option<OwnedFd>,
}

/// [`Fds`] that the runtime drives no longer.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) reader: OwnedFd,
    pub(crate) writer: OwnedFd,
    pub(crate) guard: Option<OwnedFd>,
}

impl Fds {
    /// Takes both over, and makes them non-blocking. To be called within a runtime.
    ///
    /// # Errors
    /// One cannot be waited for, such as a regular file.
    pub fn new(reader: OwnedFd, writer: OwnedFd) -> io::Result<Fds> {
        for fd in [&reader, &writer] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let reader = watched(reader, Interest::READABLE)?;
        let writer = Some(watched(writer, Interest::WRITABLE)?);
        Ok(Fds { reader, writer, guard: None })
    }

    /// Keeps `guard` open until the connection is closed, which tells whoever waits for that.
    pub fn with_guard(self, guard: OwnedFd) -> Fds {
        Fds { guard: Some(guard), ..self }
    }

    /// Gives all back, still non-blocking; an error if it was shut down.
    pub(crate) fn into_handed(self) -> io::Result<Handed> {
        let Fds { reader, writer, guard } = self;
        let writer = writer.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Handed { reader: reader.into_inner(), writer: writer.into_inner(), guard })
    }
}

#[expect(deprecated, reason = "unsound for what can close its descriptor; an OwnedFd cannot")]
fn watched(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

impl AsyncRead for Fds {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.reader.poll_read_ready(cx))?;
            let read = |fd: &AsyncFd<OwnedFd>| {
                Ok(rustix::io::read(fd.get_ref(), buf.initialize_unfilled())?)
            };
            match ready.try_io(read) {
                Ok(Ok(n)) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Fds {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(writer) = &self.writer else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            let mut ready = ready!(writer.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), buf)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return Poll::Ready(done),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(writer) = self.writer.take() {
            // A socket may be open elsewhere, too; for a pipe it is enough to close it.
            let _ = rustix::net::shutdown(writer.get_ref(), rustix::net::Shutdown::Write);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn a_pair_of_pipes_is_read_written_and_shut_down() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (in_reader, in_writer) = std::io::pipe().unwrap();
            let (out_reader, out_writer) = std::io::pipe().unwrap();
            let fds = |r: io::PipeReader, w: io::PipeWriter| Fds::new(r.into(), w.into()).unwrap();
            let mut ours = Transport::Fds(fds(in_reader, out_writer));
            let mut theirs = Transport::Fds(fds(out_reader, in_writer));
            // More than a pipe holds, so that both have to wait.
            let sent = vec![7; 300_000];
            let (written, read) = tokio::join!(
                async {
                    ours.write_all(&sent).await?;
                    ours.shutdown().await
                },
                async {
                    let mut got = Vec::new();
                    theirs.read_to_end(&mut got).await.map(|_| got)
                },
            );
            written.unwrap();
            assert!(read.unwrap() == sent);
        });
    }
}
