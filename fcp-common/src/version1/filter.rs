//! What a version 1 PULL leaves out: one glob to include, globs or regular expressions to exclude.
//!
//! These are the published sender's rules, not rsync's: every path is judged by itself, so an
//! excluded directory does not take its contents with it.

use fcp_proto::RelPath;
use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled size of one pattern in bytes.
const MAX_REGEX_SIZE: usize = 256 << 10;
/// Most exclude patterns that are looked at.
const MAX_EXCLUDES: usize = 10_000;

/// The include glob and the exclude patterns of a PULL.
#[derive(Clone, Debug, Default)]
pub struct V1Filter {
    /// `None` includes everything.
    include: Option<Regex>,
    excludes: Vec<Regex>,
}

impl V1Filter {
    /// From the fields of PULL. What is no regular expression is only a glob, and what is too
    /// large to compile matches nothing.
    pub fn new<S: AsRef<str>>(include: &str, excludes: &[S]) -> V1Filter {
        let include = (!matches!(include, "" | "*")).then(|| compile(&glob(include))).flatten();
        let patterns = excludes.iter().map(AsRef::as_ref).filter(|p| !p.is_empty());
        let excludes = patterns
            .take(MAX_EXCLUDES)
            .flat_map(|p| {
                // A relative path never matches an absolute glob.
                let as_glob = (!p.starts_with('/')).then(|| compile(&glob(p))).flatten();
                [as_glob, compile(p)].into_iter().flatten()
            })
            .collect();
        V1Filter { include, excludes }
    }

    /// Whether an entry below a source directory is sent; `path` is relative to that directory.
    pub fn admits(&self, path: &RelPath) -> bool {
        let path_bytes = path.as_bytes();
        self.include.as_ref().is_none_or(|glob| glob.is_match(path_bytes))
            && self.admits_single(path)
    }

    /// Whether a source that is itself a file is sent: includes do not count, excludes see its
    /// name.
    pub fn admits_single(&self, path: &RelPath) -> bool {
        !self.excludes.iter().any(|pattern| pattern.is_match(path.as_bytes()))
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.include.is_none() && self.excludes.is_empty()
    }
}

fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).size_limit(MAX_REGEX_SIZE).build().ok()
}

/// A glob as a regular expression that matches the last components of a path.
///
/// The language is fnmatch's: `*`, `?`, `[seq]`, `[!seq]`, no escapes; slashes separate components
/// that match one each.
fn glob(glob: &str) -> String {
    let parts = glob.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<String> = parts.map(component).collect();
    format!("(?s-u)(?:^|/){}$", parts.join("/"))
}

fn component(glob: &str) -> String {
    let mut out = String::new();
    let mut rest = glob.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '[' => match class(rest.as_str()) {
                Some((set, after)) => {
                    out.push_str(&set);
                    rest = after.chars();
                }
                None => out.push_str(r"\["),
            },
            c => push_literal(&mut out, c),
        }
    }
    out
}

/// A class after its `[`, and what follows its `]`; `None` when there is no `]`.
fn class(after: &str) -> Option<(String, &str)> {
    let negated = after.starts_with('!');
    let body = &after[usize::from(negated)..];
    // A `]` in front is a member.
    let skip = body.chars().next().filter(|c| *c == ']').map_or(0, char::len_utf8);
    let end = skip + body[skip..].find(']')?;
    let mut set = String::from(if negated { "[^/" } else { "[" });
    for c in body[..end].chars() {
        if c != '-' && !c.is_alphanumeric() && c.is_ascii() {
            set.push('\\');
        }
        set.push(c);
    }
    set.push(']');
    Some((set, &body[end + 1..]))
}

fn push_literal(out: &mut String, c: char) {
    // The expression is over bytes, so a character that is several of them is spelled as such.
    let mut buf = [0; 4];
    for b in c.encode_utf8(&mut buf).bytes() {
        if b.is_ascii_alphanumeric() {
            out.push(char::from(b));
        } else {
            use std::fmt::Write;
            // Writing to a String cannot fail.
            let _ = write!(out, r"\x{b:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(filter: &V1Filter, path: &str) -> bool {
        filter.admits(&RelPath::new(path.as_bytes()).unwrap())
    }

    #[test]
    fn include_is_a_glob_of_the_last_components_at_any_depth() {
        let none: [&str; 0] = [];
        for (glob, yes, no) in [
            ("*", "a/b.txt", ""),
            ("*.txt", "a/b.txt", "a/b.txt.gz"),
            ("*.txt", ".txt", "b.txt/c"),
            ("a?c", "x/abc", "a/c"),
            ("[!a]b", "cb", "ab"),
            ("[a-c]1", "b1", "d1"),
            ("s/*.c", "x/s/m.c", "s/x/m.c"),
            ("a[b", "a[b", "ab"),
            ("n\u{e9}.txt", "n\u{e9}.txt", "ne.txt"),
            ("a.c", "a.c", "abc"),
        ] {
            let filter = V1Filter::new(glob, &none);
            assert!(admits(&filter, yes), "{glob} {yes}");
            assert!(no.is_empty() || !admits(&filter, no), "{glob} {no}");
        }
        assert!(V1Filter::new("*", &none).is_empty());
    }

    #[test]
    fn exclude_is_a_glob_or_a_regular_expression_that_is_searched() {
        let filter = V1Filter::new("*", &["*.tmp", "^build/", "a+b", "("]);
        for (path, admitted) in [
            ("x/y.tmp", false),
            ("y.tmpx", true),
            ("build/x", false),
            ("build", true),
            ("x/build/y", true),
            ("xaabx", false),
            ("(", false),
        ] {
            assert_eq!(admits(&filter, path), admitted, "{path}");
        }
        let filter = V1Filter::new("*.c", &["secret"]);
        let single = RelPath::new(b"notes.txt").unwrap();
        assert!(filter.admits_single(&single) && !filter.admits(&single));
    }
}
