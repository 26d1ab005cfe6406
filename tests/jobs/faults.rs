//! Servers that refuse, break off or change things underneath.

use std::fs;

use fcp_tests::sshd::Options;

use crate::programs::ended;
use crate::setup::{After, MIB, MONTH, Originals, World, YEAR, done};

const QUICK: &str = "  transfer: {large_file_threshold_mb: 1, chunk_size_mb: 1, retry_attempts: 3, \
                     retry_delay_seconds: 0}\n  max_workers: 3\n";

fn job(after: After) -> String {
    format!("{QUICK}{}", after.lines())
}

fn world() -> Option<(World, Originals)> {
    let world = World::new()?;
    world.file("large.csv", 2 * MIB + 5);
    world.file("a.csv", 5_000);
    let originals = Originals::of(&world);
    Some((world, originals))
}

#[test]
fn s01_a_session_that_breaks_anywhere_is_tried_again() {
    for request in ["init", "opendir", "readdir", "open", "read", "close", "mkdir", "rename"] {
        for action in ["cut", "cut-after"] {
            let Some((world, originals)) = world() else { return };
            world.job(&job(After::Moved));
            world.faults.plan(&format!("{action} {request} 1"));
            let ran = world.run();
            originals.assert_none_lost(&world);
            assert!(
                matches!(ran.code(), Some(0 | 10 | 23)),
                "{action} {request}: {}",
                ran.stderr_text()
            );
            world.run_to_end();
            originals.assert_delivered(&world, After::Moved);
        }
    }
}

#[test]
fn s01_an_upload_that_breaks_anywhere_is_tried_again() {
    for request in ["open", "write", "fsetstat", "fsync@openssh.com", "close", "rename"] {
        for action in ["cut", "cut-after"] {
            let Some((world, originals)) = world() else { return };
            world.upload(&job(After::Deleted));
            world.faults.plan(&format!("{action} {request} 1"));
            let ran = world.run();
            originals.assert_none_lost(&world);
            let code = ran.code();
            assert!(matches!(code, Some(0 | 10 | 23)), "{action} {request}: {}", ran.stderr_text());
            world.run_to_end();
            originals.assert_delivered(&world, After::Deleted);
        }
    }
}

#[test]
fn s10_a_server_that_cannot_rename_onto_a_file_replaces_it_all_the_same() {
    let Some(world) = World::new() else { return };
    let source = world.file("a.csv", 5_000);
    fs::create_dir_all(world.path("out").join(MONTH)).unwrap();
    fs::write(world.path("out").join(MONTH).join("a.csv"), "smaller").unwrap();
    world.upload(&job(After::Kept));
    world.faults.plan("hide posix-rename@openssh.com");
    world.run().assert_success();
    let there = fs::read(world.path("out").join(MONTH).join("a.csv")).unwrap();
    assert_eq!(there, fs::read(source).unwrap());
    assert_eq!(world.visible("out").len(), 1, "{:?}", world.visible("out").keys());
    assert!(world.temps("out").is_empty());
}

#[test]
fn s11_without_fsync_no_source_is_removed() {
    let Some((world, originals)) = world() else { return };
    world.upload(&job(After::Deleted));
    world.faults.plan("hide fsync@openssh.com");
    let ran = world.run();
    ran.assert_code(23);
    assert!(ran.stderr_text().contains("power"), "{}", ran.stderr_text());
    assert_eq!(world.visible("in").len(), 2);
    originals.assert_none_lost(&world);
}

#[test]
fn s13_what_may_not_be_moved_is_copied_and_kept() {
    for refused in ["rename", "mkdir"] {
        let Some((world, originals)) = world() else { return };
        world.job(&job(After::Moved));
        world.faults.plan(&format!("deny {refused}\ndeny posix-rename@openssh.com"));
        world.run().assert_code(23);
        assert_eq!(world.visible("out").len(), 2, "{refused}");
        originals.assert_none_lost(&world);
        assert_eq!(world.visible("in").len(), 2);
        let reads = world.faults.count("read");
        world.faults.plan("");
        world.run().assert_success();
        originals.assert_delivered(&world, After::Moved);
        assert!(reads > 0);
        assert_eq!(world.faults.count("write"), 0, "nothing was sent a second time");
    }
}

#[test]
fn s13_what_may_not_be_deleted_is_copied_and_kept() {
    let Some((world, originals)) = world() else { return };
    world.job(&job(After::Deleted));
    world.faults.plan("deny remove");
    world.run().assert_code(23);
    assert_eq!(world.visible("in").len(), 2);
    world.faults.plan("");
    world.run().assert_success();
    originals.assert_delivered(&world, After::Deleted);
}

#[test]
fn s16_a_source_that_grows_meanwhile_is_not_delivered_and_not_removed() {
    let Some(world) = World::new() else { return };
    let source = world.file("large.csv", 2 * MIB);
    world.job(&job(After::Deleted));
    world.faults.touches(&source);
    world.faults.plan("touch read 3");
    let ran = world.run();
    assert!(source.exists(), "{}", ran.stderr_text());
    assert!(world.visible("out").is_empty());
}

#[test]
fn s21_a_name_that_done_has_already_gets_another() {
    let Some(world) = World::new() else { return };
    let source = world.file("a.csv", 5_000);
    let content = fs::read(&source).unwrap();
    let old = world.path("in").join(done(&format!("{MONTH}/a.csv")));
    fs::create_dir_all(old.parent().unwrap()).unwrap();
    fs::write(&old, "from last time").unwrap();
    world.job(&job(After::Moved));
    world.run().assert_success();
    assert_eq!(fs::read_to_string(&old).unwrap(), "from last time");
    let folder = fs::read_dir(old.parent().unwrap()).unwrap();
    let contents: Vec<_> = folder.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert_eq!(contents.len(), 2);
    assert!(contents.contains(&content));
    assert!(!source.exists());
}

#[test]
fn s25_a_server_that_allows_two_sessions_is_enough() {
    let options = Options::without_fcpd().line("MaxSessions 2").line("MaxStartups 2:50:2");
    let Some(world) = World::with(options) else { return };
    for n in 0..40 {
        world.file(&format!("{n}.csv"), 2 * MIB);
    }
    let originals = Originals::of(&world);
    world.job(&job(After::Kept));
    world.run().assert_success();
    originals.assert_delivered(&world, After::Kept);
}

#[test]
fn s26_a_dead_host_is_given_up_soon() {
    let Some(world) = World::new() else { return };
    world.file("a.csv", 10);
    world.job(&job(After::Kept));
    let yaml = fs::read_to_string(world.path("jobs.yaml")).unwrap();
    let port = format!("port: {}", world.sshd.address().port());
    world.write(&yaml.replace(&port, &format!("port: {}", fcp_tests::process::free_port())));
    let begun = std::time::Instant::now();
    world.run().assert_code(10);
    assert!(begun.elapsed().as_secs() < 20);
}

#[test]
fn s29_a_source_that_vanishes_is_no_failure() {
    let Some(world) = World::new() else { return };
    let source = world.file("a.csv", 5_000);
    world.file("b.csv", 5_000);
    world.job(&format!("{}  stable_seconds: 2\n", job(After::Kept)));
    let run = fcp_tests::process::start(&mut world.command(&["run", "J", YEAR]));
    while world.faults.count("readdir") < 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    fs::remove_file(source).unwrap();
    run.finish(std::time::Duration::from_secs(60)).assert_success();
    assert_eq!(world.visible("out").len(), 1);
}

#[test]
fn s24_two_jobs_on_one_source_do_not_move_twice() {
    let Some(world) = World::new() else { return };
    for n in 0..20 {
        world.file(&format!("{n}.csv"), 50_000);
    }
    let originals = Originals::of(&world);
    let path = world.job(&job(After::Moved));
    let one = fs::read_to_string(&path).unwrap();
    world.write(&format!("{one}\n{}", one.replace("J:\n  name: J", "K:\n  name: K")));
    let ran = ended(&mut world.command(&["run", "J", "K", YEAR]));
    assert!(matches!(ran.code(), Some(0 | 23 | 75)), "{}", ran.stderr_text());
    originals.assert_none_lost(&world);
    assert_eq!(world.visible("out").len(), 20);
}
