//! Ours against ours, where one of the two speaks version 1 only.

use std::fs;
use std::os::unix::fs::symlink;

use fcp_tests::process::Finished;

use crate::old_server::OldServer;
use crate::programs::{Way, ended, fcp, fcpd, scratch, slashed, url};
use crate::{assert_copied, leftovers, odd_tree};

#[test]
fn d01_d02_fcp_is_told_to_speak_version_1() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    odd_tree(&src);
    for (way, n) in [Way::Push, Way::Pull].into_iter().flat_map(|w| [(w, "1"), (w, "8")]) {
        let dst = dir.path().join(format!("{way:?}{n}"));
        leftovers(&dst);
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        ended(command.args(["--protocol", "1", "-j", n])).assert_success();
        assert_copied(&src, &dst);
    }
}

#[test]
fn the_server_does_not_know_the_key_fcp() {
    let (dir, server) = (scratch(), OldServer::start());
    let src = dir.path().join("src");
    odd_tree(&src);
    for (way, n) in [Way::Push, Way::Pull].into_iter().flat_map(|w| [(w, "1"), (w, "8")]) {
        let dst = dir.path().join(format!("{way:?}{n}"));
        let copy = || ended(way.command(server.port, &src, &dst).args(["-j", n, "--stats"]));
        copy().assert_success();
        assert_copied(&src, &dst.join("src"));
        let again = copy();
        let told = again.assert_success().stdout_text();
        assert!(told.contains("Content bytes sent: 0\n"), "{told}");
    }
}

#[test]
fn what_version_1_cannot_do_is_refused_in_one_line() {
    let (dir, server) = (scratch(), OldServer::start());
    let src = dir.path().join("src");
    fs::write(&src, "x").unwrap();
    let dst = dir.path().join("dst");
    let run =
        |way: Way, options: &[&str]| ended(way.command(server.port, &src, &dst).args(options));
    let one_line = |finished: Finished, code: i32, words: &str| {
        let told = finished.assert_code(code).stderr_text();
        assert!(told.lines().count() == 1 && told.contains(words), "{told}");
        assert!(!dst.exists());
    };
    one_line(run(Way::Push, &["--dry-run"]), 4, "--dry-run");
    one_line(run(Way::Pull, &["--dry-run"]), 4, "--dry-run");
    one_line(run(Way::Push, &["--fsync", "batch"]), 4, "--fsync");
    one_line(run(Way::Push, &["--no-perms"]), 4, "--no-perms");
    one_line(run(Way::Push, &["--protocol", "2"]), 10, "version 1");
    one_line(run(Way::Pull, &["--protocol", "2"]), 10, "version 1");
    run(Way::Pull, &["--fsync", "batch", "--checksum"]).assert_success();
}

#[test]
fn a_name_that_version_1_cannot_say_is_not_guessed() {
    use std::os::unix::ffi::OsStrExt;
    let (dir, server) = (scratch(), OldServer::start());
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
    fs::write(&odd, "x").unwrap();
    let dst = dir.path().join("dst");
    let told = ended(&mut Way::Pull.command(server.port, &odd, &dst));
    assert!(told.assert_code(10).stderr_text().contains("UTF-8"));
    let told = ended(&mut Way::Push.command(server.port, &dir.path().join("dst"), &odd));
    assert_ne!(told.code(), Some(0));
    assert!(!dst.exists());
}

#[test]
fn p11_a_glob_brings_what_matches_it() {
    let (dir, server) = (scratch(), OldServer::start());
    for name in ["a.txt", "b.txt", "c.md"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let dst = dir.path().join("dst");
    let glob = url(server.port, dir.path().join("*.txt").as_os_str().as_encoded_bytes());
    ended(fcp().args(["pull", &glob]).arg(&dst)).assert_success();
    let mut found: Vec<_> =
        fs::read_dir(&dst).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, ["a.txt", "b.txt"]);
}

#[test]
fn p09_a_link_in_the_place_of_the_new_directory_is_not_followed() {
    let (dir, server) = (scratch(), OldServer::start());
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    fs::create_dir(&src).unwrap();
    fs::write(src.join("file"), "x").unwrap();
    fs::create_dir_all(dir.path().join("elsewhere")).unwrap();
    fs::create_dir(&dst).unwrap();
    symlink(dir.path().join("elsewhere"), dst.join("src")).unwrap();
    let told = ended(&mut Way::Pull.command(server.port, &src, &dst));
    assert_ne!(told.code(), Some(0));
    assert!(!dir.path().join("elsewhere/file").exists());
}

#[test]
fn a_link_that_is_left_out_is_named() {
    let (dir, server) = (scratch(), OldServer::start());
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    fs::create_dir(&src).unwrap();
    fs::write(src.join("file"), "x").unwrap();
    symlink("file", src.join("link")).unwrap();
    let told = ended(&mut Way::Push.command(server.port, &src, &dst));
    assert!(told.assert_success().stderr_text().contains("link"));
    assert!(dst.join("src/file").exists() && !dst.join("src/link").exists());
}
