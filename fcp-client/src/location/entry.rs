//! What locations say of their files.

use std::time::Duration;

use fcp_common::fs::Kind;
use fcp_proto::meta::Timestamp;
use fcp_proto::path::Name;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// What has it.
    pub meta: Meta,
}

/// What a name holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// File, directory, symlink or something else.
    pub kind: Kind,
    /// Length in bytes.
    pub size: u64,
    /// Modification time as the place tells it, in its grain; `None` where it tells none.
    pub mtime: Option<Timestamp>,
    /// Permission bits (07777); `None` where it tells none.
    pub mode: Option<u32>,
    /// Device and inode, where the place tells which file it is and not only what it looks like.
    pub id: Option<(u64, u64)>,
}

impl Meta {
    /// Whether `other`, told by the same place, is this version of the file as far as listings can
    /// tell: kind, length and modification time.
    pub fn is_same_version(&self, other: &Meta) -> bool {
        let id = |meta: &Meta| (meta.kind, meta.size, meta.mtime);
        id(self) == id(other)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }
}

/// What to set on a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetMeta {
    /// Permission bits, masked to 0777.
    pub mode: Option<u32>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
}

/// A whole directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What can be used.
    pub entries: Vec<Entry>,
    /// What cannot.
    pub refused: Vec<Refused>,
}

/// A name that a server listed and that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As it came.
    pub name: Vec<u8>,
    /// Why it is refused.
    pub why: &'static str,
}

/// What a location can do. Decisions ask this, never which location it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The smallest step of modification times.
    pub mtime_grain: Duration,
    /// A rename onto an existing file in one step.
    pub replaces: bool,
    /// A promise that a synced file survives a power cut.
    pub durable: bool,
    /// Symlinks can be made and read.
    pub symlinks: bool,
    /// Content is here: reading it back costs no network.
    pub near: bool,
}

/// The clock of a place, against ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Its time minus ours, at the moment of measuring, in milliseconds; off by at most `error`.
    Skew {
        /// Milliseconds it is ahead of us; negative when behind.
        millis: i64,
        /// How far off that may be.
        error: Duration,
    },
    /// It cannot be measured.
    Unknown,
}

/// The hash functions that servers know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestKind {
    /// SHA-256.
    Sha256,
    /// MD5: finds accidents, not attacks.
    Md5,
}

/// The digest of a whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// By which function.
    pub kind: DigestKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Who found it, for people: `check-file`, `sha256sum`, `fcp`.
    pub by: &'static str,
}

impl Digest {
    /// Whether both say the same of a content, whoever found them.
    pub fn agrees(&self, other: &Digest) -> bool {
        (self.kind, &self.bytes) == (other.kind, &other.bytes)
    }
}
