//! Globs in remote operands, such as `host:logs/*.txt`, which the server expands.
//!
//! These are a shell's globs, not rsync's patterns: no `**`, no braces, and a leading dot is
//! matched only by a dot. A name on disk may itself contain `*` or `[`, so the caller MUST first
//! look for the operand exactly as it was typed and expand it only when nothing has that name;
//! nothing in this module can do that, as it never sees a disk.

use fcp_proto::Name;

use super::glob::{Broken, Token, tokens};

/// Whether `bytes` hold a `*`, `?` or `[` that no backslash escapes.
pub fn has_magic(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return false,
            [b'\\', _, tail @ ..] => tail,
            [b'*' | b'?' | b'[', ..] => return true,
            [_, tail @ ..] => tail,
        }
    }
}

/// `bytes` with the escaping backslashes taken off; a last backslash escapes nothing and stays.
pub fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        (rest, _) = match (first, tail) {
            (b'\\', [escaped, after @ ..]) => (after, out.push(*escaped)),
            _ => (tail, out.push(*first)),
        };
    }
    out
}

/// An operand cut at its slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitGlob {
    /// Whether it began with a slash.
    pub absolute: bool,
    /// Its components from the top; empty ones (`a//b`) are left out, `.` and `..` are not.
    pub components: Vec<Component>,
    /// Whether it ended with a slash: only directories are meant.
    pub trailing_slash: bool,
}

/// One component of an operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Component {
    /// Without magic; unescaped, ready to be looked up. May be `.` or `..`.
    Plain(Vec<u8>),
    /// To be matched against every name of its directory.
    Magic(ComponentGlob),
}

/// Cuts `path` at every slash, escaped or in brackets or not, as no name can hold one.
pub fn split_glob(path: &[u8]) -> SplitGlob {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty());
    SplitGlob {
        absolute: path.starts_with(b"/"),
        components: parts.map(Component::new).collect(),
        trailing_slash: path.ends_with(b"/"),
    }
}

impl Component {
    fn new(bytes: &[u8]) -> Component {
        if has_magic(bytes) {
            Component::Magic(ComponentGlob::new(bytes))
        } else {
            Component::Plain(unescape(bytes))
        }
    }
}

/// A glob for one path component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentGlob(Vec<Token>);

impl ComponentGlob {
    /// Every string is a glob: a `[` without its `]` and a last backslash stand for themselves.
    pub fn new(bytes: &[u8]) -> ComponentGlob {
        // Globs with `Broken::IsLiteral` are never refused.
        let mut tokens = tokens(bytes, Broken::IsLiteral).unwrap_or_default();
        for token in &mut tokens {
            if *token == Token::StarStar {
                *token = Token::Star;
            }
        }
        ComponentGlob(tokens)
    }

    /// Whether `name` matches; a leading dot only when the glob begins with one.
    pub fn matches(&self, name: &Name) -> bool {
        let hidden = name.starts_with(b".");
        (!hidden || self.0.first() == Some(&Token::Byte(b'.'))) && wildcard_match(&self.0, name)
    }
}

/// Matches in time of at most tokens x bytes: only the last star passed is ever widened, since
/// widening an earlier one cannot help when there are no separators.
fn wildcard_match(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut retry = None;
    while at < name.len() {
        match tokens.get(token) {
            Some(Token::Star | Token::StarStar) => {
                token += 1;
                retry = Some((token, at));
                continue;
            }
            Some(one) if matches_byte(one, name[at]) => (token, at) = (token + 1, at + 1),
            _ => match &mut retry {
                Some((after_star, from)) => {
                    *from += 1;
                    (token, at) = (*after_star, *from);
                }
                None => return false,
            },
        }
    }
    tokens[token..].iter().all(|rest| *rest == Token::Star)
}

fn matches_byte(token: &Token, byte: u8) -> bool {
    match token {
        Token::Byte(b) => *b == byte,
        Token::Any => byte != b'/',
        Token::Class(set) => set.contains(byte),
        Token::Star | Token::StarStar => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        ComponentGlob::new(glob.as_bytes()).matches(&Name::new(name.as_bytes()).unwrap())
    }

    #[test]
    fn magic_is_what_no_backslash_escapes() {
        for magic in ["*", "a?", "x[", r"\\*", r"\a[b]"] {
            assert!(has_magic(magic.as_bytes()), "{magic}");
        }
        for plain in ["", "a", "]", r"\*", r"\?\[", r"a\", "{a,b}"] {
            assert!(!has_magic(plain.as_bytes()), "{plain}");
        }
    }

    #[test]
    fn unescape_takes_one_level_off() {
        for (from, to) in [(r"a\*b", "a*b"), (r"\\x", r"\x"), (r"a\", r"a\"), ("", ""), ("é", "é")]
        {
            assert_eq!(unescape(from.as_bytes()), to.as_bytes());
        }
    }

    #[test]
    fn a_component_glob_matches_as_in_a_shell() {
        for (glob, name) in [
            ("*", "a"),
            ("*.txt", "x.txt"),
            ("a**b", "ab"),
            ("a*b*c", "aXbYbZc"),
            ("[!a]", "b"),
            ("[^a]x", "bx"),
            ("[[:digit:]]?", "7z"),
            (".*", ".x"),
            (r"\.x*", ".xy"),
            (r"\*[1]", "*1"),
            ("[a", "[a"),
            ("*[", "x["),
            (r"?\", r"a\"),
            ("{a,b}*", "{a,b}c"),
            ("?*?", "ab"),
            ("[]x]", "]"),
        ] {
            assert!(matches(glob, name), "{glob} {name}");
        }
    }

    #[test]
    fn a_component_glob_leaves_the_rest_alone() {
        for (glob, name) in [
            ("*", ".x"),
            ("?x", ".x"),
            ("[.]x", ".x"),
            ("*.txt", ".txt"),
            ("*.txt", "x.TXT"),
            ("*.txt", "x.txt2"),
            ("{a,b}", "a"),
            ("a?", "a"),
            ("[a-c]", "d"),
            (r"\*", "a"),
            ("", "a"),
        ] {
            assert!(!matches(glob, name), "{glob} {name}");
        }
    }

    #[test]
    fn names_that_are_not_utf8_match() {
        let name = Name::new(b"a\xff\xfe").unwrap();
        assert!(ComponentGlob::new(b"a??").matches(&name));
        assert!(ComponentGlob::new(b"*\xfe").matches(&name));
        assert!(ComponentGlob::new(b"a[\xf0-\xff]*").matches(&name));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let glob = ComponentGlob::new(&b"*a".repeat(2000));
        assert!(!glob.matches(&Name::new(&[b'a'; 255]).unwrap()));
        let glob = ComponentGlob::new(&[&b"*a".repeat(100)[..], b"b"].concat());
        assert!(!glob.matches(&Name::new(&[b'a'; 255]).unwrap()));
    }

    #[test]
    fn an_operand_is_cut_at_every_slash() {
        let split = split_glob(br"/a\ b//*.c/..\/");
        assert!(split.absolute && split.trailing_slash);
        let [Component::Plain(first), Component::Magic(_), Component::Plain(last)] =
            &split.components[..]
        else {
            panic!("{split:?}")
        };
        assert_eq!((first.as_slice(), last.as_slice()), (&b"a b"[..], &br"..\"[..]));
        assert!(split_glob(b"").components.is_empty());
    }
}
