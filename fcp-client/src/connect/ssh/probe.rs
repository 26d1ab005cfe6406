//! What ssh would do for a host, as `ssh -G` tells it.
//!
//! It takes about 5 ms and reaches nobody, so it runs before the login, whose ciphers it decides.
//! (`Match exec` and host name canonicalisation in ssh_config run once more for it.) It is never a
//! reason to fail: without an answer everything is left as ssh_config has it.

use std::ffi::OsString;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::child::{self, Errors};
use super::command::{default_arguments, probe_arguments};
use super::{Place, SshOptions};

/// How long ssh may think about it.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any `ssh -G` prints.
const MAX_OUTPUT: u64 = 256 << 10;
/// What a processor with AES instructions is fastest with: one pass, and no MAC beside it.
const FAST: [&str; 2] = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"];

/// What is known of a host before it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The name or address that ssh connects to.
    pub hostname: String,
    /// The port that it connects to.
    pub port: u16,
    /// Whom it logs in as.
    pub user: String,
    /// Whether it goes through ProxyJump or ProxyCommand: the address may mean nothing here.
    pub has_proxy: bool,
    /// The user's ControlPath, expanded: further logins are channels of a master there.
    pub control_path: Option<String>,
    /// Whether nobody chose ciphers: neither the user nor the system's ssh_config.
    pub ciphers_are_default: bool,
    /// The same ciphers in a faster order, where nobody chose one.
    pub better_ciphers: Option<String>,
    /// The option that leaves out keys which somebody must touch.
    pub silent_keys: Option<String>,
}

/// All that ssh would do for a host, and what it would do without any configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    real: String,
    plain: Option<String>,
}

/// Asks ssh. `None` for other programs, for a very old ssh, and for one that takes too long.
pub(super) fn probe(place: &Place, options: &SshOptions) -> Option<HostFacts> {
    let asked = settings(place, options);
    asked.inspect_err(|error| tracing::debug!("ssh -G: {error}")).ok()?.facts()
}

/// Asks ssh for all of it; reaches nobody.
///
/// # Errors
/// `NotFound` where there is no ssh, or another program; others when it does not understand its
/// configuration, is very old, or takes too long.
pub fn settings(place: &Place, options: &SshOptions) -> io::Result<Settings> {
    if !options.is_openssh() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let end = Instant::now() + PATIENCE;
    let (real, plain) = std::thread::scope(|scope| {
        let plain = scope.spawn(|| output(&default_arguments(options), end).ok());
        (output(&probe_arguments(place, options), end), plain.join().ok().flatten())
    });
    Ok(Settings { real: real?, plain })
}

impl Settings {
    /// What `ssh -G` printed for the host, and for no configuration at all.
    pub fn new(real: String, plain: Option<String>) -> Settings {
        Settings { real, plain }
    }

    /// What matters before a login.
    pub fn facts(&self) -> Option<HostFacts> {
        parse(&self.real, self.plain.as_deref(), has_aes())
    }

    /// The value of a keyword, in lower case; `none` is no value.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        value(&self.real, keyword)
    }

    /// The values of a keyword that may stand more than once.
    pub fn all(&self, keyword: &str) -> Vec<&str> {
        values(&self.real, keyword).collect()
    }

    /// Whether somebody chose a value: the user or the system's ssh_config.
    pub fn is_chosen(&self, keyword: &str) -> bool {
        let Some(plain) = &self.plain else { return false };
        !values(&self.real, keyword).eq(values(plain, keyword))
    }
}

/// Understands what `ssh -G` printed for the host, and for no configuration at all.
fn parse(real: &str, plain: Option<&str>, has_aes: bool) -> Option<HostFacts> {
    let ciphers = value(real, "ciphers");
    let default = plain.and_then(|text| value(text, "ciphers"));
    let ciphers_are_default = ciphers.is_some() && ciphers == default;
    let better = ciphers.filter(|_| ciphers_are_default && has_aes).and_then(fast_first);
    Some(HostFacts {
        hostname: value(real, "hostname")?.to_owned(),
        port: value(real, "port")?.parse().ok()?,
        user: value(real, "user").unwrap_or_default().to_owned(),
        has_proxy: value(real, "proxyjump").is_some() || value(real, "proxycommand").is_some(),
        control_path: value(real, "controlpath").map(str::to_owned),
        ciphers_are_default,
        better_ciphers: better,
        silent_keys: silent_keys(real),
    })
}

/// The value of the first line with this keyword; `none` is no value.
fn value<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    values(text, keyword).next().filter(|value| !value.is_empty() && *value != "none")
}

/// The values of all lines with this keyword.
fn values<'a>(text: &'a str, keyword: &str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(move |(key, _)| key.eq_ignore_ascii_case(keyword))
        .map(|(_, value)| value.trim())
}

/// The list with the fast ones in front; none where it has none.
fn fast_first(ciphers: &str) -> Option<String> {
    let is_fast = |cipher: &&str| FAST.contains(cipher);
    let all = || ciphers.split(',');
    let fast: Vec<&str> = all().filter(is_fast).collect();
    let rest = all().filter(|cipher| !is_fast(cipher));
    (!fast.is_empty()).then(|| fast.iter().copied().chain(rest).collect::<Vec<_>>().join(","))
}

/// Accepted keys but for those in hardware tokens, which may want to be touched. The keyword has
/// another name in older versions.
fn silent_keys(text: &str) -> Option<String> {
    let keyword = ["pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes"];
    let (keyword, all) = keyword.iter().find_map(|key| Some((key, value(text, key)?)))?;
    let rest: Vec<&str> = all.split(',').filter(|name| !name.starts_with("sk-")).collect();
    (!rest.is_empty()).then(|| format!("{keyword}={}", rest.join(",")))
}

/// Whether this processor has AES instructions.
pub fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// What a program prints until it ends, well or badly.
fn output(args: &[OsString], end: Instant) -> io::Result<String> {
    // What it complains about, the login will complain about again.
    let (child, mut pipes) = child::start(args, Errors::Nowhere)?;
    pipes.set_end(Some(end));
    let mut text = String::new();
    pipes.take(MAX_OUTPUT).read_to_string(&mut text)?;
    match child.wait_until(end) {
        Some(status) if status.success() => Ok(text),
        Some(status) => Err(io::Error::other(status.to_string())),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From OpenSSH 9.2 on Debian 12, shortened to what is read and what could be mistaken for it.
    const DEBIAN: &str = "host t\nuser root\nhostname 10.0.0.7\nport 22722\naddressfamily any\n\
        controlmaster false\nproxyusefdpass no\n\
        ciphers chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,\
        aes128-gcm@openssh.com,aes256-gcm@openssh.com\n\
        hostkeyalgorithms ssh-ed25519\n\
        pubkeyacceptedalgorithms ssh-ed25519,sk-ssh-ed25519@openssh.com,rsa-sha2-512\n\
        controlpersist no\n";

    #[test]
    fn what_ssh_would_do_is_read() {
        let text = DEBIAN.replace("controlpersist no", "proxyjump j\ncontrolpath /run/u/x y");
        let facts = parse(&text, Some(DEBIAN), true).unwrap();
        assert_eq!((&*facts.hostname, facts.port, &*facts.user), ("10.0.0.7", 22722, "root"));
        assert!(facts.has_proxy && facts.ciphers_are_default);
        assert_eq!(facts.control_path.as_deref(), Some("/run/u/x y"));
        let keys = "pubkeyacceptedalgorithms=ssh-ed25519,rsa-sha2-512";
        assert_eq!(facts.silent_keys.as_deref(), Some(keys));
        assert!(parse("usage: ssh [-1246]", None, true).is_none());
    }

    #[test]
    fn none_is_no_proxy_and_no_path() {
        let text = format!("{DEBIAN}proxycommand none\ncontrolpath none\n");
        let facts = parse(&text, None, true).unwrap();
        assert!(!facts.has_proxy && facts.control_path.is_none());
    }

    #[test]
    fn a04_gcm_comes_first_unless_somebody_chose() {
        let better = |text: &str, plain, aes| parse(text, plain, aes).unwrap().better_ciphers;
        assert_eq!(
            better(DEBIAN, Some(DEBIAN), true).as_deref(),
            Some(
                "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,\
                 aes128-ctr,aes192-ctr,aes256-ctr"
            )
        );
        let chosen = DEBIAN.replace("ciphers chacha20-poly1305@openssh.com,", "ciphers ");
        assert_eq!(better(&chosen, Some(DEBIAN), true), None);
        assert_eq!(better(DEBIAN, None, true), None);
        assert_eq!(better(DEBIAN, Some(DEBIAN), false), None);
        let without = DEBIAN.replace("-gcm@openssh.com", "-cbc");
        assert_eq!(better(&without, Some(&without), true), None);
    }

    #[test]
    fn a_program_that_is_not_there_or_not_openssh_tells_nothing() {
        let place = Place { user: None, host: "h".into(), port: None };
        for program in ["/nonexistent/ssh", "sh"] {
            let options = SshOptions { program: vec![program.into()], ..SshOptions::default() };
            assert_eq!(probe(&place, &options), None);
        }
    }
}
