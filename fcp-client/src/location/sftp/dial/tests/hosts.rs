//! Whom a login believes, at a real sshd.

use std::fs;

use super::support::{Sshd, file, keygen, pub_of, refused, works};
use crate::location::Reason;
use crate::location::sftp::dial::plan::Env;
use crate::location::sftp::dial::{Dialer, HostKeyRule, Login};

#[tokio::test]
async fn s19_an_unknown_or_changed_host_gets_no_login() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.key("root", "ed25519", "");
    let known = sshd.path("known_hosts");
    let with = |text: &str| {
        let login = sshd.login("root", file(key.clone()));
        fs::write(&known, text).unwrap();
        login
    };
    let error = refused(with(""), Reason::HostKey).await;
    for hint in
        ["not known", "ssh-ed25519 SHA256:", "host_key: \"SHA256:", "ssh -p ", "in none of '"]
    {
        assert!(error.text.contains(hint), "{hint}: {error}");
    }
    let other = format!("[127.0.0.1]:{} {}", sshd.port, &fs::read_to_string(pub_of(&key)).unwrap());
    let error = refused(with(&other), Reason::HostKey).await;
    assert!(error.text.contains("HAS CHANGED") && error.text.contains("line 1 of '"), "{error}");
    assert!(error.text.contains("ssh-keygen -f"), "{error}");
    let revoked = format!("{}\n@revoked * {}\n", sshd.known("ed25519"), sshd.host_key("ed25519"));
    let error = refused(with(&revoked), Reason::HostKey).await;
    assert!(error.text.contains("is revoked by line 2"), "{error}");
    refused(with("@revoked nonsense\n"), Reason::HostKey).await;
    let login = with("");
    fs::remove_file(&known).unwrap();
    fs::create_dir(&known).unwrap();
    let error = refused(login, Reason::HostKey).await;
    assert!(error.text.contains("not a regular file"), "{error}");
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
}

#[tokio::test]
async fn a_known_host_may_be_hashed_or_without_its_port_or_of_another_kind() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.key("root", "ed25519", "");
    let known = sshd.path("known_hosts");
    let bare = format!("127.0.0.1 {}", sshd.host_key("ed25519"));
    for text in [&sshd.known("rsa"), &sshd.known("ecdsa"), &bare, &sshd.known("ed25519")] {
        let login = sshd.login("root", file(key.clone()));
        fs::write(&known, format!("{text}\n")).unwrap();
        works(login).await;
    }
    let login = sshd.login("root", file(key.clone()));
    keygen(&known, &["-H"]);
    assert!(fs::read_to_string(&known).unwrap().starts_with("|1|"));
    works(login).await;
}

#[tokio::test]
async fn a_pinned_key_is_the_only_one_and_needs_no_file() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.key("root", "ed25519", "");
    let with = |pin: &str| {
        let (mut login, env) = sshd.login("root", file(key.clone()));
        login.host_key = HostKeyRule::Pinned(pin.to_owned());
        (login, Env { known_hosts: Some("/nonexistent/x".into()), ..env })
    };
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let output = std::process::Command::new("ssh-keygen")
            .arg("-lf")
            .arg(sshd.path(&format!("host_{kind}.pub")))
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        works(with(text.split(' ').nth(1).unwrap())).await;
        works(with(&sshd.host_key(kind))).await;
    }
    works(with(&sshd.known("rsa"))).await;
    let own = fs::read_to_string(pub_of(&key)).unwrap();
    let error = refused(with(&own), Reason::HostKey).await;
    assert!(error.text.contains("NOT THE SERVER"), "{error}");
    refused(with("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), Reason::HostKey).await;
    let error = refused(with("md5:00"), Reason::HostKey).await;
    assert!(error.text.contains("neither"), "{error}");
}

#[tokio::test]
async fn accept_new_adds_a_host_once_and_refuses_a_change() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.key("root", "ed25519", "");
    let (mut login, env) = sshd.login("root", file(key.clone()));
    login.host_key = HostKeyRule::AcceptNew;
    let known = sshd.path("new/known_hosts");
    let env = Env { known_hosts: Some(known.clone()), ..env };
    works((login.clone(), env.clone())).await;
    works((login.clone(), env.clone())).await;
    // Whether its name is hashed is for the system's ssh_config to say.
    let text = fs::read_to_string(&known).unwrap();
    assert!(text.lines().count() == 1 && text.contains(&sshd.host_key("ed25519")), "{text}");
    let own = fs::read_to_string(pub_of(&key)).unwrap();
    fs::write(&known, format!("[127.0.0.1]:{} {own}", sshd.port)).unwrap();
    refused((login, env), Reason::HostKey).await;
}

#[tokio::test]
async fn a_host_certificate_counts_if_its_authority_is_known_and_it_is_for_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    keygen(&ca, &["-t", "ed25519"]);
    let certified = |name: &str, principal: &str, extra: &[&str]| {
        let key = dir.path().join(name);
        keygen(&key, &["-t", "ed25519"]);
        let mut sign = std::process::Command::new("ssh-keygen");
        sign.arg("-q").arg("-s").arg(&ca).args(["-I", "id", "-n", principal]).args(extra);
        assert!(sign.arg(pub_of(&key)).output().unwrap().status.success());
        let key = key.display().to_string();
        Sshd::start(&format!("HostKey {key}\nHostCertificate {key}-cert.pub"))
    };
    let ca_key = fs::read_to_string(pub_of(&ca)).unwrap();
    for (name, principal, extra, good) in [
        ("good", "127.0.0.1", &["-h"][..], true),
        ("other", "elsewhere", &["-h"], false),
        ("user", "127.0.0.1", &[], false),
        ("old", "127.0.0.1", &["-h", "-V", "20200101:20200102"], false),
    ] {
        let Some(sshd) = certified(name, principal, extra) else { return };
        let key = sshd.key("root", "ed25519", "");
        let login = sshd.login("root", file(key));
        fs::write(sshd.path("known_hosts"), format!("@cert-authority 127.* {ca_key}")).unwrap();
        // sshd itself does not show a user's certificate.
        match good {
            true => {
                fs::write(sshd.path("known_hosts"), format!("@cert-authority [127.*]:* {ca_key}"))
                    .unwrap();
                works(login).await;
            }
            false => drop(refused(login, Reason::HostKey).await),
        }
    }
}

#[tokio::test]
async fn j13_what_ssh_or_a_shell_would_read_more_into_reaches_neither() {
    let Some(sshd) = Sshd::start("") else { return };
    let (login, env) = sshd.login("root", Vec::new());
    for (user, host) in [
        ("root", "-oProxyCommand=x"),
        ("$(id)", "127.0.0.1"),
        ("`x`", "127.0.0.1"),
        ("a\nb", "127.0.0.1"),
        ("a\\b", "127.0.0.1"),
        ("root", "a;b"),
    ] {
        for dialer in [Dialer::Auto, Dialer::Builtin, Dialer::System] {
            let (user, host) = (Some(user.to_owned()), host.to_owned());
            let login = Login { user, host, dialer, ..login.clone() };
            let error = refused((login, env.clone()), Reason::Unsupported).await;
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
    assert!(!sshd.log().contains("Connection from"));
}
