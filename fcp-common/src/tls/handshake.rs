//! Handshakes over a blocking socket, each within one deadline: a peer that sends a byte now and
//! then does not keep us.

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection, SideData,
};

use super::{ALPN, tls_error};

/// Does a client's handshake. A server that refuses our certificate says so only afterwards: the
/// first read fails.
///
/// # Errors
/// `TimedOut` at the deadline, `InvalidData` when the server is not the one that was expected or
/// does not speak fcp over TLS, and what the socket says.
pub fn connect(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    deadline: Instant,
) -> io::Result<(TcpStream, ClientConnection)> {
    // Names mean nothing to the verifier, and none is sent.
    let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
    let mut conn = ClientConnection::new(config, nobody).map_err(tls_error)?;
    shake_hands(&stream, &mut conn, deadline)?;
    Ok((stream, conn))
}

/// Does a server's handshake.
///
/// # Errors
/// As [`connect`].
pub fn accept(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> io::Result<(TcpStream, ServerConnection)> {
    let mut conn = ServerConnection::new(config).map_err(tls_error)?;
    shake_hands(&stream, &mut conn, deadline)?;
    Ok((stream, conn))
}

fn shake_hands<Data: SideData>(
    mut stream: &TcpStream,
    conn: &mut ConnectionCommon<Data>,
    deadline: Instant,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    while conn.is_handshaking() || conn.wants_write() {
        let left = Some(time_left(deadline)?);
        if conn.wants_write() {
            stream.set_write_timeout(left)?;
            conn.write_tls(&mut stream).map_err(timed_out)?;
            continue;
        }
        stream.set_read_timeout(left)?;
        if conn.read_tls(&mut stream).map_err(timed_out)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Err(error) = conn.process_new_packets() {
            // The alert tells the peer why, if it still listens.
            let _ = conn.write_tls(&mut stream);
            return Err(tls_error(error));
        }
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    match conn.alpn_protocol() {
        Some(ALPN) => Ok(()),
        _ => Err(tls_error(rustls::Error::NoApplicationProtocol)),
    }
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A socket's timeout has the kind `WouldBlock`.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}
