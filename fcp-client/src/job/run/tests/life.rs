//! What becomes of files when nothing fails.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use fcp_proto::path::RelPath;

use super::support::{Bench, unzip};
use crate::job::report::JobEvent;
use crate::job::run::{Halt, dry_run};
use crate::job::spec::{Action, Layout, Overwrite};

fn age(bench: &Bench, name: &str, age: Duration) {
    let file = std::fs::File::options().write(true).open(bench.source().join(name)).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn kept_files_are_delivered_once_even_when_the_consumer_takes_them() {
    let bench = Bench::new();
    bench.put("a.csv", b"one");
    bench.put("b.csv", b"");
    age(&bench, "a.csv", Duration::from_secs(1000));
    let summary = bench.run().await;
    assert_eq!((summary.found, summary.delivered, summary.failed), (2, 2, 0), "{summary:?}");
    assert_eq!(summary.exit_code, 0);
    assert_eq!(bench.there("a.csv").unwrap(), b"one");
    let time = |end| std::fs::metadata(end).unwrap().modified().unwrap();
    assert_eq!(time(bench.source().join("a.csv")), time(bench.destination().join("a.csv")));
    assert_eq!(bench.action_of("a.csv"), "kept");
    std::fs::remove_file(bench.destination().join("a.csv")).unwrap();
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.skipped), (0, 2));
    assert!(bench.why("a.csv").starts_with("delivered before as a.csv"));
    assert_eq!(bench.there("a.csv"), None);
}

#[tokio::test]
async fn a_late_file_with_an_old_time_is_still_seen() {
    let bench = Bench::new();
    bench.put("new", b"1");
    bench.run().await;
    bench.put("late", b"2");
    age(&bench, "late", Duration::from_secs(86_400 * 300));
    assert_eq!(bench.run().await.delivered, 1);
    assert!(bench.there("late").is_some());
}

#[tokio::test]
async fn s20_moved_files_go_to_done_and_deleted_ones_go() {
    let bench = Bench::new().action(Action::Move, false);
    bench.put("m/a", b"content");
    bench.put("m/b", b"other");
    let folder = RelPath::new(b"m").unwrap();
    let bench = Bench { folders: vec![folder], ..bench };
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.exit_code), (2, 0), "{summary:?}");
    assert_eq!(bench.names(&bench.source()), ["m/DONE/a", "m/DONE/b"]);
    assert_eq!(bench.names(&bench.destination()), ["m/a", "m/b"]);
    assert_eq!(bench.action_of("m/a"), "moved to m/DONE/a");
    assert_eq!(bench.run().await.found, 0, "DONE is no source");

    let bench = Bench::new().action(Action::Delete, false);
    bench.put("a", b"content");
    assert_eq!(bench.run().await.delivered, 1);
    assert!(bench.names(&bench.source()).is_empty());
    assert_eq!(bench.there("a").unwrap(), b"content");
}

#[tokio::test]
async fn s21_a_name_in_done_is_never_overwritten() {
    for zip in [false, true] {
        let bench = Bench::new().action(Action::Move, zip);
        let taken = if zip { "DONE/a.csv.zip" } else { "DONE/a.csv" };
        bench.put("a.csv", b"new");
        bench.put(taken, b"old");
        let summary = bench.run().await;
        assert_eq!((summary.delivered, summary.failed), (1, 0), "{:?}", bench.why("a.csv"));
        assert_eq!(bench.here(taken).unwrap(), b"old");
        assert_eq!(bench.names(&bench.source()).len(), 2);
        assert!(!bench.action_of("a.csv").ends_with(taken));
    }
}

#[tokio::test]
async fn s22_a_zip_is_read_back_and_holds_the_file() {
    let bench = Bench::new().action(Action::Move, true);
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    bench.put("big.bin", &content);
    bench.put("empty", b"");
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.exit_code), (2, 0), "{}", bench.why("big.bin"));
    assert_eq!(bench.names(&bench.source()), ["DONE/big.bin.zip", "DONE/empty.zip"]);
    let (name, unzipped) = unzip(&bench.here("DONE/big.bin.zip").unwrap()).unwrap();
    assert_eq!((name.as_str(), unzipped == content), ("big.bin", true));
    assert_eq!(bench.there("big.bin").unwrap(), content);
}

#[tokio::test]
async fn s23_a_larger_file_there_stays_and_so_does_the_source() {
    let bench = Bench::new().action(Action::Move, false);
    bench.put("larger", b"12");
    bench.put_there("larger", b"123");
    bench.put("smaller", b"123");
    bench.put_there("smaller", b"12");
    bench.put("same", b"123");
    bench.put_there("same", b"123");
    bench.put("other", b"123");
    bench.put_there("other", b"321");
    let summary = bench.run().await;
    assert_eq!((summary.failed, summary.exit_code), (2, 23), "{summary:?}");
    assert!(bench.why("larger").contains("the source is kept"), "{}", bench.why("larger"));
    assert!(bench.why("other").contains("other content"), "{}", bench.why("other"));
    assert_eq!(bench.there("larger").unwrap(), b"123");
    assert_eq!(bench.there("other").unwrap(), b"321");
    assert_eq!(bench.there("smaller").unwrap(), b"123");
    assert_eq!(bench.names(&bench.source()), ["DONE/same", "DONE/smaller", "larger", "other"]);
    let summary = bench.run().await;
    assert_eq!(summary.failed, 2, "it is told every time");
}

#[tokio::test]
async fn two_sources_never_share_a_flat_name() {
    let mut bench = Bench::new();
    bench.spec.layout = Layout::Flat;
    bench.folders = ["x", "y"].map(|name| RelPath::new(name.as_bytes()).unwrap()).into();
    bench.put("x/a.csv", b"of x");
    bench.put("y/a.csv", b"of y!");
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.failed), (1, 1));
    assert_eq!(bench.there("a.csv").unwrap(), b"of x");
    assert!(bench.why("y/a.csv").contains("x/a.csv gets the same name"));

    let mut bench = Bench { spec: bench.spec.clone(), ..Bench::new() };
    bench.spec.overwrite = Overwrite::Rename;
    bench.folders = ["x", "y"].map(|name| RelPath::new(name.as_bytes()).unwrap()).into();
    bench.put("x/a.csv", b"of x");
    bench.put("y/a.csv", b"of y!");
    assert_eq!(bench.run().await.delivered, 2);
    assert_eq!(bench.there("a-1.csv").unwrap(), b"of y!");
}

#[tokio::test]
async fn s13_what_cannot_be_moved_is_delivered_and_only_moved_later() {
    let bench = Bench::new().action(Action::Move, false);
    bench.put("a", b"content");
    // Something that is no directory where DONE should be: also root cannot make that.
    bench.put("DONE", b"");
    let mut bench = bench;
    bench.spec.file_pattern = regex::bytes::Regex::new("^a$").unwrap();
    let summary = bench.run().await;
    assert_eq!((summary.failed, summary.exit_code), (1, 23), "{summary:?}");
    assert_eq!((summary.delivered, summary.not_put_away, summary.bytes), (1, 1, 7));
    assert!(bench.why("a").contains("delivered as a, but the source stays"), "{}", bench.why("a"));
    assert_eq!(bench.there("a").unwrap(), b"content");
    assert!(bench.here("a").is_some());
    std::fs::remove_file(bench.source().join("DONE")).unwrap();
    std::fs::remove_file(bench.destination().join("a")).unwrap();
    let summary = bench.run().await;
    assert_eq!((summary.recovered, summary.delivered, summary.bytes), (1, 0, 0), "{summary:?}");
    assert_eq!(bench.there("a"), None, "not sent again");
    assert_eq!(bench.names(&bench.source()), ["DONE/a"]);
}

#[tokio::test]
async fn s13_a_source_goes_although_the_consumer_took_the_whole_folder() {
    let pattern = regex::bytes::Regex::new("^a$").unwrap();
    for (action, zip) in [(Action::Move, false), (Action::Move, true), (Action::Delete, false)] {
        let bench = Bench::new().action(action, zip);
        bench.put("m/a", b"content");
        // A file where the folder of what is done is to be.
        bench.put("m/DONE", b"in the way");
        let folder = RelPath::new(b"m").unwrap();
        let mut bench = Bench { folders: vec![folder], ..bench };
        bench.spec.file_pattern = pattern.clone();
        let first = bench.run().await;
        if action == Action::Move {
            assert_eq!((first.failed, first.exit_code), (1, 23), "{first:?}");
            assert!(bench.here("m/a").is_some());
        }
        std::fs::remove_dir_all(bench.destination().join("m")).unwrap();
        std::fs::remove_file(bench.source().join("m/DONE")).unwrap();
        let summary = bench.run().await;
        assert_eq!((summary.failed, summary.exit_code), (0, 0), "{}", bench.why("m/a"));
        assert_eq!((bench.here("m/a"), bench.there("m/a")), (None, None));
    }
}

#[tokio::test]
async fn s15_a_young_file_waits_and_says_so() {
    let mut bench = Bench::new();
    bench.spec.min_age = Duration::from_secs(1800);
    bench.put("young", b"1");
    bench.put("old", b"1");
    bench.put("future", b"1");
    age(&bench, "old", Duration::from_secs(4000));
    let file = std::fs::File::options().write(true).open(bench.source().join("future")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(26 * 3600)).unwrap();
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.skipped), (1, 2), "{summary:?}");
    assert!(bench.why("young").contains("by the server's clock"), "{}", bench.why("young"));
    assert!(bench.why("future").contains("ahead of the server's clock"));
}

#[tokio::test]
async fn s16_a_file_that_grows_between_two_looks_waits() {
    let mut bench = Bench::new();
    bench.spec.stable = Duration::from_millis(200);
    bench.put("grows", b"1");
    bench.put("rests", b"1");
    let path = bench.source().join("grows");
    let grow = async {
        tokio::time::sleep(Duration::from_millis(80)).await;
        std::fs::write(path, b"12").unwrap();
    };
    let (summary, ()) = tokio::join!(bench.run(), grow);
    assert_eq!((summary.delivered, summary.skipped), (1, 1));
    assert!(bench.why("grows").contains("two looks"));
}

#[tokio::test]
async fn s27_missing_and_linked_folders_are_told_and_the_rest_goes_on() {
    let mut bench = Bench::new();
    bench.folders =
        ["2026/01", "link", "ok"].map(|name| RelPath::new(name.as_bytes()).unwrap()).into();
    bench.put("ok/a", b"1");
    std::os::unix::fs::symlink("ok", bench.source().join("link")).unwrap();
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.exit_code), (1, 0));
    assert_eq!(summary.missing_folders, ["2026/01"]);
    let events = bench.events.lock().unwrap();
    let told = |text: &str| {
        events.iter().any(|e| matches!(e, JobEvent::Note { text: note, .. } if note.contains(text)))
    };
    assert!(told("links are not followed"));
}

#[tokio::test]
async fn large_files_go_in_ranges() {
    let mut bench = Bench::new().action(Action::Delete, false);
    bench.spec.transfer.large_file_threshold = 1 << 20;
    bench.spec.transfer.chunk_size = 1 << 20;
    let content: Vec<u8> = (0..1_400_000_u32).flat_map(u32::to_le_bytes).collect();
    bench.put("large", &content);
    std::fs::set_permissions(bench.source().join("large"), std::fs::Permissions::from_mode(0o640))
        .unwrap();
    let summary = bench.run().await;
    assert_eq!(
        (summary.delivered, summary.bytes),
        (1, content.len() as u64),
        "{}",
        bench.why("large")
    );
    assert!(bench.there("large").unwrap() == content);
    let mode = std::fs::metadata(bench.destination().join("large")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[tokio::test]
async fn a_stopped_run_ends_with_20_and_the_next_one_goes_on() {
    let bench = Bench::new();
    bench.put("a", b"1");
    bench.stop.halt(Halt::Cancelled);
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.exit_code), (0, 20));
    let bench = Bench { stop: crate::job::run::Stop::new(), ..bench };
    assert_eq!(bench.run().await.delivered, 1);
}

#[tokio::test]
async fn a_dry_run_tells_what_a_run_does_and_touches_nothing() {
    let bench = Bench::new().action(Action::Move, true);
    bench.put("a", b"123");
    bench.put_there("a", b"1");
    bench.put("b", b"12");
    let before = (bench.names(&bench.source()), bench.names(&bench.destination()));
    let summary =
        dry_run(bench.order().await, true, Vec::new(), bench.listener(), &bench.stop).await;
    assert_eq!((summary.delivered, summary.bytes, summary.exit_code), (2, 5, 0));
    assert_eq!(before, (bench.names(&bench.source()), bench.names(&bench.destination())));
    let events = bench.events.lock().unwrap();
    let steps: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            JobEvent::Planned { file, steps, .. } => Some(format!("{file}: {}", steps.join(", "))),
            _ => None,
        })
        .collect();
    let after = "zip the source to DONE/ and delete it";
    assert_eq!(
        steps,
        [format!("a: copy, replacing one of 1 bytes, {after}"), format!("b: copy, {after}")]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s01_a_stopped_large_file_goes_on_from_its_ranges() {
    let mut bench = Bench::new().action(Action::Move, false);
    bench.far = (false, true);
    bench.spec.transfer.large_file_threshold = 1 << 20;
    bench.spec.transfer.chunk_size = 1 << 20;
    let content: Vec<u8> = (0..6_000_000_u32).flat_map(u32::to_le_bytes).collect();
    bench.put("large", &content);
    let (stop, events) = (bench.stop.clone(), std::sync::Arc::clone(&bench.events));
    let listener: crate::job::run::Listener = std::sync::Arc::new(move |event: &JobEvent| {
        if matches!(event, JobEvent::Progress { bytes, .. } if *bytes > 6 << 20) {
            stop.halt(Halt::Cancelled);
        }
        events.lock().unwrap().push(event.clone());
    });
    let order = bench.order().await;
    let summary = crate::job::run::run_job(order, &bench.book, listener, &bench.stop).await;
    assert_eq!((summary.delivered, summary.failed, summary.exit_code), (0, 0, 20), "{summary:?}");
    assert!(bench.there("large").is_none() && bench.there(".tmp.large").is_some());
    let bench = Bench { stop: crate::job::run::Stop::new(), ..bench };
    let summary = bench.run().await;
    assert_eq!(summary.exit_code, 0, "{}", bench.why("large"));
    assert!(bench.there("large").unwrap() == content);
    let events = bench.events.lock().unwrap();
    let resumed = events.iter().find_map(|event| match event {
        JobEvent::Done(record) => Some(record.resumed),
        _ => None,
    });
    assert!(resumed.unwrap() >= 1 << 20, "{resumed:?}");
}

/// Spoils the source once, at the first call that begins so.
fn spoil(bench: &mut Bench, when: &'static str) {
    let path = bench.source().join("a");
    let once = std::sync::Once::new();
    bench.faults = Some(crate::location::faulty::Faults::new(move |call| {
        if call.starts_with(when) {
            once.call_once(|| std::fs::write(&path, b"second!").unwrap());
        }
    }));
}

#[tokio::test]
async fn s05_a_source_that_changes_before_it_is_read_waits() {
    let mut bench = Bench::new().action(Action::Delete, false);
    bench.put("a", b"first");
    spoil(&mut bench, "read");
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.skipped, summary.exit_code), (0, 1, 0), "{summary:?}");
    assert!(bench.names(&bench.destination()).is_empty());
    assert_eq!(bench.here("a").unwrap(), b"second!");
    assert_eq!(bench.run().await.delivered, 1);
    assert_eq!(bench.there("a").unwrap(), b"second!");
}

#[tokio::test]
async fn s05_a_source_that_changed_after_it_was_copied_never_goes() {
    for (action, zip) in [(Action::Delete, false), (Action::Move, false), (Action::Move, true)] {
        let mut bench = Bench::new().action(action, zip);
        bench.put("a", b"first");
        spoil(&mut bench, "rename");
        let summary = bench.run().await;
        assert_eq!((summary.delivered, summary.failed), (1, 0), "{summary:?}");
        assert_eq!(bench.action_of("a"), "kept: it changed after it was copied");
        assert_eq!(bench.there("a").unwrap(), b"first");
        assert_eq!(bench.here("a").unwrap(), b"second!");
        // The next version is a file of its own; here it is larger and replaces the first.
        assert_eq!(bench.run().await.delivered, 1);
        assert_eq!(bench.there("a").unwrap(), b"second!");
        assert_eq!(bench.here("a"), None);
    }
}

/// Writes a file as it was: size and time of the old one, other content.
fn again(bench: &Bench, name: &str, content: &[u8], time: SystemTime) {
    bench.put(name, content);
    let file = std::fs::File::options().write(true).open(bench.source().join(name)).unwrap();
    file.set_modified(time).unwrap();
}

fn time_of(bench: &Bench, name: &str) -> SystemTime {
    std::fs::metadata(bench.source().join(name)).unwrap().modified().unwrap()
}

#[tokio::test]
async fn j16_what_was_put_away_and_is_there_again_is_a_new_file() {
    for action in [Action::Move, Action::Delete, Action::Keep] {
        let bench = Bench::new().action(action, false);
        bench.put("a", b"first");
        let time = time_of(&bench, "a");
        assert_eq!(bench.run().await.delivered, 1);
        std::fs::remove_file(bench.destination().join("a")).unwrap();
        again(&bench, "a", b"again", time);
        let summary = bench.run().await;
        if action == Action::Keep {
            assert_eq!((summary.delivered, summary.skipped), (0, 1));
            continue;
        }
        assert_eq!((summary.delivered, summary.exit_code), (1, 0), "{}", bench.why("a"));
        assert_eq!(bench.there("a").unwrap(), b"again");
        assert_eq!(bench.here("a"), None);
        // A file that was put away does not begin to be sent when the job begins to keep.
        let mut bench = bench;
        again(&bench, "a", b"again", time);
        bench.spec.done.action = Action::Keep;
        assert_eq!(bench.run().await.delivered, 0);
    }
}

#[tokio::test]
async fn s20_a_source_that_went_before_a_crash_and_came_back_other_is_sent_not_removed() {
    for action in [Action::Move, Action::Delete] {
        let mut bench = Bench::new().action(action, false);
        bench.put("a", b"first");
        let time = time_of(&bench, "a");
        let faults = crate::location::faulty::Faults::new(|_| ());
        bench.faults = Some(std::sync::Arc::clone(&faults));
        bench.run().await;
        let last = match action {
            Action::Move => "rename local",
            _ => "remove local",
        };
        let from = bench.source().display().to_string();
        let seen = faults.seen();
        let goes = |call: &String| call.contains(&from) && call.contains(last);
        let number = seen.iter().position(goes).unwrap_or_else(|| panic!("{seen:?}"));
        let bench = Bench { spec: bench.spec.clone(), ..Bench::new() };
        let mut bench = bench;
        bench.spec = crate::job::run::bench::spec(&bench.source(), &bench.destination());
        bench.spec.done.action = action;
        let faults = crate::location::faulty::Faults::new(|_| ());
        bench.faults = Some(std::sync::Arc::clone(&faults));
        again(&bench, "a", b"first", time);
        faults.plan(number, crate::location::faulty::Fault::DiesAfter);
        let order = bench.order().await;
        tokio::select! {
            _ = crate::job::run::run_job(order, &bench.book, bench.listener(), &bench.stop) => {
                panic!("it lived");
            }
            () = faults.died.notified() => bench.book.crash(),
        }
        faults.clear();
        assert_eq!(bench.here("a"), None);
        std::fs::remove_file(bench.destination().join("a")).unwrap();
        again(&bench, "a", b"other", time);
        // The first run tells that it is another one, the second one sends it.
        bench.run().await;
        assert_eq!(bench.here("a").unwrap(), b"other");
        bench.run().await;
        assert_eq!(bench.there("a").unwrap(), b"other", "{}", bench.why("a"));
        assert_eq!(bench.here("a"), None);
    }
}

/// A run that dies at the first call that begins so.
async fn dies_at(bench: &mut Bench, when: &str) {
    use crate::location::faulty::{Fault, Faults};
    let probe = Faults::new(|_| ());
    bench.faults = Some(std::sync::Arc::clone(&probe));
    let names = (bench.names(&bench.source()), bench.names(&bench.destination()));
    let source: Vec<_> =
        names.0.iter().map(|name| (name.clone(), bench.here(name).unwrap())).collect();
    bench.run().await;
    let number = probe.seen().iter().position(|call| call.starts_with(when)).unwrap();
    // As it was before.
    for (dir, names) in [(bench.source(), names.0), (bench.destination(), names.1)] {
        let gone = bench.names(&dir).into_iter().filter(|name| !names.contains(name));
        gone.for_each(|name| std::fs::remove_file(dir.join(name)).unwrap());
    }
    for (name, content) in source.iter().filter(|(name, _)| bench.here(name).is_none()) {
        bench.put(name, content);
    }
    bench.book = crate::job::ledger::mem::MemBook::default();
    let faults = Faults::new(|_| ());
    bench.faults = Some(std::sync::Arc::clone(&faults));
    faults.plan(number, Fault::DiesBefore);
    let order = bench.order().await;
    tokio::select! {
        _ = crate::job::run::run_job(order, &bench.book, bench.listener(), &bench.stop) => {
            panic!("it lived");
        }
        () = faults.died.notified() => bench.book.crash(),
    }
    bench.faults = None;
}

#[tokio::test]
async fn s07_a_temp_of_somebody_else_stays_whatever_the_ledger_says() {
    for resume in [true, false] {
        let mut bench = Bench::new();
        bench.spec.transfer.resume = resume;
        bench.put("a", b"content");
        // Claimed, and not made yet.
        dies_at(&mut bench, "write").await;
        assert!(bench.names(&bench.destination()).is_empty());
        bench.put_there(".tmp.a", b"theirs");
        let summary = bench.run().await;
        assert_eq!((summary.delivered, summary.exit_code), (1, 0), "{}", bench.why("a"));
        assert_eq!(bench.names(&bench.destination()), [".tmp.a", "a"]);
        assert_eq!(bench.there(".tmp.a").unwrap(), b"theirs");
        assert_eq!(bench.there("a").unwrap(), b"content");
    }
}

#[tokio::test]
async fn s07_a_part_of_the_source_is_removed_and_one_without_a_source_is_told() {
    for part in [&b""[..], b"cont", b"\0\0nt", b"content"] {
        let mut bench = Bench::new();
        bench.put("a", b"content");
        dies_at(&mut bench, "write").await;
        bench.put_there(".tmp.a", part);
        assert_eq!(bench.run().await.delivered, 1);
        assert_eq!(bench.names(&bench.destination()), ["a"]);
    }
    let mut bench = Bench::new();
    bench.put("a", b"content");
    dies_at(&mut bench, "write").await;
    bench.put_there(".tmp.a", b"conte");
    std::fs::remove_file(bench.source().join("a")).unwrap();
    assert_eq!(bench.run().await.failed, 0);
    assert_eq!(bench.names(&bench.destination()), [".tmp.a"]);
    let events = bench.events.lock().unwrap();
    assert!(events.iter().any(
        |event| matches!(event, JobEvent::Note { text, .. } if text.contains(".tmp.a may be"))
    ));
}

#[tokio::test]
async fn s07_a_try_that_fails_before_its_temp_is_made_leaves_those_of_others() {
    use crate::location::Reason;
    use crate::location::faulty::{Fault, Faults};
    for reason in [Reason::Lost, Reason::Denied] {
        let mut bench = Bench::new();
        bench.put("a", b"content");
        bench.put_there(".tmp.a", b"theirs");
        let probe = Faults::new(|_| ());
        bench.faults = Some(std::sync::Arc::clone(&probe));
        bench.spec.transfer.attempts = 2;
        // Its source cannot be read the first time.
        let order = ["list", "list", "read"];
        probe.plan(order.len() - 1, Fault::Fails(reason));
        let first = bench.run().await;
        assert!(probe.seen()[2].starts_with("read"), "{:?}", probe.seen());
        assert_eq!(first.failed, u64::from(reason == Reason::Denied));
        bench.run().await;
        assert_eq!(bench.there(".tmp.a").unwrap(), b"theirs");
        assert_eq!(bench.there("a").unwrap(), b"content");
        assert_eq!(bench.names(&bench.destination()).len(), 2);
    }
}

#[tokio::test]
async fn s08_a_temp_that_somebody_removes_was_not_delivered() {
    let mut bench = Bench::new().action(Action::Delete, false);
    bench.put("a", b"content");
    let temp = bench.destination().join(".tmp.a");
    let once = std::sync::Once::new();
    bench.faults = Some(crate::location::faulty::Faults::new(move |call| {
        if call.starts_with("rename") {
            once.call_once(|| std::fs::remove_file(&temp).unwrap());
        }
    }));
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.failed), (1, 0), "{}", bench.why("a"));
    assert_eq!(bench.there("a").unwrap(), b"content");
    assert_eq!(bench.here("a"), None);
}

#[tokio::test]
async fn s14_kept_files_survive_a_power_cut_too() {
    use crate::location::faulty::Faults;
    for durable in [true, false] {
        let mut bench = Bench::new();
        bench.put("m/a", b"content");
        bench.put("m/b", b"other");
        bench.folders = vec![RelPath::new(b"m").unwrap()];
        let faults = Faults::new(|_| ());
        if !durable {
            faults.not_durable();
        }
        bench.faults = Some(std::sync::Arc::clone(&faults));
        let summary = bench.run().await;
        assert_eq!((summary.delivered, summary.exit_code), (2, 0), "{summary:?}");
        let seen = faults.seen();
        let last = |what: &str| seen.iter().rposition(|call| call.starts_with(what)).unwrap();
        assert!(last("sync") > last("rename"), "{seen:?}");
        assert_eq!(faults.synced(), if durable { 2 } else { 0 }, "{seen:?}");
    }
}

#[tokio::test]
async fn s14_a_server_that_announces_syncs_and_refuses_them_gets_kept_files() {
    use crate::location::faulty::Faults;
    for (action, delivered) in [(Action::Keep, 1), (Action::Delete, 0)] {
        let mut bench = Bench::new().action(action, false);
        bench.put("a", b"content");
        let faults = Faults::new(|_| ());
        faults.refuse_sync();
        bench.faults = Some(faults);
        let summary = bench.run().await;
        assert_eq!(summary.delivered, delivered, "{}", bench.why("a"));
        assert_eq!(bench.here("a").unwrap(), b"content");
    }
}

/// A run that was killed when its copy was proven and had not its name.
async fn verified(action: Action) -> Bench {
    let mut bench = Bench::new().action(action, false);
    bench.put("a", b"content");
    dies_at(&mut bench, "rename").await;
    assert_eq!(bench.names(&bench.destination()), [".tmp.a"]);
    bench
}

#[tokio::test]
async fn s20_a_copy_that_nobody_can_see_deletes_nothing() {
    for action in [Action::Delete, Action::Move] {
        let bench = verified(action).await;
        std::fs::remove_file(bench.destination().join(".tmp.a")).unwrap();
        let summary = bench.run().await;
        assert_eq!((summary.failed, summary.exit_code), (0, 0), "{}", bench.why("a"));
        assert_eq!(bench.names(&bench.source()), ["DONE/a"]);
        assert!(bench.names(&bench.destination()).is_empty(), "never sent again");
        assert_eq!(summary.spared, u64::from(action == Action::Delete));
        let told = bench.action_of("a").contains("instead of deleted");
        assert_eq!(told, action == Action::Delete, "{}", bench.action_of("a"));
        assert_eq!(bench.run().await.found, 0);
    }
}

#[tokio::test]
async fn s20_a_temp_that_is_another_file_by_now_is_not_published() {
    for far in [false, true] {
        let mut bench = verified(Action::Delete).await;
        bench.far.1 = far;
        bench.put_there(".tmp.a", b"CONTENT");
        let summary = bench.run().await;
        assert_eq!((summary.failed, summary.exit_code), (0, 0), "{}", bench.why("a"));
        assert_eq!(bench.names(&bench.destination()), [".tmp.a", "a"]);
        assert_eq!(bench.there("a").unwrap(), b"content");
        assert_eq!(bench.there(".tmp.a").unwrap(), b"CONTENT");
        assert!(bench.names(&bench.source()).is_empty());
    }
}

#[tokio::test]
async fn s20_a_final_name_counts_only_with_the_content() {
    for content in [b"content", b"CONTENT"] {
        let bench = verified(Action::Delete).await;
        std::fs::remove_file(bench.destination().join(".tmp.a")).unwrap();
        bench.put_there("a", content);
        let summary = bench.run().await;
        assert_eq!(bench.there("a").unwrap(), content);
        let same = content == b"content";
        assert_eq!(summary.failed, u64::from(!same), "{}", bench.why("a"));
        assert_eq!(bench.here("a").is_none(), same);
    }
}

#[tokio::test]
async fn s07_what_replaced_a_proven_temp_is_never_published() {
    for (far, content) in [(false, b"CONTENT".as_slice()), (true, b"a part")] {
        let mut bench = Bench::new().action(Action::Delete, false);
        bench.far.1 = far;
        bench.put("a", b"content");
        let temp = bench.destination().join(".tmp.a");
        let (done, content) = (std::sync::atomic::AtomicBool::new(false), content.to_vec());
        let theirs = content.clone();
        let faults = crate::location::faulty::Faults::new(move |call| {
            // Before the rename the temp is looked at.
            let now = call.starts_with("look at") && call.ends_with(".tmp.a");
            if now && temp.exists() && !done.swap(true, std::sync::atomic::Ordering::SeqCst) {
                std::fs::remove_file(&temp).unwrap();
                std::fs::write(&temp, &theirs).unwrap();
            }
        });
        bench.faults = Some(std::sync::Arc::clone(&faults));
        let summary = bench.run().await;
        let why = bench.why("a");
        assert_eq!((summary.failed, summary.exit_code), (0, 0), "{why} {:?}", faults.seen());
        assert_eq!(bench.there("a").unwrap(), b"content", "{:?}", faults.seen());
        assert_eq!(bench.there(".tmp.a").unwrap(), content, "it stays");
    }
}

#[tokio::test]
async fn s23_a_flat_name_of_another_source_is_never_overwritten() {
    for overwrite in [Overwrite::Larger, Overwrite::Newer, Overwrite::Differs, Overwrite::Always] {
        for action in [Action::Delete, Action::Keep] {
            let mut bench = Bench::new().action(action, false);
            (bench.spec.layout, bench.spec.overwrite) = (Layout::Flat, overwrite);
            bench.folders = ["x", "y"].map(|name| RelPath::new(name.as_bytes()).unwrap()).into();
            bench.put("x/a.csv", b"of x");
            age(&bench, "x/a.csv", Duration::from_secs(3600));
            assert_eq!(bench.run().await.delivered, 1);
            bench.put("y/a.csv", b"of y, and larger, and newer");
            let summary = bench.run().await;
            let why = bench.why("y/a.csv");
            assert_eq!(summary.failed, u64::from(action == Action::Delete), "{why}");
            assert!(why.contains("another folder; use overwrite: rename"), "{why}");
            assert_eq!(bench.there("a.csv").unwrap(), b"of x");
            assert!(bench.here("y/a.csv").is_some());
            // A new version of the same source is another matter.
            bench.put("x/a.csv", b"of x, a new and larger one");
            assert_eq!(bench.run().await.delivered, 1, "{}", bench.why("x/a.csv"));
            bench.spec.overwrite = Overwrite::Rename;
            assert_eq!(bench.run().await.delivered, 1, "{}", bench.why("y/a.csv"));
            assert_eq!(bench.names(&bench.destination()), ["a-1.csv", "a.csv"]);
        }
    }
}

#[tokio::test]
async fn s15_a_probe_that_was_left_behind_is_removed_and_never_counted() {
    let mut bench = Bench::new();
    bench.spec.min_age = Duration::from_secs(60);
    for (name, content) in [
        ("a", "x"),
        (".tmp.probe.0123abcd", ""),
        (".tmp.probe.new00000", ""),
        (".tmp.probe.0000abcd", "x"),
    ] {
        bench.put(name, content.as_bytes());
        age(&bench, name, Duration::from_secs(3600));
    }
    bench.put(".tmp.probe.00000000", b"");
    let summary = bench.run().await;
    assert_eq!((summary.found, summary.delivered), (3, 1));
    let left = [".tmp.probe.00000000", ".tmp.probe.0000abcd", ".tmp.probe.new00000", "a"];
    assert_eq!(bench.names(&bench.source()), left);
}

#[tokio::test]
async fn s05_a_version_that_comes_while_the_old_one_is_moved_is_sent_too() {
    let mut bench = Bench::new().action(Action::Move, false);
    bench.put("a", b"first");
    let (path, when) =
        (bench.source().join("a"), format!("rename local {}", bench.source().display()));
    let once = std::sync::Once::new();
    bench.faults = Some(crate::location::faulty::Faults::new(move |call| {
        // After the last look at it.
        if call.starts_with(&when) {
            once.call_once(|| std::fs::write(&path, b"second!").unwrap());
        }
    }));
    let summary = bench.run().await;
    assert_eq!((summary.delivered, summary.failed), (1, 0), "{}", bench.why("a"));
    assert_eq!(bench.here("a").unwrap(), b"second!", "it is no older one");
    assert_eq!(bench.run().await.delivered, 1);
    assert_eq!(bench.there("a").unwrap(), b"second!");
    assert_eq!(bench.names(&bench.source()), ["DONE/a"]);
}

#[tokio::test]
async fn s10_a_rename_that_says_yes_and_does_nothing_costs_no_source() {
    for (action, zip) in [(Action::Move, false), (Action::Move, true), (Action::Delete, false)] {
        let mut bench = Bench::new().action(action, zip);
        bench.put("a", b"content");
        let faults = crate::location::faulty::Faults::new(|_| ());
        faults.pretend_renames(true);
        bench.faults = Some(std::sync::Arc::clone(&faults));
        // At the destination first; then at the source.
        let summary = bench.run().await;
        assert_eq!((summary.failed, summary.delivered), (1, 0), "{summary:?}");
        assert!(bench.why("a").contains("the old name is still there"), "{}", bench.why("a"));
        assert_eq!((bench.here("a").is_some(), bench.there("a")), (true, None));
        std::fs::rename(bench.destination().join(".tmp.a"), bench.destination().join("a")).unwrap();
        let summary = bench.run().await;
        if action == Action::Move {
            assert_eq!(summary.failed, 1, "{summary:?}");
            assert!(bench.why("a").contains("said that it"), "{}", bench.why("a"));
            assert!(bench.here("a").is_some());
            faults.pretend_renames(false);
            assert_eq!(bench.run().await.failed, 0, "{}", bench.why("a"));
        }
        assert_eq!((bench.here("a"), bench.there("a").unwrap()), (None, b"content".to_vec()));
    }
}
