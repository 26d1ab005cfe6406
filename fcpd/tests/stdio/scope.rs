//! `--restrict` and `--read-only`.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use fcp_common::engine::SessionError;
use fcp_proto::ErrorCode;
use fcp_proto::packet::{Direction, Options};
use fcp_proto::version::Hello;

use crate::host::*;
use crate::support::*;

/// A root with ways out of it, and the program restricted to it.
fn restricted(args: &[&str]) -> (Host, Program) {
    let host = Host::new();
    fs::create_dir_all(host.path("root/sub")).unwrap();
    fs::create_dir(host.path("outside")).unwrap();
    fs::write(host.path("outside/secret"), "secret").unwrap();
    fs::write(host.path("root/sub/file"), "file").unwrap();
    symlink("../outside", host.path("root/up")).unwrap();
    symlink(host.path("outside"), host.path("root/absolute")).unwrap();
    symlink("../outside/secret", host.path("root/file")).unwrap();
    symlink("sub", host.path("root/inside")).unwrap();
    let root = host.path("root");
    let args = [&["--restrict", root.to_str().unwrap()], args].concat();
    let program = host.start(&args);
    (host, program)
}

#[test]
fn p14_a_restricted_push_stays_below_the_root() {
    for (to, really) in [
        ("new", "root/new"),
        ("/new", "root/new"),
        ("~/new", "root/new"),
        ("", "root"),
        ("inside", "root/sub"),
    ] {
        let (host, mut program) = restricted(&[]);
        let reply = program.hello(Hello::ours(1));
        push(&host, &reply, to, vec![program.duplex()]).unwrap();
        assert_eq!(program.end().0, Some(0), "{to}");
        host.check_pushed(really);
    }
    for to in ["..", "../outside", "up", "up/new", "absolute", "file", "sub/../../outside"] {
        let (host, mut program) = restricted(&[]);
        let reply = program.hello(Hello::ours(1));
        let error = match push(&host, &reply, to, vec![program.duplex()]) {
            Err(SessionError::Peer(error)) => error,
            other => panic!("{to}: {other:?}"),
        };
        assert_eq!(error.code, ErrorCode::PERMISSION, "{to}");
        assert!(error.text.contains(&format!("'{to}'")), "{}", error.text);
        assert_eq!(program.end().0, Some(1));
        assert_eq!(fs::read_dir(host.path("outside")).unwrap().count(), 1, "{to}");
    }
}

#[test]
fn p14_a_restricted_pull_reads_nothing_outside() {
    for (from, name) in [("sub/", "file"), ("/sub/file", "file"), ("i*/*", "file")] {
        let (host, mut program) = restricted(&["--read-only"]);
        let reply = program.hello(Hello::ours(1));
        let to = host.path("home");
        pull(&reply, from, &to, vec![program.duplex()]).unwrap();
        assert_eq!(fs::read(to.join(name)).unwrap(), b"file", "{from}");
    }
    let outside = [
        "up/",
        "up/secret",
        "../outside/secret",
        "absolute/*",
        "*/secret",
        "/proc/self/root/etc/passwd",
    ];
    for from in outside {
        let (host, mut program) = restricted(&[]);
        let reply = program.hello(Hello::ours(1));
        let to = host.path("home");
        // Nothing can be opened, of which the client hears as a problem.
        let _ = pull(&reply, from, &to, vec![program.duplex()]);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "{from}");
    }
}

#[test]
fn a_root_that_is_no_absolute_directory_is_refused() {
    let host = Host::new();
    let file = host.path("here/small");
    for root in ["here", ".", "/no/such/directory", file.to_str().unwrap()] {
        let output = host.command(&["--restrict", root]).stdin(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains(root) && output.stdout.is_empty(), "{text}");
    }
}

#[test]
fn reading_only_makes_nothing_not_even_in_a_dry_run() {
    for options in [Options::default(), Options::DRY_RUN, Options::MKPATH] {
        let host = Host::new();
        let mut program = host.start(&["--read-only"]);
        program.hello(Hello::ours(1));
        program.peer.send(&request(Direction::Push, "new/deep", options));
        assert_eq!(program.peer.expect_error().code, ErrorCode::READ_ONLY);
        assert_eq!(program.end(), (Some(1), String::new()));
        assert_eq!(fs::read_dir(host.path("home")).unwrap().count(), 0);
    }
}
