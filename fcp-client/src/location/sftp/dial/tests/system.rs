//! The system's `ssh`, and who dials.

use std::fs;
use std::time::{Duration, Instant};

use super::support::{Account, Sshd, dial, file, greet, keygen, refused, secret, works};
use crate::location::Reason;
use crate::location::sftp::dial::plan::Env;
use crate::location::sftp::dial::{Credential, Dialer, HostKeyRule, Login};

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
async fn the_systems_ssh_gets_a_password_and_passphrases_from_us() {
    let Some(sshd) = Sshd::start("") else { return };
    let Some(account) = Account::new("right#_one") else { return };
    if !std::env::current_exe().unwrap().with_file_name("../fcp").is_file() {
        eprintln!("SKIPPED what needs the program fcp: it was not built");
        return;
    }
    let env = Env::default();
    let with = |text: &str| sshd.system(&account.name, vec![Credential::Password(secret(text))]);
    works((with("right#_one"), env.clone())).await;
    let error = refused((with("planted-secret"), env.clone()), Reason::Login).await;
    assert!(!format!("{error} {error:?}").contains("planted-secret"));
    assert_eq!(sshd.log().matches("Failed password").count(), 1);
    let path = sshd.key("root", "ed25519", "open sesame");
    let passphrase = Some(secret("open sesame"));
    works((sshd.system("root", vec![Credential::KeyFile { path, passphrase }]), env)).await;
}

#[tokio::test]
async fn the_systems_ssh_believes_a_pinned_key_only() {
    let Some(sshd) = Sshd::start("") else { return };
    if !std::env::current_exe().unwrap().with_file_name("../fcp").is_file() {
        eprintln!("SKIPPED what needs the program fcp: it was not built");
        return;
    }
    let key = sshd.key("root", "ed25519", "");
    let with = |pin: &str| {
        let mut login = sshd.system("root", file(key.clone()));
        login.host_key = HostKeyRule::Pinned(pin.to_owned());
        (login, Env::default())
    };
    let output = std::process::Command::new("ssh-keygen")
        .arg("-lf")
        .arg(sshd.path("host_ed25519.pub"))
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    works(with(text.split(' ').nth(1).unwrap())).await;
    works(with(&sshd.host_key("rsa"))).await;
    refused(with("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), Reason::HostKey).await;
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

#[tokio::test]
async fn j06_no_secret_is_in_the_arguments_or_environment_of_ssh() {
    let Some(sshd) = Sshd::start("") else { return };
    let Some(account) = Account::new("planted-secret") else { return };
    if !std::env::current_exe().unwrap().with_file_name("../fcp").is_file() {
        eprintln!("SKIPPED what needs the program fcp: it was not built");
        return;
    }
    let login = sshd.system(&account.name, vec![Credential::Password(secret("planted-secret"))]);
    let connection = dial((login, Env::default())).await.unwrap();
    let mut stream = connection.open_sftp().await.unwrap();
    greet(&mut stream).await.unwrap();
    let port = format!("-p\0{}\0", sshd.port);
    let mut seen = 0;
    for entry in fs::read_dir("/proc").unwrap().map(Result::unwrap) {
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let args = String::from_utf8_lossy(&read("cmdline")).into_owned();
        if args.starts_with("ssh\0") && args.contains(&port) {
            seen += 1;
            assert!(!args.contains("planted-secret"), "{args}");
            assert!(!String::from_utf8_lossy(&read("environ")).contains("planted-secret"));
        }
    }
    assert_eq!(seen, 1);
}
