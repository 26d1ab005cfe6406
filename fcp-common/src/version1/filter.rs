//! What a version 1 PULL leaves out: one glob to include, globs or regular expressions to exclude.
//!
//! These are the published sender's rules, not rsync's: every path is judged by itself, so an
//! excluded directory does not take its contents with it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fcp_proto::{Name, RelPath};
use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled size of one regular expression in bytes.
const MAX_REGEX_SIZE: usize = 256 << 10;
/// Most exclude patterns that are looked at.
const MAX_EXCLUDES: usize = 10_000;

/// The include glob and the exclude patterns of a PULL.
#[derive(Clone, Debug, Default)]
pub struct V1Filter {
    /// `None` includes everything.
    include: Option<PathGlob>,
    globs: Vec<PathGlob>,
    regexes: Vec<Regex>,
}

impl V1Filter {
    /// From the fields of PULL. What is no regular expression is only a glob, and what cannot be
    /// compiled matches nothing.
    pub fn new<S: AsRef<str>>(include: &str, excludes: &[S]) -> V1Filter {
        let include = (!matches!(include, "" | "*")).then(|| PathGlob::new(include));
        let patterns = || {
            let all = excludes.iter().map(AsRef::as_ref).filter(|p| !p.is_empty());
            all.take(MAX_EXCLUDES)
        };
        // A relative path never matches an absolute glob.
        let globs = patterns().filter(|p| !p.starts_with('/')).map(PathGlob::new).collect();
        V1Filter { include, globs, regexes: patterns().filter_map(regex).collect() }
    }

    /// Whether an entry below a source directory is sent; `path` is relative to that directory.
    pub fn admits(&self, path: &RelPath) -> bool {
        let names = names(path);
        self.include.as_ref().is_none_or(|glob| glob.is_match(&names))
            && !self.excludes(path, &names)
    }

    /// Whether a source that is itself a file is sent: includes do not count, excludes see its
    /// name.
    pub fn admits_single(&self, path: &RelPath) -> bool {
        !self.excludes(path, &names(path))
    }

    fn excludes(&self, path: &RelPath, names: &[Name]) -> bool {
        self.globs.iter().any(|glob| glob.is_match(names))
            || self.regexes.iter().any(|regex| regex.is_match(path.as_bytes()))
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.include.is_none() && self.globs.is_empty() && self.regexes.is_empty()
    }
}

fn names(path: &RelPath) -> Vec<Name> {
    path.components().collect()
}

fn regex(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).size_limit(MAX_REGEX_SIZE).build().ok()
}

/// A glob for the last components of a path, one matcher for each; none matches nothing.
///
/// The language is fnmatch's: `*`, `?`, `[seq]`, `[!seq]`, no escapes. The matchers never see a
/// slash, so that even a negated class matches none.
#[derive(Clone, Debug)]
struct PathGlob(Vec<GlobMatcher>);

impl PathGlob {
    fn new(glob: &str) -> PathGlob {
        let parts = glob.split('/').filter(|part| !matches!(*part, "" | "."));
        let matchers: Option<Vec<_>> = parts.map(component).collect();
        PathGlob(matchers.unwrap_or_default())
    }

    fn is_match(&self, names: &[Name]) -> bool {
        let Some(skip) = names.len().checked_sub(self.0.len()) else { return false };
        let last = names.iter().skip(skip);
        !self.0.is_empty()
            && self.0.iter().zip(last).all(|(glob, name)| glob.is_match(OsStr::from_bytes(name)))
    }
}

fn component(glob: &str) -> Option<GlobMatcher> {
    let glob = fnmatch_to_globset(glob);
    let built = GlobBuilder::new(&glob).backslash_escape(false).build();
    built.ok().map(|glob| glob.compile_matcher())
}

/// The same glob for globset, which gives a meaning to more: `**`, `{a,b}` and `[^a]`.
fn fnmatch_to_globset(glob: &str) -> String {
    let mut out = String::new();
    let mut rest = glob;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' if out.ends_with('*') => {}
            '{' => out.push_str("[{]"),
            '}' => out.push_str("[}]"),
            '[' => match class_len(rest) {
                // No name contains the NUL that takes the `^` from the front.
                Some(len) => {
                    let (class, after) = rest.split_at(len);
                    out.push_str(if class.starts_with('^') { "[\0" } else { "[" });
                    out.push_str(class);
                    rest = after;
                }
                None => out.push_str("[[]"),
            },
            c => out.push(c),
        }
    }
    out
}

/// The length of a class after its `[`, with its `]`; `None` when there is no `]`. A `]` in front
/// is a member.
fn class_len(after: &str) -> Option<usize> {
    let body = after.strip_prefix('!').unwrap_or(after);
    let skip = after.len() - body.len() + usize::from(body.starts_with(']'));
    Some(skip + after[skip..].find(']')? + 1)
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
            ("a**c", "abbc", "a/c"),
            ("{a,b}", "{a,b}", "a"),
            ("[^a]", "^", "b"),
            ("[^-a]x", "_x", "bx"),
            ("[!]]", "a", "]"),
            ("[]-]", "-", "a"),
            ("x[!a]y", "xby", "x/y"),
            (r"a\*", r"a\b", "a*"),
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
