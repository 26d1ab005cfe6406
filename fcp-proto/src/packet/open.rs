//! The first packet of a connection and the answer to it.

use serde::{Deserialize, Serialize};

use crate::coding::{DecodeError, Reader, Wire, decode_exact};
use crate::error::Violation;
use crate::flag::Flag;
use crate::frame::{self, Frame};
use crate::ids::SessionId;
use crate::limits::{MAX_JSON_DEPTH, MAX_SOURCES};
use crate::version::{Agreed, Hello, ReplyExtra};

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Opens a push.
    Push(PushOpening),
    /// Opens a pull.
    Pull(PullOpening),
    /// Adds the connection to a session.
    Attach(SessionId),
    /// Greets where no version 1 peer can be.
    Hello(Hello),
}

/// The JSON of PUSH. In version 2 only `fcp` counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushOpening {
    /// Decides nothing: who the peer is, the kernel or the transport says.
    pub user: String,
    /// Destination path.
    pub dst: String,
    /// The HELLO body in lower-case hexadecimal; version 1 peers leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "greeting")]
    pub fcp: Option<Hello>,
}

/// The JSON of PULL. In version 2 only `fcp` counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullOpening {
    /// Decides nothing.
    pub user: String,
    /// Source paths, globs among them.
    pub srcs: Vec<String>,
    /// Version 1: a glob that names must match.
    pub include: String,
    /// Version 1: globs or regexes that names must not match; a string or a list of strings.
    #[serde(default, deserialize_with = "one_or_many")]
    pub exclude: Vec<String>,
    /// The HELLO body in lower-case hexadecimal; version 1 peers leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "greeting")]
    pub fcp: Option<Hello>,
}

/// The answer to an opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The session.
    pub sid: SessionId,
    /// What was agreed; `None` is a version 1 server.
    pub agreed: Option<Agreed>,
    /// What else the server says; nothing, from a version 1 server.
    pub extra: ReplyExtra,
}

/// What `fcpd` writes first on its standard output, when a peer reached it as a command: whatever
/// came before was printed by the login shell.
pub const STDIO_PREAMBLE: [u8; 16] = *b"\0fcpd-stdio-v2\r\n";

/// The variable in which `fcpd --stdio` may find what HELLO will say, before HELLO can come.
pub const HELLO_VARIABLE: &str = "FCPD_HELLO";

/// Why an opening is refused; always the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningRefused {
    /// The frame breaks the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The JSON of PUSH or PULL cannot be used.
    #[error("the peer sent {0} with {1}")]
    Json(Flag, &'static str),
}

impl Opening {
    /// Reads the first frame of a connection.
    pub fn decode(frame: Frame<'_>) -> Result<Opening, OpeningRefused> {
        let payload = frame.payload;
        match frame.flag {
            Flag::PUSH => json(frame.flag, payload).map(Opening::Push),
            Flag::PULL => json(frame.flag, payload).and_then(bounded_pull).map(Opening::Pull),
            Flag::ATTACH => Ok(Opening::Attach(exact(frame, SessionId::decode)?)),
            Flag::HELLO => Ok(Opening::Hello(exact(frame, Hello::decode)?)),
            got => {
                Err(Violation::Unexpected { got, expected: "PUSH, PULL, ATTACH or HELLO" }.into())
            }
        }
    }

    /// Whether a connection may begin with this flag: everything else is closed on its first byte.
    pub fn may_begin_with(flag: Flag) -> bool {
        matches!(flag, Flag::PUSH | Flag::PULL | Flag::ATTACH | Flag::HELLO)
    }

    /// Appends the frame. `None` when the JSON does not fit one, as with very many sources.
    pub fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        let (flag, payload) = match self {
            Opening::Push(push) => (Flag::PUSH, serde_json::to_vec(push).ok()?),
            Opening::Pull(pull) => (Flag::PULL, serde_json::to_vec(pull).ok()?),
            Opening::Attach(sid) => (Flag::ATTACH, sid.0.to_vec()),
            Opening::Hello(hello) => (Flag::HELLO, to_vec(hello)),
        };
        (payload.len() <= frame::MAX_PAYLOAD).then(|| frame::encode(flag, &payload, out))
    }
}

impl Hello {
    /// The payload in lower-case hexadecimal.
    pub fn to_hex(&self) -> String {
        to_vec(self).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reads [`Hello::to_hex`]; `None` when it is something else.
    pub fn from_hex(text: &str) -> Option<Hello> {
        decode_exact(&bytes_of(text)?).ok()
    }
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    if !hex.len().is_multiple_of(2) || hex.len() > 1024 {
        return None;
    }
    hex.as_bytes().chunks_exact(2).map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect()
}

impl Reply {
    /// The answer of a version 1 server.
    pub fn version_1(sid: SessionId) -> Reply {
        Reply { sid, agreed: None, extra: ReplyExtra::default() }
    }

    /// Reads the answer to PUSH, PULL or HELLO.
    pub fn decode(frame: Frame<'_>) -> Result<Reply, Violation> {
        let flag = frame.flag;
        if !matches!(flag, Flag::SID | Flag::ACCEPT) {
            return Err(Violation::Unexpected { got: flag, expected: "SID or ACCEPT" });
        }
        exact(frame, |r| {
            let sid = SessionId::decode(r)?;
            // Only a version 1 server answers with a bare id, and only in SID.
            let bare = flag == Flag::SID && r.is_empty();
            let agreed = if bare { None } else { Some(Agreed::decode(r)?) };
            Ok(Reply { sid, agreed, extra: ReplyExtra::decode(r)? })
        })
    }

    /// Appends the frame, with the flag that answers the opening.
    pub fn encode(&self, flag: Flag, out: &mut Vec<u8>) {
        frame::encode_with(flag, out, |out| {
            out.extend_from_slice(&self.sid.0);
            if let Some(agreed) = &self.agreed {
                agreed.encode(out);
                self.extra.encode(out);
            }
        });
    }
}

impl Wire for SessionId {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array().map(SessionId)
    }
}

fn to_vec(value: &impl Wire) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

fn exact<T>(
    frame: Frame<'_>,
    decode: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T, Violation> {
    let mut r = Reader::new(frame.payload);
    decode(&mut r)
        .and_then(|value| r.finish().map(|()| value))
        .map_err(|error| Violation::Decode { flag: frame.flag, error })
}

fn json<'a, T: Deserialize<'a>>(flag: Flag, payload: &'a [u8]) -> Result<T, OpeningRefused> {
    let text = std::str::from_utf8(payload)
        .map_err(|_| OpeningRefused::Json(flag, "JSON that is not UTF-8"))?;
    // Serde would take an array of the values for the object.
    if !text.trim_start().starts_with('{') {
        return Err(OpeningRefused::Json(flag, "JSON that is not an object"));
    }
    if deepest(text) > MAX_JSON_DEPTH {
        return Err(OpeningRefused::Json(flag, "JSON that is nested too deeply"));
    }
    if has_duplicate_keys(text) {
        return Err(OpeningRefused::Json(flag, "JSON with a key twice"));
    }
    serde_json::from_str(text).map_err(|_| OpeningRefused::Json(flag, "JSON of another shape"))
}

fn bounded_pull(pull: PullOpening) -> Result<PullOpening, OpeningRefused> {
    if pull.srcs.len() > MAX_SOURCES || pull.exclude.len() > MAX_SOURCES {
        return Err(OpeningRefused::Json(Flag::PULL, "too many sources"));
    }
    Ok(pull)
}

/// Deepest nesting of brackets outside strings; counted before a parser recurses.
fn deepest(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for b in text.bytes() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Whether the top-level object names a key twice; serde alone would miss unknown keys.
fn has_duplicate_keys(text: &str) -> bool {
    struct Keys(bool);
    impl<'de> serde::de::Visitor<'de> for Keys {
        type Value = bool;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
            let mut seen = std::collections::HashSet::new();
            while let Some(key) = map.next_key::<String>()? {
                self.0 |= !seen.insert(key);
                map.next_value::<serde::de::IgnoredAny>()?;
            }
            Ok(self.0)
        }
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    // What is not an object is refused by the typed parse that follows.
    serde::Deserializer::deserialize_map(&mut parser, Keys(false)).unwrap_or(false)
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(d)? {
        // As fastcopy's client reads its option; an empty pattern would match everything.
        OneOrMany::One(s) => s.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect(),
        OneOrMany::Many(all) => all,
    })
}

/// HELLO as the hexadecimal string of the `"fcp"` key.
mod greeting {
    use super::{Hello, bytes_of, decode_exact};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hello: &Option<Hello>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hello.as_ref().map(Hello::to_hex).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Hello>, D::Error> {
        let text = String::deserialize(d)?;
        let bytes = bytes_of(&text).ok_or_else(|| D::Error::custom("not hexadecimal"))?;
        decode_exact(&bytes).map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(flag: Flag, payload: &[u8]) -> Result<Opening, OpeningRefused> {
        Opening::decode(Frame { flag, payload })
    }

    #[test]
    fn a_greeting_in_a_variable_is_the_same_or_none() {
        let hello = Hello::ours(7);
        assert_eq!(Hello::from_hex(&hello.to_hex()), Some(hello.clone()));
        let hex = hello.to_hex();
        for bad in ["", "0", "zz", &hex[2..], &hex[..hex.len() - 2], &"00".repeat(600), "éé"] {
            assert_eq!(Hello::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn w08_json_that_is_no_object_of_the_right_shape_is_refused() {
        let ok = r#"{"user":"u","dst":"d"}"#;
        assert!(decode(Flag::PUSH, ok.as_bytes()).is_ok());
        let deep = format!(r#"{{"user":"u","dst":"d","x":{}1{}}}"#, "[".repeat(99), "]".repeat(99));
        for bad in [
            "",
            "null",
            r#"["u","d"]"#,
            r#"{"user":"u"}"#,
            r#"{"user":1,"dst":"d"}"#,
            r#"{"user":"u","dst":"d","dst":"e"}"#,
            r#"{"user":"u","dst":"d","x":1,"x":2}"#,
            r#"{"user":"u","dst":"d"} x"#,
            r#"{"user":"u","dst":"\ud800"}"#,
            r#"{"user":"u","dst":"d","fcp":"0g"}"#,
            r#"{"user":"u","dst":"d","fcp":"00"}"#,
            r#"{"user":"u","dst":"d","fcp":null}"#,
            &deep,
        ] {
            assert!(decode(Flag::PUSH, bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(decode(Flag::PUSH, b"{\"user\":\"\xff\",\"dst\":\"d\"}").is_err());
    }

    #[test]
    fn one_string_of_excludes_is_split_as_fastcopy_splits_it() {
        let json = br#"{"user":"u","srcs":[],"include":"*","exclude":"a,,b"}"#;
        let Ok(Opening::Pull(pull)) = decode(Flag::PULL, json) else { panic!("refused") };
        assert_eq!(pull.exclude, ["a", "b"]);
    }

    #[test]
    fn w04_only_sid_may_leave_out_what_was_agreed() {
        let payload = [7; 16];
        let reply = |flag| Reply::decode(Frame { flag, payload: &payload });
        assert_eq!(reply(Flag::SID), Ok(Reply::version_1(SessionId(payload))));
        assert!(reply(Flag::ACCEPT).is_err());
        assert!(Reply::decode(Frame { flag: Flag::SID, payload: &payload[1..] }).is_err());
    }
}
