//! Whole trees there and back, judged by rsync and by our own comparison.

use std::fs;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use fcp_tests::compare::assert_same_tree;
use fcp_tests::process::Daemon;
use fcp_tests::tree::{self, Item};
use fcp_tests::rsync;

use crate::programs::{
    FCP, FCPD, LIMIT, NOBODY, Way, assert_unchanged, ended, fcp, fcpd, run_fcp, scratch, slashed,
    snapshot, summary, url,
};

const MIB: u64 = 1 << 20;

#[track_caller]
fn assert_copied(src: &Path, dst: &Path) {
    assert_same_tree(src, dst);
    rsync::assert_agrees(src, dst);
}

#[test]
fn a_nasty_tree_arrives_whole_over_any_number_of_connections() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::nasty(&src);
    let runs = [("1", Way::Push), ("8", Way::Push), ("128", Way::Push)]
        .into_iter()
        .chain([("1", Way::Pull), ("2", Way::Pull), ("128", Way::Pull), ("2", Way::Local)]);
    for (n, way) in runs {
        let dst = dir.path().join(format!("{way:?}-{n}"));
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        ended(command.args(["-j", n])).assert_success();
        assert_copied(&src, &dst);
        tree::unlock(&dst);
    }
    tree::unlock(&src);
}

#[test]
fn a_small_tree_arrives_by_default() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::small(&src);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        ended(&mut way.command(server.port(), &src, &dst)).assert_success();
        assert_copied(&src, &dst.join("src"));
    }
}

#[test]
fn a_user_without_a_passwd_entry_copies_what_it_can_read() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: becoming another user needs root");
        return;
    }
    let dir = scratch();
    // The build's own folder may be closed to other users.
    let [client, server] = [FCP, FCPD].map(|program| {
        let copy = dir.path().join(Path::new(program).file_name().unwrap());
        fs::copy(program, &copy).unwrap();
        copy
    });
    let home = dir.path().join("home");
    let readable = |item: &Item| match item.kind {
        tree::Kind::Dir => item.mode & 0o500 == 0o500,
        _ => item.mode & 0o400 != 0,
    };
    let items: Vec<Item> = tree::nasty_items().into_iter().filter(readable).collect();
    let items: Vec<Item> =
        items.iter().filter(|i| !in_closed_dir(&i.path)).cloned().collect();
    tree::build(&home.join("src"), &items);
    chown_all(&home, NOBODY);
    let server = Daemon::start_with(|port| {
        let mut command = std::process::Command::new(&server);
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).uid(NOBODY).gid(NOBODY);
        command.env_remove("HOME").env_remove("FCP_FAULT");
        command
    });
    for (way, n) in [(Way::Push, "1"), (Way::Push, "8"), (Way::Pull, "2"), (Way::Local, "2")] {
        let dst = home.join(format!("{way:?}-{n}"));
        let typed = way.command(server.port(), &slashed(&home.join("src")), &dst);
        let mut command = std::process::Command::new(&client);
        command.args(typed.get_args()).args(["-j", n]).uid(NOBODY).gid(NOBODY);
        command.env_remove("HOME").env_remove("USER").env_remove("FCP_FAULT");
        ended(&mut command).assert_success();
        assert_copied(&home.join("src"), &dst);
    }
}

/// `modes/dir-0300/inner` and its like: the directory is left out, or its owner cannot list it.
fn in_closed_dir(path: &[u8]) -> bool {
    ["0000", "0111", "0300"].iter().any(|m| path.starts_with(format!("modes/dir-{m}").as_bytes()))
}

fn chown_all(root: &Path, uid: u32) {
    lchown(root, Some(uid), Some(uid)).unwrap();
    if fs::symlink_metadata(root).unwrap().is_dir() {
        for entry in fs::read_dir(root).unwrap() {
            chown_all(&entry.unwrap().path(), uid);
        }
    }
}

#[test]
fn sizes_around_frames_and_blocks_arrive_whole() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    let frame = 60 * 1024;
    let sizes = [
        0, 1, frame - 1, frame, frame + 1, 65_535, 65_536, MIB - 1, MIB, MIB + 1, 2 * MIB,
        8 * MIB + 1, 40 * MIB,
    ];
    let items: Vec<Item> = sizes.iter().map(|n| Item::file(n.to_string(), *n)).collect();
    tree::build(&src, &items);
    for (way, n) in [(Way::Push, "1"), (Way::Push, "8"), (Way::Pull, "2"), (Way::Local, "2")] {
        let dst = dir.path().join(format!("{way:?}-{n}"));
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        let told = ended(command.args(["-j", n, "--json"]));
        let all: u64 = sizes.iter().sum();
        let end = summary(told.assert_success());
        assert_eq!((&end["total_bytes"], &end["sent_bytes"]), (&all.into(), &all.into()), "{way:?}");
        assert_copied(&src, &dst);
    }
}

#[test]
fn a_second_run_moves_no_content_and_touches_nothing() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::nasty(&src);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let copy = || ended(way.command(server.port(), &slashed(&src), &dst).arg("--json"));
        let first = summary(copy().assert_success());
        assert!(first["sent_bytes"].as_u64().unwrap() > 0);
        let before = snapshot(&dst);
        let second = summary(copy().assert_success());
        let zero = serde_json::Value::from(0);
        assert_eq!((&second["sent_bytes"], &second["changed"]), (&zero, &zero), "{way:?}: {second}");
        assert_unchanged(&before, &dst);
        tree::unlock(&dst);
    }
    tree::unlock(&src);
}

#[test]
fn every_mtime_is_kept_to_the_nanosecond() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    let mut items = Vec::new();
    for (n, ns) in [0, 1, 999, 123_456_789, 999_999_999].into_iter().enumerate() {
        let time = 1_600_000_000 + n as i64;
        items.push(Item::file(format!("file{n}"), 5).mtime(time, ns));
        items.push(Item::symlink(format!("link{n}"), "file0").mtime(time, ns));
        items.push(Item::dir(format!("dir{n}")).mtime(time, ns));
        items.push(Item::file(format!("dir{n}/in"), 5).mtime(time, ns));
    }
    tree::build(&src, &items);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        ended(&mut way.command(server.port(), &slashed(&src), &dst)).assert_success();
        assert_copied(&src, &dst);
    }
}

#[test]
fn names_are_bytes_in_operands_too() {
    let (dir, server) = (scratch(), fcpd());
    let names: [&[u8]; 6] =
        [b"\xff\xfe", b"new\nline", b" a b ", b"per%41cent", b"-dash", b"\xe2\x80\xaertl"];
    for name in names {
        let name = std::os::unix::ffi::OsStringExt::from_vec(name.to_vec());
        let name: std::ffi::OsString = name;
        let src = dir.path().join(&name).join(&name);
        fs::create_dir_all(src.parent().unwrap()).unwrap();
        fs::write(&src, "x").unwrap();
        for way in Way::ALL {
            let dst = dir.path().join(format!("{way:?}")).join(&name);
            let mut command = way.command(server.port(), &src, &dst);
            ended(command.arg("--mkpath")).assert_success();
            assert_eq!(fs::read(&dst).unwrap(), b"x");
        }
    }
    // A relative operand that begins with a dash stands behind `--`.
    let mut command = fcp();
    command.current_dir(dir.path().join("-dash")).args(["--", "-dash", "copy"]);
    ended(&mut command).assert_success();
    assert!(dir.path().join("-dash/copy").exists());
}

#[test]
fn many_files_in_many_directories_arrive() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    let files = (0..3_000).map(|n| Item::file(format!("d{}/e{}/f{n}", n % 7, n % 50), n % 300));
    tree::build(&src, &files.collect::<Vec<_>>());
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        ended(&mut way.command(server.port(), &slashed(&src), &dst)).assert_success();
        assert_copied(&src, &dst);
    }
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_arrives() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    let made = std::process::Command::new("sh")
        .args(["-c", "n=$(printf %0200d 1); for i in $(seq 30); do mkdir $n; cd -P $n; done; echo x >end"])
        .current_dir(&src)
        .status();
    assert!(made.unwrap().success());
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let told = ended(way.command(server.port(), &slashed(&src), &dst).arg("--json"));
        assert_eq!(summary(told.assert_success())["sent_bytes"], 2, "{way:?}");
        let found = std::process::Command::new("find").arg(&dst).args(["-name", "end"]).output();
        let depth = found.unwrap().stdout.iter().filter(|b| **b == b'/').count();
        assert!(depth >= 31, "{way:?}: {depth}");
    }
}

#[test]
fn two_transfers_into_one_directory_do_not_disturb_each_other() {
    let (dir, server) = (scratch(), fcpd());
    let [a, b] = ["a", "b"].map(|n| dir.path().join(n));
    for src in [&a, &b] {
        let name = src.file_name().unwrap().to_str().unwrap();
        let items: Vec<Item> =
            (0..400).map(|n| Item::file(format!("{name}{n}"), 20_000)).collect();
        tree::build(src, &items);
    }
    let dst = dir.path().join("dst");
    fs::create_dir(&dst).unwrap();
    let to = url(server.port(), dst.as_os_str().as_encoded_bytes());
    let running: Vec<_> = [&a, &b]
        .map(|src| fcp_tests::process::start(fcp().arg(slashed(src)).arg(&to)))
        .into_iter()
        .collect();
    running.into_iter().for_each(|r| {
        r.finish(LIMIT).assert_success();
    });
    let names: Vec<PathBuf> = fs::read_dir(&dst).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.len(), 800, "{names:?}");
    run_fcp([slashed(&a).into_os_string(), to.into()]).assert_success();
}
