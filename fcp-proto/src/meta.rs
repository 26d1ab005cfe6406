//! Metadata of a file, directory or link as it travels.

/// A point in time as `stat` gives it: whole seconds since 1970 (negative before), and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds since the epoch, rounded towards minus infinity.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

/// What an entry is. Everything else (devices, sockets, FIFOs) is reported, never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, kept as a link.
    Symlink,
}

/// A 128-bit xxh3 digest: of one block, or of a file's block digests. Finds accidents, not attacks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Digest(pub [u8; 16]);

/// What tells one version of a source file from the next, as the sender saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct SourceVersion {
    /// Length in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// A hash of device, inode and change time; differs when the file was replaced or rewritten
    /// even if size and mtime were put back. Zero when the sender cannot tell.
    pub token: u64,
}
