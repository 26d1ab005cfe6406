//! The system refuses, or the process dies, at every operation in turn.
#![cfg(feature = "fault")]
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use fcp_common::fs::fault::{self, Op};
use fcp_common::fs::{
    Dir, Expected, FileMeta, PublishError, RunId, Step, SyncPolicy, TempNames, publish,
    publish_symlink,
};
use fcp_common::journal::{RunJournal, adopt, recover};
use fcp_proto::meta::{Digest, SourceVersion, Timestamp};
use support::{Place, leftovers, name, rel};

const META: FileMeta =
    FileMeta { mode: Some(0o644), mtime: Some(Timestamp { secs: 77, nanos: 0 }) };
const ERRORS: [&str; 12] = [
    "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE", "EXDEV", "EIO",
    "ESTALE", "EINVAL",
];

fn put(dir: &Arc<Dir>, names: &TempNames, sync: SyncPolicy, expect: &Expected) -> Result<(), ()> {
    let temp = names.create(dir).map_err(drop)?;
    temp.file().write_all_at(b"new", 0).map_err(drop)?;
    match publish(temp, &name("f"), &META, sync, expect) {
        // The name has changed already.
        Err(PublishError::Io { step: Step::SyncDir, .. }) => Ok(()),
        done => done.map_err(drop),
    }
}

#[test]
fn hot_path_one_small_file_costs_five_calls_and_a_close() {
    let place = Place::new();
    let plan = fault::arm("").unwrap();
    put(&place.root, &place.names, SyncPolicy::None, &Expected::Absent).unwrap();
    assert_eq!(plan.seen(), [Op::Open, Op::Write, Op::Chmod, Op::Utime, Op::Rename]);
}

#[test]
fn f01_f02_whatever_fails_at_whatever_step_the_old_file_stays_and_the_temp_goes() {
    for errno in ERRORS {
        for sync in [SyncPolicy::None, SyncPolicy::Batch, SyncPolicy::Always] {
            let mut k = 1;
            while fail_at(k, errno, sync) {
                k += 1;
            }
            assert!(k > 5, "only {k} operations were reached");
        }
    }
}

/// Fails the k-th operation; false when there were fewer.
fn fail_at(k: usize, errno: &str, sync: SyncPolicy) -> bool {
    let place = Place::new();
    std::fs::write(place.path("f"), "old").unwrap();
    let seen = Expected::Same(place.root.stat(&name("f")).unwrap().unwrap());
    let plan = fault::arm(&format!("fail@{k}={errno}")).unwrap();
    let done = put(&place.root, &place.names, sync, &seen);
    let reached = plan.seen().len() >= k;
    drop(plan);
    assert_eq!(place.read("f"), if done.is_ok() { "new" } else { "old" }, "{errno} at {k}");
    place.check_no_leftovers();
    // And there is room again.
    put(&place.root, &place.names, sync, &Expected::Any).unwrap();
    assert_eq!(place.read("f"), "new");
    reached
}

#[test]
fn f02_an_interrupted_call_is_made_again() {
    for k in 1..=8 {
        let place = Place::new();
        let _plan = fault::arm(&format!("fail@{k}=EINTR")).unwrap();
        put(&place.root, &place.names, SyncPolicy::Always, &Expected::Absent).unwrap();
    }
}

#[test]
fn f03_a_failed_sync_is_never_asked_again_and_never_published() {
    for (sync, op) in [(SyncPolicy::Batch, "fdatasync"), (SyncPolicy::Always, "fsync")] {
        let place = Place::new();
        let plan = fault::arm(&format!("{op}:fail@1=EIO")).unwrap();
        put(&place.root, &place.names, sync, &Expected::Any).unwrap_err();
        assert_eq!(plan.seen().iter().filter(|seen| seen.name() == op).count(), 1);
        assert!(!plan.seen().contains(&Op::Rename));
        drop(plan);
        place.check_no_leftovers();
        assert!(!place.path("f").exists());
    }
}

#[test]
fn where_noreplace_is_unknown_absent_is_still_checked() {
    for errno in ["EINVAL", "ENOSYS"] {
        let place = Place::new();
        let plan = fault::arm(&format!("rename:fail@1={errno}")).unwrap();
        put(&place.root, &place.names, SyncPolicy::None, &Expected::Absent).unwrap();
        drop(plan);
        let _plan = fault::arm(&format!("rename:fail@1={errno}")).unwrap();
        put(&place.root, &place.names, SyncPolicy::None, &Expected::Absent).unwrap_err();
        place.check_no_leftovers();
    }
}

#[test]
fn r06_without_openat2_the_walk_takes_over() {
    for errno in ["ENOSYS", "EPERM"] {
        let place = Place::new();
        std::fs::create_dir_all(place.path("a/b")).unwrap();
        std::os::unix::fs::symlink("../outside", place.path("out")).unwrap();
        let plan = fault::arm(&format!("openat2:fail@1+={errno}")).unwrap();
        place.root.open_beneath(&rel("a/b")).unwrap();
        assert!(plan.seen().len() > 2);
        assert_eq!(place.root.open_beneath(&rel("out")).unwrap_err().raw_os_error(), Some(18));
        Dir::open_user(&place.path("")).unwrap();
    }
}

#[test]
fn f01_a_full_disk_under_the_journal_turns_it_off_and_the_rest_goes_on() {
    for k in 1..=9 {
        let place = Place::new();
        let journal = RunJournal::create_lazily(Arc::clone(&place.root), RunId::random());
        let plan = fault::arm(&format!("fail@{k}=ENOSPC")).unwrap();
        journal.dir(&rel("d"));
        journal.begin(&rel("d/f"), &name("x"), SourceVersion::default());
        drop(plan);
        put(&place.root, &place.names, SyncPolicy::None, &Expected::Any).unwrap();
        journal.close();
        place.check_no_leftovers();
    }
}

/// Runs one ignored test of this binary below `root` under a plan; whether it was killed.
fn run_killed_at(k: usize, test: &str, place: &Place) -> bool {
    run_with(&format!("kill@{k}"), test, place)
}

fn run_with(plan: &str, test: &str, place: &Place) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--test-threads=1", "-q"])
        .env("FCP_FAULT", plan)
        .env("FCP_TEST_ROOT", place.path(""))
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success() || status.signal() == Some(9), "{status} with {plan}");
    !status.success()
}

fn child_root() -> Option<Arc<Dir>> {
    let path = PathBuf::from(std::env::var_os("FCP_TEST_ROOT")?);
    Some(Arc::new(Dir::open_user(&path).unwrap()))
}

#[test]
#[ignore = "run by c05 in a process of its own"]
fn child_publishes() {
    let Some(root) = child_root() else { return };
    let run = RunId::random();
    let names = TempNames::new(run);
    for dead in recover(&root) {
        dead.finish();
    }
    let journal = RunJournal::create_lazily(Arc::clone(&root), run);
    journal.dir(&Default::default());
    let temp = names.create(&root).unwrap();
    let no = journal.begin(&rel("f"), temp.name(), SourceVersion::default()).unwrap();
    temp.file().write_all_at(b"new", 0).unwrap();
    publish(temp, &name("f"), &META, SyncPolicy::Always, &Expected::Any).unwrap();
    journal.end(no);
    publish_symlink(&names, &root, b"target", &name("l"), META.mtime, &Expected::Any).unwrap();
    journal.close();
    fault::report();
}

#[test]
fn a_plan_that_only_counts_reports_every_kind() {
    let place = Place::new();
    let counts = place.temp.path().join("counts");
    assert!(!run_with(&format!("count={}", counts.display()), "child_publishes", &place));
    let text = std::fs::read_to_string(&counts).unwrap();
    assert!(text.lines().any(|line| line == "rename 2"), "{text}");
    assert!(text.lines().any(|line| line == "symlink 1"), "{text}");
}

#[test]
fn c05_killed_at_every_operation_leaves_old_or_new_and_the_next_run_cleans_up() {
    let mut k = 1;
    loop {
        let place = Place::new();
        std::fs::write(place.path("f"), "old").unwrap();
        let killed = run_killed_at(k, "child_publishes", &place);
        let text = place.read("f");
        assert!(text == "old" || text == "new", "{text:?} at {k}");
        recover(&place.root).into_iter().for_each(|dead| dead.finish());
        place.check_no_leftovers();
        if !killed {
            assert_eq!(text, "new");
            break;
        }
        k += 1;
    }
    assert!(k > 20, "only {k} operations were reached");
}

const VERSION: SourceVersion =
    SourceVersion { size: 2 << 20, mtime: Timestamp { secs: 1, nanos: 2 }, token: 3 };

fn kept() -> Vec<(u32, Digest)> {
    vec![(0, Digest([1; 16])), (1, Digest([2; 16]))]
}

/// Leaves what a run leaves that died while it wrote `d/f`.
fn die_in_the_middle(root: &Arc<Dir>) {
    let run = RunId::random();
    let journal = RunJournal::create_lazily(Arc::clone(root), run);
    journal.dir(&rel("d"));
    let dir = Arc::new(root.open_beneath(&rel("d")).unwrap());
    let temp = TempNames::new(run).create(&dir).unwrap();
    let no = journal.begin(&rel("d/f"), temp.name(), VERSION).unwrap();
    temp.file().write_all_at(b"half", 0).unwrap();
    journal.blocks(no, &kept());
    temp.keep();
}

#[test]
#[ignore = "run by c11 in a process of its own"]
fn child_adopts() {
    let Some(root) = child_root() else { return };
    let run = RunId::random();
    let dead = recover(&root);
    let partial = dead.iter().find_map(|dead| dead.take(&rel("d/f"), &VERSION)).unwrap();
    assert_eq!(partial.kept, kept());
    let journal = RunJournal::create_lazily(Arc::clone(&root), run);
    let dir = Arc::new(root.open_beneath(&rel("d")).unwrap());
    let names = TempNames::new(run);
    let (_, temp) = adopt(&journal, &names, &dir, &rel("d/f"), &partial, VERSION).unwrap();
    dead.into_iter().for_each(|dead| dead.finish());
    temp.keep();
}

#[test]
fn c11_killed_at_every_operation_of_an_adoption_the_partial_is_never_lost() {
    let place = Place::new();
    std::fs::create_dir(place.path("d")).unwrap();
    die_in_the_middle(&place.root);
    let mut k = 1;
    // One partial goes through all of these crashes.
    while run_killed_at(k, "child_adopts", &place) {
        k += 1;
        let temps = leftovers(&place.path("d"));
        assert_eq!(temps.len(), 1, "{temps:?} at {k}");
        assert_eq!(std::fs::read(&temps[0]).unwrap(), b"half");
    }
    assert!(k > 20, "only {k} operations were reached");
    let dead = recover(&place.root);
    assert_eq!(dead.len(), 1, "journals pile up");
    assert!(dead[0].take(&rel("d/f"), &VERSION).is_some());
    dead.into_iter().for_each(|dead| dead.finish());
    place.check_no_leftovers();
}
