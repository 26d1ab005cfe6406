//! YAML to a tree that remembers lines, and each scalar as it was written. Pure.
//!
//! Values are left as texts: what reads them knows whether a number or a text is meant, so that
//! `no` is a user's name and `0123` a password. Every bound is checked while the tree grows; an
//! alias costs what it stands for.

use std::collections::HashMap;

use granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, StrInput, Tag, options,
};
use zeroize::Zeroizing;

/// Deeper than any job: a file, a job, a section, a list.
const MAX_DEPTH: usize = 16;
/// Of all texts, with 32 for each node, after aliases were followed: four times the largest file.
const MAX_WEIGHT: usize = 4 << 20;

/// Something in the file. It has no `Debug`, as it may hold a password.
#[derive(Clone)]
pub(super) struct Node {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// What it is.
    pub(super) value: Value,
    weight: usize,
}

/// What a node is.
#[derive(Clone)]
pub(super) enum Value {
    /// A text, a number, anything in one piece.
    Scalar {
        /// As it was written, without quotes.
        text: Zeroizing<String>,
        /// It stood without quotes.
        plain: bool,
    },
    /// A list; nothing in a job file is one.
    List(Vec<Node>),
    /// Keys and their values, in order; keys may be there twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) line: usize,
}

/// Why a text is no YAML that we read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Node {
    /// Nothing: an empty value, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain: true } => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }
}

/// Reads the one document of a text; an empty one is an empty mapping.
pub(super) fn parse(text: &str) -> Result<Node, Flaw> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_characters(text)?;
    let limits = options! {
        emit_comments: false,
        disallow_directives: true,
        flow_nesting_limit: 2 * MAX_DEPTH,
        block_nesting_limit: 2 * MAX_DEPTH,
    };
    Reader::new(text, limits).document()
}

/// YAML has no control characters but tabs and line ends; a NUL would end the file early.
fn check_characters(text: &str) -> Result<(), Flaw> {
    for (at, line) in text.split('\n').enumerate() {
        let bad = |c: &char| c.is_control() && !matches!(c, '\t' | '\r' | '\u{85}');
        if let Some(c) = line.chars().find(bad) {
            return Err(flaw(at + 1, format!("a control character (U+{:04X})", c as u32)));
        }
    }
    Ok(())
}

struct Reader<'i> {
    events: Parser<'i, StrInput<'i>>,
    anchors: HashMap<usize, Node>,
    weight: usize,
}

impl<'i> Reader<'i> {
    fn new(text: &'i str, limits: Options) -> Reader<'i> {
        let events = Parser::new_from_str_with_options(text, limits);
        Reader { events, anchors: HashMap::new(), weight: 0 }
    }

    fn document(mut self) -> Result<Node, Flaw> {
        let mut root = None;
        loop {
            let (line, event) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if root.is_some() => return Err(flaw(line, "a second document begins here")),
                event => root = Some(self.node(line, event, 0)?),
            }
        }
        let empty = || Node { line: 1, value: Value::Map(Vec::new()), weight: 0 };
        Ok(root.filter(|node| !node.is_null()).unwrap_or_else(empty))
    }

    fn next(&mut self) -> Result<(usize, Event<'i>), Flaw> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((span.start.line(), event)),
            Some(Err(error)) => Err(no_yaml(&error)),
            None => Ok((1, Event::StreamEnd)),
        }
    }

    fn node(&mut self, line: usize, event: Event<'i>, depth: usize) -> Result<Node, Flaw> {
        if depth > MAX_DEPTH {
            return Err(flaw(line, format!("nested more than {MAX_DEPTH} deep")));
        }
        let before = self.weight;
        let (anchor, tag, value) = match event {
            Event::Alias(anchor) => return self.alias(line, anchor),
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(line, text.len())?;
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let text = Zeroizing::new(text.into_owned());
                (anchor, tag, Value::Scalar { text, plain })
            }
            Event::SequenceStart(_, anchor, tag) => (anchor, tag, self.list(depth)?),
            Event::MappingStart(_, anchor, tag) => (anchor, tag, self.map(depth)?),
            _ => return Err(flaw(line, "something that does not belong here")),
        };
        check_tag(line, tag.as_deref(), &value)?;
        self.charge(line, 0)?;
        let node = Node { line, value, weight: self.weight - before };
        if anchor != 0 {
            self.charge(line, node.weight)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn charge(&mut self, line: usize, bytes: usize) -> Result<(), Flaw> {
        self.weight = self.weight.saturating_add(bytes).saturating_add(32);
        match self.weight <= MAX_WEIGHT {
            true => Ok(()),
            false => Err(flaw(line, "with its aliases this is more than a job file holds")),
        }
    }

    fn alias(&mut self, line: usize, anchor: usize) -> Result<Node, Flaw> {
        let weight = self.anchors.get(&anchor).map(|node| node.weight);
        // An alias within what it names: the anchor is not there yet.
        let weight = weight.ok_or_else(|| flaw(line, "an alias of what it stands in"))?;
        self.charge(line, weight)?;
        let node = self.anchors.get(&anchor).cloned();
        node.ok_or_else(|| flaw(line, "an alias of nothing"))
    }

    fn list(&mut self, depth: usize) -> Result<Value, Flaw> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (_, Event::SequenceEnd) => return Ok(Value::List(nodes)),
                (line, event) => nodes.push(self.node(line, event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Flaw> {
        let (mut entries, mut merged) = (Vec::new(), Vec::new());
        loop {
            let (line, event) = match self.next()? {
                (_, Event::MappingEnd) => break,
                found => found,
            };
            let key = self.node(line, event, depth + 1)?;
            let Value::Scalar { text, plain } = key.value else {
                return Err(flaw(line, "a key must be a plain text"));
            };
            let (value_line, event) = self.next()?;
            let value = self.node(value_line, event, depth + 1)?;
            match plain && *text == "<<" {
                true => merge(line, value, &mut merged)?,
                false => entries.push((Key { name: text.to_string(), line }, value)),
            }
        }
        for (key, value) in merged {
            // Whoever says it first wins, and the mapping itself before all that it merges.
            if !entries.iter().any(|(k, _)| k.name == key.name) {
                entries.push((key, value));
            }
        }
        Ok(Value::Map(entries))
    }
}

/// Adds what stands behind `<<:` to `merged`.
fn merge(line: usize, value: Node, merged: &mut Vec<(Key, Node)>) -> Result<(), Flaw> {
    let maps = match value.value {
        Value::List(nodes) => nodes,
        _ => vec![value],
    };
    for node in maps {
        match node.value {
            Value::Map(entries) => merged.extend(entries),
            _ => return Err(flaw(line, "<< takes a mapping, or a list of them")),
        }
    }
    Ok(())
}

/// Tags make programs build things; the one that says what is a text is harmless.
fn check_tag(line: usize, tag: Option<&Tag>, value: &Value) -> Result<(), Flaw> {
    let Some(tag) = tag else { return Ok(()) };
    let is_text = tag.core_suffix() == Some("str") || (tag.handle() == "" && tag.suffix() == "!");
    match value {
        Value::Scalar { .. } if is_text => Ok(()),
        _ => Err(flaw(line, "a tag (the word behind '!'): remove it, or put the text in quotes")),
    }
}

fn flaw(line: usize, text: impl Into<String>) -> Flaw {
    Flaw { line, text: text.into() }
}

/// The parser's words name no text of the file, but for one character, which may be a password's.
fn no_yaml(error: &ScanError) -> Flaw {
    let line = error.marker().line();
    let text = match error.kind() {
        ErrorKind::UnexpectedCharacter { .. } => {
            "not YAML: a text that begins with a sign of YAML's own needs quotes".to_owned()
        }
        ErrorKind::TabInBlockIndentation | ErrorKind::TabNotAllowed => {
            "not YAML: a tab in the indentation; use spaces".to_owned()
        }
        kind => format!("not YAML: {}", fcp_proto::escape_text(&kind.to_string())),
    };
    flaw(line, text)
}
