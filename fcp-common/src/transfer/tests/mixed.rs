//! All faults together, by seed. `FCP_SEEDS=n` runs more; `FCP_SEED=x` runs one and prints it.

use std::time::Duration;

use fcp_proto::Timestamp;

use super::pair::Pair;
use super::plan::{Plan, Side};
use super::random::{Random, content};
use super::source::{Body, Source};

const SEEDS: u64 = 300;

fn plan(random: &mut Random) -> Plan {
    let mut some = |max: u64| if random.chance(4000) { random.below(max) } else { 0 };
    let (lose, stall, flip_content, flip_frame) = (some(500), some(200), some(500), some(300));
    let (change, vanish, disk_error, rot) = (some(500), some(200), some(200), some(2000));
    let crash = match (some(3), some(200)) {
        (1, at) => Some((Side::Sender, at)),
        (2, at) => Some((Side::Receiver, at)),
        _ => None,
    };
    let lose_all_at = Some(some(300)).filter(|at| *at > 0);
    Plan {
        conns: 1 + random.below(6) as u32,
        spare: random.chance(3000).then(|| Duration::from_millis(random.below(2000))),
        help: random.below(3) as usize,
        join_at: Duration::from_millis(random.below(2) * random.below(1500)),
        latency: Duration::from_millis(random.below(200)),
        rate: 100_000 << random.below(10),
        window: 50_000 << random.below(7),
        max_frame: [8192, 20_000, 65_535][random.below(3) as usize],
        open_entries: 16 + random.below(500) as u32,
        read: [usize::MAX, usize::MAX, 5000, 1 + random.below(200) as usize]
            [random.below(4) as usize],
        disk: Duration::from_millis(random.below(300)),
        keep_one: random.chance(7000),
        reopen: random.chance(5000),
        checksum: random.chance(2000),
        lose,
        stall,
        lose_all_at,
        flip_content,
        flip_frame,
        change,
        vanish,
        disk_error,
        crash,
        rot,
    }
}

/// Something stands at the destination already.
fn fill(pair: &mut Pair, random: &mut Random) {
    for node in 0..pair.source.nodes.len() {
        let Body::File(token) = pair.source.nodes[node].body else { continue };
        let path = pair.source.path(node);
        let (mtime, right) = (pair.source.nodes[node].mtime, pair.source.versions[&token].to_vec());
        let other = Timestamp { secs: mtime.secs - 3, ..mtime };
        let wrong = content(random.next(), right.len());
        match random.below(8) {
            0 => pair.disk.put_file(&path, right, mtime, 0o600),
            1 => pair.disk.put_file(&path, right, other, 0o600),
            2 => pair.disk.put_file(&path, wrong, other, 0o600),
            3 => pair.disk.put_file(&path, b"short".to_vec(), other, 0o600),
            _ => {}
        }
    }
}

fn run(seed: u64) -> (u64, Pair) {
    let mut random = Random(seed ^ 0x5eed);
    let plan = plan(&mut random);
    let (files, big) = (3 + random.below(25), random.below(3));
    let source = Source::random(&mut random, files, big);
    let mut pair = Pair::new(seed, plan, source);
    fill(&mut pair, &mut random);
    if pair.trace {
        println!("{:#?}", pair.plan);
    }
    pair.run();
    (pair.stats.log, pair)
}

#[test]
fn every_seed_ends_well() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("FCP_SEED") {
        println!("{:?}", run(seed).1.stats);
        return;
    }
    for seed in 0..number("FCP_SEEDS").unwrap_or(SEEDS) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            println!("it was FCP_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run(seed).0, run(seed).0, "seed {seed}");
    }
}
