//! Against fastcopy 0.1.8; skipped with a notice where it cannot be installed.

use std::fs;
use std::path::Path;

use fcp_tests::fastcopy::Fastcopy;
use fcp_tests::process::Daemon;

use crate::programs::{Way, ended, fcp, fcpd, scratch, slashed, url};
use crate::{assert_copied, leftovers, odd_tree};

#[test]
fn d01_d02_its_client_pushes_to_fcpd() {
    let Some(peer) = Fastcopy::find() else { return };
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    odd_tree(&src);
    for n in [1, 8] {
        let dst = dir.path().join(format!("dst{n}"));
        leftovers(&dst);
        peer.push(&src, &dst, n, server.port()).assert_success();
        assert_copied(&src, &dst);
    }
}

#[test]
fn its_client_pushes_one_file_to_fcpd_under_a_new_name() {
    let Some(peer) = Fastcopy::find() else { return };
    let (dir, server) = (scratch(), fcpd());
    let (src, dst) = (dir.path().join("one"), dir.path().join("made/two"));
    fs::write(&src, vec![3; 10_000]).unwrap();
    peer.push(&src, &dst, 2, server.port()).assert_success();
    assert_eq!(fs::read(&dst).unwrap(), vec![3; 10_000]);
}

#[test]
fn its_client_pulls_from_fcpd() {
    let Some(peer) = Fastcopy::find() else { return };
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    odd_tree(&src);
    for n in [1, 8] {
        let dst = dir.path().join(format!("dst{n}"));
        peer.pull(&src, &dst, n, server.port()).assert_success();
        assert_copied(&src, &dst);
    }
}

#[test]
fn fcp_pushes_to_its_server() {
    let Some(server) = Fastcopy::find().map(|peer| peer.serve()) else { return };
    let dir = scratch();
    let src = dir.path().join("src");
    odd_tree(&src);
    for n in ["1", "8"] {
        let dst = dir.path().join(format!("dst{n}"));
        let push = |src: &Path, dst: &Path| {
            let mut command = Way::Push.command(server.port(), src, dst);
            ended(command.args(["-j", n])).assert_success();
        };
        push(&slashed(&src), &dst);
        assert_copied(&src, &dst);
        push(&src, &dst.join("named"));
        assert_copied(&src, &dst.join("named/src"));
        push(&src.join("sizes/4097"), &dst.join("renamed"));
        assert_eq!(fs::read(dst.join("renamed")).unwrap().len(), 4097);
    }
}

#[test]
fn d01_d02_fcp_pulls_from_its_server() {
    let Some(server) = Fastcopy::find().map(|peer| peer.serve()) else { return };
    let dir = scratch();
    let src = dir.path().join("src");
    odd_tree(&src);
    for n in ["1", "8"] {
        let dst = dir.path().join(format!("dst{n}"));
        leftovers(&dst);
        let pull = |src: &Path, dst: &Path| {
            let mut command = Way::Pull.command(server.port(), src, dst);
            ended(command.args(["-j", n])).assert_success();
        };
        pull(&slashed(&src), &dst);
        assert_copied(&src, &dst);
        pull(&src, &dst.join("named"));
        assert_copied(&src, &dst.join("named/src"));
        pull(&src.join("sizes/4097"), &dst.join("renamed"));
        assert_eq!(fs::read(dst.join("renamed")).unwrap().len(), 4097);
    }
}

#[test]
fn fcp_pulls_several_sources_from_its_server_and_leaves_out_what_rules_exclude() {
    let Some(server) = Fastcopy::find().map(|peer| peer.serve()) else { return };
    let dir = scratch();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    odd_tree(&src);
    let remote = |path: &str| url(server.port(), src.join(path).as_os_str().as_encoded_bytes());
    let mut command = fcp();
    command.args(["pull", "--exclude", "/many/d1", "--exclude", "f??"]);
    command.args([remote("many"), remote("sizes/1"), remote("gone"), remote("modes/")]).arg(&dst);
    // What is not there does not keep the rest from coming.
    ended(&mut command).assert_code(23);
    let mut found: Vec<_> = fs::read_dir(&dst)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, ["1", "400", "444", "600", "640", "755", "777", "many"]);
    assert!(!dst.join("many/d1").exists() && dst.join("many/d2/f2").exists());
    assert!(!dst.join("many/d2/f16").exists() && dst.join("many/d2/f9").exists());
}

#[test]
fn both_servers_have_nothing_to_say_about_what_is_not_there() {
    let Some(peer) = Fastcopy::find() else { return };
    let dir = scratch();
    for server in [peer.serve(), fcpd()] {
        let gone = dir.path().join("gone");
        let mut command = Way::Pull.command(server.port(), &gone, &dir.path().join("dst"));
        ended(command.args(["--protocol", "1"])).assert_code(23);
        assert!(!dir.path().join("dst").exists());
        still_serves(&server);
    }
}

fn still_serves(server: &Daemon) {
    let dir = scratch();
    let src = dir.path().join("src");
    fs::write(&src, "x").unwrap();
    let dst = dir.path().join("dst");
    ended(&mut Way::Pull.command(server.port(), &src, &dst)).assert_success();
    assert_eq!(fs::read(dst).unwrap(), b"x");
}
