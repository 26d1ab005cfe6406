//! Replays `fuzz/corpus/sftp-*` and mutates it: no panic, and every promise of [`fuzz`] kept.
//!
//! `FCP_FUZZ_SECONDS=n` mutates for n seconds per target instead of a fixed number of times.
//! `FCP_BLESS=1` writes the seeds anew. What a fuzzer found may be added by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::fuzz::{ENTRIES, Target};
use super::super::{CheckFile, Limits};
use super::{packet_of, packet_of_reply, samples};

/// Mutations of each input in a plain test run.
const MUTATIONS: u32 = 1500;

#[test]
fn the_corpus_is_replayed_and_has_every_seed() {
    let bless = std::env::var_os("FCP_BLESS").is_some();
    for ((target, name), bytes) in seeds() {
        let path = folder(target).join(&name);
        if bless {
            fs::create_dir_all(folder(target)).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let stored = fs::read(&path).unwrap_or_default();
        assert!(stored == bytes, "{} is stale: run with FCP_BLESS=1", path.display());
    }
    for target in ENTRIES {
        for (name, bytes) in corpus(target) {
            replay(target, &name, &bytes);
        }
    }
}

#[test]
fn s17_mutations_break_no_promise() {
    let seconds = std::env::var("FCP_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    for target in ENTRIES {
        let inputs = corpus(target);
        let mut random = SplitMix(0x5f79);
        let start = Instant::now();
        let mut round = 0;
        while match seconds {
            Some(seconds) => start.elapsed() < Duration::from_secs(seconds),
            None => round < MUTATIONS,
        } {
            round += 1;
            for (name, bytes) in &inputs {
                let other = &inputs[random.below(inputs.len())].1;
                replay(target, name, &mutated(bytes, other, &mut random));
            }
        }
    }
}

fn seeds() -> BTreeMap<(&'static str, String), Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut stream = Vec::new();
    for (name, request) in samples::requests() {
        all.insert(("sftp-request", name.to_owned()), packet_of(0, &request)[4..].to_vec());
    }
    for (name, reply) in samples::replies() {
        let packet = packet_of_reply(7, &reply);
        stream.extend_from_slice(&packet);
        all.insert(("sftp-reply", name.to_owned()), packet[4..].to_vec());
    }
    for (name, bytes) in samples::odd_replies() {
        all.insert(("sftp-reply", name.to_owned()), bytes);
    }
    for (name, _, bytes) in samples::bad_replies() {
        all.insert(("sftp-reply", format!("bad-{name}")), bytes);
    }
    let text = b"Welcome to this host\n".to_vec();
    let cut = stream[..stream.len() - 3].to_vec();
    for (name, bytes) in [("all", stream), ("cut", cut), ("text", text), ("empty", vec![0; 4])] {
        all.insert(("sftp-stream", name.to_owned()), bytes);
    }
    let check = CheckFile { algorithm: b"sha256"[..].into(), digests: vec![7; 64].into() };
    let old = [&b"\0\0\0\x0acheck-file"[..], &check.encode()].concat();
    let limits = Limits { packet: 1, read: 2, write: 3, handles: 4 }.encode().to_vec();
    for (name, bytes) in [
        ("check-file", check.encode().to_vec()),
        ("check-file-old", old),
        ("limits", limits),
        ("statvfs", vec![0xff; 88]),
    ] {
        all.insert(("sftp-body", name.to_owned()), bytes);
    }
    all
}

/// Runs one input; when it panics, shows the input first.
fn replay(target: &Target, name: &str, bytes: &[u8]) {
    if std::panic::catch_unwind(|| (target.run)(bytes)).is_err() {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        panic!("{} breaks on a mutation of {name}: {hex}", target.name);
    }
}

/// What a coverage-blind fuzzer does: a few flips, edge numbers, cuts, repeats and splices.
fn mutated(bytes: &[u8], other: &[u8], random: &mut SplitMix) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len() + 1);
        match random.below(7) {
            0 => out.truncate(at),
            1 => out.insert(at, random.next() as u8),
            2 => out.extend_from_slice(&other[random.below(other.len() + 1)..]),
            3 => {
                let end = (at + random.below(64)).min(out.len());
                let again = out[at..end].to_vec();
                out.splice(at..at, again);
            }
            4 => {
                let edges: [u32; 6] = [0, 1, 256, 1 << 18, 1 << 31, u32::MAX];
                let edge = edges[random.below(edges.len())].to_be_bytes();
                let end = (at + 4).min(out.len());
                out.splice(at..end, edge);
            }
            _ if at < out.len() => out[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    out
}

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder(target.name))
        .unwrap_or_else(|e| panic!("{}: {e}", folder(target.name).display()))
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// SplitMix64: the same numbers in every run.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
