//! Whom the client talks to, and who may talk to the server.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use fcp_proto::packet::{Opening, PushOpening};
use fcp_proto::{Flag, frame};
use fcp_tests::account::Account;
use fcp_tests::process::{Daemon, run};
use fcp_tests::sshd::{HOST, Options, Sshd};

use crate::programs::{FCPD, LIMIT, ended, fcpd};
use crate::setup::{World, assert_told};

#[test]
fn a02_a_changed_host_key_is_a_hard_stop() {
    let Some(world) = World::new() else { return };
    let src = world.file("src", 10);
    let known = world.sshd.path("known_hosts");
    let line = fs::read_to_string(&known).unwrap();
    let other = fs::read_to_string(world.sshd.path("client_key.pub")).unwrap();
    let (host, _) = line.split_once(' ').unwrap();
    fs::write(&known, format!("{host} {other}")).unwrap();
    for args in [&[][..], &["--via", "stdio"], &["-j", "8"], &["-o", "BatchMode=yes"]] {
        let told = ended(&mut world.push(args, &src, world.path("dst")));
        assert_told(&told, 10, &["host key"]);
        let told = ended(&mut world.pull(args, &src, &world.path("back")));
        assert_told(&told, 10, &["host key"]);
    }
    assert!(!world.path("dst").exists() && !world.path("back").exists());
    assert_eq!((world.sshd.logins(), world.sshd.sessions()), (0, 0), "{}", world.sshd.log());
}

#[test]
fn a03_an_unknown_host_key_is_a_stop_where_nobody_can_be_asked() {
    let Some(mut world) = World::new() else { return };
    let src = world.file("src", 10);
    fs::write(world.sshd.path("known_hosts"), "").unwrap();
    world.ssh_lines("StrictHostKeyChecking ask");
    let operands =
        |command: &Command| command.get_args().map(ToOwned::to_owned).collect::<Vec<_>>();
    for args in [&[][..], &["-o", "BatchMode=yes"]] {
        let typed = world.push(args, &src, world.path("dst"));
        // A session without a terminal, whatever the test itself runs in.
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(typed.get_program()).args(operands(&typed));
        for (name, value) in typed.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        assert_told(&ended(&mut command), 10, &["host key"]);
    }
    assert!(!world.path("dst").exists());
    assert_eq!((world.sshd.logins(), world.sshd.sessions()), (0, 0), "{}", world.sshd.log());
    let known = fs::read_to_string(world.sshd.path("known_hosts")).unwrap();
    assert!(known.is_empty(), "nobody agreed to {known}");
}

#[test]
fn a_user_who_may_not_log_in_is_told_what_ssh_said() {
    let Some(world) = World::new() else { return };
    fs::write(world.sshd.path("keys").join(world.sshd.user()), "").unwrap();
    let src = world.file("src", 10);
    let told = ended(&mut world.push(&[], &src, world.path("dst")));
    assert_told(&told, 10, &["permission denied"]);
}

#[test]
fn a_host_that_does_not_listen_is_told_soon() {
    let Some(mut world) = World::new() else { return };
    world.ssh_lines(&format!("Port {}", fcp_tests::process::free_port()));
    let src = world.file("src", 10);
    let told = ended(&mut world.push(&[], &src, world.path("dst")));
    assert_told(&told, 10, &["refused"]);
}

/// What comes back from fcpd's port for the opening of a push, through `user`'s login.
fn answer_through(sshd: &Sshd, user: &str, server: &Daemon) -> Vec<u8> {
    let mut opening = Vec::new();
    let push = PushOpening { user: "root".into(), dst: "/nonexistent/x".into(), fcp: None };
    Opening::Push(push).encode(&mut opening).unwrap();
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(sshd.ssh_config()).args([
        "-l",
        user,
        "-W",
        &server.address().to_string(),
        HOST,
    ]);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = ssh.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&opening);
        std::thread::sleep(Duration::from_secs(2));
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

fn first_flag(answer: &[u8]) -> Option<Flag> {
    let (frame, _) = frame::decode(answer).unwrap()?;
    Some(frame.flag)
}

#[test]
fn a16_an_sftp_only_account_reaches_no_other_users_fcpd_through_its_login() {
    let options = Options::with_fcpd(FCPD).after(
        "Match User fcpt*\nChrootDirectory /run/sshd\nForceCommand internal-sftp\nAllowTcpForwarding yes",
    );
    let Some(sshd) = Sshd::start(options) else { return };
    let server = fcpd();
    // The way itself is open: our own login gets an answer.
    let answer = answer_through(&sshd, sshd.user(), &server);
    assert_eq!(first_flag(&answer), Some(Flag::SID), "{answer:?}");
    let Some(account) = Account::new(&sshd, "/usr/sbin/nologin") else { return };
    let mut sftp = Command::new("sftp");
    sftp.arg("-F").arg(sshd.ssh_config()).args(["-b", "/dev/null"]);
    run(sftp.arg(format!("{}@{HOST}", account.name())), LIMIT).assert_success();
    // No session: at most it is told why.
    let answer = answer_through(&sshd, account.name(), &server);
    let flag = first_flag(&answer);
    assert!(matches!(flag, None | Some(Flag::EXCEPTION | Flag::ERROR)), "{answer:?}");
    let log = server.log();
    assert!(log.contains(&account.uid().to_string()), "fcpd names whom it refused: {log}");
}
