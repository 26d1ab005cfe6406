//! The same rules over the same tree, by the rsync that is installed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use super::super::{RuleSet, Verdict};
use super::rules;
use super::table::MATCHING;
use fcp_proto::{Name, RelPath};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const DIRS: &[&[u8]] =
    &[b"a", b"a/b", b"a/b/c", b"a/a/b", b"foo", b"x/foo/bar", b".git", b"x/[d]", b"x*", b"\xff/a"];
const NAMES: &[&[u8]] = &[
    b"a.c",
    b"b.o",
    b"bar",
    b".hidden",
    b"*",
    b"[z]",
    b"z",
    b"back\\slash",
    b"sp ace",
    b"\xfe\xff",
    b"-",
    b"]",
    b"0",
    b"new\nline",
    b"A.C",
    b"{a,b}",
    b"'q",
    b"xfoo",
];

const LISTS: &[&[&[u8]]] = &[
    &[b"-*.o"],
    &[b"-foo"],
    &[b"-foo/"],
    &[b"-/foo"],
    &[b"-/a/b"],
    &[b"-a/b"],
    &[b"-b/"],
    &[b"-/*/b"],
    &[b"-a/*"],
    &[b"-*/a.c"],
    &[b"-a/**"],
    &[b"-/a/**"],
    &[b"-a/***"],
    &[b"-/foo/***"],
    &[b"-**/b"],
    &[b"-**b"],
    &[b"-**/foo/**"],
    &[b"-a**c"],
    &[b"-***"],
    &[b"-*/***"],
    &[b"+*/", b"+*.c", b"-*"],
    &[b"+foo/", b"+foo/bar", b"-*"],
    &[b"+/a/", b"+/a/b/***", b"-*"],
    &[b"+a/b/**", b"-b", b"-*.c"],
    &[b"+*.c", b"-a.*", b"-[[:upper:]]*"],
    &[b"-[!a-z]*"],
    &[b"-[^a-z]"],
    &[b"-[]z]"],
    &[b"-[a-]"],
    &[b"-[z"],
    &[b"-\\[z]"],
    &[b"-[z]"],
    &[b"-\\*"],
    &[b"-\\**"],
    &[b"-x\\*/**"],
    &[b"-back\\slash"],
    &[b"-back\\slash*"],
    &[b"-back\\\\slash*"],
    &[b"-?"],
    &[b"-.*"],
    &[b"-/.*/"],
    &[b"-\xfe*"],
    &[b"-?\xff"],
    &[b"-/\xff/a"],
    &[b"-[\xf0-\xff]*"],
    &[b"-new\nl*"],
    &[b"-sp ace"],
    &[b"-{a,b}"],
    &[b"-x/foo/bar/"],
    &[b"-foo/bar/*"],
    &[b"-a/[b]"],
    &[b"-[a/b]"],
    &[b"-/[a/b]"],
    &[b"-a[/]b"],
    &[b"-a?b"],
    &[b"-*c"],
    &[b"-*/*/*"],
    &[b"-/*/*/"],
    &[b"-**/"],
    &[b"-a//"],
    &[b"-/"],
    &[b"-[[:digit:][:punct:]]"],
    &[b"-[[:nope:]]"],
    &[b"-a*\\"],
];

#[test]
fn the_same_paths_are_selected_as_by_rsync() {
    let Some(tree) = tree_if_rsync() else { return };
    LISTS.iter().for_each(|list| assert_same(tree.path(), list));
}

#[test]
fn the_table_is_right_about_rsync() {
    let globs = MATCHING.iter().filter(|(pattern, ..)| !pattern.starts_with("re:"));
    for (pattern, matched, unmatched) in globs {
        let Some(tree) = tree_if_rsync() else { return };
        for text in matched.iter().chain(*unmatched) {
            plant_one(tree.path(), text);
        }
        assert_same(tree.path(), &[&[b"-", pattern.as_bytes()].concat()]);
    }
}

#[test]
fn random_rules_select_the_same_as_in_rsync() {
    let Some(tree) = tree_if_rsync() else { return };
    let piece = prop::sample::select(vec![
        "*",
        "**",
        "***",
        "?",
        "/",
        "a",
        "b",
        "foo",
        "c",
        ".",
        "[a-c]",
        "[!a]",
        "[",
        "]",
        "\\",
        "x",
        "[[:alpha:]]",
        "-",
        "/**",
        "/***",
        "**/",
    ]);
    let pattern = prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat());
    let rule = (prop::bool::weighted(0.3), pattern).prop_map(|(include, pattern)| {
        format!("{}{pattern}", if include { '+' } else { '-' }).into_bytes()
    });
    let lists = prop::collection::vec(rule, 1..4);
    // Each case is a process; the environment's PROPTEST_CASES asks for more.
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64);
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let check = |list: Vec<Vec<u8>>| {
        assert_same(tree.path(), &list.iter().map(Vec::as_slice).collect::<Vec<_>>());
        Ok(())
    };
    runner.run(&lists, check).unwrap();
}

fn assert_same(root: &Path, list: &[&[u8]]) {
    let (ours, theirs) = (selected(root, &rules(list)), listed(root, list));
    let show = |set: BTreeSet<&Vec<u8>>| -> Vec<String> {
        set.into_iter().map(|path| fcp_proto::escape(path)).collect()
    };
    assert!(
        ours == theirs,
        "rules {:?}: only ours {:?}, only rsync {:?}",
        list.iter().map(|rule| String::from_utf8_lossy(rule)).collect::<Vec<_>>(),
        show(ours.difference(&theirs).collect()),
        show(theirs.difference(&ours).collect()),
    );
}

fn tree_if_rsync() -> Option<tempfile::TempDir> {
    if Command::new("rsync").arg("--version").output().is_err() {
        println!("skipped: rsync is not installed");
        return None;
    }
    let tree = tempfile::tempdir().unwrap();
    plant(tree.path());
    Some(tree)
}

/// A path of the table, unless one is in the way that needs it to be of another kind.
fn plant_one(root: &Path, text: &str) {
    let path = root.join(text);
    let _ = fs::create_dir_all(path.parent().unwrap());
    let _ = if text.ends_with('/') {
        fs::create_dir_all(path)
    } else if path.exists() {
        Ok(())
    } else {
        fs::write(path, b"")
    };
}

fn plant(root: &Path) {
    for dir in DIRS {
        let dir = root.join(OsStr::from_bytes(dir));
        fs::create_dir_all(&dir).unwrap();
        for name in NAMES {
            let file = dir.join(OsStr::from_bytes(name));
            if !file.exists() {
                fs::write(file, b"").unwrap();
            }
        }
    }
    fs::write(root.join("a.c"), b"").unwrap();
    fs::write(root.join("bar"), b"").unwrap();
}

/// A walk that does not enter what is excluded; directories end with a slash.
fn selected(root: &Path, set: &RuleSet) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut open = vec![RelPath::root()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(root.join(OsStr::from_bytes(dir.as_bytes()))).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(&Name::new(entry.file_name().as_bytes()).unwrap()).unwrap();
            let is_dir = entry.file_type().unwrap().is_dir();
            let included = set.decide(&path, is_dir) == Verdict::Include;
            assert_eq!(set.admits(&path, is_dir), included, "parents were included");
            if included && is_dir {
                open.push(path.clone());
            }
            if included {
                found.insert([path.as_bytes(), if is_dir { b"/" } else { b"" }].concat());
            }
        }
    }
    found
}

/// What rsync would send.
fn listed(root: &Path, list: &[&[u8]]) -> BTreeSet<Vec<u8>> {
    let filters = list
        .iter()
        .map(|rule| OsString::from_vec([b"--filter=", &rule[..1], b" ", &rule[1..]].concat()));
    let output = Command::new("rsync")
        .args(["-rn8", "--out-format=%n"])
        .args(filters)
        .args([root.join(""), root.join("nowhere/")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|b| *b == b'\n').map(unescape_octal);
    lines.filter(|line| !line.is_empty() && line != b"./" && line != b"nowhere/").collect()
}

/// rsync prints a line feed as `\#012`, and a backslash that could be one as `\#134`.
fn unescape_octal(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let [first, tail @ ..] = rest {
        if let [b'\\', b'#', a, b, c, after @ ..] = rest {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}
