//! File attributes, draft section 5.

use bytes::{BufMut, BytesMut};
use fcp_proto::coding::{DecodeError, Reader};

use super::string;

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// The type bits within permissions, as in POSIX.
const TYPE: u32 = 0o170_000;

/// What a server tells or is told of a file. What is `None` was not told or stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Length in bytes.
    pub size: Option<u64>,
    /// User and group id.
    pub owner: Option<(u32, u32)>,
    /// POSIX mode, type bits included.
    pub permissions: Option<u32>,
    /// Seconds since 1970 of the last access and of the last modification.
    pub times: Option<(u32, u32)>,
}

impl Attrs {
    /// Seconds since 1970 of the last modification.
    pub fn mtime(&self) -> Option<u32> {
        self.times.map(|(_, mtime)| mtime)
    }

    /// Whether it is a regular file; `None` where the server tells no type.
    pub fn is_file(&self) -> Option<bool> {
        self.has_type(0o100_000)
    }

    /// Whether it is a directory; `None` where the server tells no type.
    pub fn is_dir(&self) -> Option<bool> {
        self.has_type(0o040_000)
    }

    /// Whether it is a symlink; `None` where the server tells no type.
    pub fn is_symlink(&self) -> Option<bool> {
        self.has_type(0o120_000)
    }

    fn has_type(&self, wanted: u32) -> Option<bool> {
        let found = self.permissions? & TYPE;
        (found != 0).then_some(found == wanted)
    }

    /// Appends the wire form.
    pub fn encode(&self, out: &mut BytesMut) {
        let flag = |set: bool, flag| if set { flag } else { 0 };
        out.put_u32(
            flag(self.size.is_some(), SIZE)
                | flag(self.owner.is_some(), OWNER)
                | flag(self.permissions.is_some(), PERMISSIONS)
                | flag(self.times.is_some(), TIMES),
        );
        if let Some(size) = self.size {
            out.put_u64(size);
        }
        if let Some((user, group)) = self.owner {
            out.put_u32(user);
            out.put_u32(group);
        }
        if let Some(permissions) = self.permissions {
            out.put_u32(permissions);
        }
        if let Some((accessed, modified)) = self.times {
            out.put_u32(accessed);
            out.put_u32(modified);
        }
    }

    /// Reads the wire form. Extended attributes are passed over. Flags that version 3 does not know
    /// have no bytes, as OpenSSH takes it; if they had, what follows would not decode.
    ///
    /// # Errors
    /// The bytes end too early.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = r.u32()?;
        let has = |flag| flags & flag != 0;
        let attrs = Attrs {
            size: has(SIZE).then(|| r.u64()).transpose()?,
            owner: has(OWNER).then(|| pair(r)).transpose()?,
            permissions: has(PERMISSIONS).then(|| r.u32()).transpose()?,
            times: has(TIMES).then(|| pair(r)).transpose()?,
        };
        if has(EXTENDED) {
            // A count that lies runs out of bytes at once: each pair has at least eight.
            for _ in 0..r.u32()? {
                string(r)?;
                string(r)?;
            }
        }
        Ok(attrs)
    }
}

fn pair(r: &mut Reader<'_>) -> Result<(u32, u32), DecodeError> {
    Ok((r.u32()?, r.u32()?))
}
