//! Listening, accepting, and asking the kernel whose each connection is.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use fcp_common::peer::{End, Unknown, peer_uid};
use fcp_proto::ErrorCode;
use fcp_proto::packet::WireError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;

use crate::access::{Refusal, may_serve};
use crate::config::{Config, Settings};
use crate::handshake;
use crate::identity::{Identity, Origin, Peer};
use crate::logging::Refusals;
use crate::login;
use crate::scope::Scope;
use crate::sessions::Sessions;
use crate::shutdown::Shutdown;
use crate::tls::Listener;
use crate::token::live::Tokens;
use crate::transport::Transport;
use crate::waiting::Waiting;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// First and longest pause after a failed accept: what is missing, others must give back first.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How long cancelled sessions may take. Longer than the engine lingers; only a disk that does not
/// answer takes more, and its thread ends with the process.
pub(crate) const CANCELLED: Duration = Duration::from_secs(10);

/// What a port takes TLS connections with, if it does.
type Tls = Option<Arc<ServerConfig>>;

/// A server that runs: what all its connections share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) shutdown: Shutdown,
    pub(crate) refusals: Refusals,
    pub(crate) tokens: Tokens,
    own_uid: u32,
    tasks: TaskTracker,
}

/// A runtime fit for [`serve`]: one thread, as sessions bring their own.
///
/// # Errors
/// The system gives no event queue.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Serves the connections of `listeners` until `shutdown` says so and running sessions have ended.
/// To be called within a runtime.
///
/// # Errors
/// A listener cannot be used; nothing was served.
pub async fn serve(
    listeners: Vec<impl Into<Listener>>,
    config: Config,
    shutdown: Shutdown,
) -> io::Result<()> {
    let server = Arc::new(Server::new(config, shutdown));
    let listeners: io::Result<Vec<_>> = listeners.into_iter().map(into_tokio).collect();
    for (listener, tls) in listeners? {
        server.tasks.spawn(accept_all(Arc::clone(&server), listener, tls));
    }
    server.shutdown.draining().await;
    tracing::info!("no more connections are accepted");
    server.drain().await;
    Ok(())
}

fn into_tokio(listener: impl Into<Listener>) -> io::Result<(tokio::net::TcpListener, Tls)> {
    let Listener { socket, tls } = listener.into();
    socket.set_nonblocking(true)?;
    Ok((tokio::net::TcpListener::from_std(socket)?, tls))
}

/// Binds every address of `settings`; of the default ones, those that this host has.
///
/// # Errors
/// One line that names the address and says what to do.
pub(crate) fn bind_all(settings: &Settings) -> Result<Vec<TcpListener>, String> {
    let mut bound = Vec::new();
    for addr in &settings.listen {
        match bind(*addr) {
            Ok(listener) => bound.push(listener),
            // Not every host has IPv6, and who did not ask for it does not miss it.
            Err(error) if addr.is_ipv6() && !settings.listen_is_explicit => {
                if error.kind() == io::ErrorKind::AddrInUse {
                    eprintln!("fcpd: goes on without {addr}, which is already in use");
                }
            }
            Err(error) => return Err(not_bound(*addr, &error)),
        }
    }
    Ok(bound)
}

/// A listener on `addr`; a port in use by anybody is an error.
///
/// # Errors
/// As the system gives them.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run that linger are no reason to fail. Never SO_REUSEPORT, with
    // which a second process of this user would take a share of the connections.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn not_bound(addr: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{addr} is already in use: another fcpd, or choose --listen")
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on {addr}: ports below 1024 need root; choose --listen")
        }
        _ => format!("cannot listen on {addr}: {error}"),
    }
}

/// Lets this process open as many files as it may, as hundreds of connections need three each;
/// answers how many that are.
pub(crate) fn raise_file_limit() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // With fewer it works too, until it does not; then accept backs off.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current
}

async fn accept_all(server: Arc<Server>, listener: tokio::net::TcpListener, tls: Tls) {
    let mut pause = PAUSES.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.shutdown.draining() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSES.0;
                match &tls {
                    None => server.admit(stream, peer).await,
                    Some(config) => server.admit_tls(stream, peer, Arc::clone(config)),
                }
                // Whoever is there already goes first, or a flood would starve them.
                tokio::task::yield_now().await;
            }
            // The peer gave up before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                server.refusals.log("accept", format_args!("cannot accept a connection: {error}"));
                server.waiting.drop_oldest();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

impl Server {
    /// A server that serves nobody yet.
    pub(crate) fn new(config: Config, shutdown: Shutdown) -> Server {
        Server {
            waiting: Waiting::new(&config.limits),
            sessions: Sessions::new(&config.limits),
            refusals: Refusals::default(),
            tokens: Tokens::in_dir(config.settings_dir.as_deref()),
            own_uid: rustix::process::geteuid().as_raw(),
            tasks: TaskTracker::new(),
            shutdown,
            config,
        }
    }

    /// Serves a connection if it is our user's; nothing was read from it.
    async fn admit(self: &Arc<Server>, stream: TcpStream, peer: SocketAddr) {
        let mut identified = self.identify(&stream, peer);
        if is_unanswered(&identified) && self.waiting.drop_oldest() {
            // Asking takes a descriptor, and this connection may have taken the last one.
            tokio::task::yield_now().await;
            identified = self.identify(&stream, peer);
        }
        match identified {
            Ok(uid) => {
                let identity = Identity::Uid(uid);
                let place = self.waiting.admit(Origin::Known(identity.clone()));
                let peer = Peer { identity, scope: Scope::default() };
                let server = Arc::clone(self);
                self.tasks.spawn(async move {
                    handshake::serve(&server, Transport::Tcp(stream), peer, place).await;
                });
            }
            Err(refusal) => {
                self.refusals.log(kind(&refusal), &refusal);
                let error = WireError::new(ErrorCode::REFUSED, refusal.text_for_peer());
                handshake::refuse(Transport::Tcp(stream), &error).await;
            }
        }
    }

    /// Lets a connection over TLS say who it is.
    fn admit_tls(self: &Arc<Server>, stream: TcpStream, peer: SocketAddr, tls: Arc<ServerConfig>) {
        let from = peer.ip().to_canonical();
        let place = self.waiting.admit(Origin::address(from));
        let server = Arc::clone(self);
        self.tasks.spawn(async move { login::serve(&server, stream, from, tls, place).await });
    }

    fn identify(&self, stream: &TcpStream, peer: SocketAddr) -> Result<u32, Refusal> {
        let uid = match stream.local_addr() {
            Ok(local) => peer_uid(stream.as_fd(), peer, local),
            // Only a connection that is gone has no address.
            Err(_) => Err(Unknown::NotEstablished(End::Ours)),
        };
        may_serve(self.own_uid, uid)?;
        // Nobody else is served.
        Ok(self.own_uid)
    }

    /// Waits for running sessions, first patiently.
    async fn drain(&self) {
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return,
            () = tokio::time::sleep(self.config.limits.drain) => {
                tracing::warn!("running sessions are cancelled, they took too long");
            }
            () = self.shutdown.cancelling() => tracing::warn!("running sessions are cancelled"),
        }
        self.shutdown.cancel();
        if tokio::time::timeout(CANCELLED, self.tasks.wait()).await.is_err() {
            tracing::error!("a session did not end in time; what it received is kept");
        }
    }
}

/// Whether the kernel could not even be asked.
fn is_unanswered(identified: &Result<u32, Refusal>) -> bool {
    matches!(identified, Err(Refusal::Unidentified(Unknown::NoKernelTable { .. })))
}

fn kind(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::OtherUser { .. } => "other-user",
        Refusal::Unidentified(_) => "unidentified",
    }
}
