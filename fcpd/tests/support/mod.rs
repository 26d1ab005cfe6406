//! A server in this process on port 0, and a peer that speaks in frames.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this")]

pub mod push;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fcp_proto::coding::{Wire, decode_exact};
use fcp_proto::frame::{HEAD_LEN, Head};
use fcp_proto::packet::{
    Direction, Durability, Message, Opening, Options, PushOpening, Reply, Request, Sequenced,
    WireError,
};
use fcp_proto::version::{Agreed, Hello};
use fcp_proto::{Flag, SessionId, frame};
use fcpd::config::{Config, Limits};
use fcpd::server;
use fcpd::shutdown::Shutdown;
use fcpd::tls::Listener;

/// How long a test waits for what must happen.
pub const SOON: Duration = Duration::from_secs(5);

/// A server on a thread of its own; cancelled when dropped.
pub struct Daemon {
    pub addr: SocketAddr,
    pub shutdown: Shutdown,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Daemon {
    pub fn start(home: &Path) -> Daemon {
        Daemon::with_limits(home, Limits::default())
    }

    pub fn with_limits(home: &Path, limits: Limits) -> Daemon {
        let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Daemon::on(listener, home, limits)
    }

    pub fn on(listener: TcpListener, home: &Path, limits: Limits) -> Daemon {
        let addr = listener.local_addr().unwrap();
        Daemon::serve(listener.into(), addr, home, limits)
    }

    pub fn serve(listener: Listener, addr: SocketAddr, home: &Path, limits: Limits) -> Daemon {
        let config = Config {
            connections: 128,
            home: home.to_owned(),
            settings_dir: Some(home.join(".config/fcp")),
            umask: 0o022,
            limits,
        };
        let shutdown = Shutdown::new();
        let told = shutdown.clone();
        let thread = std::thread::spawn(move || {
            server::runtime().unwrap().block_on(server::serve(vec![listener], config, told))
        });
        Daemon { addr, shutdown, thread: Some(thread) }
    }

    pub fn connect(&self) -> Peer {
        Peer::connect(self.addr)
    }

    /// Whether the server has ended on its own.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

/// A connection that sends and expects single frames.
pub struct Peer<S = TcpStream> {
    pub stream: S,
}

impl Peer {
    pub fn connect(addr: SocketAddr) -> Peer {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Peer { stream }
    }

    /// Fails unless the server closes the connection without a byte within `limit`.
    pub fn expect_silent_close(&mut self, limit: Duration) {
        let start = Instant::now();
        self.stream.set_read_timeout(Some(limit)).unwrap();
        assert_eq!(self.frame(), None);
        assert!(start.elapsed() < limit);
    }
}

impl<S: Read + Write> Peer<S> {
    /// Greets and takes the session id.
    pub fn greet(&mut self) -> (SessionId, Agreed) {
        self.send(&opening(Some(Hello::ours(128))));
        let reply = self.reply(Flag::SID);
        (reply.sid, reply.agreed.expect("version 2"))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next frame; `None` once the connection is closed or reset.
    pub fn frame(&mut self) -> Option<(Flag, Vec<u8>)> {
        let mut head = [0; HEAD_LEN];
        self.read(&mut head)?;
        let head = Head::from_bytes(head);
        let mut payload = vec![0; head.len.into()];
        self.read(&mut payload)?;
        assert_eq!(Head::of(head.flag, &payload), head);
        Some((head.flag, payload))
    }

    fn read(&mut self, buf: &mut [u8]) -> Option<()> {
        use std::io::ErrorKind as K;
        match self.stream.read_exact(buf) {
            Ok(()) => Some(()),
            Err(e) if matches!(e.kind(), K::UnexpectedEof | K::ConnectionReset) => None,
            Err(e) => panic!("the server neither answers nor closes: {e}"),
        }
    }

    /// The next message or other frame that is neither an acknowledgement nor a sign of life.
    pub fn message(&mut self) -> Option<(Flag, Vec<u8>)> {
        loop {
            let (flag, payload) = self.frame()?;
            if !matches!(flag, Flag::ACK | Flag::KEEPALIVE) {
                return Some((flag, payload));
            }
        }
    }

    pub fn expect(&mut self) -> Message {
        let (flag, payload) = self.message().expect("a message");
        Sequenced::from_payload(flag, &payload).unwrap().message
    }

    pub fn expect_error(&mut self) -> WireError {
        let (flag, payload) = self.message().expect("an error");
        assert_eq!(flag, Flag::ERROR);
        decode_exact(&payload).unwrap()
    }

    /// The answer to a greeting, in a frame `expected`.
    pub fn reply(&mut self, expected: Flag) -> Reply {
        let (flag, payload) = self.frame().expect("an answer");
        let mut bytes = Vec::new();
        frame::encode(flag, &payload, &mut bytes);
        assert_eq!(flag, expected, "{:?}", decode_exact::<WireError>(&payload));
        let (frame, _) = frame::decode(&bytes).unwrap().unwrap();
        Reply::decode(frame).unwrap()
    }
}

/// PUSH with `hello` in it.
pub fn opening(hello: Option<Hello>) -> Vec<u8> {
    let push = PushOpening { user: "root".into(), dst: String::new(), fcp: hello };
    let mut out = Vec::new();
    Opening::Push(push).encode(&mut out).unwrap();
    out
}

pub fn attach(sid: SessionId) -> Vec<u8> {
    let mut out = Vec::new();
    Opening::Attach(sid).encode(&mut out).unwrap();
    out
}

/// A message's one frame.
pub fn numbered(seq: u32, message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(message.flag(), &message.to_payload(seq), &mut out);
    out
}

pub fn request(direction: Direction, path: &str, options: Options) -> Vec<u8> {
    numbered(
        0,
        &Message::Request(Request {
            direction,
            options,
            durability: Durability::None,
            paths: vec![path.into()],
            rules: Vec::new(),
        }),
    )
}

/// ACK of everything before number `next`.
pub fn ack(next: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(Flag::ACK, &next.to_be_bytes(), &mut out);
    out
}

/// A value's wire form.
pub fn to_vec(value: &impl Wire) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// Waits until `done`; fails when that takes too long.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
