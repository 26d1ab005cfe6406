//! Integers, bounded strings and lists: the grammar under every packet.
//!
//! Encoding cannot fail. Decoding fails in one of three ways, and a nested decode gets a reader of
//! exactly its own bytes, which must end empty.

/// Why bytes are not the packet that their flag promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("a packet that ends inside a field")]
    Truncated,
    /// Bytes are left over behind the last field.
    #[error("a packet with bytes behind its last field")]
    Trailing,
    /// A field holds a value that its packet does not allow.
    #[error("a packet with {0}")]
    Malformed(&'static str),
}

impl From<crate::path::PathRefused> for DecodeError {
    fn from(refused: crate::path::PathRefused) -> Self {
        use crate::path::PathRefused as P;
        DecodeError::Malformed(match refused {
            P::Empty => "an empty path component",
            P::Dots => "a '.' or '..' path component",
            P::Slash => "a slash inside a name",
            P::Nul => "a NUL byte in a name",
            P::TooLong => "a name or path that is too long",
            P::TooDeep => "a path that is too deep",
        })
    }
}

/// Something with one wire form.
pub trait Wire: Sized {
    /// Appends the wire form to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads one value and leaves the reader behind it.
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// Decodes one value that must fill `bytes` exactly.
pub fn decode_exact<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut r = Reader::new(bytes);
    let value = T::decode(&mut r)?;
    r.finish()?;
    Ok(value)
}

/// A cursor over foreign bytes; every read is bounds-checked.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// Takes the next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes the next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Takes a byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[b]| b)
    }

    /// Takes a big-endian `u16`.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes a big-endian `u32`.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Takes a big-endian `u64`.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes a big-endian `i64`.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// Takes bytes behind a one-byte length.
    pub fn bytes8(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = self.u8()?;
        self.take(n.into())
    }

    /// Takes bytes behind a two-byte length, at most `max` of them.
    pub fn bytes16(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let n = usize::from(self.u16()?);
        if n > max {
            return Err(DecodeError::Malformed("a string over its limit"));
        }
        self.take(n)
    }

    /// Reads values until the bytes end. The input is already bounded by its frame or message, so
    /// the list is too.
    pub fn until_end<T: Wire>(&mut self) -> Result<Vec<T>, DecodeError> {
        let mut all = Vec::new();
        while !self.is_empty() {
            all.push(T::decode(self)?);
        }
        Ok(all)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails unless nothing is left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// Appends bytes behind a one-byte length; the caller holds at most 255.
pub(crate) fn put_bytes8(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= 255);
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Appends bytes behind a two-byte length, cut at `max`.
pub(crate) fn put_bytes16(out: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let bytes = &bytes[..bytes.len().min(max)];
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}
