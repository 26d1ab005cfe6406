//! REQUEST: what it asks of the engine, and the session's thread.

use std::io::{self, Write};
use std::net::{Shutdown as Half, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fcp_common::engine::{
    Counters, Destination, DestinationOptions, Duplex, Ended, Inlet, NoReport, ReceiveOptions,
    RequestBy, SendOptions, SessionError, receive, send,
};
use fcp_common::expand::expand;
use fcp_common::fs::DirPool;
use fcp_common::select::RuleSet;
use fcp_common::transfer::Config as Receiving;
use fcp_common::walk::{SourceRoot, WalkOptions, io_error};
use fcp_proto::coding::Wire;
use fcp_proto::packet::{Direction, Options, Problem, Request, Summary, WireError};
use fcp_proto::version::{Agreed, Feature};
use fcp_proto::{ErrorCode, Flag, SessionId, escape, frame};

use crate::config::Config;
use crate::handshake::idle;
use crate::server::Server;
use crate::sessions::Permit;

/// Directories of the source that a session keeps open.
const OPEN_DIRS: usize = 64;
/// How long the peer may take to take an error.
const TELL: Duration = Duration::from_secs(5);

/// A session that is about to begin.
pub(crate) struct Start {
    pub(crate) sid: SessionId,
    pub(crate) uid: u32,
    pub(crate) request: Request,
    pub(crate) agreed: Agreed,
    /// The first connection; everything up to the REQUEST was read.
    pub(crate) stream: tokio::net::TcpStream,
    pub(crate) permit: Permit,
    pub(crate) inlet: Inlet,
}

/// Runs a session of version 2 to its end, or until the server cancels it.
pub(crate) async fn run(server: &Server, start: Start) {
    let sid = start.sid;
    tracing::info!("session {sid} of uid {}: {}", start.uid, describe(&start.request));
    let cancel = start.inlet.cancel();
    let config = server.config.clone();
    let ended = on_thread(server, || cancel.cancel(), move || carry_out(start, &config)).await;
    match ended {
        Ok(Ok(summary)) => tracing::info!("session {sid} done: {}", account(&summary)),
        Ok(Err(why)) => tracing::warn!("session {sid} failed: {why}"),
        Err(error) => tracing::error!("session {sid} failed: {error}"),
    }
}

/// Runs `work`, a session of any version, on a thread of its own, and calls `cancel` when the
/// server is told to end running sessions.
///
/// # Errors
/// There is no thread to be had, or it panicked; the server goes on.
pub(crate) async fn on_thread<T: Send + 'static>(
    server: &Server,
    cancel: impl FnOnce(),
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, mut ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("fcp-session".to_owned());
    // Whoever waits has gone only if the server has, too.
    thread.spawn(move || drop(done.send(work())))?;
    let ended = tokio::select! {
        ended = &mut ended => ended,
        () = server.shutdown.cancelling() => {
            cancel();
            ended.await
        }
    };
    // A thread that panics drops `done`.
    ended.map_err(|_| io::Error::other("an error inside fcpd (a thread panicked)"))
}

fn describe(request: &Request) -> String {
    let what = match request.direction {
        Direction::Push => "push to",
        Direction::Pull => "pull of",
    };
    let first = request.paths.first().map(|path| escape(path)).unwrap_or_default();
    let more = match request.paths.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let dry = if request.options.has(Options::DRY_RUN) { " (dry run)" } else { "" };
    format!("{what} '{first}'{more}{dry}")
}

fn account(summary: &Summary) -> String {
    let Summary { changed, same, failed, received, kept } = summary;
    format!(
        "{changed} changed, {same} the same, {failed} failed, {received} bytes received, {kept} kept"
    )
}

/// Why a session failed, for the log: its text is safe to print.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The request cannot be done, and the peer was told.
    #[error("{}", .0.text)]
    Refused(WireError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the first connection was lost: {0}")]
    Io(#[from] io::Error),
}

/// The session's thread.
fn carry_out(start: Start, config: &Config) -> Result<Summary, Failure> {
    let Start { request, agreed, stream, permit, inlet, .. } = start;
    let stream = stream.into_std()?;
    match prepare(&request, &agreed, config) {
        Ok(prepared) => {
            let first = Duplex::tcp(stream, idle(&agreed))?.with_guard(permit);
            Ok(prepared.run(vec![first], inlet)?)
        }
        Err(error) => {
            tell(stream, &error);
            Err(Failure::Refused(error))
        }
    }
}

/// Sends ERROR and closes; the peer may be in the middle of sending, and is not read any more.
fn tell(mut stream: TcpStream, error: &WireError) {
    let mut out = Vec::new();
    frame::encode_with(Flag::ERROR, &mut out, |out| error.encode(out));
    let told = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_write_timeout(Some(TELL)))
        .and_then(|()| stream.write_all(&out))
        .and_then(|()| stream.shutdown(Half::Write));
    if let Err(error) = told {
        tracing::debug!("the peer did not take the error: {error}");
    }
}

/// What the engine is to do.
enum Prepared {
    Receive(Box<ReceiveOptions>),
    Send(Box<SendOptions>),
}

impl Prepared {
    fn run(self, conns: Vec<Duplex>, inlet: Inlet) -> Ended<Summary> {
        match self {
            Prepared::Receive(options) => receive(*options, conns, inlet),
            Prepared::Send(options) => send(*options, conns, inlet),
        }
    }
}

fn prepare(request: &Request, agreed: &Agreed, config: &Config) -> Result<Prepared, WireError> {
    if request.options.has(Options::DRY_RUN) && !agreed.supports(Feature::DryRun) {
        return Err(WireError::new(ErrorCode::USAGE, "a dry run was not agreed on"));
    }
    match request.direction {
        Direction::Push => Ok(prepare_push(request, agreed, config)),
        Direction::Pull => prepare_pull(request, agreed, config),
    }
}

fn prepare_push(request: &Request, agreed: &Agreed, config: &Config) -> Prepared {
    let typed: &[u8] = request.paths.first().map_or(b"", |path| path);
    let path = resolve(&config.home, typed);
    let asked = DestinationOptions {
        single: request.options.has(Options::SINGLE),
        mkpath: request.options.has(Options::MKPATH),
        dry_run: request.options.has(Options::DRY_RUN),
    };
    let destination = move |single| {
        Destination::open(&path, DestinationOptions { single: single && asked.single, ..asked })
    };
    Prepared::Receive(Box::new(ReceiveOptions {
        agreed: agreed.clone(),
        request: RequestBy::Peer,
        destination: Box::new(destination),
        open_now: true,
        config: receiving(request.options, config.umask),
        durability: request.durability,
        report: Arc::new(NoReport),
        counters: Arc::default(),
    }))
}

fn receiving(options: Options, umask: u16) -> Receiving {
    Receiving {
        checksum: options.has(Options::CHECKSUM),
        dry_run: options.has(Options::DRY_RUN),
        perms: options.has(Options::PERMS),
        times: options.has(Options::TIMES),
        links: options.has(Options::LINKS),
        umask,
        one_thing: options.has(Options::SINGLE),
        report: false,
        // The client applied its rules itself.
        admits: None,
    }
}

fn prepare_pull(
    request: &Request,
    agreed: &Agreed,
    config: &Config,
) -> Result<Prepared, WireError> {
    let pairs = request.rules.iter().map(|rule| (rule.action, rule.pattern.as_slice()));
    let rules = RuleSet::from_wire(pairs)
        .map_err(|error| WireError::new(ErrorCode::USAGE, error.to_string()))?;
    let (roots, problems) = open_sources(&request.paths, &config.home, SourceRoot::open);
    Ok(Prepared::Send(Box::new(SendOptions {
        agreed: agreed.clone(),
        request: RequestBy::Peer,
        roots,
        walk: WalkOptions {
            rules,
            recursive: request.options.has(Options::RECURSIVE),
            links: request.options.has(Options::LINKS),
            destination: None,
        },
        problems,
        report: Arc::new(NoReport),
        counters: Arc::<Counters>::default(),
    })))
}

/// Opens what can be opened; the rest is told to the client, which goes on with what there is.
pub(crate) fn open_sources(
    paths: &[Vec<u8>],
    home: &Path,
    open: impl Fn(&[u8], &Arc<DirPool>) -> io::Result<SourceRoot>,
) -> (Vec<SourceRoot>, Vec<Problem>) {
    let pool = DirPool::new(OPEN_DIRS);
    let (mut roots, mut problems) = (Vec::new(), Vec::new());
    for typed in paths {
        let operands = match expand(&resolve_glob(home, typed)) {
            Ok(operands) => operands,
            Err(error) => {
                problems.push(Problem { path: typed.clone(), error: io_error(&error) });
                continue;
            }
        };
        for operand in operands {
            match open(&operand, &pool) {
                Ok(root) => roots.push(root),
                Err(error) => {
                    let path = as_typed(home, typed, operand);
                    problems.push(Problem { path, error: io_error(&error) });
                }
            }
        }
    }
    (roots, problems)
}

/// A path of a request as the system takes it: what is relative is below `home`, as is what follows
/// `~/`.
pub(crate) fn resolve(home: &Path, typed: &[u8]) -> Vec<u8> {
    if typed.starts_with(b"/") {
        return typed.to_vec();
    }
    let (_, below) = split_home(typed);
    [home.as_os_str().as_bytes(), b"/", below].concat()
}

/// The spelling of home in front of a path, and the rest.
fn split_home(typed: &[u8]) -> (&[u8], &[u8]) {
    match typed {
        b"~" => (b"~/", b""),
        [b'~', b'/', ..] => typed.split_at(2),
        _ => (b"", typed),
    }
}

/// What `typed` became, as its user would name it.
fn as_typed(home: &Path, typed: &[u8], operand: Vec<u8>) -> Vec<u8> {
    let prefix = resolve(home, b"");
    match operand.strip_prefix(prefix.as_slice()) {
        Some(below) if !typed.starts_with(b"/") => [split_home(typed).0, below].concat(),
        _ => operand,
    }
}

/// As [`resolve`], for a path that may be a pattern: characters of `home` stand for themselves.
fn resolve_glob(home: &Path, typed: &[u8]) -> Vec<u8> {
    if !fcp_common::select::operand::has_magic(typed) {
        return resolve(home, typed);
    }
    let special = |b: &u8| matches!(b, b'\\' | b'*' | b'?' | b'[' | b']');
    let home: Vec<u8> = home
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|b| special(b).then_some(b'\\').into_iter().chain([*b]))
        .collect();
    resolve(Path::new(std::ffi::OsStr::from_bytes(&home)), typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_below_home_and_only_the_tilde_is_expanded() {
        let home = Path::new("/home/a");
        for (typed, resolved) in [
            ("", "/home/a/"),
            ("x/y", "/home/a/x/y"),
            ("/etc", "/etc"),
            ("~", "/home/a/"),
            ("~/x", "/home/a/x"),
            ("~x", "/home/a/~x"),
            ("./~", "/home/a/./~"),
            ("$HOME", "/home/a/$HOME"),
        ] {
            assert_eq!(resolve(home, typed.as_bytes()), resolved.as_bytes());
        }
    }

    #[test]
    fn a_home_with_wildcards_in_its_name_is_taken_literally() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a[b]*");
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("one.txt"), "1").unwrap();
        let found = expand(&resolve_glob(&home, b"*.txt")).unwrap();
        assert_eq!(found, [home.join("one.txt").as_os_str().as_bytes()]);
    }

    #[test]
    fn what_cannot_be_opened_becomes_a_problem_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("here"), "1").unwrap();
        let paths = [b"~/gone".to_vec(), b"here".to_vec(), b"no*".to_vec()];
        let (roots, problems) = open_sources(&paths, dir.path(), SourceRoot::open);
        assert_eq!(roots.len(), 1);
        let named: Vec<_> = problems.iter().map(|p| p.path.as_slice()).collect();
        assert_eq!(named, [b"~/gone".as_slice(), b"no*"]);
        assert!(problems.iter().all(|p| p.error.code == ErrorCode::NOT_FOUND));
    }

    #[test]
    fn the_log_names_one_path_escaped() {
        let request = Request {
            direction: Direction::Pull,
            options: Options::default(),
            durability: Default::default(),
            paths: vec![b"a\n\x1b[31m".to_vec(), b"b".to_vec()],
            rules: Vec::new(),
        };
        assert_eq!(describe(&request), "pull of 'a\\012\\033[31m' and 1 more");
    }
}
