//! What ssh is told besides the user's own options, and what its prompts are answered with. Pure.

use std::path::{Path, PathBuf};

use crate::connect::SshOptions;
use crate::location::sftp::dial::askpass::Answers;
use crate::location::sftp::dial::{Credential, HostKeyRule, Login};

/// How long a TCP connection may take, unless ssh_config says so.
const CONNECT_TIMEOUT: &str = "ConnectTimeout=10";
/// sshd is asked whether it lives, so that a dead one is noticed in two minutes.
const ALIVE: [&str; 2] = ["ServerAliveInterval=30", "ServerAliveCountMax=3"];

/// What the login's credentials answer.
pub(super) fn answers(login: &Login) -> Answers {
    let mut answers = Answers::default();
    for credential in &login.credentials {
        match credential {
            Credential::Password(secret) => answers.password = Some(secret.clone()),
            Credential::KeyFile { path, passphrase: Some(secret) } => {
                answers.passphrases.push((path.clone(), secret.clone()));
            }
            Credential::KeyFile { .. } | Credential::Agent => {}
        }
    }
    answers
}

/// The user's options and ours. ssh keeps the first value that it is told.
pub(super) fn options(
    login: &Login,
    known_hosts: Option<&Path>,
) -> std::result::Result<SshOptions, String> {
    let mut options = login.ssh.clone();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    match &login.host_key {
        HostKeyRule::Known => last.push("StrictHostKeyChecking=yes".to_owned()),
        HostKeyRule::AcceptNew => last.push("StrictHostKeyChecking=accept-new".to_owned()),
        HostKeyRule::Pinned(pin) => first.extend(pinned(pin)?),
    }
    if let Some(file) = known_hosts {
        let file = file.to_str().ok_or("FCP_KNOWN_HOSTS is not UTF-8")?;
        last.push(format!("UserKnownHostsFile={}", quoted(file)?));
        last.push("GlobalKnownHostsFile=/dev/null".to_owned());
    }
    last.extend(credentials(login, &mut options.identities));
    last.push(CONNECT_TIMEOUT.to_owned());
    last.extend(ALIVE.map(str::to_owned));
    options.options = first.into_iter().chain(options.options).chain(last).collect();
    Ok(options)
}

/// Only what the login has is tried, as each refusal counts.
fn credentials(login: &Login, identities: &mut Vec<PathBuf>) -> Vec<String> {
    let mut options = Vec::new();
    let (mut has_key, mut has_agent, mut has_password) = (false, false, false);
    for credential in &login.credentials {
        match credential {
            Credential::Password(_) => has_password = true,
            Credential::KeyFile { path, .. } => {
                has_key = true;
                identities.push(path.clone());
            }
            Credential::Agent => has_agent = true,
        }
    }
    if login.credentials.is_empty() {
        return options;
    }
    has_key |= !identities.is_empty();
    if has_key && !has_agent {
        options.push("IdentitiesOnly=yes".to_owned());
    }
    if !has_key && !has_agent {
        options.push("PubkeyAuthentication=no".to_owned());
    }
    if !has_password {
        let none = ["PasswordAuthentication=no", "KbdInteractiveAuthentication=no"];
        options.extend(none.map(str::to_owned));
    }
    options
}

/// A pinned key is the only one known; ssh asks a program of ours for it.
fn pinned(pin: &str) -> std::result::Result<Vec<String>, String> {
    let program = crate::location::sftp::dial::askpass::known_hosts_command(pin.trim())?;
    Ok(vec![
        "StrictHostKeyChecking=yes".to_owned(),
        "UserKnownHostsFile=/dev/null".to_owned(),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "FingerprintHash=sha256".to_owned(),
        format!("KnownHostsCommand={program}"),
    ])
}

/// A path as ssh_config takes it.
fn quoted(path: &str) -> std::result::Result<String, String> {
    match path.contains(['"', '\\', '\n', '%', '$']) {
        true => Err("a path that ssh is told may not contain any of \" \\ % $".to_owned()),
        false => Ok(format!("\"{path}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::sftp::dial::Dialer;
    use crate::secret::Secret;

    fn login(credentials: Vec<Credential>, host_key: HostKeyRule) -> Login {
        Login {
            host: "h".into(),
            port: None,
            user: None,
            credentials,
            host_key,
            dialer: Dialer::System,
            ssh: SshOptions { options: vec!["User=x".into()], ..SshOptions::default() },
        }
    }

    fn told(login: &Login, known_hosts: Option<&str>) -> String {
        options(login, known_hosts.map(Path::new)).unwrap().options.join("|")
    }

    #[test]
    fn hosts_must_be_known_and_the_users_own_options_come_first() {
        let all = told(&login(Vec::new(), HostKeyRule::Known), None);
        assert!(all.starts_with("User=x|StrictHostKeyChecking=yes|ConnectTimeout="), "{all}");
        let all = told(&login(Vec::new(), HostKeyRule::AcceptNew), Some("/a b"));
        let files = "|UserKnownHostsFile=\"/a b\"|GlobalKnownHostsFile=/dev/null|";
        assert!(all.contains("=accept-new|") && all.contains(files), "{all}");
        let bad = login(Vec::new(), HostKeyRule::Known);
        assert!(options(&bad, Some(Path::new("/a\"b"))).is_err());
    }

    #[test]
    fn a_pinned_key_comes_before_everything() {
        let text = format!("SHA256:{}", "a".repeat(43));
        let pin = HostKeyRule::Pinned(text.clone());
        let all = told(&login(Vec::new(), pin), None);
        assert!(
            all.starts_with("StrictHostKeyChecking=yes|UserKnownHostsFile=/dev/null|"),
            "{all}"
        );
        assert!(all.contains(&format!(" \"{text}\" %H %t %K %f|")), "{all}");
        for bad in ["x", "SHA256:\"", "SHA256:%d", "SHA256:\n", "SHA256:abc", "ssh-ed25519"] {
            let login = login(Vec::new(), HostKeyRule::Pinned(bad.into()));
            assert!(options(&login, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_was_given_is_tried() {
        let password = || Credential::Password(Secret::new("planted-secret".into()));
        let file = || Credential::KeyFile { path: "/k".into(), passphrase: None };
        let of = |credentials| told(&login(credentials, HostKeyRule::Known), None);
        let all = of(vec![password()]);
        assert!(all.contains("PubkeyAuthentication=no") && !all.contains("planted"), "{all}");
        let all = of(vec![file()]);
        assert!(all.contains("IdentitiesOnly=yes|PasswordAuthentication=no"), "{all}");
        assert!(!of(vec![file(), Credential::Agent]).contains("IdentitiesOnly"));
        assert!(!of(vec![password(), file()]).contains("PasswordAuthentication"));
    }
}
