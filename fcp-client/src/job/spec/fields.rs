//! Keys of a section: read by name, checked, and whatever nobody asked for told.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{SpecError, nearest};
use super::yaml::{Key, Node, Value};

/// What was found wrong with one job, and what it is told as.
pub(super) struct Job<'a> {
    /// The file, escaped.
    pub(super) file: &'a str,
    /// The job's key, escaped.
    pub(super) name: String,
    pub(super) errors: RefCell<Vec<SpecError>>,
    pub(super) warnings: RefCell<Vec<String>>,
}

impl Job<'_> {
    /// Notes a mistake.
    pub(super) fn error(&self, line: usize, key: &str, text: impl Into<String>) {
        let key = (!key.is_empty()).then(|| key.to_owned());
        let (file, job) = (self.file.to_owned(), Some(self.name.clone()));
        let error = SpecError { file, line: Some(line), job, key, text: text.into() };
        self.errors.borrow_mut().push(error);
    }

    /// Notes what is no mistake but looks like one.
    pub(super) fn warn(&self, text: impl Into<String>) {
        self.warnings.borrow_mut().push(text.into());
    }
}

/// A mapping whose keys are being read. What was asked for by the time of [`Section::finish`] is
/// what it knows.
pub(super) struct Section<'a> {
    pub(super) job: &'a Job<'a>,
    /// `source`; empty for the job itself.
    place: &'static str,
    pub(super) line: usize,
    entries: &'a [(Key, Node)],
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The mapping of a job; anything else is told and counts as an empty one.
    pub(super) fn new(job: &'a Job<'a>, place: &'static str, node: &'a Node) -> Section<'a> {
        let entries: &[_] = match &node.value {
            Value::Map(entries) => entries,
            _ if node.is_null() => &[],
            _ => {
                job.error(node.line, place, "keys and values are needed here, as in `host: name`");
                &[]
            }
        };
        Section { job, place, line: node.line, entries, asked: RefCell::default() }
    }

    /// The section `key` of the job; `None` where there is none.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        self.node(key).map(|node| Section::new(self.job, key, node))
    }

    /// The key as it is told: `source.port`.
    pub(super) fn path(&self, key: &str) -> String {
        match self.place {
            "" => key.to_owned(),
            place => format!("{place}.{key}"),
        }
    }

    /// The value of `key`, whatever it is. The first one, if it is there twice.
    pub(super) fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.asked.borrow_mut().push(key);
        self.entries.iter().find(|(k, _)| k.name == key).map(|(_, node)| node)
    }

    /// Whether `key` is there.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.node(key).is_some()
    }

    /// What `parse` makes of the text behind `key`; its error is told.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.node(key)?;
        let read = match &node.value {
            _ if node.is_null() => Err("a value is missing: write one, or remove the key".into()),
            Value::Scalar { text, .. } => parse(text),
            Value::List(_) => Err("one value is needed here, not a list".to_owned()),
            Value::Map(_) => Err("one value is needed here, not keys and values".to_owned()),
        };
        read.map_err(|text| self.error(key, text)).ok()
    }

    /// A text.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.read(key, |text| Ok(text.to_owned()))
    }

    /// A text for people; nothing is an empty one.
    pub(super) fn remark(&self, key: &'static str) -> Option<String> {
        self.node(key).filter(|node| !node.is_null())?;
        self.text(key)
    }

    /// Notes a mistake at `key`.
    pub(super) fn error(&self, key: &'static str, text: impl Into<String>) {
        let entry = self.entries.iter().find(|(k, _)| k.name == key);
        let line = entry.map_or(self.line, |(k, _)| k.line);
        self.job.error(line, &self.path(key), text);
    }

    /// Notes that `key` is missing.
    pub(super) fn missing(&self, key: &'static str) {
        self.job.error(self.line, &self.path(key), "it is missing");
    }

    /// Tells keys that are there twice, and those that nobody asked for; `elsewhere` knows where
    /// a key belongs.
    pub(super) fn finish(self, elsewhere: impl Fn(&str) -> Option<String>) {
        let asked = self.asked.borrow();
        for (at, (key, _)) in self.entries.iter().enumerate() {
            let shown = self.path(&shown_key(&key.name));
            if let Some((first, _)) = self.entries[..at].iter().find(|(k, _)| k.name == key.name) {
                let text = format!("it is there twice, in line {}, too", first.line);
                self.job.error(key.line, &shown, text);
            } else if !asked.contains(&key.name.as_str()) {
                let known = nearest(&key.name, asked.iter().copied());
                let about = elsewhere(&key.name).unwrap_or_else(|| match known {
                    Some(meant) => format!("unknown key; did you mean {meant}?"),
                    None => "unknown key".to_owned(),
                });
                self.job.error(key.line, &shown, about);
            }
        }
    }
}

/// A key that we do not know, as far as it may be shown: with a blank or a `:` in it, it is a
/// whole line, and a password may be in that.
pub(super) fn shown_key(key: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !key.is_empty() && key.chars().count() <= 40 && key.chars().all(is_word) {
        true => key.to_owned(),
        false => "(not a word)".to_owned(),
    }
}

/// One of a few words, in any case.
pub(super) fn choice<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let hint = nearest(text, names.iter().copied());
            let hint = hint.map(|word| format!("; did you mean {word}?")).unwrap_or_default();
            format!("one of {} is needed{hint}", names.join(", "))
        })
    }
}

/// `true` or `false`; also the other words of YAML 1.1, which mean nothing else here.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err("true or false is needed".to_owned()),
    }
}

/// A whole number. One with a zero in front would be another one in YAML 1.1.
pub(super) fn whole(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits && text.len() > 1 && text.starts_with('0') {
            return Err("a number with a zero in front may be octal: write it without".to_owned());
        }
        let number = digits.then(|| text.parse().ok()).flatten();
        number.filter(|n| range.contains(n)).ok_or_else(|| {
            format!("a whole number from {} to {} is needed", range.start(), range.end())
        })
    }
}

/// A time of `unit` seconds, at most `max` of them; with a decimal point if need be.
pub(super) fn time(unit: u32, max: u32) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let plain = text.len() <= 16
            && text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let number: Option<f64> = plain.then(|| text.parse().ok()).flatten();
        let number = number.filter(|n| *n <= f64::from(max));
        number
            .map(|n| Duration::from_secs_f64(n * f64::from(unit)))
            .ok_or_else(|| format!("a number from 0 to {max} is needed"))
    }
}
