//! Further connections of a session: a process that has one hands its stdin and stdout over.
//!
//! One message goes over the session's socket: the session's id, with the two descriptors. The
//! session answers with a byte when it has taken them, and hangs up when the connection is closed;
//! until then the process that had them stays, as sshd closes the channel when it ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fcp_proto::SessionId;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::socket::{self, Bound};
use crate::identity::Identity;
use crate::server::Server;
use crate::transport::{Fds, Handed, Transport};

/// What the session answers when it has taken the descriptors.
const TAKEN: u8 = 1;
/// Pause after a failed accept: what is missing, others must give back first.
const PAUSE: Duration = Duration::from_millis(200);

/// Hands `fds` to the session `sid` and waits until it has no more use for them; whether it took
/// them.
pub(super) async fn hand_over(server: &Server, dirs: &[PathBuf], sid: SessionId, fds: Fds) -> bool {
    let handed = async {
        let mut stream = find(dirs, sid)?;
        let Handed { reader, writer, .. } = fds.into_handed()?;
        send(&stream, sid, &reader, &writer).await?;
        drop((reader, writer));
        let mut answer = Vec::new();
        timeout(server.config.limits.request, stream.read_buf(&mut answer)).await??;
        stream.read_to_end(&mut answer).await.map(|_| answer == [TAKEN])
    };
    tokio::select! {
        () = server.shutdown.cancelling() => false,
        handed = handed => handed.unwrap_or_else(|error| {
            // As it is when the session is over by now, which small ones often are.
            tracing::info!("no session {sid} took the connection: {error}");
            false
        }),
    }
}

fn find(dirs: &[PathBuf], sid: SessionId) -> io::Result<UnixStream> {
    UnixStream::from_std(StdStream::from(socket::find(dirs, sid)?))
}

async fn send(
    stream: &UnixStream,
    sid: SessionId,
    reader: &OwnedFd,
    writer: &OwnedFd,
) -> io::Result<()> {
    let send = || {
        let fds = [reader.as_fd(), writer.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        // The room is for just this.
        let _ = control.push(SendAncillaryMessage::ScmRights(&fds));
        Ok(sendmsg(stream, &[IoSlice::new(&sid.0)], &mut control, SendFlags::empty())?)
    };
    match stream.async_io(Interest::WRITABLE, send).await? {
        n if n == sid.0.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Takes further connections of the session `sid` that come to `bound`, for ever; at most
/// `at_once` of them may be about to say what they are.
pub(super) async fn accept_all(server: Arc<Server>, bound: Bound, sid: SessionId, at_once: u16) {
    let own_uid = rustix::process::geteuid().as_raw();
    let listener = bound.listener.try_clone().and_then(UnixListener::from_std);
    let Ok(listener) = listener else { return };
    let places = Arc::new(Semaphore::new(at_once.into()));
    let mut tasks = JoinSet::new();
    // It is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                tasks.spawn(async move {
                    let limit = server.config.limits.first_frame;
                    let taken = timeout(limit, take(&server, stream, sid, own_uid)).await;
                    if let Ok(Err(why)) = taken {
                        server.refusals.log("attach", format_args!("refused a connection: {why}"));
                    }
                    drop(place);
                });
            }
            Err(error) => {
                server.refusals.log("accept", format_args!("cannot accept: {error}"));
                sleep(PAUSE).await;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// Why descriptors are not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("ALARM: uid {0} came to a session's socket")]
    OtherUser(u32),
    #[error("it is not one message of an id and two descriptors")]
    Malformed,
    #[error("it names another session")]
    OtherSession,
    #[error("{0}")]
    NotJoined(#[from] crate::sessions::NotJoined),
    #[error(transparent)]
    Io(#[from] io::Error),
}

async fn take(
    server: &Server,
    stream: UnixStream,
    sid: SessionId,
    own_uid: u32,
) -> Result<(), NotTaken> {
    let uid = stream.peer_cred()?.uid();
    if uid != own_uid {
        return Err(NotTaken::OtherUser(uid));
    }
    let (theirs, [reader, writer]) = receive(&stream).await?;
    if !is_same(theirs, sid) {
        return Err(NotTaken::OtherSession);
    }
    let stream = stream.into_std()?;
    let guard = OwnedFd::from(stream.try_clone()?);
    let fds = Fds::new(reader, writer)?.with_guard(guard);
    server.sessions.join(sid, &Identity::Login, Transport::Fds(fds))?;
    // One byte always fits; the connection may have been lost by now.
    let _ = rustix::io::write(&stream, &[TAKEN]);
    Ok(())
}

/// Whether two ids are the same, in a time that does not tell where they differ.
fn is_same(a: SessionId, b: SessionId) -> bool {
    let differing = a.0.iter().zip(&b.0).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0
}

async fn receive(stream: &UnixStream) -> Result<(SessionId, [OwnedFd; 2]), NotTaken> {
    // One byte and one descriptor more than there may be.
    let mut bytes = [0; 17];
    let receive = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut room = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg(stream, &mut room, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let is_cut = message.flags.contains(ReturnFlags::CTRUNC);
        Ok((message.bytes, if is_cut { Vec::new() } else { fds }))
    };
    let (len, fds) = stream.async_io(Interest::READABLE, receive).await?;
    let id = bytes.first_chunk().filter(|_| len == 16).ok_or(NotTaken::Malformed)?;
    let fds = <[OwnedFd; 2]>::try_from(fds).map_err(|_| NotTaken::Malformed)?;
    Ok((SessionId(*id), fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::shutdown::Shutdown;

    #[test]
    fn a18_another_user_at_the_socket_is_refused_before_a_byte_is_read() {
        crate::server::runtime().unwrap().block_on(async {
            let args = crate::cli::parse(["fcpd".into()]).unwrap();
            let config = Settings::resolve(args, |_| None, 0).unwrap().server;
            let server = Server::new(config, Shutdown::new());
            let (_theirs, ours) = UnixStream::pair().unwrap();
            let other = rustix::process::geteuid().as_raw() + 1;
            let taken = take(&server, ours, SessionId([7; 16]), other).await;
            assert!(matches!(taken, Err(NotTaken::OtherUser(uid)) if uid == other - 1));
        });
    }
}
