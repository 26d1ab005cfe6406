//! Trees from folder to folder, through the same code as over SFTP.

mod hostile;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use fcp_common::engine::{Counters, EntryReport, Report};
use fcp_common::select::{Rule, RuleSet};
use fcp_proto::packet::{Outcome, Problem, Summary};

use super::*;

/// What was told, in lines.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Report for Told {
    fn entry(&self, entry: EntryReport) {
        let outcome = match entry.outcome {
            Outcome::Failed(error) => format!("failed {}", error.text),
            other => format!("{other:?}"),
        };
        self.put(format!("{outcome} {}", fcp_proto::escape(&entry.path)));
    }
    fn problem(&self, problem: Problem) {
        self.put(format!("problem {} {}", fcp_proto::escape(&problem.path), problem.error.text));
    }
    fn skipped(&self, path: Vec<u8>, why: &str) {
        self.put(format!("skipped {} {why}", fcp_proto::escape(&path)));
    }
}

impl Told {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn put(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

/// Runs `fcp ARGS SOURCES DESTINATION`; gives the summary and what was told, sorted.
fn copy(
    args: &[&str],
    sources: &[&Path],
    destination: &str,
) -> (Result<Summary, CliError>, Vec<String>) {
    let words = ["fcp"].iter().chain(args).chain(&["a", "b"]).map(ToString::to_string);
    let cli = crate::cli::parse(words.map(Into::into)).unwrap();
    let rules = cli.options.filters.iter().map(|filter| {
        let pattern = filter.pattern.as_bytes();
        if filter.include { Rule::include(pattern) } else { Rule::exclude(pattern) }.unwrap()
    });
    let told = Arc::new(Told::default());
    let tell = Tell::new(told.clone(), Arc::new(Counters::default()));
    let copy = Copy {
        options: &cli.options,
        filters: RuleSet::new(rules.collect()).unwrap(),
        from: Host::Here,
        sources: sources.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
        to: Host::Here,
        destination: destination.as_bytes(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let done = runtime.block_on(copy.run(tell));
    let mut lines = told.0.lock().unwrap().clone();
    lines.sort();
    (done, lines)
}

fn tree(root: &Path) {
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::write(root.join("one"), "1").unwrap();
    fs::write(root.join("sub/two\n'\""), "22").unwrap();
    fs::write(root.join("sub/deep/three"), vec![3; 400_000]).unwrap();
    fs::write(root.join("sub/empty"), "").unwrap();
    symlink("one", root.join("link")).unwrap();
    symlink("/nobody/here", root.join("sub/dangling")).unwrap();
    fs::set_permissions(root.join("one"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::set_permissions(root.join("sub/deep"), fs::Permissions::from_mode(0o550)).unwrap();
}

#[track_caller]
fn assert_agrees(a: &Path, b: &Path) {
    let slashed = |path: &Path| format!("{}/", path.display());
    let output = Command::new("rsync")
        .args(["-rlptn", "--delete", "-i", "--checksum", &slashed(a), &slashed(b)])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

fn slashed(path: &Path) -> std::path::PathBuf {
    path.join("")
}

#[test]
fn a_tree_arrives_and_a_second_run_finds_nothing_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let (src, dst) = (temp.path().join("src"), temp.path().join("dst"));
    tree(&src);
    let (done, told) = copy(&[], &[&slashed(&src)], dst.to_str().unwrap());
    assert_eq!((done.unwrap().failed, told.len()), (0, 8), "{told:?}");
    assert_agrees(&src, &dst);
    let (done, _) = copy(&[], &[&slashed(&src)], dst.to_str().unwrap());
    let summary = done.unwrap();
    assert_eq!((summary.changed, summary.received, summary.same), (0, 0, 8));
    let (done, _) = copy(&["-c"], &[&src], dst.to_str().unwrap());
    assert_eq!(done.unwrap().changed, 9);
    assert_agrees(&src, &dst.join("src"));
}

#[test]
fn a_dry_run_says_the_same_and_touches_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (src, dst) = (temp.path().join("src"), temp.path().join("dst"));
    tree(&src);
    let to = dst.to_str().unwrap();
    let (_, would) = copy(&["-n"], &[&src], to);
    assert!(!dst.exists());
    let (_, did) = copy(&[], &[&src], to);
    assert_eq!(would, did);
    fs::write(src.join("one"), "other").unwrap();
    fs::remove_file(dst.join("src/link")).unwrap();
    fs::write(dst.join("src/link"), "in the way").unwrap();
    let before = fs::metadata(dst.join("src")).unwrap().mtime_nsec();
    let (_, would) = copy(&["-n"], &[&src], to);
    assert_eq!(fs::metadata(dst.join("src")).unwrap().mtime_nsec(), before);
    let (_, did) = copy(&[], &[&src], to);
    assert_eq!(would, did);
    assert_agrees(&src, &dst.join("src"));
}

#[test]
fn what_was_there_is_mended() {
    let temp = tempfile::tempdir().unwrap();
    let (src, dst) = (temp.path().join("src"), temp.path().join("dst"));
    tree(&src);
    tree(&dst);
    fs::write(dst.join("sub/deep/three"), vec![4; 400_000]).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::open(dst.join("sub/deep/three")).unwrap().set_modified(long_ago).unwrap();
    fs::remove_file(dst.join("sub/dangling")).unwrap();
    symlink("elsewhere", dst.join("sub/dangling")).unwrap();
    fs::set_permissions(dst.join("one"), fs::Permissions::from_mode(0o600)).unwrap();
    let (done, told) = copy(&[], &[&slashed(&src)], dst.to_str().unwrap());
    assert_eq!(done.unwrap().failed, 0, "{told:?}");
    assert_agrees(&src, &dst);
}

#[test]
fn names_of_a_destination_follow_rsync() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    tree(&at("src"));
    fs::create_dir(at("dir")).unwrap();
    let to = |name: &str| at(name).to_str().unwrap().to_owned();
    let file = at("src/one");
    copy(&[], &[&file], &to("new")).0.unwrap();
    copy(&[], &[&file], &to("dir")).0.unwrap();
    copy(&[], &[&file], &to("made/")).0.unwrap();
    for there in ["new", "dir/one", "made/one"] {
        assert_eq!(fs::read(at(there)).unwrap(), b"1", "{there}");
    }
    let error = copy(&[], &[&file], &to("no/such/x")).0.unwrap_err();
    assert_eq!(error.exit_code() as u8, 3);
    assert!(error.to_string().contains("--mkpath"), "{error}");
    copy(&["--mkpath"], &[&file], &to("no/such/x")).0.unwrap();
    assert_eq!(fs::read(at("no/such/x")).unwrap(), b"1");
    let error = copy(&[], &[&file, &at("src/sub/empty")], &to("new")).0.unwrap_err();
    assert!(error.to_string().contains("not a directory"), "{error}");
}

#[test]
fn what_is_missing_or_in_the_way_fails_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (src, dst) = (temp.path().join("src"), temp.path().join("dst"));
    tree(&src);
    fs::create_dir_all(dst.join("one")).unwrap();
    fs::write(dst.join("sub"), "a file").unwrap();
    let missing = temp.path().join("missing");
    let (done, told) = copy(&[], &[&missing, &slashed(&src)], dst.to_str().unwrap());
    let summary = done.unwrap();
    assert_eq!((summary.failed, summary.changed), (2, 1), "{told:?}");
    assert!(told.iter().any(|line| line.contains("missing no such file")), "{told:?}");
    assert_eq!(fs::read(dst.join("sub")).unwrap(), b"a file");
}

#[test]
fn filters_and_switches_leave_out_what_they_name() {
    let temp = tempfile::tempdir().unwrap();
    let (src, dst) = (temp.path().join("src"), temp.path().join("dst"));
    tree(&src);
    let args = ["--exclude", "deep/", "--exclude", "*two*", "--no-links"];
    copy(&args, &[&slashed(&src)], dst.to_str().unwrap()).0.unwrap();
    assert!(dst.join("sub/empty").exists() && !dst.join("sub/deep").exists());
    assert!(!dst.join("sub/two\n'\"").exists() && !dst.join("link").exists());
    let (_, told) = copy(&["--no-recursive"], &[&src], dst.to_str().unwrap());
    assert!(told.iter().all(|line| line.contains("directory")), "{told:?}");
}

#[test]
fn a_tree_is_not_copied_into_itself() {
    let temp = tempfile::tempdir().unwrap();
    let src = temp.path().join("src");
    tree(&src);
    for (made, told_of) in [("sub/new", 0), ("sub/new", 1)] {
        let to = src.join(made);
        let (done, told) = copy(&[], &[&src], to.to_str().unwrap());
        done.unwrap();
        let found = told.iter().filter(|line| line.contains("into itself")).count();
        assert_eq!(found, told_of, "{told:?}");
        assert!(to.join("src/sub").exists() && !to.join("src/sub/new").exists());
    }
    let (_, told) = copy(&[], &[&slashed(&src)], src.join("sub/two").to_str().unwrap());
    assert!(!src.join("sub/two/sub/two").exists(), "{told:?}");
}

#[test]
fn of_two_sources_with_one_name_the_first_one_counts() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    for (dir, text) in [("a", "first"), ("b", "second")] {
        fs::create_dir_all(at(dir).join("d")).unwrap();
        fs::write(at(dir).join("x"), text).unwrap();
        fs::write(at(dir).join("d/same"), text).unwrap();
        fs::write(at(dir).join("d").join(dir), text).unwrap();
    }
    let sources = [at("a/x"), at("a/d"), at("b/x"), at("b/d")];
    let sources: Vec<&Path> = sources.iter().map(std::path::PathBuf::as_path).collect();
    let (_, told) = copy(&[], &sources, at("dst").to_str().unwrap());
    assert_eq!(told.iter().filter(|line| line.contains("another source")).count(), 2, "{told:?}");
    for (path, text) in [("x", "first"), ("d/same", "first"), ("d/a", "first"), ("d/b", "second")] {
        assert_eq!(fs::read_to_string(at("dst").join(path)).unwrap(), text, "{path}");
    }
}
