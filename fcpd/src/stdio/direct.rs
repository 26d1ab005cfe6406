//! Direct data connections beside ssh: a port for half a minute, for one client's key.
//!
//! Both ends have told their fresh certificates over ssh, so nothing else than these two keys is
//! believed. Where no connection gets through, ssh carries the data.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use fcp_common::tls::{self, ClientPin};
use fcp_proto::SessionId;
use fcp_proto::auth::{DirectOffer, Fingerprint};
use fcp_proto::packet::Opening;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::handshake::{NotOpening, read_opening};
use crate::identity::Identity;
use crate::server::{self, Server};
use crate::transport::Transport;

/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(200);

/// A port that is offered.
pub(super) struct Listening {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    offer: DirectOffer,
}

impl Listening {
    /// Listens for `client` on the address that it came by, which is the third word of
    /// `ssh_connection`. To be called within a runtime.
    ///
    /// # Errors
    /// There is no such address, or no port or key to be had.
    pub(super) fn new(ssh_connection: &str, client: Fingerprint) -> io::Result<Listening> {
        let address = local_address(ssh_connection)
            .ok_or_else(|| io::Error::other("SSH_CONNECTION names no address of this host"))?;
        let listener = server::bind(SocketAddr::new(address, 0))?;
        listener.set_nonblocking(true)?;
        let identity = tls::Identity::fresh()?;
        let acceptor = tls::server_config(&identity, ClientPin::Exactly(client))?.into();
        let port = listener.local_addr()?.port();
        let offer = DirectOffer { port, fingerprint: identity.fingerprint() };
        Ok(Listening { listener, acceptor, offer })
    }

    /// What the client is told.
    pub(super) fn offer(&self) -> DirectOffer {
        self.offer
    }

    /// Takes connections of the session of this login until the time is over; at most `at_once`
    /// may be shaking hands.
    pub(super) async fn accept_all(self, server: Arc<Server>, at_once: u16) {
        let Ok(listener) = tokio::net::TcpListener::from_std(self.listener) else { return };
        let until = Instant::now() + server.config.limits.direct;
        let places = Arc::new(Semaphore::new(at_once.into()));
        let mut tasks = JoinSet::new();
        loop {
            let next = async {
                // It is never closed.
                let place = Arc::clone(&places).acquire_owned().await.ok();
                listener.accept().await.map(|(stream, _)| (place, stream))
            };
            match timeout_at(until, next).await {
                Ok(Ok((place, stream))) => {
                    let (server, acceptor) = (Arc::clone(&server), self.acceptor.clone());
                    tasks.spawn(async move {
                        take(&server, stream, &acceptor).await;
                        drop(place);
                    });
                }
                Ok(Err(error)) => {
                    server.refusals.log("accept", format_args!("cannot accept: {error}"));
                    sleep(PAUSE).await;
                }
                Err(_over) => break,
            }
            while tasks.try_join_next().is_some() {}
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }
}

/// Shakes hands and joins the session that the peer names; whoever else comes is dropped.
async fn take(server: &Server, stream: TcpStream, acceptor: &TlsAcceptor) {
    let limit = server.config.limits.first_frame;
    match timeout(limit, greet(stream, acceptor)).await {
        Ok(Ok((transport, sid))) => {
            if let Err(why) = server.sessions.join(sid, &Identity::Login, transport) {
                server.refusals.log(why.kind(), why);
            }
        }
        // A small session is over before its direct connections are up.
        Ok(Err(NotTaken::Io(why))) if why.kind() == io::ErrorKind::UnexpectedEof => {
            tracing::debug!("a direct connection was given up: {why}");
        }
        Ok(Err(why)) => {
            server.refusals.log("direct", format_args!("dropped a direct connection: {why}"));
        }
        Err(_) => server.refusals.log("direct", "dropped a direct connection that said nothing"),
    }
}

async fn greet(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
) -> Result<(Transport, SessionId), NotTaken> {
    stream.set_nodelay(true)?;
    let mut transport = Transport::Tls(Box::new(acceptor.accept(stream).await?));
    match read_opening(&mut transport).await? {
        Opening::Attach(sid) => Ok((transport, sid)),
        _ => Err(NotTaken::NotAttach),
    }
}

/// Why a connection is dropped.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    NotOpening(#[from] NotOpening),
    #[error("it did not begin with ATTACH")]
    NotAttach,
}

/// The address by which the client reached this host: `client port server port`.
fn local_address(ssh_connection: &str) -> Option<IpAddr> {
    let address = ssh_connection.split_ascii_whitespace().nth(2)?;
    // A link-local address with its interface is not worth the trouble.
    let address: IpAddr = address.parse().ok()?;
    // The variable is the login's to set, and one port on one address is all that is meant.
    let is_a_hosts = !address.is_unspecified() && !address.is_multicast();
    (is_a_hosts && address != IpAddr::from(std::net::Ipv4Addr::BROADCAST)).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_servers_and_nothing_else() {
        let address = |text: &str| local_address(text).map(|ip| ip.to_string());
        assert_eq!(address("192.0.2.1 50000 192.0.2.2 22").as_deref(), Some("192.0.2.2"));
        assert_eq!(address("::1 50000 ::1 22").as_deref(), Some("::1"));
        for bad in [
            "",
            "a",
            "1 2",
            "1 2 host 22",
            "1 2 fe80::1%eth0 22",
            "1 2 1.2.3.4:22 5",
            "1 2 0.0.0.0 3",
            "1 2 :: 3",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_not_offered() {
        let runtime = server::runtime().unwrap();
        let _within = runtime.enter();
        let client = Fingerprint([1; 32]);
        assert!(Listening::new("127.0.0.1 1 192.0.2.1 22", client).is_err());
        assert!(Listening::new("nonsense", client).is_err());
        assert_ne!(Listening::new("127.0.0.1 1 127.0.0.1 22", client).unwrap().offer().port, 0);
    }
}
