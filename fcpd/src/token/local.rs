//! The token for tunnels: whoever can read it over ssh is our user, and who else answers on the
//! port cannot make the proof.

use std::path::{Path, PathBuf};

use fcp_common::auth::Token;
use fcp_common::private::{self, PrivateError, Rule, shown};

use super::random;

const NAME: &str = "token";
/// What is in it is 75 bytes.
const RULE: Rule = Rule::secret(4096);

/// Why there is no token for tunnels.
#[derive(Debug, thiserror::Error)]
pub enum NoLocalToken {
    /// Others have, or had, their hands on it.
    #[error(transparent)]
    File(#[from] PrivateError),
    /// It holds something else.
    #[error("{} holds no token; remove it, and fcpd makes a new one at its next start", shown(.0))]
    Malformed(PathBuf),
    /// There is nothing to make it of.
    #[error("the system gives no random numbers: {0}")]
    NoRandom(#[from] rustix::io::Errno),
}

impl NoLocalToken {
    /// Whether the server can do without: it is not there, and cannot be put there, as on a
    /// read-only home.
    pub fn is_harmless(&self) -> bool {
        matches!(self, NoLocalToken::File(error) if error.is_io())
    }
}

/// Where the token is, in the directory of settings `dir`.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// The token in the directory of settings `dir`; `None` when there is none.
///
/// # Errors
/// What is there is no token, or others can read or write it.
pub fn read(dir: &Path) -> Result<Option<Token>, NoLocalToken> {
    let path = path(dir);
    let Some(found) = private::read(&path, &RULE)? else { return Ok(None) };
    let token = std::str::from_utf8(&found.bytes).ok().and_then(|text| text.parse().ok());
    token.map(Some).ok_or(NoLocalToken::Malformed(path))
}

/// Makes the token if there is none yet; of several processes that do it at once, one does.
///
/// # Errors
/// What is there cannot be used, or nothing can be put there.
pub fn ensure(dir: &Path) -> Result<(), NoLocalToken> {
    if read(dir)?.is_some() {
        return Ok(());
    }
    let lock = private::lock(dir)?;
    if read(dir)?.is_some() {
        return Ok(());
    }
    let token = Token::from_random(random()?);
    Ok(lock.replace(NAME, format!("{}\n", token.to_text()).as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_token_is_made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join(".config/fcp");
        assert!(read(&dir).unwrap().is_none());
        std::thread::scope(|scope| {
            (0..8).for_each(|_| drop(scope.spawn(|| ensure(&dir).unwrap())));
        });
        let token = read(&dir).unwrap().unwrap();
        ensure(&dir).unwrap();
        assert!(read(&dir).unwrap() == Some(token.clone()));
        assert_eq!(fs::metadata(path(&dir)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(path(&dir)).unwrap(), token.to_text() + "\n");
    }

    #[test]
    fn a22_what_is_there_and_no_token_is_refused_and_kept() {
        let home = tempfile::tempdir().unwrap();
        ensure(home.path()).unwrap();
        let path = path(home.path());
        let good = fs::read_to_string(&path).unwrap();
        for bad in ["", "\n", "fcp-token-", &good[..20], "\u{ff}", &(good.clone() + "x")] {
            fs::write(&path, bad).unwrap();
            let refused = ensure(home.path()).unwrap_err();
            assert!(!refused.is_harmless() && refused.to_string().contains("remove it"));
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        fs::write(&path, &good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = ensure(home.path()).unwrap_err();
        assert!(!refused.is_harmless() && refused.to_string().contains("chmod 600"), "{refused}");
        fs::rename(&path, home.path().join("elsewhere")).unwrap();
        symlink("elsewhere", &path).unwrap();
        assert!(!ensure(home.path()).unwrap_err().is_harmless());
    }

    #[test]
    fn a_home_that_cannot_be_written_to_is_harmless() {
        // Root writes everywhere but here.
        let refused = ensure(Path::new("/proc/1/fcp")).unwrap_err();
        assert!(refused.is_harmless(), "{refused}");
    }
}
