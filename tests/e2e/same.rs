//! What is not done because it is done already, or because it was not to be done.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use fcp_tests::compare::assert_same_tree;
use fcp_tests::tree::{self, Item};

use crate::programs::{
    Counts, Way, assert_unchanged, counted, ended, fcpd, json_lines, scratch, slashed, snapshot,
    summary,
};

const FILES: u64 = 50;

fn files(root: &Path) {
    let items: Vec<Item> = (0..FILES).map(|n| Item::file(format!("f{n}"), 100 + n)).collect();
    tree::build(root, &items);
}

fn count(counts: &Counts, op: &str) -> u64 {
    counts.get(op).copied().unwrap_or(0)
}

fn set_mtime(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn f01_same_size_and_mtime_is_the_same_and_nothing_is_read() {
    let dir = scratch();
    let src = dir.path().join("src");
    files(&src);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let first = counted(way, &["--json"], &slashed(&src), &dst);
        assert_eq!(summary(first.finished.assert_success())["changed"], FILES);
        let second = counted(way, &["--json"], &slashed(&src), &dst);
        let end = summary(second.finished.assert_success());
        assert_eq!((end["same"].as_u64(), end["sent_bytes"].as_u64()), (Some(FILES), Some(0)));
        for (end, counts) in [("client", &second.client), ("server", &second.server)] {
            for op in ["read", "write", "rename", "chmod", "utime", "mkdir", "unlink"] {
                assert_eq!(count(counts, op), 0, "{way:?}, {end}, {op}: {counts:?}");
            }
        }
    }
}

#[test]
fn a_new_file_is_read_once_and_nothing_at_the_other_end_is() {
    let dir = scratch();
    let src = dir.path().join("src");
    files(&src);
    for way in [Way::Push, Way::Pull] {
        let dst = dir.path().join(format!("{way:?}"));
        let run = counted(way, &[], &slashed(&src), &dst);
        run.finished.assert_success();
        let (sender, receiver) = match way {
            Way::Push => (&run.client, &run.server),
            _ => (&run.server, &run.client),
        };
        // The second read of a file finds its end.
        assert!(count(sender, "read") <= 2 * FILES, "{sender:?}");
        assert_eq!(count(receiver, "read"), 0, "{receiver:?}");
        assert_eq!(count(receiver, "rename"), FILES, "{receiver:?}");
    }
}

#[test]
fn f03_another_mtime_with_the_same_content_costs_metadata_only() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::build(&src, &[Item::file("small", 1_000), Item::file("large", 3 << 20)]);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let copy = || ended(way.command(server.port(), &slashed(&src), &dst).arg("--json"));
        copy().assert_success();
        let before = snapshot(&dst);
        for name in ["small", "large"] {
            set_mtime(&dst.join(name), SystemTime::now() - Duration::from_secs(1_000));
        }
        let told = copy();
        let end = summary(told.assert_success());
        assert_eq!(end["sent_bytes"], 0, "{way:?}");
        let outcomes: Vec<_> = json_lines(&told)
            .iter()
            .filter(|l| l["event"] == "entry")
            .map(|l| l["outcome"].clone())
            .collect();
        assert_eq!(outcomes, ["metadata", "metadata"], "{way:?}");
        assert_same_tree(&src, &dst);
        let inode = |at: &crate::programs::Snapshot| at[&dst.join("large")].0;
        assert_eq!(inode(&before), inode(&snapshot(&dst)), "{way:?}: it was replaced");
    }
}

#[test]
fn f04_checksum_finds_a_change_that_left_size_and_mtime_alone() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::build(&src, &[Item::file("a", 1_000), Item::file("b", 2 << 20), Item::file("c", 10)]);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let copy = |options: &[&str]| {
            ended(way.command(server.port(), &slashed(&src), &dst).args(["--json"]).args(options))
        };
        copy(&[]).assert_success();
        for name in ["a", "b"] {
            let path = dst.join(name);
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            let mut content = fs::read(&path).unwrap();
            *content.last_mut().unwrap() ^= 1;
            fs::write(&path, content).unwrap();
            set_mtime(&path, time);
        }
        assert_eq!(summary(copy(&[]).assert_success())["changed"], 0, "{way:?}");
        let end = summary(copy(&["-c"]).assert_success());
        assert_eq!((end["changed"].as_u64(), end["same"].as_u64()), (Some(2), Some(1)), "{way:?}");
        assert_same_tree(&src, &dst);
    }
}

#[test]
fn another_mode_costs_metadata_only() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::build(&src, &[Item::file("a", 1_000), Item::dir("d")]);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let copy = || ended(way.command(server.port(), &slashed(&src), &dst).arg("--json"));
        copy().assert_success();
        for name in ["a", "d"] {
            fs::set_permissions(dst.join(name), fs::Permissions::from_mode(0o711)).unwrap();
        }
        let end = summary(copy().assert_success());
        assert_eq!((end["changed"].as_u64(), end["sent_bytes"].as_u64()), (Some(2), Some(0)));
        assert_same_tree(&src, &dst);
    }
}

/// Names on stdout without the last line of `-v`, which counts.
fn names(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| !line.contains(" changed, ")).map(str::to_owned).collect()
}

#[test]
fn a_dry_run_touches_nothing_and_names_what_the_run_will_name() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::small(&src);
    for (way, exists) in Way::ALL.into_iter().flat_map(|way| [(way, true), (way, false)]) {
        let root = dir.path().join(format!("{way:?}-{exists}"));
        let dst = root.join("dst");
        fs::create_dir(&root).unwrap();
        if exists {
            tree::build(
                &dst,
                &[
                    Item::file("one", 1),
                    Item::file("kept", 5),
                    Item::file("docs/readme.txt", 9),
                    Item::symlink("data/latest", "elsewhere"),
                ],
            );
            // A file that is the same, and one of which only the mode differs.
            fs::copy(src.join("script.sh"), dst.join("script.sh")).unwrap();
            let time = fs::metadata(src.join("script.sh")).unwrap().modified().unwrap();
            set_mtime(&dst.join("script.sh"), time);
        }
        let before = snapshot(&root);
        let copy =
            |option: &str| ended(way.command(server.port(), &slashed(&src), &dst).arg(option));
        let dry = copy("-n");
        dry.assert_success();
        assert_unchanged(&before, &root);
        let real = copy("-v");
        real.assert_success();
        assert_eq!(names(&dry.stdout_text()), names(&real.stdout_text()), "{way:?} {exists}");
        assert!(names(&dry.stdout_text()).contains("docs/readme.txt") || way != Way::Pull);
    }
}

#[test]
fn a_dry_run_reports_what_would_fail() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::build(&src, &[Item::file("a", 1), Item::file("b", 1)]);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        fs::create_dir_all(dst.join("a")).unwrap();
        let before = snapshot(&dst);
        ended(way.command(server.port(), &slashed(&src), &dst).arg("-n")).assert_code(23);
        assert_unchanged(&before, &dst);
    }
}
