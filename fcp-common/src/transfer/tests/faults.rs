//! Each fault alone.

use std::time::Duration;

use fcp_proto::packet::Outcome;
use fcp_proto::{ErrorCode, Timestamp};

use super::pair::Pair;
use super::plan::{Plan, Side};
use super::random::Random;
use super::source::{Body, Source};

const MIB: u64 = 1 << 20;

fn tree(seed: u64) -> Source {
    Source::random(&mut Random(seed), 40, 3)
}

/// Three big files and some small ones.
fn big(mib: u64) -> Source {
    let (random, mut source) = (&mut Random(5), Source::new());
    let dir = source.add(random, None, Body::Dir);
    for size in [mib * MIB / 2, 3, mib * MIB / 4 + 17, 0, 60_000, mib * MIB / 4 - 1] {
        source.add_file(random, Some(dir), size);
    }
    source
}

fn run(seeds: u64, source: fn(u64) -> Source, plan: Plan) -> Vec<Pair> {
    (0..seeds)
        .map(|seed| {
            let mut pair = Pair::new(seed, plan.clone(), source(seed));
            pair.run();
            pair
        })
        .collect()
}

fn all_created(pairs: &[Pair]) {
    for pair in pairs {
        let (summary, nodes) = (&pair.stats.summary, pair.source.nodes.len() as u64);
        assert_eq!((summary.failed, summary.changed + summary.same), (0, nodes));
    }
}

#[test]
fn nothing_goes_wrong() {
    let pairs = run(10, tree, Plan::default());
    all_created(&pairs);
    for pair in pairs {
        assert_eq!(pair.stats.summary.received, pair.source.content_bytes());
        assert_eq!((pair.stats.sent, pair.stats.sessions), (pair.source.content_bytes(), 1));
    }
}

#[test]
fn a_second_run_finds_everything_the_same() {
    for checksum in [false, true] {
        let mut pair = Pair::new(1, Plan::default(), tree(3));
        pair.run();
        let sent = pair.stats.sent;
        pair.plan.checksum = checksum;
        let second = pair.run();
        assert_eq!((second.same, second.changed), (pair.source.nodes.len() as u64, 0));
        assert_eq!(pair.stats.sent, sent);
    }
}

#[test]
fn content_decides_where_times_differ() {
    let (mut source, random) = (Source::new(), &mut Random(9));
    let same = source.add_file(random, None, 3 * MIB + 5);
    let other = source.add_file(random, None, 2 * MIB);
    let Body::File(token) = source.nodes[same].body else { unreachable!() };
    let content = source.versions[&token].to_vec();
    let mut pair = Pair::new(2, Plan::default(), source);
    let mtime = Timestamp { secs: 5, nanos: 5 };
    let (same, other) = (pair.source.path(same), pair.source.path(other));
    pair.disk.put_file(&same, content, mtime, 0o644);
    pair.disk.put_file(&other, vec![1; 2 << 20], mtime, 0o644);
    let summary = pair.run();
    assert_eq!((summary.changed, summary.received), (2, 2 * MIB));
}

#[test]
fn w20_a_connection_is_lost_at_any_byte() {
    let lose = Plan { lose: 300, conns: 5, ..Plan::default() };
    all_created(&run(15, tree, lose.clone()));
    all_created(&run(15, tree, Plan { reopen: true, keep_one: false, ..lose }));
}

#[test]
fn w22_connections_stall_and_one_is_left() {
    all_created(&run(15, tree, Plan { stall: 2000, conns: 4, ..Plan::default() }));
}

#[test]
fn w23_a_crawling_connection_does_not_hold_up_the_others() {
    let plan = Plan { stall: 2000, conns: 3, window: 4 << 20, ..Plan::default() };
    for pair in run(10, |_| big(8), plan) {
        assert!(pair.now < Duration::from_secs(25), "took {:?}", pair.now);
    }
}

#[test]
fn w21_all_connections_are_lost_and_the_next_run_resumes() {
    for at in [1, 5, 20, 50, 100, 150] {
        let plan = Plan { lose_all_at: Some(at), ..Plan::default() };
        all_created(&run(1, |_| big(8), plan));
    }
}

#[test]
fn w18_connections_overtake_each_other() {
    let plan = Plan { conns: 8, disk: Duration::from_millis(200), ..Plan::default() };
    all_created(&run(10, tree, plan));
}

#[test]
fn w24_one_byte_at_a_time() {
    let source = |seed| Source::random(&mut Random(seed), 20, 0);
    all_created(&run(3, source, Plan { read: 1, max_frame: 8192, ..Plan::default() }));
}

#[test]
fn damaged_frames_cost_their_connection() {
    all_created(&run(15, tree, Plan { flip_frame: 1000, conns: 6, ..Plan::default() }));
}

#[test]
fn w14_damaged_content_is_asked_for_again() {
    for pair in run(15, tree, Plan { flip_content: 1500, ..Plan::default() }) {
        assert!(pair.stats.flips.values().any(|n| *n > 0));
        let worst = pair.stats.flips.values().max().unwrap();
        assert!(*worst > 3 || pair.stats.summary.failed == 0);
    }
}

#[test]
fn d03_content_that_is_always_damaged_is_given_up() {
    let mut pair = Pair::new(1, Plan { flip_content: 10_000, ..Plan::default() }, big(4));
    let path = pair.source.path(1);
    pair.disk.put_file(&path, b"old content".to_vec(), Timestamp::default(), 0o644);
    let summary = pair.run();
    // The directory and the empty file need no content.
    assert_eq!((summary.failed, summary.changed), (5, 2));
    assert_eq!(pair.disk.content(&path), Some(&b"old content"[..]));
    assert!(pair.disk.temps.is_empty());
}

#[test]
fn f05_the_source_changes_while_it_is_read() {
    for pair in run(30, tree, Plan { change: 2000, ..Plan::default() }) {
        for (_, _, outcome) in &pair.stats.finished {
            let Outcome::Failed(error) = outcome else { continue };
            assert_eq!(error.code, ErrorCode::CHANGED);
        }
    }
}

#[test]
fn f05_a_source_that_never_rests_is_given_up() {
    let summary = Pair::new(3, Plan { change: 10_000, ..Plan::default() }, big(4)).run();
    assert!(summary.failed > 0);
}

#[test]
fn d06_the_source_vanishes() {
    for pair in run(15, tree, Plan { vanish: 2000, ..Plan::default() }) {
        assert_eq!(pair.stats.summary.failed, pair.stats.taken_back);
    }
}

#[test]
fn f01_the_disk_fails() {
    for pair in run(30, tree, Plan { disk_error: 500, ..Plan::default() }) {
        let failed = pair.stats.finished.iter().filter(|f| matches!(f.2, Outcome::Failed(_)));
        assert_eq!(pair.stats.summary.failed, failed.count() as u64);
        assert!(pair.disk.temps.is_empty());
    }
}

#[test]
fn a_crash_costs_little_and_the_next_run_resumes() {
    for side in [Side::Sender, Side::Receiver] {
        for at in (1..300).step_by(23) {
            let plan = Plan { crash: Some((side, at)), conns: 2, ..Plan::default() };
            let mut pair = Pair::new(at, plan, big(40));
            pair.run();
            let (sent, size) = (pair.stats.sent, pair.source.content_bytes());
            let most = (size / 100).max(8 * MIB * 2);
            assert!(sent - size <= most, "{side:?} at {at}: {} bytes again", sent - size);
        }
    }
}

#[test]
fn blocks_that_rotted_are_found_and_sent_again() {
    for at in [60, 100, 140] {
        let crash = Some((Side::Receiver, at));
        all_created(&run(2, |_| big(16), Plan { crash, rot: 3000, ..Plan::default() }));
    }
}

#[test]
fn a_small_budget_of_open_entries_is_enough() {
    all_created(&run(5, tree, Plan { open_entries: 24, ..Plan::default() }));
}

#[test]
fn a_file_in_the_way_of_a_directory_fails_what_is_below() {
    let (mut source, random) = (Source::new(), &mut Random(9));
    let mut parent = None;
    for _ in 0..4 {
        parent = Some(source.add(random, parent, Body::Dir));
        source.add_file(random, parent, 100);
    }
    let mut pair = Pair::new(1, Plan::default(), source);
    pair.disk.put_file(b"n0/n2", b"in the way".to_vec(), Timestamp::default(), 0o644);
    let summary = pair.run();
    assert_eq!((summary.failed, summary.changed), (6, 2));
}

#[test]
fn the_deepest_tree_that_is_allowed() {
    let (mut source, random) = (Source::new(), &mut Random(9));
    let mut parent = None;
    for _ in 0..2050 {
        parent = Some(source.add(random, parent, Body::Dir));
    }
    let mut pair = Pair::new(1, Plan { open_entries: 5000, ..Plan::default() }, source);
    let first = pair.run();
    assert_eq!((first.changed, first.failed), (2048, 2));
    let second = pair.run();
    assert_eq!((second.same, second.failed), (2048, 2));
}
