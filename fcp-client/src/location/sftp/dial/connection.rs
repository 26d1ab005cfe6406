//! A login that is done: streams that speak SFTP, and commands.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::location::{LocationError, Result};

/// What OpenSSH's sshd prints for a command where only sftp is allowed.
pub(super) const SFTP_ONLY: &[u8] = b"This service allows sftp connections only.";

/// What a [`Link`] answers with.
pub type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// The two directions of the SFTP subsystem. Dropping both ends it.
pub struct Stream {
    /// What the server says.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What it is told.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; `None` when a signal ended it or the server did not say.
    pub status: Option<u32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
}

/// A login, whichever program holds it.
pub trait Link: Send + Sync {
    /// See [`Connection::open_sftp`].
    fn open_sftp(&self) -> Future<'_, Result<Stream>>;
    /// See [`Connection::exec`].
    fn exec<'a>(&'a self, command: &'a [u8], limit: usize) -> Future<'a, Result<Output>>;
    /// See [`Connection::explain`].
    fn explain(&self, error: LocationError) -> Future<'_, LocationError>;
    /// See [`Connection::has_exec`].
    fn has_exec(&self) -> bool;
    /// See [`Connection::max_channels`].
    fn max_channels(&self) -> usize;
    /// See [`Connection::is_closed`].
    fn is_closed(&self) -> bool;
}

/// A login at a server. Clones are the same one; it ends with the last of them, and with the last
/// stream.
#[derive(Clone)]
pub struct Connection {
    name: Arc<str>,
    link: Arc<dyn Link>,
}

impl Connection {
    /// One that errors call `name`.
    pub fn new(name: &str, link: impl Link + 'static) -> Connection {
        Connection { name: name.into(), link: Arc::new(link) }
    }

    /// How errors and logs call the server; never with a secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether both are clones of one.
    #[cfg(test)]
    pub fn is_same(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }

    /// Opens one more stream that speaks SFTP, its first byte being ours to send.
    ///
    /// # Errors
    /// [`Reason::Busy`] when the server or the program allows no more of them on this login, and
    /// whatever else ends it.
    ///
    /// [`Reason::Busy`]: crate::location::Reason::Busy
    pub async fn open_sftp(&self) -> Result<Stream> {
        self.link.open_sftp().await
    }

    /// Runs a command line in the account's shell, without input, until it ends. Nobody has quoted
    /// what is in it.
    ///
    /// # Errors
    /// [`Reason::Unsupported`] where no command may be run; more than `limit` bytes of output.
    ///
    /// [`Reason::Unsupported`]: crate::location::Reason::Unsupported
    pub async fn exec(&self, command: &[u8], limit: usize) -> Result<Output> {
        self.link.exec(command, limit).await
    }

    /// The true cause of a stream's failure where the connection knows it: the system's `ssh` tells
    /// why a login was refused only after the stream is open.
    pub async fn explain(&self, error: LocationError) -> LocationError {
        self.link.explain(error).await
    }

    /// Whether [`Connection::exec`] is worth trying: no command was refused so far.
    pub fn has_exec(&self) -> bool {
        self.link.has_exec()
    }

    /// How many streams it can have at a time, as far as we decide.
    pub fn max_channels(&self) -> usize {
        self.link.max_channels()
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.link.is_closed()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// Half of a stream, which keeps what it runs over.
pub(super) struct Held<T, K> {
    inner: T,
    _keep: Arc<K>,
}

impl<T, K> Held<T, K> {
    pub(super) fn new(inner: T, keep: &Arc<K>) -> Held<T, K> {
        Held { inner, _keep: Arc::clone(keep) }
    }
}

impl<T: AsyncRead + Unpin, K> AsyncRead for Held<T, K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buf)
    }
}

impl<T: AsyncWrite + Unpin, K> AsyncWrite for Held<T, K> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
