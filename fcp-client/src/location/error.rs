//! Why something at a location failed: what, which file, whose fault, and whether to try again.

use std::fmt;

use fcp_proto::path::{escape, escape_text};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Op {
    Connect,
    List,
    Stat,
    Open,
    Read,
    Create,
    Write,
    SetMeta,
    Sync,
    Close,
    Rename,
    Remove,
    MakeDir,
    Hash,
    ReadLink,
    Symlink,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Connect => "connect",
            Op::List => "list",
            Op::Stat => "look at",
            Op::Open => "open",
            Op::Read => "read",
            Op::Create => "create",
            Op::Write => "write",
            Op::SetMeta => "set mode or times of",
            Op::Sync => "sync",
            Op::Close => "close",
            Op::Rename => "rename",
            Op::Remove => "remove",
            Op::MakeDir => "make the directory",
            Op::Hash => "hash",
            Op::ReadLink => "read the link",
            Op::Symlink => "make the link",
        })
    }
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing has the name.
    NotFound,
    /// Something has the name already.
    Exists,
    /// A directory has the name.
    IsDirectory,
    /// Something that is no directory has the name of one.
    NotDirectory,
    /// Not a regular file.
    NotFile,
    /// A directory is not empty.
    NotEmpty,
    /// The account may not do that.
    Denied,
    /// The disk or a quota is full.
    Full,
    /// The file is not what it was.
    Changed,
    /// The place cannot promise that a file survives a power cut.
    NotDurable,
    /// The place cannot do that.
    Unsupported,
    /// The login was refused; trying again does not help and may lock the account.
    Login,
    /// The server is not whom we know, or not known.
    HostKey,
    /// The server refuses more connections or sessions for now.
    Busy,
    /// The connection broke or cannot be made.
    Lost,
    /// Nothing came for too long.
    Timeout,
    /// The server broke the protocol.
    Protocol,
    /// Somebody stopped this run.
    Cancelled,
    /// The system's own words.
    Io,
}

impl Reason {
    /// Whether the same thing may succeed when tried again.
    pub fn is_transient(self) -> bool {
        matches!(self, Reason::Busy | Reason::Lost | Reason::Timeout)
    }
}

/// A failure at a location.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: cannot {op} {path}: {text}")]
pub struct LocationError {
    /// The place as [`super::Location::name`] tells it.
    pub place: String,
    /// What was being done.
    pub op: Op,
    /// With what, escaped for people.
    pub path: String,
    /// What kind of failure.
    pub reason: Reason,
    /// The cause in words, without secrets, and what to do where we know.
    pub text: String,
}

impl LocationError {
    /// A failure with what has the name `path`; both texts come from outside and are escaped.
    pub fn new(place: &str, op: Op, path: &[u8], reason: Reason, text: &str) -> LocationError {
        let path = if path.is_empty() { String::from("the folder itself") } else { escape(path) };
        LocationError { place: place.into(), op, path, reason, text: escape_text(text) }
    }

    /// Whether the same thing may succeed when tried again.
    pub fn is_transient(&self) -> bool {
        self.reason.is_transient()
    }
}
