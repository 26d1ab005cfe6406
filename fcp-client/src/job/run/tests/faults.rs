//! Every call fails once, in every way; after each one nothing is lost, nothing partial has a final
//! name, and the next run brings everything to its end, once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::support::{Bench, unzip};
use crate::job::run::run_job;
use crate::job::spec::Action;
use crate::location::Reason;
use crate::location::faulty::{Fault, Faults};

/// What must hold at every moment.
struct Invariant {
    source: PathBuf,
    destination: PathBuf,
    taken: PathBuf,
    files: HashMap<String, Vec<u8>>,
    /// The consumer takes what is delivered at once.
    takes: bool,
    /// One consumer, one look at a time.
    turn: Mutex<()>,
}

impl Invariant {
    fn holds(&self, call: &str) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, content) in &self.files {
            self.deliver(name, call);
            let whole = self.is_there(name, content)
                || std::fs::read(self.source.join(name)).is_ok_and(|read| read == *content)
                || self.is_done(name, content)
                || self.is_there(name, content);
            assert!(whole, "{call}: no whole copy of {name}");
        }
    }

    fn deliver(&self, name: &str, call: &str) {
        let path = self.destination.join(name);
        let Ok(read) = std::fs::read(&path) else { return };
        assert!(read == self.files[name], "{call}: a partial {name} under its final name");
        if self.takes {
            let taken = self.taken.join(name);
            assert!(!taken.exists(), "{call}: {name} came twice");
            std::fs::rename(path, taken).unwrap();
        }
    }

    fn is_there(&self, name: &str, content: &[u8]) -> bool {
        [&self.destination, &self.taken]
            .into_iter()
            .any(|dir| std::fs::read(dir.join(name)).is_ok_and(|read| read == content))
    }

    fn is_done(&self, name: &str, content: &[u8]) -> bool {
        let done = self.source.join("DONE");
        std::fs::read(done.join(name)).is_ok_and(|read| read == content)
            || std::fs::read(done.join(format!("{name}.zip")))
                .is_ok_and(|read| unzip(&read).is_some_and(|(_, read)| read == content))
    }
}

fn bench(action: Action, zip: bool, takes: bool) -> Bench {
    let mut bench = Bench::new().action(action, zip);
    bench.spec.transfer.attempts = 1;
    bench.spec.transfer.large_file_threshold = 512 << 10;
    bench.spec.transfer.chunk_size = 256 << 10;
    bench.spec.max_workers = 1;
    let large: Vec<u8> = (0..180_000_u32).flat_map(u32::to_le_bytes).collect();
    let files =
        HashMap::from([("small".to_owned(), b"a small one".to_vec()), ("large".to_owned(), large)]);
    files.iter().for_each(|(name, content)| bench.put(name, content));
    let taken = bench.source().with_file_name("taken");
    std::fs::create_dir(&taken).unwrap();
    let (source, destination) = (bench.source(), bench.destination());
    let invariant = Invariant { source, destination, taken, files, takes, turn: Mutex::default() };
    bench.faults = Some(Faults::new(move |call| invariant.holds(call)));
    bench
}

/// Runs until the program "dies" or the run ends.
async fn run_until_death(bench: &Bench) {
    let faults = bench.faults.clone().unwrap();
    let run = run_job(bench.order().await, &bench.book, bench.listener(), &bench.stop);
    let run = tokio::time::timeout(Duration::from_secs(60), run);
    tokio::select! {
        ended = run => drop(ended.expect("a run ends")),
        () = faults.died.notified() => bench.book.crash(),
    }
}

async fn every_call(action: Action, zip: bool, takes: bool, fault: Fault) {
    let calls = {
        let bench = bench(action, zip, takes);
        bench.run().await;
        bench.faults.as_ref().unwrap().seen()
    };
    assert!(calls.len() > 8, "{calls:?}");
    for (number, call) in calls.iter().enumerate() {
        let bench = bench(action, zip, takes);
        let faults = Arc::clone(bench.faults.as_ref().unwrap());
        faults.plan(number, fault);
        run_until_death(&bench).await;
        faults.clear();
        // One run recovers and copies; what is in the way of a claim is gone with the next.
        let mut summary = bench.run().await;
        if summary.failed > 0 {
            summary = bench.run().await;
        }
        let what = format!("{action:?} zip {zip} takes {takes}: {fault:?} at {number} {call}");
        assert_eq!((summary.failed, summary.exit_code), (0, 0), "{what}: {:?}", bench.events);
        finished(&bench, takes, &what);
        assert_eq!(bench.run().await.delivered, 0, "{what}: nothing is sent again");
    }
}

fn finished(bench: &Bench, takes: bool, what: &str) {
    bench.faults.as_ref().unwrap().plan(usize::MAX / 2, Fault::DiesBefore);
    let there = if takes { bench.source().with_file_name("taken") } else { bench.destination() };
    assert_eq!(bench.names(&there), ["large", "small"], "{what}");
    if takes {
        assert!(bench.names(&bench.destination()).is_empty(), "{what}: leftovers");
    }
    let expected: &[&str] = match (bench.spec.done.action, bench.spec.done.zip) {
        (Action::Keep, _) => &["large", "small"],
        (Action::Delete, _) => &[],
        (Action::Move, false) => &["DONE/large", "DONE/small"],
        (Action::Move, true) => &["DONE/large.zip", "DONE/small.zip"],
    };
    let mut left = bench.names(&bench.source());
    if takes && bench.spec.done.action == Action::Delete {
        // A copy that nobody can see is no reason to delete anything.
        left.retain(|name| name != "DONE/large" && name != "DONE/small");
    }
    assert_eq!(left, expected, "{what}");
}

const LOST: Fault = Fault::Unanswered(Reason::Lost);

macro_rules! every_call {
    ($($name:ident: $action:ident $zip:literal;)*) => {$(
        mod $name {
            use super::*;
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn s20_dies_before_any_call() {
                every_call(Action::$action, $zip, false, Fault::DiesBefore).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn s20_dies_after_any_call() {
                every_call(Action::$action, $zip, true, Fault::DiesAfter).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn s01_any_answer_is_lost() {
                every_call(Action::$action, $zip, true, LOST).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn s14_any_call_fails() {
                every_call(Action::$action, $zip, false, Fault::Fails(Reason::Full)).await;
            }
        }
    )*};
}

every_call! {
    kept: Keep false;
    moved: Move false;
    zipped: Move true;
    deleted: Delete false;
}

#[tokio::test]
async fn s26_a_dead_host_ends_the_run_and_leaves_the_rest_untouched() {
    let bench = bench(Action::Keep, false, false);
    for number in 0..200 {
        bench.put(&format!("more-{number}"), b"x");
    }
    let faults = Arc::clone(bench.faults.as_ref().unwrap());
    faults.plan_for_good(20, Fault::Fails(Reason::Lost));
    let summary = bench.run().await;
    assert_eq!(summary.exit_code, 10, "{summary:?}");
    let calls = faults.seen().len();
    assert!(calls < 20 + 3 * 16 + 16, "{calls} calls");
    faults.clear();
    let summary = bench.run().await;
    assert_eq!((summary.failed, summary.exit_code), (0, 0));
    assert_eq!(bench.names(&bench.destination()).len(), 202);
}

#[tokio::test]
async fn s14_a_place_that_promises_nothing_keeps_the_source() {
    let bench = bench(Action::Delete, false, false);
    bench.faults.as_ref().unwrap().not_durable();
    let summary = bench.run().await;
    assert_eq!((summary.failed, summary.exit_code), (2, 23));
    assert!(bench.why("small").contains("done.action: KEEP"), "{}", bench.why("small"));
    assert_eq!(bench.names(&bench.source()), ["large", "small"]);
    assert_eq!(bench.names(&bench.destination()), ["large", "small"]);
}
