//! From an accepted connection of our user to a session: the first frame, the answer, the REQUEST.
//!
//! Everything is read exactly, so that no byte of the session is lost on the way to the engine.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown as Half;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fcp_common::engine::{Duplex, Inlet};
use fcp_proto::frame::{HEAD_LEN, Head};
use fcp_proto::limits::MAX_MESSAGE;
use fcp_proto::packet::{Message, Opening, OpeningRefused, Reply, Request, Sequenced, WireError};
use fcp_proto::version::{Agreed, Hello, negotiate};
use fcp_proto::{ErrorCode, Flag, Violation, coding::Wire, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::request::{self, Start};
use crate::server::Server;
use crate::sessions::Join;
use crate::version1;

/// How long a connection that named a wrong session is kept: it holds a place so long, which
/// bounds how often anybody can guess.
const AFTER_WRONG_ID: Duration = Duration::from_millis(50);

/// Serves a connection of `uid` until it ends or a session has taken it.
pub(crate) async fn serve(server: &Server, mut stream: TcpStream, uid: u32, place: Place) {
    let first = tokio::select! {
        biased;
        () = server.shutdown.draining() => return,
        () = place.lost() => {
            server.refusals.log("crowded", "dropped a connection that said nothing for too long");
            return;
        }
        first = timeout(server.config.limits.first_frame, read_opening(&mut stream)) => {
            first.unwrap_or(Err(NotOpening::Late))
        }
    };
    let opening = match first {
        Ok(opening) => opening,
        Err(why) => return server.refusals_of_openings(&why),
    };
    match opening {
        Opening::Attach(sid) => attach(server, stream, uid, sid, place).await,
        Opening::Hello(_) => {
            drop(place);
            let text = "HELLO has no place on TCP; PUSH and PULL carry the greeting there";
            refuse(stream, &WireError::new(ErrorCode::PROTOCOL, text));
        }
        Opening::Push(ref push) if push.fcp.is_none() => {
            drop(place);
            version1::serve(server, stream, opening, uid).await;
        }
        Opening::Pull(ref pull) if pull.fcp.is_none() => {
            drop(place);
            version1::serve(server, stream, opening, uid).await;
        }
        Opening::Push(push) => greet(server, stream, uid, place, push.fcp).await,
        Opening::Pull(pull) => greet(server, stream, uid, place, pull.fcp).await,
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
    #[error("closed a connection: {0}")]
    Refused(#[from] OpeningRefused),
    #[error("lost a connection within its first frame: {0}")]
    Cut(io::Error),
    #[error("a connection was closed before its first byte")]
    Nothing,
}

impl Server {
    fn refusals_of_openings(&self, why: &NotOpening) {
        let kind = match why {
            NotOpening::Foreign(_) => "foreign",
            NotOpening::Late => "late",
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

async fn attach(
    server: &Server,
    stream: TcpStream,
    uid: u32,
    sid: fcp_proto::SessionId,
    place: Place,
) {
    // A stream that cannot leave the runtime is gone.
    let Ok(stream) = stream.into_std() else { return };
    let Err(why) = server.sessions.join(sid, uid, stream) else { return };
    server.refusals.log(why.kind(), why);
    tokio::time::sleep(AFTER_WRONG_ID).await;
    drop(place);
}

/// Opens a session of version 2 and runs it to its end.
async fn greet(
    server: &Server,
    mut stream: TcpStream,
    uid: u32,
    place: Place,
    theirs: Option<Hello>,
) {
    drop(place);
    let Some(theirs) = theirs else { return };
    let agreed = match negotiate(&Hello::ours(server.config.connections), &theirs) {
        Ok(agreed) => agreed,
        Err(none) => {
            server.refusals.log("version", format_args!("refused uid {uid}: {none}"));
            return refuse(stream, &WireError::new(ErrorCode::VERSION, none.to_string()));
        }
    };
    let inlet = Inlet::new();
    let opened = server.sessions.open(uid, agreed.connections, join_to(&inlet, &agreed));
    let (registration, permit) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            server.refusals.log("sessions", format_args!("refused uid {uid}: {why}"));
            return refuse(stream, &WireError::new(ErrorCode::LIMIT, why.to_string()));
        }
    };
    let sid = registration.sid();
    let request = tokio::select! {
        biased;
        () = server.shutdown.draining() => Err(NoRequest::Ending),
        read = timeout(
            server.config.limits.request,
            answer_and_read(&mut stream, Reply { sid, agreed: Some(agreed.clone()) }),
        ) => read.unwrap_or(Err(NoRequest::Late)),
    };
    match request {
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
    // The session id is valid until here.
    drop(registration);
}

/// How further connections come to the session that `inlet` feeds.
fn join_to(inlet: &Inlet, agreed: &Agreed) -> Join {
    let connections = inlet.connections();
    let idle = idle(agreed);
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

/// The connections of which no complete first frame has come: few, and the oldest gives way.
#[derive(Debug)]
pub(crate) struct Waiting {
    per_uid: usize,
    total: usize,
    /// Oldest first.
    places: Mutex<VecDeque<(u32, CancellationToken)>>,
}

impl Waiting {
    pub(crate) fn new(limits: &Limits) -> Arc<Waiting> {
        let (per_uid, total) = (limits.waiting_per_uid, limits.waiting);
        Arc::new(Waiting { per_uid, total, places: Mutex::default() })
    }

    /// Gives a connection of `uid` a place, that of the oldest when there are too many.
    pub(crate) fn admit(self: &Arc<Waiting>, uid: u32) -> Place {
        let lost = CancellationToken::new();
        let mut places = self.places();
        if places.iter().filter(|(of, _)| *of == uid).count() >= self.per_uid {
            let oldest = places.iter().position(|(of, _)| *of == uid);
            give_up(oldest.and_then(|at| places.remove(at)));
        } else if places.len() >= self.total {
            give_up(places.pop_front());
        }
        places.push_back((uid, lost.clone()));
        Place { waiting: Arc::clone(self), lost }
    }

    /// Takes the place of the connection that waits longest, as its descriptor is needed.
    pub(crate) fn drop_oldest(&self) {
        give_up(self.places().pop_front());
    }

    fn places(&self) -> MutexGuard<'_, VecDeque<(u32, CancellationToken)>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give_up(place: Option<(u32, CancellationToken)>) {
    if let Some((_, lost)) = place {
        lost.cancel();
    }
}

/// A connection's place among those that wait; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    waiting: Arc<Waiting>,
    lost: CancellationToken,
}

impl Place {
    /// Completes when the place went to another connection.
    async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A token that nobody else holds any more is found by cancelling it.
        self.lost.cancel();
        self.waiting.places().retain(|(_, lost)| !lost.is_cancelled());
    }
}
