//! What a run leaves behind, and what the next one makes of it.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use fcp_common::fs::{Dir, RunId, Temp, TempNames};
use fcp_common::journal::{DeadRun, RunJournal, adopt, recover};
use fcp_proto::meta::{Digest, SourceVersion};
use fcp_proto::path::RelPath;
use support::{Place, name, rel};

const VERSION: SourceVersion = SourceVersion {
    size: 3 << 20,
    mtime: fcp_proto::meta::Timestamp { secs: 1, nanos: 2 },
    token: 3,
};

/// A run that has begun `d/f` and written two of its blocks.
struct Run {
    journal: RunJournal,
    names: TempNames,
    temp: Temp,
    no: u32,
}

impl Run {
    fn start(root: &Arc<Dir>) -> Run {
        let run = RunId::random();
        let journal = RunJournal::create_lazily(Arc::clone(root), run);
        let names = TempNames::new(run);
        let dir = Arc::new(root.open_beneath(&rel("d")).unwrap());
        journal.dir(&rel("d"));
        let temp = names.create(&dir).unwrap();
        temp.file().write_all_at(b"half", 0).unwrap();
        let no = journal.begin(&rel("d/f"), temp.name(), VERSION).unwrap();
        journal.blocks(no, &[(0, Digest([0; 16])), (2, Digest([2; 16]))]);
        Run { journal, names, temp, no }
    }

    fn die(self) {
        self.temp.keep();
    }
}

fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("d")).unwrap();
    place
}

fn finish(dead: Vec<DeadRun>) {
    dead.into_iter().for_each(DeadRun::finish);
}

#[test]
fn a_run_that_ends_well_leaves_nothing() {
    let place = place();
    let run = Run::start(&place.root);
    assert_eq!(support::leftovers(&place.path("")).len(), 2);
    drop(run.temp);
    run.journal.end(run.no);
    run.journal.close();
    place.check_no_leftovers();
    RunJournal::create_lazily(Arc::clone(&place.root), RunId(1)).close();
    assert!(recover(&place.root).is_empty());
}

#[test]
fn c12_a_dead_runs_temps_are_cleaned_and_a_live_ones_are_not() {
    let place = place();
    let live = Run::start(&place.root);
    let dead = Run::start(&place.root);
    let extra = dead.names.create(live.temp.dir()).unwrap();
    let foreign = RunId(0x1234).temp_name(0);
    live.temp.dir().create_new(&foreign, 0o600).unwrap();
    extra.keep();
    dead.die();

    let found = recover(&place.root);
    assert_eq!(found.len(), 1);
    let here = || fs::read_dir(place.path("d")).unwrap().count();
    assert_eq!(here(), 3, "the extra temp goes at once; live, foreign and resumable ones stay");
    assert!(recover(&place.root).is_empty(), "somebody is already at it");
    finish(found);
    assert_eq!(here(), 2);
    assert!(live.temp.file().stat().unwrap().nlink == 1);
    live.journal.close();
    assert!(!place.path(".fcp-journal").exists());
}

#[test]
fn c10_only_the_same_version_of_the_source_is_resumed() {
    let place = place();
    for other in [
        SourceVersion { size: 1, ..VERSION },
        SourceVersion { token: 0, ..VERSION },
        SourceVersion { mtime: Default::default(), ..VERSION },
    ] {
        Run::start(&place.root).die();
        let dead = recover(&place.root);
        assert!(dead[0].take(&rel("d/g"), &VERSION).is_none());
        assert!(dead[0].take(&rel("d/f"), &other).is_none());
        assert_eq!(fs::read_dir(place.path("d")).unwrap().count(), 0, "the stale temp is gone");
        finish(dead);
        place.check_no_leftovers();
    }
}

#[test]
fn c11_fifty_crashes_in_a_row_keep_one_partial_and_one_journal() {
    let place = place();
    Run::start(&place.root).die();
    for _ in 0..50 {
        let dead = recover(&place.root);
        assert_eq!(dead.len(), 1);
        let partial = dead[0].take(&rel("d/f"), &VERSION).unwrap();
        let indexes: Vec<u32> = partial.kept.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, [0, 2]);
        let run = RunId::random();
        let journal = RunJournal::create_lazily(Arc::clone(&place.root), run);
        let dir = Arc::new(place.root.open_beneath(&rel("d")).unwrap());
        // A run that died while it published has set the final mode already.
        dir.set_mode(&partial.temp, 0).unwrap();
        let names = TempNames::new(run);
        let (_, temp) = adopt(&journal, &names, &dir, &rel("d/f"), &partial, VERSION).unwrap();
        let mut text = [0; 8];
        assert_eq!(temp.file().read_full_at(&mut text, 0).unwrap(), 4);
        assert_eq!(temp.file().stat().unwrap().mode, 0o600);
        temp.keep();
        // Crashes before it has finished the run that it took over from.
    }
    assert_eq!(fs::read_dir(place.path(".fcp-journal")).unwrap().count(), 1 + 1);
    finish(recover(&place.root));
    place.check_no_leftovers();
}

#[test]
fn c07_a_journal_that_is_garbage_or_another_runs_is_dropped() {
    let place = place();
    Run::start(&place.root).die();
    let home = place.path(".fcp-journal");
    let of_dead = fs::read_dir(&home).unwrap().next().unwrap().unwrap().path();
    fs::copy(&of_dead, home.join("00000000000000ff")).unwrap();
    fs::write(home.join("00000000000000fe"), [0xff; 1000]).unwrap();
    fs::write(home.join("00000000000000fd"), "").unwrap();
    fs::write(home.join("not-ours"), "").unwrap();
    let dead = recover(&place.root);
    assert_eq!(dead.len(), 1);
    finish(dead);
    let left: Vec<_> = fs::read_dir(&home).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["not-ours"]);
}

#[test]
fn c07_a_torn_journal_resumes_what_was_whole() {
    let place = place();
    Run::start(&place.root).die();
    let home = place.path(".fcp-journal");
    let path = fs::read_dir(&home).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let dead = recover(&place.root);
    assert_eq!(dead[0].take(&rel("d/f"), &VERSION).unwrap().kept.len(), 1);
    finish(dead);
    place.check_no_leftovers();
}

#[test]
fn p06_a_journal_directory_that_others_could_write_is_ignored() {
    let place = place();
    Run::start(&place.root).die();
    let home = place.path(".fcp-journal");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o720)).unwrap();
    assert!(recover(&place.root).is_empty());
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let elsewhere = place.temp.path().join("elsewhere");
    fs::rename(&home, &elsewhere).unwrap();
    symlink(&elsewhere, &home).unwrap();
    assert!(recover(&place.root).is_empty());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    // And this run writes none through it.
    let journal = RunJournal::create_lazily(Arc::clone(&place.root), RunId(5));
    assert!(journal.begin(&rel("x"), &name("y"), VERSION).is_none());
    assert!(journal.is_off());
    journal.close();
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
}

#[test]
fn p06_a_directory_in_a_journal_that_leads_out_is_not_cleaned() {
    let place = place();
    let run = RunId(0x77);
    fs::write(place.outside().join("sentinel"), "precious").unwrap();
    symlink("../outside", place.path("out")).unwrap();
    let journal = RunJournal::create_lazily(Arc::clone(&place.root), run);
    journal.dir(&rel("out"));
    journal.dir(&RelPath::root());
    let temp = std::str::from_utf8(&run.temp_name(0)).unwrap().to_owned();
    fs::write(place.outside().join(&temp), "").unwrap();
    fs::create_dir(place.path(&temp)).unwrap();
    drop(journal);
    recover(&place.root);
    assert!(place.outside().join(&temp).exists(), "cleaned outside the root");
    assert!(place.path(&temp).is_dir());
}

#[test]
fn c12_a_partial_seen_through_two_names_of_its_directory_is_kept() {
    let place = place();
    symlink("d", place.path("alias")).unwrap();
    let run = Run::start(&place.root);
    run.journal.dir(&rel("alias"));
    run.die();
    let dead = recover(&place.root);
    assert!(dead[0].take(&rel("d/f"), &VERSION).is_some());
    assert_eq!(fs::read_dir(place.path("d")).unwrap().count(), 1);
}

#[test]
fn journals_come_and_go_while_others_recover() {
    let place = place();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let run = Run::start(&place.root);
                    assert!(!run.journal.is_off());
                    let file = format!(".fcp-journal/{}", run.names.run().journal_name());
                    assert!(place.path(&file).exists(), "a live run's journal was removed");
                    drop(run.temp);
                    run.journal.close();
                }
            });
        }
        scope.spawn(|| (0..3000).for_each(|_| finish(recover(&place.root))));
    });
    recover(&place.root);
    place.check_no_leftovers();
}
