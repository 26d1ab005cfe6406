//! One SFTP conversation over any byte stream, with many requests on their way.
//!
//! [`Session::start`] shakes hands and leaves two tasks behind, one that reads and one that writes,
//! and a watchdog. Every call sends its request and waits for its own answer, so whoever wants many
//! requests on their way makes many calls at a time; [`Session::read_small`],
//! [`Handle::finish_write`], [`RangeReader`], [`RangeWriter`] and [`DirReader`] do so themselves.
//! Whatever a server does against the protocol ends the session, and everything that waits gets
//! that error. Dropping a future forgets its answer; a handle that nobody holds is closed.

mod calls;
mod core;
mod depth;
mod dir;
mod error;
mod handle;
mod input;
mod io;
mod pending;
mod range;
mod small;
#[cfg(test)]
mod tests;
mod waiter;
mod watchdog;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use dir::{DirReader, Listed};
pub use error::{FoundSize, SessionError, SftpError, SftpOp};
pub use handle::Handle;
pub use range::{RangeReader, RangeWriter};
pub use small::Finished;

use super::wire::Extensions;

/// What calls here answer.
pub type Result<T> = std::result::Result<T, SessionError>;

/// How long a session waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// The session ends when requests wait and nothing moves for so long; while the server hashes,
    /// copies or syncs a file, only after `request`.
    pub watchdog: Duration,
    /// A request fails when its answer does not come for so long, whatever else moves.
    pub request: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions { watchdog: Duration::from_secs(60), request: Duration::from_secs(300) }
    }
}

/// Bytes that one READ and one WRITE may have on this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataLimits {
    /// Of a READ.
    pub read: u32,
    /// Of a WRITE.
    pub write: u32,
}

/// A conversation with an SFTP server. Clones are the same conversation; it ends, with everything
/// sent before, when the last clone and the last [`Handle`] are dropped.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<core::Inner>,
}

impl Session {
    /// Shakes hands over a stream: INIT and VERSION, and `limits@openssh.com` where it is known.
    ///
    /// # Errors
    /// [`SessionError::Protocol`] when what answers does not speak SFTP version 3 (a shell that
    /// prints something at login, for one), [`SessionError::Stalled`] when nothing answers within
    /// `options.watchdog`, [`SessionError::Lost`] and [`SessionError::Closed`].
    pub async fn start(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        options: SessionOptions,
    ) -> Result<Session> {
        io::start(reader, writer, options).await
    }

    /// What the server can do besides version 3. Names stand in
    /// [`wire::extension`](super::wire::extension).
    pub fn extensions(&self) -> &Extensions {
        &self.inner.extensions
    }

    /// Bytes that one READ and one WRITE may have.
    pub fn limits(&self) -> DataLimits {
        self.inner.limits
    }

    /// Lets at most `requests` READs, and as many WRITEs, of ranges be on their way: for whoever
    /// shares a host's memory between connections. Below 1 is 1.
    pub fn cap_depth(&self, requests: usize) {
        self.inner.reads.cap(requests);
        self.inner.writes.cap(requests);
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.inner.shared.end().is_some()
    }

    /// Why the session is over; `None` while it is not.
    pub fn end(&self) -> Option<SessionError> {
        self.inner.shared.end()
    }

    /// Waits until the session is over and tells why.
    pub async fn closed(&self) -> SessionError {
        self.inner.shared.ended().await
    }
}
