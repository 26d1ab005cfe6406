//! One pattern of an include or exclude rule, parsed and checked.

use fcp_proto::escape;
use regex::bytes::{Regex, RegexBuilder};

use super::glob::{Broken, Token, to_regex, tokens};

/// Longest pattern in bytes: as long as a path can be, so that every path can be named.
pub const MAX_PATTERN: usize = 4096;
/// Largest compiled size of one `re:` pattern in bytes: far above anything typed by hand, and
/// small enough that a thousand of them compile in the time of a login.
pub(super) const MAX_REGEX_SIZE: usize = 256 << 10;
/// Deepest nesting of groups in a `re:` pattern.
pub(super) const MAX_REGEX_NESTING: u32 = 64;

/// Why bytes are not a pattern. The text names the pattern, escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No bytes at all.
    #[error("an empty pattern")]
    Empty,
    /// A NUL byte, which no path can hold.
    #[error("pattern '{0}' has a NUL byte")]
    Nul(String),
    /// More than [`MAX_PATTERN`] bytes; the text shows its beginning.
    #[error("pattern '{0}...' is longer than {MAX_PATTERN} bytes")]
    TooLong(String),
    /// Not a regular expression.
    #[error("pattern '{pattern}' is not a regular expression: {reason}")]
    NotRegex {
        /// The pattern, escaped.
        pattern: String,
        /// What the regex compiler says about it, escaped.
        reason: String,
    },
    /// A regular expression that takes too much memory.
    #[error("pattern '{0}' is too large a regular expression")]
    RegexTooBig(String),
}

/// A glob in rsync's language, or a regular expression when it begins with `re:`.
///
/// A regular expression is searched for anywhere in the path relative to the transfer root. It
/// sees bytes: `.` is any one byte, `\d \w \s` are ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<[u8]>);

impl Pattern {
    /// Checks `bytes` as a user or a peer wrote them.
    pub fn new(bytes: &[u8]) -> Result<Pattern, PatternError> {
        if bytes.is_empty() {
            return Err(PatternError::Empty);
        }
        if bytes.len() > MAX_PATTERN {
            return Err(PatternError::TooLong(escape(&bytes[..64])));
        }
        if bytes.contains(&0) {
            return Err(PatternError::Nul(escape(bytes)));
        }
        let pattern = Pattern(bytes.into());
        if let Some(source) = pattern.regex_source() {
            check_regex(source, bytes)?;
        }
        Ok(pattern)
    }

    /// The bytes as they were written, `re:` included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_regex(&self) -> bool {
        self.regex_source().is_some()
    }

    /// How this pattern is to be matched.
    pub(super) fn form(&self) -> Form<'_> {
        match self.regex_source() {
            // `new` accepted it as UTF-8.
            Some(source) => std::str::from_utf8(source).map_or(Form::Nothing, Form::Regex),
            None => glob_form(&self.0),
        }
    }

    fn regex_source(&self) -> Option<&[u8]> {
        self.0.strip_prefix(b"re:")
    }
}

/// The ways to match a pattern, the cheap ones first.
pub(super) enum Form<'a> {
    /// Can match no path.
    Nothing,
    /// No wildcard: equal to the path, or to what follows one of its slashes.
    Literal { text: &'a [u8], anchored: bool, dir_only: bool },
    /// A regex over the path with a slash in front, and NUL behind it for a directory.
    Glob(String),
    /// The user's own regex over the bare path.
    Regex(&'a str),
}

fn glob_form(pattern: &[u8]) -> Form<'_> {
    let (body, dir_only) = match pattern {
        [body @ .., b'/'] if !body.is_empty() => (body, true),
        all => (all, false),
    };
    let (text, anchored) = match body {
        [b'/', text @ ..] => (text, true),
        all => (all, false),
    };
    if !body.iter().any(|b| matches!(b, b'*' | b'?' | b'[')) {
        return Form::Literal { text, anchored, dir_only };
    }
    match wild_regex(text, anchored, dir_only) {
        Some(regex) => Form::Glob(regex),
        None => Form::Nothing,
    }
}

/// The regex of a pattern with wildcards; `None` when it can match nothing.
///
/// rsync looks for `**` and counts slashes in the text of the pattern, classes and escapes
/// included; so does this.
fn wild_regex(text: &[u8], anchored: bool, dir_only: bool) -> Option<String> {
    let tokens = tokens(text, Broken::MatchesNothing)?;
    let crosses = text.windows(2).any(|two| two == b"**");
    if !anchored && !crosses && slashes(text) != slash_tokens(&tokens) {
        // A slash inside a class: rsync then compares more components than the glob spells.
        return None;
    }
    let start = match text {
        _ if anchored => r"\A/",
        // The `**` itself stands for the slash in front.
        [b'*', b'*', ..] => r"\A",
        _ => "/",
    };
    let end = if dir_only { r"\x00\z" } else { r"\x00?\z" };
    let body = to_regex(&tokens)?;
    match tokens.as_slice() {
        // `dir/***` is the directory too. Without the dir, `/***` is all there is.
        [dir @ .., Token::Byte(b'/'), Token::StarStar] if text.ends_with(b"***") => {
            let dir = to_regex(dir)?;
            Some(format!(r"{start}(?:{body}{end}|{dir}\x00\z)"))
        }
        _ => Some(format!("{start}{body}{end}")),
    }
}

fn slashes(text: &[u8]) -> usize {
    text.iter().filter(|b| **b == b'/').count()
}

fn slash_tokens(tokens: &[Token]) -> usize {
    tokens.iter().filter(|token| **token == Token::Byte(b'/')).count()
}

fn check_regex(source: &[u8], pattern: &[u8]) -> Result<(), PatternError> {
    let not_regex = |reason: &str| PatternError::NotRegex {
        pattern: escape(pattern),
        reason: escape(reason.as_bytes()),
    };
    let source = std::str::from_utf8(source)
        .map_err(|_| not_regex("it is not UTF-8; a byte is written as \\xFF"))?;
    match compile(source) {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => Err(PatternError::RegexTooBig(escape(pattern))),
        Err(error) => Err(not_regex(last_line(&error.to_string()))),
    }
}

fn compile(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source)
        .unicode(false)
        .dot_matches_new_line(true)
        .nest_limit(MAX_REGEX_NESTING)
        .size_limit(MAX_REGEX_SIZE)
        .build()
}

/// The regex crate draws the pattern first and says what is wrong with it last.
fn last_line(message: &str) -> &str {
    let line = message.lines().last().unwrap_or(message);
    line.strip_prefix("error: ").unwrap_or(line)
}
