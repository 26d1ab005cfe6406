//! `--via tunnel`: an fcpd that runs on the host already, and who sits on its port instead.
//!
//! The port is fixed, so each server is alone in a network namespace.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fcp_tests::account::Account;
use fcp_tests::netns::Netns;
use fcp_tests::process::Finished;
use fcp_tests::sshd::Options;

use crate::programs::{FCPD, ended, slashed};
use crate::setup::{World, assert_copied, at_user, wait_until};

const PORT: &str = "127.0.0.1:7523";

/// What listens on the port; killed on drop.
struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listen(netns: &Netns, program: &Path, args: &[&str], account: &Account, log: &Path) -> Listener {
    let mut command = Command::new("setpriv");
    let uid = account.uid().to_string();
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups"]).arg(program).args(args);
    // `ip netns exec` needs root, and comes before the change of the user.
    let mut inside = netns.command(Path::new("setpriv"));
    inside.args(command.get_args()).env("HOME", account.home()).env("USER", account.name());
    for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "FCP_FAULT"] {
        inside.env_remove(variable);
    }
    let out = fs::File::create(log).unwrap();
    inside.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).process_group(0);
    let listener = Listener(inside.spawn().unwrap());
    let table = || {
        let told = netns.command(Path::new("cat")).arg("/proc/net/tcp").output().unwrap();
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    // 7523 in hexadecimal, in the state LISTEN.
    wait_until("the port is taken", || {
        table().lines().any(|l| l.contains(":1D63 00000000:0000 0A"))
    });
    listener
}

fn fcpd_of(world: &World, netns: &Netns, account: &Account) -> Listener {
    let fcpd = world.sshd.path("bin/fcpd");
    listen(
        netns,
        &fcpd,
        &["--listen", PORT],
        account,
        &world.path(format!("log-{}", account.name())),
    )
}

fn push(world: &World, account: &Account, src: &Path, dst: &Path) -> Finished {
    let mut command = world.fcp(&["push", "--via", "tunnel", "-v"]);
    ended(command.arg(slashed(src)).arg(at_user(account.name(), dst)))
}

fn ground() -> Option<(Netns, World, Account)> {
    let netns = Netns::new()?;
    let world = World::with(Options::with_fcpd(FCPD).inside(&netns))?;
    let account = Account::new(&world.sshd, "/bin/bash")?;
    Some((netns, world, account))
}

#[test]
fn a_running_fcpd_is_reached_through_ssh() {
    let Some((netns, world, account)) = ground() else { return };
    let _fcpd = fcpd_of(&world, &netns, &account);
    let (src, there) = (world.small("src"), account.home().join("there"));
    push(&world, &account, &src, &there).assert_success();
    assert_copied(&src, &there);
    let back = world.path("back");
    let mut pull = world.fcp(&["pull", "--via", "tunnel", "-j", "3"]);
    ended(pull.arg(at_user(account.name(), slashed(&there))).arg(&back)).assert_success();
    assert_copied(&src, &back);
}

#[test]
fn a21_another_users_fcpd_on_the_port_gets_nothing() {
    let Some((netns, world, account)) = ground() else { return };
    let Some(other) = Account::new(&world.sshd, "/bin/bash") else { return };
    // Ours has run before, so the token is there; now somebody else has the port.
    drop(fcpd_of(&world, &netns, &account));
    let _fcpd = fcpd_of(&world, &netns, &other);
    let told = push(&world, &account, &world.small("src"), &other.home().join("there"));
    assert!(!told.timed_out && !told.status.success(), "{told:?}");
    assert!(!other.home().join("there").exists());
}

/// Answers whatever comes as a version 1 server does, and keeps what it was told.
const SQUATTER: &str = "\
import socket, sys, zlib, struct
server = socket.create_server(('127.0.0.1', 7523))
while True:
    peer, _ = server.accept()
    got = peer.recv(65536)
    sid = bytes(range(16))
    peer.sendall(struct.pack('>BIH', 3, zlib.crc32(sid), len(sid)) + sid)
    peer.settimeout(2)
    try:
        while got:
            open(sys.argv[1], 'ab').write(got)
            got = peer.recv(65536)
    except OSError:
        pass
    peer.close()
";

#[test]
fn a21_a_squatter_that_proves_nothing_is_told_no_path_and_no_data() {
    let Some((netns, world, account)) = ground() else { return };
    let Some(other) = Account::new(&world.sshd, "/bin/bash") else { return };
    let Some(python) = python() else { return };
    drop(fcpd_of(&world, &netns, &account));
    let heard = other.write("heard", "");
    let args = ["-c", SQUATTER, heard.to_str().unwrap()];
    let _squatter = listen(&netns, &python, &args, &other, &world.path("squatter-log"));
    let src = world.path("a-secret-name");
    fcp_tests::tree::small(&src);
    let told = push(&world, &account, &src, &account.home().join("a-secret-place"));
    assert!(!told.timed_out && !told.status.success(), "{told:?}");
    let heard = fs::read(&heard).unwrap();
    let holds = |what: &str| heard.windows(what.len()).any(|w| w == what.as_bytes());
    assert!(!holds("secret") && !holds("readme"), "{}", heard.escape_ascii());
}

fn python() -> Option<PathBuf> {
    let found = Path::new("/usr/bin/python3");
    if !found.is_file() {
        eprintln!("SKIPPED what needs a squatter: python3 is not installed");
        return None;
    }
    Some(found.to_owned())
}

#[test]
fn nobody_on_the_port_is_told_with_what_can_be_done() {
    let Some((_netns, world, account)) = ground() else { return };
    let told = push(&world, &account, &world.small("src"), &account.home().join("there"));
    assert_eq!(told.code(), Some(10), "{told:?}");
    assert!(told.stderr_text().contains("fcpd"), "{told:?}");
}
