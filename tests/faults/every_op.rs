//! A kill, or a failure, at every file-system operation of a small transfer.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fcp_tests::compare::assert_same_tree;
use fcp_tests::process::{Daemon, Finished};
use fcp_tests::rsync;
use fcp_tests::tree::{self, Item};
use tempfile::TempDir;

use crate::common::*;

const MIB: u64 = 1 << 20;

fn said(finished: &Finished) -> String {
    format!("{}\n{}{}", finished.status, finished.stderr_text(), finished.stdout_text())
}

/// Which process has the fault in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

struct Small {
    way: Way,
    _dir: TempDir,
    old: PathBuf,
    new: PathBuf,
    dst: PathBuf,
}

impl Small {
    /// A dozen entries of every kind; some stand at the destination with other content.
    fn new(way: Way) -> Small {
        let dir = scratch();
        let [old, new, dst] = ["old", "new", "dst"].map(|name| dir.path().join(name));
        tree::build(
            &old,
            &[
                Item::file("replaced", 5_000).mtime(1, 1),
                Item::file("sub/mode", 10).mode(0o600).mtime(9, 9),
                Item::symlink("sub/link", "old-target"),
            ],
        );
        tree::build(
            &new,
            &[
                Item::file("replaced", 6_000),
                Item::file("empty", 0),
                Item::file("large", 9 * MIB),
                Item::dir("sub"),
                Item::file("sub/mode", 10).mode(0o640).mtime(9, 9),
                Item::symlink("sub/link", "mode"),
                Item::dir("sub/deep").mode(0o750),
                Item::file("sub/deep/two-frames", 100_000),
                Item::file("sub/deep/small", 300),
                Item::dir("nothing-inside"),
                Item::symlink("dangling", "nowhere"),
            ],
        );
        // The same content under another mode.
        fs::copy(new.join("sub/mode"), old.join("sub/mode")).unwrap();
        Small { way, _dir: dir, old, new, dst }
    }

    fn reset(&self) {
        let _ = fs::remove_dir_all(&self.dst);
        let copied = Command::new("cp").arg("-a").arg(&self.old).arg(&self.dst).status();
        assert!(copied.unwrap().success());
    }

    fn command(&self, daemon: &Daemon) -> Command {
        self.way.command(1, &self.new, &self.dst, |path| daemon.url(path))
    }

    fn receiver(&self) -> Side {
        if self.way == Way::Push { Side::Server } else { Side::Client }
    }

    /// A run with this fault in one of the processes.
    fn run(&self, side: Side, fault: &str) -> (Finished, Daemon) {
        let daemon = match side {
            Side::Server => fcpd_with(Some(fault)),
            Side::Client => fcpd(),
        };
        let mut command = self.command(&daemon);
        if side == Side::Client {
            command.env("FCP_FAULT", fault);
        }
        (ended(&mut command), daemon)
    }

    /// How many operations a whole run has in one of the processes.
    fn operations(&self, side: Side) -> u64 {
        self.reset();
        let counts = self._dir.path().join("counts");
        let (finished, mut daemon) = self.run(side, &format!("count={}", counts.display()));
        finished.assert_success();
        self.assert_done();
        daemon.terminate(LIMIT).unwrap();
        let text = fs::read_to_string(&counts).unwrap();
        fs::remove_file(&counts).unwrap();
        text.lines().filter_map(|l| l.split_once(' ')).map(|(_, n)| n.parse::<u64>().unwrap()).sum()
    }

    fn assert_old_or_new(&self) {
        assert_old_or_new(&self.old, &self.new, &self.dst);
    }

    /// Without a fault everything is as it should be in the end.
    fn assert_converges(&self, daemon: &Daemon) {
        ended(&mut self.command(daemon)).assert_success();
        self.assert_done();
    }

    fn assert_done(&self) {
        assert_clean(&self.dst);
        assert_same_tree(&self.new, &self.dst);
        rsync::assert_agrees(&self.new, &self.dst);
    }

    /// Equal but for what the next run cleans away.
    fn is_done(&self) -> bool {
        let before = fs::metadata(&self.dst).unwrap().modified().unwrap();
        temps(&self.dst).iter().for_each(|temp| fs::remove_file(temp).unwrap());
        let _ = fs::remove_dir_all(self.dst.join(".fcp-journal"));
        fs::File::open(&self.dst).unwrap().set_modified(before).unwrap();
        rsync::agrees(&self.new, &self.dst).is_ok()
    }
}

/// The places to try: every `step`-th, or all of them when the environment asks for it.
fn places(count: u64, step: u64, offset: u64) -> Vec<u64> {
    let step = if knob("FCP_EVERY", 0) > 0 { 1 } else { step };
    (1..=count + 1).filter(|k| k % step == offset % step).collect()
}

fn killed_at_every_operation(way: Way, side: Side) {
    let small = Small::new(way);
    let count = small.operations(side);
    let places = places(count, 4, 1);
    for k in &places {
        small.reset();
        let (finished, mut daemon) = small.run(side, &format!("kill@{k}"));
        small.assert_old_or_new();
        if finished.code() == Some(0) {
            assert!(small.is_done(), "{way:?} {side:?} kill@{k}: success, but not equal");
        }
        if !daemon.is_alive() {
            daemon = fcpd();
        } else if side == Side::Server {
            // The kill was behind the last operation.
            daemon = fcpd();
        }
        small.settle(&daemon);
        small.assert_converges(&daemon);
    }
    report(&format!(
        "{way:?}, {side:?} killed at {} of its {count} operations: every name old or new, rerun exact",
        places.len()
    ));
}

impl Small {
    /// Until the server has let go of the session of a client that was killed.
    fn settle(&self, daemon: &Daemon) {
        eventually("the session ends", LIMIT, || {
            let log = daemon.log();
            let begun = log.matches(": push to").count() + log.matches(": pull of").count();
            log.matches(" failed: ").count() + log.matches(" done: ").count() >= begun
        });
    }
}

#[test]
fn c05_the_receiving_server_is_killed_at_every_operation() {
    killed_at_every_operation(Way::Push, Side::Server);
}

#[test]
fn c05_the_receiving_client_is_killed_at_every_operation() {
    killed_at_every_operation(Way::Pull, Side::Client);
}

#[test]
fn c05_the_sending_side_is_killed_at_every_operation() {
    killed_at_every_operation(Way::Push, Side::Client);
    killed_at_every_operation(Way::Pull, Side::Server);
}

/// The exit codes of a transfer that could not do all of it.
const UNCLEAN: [i32; 5] = [3, 11, 12, 23, 24];

/// One failure at each operation, and from each operation on.
fn fails_at_every_operation(way: Way, side: Side, errno: &str, offset: u64) {
    let small = Small::new(way);
    let count = small.operations(side);
    let (mut failed, mut survived) = (0, 0);
    for k in places(count, 8, offset) {
        for onwards in ["", "+"] {
            let fault = format!("fail@{k}{onwards}={errno}");
            let told = format!("{way:?} {side:?} {fault}");
            small.reset();
            let (finished, daemon) = small.run(side, &fault);
            small.assert_old_or_new();
            match finished.code() {
                Some(0) => {
                    assert!(small.is_done(), "{told}: success, but not equal: {}", said(&finished));
                    survived += 1;
                }
                Some(code) => {
                    assert!(UNCLEAN.contains(&code), "{told}: code {code}: {}", said(&finished));
                    let text = finished.stderr_text();
                    assert!(text.lines().any(|l| l.starts_with("fcp: ")), "{told}: {text}");
                    assert!(!text.contains("panic"), "{told}: {}", said(&finished));
                    if code == 23 {
                        let names = ["replaced", "empty", "large", "sub", "nothing", "dangling"];
                        let named = names.iter().any(|name| text.contains(name));
                        let mut roots = [&small.new, &small.dst].into_iter();
                        let root = roots.any(|r| text.contains(&*r.to_string_lossy()));
                        assert!(named || root, "{told}: no name in {text}");
                    }
                    failed += 1;
                }
                None => panic!("{told}: {}", said(&finished)),
            }
            assert!(!daemon.log().contains("panic"), "{told}: {}", daemon.log());
            drop(daemon);
            small.assert_converges(&fcpd());
        }
    }
    report(&format!(
        "{way:?}, {errno} at operations of the {side:?} ({count} in all), once and from there on: \
         {failed} runs failed cleanly, {survived} did without; rerun exact",
    ));
}

#[test]
fn f01_the_receiver_runs_out_of_space_at_every_operation() {
    for (offset, way) in (0..).zip(Way::BOTH) {
        fails_at_every_operation(way, Small::new(way).receiver(), "ENOSPC", offset);
    }
}

#[test]
fn f02_the_receiver_may_not_at_every_operation() {
    for (offset, way) in (2..).zip(Way::BOTH) {
        fails_at_every_operation(way, Small::new(way).receiver(), "EACCES", offset);
    }
}

#[test]
fn f02_the_receiver_has_no_descriptors_at_every_operation() {
    for (offset, way) in (4..).zip(Way::BOTH) {
        fails_at_every_operation(way, Small::new(way).receiver(), "EMFILE", offset);
    }
}

#[test]
fn f03_f04_the_receivers_disk_fails_at_every_operation() {
    for (offset, way) in (6..).zip(Way::BOTH) {
        fails_at_every_operation(way, Small::new(way).receiver(), "EIO", offset);
    }
}

#[test]
fn f03_the_senders_disk_fails_at_every_operation() {
    fails_at_every_operation(Way::Push, Side::Client, "EIO", 3);
    fails_at_every_operation(Way::Pull, Side::Server, "EIO", 5);
}
