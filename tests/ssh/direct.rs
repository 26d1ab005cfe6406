//! Content beside ssh, and what happens where that cannot be.
//!
//! A proxy carries ssh and counts; what it does not see went directly.

use std::time::{Duration, Instant};

use fcp_tests::netns::Netns;
use fcp_tests::process::Finished;
use fcp_tests::proxy::{Plan, Proxy};
use fcp_tests::sshd::Options;

use crate::programs::{FCPD, ended};
use crate::setup::{MIB, World, assert_same_file, assert_told};

const SIZE: u64 = 48 * MIB;

/// A file goes there and back; returns what the two said and how many bytes ssh carried.
#[track_caller]
fn there_and_back(world: &World, proxy: &Proxy, args: &[&str]) -> ([Finished; 2], u64) {
    let src = world.file("src", SIZE);
    let moved = || proxy.moved().0 + proxy.moved().1;
    let before = moved();
    for old in ["there", "back"] {
        // What is there already would not go again.
        let _ = std::fs::remove_file(world.path(old));
    }
    let pushed = ended(&mut world.push(args, &src, world.path("there")));
    pushed.assert_success();
    assert_same_file(&src, &world.path("there"));
    let pulled = ended(&mut world.pull(args, &src, &world.path("back")));
    pulled.assert_success();
    assert_same_file(&src, &world.path("back"));
    ([pushed, pulled], moved() - before)
}

#[track_caller]
fn assert_beside_ssh(world: &World, proxy: &Proxy, args: &[&str]) {
    let (_, moved) = there_and_back(world, proxy, args);
    assert!(moved < SIZE / 4, "ssh carried {moved} bytes");
}

#[track_caller]
fn assert_through_ssh(world: &World, proxy: &Proxy, args: &[&str]) {
    let (_, moved) = there_and_back(world, proxy, args);
    assert!(moved > SIZE * 2, "ssh carried only {moved} bytes");
}

#[test]
fn content_goes_beside_ssh_where_the_port_is_open() {
    for args in [&[][..], &["--via", "direct"], &["-j", "1"], &["-j", "8"]] {
        let Some(mut world) = World::new() else { return };
        let proxy = world.through_proxy(Plan::default());
        assert_beside_ssh(&world, &proxy, args);
    }
}

#[test]
fn verbose_tells_the_way_and_why() {
    let Some(mut world) = World::new() else { return };
    let proxy = world.through_proxy(Plan::default());
    for (args, words) in [
        (&["-v"][..], &["past ssh"][..]),
        (&["-v", "--direct", "never"], &["through ssh", "never"]),
        (&["-v", "--via", "stdio"], &["through ssh", "--via stdio"]),
        (&["-v", "--remote-fcpd", "fcpd --no-direct"], &["through ssh", "no data port"]),
    ] {
        let (said, _) = there_and_back(&world, &proxy, args);
        said.iter().for_each(|finished| assert_told(finished, 0, words));
    }
}

#[test]
fn either_end_may_say_never() {
    let Some(mut world) = World::new() else { return };
    let proxy = world.through_proxy(Plan::default());
    assert_through_ssh(&world, &proxy, &["--direct", "never"]);
    assert_through_ssh(&world, &proxy, &["--via", "stdio"]);
    assert_through_ssh(&world, &proxy, &["--remote-fcpd", "fcpd --no-direct"]);
    let root =
        format!("command=\"fcpd --stdio --no-direct --restrict {}\"", world.dir.path().display());
    world.sshd.authorize(world.sshd.user(), &root);
    let src = world.file("src", SIZE);
    let before = proxy.moved().0;
    ended(&mut world.push(&[], &src, "forced")).assert_success();
    assert!(proxy.moved().0 - before > SIZE);
    assert_same_file(&src, &world.path("forced"));
}

#[test]
fn a_port_that_refuses_costs_nothing() {
    let Some(netns) = Netns::new() else { return };
    let Some(mut world) = World::with(Options::with_fcpd(FCPD).inside(&netns)) else { return };
    // The proxy's address has ssh on it and nothing else.
    let proxy = world.through_proxy(Plan::default());
    assert_through_ssh(&world, &proxy, &[]);
}

#[test]
fn a_second_host_is_reached_directly() {
    let Some(netns) = Netns::new() else { return };
    let Some(world) = World::with(Options::with_fcpd(FCPD).inside(&netns)) else { return };
    let [pushed, pulled] = world.assert_works(&["-v"]);
    for told in [pushed, pulled] {
        assert_told(&told, 0, &["past ssh"]);
    }
}

#[test]
fn a_firewall_in_front_of_the_port_costs_a_second_at_most() {
    let Some(netns) = Netns::new() else { return };
    let Some(world) = World::with(Options::with_fcpd(FCPD).inside(&netns)) else { return };
    let src = world.file("src", 100_000);
    let took = |args: &[&str]| {
        let clock = Instant::now();
        ended(&mut world.push(args, &src, world.path("there"))).assert_success();
        assert_same_file(&src, &world.path("there"));
        ended(&mut world.pull(args, &src, &world.path("back"))).assert_success();
        assert_same_file(&src, &world.path("back"));
        std::fs::remove_file(world.path("there")).unwrap();
        std::fs::remove_file(world.path("back")).unwrap();
        clock.elapsed()
    };
    let without = took(&["--direct", "never"]);
    netns.drop_ports_from(30_000);
    let with = took(&[]);
    // Two transfers, each with its second, and a busy machine.
    let limit = without + Duration::from_secs(4);
    assert!(with < limit, "{with:?} where ssh alone took {without:?}");
}

#[test]
fn direct_where_nothing_else_was_asked_for_fails_behind_a_firewall() {
    let Some(netns) = Netns::new() else { return };
    let Some(world) = World::with(Options::with_fcpd(FCPD).inside(&netns)) else { return };
    netns.drop_ports_from(30_000);
    let src = world.file("src", 100_000);
    let told = ended(&mut world.push(&["--via", "direct"], &src, world.path("there")));
    // It promises that no content goes through ssh.
    assert_told(&told, 10, &["data port"]);
    assert!(!world.path("there").exists());
}
