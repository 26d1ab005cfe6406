//! `fcpd --stdio`: one session over stdin and stdout, as fcp starts it over ssh.
//!
//! Whoever could start this process may do all that its user may, within `--restrict`; no port is
//! opened but the direct one ([`direct`]). Further connections come as further processes, which
//! hand their stdin and stdout to this one ([`attach`], by way of [`socket`]).

mod attach;
mod direct;
mod socket;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

use fcp_common::private;
use fcp_proto::packet::{Opening, STDIO_PREAMBLE, WireError};
use fcp_proto::version::{Hello, ReplyExtra};
use fcp_proto::{ErrorCode, Flag};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::{Config, Stdio};
use crate::daemon;
use crate::greet;
use crate::handshake::{NotOpening, read_opening, refuse};
use crate::identity::{Identity, Peer};
use crate::scope::Scope;
use crate::server::{self, CANCELLED, Server};
use crate::shutdown::Shutdown;
use crate::transport::{Fds, Transport};

/// Serves what comes over stdin and stdout to its end; the exit code says whether that was good.
///
/// # Errors
/// One line for the user, who has not been told otherwise.
pub(crate) fn run(config: Config, stdio: Stdio) -> Result<ExitCode, String> {
    if io::stdin().is_terminal() || io::stdout().is_terminal() {
        return Err("--stdio is for fcp, which starts it over ssh; it cannot use a terminal".into());
    }
    let scope = scope(&stdio)?;
    let cannot = |error: io::Error| format!("cannot start: {error}");
    let (reader, writer) = take_streams().map_err(cannot)?;
    let runtime = server::runtime().map_err(cannot)?;
    let good = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.cancel_on_signals().map_err(cannot)?;
        let transport = Fds::new(reader, writer)
            .map_err(|error| format!("stdin and stdout must be pipes or sockets: {error}"))?;
        let server = Arc::new(Server::new(config, shutdown));
        tokio::select! {
            good = serve(&server, &stdio, scope, transport) => good,
            () = overdue(&server.shutdown) => Err("the session does not end".to_owned()),
        }
    })?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn scope(stdio: &Stdio) -> Result<Scope, String> {
    let scope = match &stdio.restrict {
        None => Scope::default(),
        Some(root) => Scope::below(root).map_err(|error| {
            let root = fcp_proto::escape(root.as_os_str().as_encoded_bytes());
            format!("cannot restrict to '{root}': {error}")
        })?,
    };
    Ok(scope.with_read_only(stdio.read_only))
}

/// Stdin and stdout, of which nothing is left that anybody could print to by mistake.
fn take_streams() -> io::Result<(OwnedFd, OwnedFd)> {
    let reader = io::stdin().as_fd().try_clone_to_owned()?;
    let writer = io::stdout().as_fd().try_clone_to_owned()?;
    let null = daemon::null()?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok((reader, writer))
}

/// Completes when a cancelled session has had its time; only a disk that does not answer takes more.
async fn overdue(shutdown: &Shutdown) {
    shutdown.cancelling().await;
    sleep(CANCELLED).await;
}

/// Whether all went well; if not, the peer was told, or knows as well as we.
async fn serve(
    server: &Arc<Server>,
    stdio: &Stdio,
    scope: Scope,
    fds: Fds,
) -> Result<bool, String> {
    let mut transport = Transport::Fds(fds);
    if let Some(hello) = &stdio.early {
        return match transport.write_all(&STDIO_PREAMBLE).await {
            Ok(()) => Ok(session(server, stdio, scope, transport, hello).await),
            Err(error) => Err(format!("nobody is there: {error}")),
        };
    }
    let first = tokio::select! {
        biased;
        () = server.shutdown.cancelling() => return Ok(false),
        first = timeout(server.config.limits.first_frame, greet_and_read(&mut transport)) => {
            first.unwrap_or(Err(NotOpening::Late))
        }
    };
    match (first, transport) {
        (Ok(Opening::Attach(sid)), Transport::Fds(fds)) => {
            let dirs = private::runtime_dirs(stdio.runtime_dir.as_deref());
            Ok(attach::hand_over(server, &dirs, sid, fds).await)
        }
        (Ok(Opening::Hello(hello)), transport) if !stdio.attach_only && hello.auth.is_none() => {
            Ok(session(server, stdio, scope, transport, &hello).await)
        }
        (Ok(_), transport) => {
            let text = "only HELLO without a proof, or ATTACH, has a place on standard streams";
            refuse(transport, &WireError::new(ErrorCode::PROTOCOL, text)).await;
            Ok(false)
        }
        // As with a health check that only wants to know whether fcpd is there.
        (Err(NotOpening::Nothing), _) => Ok(true),
        (Err(why), _) => Err(format!("{why}; fcp starts 'fcpd --stdio' over ssh")),
    }
}

/// Says that fcpd is here, behind whatever a login shell has printed, and reads the first frame.
async fn greet_and_read(transport: &mut Transport) -> Result<Opening, NotOpening> {
    match transport.write_all(&STDIO_PREAMBLE).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(NotOpening::Nothing),
        written => written.map_err(NotOpening::Cut)?,
    }
    read_opening(transport).await
}

/// Runs the session that `hello` asks for; whether it closed well.
async fn session(
    server: &Arc<Server>,
    stdio: &Stdio,
    scope: Scope,
    transport: Transport,
    hello: &Hello,
) -> bool {
    let peer = Peer { identity: Identity::Login, scope };
    let opened = match greet::open(server, peer, hello) {
        Ok(opened) => opened,
        Err(error) => {
            refuse(transport, &error).await;
            return false;
        }
    };
    // Aborted when this function ends, and with them goes the socket.
    let mut joining = JoinSet::new();
    let dirs = private::runtime_dirs(stdio.runtime_dir.as_deref());
    match socket::Bound::new(&dirs, opened.sid()) {
        Ok(bound) => {
            let (server, sid) = (Arc::clone(server), opened.sid());
            joining.spawn(attach::accept_all(server, bound, sid, opened.connections()));
        }
        Err(error) => tracing::info!("the session stays with one ssh channel: {error}"),
    }
    let mut extra = ReplyExtra::default();
    let wanted = hello.direct.filter(|_| stdio.direct);
    if let Some((client, address)) = wanted.zip(stdio.ssh_connection.as_deref()) {
        match direct::Listening::new(address, client) {
            Ok(listening) => {
                extra.direct = Some(listening.offer());
                joining.spawn(listening.accept_all(Arc::clone(server), opened.connections()));
            }
            Err(error) => tracing::info!("no direct connections: {error}"),
        }
    }
    let opened = if stdio.early.is_some() { opened.before(hello.clone()) } else { opened };
    opened.run(server, transport, Flag::ACCEPT, extra).await
}
