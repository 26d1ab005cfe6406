//! Sessions over a stand-in for ssh: a shell script that says what a case needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fcp_proto::coding::Wire;
use fcp_proto::packet::{Reply, STDIO_PREAMBLE, WireError};
use fcp_proto::version::{Hello, ReplyExtra, negotiate};
use fcp_proto::{ErrorCode, Flag, SessionId, frame};

use super::tunnel::{self, Tunnel};
use super::{Place, SshOptions, SshSession, stdio};
use crate::connect::Purpose;
use crate::error::CliError;

/// A directory with the script, what it may print, and what it notes.
struct Fake {
    dir: PathBuf,
}

impl Fake {
    /// `$D` is the directory; `welcome` prints what fcpd would.
    fn new(name: &str, script: &str) -> Fake {
        let dir = std::env::temp_dir().join(format!("fcp-ssh-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("preamble"), STDIO_PREAMBLE).unwrap();
        let agreed = negotiate(&Hello::ours(4), &Hello::ours(9)).unwrap();
        let mut out = Vec::new();
        Reply { sid: SessionId([7; 16]), agreed: Some(agreed), extra: ReplyExtra::default() }
            .encode(Flag::ACCEPT, &mut out);
        fs::write(dir.join("accept"), out).unwrap();
        let mut payload = Vec::new();
        WireError::new(ErrorCode::REFUSED, "no\x07").encode(&mut payload);
        let mut out = Vec::new();
        frame::encode(Flag::ERROR, &payload, &mut out);
        fs::write(dir.join("error"), out).unwrap();
        let shown = dir.display();
        let head = format!("D={shown}\nwelcome() {{ cat $D/preamble $D/accept; }}\n");
        fs::write(dir.join("script"), head + script).unwrap();
        // A shell by that name, so that it is taken for OpenSSH and the script for its argument.
        std::os::unix::fs::symlink("/bin/sh", dir.join("ssh")).unwrap();
        Fake { dir }
    }

    fn options(&self, program: &Path) -> SshOptions {
        let program = vec![program.into(), self.dir.join("script").into()];
        SshOptions { program, ..SshOptions::default() }
    }

    fn open(&self) -> Result<SshSession, CliError> {
        stdio::open(&place(), &self.options(Path::new("sh")), &Hello::ours(4), |_| None)
    }

    fn open_as_openssh(&self) -> Result<SshSession, CliError> {
        stdio::open(&place(), &self.options(&self.dir.join("ssh")), &Hello::ours(4), |_| None)
    }

    fn noted(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn place() -> Place {
    Place { user: None, host: "h".into(), port: None }
}

/// Why there is no session.
fn reason(opened: Result<SshSession, CliError>) -> String {
    match opened {
        Err(error @ (CliError::Connect { .. } | CliError::NoFcpd { .. })) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("there is a session"),
    }
}

/// Whether the process that noted its id is gone.
fn is_gone(pid: &str) -> bool {
    !Path::new("/proc").join(pid.trim()).exists()
}

#[test]
fn a_session_opens_behind_noise_and_leaves_no_program_behind() {
    let fake = Fake::new("noise", "echo $$ >$D/log; echo Welcome; welcome; exec cat >/dev/null");
    let mut session = fake.open().unwrap();
    assert_eq!(session.sid, SessionId([7; 16]));
    assert_eq!((session.conns.len(), session.ended().is_none()), (1, true));
    assert!(session.further.open().is_err(), "nobody knows whether it would ask");
    session.conns.clear();
    drop(session);
    assert!(is_gone(&fake.noted()));
}

#[test]
fn a_program_that_does_not_want_to_end_is_ended() {
    let script = "echo $$ >$D/log; trap '' TERM HUP; welcome; while :; do sleep 1; done";
    let fake = Fake::new("stubborn", script);
    drop(fake.open().unwrap());
    assert!(is_gone(&fake.noted()));
}

#[test]
fn every_way_to_fail_has_its_words() {
    for (name, script, said) in [
        ("255", "exit 255", "could not connect"),
        ("127", "echo motd; exit 127", "fcpd is not on h's PATH"),
        ("old", "exit 1", "older than this fcp"),
        ("forced", "printf 'Only\\033[0m sftp\\r\\n'; exit 1", "Only\\033[0m sftp"),
        ("silent", "exit 0", "without a word"),
        ("flood", "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done", "64 KiB"),
        ("killed", "kill -9 $$", "signal 9"),
        ("refused", "cat $D/preamble $D/error; exec cat >/dev/null", "refused: no\\007"),
        ("gone", "cat $D/preamble; exit 0", "hung up"),
        ("other", "cat $D/preamble; printf 'GET / HTTP/1.1\\r\\n'; exec cat >/dev/null", "0x47"),
    ] {
        let fake = Fake::new(name, script);
        let got = reason(fake.open());
        assert!(got.starts_with("cannot connect to h: ") && got.contains(said), "{name}: {got}");
    }
    let options = SshOptions { program: vec!["/none/ssh".into()], ..SshOptions::default() };
    let got = reason(stdio::open(&place(), &options, &Hello::ours(1), |_| None));
    assert!(got.contains("no program \"/none/ssh\""), "{got}");
}

#[test]
fn a_session_learns_that_its_ssh_ended() {
    let fake = Fake::new("dies", "welcome; sleep 0.2; exit 9");
    let session = fake.open().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    session.first.on_exit(move |status| tell.send(status.code()).unwrap());
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), Some(9));
    assert_eq!(session.ended().and_then(|s| s.code()), Some(9));
}

/// Answers like an ssh whose host takes a password: nobody else gets in but over its master.
const PASSWORD: &str = "echo \"$*\" >>$D/log
case \"$*\" in
-G*) printf 'hostname h\\nport 22\\nuser u\\n'; exit;;
*BatchMode=yes*ControlPath=*) ;;
*BatchMode=yes*) exit 255;;
esac
welcome; exec cat >/dev/null";

#[test]
fn where_a_second_login_would_ask_further_connections_are_channels_of_the_first() {
    let fake = Fake::new("password", PASSWORD);
    let session = fake.open_as_openssh().unwrap();
    assert_eq!(session.facts().unwrap().hostname, "h");
    let count = std::sync::atomic::AtomicUsize::new(0);
    let opened = session.further.open_many(3, |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!((opened, count.into_inner()), (3, 3));
    let noted = fake.noted();
    assert!(noted.contains("-oControlMaster=yes"), "{noted}");
    let attached = noted.lines().filter(|line| line.ends_with("fcpd --stdio --attach"));
    let (channels, logins): (Vec<_>, Vec<_>) =
        attached.partition(|line| line.contains("ControlPath="));
    assert_eq!(channels.len(), 3, "{noted}");
    assert!((1..=2).contains(&logins.len()), "tried once, perhaps twice at a time: {noted}");
}

#[test]
fn with_the_users_own_control_path_there_is_no_master_of_ours() {
    let script = PASSWORD.replace("user u\\n", "user u\\ncontrolpath /run/user/0/x\\n");
    let fake = Fake::new("theirs", &script);
    let session = fake.open_as_openssh().unwrap();
    assert!(session.further.open().is_err());
    drop(session);
    assert!(!fake.noted().contains("ControlPath"), "{}", fake.noted());
}

#[test]
fn a_refused_login_ends_the_attempt_and_not_the_session() {
    let script = PASSWORD.replace("*BatchMode=yes*ControlPath=*) ;;", "");
    let fake = Fake::new("alone", &script);
    let session = fake.open_as_openssh().unwrap();
    let began = Instant::now();
    assert_eq!(session.further.open_many(100, |_| ()), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(session.ended().is_none());
}

fn tunnel(fake: &Fake, protocol: Option<u16>) -> Result<SshSession, CliError> {
    let purpose = Purpose::Push(b"/secret".to_vec());
    let hello = Hello::ours(4);
    let tunnel = Tunnel { port: 7523, purpose: &purpose, hello: &hello, protocol };
    tunnel::open(&place(), &fake.options(&fake.dir.join("ssh")), &tunnel)
}

#[test]
fn a21_without_a_token_nothing_goes_through_a_tunnel() {
    let script = "echo \"$*\" >>$D/log
case \"$*\" in
-G*) printf 'hostname h\\nport 22\\nuser u\\n'; exit;;
*'cat .config/fcp/token -') echo Welcome; exec cat;;
esac
exec cat >$D/sent";
    let fake = Fake::new("no-token", script);
    let got = reason(tunnel(&fake, None));
    assert!(got.contains("no token in ~/.config/fcp/token"), "{got}");
    assert!(!fake.noted().contains("-W"), "{}", fake.noted());
}

#[test]
fn a21_a_squatter_behind_a_tunnel_gets_a_greeting_and_no_path() {
    let script = "case \"$*\" in
-G*) printf 'hostname h\\nport 22\\nuser u\\n'; exit;;
*'cat .config/fcp/token -') echo fcp-token-$(printf '%064d' 7); exec cat;;
esac
cat $D/accept; exec cat >$D/sent";
    let fake = Fake::new("squatter", script);
    let got = reason(tunnel(&fake, None));
    assert!(got.contains("ACCEPT where CHALLENGE was expected"), "{got}");
    let sent = fs::read(fake.dir.join("sent")).unwrap();
    assert_eq!(sent.first(), Some(&Flag::HELLO.0));
    assert!(!sent.windows(6).any(|w| w == b"secret"));
}

#[test]
fn a_port_where_nobody_listens_is_said_to_be_one() {
    let script = "case \"$*\" in
-G*) printf 'hostname h\\nport 22\\nuser u\\n'; exit;;
*'cat .config/fcp/token -') echo fcp-token-$(printf '%064d' 7); exec cat;;
esac
exit 255";
    let fake = Fake::new("closed", script);
    for protocol in [None, Some(1)] {
        let got = reason(tunnel(&fake, protocol));
        assert!(got.contains("could not reach port 7523"), "{got}");
    }
}
