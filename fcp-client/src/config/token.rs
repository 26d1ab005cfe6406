//! Where a token is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fcp_common::auth::Token;
use rustix::fs::OFlags;

use super::ConfigError;

/// More than any token with the white space around it.
const MAX_SIZE: u64 = 4096;

/// Where a token is. It is never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// In the config itself.
    Text(Token),
    /// In a file of its own.
    File(PathBuf),
}

impl TokenSource {
    /// The token.
    ///
    /// # Errors
    /// [`ConfigError::File`] for a file that cannot be read, that others can read, that is not the
    /// user's own (or root's), or that holds something else. A symbolic link is not followed.
    pub fn token(&self) -> Result<Token, ConfigError> {
        match self {
            TokenSource::Text(token) => Ok(token.clone()),
            TokenSource::File(path) => read(path).map_err(|error| {
                let name = fcp_proto::escape(path.as_os_str().as_encoded_bytes());
                ConfigError::File(name, error.to_string())
            }),
        }
    }
}

fn read(path: &Path) -> io::Result<Token> {
    // A fifo is not to be waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(
        |error| match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::LOOP) => io::Error::other("a token file is no symbolic link"),
            _ => error,
        },
    )?;
    check(&file)?;
    let mut text = String::new();
    file.take(MAX_SIZE).read_to_string(&mut text)?;
    text.parse().map_err(io::Error::other)
}

fn check(file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&meta.uid());
    match () {
        () if !meta.is_file() => Err(io::Error::other("a token file is a plain file")),
        () if !ours => Err(io::Error::other("it is somebody else's; a token file must be yours")),
        () if meta.mode() & 0o077 != 0 => {
            Err(io::Error::other("others can read it; type: chmod 600 on it"))
        }
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a22_a_token_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let token = Token::from_random([7; 32]);
        let read = |path: &Path| TokenSource::File(path.to_owned()).token();
        fs::write(&path, format!("{}\n", token.to_text())).expect("written");
        for mode in [0o644, 0o640, 0o604, 0o660, 0o602] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
            assert!(read(&path).is_err_and(|e| e.to_string().contains("chmod 600")), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("mode");
        assert_eq!(read(&path), Ok(token));

        let link = dir.path().join("link");
        symlink(&path, &link).expect("a link");
        assert!(read(&link).is_err_and(|e| e.to_string().contains("symbolic link")));
        assert!(read(dir.path()).is_err());
        fs::write(&path, "").expect("written");
        assert!(read(&path).is_err_and(|e| e.to_string().contains("not a token")));
    }
}
