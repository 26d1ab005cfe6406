//! What every ledger must do: one suite, for each of them.

use std::time::Duration;

use fcp_common::private::Process;
use fcp_proto::path::RelPath;

use super::mem::MemBook;
use super::sqlite::SqliteBook;
use super::{Book, Claim, Entity, Hold, Ledger, State};
use crate::job::report::JobSummary;

const LEASE: Duration = Duration::from_secs(60);

/// Makes books of one ledger.
pub(super) trait Bench {
    type Book: Book;
    fn new() -> Self;
    /// As the process `own` has it.
    fn book(&self, own: Process) -> Self::Book;
}

struct Mem(MemBook);

impl Bench for Mem {
    type Book = MemBook;
    fn new() -> Mem {
        Mem(MemBook::default())
    }
    fn book(&self, own: Process) -> MemBook {
        self.0.seen_by(own)
    }
}

struct Sqlite(tempfile::TempDir);

impl Bench for Sqlite {
    type Book = SqliteBook;
    fn new() -> Sqlite {
        Sqlite(tempfile::tempdir().unwrap())
    }
    fn book(&self, own: Process) -> SqliteBook {
        SqliteBook::open_as(&self.0.path().join("fcp/jobs.sqlite"), own).unwrap()
    }
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

pub(super) fn entity(job: &str, name: &str) -> Entity {
    Entity {
        job: job.to_owned(),
        place: "sftp://a@host/in".to_owned(),
        path: path(name),
        size: 7,
        mtime: 1_790_000_000_500_000_000,
    }
}

fn temp() -> RelPath {
    path(".tmp.x")
}

fn hash() -> Option<String> {
    Some("sha256:00".to_owned())
}

fn verified() -> State {
    State::Verified { temp: temp(), to: path("x"), hash: hash() }
}

fn delivered() -> State {
    State::Delivered { to: path("x"), hash: hash() }
}

fn leaving() -> State {
    State::Leaving { to: path("x"), hash: hash(), moved: Some(path("DONE/x")) }
}

pub(super) fn finished() -> State {
    State::Finished { to: path("x"), hash: hash(), action: "kept".to_owned(), gone: false }
}

/// One of this host that has ended.
fn dead() -> Process {
    let own = Process::own();
    Process { start: own.start - 1, ..own }
}

fn elsewhere() -> Process {
    Process { host: "elsewhere".to_owned(), ..Process::own() }
}

fn new(claim: Claim) -> i64 {
    match claim {
        Claim::New(id) => id,
        other => panic!("{other:?}"),
    }
}

async fn begin<B: Book>(book: &B) -> B::Run {
    book.begin("A", None, LEASE).await.unwrap()
}

async fn claim(run: &impl Ledger, job: &str, hold: Hold) -> Claim {
    run.claim(entity(job, "x"), temp(), hold).await.unwrap()
}

async fn a_file_goes_its_way_once(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    let id = new(claim(&run, "A", Hold::Alone).await);
    for state in [verified(), delivered(), leaving()] {
        run.record(id, state.clone()).await.unwrap();
        let open = run.open("A").await.unwrap();
        assert_eq!(open.len(), 1);
        assert_eq!((&open[0].state, &open[0].entity), (&state, &entity("A", "x")));
        assert!(run.open("B").await.unwrap().is_empty());
    }
    run.record(id, finished()).await.unwrap();
    assert!(run.open("A").await.unwrap().is_empty());
    let Claim::Done(record) = claim(&run, "A", Hold::Alone).await else { panic!() };
    assert_eq!((record.state, record.id), (finished(), id));
    run.record(id, finished()).await.unwrap_err();
    run.end(&JobSummary::default()).await.unwrap();
}

async fn what_went_and_is_there_again_begins_anew(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    let id = new(claim(&run, "A", Hold::Alone).await);
    let State::Finished { to, hash, action, .. } = finished() else { panic!() };
    let went = State::Finished { to, hash, action, gone: true };
    for state in [verified(), delivered(), leaving(), went.clone()] {
        run.record(id, state).await.unwrap();
    }
    let known = run.known(vec![entity("A", "x")]).await.unwrap();
    assert_eq!(known[0].as_ref().unwrap().state, went);
    // Who keeps files has it already.
    let Claim::Done(record) = claim(&run, "A", Hold::Shared).await else { panic!() };
    assert_eq!(record.state, went);
    assert_eq!(new(claim(&run, "A", Hold::Alone).await), id);
    let open = run.open("A").await.unwrap();
    assert_eq!(open[0].state, State::Claimed { temp: temp() });
    for state in [verified(), delivered(), leaving(), finished()] {
        run.record(id, state).await.unwrap();
    }
    let Claim::Done(record) = claim(&run, "A", Hold::Alone).await else { panic!() };
    assert_eq!(record.state, finished());
    run.end(&JobSummary::default()).await.unwrap();
}

async fn another_version_is_another_entity(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    let id = new(claim(&run, "A", Hold::Alone).await);
    run.record(id, finished()).await.unwrap();
    for other in [
        Entity { size: 8, ..entity("A", "x") },
        Entity { size: u64::MAX, ..entity("A", "x") },
        Entity { mtime: 1, ..entity("A", "x") },
        Entity { mtime: -1, ..entity("A", "x") },
        Entity { path: path("y"), ..entity("A", "x") },
        Entity { place: "file:///in".to_owned(), ..entity("A", "x") },
        entity("B", "x"),
    ] {
        let id = new(run.claim(other.clone(), temp(), Hold::Alone).await.unwrap());
        run.release(id, None).await.unwrap();
        let Claim::Resumed(record, _) =
            run.claim(other.clone(), temp(), Hold::Alone).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(record.entity, other);
        run.release(id, None).await.unwrap();
    }
}

async fn many_are_claimed_at_once_each_as_it_is(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let (run, other) = (begin(&book).await, begin(&book).await);
    let done = new(claim(&run, "A", Hold::Shared).await);
    run.record(done, finished()).await.unwrap();
    let wish = |name: &str| (entity("A", name), path(&format!(".tmp.{name}")), Hold::Shared);
    new(other.claim(entity("A", "theirs"), temp(), Hold::Shared).await.unwrap());
    let wishes = ["b", "x", "theirs", "a", "b"].map(wish).to_vec();
    let claims = run.claim_all(wishes).await.unwrap();
    let (b, a) = (new(claims[0].clone()), new(claims[3].clone()));
    assert!(matches!(&claims[1], Claim::Done(record) if record.id == done));
    assert!(matches!(claims[2], Claim::Taken { .. }) && matches!(claims[4], Claim::Taken { .. }));
    assert_eq!(run.open("A").await.unwrap().len(), 3);
    run.record(b, verified()).await.unwrap();
    run.forget(a).await.unwrap();
    assert!(run.claim_all(Vec::new()).await.unwrap().is_empty());
    run.end(&JobSummary::default()).await.unwrap();
    run.claim_all([wish("c")].to_vec()).await.unwrap_err();
}

async fn s20_what_is_finished_without_waiting_is_durable_at_the_end(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    let id = new(claim(&run, "A", Hold::Shared).await);
    run.record(id, verified()).await.unwrap();
    run.finish(id, finished());
    run.end(&JobSummary::default()).await.unwrap();
    let run = begin(&book).await;
    assert!(matches!(claim(&run, "A", Hold::Shared).await, Claim::Done(_)));
}

async fn what_could_not_be_finished_is_told_by_the_end(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let (run, other) = (begin(&book).await, begin(&book).await);
    let id = new(claim(&other, "A", Hold::Shared).await);
    run.finish(id, finished());
    let error = run.end(&JobSummary::default()).await.unwrap_err().to_string();
    assert!(error.contains("not held by this run"), "{error}");
    run.open("A").await.unwrap_err();
    // Only that run's.
    other.record(id, verified()).await.unwrap();
}

async fn s24_what_one_run_holds_no_other_gets(bench: &impl Bench) {
    let (here, there) = (bench.book(Process::own()), bench.book(Process::own()));
    let (one, two) = (begin(&here).await, begin(&there).await);
    let id = new(claim(&one, "A", Hold::Shared).await);
    for run in [&one, &two] {
        let Claim::Taken { owner } = claim(run, "A", Hold::Shared).await else { panic!() };
        assert_eq!(owner, format!("job A, {}", Process::own()));
    }
    two.record(id, verified()).await.unwrap_err();
    two.release(id, None).await.unwrap_err();
    one.release(id, Some("no".to_owned())).await.unwrap();
    let Claim::Resumed(record, _) = claim(&two, "A", Hold::Shared).await else { panic!() };
    assert_eq!((record.attempts, record.error.as_deref()), (2, Some("no")));
    one.record(id, verified()).await.unwrap_err();
    two.record(id, verified()).await.unwrap();
    assert_eq!(two.open("A").await.unwrap()[0].error, None);
}

async fn s24_two_jobs_share_a_file_unless_one_puts_it_away(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let (one, two) = (begin(&book).await, book.begin("B", None, LEASE).await.unwrap());
    let id = new(claim(&one, "A", Hold::Shared).await);
    let other = new(claim(&two, "B", Hold::Shared).await);
    assert!(matches!(claim(&two, "C", Hold::Alone).await, Claim::Taken { .. }));
    two.release(other, None).await.unwrap();
    one.release(id, None).await.unwrap();
    let id = new(claim(&one, "D", Hold::Alone).await);
    // The same file, seen by another user from another base, in another version.
    let place = "sftp://b@host".to_owned();
    let narrow = Entity { place, path: path("in/x"), size: 9, ..entity("B", "x") };
    for hold in [Hold::Shared, Hold::Alone] {
        let claimed = two.claim(narrow.clone(), temp(), hold).await.unwrap();
        assert_eq!(claimed, Claim::Taken { owner: format!("job A, {}", Process::own()) });
    }
    one.record(id, finished()).await.unwrap();
    new(two.claim(narrow, temp(), Hold::Alone).await.unwrap());
}

async fn s20_a_dead_owner_loses_at_once_and_a_distant_one_with_its_lease(bench: &impl Bench) {
    let own = bench.book(Process::own());
    let killed = bench.book(dead());
    let run = begin(&killed).await;
    let id = new(claim(&run, "A", Hold::Alone).await);
    run.record(id, verified()).await.unwrap();
    let next = begin(&own).await;
    let Claim::Resumed(record, _) = claim(&next, "A", Hold::Alone).await else { panic!() };
    assert_eq!(record.state, verified());
    run.record(id, delivered()).await.unwrap_err();
    next.release(id, None).await.unwrap();

    let distant = bench.book(elsewhere());
    let run = begin(&distant).await;
    assert!(matches!(claim(&run, "A", Hold::Alone).await, Claim::Resumed(..)));
    assert!(matches!(claim(&next, "A", Hold::Alone).await, Claim::Taken { .. }));
    run.renew(Duration::ZERO).await.unwrap();
    assert!(matches!(claim(&next, "A", Hold::Alone).await, Claim::Resumed(..)));
    run.record(id, delivered()).await.unwrap_err();
}

async fn a_slow_owner_that_lives_keeps_what_it_has(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = book.begin("A", None, Duration::ZERO).await.unwrap();
    let id = new(claim(&run, "A", Hold::Alone).await);
    let other = begin(&book).await;
    assert!(matches!(claim(&other, "A", Hold::Alone).await, Claim::Taken { .. }));
    run.record(id, finished()).await.unwrap();
}

async fn a_run_that_ends_or_is_dropped_gives_back(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    new(claim(&run, "A", Hold::Alone).await);
    run.end(&JobSummary::default()).await.unwrap();
    run.renew(LEASE).await.unwrap_err();
    run.claim(entity("A", "y"), temp(), Hold::Alone).await.unwrap_err();
    let run = begin(&book).await;
    assert!(matches!(claim(&run, "A", Hold::Alone).await, Claim::Resumed(..)));
    drop(run);
    let run = begin(&book).await;
    assert!(matches!(claim(&run, "A", Hold::Alone).await, Claim::Resumed(..)));
}

async fn s20_states_only_go_forward(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    let id = new(claim(&run, "A", Hold::Alone).await);
    run.record(id, verified()).await.unwrap();
    run.forget(id).await.unwrap_err();
    run.restart(id, path(".tmp.x.1")).await.unwrap();
    assert_eq!(run.open("A").await.unwrap()[0].state, State::Claimed { temp: path(".tmp.x.1") });
    run.record(id, delivered()).await.unwrap();
    run.record(id, verified()).await.unwrap_err();
    run.restart(id, temp()).await.unwrap_err();
    run.forget(id).await.unwrap_err();
    run.record(id, State::Delivered { to: path("z"), hash: hash() }).await.unwrap();
    run.record(id, leaving()).await.unwrap();
    let other = State::Leaving { to: path("x"), hash: None, moved: None };
    run.record(id, other.clone()).await.unwrap();
    assert_eq!(run.open("A").await.unwrap()[0].state, other);
}

async fn what_is_forgotten_was_never_there(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    let id = new(claim(&run, "A", Hold::Alone).await);
    run.written(id, 0..7, 1);
    run.forget(id).await.unwrap();
    assert!(run.open("A").await.unwrap().is_empty());
    run.record(id, verified()).await.unwrap_err();
    new(claim(&run, "A", Hold::Alone).await);
}

async fn ranges_last_until_the_copy_is_proven(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    let id = new(claim(&run, "A", Hold::Alone).await);
    for (range, digest) in [(8..16, 3), (0..8, u128::MAX), (8..16, 2)] {
        run.written(id, range, digest);
    }
    run.written(id + 1, 0..8, 1);
    run.release(id, None).await.unwrap();
    run.written(id, 16..24, 1);
    let again = claim(&run, "A", Hold::Alone).await;
    let Claim::Resumed(_, ranges) = again else { panic!() };
    assert_eq!(ranges, [(0..8, u128::MAX), (8..16, 2)]);
    run.restart(id, temp()).await.unwrap();
    run.written(id, 0..4, 1);
    run.record(id, verified()).await.unwrap();
    run.written(id, 4..8, 1);
    run.release(id, None).await.unwrap();
    let Claim::Resumed(_, ranges) = claim(&run, "A", Hold::Alone).await else { panic!() };
    assert!(ranges.is_empty(), "{ranges:?}");
}

async fn a_first_look_is_kept_and_claims_nothing(bench: &impl Bench) {
    let book = bench.book(Process::own());
    let run = begin(&book).await;
    let first = run.first_seen(&entity("A", "x")).await.unwrap();
    assert!(first > 1_700_000_000);
    assert!(run.open("A").await.unwrap().is_empty());
    new(claim(&run, "A", Hold::Alone).await);
    assert_eq!(run.first_seen(&entity("A", "x")).await.unwrap(), first);
    assert_eq!(run.open("A").await.unwrap()[0].attempts, 1);
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod mem { $(#[tokio::test] async fn $name() { super::$name(&<super::Mem as super::Bench>::new()).await; })* }
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(&<super::Sqlite as super::Bench>::new()).await; })* }
    };
}

conformance!(
    a_file_goes_its_way_once,
    what_went_and_is_there_again_begins_anew,
    another_version_is_another_entity,
    many_are_claimed_at_once_each_as_it_is,
    s20_what_is_finished_without_waiting_is_durable_at_the_end,
    what_could_not_be_finished_is_told_by_the_end,
    s24_what_one_run_holds_no_other_gets,
    s24_two_jobs_share_a_file_unless_one_puts_it_away,
    s20_a_dead_owner_loses_at_once_and_a_distant_one_with_its_lease,
    a_slow_owner_that_lives_keeps_what_it_has,
    a_run_that_ends_or_is_dropped_gives_back,
    s20_states_only_go_forward,
    what_is_forgotten_was_never_there,
    ranges_last_until_the_copy_is_proven,
    a_first_look_is_kept_and_claims_nothing,
);

#[tokio::test]
async fn a_ledger_in_memory_fails_and_crashes_when_it_is_told() {
    let book = MemBook::default();
    let run = begin(&book).await;
    let id = new(claim(&run, "A", Hold::Alone).await);
    book.fail_from(2);
    run.record(id, verified()).await.unwrap();
    run.record(id, delivered()).await.unwrap_err();
    book.fail_from(0);
    book.crash();
    run.record(id, delivered()).await.unwrap_err();
    let run = begin(&book).await;
    let Claim::Resumed(record, _) = claim(&run, "A", Hold::Alone).await else { panic!() };
    assert_eq!(record.state, verified());
}
