use std::fs;
use std::time::{Duration, Instant};

use super::plan::Env;
use super::testing::{Account, Agent, Sshd, dial, greet, keygen, pub_of};
use super::{Credential, Dialer, HostKeyRule, Login};
use crate::location::{LocationError, Reason};
use crate::secret::Secret;

fn file(path: std::path::PathBuf) -> Vec<Credential> {
    vec![Credential::KeyFile { path, passphrase: None }]
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

async fn works(login: (Login, Env)) {
    let connection = dial(login).await.unwrap();
    let mut stream = connection.open_sftp().await.unwrap();
    assert_eq!(greet(&mut stream).await.unwrap(), 3);
}

async fn refused(login: (Login, Env), reason: Reason) -> LocationError {
    let error = match dial(login).await {
        Err(error) => error,
        Ok(connection) => {
            let mut stream = connection.open_sftp().await.unwrap();
            let lost = connection.open_sftp().await.unwrap_err();
            greet(&mut stream).await.expect_err("it let in");
            connection.explain(lost).await
        }
    };
    assert_eq!(error.reason, reason, "{error}");
    error
}

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
async fn several_streams_and_commands_share_a_login_until_the_server_says_no() {
    let Some(sshd) = Sshd::start("MaxSessions 2") else { return };
    let key = sshd.key("root", "ed25519", "");
    let connection = dial(sshd.login("root", file(key))).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = connection.open_sftp().await.unwrap();
        greet(&mut stream).await.unwrap();
        streams.push(stream);
    }
    let error = connection.open_sftp().await.unwrap_err();
    assert_eq!(error.reason, Reason::Busy, "{error}");
    streams.pop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let output = connection.exec(b"echo hello; exit 3", 100).await.unwrap();
    assert_eq!((output.status, &output.stdout[..]), (Some(3), &b"hello\n"[..]));
    assert!(connection.exec(b"yes", 100).await.is_err());
    assert!(!connection.is_closed() && connection.has_exec());
    let mut last = streams.pop().unwrap();
    drop(connection);
    assert!(last.writer.as_mut().flush_ok().await, "a stream keeps its login");
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1);
}

/// A stream that is alive answers.
trait Alive {
    async fn flush_ok(&mut self) -> bool;
}

impl<T: tokio::io::AsyncWrite + Unpin + ?Sized> Alive for T {
    async fn flush_ok(&mut self) -> bool {
        use tokio::io::AsyncWriteExt;
        // A request for the real path of ".".
        let request = [0, 0, 0, 10, 16, 0, 0, 0, 1, 0, 0, 0, 1, b'.'];
        self.write_all(&request).await.is_ok() && self.flush().await.is_ok()
    }
}

#[tokio::test]
async fn a_server_that_forces_sftp_runs_no_command_and_holds_nobody_up() {
    let Some(sshd) = Sshd::start("ForceCommand internal-sftp") else { return };
    let key = sshd.key("root", "ed25519", "");
    let connection = dial(sshd.login("root", file(key))).await.unwrap();
    let running = connection.exec(b"sha256sum /etc/passwd", 1000);
    let done = tokio::time::timeout(Duration::from_secs(10), running).await.unwrap();
    assert_eq!(done.unwrap_err().reason, Reason::Unsupported);
    assert!(!connection.has_exec());
    let mut stream = connection.open_sftp().await.unwrap();
    greet(&mut stream).await.unwrap();
}

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
