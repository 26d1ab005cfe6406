//! Reaches an fcpd on this machine: connects, looks who listens, greets, attaches.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fcp_common::engine::Duplex;
use fcp_common::peer::server_uid;
use fcp_proto::frame::{HEAD_LEN, Head};
use fcp_proto::packet::{Opening, PullOpening, PushOpening, Reply};
use fcp_proto::version::{Agreed, Hello, IDLE_SECS};
use fcp_proto::{Flag, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
pub async fn open(
    server: SocketAddr,
    purpose: &Purpose,
    connections: u16,
    protocol: Option<u16>,
) -> Result<Session, CliError> {
    let failed = |reason: String| CliError::Connect { server: server.to_string(), reason };
    let mut first = dial(server).await.map_err(&failed)?;
    let reply = within(greet(&mut first, purpose, connections, protocol)).await.map_err(&failed)?;
    let wanted = reply.agreed.as_ref().map_or(connections, |a| a.connections.min(connections));
    let mut streams = vec![first];
    for _ in 1..wanted {
        // Fewer connections are slower, not wrong.
        match attach(server, reply.sid).await {
            Ok(stream) => streams.push(stream),
            Err(reason) => {
                tracing::info!("no further connection: {reason}");
                break;
            }
        }
    }
    let idle = reply.agreed.as_ref().map_or(IDLE_SECS, |a| a.idle_secs);
    let conns = streams.into_iter().map(|stream| duplex(stream, idle)).collect::<io::Result<_>>();
    let conns = conns.map_err(|error| failed(error.to_string()))?;
    Ok(Session { agreed: reply.agreed, conns })
}

/// Connects, and makes sure that the listener is ours or root's before anything is sent.
async fn dial(server: SocketAddr) -> Result<TcpStream, String> {
    let stream =
        within(async { TcpStream::connect(server).await.map_err(|e| connect_help(&e)) }).await?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
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
        _ => error.to_string(),
    }
}

async fn greet(
    stream: &mut TcpStream,
    purpose: &Purpose,
    connections: u16,
    protocol: Option<u16>,
) -> Result<Reply, String> {
    let fcp = (protocol != Some(1)).then(|| Hello::ours(connections));
    let (asked, offer) = (fcp.is_some(), fcp.clone());
    let mut out = Vec::new();
    if opening(purpose, fcp.clone()).encode(&mut out).is_none() {
        // Too long for a frame: what counts follows in REQUEST, which may be longer.
        let short = Purpose::Push(Vec::new());
        opening(&short, fcp).encode(&mut out).ok_or("the request is too long")?;
    }
    stream.write_all(&out).await.map_err(|e| e.to_string())?;
    let (flag, payload) = read_frame(stream).await?;
    let frame = fcp_proto::frame::Frame { flag, payload: &payload };
    let reply = Reply::decode(frame).map_err(|violation| violation.to_string())?;
    match (&reply.agreed, protocol) {
        (None, Some(2)) => Err("it speaks only version 1".to_owned()),
        (Some(agreed), _) if offer.as_ref().is_some_and(|ours| !agreed.is_within(ours)) => {
            Err("it agreed on more than was offered".to_owned())
        }
        (Some(_), _) if !asked => Err("it answered with what was not asked for".to_owned()),
        _ => Ok(reply),
    }
}

fn opening(purpose: &Purpose, fcp: Option<Hello>) -> Opening {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let user = std::env::var("USER").unwrap_or_default();
    match purpose {
        Purpose::Push(dst) => Opening::Push(PushOpening { user, dst: text(dst), fcp }),
        Purpose::Pull(srcs) => Opening::Pull(PullOpening {
            user,
            srcs: srcs.iter().map(|s| text(s)).collect(),
            include: "*".to_owned(),
            exclude: Vec::new(),
            fcp,
        }),
    }
}

async fn attach(server: SocketAddr, sid: SessionId) -> Result<TcpStream, String> {
    let mut stream = dial(server).await?;
    let mut out = Vec::new();
    Opening::Attach(sid).encode(&mut out).ok_or("ATTACH does not fit a frame")?;
    within(async { stream.write_all(&out).await.map_err(|e| e.to_string()) }).await?;
    Ok(stream)
}

/// Reads exactly one frame, so that nothing behind it is taken from the engine.
async fn read_frame(stream: &mut TcpStream) -> Result<(Flag, Vec<u8>), String> {
    let mut head = [0; HEAD_LEN];
    let hung_up = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "it hung up; its log says why".to_owned(),
        _ => error.to_string(),
    };
    stream.read_exact(&mut head).await.map_err(hung_up)?;
    let head = Head::from_bytes(head);
    let mut payload = vec![0; head.len.into()];
    stream.read_exact(&mut payload).await.map_err(hung_up)?;
    if Head::of(head.flag, &payload) != head {
        return Err("its answer is damaged".to_owned());
    }
    if matches!(head.flag, Flag::ERROR) {
        let error = fcp_proto::coding::decode_exact::<fcp_proto::packet::WireError>(&payload);
        let text = error.map_or_else(|e| e.to_string(), |e| e.text);
        return Err(fcp_proto::escape_text(&text));
    }
    Ok((head.flag, payload))
}

async fn within<T>(doing: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let timeout = |_| format!("no answer within {} seconds", PATIENCE.as_secs());
    tokio::time::timeout(PATIENCE, doing).await.map_err(timeout)?
}

fn duplex(stream: TcpStream, idle_secs: u16) -> io::Result<Duplex> {
    Duplex::tcp(stream.into_std()?, Duration::from_secs(idle_secs.into()))
}
