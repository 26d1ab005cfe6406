//! From one host to another through the client, whose disk sees nothing of it.

use std::fs;

use fcp_tests::process::start;
use fcp_tests::proxy::{Lane, Plan, Proxy};
use fcp_tests::sshd::{HOST, Options, Sshd};
use fcp_tests::tree;

use crate::programs::{FCPD, LIMIT, ended, fcpd, slashed, snapshot, summary};
use crate::setup::{MIB, World, assert_copied, assert_same_file, at, wait_until};

/// Two hosts, `left` and `right`.
fn two() -> Option<(World, Sshd)> {
    let mut world = World::new()?;
    let right = Sshd::start(Options::with_fcpd(FCPD))?;
    let blocks = world.sshd.host_block("left", "") + &right.host_block("right", "");
    world.ssh_config = world.sshd.ssh_config_with("", &blocks);
    Some((world, right))
}

#[test]
fn a_tree_goes_from_one_host_to_another_without_the_clients_disk() {
    let Some((world, right)) = two() else { return };
    let src = world.path("src");
    tree::nasty(&src);
    let here = world.path("here");
    fs::create_dir(&here).unwrap();
    let before = [snapshot(&here), snapshot(&world.path("home"))];
    for (n, args) in [&[][..], &["-j", "4"], &["--via", "stdio"]].iter().enumerate() {
        let dst = world.path(format!("dst{n}"));
        let mut command = world.fcp(args);
        command.arg(at("left", slashed(&src))).arg(at("right", &dst)).current_dir(&here);
        ended(command.env("TMPDIR", &here)).assert_success();
        assert_copied(&src, &dst);
        tree::unlock(&dst);
    }
    assert!(world.sshd.logins() >= 3 && right.logins() >= 3);
    crate::programs::assert_unchanged(&before[0], &here);
    crate::programs::assert_unchanged(&before[1], &world.path("home"));
    tree::unlock(&src);
}

#[test]
fn a_second_run_has_nothing_to_do() {
    let Some((world, _right)) = two() else { return };
    let (src, dst) = (world.small("src"), world.path("dst"));
    for changed in [true, false] {
        let mut command = world.fcp(&["--json"]);
        let told = ended(command.arg(at("left", &src)).arg(at("right", &dst)));
        told.assert_success();
        assert_eq!(summary(&told)["changed"] != 0, changed, "{told:?}");
        assert_copied(&src, &dst.join("src"));
    }
}

#[test]
fn both_ends_may_be_one_host() {
    let Some(world) = World::new() else { return };
    let (src, dst) = (world.small("src"), world.path("dst"));
    ended(world.fcp(&[]).arg(at(HOST, slashed(&src))).arg(at(HOST, &dst))).assert_success();
    assert_copied(&src, &dst);
}

#[test]
fn a_running_server_and_a_host_behind_ssh_may_be_mixed() {
    let (Some(world), server) = (World::new(), fcpd()) else { return };
    let (src, there, back) = (world.small("src"), world.path("there"), world.path("back"));
    let url = |path: &std::path::Path| server.url(path);
    ended(world.fcp(&[]).arg(url(&src)).arg(at(HOST, &there))).assert_success();
    assert_copied(&src, &there.join("src"));
    ended(world.fcp(&[]).arg(at(HOST, slashed(&there))).arg(url(&back))).assert_success();
    assert_copied(&there, &back);
}

#[test]
fn a_killed_relay_resumes() {
    const SIZE: u64 = 48 * MIB;
    let Some((mut world, right)) = two() else { return };
    let proxy = Proxy::start(right.address(), |_| Plan::both(Lane::rate(24 * MIB)));
    let known =
        format!("HostKeyAlias [127.0.0.1]:{}\nPort {}", right.address().port(), proxy.port());
    let blocks = world.sshd.host_block("left", "") + &right.host_block("right", "");
    let fast = world.sshd.ssh_config_with("", &blocks);
    let blocks = world.sshd.host_block("left", "") + &right.host_block("right", &known);
    world.ssh_config = world.sshd.ssh_config_with("", &blocks);
    let (src, dst) = (world.file("src", SIZE), world.path("dst"));
    let args = ["--json", "--direct", "never"];
    let command = |world: &World| {
        let mut command = world.fcp(&args);
        command.arg(at("left", &src)).arg(at("right", &dst));
        command
    };
    let mut running = start(&mut command(&world));
    wait_until("a third is there", || proxy.moved().0 > SIZE / 3);
    running.kill9();
    running.finish(LIMIT);
    assert!(!dst.exists());
    wait_until("fcpd ends", || right.processes("fcpd").is_empty());
    world.ssh_config = fast;
    let again = ended(&mut command(&world));
    again.assert_success();
    assert_same_file(&src, &dst);
    let kept = summary(&again)["kept_bytes"].as_u64().unwrap();
    assert!(kept >= SIZE / 8, "only {kept} bytes were kept");
}

#[test]
fn a_source_that_is_missing_is_told_with_its_host() {
    let Some((world, _right)) = two() else { return };
    let missing = world.path("missing");
    let told = ended(world.fcp(&[]).arg(at("left", &missing)).arg(at("right", world.path("dst"))));
    assert!(matches!(told.code(), Some(3 | 23)), "{told:?}");
    assert!(told.stderr_text().contains("missing"), "{told:?}");
}
