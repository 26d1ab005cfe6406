//! Which operands make which tree: the same as rsync makes of them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use fcp_tests::compare::Compare;
use fcp_tests::process::{Daemon, Finished};
use fcp_tests::sentinel::Sentinel;
use fcp_tests::tree::{self, Item};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::programs::{Way, ended, fcp, fcpd, run_fcp, scratch, url};

/// What stands where the copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing; the directory that would hold it is there.
    Nothing,
    /// A directory with a file of another name.
    Dir,
    /// A file.
    File,
    /// A directory with older things of the same names.
    Full,
    /// A link to a directory.
    LinkToDir,
    /// A link to nothing.
    DanglingLink,
    /// Files where the sources have directories.
    FilesForDirs,
    /// Links where the sources have files.
    LinksForFiles,
    /// Directories with something in them where the sources have files.
    DirsForFiles,
}

struct Case {
    sources: &'static [&'static str],
    at: At,
    dst: &'static str,
    options: &'static [&'static str],
    /// Our exit code where it is not rsync's, and why that is on purpose.
    code: Option<i32>,
}

const fn case(sources: &'static [&'static str], at: At, dst: &'static str) -> Case {
    Case { sources, at, dst, options: &[], code: None }
}

/// Two sources of one name: we say so, rsync takes the first in silence.
const fn collision(sources: &'static [&'static str], at: At, dst: &'static str) -> Case {
    Case { sources, at, dst, options: &[], code: Some(23) }
}

/// Patterns are expanded by the shell for sources here, by the server for sources there.
const CASES: &[Case] = &[
    case(&["file"], At::Nothing, "out"),
    case(&["file"], At::Nothing, "out/"),
    case(&["file"], At::Dir, "out"),
    case(&["file"], At::Dir, "out/"),
    case(&["file"], At::Dir, "out/new-name"),
    case(&["file"], At::Dir, "out/."),
    case(&["file"], At::File, "out"),
    case(&["file"], At::Full, "out"),
    case(&["file"], At::LinkToDir, "out"),
    case(&["file"], At::LinkToDir, "out/"),
    case(&["file", "other"], At::Nothing, "out"),
    case(&["file", "other"], At::Nothing, "out/"),
    case(&["file", "other"], At::Dir, "out"),
    case(&["file", "other", "dir"], At::LinkToDir, "out"),
    case(&["empty"], At::Nothing, "out"),
    case(&["dir"], At::Nothing, "out"),
    case(&["dir"], At::Nothing, "out/"),
    case(&["dir/"], At::Nothing, "out"),
    case(&["dir/"], At::Nothing, "out/"),
    case(&["dir//"], At::Nothing, "out//"),
    case(&["dir/."], At::Nothing, "out"),
    case(&["dir/sub/.."], At::Nothing, "out"),
    case(&["dir//sub"], At::Nothing, "out"),
    case(&["dir"], At::Dir, "out"),
    case(&["dir/"], At::Dir, "out"),
    case(&["dir"], At::Full, "out"),
    case(&["dir/"], At::Full, "out/dir"),
    case(&["dir/"], At::Full, "out"),
    case(&["dir/"], At::LinkToDir, "out"),
    case(&["."], At::Nothing, "out"),
    case(&["./"], At::Dir, "out"),
    case(&["emptydir"], At::Nothing, "out"),
    case(&["emptydir/"], At::Nothing, "out"),
    case(&["emptydir/"], At::Dir, "out"),
    case(&["dir", "dir2"], At::Nothing, "out"),
    case(&["dir/", "dir2"], At::Nothing, "out"),
    case(&["dir/sub/c", "dir2/d"], At::Dir, "out"),
    case(&["dir", "file"], At::Full, "out"),
    case(&["link"], At::Nothing, "out"),
    case(&["link"], At::Dir, "out"),
    case(&["link"], At::Full, "out"),
    case(&["dirlink"], At::Nothing, "out"),
    case(&["dirlink/"], At::Nothing, "out"),
    case(&["dangling"], At::Dir, "out"),
    case(&["*"], At::Dir, "out"),
    case(&["*"], At::Full, "out"),
    case(&["f*"], At::Nothing, "out"),
    case(&["d*r"], At::Nothing, "out"),
    case(&["dir*/sub"], At::Nothing, "out"),
    case(&["?ile", "o[s-u]her"], At::Dir, "out"),
    case(&[".h*"], At::Dir, "out"),
    case(&[".hidden", ".dotdir"], At::Dir, "out"),
    case(&["odd[1]"], At::Dir, "out"),
    case(&["dir"], At::FilesForDirs, "out"),
    case(&["dir/"], At::FilesForDirs, "out"),
    case(&["file", "other"], At::LinksForFiles, "out"),
    case(&["file", "other"], At::DirsForFiles, "out"),
    case(&["missing", "file"], At::Dir, "out"),
    case(&["missing"], At::Dir, "out"),
    // What cannot be.
    case(&["file"], At::File, "out/"),
    case(&["file", "other"], At::File, "out"),
    case(&["dir"], At::File, "out"),
    case(&["dir/"], At::File, "out"),
    case(&["file"], At::Nothing, "out/deep/er"),
    case(&["dir"], At::Nothing, "out/deep/er"),
    case(&["dir"], At::DanglingLink, "out"),
    // With parents made.
    Case { options: &["--mkpath"], ..case(&["file"], At::Nothing, "out/deep/er") },
    Case { options: &["--mkpath"], ..case(&["file"], At::Nothing, "out/deep/er/") },
    Case { options: &["--mkpath"], ..case(&["file"], At::Nothing, "out/name") },
    Case { options: &["--mkpath"], ..case(&["file", "other"], At::Dir, "out/a/b/c") },
    Case { options: &["--mkpath"], ..case(&["dir"], At::Nothing, "out/deep/er") },
    Case { options: &["--mkpath"], ..case(&["dir/"], At::Dir, "out/deep") },
    // The same name twice.
    collision(&["dir/", "dir2/"], At::Nothing, "out"),
    collision(&["file", "dir3/file"], At::Dir, "out"),
];

#[test]
fn operands_make_the_tree_that_rsync_makes_push() {
    check_all(Way::Push);
}

#[test]
fn operands_make_the_tree_that_rsync_makes_pull() {
    check_all(Way::Pull);
}

#[test]
fn operands_make_the_tree_that_rsync_makes_local() {
    check_all(Way::Local);
}

fn check_all(way: Way) {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    sources(&src);
    let mut wrong = Vec::new();
    for (n, case) in CASES.iter().enumerate() {
        let [theirs, ours] = ["rsync", "fcp"].map(|who| dir.path().join(format!("{n}-{who}")));
        prepare(&theirs, case.at);
        prepare(&ours, case.at);
        // So that what a run touches is newer than what was there.
        let began = SystemTime::now() - Duration::from_secs(1);
        let by_rsync = rsync(case, &src, &theirs);
        let by_us = ended(&mut command(way, case, &src, &ours, &server));
        normalise(&theirs, began);
        normalise(&ours, began);
        let mut lines = Compare::EXACT.differences(&theirs, &ours);
        let agreed = match case.code {
            Some(code) => by_us.code() == Some(code),
            None => (by_rsync == 0) == (by_us.code() == Some(0)),
        };
        if !agreed {
            lines.push(format!("rsync ended with {by_rsync}, fcp with {:?}", by_us.code()));
        }
        if !lines.is_empty() {
            let Case { sources, at, dst, options, .. } = case;
            wrong.push(format!(
                "{sources:?} -> {dst} ({at:?}) {options:?}:\n    {}\n    {}",
                lines.join("\n    "),
                by_us.stderr_text()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

fn sources(root: &Path) {
    let old = |item: Item, n: i64| item.mtime(1_400_000_000 + n, n);
    tree::build(
        root,
        &[
            old(Item::file("file", 100), 1),
            old(Item::file("other", 50), 2),
            old(Item::file("empty", 0), 3),
            old(Item::file("dir/a", 10).mode(0o600), 4),
            old(Item::file("dir/b", 11), 5),
            old(Item::file("dir/sub/c", 12), 6),
            old(Item::file("dir2/a", 20), 7),
            old(Item::file("dir2/d", 21), 8),
            old(Item::file("dir3/file", 22), 9),
            old(Item::symlink("link", "file"), 10),
            old(Item::symlink("dirlink", "dir"), 11),
            old(Item::symlink("dangling", "nowhere"), 12),
            old(Item::file(".hidden", 5), 13),
            old(Item::file(".dotdir/x", 5), 14),
            old(Item::file("odd[1]", 6), 15),
            old(Item::file("odd1", 7), 16),
            old(Item::dir("emptydir").mode(0o700), 17),
            old(Item::dir("dir").mode(0o750), 18),
            old(Item::dir("dir/sub"), 19),
            old(Item::dir("dir2"), 20),
            old(Item::dir("dir3"), 21),
            old(Item::dir(".dotdir"), 22),
            old(Item::dir(""), 23),
        ],
    );
}

fn prepare(root: &Path, at: At) {
    let out = root.join("out");
    let kept = Item::file("kept", 3);
    fs::create_dir(root).unwrap();
    match at {
        At::Nothing => {}
        At::Dir => tree::build(&out, &[kept]),
        At::File => fs::write(&out, "old").unwrap(),
        At::Full => tree::build(
            &out,
            &[
                kept,
                Item::file("file", 9).mode(0o600),
                Item::file("link", 9),
                Item::file("dir/a", 9),
                Item::file("dir/old", 9),
                Item::file("dir/sub/old", 9),
                Item::dir("dir").mode(0o700),
            ],
        ),
        At::LinkToDir => {
            tree::build(&root.join("real"), &[kept]);
            symlink("real", &out).unwrap();
        }
        At::DanglingLink => symlink("nowhere", &out).unwrap(),
        At::FilesForDirs => tree::build(&out, &[Item::file("dir", 3), Item::file("sub", 3)]),
        At::LinksForFiles => {
            tree::build(&out, &[kept, Item::symlink("file", "kept"), Item::symlink("other", "/etc")]);
        }
        At::DirsForFiles => tree::build(&out, &[Item::file("file/in", 3), Item::file("other/in", 3)]),
    }
}

/// rsync with the operands that a shell makes of what was typed.
fn rsync(case: &Case, src: &Path, root: &Path) -> i32 {
    let mut command = Command::new("rsync");
    command.args(["-rlpt", "--protect-args"]).args(case.options).current_dir(src);
    command.args(expanded(case.sources, src)).arg(root.join(case.dst));
    let slashes = keep_tail(root, case.dst);
    let args: Vec<OsString> = command.get_args().map(OsStr::to_owned).collect();
    let mut command = Command::new("rsync");
    command.args(&args[..args.len() - 1]).arg(slashes).current_dir(src);
    ended(&mut command).code().unwrap()
}

/// `root/dst` with every slash of `dst`, which `Path::join` does keep only as text.
fn keep_tail(root: &Path, dst: &str) -> OsString {
    let mut path = root.as_os_str().to_owned();
    path.push("/");
    path.push(dst);
    path
}

fn expanded(sources: &[&str], src: &Path) -> Vec<OsString> {
    let mut found = Vec::new();
    for source in sources {
        // A pattern that matches nothing stays as it is.
        let script = format!("printf '%s\\0' {source}");
        let output = Command::new("sh").args(["-c", &script]).current_dir(src).output().unwrap();
        let names = output.stdout.split(|b| *b == 0).filter(|n| !n.is_empty());
        found.extend(names.map(|n| OsString::from_vec(n.to_vec())));
    }
    // `odd[1]` is the name of a file and a pattern that matches another one: here, the name.
    found.iter_mut().filter(|n| *n == "odd1" && sources.contains(&"odd[1]")).for_each(|n| *n = "odd[1]".into());
    found
}

fn command(way: Way, case: &Case, src: &Path, root: &Path, server: &Daemon) -> Command {
    let mut command = fcp();
    let dst = keep_tail(root, case.dst);
    let remote = |path: &OsStr| url(server.port(), path.as_bytes());
    match way {
        Way::Push => command.arg("push").args(expanded(case.sources, src)).arg(remote(&dst)),
        Way::Local => command.args(expanded(case.sources, src)).arg(dst),
        Way::Pull => {
            let sources = case.sources.iter().map(|s| remote(&keep_tail(src, s)));
            command.arg("pull").args(sources).arg(dst)
        }
    };
    command.args(case.options).current_dir(src);
    command
}

/// Gives every directory that a run touched one mtime: no two runs touch at the same nanosecond.
fn normalise(root: &Path, began: SystemTime) {
    let m = fs::symlink_metadata(root).unwrap();
    if !m.is_dir() {
        return;
    }
    for entry in fs::read_dir(root).unwrap() {
        normalise(&entry.unwrap().path(), began);
    }
    if m.modified().unwrap() > began {
        let time = Timespec { tv_sec: 2_000_000_000, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, root, &times, AtFlags::empty()).unwrap();
    }
}

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
    let mut found: Vec<_> = crate::programs::snapshot(root)
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
    let before = crate::programs::snapshot(&src);
    local(&[&src, dir.path()]).assert_success();
    local(&[&src.join(""), &src]).assert_success();
    local(&[&src.join("one"), &src.join("one")]).assert_success();
    local(&[&src.join("one"), &src]).assert_success();
    ended(fcp().arg("-c").args([&src, dir.path()])).assert_success();
    crate::programs::assert_unchanged(&before, &src);
}

/// rsync copies what it listed before it began, and says nothing.
#[test]
fn a_directory_copied_into_itself_ends_and_keeps_its_files() {
    let dir = scratch();
    for dst in ["src/new", "src/docs", "src/docs/deep/er"] {
        let src = dir.path().join("src");
        tree::small(&src);
        let before = tree_text(&src);
        let told = local(&[&src, &dir.path().join(dst)]);
        assert!(!told.timed_out, "{dst}");
        let after = tree_text(&src);
        assert!(before.iter().all(|file| after.contains(file)), "{dst}: {told:?}");
        assert!(after.len() <= 3 * before.len(), "{dst}: it copied its copies: {}", after.len());
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
