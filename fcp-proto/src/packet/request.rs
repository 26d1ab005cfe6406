//! REQUEST: what the client wants. In a version 2 session this counts, not the JSON of PUSH or PULL.

use crate::coding::{DecodeError, Reader, Wire, decode_exact, put_bytes16};
use crate::limits::{MAX_MESSAGE, MAX_PATH, MAX_RULE, MAX_RULES, MAX_SOURCES};

/// Who sends content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client sends; `paths` holds the one destination.
    Push,
    /// The server sends; `paths` holds the sources.
    Pull,
}

/// How much is made durable before CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing: the kernel writes when it likes, as with cp.
    #[default]
    None,
    /// Each file before its rename; each directory once.
    Batch,
    /// Each file before its rename, and its directory right after.
    Always,
}

/// Switches of a request, as a bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options(pub u32);

impl Options {
    /// Content is always compared.
    pub const CHECKSUM: Options = Options(1);
    /// Nothing is changed; RESULTS say what would be.
    pub const DRY_RUN: Options = Options(1 << 1);
    /// Permission bits are set.
    pub const PERMS: Options = Options(1 << 2);
    /// Modification times are set.
    pub const TIMES: Options = Options(1 << 3);
    /// Symbolic links are made; otherwise they are reported.
    pub const LINKS: Options = Options(1 << 4);
    /// Directories are descended into; otherwise they are reported.
    pub const RECURSIVE: Options = Options(1 << 5);
    /// Missing parents of the destination are made.
    pub const MKPATH: Options = Options(1 << 6);
    /// Push: the one source is not a directory, so the destination may be its new name.
    pub const SINGLE: Options = Options(1 << 7);

    const KNOWN: u32 = (1 << 8) - 1;

    /// Whether all of `other` is set.
    pub fn has(self, other: Options) -> bool {
        self.0 & other.0 == other.0
    }

    /// With `other` set if `on`.
    pub fn with(self, other: Options, on: bool) -> Options {
        if on { Options(self.0 | other.0) } else { Options(self.0 & !other.0) }
    }
}

/// A filter rule as it travels; what its pattern means is the business of the ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// 1 includes, 2 excludes.
    pub action: u8,
    /// A glob, or a regex behind `re:`.
    pub pattern: Vec<u8>,
}

/// What the client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who sends content.
    pub direction: Direction,
    /// Switches.
    pub options: Options,
    /// How much is made durable.
    pub durability: Durability,
    /// The destination, or the sources, as bytes of the server's file system.
    pub paths: Vec<Vec<u8>>,
    /// Filter rules, first match wins.
    pub rules: Vec<Rule>,
}

impl Request {
    /// Whether the peer can take this. Encoding cannot fail, so it cuts what is over a limit: a
    /// client asks here first, as a path that was cut is another path.
    pub fn check(&self) -> Result<(), DecodeError> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        if bytes.len() > MAX_MESSAGE - size_of::<u32>() {
            return Err(DecodeError::Malformed("more paths and filters than fit a message"));
        }
        match decode_exact::<Request>(&bytes)? == *self {
            true => Ok(()),
            false => Err(DecodeError::Malformed("a path or filter that is too long")),
        }
    }
}

impl Wire for Request {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.direction {
            Direction::Push => 1,
            Direction::Pull => 2,
        });
        out.extend_from_slice(&self.options.0.to_be_bytes());
        out.push(match self.durability {
            Durability::None => 0,
            Durability::Batch => 1,
            Durability::Always => 2,
        });
        out.extend_from_slice(&(self.paths.len() as u32).to_be_bytes());
        self.paths.iter().for_each(|path| put_bytes16(out, path, MAX_PATH));
        out.extend_from_slice(&(self.rules.len() as u32).to_be_bytes());
        for rule in &self.rules {
            out.push(rule.action);
            put_bytes16(out, &rule.pattern, MAX_RULE);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let direction = match r.u8()? {
            1 => Direction::Push,
            2 => Direction::Pull,
            _ => return Err(DecodeError::Malformed("an unknown kind of request")),
        };
        let options = Options(r.u32()?);
        if options.0 & !Options::KNOWN != 0 {
            return Err(DecodeError::Malformed("an unknown option"));
        }
        let durability = match r.u8()? {
            0 => Durability::None,
            1 => Durability::Batch,
            2 => Durability::Always,
            _ => return Err(DecodeError::Malformed("an unknown durability")),
        };
        let paths = list(r, MAX_SOURCES, path)?;
        let rules = list(r, MAX_RULES, rule)?;
        let enough = match direction {
            Direction::Push => paths.len() == 1,
            Direction::Pull => !paths.is_empty(),
        };
        if !enough {
            return Err(DecodeError::Malformed("the wrong number of paths"));
        }
        Ok(Request { direction, options, durability, paths, rules })
    }
}

fn path(r: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let bytes = r.bytes16(MAX_PATH)?;
    if bytes.contains(&0) {
        return Err(DecodeError::Malformed("a NUL byte in a path"));
    }
    Ok(bytes.to_vec())
}

fn rule(r: &mut Reader<'_>) -> Result<Rule, DecodeError> {
    let action = r.u8()?;
    if !matches!(action, 1 | 2) {
        return Err(DecodeError::Malformed("a filter that neither includes nor excludes"));
    }
    Ok(Rule { action, pattern: r.bytes16(MAX_RULE)?.to_vec() })
}

/// A counted list; it grows as its bytes are there, never by its count alone.
fn list<T>(
    r: &mut Reader<'_>,
    max: usize,
    item: fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let n = r.u32()? as usize;
    if n > max {
        return Err(DecodeError::Malformed("too many paths or filters"));
    }
    let mut all = Vec::new();
    for _ in 0..n {
        all.push(item(r)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_would_be_cut_is_refused_before_it_is_sent() {
        let of = |paths: Vec<Vec<u8>>| Request {
            direction: Direction::Pull,
            options: Options::default(),
            durability: Durability::None,
            paths,
            rules: vec![],
        };
        assert_eq!(of(vec![vec![b'a'; MAX_PATH]; 200]).check(), Ok(()));
        for bad in [
            of(vec![]),
            of(vec![vec![b'a'; MAX_PATH + 1]]),
            of(vec![b"a\0b".to_vec()]),
            of(vec![vec![]; MAX_SOURCES + 1]),
            of(vec![vec![b'a'; MAX_PATH]; 300]),
        ] {
            assert!(bad.check().is_err());
        }
    }
}
