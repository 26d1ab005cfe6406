//! Places to test against: a folder here, and the same folder behind OpenSSH's own SFTP server.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fcp_proto::path::RelPath;
use tempfile::TempDir;

use crate::location::local::Local;
use crate::location::sftp::dial::{Connection, Future, Link, Output, Stream};
use crate::location::sftp::pool::{Pool, PoolOptions};
#[cfg(feature = "sftp")]
use crate::location::sftp::session::Session;
use crate::location::sftp::{Sftp, SftpOptions};
use crate::location::{Location, LocationError, Op, Reason, Result};

const SERVER: &str = "/usr/lib/openssh/sftp-server";
/// A server that knows version 3 and nothing else.
pub(crate) const POOR: &str = "posix-rename,fsync,lsetstat,hardlink,statvfs,fstatvfs,limits,\
    expand-path,copy-data,home-directory,users-groups-by-id";

/// A folder that a test may look into and spoil, and the location that serves it.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) at: Location,
    servers: Servers,
}

/// The servers that run for a place.
type Servers = Arc<Mutex<Vec<Child>>>;

impl Place {
    pub(crate) fn local() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let at = Location::Local(Local::new(dir.path()).unwrap());
        Place { dir, at, servers: Servers::default() }
    }

    /// The same, as if it lay behind a network.
    pub(crate) fn local_far() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let at = Location::Local(Local::as_if_far(dir.path()));
        Place { dir, at, servers: Servers::default() }
    }

    /// Behind OpenSSH's server.
    pub(crate) async fn sftp() -> Place {
        Place::sftp_without("", true).await
    }

    /// Behind a server without these requests, and maybe without a shell.
    pub(crate) async fn sftp_without(denied: &str, shell: bool) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let servers = Servers::default();
        let base = dir.path().as_os_str().as_encoded_bytes();
        let at = serve(base, denied, shell, &servers).await.unwrap();
        Place { dir, at: Location::Sftp(at), servers }
    }

    /// Behind a server that is too busy for so many commands.
    pub(crate) async fn sftp_busy(commands: usize) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let servers = Servers::default();
        let base = dir.path().as_os_str().as_encoded_bytes();
        let at = serve_busy(base, ("", true), &servers, commands).await.unwrap();
        Place { dir, at: Location::Sftp(at), servers }
    }

    /// Over somebody's sessions.
    #[cfg(feature = "sftp")]
    pub(crate) async fn over(pool: Pool<Session>) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().as_os_str().as_encoded_bytes();
        let at = Sftp::over(pool, "sftp sshd", base, OPTIONS).await.unwrap();
        Place { dir, at: Location::Sftp(at), servers: Servers::default() }
    }

    /// Every server dies at once; whoever needs one gets a new one.
    pub(crate) fn kill_servers(&self) {
        for mut server in self.servers.lock().unwrap().drain(..) {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    pub(crate) fn local_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.local_path(name), content).unwrap();
    }

    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.local_path(name)).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.local_path(name).symlink_metadata().is_ok()
    }
}

pub(crate) const OPTIONS: SftpOptions = SftpOptions {
    pool: PoolOptions { max_connections: 3, max_channels: 1 },
    lanes: 3,
    make_base: false,
};

pub(crate) async fn sftp(base: &[u8], denied: &str, shell: bool) -> Result<Sftp> {
    serve(base, denied, shell, &Servers::default()).await
}

async fn serve(base: &[u8], denied: &str, shell: bool, servers: &Servers) -> Result<Sftp> {
    serve_busy(base, (denied, shell), servers, 0).await
}

async fn serve_busy(
    base: &[u8],
    (denied, shell): (&str, bool),
    servers: &Servers,
    commands: usize,
) -> Result<Sftp> {
    let (denied, servers) = (denied.to_owned(), Arc::clone(servers));
    let busy = Arc::new(AtomicUsize::new(commands));
    let opener = move || -> Future<'static, Result<Connection>> {
        let (servers, busy) = (Arc::clone(&servers), Arc::clone(&busy));
        let link = Pipes { denied: denied.clone(), shell, servers, busy };
        Box::pin(async move { Ok(Connection::new("sftp pipes", link)) })
    };
    Sftp::over(Pool::over(Box::new(opener), OPTIONS.pool), "sftp pipes", base, OPTIONS).await
}

/// An `sftp-server` at the other end of a socket pair, and `sh` for commands.
struct Pipes {
    denied: String,
    shell: bool,
    servers: Servers,
    /// Commands that are refused before one is taken.
    busy: Arc<AtomicUsize>,
}

impl Pipes {
    fn spawn(&self) -> Stream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(SERVER);
        if !self.denied.is_empty() {
            command.args(["-P", &self.denied]);
        }
        let child = command
            .args(["-e", "-l", "FATAL"])
            .stdin(OwnedFd::from(theirs.try_clone().unwrap()))
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.servers.lock().unwrap().push(child);
        ours.set_nonblocking(true).unwrap();
        let (reader, writer) = tokio::net::UnixStream::from_std(ours).unwrap().into_split();
        Stream { reader: Box::new(reader), writer: Box::new(writer) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill_servers();
    }
}

impl Link for Pipes {
    fn open_sftp(&self) -> Future<'_, Result<Stream>> {
        Box::pin(async { Ok(self.spawn()) })
    }

    fn exec<'a>(&'a self, command: &'a [u8], _limit: usize) -> Future<'a, Result<Output>> {
        use std::os::unix::ffi::OsStrExt;
        let less = |left: usize| left.checked_sub(1);
        if self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            let text = "it allows no further session";
            let error = LocationError::new("sftp pipes", Op::Hash, b"", Reason::Busy, text);
            return Box::pin(async { Err(error) });
        }
        let run = Command::new("sh")
            .arg("-c")
            .arg(std::ffi::OsStr::from_bytes(command))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let status = run.status.code().and_then(|code| u32::try_from(code).ok());
        Box::pin(async move { Ok(Output { status, stdout: run.stdout }) })
    }

    fn explain(&self, error: LocationError) -> Future<'_, LocationError> {
        Box::pin(async { error })
    }

    fn has_exec(&self) -> bool {
        self.shell
    }

    fn max_channels(&self) -> usize {
        1
    }

    fn is_closed(&self) -> bool {
        false
    }
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

pub(crate) fn content(length: usize) -> Vec<u8> {
    // No power of two, so that no two chunks are alike.
    let block: Vec<u8> = (0..4099).map(|i| (i * 31 + i / 251) as u8).collect();
    let mut content = block.repeat(length / block.len() + 1);
    content.truncate(length);
    content
}
