//! Which program dials, and what the built-in one takes over from ssh_config. Pure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Credential, Dialer, Login};
use crate::connect::SshOptions;
use crate::connect::address::Family;
use crate::connect::ssh::Settings;

/// How long a TCP connection may take where nobody says so.
const CONNECT: Duration = Duration::from_secs(10);
/// The names of keys in `~/.ssh` that are tried where nobody names one, as OpenSSH has them.
const KEYS: [&str; 3] = ["id_rsa", "id_ecdsa", "id_ed25519"];

/// What the process is told by whoever started it.
#[derive(Clone, Debug, Default)]
pub(in crate::location::sftp) struct Env {
    /// `HOME`.
    pub(super) home: Option<PathBuf>,
    /// `FCP_KNOWN_HOSTS`.
    pub(super) known_hosts: Option<PathBuf>,
    /// `SSH_AUTH_SOCK`.
    pub(super) agent: Option<PathBuf>,
    /// Who we are.
    pub(super) user: Option<String>,
    /// Whether there is a Kerberos ticket, as far as the environment tells.
    pub(super) has_ticket: bool,
}

/// Which program dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The built-in one.
    Builtin(Box<Plan>),
    /// The system's; why.
    System(&'static str),
}

/// What the built-in one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The name or address to connect to.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The name by which the host's key is known.
    pub(super) known_as: String,
    /// The files of known hosts; a new one is added to the first.
    pub(super) known_hosts: Vec<PathBuf>,
    /// Key files that nobody named in the login; those that are missing do not count.
    pub(super) keys: Vec<PathBuf>,
    /// Where the agent listens.
    pub(super) agent: Option<PathBuf>,
    /// Of the agent's keys only those count whose public half lies beside one of `keys`.
    pub(super) only_keys: bool,
    /// Whether names of new hosts are hashed.
    pub(super) hashed: bool,
    pub(super) family: Family,
    pub(super) connect: Duration,
}

impl Env {
    /// Of this process.
    pub(super) fn of_process() -> Env {
        let path = |name: &str| {
            let value: Option<OsString> = std::env::var_os(name).filter(|v| !v.is_empty());
            value.map(PathBuf::from)
        };
        let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        Env {
            home: path("HOME"),
            known_hosts: path("FCP_KNOWN_HOSTS"),
            agent: path("SSH_AUTH_SOCK"),
            user: user.filter(|user| !user.is_empty()),
            has_ticket: path("KRB5CCNAME").is_some(),
        }
    }
}

/// Which way, from what `ssh -G` told, if there is an ssh.
pub(super) fn way(login: &Login, settings: Option<&Settings>, env: &Env) -> Way {
    let why = match login.dialer {
        Dialer::System => Some("asked for"),
        Dialer::Builtin => None,
        Dialer::Auto if !cfg!(feature = "sftp") => Some("there is no other one in this build"),
        Dialer::Auto => chosen(&login.ssh).or_else(|| settings.and_then(|s| needs(login, s, env))),
    };
    match why {
        Some(why) => Way::System(why),
        None => Way::Builtin(Box::new(plan(login, settings, env))),
    }
}

/// What the user said that only ssh can do.
fn chosen(options: &SshOptions) -> Option<&'static str> {
    let own = [
        (options.program != SshOptions::default().program, "an ssh program was chosen"),
        (options.config_file.is_some(), "a config file was chosen"),
        (!options.options.is_empty(), "options of ssh were chosen"),
        (options.jump.is_some(), "a jump host was chosen"),
        (options.compress, "compression was chosen"),
    ];
    own.iter().find(|(is_so, _)| *is_so).map(|(_, why)| *why)
}

/// Keywords with which ssh does what the built-in client does not.
const ONLY_SSH: [(&str, &str); 10] = [
    ("proxyjump", "ssh_config has a ProxyJump"),
    ("proxycommand", "ssh_config has a ProxyCommand"),
    ("controlpath", "ssh_config has a ControlPath"),
    ("pkcs11provider", "ssh_config has a PKCS11Provider"),
    ("knownhostscommand", "ssh_config has a KnownHostsCommand"),
    ("revokedhostkeys", "ssh_config has RevokedHostKeys"),
    ("bindaddress", "ssh_config has a BindAddress"),
    ("bindinterface", "ssh_config has a BindInterface"),
    ("certificatefile", "ssh_config has a CertificateFile"),
    ("remotecommand", "ssh_config has a RemoteCommand"),
];
/// Lists and switches that somebody may have chosen for a reason.
const CHOSEN: [&str; 9] = [
    "ciphers",
    "macs",
    "kexalgorithms",
    "hostkeyalgorithms",
    "pubkeyacceptedalgorithms",
    "casignaturealgorithms",
    "preferredauthentications",
    "securitykeyprovider",
    "verifyhostkeydns",
];

/// What ssh_config says of the host that only ssh can do.
fn needs(login: &Login, settings: &Settings, env: &Env) -> Option<&'static str> {
    let set = ONLY_SSH.iter().find(|(key, _)| settings.get(key).is_some());
    if let Some((_, why)) = set {
        return Some(why);
    }
    if CHOSEN.iter().any(|key| settings.is_chosen(key)) {
        return Some("ssh_config chooses algorithms or ways to log in");
    }
    let is_on = |key: &str| settings.get(key).is_some_and(|v| v == "yes" || v == "true");
    if is_on("compression") {
        return Some("ssh_config has Compression");
    }
    if is_on("hostbasedauthentication") {
        return Some("ssh_config has HostbasedAuthentication");
    }
    if !login.credentials.is_empty() {
        return None;
    }
    if is_on("gssapiauthentication") && env.has_ticket {
        return Some("there may be a Kerberos ticket for it");
    }
    let only_tokens = settings.is_chosen("identityfile")
        && settings.all("identityfile").iter().all(|file| file.ends_with("_sk"));
    only_tokens.then_some("its key is in a token")
}

fn plan(login: &Login, settings: Option<&Settings>, env: &Env) -> Plan {
    let get = |key: &str| settings.and_then(|settings| settings.get(key));
    let host = get("hostname").unwrap_or(&login.host).to_owned();
    let asked = login.port.or(login.ssh.port);
    let port = get("port").and_then(|port| port.parse().ok()).or(asked).unwrap_or(22);
    let user = get("user").or(login.user.as_deref()).or(env.user.as_deref()).unwrap_or("root");
    let family = match (login.ssh.ipv4, login.ssh.ipv6, get("addressfamily")) {
        (true, ..) | (false, false, Some("inet")) => Family::V4,
        (_, true, _) | (_, _, Some("inet6")) => Family::V6,
        _ => Family::Any,
    };
    let connect = get("connecttimeout").and_then(|secs| secs.parse().ok());
    Plan {
        port,
        user: login.user.as_deref().unwrap_or(user).to_owned(),
        known_as: get("hostkeyalias").unwrap_or(&host).to_owned(),
        known_hosts: known_hosts(settings, env),
        keys: keys(login, settings, env),
        agent: agent(settings, env),
        only_keys: get("identitiesonly") == Some("yes"),
        hashed: get("hashknownhosts") == Some("yes"),
        family,
        connect: connect.map_or(CONNECT, Duration::from_secs),
        host,
    }
}

/// `FCP_KNOWN_HOSTS` alone; else those of ssh_config, or those in our home and the system's.
fn known_hosts(settings: Option<&Settings>, env: &Env) -> Vec<PathBuf> {
    if let Some(file) = &env.known_hosts {
        return vec![file.clone()];
    }
    let of = |key: &str, usual: Vec<PathBuf>| match settings {
        Some(settings) if settings.is_chosen(key) => {
            words(settings.get(key).unwrap_or_default(), env)
        }
        _ => usual,
    };
    let home = |name: &str| env.home.as_ref().map(|home| home.join(".ssh").join(name));
    let users = ["known_hosts", "known_hosts2"].iter().filter_map(|name| home(name)).collect();
    let mut files = of("userknownhostsfile", users);
    let system = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"].map(PathBuf::from);
    files.extend(of("globalknownhostsfile", system.to_vec()));
    files
}

fn keys(login: &Login, settings: Option<&Settings>, env: &Env) -> Vec<PathBuf> {
    if !login.ssh.identities.is_empty() {
        return login.ssh.identities.clone();
    }
    if !login.credentials.is_empty() && !login.credentials.iter().any(Credential::is_agent) {
        return Vec::new();
    }
    match settings {
        Some(settings) if settings.is_chosen("identityfile") => {
            settings.all("identityfile").iter().map(|file| expand(file, env)).collect()
        }
        _ => {
            let home = env.home.iter();
            home.flat_map(|home| KEYS.map(|name| home.join(".ssh").join(name))).collect()
        }
    }
}

fn agent(settings: Option<&Settings>, env: &Env) -> Option<PathBuf> {
    let Some(settings) = settings else { return env.agent.clone() };
    match settings.all("identityagent").first() {
        None | Some(&"SSH_AUTH_SOCK" | &"$SSH_AUTH_SOCK") => env.agent.clone(),
        Some(&"none") => None,
        Some(path) if path.starts_with('$') => std::env::var_os(&path[1..]).map(PathBuf::from),
        Some(path) => Some(expand(path, env)),
    }
}

/// Paths as ssh lists them: cut at spaces, unless quoted.
fn words(list: &str, env: &Env) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest = list.trim_start();
    while !rest.is_empty() {
        let (word, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        found.push(expand(word, env));
        rest = tail.trim_start();
    }
    found.retain(|path| path.as_path() != Path::new("none"));
    found
}

fn expand(path: &str, env: &Env) -> PathBuf {
    match (path.strip_prefix("~/"), &env.home) {
        (Some(below), Some(home)) => home.join(below),
        _ => PathBuf::from(path),
    }
}

#[cfg(feature = "sftp")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::sftp::dial::HostKeyRule;
    use crate::secret::Secret;

    const PLAIN: &str = "host localhost\nuser me\nhostname localhost\nport 22\naddressfamily any\n\
        gssapiauthentication no\nhostbasedauthentication no\nidentitiesonly no\ncompression no\n\
        ciphers a,b\nmacs m\nidentityfile ~/.ssh/id_rsa\nidentityfile ~/.ssh/id_ed25519\n\
        globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2\n\
        userknownhostsfile /pw/.ssh/known_hosts /pw/.ssh/known_hosts2\nconnecttimeout none\n";

    fn login() -> Login {
        Login {
            host: "h".into(),
            port: None,
            user: None,
            credentials: Vec::new(),
            host_key: HostKeyRule::Known,
            dialer: Dialer::Auto,
            ssh: SshOptions::default(),
        }
    }

    fn env() -> Env {
        Env { home: Some("/home/u".into()), user: Some("me".into()), ..Env::default() }
    }

    fn of(changed: &[(&str, &str)]) -> Settings {
        let mut real = PLAIN.to_owned();
        for (from, to) in changed {
            assert!(real.contains(from), "{from}");
            real = real.replace(from, to);
        }
        Settings::new(real, Some(PLAIN.to_owned()))
    }

    fn plan_of(settings: &Settings) -> Plan {
        match way(&login(), Some(settings), &env()) {
            Way::Builtin(plan) => *plan,
            Way::System(why) => panic!("{why}"),
        }
    }

    #[test]
    fn what_ssh_config_says_of_a_host_is_taken_over() {
        let plan = plan_of(&of(&[
            ("hostname localhost", "hostname 10.0.0.7\nhostkeyalias Alias"),
            ("port 22\n", "port 2222\n"),
            ("user me", "user bob"),
            ("identityfile ~/.ssh/id_rsa\n", ""),
            ("~/.ssh/id_ed25519", "~/k"),
            ("/pw/.ssh/known_hosts /pw/.ssh/known_hosts2", "~/a \"/x y\""),
            ("connecttimeout none", "connecttimeout 3\nidentityagent /run/agent"),
            ("identitiesonly no", "identitiesonly yes"),
        ]));
        assert_eq!((&*plan.host, plan.port, &*plan.user), ("10.0.0.7", 2222, "bob"));
        assert_eq!(plan.known_as, "Alias");
        assert_eq!(plan.keys, [Path::new("/home/u/k")]);
        assert_eq!(plan.known_hosts[..2], [Path::new("/home/u/a"), Path::new("/x y")]);
        assert_eq!((plan.agent, plan.only_keys), (Some("/run/agent".into()), true));
        assert_eq!(plan.connect, Duration::from_secs(3));
    }

    #[test]
    fn without_settings_home_counts_and_another_file_of_known_hosts_stands_alone() {
        let plan = plan_of(&of(&[]));
        assert_eq!(plan.known_hosts[0], Path::new("/home/u/.ssh/known_hosts"));
        assert_eq!(plan.known_hosts.len(), 4);
        assert_eq!(plan.keys.len(), 3);
        let env = Env { known_hosts: Some("/k".into()), ..env() };
        let Way::Builtin(plan) = way(&login(), None, &env) else { panic!("system") };
        assert_eq!(plan.known_hosts, [Path::new("/k")]);
        assert_eq!((&*plan.host, plan.port, &*plan.user), ("h", 22, "me"));
    }

    #[test]
    fn what_only_ssh_can_do_is_left_to_it() {
        for (from, to) in [
            ("compression no", "compression yes"),
            ("ciphers a,b", "ciphers b"),
            ("port 22\n", "port 22\nproxyjump j\n"),
            ("port 22\n", "port 22\nproxycommand nc %h %p\n"),
            ("port 22\n", "port 22\ncontrolpath /run/x\n"),
            ("port 22\n", "port 22\npkcs11provider /lib/x\n"),
            ("identityfile ~/.ssh/id_rsa\nidentityfile ~/.ssh/id_ed25519", "identityfile ~/k_sk"),
        ] {
            let way = way(&login(), Some(&of(&[(from, to)])), &env());
            assert!(matches!(way, Way::System(_)), "{to}");
        }
        let options = SshOptions { options: vec!["Port=1".into()], ..SshOptions::default() };
        let login = Login { ssh: options, ..login() };
        assert!(matches!(way(&login, None, &env()), Way::System(_)));
    }

    #[test]
    fn a_ticket_counts_only_where_nothing_else_was_given() {
        let settings = of(&[("gssapiauthentication no", "gssapiauthentication yes")]);
        let ticket = Env { has_ticket: true, ..env() };
        assert!(matches!(way(&login(), Some(&settings), &env()), Way::Builtin(_)));
        assert!(matches!(way(&login(), Some(&settings), &ticket), Way::System(_)));
        let credentials = vec![Credential::Password(Secret::new("x".into()))];
        let login = Login { credentials, ..login() };
        let Way::Builtin(plan) = way(&login, Some(&settings), &ticket) else { panic!("system") };
        assert!(plan.keys.is_empty());
    }

    #[test]
    fn who_asks_for_a_program_gets_it() {
        let login = Login { dialer: Dialer::System, ..login() };
        assert_eq!(way(&login, None, &env()), Way::System("asked for"));
    }
}
