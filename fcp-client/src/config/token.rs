//! The token that a client shows an `fcp://` server: from the config, or from a file that only its
//! user can read.
//!
//! The file has one line, `NAME:fcp-token-<hex>`, as `fcpd token add NAME` prints it; empty lines
//! and comments beside it are ignored. Without `NAME:` it is the server's own token.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use fcp_common::auth::Token;
use fcp_common::private::{self, PrivateError, Rule, shown};
use fcp_proto::auth::check_token_name;

/// A link may lead to it, as where secrets are mounted, and root may have put it there.
/// The size is more than a token with a comment of some length.
const RULE: Rule = Rule::given(0o077, 16 << 10);

/// A token and the name under which its server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedToken {
    /// As in `fcpd token add NAME`; empty for the server's own token.
    pub name: String,
    /// The secret.
    pub token: Token,
}

/// Where a token is. It is never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// In the config itself.
    Text(NamedToken),
    /// In a file of its own.
    File(PathBuf),
}

impl TokenSource {
    /// The token.
    ///
    /// # Errors
    /// See [`read_token_file`].
    pub fn token(&self) -> Result<NamedToken, String> {
        match self {
            TokenSource::Text(token) => Ok(token.clone()),
            TokenSource::File(path) => read_token_file(path),
        }
    }
}

/// A text that is no token with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: it is NAME:fcp-token- and 64 hexadecimal digits, as `fcpd token add` prints")]
pub struct BadNamedToken;

impl FromStr for NamedToken {
    type Err = BadNamedToken;

    fn from_str(text: &str) -> Result<NamedToken, BadNamedToken> {
        let text = text.trim();
        let (name, token) = text.rsplit_once(':').unwrap_or(("", text));
        if text.starts_with(':') || (!name.is_empty() && check_token_name(name.as_bytes()).is_err())
        {
            return Err(BadNamedToken);
        }
        let token = token.parse().map_err(|_| BadNamedToken)?;
        Ok(NamedToken { name: name.to_owned(), token })
    }
}

/// Reads a token file, which may be a symbolic link.
///
/// # Errors
/// With the file's name: it cannot be read, can be read by others, belongs to others, or holds
/// something else. What it holds is never shown.
pub fn read_token_file(path: &Path) -> Result<NamedToken, String> {
    let bad = |reason: &str| format!("the token file {} {reason}", shown(path));
    let read = private::read_text(path, &RULE);
    let text = read.and_then(|text| text.ok_or_else(|| PrivateError::missing(path)));
    let text = text.map_err(|error| format!("the token file {error}"))?;
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let line = lines.next().ok_or_else(|| bad("is empty"))?;
    if lines.next().is_some() {
        return Err(bad("has more than one token"));
    }
    line.parse().map_err(|error: BadNamedToken| bad(&format!("holds what is {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn token() -> Token {
        Token::from_random([7; 32])
    }

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_token_may_have_a_name() {
        let secret = token().to_text();
        let named: NamedToken = format!(" laptop:{secret}\n").parse().unwrap();
        assert_eq!((named.name.as_str(), named.token), ("laptop", token()));
        assert_eq!(secret.parse::<NamedToken>().unwrap().name, "");
        for bad in ["", ":", "laptop:", "laptop", "-x:T", "a b:T", ":T", "a:b:T", "T:T", "Tx"] {
            let text = bad.replace('T', &secret);
            assert_eq!(text.parse::<NamedToken>(), Err(BadNamedToken), "{bad}");
        }
    }

    #[test]
    fn a22_a_file_that_others_can_read_is_refused() {
        let text = format!("# for the nas\n\nlaptop:{}\n", token().to_text());
        for mode in [0o600, 0o400] {
            let (_dir, path) = file(&text, mode);
            assert_eq!(read_token_file(&path).unwrap().name, "laptop");
        }
        for mode in [0o644, 0o640, 0o604, 0o620, 0o610] {
            let (_dir, path) = file(&text, mode);
            let error = read_token_file(&path).unwrap_err();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a22_a_file_that_holds_no_token_is_refused_and_not_shown() {
        let two = format!("a:{0}\nb:{0}\n", token().to_text());
        for (text, why) in [
            ("", "is empty"),
            ("# only this\n", "is empty"),
            ("hunter2\n", "not a token"),
            (two.as_str(), "more than one"),
        ] {
            let (_dir, path) = file(text, 0o600);
            let error = read_token_file(&path).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
        }
        let (dir, path) = file("", 0o600);
        assert!(read_token_file(dir.path()).unwrap_err().contains("is not a regular file"));
        assert!(read_token_file(&path.join("x")).unwrap_err().contains("cannot be opened"));
    }

    #[test]
    fn a_symbolic_link_counts_as_what_it_leads_to() {
        let (dir, path) = file(&token().to_text(), 0o644);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        read_token_file(&link).unwrap_err();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        read_token_file(&link).unwrap();
    }
}
