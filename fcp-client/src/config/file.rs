//! One config file: `[defaults]` and `[host."PATTERN"]`. Pure.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::layer::{Settings, number, one_of, shown};
use super::pattern;
use super::{ConfigError, MAX_CONNECTIONS, NamedToken, Source, TokenSource, Valued};
use crate::cli::CommandLine;

/// Every key of a section.
const KEYS: [&str; 13] = [
    "via",
    "direct",
    "connections",
    "protocol",
    "remote-fcpd",
    "token",
    "token-file",
    "identity",
    "jump",
    "port",
    "ssh-config",
    "ssh-option",
    "rsh",
];

/// One section.
#[derive(Debug)]
pub(super) struct Section {
    /// The hosts it is for; `None` is the defaults.
    pattern: Option<String>,
    /// What it says.
    pub(super) settings: Settings,
}

impl Section {
    /// Whether it says something about this host.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let matches = |pattern: &String| pattern::matches(pattern.as_bytes(), host.as_bytes());
        self.pattern.as_ref().is_none_or(matches)
    }
}

/// The sections in the order in which they go before each other: hosts as they stand in the file,
/// the defaults last.
///
/// # Errors
/// Anything that is not understood, with line and column.
pub(super) fn parse(
    bytes: &[u8],
    name: &str,
    private: bool,
    home: Option<&Path>,
) -> Result<Vec<Section>, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        ConfigError::Content(format!("{name}:{line}"), "it is not UTF-8".to_owned())
    })?;
    let file = File { text, line_starts: line_starts(text), name, private, home };
    let root = DeTable::parse(text).map_err(|error| {
        file.error(error.span().unwrap_or(0..0), error.message().replace('\n', ", "))
    })?;
    let (mut hosts, mut defaults) = (Vec::new(), None);
    for (key, value) in in_order(root.get_ref()) {
        match (&**key.get_ref(), value.get_ref()) {
            ("defaults", DeValue::Table(table)) => {
                defaults = Some(file.section(None, "[defaults]".to_owned(), table)?);
            }
            ("host", DeValue::Table(table)) => {
                for (pattern, value) in in_order(table) {
                    hosts.push(file.host(pattern, value)?);
                }
            }
            _ => return Err(file.error(key.span(), misplaced(key.get_ref()))),
        }
    }
    Ok(hosts.into_iter().chain(defaults).collect())
}

type Entry<'a, 'i> = (&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>);

/// A table's entries as they stand in the file.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn misplaced(key: &str) -> String {
    let about = match key {
        "defaults" | "host" => "write it as a section: [defaults] or [host.\"PATTERN\"]".to_owned(),
        key if KEYS.contains(&key) => {
            "it belongs into a section: [defaults] or [host.\"PATTERN\"]".to_owned()
        }
        key => match nearest(key, &["defaults", "host"]) {
            Some(meant) => format!("unknown section; did you mean {meant}?"),
            None => "unknown section; there are [defaults] and [host.\"PATTERN\"]".to_owned(),
        },
    };
    format!("{}: {about}", shown(key))
}

/// What was most likely meant.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let key = key.to_lowercase().replace('_', "-");
    let distance = |other: &&&str| strsim::damerau_levenshtein(&key, other);
    let best = known.iter().min_by_key(distance)?;
    (distance(&best) <= 1 + best.len() / 4).then_some(best)
}

/// A file that is being understood.
struct File<'a> {
    text: &'a str,
    /// Where each line begins: sections are many, and each key is told with its line.
    line_starts: Vec<usize>,
    name: &'a str,
    private: bool,
    home: Option<&'a Path>,
}

impl File<'_> {
    fn host(
        &self,
        pattern: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Section, ConfigError> {
        let name = &**pattern.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            let about = format!("{}: a host needs a section: [host.\"PATTERN\"]", shown(name));
            return Err(self.error(pattern.span(), about));
        };
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || "!,@".contains(c)) {
            let about = "a pattern is one host's name, in which * and ? stand for anything";
            return Err(self.error(pattern.span(), format!("{}: {about}", shown(name))));
        }
        let shown = format!("[host.\"{}\"]", fcp_proto::escape(name.as_bytes()));
        self.section(Some(name.to_owned()), shown, table)
    }

    fn section(
        &self,
        pattern: Option<String>,
        shown: String,
        table: &DeTable<'_>,
    ) -> Result<Section, ConfigError> {
        let mut settings = Settings::default();
        let section: Arc<str> = shown.into();
        for (key, value) in in_order(table) {
            let line = self.line(key.span().start);
            let source =
                Source::File { name: self.name.into(), line, section: Arc::clone(&section) };
            self.set(&mut settings, key.get_ref(), value.get_ref(), source).map_err(
                |(at, why)| {
                    let span = if at == At::Key { key.span() } else { value.span() };
                    self.error(span, why)
                },
            )?;
        }
        Ok(Section { pattern, settings })
    }

    fn set(
        &self,
        settings: &mut Settings,
        key: &str,
        value: &DeValue<'_>,
        source: Source,
    ) -> Result<(), (At, String)> {
        let at_value = |why: String| (At::Value, format!("{key}: {why}"));
        let token_twice = || (At::Key, "token and token-file exclude each other".to_owned());
        macro_rules! set {
            ($field:ident, $value:expr) => {
                settings.$field = Some(Valued { value: $value.map_err(at_value)?, source })
            };
        }
        match key {
            "via" => set!(via, word(value).and_then(one_of)),
            "direct" => set!(direct, word(value).and_then(one_of)),
            "connections" => set!(connections, integer(value, MAX_CONNECTIONS)),
            "protocol" => set!(protocol, integer(value, 2)),
            "port" => set!(port, integer(value, u16::MAX)),
            "remote-fcpd" => set!(remote_fcpd, word(value).map(str::to_owned)),
            "jump" => set!(jump, word(value).map(str::to_owned)),
            "ssh-config" => set!(ssh_config, word(value).and_then(|text| self.path(text))),
            "identity" => set!(
                identity,
                words(value).and_then(|list| list.into_iter().map(|t| self.path(t)).collect())
            ),
            "ssh-option" => {
                set!(ssh_option, words(value).map(|l| l.into_iter().map(str::to_owned).collect()))
            }
            "rsh" => set!(
                rsh,
                word(value)
                    .and_then(|text| CommandLine::parse(text.as_ref()).map_err(str::to_owned))
            ),
            "token" | "token-file" if settings.token.is_some() => return Err(token_twice()),
            "token" => set!(token, self.token(value).map(TokenSource::Text)),
            "token-file" => {
                set!(token, word(value).and_then(|text| self.path(text)).map(TokenSource::File))
            }
            unknown => return Err((At::Key, unknown_key(unknown, value))),
        }
        Ok(())
    }

    /// A token, which is never told, not even a wrong one.
    fn token(&self, value: &DeValue<'_>) -> Result<NamedToken, String> {
        if !self.private {
            return Err(format!(
                "a token may stand only in a file of yours that nobody else can read; type: \
                 chmod 600 '{}', or use token-file",
                self.name
            ));
        }
        let text = value.as_str().ok_or("a text is needed")?;
        text.parse::<NamedToken>().map_err(|error| error.to_string())
    }

    fn path(&self, text: &str) -> Result<PathBuf, String> {
        if let Some(below) = text.strip_prefix("~/") {
            let home = self.home.ok_or("HOME is not set, so ~/ stands for nothing")?;
            return Ok(home.join(below));
        }
        // What it would be relative to depends on where fcp is called.
        let path = PathBuf::from(text);
        let wanted = || format!("a path that begins with / or ~/ is needed, not {}", shown(text));
        path.is_absolute().then_some(path).ok_or_else(wanted)
    }

    fn error(&self, span: Range<usize>, about: String) -> ConfigError {
        let (line, column) = self.line_and_column(span.start);
        let about = fcp_proto::escape_text(&about);
        ConfigError::Content(format!("{}:{line}:{column}", self.name), about)
    }

    /// Both from 1; columns are characters.
    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let line = self.line(at);
        let start = self.line_starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..at).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// From 1, as the first line begins where the text does.
    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at).max(1)
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

/// Which half of an entry is wrong.
#[derive(PartialEq)]
enum At {
    Key,
    Value,
}

fn unknown_key(key: &str, value: &DeValue<'_>) -> String {
    if value.is_table() {
        let quotes = "a host's name with dots needs quotes: [host.\"a.example.org\"]";
        return format!("unknown key {}; {quotes}", shown(key));
    }
    match nearest(key, &KEYS) {
        Some(meant) => format!("unknown key {}; did you mean {meant}?", shown(key)),
        None => format!("unknown key {}; there are {}", shown(key), KEYS.join(", ")),
    }
}

fn word<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    let text = value.as_str().ok_or_else(|| format!("a text is needed, not {}", kind(value)))?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("a text is needed that is not empty, without control characters".to_owned());
    }
    Ok(text)
}

/// One text, or a list of them.
fn words<'a>(value: &'a DeValue<'_>) -> Result<Vec<&'a str>, String> {
    match value.as_array() {
        Some(list) => list.iter().map(|text| word(text.get_ref())).collect(),
        None => Ok(vec![word(value)?]),
    }
}

fn integer(value: &DeValue<'_>, max: u16) -> Result<u16, String> {
    let Some(integer) = value.as_integer() else {
        return number(None, kind(value), max);
    };
    let parsed = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
    number(parsed, integer.as_str(), max)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
