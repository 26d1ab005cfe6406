//! A slow way in, and quicker connections that join later: which of them carries what, and when.

use std::time::Duration;

use fcp_proto::limits::BLOCK;

use super::pair::Pair;
use super::plan::Plan;
use super::random::Random;
use super::source::Source;

const LATENCY: Duration = Duration::from_millis(50);
const HOLD: Duration = Duration::from_millis(900);

/// A far path without faults: the way in, and `more` that join after `join_at`.
fn plan(more: u32, join_at: Duration) -> Plan {
    let (disk, spare) = (Duration::ZERO, Some(HOLD));
    Plan { conns: 1 + more, spare, join_at, latency: LATENCY, disk, ..Plan::default() }
}

/// Transfers files of these sizes; what it took, and what went over the way in.
fn run(plan: Plan, sizes: &[u64]) -> (Duration, u64) {
    let (mut random, mut source) = (Random(7), Source::new());
    for size in sizes {
        source.add_file(&mut random, None, *size);
    }
    let mut pair = Pair::new(7, plan, source);
    pair.run();
    (pair.now, pair.stats.sent_over.get(&0).copied().unwrap_or_default())
}

#[test]
fn a_small_transfer_waits_for_nobody() {
    for sizes in [&[100][..], &[BLOCK / 2], &[5000; 100]] {
        // They would join long after.
        let (took, over_first) = run(plan(3, Duration::from_secs(100)), sizes);
        assert!(took < HOLD, "{took:?} for {} files", sizes.len());
        assert_eq!(over_first, sizes.iter().sum::<u64>());
    }
}

#[test]
fn most_of_a_large_file_waits_for_those_that_join() {
    let (_, over_first) = run(plan(3, HOLD * 2 / 3), &[40 * BLOCK]);
    assert!((1..=2 * BLOCK).contains(&over_first), "{over_first}");
}

#[test]
fn many_small_files_are_mostly_left_to_those_that_join() {
    let (_, over_first) = run(plan(3, HOLD * 2 / 3), &[60_000; 400]);
    assert!(over_first > 0 && over_first < 3 * BLOCK, "{over_first}");
}

#[test]
fn where_nobody_joins_it_carries_everything_once_the_hold_is_over() {
    let alone = Plan { spare: None, ..plan(0, HOLD) };
    let (without, _) = run(alone, &[20 * BLOCK]);
    let (took, over_first) = run(plan(0, HOLD), &[20 * BLOCK]);
    assert_eq!(over_first, 20 * BLOCK);
    assert!(took < without + HOLD, "{took:?} where it takes {without:?} without a hold");
}
