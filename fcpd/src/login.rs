//! Connections of peers that the kernel says nothing about: over TLS, and through a tunnel inside
//! ssh. What they prove says who they are, before a path or a byte of data moves.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fcp_common::tls::{ALPN, exporter, peer_fingerprint};
use fcp_proto::auth::{AuthOffer, Fingerprint, Signature};
use fcp_proto::packet::{Opening, WireError};
use fcp_proto::version::{Hello, ReplyExtra};
use fcp_proto::{ErrorCode, Flag, SessionId};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::greet;
use crate::handshake::{NotOpening, read_opening, refuse};
use crate::identity::{Identity, Peer};
use crate::proof::{self, Unproven};
use crate::scope::Scope;
use crate::server::Server;
use crate::token::{Entry, Time, local};
use crate::transport::Transport;
use crate::waiting::Place;

/// How long a refused login waits for its answer, whatever it is refused for.
const REFUSED_AFTER: Duration = Duration::from_millis(300);
/// With what every TLS connection begins: a handshake record.
const HANDSHAKE: u8 = 22;

/// A connection that TLS protects; we do not know yet whose it is.
struct Secured {
    transport: Transport,
    from: IpAddr,
    /// The client's certificate.
    client: Fingerprint,
    /// What ties a proof to this connection.
    binding: [u8; 32],
}

/// Serves a connection from `from` to a port with TLS until it ends or a session has taken it.
pub(crate) async fn serve(
    server: &Server,
    stream: TcpStream,
    from: IpAddr,
    config: Arc<ServerConfig>,
    place: Place,
) {
    let begun = async {
        let mut secured = secure(stream, from, config).await?;
        let opening = read_opening(&mut secured.transport).await?;
        Ok((secured, opening))
    };
    let first = tokio::select! {
        biased;
        () = server.shutdown.draining() => return,
        () = place.lost() => Err(NotOpening::Crowded),
        first = timeout(server.config.limits.first_frame, begun) => {
            first.unwrap_or(Err(NotOpening::Late))
        }
    };
    match first {
        Ok((secured, opening)) => open(server, secured, opening, place).await,
        Err(why) => server.log_no_opening(&why),
    }
}

/// Does the handshake of TLS.
async fn secure(
    stream: TcpStream,
    from: IpAddr,
    config: Arc<ServerConfig>,
) -> Result<Secured, NotOpening> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) => return Err(NotOpening::Nothing),
        Ok(_) if first == [HANDSHAKE] => {}
        Ok(_) => return Err(NotOpening::Foreign(first[0])),
        Err(error) => return Err(NotOpening::Cut(error)),
    }
    // Otherwise answers of a few bytes would wait for one another.
    stream.set_nodelay(true).map_err(NotOpening::Cut)?;
    let tls = TlsAcceptor::from(config).accept(stream).await.map_err(NotOpening::Cut)?;
    let (_, conn) = tls.get_ref();
    let unusable = |what: &'static str| NotOpening::Cut(io::Error::other(what));
    if conn.alpn_protocol() != Some(ALPN) {
        return Err(unusable("the client speaks another protocol over TLS"));
    }
    let client = peer_fingerprint(conn).ok_or(unusable("the client has no certificate"))?;
    let binding = exporter(conn).map_err(NotOpening::Cut)?;
    Ok(Secured { transport: Transport::Tls(Box::new(tls)), from, client, binding })
}

async fn open(server: &Server, secured: Secured, opening: Opening, place: Place) {
    match opening {
        Opening::Attach(sid) => attach(server, secured, sid),
        Opening::Hello(Hello { auth: Some(ref offer), .. }) => {
            // The place is kept until the peer has proven something.
            let proven = unless_lost(server, &place, prove(server, secured, offer)).await;
            drop(place);
            if let (Some(Some(proven)), Opening::Hello(hello)) = (proven, &opening) {
                proven.run(server, hello).await;
            }
        }
        Opening::Hello(_) => {
            let text = "this server wants a token: name its file with --token-file";
            refuse(secured.transport, &WireError::new(ErrorCode::REFUSED, text)).await;
        }
        Opening::Push(_) | Opening::Pull(_) => {
            let text =
                "PUSH and PULL have a place on loopback only; HELLO carries the greeting here";
            refuse(secured.transport, &WireError::new(ErrorCode::PROTOCOL, text)).await;
        }
    }
}

/// What `work` comes to; `None` when another connection took the place, or the server ends.
async fn unless_lost<T>(
    server: &Server,
    place: &Place,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        () = server.shutdown.draining() => None,
        () = place.lost() => {
            server.log_no_opening(&NotOpening::Crowded);
            None
        }
        done = work => Some(done),
    }
}

/// Takes a further connection of a session: the certificate says whose it is.
fn attach(server: &Server, secured: Secured, sid: SessionId) {
    let Secured { transport, from, client, .. } = secured;
    // A revoked token ends its sessions within a second; until then nothing joins them.
    if let Some(Identity::Token { name, .. }) = server.sessions.owner(sid)
        && let Err(why) = server.tokens.find(&name, Time::now())
    {
        let text = format_args!("refused ATTACH from {from} to a session of token '{name}': {why}");
        return server.refusals.log("attach-token", text);
    }
    match server.sessions.join(sid, &Identity::Certificate(client), transport) {
        Ok(()) => tracing::debug!("session {sid}: a further connection from {from}"),
        Err(why) => server.refusals.log(why.kind(), format_args!("{why} (from {from})")),
    }
}

/// A connection whose peer has proven to have a token.
struct Proven {
    transport: Transport,
    token: Entry,
    client: Fingerprint,
    signature: Signature,
}

/// Has the peer prove the token that it names; one that cannot was refused.
async fn prove(server: &Server, secured: Secured, offer: &AuthOffer) -> Option<Proven> {
    let Secured { mut transport, from, client, binding } = secured;
    let found = server.tokens.find(offer.name(), Time::now());
    let verifier = found.as_ref().ok().map(|token| &token.verifier);
    let proof = timed(server, proof::ask(&mut transport, binding, offer, verifier)).await;
    let name = offer.name();
    let why = match (proof, found) {
        (Ok(signature), Ok(token)) if server.tokens.is_good(&token, Time::now()) => {
            return Some(Proven { transport, token, client, signature });
        }
        (Ok(_), Ok(_)) => "it was revoked just now".to_owned(),
        (_, Err(why)) => why.to_string(),
        (Err(why), _) => why.to_string(),
    };
    server.refusals.log("login", format_args!("refused token '{name}' from {from}: {why}"));
    refuse_login(transport).await;
    None
}

async fn timed(
    server: &Server,
    asked: impl Future<Output = Result<Signature, Unproven>>,
) -> Result<Signature, Unproven> {
    timeout(server.config.limits.request, asked).await.unwrap_or(Err(Unproven::Late))
}

/// The same for every reason, and as late.
async fn refuse_login(transport: Transport) {
    sleep(REFUSED_AFTER).await;
    let text = "the token is not good here: it may be wrong, expired or revoked";
    refuse(transport, &WireError::new(ErrorCode::REFUSED, text)).await;
}

impl Proven {
    /// Runs the session to its end, or until its token is good no longer.
    async fn run(self, server: &Server, hello: &Hello) {
        let Proven { transport, token, client, signature } = self;
        let name = token.name.clone();
        let scope = match Scope::below(&token.root) {
            Ok(scope) => scope.with_read_only(token.read_only),
            Err(error) => {
                tracing::error!("the directory of token '{name}' cannot be used: {error}");
                let text = "the directory of this token cannot be used";
                return refuse(transport, &WireError::new(ErrorCode::NOT_FOUND, text)).await;
            }
        };
        let identity = Identity::Token { name, client: client.0 };
        let opened = match greet::open(server, Peer { identity, scope }, hello) {
            Ok(opened) => opened,
            Err(error) => return refuse(transport, &error).await,
        };
        let cancel = opened.cancel();
        let running = opened.run(server, transport, Flag::ACCEPT, signed(signature));
        tokio::pin!(running);
        tokio::select! {
            _ = &mut running => {}
            () = server.tokens.ended(&token) => {
                tracing::warn!("token '{}' is good no longer; its session ends", token.name);
                cancel.cancel();
                running.await;
            }
        }
    }
}

fn signed(signature: Signature) -> ReplyExtra {
    ReplyExtra { auth: Some(signature), ..ReplyExtra::default() }
}

/// Serves `peer`, our own user as the kernel says, who came with HELLO over loopback: a tunnel
/// inside ssh leads here, and its other end wants to know that it leads to us.
pub(crate) async fn serve_tunnel(server: &Server, transport: Transport, peer: Peer, hello: &Hello) {
    let Some(offer) = &hello.auth else {
        let text = "HELLO has a place on TCP only with the proof of a token; PUSH and PULL carry the \
                    greeting there";
        return refuse(transport, &WireError::new(ErrorCode::PROTOCOL, text)).await;
    };
    tokio::select! {
        biased;
        () = server.shutdown.draining() => {}
        opened = prove_local(server, transport, offer) => {
            let Some((transport, signature)) = opened else { return };
            match greet::open(server, peer, hello) {
                Ok(opened) => {
                    opened.run(server, transport, Flag::ACCEPT, signed(signature)).await;
                }
                Err(error) => refuse(transport, &error).await,
            }
        }
    }
}

/// Both ends prove to have the server's own token.
async fn prove_local(
    server: &Server,
    mut transport: Transport,
    offer: &AuthOffer,
) -> Option<(Transport, Signature)> {
    let token = match server.config.settings_dir.as_deref().map(local::read) {
        Some(Ok(token)) => token,
        None => None,
        Some(Err(error)) => {
            server.refusals.log("local-token", &error);
            None
        }
    };
    let verifier = token.filter(|_| offer.name().is_empty()).map(|token| token.verifier());
    // No transport of its own protects it, so nothing is there to be tied to.
    let binding = [0; 32];
    let asked = proof::ask(&mut transport, binding, offer, verifier.as_ref());
    match timed(server, asked).await {
        Ok(signature) => Some((transport, signature)),
        Err(why) => {
            server.refusals.log("login", format_args!("refused a tunnel: {why}"));
            refuse_login(transport).await;
            None
        }
    }
}
