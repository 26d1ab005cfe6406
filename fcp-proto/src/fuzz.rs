//! What a fuzzer calls: any bytes in; a panic out when the codec breaks a promise.
//!
//! The promises: nothing panics, what decodes encodes to the same bytes (or, where the wire has
//! several forms of one value, to bytes that decode to the same value), and nothing decoded holds
//! much more memory than its bytes. `tests/corpus.rs` replays and mutates `fuzz/corpus`.

use std::fmt::Debug;

use crate::auth::{Challenge, Proof};
use crate::coding::{Wire, decode_exact};
use crate::flag::Flag;
use crate::frame::{self, Frame, HEAD_LEN};
use crate::packet::{
    Ack, BlockDigest, Data, Entry, EntryBody, Message, Opening, Outcome, Reply, Request, Sequenced,
    Whole, WireError, put_block, put_data_head, put_whole_head,
};
use crate::v1::V1Packet;

/// Decoded memory per input byte: the worst is a list of empty paths, 2 bytes each on the wire, 24
/// in a vector that may have doubled.
const FACTOR: usize = 32;
/// Decoded memory that any packet may hold besides.
const BASE: usize = 256;

/// One thing to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Panics when a promise is broken; `Err` says why the bytes were refused.
    pub run: fn(&[u8]) -> Result<(), String>,
}

macro_rules! entries {
    ($($name:literal $run:expr;)*) => {
        /// Everything there is to fuzz.
        pub const ENTRIES: &[Target] = &[$(Target { name: $name, run: $run }),*];
    };
}

entries! {
    "frames" frames;
    "opening" |bytes| flagged(bytes, opening);
    "reply" |bytes| flagged(bytes, reply);
    "v1" |bytes| flagged(bytes, v1);
    "content" |bytes| flagged(bytes, content);
    "control" |bytes| flagged(bytes, control);
    "message" |bytes| flagged(bytes, |frame| message(frame.flag, frame.payload));
    "request" |bytes| message(Flag::REQUEST, bytes);
    "entries" |bytes| message(Flag::ENTRIES, bytes);
    "dirs_end" |bytes| message(Flag::DIRS_END, bytes);
    "want" |bytes| message(Flag::WANT, bytes);
    "results" |bytes| message(Flag::RESULTS, bytes);
    "written" |bytes| message(Flag::WRITTEN, bytes);
    "digests_wanted" |bytes| message(Flag::DIGESTS_WANTED, bytes);
    "digests" |bytes| message(Flag::DIGESTS, bytes);
    "problem" |bytes| message(Flag::PROBLEM, bytes);
    "replaced" |bytes| message(Flag::REPLACED, bytes);
    "gone" |bytes| message(Flag::GONE, bytes);
    "finish" |bytes| message(Flag::FINISH, bytes);
    "close" |bytes| message(Flag::CLOSE, bytes);
}

/// The entry that takes packets with `flag`, and whether its input begins with the flag.
pub fn entry_for(flag: Flag) -> (&'static str, bool) {
    let name = match flag {
        Flag::PUSH | Flag::PULL | Flag::ATTACH | Flag::HELLO => "opening",
        Flag::SID | Flag::ACCEPT => "reply",
        Flag::DATA | Flag::BLOCK | Flag::WHOLE => "content",
        Flag::REQUEST => return ("request", false),
        Flag::ENTRIES => return ("entries", false),
        Flag::DIRS_END => return ("dirs_end", false),
        Flag::WANT => return ("want", false),
        Flag::RESULTS => return ("results", false),
        Flag::WRITTEN => return ("written", false),
        Flag::DIGESTS_WANTED => return ("digests_wanted", false),
        Flag::DIGESTS => return ("digests", false),
        Flag::PROBLEM => return ("problem", false),
        Flag::REPLACED => return ("replaced", false),
        Flag::GONE => return ("gone", false),
        Flag::FINISH => return ("finish", false),
        Flag::CLOSE => return ("close", false),
        flag if flag.is_version_1() => "v1",
        flag if flag.is_message() => "message",
        _ => "control",
    };
    (name, true)
}

/// A stream of frames, each read as what its flag says.
fn frames(bytes: &[u8]) -> Result<(), String> {
    let mut rest = bytes;
    let mut again = Vec::new();
    while let Some((frame, used)) = frame::decode(rest).map_err(text)? {
        assert_eq!(used, HEAD_LEN + frame.payload.len());
        frame::encode(frame.flag, frame.payload, &mut again);
        rest = &rest[used..];
        let (name, _) = entry_for(frame.flag);
        match name {
            "opening" => opening(frame),
            "reply" => reply(frame),
            "v1" => v1(frame),
            "content" => content(frame),
            "control" => control(frame),
            _ => message(frame.flag, frame.payload),
        }?;
    }
    assert_eq!(again, bytes[..bytes.len() - rest.len()]);
    Ok(())
}

/// The first byte as a flag, what follows as its payload: no fuzzer has to guess a checksum.
fn flagged(bytes: &[u8], run: fn(Frame<'_>) -> Result<(), String>) -> Result<(), String> {
    match bytes.split_first() {
        Some((flag, payload)) if payload.len() <= frame::MAX_PAYLOAD => {
            run(Frame { flag: Flag(*flag), payload })
        }
        _ => Err("not a frame".into()),
    }
}

fn opening(frame: Frame<'_>) -> Result<(), String> {
    let value = Opening::decode(frame).map_err(text)?;
    let held = match &value {
        Opening::Push(push) => push.user.capacity() + push.dst.capacity(),
        Opening::Pull(pull) => {
            strings(&pull.srcs)
                + strings(&pull.exclude)
                + pull.user.capacity()
                + pull.include.capacity()
        }
        Opening::Attach(_) | Opening::Hello(_) => 0,
    };
    bounded(held, frame.payload);
    let mut again = Vec::new();
    // JSON can grow when it is written anew, and then it does not fit.
    if value.encode(&mut again).is_some() {
        assert_eq!(Opening::decode(whole_frame(&again)).as_ref(), Ok(&value));
    }
    Ok(())
}

fn reply(frame: Frame<'_>) -> Result<(), String> {
    let value = Reply::decode(frame).map_err(text)?;
    let mut again = Vec::new();
    value.encode(frame.flag, &mut again);
    // Extensions of a later version are dropped, so only the front is the same.
    let front = 16 + if value.agreed.is_some() { 20 } else { 0 };
    assert_eq!(frame.payload.get(..front), whole_frame(&again).payload.get(..front));
    assert_eq!(Reply::decode(whole_frame(&again)).as_ref(), Ok(&value));
    Ok(())
}

fn v1(frame: Frame<'_>) -> Result<(), String> {
    let value = V1Packet::decode(frame).map_err(text)?;
    bounded(
        match &value {
            V1Packet::DirInfo(dir) => dir.path.as_bytes().len(),
            V1Packet::FileInfo(file) => file.path.as_bytes().len(),
            V1Packet::Exception(text) => text.capacity(),
            _ => 0,
        },
        frame.payload,
    );
    let mut again = Vec::new();
    value.encode(&mut again);
    let again = whole_frame(&again);
    assert_eq!(V1Packet::decode(again).as_ref(), Ok(&value));
    // An mtime is rounded, a text cut.
    if !matches!(value, V1Packet::FileInfo(_) | V1Packet::Exception(_)) {
        assert_eq!(again, frame);
    }
    Ok(())
}

fn content(frame: Frame<'_>) -> Result<(), String> {
    let payload = frame.payload;
    let again = match frame.flag {
        Flag::DATA => {
            let data = Data::decode(payload).map_err(text)?;
            let mut head = [0; HEAD_LEN + Data::HEAD];
            put_data_head(&mut head, data.file, data.offset, data.bytes);
            [&head, data.bytes].concat()
        }
        Flag::BLOCK => put_block(BlockDigest::decode(payload).map_err(text)?).to_vec(),
        Flag::WHOLE => {
            let whole = Whole::decode(payload).map_err(text)?;
            let mut head = [0; HEAD_LEN + Whole::HEAD];
            put_whole_head(&mut head, whole.file, whole.digest, whole.bytes);
            [&head, whole.bytes].concat()
        }
        _ => return Err("not content".into()),
    };
    assert_eq!(whole_frame(&again), frame);
    Ok(())
}

fn control(frame: Frame<'_>) -> Result<(), String> {
    match frame.flag {
        Flag::ACK => round_trip::<Ack>(frame.payload).map(drop),
        Flag::CHALLENGE => round_trip::<Challenge>(frame.payload).map(drop),
        Flag::PROOF => round_trip::<Proof>(frame.payload).map(drop),
        Flag::ERROR => {
            let error = round_trip::<WireError>(frame.payload)?;
            bounded(error.text.capacity(), frame.payload);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn round_trip<T: Wire + PartialEq + Debug>(payload: &[u8]) -> Result<T, String> {
    let value: T = decode_exact(payload).map_err(text)?;
    let mut again = Vec::new();
    value.encode(&mut again);
    assert_eq!(decode_exact::<T>(&again).as_ref(), Ok(&value));
    Ok(value)
}

/// A joined payload, its number in front.
fn message(flag: Flag, payload: &[u8]) -> Result<(), String> {
    if payload.len() > crate::limits::MAX_MESSAGE {
        return Err("too long for a message".into());
    }
    let value = Sequenced::from_payload(flag, payload).map_err(text)?;
    assert_eq!(value.message.flag(), flag);
    bounded(held(&value.message), payload);
    let again = value.message.to_payload(value.seq);
    if again != payload {
        // Only bytes of a text that are not UTF-8 change, and only once.
        assert!(matches!(flag, Flag::RESULTS | Flag::PROBLEM | Flag::GONE));
        assert_eq!(Sequenced::from_payload(flag, &again).as_ref(), Ok(&value));
    }
    // Any way to cut it joins again.
    let max_frame = 1 + payload.len() / 3;
    let mut wire = Vec::new();
    Sequenced::put_frames(flag, &again, max_frame, &mut wire);
    assert_eq!(joined(&wire), (flag, again));
    Ok(())
}

/// The flag and payload of a message that came in several frames.
fn joined(mut wire: &[u8]) -> (Flag, Vec<u8>) {
    let mut all = Vec::new();
    let mut last = Flag::PART;
    while let Ok(Some((frame, used))) = frame::decode(wire) {
        assert_eq!(last, Flag::PART);
        all.extend_from_slice(frame.payload);
        (last, wire) = (frame.flag, &wire[used..]);
    }
    assert!(wire.is_empty());
    (last, all)
}

/// Bytes that a message holds on the heap.
fn held(message: &Message) -> usize {
    match message {
        Message::Request(Request { paths, rules, .. }) => {
            vec(paths, Vec::capacity) + vec(rules, |rule| rule.pattern.capacity())
        }
        Message::Entries(list) => vec(list, held_entry),
        Message::DirsEnd(list) => vec(list, |_| 0),
        Message::Want(list) => vec(list, |want| vec(&want.ranges, |_| 0)),
        Message::Results(list) => vec(list, |result| match &result.outcome {
            Outcome::Failed(error) => error.text.capacity(),
            _ => 0,
        }),
        Message::Written(list) => vec(list, |_| 0),
        Message::DigestsWanted(list) => vec(list, |_| 0),
        Message::Digests(digests) => vec(&digests.hashes, |_| 0),
        Message::Problem(problem) => problem.path.capacity() + problem.error.text.capacity(),
        Message::Replaced(_, entry) => held_entry(entry),
        Message::Gone(_, error) => error.text.capacity(),
        Message::Finish(_) | Message::Close(_) => 0,
    }
}

fn held_entry(entry: &Entry) -> usize {
    match &entry.body {
        EntryBody::Symlink { target } => entry.name.len() + target.len(),
        EntryBody::File { .. } | EntryBody::Dir => entry.name.len(),
    }
}

fn vec<T>(list: &Vec<T>, held: impl Fn(&T) -> usize) -> usize {
    list.capacity() * size_of::<T>() + list.iter().map(held).sum::<usize>()
}

fn strings(list: &Vec<String>) -> usize {
    vec(list, String::capacity)
}

fn bounded(held: usize, input: &[u8]) {
    assert!(held <= BASE + FACTOR * input.len(), "{held} bytes from {}", input.len());
}

/// The frame that we encoded ourselves.
fn whole_frame(bytes: &[u8]) -> Frame<'_> {
    match frame::decode(bytes) {
        Ok(Some((frame, used))) if used == bytes.len() => frame,
        other => panic!("encoded as {other:?}"),
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
