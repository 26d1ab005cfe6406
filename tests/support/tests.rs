//! The support must be able to fail before it may judge.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use crate::compare::{Compare, assert_same_tree};
use crate::fastcopy::Fastcopy;
use crate::process::run;
use crate::sentinel::Sentinel;
use crate::{rsync, tree};

/// Makes one difference in the copy at the path.
type Spoil = fn(&Path);

fn copied(make: impl Fn(&Path)) -> TempDir {
    let dir = TempDir::new().unwrap();
    make(&dir.path().join("a"));
    let cp = Command::new("cp").arg("-a").args(["a", "b"]).current_dir(dir.path()).status();
    assert!(cp.unwrap().success());
    dir
}

#[test]
fn both_judges_accept_a_nasty_tree_that_cp_copied() {
    let dir = copied(tree::nasty);
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    assert_same_tree(&a, &b);
    rsync::assert_agrees(&a, &b);
    tree::unlock(&a);
    tree::unlock(&b);
}

#[test]
fn both_judges_see_every_kind_of_difference() {
    let spoil: [(&str, Spoil); 7] = [
        ("one: contents differ from byte 0", |b| {
            let time = fs::metadata(b.join("one")).unwrap().modified().unwrap();
            fs::write(b.join("one"), [fs::read(b.join("one")).unwrap()[0] ^ 1]).unwrap();
            File::options().write(true).open(b.join("one")).unwrap().set_modified(time).unwrap();
        }),
        ("script.sh: mode 0755 != 0700", |b| {
            fs::set_permissions(b.join("script.sh"), Permissions::from_mode(0o700)).unwrap();
        }),
        ("docs/readme.txt: mtime", |b| {
            File::open(b.join("docs/readme.txt")).unwrap().set_modified(SystemTime::now()).unwrap();
        }),
        ("empty: missing", |b| fs::remove_file(b.join("empty")).unwrap()),
        ("extra\\n: only in the copy", |b| fs::write(b.join("extra\n"), "").unwrap()),
        ("data/latest: target", |b| {
            fs::remove_file(b.join("data/latest")).unwrap();
            symlink("elsewhere", b.join("data/latest")).unwrap();
        }),
        ("nothing-inside: kind directory != file", |b| {
            fs::remove_dir(b.join("nothing-inside")).unwrap();
            fs::write(b.join("nothing-inside"), "").unwrap();
        }),
    ];
    for (expected, spoil) in spoil {
        let dir = copied(tree::small);
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        rsync::assert_agrees(&a, &b);
        spoil(&b);
        let lines = Compare::EXACT.differences(&a, &b);
        let told = lines.iter().any(|line| line.replace('"', "").starts_with(expected));
        assert!(told, "{expected} not among {lines:?}");
        assert!(rsync::agrees(&a, &b).is_err(), "rsync missed {expected}");
    }
}

#[test]
fn a_sentinel_sees_contents_appearance_and_a_mode_put_back() {
    let spoil: [Spoil; 4] = [
        |file| fs::write(file, "touched").unwrap(),
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file.with_file_name("new"), "").unwrap(),
        |file| {
            let mode = fs::metadata(file).unwrap().permissions();
            fs::set_permissions(file, Permissions::from_mode(0o777)).unwrap();
            fs::set_permissions(file, mode).unwrap();
        },
    ];
    for spoil in spoil {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("outside/sentinel");
        let sentinel = Sentinel::plant(&file);
        sentinel.assert_untouched();
        // The clock behind ctime moves in steps of a few milliseconds.
        std::thread::sleep(Duration::from_millis(20));
        spoil(&file);
        let seen = std::panic::catch_unwind(|| sentinel.assert_untouched()).is_err();
        assert!(seen);
    }
}

#[test]
fn a_program_past_its_limit_is_killed_with_its_children() {
    let clock = Instant::now();
    let mut command = Command::new("sh");
    command.args(["-c", "echo begun; sleep 60 & sleep 60"]);
    let finished = run(&mut command, Duration::from_millis(300));
    assert!(finished.timed_out && finished.stdout == b"begun\n");
    assert!(clock.elapsed() < Duration::from_secs(10));
}

#[test]
fn fastcopy_speaks_to_itself() {
    let Some(fastcopy) = Fastcopy::find() else { return };
    let dir = TempDir::new().unwrap();
    let source = dir.path().join("src");
    tree::small(&source);
    // Version 1 knows no symlinks: it would copy what this one points to.
    fs::remove_file(source.join("data/latest")).unwrap();
    let server = fastcopy.serve();
    for connections in [1, 8] {
        let [pushed, pulled] =
            ["pushed", "pulled"].map(|n| dir.path().join(format!("{n}{connections}")));
        fastcopy.push(&source, &pushed, connections, server.port()).assert_success();
        Compare::VERSION_1.assert_same(&source, &pushed);
        fastcopy.pull(&source, &pulled, connections, server.port()).assert_success();
        Compare::VERSION_1.assert_same(&source, &pulled);
    }
}

#[test]
fn fastcopys_client_fails_where_no_server_is() {
    let Some(fastcopy) = Fastcopy::find() else { return };
    let dir = TempDir::new().unwrap();
    let finished = fastcopy.push(dir.path(), &dir.path().join("x"), 1, crate::process::free_port());
    finished.assert_code(2);
}
