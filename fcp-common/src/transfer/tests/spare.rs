//! A slow way in, and quicker connections that join later: which of them carries what, and when.

use std::time::Duration;

use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{Message, Want, Written};
use fcp_proto::version::{Hello, negotiate};
use fcp_proto::{ConnId, FileId};

use super::hostile::{NOW, file, tell};
use super::pair::Pair;
use super::plan::Plan;
use super::random::Random;
use super::source::Source;
use crate::transfer::{Help, Sender, Work};

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
fn most_of_a_large_transfer_waits_for_those_that_join() {
    for sizes in [&[48 * BLOCK][..], &[60_000; 800]] {
        let (_, over_first) = run(plan(3, HOLD * 2 / 3), sizes);
        let total: u64 = sizes.iter().sum();
        assert!(over_first > 0 && over_first < total / 2, "{over_first} of {total}");
    }
}

#[test]
fn where_nobody_joins_it_carries_everything_once_the_hold_is_over() {
    let alone = Plan { spare: None, ..plan(0, HOLD) };
    let (without, _) = run(alone, &[20 * BLOCK]);
    let (took, over_first) = run(plan(0, HOLD), &[20 * BLOCK]);
    assert_eq!(over_first, 20 * BLOCK);
    assert!(took < without + HOLD, "{took:?} where it takes {without:?} without a hold");
}

/// A sender with the way in and one other connection, whose file of so many blocks is wanted.
fn two(blocks: u64, help: Help) -> (Sender<()>, ConnId, ConnId) {
    let hello = Hello::ours(4);
    let mut s = Sender::new(negotiate(&hello, &hello).unwrap());
    let (first, other) = (ConnId(0), ConnId(1));
    s.handle_conn_opened(first);
    s.handle_spare(first, HOLD, help);
    s.handle_entry((), |id| file(id.0, blocks * BLOCK));
    s.poll_transmit(first, NOW, usize::MAX, &mut Vec::new());
    tell(&mut s, 0, Message::Want(vec![Want { file: FileId(0), ranges: Vec::new() }])).unwrap();
    (s, first, other)
}

fn written(work: &Work<()>) -> Written {
    Written { file: work.block.file, offset: work.block.offset }
}

#[test]
fn it_helps_until_others_have_carried_something() {
    let (mut s, first, other) = two(100, Help::BesideYoung);
    let first_two: Vec<_> = std::iter::from_fn(|| s.poll_work(first, NOW)).collect();
    assert_eq!(first_two.len(), 2);
    assert!(!s.has_transmit(first, NOW) && !s.has_any_transmit(NOW));
    assert_eq!(s.poll_timeout(NOW).map(|at| at <= HOLD), Some(true), "it looks again");
    s.handle_conn_opened(other);
    assert!(s.has_transmit(other, NOW) && s.has_any_transmit(NOW));
    // They had arrived all the time.
    let (mut seq, mut helps) = (0, first_two);
    for by_others in 0..40 {
        assert_eq!(helps.is_empty(), by_others >= 16, "after {by_others} blocks of others");
        let work = s.poll_work(other, NOW);
        let written = helps.iter().chain(&work).map(written).collect();
        seq += 1;
        tell(&mut s, seq, Message::Written(written)).unwrap();
        helps = s.poll_work(first, NOW).into_iter().collect();
    }
    s.handle_conn_lost(other);
    let before = std::iter::from_fn(|| s.poll_work(first, NOW)).count();
    let after = std::iter::from_fn(|| s.poll_work(first, HOLD)).count();
    assert!(before == 2 && after > 30, "others may still come: {before}, then {after}");
}

#[test]
fn where_it_need_not_help_it_waits() {
    for (help, alone, beside) in
        [(Help::Never, 0, 0), (Help::Alone, 2, 0), (Help::BesideYoung, 2, 2)]
    {
        let (mut s, first, other) = two(100, help);
        let takes = |s: &mut Sender<()>| std::iter::from_fn(|| s.poll_work(first, NOW)).count();
        assert_eq!((takes(&mut s), s.has_any_transmit(NOW)), (alone, false), "{help:?}");
        assert_eq!(s.poll_timeout(NOW).map(|at| at <= HOLD), Some(true), "{help:?}");
        let (mut s, ..) = two(100, help);
        s.handle_conn_opened(other);
        assert_eq!(takes(&mut s), beside, "{help:?}");
    }
}
