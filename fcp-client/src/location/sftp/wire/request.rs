//! What a client asks, draft section 6.

use bytes::{BufMut, BytesMut};
use fcp_proto::coding::{DecodeError, Reader};

use super::extended::Extension;
use super::{Attrs, frame, handle, put_len, put_string, string};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

#[allow(missing_docs)]
impl OpenFlags {
    pub const READ: OpenFlags = OpenFlags(1);
    pub const WRITE: OpenFlags = OpenFlags(2);
    pub const APPEND: OpenFlags = OpenFlags(4);
    pub const CREATE: OpenFlags = OpenFlags(8);
    pub const TRUNCATE: OpenFlags = OpenFlags(16);
    pub const EXCLUSIVE: OpenFlags = OpenFlags(32);
    /// Create for writing and for reading back, and only if nothing has the name.
    pub const CREATE_NEW: OpenFlags = OpenFlags(1 | 2 | 8 | 32);
}

impl std::ops::BitOr for OpenFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        OpenFlags(self.0 | other.0)
    }
}

/// One request. Paths, handles and data are the bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Request<'a> {
    /// The first packet; it has no id.
    Init {
        version: u32,
    },
    Open {
        path: &'a [u8],
        flags: OpenFlags,
        attrs: Attrs,
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
        len: u32,
    },
    /// [`Request::encode`] leaves the data out: it follows without being copied.
    Write {
        handle: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Lstat {
        path: &'a [u8],
    },
    Fstat {
        handle: &'a [u8],
    },
    Setstat {
        path: &'a [u8],
        attrs: Attrs,
    },
    Fsetstat {
        handle: &'a [u8],
        attrs: Attrs,
    },
    Opendir {
        path: &'a [u8],
    },
    Readdir {
        handle: &'a [u8],
    },
    Remove {
        path: &'a [u8],
    },
    Mkdir {
        path: &'a [u8],
        attrs: Attrs,
    },
    Rmdir {
        path: &'a [u8],
    },
    Realpath {
        path: &'a [u8],
    },
    Stat {
        path: &'a [u8],
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Readlink {
        path: &'a [u8],
    },
    /// On the wire `target` stands first, the other way round than in draft section 6.10: OpenSSH
    /// had it so by mistake, and every server follows OpenSSH (its PROTOCOL, section 4.1).
    Symlink {
        target: &'a [u8],
        link: &'a [u8],
    },
    Extended(Extension<'a>),
}

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
const EXTENDED: u8 = 200;

impl<'a> Request<'a> {
    /// Appends the packet with its length, all but the data of [`Request::Write`].
    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        let more = match self {
            Request::Write { data, .. } => data.len(),
            _ => 0,
        };
        frame::put(out, more, |out| {
            out.put_u8(self.kind());
            if let Request::Init { version } = self {
                return out.put_u32(*version);
            }
            out.put_u32(id);
            self.encode_body(out);
        });
    }

    /// Reads a packet without its length; the id of [`Request::Init`] is 0.
    ///
    /// # Errors
    /// The bytes are no request of version 3.
    pub fn decode(packet: &'a [u8]) -> Result<(u32, Self), DecodeError> {
        let mut r = Reader::new(packet);
        let kind = r.u8()?;
        if kind == INIT {
            // What a later version would add behind it is not ours to judge.
            return Ok((0, Request::Init { version: r.u32()? }));
        }
        let id = r.u32()?;
        let request = Self::decode_body(kind, &mut r)?;
        r.finish()?;
        Ok((id, request))
    }

    fn kind(&self) -> u8 {
        match self {
            Request::Init { .. } => INIT,
            Request::Open { .. } => OPEN,
            Request::Close { .. } => CLOSE,
            Request::Read { .. } => READ,
            Request::Write { .. } => WRITE,
            Request::Lstat { .. } => LSTAT,
            Request::Fstat { .. } => FSTAT,
            Request::Setstat { .. } => SETSTAT,
            Request::Fsetstat { .. } => FSETSTAT,
            Request::Opendir { .. } => OPENDIR,
            Request::Readdir { .. } => READDIR,
            Request::Remove { .. } => REMOVE,
            Request::Mkdir { .. } => MKDIR,
            Request::Rmdir { .. } => RMDIR,
            Request::Realpath { .. } => REALPATH,
            Request::Stat { .. } => STAT,
            Request::Rename { .. } => RENAME,
            Request::Readlink { .. } => READLINK,
            Request::Symlink { .. } => SYMLINK,
            Request::Extended(_) => EXTENDED,
        }
    }

    fn encode_body(&self, out: &mut BytesMut) {
        match *self {
            Request::Init { .. } => {}
            Request::Open { path, flags, attrs } => {
                put_string(out, path);
                out.put_u32(flags.0);
                attrs.encode(out);
            }
            Request::Read { handle, offset, len } => {
                put_string(out, handle);
                out.put_u64(offset);
                out.put_u32(len);
            }
            Request::Write { handle, offset, data } => {
                put_string(out, handle);
                out.put_u64(offset);
                put_len(out, data.len());
            }
            Request::Close { handle: one }
            | Request::Fstat { handle: one }
            | Request::Readdir { handle: one }
            | Request::Lstat { path: one }
            | Request::Stat { path: one }
            | Request::Opendir { path: one }
            | Request::Remove { path: one }
            | Request::Rmdir { path: one }
            | Request::Realpath { path: one }
            | Request::Readlink { path: one } => put_string(out, one),
            Request::Setstat { path: one, attrs }
            | Request::Fsetstat { handle: one, attrs }
            | Request::Mkdir { path: one, attrs } => {
                put_string(out, one);
                attrs.encode(out);
            }
            Request::Rename { from: one, to: two }
            | Request::Symlink { target: one, link: two } => {
                put_string(out, one);
                put_string(out, two);
            }
            Request::Extended(extension) => extension.encode(out),
        }
    }

    fn decode_body(kind: u8, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match kind {
            OPEN => Request::Open {
                path: string(r)?,
                flags: OpenFlags(r.u32()?),
                attrs: Attrs::decode(r)?,
            },
            CLOSE => Request::Close { handle: handle(r)? },
            READ => Request::Read { handle: handle(r)?, offset: r.u64()?, len: r.u32()? },
            WRITE => Request::Write { handle: handle(r)?, offset: r.u64()?, data: string(r)? },
            LSTAT => Request::Lstat { path: string(r)? },
            FSTAT => Request::Fstat { handle: handle(r)? },
            SETSTAT => Request::Setstat { path: string(r)?, attrs: Attrs::decode(r)? },
            FSETSTAT => Request::Fsetstat { handle: handle(r)?, attrs: Attrs::decode(r)? },
            OPENDIR => Request::Opendir { path: string(r)? },
            READDIR => Request::Readdir { handle: handle(r)? },
            REMOVE => Request::Remove { path: string(r)? },
            MKDIR => Request::Mkdir { path: string(r)?, attrs: Attrs::decode(r)? },
            RMDIR => Request::Rmdir { path: string(r)? },
            REALPATH => Request::Realpath { path: string(r)? },
            STAT => Request::Stat { path: string(r)? },
            RENAME => Request::Rename { from: string(r)?, to: string(r)? },
            READLINK => Request::Readlink { path: string(r)? },
            SYMLINK => Request::Symlink { target: string(r)?, link: string(r)? },
            EXTENDED => Request::Extended(Extension::decode(r)?),
            _ => return Err(DecodeError::Malformed("a type that no request has")),
        })
    }
}
