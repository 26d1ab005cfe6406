//! The small numbers that name things in a session.

use std::fmt;

/// Names a session; 128 bits drawn by the server, bound to the identity that made the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Debug for SessionId {
    /// Shows four bytes: enough to tell sessions apart in a log, too few to attach with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}..")
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names an entry (file, directory or link) announced in a session; counts from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileId(pub u32);

/// Names a directory that was announced, or [`DirId::ROOT`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DirId(pub u32);

impl DirId {
    /// The transfer root itself, which nobody announces.
    pub const ROOT: DirId = DirId(u32::MAX);
}

impl From<FileId> for DirId {
    fn from(id: FileId) -> Self {
        DirId(id.0)
    }
}

/// Names one connection of a session at one end; never travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u32);
