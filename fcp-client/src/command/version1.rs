//! push and pull with a server that speaks version 1 only.
//!
//! Its sender sends what is in a directory without the directory's name, mixes the sources of one
//! PULL, and has its own rules. So each source is pulled by a session of its own, which tells
//! what belongs where, and names and rules are checked here.

use std::sync::Arc;

use fcp_common::engine::{Destination, DestinationError, DestinationOptions, SessionError};
use fcp_common::fs::{Dir, umask};
use fcp_common::select::Wanted;
use fcp_common::version1::{
    Admission, Admit, OpenDestination, ReceiveConfig, SEND_WINDOW, V1Filter, V1ReceiveOptions,
    V1SendOptions, WINDOW, receive, send,
};
use fcp_proto::packet::{Durability, Problem, Summary};
use fcp_proto::{ErrorCode, Name, RelPath};

use super::transfer::{Job, Sources};
use crate::connect::{Purpose, Session};
use crate::error::CliError;
use crate::target::Server;
use crate::ui;

impl Job<'_> {
    /// Sends to a version 1 server, which keeps modes and times whether or not it is asked to.
    pub(super) fn push_version1(
        &self,
        session: Session,
        sources: Sources,
    ) -> Result<Summary, CliError> {
        let o = self.options;
        self.refuse(&[
            (o.dry_run, "--dry-run"),
            (self.durability() != Durability::None, "--fsync"),
            (!o.perms(), "--no-perms"),
            (!o.times(), "--no-times"),
        ])?;
        let Sources { roots, problems, single } = sources;
        let options = V1SendOptions {
            roots,
            walk: self.walk_options(),
            filter: V1Filter::default(),
            single,
            problems,
            report: self.reporter.clone(),
            counters: Arc::clone(&self.counters),
            window: SEND_WINDOW,
        };
        self.run_session(session, |conns, inlet| send(options, conns, inlet))
    }

    /// Receives from a version 1 server; `first` is a session that was opened for all of
    /// `paths`.
    pub(super) fn pull_version1(
        &self,
        server: &Server,
        first: Session,
        paths: &[Vec<u8>],
        to: &[u8],
    ) -> Result<Summary, CliError> {
        self.refuse(&[(self.options.dry_run, "--dry-run")])?;
        self.explain();
        if let [path] = paths {
            return self.pull_source(first, path, to);
        }
        drop(first);
        // Several sources need a directory.
        let to = [if to.is_empty() { b"." } else { to }, b"/"].concat();
        let mut all = Summary::default();
        for path in paths {
            let session = self.connect(server, &Purpose::Pull(vec![path.clone()]), Some(1))?;
            add(&mut all, &self.pull_source(session, path, &to)?);
        }
        Ok(all)
    }

    fn pull_source(&self, session: Session, path: &[u8], to: &[u8]) -> Result<Summary, CliError> {
        let wanted = Wanted::from_sources(&[path]);
        let name = wanted.single_name();
        let options = V1ReceiveOptions {
            destination: destination(to.to_vec(), name.clone(), self.options.mkpath),
            config: ReceiveConfig {
                may_be_single: name.is_some(),
                admit: Some(self.admission(wanted, name)),
                window: WINDOW,
            },
            perms: self.options.perms(),
            times: self.options.times(),
            umask: (umask() & 0o777) as u16,
            durability: self.durability(),
            report: self.reporter.clone(),
            counters: Arc::clone(&self.counters),
        };
        match self.run_session(session, |conns, inlet| receive(options, conns, inlet)) {
            // The other sources are still good.
            Err(CliError::Session(SessionError::Peer(error)))
                if error.code == ErrorCode::NOT_FOUND =>
            {
                self.unsendable(Problem { path: path.to_vec(), error });
                Ok(Summary::default())
            }
            ended => ended,
        }
    }

    /// What belongs to the source: names were asked for or are refused; rules leave out.
    fn admission(&self, wanted: Wanted, name: Option<Name>) -> Admit {
        let (rules, recursive) = (self.rules.clone(), self.options.recursive());
        Box::new(move |path, is_dir, single| {
            let path = match &name {
                Some(name) if !single => below(name, path),
                _ => path.clone(),
            };
            let is_deep = is_dir || path.components().nth(1).is_some();
            if !wanted.admits(&path) {
                Admission::Refuse
            } else if (is_deep && !recursive) || !rules.admits(&path, is_dir) {
                Admission::Skip
            } else {
                Admission::Take
            }
        })
    }

    fn unsendable(&self, problem: Problem) {
        use fcp_common::engine::Report;
        self.reporter.problem(problem);
    }

    fn refuse(&self, asked: &[(bool, &str)]) -> Result<(), CliError> {
        match asked.iter().find(|(asked, _)| *asked) {
            None => Ok(()),
            Some((_, option)) => Err(CliError::Unsupported(format!(
                "the server speaks only protocol version 1, which has no {option}"
            ))),
        }
    }

    fn explain(&self) {
        if !self.options.quiet {
            ui::error("protocol version 1: symbolic links are left out");
        }
    }
}

/// `name/path`.
fn below(name: &Name, path: &RelPath) -> RelPath {
    let root = RelPath::from(name.clone());
    path.components().fold(root, |path, name| path.join_unbounded(&name))
}

/// Where a source goes: one file as always; what is in a directory `name`, into `to/name`.
fn destination(to: Vec<u8>, name: Option<Name>, mkpath: bool) -> OpenDestination {
    Box::new(move |single| {
        let mut destination =
            Destination::open(&to, DestinationOptions { single, mkpath, dry_run: false })?;
        if let (Some(name), Some(root), false) = (&name, &destination.root, single) {
            destination.root = Some(Arc::new(subdir(root, name, &to)?));
        }
        Ok(destination)
    })
}

fn subdir(root: &Dir, name: &Name, to: &[u8]) -> Result<Dir, DestinationError> {
    let made = match root.mkdir(name, 0o777) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.and_then(|()| root.open_child_nofollow(name)).map_err(|error| DestinationError {
        path: [to, b"/", name.as_bytes()].concat(),
        reason: error.into(),
    })
}

fn add(all: &mut Summary, one: &Summary) {
    let Summary { changed, same, failed, received, kept } = one;
    all.changed += changed;
    all.same += same;
    all.failed += failed;
    all.received += received;
    all.kept += kept;
}
