//! Whoever dies: nothing wrong under a final name, an end soon, and the next run goes on.

use std::path::Path;

use fcp_tests::process::{kill9_any, start};
use fcp_tests::processes;
use fcp_tests::proxy::{Lane, Plan};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::programs::{LIMIT, ended, summary};
use crate::setup::{MIB, World, assert_same_file, wait_until};

const SIZE: u64 = 48 * MIB;
/// Slow enough to be hit in the middle.
const RATE: u64 = 24 * MIB;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Fcp,
    Ssh,
    Fcpd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Push,
    Pull,
}

/// A transfer over ssh alone loses somebody when a third of it has come, and is run again.
fn crash(way: Way, victim: Victim) {
    let Some(mut world) = World::new() else { return };
    let proxy = world.through_proxy(Plan::both(Lane::rate(RATE)));
    let (src, dst) = (world.file("src", SIZE), world.path("dst"));
    let args = ["--json", "--direct", "never", "--via", "stdio", "-j", "2"];
    let command = || match way {
        Way::Push => world.push(&args, &src, &dst),
        Way::Pull => world.pull(&args, &src, &dst),
    };
    let mut running = start(&mut command());
    let moved = || proxy.moved().0 + proxy.moved().1;
    wait_until("a third is there", || moved() > SIZE / 3);
    match victim {
        Victim::Fcp => running.kill9(),
        Victim::Ssh => kill_named(processes::descendants(running.pid()), "ssh"),
        Victim::Fcpd => kill_named(world.sshd.processes("fcpd"), "fcpd"),
    }
    let told = running.finish(LIMIT);
    assert!(!told.timed_out, "{way:?} {victim:?}: it hangs: {told:?}");
    assert!(!told.status.success(), "{way:?} {victim:?}: {told:?}");
    if victim != Victim::Fcp {
        assert!(matches!(told.code(), Some(10 | 12)), "{way:?} {victim:?}: {told:?}");
    }
    assert!(!dst.exists(), "half a file has the final name");
    wait_until("fcpd ends", || world.sshd.processes("fcpd").is_empty());
    drop(proxy);
    world.ssh_config = world.sshd.ssh_config();
    let again = ended(&mut match way {
        Way::Push => world.push(&args, &src, &dst),
        Way::Pull => world.pull(&args, &src, &dst),
    });
    again.assert_success();
    assert_same_file(&src, &dst);
    let kept = summary(&again)["kept_bytes"].as_u64().unwrap();
    assert!(kept >= SIZE / 8, "{way:?} {victim:?}: only {kept} bytes were kept");
    assert_nothing_left(&world.dir, &["src", "dst", "home"]);
}

fn kill_named(pids: Vec<u32>, name: &str) {
    let named = |pid: &u32| processes::name(*pid).is_some_and(|n| n == name);
    let pids: Vec<u32> = pids.into_iter().filter(named).collect();
    assert!(!pids.is_empty(), "no {name} runs");
    pids.into_iter().for_each(kill9_any);
}

#[track_caller]
fn assert_nothing_left(dir: &TempDir, names: &[&str]) {
    let path: &Path = dir.path();
    for entry in std::fs::read_dir(path).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&&*name), "{name} is left over");
    }
}

#[test]
fn c01_a_killed_fcp_resumes_its_push() {
    crash(Way::Push, Victim::Fcp);
}

#[test]
fn c01_a_killed_fcp_resumes_its_pull() {
    crash(Way::Pull, Victim::Fcp);
}

#[test]
fn c02_killed_sshs_end_the_push_and_the_next_run_goes_on() {
    crash(Way::Push, Victim::Ssh);
}

#[test]
fn c02_killed_sshs_end_the_pull_and_the_next_run_goes_on() {
    crash(Way::Pull, Victim::Ssh);
}

#[test]
fn c03_a_killed_fcpd_ends_the_push_and_the_next_run_goes_on() {
    crash(Way::Push, Victim::Fcpd);
}

#[test]
fn c03_a_killed_fcpd_ends_the_pull_and_the_next_run_goes_on() {
    crash(Way::Pull, Victim::Fcpd);
}

#[test]
fn a_network_that_dies_is_exit_12_and_leaves_nobody_behind() {
    let Some(mut world) = World::new() else { return };
    let proxy = world.through_proxy(Plan::both(Lane::rate(RATE)));
    let src = world.file("src", SIZE);
    let running = start(&mut world.push(&["--direct", "never"], &src, world.path("dst")));
    wait_until("a third is there", || proxy.moved().0 > SIZE / 3);
    proxy.cut_all();
    let told = running.finish(LIMIT);
    told.assert_code(12);
    assert!(told.stderr_text().contains("run the same command again"), "{told:?}");
    wait_until("fcpd ends", || world.sshd.processes("fcpd").is_empty());
}

#[test]
fn a26_an_interrupt_is_exit_20_and_leaves_no_ssh_behind() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let Some(mut world) = World::new() else { return };
        let proxy = world.through_proxy(Plan::both(Lane::rate(RATE)));
        let src = world.file("src", SIZE);
        let running = start(&mut world.push(&["--direct", "never"], &src, world.path("dst")));
        wait_until("a third is there", || proxy.moved().0 > SIZE / 3);
        let children = processes::descendants(running.pid());
        running.signal(signal);
        running.finish(LIMIT).assert_code(20);
        let lives = |pid: &u32| processes::name(*pid).is_some_and(|n| n == "ssh");
        wait_until("ssh ends", || !children.iter().any(lives));
        wait_until("fcpd ends", || world.sshd.processes("fcpd").is_empty());
        assert!(!world.path("dst").exists());
    }
}
