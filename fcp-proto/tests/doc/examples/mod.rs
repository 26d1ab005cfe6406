//! The values behind PROTOCOL.md's examples, and what decoding their bytes must give.

mod content;
mod messages;
mod openings;
mod proof;

use std::fmt;

use fcp_proto::frame::{self, Frame};
use fcp_proto::packet::*;
use fcp_proto::v1::V1Packet;
use fcp_proto::{Flag, Timestamp, escape};

/// Fails unless bytes decode to one certain value.
type Check = Box<dyn Fn(&[u8])>;

/// A value, its bytes, and names for the fields of the payloads.
pub(crate) struct Example {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// Names and lengths that add up to the payload of each frame in turn.
    fields: Vec<(&'static str, usize)>,
    check: Check,
}

impl Example {
    /// Fails unless `bytes` decode to this example's value.
    pub(crate) fn check(&self, bytes: &[u8]) {
        (self.check)(bytes);
    }

    /// Its frames: flag and payload.
    pub(crate) fn frames(&self) -> Vec<(Flag, Vec<u8>)> {
        frames(&self.bytes)
    }
}

impl fmt::Display for Example {
    /// The body of its block in PROTOCOL.md.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = self.fields.iter();
        for (flag, payload) in self.frames() {
            let mut bytes = Vec::new();
            frame::encode(flag, &payload, &mut bytes);
            line(f, &bytes[..1], &format!("flag {flag}"))?;
            line(f, &bytes[1..5], "checksum of the payload")?;
            line(f, &bytes[5..7], &format!("length {}", payload.len()))?;
            let mut rest = &payload[..];
            while !rest.is_empty() {
                let (name, len) = fields.next().expect("a name for every field");
                let (field, more) = rest.split_at((*len).min(rest.len()));
                for (i, part) in field.chunks(16).enumerate() {
                    line(f, part, &if i == 0 { label(name, field) } else { String::new() })?;
                }
                rest = more;
            }
        }
        assert!(fields.next().is_none(), "{}: fields are left over", self.name);
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, bytes: &[u8], label: &str) -> fmt::Result {
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let text =
        if label.is_empty() { hex.join(" ") } else { format!("{:<47}  # {label}", hex.join(" ")) };
    writeln!(f, "{text}")
}

/// A name that ends in `=` is followed by the field's bytes as text.
fn label(name: &str, field: &[u8]) -> String {
    match name.strip_suffix('=') {
        Some(name) => format!("{name} \"{}\"", escape(field)),
        None => name.to_owned(),
    }
}

fn frames(mut bytes: &[u8]) -> Vec<(Flag, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((frame, used)) = frame::decode(bytes).expect("a right checksum") {
        all.push((frame.flag, frame.payload.to_vec()));
        bytes = &bytes[used..];
    }
    assert!(bytes.is_empty(), "half a frame");
    all
}

/// The one frame that `bytes` are.
fn one(bytes: &[u8]) -> Frame<'_> {
    let (frame, used) = frame::decode(bytes).expect("a right checksum").expect("a whole frame");
    assert_eq!(used, bytes.len());
    frame
}

const ALL: usize = usize::MAX;
const CONTENT: &[u8] = b"hello";
const MTIME: Timestamp = Timestamp { secs: 1_700_000_000, nanos: 500_000_000 };

/// Every example, in the order of PROTOCOL.md.
pub(crate) fn all() -> Vec<Example> {
    [
        openings::version_1(),
        openings::both(),
        openings::identities(),
        messages::of_the_sender(),
        messages::of_the_receiver(),
        content::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn opening(name: &'static str, value: Opening, fields: &[(&'static str, usize)]) -> Example {
    let mut bytes = Vec::new();
    value.encode(&mut bytes).expect("fits a frame");
    let check = move |bytes: &[u8]| assert_eq!(Opening::decode(one(bytes)).as_ref(), Ok(&value));
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

fn reply(
    name: &'static str,
    flag: Flag,
    value: Reply,
    fields: &[(&'static str, usize)],
) -> Example {
    let mut bytes = Vec::new();
    value.encode(flag, &mut bytes);
    let check = move |bytes: &[u8]| {
        assert_eq!(one(bytes).flag, flag);
        assert_eq!(Reply::decode(one(bytes)).as_ref(), Ok(&value));
    };
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

fn v1(name: &'static str, value: V1Packet<'static>, fields: &[(&'static str, usize)]) -> Example {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    let check = move |bytes: &[u8]| assert_eq!(V1Packet::decode(one(bytes)).as_ref(), Ok(&value));
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

fn message(
    name: &'static str,
    seq: u32,
    message: Message,
    fields: &[(&'static str, usize)],
) -> Example {
    let mut bytes = Vec::new();
    Sequenced::put_frames(message.flag(), &message.to_payload(seq), 8192, &mut bytes);
    let value = Sequenced { seq, message };
    let check = move |bytes: &[u8]| {
        let frame = one(bytes);
        assert_eq!(Sequenced::from_payload(frame.flag, frame.payload).as_ref(), Ok(&value));
    };
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}

fn bare(
    name: &'static str,
    flag: Flag,
    payload: &[u8],
    fields: &[(&'static str, usize)],
    check: impl Fn(&[u8]) + 'static,
) -> Example {
    let mut bytes = Vec::new();
    frame::encode(flag, payload, &mut bytes);
    let check = move |bytes: &[u8]| {
        assert_eq!(one(bytes).flag, flag);
        check(one(bytes).payload);
    };
    Example { name, bytes, fields: fields.to_vec(), check: Box::new(check) }
}
