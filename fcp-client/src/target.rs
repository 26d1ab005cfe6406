//! What an operand means: a local path, a server's path, or a host that needs ssh. Pure.

use std::net::{IpAddr, SocketAddr};

/// The port that fcpd listens on.
pub const DEFAULT_PORT: u16 = 7523;

/// A source or destination as understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path on this machine.
    Local(Vec<u8>),
    /// A path below a running fcpd.
    Fcp {
        /// Where fcpd listens.
        server: SocketAddr,
        /// The path, percent-decoded.
        path: Vec<u8>,
    },
}

/// Why an operand cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing at all: most likely an unset variable.
    #[error("an operand is empty; write . for the current directory")]
    Empty,
    /// `host:path` needs ssh.
    #[error(
        "{0}: copying over ssh is not there yet; start fcpd on this machine and use \
         fcp://127.0.0.1/path, or write ./{0} if it is a local name"
    )]
    Ssh(String),
    /// A URL that is not spelled right.
    #[error("{0}: {1}; write fcp://127.0.0.1[:port]/path")]
    Url(String, &'static str),
    /// A server beyond this machine.
    #[error("{0}: only servers on this machine (127.0.0.1, ::1, localhost) can be reached yet")]
    NotLoopback(String),
}

impl Target {
    /// Understands what was typed. A colon before any slash means a host, as in scp and rsync.
    pub fn parse(operand: &[u8]) -> Result<Target, TargetError> {
        if operand.is_empty() {
            return Err(TargetError::Empty);
        }
        let shown = || fcp_proto::escape(operand);
        if let Some(rest) = operand.strip_prefix(b"fcp://") {
            return parse_url(rest).map_err(|problem| match problem {
                UrlProblem::Spelling(why) => TargetError::Url(shown(), why),
                UrlProblem::NotLoopback => TargetError::NotLoopback(shown()),
            });
        }
        let colon = operand.iter().position(|b| *b == b':');
        let slash = operand.iter().position(|b| *b == b'/');
        match (colon, slash) {
            (Some(colon), slash) if slash.is_none_or(|slash| colon < slash) && colon > 0 => {
                Err(TargetError::Ssh(shown()))
            }
            _ if operand.starts_with(b"ssh://") => Err(TargetError::Ssh(shown())),
            _ => Ok(Target::Local(operand.to_vec())),
        }
    }

    /// Whether it is on this machine's own file system.
    pub fn is_local(&self) -> bool {
        matches!(self, Target::Local(_))
    }
}

enum UrlProblem {
    Spelling(&'static str),
    NotLoopback,
}

fn parse_url(rest: &[u8]) -> Result<Target, UrlProblem> {
    let cut = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(cut);
    let authority = std::str::from_utf8(authority).map_err(|_| UrlProblem::Spelling("bad host"))?;
    let (host, port) = split_port(authority).ok_or(UrlProblem::Spelling("bad port"))?;
    let ip = match host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        _ if host.contains('@') => return Err(UrlProblem::Spelling("a user has no meaning here")),
        _ => host.parse().map_err(|_| UrlProblem::NotLoopback)?,
    };
    if !ip.is_loopback() {
        return Err(UrlProblem::NotLoopback);
    }
    if path.is_empty() {
        return Err(UrlProblem::Spelling("the path is missing"));
    }
    let path = percent_decode(path).ok_or(UrlProblem::Spelling("a bad %-escape"))?;
    if path.contains(&0) {
        return Err(UrlProblem::Spelling("a NUL byte in the path"));
    }
    Ok(Target::Fcp { server: SocketAddr::new(ip, port), path })
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        return match tail.strip_prefix(':') {
            None if tail.is_empty() => Some((host, DEFAULT_PORT)),
            Some(port) => Some((host, port.parse().ok()?)),
            None => None,
        };
    }
    match authority.split_once(':') {
        None => Some((authority, DEFAULT_PORT)),
        Some((host, port)) => Some((host, port.parse().ok()?)),
    }
}

fn percent_decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                out.push(digit(*high)? << 4 | digit(*low)?);
                after
            }
            (b'%', _) => return None,
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fcp(operand: &str) -> (String, Vec<u8>) {
        match Target::parse(operand.as_bytes()) {
            Ok(Target::Fcp { server, path }) => (server.to_string(), path),
            other => panic!("{operand}: {other:?}"),
        }
    }

    #[test]
    fn urls_name_a_loopback_server_and_a_path() {
        assert_eq!(fcp("fcp://127.0.0.1/a b"), ("127.0.0.1:7523".into(), b"/a b".to_vec()));
        assert_eq!(fcp("fcp://[::1]:99/x/"), ("[::1]:99".into(), b"/x/".to_vec()));
        assert_eq!(
            fcp("fcp://localhost/a%20b%ff"),
            ("127.0.0.1:7523".into(), b"/a b\xff".to_vec())
        );
    }

    #[test]
    fn j14_bad_urls_are_refused_with_what_to_type() {
        for bad in [
            "fcp://127.0.0.1",
            "fcp:///x",
            "fcp://127.0.0.1:99999/x",
            "fcp://h/x",
            "fcp://127.0.0.1/%g0",
            "fcp://127.0.0.1/%0",
            "fcp://127.0.0.1/%00",
            "fcp://10.0.0.1/x",
            "fcp://u@127.0.0.1/x",
            "fcp://[::1/x",
        ] {
            assert!(Target::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_colon_before_a_slash_is_a_host() {
        for remote in ["host:path", "user@host:", "[::1]:x", "ssh://h/x", "a:b:c"] {
            assert!(
                matches!(Target::parse(remote.as_bytes()), Err(TargetError::Ssh(_))),
                "{remote}"
            );
        }
        for local in ["./a:b", "/a:b", "a/b:c", ":x", "x", "..", "\u{e9}"] {
            assert!(Target::parse(local.as_bytes()).is_ok_and(|t| t.is_local()), "{local}");
        }
    }
}
