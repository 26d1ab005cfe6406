//! push, pull and local copies; what all transfers share.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fcp_common::engine::{
    self, Counters, Destination, DestinationOptions, Ended, Inlet, OpenDestination, ReceiveOptions,
    RequestBy, SendOptions,
};
use fcp_common::fs::{DirPool, umask};
use fcp_common::select::operand::has_magic;
use fcp_common::select::{Rule, RuleSet, Wanted};
use fcp_common::transfer::{Admits, Config};
use fcp_common::walk::{Place, SourceRoot, WalkOptions, io_error};
use fcp_proto::packet::{self, Durability, Options, Problem, Request, Summary};
use fcp_proto::version::{Agreed, Hello, negotiate};

use tokio::signal::unix::{SignalKind, signal};

use super::Direction;
use crate::cli::{FsyncArg, TransferOptions};
use crate::connect::{self, Purpose, Session};
use crate::error::CliError;
use crate::target::{FcpTarget, Target};
use crate::ui::Reporter;
use crate::ui::exit::ExitStatus;

/// Connections to a server on this machine. One is bound by one core at each end; measured with
/// `side_by_side`, more than two gain nothing on loopback.
pub(super) const CONNECTIONS: u16 = 2;
/// "File size limit exceeded", on every Linux but MIPS.
const SIGXFSZ: i32 = 25;
/// Source directories kept open at once.
const OPEN_DIRS: usize = 256;

/// Runs a transfer to its exit code.
pub(crate) fn run(
    direction: Direction,
    sources: &[Target],
    destination: &Target,
    options: &TransferOptions,
) -> Result<ExitStatus, CliError> {
    let rules = rules(options)?;
    if options.archive && !options.quiet && rustix::process::geteuid().is_root() {
        crate::ui::error("--archive: owner, group and devices are not kept yet");
    }
    let counters = Arc::new(Counters::default());
    let reporter = Reporter::new(options, Arc::clone(&counters));
    let job = Job { options, rules, counters, reporter: Arc::clone(&reporter) };
    let ended = match direction {
        Direction::Push => job.push(sources, destination),
        Direction::Pull => job.pull(sources, destination),
        Direction::Local => job.copy(sources, destination),
        Direction::Relay => job.relay(sources, destination),
    };
    let summary = match ended {
        Ok(summary) => Ok(summary),
        Err(broken @ (CliError::Session(_) | CliError::Relay { .. })) => Err(broken),
        Err(other) => {
            reporter.abort(&other);
            return Err(other);
        }
    };
    Ok(reporter.finish(summary))
}

/// A transfer as it was asked for.
pub(super) struct Job<'a> {
    pub(super) options: &'a TransferOptions,
    pub(super) rules: RuleSet,
    pub(super) counters: Arc<Counters>,
    pub(super) reporter: Arc<Reporter>,
}

impl Job<'_> {
    fn push(&self, sources: &[Target], destination: &Target) -> Result<Summary, CliError> {
        let Target::Fcp(FcpTarget { path, .. }) = destination else { return Err(not_remote()) };
        let server = loopback(destination)?;
        let (roots, problems) = self.open_sources(sources);
        if roots.is_empty() {
            return Ok(self.nothing_to_send(problems));
        }
        let single =
            roots.len() == 1 && problems.is_empty() && roots.iter().all(SourceRoot::is_single);
        let request = self.request(packet::Direction::Push, vec![path.clone()], single);
        let session = self.connect(server, &Purpose::Push(path.clone()), self.options.protocol)?;
        let Some(agreed) = session.agreed else {
            return self.push_version1(session.conns, Sources { roots, problems, single });
        };
        let options = self.send_options(agreed, RequestBy::Us(request), roots, problems);
        run_session(|inlet| engine::send(options, session.conns, inlet))
    }

    fn pull(&self, sources: &[Target], destination: &Target) -> Result<Summary, CliError> {
        let Target::Local(to) = destination else { return Err(not_remote()) };
        let (server, paths) = one_server(sources)?;
        let session = self.connect(server, &Purpose::Pull(paths.clone()), self.options.protocol)?;
        let Some(agreed) = session.agreed else {
            return self.pull_version1(server, session.conns, &paths, to);
        };
        let (one_thing, admits) = self.asked_for(&paths);
        // Only the server knows whether the one name is a directory: its first entry tells.
        let destination = self.destination(to, one_thing);
        let request = self.request(packet::Direction::Pull, paths, one_thing);
        let mut config = self.config();
        config.one_thing = one_thing;
        config.admits = Some(admits);
        let options = self.receive_options(agreed, RequestBy::Us(request), destination, config);
        run_session(|inlet| engine::receive(options, session.conns, inlet))
    }

    /// Whether one thing is asked for, and what may be announced as an answer (case T5).
    pub(super) fn asked_for(&self, paths: &[Vec<u8>]) -> (bool, Admits) {
        let wanted = Wanted::from_sources(paths);
        // A pattern above the name may find that name in several directories.
        let one_thing = wanted.single_name().is_some()
            && paths.len() == 1
            && !paths.iter().any(|path| has_magic(path));
        let rules = self.rules.clone();
        let admits: Admits =
            Box::new(move |path, is_dir| wanted.admits(path) && rules.admits(path, is_dir));
        (one_thing, admits)
    }

    fn copy(&self, sources: &[Target], destination: &Target) -> Result<Summary, CliError> {
        let Target::Local(to) = destination else { return Err(not_remote()) };
        let (roots, problems) = self.open_sources(sources);
        if roots.is_empty() {
            return Ok(self.nothing_to_send(problems));
        }
        let single =
            roots.len() == 1 && problems.is_empty() && roots.iter().all(SourceRoot::is_single);
        let destination = self.destination(to, single);
        let agreed = negotiate(&Hello::ours(CONNECTIONS), &Hello::ours(CONNECTIONS))
            .map_err(|error| CliError::Internal(error.to_string()))?;
        let mut receive =
            self.receive_options(agreed.clone(), RequestBy::Nobody, destination, self.config());
        // One process needs one report, and the sending half knows the names as typed.
        receive.config.report = false;
        receive.report = Arc::new(engine::NoReport);
        receive.counters = Arc::default();
        let mut send = self.send_options(agreed, RequestBy::Nobody, roots, problems);
        send.walk.destination = Place::of(to);
        let kept = Arc::clone(&receive.counters);
        let ended = run_session(|inlet| engine::copy(send, receive, inlet));
        self.counters.kept_bytes.store(kept.kept_bytes.load(Relaxed), Relaxed);
        ended
    }

    /// Opens a session of as many connections as were asked for.
    pub(super) fn connect(
        &self,
        server: SocketAddr,
        purpose: &Purpose,
        protocol: Option<u16>,
    ) -> Result<Session, CliError> {
        connect::open(server, purpose, self.options.connections.unwrap_or(CONNECTIONS), protocol)
    }

    fn open_sources(&self, sources: &[Target]) -> (Vec<SourceRoot>, Vec<Problem>) {
        let pool = DirPool::new(OPEN_DIRS);
        let (mut roots, mut problems) = (Vec::new(), Vec::new());
        for source in sources {
            let Target::Local(path) = source else { continue };
            match SourceRoot::open(path, &pool) {
                Ok(root) => roots.push(root),
                Err(error) => {
                    problems.push(Problem { path: path.clone(), error: io_error(&error) })
                }
            }
        }
        (roots, problems)
    }

    fn destination(&self, path: &[u8], may_be_single: bool) -> OpenDestination {
        let TransferOptions { mkpath, dry_run, .. } = *self.options;
        let path = path.to_vec();
        Box::new(move |single| {
            let single = single && may_be_single;
            Destination::open(&path, DestinationOptions { single, mkpath, dry_run })
        })
    }

    fn nothing_to_send(&self, problems: Vec<Problem>) -> Summary {
        use fcp_common::engine::Report;
        problems.into_iter().for_each(|problem| self.reporter.problem(problem));
        Summary::default()
    }

    pub(super) fn request(
        &self,
        direction: packet::Direction,
        paths: Vec<Vec<u8>>,
        single: bool,
    ) -> Request {
        let o = self.options;
        let options = Options::default()
            .with(Options::CHECKSUM, o.checksum)
            .with(Options::DRY_RUN, o.dry_run)
            .with(Options::PERMS, o.perms())
            .with(Options::TIMES, o.times())
            .with(Options::LINKS, o.links())
            .with(Options::RECURSIVE, o.recursive())
            .with(Options::MKPATH, o.mkpath)
            .with(Options::SINGLE, single);
        let rule = |rule: &Rule| {
            let (action, pattern) = rule.to_wire();
            packet::Rule { action, pattern }
        };
        let rules = self.rules.rules().iter().map(rule).collect();
        Request { direction, options, durability: self.durability(), paths, rules }
    }

    pub(super) fn durability(&self) -> Durability {
        match self.options.fsync {
            FsyncArg::None => Durability::None,
            FsyncArg::Batch => Durability::Batch,
            FsyncArg::Always => Durability::Always,
        }
    }

    fn config(&self) -> Config {
        let o = self.options;
        Config {
            checksum: o.checksum,
            dry_run: o.dry_run,
            perms: o.perms(),
            times: o.times(),
            links: o.links(),
            umask: (umask() & 0o777) as u16,
            one_thing: false,
            report: true,
            admits: None,
        }
    }

    pub(super) fn walk_options(&self) -> WalkOptions {
        WalkOptions {
            rules: self.rules.clone(),
            recursive: self.options.recursive(),
            links: self.options.links(),
            destination: None,
        }
    }

    fn send_options(
        &self,
        agreed: Agreed,
        request: RequestBy,
        roots: Vec<SourceRoot>,
        problems: Vec<Problem>,
    ) -> SendOptions {
        let walk = self.walk_options();
        let (report, counters) = (self.reporter.clone(), Arc::clone(&self.counters));
        SendOptions { agreed, request, roots, walk, problems, report, counters }
    }

    fn receive_options(
        &self,
        agreed: Agreed,
        request: RequestBy,
        destination: OpenDestination,
        config: Config,
    ) -> ReceiveOptions {
        let (report, counters) = (self.reporter.clone(), Arc::clone(&self.counters));
        let durability = self.durability();
        ReceiveOptions {
            agreed,
            request,
            destination,
            open_now: false,
            config,
            durability,
            report,
            counters,
        }
    }
}

/// Sources that were opened, and those that could not be.
pub(super) struct Sources {
    pub(super) roots: Vec<SourceRoot>,
    pub(super) problems: Vec<Problem>,
    /// There is one, and it is no directory.
    pub(super) single: bool,
}

/// Runs a session to its end.
pub(super) fn run_session(
    run: impl FnOnce(Inlet) -> Ended<Summary> + Send,
) -> Result<Summary, CliError> {
    Ok(interruptible(run)??)
}

/// Runs what an inlet can cancel; the first signal does.
pub(super) fn interruptible<T: Send>(run: impl FnOnce(Inlet) -> T + Send) -> Result<T, CliError> {
    Ok(run_with_signals(&runtime()?, Inlet::new(), run))
}

/// Runs a session on a thread of its own; SIGINT, SIGTERM and SIGHUP end it.
fn run_with_signals<T: Send>(
    runtime: &tokio::runtime::Runtime,
    inlet: Inlet,
    run: impl FnOnce(Inlet) -> T + Send,
) -> T {
    let cancel = inlet.cancel();
    std::thread::scope(|scope| {
        let (done, ended) = tokio::sync::oneshot::channel();
        let session = scope.spawn(move || {
            let result = run(inlet);
            let _ = done.send(());
            result
        });
        runtime.block_on(async {
            // Past a size limit a write is to fail as one file's error. A handler that nobody
            // listens to replaces the default action, for good.
            let _ = signal(SignalKind::from_raw(SIGXFSZ));
            tokio::select! {
                _ = ended => {}
                () = interrupted() => cancel.cancel(),
            }
        });
        session.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    std::future::poll_fn(|cx| {
        let any = signals.iter_mut().any(|s| s.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Internal(format!("cannot start: {error}")))
}

fn rules(options: &TransferOptions) -> Result<RuleSet, CliError> {
    let usage = |error: &dyn std::fmt::Display| CliError::Usage(error.to_string());
    let mut rules = Vec::new();
    for filter in &options.filters {
        let pattern = filter.pattern.as_bytes();
        let rule = if filter.include { Rule::include(pattern) } else { Rule::exclude(pattern) };
        rules.push(rule.map_err(|error| usage(&error))?);
    }
    RuleSet::new(rules).map_err(|error| usage(&error))
}

pub(super) fn one_server(sources: &[Target]) -> Result<(SocketAddr, Vec<Vec<u8>>), CliError> {
    let mut found = None;
    let mut paths = Vec::new();
    for source in sources {
        let Target::Fcp(FcpTarget { path, .. }) = source else { return Err(not_remote()) };
        let server = loopback(source)?;
        if *found.get_or_insert(server) != server {
            return Err(CliError::Usage("sources must be all on one server".to_owned()));
        }
        paths.push(path.clone());
    }
    found.map(|server| (server, paths)).ok_or_else(not_remote)
}

/// Where a server on this machine listens.
pub(super) fn loopback(target: &Target) -> Result<SocketAddr, CliError> {
    match target {
        Target::Fcp(server) => server.loopback().ok_or_else(not_remote),
        _ => Err(not_remote()),
    }
}

pub(super) fn not_remote() -> CliError {
    CliError::Usage("type: fcp SRC... DST".to_owned())
}
