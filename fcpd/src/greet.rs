//! From a greeting to a session of version 2: the session's id, the answer, the REQUEST.
//!
//! The steps are apart, so that whatever further connections need can be made ready between the id
//! and the answer that tells the client.

use std::io;
use std::time::{Duration, Instant};

use fcp_common::engine::{Cancel, Inlet};
use fcp_common::transfer::Help;
use fcp_proto::frame::{self, HEAD_LEN, Head};
use fcp_proto::limits::MAX_MESSAGE;
use fcp_proto::packet::{Message, Opening, Reply, Request, Sequenced, WireError};
use fcp_proto::version::{Agreed, Hello, ReplyExtra, negotiate};
use fcp_proto::{ErrorCode, Flag, SessionId, Violation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::handshake::{NotOpening, read_opening, read_payload, refuse};
use crate::identity::{Identity, Peer};
use crate::request::{self, Start};
use crate::server::Server;
use crate::sessions::{Join, Permit, Registration};
use crate::transport::Transport;

/// How long the first connection waits for direct ones, at least and at most: they take three round
/// trips, of which the first exchange was one.
const HOLD: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(1));

/// Where slow start of direct connections takes long enough for the first connection to help.
const FAR: Duration = Duration::from_millis(20);

/// A session that was opened and has not begun; its id is valid as long as this is held.
pub(crate) struct Opened {
    registration: Registration,
    permit: Permit,
    inlet: Inlet,
    agreed: Agreed,
    peer: Peer,
    /// What HELLO will say when it comes.
    early: Option<Hello>,
}

/// Opens a session of `peer`, which greeted with `theirs`.
///
/// # Errors
/// What the peer is to be told; it was logged.
pub(crate) fn open(server: &Server, peer: Peer, theirs: &Hello) -> Result<Opened, WireError> {
    let who = &peer.identity;
    let agreed = negotiate(&Hello::ours(server.config.connections), theirs).map_err(|none| {
        server.refusals.log("version", format_args!("refused {who}: {none}"));
        WireError::new(ErrorCode::VERSION, none.to_string())
    })?;
    let inlet = Inlet::new();
    let join = join_to(&inlet, idle(&agreed));
    let (registration, permit) =
        server.sessions.open(who.clone(), agreed.connections, join).map_err(|why| {
            server.refusals.log("sessions", format_args!("refused {who}: {why}"));
            WireError::new(ErrorCode::LIMIT, why.to_string())
        })?;
    Ok(Opened { registration, permit, inlet, agreed, peer, early: None })
}

impl Opened {
    /// As this one, answered before `hello` has come over the connection.
    pub(crate) fn before(self, hello: Hello) -> Opened {
        Opened { early: Some(hello), ..self }
    }

    /// What ends the session, once it runs or before.
    pub(crate) fn cancel(&self) -> Cancel {
        self.inlet.cancel()
    }

    /// The session's id.
    pub(crate) fn sid(&self) -> SessionId {
        self.registration.sid()
    }

    /// How many connections it may have.
    pub(crate) fn connections(&self) -> u16 {
        self.agreed.connections
    }

    /// Answers with a frame `flag` over `transport`, takes the REQUEST and runs the session to its
    /// end; whether it closed well. Everything else was logged, and told to the peer if it is there.
    pub(crate) async fn run(
        self,
        server: &Server,
        mut transport: Transport,
        flag: Flag,
        extra: ReplyExtra,
    ) -> bool {
        let Opened { registration, permit, inlet, agreed, peer, early } = self;
        let sid = registration.sid();
        let has_direct = extra.direct.is_some();
        let reply = Reply { sid, agreed: Some(agreed.clone()), extra };
        let asked = Instant::now();
        let limit = match &peer.identity {
            Identity::Login => server.config.limits.request_of_login,
            _ => server.config.limits.request,
        };
        let answer = Answer { flag, reply, early };
        match first_exchange(server, &mut transport, answer, limit).await {
            Ok(request) => {
                let hold = has_direct.then(|| hold(asked.elapsed()));
                let start = Start { sid, peer, request, agreed, transport, permit, inlet, hold };
                request::run(server, start).await
            }
            Err(why) => {
                let who = &peer.identity;
                let text = format!("session {sid} of {who}: {why}");
                match who {
                    // The user sees this log, and what the client says of it.
                    Identity::Login => tracing::info!("{text}"),
                    _ => server.refusals.log("request", &text),
                }
                if let Some(code) = why.code() {
                    refuse(transport, &WireError::new(code, why.to_string())).await;
                }
                false
            }
        }
    }
}

/// What the client is answered, and whether its HELLO is still to come.
struct Answer {
    flag: Flag,
    reply: Reply,
    early: Option<Hello>,
}

/// How long, on a path with this round trip, and whether it helps direct connections that are there.
fn hold(rtt: Duration) -> (Duration, Help) {
    let help = if rtt < FAR { Help::Alone } else { Help::BesideYoung };
    ((3 * rtt).clamp(HOLD.0, HOLD.1), help)
}

async fn first_exchange(
    server: &Server,
    transport: &mut Transport,
    answer: Answer,
    limit: Duration,
) -> Result<Request, NoRequest> {
    tokio::select! {
        biased;
        () = server.shutdown.draining() => Err(NoRequest::Ending),
        read = timeout(limit, answer_and_read(transport, answer)) => {
            read.unwrap_or(Err(NoRequest::Late))
        }
    }
}

/// How further connections come to the session that `inlet` feeds.
pub(crate) fn join_to(inlet: &Inlet, idle: Duration) -> Join {
    let connections = inlet.connections();
    Box::new(move |transport, permit| match transport.into_duplex(idle) {
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
    #[error("no HELLO: {0}")]
    Hello(#[from] NotOpening),
}

impl NoRequest {
    /// What the peer is told, if it is there to hear it.
    fn code(&self) -> Option<ErrorCode> {
        match self {
            NoRequest::Late => Some(ErrorCode::TIMEOUT),
            NoRequest::Ending => Some(ErrorCode::CANCELLED),
            NoRequest::Violation(_) => Some(ErrorCode::PROTOCOL),
            NoRequest::Hello(NotOpening::Foreign(_) | NotOpening::Refused(_)) => {
                Some(ErrorCode::PROTOCOL)
            }
            NoRequest::Io(_) | NoRequest::Error | NoRequest::Hello(_) => None,
        }
    }
}

async fn answer_and_read(transport: &mut Transport, answer: Answer) -> Result<Request, NoRequest> {
    let Answer { flag, reply, early } = answer;
    let mut out = Vec::new();
    reply.encode(flag, &mut out);
    transport.write_all(&out).await?;
    transport.flush().await?;
    if let Some(early) = early
        && read_opening(transport).await? != Opening::Hello(early)
    {
        return Err(Violation::rule(Flag::HELLO, "is not what was said before").into());
    }
    let max_frame = reply.agreed.map_or(u16::MAX, |agreed| agreed.max_frame);
    read_request(transport, max_frame).await
}

async fn read_request(stream: &mut Transport, max_frame: u16) -> Result<Request, NoRequest> {
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
