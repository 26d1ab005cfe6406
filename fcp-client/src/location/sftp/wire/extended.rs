//! Requests that a server may know, by name: OpenSSH's PROTOCOL section 4, and `check-file` of
//! draft-ietf-secsh-filexfer-extensions-00 section 3.

use bytes::{BufMut, Bytes, BytesMut};
use fcp_proto::coding::{DecodeError, Reader};

use super::{Attrs, handle, put_string, string};

/// An extended request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Extension<'a> {
    /// Renames onto whatever file has the name, in one step.
    PosixRename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Fsync {
        handle: &'a [u8],
    },
    Hardlink {
        from: &'a [u8],
        to: &'a [u8],
    },
    StatVfs {
        path: &'a [u8],
    },
    Limits,
    /// [`super::Request::Setstat`] that does not follow a link.
    Lsetstat {
        path: &'a [u8],
        attrs: Attrs,
    },
    /// As REALPATH, and `~` and `~user` mean something.
    ExpandPath {
        path: &'a [u8],
    },
    /// `len` 0: up to the end of the file.
    CopyData {
        from: &'a [u8],
        offset: u64,
        len: u64,
        to: &'a [u8],
        to_offset: u64,
    },
    /// `algorithms`: names, comma between them. `len` 0: up to the end. `block` 0: one digest of
    /// all, else one for every so many bytes.
    CheckFileName {
        path: &'a [u8],
        algorithms: &'a [u8],
        offset: u64,
        len: u64,
        block: u32,
    },
    /// As [`Extension::CheckFileName`], of an open file.
    CheckFileHandle {
        handle: &'a [u8],
        algorithms: &'a [u8],
        offset: u64,
        len: u64,
        block: u32,
    },
    /// One that we do not know.
    Unknown {
        name: &'a [u8],
        body: &'a [u8],
    },
}

/// Names of extensions, as a server announces them.
#[allow(missing_docs)]
pub mod name {
    pub const POSIX_RENAME: &str = "posix-rename@openssh.com";
    pub const FSYNC: &str = "fsync@openssh.com";
    pub const HARDLINK: &str = "hardlink@openssh.com";
    pub const STATVFS: &str = "statvfs@openssh.com";
    pub const LIMITS: &str = "limits@openssh.com";
    pub const LSETSTAT: &str = "lsetstat@openssh.com";
    pub const EXPAND_PATH: &str = "expand-path@openssh.com";
    pub const COPY_DATA: &str = "copy-data";
    /// What is announced for both requests below.
    pub const CHECK_FILE: &str = "check-file";
    pub const CHECK_FILE_NAME: &str = "check-file-name";
    pub const CHECK_FILE_HANDLE: &str = "check-file-handle";
}

impl<'a> Extension<'a> {
    /// The name of the request.
    pub fn name(&self) -> &'a [u8] {
        match self {
            Extension::PosixRename { .. } => name::POSIX_RENAME.as_bytes(),
            Extension::Fsync { .. } => name::FSYNC.as_bytes(),
            Extension::Hardlink { .. } => name::HARDLINK.as_bytes(),
            Extension::StatVfs { .. } => name::STATVFS.as_bytes(),
            Extension::Limits => name::LIMITS.as_bytes(),
            Extension::Lsetstat { .. } => name::LSETSTAT.as_bytes(),
            Extension::ExpandPath { .. } => name::EXPAND_PATH.as_bytes(),
            Extension::CopyData { .. } => name::COPY_DATA.as_bytes(),
            Extension::CheckFileName { .. } => name::CHECK_FILE_NAME.as_bytes(),
            Extension::CheckFileHandle { .. } => name::CHECK_FILE_HANDLE.as_bytes(),
            Extension::Unknown { name, .. } => name,
        }
    }

    /// Appends name and body.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_string(out, self.name());
        match *self {
            Extension::Limits => {}
            Extension::PosixRename { from, to } | Extension::Hardlink { from, to } => {
                put_string(out, from);
                put_string(out, to);
            }
            Extension::Fsync { handle: one }
            | Extension::StatVfs { path: one }
            | Extension::ExpandPath { path: one } => put_string(out, one),
            Extension::Lsetstat { path, attrs } => {
                put_string(out, path);
                attrs.encode(out);
            }
            Extension::CopyData { from, offset, len, to, to_offset } => {
                put_string(out, from);
                out.put_u64(offset);
                out.put_u64(len);
                put_string(out, to);
                out.put_u64(to_offset);
            }
            Extension::CheckFileName { path: of, algorithms, offset, len, block }
            | Extension::CheckFileHandle { handle: of, algorithms, offset, len, block } => {
                put_string(out, of);
                put_string(out, algorithms);
                out.put_u64(offset);
                out.put_u64(len);
                out.put_u32(block);
            }
            Extension::Unknown { body, .. } => out.extend_from_slice(body),
        }
    }

    /// Reads name and body.
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let asked = string(r)?;
        Ok(match std::str::from_utf8(asked).unwrap_or_default() {
            name::POSIX_RENAME => Extension::PosixRename { from: string(r)?, to: string(r)? },
            name::FSYNC => Extension::Fsync { handle: handle(r)? },
            name::HARDLINK => Extension::Hardlink { from: string(r)?, to: string(r)? },
            name::STATVFS => Extension::StatVfs { path: string(r)? },
            name::LIMITS => Extension::Limits,
            name::LSETSTAT => Extension::Lsetstat { path: string(r)?, attrs: Attrs::decode(r)? },
            name::EXPAND_PATH => Extension::ExpandPath { path: string(r)? },
            name::COPY_DATA => Extension::CopyData {
                from: handle(r)?,
                offset: r.u64()?,
                len: r.u64()?,
                to: handle(r)?,
                to_offset: r.u64()?,
            },
            name::CHECK_FILE_NAME => Extension::CheckFileName {
                path: string(r)?,
                algorithms: string(r)?,
                offset: r.u64()?,
                len: r.u64()?,
                block: r.u32()?,
            },
            name::CHECK_FILE_HANDLE => Extension::CheckFileHandle {
                handle: handle(r)?,
                algorithms: string(r)?,
                offset: r.u64()?,
                len: r.u64()?,
                block: r.u32()?,
            },
            _ => Extension::Unknown { name: asked, body: r.rest() },
        })
    }
}

/// What `limits@openssh.com` answers, in bytes; 0 means that the server does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest packet.
    pub packet: u64,
    /// Longest READ.
    pub read: u64,
    /// Longest WRITE.
    pub write: u64,
    /// Handles that may be open at a time.
    pub handles: u64,
}

impl Limits {
    /// Reads the body of an extended reply.
    ///
    /// # Errors
    /// The body is too short. What a later OpenSSH may add behind it is passed over.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        Ok(Limits { packet: r.u64()?, read: r.u64()?, write: r.u64()?, handles: r.u64()? })
    }

    /// The body of an extended reply.
    pub fn encode(&self) -> Bytes {
        [self.packet, self.read, self.write, self.handles]
            .iter()
            .flat_map(|n| n.to_be_bytes())
            .collect()
    }
}

/// What `statvfs@openssh.com` answers, named as in POSIX `struct statvfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct StatVfs {
    pub bsize: u64,
    /// Bytes of the unit of the block counts.
    pub frsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    /// Blocks free for this account.
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub favail: u64,
    pub fsid: u64,
    pub flag: u64,
    pub namemax: u64,
}

impl StatVfs {
    /// Bytes that this account may still write.
    pub fn available(&self) -> u64 {
        self.bavail.saturating_mul(self.frsize)
    }

    /// Reads the body of an extended reply.
    ///
    /// # Errors
    /// The body is too short.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        Ok(StatVfs {
            bsize: r.u64()?,
            frsize: r.u64()?,
            blocks: r.u64()?,
            bfree: r.u64()?,
            bavail: r.u64()?,
            files: r.u64()?,
            ffree: r.u64()?,
            favail: r.u64()?,
            fsid: r.u64()?,
            flag: r.u64()?,
            namemax: r.u64()?,
        })
    }
}

/// What `check-file` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFile {
    /// The algorithm that the server chose, e.g. `sha256`.
    pub algorithm: Bytes,
    /// The digests of all blocks, one behind the other.
    pub digests: Bytes,
}

impl CheckFile {
    /// Reads the body of an extended reply. Servers of the older draft put the name of the extension
    /// in front.
    ///
    /// # Errors
    /// The body is too short.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(body);
        let mut algorithm = string(&mut r)?;
        if algorithm.starts_with(name::CHECK_FILE.as_bytes()) {
            algorithm = string(&mut r)?;
        }
        Ok(CheckFile { algorithm: body.slice_ref(algorithm), digests: body.slice_ref(r.rest()) })
    }

    /// The body of an extended reply.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_string(&mut out, &self.algorithm);
        out.extend_from_slice(&self.digests);
        out.freeze()
    }
}
