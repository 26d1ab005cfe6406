//! What an operand means: a local path, a server's path, or a path on a host behind ssh. Pure.

mod host;
mod url;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use host::{AuthorityError, Part, check_names};
#[cfg(feature = "job")]
pub(crate) use host::{check_host, check_user};
pub use url::UrlError;

/// The port that fcpd listens on.
pub const DEFAULT_PORT: u16 = 7523;

/// A source or destination as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path on this machine.
    Local(Vec<u8>),
    /// A path below a running fcpd: `fcp://host[:port]/path`.
    Fcp(FcpTarget),
    /// A path on a host behind ssh: `[user@]host:path` or `ssh://[user@]host[:port]/path`.
    Ssh(SshTarget),
}

/// What a path that is not here is reached through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// A running fcpd.
    Fcp {
        /// A name or an address, without brackets.
        host: String,
        /// Where it listens.
        port: u16,
    },
    /// sshd.
    Ssh {
        /// Whom to log in as; `None` leaves it to ssh.
        user: Option<String>,
        /// A name of ssh's config, a host name or an address.
        host: String,
        /// Where sshd listens; `None` leaves it to ssh.
        port: Option<u16>,
    },
}

impl Server {
    /// The name by which the config knows it.
    pub fn host(&self) -> &str {
        match self {
            Server::Fcp { host, .. } | Server::Ssh { host, .. } => host,
        }
    }
}

/// As in an operand, without the path.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &str| match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        match self {
            Server::Fcp { host, port } => write!(f, "{}:{port}", bracketed(host)),
            Server::Ssh { user: Some(user), host, .. } => write!(f, "{user}@{}", bracketed(host)),
            Server::Ssh { user: None, host, .. } => f.write_str(&bracketed(host)),
        }
    }
}

/// A path below a running fcpd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FcpTarget {
    /// A name or an address, without brackets.
    pub host: String,
    /// Where fcpd listens.
    pub port: u16,
    /// The path, percent-decoded; it begins with a slash.
    pub path: Vec<u8>,
}

/// A path on a host behind ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// Whom to log in as; `None` leaves it to ssh.
    pub user: Option<String>,
    /// A name of ssh's config, a host name or an address, without brackets. Never a word that a
    /// shell or ssh reads as more than a name.
    pub host: String,
    /// Where sshd listens; `None` leaves it to ssh.
    pub port: Option<u16>,
    /// As the remote end is to read it: absolute, or below the home directory; `~/x` and `~user/x`
    /// are below that home, and empty is the home itself.
    ///
    /// Of a URL it is percent-decoded, and read as git does: `ssh://h/x` is `/x`, `ssh://h/~/x` is
    /// `~/x`, `ssh://h/~user/x` is `~user/x`.
    pub path: Vec<u8>,
}

/// Why an operand cannot be used. The first text is always the operand, escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing at all: most likely an unset variable.
    #[error("an operand is empty; write . for the current directory")]
    Empty,
    /// `host:path` with something else than a host.
    #[error("{0}: {1}; write ./{0} if it is a local name")]
    Authority(String, AuthorityError),
    /// An `fcp://` URL that is not spelled right.
    #[error("{0}: {1}; write fcp://HOST[:PORT]/PATH")]
    FcpUrl(String, UrlError),
    /// An `ssh://` URL that is not spelled right.
    #[error("{0}: {1}; write ssh://[USER@]HOST[:PORT]/PATH")]
    SshUrl(String, UrlError),
    /// `host::module`.
    #[error(
        "{0}: fcp does not speak with rsync's daemon; write HOST:PATH to go over ssh, and an IPv6 \
         address in brackets, as in [::1]:PATH"
    )]
    Module(String),
    /// The URL of something else.
    #[error("{0}: fcp does not speak {1}; write HOST:PATH to go over ssh, or fcp://HOST/PATH")]
    Scheme(String, &'static str),
}

/// What people have in their scripts, and what is behind it.
const FOREIGN: [(&str, &str); 9] = [
    ("rsync", "with rsync's daemon"),
    ("scp", "scp:// URLs"),
    ("sftp", "sftp:// URLs"),
    ("http", "HTTP"),
    ("https", "HTTP"),
    ("ftp", "FTP"),
    ("ftps", "FTP"),
    ("s3", "S3"),
    ("file", "file:// URLs"),
];

impl Target {
    /// Understands what was typed.
    ///
    /// A colon before any slash means a host, as in scp and rsync, but for a drive letter (`C:\x`)
    /// and a colon at the very beginning. A host with a name of one letter is written
    /// `ssh://c/path` or `user@c:path`.
    pub fn parse(operand: &[u8]) -> Result<Target, TargetError> {
        if operand.is_empty() {
            return Err(TargetError::Empty);
        }
        let shown = || fcp_proto::escape(operand);
        if let Some((scheme, rest)) = split_scheme(operand) {
            if scheme.eq_ignore_ascii_case("fcp") {
                let parsed = url::parse_fcp(rest).map_err(|why| TargetError::FcpUrl(shown(), why));
                return parsed.map(Target::Fcp);
            }
            if scheme.eq_ignore_ascii_case("ssh") {
                let parsed = url::parse_ssh(rest).map_err(|why| TargetError::SshUrl(shown(), why));
                return parsed.map(Target::Ssh);
            }
            if let Some((_, what)) = FOREIGN.iter().find(|(s, _)| scheme.eq_ignore_ascii_case(s)) {
                return Err(TargetError::Scheme(shown(), what));
            }
        }
        let Some(colon) = colon_of_host(operand) else {
            return Ok(Target::Local(operand.to_vec()));
        };
        let (authority, path) = (&operand[..colon], &operand[colon + 1..]);
        if path.starts_with(b":") {
            return Err(TargetError::Module(shown()));
        }
        let host::Authority { user, host, port } = host::Authority::of_operand(authority)
            .map_err(|why| TargetError::Authority(shown(), why))?;
        Ok(Target::Ssh(SshTarget { user, host, port, path: path.to_vec() }))
    }

    /// Whether it is on this machine's own file system.
    pub fn is_local(&self) -> bool {
        matches!(self, Target::Local(_))
    }

    /// The server and the path there, of what is not local.
    pub fn remote(&self) -> Option<(Server, &[u8])> {
        match self {
            Target::Local(_) => None,
            Target::Fcp(FcpTarget { host, port, path }) => {
                Some((Server::Fcp { host: host.clone(), port: *port }, path))
            }
            Target::Ssh(SshTarget { user, host, port, path }) => {
                let (user, host) = (user.clone(), host.clone());
                Some((Server::Ssh { user, host, port: *port }, path))
            }
        }
    }

    /// Whether both are reached in the same way at the same place, as far as their spelling tells.
    pub fn same_server(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Local(_), Target::Local(_)) => true,
            (Target::Fcp(one), Target::Fcp(other)) => one.same_server(other),
            (Target::Ssh(one), Target::Ssh(other)) => one.same_server(other),
            _ => false,
        }
    }
}

impl FcpTarget {
    /// The address of a server on this machine: 127.0.0.0/8, ::1 and localhost, without asking
    /// anybody what a name means.
    pub fn loopback(&self) -> Option<SocketAddr> {
        loopback(&self.host, self.port)
    }

    /// Whether both are the same server, as far as their spelling tells.
    pub fn same_server(&self, other: &FcpTarget) -> bool {
        self.port == other.port
            && (host::same_host(&self.host, &other.host)
                || self.host.eq_ignore_ascii_case(&other.host)
                || self.loopback().is_some_and(|address| other.loopback() == Some(address)))
    }
}

/// The address that `host` has on this machine, if it can have no other.
pub(crate) fn loopback(host: &str, port: u16) -> Option<SocketAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    let ip = host.parse::<IpAddr>().ok()?.to_canonical();
    ip.is_loopback().then(|| SocketAddr::new(ip, port))
}

impl SshTarget {
    /// Whether ssh would go to the same place as the same user, as far as the spelling tells. A
    /// user or port that was not typed is another one than any that was: only ssh's config knows.
    pub fn same_server(&self, other: &SshTarget) -> bool {
        self.user == other.user
            && self.port == other.port
            && host::same_host(&self.host, &other.host)
    }
}

fn split_scheme(operand: &[u8]) -> Option<(&str, &[u8])> {
    let at = operand.windows(3).position(|three| three == b"://")?;
    let scheme = std::str::from_utf8(&operand[..at]).ok()?;
    Some((scheme, &operand[at + 3..]))
}

/// The colon that ends a host, if there is one.
fn colon_of_host(operand: &[u8]) -> Option<usize> {
    let head = operand.split(|b| *b == b'/').next().unwrap_or_default();
    let colon = head.iter().position(|b| *b == b':').filter(|colon| *colon > 0)?;
    if matches!(head, [letter, b':', ..] if letter.is_ascii_alphabetic()) {
        return None;
    }
    // The first colon may be one of an address in brackets.
    let before = &head[..colon];
    let user = before.iter().rposition(|b| *b == b'@').map_or(0, |at| at + 1);
    let after_bracket = || head.iter().position(|b| *b == b']').map(|close| close + 1);
    match before.get(user) {
        Some(b'[') => after_bracket().filter(|at| head.get(*at) == Some(&b':')).or(Some(colon)),
        _ => Some(colon),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(operand: &str) -> Target {
        Target::parse(operand.as_bytes()).unwrap_or_else(|error| panic!("{operand}: {error}"))
    }

    fn fcp(operand: &str) -> FcpTarget {
        match parsed(operand) {
            Target::Fcp(target) => target,
            other => panic!("{operand}: {other:?}"),
        }
    }

    fn ssh(operand: &str) -> (Option<String>, String, Vec<u8>) {
        match parsed(operand) {
            Target::Ssh(SshTarget { user, host, port: None, path }) => (user, host, path),
            other => panic!("{operand}: {other:?}"),
        }
    }

    fn why(operand: &str) -> String {
        Target::parse(operand.as_bytes()).expect_err(operand).to_string()
    }

    #[test]
    fn urls_name_a_server_and_a_path() {
        let server = |url: &str| fcp(url).loopback().map(|address| address.to_string());
        assert_eq!(fcp("fcp://127.0.0.1/a b").path, b"/a b");
        assert_eq!(fcp("FCP://localhost/a%20b%ff").path, b"/a b\xff");
        assert_eq!(server("fcp://127.0.0.1/x").as_deref(), Some("127.0.0.1:7523"));
        assert_eq!(server("fcp://127.9.9.9:99/x").as_deref(), Some("127.9.9.9:99"));
        assert_eq!(server("fcp://[::1]:99/x/").as_deref(), Some("[::1]:99"));
        assert_eq!(server("fcp://[::ffff:127.0.0.1]/x").as_deref(), Some("127.0.0.1:7523"));
        assert_eq!(server("fcp://LocalHost/x").as_deref(), Some("127.0.0.1:7523"));
        for beyond in ["fcp://h/x", "fcp://10.0.0.1/x", "fcp://localhost.example.org/x"] {
            assert_eq!(server(beyond), None, "{beyond}");
        }
        assert_eq!(fcp("fcp://h.example.org:81/x").port, 81);
    }

    #[test]
    fn j14_bad_urls_are_refused_with_what_to_type() {
        for (bad, reason) in [
            ("fcp://127.0.0.1", "path is missing"),
            ("fcp:///x", "host is missing"),
            ("fcp://127.0.0.1:99999/x", "bad port"),
            ("fcp://127.0.0.1/%g0", "%-escape"),
            ("fcp://127.0.0.1/%0", "%-escape"),
            ("fcp://127.0.0.1/%00", "NUL"),
            ("fcp://u@127.0.0.1/x", "--token-file"),
            ("fcp://[::1/x", "IPv6"),
            ("fcp://::1/x", "brackets"),
            ("fcp://a b/x", "a space"),
        ] {
            let text = why(bad);
            assert!(text.contains(reason) && text.contains("write fcp://"), "{bad}: {text}");
        }
        assert!(why("ssh://h:x/y").contains("bad port; write ssh://"));
    }

    #[test]
    fn a_colon_before_a_slash_is_a_host() {
        let plain = |host: &str, path: &str| (None, host.to_owned(), path.as_bytes().to_vec());
        assert_eq!(ssh("host:path"), plain("host", "path"));
        assert_eq!(ssh("host:/a/b:c"), plain("host", "/a/b:c"));
        assert_eq!(ssh("aa:b:c"), plain("aa", "b:c"));
        assert_eq!(ssh("host:"), plain("host", ""));
        assert_eq!(ssh("host:~/x"), plain("host", "~/x"));
        assert_eq!(ssh("host:a@[b]:c"), plain("host", "a@[b]:c"));
        assert_eq!(ssh("[::1]:x"), plain("::1", "x"));
        assert_eq!(ssh("[fe80::1%eth0]:x"), plain("fe80::1%eth0", "x"));
        let user = Some("me".to_owned());
        assert_eq!(ssh("me@host:"), (user.clone(), "host".into(), vec![]));
        assert_eq!(ssh("me@[::1]:/x"), (user.clone(), "::1".into(), b"/x".to_vec()));
        assert_eq!(ssh("me@c:x"), (user, "c".into(), b"x".to_vec()));
        assert!(matches!(parsed("ssh://h:22/x"), Target::Ssh(SshTarget { port: Some(22), .. })));
    }

    #[test]
    fn a_remote_path_is_kept_byte_for_byte() {
        let odd = b"host: a 'b' \"c\" $(d) `e` *\\\n\xff";
        let Ok(Target::Ssh(target)) = Target::parse(odd) else { panic!("no ssh target") };
        assert_eq!(target.path, odd[5..]);
    }

    #[test]
    fn local_names() {
        for local in [
            "./a:b", "/a:b", "a/b:c", ":x", "::x", "x", "..", "\u{e9}", "C:\\x", "C:/x", "c:x",
            "c:", "~/x",
        ] {
            assert!(parsed(local).is_local(), "{local}");
        }
    }

    #[test]
    fn t10_what_is_no_host_is_refused_with_what_to_type() {
        for bad in ["-oProxyCommand=x:y", "a b:c", "`id`:x", "u$(id)@h:x", "u\\x@h:x", "[x]:y"] {
            let text = why(bad);
            assert!(text.contains("write ./") && !text.contains('\n'), "{bad}: {text}");
        }
        assert!(why("[::1]x:y").contains("IPv6"));
        assert!(why("[::1]").contains("IPv6"));
    }

    #[test]
    fn others_protocols_are_refused_with_what_to_type() {
        for bad in ["rsync://h/m", "RSYNC://h/m", "host::module", "u@h::m/x", "fe80::1:x"] {
            assert!(why(bad).contains("rsync's daemon; write HOST:PATH"), "{bad}: {}", why(bad));
        }
        assert!(why("https://h/x").contains("HTTP"));
        // An absolute path with a slash too many, as for rsync.
        assert_eq!(ssh("host://x").2, b"//x");
    }

    #[test]
    fn the_same_server_is_known_again() {
        let same = |one, other| parsed(one).same_server(&parsed(other));
        assert!(same("host:a", "ssh://host/b"));
        assert!(same("u@[::1]:a", "ssh://u@[0:0::1]/b"));
        assert!(!same("u@host:a", "host:a"));
        assert!(!same("host:a", "ssh://host:22/a"));
        assert!(!same("host:a", "fcp://host/a"));
        assert!(same("fcp://host/a", "fcp://Host:7523/b"));
        assert!(same("fcp://localhost/a", "fcp://127.0.0.1/b"));
        assert!(!same("fcp://host/a", "fcp://host:1/a"));
    }
}
