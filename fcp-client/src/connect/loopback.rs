//! Reaches an fcpd on this machine: connects, looks who listens, greets, attaches.
//!
//! All of it blocks, each step for ten seconds at most; nothing else is to be done meanwhile.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fcp_common::engine::Duplex;
use fcp_common::peer::server_uid;
use fcp_common::version1::Opened;
use fcp_proto::SessionId;
use fcp_proto::packet::Opening;
use fcp_proto::version::{Agreed, Hello, IDLE_SECS};

use super::PATIENCE;
use super::plain::{Purpose, greet, io_help};
use crate::error::CliError;

/// Opens a session with the fcpd at `server`: what was agreed (`None` with a version 1 server), and
/// as many connections as were offered and agreed on.
///
/// # Errors
/// [`CliError::Connect`], before any path or content was sent when the listener is not ours.
pub(super) fn open(
    server: SocketAddr,
    purpose: &Purpose,
    offer: &Hello,
    protocol: Option<u16>,
) -> Result<(Option<Agreed>, Vec<Duplex>), CliError> {
    let connections = offer.connections;
    let failed = |reason: String| CliError::Connect { server: server.to_string(), reason };
    let first = dial(server).map_err(&failed)?;
    let mut patient = UntilThen { stream: &first, end: Instant::now() + PATIENCE };
    let Opened { reply, early } = greet(&mut patient, purpose, offer, protocol).map_err(&failed)?;
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
    Ok((reply.agreed, conns.map_err(|error| failed(error.to_string()))?))
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

fn attach(server: SocketAddr, sid: SessionId) -> Result<TcpStream, String> {
    let mut stream = dial(server)?;
    let mut out = Vec::new();
    Opening::Attach(sid).encode(&mut out).ok_or("ATTACH does not fit a frame")?;
    stream.write_all(&out).map_err(|e| io_help(&e))?;
    Ok(stream)
}

/// A stream that is read until a moment and no longer; each write has its own limit.
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

impl Write for UntilThen<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
