//! Glob syntax as tokens: what rsync's patterns and the globs of operands have in common.

use std::fmt::Write;

/// One element of a glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Exactly this byte.
    Byte(u8),
    /// `?`: one byte that is not a slash.
    Any,
    /// `*`: any number of bytes that are not slashes.
    Star,
    /// `**`: any number of any bytes.
    StarStar,
    /// `[...]`: one byte of the set.
    Class(Box<ByteSet>),
}

/// What a glob means whose syntax is broken; rsync and a shell disagree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// As in rsync: it matches nothing.
    MatchesNothing,
    /// As in a shell: the `[` or the last backslash stands for itself.
    IsLiteral,
}

/// Splits `glob` into tokens; `None` when it is broken and so can match nothing.
pub(super) fn tokens(glob: &[u8], broken: Broken) -> Option<Vec<Token>> {
    let mut out = Vec::with_capacity(glob.len());
    let mut rest = glob;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let token = match first {
            b'?' => Token::Any,
            b'*' => star(&mut rest),
            b'\\' => match tail {
                [escaped, after @ ..] => {
                    rest = after;
                    Token::Byte(*escaped)
                }
                [] if broken == Broken::IsLiteral => Token::Byte(b'\\'),
                [] => return None,
            },
            b'[' => match class(tail) {
                Some((set, after)) => {
                    rest = after;
                    Token::Class(Box::new(set))
                }
                None if broken == Broken::IsLiteral => Token::Byte(b'['),
                None => return None,
            },
            byte => Token::Byte(*byte),
        };
        out.push(token);
    }
    Some(out)
}

/// The token of a run of stars whose first one is already taken.
fn star(rest: &mut &[u8]) -> Token {
    let more = rest.iter().take_while(|b| **b == b'*').count();
    *rest = &rest[more..];
    if more == 0 { Token::Star } else { Token::StarStar }
}

/// Writes `tokens` as a regex over bytes in which no wildcard matches NUL.
///
/// NUL is in no path; the matcher uses it to mark directories. `None`: a class is empty.
pub(super) fn to_regex(tokens: &[Token]) -> Option<String> {
    let mut out = String::with_capacity(tokens.len() * 4);
    for token in tokens {
        match token {
            Token::Byte(b) => push_byte(&mut out, *b),
            Token::Any => out.push_str(r"[^/\x00]"),
            Token::Star => out.push_str(r"[^/\x00]*"),
            Token::StarStar => out.push_str(r"[^\x00]*"),
            Token::Class(set) => set.push_regex(&mut out)?,
        }
    }
    Some(out)
}

fn push_byte(out: &mut String, b: u8) {
    if b.is_ascii_alphanumeric() || b == b'/' {
        out.push(b as char);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, r"\x{b:02X}");
    }
}

/// A set of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    fn insert(&mut self, b: u8) {
        self.0[usize::from(b >> 6)] |= 1 << (b & 63);
    }

    fn insert_range(&mut self, range: std::ops::RangeInclusive<u8>) {
        range.for_each(|b| self.insert(b));
    }

    fn insert_if(&mut self, test: impl Fn(&u8) -> bool) {
        (0..=127).filter(|b| test(b)).for_each(|b| self.insert(b));
    }

    /// Whether `b` is in the set.
    pub(super) fn contains(&self, b: u8) -> bool {
        self.0[usize::from(b >> 6)] & (1 << (b & 63)) != 0
    }

    /// Neither a slash nor NUL is ever matched by a class, not even by a negated one.
    fn finish(mut self, negated: bool) -> ByteSet {
        if negated {
            self.0.iter_mut().for_each(|word| *word = !*word);
        }
        self.0[0] &= !(1 | 1 << b'/');
        self
    }

    fn push_regex(&self, out: &mut String) -> Option<()> {
        if self.0 == [0; 4] {
            return None;
        }
        out.push('[');
        let mut at = 0u16;
        while at < 256 {
            let run = (at..256).take_while(|b| self.contains(*b as u8)).count() as u16;
            if run > 0 {
                let _ = write!(out, r"\x{:02X}-\x{:02X}", at, at + run - 1);
            }
            at += run + 1;
        }
        out.push(']');
        Some(())
    }
}

/// Parses a class after its `[`: the set and what follows the `]`; `None` when it is broken.
///
/// As in rsync: `!` or `^` negates, a `]` in front is a member, `\` escapes, `[:alpha:]` and its
/// like are ASCII, and a `-` is a range only between two single members.
fn class(after_bracket: &[u8]) -> Option<(ByteSet, &[u8])> {
    let (negated, mut rest) = match after_bracket {
        [b'!' | b'^', tail @ ..] => (true, tail),
        all => (false, all),
    };
    let mut set = ByteSet::default();
    let mut range_start = None;
    let mut first = true;
    loop {
        match rest {
            [] => return None,
            [b']', tail @ ..] if !first => return Some((set.finish(negated), tail)),
            [b'-', end, ..] if *end != b']' && range_start.is_some() => {
                let (end, tail) = member(&rest[1..])?;
                set.insert_range(range_start.take()?..=end);
                rest = tail;
            }
            [b'[', b':', tail @ ..] => {
                let close = tail.iter().position(|b| *b == b']')?;
                if let [name @ .., b':'] = &tail[..close] {
                    insert_named(&mut set, name)?;
                    range_start = None;
                    rest = &tail[close + 1..];
                } else {
                    set.insert(b'[');
                    range_start = Some(b'[');
                    rest = &rest[1..];
                }
            }
            _ => {
                let (byte, tail) = member(rest)?;
                set.insert(byte);
                range_start = Some(byte);
                rest = tail;
            }
        }
        first = false;
    }
}

/// One byte of a class, a backslash taken off.
fn member(rest: &[u8]) -> Option<(u8, &[u8])> {
    match rest {
        [b'\\', byte, tail @ ..] => Some((*byte, tail)),
        [b'\\'] | [] => None,
        [byte, tail @ ..] => Some((*byte, tail)),
    }
}

fn insert_named(set: &mut ByteSet, name: &[u8]) -> Option<()> {
    match name {
        b"alnum" => set.insert_if(u8::is_ascii_alphanumeric),
        b"alpha" => set.insert_if(u8::is_ascii_alphabetic),
        b"blank" => set.insert_if(|b| matches!(b, b' ' | b'\t')),
        b"cntrl" => set.insert_if(u8::is_ascii_control),
        b"digit" => set.insert_if(u8::is_ascii_digit),
        b"graph" => set.insert_if(u8::is_ascii_graphic),
        b"lower" => set.insert_if(u8::is_ascii_lowercase),
        b"print" => set.insert_if(|b| b.is_ascii_graphic() || *b == b' '),
        b"punct" => set.insert_if(u8::is_ascii_punctuation),
        // Vertical tab is white space in C and not in Rust.
        b"space" => set.insert_if(|b| b.is_ascii_whitespace() || *b == 0x0b),
        b"upper" => set.insert_if(u8::is_ascii_uppercase),
        b"xdigit" => set.insert_if(u8::is_ascii_hexdigit),
        _ => return None,
    }
    Some(())
}
