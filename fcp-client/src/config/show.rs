//! The config as it came out, with what set each value. Tokens are never part of it.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::{Resolved, Source, TokenSource, Valued};
use crate::cli::CommandLine;

/// Comments are lined up, but not further right than this.
const MAX_ALIGN: usize = 48;

/// One setting as it is told.
struct Row<'a> {
    key: &'static str,
    value: Value,
    source: &'a Source,
}

/// One line for each setting: `key = value   # source`. What is not set is `(none)`.
pub fn as_text(resolved: &Resolved) -> Vec<String> {
    let rows = rows(resolved);
    let left: Vec<String> =
        rows.iter().map(|row| format!("{} = {}", row.key, plain(row))).collect();
    let width = left.iter().map(|text| text.chars().count()).max().unwrap_or(0).min(MAX_ALIGN);
    let lines = left.iter().zip(&rows);
    lines.map(|(text, row)| format!("{text:width$}  # {}", row.source)).collect()
}

/// One object, with an object of `value` and `source` for each setting.
pub fn as_json(resolved: &Resolved) -> String {
    let of_row = |row: Row<'_>| {
        let source = row.source.to_string();
        (row.key.to_owned(), json!({ "value": row.value, "source": source }))
    };
    Value::Object(rows(resolved).into_iter().map(of_row).collect::<Map<_, _>>()).to_string()
}

/// The value as a config file has it, safe for a terminal.
fn plain(row: &Row<'_>) -> String {
    match &row.value {
        Value::Null => "(none)".to_owned(),
        Value::String(set) if row.key == "token" => set.clone(),
        value => fcp_proto::escape_text(&value.to_string()),
    }
}

fn rows(r: &Resolved) -> Vec<Row<'_>> {
    let row = |key, value, source| Row { key, value, source };
    let (token_key, token) = match &r.token.value {
        None => ("token", Value::Null),
        Some(TokenSource::Text(_)) => ("token", text("(set)")),
        Some(TokenSource::File(file)) => ("token-file", path(file)),
    };
    vec![
        row("via", word(&r.via), &r.via.source),
        row("direct", word(&r.direct), &r.direct.source),
        row("connections", json!(r.connections.value), &r.connections.source),
        row("protocol", json!(r.protocol.value), &r.protocol.source),
        row("remote-fcpd", text(&r.remote_fcpd.value), &r.remote_fcpd.source),
        row(token_key, token, &r.token.source),
        row("identity", r.identity.value.iter().map(|p| path(p)).collect(), &r.identity.source),
        row("jump", json!(r.jump.value), &r.jump.source),
        row("port", json!(r.port.value), &r.port.source),
        row(
            "ssh-config",
            r.ssh_config.value.as_deref().map_or(Value::Null, path),
            &r.ssh_config.source,
        ),
        row("ssh-option", json!(r.ssh_option.value), &r.ssh_option.source),
        row("rsh", text(&command(&r.rsh.value)), &r.rsh.source),
    ]
}

fn text(text: &str) -> Value {
    Value::from(text)
}

fn path(path: &Path) -> Value {
    Value::from(path.to_string_lossy())
}

fn word<T: ValueEnum>(valued: &Valued<T>) -> Value {
    valued.value.to_possible_value().map_or(Value::Null, |value| text(value.get_name()))
}

/// The line that [`CommandLine::parse`] splits into these words.
fn command(line: &CommandLine) -> String {
    let quoted = |word: &std::ffi::OsString| {
        let word = word.to_string_lossy();
        let plain = !word.is_empty() && !word.contains([' ', '\t', '\n', '\'', '"']);
        if plain { word.into_owned() } else { format!("'{}'", word.replace('\'', "''")) }
    };
    let words = std::iter::once(&line.program).chain(&line.arguments).map(quoted);
    words.collect::<Vec<_>>().join(" ")
}
