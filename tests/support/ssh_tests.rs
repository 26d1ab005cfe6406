//! The ssh support, with the system's own ssh as its client.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::askpass::Askpass;
use crate::netns::Netns;
use crate::process::{Finished, run};
use crate::sshd::{HOST, Options, Sshd};

const LIMIT: Duration = Duration::from_secs(20);

fn ssh(sshd: &Sshd, user: &str, remote: &str) -> Finished {
    let mut command = Command::new("ssh");
    command.arg("-F").arg(sshd.ssh_config()).args(["-l", user, HOST, remote]);
    run(&mut command, LIMIT)
}

#[test]
fn a_server_lets_its_user_in_and_has_the_program_in_its_path() {
    let Some(sshd) = Sshd::start(Options::with_fcpd("/bin/echo")) else { return };
    let finished = ssh(&sshd, sshd.user(), "fcpd found $HOME");
    let home = sshd.path("own-home");
    assert_eq!(finished.assert_success().stdout_text(), format!("found {}\n", home.display()));
    assert_eq!((sshd.logins(), sshd.sessions()), (1, 1), "{}", sshd.log());
}

#[test]
fn a_dropped_server_leaves_no_process_behind() {
    let Some(sshd) = Sshd::start(Options::without_fcpd()) else { return };
    let remote = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & sleep 1000 & exit 0";
    let mut command = Command::new("ssh");
    let running = crate::process::start(command.arg("-F").arg(sshd.ssh_config()).args([
        "-l",
        sshd.user(),
        HOST,
        remote,
    ]));
    let deadline = Instant::now() + LIMIT;
    while sshd.processes("sleep").len() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pids = sshd.processes("sleep");
    assert_eq!(pids.len(), 2, "{}", sshd.log());
    drop((sshd, running));
    // Whoever inherited them buries them, sooner or later.
    let state =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let runs = |pid: &u32| state(pid).contains(") S");
    assert!(!pids.iter().any(runs));
}

#[test]
fn an_account_logs_in_with_its_own_shell_and_goes_away() {
    let Some(sshd) = Sshd::start(Options::without_fcpd()) else { return };
    for shell in ["/bin/dash", "/bin/tcsh"] {
        let Some(account) = Account::new(&sshd, shell) else { continue };
        account.write(".cshrc", "echo noise\n");
        let finished = ssh(&sshd, account.name(), "echo $0 $HOME; id -u");
        let text = finished.assert_success().stdout_text();
        assert!(text.contains(account.home().to_str().unwrap()), "{text}");
        assert!(text.ends_with(&format!("\n{}\n", account.uid())), "{text}");
        assert_eq!(text.starts_with("noise\n"), shell.ends_with("tcsh"), "{text}");
        let name = account.name().to_owned();
        drop(account);
        assert!(!Command::new("id").arg(&name).output().unwrap().status.success());
    }
}

#[test]
fn askpass_counts_its_prompts() {
    let Some(sshd) = Sshd::start(Options::without_fcpd()) else { return };
    let key = sshd.locked_key("secret");
    let config = sshd.ssh_config_with(&format!("IdentityFile {}", key.display()), "");
    std::fs::rename(sshd.path("client_key"), sshd.path("client_key.away")).unwrap();
    let askpass = Askpass::answering("secret");
    let mut command = Command::new("ssh");
    askpass.serve(command.arg("-F").arg(config).args([HOST, "true"]));
    run(&mut command, LIMIT).assert_success();
    assert_eq!(askpass.prompts().len(), 1, "{:?}", askpass.prompts());
}

#[test]
fn a_second_host_is_reached_until_its_firewall_closes_a_port() {
    let Some(netns) = Netns::new() else { return };
    let Some(sshd) = Sshd::start(Options::without_fcpd().inside(&netns)) else { return };
    ssh(&sshd, sshd.user(), "true").assert_success();
    let port = (netns.far(), 40_000).into();
    let connect = || std::net::TcpStream::connect_timeout(&port, Duration::from_millis(300));
    let refused = connect().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    netns.drop_ports_from(30_000);
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    ssh(&sshd, sshd.user(), "true").assert_success();
}
