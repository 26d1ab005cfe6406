//! Sessions of version 1: the published protocol, spoken to peers that did not greet with more.
//!
//! The user in the opening decides nothing: who the peer is, the system has told.

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use fcp_common::engine::{
    Counters, Destination, DestinationError, DestinationOptions, Duplex, EntryReport, Inlet,
    Report, SessionError, Unusable,
};
use fcp_common::select::operand::has_magic;
use fcp_common::version1::{
    self, ReceiveConfig, SEND_WINDOW, V1Filter, V1ReceiveOptions, V1SendOptions, WINDOW,
    open_pull_source,
};
use fcp_common::walk::{SourceRoot, WalkOptions};
use fcp_proto::packet::{
    Durability, Opening, Outcome, Problem, PullOpening, Reply, Summary, WireError,
};
use fcp_proto::v1::V1Packet;
use fcp_proto::version::IDLE_SECS;
use fcp_proto::{Flag, escape};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Config;
use crate::greet::join_to;
use crate::identity::Peer;
use crate::request::{on_thread, open_sources};
use crate::scope::Scope;
use crate::server::Server;
use crate::sessions::Permit;

/// How long one read or write may block; version 1 has no KEEPALIVE, so that ends nothing by itself.
const IDLE: Duration = Duration::from_secs(IDLE_SECS as u64);

/// Serves the version 1 session that `opening` asked for over `stream`, until it ends.
pub(crate) async fn serve(server: &Server, mut stream: TcpStream, opening: Opening, peer: Peer) {
    let who = &peer.identity;
    let inlet = Inlet::new();
    // The session's id is valid as long as its registration is held.
    let connections = server.config.connections;
    let opened = server.sessions.open(who.clone(), connections, join_to(&inlet, IDLE));
    let (registration, permit) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            server.refusals.log("sessions", format_args!("refused {who}: {why}"));
            return refuse(server, stream, why.to_string()).await;
        }
    };
    let sid = registration.sid();
    let mut answer = Vec::new();
    Reply::version_1(sid).encode(Flag::SID, &mut answer);
    if let Err(error) = write(server, &mut stream, &answer).await {
        let why = format_args!("session {sid} of {who}: the peer took no answer: {error}");
        return server.refusals.log("request", why);
    }
    tracing::info!("session {sid} of {who}: version 1 {}", describe(&opening));
    let cancel = inlet.cancel();
    let config = server.config.clone();
    let scope = peer.scope;
    let work = move || carry_out(stream, permit, inlet, opening, &config, scope);
    match on_thread(server, || cancel.cancel(), work).await {
        Ok(Ok(done)) => tracing::info!(
            "session {sid} done: {} changed, {} the same, {} failed, {} content bytes",
            done.changed,
            done.same,
            done.failed,
            done.received
        ),
        Ok(Err(why)) => tracing::warn!("session {sid} failed: {why}"),
        Err(error) => tracing::error!("session {sid} failed: {error}"),
    }
}

async fn refuse(server: &Server, mut stream: TcpStream, text: String) {
    let mut out = Vec::new();
    V1Packet::Exception(text).encode(&mut out);
    // The peer is refused either way; if it does not listen, that is its loss.
    let _ = write(server, &mut stream, &out).await;
}

async fn write(server: &Server, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    match timeout(server.config.limits.request, stream.write_all(bytes)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn describe(opening: &Opening) -> String {
    let (what, paths) = match opening {
        Opening::Push(push) => ("push to", std::slice::from_ref(&push.dst)),
        Opening::Pull(pull) => ("pull of", pull.srcs.as_slice()),
        Opening::Attach(_) | Opening::Hello(_) => ("nothing", [].as_slice()),
    };
    let first = paths.first().map(|path| escape(path.as_bytes())).unwrap_or_default();
    let more = match paths.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    format!("{what} '{first}'{more}")
}

/// The session's thread.
fn carry_out(
    stream: TcpStream,
    permit: Permit,
    inlet: Inlet,
    opening: Opening,
    config: &Config,
    scope: Scope,
) -> Result<Summary, SessionError> {
    let lost = |error: io::Error| SessionError::Lost(error.to_string());
    let stream: StdStream = stream.into_std().map_err(lost)?;
    let first = vec![Duplex::tcp(stream, IDLE).map_err(lost)?.with_guard(permit)];
    match opening {
        Opening::Push(push) => {
            version1::receive(receive_options(push.dst.into_bytes(), config, scope), first, inlet)
        }
        Opening::Pull(pull) => version1::send(send_options(&pull, config, &scope), first, inlet),
        // They open no session.
        Opening::Attach(_) | Opening::Hello(_) => Ok(Summary::default()),
    }
}

fn receive_options(typed: Vec<u8>, config: &Config, scope: Scope) -> V1ReceiveOptions {
    let home = config.home.clone();
    let destination = move |single| {
        let unusable = |error: WireError| DestinationError {
            path: typed.clone(),
            reason: Unusable::Io(io::Error::other(error.text)),
        };
        scope.may_write().map_err(unusable)?;
        let path = scope.typed(&home, &typed).map_err(unusable)?.path();
        let options = DestinationOptions { single, mkpath: true, dry_run: false };
        Destination::open_in(scope.base(), &path, options)
    };
    V1ReceiveOptions {
        destination: Box::new(destination),
        config: ReceiveConfig { may_be_single: true, admit: None, window: WINDOW },
        perms: true,
        times: true,
        umask: config.umask,
        durability: Durability::None,
        report: Arc::new(Log),
        counters: Arc::<Counters>::default(),
    }
}

/// What cannot be opened is logged, as version 1 has no words for it; when nothing is left to send,
/// the engine ends the session with EXCEPTION.
fn send_options(pull: &PullOpening, config: &Config, scope: &Scope) -> V1SendOptions {
    let paths: Vec<Vec<u8>> = pull.srcs.iter().map(|src| src.clone().into_bytes()).collect();
    let (roots, problems) = open_sources(&paths, config, scope, open_pull_source);
    let single = matches!(paths.as_slice(), [path] if !has_magic(path))
        && matches!(roots.as_slice(), [root] if SourceRoot::is_single(root));
    V1SendOptions {
        roots,
        walk: WalkOptions { recursive: true, ..WalkOptions::default() },
        filter: V1Filter::new(&pull.include, &pull.exclude),
        single,
        problems,
        report: Arc::new(Log),
        counters: Arc::<Counters>::default(),
        window: SEND_WINDOW,
    }
}

/// Tells the log what version 1 cannot tell the peer.
struct Log;

impl Report for Log {
    fn entry(&self, entry: EntryReport) {
        if let Outcome::Failed(why) = entry.outcome {
            tracing::warn!("'{}': {}", escape(&entry.path), escape(why.text.as_bytes()));
        }
    }
    fn problem(&self, problem: Problem) {
        let why = escape(problem.error.text.as_bytes());
        tracing::warn!("cannot send '{}': {why}", escape(&problem.path));
    }
    fn skipped(&self, path: Vec<u8>, why: &str) {
        tracing::debug!("skipping '{}': {why}", escape(&path));
    }
}
