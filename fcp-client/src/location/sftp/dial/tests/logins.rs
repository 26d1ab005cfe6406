//! Keys, agents, passwords, and logins of several steps at a real sshd.

use std::fs;

use super::support::{Account, Agent, Sshd, file, keygen, pub_of, refused, secret, works};
use crate::location::Reason;
use crate::location::sftp::dial::Credential;
use crate::location::sftp::dial::plan::Env;

#[tokio::test]
async fn every_kind_of_key_logs_in() {
    let Some(sshd) = Sshd::start("") else { return };
    for kind in ["ed25519", "rsa", "ecdsa"] {
        let key = sshd.key("root", kind, "");
        works(sshd.login("root", file(key.clone()))).await;
    }
    let pem = sshd.path("pem");
    keygen(&pem, &["-t", "rsa", "-m", "PEM"]);
    sshd.authorize("root", &fs::read_to_string(pub_of(&pem)).unwrap());
    works(sshd.login("root", file(pem))).await;
}

#[tokio::test]
async fn a_key_behind_a_passphrase_opens_with_it_only() {
    let Some(sshd) = Sshd::start("") else { return };
    let path = sshd.key("root", "ed25519", "open sesame");
    let with = |passphrase: Option<&str>| {
        let passphrase = passphrase.map(secret);
        sshd.login("root", vec![Credential::KeyFile { path: path.clone(), passphrase }])
    };
    works(with(Some("open sesame"))).await;
    let error = refused(with(None), Reason::Login).await;
    assert!(error.text.contains("needs its passphrase"), "{error}");
    let error = refused(with(Some("planted-secret")), Reason::Login).await;
    assert!(error.text.contains("passphrase is wrong"), "{error}");
    assert!(!format!("{error:?}").contains("planted-secret"));
}

#[tokio::test]
async fn an_agent_and_default_keys_log_in_where_nothing_is_named() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.key("root", "ed25519", "");
    let agent = Agent::start(&sshd.path(""));
    agent.add(&key);
    let (login, env) = sshd.login("root", Vec::new());
    works((login.clone(), Env { agent: Some(agent.socket.clone()), ..env.clone() })).await;
    let error = refused((login.clone(), env.clone()), Reason::Login).await;
    assert!(error.text.contains("nothing to log in with"), "{error}");
    let ssh = sshd.path("home/.ssh");
    fs::create_dir(&ssh).unwrap();
    fs::copy(&key, ssh.join("id_ed25519")).unwrap();
    works((login, env)).await;
}

#[tokio::test]
async fn an_agent_with_an_rsa_key_signs_with_sha2() {
    let Some(sshd) = Sshd::start("") else { return };
    let agent = Agent::start(&sshd.path(""));
    agent.add(&sshd.key("root", "rsa", ""));
    let (login, env) = sshd.login("root", vec![Credential::Agent]);
    works((login, Env { agent: Some(agent.socket.clone()), ..env })).await;
    assert!(!sshd.log().contains("ssh-rsa:"));
}

#[tokio::test]
async fn a_users_certificate_logs_in() {
    let Some(sshd) = Sshd::start("") else { return };
    let (ca, key) = (sshd.path("ca"), sshd.path("certified"));
    keygen(&ca, &["-t", "ed25519"]);
    keygen(&key, &["-t", "ed25519"]);
    let public = pub_of(&key);
    let mut sign = std::process::Command::new("ssh-keygen");
    sign.arg("-q").arg("-s").arg(&ca).args(["-I", "id", "-n", "root"]).arg(&public);
    assert!(sign.output().unwrap().status.success());
    let ca = fs::read_to_string(pub_of(&ca)).unwrap();
    sshd.authorize("root", &format!("cert-authority {}", ca.trim()));
    works(sshd.login("root", file(key))).await;
}

#[tokio::test]
async fn s19_a_wrong_key_is_final() {
    let Some(sshd) = Sshd::start("") else { return };
    let other = sshd.path("other");
    keygen(&other, &["-t", "ed25519"]);
    let error = refused(sshd.login("root", file(other)), Reason::Login).await;
    assert!(error.text.contains("was refused") && !error.is_transient(), "{error}");
    let missing = sshd.login("root", file(sshd.path("none")));
    assert!(refused(missing, Reason::Login).await.text.contains("there is no '"));
    let loose = sshd.key("root", "ed25519", "");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o644)).unwrap();
    let error = refused(sshd.login("root", file(loose)), Reason::Login).await;
    assert!(error.text.contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn j06_a_password_logs_in_and_a_wrong_one_is_sent_once() {
    let Some(sshd) = Sshd::start("") else { return };
    let Some(account) = Account::new("right#_one") else { return };
    let with = |text: &str| vec![Credential::Password(secret(text))];
    works(sshd.login(&account.name, with("right#_one"))).await;
    let error = refused(sshd.login(&account.name, with("planted-secret")), Reason::Login).await;
    assert!(error.text.contains("the password was refused"), "{error}");
    assert!(!format!("{error} {error:?}").contains("planted-secret"));
    assert_eq!(sshd.log().matches("Failed password").count(), 1);
}

#[tokio::test]
async fn keyboard_interactive_through_pam_takes_the_password() {
    if !std::path::Path::new("/etc/pam.d/sshd").is_file() {
        eprintln!("SKIPPED what needs PAM: it has no sshd");
        return;
    }
    let pam = "UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication yes";
    let Some(sshd) = Sshd::start(pam) else { return };
    let Some(account) = Account::new("right#_one") else { return };
    let with = |text: &str| vec![Credential::Password(secret(text))];
    works(sshd.login(&account.name, with("right#_one"))).await;
    refused(sshd.login(&account.name, with("wrong")), Reason::Login).await;
}

#[tokio::test]
async fn a_login_of_two_steps_takes_both() {
    let Some(sshd) = Sshd::start("AuthenticationMethods publickey,password") else { return };
    let Some(account) = Account::new("right#_one") else { return };
    let key = sshd.key(&account.name, "ed25519", "");
    let mut both = file(key.clone());
    both.push(Credential::Password(secret("right#_one")));
    works(sshd.login(&account.name, both)).await;
    let error = refused(sshd.login(&account.name, file(key)), Reason::Login).await;
    assert!(error.text.contains("another is wanted"), "{error}");
}

/// An agent that answers each request with the next of these messages, and is silent then.
fn fake_agent(dir: &std::path::Path, answers: Vec<Vec<u8>>) -> std::path::PathBuf {
    use std::io::{Read, Write};
    let path = dir.join("fake_agent");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        let mut answers = answers.into_iter();
        while stream.read_exact(&mut length).is_ok() {
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut request).unwrap();
            // It does not know how to bind to a session.
            let answer = match request.first() {
                Some(27) => vec![5],
                _ => answers.next().unwrap_or_default(),
            };
            if !answer.is_empty() {
                stream.write_all(&(answer.len() as u32).to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        }
    });
    path
}

#[tokio::test]
async fn s19_an_agent_that_refuses_or_keeps_silent_ends_the_attempt() {
    let Some(sshd) = Sshd::start("") else { return };
    let key = sshd.key("root", "ed25519", "");
    let text = fs::read_to_string(pub_of(&key)).unwrap();
    let blob = russh::keys::PublicKey::from_openssh(text.trim()).unwrap().to_bytes().unwrap();
    let mut list = vec![12, 0, 0, 0, 1];
    list.extend((blob.len() as u32).to_be_bytes());
    list.extend(&blob);
    list.extend([0; 4]);
    for (answers, why) in [
        (vec![list.clone(), vec![5]], "cannot sign"),
        (vec![vec![5]], "nothing to log in with"),
        (vec![vec![12, 0xff, 0xff, 0xff, 0xff]], "does not tell its keys"),
        (vec![], "does not answer"),
    ] {
        let agent = fake_agent(&sshd.path(""), answers);
        let (login, env) = sshd.login("root", vec![Credential::Agent]);
        let error =
            refused((login, Env { agent: Some(agent.clone()), ..env }), Reason::Login).await;
        assert!(error.text.contains(why), "{why}: {error}");
        fs::remove_file(agent).unwrap();
    }
}
