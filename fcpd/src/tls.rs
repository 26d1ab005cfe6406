//! Ports that other hosts reach: the server's key, and the tokens without which there are none.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use fcp_common::tls::{ClientPin, Identity, server_config};
use fcp_proto::auth::Fingerprint;
use tokio_rustls::rustls::ServerConfig;

use crate::config::{Settings, TlsPorts};
use crate::token::{Store, Time};

/// A port to listen on: plain for our own user on this host, or with TLS for holders of tokens.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

impl From<TcpListener> for Listener {
    /// A plain one.
    fn from(socket: TcpListener) -> Listener {
        Listener { socket, tls: None }
    }
}

impl Listener {
    /// One with TLS, where the server is `identity`.
    ///
    /// # Errors
    /// The key cannot be used.
    pub fn with_tls(socket: TcpListener, identity: &Identity) -> std::io::Result<Listener> {
        // Whoever comes shows a certificate, and is bound to it; who it is, the token says.
        let config = server_config(identity, ClientPin::Any)?;
        Ok(Listener { socket, tls: Some(config) })
    }
}

/// Whether `ports` wants TLS on `addr`.
pub(crate) fn is_for(ports: TlsPorts, addr: &SocketAddr) -> bool {
    match ports {
        TlsPorts::None => false,
        TlsPorts::Remote => !addr.ip().to_canonical().is_loopback(),
        TlsPorts::All => true,
    }
}

/// The listeners on `bound` sockets, and the server's key if any of them has TLS.
///
/// # Errors
/// One line: the key cannot be used, or there is no token that anybody could come with.
pub(crate) fn listeners(
    settings: &Settings,
    bound: Vec<TcpListener>,
) -> Result<(Vec<Listener>, Option<Fingerprint>), String> {
    let has_tls =
        |socket: &TcpListener| socket.local_addr().is_ok_and(|addr| is_for(settings.tls, &addr));
    if !bound.iter().any(has_tls) {
        return Ok((bound.into_iter().map(Listener::from).collect(), None));
    }
    require_token(settings.server.settings_dir.as_deref())?;
    let identity = load(settings.server_key.as_deref())?;
    let listener = |socket| match has_tls(&socket) {
        true => Listener::with_tls(socket, &identity),
        false => Ok(Listener::from(socket)),
    };
    let listeners: std::io::Result<Vec<_>> = bound.into_iter().map(listener).collect();
    let listeners = listeners.map_err(|e| format!("the server's key cannot be used: {e}"))?;
    Ok((listeners, Some(identity.fingerprint())))
}

fn require_token(settings_dir: Option<&Path>) -> Result<(), String> {
    let tokens = match settings_dir {
        Some(dir) => Store::in_dir(dir).read().map_err(|e| e.to_string())?,
        None => Vec::new(),
    };
    let now = Time::now();
    if tokens.iter().any(|token| !token.is_expired(now)) {
        return Ok(());
    }
    let what = if tokens.is_empty() { "there is no token" } else { "all tokens have expired" };
    Err(format!(
        "{what}, so that nobody could connect over TLS; make one first: \
         fcpd token add NAME --root PATH"
    ))
}

/// The server's key in the file `path`, which is made if it is missing.
///
/// # Errors
/// One line that names the file.
pub(crate) fn load(path: Option<&Path>) -> Result<Identity, String> {
    let path = path.ok_or("there is no directory for the server's key: set HOME")?;
    Identity::load_or_create(path).map_err(|error| error.to_string())
}
