//! Why a file of the program's own is not used.

use std::io;
use std::path::{Path, PathBuf};

/// A file or directory that is not used. `Display` names it and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", shown(.path))]
pub struct PrivateError {
    /// The file, or its directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file. `Display` calls it "it".
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Whoever can write to where it leads decides what is in it.
    #[error("it is a symbolic link; put the file itself there")]
    Link,
    /// A directory, a device, a pipe.
    #[error("it is not a regular file")]
    NotAFile,
    /// For sockets there must be one that nobody else can enter.
    #[error("it is not a directory that is ours alone")]
    NotOwnDir,
    /// It belongs to somebody else.
    #[error("it belongs to uid {owner}; remove it, or give it to uid {own} with chown")]
    Foreign {
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// Others have permissions on a secret.
    #[error(
        "others can read or write it (mode {mode:03o}): chmod 600 it, and make a new secret if \
         somebody may have read it"
    )]
    Open {
        /// Its permissions.
        mode: u32,
    },
    /// Others can change what is no secret.
    #[error("others can write it (mode {mode:03o}): chmod go-w it")]
    Writable {
        /// Its permissions.
        mode: u32,
    },
    /// Others can put files into a directory.
    #[error("others can replace the files in it (mode {mode:03o}): chmod 700 it")]
    WritableDir {
        /// Its permissions.
        mode: u32,
    },
    /// Longer than anything that makes sense.
    #[error("it is larger than {}", size(*.0))]
    TooLong(u64),
    /// Bytes that are no text.
    #[error("it is not UTF-8")]
    NotText,
    /// The system refuses.
    #[error("it cannot be {doing}: {source}")]
    Io {
        /// `opened`, `read`, `written`.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl PrivateError {
    pub(super) fn new(path: &Path, fault: Fault) -> PrivateError {
        PrivateError { path: path.to_owned(), fault }
    }

    /// For `map_err`: the system refused to have `path` `doing`.
    pub(super) fn io<E: Into<io::Error>>(path: &Path, doing: &'static str) -> impl Fn(E) -> Self {
        move |error| PrivateError::new(path, Fault::Io { doing, source: error.into() })
    }

    /// There is no file at `path`, where one must be.
    pub fn missing(path: &Path) -> PrivateError {
        PrivateError::io(path, "opened")(rustix::io::Errno::NOENT)
    }

    /// The kind that it has as an [`io::Error`].
    pub fn kind(&self) -> io::ErrorKind {
        match &self.fault {
            Fault::Io { source, .. } => source.kind(),
            Fault::TooLong(_) | Fault::NotText => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::PermissionDenied,
        }
    }

    /// Whether the system refused, and not we.
    pub fn is_io(&self) -> bool {
        matches!(self.fault, Fault::Io { .. })
    }
}

impl From<PrivateError> for io::Error {
    fn from(error: PrivateError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

/// A path for a message, quoted.
pub fn shown(path: &Path) -> String {
    format!("'{}'", fcp_proto::escape(path.as_os_str().as_encoded_bytes()))
}

fn size(bytes: u64) -> String {
    let (kib, mib) = (bytes >> 10, bytes >> 20);
    if mib > 0 { format!("{mib} MiB") } else { format!("{kib} KiB") }
}
