//! Files with secrets in them: only our user may read or write them, and nobody else may have put
//! them there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fcp_proto::escape;
use rustix::fs::{FlockOperation, OFlags, flock};

/// Why a file with secrets is not used. `Display` names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    /// Whoever can write to where it leads decides what is in it.
    #[error("{} is a symbolic link; put the file itself there", shown(.0))]
    Link(PathBuf),
    /// It belongs to somebody else.
    #[error("{} belongs to uid {owner}; remove it, or give it to uid {own} with chown", shown(.path))]
    Foreign {
        /// The file or its directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        own: u32,
    },
    /// Others have permissions on it.
    #[error(
        "others can read or write {0} (mode {mode:03o}); run: chmod 600 {0}, and make a new secret \
         if somebody may have read it", shown(.path)
    )]
    Loose {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Others can put files into its directory.
    #[error("others can replace the files in {0} (mode {mode:03o}); run: chmod 700 {0}", shown(.path))]
    LooseDir {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A directory, a device, a pipe.
    #[error("{} is not a regular file; remove it", shown(.0))]
    NotAFile(PathBuf),
    /// Longer than anything that we wrote.
    #[error("{} is too long; remove it", shown(.0))]
    TooLong(PathBuf),
    /// The system refuses.
    #[error("cannot {doing} {}: {source}", shown(.path))]
    Io {
        /// `read`, `write`.
        doing: &'static str,
        /// The file or its directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A path for a message, quoted.
pub(crate) fn shown(path: &Path) -> String {
    format!("'{}'", escape(path.as_os_str().as_encoded_bytes()))
}

/// The contents of the file at `path`, at most `max` bytes, and what it is; `None` when there is none.
///
/// # Errors
/// Others have, or had, their hands on it, or it cannot be read.
pub(crate) fn read(path: &Path, max: u64) -> Result<Option<(Vec<u8>, fs::Metadata)>, NotPrivate> {
    let io = |source| NotPrivate::Io { doing: "read", path: path.to_owned(), source };
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            // Often it is the reason that we cannot open it.
            if let Ok(meta) = fs::symlink_metadata(path) {
                require_private(path, &meta)?;
            }
            return Err(io(error));
        }
    };
    let meta = file.metadata().map_err(io)?;
    require_private(path, &meta)?;
    require_dir(path.parent().unwrap_or(Path::new("/")))?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > max {
        return Err(NotPrivate::TooLong(path.to_owned()));
    }
    Ok(Some((bytes, meta)))
}

/// Non-blocking, so that a fifo does not hold us up.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn require_private(path: &Path, meta: &fs::Metadata) -> Result<(), NotPrivate> {
    let own = rustix::process::geteuid().as_raw();
    if meta.is_symlink() {
        return Err(NotPrivate::Link(path.to_owned()));
    }
    if !meta.is_file() {
        return Err(NotPrivate::NotAFile(path.to_owned()));
    }
    if meta.uid() != own {
        return Err(NotPrivate::Foreign { path: path.to_owned(), owner: meta.uid(), own });
    }
    match meta.mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(NotPrivate::Loose { path: path.to_owned(), mode }),
        _ => Ok(()),
    }
}

/// The directory may be reached through links, as people keep their settings in all kinds of
/// places; where that ends, only root and we may write.
fn require_dir(dir: &Path) -> Result<(), NotPrivate> {
    let path = || dir.to_owned();
    let meta = fs::metadata(dir).map_err(|source| NotPrivate::Io {
        doing: "look at",
        path: path(),
        source,
    })?;
    let own = rustix::process::geteuid().as_raw();
    if ![0, own].contains(&meta.uid()) {
        return Err(NotPrivate::Foreign { path: path(), owner: meta.uid(), own });
    }
    match meta.mode() & 0o777 {
        mode if mode & 0o022 != 0 => Err(NotPrivate::LooseDir { path: path(), mode }),
        _ => Ok(()),
    }
}

/// The right to change the files of a directory; given back when dropped.
#[derive(Debug)]
pub(crate) struct Locked {
    dir: PathBuf,
    _lock: File,
}

/// Makes `dir` if it is missing, for our user only, and waits for whoever else changes its files.
///
/// # Errors
/// Others can write to it, or it cannot be made or locked.
pub(crate) fn lock(dir: &Path) -> Result<Locked, NotPrivate> {
    let io = |source| NotPrivate::Io { doing: "write to", path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    require_dir(dir)?;
    // A file, as a directory cannot be locked over NFS.
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(dir.join(".lock"))
        .map_err(io)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|errno| io(errno.into()))?;
    Ok(Locked { dir: dir.to_owned(), _lock: lock })
}

impl Locked {
    /// Puts a file with these contents in the place of what is called `name`; it is all there or
    /// not at all, also after a crash.
    ///
    /// # Errors
    /// As the system gives them; what was there stays.
    pub(crate) fn replace(&self, name: &str, contents: &[u8]) -> Result<(), NotPrivate> {
        let path = self.dir.join(name);
        let new = self.dir.join(format!(".{name}.new"));
        self.write_and_rename(&new, &path, contents).map_err(|source| {
            // Half of a secret is of no use to anybody.
            let _ = fs::remove_file(&new);
            NotPrivate::Io { doing: "write", path, source }
        })
    }

    fn write_and_rename(&self, new: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
        // Left by one that was killed: nobody else writes while we hold the lock.
        match fs::remove_file(new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(new, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path) -> String {
        read(path, 100).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_private_and_reads_back() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/fcp");
        lock(&dir).unwrap().replace("secret", b"one").unwrap();
        lock(&dir).unwrap().replace("secret", b"two").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("secret"))), (0o700, 0o600));
        assert_eq!(read(&dir.join("secret"), 3).unwrap().unwrap().0, b"two");
        assert!(matches!(read(&dir.join("secret"), 2), Err(NotPrivate::TooLong(_))));
        assert!(read(&dir.join("none"), 3).unwrap().is_none());
    }

    #[test]
    fn a22_loose_linked_and_odd_files_are_refused_and_the_text_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "x").unwrap();
        for mode in [0o644, 0o640, 0o604, 0o660, 0o620, 0o610] {
            chmod(&path, mode);
            let text = refused(&path);
            assert!(text.contains("chmod 600") && text.contains("secret"), "{text}");
        }
        chmod(&path, 0o600);
        assert!(read(&path, 1).is_ok());
        chmod(dir.path(), 0o770);
        assert!(refused(&path).contains("chmod 700"));
        chmod(dir.path(), 0o700);

        let link = dir.path().join("link");
        symlink("secret", &link).unwrap();
        assert!(refused(&link).contains("symbolic link"));
        let dangling = dir.path().join("dangling");
        symlink("nowhere", &dangling).unwrap();
        assert!(refused(&dangling).contains("symbolic link"));
        assert!(refused(dir.path()).contains("not a regular file"));
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        assert!(refused(&fifo).contains("not a regular file"));
    }

    #[test]
    fn a22_a_file_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "x").unwrap();
        chmod(&path, 0o600);
        std::os::unix::fs::chown(&path, Some(4242), None).unwrap();
        let text = refused(&path);
        assert!(text.contains("uid 4242") && text.contains("secret"), "{text}");
    }
}
