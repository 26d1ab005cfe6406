//! ENTRIES: one file, directory or link of the source.

use crate::coding::{DecodeError, Reader, Wire, put_bytes8, put_bytes16};
use crate::ids::{DirId, FileId};
use crate::limits::{MAX_FILE_SIZE, MAX_LINK_TARGET};
use crate::meta::{EntryKind, SourceVersion, Timestamp};
use crate::path::Name;

/// One thing that the sender announces: a name in a directory announced before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Names this entry from now on; never used twice in a session.
    pub id: FileId,
    /// The directory that holds it.
    pub parent: DirId,
    /// Its name there.
    pub name: Name,
    /// Permission bits; only 0o777 are ever used.
    pub mode: u16,
    /// Modification time.
    pub mtime: Timestamp,
    /// What it is.
    pub body: EntryBody,
}

/// What an entry is, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryBody {
    /// A regular file.
    File {
        /// Length in bytes, at most [`MAX_FILE_SIZE`].
        size: u64,
        /// See [`SourceVersion::token`].
        token: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it points: 1 to [`MAX_LINK_TARGET`] bytes without NUL, otherwise untouched.
        target: Box<[u8]>,
    },
}

impl Entry {
    /// What it is.
    pub fn kind(&self) -> EntryKind {
        match self.body {
            EntryBody::File { .. } => EntryKind::File,
            EntryBody::Dir => EntryKind::Dir,
            EntryBody::Symlink { .. } => EntryKind::Symlink,
        }
    }

    /// Content length in bytes; 0 for anything but a file.
    pub fn size(&self) -> u64 {
        match self.body {
            EntryBody::File { size, .. } => size,
            EntryBody::Dir | EntryBody::Symlink { .. } => 0,
        }
    }

    /// What tells this version of a source file from another.
    pub fn version(&self) -> SourceVersion {
        match self.body {
            EntryBody::File { size, token } => SourceVersion { size, mtime: self.mtime, token },
            _ => SourceVersion { size: 0, mtime: self.mtime, token: 0 },
        }
    }

    /// Bytes of metadata budget an unfinished entry takes at either end: its variable parts, and
    /// 128 for the tables that it stands in.
    pub fn cost(&self) -> usize {
        let target = match &self.body {
            EntryBody::Symlink { target } => target.len(),
            _ => 0,
        };
        128 + self.name.len() + target
    }
}

const FILE: u8 = 1;
const DIR: u8 = 2;
const SYMLINK: u8 = 3;

impl Wire for Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.body {
            EntryBody::File { .. } => FILE,
            EntryBody::Dir => DIR,
            EntryBody::Symlink { .. } => SYMLINK,
        });
        out.extend_from_slice(&self.id.0.to_be_bytes());
        out.extend_from_slice(&self.parent.0.to_be_bytes());
        put_bytes8(out, &self.name);
        out.extend_from_slice(&self.mode.to_be_bytes());
        self.mtime.encode(out);
        match &self.body {
            EntryBody::File { size, token } => {
                out.extend_from_slice(&size.to_be_bytes());
                out.extend_from_slice(&token.to_be_bytes());
            }
            EntryBody::Dir => {}
            EntryBody::Symlink { target } => put_bytes16(out, target, MAX_LINK_TARGET),
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = r.u8()?;
        let id = FileId(r.u32()?);
        if id.0 == DirId::ROOT.0 {
            return Err(DecodeError::Malformed("the root's number as an entry's"));
        }
        let parent = DirId(r.u32()?);
        let name = Name::new(r.bytes8()?)?;
        let mode = r.u16()?;
        let mtime = Timestamp::decode(r)?;
        let body = match kind {
            FILE => EntryBody::File { size: size(r)?, token: r.u64()? },
            DIR => EntryBody::Dir,
            SYMLINK => EntryBody::Symlink { target: target(r)? },
            _ => return Err(DecodeError::Malformed("an unknown kind of entry")),
        };
        Ok(Entry { id, parent, name, mode, mtime, body })
    }
}

/// FINISH: what the transfer root itself gets, when a source was named with a trailing slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RootMeta(pub Option<(u16, Timestamp)>);

impl Wire for RootMeta {
    fn encode(&self, out: &mut Vec<u8>) {
        if let Some((mode, mtime)) = self.0 {
            out.extend_from_slice(&mode.to_be_bytes());
            mtime.encode(out);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if r.is_empty() {
            return Ok(RootMeta(None));
        }
        Ok(RootMeta(Some((r.u16()?, Timestamp::decode(r)?))))
    }
}

impl Wire for Timestamp {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.secs.to_be_bytes());
        out.extend_from_slice(&self.nanos.to_be_bytes());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (secs, nanos) = (r.i64()?, r.u32()?);
        if nanos >= 1_000_000_000 {
            return Err(DecodeError::Malformed("a second of more than 10^9 nanoseconds"));
        }
        Ok(Timestamp { secs, nanos })
    }
}

fn size(r: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let size = r.u64()?;
    if size > MAX_FILE_SIZE {
        return Err(DecodeError::Malformed("a file size above 2^63-1"));
    }
    Ok(size)
}

fn target(r: &mut Reader<'_>) -> Result<Box<[u8]>, DecodeError> {
    let bytes = r.bytes16(MAX_LINK_TARGET)?;
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(DecodeError::Malformed("a link target that is empty or holds a NUL byte"));
    }
    Ok(bytes.into())
}
