//! The first frame of an accepted connection, and what it comes to.
//!
//! Everything is read exactly, so that no byte of the session is lost on the way to the engine.

use std::io;

use fcp_proto::coding::Wire;
use fcp_proto::frame::{self, HEAD_LEN, Head};
use fcp_proto::packet::{Opening, OpeningRefused, PullOpening, PushOpening, WireError};
use fcp_proto::version::{Hello, ReplyExtra};
use fcp_proto::{ErrorCode, Flag, SessionId, Violation};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::greet;
use crate::identity::{Identity, Peer};
use crate::login;
use crate::server::Server;
use crate::transport::Transport;
use crate::version1;
use crate::waiting::Place;

/// Serves a connection of `peer` until it ends or a session has taken it.
pub(crate) async fn serve(server: &Server, mut transport: Transport, peer: Peer, place: Place) {
    let first = tokio::select! {
        biased;
        () = server.shutdown.draining() => return,
        () = place.lost() => Err(NotOpening::Crowded),
        first = timeout(server.config.limits.first_frame, read_opening(&mut transport)) => {
            first.unwrap_or(Err(NotOpening::Late))
        }
    };
    drop(place);
    match first {
        Ok(opening) => open(server, transport, peer, opening).await,
        Err(why) => server.log_no_opening(&why),
    }
}

async fn open(server: &Server, transport: Transport, peer: Peer, opening: Opening) {
    match (transport, opening) {
        (transport, Opening::Attach(sid)) => {
            attach(server, transport, &peer.identity, sid);
        }
        (transport @ Transport::Tcp(_), Opening::Hello(hello)) => {
            login::serve_tunnel(server, transport, peer, &hello).await;
        }
        (transport, Opening::Hello(hello)) => {
            begin(server, transport, peer, &hello, Flag::ACCEPT).await;
        }
        (
            transport @ Transport::Tcp(_),
            Opening::Push(PushOpening { fcp: Some(hello), .. })
            | Opening::Pull(PullOpening { fcp: Some(hello), .. }),
        ) => begin(server, transport, peer, &hello, Flag::SID).await,
        (Transport::Tcp(stream), opening) => version1::serve(server, stream, opening, peer).await,
        (transport, Opening::Push(_) | Opening::Pull(_)) => {
            let text = "PUSH and PULL have a place on TCP only; HELLO carries the greeting here";
            refuse(transport, &WireError::new(ErrorCode::PROTOCOL, text)).await;
        }
    }
}

/// Opens a session of version 2 and runs it to its end.
async fn begin(server: &Server, transport: Transport, peer: Peer, hello: &Hello, flag: Flag) {
    match greet::open(server, peer, hello) {
        Ok(opened) => drop(opened.run(server, transport, flag, ReplyExtra::default()).await),
        Err(error) => refuse(transport, &error).await,
    }
}

/// Tells the peer why it is refused and closes the connection.
pub(crate) async fn refuse(transport: Transport, error: &WireError) {
    transport.say_at_once(&error_frame(error)).await;
}

/// `error` as a frame.
pub(crate) fn error_frame(error: &WireError) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode_with(Flag::ERROR, &mut out, |out| error.encode(out));
    out
}

/// Why a first frame is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOpening {
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
    pub(crate) fn log_no_opening(&self, why: &NotOpening) {
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

pub(crate) async fn read_opening(stream: &mut Transport) -> Result<Opening, NotOpening> {
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
pub(crate) async fn read_payload(
    stream: &mut Transport,
    head: [u8; HEAD_LEN],
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    let len = u64::from(Head::from_bytes(head).len);
    let read = stream.take(len).read_to_end(bytes).await?;
    if (read as u64) < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn attach(server: &Server, transport: Transport, by: &Identity, sid: SessionId) {
    match server.sessions.join(sid, by, transport) {
        Ok(()) => tracing::debug!("session {sid}: a further connection"),
        Err(why) => server.refusals.log(why.kind(), why),
    }
}
