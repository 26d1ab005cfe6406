//! The same jobs with one end or both behind OpenSSH's SFTP server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::support::{Bench, unzip};
use crate::job::spec::Action;
use crate::location::Reason;
use crate::location::faulty::{Fault, Faults};

const ALL: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn content() -> Vec<u8> {
    (0..700_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn bench(action: Action, zip: bool, far: (bool, bool)) -> Bench {
    let mut bench = Bench::new().action(action, zip);
    bench.far = far;
    bench.spec.transfer.large_file_threshold = 1 << 20;
    bench.spec.transfer.chunk_size = 1 << 20;
    bench.put("large", &content());
    for number in 0..20 {
        bench.put(&format!("small-{number}"), format!("content {number}").as_bytes());
    }
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_four_pairs_of_ends_with_all_actions() {
    let actions = [
        (Action::Keep, false),
        (Action::Delete, false),
        (Action::Move, false),
        (Action::Move, true),
    ];
    for far in ALL {
        for (action, zip) in actions {
            let bench = bench(action, zip, far);
            let summary = bench.run().await;
            let what = format!("{far:?} {action:?} {zip}: {summary:?} {}", bench.why("large"));
            assert_eq!((summary.delivered, summary.exit_code), (21, 0), "{what}");
            assert!(bench.there("large").unwrap() == content(), "{what}");
            assert_eq!(bench.there("small-7").unwrap(), b"content 7");
            assert_eq!(bench.names(&bench.destination()).len(), 21, "{what}");
            let left = bench.names(&bench.source());
            let first = match (action, zip) {
                (Action::Keep, _) => "large",
                (Action::Delete, _) => "",
                (Action::Move, false) => "DONE/large",
                (Action::Move, true) => "DONE/large.zip",
            };
            assert_eq!(left.first().map_or("", String::as_str), first, "{what}");
            if zip {
                let (_, unzipped) = unzip(&bench.here("DONE/large.zip").unwrap()).unwrap();
                assert!(unzipped == content(), "{what}");
            }
            assert_eq!(bench.run().await.delivered, 0, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_age_is_by_the_clock_of_the_server() {
    let mut bench = bench(Action::Keep, false, (true, false));
    bench.spec.min_age = Duration::from_secs(600);
    let file = std::fs::File::options().write(true).open(bench.source().join("large")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.skipped), (1, 20), "{summary:?}");
    assert_eq!(bench.names(&bench.source()).len(), 21, "no probe is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s29_a_file_that_vanishes_is_skipped() {
    let mut bench = bench(Action::Move, false, (true, true));
    let source = bench.source();
    bench.faults = Some(Faults::new(move |call| {
        if call.starts_with("list") {
            return;
        }
        let _ = std::fs::remove_file(source.join("small-3"));
    }));
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.skipped, summary.exit_code), (20, 1, 0), "{summary:?}");
    assert!(bench.why("small-3").contains("gone when it was to be read"));
    assert!(bench.there(".tmp.small-3").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_lost_answers_are_tried_again_within_a_run() {
    let calls = {
        let bench = Bench { faults: Some(Faults::new(|_| ())), ..two(true) };
        bench.run().await;
        bench.faults.as_ref().unwrap().seen().len()
    };
    for number in 0..calls {
        let bench = Bench { faults: Some(Faults::new(|_| ())), ..two(true) };
        let faults = Arc::clone(bench.faults.as_ref().unwrap());
        faults.plan(number, Fault::Unanswered(Reason::Timeout));
        let summary = bench.run().await;
        let call = faults.seen()[number].clone();
        let what = format!("{number} {call}: {summary:?} {:?}", bench.events.lock().unwrap());
        assert_eq!((summary.failed, summary.exit_code), (0, 0), "{what}");
        assert_eq!(summary.delivered, 2, "{what}");
        assert_eq!(bench.names(&bench.destination()), ["a", "b"], "{what}");
        assert_eq!(bench.names(&bench.source()), ["DONE/a.zip", "DONE/b.zip"], "{what}");
    }
}

fn two(zip: bool) -> Bench {
    let mut bench = Bench::new().action(Action::Move, zip);
    bench.far = (true, true);
    bench.put("a", b"1");
    bench.put("b", b"2");
    bench
}
