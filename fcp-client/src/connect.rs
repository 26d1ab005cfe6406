//! Reaches an fcpd on this machine: connects, looks who listens, greets, attaches.
//!
//! All of it blocks, each step for ten seconds at most; nothing else is to be done meanwhile.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fcp_common::engine::Duplex;
use fcp_common::peer::server_uid;
use fcp_common::version1::{HandshakeError, Opened, read_reply};
use fcp_proto::SessionId;
use fcp_proto::packet::{Opening, PullOpening, PushOpening};
use fcp_proto::version::{Agreed, Hello, IDLE_SECS};

use crate::error::CliError;

/// How long connecting and each answer of the greeting may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a session is opened for; version 1 servers need to know at once.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// To send; the destination.
    Push(Vec<u8>),
    /// To receive; the sources.
    Pull(Vec<Vec<u8>>),
}

/// An opened session.
pub struct Session {
    /// What was agreed; `None` with a version 1 server.
    pub agreed: Option<Agreed>,
    /// Its connections, the first one first.
    pub conns: Vec<Duplex>,
}

/// Opens a session of `connections` connections with the fcpd at `server`.
///
/// # Errors
/// [`CliError::Connect`], before any path or content was sent when the listener is not ours.
pub fn open(
    server: SocketAddr,
    purpose: &Purpose,
    connections: u16,
    protocol: Option<u16>,
) -> Result<Session, CliError> {
    open_with(server, purpose, &Hello::ours(connections), protocol)
}

/// As [`open`], with an offer of the caller's.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    server: SocketAddr,
    purpose: &Purpose,
    offer: &Hello,
    protocol: Option<u16>,
) -> Result<Session, CliError> {
    let connections = offer.connections;
    let failed = |reason: String| CliError::Connect { server: server.to_string(), reason };
    let mut first = dial(server).map_err(&failed)?;
    let Opened { reply, early } = greet(&mut first, purpose, offer, protocol).map_err(&failed)?;
    let wanted = reply.agreed.as_ref().map_or(connections, |a| a.connections.min(connections));
    let mut streams = vec![first];
    for _ in 1..wanted {
        // Fewer connections are slower, not wrong.
        match attach(server, reply.sid) {
            Ok(stream) => streams.push(stream),
            Err(reason) => {
                tracing::info!("no further connection: {reason}");
                break;
            }
        }
    }
    let conns = duplexes(streams, early, reply.agreed.as_ref());
    Ok(Session { conns: conns.map_err(|error| failed(error.to_string()))?, agreed: reply.agreed })
}

fn duplexes(
    streams: Vec<TcpStream>,
    early: Vec<u8>,
    agreed: Option<&Agreed>,
) -> io::Result<Vec<Duplex>> {
    let idle = Duration::from_secs(agreed.map_or(IDLE_SECS, |a| a.idle_secs).into());
    let mut streams = streams.into_iter().map(|stream| Duplex::tcp(stream, idle));
    let mut conns = Vec::new();
    if let Some(first) = streams.next().transpose()? {
        conns.push(if early.is_empty() { first } else { first.after(early) });
    }
    for conn in streams {
        conns.push(conn?);
    }
    Ok(conns)
}

/// Connects, and makes sure that the listener is ours or root's before anything is sent.
fn dial(server: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE).map_err(|e| connect_help(&e))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    let local = stream.local_addr().map_err(|e| e.to_string())?;
    let owner = server_uid(&stream, server, local)
        .map_err(|unknown| format!("nobody can tell who listens there ({unknown})"))?;
    let ours = rustix::process::geteuid().as_raw();
    if owner != ours && owner != 0 {
        return Err(format!("uid {owner} listens there, neither you nor root; nothing was sent"));
    }
    Ok(stream)
}

fn connect_help(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there; start it with: fcpd -d".to_owned()
        }
        _ => io_help(error),
    }
}

fn greet(
    stream: &mut TcpStream,
    purpose: &Purpose,
    offer: &Hello,
    protocol: Option<u16>,
) -> Result<Opened, String> {
    let fcp = (protocol != Some(1)).then(|| offer.clone());
    let (asked, offer) = (fcp.is_some(), fcp.clone());
    // What version 2 asks for follows in REQUEST, so that it may be what version 1 cannot say.
    let mut out = Vec::new();
    let sayable = purpose.say(fcp.clone(), &mut out);
    if sayable.is_err() && asked {
        let nothing = Purpose::Pull(Vec::new());
        nothing.say(fcp, &mut out)?;
    } else {
        sayable.clone()?;
    }
    stream.write_all(&out).map_err(|e| io_help(&e))?;
    let pull = sayable.is_err() || matches!(purpose, Purpose::Pull(_));
    let mut reader = UntilThen { stream, end: Instant::now() + PATIENCE };
    let opened = read_reply(&mut reader, pull).map_err(|error| match error {
        HandshakeError::Io(error) => io_help(&error),
        other => other.to_string(),
    })?;
    match (&opened.reply.agreed, protocol) {
        (None, Some(2)) => Err("it speaks only version 1".to_owned()),
        (Some(agreed), _) if offer.as_ref().is_some_and(|ours| !agreed.is_within(ours)) => {
            Err("it agreed on more than was offered".to_owned())
        }
        (None, _) => sayable.map(|()| opened),
        (Some(_), _) if !asked => Err("it answered with what was not asked for".to_owned()),
        (Some(_), _) if !opened.early.is_empty() => Err("it sent too much at once".to_owned()),
        _ => Ok(opened),
    }
}

impl Purpose {
    /// Appends the opening, if version 1 could be told all of it, too.
    fn say(&self, fcp: Option<Hello>, out: &mut Vec<u8>) -> Result<(), String> {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| "it speaks only version 1, which needs paths in UTF-8".to_owned())
        };
        let user = std::env::var("USER").unwrap_or_default();
        let opening = match self {
            Purpose::Push(dst) => Opening::Push(PushOpening { user, dst: text(dst)?, fcp }),
            Purpose::Pull(srcs) => Opening::Pull(PullOpening {
                user,
                srcs: srcs.iter().map(|src| text(src)).collect::<Result<_, _>>()?,
                include: "*".to_owned(),
                exclude: Vec::new(),
                fcp,
            }),
        };
        let too_long = || "it speaks only version 1, and the request is too long for that";
        Ok(opening.encode(out).ok_or_else(too_long)?)
    }
}

fn attach(server: SocketAddr, sid: SessionId) -> Result<TcpStream, String> {
    let mut stream = dial(server)?;
    let mut out = Vec::new();
    Opening::Attach(sid).encode(&mut out).ok_or("ATTACH does not fit a frame")?;
    stream.write_all(&out).map_err(|e| io_help(&e))?;
    Ok(stream)
}

/// A stream that is read until a moment and no longer.
struct UntilThen<'a> {
    stream: &'a TcpStream,
    end: Instant,
}

impl Read for UntilThen<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buf)
    }
}

fn io_help(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "it hung up; its log says why".to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} seconds", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}
