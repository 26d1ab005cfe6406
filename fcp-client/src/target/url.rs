//! `fcp://` and `ssh://`. Pure.

use super::host::{Authority, AuthorityError};
use super::{DEFAULT_PORT, FcpTarget, SshTarget};

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The part between `//` and the path.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A user where a token tells who one is.
    #[error("a user has no meaning here: a token tells the server who you are (--token-file)")]
    User,
    /// Nothing behind the host.
    #[error("the path is missing")]
    NoPath,
    /// A percent sign without two digits.
    #[error("a bad %-escape; a percent sign is written %25")]
    Escape,
    /// No path has one.
    #[error("a NUL byte in the path")]
    Nul,
}

/// What stands behind `fcp://`.
pub(super) fn parse_fcp(rest: &[u8]) -> Result<FcpTarget, UrlError> {
    let (authority, path) = split_path(rest);
    let Authority { user, host, port } = Authority::of_url(authority)?;
    if user.is_some() {
        return Err(UrlError::User);
    }
    if path.is_empty() {
        return Err(UrlError::NoPath);
    }
    Ok(FcpTarget { host, port: port.unwrap_or(DEFAULT_PORT), path: decode_path(path)? })
}

/// What stands behind `ssh://`.
pub(super) fn parse_ssh(rest: &[u8]) -> Result<SshTarget, UrlError> {
    let (authority, path) = split_path(rest);
    let Authority { user, host, port } = Authority::of_url(authority)?;
    let mut path = decode_path(path)?;
    if path.starts_with(b"/~") {
        path.remove(0);
    }
    Ok(SshTarget { user, host, port, path })
}

/// The bytes that percent-escapes stand for; `None` for a bad one.
pub(super) fn percent_decode(bytes: &[u8]) -> Option<Vec<u8>> {
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

fn split_path(rest: &[u8]) -> (&[u8], &[u8]) {
    rest.split_at(rest.iter().position(|b| *b == b'/').unwrap_or(rest.len()))
}

fn decode_path(path: &[u8]) -> Result<Vec<u8>, UrlError> {
    let path = percent_decode(path).ok_or(UrlError::Escape)?;
    if path.contains(&0) { Err(UrlError::Nul) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(url: &str) -> SshTarget {
        parse_ssh(url.as_bytes()).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn the_path_of_ssh_is_absolute_or_below_a_home() {
        assert_eq!(ssh("h/x").path, b"/x");
        assert_eq!(ssh("h//x").path, b"//x");
        assert_eq!(ssh("h/~/x").path, b"~/x");
        assert_eq!(ssh("h/~user/x").path, b"~user/x");
        assert_eq!(ssh("h/a/~/x").path, b"/a/~/x");
        assert_eq!(ssh("h").path, b"");
        assert_eq!(ssh("h/").path, b"/");
        assert_eq!(ssh("h/a%20b%ff").path, b"/a b\xff");
    }

    #[test]
    fn user_and_port_of_ssh_are_kept() {
        let target = ssh("me%40corp@h:2222/x");
        assert_eq!(target.user.as_deref(), Some("me@corp"));
        assert_eq!((target.host.as_str(), target.port), ("h", Some(2222)));
        assert_eq!(ssh("[fe80::1%25eth0]:22/x").host, "fe80::1%eth0");
    }

    #[test]
    fn t10_escapes_smuggle_nothing_in() {
        for bad in ["-oX/x", "%2doX@h/x", "a%24b@h/x", "a%0ab@h/x", "h/%00", "h/%zz", "%zz@h/x"] {
            assert!(parse_ssh(bad.as_bytes()).is_err(), "{bad}");
        }
        // A host is not decoded: what ssh gets is what is seen.
        assert!(parse_ssh(b"a%20b/x").is_ok_and(|target| target.host == "a%20b"));
    }
}
