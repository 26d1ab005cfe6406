//! Ways of ssh to a host, and hosts without the fcpd that is needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use fcp_tests::process::run;
use fcp_tests::sshd::{HOST, Options, Sshd};

use crate::programs::{FCPD, LIMIT, ended, slashed};
use crate::setup::{World, assert_copied, assert_told, at};

fn script(world: &World, name: &str, text: &str) -> PathBuf {
    let path = world.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_host_without_fcpd_is_told_with_what_can_be_done() {
    let Some(world) = World::with(Options::without_fcpd()) else { return };
    let src = world.small("src");
    for way in ["stdio", "direct"] {
        let told = ended(&mut world.push(&["--via", way], &src, world.path("dst")));
        assert_told(&told, 10, &["fcpd", "path", "--remote-fcpd", "--via"]);
        assert!(!world.path("dst").exists());
    }
    let told = ended(&mut world.pull(&["--via", "stdio"], &src, &world.path("dst")));
    assert_told(&told, 10, &["fcpd"]);
}

#[test]
fn fcpd_elsewhere_is_named_by_its_path() {
    let Some(world) = World::with(Options::without_fcpd()) else { return };
    world.assert_works(&["--remote-fcpd", FCPD]);
    let told = ended(&mut world.push(
        &["--remote-fcpd", "/nobody/here/fcpd"],
        &world.small("src"),
        world.path("dst"),
    ));
    assert_told(&told, 10, &["/nobody/here/fcpd"]);
}

#[test]
fn an_older_fcpd_is_told_from_a_missing_one() {
    let Some(world) = World::with(Options::without_fcpd()) else { return };
    let old = script(
        &world,
        "old-fcpd",
        "echo \"error: unexpected argument '--stdio' found\n\nUsage: fcpd [OPTIONS]\" >&2; exit 2",
    );
    let src = world.small("src");
    let args = ["--remote-fcpd", old.to_str().unwrap()];
    let told = ended(&mut world.push(&args, &src, world.path("dst")));
    assert!(matches!(told.code(), Some(4 | 5 | 10)), "{told:?}");
    assert!(told.stderr_text().to_lowercase().contains("older"), "{told:?}");
    assert!(!world.path("dst").exists());
}

#[test]
fn a_server_that_speaks_something_else_is_left_soon() {
    let Some(world) = World::with(Options::without_fcpd()) else { return };
    let src = world.small("src");
    for (name, text) in [
        ("silent", "exec sleep 1000"),
        ("chatty", "exec yes 'this is no protocol'"),
        ("zeros", "exec cat /dev/zero"),
        ("gone", "exit 0"),
        ("crash", "kill -9 $$"),
    ] {
        if name == "silent" && std::env::var_os("FCP_SLOW_TESTS").is_none() {
            continue;
        }
        let program = script(&world, name, text);
        let args = ["--remote-fcpd", program.to_str().unwrap()];
        let told = ended(&mut world.push(&args, &src, world.path("dst")));
        assert!(!told.timed_out && !told.status.success(), "{name}: {told:?}");
        assert!(!told.stderr.is_empty() && told.stderr.len() < 80 << 10, "{name}: {told:?}");
        assert!(!world.path("dst").exists());
    }
}

#[test]
fn an_existing_control_master_is_used() {
    let Some(mut world) = World::new() else { return };
    let socket = world.path("master");
    world.ssh_lines(&format!("ControlPath {}", socket.display()));
    let mut master = Command::new("ssh");
    master.arg("-F").arg(&world.ssh_config).args(["-M", "-N", "-f", HOST]);
    run(&mut master, LIMIT).assert_success();
    // Nobody could log in anew.
    world.sshd.authorize(world.sshd.user(), "command=\"exit 9\"");
    world.assert_works(&["--via", "stdio"]);
    assert_eq!(world.sshd.logins(), 1, "{}", world.sshd.log());
    let mut end = Command::new("ssh");
    end.arg("-F").arg(&world.ssh_config).args(["-O", "check", HOST]);
    run(&mut end, LIMIT).assert_success();
    let mut end = Command::new("ssh");
    run(end.arg("-F").arg(&world.ssh_config).args(["-O", "exit", HOST]), LIMIT);
}

/// A world behind a second server, reached by these lines of ssh_config; `%C` is that server's own
/// config file.
fn behind_jump(lines: &str) -> Option<(World, Sshd)> {
    let mut world = World::new()?;
    let jump = Sshd::start(Options::without_fcpd())?;
    let config = jump.ssh_config();
    let lines = lines.replace("%C", config.to_str().unwrap());
    world.ssh_config = world.sshd.ssh_config_with(&lines, &jump.host_block("jump", ""));
    Some((world, jump))
}

#[test]
fn proxy_jump_leads_through_a_second_server() {
    let Some((world, jump)) = behind_jump("ProxyJump jump") else { return };
    world.assert_works(&[]);
    world.assert_works(&["--via", "stdio"]);
    assert!(jump.logins() >= 4, "{}", jump.log());
}

#[test]
fn a_jump_host_may_be_typed() {
    let Some((world, jump)) = behind_jump("") else { return };
    world.assert_works(&["-J", "jump"]);
    assert!(jump.logins() >= 2, "{}", jump.log());
}

#[test]
fn proxy_command_leads_through_a_second_server() {
    let Some((world, jump)) = behind_jump("ProxyCommand ssh -F %C -W %h:%p fcptest") else {
        return;
    };
    world.assert_works(&[]);
    assert!(jump.logins() >= 2, "{}", jump.log());
}

#[test]
fn options_and_identities_are_handed_to_ssh() {
    let Some(world) = World::new() else { return };
    let key = world.sshd.path("client_key");
    let user = format!("User={}", world.sshd.user());
    let port = world.sshd.address().port().to_string();
    let known = format!("UserKnownHostsFile={}", world.sshd.path("known_hosts").display());
    let mut command = crate::programs::fcp();
    command.env("HOME", world.path("home")).env_remove("SSH_AUTH_SOCK");
    command.args(["push", "-F", "none", "-4", "-P", &port, "-o", &user, "-o", &known, "-i"]);
    let src = world.small("src");
    command.arg(&key).arg(slashed(&src)).arg(at("127.0.0.1", world.path("dst")));
    ended(&mut command).assert_success();
    assert_copied(&src, &world.path("dst"));
}

#[test]
fn another_program_may_stand_in_for_ssh() {
    let Some(world) = World::new() else { return };
    let log = world.path("asked");
    // A program of another name is only told user, host and command, as by rsync.
    let config = world.ssh_config.display();
    let other = script(
        &world,
        "my-way",
        &format!("echo \"$@\" >> '{}'\nexec ssh -F '{config}' \"$@\"", log.display()),
    );
    world.assert_works(&["-e", other.to_str().unwrap(), "--via", "stdio"]);
    let asked = fs::read_to_string(&log).unwrap();
    assert!(asked.contains("fcptest") && asked.contains("fcpd --stdio"), "{asked}");
    // One of its name gets all that ssh gets, wherever it is.
    fs::create_dir(world.path("bin")).unwrap();
    let same =
        script(&world, "bin/ssh", &format!("echo \"$@\" >> '{}'\nexec ssh \"$@\"", log.display()));
    fs::write(&log, "").unwrap();
    world.assert_works(&["-e", same.to_str().unwrap(), "--via", "stdio"]);
    let asked = fs::read_to_string(&log).unwrap();
    assert!(asked.contains("-F") && asked.contains("fcpd --stdio"), "{asked}");
}
