//! Why a request, or a whole session, failed.

use std::fmt;
use std::time::Duration;

use fcp_proto::limits::MAX_TEXT;
use fcp_proto::path::{escape, escape_text};

use crate::location::sftp::wire::{FrameError, StatusCode};

/// What was asked. Names the request in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum SftpOp {
    Open,
    Close,
    Read,
    Write,
    Stat,
    SetStat,
    OpenDir,
    ReadDir,
    Remove,
    MakeDir,
    RemoveDir,
    RealPath,
    Rename,
    PosixRename,
    ReadLink,
    Symlink,
    Hardlink,
    Fsync,
    StatVfs,
    Limits,
    CopyData,
    CheckFile,
}

impl SftpOp {
    /// Whether a server may work on it for long: by a file's size.
    pub(super) fn is_long(self) -> bool {
        matches!(self, SftpOp::CheckFile | SftpOp::CopyData | SftpOp::Fsync)
    }
}

impl fmt::Display for SftpOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SftpOp::Open => "open",
            SftpOp::Close => "close",
            SftpOp::Read => "read",
            SftpOp::Write => "write",
            SftpOp::Stat => "stat",
            SftpOp::SetStat => "setstat",
            SftpOp::OpenDir => "opendir",
            SftpOp::ReadDir => "readdir",
            SftpOp::Remove => "remove",
            SftpOp::MakeDir => "mkdir",
            SftpOp::RemoveDir => "rmdir",
            SftpOp::RealPath => "realpath",
            SftpOp::Rename => "rename",
            SftpOp::PosixRename => "posix-rename",
            SftpOp::ReadLink => "readlink",
            SftpOp::Symlink => "symlink",
            SftpOp::Hardlink => "hardlink",
            SftpOp::Fsync => "fsync",
            SftpOp::StatVfs => "statvfs",
            SftpOp::Limits => "limits",
            SftpOp::CopyData => "copy-data",
            SftpOp::CheckFile => "check-file",
        })
    }
}

/// A request that the server refused. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} {path}: {code}{}", said(message))]
pub struct SftpError {
    /// What the server says it is.
    pub code: StatusCode,
    /// The server's words, escaped, of at most [`MAX_TEXT`] bytes, where they say more than `code`.
    pub message: String,
    /// What was asked.
    pub op: SftpOp,
    /// Of what, escaped.
    pub path: String,
}

impl SftpError {
    pub(super) fn new(op: SftpOp, path: &[u8], code: StatusCode, message: &[u8]) -> Self {
        let message = String::from_utf8_lossy(message.get(..MAX_TEXT).unwrap_or(message));
        let said = message.trim();
        // Most servers only say the code again.
        let more = !said.eq_ignore_ascii_case(&code.to_string());
        let message = if more { escape_text(said) } else { String::new() };
        SftpError { code, message, op, path: escape(path) }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (the server says: {message})") }
}

/// Why something asked of a session did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The server refused this request; the session goes on.
    #[error(transparent)]
    Status(#[from] SftpError),
    /// This request has waited too long for its answer; the session goes on.
    #[error("{op}: no answer for {} s", after.as_secs())]
    Timeout {
        /// What was asked.
        op: SftpOp,
        /// The limit that ran out.
        after: Duration,
    },
    /// The file is not as long as it was said to be; the session goes on.
    #[error("{path}: {expected} bytes expected, {found}")]
    Size {
        /// Which file, escaped.
        path: String,
        /// Where it should have ended.
        expected: u64,
        /// Where it does end.
        found: FoundSize,
    },
    /// A listing that does not end or has no end; the session goes on.
    #[error("{path}: {why}")]
    Listing {
        /// Which directory, escaped.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The server cannot do that, or we cannot ask it; nothing was sent.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The server broke the protocol; the session has ended.
    #[error("the server broke the SFTP protocol: {0}")]
    Protocol(String),
    /// Nothing moved for too long while requests waited; the session has ended.
    #[error("the server sent nothing for {} s while requests waited", .0.as_secs())]
    Stalled(Duration),
    /// The connection broke; the session has ended.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// The server, or we ourselves, ended the session.
    #[error("the SFTP session has ended")]
    Closed,
}

/// Where a file ends that ends at the wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundSize {
    /// At this length, too early.
    Shorter(u64),
    /// It goes on.
    Longer,
}

impl fmt::Display for FoundSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FoundSize::Shorter(n) => write!(f, "but it ends after {n}"),
            FoundSize::Longer => f.write_str("but it goes on"),
        }
    }
}

impl SessionError {
    /// Whether the session is over, so that every other request on it fails, too.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::Stalled(_) | Self::Lost(_) | Self::Closed)
    }

    /// The server's code, where it refused a request.
    pub fn code(&self) -> Option<StatusCode> {
        match self {
            SessionError::Status(error) => Some(error.code),
            _ => None,
        }
    }
}

impl From<FrameError> for SessionError {
    fn from(error: FrameError) -> Self {
        SessionError::Protocol(format!("it sent {error}"))
    }
}
