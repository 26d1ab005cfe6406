//! What the paths that users type may reach.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::dir::{Dir, user_path};

/// Where the paths that users type begin, and what they may reach.
#[derive(Clone, Debug, Default)]
pub enum Base {
    /// The whole file system, from the working directory.
    #[default]
    Unrestricted,
    /// What is beneath a directory that was opened once: it stays the same one wherever it is
    /// moved. Absolute paths are beneath it like all others, and what leads out of it is refused.
    Beneath(Arc<Dir>),
}

impl Base {
    /// Everything beneath the directory `path`, which must be there.
    ///
    /// # Errors
    /// As [`Dir::open_user`].
    pub fn beneath(path: &Path) -> io::Result<Base> {
        Ok(Base::Beneath(Arc::new(Dir::open_user(path)?)))
    }

    /// Whether there is anything that paths cannot reach.
    pub fn is_restricted(&self) -> bool {
        matches!(self, Base::Beneath(_))
    }

    /// Opens the directory `path` as it was typed, following symlinks; magic links are refused.
    ///
    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] for a path that leads out, by `..` or by a symlink; an
    /// absolute symlink always does.
    pub fn open_dir(&self, path: &[u8]) -> io::Result<Dir> {
        match self {
            Base::Unrestricted => Dir::open_user(user_path(path)),
            Base::Beneath(root) => root.open_typed(path).map_err(leads_out),
        }
    }
}

/// `EXDEV` is what the kernel says, and means a rename to everybody else.
fn leads_out(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::CrossesDevices {
        return error;
    }
    let text = "it leads out of the directory that this connection may use";
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}
