//! `[user@]host` and `[user@]host[:port]`: how they are split and what may stand there. Pure.
//!
//! Both end up in arguments of ssh, and from there in its `%h` and `%r`, which a `ProxyCommand` or
//! `Match exec` hands to a shell. So OpenSSH's own rules (`valid_hostname`, `valid_ruser`) hold
//! here, whatever the version of the ssh that is called (CVE-2023-51385), and `$` and `\` are
//! refused in users too (CVE-2026-106583).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::url::percent_decode;

/// Whom and where, as an operand names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) user: Option<String>,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// Why a user, host or port cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing where a name is needed.
    #[error("the {0} is missing")]
    Missing(Part),
    /// Bytes that are no text.
    #[error("the {0} is not UTF-8")]
    NotText(Part),
    /// Ssh would read it as an option.
    #[error("the {0} begins with a dash, which makes it an option of ssh")]
    Dash(Part),
    /// A character with a meaning for a shell, or none that a name has.
    #[error("the {0} contains {1}, which has no place there")]
    Forbidden(Part, String),
    /// Brackets around something else, or not closed.
    #[error("in brackets stands an IPv6 address, as in [::1]:path")]
    Brackets,
    /// A colon too many.
    #[error("an IPv6 address needs brackets, as in [::1]")]
    NoBrackets,
    /// Not a number from 1 to 65535.
    #[error("bad port")]
    Port,
}

/// What of an operand is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The user.
    User,
    /// The host.
    Host,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::User => "user",
            Part::Host => "host",
        })
    }
}

impl Authority {
    /// What stands before the colon of `[user@]host:path`.
    pub(super) fn of_operand(bytes: &[u8]) -> Result<Authority, AuthorityError> {
        let (user, host) = split_user(bytes);
        let host = text(host, Part::Host)?;
        let host = match bracketed(host)? {
            Some((address, "")) => address.to_owned(),
            Some(_) => return Err(AuthorityError::Brackets),
            None => valid(host, Part::Host)?.to_owned(),
        };
        let user = user.map(|user| valid(text(user, Part::User)?, Part::User)).transpose()?;
        Ok(Authority { user: user.map(str::to_owned), host, port: None })
    }

    /// What stands between `//` and the path of a URL.
    pub(super) fn of_url(bytes: &[u8]) -> Result<Authority, AuthorityError> {
        let (user, host) = split_user(bytes);
        let host = text(host, Part::Host)?;
        let (host, port) = match bracketed(host)? {
            // RFC 6874 spells the percent sign of a scope as an escape.
            Some((address, tail)) => (address.replacen("%25", "%", 1), tail.strip_prefix(':')),
            None => match host.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(AuthorityError::NoBrackets),
                Some((host, port)) => (valid(host, Part::Host)?.to_owned(), Some(port)),
                None => (valid(host, Part::Host)?.to_owned(), None),
            },
        };
        let user = user.map(url_user).transpose()?;
        Ok(Authority { user, host, port: port.map(parse_port).transpose()? })
    }
}

/// A host that stands by itself: a name, or an address with or without brackets.
#[cfg(feature = "job")]
pub(crate) fn check_host(host: &str) -> Result<String, AuthorityError> {
    let bare = host.parse::<Ipv6Addr>().is_ok();
    match bracketed(host)? {
        Some((address, "")) => Ok(address.to_owned()),
        Some(_) => Err(AuthorityError::Brackets),
        None if host.contains(':') && !bare => Err(AuthorityError::NoBrackets),
        None => valid(host, Part::Host).map(str::to_owned),
    }
}

/// A user that stands by itself.
#[cfg(feature = "job")]
pub(crate) fn check_user(user: &str) -> Result<String, AuthorityError> {
    valid(user, Part::User).map(str::to_owned)
}

/// Checks a user and a host that come from somewhere else than an operand.
///
/// # Errors
/// Ssh or a shell would read more than a name into one of them.
pub fn check_names(user: Option<&str>, host: &str) -> Result<(), AuthorityError> {
    if let Some(user) = user {
        valid(user, Part::User)?;
    }
    // The scope of an address is checked as part of it.
    valid(host, Part::Host).map(drop)
}

/// Whether two hosts are the same as far as their spelling tells.
pub(super) fn same_host(one: &str, other: &str) -> bool {
    let address = |host: &str| host.parse::<IpAddr>().ok();
    one == other || address(one).is_some_and(|one| address(other) == Some(one))
}

/// The last `@` ends the user, as for ssh: `user@domain@host`.
fn split_user(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match bytes.iter().rposition(|b| *b == b'@') {
        Some(at) => (Some(&bytes[..at]), &bytes[at + 1..]),
        None => (None, bytes),
    }
}

fn text(bytes: &[u8], part: Part) -> Result<&str, AuthorityError> {
    std::str::from_utf8(bytes).map_err(|_| AuthorityError::NotText(part))
}

fn url_user(user: &[u8]) -> Result<String, AuthorityError> {
    let percent = || AuthorityError::Forbidden(Part::User, "a bad %-escape".to_owned());
    let user = percent_decode(user).ok_or_else(percent)?;
    valid(text(&user, Part::User)?, Part::User).map(str::to_owned)
}

/// The port, which is all digits: `parse` alone takes `+22`.
fn parse_port(port: &str) -> Result<u16, AuthorityError> {
    let number = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok()).flatten();
    number.filter(|port| *port != 0).ok_or(AuthorityError::Port)
}

/// The address in `[address]tail`, scope included; `None` without a bracket.
fn bracketed(host: &str) -> Result<Option<(&str, &str)>, AuthorityError> {
    let Some(rest) = host.strip_prefix('[') else { return Ok(None) };
    let (inner, tail) = rest.split_once(']').ok_or(AuthorityError::Brackets)?;
    let (address, scope) = inner.split_once('%').map_or((inner, None), |(a, s)| (a, Some(s)));
    if address.parse::<Ipv6Addr>().is_err() || !(tail.is_empty() || tail.starts_with(':')) {
        return Err(AuthorityError::Brackets);
    }
    if let Some(scope) = scope {
        valid(scope.strip_prefix("25").unwrap_or(scope), Part::Host)?;
    }
    Ok(Some((inner, tail)))
}

/// The name if nothing in it is read as more than a name.
fn valid(name: &str, part: Part) -> Result<&str, AuthorityError> {
    if name.is_empty() {
        return Err(AuthorityError::Missing(part));
    }
    if name.starts_with('-') {
        return Err(AuthorityError::Dash(part));
    }
    let forbidden = |c: &char| {
        is_escaped(*c)
            || c.is_whitespace()
            || "'`\"$\\;&<>|(){}".contains(*c)
            || (part == Part::Host && ",*?[]/".contains(*c))
    };
    match name.chars().find(forbidden) {
        Some(c) => Err(AuthorityError::Forbidden(part, describe(c))),
        None => Ok(name),
    }
}

/// Whether a terminal would be told something else than the name: control characters, and those
/// that are invisible or turn the direction of what follows.
fn is_escaped(c: char) -> bool {
    let mut buf = [0; 4];
    let text = c.encode_utf8(&mut buf);
    fcp_proto::escape_text(text) != *text
}

fn describe(c: char) -> String {
    match c {
        ' ' => "a space".to_owned(),
        // Escaping doubles as an explanation, but for the backslash, which it hides.
        '\\' => "a backslash".to_owned(),
        c => format!("'{}'", fcp_proto::escape(c.to_string().as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(authority: &str) -> String {
        let error = Authority::of_operand(authority.as_bytes());
        error.expect_err(authority).to_string()
    }

    #[test]
    fn t10_options_and_shell_characters_are_no_hosts() {
        assert!(why("-oProxyCommand=x").contains("dash"));
        assert!(why("u@-oProxyCommand=x").contains("the host begins with a dash"));
        assert!(why("-lroot@h").contains("the user begins with a dash"));
        for bad in "'`\"$\\;&<>|(){},*?[] \t\n\x1b\u{85}\u{a0}".chars() {
            assert!(why(&format!("a{bad}b")).contains("the host contains"), "{bad:?}");
        }
        for bad in "'`\"$\\;&<>|(){} \t\n\x1b".chars() {
            assert!(why(&format!("a{bad}b@h")).contains("the user contains"), "{bad:?}");
        }
    }

    #[test]
    fn errors_are_one_safe_line() {
        assert!(why("a\x1bb").contains("'\\033'"));
        assert!(why("a\\b").contains("a backslash"));
        assert_eq!(
            Authority::of_operand(b"\xff").expect_err("").to_string(),
            "the host is not UTF-8"
        );
        assert_eq!(why("u@"), "the host is missing");
        assert_eq!(why("@h"), "the user is missing");
    }

    #[test]
    fn what_would_show_another_name_is_in_none() {
        for bad in "\u{202e}\u{2066}\u{200b}\u{200f}\u{feff}\u{7f}\u{9b}".chars() {
            let host = why(&format!("a{bad}b"));
            assert!(host.contains("the host contains '\\"), "{host:?}");
            assert!(!host.contains(bad), "{host:?}");
            assert!(why(&format!("a{bad}b@h")).contains("the user contains"), "{bad:?}");
        }
        assert!(why("a\u{202e}b").contains("'\\342\\200\\256'"));
        assert!(Authority::of_url("u%E2%80%AE@h".as_bytes()).is_err());
        assert!(Authority::of_operand("jörg@bücher.example".as_bytes()).is_ok());
    }

    #[test]
    fn the_last_at_ends_the_user() {
        let authority = Authority::of_operand(b"me@corp,x@h.example").expect("valid");
        assert_eq!(authority.user.as_deref(), Some("me@corp,x"));
        assert_eq!(authority.host, "h.example");
    }

    #[test]
    fn brackets_hold_an_address_and_perhaps_a_scope() {
        let host = |text: &str| Authority::of_url(text.as_bytes()).map(|a| (a.host, a.port));
        assert_eq!(host("[::1]"), Ok(("::1".into(), None)));
        assert_eq!(host("[fe80::1%eth0]:22"), Ok(("fe80::1%eth0".into(), Some(22))));
        assert_eq!(host("[fe80::1%25eth0]"), Ok(("fe80::1%eth0".into(), None)));
        for bad in ["[::1", "[h]", "[]", "[::1]x", "[127.0.0.1]"] {
            assert_eq!(host(bad), Err(AuthorityError::Brackets), "{bad}");
        }
        assert!(host("[fe80::1%$(x)]").is_err());
        assert!(host("[fe80::1%]").is_err());
        assert_eq!(host("::1"), Err(AuthorityError::NoBrackets));
        for bad in ["h:", "h:0", "h:65536", "h:+22", "h:22x", "[::1]:"] {
            assert_eq!(host(bad), Err(AuthorityError::Port), "{bad}");
        }
    }

    #[test]
    fn addresses_are_compared_by_value() {
        assert!(same_host("0:0::1", "::1"));
        assert!(!same_host("Web", "web"));
    }
}
