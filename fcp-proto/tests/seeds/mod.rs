//! Where the committed corpus comes from: the document's examples, and inputs that are refused.

use std::collections::BTreeMap;

use fcp_proto::Flag;
use fcp_proto::fuzz::entry_for;

use crate::doc::examples::{self, Example};

/// Inputs by target and file name.
pub(crate) type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

/// The whole corpus.
pub(crate) fn all() -> Seeds {
    let mut seeds = Seeds::new();
    for example in examples::all() {
        put_example(&mut seeds, &example);
    }
    let all: Vec<u8> = examples::all().into_iter().flat_map(|e| e.bytes).collect();
    let mut damaged = all.clone();
    damaged[3] ^= 1;
    seeds.insert(("frames", "everything".into()), all);
    seeds.insert(("frames", "wrong-checksum".into()), damaged);
    for (flag, name, payload) in refused() {
        put(&mut seeds, flag, name.into(), &payload);
    }
    seeds
}

fn put_example(seeds: &mut Seeds, example: &Example) {
    seeds.insert(("frames", example.name.into()), example.bytes.clone());
    for (flag, payload) in example.frames().into_iter().filter(|f| f.0 != Flag::PART) {
        if example.name == "PART" {
            continue;
        }
        put(seeds, flag, example.name.into(), &payload);
        let mut longer = payload.clone();
        longer.push(0);
        put(seeds, flag, format!("{}-trailing", example.name), &longer);
        if let Some((_, shorter)) = payload.split_last() {
            put(seeds, flag, format!("{}-cut", example.name), shorter);
            put(seeds, flag, format!("{}-half", example.name), &payload[..payload.len() / 2]);
        }
    }
}

fn put(seeds: &mut Seeds, flag: Flag, name: String, payload: &[u8]) {
    let (target, with_flag) = entry_for(flag);
    let front: &[u8] = if with_flag { &[flag.0] } else { &[] };
    seeds.insert((target, name), [front, payload].concat());
}

/// One input for each thing that a packet does not allow.
fn refused() -> Vec<(Flag, &'static str, Vec<u8>)> {
    [refused_v1(), refused_openings(), refused_requests(), refused_messages(), refused_content()]
        .concat()
}

fn refused_v1() -> Vec<(Flag, &'static str, Vec<u8>)> {
    let dir = |path: &[u8]| [&example("DIR_INFO")[..6], path].concat();
    let file = |at, bytes: &[u8]| set("FILE_INFO", at, bytes);
    vec![
        (Flag::MONOFILE, "neither-0-nor-1", vec![2]),
        (Flag::DONE, "zero", vec![0]),
        (Flag::DIR_INFO, "dotdot", dir(b"../etc")),
        (Flag::DIR_INFO, "absolute", dir(b"/etc")),
        (Flag::DIR_INFO, "doubled-slash", dir(b"a//b")),
        (Flag::DIR_INFO, "nul", dir(b"a\0b")),
        (Flag::DIR_INFO, "long-name", dir(&[b'a'; 256])),
        (Flag::DIR_INFO, "long-path", dir(&b"a/".repeat(2048))),
        (Flag::DIR_INFO, "deepest", dir(&b"/a".repeat(2048)[1..])),
        (Flag::FILE_INFO, "nan", file(14, &f64::NAN.to_be_bytes())),
        (Flag::FILE_INFO, "infinite", file(14, &f64::INFINITY.to_be_bytes())),
        (Flag::FILE_INFO, "far-future", file(14, &1e300f64.to_be_bytes())),
        (Flag::FILE_INFO, "before-1970", file(14, &(-0.1f64).to_be_bytes())),
        (Flag::FILE_INFO, "too-big", file(6, &[0xff; 8])),
        (Flag::FILE_CHUNK, "too-long", set("FILE_CHUNK", 8, &[0; 4097])),
        (Flag::EXCEPTION, "not-utf8", vec![0xff; 2000]),
        (Flag::EXCEPTION, "terminal", b"\x1b]0;x\x07%s\n".repeat(200)),
    ]
}

fn refused_openings() -> Vec<(Flag, &'static str, Vec<u8>)> {
    let push = |json: &str| json.as_bytes().to_vec();
    let deep = format!(r#"{{"user":"u","dst":"d","x":{}{}}}"#, "[".repeat(60), "]".repeat(60));
    let many = vec![r#""""#; 10_001].join(",");
    let hello = |at, bytes: &[u8]| set("HELLO", at, bytes);
    vec![
        (Flag::PUSH, "not-utf8", vec![b'{', 0xff, b'}']),
        (Flag::PUSH, "array", push(r#"["u","d"]"#)),
        (Flag::PUSH, "deep", push(&deep)),
        (Flag::PUSH, "key-twice", push(r#"{"user":"u","dst":"d","dst":"e"}"#)),
        (Flag::PUSH, "missing-key", push(r#"{"user":"u"}"#)),
        (Flag::PUSH, "unknown-key", push(r#"{"user":"u","dst":"d","x":[1e400,null]}"#)),
        (Flag::PUSH, "surrogate", push(r#"{"user":"\ud800","dst":"d"}"#)),
        (Flag::PUSH, "bad-offer", push(r#"{"user":"u","dst":"d","fcp":"00020002"}"#)),
        (Flag::PULL, "exclude-string", {
            push(r#"{"user":"u","srcs":["a"],"include":"*","exclude":"x,,y"}"#)
        }),
        (Flag::PULL, "many", push(&format!(r#"{{"user":"u","srcs":[{many}],"include":""}}"#))),
        (Flag::HELLO, "no-version", hello(0, &[0, 3, 0, 2])),
        (Flag::HELLO, "version-0", hello(0, &[0, 0])),
        (Flag::HELLO, "small-frame", hello(12, &[0, 1])),
        (Flag::HELLO, "extension", hello(22, &[0x12, 0x34, 0, 2, 9, 9])),
        (Flag::HELLO, "token-name", set("HELLO-proof", 22 + 4 + 33, b"-")),
        (Flag::HELLO, "extension-twice", {
            let proof = example("HELLO-proof");
            [proof.clone(), proof[22..].to_vec()].concat()
        }),
        (Flag::ACCEPT, "port-0", set("ACCEPT-proof", 36 + 36 + 4, &[0, 0])),
        (Flag::ACCEPT, "bare", vec![7; 16]),
        (Flag::ACCEPT, "idle-0", set("ACCEPT", 34, &[0, 0])),
    ]
}

fn refused_requests() -> Vec<(Flag, &'static str, Vec<u8>)> {
    let push = |at, bytes: &[u8]| set("REQUEST-push", at, bytes);
    let pull = |at, bytes: &[u8]| set("REQUEST-pull", at, bytes);
    let empty_paths = [&example("REQUEST-pull")[..10], &[0, 0, 0x27, 0x10], &[0; 20_004]].concat();
    vec![
        (Flag::REQUEST, "direction", push(4, &[3])),
        (Flag::REQUEST, "option", push(5, &[0x80])),
        (Flag::REQUEST, "durability", push(9, &[3])),
        (Flag::REQUEST, "no-path", push(10, &[0; 8])),
        (Flag::REQUEST, "two-paths", pull(4, &[1])),
        (Flag::REQUEST, "many-paths", push(10, &[0xff; 4])),
        (Flag::REQUEST, "nul", push(16, &[0])),
        (Flag::REQUEST, "empty-paths", empty_paths),
        (Flag::REQUEST, "action", pull(32, &[2])),
        (Flag::REQUEST, "long-rule", pull(33, &[0xff; 2])),
    ]
}

fn refused_messages() -> Vec<(Flag, &'static str, Vec<u8>)> {
    let entries = |at, bytes: &[u8]| set("ENTRIES", at, bytes);
    let results = |at, bytes: &[u8]| set("RESULTS", at, bytes);
    let seq = [0; 4];
    vec![
        (Flag(0x3f), "unknown", vec![0; 8]),
        (Flag::ENTRIES, "empty", seq.to_vec()),
        (Flag::ENTRIES, "kind", entries(4, &[4])),
        (Flag::ENTRIES, "root-id", entries(5, &[0xff; 4])),
        (Flag::ENTRIES, "slash", entries(14, b"/")),
        (
            Flag::ENTRIES,
            "dotdot",
            [&seq[..], &[2, 0, 0, 0, 0, 0, 0, 0, 0, 2], b"..", &[0; 14]].concat(),
        ),
        (Flag::ENTRIES, "nanoseconds", entries(28, &[0x3b, 0x9a, 0xca, 0])),
        (Flag::ENTRIES, "size", entries(65, &[0xff])),
        (Flag::ENTRIES, "nul-target", entries(117, &[0])),
        (Flag::ENTRIES, "long-target", entries(115, &[0xff; 2])),
        (Flag::FINISH, "nanoseconds", set("FINISH-root", 14, &[0xff; 4])),
        (Flag::WANT, "inside-a-block", set("WANT-ranges", 10, &1u64.to_be_bytes())),
        (Flag::WANT, "empty-range", set("WANT-ranges", 18, &[0; 8])),
        (Flag::WANT, "far", set("WANT-ranges", 18, &[0xff; 8])),
        (Flag::WANT, "many", set("WANT", 8, &[0xff; 2])),
        (Flag::WANT, "none", seq.to_vec()),
        (Flag::DIGESTS, "none", vec![0; 12]),
        (Flag::WRITTEN, "inside-a-block", set("WRITTEN", 15, &[1])),
        (Flag::WRITTEN, "far", set("WRITTEN", 8, &[0xff])),
        (Flag::RESULTS, "outcome", results(8, &[5])),
        (Flag::RESULTS, "not-utf8", results(18, &[0xff; 9])),
        (Flag::RESULTS, "long-text", results(16, &[4, 1])),
        (Flag::RESULTS, "shortest", [&seq[..], &[0; 5 * 500]].concat()),
        (Flag::GONE, "text-grows", [&[0; 10][..], &[4, 0], &[0xff; 1024]].concat()),
        (Flag::PROBLEM, "long-path", set("PROBLEM", 4, &[0x20, 0])),
    ]
}

fn refused_content() -> Vec<(Flag, &'static str, Vec<u8>)> {
    let end = (1u64 << 63).to_be_bytes();
    vec![
        (Flag::DATA, "empty", vec![0; 12]),
        (Flag::DATA, "far", set("DATA", 4, &end)),
        (Flag::DATA, "overflow", set("DATA", 4, &[0xff; 8])),
        (Flag::BLOCK, "inside-a-block", set("BLOCK", 11, &[1])),
        (Flag::BLOCK, "too-long", set("BLOCK", 12, &[0, 0x10, 0, 1])),
        (Flag::BLOCK, "empty", set("BLOCK", 12, &[0; 4])),
        (Flag::BLOCK, "far", set("BLOCK", 4, &end)),
        (Flag::WHOLE, "empty", vec![0; 20]),
        (Flag::WHOLE, "too-long", vec![0; 20 + 61_441]),
        (Flag::ERROR, "unknown-code", vec![0xff, 0xff, 0, 0]),
        (Flag::ERROR, "not-utf8", vec![0, 1, 0, 2, 0xc3, 0xff]),
        (Flag(0xff), "ignorable", vec![1, 2, 3]),
        (Flag(0x7f), "unknown", vec![]),
    ]
}

/// The payload of an example.
fn example(name: &str) -> Vec<u8> {
    let example = examples::all().into_iter().find(|e| e.name == name).expect("an example");
    example.frames().remove(0).1
}

/// The payload of an example with `bytes` written over what stands at `at`, and behind the end.
fn set(name: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut payload = example(name);
    payload.resize(payload.len().max(at + bytes.len()), 0);
    payload[at..at + bytes.len()].copy_from_slice(bytes);
    payload
}
