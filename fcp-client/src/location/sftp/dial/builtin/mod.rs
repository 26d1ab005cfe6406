//! The built-in ssh client.
//!
//! `host_key` judges whom we speak to, before anything about us is sent; `auth` logs in; this file
//! connects, and opens what runs over the login.

mod auth;
mod channel;
mod host_key;
mod keys;
mod known_hosts;

use std::borrow::Cow;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::client::{self, DisconnectReason, Handle, Session};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Preferred, cipher, compression};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::channel::Builtin;
use self::host_key::Judge;
use self::known_hosts::Host;
use super::failure::{Server, words};
use super::plan::Plan;
use super::{Connection, Login};
use crate::connect::address;
use crate::connect::ssh::has_aes;
use crate::location::{LocationError, Reason};

/// How long the server may take to greet and to agree on keys.
const GREETING: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 20 });
/// How long a server may keep silent before we speak, although it should not.
const FIRST_WORD: Duration = Duration::from_secs(2);
/// How long logging in may take. Servers make guessing slow, and an agent may ask its user.
const AUTH: Duration = Duration::from_secs(60);
/// Most bytes of banners before a login.
const MAX_BANNER: usize = 64 << 10;
/// Usable per round trip is half of it.
const WINDOW: u32 = 16 << 20;
/// The most that the library takes without complaint.
const PACKET: u32 = 65535;

/// What went wrong below us, or that we refused.
#[derive(Debug)]
enum Stop {
    Ssh(russh::Error),
    HostKey(String),
    Protocol(&'static str),
}

impl From<russh::Error> for Stop {
    fn from(error: russh::Error) -> Stop {
        Stop::Ssh(error)
    }
}

impl Stop {
    /// Whether the server has no key of the kind that was asked for.
    fn is_other_kind(&self) -> bool {
        matches!(self, Stop::Ssh(russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. }))
    }
}

/// What the library tells us of while a connection lives.
struct Client {
    judge: Arc<Judge>,
    banner: usize,
    farewell: Farewell,
}

/// Why the server hung up, in its own words, if it said so.
#[derive(Clone, Default)]
struct Farewell(Arc<Mutex<Option<String>>>);

impl Farewell {
    fn put(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl client::Handler for Client {
    type Error = Stop;

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Stop> {
        self.banner = self.banner.saturating_add(banner.len());
        if self.banner > MAX_BANNER {
            return Err(Stop::Protocol("its banner is too long"));
        }
        tracing::debug!("the server says: {}", words(banner.as_bytes()));
        Ok(())
    }

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Stop> {
        // The files are small, and are read before; only a new host is written here.
        self.judge.judge(key).map(|()| true).map_err(Stop::HostKey)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Stop>) -> Result<(), Stop> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.farewell.put(words(info.message.as_bytes()));
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// Connects, checks who it is, and logs in.
///
/// # Errors
/// As [`super::dial`] has them.
pub(super) async fn dial(login: &Login, plan: &Plan) -> Result<Connection, LocationError> {
    let name = login.name();
    let server = Server::new(&name, &plan.host, plan.port);
    let judge = judge(login, plan).await.map_err(|why| server.failed(Reason::HostKey, why))?;
    let (mut handle, farewell) = greet(&server, plan, Arc::new(judge)).await?;
    let logged_in = auth::log_in(&mut handle, &server, login, plan, &farewell);
    match timeout(AUTH, logged_in).await {
        Ok(done) => done?,
        Err(_) => return Err(server.failed(Reason::Timeout, "logging in took too long")),
    }
    Ok(Connection::new(&name, Builtin::new(handle, server)))
}

async fn judge(login: &Login, plan: &Plan) -> Result<Judge, String> {
    let host = Host::new(&plan.known_as, plan.port);
    let by_hand = match plan.port {
        22 => format!("ssh {}@{}", plan.user, login.host),
        port => format!("ssh -p {port} {}@{}", plan.user, login.host),
    };
    let (rule, files, hashed) = (login.host_key.clone(), plan.known_hosts.clone(), plan.hashed);
    let read = move || Judge::new(&rule, host, files, by_hand).map(|judge| judge.hashing(hashed));
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
}

/// Connects and agrees on keys with whoever `judge` takes for the right one.
async fn greet(
    server: &Server,
    plan: &Plan,
    judge: Arc<Judge>,
) -> Result<(Handle<Client>, Farewell), LocationError> {
    let offers = judge.offers();
    let mut last = None;
    for offer in &offers {
        let stream = connect(server, plan).await?;
        first_word(server, &stream).await?;
        let farewell = Farewell::default();
        let client = Client { judge: Arc::clone(&judge), banner: 0, farewell: farewell.clone() };
        let config = Arc::new(config(offer, judge.certificates()));
        let connecting = client::connect_stream(config, stream, client);
        let stop = match timeout(GREETING, connecting).await {
            Ok(Ok(handle)) => return Ok((handle, farewell)),
            Ok(Err(stop)) => stop,
            Err(_) => return Err(server.failed(Reason::Timeout, "its greeting took too long")),
        };
        let is_other_kind = stop.is_other_kind();
        let error = explain(server, stop, &judge, &farewell);
        // Only another kind of key may be the one that is pinned.
        match error.reason {
            Reason::HostKey => last = Some(error),
            _ if is_other_kind && offers.len() > 1 => last = last.or(Some(error)),
            _ => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| server.failed(Reason::HostKey, "no kind of key can be checked")))
}

/// All addresses of the host, each tried until one answers.
async fn connect(server: &Server, plan: &Plan) -> Result<TcpStream, LocationError> {
    let (host, port, family, limit) = (plan.host.clone(), plan.port, plan.family, plan.connect);
    let connecting = tokio::task::spawn_blocking(move || {
        let end = Instant::now() + limit;
        let addresses = address::resolve(&host, port, family, end)?;
        let (_, (stream, _)) = address::race(addresses, end, address::connect)?;
        non_blocking(stream)
    });
    let stream = connecting.await.map_err(io::Error::other).and_then(|done| done);
    let stream = stream.and_then(TcpStream::from_std);
    let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    stream.map_err(|error| server.io(&error))
}

fn non_blocking(stream: StdTcpStream) -> io::Result<StdTcpStream> {
    stream.set_nonblocking(true).map(|()| stream)
}

/// Looks at what the server says first without taking it: one that takes no more connections
/// hangs up, with or without a word.
async fn first_word(server: &Server, stream: &TcpStream) -> Result<(), LocationError> {
    let mut word = [0; 64];
    let Ok(peeked) = timeout(FIRST_WORD, stream.peek(&mut word)).await else { return Ok(()) };
    let said = match peeked {
        Ok(0) => "it hung up before it greeted".to_owned(),
        Ok(n) if !is_refusal(&word[..n]) => return Ok(()),
        Ok(n) => format!("it said \"{}\"", words(&word[..n])),
        Err(error) => format!("it hung up before it greeted: {error}"),
    };
    Err(server.failed(
        Reason::Busy,
        format!(
            "{said}; it takes no more connections for now (MaxStartups, or it bars this address)"
        ),
    ))
}

/// What sshd says instead of a greeting.
fn is_refusal(said: &[u8]) -> bool {
    said.starts_with(b"Exceeded MaxStartups") || said.starts_with(b"Not allowed at this time")
}

fn config(offer: &[Algorithm], certificates: Vec<Algorithm>) -> client::Config {
    let ciphers = [cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305];
    let mut ciphers = ciphers.to_vec();
    if !has_aes() {
        ciphers.rotate_right(1);
    }
    ciphers.extend([cipher::AES_256_CTR, cipher::AES_192_CTR, cipher::AES_128_CTR]);
    client::Config {
        nodelay: true,
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        keepalive_interval: Some(Duration::from_secs(30)),
        keepalive_max: 3,
        preferred: Preferred {
            key: Cow::Owned(offer.to_vec()),
            host_key_certificates: Cow::Owned(certificates),
            cipher: Cow::Owned(ciphers),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    }
}

/// Why there is no connection.
fn explain(server: &Server, stop: Stop, judge: &Judge, farewell: &Farewell) -> LocationError {
    use russh::Error;
    let error = match stop {
        Stop::HostKey(why) => return server.failed(Reason::HostKey, why),
        Stop::Protocol(why) => return server.failed(Reason::Protocol, why),
        Stop::Ssh(error) => error,
    };
    match &error {
        Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } if judge.has_recorded() => {
            server.failed(
                Reason::HostKey,
                format!(
                    "it has no key of a kind that is recorded for it, but only {}: it is not the \
                     server that we know, or its keys changed. Ask its operator; nothing was sent \
                     to it",
                    words(theirs.join(", ").as_bytes())
                ),
            )
        }
        Error::NoCommonAlgo { kind, ours, theirs } => {
            let (ours, theirs) = (ours.join(","), words(theirs.join(",").as_bytes()));
            let text = format!("no common {kind:?} algorithm: we have {ours}, it has {theirs}");
            server.failed(Reason::Protocol, text)
        }
        Error::Version => {
            server.failed(Reason::Protocol, "what listens there does not speak SSH 2")
        }
        Error::WrongServerSig => server.failed(
            Reason::HostKey,
            "it cannot prove that it has the key that it showed: somebody is listening in",
        ),
        _ => lost(server, &error, farewell),
    }
}

/// A connection that broke.
fn lost(server: &Server, error: &russh::Error, farewell: &Farewell) -> LocationError {
    use russh::Error;
    if let Some(said) = farewell.get() {
        return server.failed(Reason::Lost, format!("it hung up: {said}"));
    }
    match error {
        Error::IO(error) => server.io(error),
        Error::KeepaliveTimeout | Error::InactivityTimeout | Error::ConnectionTimeout => {
            server.failed(Reason::Timeout, "it answers no more")
        }
        Error::Disconnect | Error::HUP | Error::SendError | Error::RecvError => {
            server.failed(Reason::Lost, "it hung up")
        }
        other => server.failed(Reason::Protocol, words(other.to_string().as_bytes())),
    }
}
