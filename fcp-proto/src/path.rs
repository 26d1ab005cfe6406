//! Names and relative paths that came from a peer, validated once and for all.
//!
//! A [`Name`] is one component, a [`RelPath`] a canonical path below a root. Neither can spell
//! `..`, an absolute path or a NUL byte, so holding one is the proof that it was checked.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use crate::limits::{MAX_DEPTH, MAX_NAME, MAX_PATH};

/// Why bytes are not a name or not a relative path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRefused {
    /// No bytes at all, or an empty component (`a//b`, a leading or trailing slash).
    #[error("an empty path component")]
    Empty,
    /// `.` or `..`.
    #[error("a '.' or '..' component")]
    Dots,
    /// A `/` inside one component.
    #[error("a slash inside a name")]
    Slash,
    /// A NUL byte, which no Unix name can hold.
    #[error("a NUL byte")]
    Nul,
    /// A component longer than [`MAX_NAME`] or a path longer than [`MAX_PATH`].
    #[error("a name or path that is too long")]
    TooLong,
    /// More than [`MAX_DEPTH`] components.
    #[error("a path that is too deep")]
    TooDeep,
}

/// One path component: 1 to [`MAX_NAME`] bytes, no slash, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes`.
    pub fn new(bytes: &[u8]) -> Result<Name, PathRefused> {
        check_name(bytes)?;
        Ok(Name(bytes.into()))
    }

    /// The bytes as the file system has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for Name {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", escape(&self.0))
    }
}

/// A canonical path below a root: components joined by single slashes; the root itself is empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RelPath(Vec<u8>);

impl RelPath {
    /// The root itself.
    pub const fn root() -> RelPath {
        RelPath(Vec::new())
    }

    /// Checks `bytes`, which must name something below the root.
    pub fn new(bytes: &[u8]) -> Result<RelPath, PathRefused> {
        if bytes.len() > MAX_PATH {
            return Err(PathRefused::TooLong);
        }
        let mut depth = 0;
        for part in bytes.split(|b| *b == b'/') {
            check_name(part)?;
            depth += 1;
        }
        if depth > MAX_DEPTH {
            return Err(PathRefused::TooDeep);
        }
        Ok(RelPath(bytes.to_vec()))
    }

    /// This path with one more component; refused when that makes it longer than [`MAX_PATH`].
    pub fn join(&self, name: &Name) -> Result<RelPath, PathRefused> {
        let joined = self.join_unbounded(name);
        if joined.0.len() > MAX_PATH { Err(PathRefused::TooLong) } else { Ok(joined) }
    }

    /// This path with one more component, however long: trees may be deeper than `PATH_MAX`,
    /// as they are reached through held directories.
    pub fn join_unbounded(&self, name: &Name) -> RelPath {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        RelPath(bytes)
    }

    /// The directory that holds this path, and its last component; `None` for the root.
    pub fn split_last(&self) -> Option<(RelPath, Name)> {
        if self.0.is_empty() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/');
        let (dir, name) = match cut {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&self.0[..0], &self.0[..]),
        };
        Some((RelPath(dir.to_vec()), Name(name.into())))
    }

    /// The components from the root downwards.
    pub fn components(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty()).map(|part| Name(part.into()))
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes as the wire and the file system have them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Name> for RelPath {
    fn from(name: Name) -> RelPath {
        RelPath(name.0.into_vec())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(".") } else { f.write_str(&escape(&self.0)) }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

fn check_name(bytes: &[u8]) -> Result<(), PathRefused> {
    match bytes {
        [] => Err(PathRefused::Empty),
        b"." | b".." => Err(PathRefused::Dots),
        _ if bytes.len() > MAX_NAME => Err(PathRefused::TooLong),
        _ if bytes.contains(&b'/') => Err(PathRefused::Slash),
        _ if bytes.contains(&0) => Err(PathRefused::Nul),
        _ => Ok(()),
    }
}

/// Foreign bytes as one safe line for a terminal or a log.
///
/// Control characters (C0, DEL, C1), bidirectional overrides and bytes that are not UTF-8 become
/// `\ooo`, as in rsync, and so does every backslash, so that it reads as one name only.
pub fn escape(bytes: &[u8]) -> String {
    escape_but(bytes, "\\134")
}

/// A peer's explanation as one safe line: as [`escape`], but for backslashes, which stay: the names
/// in it are escaped already.
pub fn escape_text(text: &str) -> String {
    escape_but(text.as_bytes(), "\\")
}

fn escape_but(bytes: &[u8], backslash: &str) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_unsafe(c) {
                let mut buf = [0; 4];
                c.encode_utf8(&mut buf).bytes().for_each(|b| push_octal(&mut out, b));
            } else if c == '\\' {
                out.push_str(backslash);
            } else {
                out.push(c);
            }
        }
        chunk.invalid().iter().for_each(|b| push_octal(&mut out, *b));
    }
    out
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn push_octal(out: &mut String, b: u8) {
    use fmt::Write;
    // Writing to a String cannot fail.
    let _ = write!(out, "\\{b:03o}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p01_only_canonical_relative_paths_pass() {
        for bad in [
            "../x",
            "a/../../x",
            "/etc/x",
            "//x",
            "./",
            ".",
            "..",
            "",
            "a/",
            "a//b",
            "a/./b",
            "a/..",
        ] {
            assert!(RelPath::new(bad.as_bytes()).is_err(), "{bad:?} was accepted");
        }
        assert!(RelPath::new(b"a/b/c").is_ok());
        assert!(RelPath::new(b"...").is_ok());
    }

    #[test]
    fn p02_nul_is_refused_and_every_other_byte_kept() {
        assert_eq!(Name::new(b"a\0b"), Err(PathRefused::Nul));
        for b in 1..=255u8 {
            if b != b'/' {
                assert_eq!(Name::new(&[b'x', b]).unwrap().as_bytes(), &[b'x', b]);
            }
        }
    }

    #[test]
    fn p03_lengths_are_bounded() {
        assert!(Name::new(&[b'a'; 255]).is_ok());
        assert_eq!(Name::new(&[b'a'; 256]), Err(PathRefused::TooLong));
        let deep = vec![b"a".as_slice(); 2048].join(&b'/');
        assert!(RelPath::new(&deep).is_ok());
        let long = vec![[b'a'; 255].as_slice(); 16].join(&b'/');
        assert_eq!(long.len(), 4095);
        assert!(RelPath::new(&long).is_ok());
        let longer = [long.as_slice(), b"x"].join(&b'/');
        assert_eq!(RelPath::new(&longer), Err(PathRefused::TooLong));
    }

    #[test]
    fn escape_leaves_no_control_character_and_no_ambiguity() {
        assert_eq!(escape(b"a\x1b[31m\n"), "a\\033[31m\\012");
        assert_eq!(escape(b"\xff\xc2\x9b"), "\\377\\302\\233");
        assert_eq!(escape("é日".as_bytes()), "é日");
        assert_eq!(escape("a\u{202e}b".as_bytes()), "a\\342\\200\\256b");
        assert_eq!(escape(b"a\\033"), "a\\134033");
    }

    #[test]
    fn split_and_join_are_inverse() {
        let path = RelPath::new(b"a/b/c").unwrap();
        let (dir, name) = path.split_last().unwrap();
        assert_eq!((dir.as_bytes(), name.as_bytes()), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(dir.join(&name).unwrap(), path);
        assert!(RelPath::root().split_last().is_none());
    }
}
