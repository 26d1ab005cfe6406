//! The Unix socket at which a session of `fcpd --stdio` is found by its further connections.
//!
//! It is in a directory that only our user can look into, under a name that only who knows the
//! session's id can tell.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fcp_common::private;
use fcp_proto::SessionId;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use sha2::{Digest, Sha256};

/// Sockets that are older may be left over from processes that were killed.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// A session's socket; removed when dropped.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl Bound {
    /// Binds the socket of the session `sid` in the first of `dirs` that can be used.
    ///
    /// # Errors
    /// None can; the last one's error.
    pub(super) fn new(dirs: &[PathBuf], sid: SessionId) -> io::Result<Bound> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for dir in dirs {
            match bind_in(dir, sid) {
                Ok(bound) => return Ok(bound),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        private::remove(&self.path);
    }
}

/// Connects to the session `sid`, wherever it is; the stream does not block.
///
/// # Errors
/// There is no such session for us.
pub(super) fn find(dirs: &[PathBuf], sid: SessionId) -> io::Result<OwnedFd> {
    let usable = dirs.iter().filter(|dir| private::require_own_dir(dir).is_ok());
    let found = usable.map(|dir| connect_to(&dir.join(name(sid)))).find_map(Result::ok);
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A hash, as the id itself is the secret and names get into listings and logs.
fn name(sid: SessionId) -> String {
    let hash = Sha256::digest(sid.0);
    let digits: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    digits + ".sock"
}

fn bind_in(dir: &Path, sid: SessionId) -> io::Result<Bound> {
    private::own_dir(dir)?;
    remove_dead(dir);
    let path = dir.join(name(sid));
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", private::shown(dir)))
    };
    let listener = UnixListener::bind(&path).map_err(named)?;
    let bound = Bound { listener, path };
    bound.listener.set_nonblocking(true)?;
    Ok(bound)
}

/// Removes old sockets that nobody listens at.
fn remove_dead(dir: &Path) {
    for path in private::not_changed_for(OLD, dir) {
        let is_dead = || {
            let refused = io::ErrorKind::ConnectionRefused;
            connect_to(&path).is_err_and(|error| error.kind() == refused)
        };
        if path.extension().is_some_and(|ext| ext == "sock") && is_dead() {
            private::remove(&path);
        }
    }
}

/// Connects without waiting for a listener that is busy.
fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::SystemTime;

    use rustix::process::geteuid;

    use super::*;

    const SID: SessionId = SessionId([7; 16]);

    #[test]
    fn a_session_is_found_by_its_id_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("missing/fcp"), dir.path().join("fcp")];
        let bound = Bound::new(&dirs, SID).unwrap();
        assert!(find(&dirs, SID).is_ok());
        assert!(find(&dirs, SessionId([8; 16])).is_err());
        assert!(Bound::new(&dirs, SID).is_err(), "no id has two sessions");
        let name = fs::read_dir(&dirs[1]).unwrap().next().unwrap().unwrap().file_name();
        assert!(!name.to_str().unwrap().contains("0707"), "the name tells the id: {name:?}");
        drop(bound);
        assert!(find(&dirs, SID).is_err());
        assert_eq!(fs::read_dir(&dirs[1]).unwrap().count(), 0);
    }

    #[test]
    fn a22_a_directory_that_others_can_use_is_neither_made_use_of_nor_believed() {
        let dir = tempfile::tempdir().unwrap();
        let [open, link, file, good] =
            ["open", "link", "file", "good"].map(|name| dir.path().join(name));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&good).unwrap();
        fs::set_permissions(&good, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&good, &link).unwrap();
        fs::write(&file, "").unwrap();
        for bad in [&open, &link, &file] {
            assert!(Bound::new(std::slice::from_ref(bad), SID).is_err(), "{bad:?}");
        }
        // A listener in a directory that was opened to others later is not believed either.
        let bound = Bound::new(&[open.clone(), link, good.clone()], SID).unwrap();
        assert!(find(std::slice::from_ref(&good), SID).is_ok());
        fs::set_permissions(&good, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(find(&[good], SID).is_err());
        drop(bound);
    }

    #[test]
    fn a_foreign_directory_is_not_used() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can make a directory of another user");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("fcp");
        fs::create_dir(&foreign).unwrap();
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&foreign, Some(54321), None).unwrap();
        assert!(Bound::new(&[foreign], SID).is_err());
    }

    #[test]
    fn sockets_of_the_dead_are_removed_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("fcp")];
        drop(Bound::new(&dirs, SID).unwrap());
        let make = |name: &str, days: u32| {
            let path = dirs[0].join(name);
            let listener = UnixListener::bind(&path).unwrap();
            let then = SystemTime::now() - days * Duration::from_secs(24 * 3600);
            let times = [then, then].map(|t| t.duration_since(SystemTime::UNIX_EPOCH).unwrap());
            let times =
                times.map(|t| rustix::fs::Timespec { tv_sec: t.as_secs() as i64, tv_nsec: 0 });
            let times =
                rustix::fs::Timestamps { last_access: times[0], last_modification: times[1] };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty())
                .unwrap();
            listener
        };
        drop(make("dead.sock", 2));
        drop(make("young.sock", 0));
        let _alive = make("alive.sock", 2);
        let _bound = Bound::new(&dirs, SID).unwrap();
        let left = |name: &str| dirs[0].join(name).exists();
        assert_eq!(
            ["dead", "young", "alive"].map(|n| left(&format!("{n}.sock"))),
            [false, true, true]
        );
    }
}
