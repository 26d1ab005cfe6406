//! Where the source of a job is, as one text.

use fcp_proto::escape;
use fcp_proto::path::RelPath;

use crate::job::spec::End;

/// Where files of this end are: `file:///base` or `sftp://user@host:port/base`, for
/// [`Entity::place`](super::Entity::place).
pub fn of(end: &End) -> String {
    match end {
        End::Local { path } => format!("file://{}", base(path.as_os_str().as_encoded_bytes())),
        End::Sftp { login, base_path } => {
            let user = login.user.as_ref().map(|user| format!("{}@", plain(user)));
            let port = login.port.filter(|port| *port != 22).map(|port| format!(":{port}"));
            let host = plain(&login.host.to_ascii_lowercase());
            let (user, port) = (user.unwrap_or_default(), port.unwrap_or_default());
            format!("sftp://{user}{host}{port}{}", base(base_path))
        }
    }
}

/// The file itself, whoever logs in and whatever base a job has: what two jobs have in common when
/// their folders overlap.
pub(super) fn spot(place: &str, path: &RelPath) -> String {
    let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
    let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let base = base.trim_end_matches('/');
    format!("{scheme}://{host}{base}/{}", escape(path.as_bytes()))
}

/// A base without what may be spelled in two ways. One that is not absolute lies below wherever the
/// server puts its user.
fn base(bytes: &[u8]) -> String {
    let parts = bytes.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let joined: Vec<String> = parts.map(escape).collect();
    let start = if bytes.starts_with(b"/") { "/" } else { "/~/" };
    format!("{start}{}", joined.join("/"))
}

/// Without the bytes that part a place.
fn plain(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F").replace('@', "%40")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn local(path: &str) -> String {
        of(&End::Local { path: PathBuf::from(path) })
    }

    #[test]
    fn a_place_has_one_spelling() {
        assert_eq!(local("/in//a/./b/"), "file:///in/a/b");
        assert_eq!(local("/"), "file:///");
        assert_eq!(local("rel/x"), "file:///~/rel/x");
    }

    #[test]
    fn s24_overlapping_bases_and_other_users_meet_at_one_spot() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let wide = spot("sftp://a@host/in", &path("2026/202611/x"));
        let narrow = spot("sftp://b@host/in/2026", &path("202611/x"));
        assert_eq!(wide, narrow);
        assert_eq!(spot("file:///", &path("in/x")), spot("file:///in", &path("x")));
        assert_ne!(spot("sftp://host:2222/in", &path("x")), spot("sftp://host/in", &path("x")));
    }
}
