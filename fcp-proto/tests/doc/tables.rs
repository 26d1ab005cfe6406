//! The tables of PROTOCOL.md that are made from the code.

use fcp_proto::limits as l;
use fcp_proto::state::{Role, Row, TABLE, Version};
use fcp_proto::{ErrorCode, Flag};

/// Every table: its name and its Markdown.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    vec![
        ("flags", flags()),
        ("states version 1", states(Version::One)),
        ("errors", errors()),
        ("states version 2", states(Version::Two)),
        ("limits", limits()),
    ]
}

fn flags() -> String {
    let mut out = String::from("| flag | name | what |\n|---|---|---|\n");
    for flag in Flag::ALL {
        out += &format!("| 0x{:02x} | {flag} | {} |\n", flag.0, flag.describe().unwrap_or(""));
    }
    out
}

fn errors() -> String {
    let mut out = String::from("| code | name | meaning |\n|---|---|---|\n");
    for code in ErrorCode::ALL {
        if let Some((name, text)) = code.describe() {
            out += &format!("| {} | {name} | {text} |\n", code.0);
        }
    }
    out
}

fn limits() -> String {
    let rows: [(&str, u64); 23] = [
        ("bytes of a frame's payload", fcp_proto::frame::MAX_PAYLOAD as u64),
        ("smallest frame payload that may be agreed on", l::MIN_FRAME.into()),
        ("bytes of a message, its number included", l::MAX_MESSAGE as u64),
        ("bytes of a block", l::BLOCK),
        ("bytes of content in WHOLE", l::MAX_WHOLE as u64),
        ("bytes of a name", l::MAX_NAME as u64),
        ("bytes of a path", l::MAX_PATH as u64),
        ("directories below each other", l::MAX_DEPTH as u64),
        ("bytes of a link's target", l::MAX_LINK_TARGET as u64),
        ("bytes of a file", l::MAX_FILE_SIZE),
        ("bytes of a file in version 1", l::V1_MAX_FILE_SIZE),
        ("bytes of a version 1 chunk", l::V1_CHUNK as u64),
        ("bytes of an error's text", l::MAX_TEXT as u64),
        ("connections of a session", l::MAX_CONNECTIONS.into()),
        ("announced entries that are unfinished", l::MAX_OPEN_ENTRIES.into()),
        ("bytes of their metadata", l::MAX_OPEN_METADATA as u64),
        ("messages that are not acknowledged", l::MAX_UNACKED_MESSAGES as u64),
        ("bytes of such messages", l::MAX_UNACKED_BYTES as u64),
        ("bytes of a token's name", l::MAX_TOKEN_NAME as u64),
        ("sources in a request", l::MAX_SOURCES as u64),
        ("filter rules in a request", l::MAX_RULES as u64),
        ("bytes of a filter rule", l::MAX_RULE as u64),
        ("nested brackets in JSON", l::MAX_JSON_DEPTH as u64),
    ];
    let mut out = String::from("| limit | value |\n|---|---|\n");
    for (what, value) in rows {
        out += &format!("| {what} | {} |\n", grouped(value));
    }
    out
}

fn states(version: Version) -> String {
    let mut out = String::from("| end | state | allowed | ignored |\n|---|---|---|---|\n");
    for row in TABLE.iter().filter(|row| row.version == version) {
        out += &format!(
            "| {} | {:?} | {} | {} |\n",
            role(row.role),
            row.state,
            names(row.allowed),
            ignored(row)
        );
    }
    out
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Server => "server",
        Role::Client => "client",
        Role::Sender => "sender",
        Role::Receiver => "receiver",
    }
}

fn ignored(row: &Row) -> String {
    match (row.ignored, row.skips) {
        (flags, true) => format!("{}, unknown with 0x80", names(flags)),
        (flags, false) => names(flags),
    }
}

fn names(flags: &[Flag]) -> String {
    if flags.is_empty() {
        return "nothing".into();
    }
    flags.iter().map(Flag::to_string).collect::<Vec<_>>().join(", ")
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}
