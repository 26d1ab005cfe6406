//! One TLS connection to a server, and more of the same.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fcp_common::engine::Duplex;
use fcp_common::tls;
use fcp_proto::packet::Opening;
use fcp_proto::{Fingerprint, SessionId};
use rustls::{ClientConfig, ClientConnection};

use super::address;

/// How long opening one more connection of a session may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A TLS connection whose handshake is done, read and written until a moment and no longer.
pub(super) struct Channel {
    stream: TcpStream,
    tls: ClientConnection,
    end: Instant,
}

impl Channel {
    /// Does the handshake on `stream` before `end`.
    ///
    /// # Errors
    /// Of the socket, of TLS, or a server with another key than `config` pins.
    pub(super) fn open(
        stream: TcpStream,
        config: Arc<ClientConfig>,
        end: Instant,
    ) -> io::Result<Channel> {
        stream.set_nodelay(true)?;
        tls::tune(&stream);
        let (stream, tls) = tls::connect(stream, config, end)?;
        Ok(Channel { stream, tls, end })
    }

    /// The key that the server proved to have.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        tls::peer_fingerprint(&self.tls)
    }

    /// What a proof is tied to, so that it is good here only.
    pub(super) fn binding(&self) -> io::Result<[u8; 32]> {
        tls::exporter(&self.tls)
    }

    /// Asks to join the session; there is no answer.
    fn attach(&mut self, sid: SessionId) -> io::Result<()> {
        let mut out = Vec::new();
        let fits = Opening::Attach(sid).encode(&mut out);
        fits.ok_or_else(|| io::Error::other("ATTACH does not fit a frame"))?;
        self.write_all(&out)?;
        self.flush()
    }

    /// Hands it to the engine.
    pub(super) fn into_duplex(self, idle: Duration) -> io::Result<Duplex> {
        self.stream.set_write_timeout(None)?;
        Duplex::tls(self.stream, self.tls, idle)
    }

    fn bounded(&mut self) -> io::Result<rustls::Stream<'_, ClientConnection, TcpStream>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))?;
        Ok(rustls::Stream::new(&mut self.tls, &mut self.stream))
    }
}

// The socket's time is set before each call; a record in many small pieces may take a little more
// than that, each of which is bounded.
impl Read for Channel {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.bounded()?.read(buf)
    }
}

impl Write for Channel {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bounded()?.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.bounded()?.flush()
    }
}

/// Opens further connections of a session: to the same address, as the same client, to a server with
/// the same key.
#[derive(Clone)]
pub struct Dialer {
    /// Where the first one was.
    pub(super) server: SocketAddr,
    /// With the client's identity and the server's pin.
    pub(super) config: Arc<ClientConfig>,
    /// The session.
    pub(super) sid: SessionId,
    /// As agreed.
    pub(super) idle: Duration,
    /// As the first one took to connect.
    pub(super) rtt: Duration,
}

impl Dialer {
    /// Opens one more, ready for content. It blocks, for ten seconds at most.
    ///
    /// # Errors
    /// Of the socket, of TLS, or a server with another key.
    pub fn dial(&self) -> io::Result<Duplex> {
        let end = Instant::now() + PATIENCE;
        let (stream, _) = address::connect(self.server, end)?;
        self.join(Channel::open(stream, Arc::clone(&self.config), end)?)
    }

    /// The round trip to the server.
    pub fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Makes it a connection of the session.
    pub(super) fn join(&self, mut channel: Channel) -> io::Result<Duplex> {
        channel.attach(self.sid)?;
        channel.into_duplex(self.idle)
    }
}
