//! Trees there and back over every way, judged by rsync and by our own comparison.

use std::fs;
use std::time::Duration;

use fcp_tests::proxy::{Lane, Plan};
use fcp_tests::tree;

use crate::programs::{ended, slashed, snapshot, summary};
use crate::setup::{MIB, World, assert_copied, assert_same_file};

#[test]
fn a_nasty_tree_goes_there_and_back_over_every_way() {
    let Some(world) = World::new() else { return };
    let src = world.path("src");
    tree::nasty(&src);
    for way in ["auto", "stdio", "direct"] {
        let [there, back] = ["there", "back"].map(|name| world.path(format!("{name}-{way}")));
        let args = ["--via", way];
        ended(&mut world.push(&args, &slashed(&src), &there)).assert_success();
        assert_copied(&src, &there);
        ended(&mut world.pull(&args, slashed(&there), &back)).assert_success();
        assert_copied(&src, &back);
        tree::unlock(&there);
        tree::unlock(&back);
    }
    tree::unlock(&src);
}

#[test]
fn a_directory_keeps_its_name_and_a_second_run_has_nothing_to_do() {
    let Some(world) = World::new() else { return };
    let src = world.small("src");
    let dst = world.path("dst");
    ended(&mut world.push(&[], &src, &dst)).assert_success();
    assert_copied(&src, &dst.join("src"));
    let told = ended(&mut world.push(&["--json"], &src, &dst));
    told.assert_success();
    let summary = summary(&told);
    assert_eq!((&summary["changed"], &summary["sent_bytes"]), (&0.into(), &0.into()), "{summary}");
}

#[test]
fn the_scp_style_command_finds_the_direction_itself() {
    let Some(world) = World::new() else { return };
    let file = world.file("file", 300_000);
    let there = world.path("there");
    let operand = |path: &std::path::Path| crate::setup::at(fcp_tests::sshd::HOST, path);
    ended(world.fcp(&[]).arg(&file).arg(operand(&there))).assert_success();
    ended(world.fcp(&[]).arg(operand(&there)).arg(world.path("back"))).assert_success();
    assert_same_file(&file, &world.path("back"));
}

#[test]
fn dry_run_touches_nothing_on_the_host() {
    let Some(world) = World::new() else { return };
    let src = world.small("src");
    let dst = world.small("dst");
    fs::write(dst.join("one"), "other").unwrap();
    let before = snapshot(&dst);
    let told = ended(&mut world.push(&["-n", "-v"], &slashed(&src), &dst));
    told.assert_success();
    assert!(told.stdout_text().contains("one"), "{told:?}");
    crate::programs::assert_unchanged(&before, &dst);
}

#[test]
fn many_connections_are_used_where_the_path_is_slow() {
    let Some(mut world) = World::new() else { return };
    // A long way: 20 ms for every piece of 64 KiB.
    let lane = Lane { delay: Duration::from_millis(20), ..Lane::default() };
    let _proxy = world.through_proxy(Plan::both(lane));
    let src = world.file("src", 24 * MIB);
    for (way, dst) in [("push", "there"), ("pull", "back")] {
        let (before, dst) = (world.sshd.sessions(), world.path(dst));
        let args = ["--via", "stdio", "--direct", "never", "-j", "4"];
        let mut command = match way {
            "push" => world.push(&args, &src, &dst),
            _ => world.pull(&args, &src, &dst),
        };
        ended(&mut command).assert_success();
        assert_same_file(&src, &dst);
        let sessions = world.sshd.sessions() - before;
        assert!((2..=4).contains(&sessions), "{way}: {sessions} sessions\n{}", world.sshd.log());
    }
}

#[test]
fn one_connection_is_one_session_where_one_is_asked_for() {
    let Some(world) = World::new() else { return };
    let src = world.file("src", 16 * MIB);
    let args = ["--via", "stdio", "--direct", "never", "-j", "1"];
    ended(&mut world.push(&args, &src, world.path("dst"))).assert_success();
    assert_same_file(&src, &world.path("dst"));
    assert_eq!((world.sshd.logins(), world.sshd.sessions()), (1, 1), "{}", world.sshd.log());
}

#[test]
fn nothing_of_a_transfer_stays_running_on_the_host() {
    let Some(world) = World::new() else { return };
    world.assert_works(&[]);
    crate::setup::wait_until("fcpd ends", || world.sshd.processes("fcpd").is_empty());
}

#[test]
fn compression_by_ssh_carries_the_same_bytes() {
    let Some(world) = World::new() else { return };
    world.assert_works(&["-C", "--via", "stdio"]);
}
