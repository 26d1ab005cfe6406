//! What a server answers, draft section 7.

use bytes::{BufMut, Bytes, BytesMut};
use fcp_proto::coding::{DecodeError, Reader};

use super::{Attrs, StatusCode, frame, handle, put_string, string};

/// Extensions of a server; OpenSSH has a dozen. More than this is no server but an attack.
const MAX_EXTENSIONS: usize = 256;
/// Bytes on the wire of the shortest entry of NAME: two empty strings and no attributes.
const MIN_NAME: usize = 12;

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// One answer. Its bytes are slices of the packet that it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reply {
    /// The answer to INIT; it has no id.
    Version {
        version: u32,
        extensions: Extensions,
    },
    /// `message` is the server's text, as it came.
    Status {
        code: StatusCode,
        message: Bytes,
    },
    Handle(Bytes),
    Data(Bytes),
    Name(Vec<NameEntry>),
    Attrs(Attrs),
    Extended(Bytes),
}

/// A name that a server told. Whether it is one is for the caller to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// The name as it came; what `ls -l` would print for it is dropped.
    pub name: Bytes,
    /// What has the name.
    pub attrs: Attrs,
}

/// What a server can do besides version 3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions(Vec<(Bytes, Bytes)>);

impl Extensions {
    /// From pairs of name and version.
    pub fn new(pairs: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        let pair = |(name, data): (&'static str, &'static str)| (name.into(), data.into());
        Extensions(pairs.into_iter().map(pair).collect())
    }

    /// Whether the server announced it, in whatever version.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The version that the server announced.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, data)| &data[..])
    }

    /// Bytes that it holds, besides those of the packet.
    pub(super) fn held(&self) -> usize {
        self.0.capacity() * size_of::<(Bytes, Bytes)>()
    }

    fn decode(packet: &Bytes, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut pairs = Vec::new();
        while !r.is_empty() {
            if pairs.len() == MAX_EXTENSIONS {
                return Err(DecodeError::Malformed("more than 256 extensions"));
            }
            pairs.push((packet.slice_ref(string(r)?), packet.slice_ref(string(r)?)));
        }
        Ok(Extensions(pairs))
    }
}

impl Reply {
    /// Reads a packet without its length; the id of [`Reply::Version`] is 0.
    ///
    /// # Errors
    /// The bytes are no reply of version 3.
    pub fn decode(packet: &Bytes) -> Result<(u32, Self), DecodeError> {
        let mut r = Reader::new(packet);
        let kind = r.u8()?;
        // In VERSION the version stands where others have their id.
        let id = r.u32()?;
        let reply = match kind {
            VERSION => {
                let extensions = Extensions::decode(packet, &mut r)?;
                return Ok((0, Reply::Version { version: id, extensions }));
            }
            STATUS => return Ok((id, Self::status(packet, r)?)),
            HANDLE => Reply::Handle(packet.slice_ref(handle(&mut r)?)),
            DATA => Reply::Data(packet.slice_ref(string(&mut r)?)),
            NAME => Reply::Name(Self::names(packet, &mut r)?),
            ATTRS => Reply::Attrs(Attrs::decode(&mut r)?),
            EXTENDED_REPLY => Reply::Extended(packet.slice_ref(r.rest())),
            _ => return Err(DecodeError::Malformed("a type that no reply has")),
        };
        r.finish()?;
        Ok((id, reply))
    }

    /// Servers of version 2, and some of today, send the code alone or no language.
    fn status(packet: &Bytes, mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let code = StatusCode(r.u32()?);
        let message = string(&mut r).unwrap_or_default();
        Ok(Reply::Status { code, message: packet.slice_ref(message) })
    }

    fn names(packet: &Bytes, r: &mut Reader<'_>) -> Result<Vec<NameEntry>, DecodeError> {
        let count = usize::try_from(r.u32()?).unwrap_or(usize::MAX);
        if count > packet.len() / MIN_NAME {
            return Err(DecodeError::Malformed("more names than bytes for them"));
        }
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            let name = packet.slice_ref(string(r)?);
            string(r)?;
            names.push(NameEntry { name, attrs: Attrs::decode(r)? });
        }
        Ok(names)
    }

    /// What it is called in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Reply::Version { .. } => "VERSION",
            Reply::Status { .. } => "STATUS",
            Reply::Handle(_) => "HANDLE",
            Reply::Data(_) => "DATA",
            Reply::Name(_) => "NAME",
            Reply::Attrs(_) => "ATTRS",
            Reply::Extended(_) => "EXTENDED_REPLY",
        }
    }

    /// Appends the packet with its length.
    pub fn encode(&self, id: u32, out: &mut BytesMut) {
        frame::put(out, 0, |out| {
            out.put_u8(self.kind());
            out.put_u32(match self {
                Reply::Version { version, .. } => *version,
                _ => id,
            });
            self.encode_body(out);
        });
    }

    fn kind(&self) -> u8 {
        match self {
            Reply::Version { .. } => VERSION,
            Reply::Status { .. } => STATUS,
            Reply::Handle(_) => HANDLE,
            Reply::Data(_) => DATA,
            Reply::Name(_) => NAME,
            Reply::Attrs(_) => ATTRS,
            Reply::Extended(_) => EXTENDED_REPLY,
        }
    }

    fn encode_body(&self, out: &mut BytesMut) {
        match self {
            Reply::Version { extensions, .. } => {
                for (name, data) in &extensions.0 {
                    put_string(out, name);
                    put_string(out, data);
                }
            }
            Reply::Status { code, message } => {
                out.put_u32(code.0);
                put_string(out, message);
                put_string(out, b"");
            }
            Reply::Handle(bytes) | Reply::Data(bytes) => put_string(out, bytes),
            Reply::Name(names) => {
                super::put_len(out, names.len());
                for entry in names {
                    put_string(out, &entry.name);
                    put_string(out, b"");
                    entry.attrs.encode(out);
                }
            }
            Reply::Attrs(attrs) => attrs.encode(out),
            Reply::Extended(body) => out.extend_from_slice(body),
        }
    }
}
