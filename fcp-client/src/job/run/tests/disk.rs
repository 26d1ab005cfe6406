//! Runs with the ledger on a disk, as they are outside tests.

use super::support::Bench;
use crate::job::ledger::overview::Overview;
use crate::job::ledger::sqlite::SqliteBook;
use crate::job::run::{Halt, Stop, dry_run, run_job};
use crate::job::spec::Action;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_a_ledger_on_a_disk_knows_what_was_delivered() {
    let bench = Bench::new();
    let path = bench.dir.path().join("state/jobs.sqlite");
    for number in 0..100 {
        bench.put(&format!("file-{number}"), b"content");
    }
    let run = async || {
        // Another process each time, as far as the ledger knows.
        let book = SqliteBook::open(&path).unwrap();
        run_job(bench.order().await, &book, bench.listener(), &Stop::new()).await
    };
    let summary = run().await;
    assert_eq!((summary.delivered, summary.exit_code), (100, 0), "{summary:?}");
    std::fs::remove_dir_all(bench.destination()).unwrap();
    std::fs::create_dir(bench.destination()).unwrap();
    bench.put("new", b"content");
    let records = Overview::open(&path).unwrap().unwrap().records("JOB").unwrap();
    let planned = dry_run(bench.order().await, true, records, bench.listener(), &Stop::new()).await;
    assert_eq!((planned.delivered, planned.skipped), (1, 100), "a dry run knows it, too");
    let summary = run().await;
    assert_eq!((summary.delivered, summary.skipped), (1, 100), "{summary:?}");
    assert_eq!(bench.names(&bench.destination()), ["new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_fails_ends_the_run_and_loses_nothing() {
    let bench = Bench::new().action(Action::Delete, false);
    for number in 0..20 {
        bench.put(&format!("file-{number:02}"), b"content");
    }
    for call in 1..40 {
        bench.book.fail_from(call);
        let summary = bench.run().await;
        bench.book.fail_from(0);
        bench.book.crash();
        let there = bench.names(&bench.destination());
        let here = bench.names(&bench.source());
        for number in 0..20 {
            let name = format!("file-{number:02}");
            assert!(there.contains(&name) || here.contains(&name), "{call}: {name} is lost");
        }
        assert!(summary.exit_code == 11 || summary.exit_code == 0, "{call}: {summary:?}");
    }
    assert_eq!(bench.run().await.exit_code, 0);
    assert_eq!(bench.names(&bench.destination()).len(), 20);
    assert!(bench.names(&bench.source()).is_empty());
    let stopped = Bench { stop: Stop::new(), ..bench };
    stopped.stop.halt(Halt::Cancelled);
    assert_eq!(stopped.run().await.exit_code, 20);
}
