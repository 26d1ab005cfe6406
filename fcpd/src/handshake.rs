//! From an accepted connection of our user to a session: the first frame, the answer, the REQUEST.
//!
//! Everything is read exactly, so that no byte of the session is lost on the way to the engine.

use std::io::{self, Write};
use std::net::Shutdown as Half;
use std::time::Duration;

use fcp_common::engine::{Duplex, Inlet};
use fcp_proto::frame::{HEAD_LEN, Head};
use fcp_proto::limits::MAX_MESSAGE;
use fcp_proto::packet::{
    Message, Opening, OpeningRefused, PullOpening, PushOpening, Reply, Request, Sequenced,
    WireError,
};
use fcp_proto::version::{Agreed, Hello, ReplyExtra, negotiate};
use fcp_proto::{ErrorCode, Flag, SessionId, Violation, coding::Wire, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::request::{self, Start};
use crate::server::Server;
use crate::sessions::Join;
use crate::version1;
use crate::waiting::Place;

/// Serves a connection of `uid` until it ends or a session has taken it.
pub(crate) async fn serve(server: &Server, mut stream: TcpStream, uid: u32, place: Place) {
    let first = tokio::select! {
        biased;
        () = server.shutdown.draining() => return,
        () = place.lost() => Err(NotOpening::Crowded),
        first = timeout(server.config.limits.first_frame, read_opening(&mut stream)) => {
            first.unwrap_or(Err(NotOpening::Late))
        }
    };
    drop(place);
    match first {
        Ok(opening) => open(server, stream, uid, opening).await,
        Err(why) => server.log_no_opening(&why),
    }
}

async fn open(server: &Server, stream: TcpStream, uid: u32, opening: Opening) {
    match opening {
        Opening::Attach(sid) => attach(server, stream, uid, sid),
        Opening::Hello(_) => {
            let text = "HELLO has no place on TCP; PUSH and PULL carry the greeting there";
            refuse(stream, &WireError::new(ErrorCode::PROTOCOL, text));
        }
        Opening::Push(PushOpening { fcp: Some(hello), .. })
        | Opening::Pull(PullOpening { fcp: Some(hello), .. }) => {
            greet(server, stream, uid, &hello).await;
        }
        Opening::Push(_) | Opening::Pull(_) => version1::serve(server, stream, opening, uid).await,
    }
}

/// Tells the peer why it is refused, if that can be done at once, and closes the connection.
pub(crate) fn refuse(stream: TcpStream, error: &WireError) {
    let mut out = Vec::new();
    frame::encode_with(Flag::ERROR, &mut out, |out| error.encode(out));
    // Whoever does not take it learns nothing; nobody is waited for.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(&out);
        let _ = stream.shutdown(Half::Write);
    }
}

/// Why a first frame is none.
#[derive(Debug, thiserror::Error)]
enum NotOpening {
    #[error("closed a connection whose first byte is 0x{0:02x}, which is not fcp")]
    Foreign(u8),
    #[error("closed a connection without a complete first frame in time")]
    Late,
    #[error("dropped a connection without a complete first frame, as there were too many")]
    Crowded,
    #[error("closed a connection: {0}")]
    Refused(#[from] OpeningRefused),
    #[error("lost a connection within its first frame: {0}")]
    Cut(io::Error),
    #[error("a connection was closed before its first byte")]
    Nothing,
}

impl Server {
    fn log_no_opening(&self, why: &NotOpening) {
        let kind = match why {
            NotOpening::Foreign(_) => "foreign",
            NotOpening::Late => "late",
            NotOpening::Crowded => "crowded",
            NotOpening::Refused(_) => "opening",
            NotOpening::Cut(_) => "cut",
            // As a port scan or a health check does; nothing went wrong.
            NotOpening::Nothing => return tracing::debug!("{why}"),
        };
        self.refusals.log(kind, why);
    }
}

async fn read_opening(stream: &mut TcpStream) -> Result<Opening, NotOpening> {
    let mut head = [0; HEAD_LEN];
    match stream.read(&mut head[..1]).await {
        Ok(0) => return Err(NotOpening::Nothing),
        Ok(_) if Opening::may_begin_with(Flag(head[0])) => {}
        Ok(_) => return Err(NotOpening::Foreign(head[0])),
        Err(error) => return Err(NotOpening::Cut(error)),
    }
    stream.read_exact(&mut head[1..]).await.map_err(NotOpening::Cut)?;
    let mut bytes = head.to_vec();
    read_payload(stream, head, &mut bytes).await.map_err(NotOpening::Cut)?;
    let checked =
        frame::decode(&bytes).map_err(|bad| OpeningRefused::from(Violation::from(bad)))?;
    let Some((frame, _)) = checked else {
        return Err(NotOpening::Cut(io::ErrorKind::UnexpectedEof.into()));
    };
    Ok(Opening::decode(frame)?)
}

/// Appends the payload that `head` announces: at most 64 KiB, and only as it comes in.
async fn read_payload(
    stream: &mut TcpStream,
    head: [u8; HEAD_LEN],
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    let len = u64::from(Head::from_bytes(head).len);
    let read = stream.take(len).read_to_end(bytes).await?;
    if (read as u64) < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn attach(server: &Server, stream: TcpStream, uid: u32, sid: SessionId) {
    // A stream that cannot leave the runtime is gone.
    let Ok(stream) = stream.into_std() else { return };
    match server.sessions.join(sid, uid, stream) {
        Ok(()) => tracing::debug!("session {sid}: a further connection"),
        Err(why) => server.refusals.log(why.kind(), why),
    }
}

/// Opens a session of version 2 and runs it to its end.
async fn greet(server: &Server, mut stream: TcpStream, uid: u32, theirs: &Hello) {
    let agreed = match negotiate(&Hello::ours(server.config.connections), theirs) {
        Ok(agreed) => agreed,
        Err(none) => {
            server.refusals.log("version", format_args!("refused uid {uid}: {none}"));
            return refuse(stream, &WireError::new(ErrorCode::VERSION, none.to_string()));
        }
    };
    let inlet = Inlet::new();
    // The session's id is valid as long as its registration is held.
    let opened = server.sessions.open(uid, agreed.connections, join_to(&inlet, idle(&agreed)));
    let (registration, permit) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            server.refusals.log("sessions", format_args!("refused uid {uid}: {why}"));
            return refuse(stream, &WireError::new(ErrorCode::LIMIT, why.to_string()));
        }
    };
    let sid = registration.sid();
    match first_exchange(
        server,
        &mut stream,
        Reply { sid, agreed: Some(agreed.clone()), extra: ReplyExtra::default() },
    )
    .await
    {
        Ok(request) => {
            let start = Start { sid, uid, request, agreed, stream, permit, inlet };
            request::run(server, start).await;
        }
        Err(why) => {
            server.refusals.log("request", format_args!("session {sid} of uid {uid}: {why}"));
            if let Some(code) = why.code() {
                refuse(stream, &WireError::new(code, why.to_string()));
            }
        }
    }
}

async fn first_exchange(
    server: &Server,
    stream: &mut TcpStream,
    reply: Reply,
) -> Result<Request, NoRequest> {
    tokio::select! {
        biased;
        () = server.shutdown.draining() => Err(NoRequest::Ending),
        read = timeout(server.config.limits.request, answer_and_read(stream, reply)) => {
            read.unwrap_or(Err(NoRequest::Late))
        }
    }
}

/// How further connections come to the session that `inlet` feeds.
pub(crate) fn join_to(inlet: &Inlet, idle: Duration) -> Join {
    let connections = inlet.connections();
    Box::new(move |stream, permit| match Duplex::tcp(stream, idle) {
        Ok(duplex) => connections.add(duplex.with_guard(permit)),
        Err(error) => tracing::debug!("lost a connection while it joined: {error}"),
    })
}

/// Silence after which a connection of the session is dead.
pub(crate) fn idle(agreed: &Agreed) -> Duration {
    Duration::from_secs(agreed.idle_secs.into())
}

/// Why a session that was opened does not begin.
#[derive(Debug, thiserror::Error)]
enum NoRequest {
    #[error("no REQUEST in time")]
    Late,
    #[error("fcpd is shutting down")]
    Ending,
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("the connection was lost before the REQUEST: {0}")]
    Io(#[from] io::Error),
    #[error("the peer gave up before the REQUEST")]
    Error,
}

impl NoRequest {
    /// What the peer is told, if it is there to hear it.
    fn code(&self) -> Option<ErrorCode> {
        match self {
            NoRequest::Late => Some(ErrorCode::TIMEOUT),
            NoRequest::Ending => Some(ErrorCode::CANCELLED),
            NoRequest::Violation(_) => Some(ErrorCode::PROTOCOL),
            NoRequest::Io(_) | NoRequest::Error => None,
        }
    }
}

async fn answer_and_read(stream: &mut TcpStream, reply: Reply) -> Result<Request, NoRequest> {
    let mut out = Vec::new();
    reply.encode(Flag::SID, &mut out);
    stream.write_all(&out).await?;
    let max_frame = reply.agreed.map_or(u16::MAX, |agreed| agreed.max_frame);
    read_request(stream, max_frame).await
}

async fn read_request(stream: &mut TcpStream, max_frame: u16) -> Result<Request, NoRequest> {
    let mut joined = Vec::new();
    loop {
        let mut head = [0; HEAD_LEN];
        stream.read_exact(&mut head).await?;
        let Head { flag, len, crc } = Head::from_bytes(head);
        if len > max_frame {
            return Err(Violation::rule(flag, "is longer than was agreed").into());
        }
        if joined.len() + usize::from(len) > MAX_MESSAGE {
            return Err(Violation::rule(flag, "makes a message longer than 1 MiB").into());
        }
        let start = joined.len();
        read_payload(stream, head, &mut joined).await?;
        if Head::of(flag, &joined[start..]).crc != crc {
            return Err(Violation::from(frame::BadChecksum { flag }).into());
        }
        match flag {
            Flag::PART => {}
            Flag::REQUEST => return first_request(&joined),
            Flag::ERROR if start == 0 => return Err(NoRequest::Error),
            _ if start == 0 && (flag == Flag::ACK || flag.is_ignorable()) => joined.clear(),
            got => return Err(Violation::Unexpected { got, expected: "REQUEST" }.into()),
        }
    }
}

fn first_request(payload: &[u8]) -> Result<Request, NoRequest> {
    match Sequenced::from_payload(Flag::REQUEST, payload)? {
        Sequenced { seq: 0, message: Message::Request(request) } => Ok(request),
        _ => Err(Violation::rule(Flag::REQUEST, "is not message number 0").into()),
    }
}
