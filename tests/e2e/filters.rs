//! What is left out, and what a server's pattern finds.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fcp_tests::process::{Daemon, Finished};
use fcp_tests::tree::{self, Item};

use crate::programs::{Way, ended, fcpd, run_fcp, scratch, slashed, snapshot, url};

/// Names of everything below `root`.
fn names(root: &Path) -> BTreeSet<String> {
    let below = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    snapshot(root).keys().map(|p| below(p)).filter(|name| !name.is_empty()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn source(root: &Path) {
    let paths =
        ["a.txt", "b.log", "c.txt", ".hidden", "d/a.txt", "d/b.log", "d/e/a.txt", "keep/b.log"];
    tree::build(root, &paths.map(|path| Item::file(path, 3)));
}

#[test]
fn the_first_rule_that_matches_wins_and_means_what_it_means_to_rsync() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    source(&src);
    let rules: [&[&str]; 14] = [
        &["--exclude=*.log"],
        &["--include=keep/b.log", "--exclude=*.log"],
        &["--exclude=*.log", "--include=keep/b.log"],
        &["--exclude=/a.txt"],
        &["--exclude=a.txt"],
        &["--exclude=d/"],
        &["--exclude=d/*.txt"],
        &["--exclude=d/**"],
        &["--exclude=**/e/**"],
        &["--include=*/", "--include=*.txt", "--exclude=*"],
        &["--include=d/", "--include=d/a.txt", "--exclude=*"],
        &["--exclude=.*"],
        &["--exclude=[ab].*"],
        &["--exclude=?.txt", "--exclude", "nothing"],
    ];
    for (n, rules) in rules.into_iter().enumerate() {
        let theirs = dir.path().join(format!("{n}-rsync"));
        let mut rsync = std::process::Command::new("rsync");
        ended(rsync.arg("-rlpt").args(rules).args([slashed(&src), slashed(&theirs)]))
            .assert_success();
        for way in Way::ALL {
            let ours = dir.path().join(format!("{n}-{way:?}"));
            ended(way.command(server.port(), &slashed(&src), &ours).args(rules)).assert_success();
            assert_eq!(names(&theirs), names(&ours), "{way:?} {rules:?}");
        }
    }
}

#[test]
fn a_regex_matches_the_whole_path() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    source(&src);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        ended(command.args(["--exclude", r"re:.*\.(log|txt)"])).assert_success();
        assert_eq!(names(&dst), set(&[".hidden", "d", "d/e", "keep"]), "{way:?}");
        let bad = ended(way.command(server.port(), &src, &dst).args(["--exclude", "re:("]));
        bad.assert_code(1);
        assert_eq!(bad.stderr_text().lines().count(), 1, "{}", bad.stderr_text());
    }
}

#[test]
fn a_file_named_by_an_operand_obeys_the_rules_as_in_rsync() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    source(&src);
    for operand in ["b.log", "d"] {
        let theirs = dir.path().join(format!("{operand}-rsync"));
        fs::create_dir(&theirs).unwrap();
        let rules = ["--exclude=*.log", "--exclude=/d"];
        let mut rsync = std::process::Command::new("rsync");
        ended(rsync.arg("-rlpt").args(rules).args([src.join(operand), slashed(&theirs)]));
        for way in Way::ALL {
            let ours = dir.path().join(format!("{operand}-{way:?}"));
            fs::create_dir(&ours).unwrap();
            let told = ended(way.command(server.port(), &src.join(operand), &ours).args(rules));
            assert_eq!(names(&theirs), names(&ours), "{way:?} {operand}: {told:?}");
        }
    }
}

fn pull(server: &Daemon, sources: &[&Path], dst: &Path) -> Finished {
    let remote = |path: &&Path| OsString::from(url(server.port(), path.as_os_str().as_bytes()));
    run_fcp(sources.iter().map(remote).chain([dst.into()]))
}

#[test]
fn a_pattern_is_expanded_by_the_server_as_by_a_shell() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    let paths = ["a1", "a2", "b1", ".a", "x[1]", "x1", "back\\slash", "sub/a1", "tab/a3"];
    tree::build(&src, &paths.map(|path| Item::file(path, 3)));
    let table: [(&str, &[&str]); 13] = [
        ("a*", &["a1", "a2"]),
        ("?1", &["a1", "b1", "x1"]),
        ("[ab]1", &["a1", "b1"]),
        ("[!a]1", &["b1", "x1"]),
        (".*", &[".a"]),
        ("*", &["a1", "a2", "b1", "x[1]", "x1", "back\\slash", "sub", "sub/a1", "tab", "tab/a3"]),
        // The name as typed comes first.
        ("x[1]", &["x[1]"]),
        ("x\\[1\\]", &["x[1]"]),
        ("back\\slash", &["back\\slash"]),
        ("s*/a1", &["a1"]),
        ("[st]*/", &["a1", "a3"]),
        ("?ab/*", &["a3"]),
        ("t[a]b", &["tab", "tab/a3"]),
    ];
    for (n, (pattern, found)) in table.into_iter().enumerate() {
        let dst = dir.path().join(format!("{n}"));
        fs::create_dir(&dst).unwrap();
        // Not joined: a trailing slash counts.
        let typed = format!("{}/{pattern}", src.display());
        pull(&server, &[Path::new(&typed)], &dst).assert_success();
        assert_eq!(names(&dst), set(found), "{pattern}");
    }
}

#[test]
fn a_pattern_that_finds_nothing_is_reported() {
    let (dir, server) = (scratch(), fcpd());
    fs::write(dir.path().join("here"), "x").unwrap();
    let dst = dir.path().join("dst");
    let told = pull(&server, &[&dir.path().join("no*")], &dst);
    told.assert_code(23);
    assert!(told.stderr_text().contains("no*"), "{}", told.stderr_text());
    assert!(!dst.exists());
    pull(&server, &[&dir.path().join("no*"), &dir.path().join("her*")], &dst).assert_code(23);
    assert!(dst.join("here").exists());
}
