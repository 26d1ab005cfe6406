//! push, pull and local copies; what all transfers share.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fcp_common::engine::{
    self, Counters, Destination, DestinationOptions, Duplex, Ended, Inlet, OpenDestination,
    ReceiveOptions, RequestBy, SendOptions, SessionError,
};
use fcp_common::fs::{Base, DirPool, umask};
use fcp_common::select::operand::has_magic;
use fcp_common::select::{Rule, RuleSet, Wanted};
use fcp_common::transfer::{Admits, Config, RootMetaRule};
use fcp_common::walk::{Parents, Place, SourceRoot, WalkOptions, io_error};
use fcp_proto::packet::{self, Durability, Options, Problem, Request, Summary};
use fcp_proto::version::{Agreed, Hello, negotiate};

use super::Direction;
use crate::cli::{FsyncArg, TransferOptions};
use crate::config::{self, Files, Resolved};
use crate::connect::{self, Purpose, Reach, Session};
use crate::error::CliError;
use crate::interrupt::{self, interruptible, interruptible_with};
use crate::target::{Server, Target};
use crate::ui::Reporter;
use crate::ui::exit::ExitStatus;

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
    let files = Files::load(options.reach.config.as_deref(), &env)?;
    let job = Job { options, rules, files, counters, reporter: Arc::clone(&reporter) };
    let summary = match job.run(direction, sources, destination) {
        Ok(summary) => Ok(summary),
        Err(broken @ (CliError::Session(_) | CliError::Relay { .. } | CliError::Place(_))) => {
            Err(broken)
        }
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
    files: Files,
    pub(super) counters: Arc<Counters>,
    pub(super) reporter: Arc<Reporter>,
}

impl Job<'_> {
    /// By a session of ours where there can be one, else over SFTP.
    fn run(
        &self,
        direction: Direction,
        sources: &[Target],
        destination: &Target,
    ) -> Result<Summary, CliError> {
        if let Some(ends) = self.ends_over_sftp(sources, destination)? {
            return self.over_sftp(ends, sources, destination);
        }
        let ended = match direction {
            Direction::Push => self.push(sources, destination),
            Direction::Pull => self.pull(sources, destination),
            Direction::Local => self.copy(sources, destination),
            Direction::Relay => self.relay(sources, destination),
        };
        match ended {
            Err(without @ CliError::NoFcpd { .. }) => {
                let ends = self.ends_without_fcpd(sources, destination, without)?;
                self.over_sftp(ends, sources, destination)
            }
            ended => ended,
        }
    }

    fn push(&self, sources: &[Target], destination: &Target) -> Result<Summary, CliError> {
        let (server, path) = destination.remote().ok_or_else(not_remote)?;
        let (roots, problems) = self.open_sources(sources);
        if roots.is_empty() {
            return Ok(self.nothing_to_send(problems));
        }
        let single =
            roots.len() == 1 && problems.is_empty() && roots.iter().all(SourceRoot::is_single);
        let request = self.request(packet::Direction::Push, vec![path.to_vec()], single);
        let session = self.connect(&server, &Purpose::Push(path.to_vec()), None)?;
        let Some(agreed) = session.agreed.clone() else {
            return self.push_version1(session, Sources { roots, problems, single });
        };
        let options = self.send_options(agreed, RequestBy::Us(request), roots, problems);
        self.run_session(session, |conns, inlet| engine::send(options, conns, inlet))
    }

    fn pull(&self, sources: &[Target], destination: &Target) -> Result<Summary, CliError> {
        let Target::Local(to) = destination else { return Err(not_remote()) };
        let (server, paths) = one_server(sources)?;
        let session = self.connect(&server, &Purpose::Pull(paths.clone()), None)?;
        let Some(agreed) = session.agreed.clone() else {
            return self.pull_version1(&server, session, &paths, to);
        };
        let AskedFor { one_thing, contents, admits } = self.asked_for(&paths);
        // Only the server knows whether the one name is a directory: its first entry tells.
        let destination = self.destination(to, one_thing);
        let request = self.request(packet::Direction::Pull, paths, one_thing);
        let mut config = self.config();
        config.one_thing = one_thing;
        config.admits = Some(admits);
        config.root_meta = if contents { RootMetaRule::Take } else { RootMetaRule::Refuse };
        let options = self.receive_options(agreed, RequestBy::Us(request), destination, config);
        self.run_session(session, |conns, inlet| engine::receive(options, conns, inlet))
    }

    /// What a server may answer to a request for `paths` (threat T5).
    pub(super) fn asked_for(&self, paths: &[Vec<u8>]) -> AskedFor {
        let wanted = Wanted::from_sources(paths);
        // A pattern above the name may find that name in several directories.
        let one_thing = wanted.single_name().is_some()
            && paths.len() == 1
            && !paths.iter().any(|path| has_magic(path));
        let contents = wanted.has_contents();
        let (rules, recursive) = (self.rules.clone(), self.options.recursive());
        let admits: Admits = Box::new(move |path, is_dir| {
            let is_deep = is_dir || path.components().nth(1).is_some();
            wanted.admits(path) && rules.admits(path, is_dir) && (recursive || !is_deep)
        });
        AskedFor { one_thing, contents, admits }
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
        let agreed = negotiate(&Hello::ours(1), &Hello::ours(1))
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
        let ended =
            interruptible(|inlet| engine::copy(send, receive, inlet))?.map_err(CliError::from);
        self.counters.kept_bytes.store(kept.kept_bytes.load(Relaxed), Relaxed);
        ended
    }

    /// Opens a session as options, environment and config say; with this `protocol` whatever they
    /// say of that.
    pub(super) fn connect(
        &self,
        server: &Server,
        purpose: &Purpose,
        protocol: Option<u16>,
    ) -> Result<Session, CliError> {
        self.connect_on(server, purpose, protocol, None)
    }

    /// As [`Job::connect`], with these terms and no others.
    pub(super) fn connect_on(
        &self,
        server: &Server,
        purpose: &Purpose,
        protocol: Option<u16>,
        terms: Option<&Hello>,
    ) -> Result<Session, CliError> {
        let mut config = self.config_for(server)?;
        config.protocol.value = protocol.or(config.protocol.value);
        let reach = Reach { config: &config, verbose: self.options.verbose, terms };
        interrupt::during(|| connect::open(server, purpose, reach), || self.abandon())?
    }

    /// The end of a transfer that a signal ends before its session begins.
    pub(super) fn abandon(&self) -> ExitStatus {
        connect::end_all();
        self.reporter.finish(Err(CliError::Session(SessionError::Cancelled)))
    }

    /// What holds for this server.
    pub(super) fn config_for(&self, server: &Server) -> Result<Resolved, CliError> {
        Ok(config::resolve(self.options, server.host(), &env, &self.files)?)
    }

    /// Runs a session to its end.
    pub(super) fn run_session(
        &self,
        mut session: Session,
        run: impl FnOnce(Vec<Duplex>, Inlet) -> Ended<Summary> + Send,
    ) -> Result<Summary, CliError> {
        let conns = session.take_conns();
        let inlet = Inlet::new();
        let running = session.begin(&inlet, &self.counters);
        let ended = interruptible_with(inlet, |inlet| run(conns, inlet))?;
        ended.map_err(|error| CliError::Session(running.explain(error)))
    }

    fn open_sources(&self, sources: &[Target]) -> (Vec<SourceRoot>, Vec<Problem>) {
        let pool = DirPool::new(OPEN_DIRS);
        let mut parents = Parents::new(&Base::Unrestricted, &pool, most_parents());
        let (mut roots, mut problems) = (Vec::new(), Vec::new());
        for source in sources {
            let Target::Local(path) = source else { continue };
            match parents.open(path) {
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
            root_meta: RootMetaRule::Take,
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

/// What a server may answer to a pull.
pub(super) struct AskedFor {
    /// One thing, so one entry comes below the root.
    pub(super) one_thing: bool,
    /// A directory's contents, so that its mode and time become the destination's.
    pub(super) contents: bool,
    /// The paths that may be announced.
    pub(super) admits: Admits,
}

/// Sources that were opened, and those that could not be.
pub(super) struct Sources {
    pub(super) roots: Vec<SourceRoot>,
    pub(super) problems: Vec<Problem>,
    /// There is one, and it is no directory.
    pub(super) single: bool,
}

/// Directories that sources may be in: all files that this process may open but those that the
/// transfer needs, and half of them where they are few.
fn most_parents() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    (files / 2).max(files.saturating_sub(OPEN_DIRS + 128))
}

fn env(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
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

/// The one server of all sources, and their paths there.
pub(super) fn one_server(sources: &[Target]) -> Result<(Server, Vec<Vec<u8>>), CliError> {
    let remote = sources.iter().map(|source| source.remote().ok_or_else(not_remote));
    let (servers, paths): (Vec<_>, Vec<_>) =
        remote.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    if sources.windows(2).any(|pair| !pair[0].same_server(&pair[1])) {
        return Err(CliError::Usage("sources must be all on one server".to_owned()));
    }
    let server = servers.into_iter().next().ok_or_else(not_remote)?;
    Ok((server, paths.into_iter().map(<[u8]>::to_vec).collect()))
}

pub(super) fn not_remote() -> CliError {
    CliError::Usage("type: fcp SRC... DST".to_owned())
}
