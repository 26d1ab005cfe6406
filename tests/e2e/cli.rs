//! Words, numbers and exit codes.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fcp_tests::process::{Daemon, Finished, free_port};
use fcp_tests::tree::{self, Item};

use crate::programs::{
    FCPD, Way, ended, fcp, fcpd, json_lines, run_fcp, scratch, slashed, summary, url,
};

#[track_caller]
fn assert_one_line(told: &Finished, code: i32, about: &str) {
    told.assert_code(code);
    let text = told.stderr_text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("fcp: ") && text.contains(about), "{text}");
    assert!(told.stdout.is_empty(), "{}", told.stdout_text());
}

#[test]
fn j01_a_mistake_is_one_line_that_says_what_to_type() {
    let server = "fcp://127.0.0.1/x";
    let table: [(&[&str], &str); 18] = [
        (&[], "type: fcp"),
        (&["a"], "type: fcp"),
        (&["push"], "type: fcp"),
        (&["push", "a"], "type: fcp"),
        (&["--nonsense", "a", "b"], "--nonsense"),
        (&["-j", "0", "a", "b"], "'0'"),
        (&["-j", "129", "a", "b"], "129"),
        (&["-j", "x", "a", "b"], "'x'"),
        (&["--fsync", "often", "a", "b"], "often"),
        (&["--protocol", "3", "a", "b"], "3"),
        (&["--exclude", "re:(", "a", "b"], "re:("),
        (&["push", server, "here"], "fcp push SRC... HOST:DST"),
        (&["pull", "here", server], "fcp pull HOST:SRC... DST"),
        (&["here", server, "there"], "all on one server"),
        (&["fcp://127.0.0.1:99999/x", "b"], "bad port"),
        (&["fcp://127.0.0.1", "b"], "path is missing"),
        (&["fcp://127.0.0.1/%zz", "b"], "%-escape"),
        (&["fcp://127.0.0.1:1/x", "fcp://127.0.0.1:2/y", "b"], "one server"),
    ];
    for (args, about) in table {
        assert_one_line(&run_fcp(args), 1, about);
    }
}

#[test]
fn what_is_not_there_yet_says_what_to_do_instead() {
    assert_one_line(
        &run_fcp(["--via", "sftp", "host:x", "fcp://127.0.0.1/y"]),
        4,
        "no SFTP server",
    );
    assert_one_line(&run_fcp(["fcp://192.0.2.1/x", "b"]), 10, "fcpd token add");
    let relay = ["--protocol", "1", "fcp://127.0.0.1/x", "fcp://127.0.0.1/y"];
    assert_one_line(&run_fcp(relay), 4, "copy to here first");
}

#[test]
fn nobody_who_listens_is_exit_10() {
    let dir = scratch();
    fs::write(dir.path().join("a"), "x").unwrap();
    let to = url(free_port(), b"/x");
    let told = ended(fcp().current_dir(dir.path()).args(["a", to.as_str()]));
    assert_one_line(&told, 10, "fcpd -d");
}

#[test]
fn help_and_version_go_to_stdout() {
    let told = run_fcp(["--help"]);
    told.assert_success();
    assert!(told.stdout_text().contains("Usage: fcp") && told.stderr.is_empty());
    for command in ["push", "pull"] {
        run_fcp([command, "--help"]).assert_success();
    }
    assert!(run_fcp(["--version"]).assert_success().stdout_text().starts_with("fcp "));
}

fn two_files(root: &Path) -> PathBuf {
    let src = root.join("src");
    tree::build(&src, &[Item::file("a", 1_000), Item::file("sub/b", 2_000), Item::dir("sub")]);
    src
}

#[test]
fn it_says_as_much_as_was_asked_for() {
    let (dir, server) = (scratch(), fcpd());
    let src = two_files(dir.path());
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let copy = |options: &[&str]| {
            let _ = fs::remove_dir_all(&dst);
            let told = ended(way.command(server.port(), &slashed(&src), &dst).args(options));
            told.assert_success();
            assert!(told.stderr.is_empty(), "{way:?} {options:?}: {}", told.stderr_text());
            told.stdout_text()
        };
        assert_eq!(copy(&[]), "", "{way:?}");
        assert_eq!(copy(&["-q"]), "", "{way:?}");
        let verbose = copy(&["-v"]);
        let mut lines: Vec<&str> = verbose.lines().collect();
        let last = lines.pop().unwrap();
        lines.sort_unstable();
        // A push names sources as they were typed, a pull what came.
        let shown = |name: &str| match way {
            Way::Pull => name.to_owned(),
            _ => slashed(&src).join(name).display().to_string(),
        };
        assert_eq!(lines, [shown("a"), shown("sub/"), shown("sub/b")], "{way:?}");
        assert!(last.starts_with("3 changed, 0 same, 3000 bytes"), "{last}");
        let stats = copy(&["--stats"]);
        for line in ["Entries changed: 3", "Entries failed: 0", "Content bytes sent: 3000"] {
            assert!(stats.lines().any(|l| l == line), "{way:?}, {line}: {stats}");
        }
        assert!(stats.lines().any(|l| l == "Content bytes in all: 3000"), "{way:?}: {stats}");
    }
}

#[test]
fn json_is_one_object_a_line_and_its_numbers_are_right() {
    let (dir, server) = (scratch(), fcpd());
    let src = two_files(dir.path());
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let mut command = way.command(server.port(), &slashed(&src), &dst);
        let told = ended(command.arg("--json"));
        let end = summary(told.assert_success());
        let numbers = [
            "exit_code",
            "changed",
            "same",
            "failed",
            "problems",
            "total_bytes",
            "sent_bytes",
            "kept_bytes",
        ];
        let values: Vec<_> = numbers.iter().map(|n| end[*n].as_u64().unwrap()).collect();
        assert_eq!(values, [0, 3, 0, 0, 0, 3_000, 3_000, 0], "{way:?}: {end}");
        assert!(end["seconds"].as_f64().unwrap() > 0.0 && end["dry_run"] == false);
        if way != Way::Local {
            let wire =
                end["wire_bytes_out"].as_u64().unwrap() + end["wire_bytes_in"].as_u64().unwrap();
            assert!((3_000..20_000).contains(&wire), "{way:?}: {wire}");
        }
        let entries: Vec<_> =
            json_lines(&told).into_iter().filter(|l| l["event"] == "entry").collect();
        assert_eq!(entries.len(), 3);
        assert!(entries.iter().all(|e| e["outcome"] == "created"), "{entries:?}");
        let sizes: u64 = entries
            .iter()
            .filter(|e| e["kind"] == "file")
            .map(|e| e["size"].as_u64().unwrap())
            .sum();
        assert_eq!(sizes, 3_000);
    }
    // An end without a summary is an object, too.
    let told =
        run_fcp(["--json", src.to_str().unwrap(), &url(server.port(), b"/no/such/parent/x")]);
    told.assert_code(3);
    let end = summary(&told);
    assert!(end["exit_code"] == 3 && end["error"]["text"].as_str().unwrap().contains("--mkpath"));
}

#[test]
fn j17_names_are_escaped_wherever_they_are_printed() {
    let dir = scratch();
    let server = Daemon::start_with(|port| {
        let mut command = Command::new(FCPD);
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).args(["--loglevel", "trace"]);
        command
    });
    let evil: &[u8] = b"esc\x1b[31m\nline\r\xff\xe2\x80\xaertl\x07";
    let name = PathBuf::from(std::ffi::OsString::from_vec(evil.to_vec()));
    let src = dir.path().join("src");
    fs::create_dir_all(src.join(&name)).unwrap();
    fs::write(src.join(&name).join(&name), "x").unwrap();
    fs::write(src.join("plain"), "x").unwrap();
    let is_clean = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).expect("printed bytes are UTF-8");
        let bad = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.contains(bad), "{text:?}");
        assert!(text.lines().all(|line| !line.starts_with("line")), "{text:?}");
        text
    };
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        // What fails is printed on stderr, what works on stdout: a directory is in the way of a file.
        fs::create_dir_all(dst.join(&name).join(&name)).unwrap();
        for option in ["-n", "-v", "--json"] {
            let mut command = way.command(server.port(), &slashed(&src), &dst);
            let told = ended(command.arg(option));
            told.assert_code(23);
            assert!(
                is_clean(&told.stderr).contains("esc\\033[31m\\012line"),
                "{}",
                told.stderr_text()
            );
            assert!(is_clean(&told.stdout).contains("plain"));
        }
    }
    // Sources and destinations that cannot be used are named by both ends.
    let missing = dir.path().join("missing").join(&name).join("x");
    for way in Way::ALL {
        let told = ended(&mut way.command(server.port(), &missing, &dir.path().join("d")));
        assert!(is_clean(&told.stderr).contains("esc\\033"), "{way:?}: {told:?}");
        let told = ended(&mut way.command(server.port(), &src, &missing));
        assert!(is_clean(&told.stderr).contains("esc\\033"), "{way:?}: {told:?}");
    }
    assert!(is_clean(server.log().as_bytes()).contains("esc\\033"), "{}", server.log());
    // Operands that make no sense, too.
    let evil_option = std::ffi::OsString::from_vec([b"--", evil].concat());
    is_clean(&run_fcp([evil_option, "a".into(), "b".into()]).assert_code(1).stderr);
    let evil_host = std::ffi::OsString::from_vec([evil, b":x"].concat());
    is_clean(&run_fcp([evil_host, "b".into()]).assert_code(1).stderr);
}

#[test]
fn special_files_are_skipped_and_said_so() {
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    fs::write(src.join("file"), "x").unwrap();
    let made = Command::new("mkfifo").arg(src.join("fifo")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(src.join("socket")).unwrap();
    for way in [Way::Push, Way::Local] {
        let dst = dir.path().join(format!("{way:?}"));
        let told = ended(&mut way.command(server.port(), &slashed(&src), &dst));
        told.assert_success();
        let text = told.stderr_text();
        assert!(
            text.contains("skipping") && text.contains("fifo") && text.contains("socket"),
            "{text}"
        );
        assert_eq!(fs::read_dir(&dst).unwrap().count(), 1);
    }
    let dst = dir.path().join("pulled");
    ended(&mut Way::Pull.command(server.port(), &slashed(&src), &dst)).assert_success();
    assert_eq!(fs::read_dir(&dst).unwrap().count(), 1);
}

#[test]
fn options_turn_off_what_is_on() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (dir, server) = (scratch(), fcpd());
    let src = dir.path().join("src");
    tree::build(
        &src,
        &[Item::file("a", 10).mode(0o777), Item::symlink("link", "a"), Item::file("sub/b", 1)],
    );
    for way in Way::ALL {
        let dst = dir.path().join(format!("{way:?}"));
        let copy = |options: &[&str]| {
            let _ = fs::remove_dir_all(&dst);
            let told = ended(way.command(server.port(), &slashed(&src), &dst).args(options));
            told.assert_success();
        };
        copy(&["--no-links"]);
        assert!(!dst.join("link").is_symlink() && dst.join("sub/b").exists(), "{way:?}");
        copy(&["--no-perms"]);
        let mode = fs::metadata(dst.join("a")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o755, "{way:?}: the umask counts");
        copy(&["--no-times"]);
        assert!(fs::metadata(dst.join("a")).unwrap().mtime() > 1_700_000_000, "{way:?}");
        let _ = fs::remove_dir_all(&dst);
        fs::create_dir(&dst).unwrap();
        let mut command = way.command(server.port(), &src.join("a"), &dst);
        ended(command.arg("--no-recursive")).assert_success();
        assert!(dst.join("a").exists(), "{way:?}");
    }
}
