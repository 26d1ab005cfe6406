//! Replays `fuzz/corpus` and mutates it: no panic, and every promise of `fcp_proto::fuzz` kept.
//!
//! `FCP_FUZZ_SECONDS=n` mutates for n seconds per target instead of a fixed number of times.
//! `FCP_BLESS=1` writes the corpus anew from the seeds. What a fuzzer found may be added by hand.

// Helpers of tests may panic as tests do.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod doc;
mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fcp_proto::fuzz::{ENTRIES, Target};

/// Mutations of each input in a plain test run; all targets together stay below a few seconds.
const MUTATIONS: u64 = 4000;

/// Reasons that no bytes have: 2048 names with slashes are as long as the longest path, and the
/// others are told to a client before it sends.
const UNREACHABLE: [&str; 3] = [
    "a path that is too deep",
    "more paths and filters than fit a message",
    "a path or filter that is too long",
];

#[test]
fn the_corpus_is_replayed_and_has_every_seed() {
    let bless = std::env::var_os("FCP_BLESS").is_some();
    for ((target, name), bytes) in seeds::all() {
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
fn every_example_of_the_document_is_taken() {
    for example in doc::examples::all() {
        let run = ENTRIES[0].run;
        // PART alone joins nothing: its frames are judged one by one.
        if example.name != "PART" {
            assert_eq!(run(&example.bytes), Ok(()), "{}", example.name);
        }
    }
}

#[test]
fn every_refusal_has_an_input() {
    let texts: BTreeSet<String> = ENTRIES
        .iter()
        .flat_map(|target| corpus(target).into_iter().map(|(_, bytes)| (target.run)(&bytes)))
        .filter_map(Result::err)
        .collect();
    let reasons = reasons();
    assert!(reasons.len() > 30, "only {} reasons were found in the source", reasons.len());
    for reason in reasons {
        let unreachable = UNREACHABLE.contains(&&*reason);
        assert!(unreachable || texts.iter().any(|t| t.contains(&reason)), "nothing has {reason:?}");
    }
}

#[test]
fn w35_mutations_break_no_promise() {
    let seconds = std::env::var("FCP_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    for target in ENTRIES {
        let inputs = corpus(target);
        let mut random = SplitMix(0x0fc9);
        let start = Instant::now();
        for round in 0.. {
            let done = match seconds {
                Some(seconds) => start.elapsed() >= Duration::from_secs(seconds),
                None => round >= MUTATIONS,
            };
            if done {
                break;
            }
            for (name, bytes) in &inputs {
                // The long ones are few and slow; they get their share.
                if bytes.len() < 4096 || round % 16 == 0 {
                    let other = &inputs[random.below(inputs.len())].1;
                    replay(target, name, &mutated(bytes, other, &mut random));
                }
            }
        }
    }
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
                let edges: [u64; 6] = [0, 1, 1 << 20, 1 << 31, 1 << 63, u64::MAX];
                let edge = edges[random.below(edges.len())].to_be_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                let end = (at + width).min(out.len());
                out.splice(at..end, edge[8 - width..].iter().copied());
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

/// Every reason for a refusal that stands in the source of the codec.
fn reasons() -> BTreeSet<String> {
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut out = BTreeSet::new();
    for folder in [src.to_owned(), format!("{src}/packet")] {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "rs") {
                let code = fs::read_to_string(path).unwrap();
                for before in ["Malformed(\"", "Json(flag, \"", "Json(Flag::PULL, \"", "=> \"a"] {
                    let a = if before == "=> \"a" { "a" } else { "" };
                    out.extend(code.split(before).skip(1).filter_map(|rest| {
                        rest.split_once('"').map(|(reason, _)| format!("{a}{reason}"))
                    }));
                }
            }
        }
    }
    out
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
