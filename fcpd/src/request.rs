//! REQUEST: what it asks of the engine, and the session's thread.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fcp_common::engine::{
    Counters, Destination, DestinationOptions, Duplex, Ended, Inlet, NoReport, ReceiveOptions,
    RequestBy, SendOptions, SessionError, receive, send,
};
use fcp_common::expand::{MAX_MATCHES, expand};
use fcp_common::fs::DirPool;
use fcp_common::select::RuleSet;
use fcp_common::transfer::{Config as Receiving, Help, RootMetaRule};
use fcp_common::walk::{Parents, SourceRoot, WalkOptions, io_error};
use fcp_proto::packet::{Direction, Options, Problem, Request, Summary, WireError};
use fcp_proto::version::{Agreed, Feature};
use fcp_proto::{ErrorCode, SessionId, escape};

use crate::config::Config;
use crate::greet::idle;
use crate::handshake::error_frame;
use crate::identity::{Identity, Peer};
use crate::scope::Scope;
use crate::server::Server;
use crate::sessions::Permit;
use crate::transport::Transport;

/// Directories of the source that a session keeps open.
const OPEN_DIRS: usize = 64;

/// A session that is about to begin.
pub(crate) struct Start {
    pub(crate) sid: SessionId,
    pub(crate) peer: Peer,
    pub(crate) request: Request,
    pub(crate) agreed: Agreed,
    /// The first connection; everything up to the REQUEST was read.
    pub(crate) transport: Transport,
    pub(crate) permit: Permit,
    pub(crate) inlet: Inlet,
    /// How long the first connection leaves most content to others, and all of it while they live.
    pub(crate) hold: Option<(Duration, Help)>,
}

/// Runs a session of version 2 to its end, or until the server cancels it; whether it closed well.
pub(crate) async fn run(server: &Server, start: Start) -> bool {
    let sid = start.sid;
    tracing::info!("session {sid} of {}: {}", start.peer.identity, describe(&start.request));
    let is_login = start.peer.identity == Identity::Login;
    let cancel = start.inlet.cancel();
    let config = server.config.clone();
    let ended = on_thread(server, || cancel.cancel(), move || carry_out(start, &config)).await;
    match ended {
        Ok(Ok(summary)) => {
            tracing::info!("session {sid} done: {}", account(&summary));
            return true;
        }
        Ok(Err(why)) => {
            match why.is_told() && is_login {
                // The peer's user is who reads this log, too.
                true => tracing::info!("session {sid} failed: {why}"),
                false => tracing::warn!("session {sid} failed: {why}"),
            }
            if let Failure::Refused(transport, error) = why {
                transport.say(&error_frame(&error)).await;
            }
        }
        Err(error) => tracing::error!("session {sid} failed: {error}"),
    }
    false
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
    /// The request cannot be done; the peer is still to be told.
    #[error("{}", .1.text)]
    Refused(Box<Transport>, WireError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the first connection was lost: {0}")]
    Io(#[from] io::Error),
}

impl Failure {
    /// Whether the peer knows.
    fn is_told(&self) -> bool {
        !matches!(self, Failure::Io(_) | Failure::Session(SessionError::Lost(_)))
    }
}

/// The session's thread.
fn carry_out(start: Start, config: &Config) -> Result<Summary, Failure> {
    let Start { request, agreed, transport, permit, inlet, peer, hold, .. } = start;
    match prepare(&request, &agreed, config, peer.scope) {
        Ok(prepared) => {
            let first = transport.into_duplex(idle(&agreed))?.with_guard(permit);
            let first = match hold {
                Some((hold, help)) => first.spare(hold, help),
                None => first,
            };
            Ok(prepared.run(vec![first], inlet)?)
        }
        Err(error) => Err(Failure::Refused(Box::new(transport), error)),
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

fn prepare(
    request: &Request,
    agreed: &Agreed,
    config: &Config,
    scope: Scope,
) -> Result<Prepared, WireError> {
    if request.options.has(Options::DRY_RUN) && !agreed.supports(Feature::DryRun) {
        return Err(WireError::new(ErrorCode::USAGE, "a dry run was not agreed on"));
    }
    match request.direction {
        Direction::Push => prepare_push(request, agreed, config, scope),
        Direction::Pull => prepare_pull(request, agreed, config, &scope),
    }
}

fn prepare_push(
    request: &Request,
    agreed: &Agreed,
    config: &Config,
    scope: Scope,
) -> Result<Prepared, WireError> {
    scope.may_write()?;
    let typed: &[u8] = request.paths.first().map_or(b"", |path| path);
    let path = scope.typed(&config.home, typed)?.path();
    let root_meta = scope.root_meta(&path);
    let asked = DestinationOptions {
        single: request.options.has(Options::SINGLE),
        mkpath: request.options.has(Options::MKPATH),
        dry_run: request.options.has(Options::DRY_RUN),
    };
    let destination = move |single| {
        let options = DestinationOptions { single: single && asked.single, ..asked };
        Destination::open_in(scope.base(), &path, options)
    };
    Ok(Prepared::Receive(Box::new(ReceiveOptions {
        agreed: agreed.clone(),
        request: RequestBy::Peer,
        destination: Box::new(destination),
        open_now: true,
        config: Receiving { root_meta, ..receiving(request.options, config.umask) },
        durability: request.durability,
        report: Arc::new(NoReport),
        counters: Arc::default(),
    })))
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
        root_meta: RootMetaRule::Take,
    }
}

fn prepare_pull(
    request: &Request,
    agreed: &Agreed,
    config: &Config,
    scope: &Scope,
) -> Result<Prepared, WireError> {
    let pairs = request.rules.iter().map(|rule| (rule.action, rule.pattern.as_slice()));
    let rules = RuleSet::from_wire(pairs)
        .map_err(|error| WireError::new(ErrorCode::USAGE, error.to_string()))?;
    let (roots, problems) = open_sources(&request.paths, config, scope, Parents::open);
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
    config: &Config,
    scope: &Scope,
    open: impl Fn(&mut Parents, &[u8]) -> io::Result<SourceRoot>,
) -> (Vec<SourceRoot>, Vec<Problem>) {
    let mut parents = Parents::new(scope.base(), &DirPool::new(OPEN_DIRS), config.limits.parents);
    let mut matches_left = MAX_MATCHES;
    let (mut roots, mut problems) = (Vec::new(), Vec::new());
    for typed in paths {
        let mut fail = |path, error| problems.push(Problem { path, error });
        let path = match scope.typed(&config.home, typed) {
            Ok(path) => path,
            Err(error) => {
                fail(typed.clone(), error);
                continue;
            }
        };
        match expand(scope.base(), &path.pattern(), &mut matches_left) {
            Ok(operands) => {
                for operand in operands {
                    match open(&mut parents, &operand) {
                        Ok(root) => roots.push(root),
                        Err(error) => fail(path.as_typed(operand), io_error(&error)),
                    }
                }
            }
            Err(error) => fail(typed.clone(), io_error(&error)),
        }
    }
    (roots, problems)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(home: &Path) -> Config {
        let args = crate::cli::parse(["fcpd".into()]).unwrap();
        let config = crate::config::Settings::resolve(args, |_| None, 0o022).unwrap().server;
        Config { home: home.to_owned(), ..config }
    }

    fn open(paths: &[Vec<u8>], config: &Config) -> (Vec<SourceRoot>, Vec<Problem>) {
        open_sources(paths, config, &Scope::default(), Parents::open)
    }

    #[test]
    fn what_cannot_be_opened_becomes_a_problem_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("here"), "1").unwrap();
        let paths = [b"~/gone".to_vec(), b"here".to_vec(), b"no*".to_vec()];
        let (roots, problems) = open(&paths, &config(dir.path()));
        assert_eq!(roots.len(), 1);
        let named: Vec<_> = problems.iter().map(|p| p.path.as_slice()).collect();
        assert_eq!(named, [b"~/gone".as_slice(), b"no*"]);
        assert!(problems.iter().all(|p| p.error.code == ErrorCode::NOT_FOUND));
    }

    #[test]
    fn patterns_match_so_many_names_together_and_plain_operands_go_on() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("many")).unwrap();
        for i in 0..1000 {
            std::fs::write(dir.path().join(format!("many/{i}")), "").unwrap();
        }
        let mut paths = vec![b"many/*".to_vec(); 103];
        paths.push(b"many/7".to_vec());
        let (roots, problems) = open(&paths, &config(dir.path()));
        assert_eq!(roots.len(), MAX_MATCHES + 1);
        assert_eq!(problems.len(), 3);
        assert!(problems.iter().all(|p| p.error.code == ErrorCode::LIMIT && p.path == b"many/*"));
    }

    #[test]
    fn a_pull_holds_so_many_directories_and_the_operands_beyond_are_problems() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..10).map(|i| format!("d{i}")).collect();
        names.iter().for_each(|name| std::fs::create_dir(dir.path().join(name)).unwrap());
        let mut config = config(dir.path());
        config.limits.parents = 4;
        let paths = [b"~/d*/".to_vec(), b"~/d0/".to_vec(), b"~/d1/".to_vec()];
        let (roots, problems) = open(&paths, &config);
        assert_eq!(roots.len(), 4 + 2);
        let named: Vec<_> = problems.iter().map(|p| p.path.as_slice()).collect();
        assert_eq!(named, [&b"~/d4/"[..], b"~/d5/", b"~/d6/", b"~/d7/", b"~/d8/", b"~/d9/"]);
        assert!(problems.iter().all(|p| p.error.code == ErrorCode::LIMIT));
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
