//! fastcopy 0.1.8, which nobody here wrote, at the other end.
//!
//! Version 1 keeps names, contents, modes and the mtimes of files; links, the mtimes of
//! directories, and names that are not UTF-8 have no place in it. Without Python or a package index
//! every test here is skipped and says so on stderr.

use std::fs;
use std::path::{Path, PathBuf};

use fcp_tests::compare::Compare;
use fcp_tests::fastcopy::Fastcopy;
use fcp_tests::tree::{self, Item};

use crate::programs::{Way, ended, fcpd, scratch, slashed};

/// What both can carry: sizes around version 1's chunks of 4 KiB, empty things, modes, odd names.
fn source(root: &Path) -> PathBuf {
    let src = root.join("src");
    let sizes = [0, 1, 4_095, 4_096, 4_097, 100_000, 1 << 20, (5 << 20) + 1];
    let mut items: Vec<Item> = sizes.iter().map(|n| Item::file(format!("sizes/{n}"), *n)).collect();
    items.extend((0..100).map(|n| Item::file(format!("many/{}/f{n}", n % 5), n)));
    items.extend([
        Item::file("private", 10).mode(0o600),
        Item::file("script", 10).mode(0o755),
        Item::file("sp ace/n\u{e4}me", 10),
        Item::dir("empty/dirs/below"),
        Item::dir("closed").mode(0o700),
    ]);
    tree::build(&src, &items);
    src
}

#[test]
#[ignore = "version 1 is not yet what connect and fcpd speak"]
fn v01_fcp_talks_to_fastcopys_server() {
    let Some(fastcopy) = Fastcopy::find() else { return };
    let dir = scratch();
    let src = source(dir.path());
    let server = fastcopy.serve();
    for (way, n) in [(Way::Push, "1"), (Way::Push, "8"), (Way::Pull, "1"), (Way::Pull, "8")] {
        let dst = dir.path().join(format!("{way:?}-{n}"));
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        ended(command.args(["-j", n])).assert_success();
        Compare::VERSION_1.assert_same(&src, &dst);
    }
}

#[test]
#[ignore = "version 1 is not yet what connect and fcpd speak"]
fn v02_fastcopys_client_talks_to_fcpd() {
    let Some(fastcopy) = Fastcopy::find() else { return };
    let dir = scratch();
    let src = source(dir.path());
    let server = fcpd();
    for n in [1, 8] {
        let [pushed, pulled] =
            ["pushed", "pulled"].map(|way| dir.path().join(format!("{way}-{n}")));
        fastcopy.push(&src, &pushed, n, server.port()).assert_success();
        Compare::VERSION_1.assert_same(&src, &pushed);
        fastcopy.pull(&src, &pulled, n, server.port()).assert_success();
        Compare::VERSION_1.assert_same(&src, &pulled);
    }
}

#[test]
#[ignore = "version 1 is not yet what connect and fcpd speak"]
fn v03_one_file_goes_either_way() {
    let Some(fastcopy) = Fastcopy::find() else { return };
    let dir = scratch();
    let src = dir.path().join("file");
    fs::write(&src, tree::random_bytes(300_000, 7)).unwrap();
    let server = fastcopy.serve();
    for way in [Way::Push, Way::Pull] {
        let dst = dir.path().join(format!("{way:?}"));
        fs::create_dir(&dst).unwrap();
        ended(&mut way.command(server.port(), &src, &dst)).assert_success();
        assert_eq!(fs::read(&src).unwrap(), fs::read(dst.join("file")).unwrap(), "{way:?}");
    }
}

#[test]
#[ignore = "version 1 is not yet what connect and fcpd speak"]
fn v04_both_of_ours_speak_version_1_when_told_to() {
    let (dir, server) = (scratch(), fcpd());
    let src = source(dir.path());
    for way in [Way::Push, Way::Pull] {
        let dst = dir.path().join(format!("{way:?}"));
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        ended(command.args(["--protocol", "1"])).assert_success();
        Compare::VERSION_1.assert_same(&src, &dst);
    }
}
