//! The system's `ssh`, and who dials.

use std::fs;
use std::time::{Duration, Instant};

use super::support::{Sshd, dial, file, greet, keygen, refused};
use crate::location::Reason;
use crate::location::sftp::dial::plan::Env;
use crate::location::sftp::dial::{Dialer, Login};

#[tokio::test]
async fn the_systems_ssh_is_a_stream_and_tells_why_not() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.key("root", "ed25519", "");
    let env = Env::default();
    let login = sshd.system("root", file(key.clone()));
    let connection = dial((login.clone(), env.clone())).await.unwrap();
    let mut stream = connection.open_sftp().await.unwrap();
    assert_eq!(greet(&mut stream).await.unwrap(), 3);
    assert_eq!(connection.open_sftp().await.unwrap_err().reason, Reason::Busy);
    let output = connection.exec(b"echo hello; exit 3", 100).await.unwrap();
    assert_eq!((output.status, &output.stdout[..]), (Some(3), &b"hello\n"[..]));
    assert!(connection.exec(b"yes", 100).await.is_err());
    assert!(!connection.is_closed());
    drop(stream);
    let ended = async {
        while !connection.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("EOF ends ssh");

    let other = sshd.path("other");
    keygen(&other, &["-t", "ed25519"]);
    let wrong = Login { credentials: file(other), ..login.clone() };
    refused((wrong, env.clone()), Reason::Login).await;
    fs::write(sshd.path("known_hosts"), "").unwrap();
    refused((login.clone(), env.clone()), Reason::HostKey).await;
    let gone = Login { port: Some(1), ..login };
    let error = refused((gone, env), Reason::Lost).await;
    assert!(error.text.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn auto_takes_the_builtin_one_unless_ssh_is_needed() {
    let Some(sshd) = Sshd::start("") else { return };
    let (mut login, env) = sshd.login("root", file(sshd.key("root", "ed25519", "")));
    login.dialer = Dialer::Auto;
    let began = Instant::now();
    let connection = dial((login, env)).await.unwrap();
    assert!(connection.max_channels() > 1 && began.elapsed() < Duration::from_secs(5));

    let bad = sshd.path("bad_config");
    fs::write(&bad, "NoSuchKeyword yes\n").unwrap();
    let (mut login, env) = sshd.login("root", file(sshd.path("key_ed25519_0")));
    login.dialer = Dialer::Auto;
    login.ssh.config_file = Some(bad);
    let error = refused((login, env), Reason::Unsupported).await;
    assert!(
        error.text.contains("NoSuchKeyword") || error.text.contains("nosuchkeyword"),
        "{error}"
    );
}
