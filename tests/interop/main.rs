//! Version 1 on the wire: fastcopy 0.1.8 against ours, each as client and as server, and our own
//! two programs where one of them is older or told to be.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails here is a failed test")]

mod fastcopy;
mod old_server;
#[path = "../e2e/programs.rs"]
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
mod programs;
mod skew;

use std::fs;
use std::path::Path;

use fcp_tests::compare::Compare;
use fcp_tests::tree::{self, Item};

const MIB: u64 = 1 << 20;

/// What version 1 can carry, and its receivers got wrong.
fn odd_tree(root: &Path) {
    let sizes = [0, 1, 4_095, 4_096, 4_097, 65_535, 262_145, 3 * MIB + 1, 5 * MIB];
    let mut items: Vec<Item> = sizes.iter().map(|n| Item::file(format!("sizes/{n}"), *n)).collect();
    for mode in [0o400, 0o444, 0o600, 0o640, 0o755, 0o777] {
        items.push(Item::file(format!("modes/{mode:o}"), 10).mode(mode));
    }
    for n in 0..200 {
        items.push(Item::file(format!("many/d{}/f{n}", n % 7), n));
    }
    let names = ["\u{fc}n\u{ef}c\u{f6}de/\u{1f980}", "a b\t'\"c/-rf", "deep/er/and/deep/er/leaf"];
    items.extend(names.map(|name| Item::file(name, 100)));
    items.push(Item::file("old", 10).mtime(1, 500_000));
    items.push(Item::dir("empty"));
    items.push(Item::dir("private/inner").mode(0o700));
    items.push(Item::dir("private").mode(0o750));
    tree::build(root, &items);
}

/// What stands in the way at the destination of an [`odd_tree`].
fn leftovers(dst: &Path) {
    fs::create_dir_all(dst.join("sizes")).unwrap();
    // D01: content that an empty file must replace. D02: content longer than what comes.
    fs::write(dst.join("sizes/0"), "something").unwrap();
    fs::write(dst.join("sizes/4096"), vec![7; 300_000]).unwrap();
    fs::write(dst.join("sizes/1"), vec![7; 4_097]).unwrap();
    // Half of it is there, and half is wrong.
    fs::write(dst.join("sizes/3145729"), vec![0; 2_000_000]).unwrap();
}

#[track_caller]
fn assert_copied(src: &Path, dst: &Path) {
    Compare::VERSION_1.assert_same(src, dst);
}
