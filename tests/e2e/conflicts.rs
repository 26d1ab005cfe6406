//! Where operands and what is there conflict, and where we differ from rsync on purpose.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use fcp_tests::process::Finished;
use fcp_tests::sentinel::Sentinel;
use fcp_tests::tree::{self, Item};

use crate::programs::{Way, assert_unchanged, ended, fcp, fcpd, run_fcp, scratch, snapshot, url};

/// On purpose not as rsync, which removes an empty directory for a file: a directory that somebody
/// made is not ours to remove.
#[test]
fn a_file_does_not_take_the_place_of_an_empty_directory() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("file");
    fs::write(&src, "x").unwrap();
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        fs::create_dir_all(dst.join("file")).unwrap();
        let told = ended(&mut way.command(server.port(), &src, &dst));
        told.assert_code(23);
        assert!(told.stderr_text().contains("directory"), "{}", told.stderr_text());
        assert!(dst.join("file").is_dir());
    }
}

/// On purpose not as rsync, which removes the file: it may be the only copy of something that is
/// not in the source at all.
#[test]
fn a_directory_does_not_take_the_place_of_a_file() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::build(&src, &[Item::file("dir/in", 4), Item::file("other", 4)]);
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        tree::build(&dst, &[Item::file("dir", 3)]);
        let told = ended(&mut way.command(server.port(), &src.join(""), &dst));
        told.assert_code(23);
        assert!(told.stderr_text().contains("not a directory"), "{}", told.stderr_text());
        assert!(dst.join("dir").is_file() && dst.join("other").is_file(), "{way:?}");
    }
}

/// On purpose not as rsync, which gives an empty directory the destination's name as if it were a
/// file: whether a directory happens to be empty should not decide where it goes.
#[test]
fn an_empty_directory_goes_where_a_full_one_would() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        ended(&mut way.command(server.port(), &src, &dst)).assert_success();
        assert!(dst.join("src").is_dir(), "{way:?}");
    }
}

/// On purpose not as rsync, where it depends on how many files the server's pattern finds whether
/// the destination becomes a file or a directory.
#[test]
fn a_pattern_for_the_server_goes_into_a_directory_however_much_it_finds() {
    let (dir, server) = (scratch(), fcpd());
    fs::write(dir.path().join("file"), "x").unwrap();
    for pattern in ["f*", "[f]ile"] {
        let dst = dir.path().join(format!("out of {pattern}"));
        let src = url(server.port(), dir.path().join(pattern).as_os_str().as_bytes());
        run_fcp([OsString::from(src), dst.clone().into()]).assert_success();
        assert!(dst.join("file").is_file(), "{pattern}");
    }
}

/// On purpose not as rsync, which puts a directory in the link's place: people move a big directory
/// to another disk and leave a link.
#[test]
fn a_linked_directory_at_the_destination_is_followed_beneath_the_root_only() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::build(&src, &[Item::file("in/new", 4), Item::file("out/new", 4)]);
    let sentinel = Sentinel::plant(&dir.path().join("elsewhere/sentinel"));
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        fs::create_dir_all(dst.join("real")).unwrap();
        symlink("real", dst.join("in")).unwrap();
        symlink(dir.path().join("elsewhere"), dst.join("out")).unwrap();
        let told = ended(&mut way.command(server.port(), &src.join(""), &dst));
        assert!(dst.join("in").is_symlink() && dst.join("real/new").exists(), "{way:?}");
        sentinel.assert_untouched();
        let outside = dst.join("out");
        assert!(told.code() == Some(23) || !outside.is_symlink(), "{way:?}: {told:?}");
    }
}

#[test]
fn a_missing_source_does_not_hold_up_the_others() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("here");
    fs::write(&src, "x").unwrap();
    let dst = dir.path().join("dst");
    let remote = |path: &Path| OsString::from(url(server.port(), path.as_os_str().as_bytes()));
    let missing = dir.path().join("missing");
    let runs: [(&str, [OsString; 3]); 3] = [
        ("push", [missing.clone().into(), src.clone().into(), remote(&dst)]),
        ("pull", [remote(&missing), remote(&src), dst.clone().into()]),
        ("local", [missing.into(), src.into(), dst.clone().into()]),
    ];
    for (what, operands) in runs {
        let told = run_fcp(operands);
        told.assert_code(23);
        assert!(told.stderr_text().contains("missing: "), "{what}: {}", told.stderr_text());
        // Two operands, so the destination is a directory whatever became of the first.
        assert!(dst.join("here").exists(), "{what}");
        fs::remove_dir_all(&dst).unwrap();
    }
}

fn tree_text(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found: Vec<_> = snapshot(root)
        .into_iter()
        .filter(|(path, _)| path.is_file())
        .map(|(path, _)| (path.clone(), fs::metadata(path).unwrap().size()))
        .collect();
    found.sort();
    found
}

fn local(args: &[&Path]) -> Finished {
    ended(fcp().args(args))
}

#[test]
fn a_copy_onto_itself_changes_nothing() {
    let dir = scratch();
    let src = dir.path().join("src");
    tree::small(&src);
    let before = snapshot(&src);
    local(&[&src, dir.path()]).assert_success();
    local(&[&src.join(""), &src]).assert_success();
    local(&[&src.join("one"), &src.join("one")]).assert_success();
    local(&[&src.join("one"), &src]).assert_success();
    ended(fcp().arg("-c").args([&src, dir.path()])).assert_success();
    assert_unchanged(&before, &src);
}

/// As cp: rsync copies as much of its own copies as it comes across.
#[test]
fn a_directory_is_not_copied_into_itself() {
    let dir = scratch();
    // The last two name the whole source, of which nothing is left then.
    for dst in ["src/new", "src/new/er", "src/docs", "src/docs/deep/er", "src", "src/"] {
        let src = dir.path().join("src");
        tree::small(&src);
        let before = tree_text(&src);
        let mut command = fcp();
        let told = ended(command.arg("--mkpath").arg(&src).arg(dir.path().join(dst)));
        if dst.starts_with("src/new") {
            told.assert_success();
        } else {
            told.assert_code(23);
            assert!(told.stderr_text().contains("not copied into itself"), "{told:?}");
        }
        let after = tree_text(&src);
        assert!(before.iter().all(|file| after.contains(file)), "{dst}: {told:?}");
        assert!(after.len() <= 2 * before.len(), "{dst}: {after:?}");
        let copied = dst != "src" && dst != "src/";
        assert_eq!(dir.path().join(dst).join("src/script.sh").exists(), copied, "{dst}");
        fs::remove_dir_all(&src).unwrap();
    }
}

#[test]
fn a_directory_pushed_into_itself_ends_too() {
    let (dir, server) = (scratch(), fcpd());
    for way in [Way::Push, Way::Pull] {
        let src = dir.path().join("src");
        tree::small(&src);
        let before = tree_text(&src);
        let told = ended(&mut way.command(server.port(), &src, &src.join("new")));
        assert!(!told.timed_out);
        let after = tree_text(&src);
        assert!(before.iter().all(|file| after.contains(file)), "{told:?}");
        assert!(after.len() <= 3 * before.len(), "it copied its copies: {}", after.len());
        fs::remove_dir_all(&src).unwrap();
    }
}
