//! Servers for tests: real sockets and real TLS, and a script of what they do then.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fcp_common::auth::{Exchange, Verifier};
use fcp_common::tls::{self, ClientPin, Identity, server_config};
use fcp_proto::auth::Proof;
use fcp_proto::coding::{Wire, decode_exact};
use fcp_proto::frame::{self, HEAD_LEN, Head};
use fcp_proto::packet::{Reply, WireError};
use fcp_proto::version::{Hello, ReplyExtra, negotiate};
use fcp_proto::{ErrorCode, Fingerprint, Flag, SessionId};
use rustls::{ServerConnection, StreamOwned};

pub(super) const SID: SessionId = SessionId([7; 16]);

/// A client that was let in.
pub(super) struct Client {
    pub(super) tls: StreamOwned<ServerConnection, TcpStream>,
}

/// What a client's proof is about.
pub(super) struct Challenged {
    pub(super) hello: Hello,
    proof: Proof,
    binding: [u8; 32],
}

/// Takes clients for as long as the test runs, each in a thread; `script` gets those whose handshake
/// went well.
pub(super) fn serve<T: Send + 'static>(
    identity: &Identity,
    pin: ClientPin,
    script: impl Fn(&mut Client) -> T + Send + Sync + 'static,
) -> (SocketAddr, mpsc::Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, script) = (listener.local_addr().unwrap(), Arc::new(script));
    let config = server_config(identity, pin).unwrap();
    let (sender, results) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, script) = (Arc::clone(&config), Arc::clone(&script));
            let (sender, end) = (sender.clone(), Instant::now() + Duration::from_secs(10));
            std::thread::spawn(move || {
                let Ok((stream, conn)) = tls::accept(stream.unwrap(), config, end) else { return };
                let mut client = Client { tls: StreamOwned::new(conn, stream) };
                let result = script(&mut client);
                // Whoever waits for it may look at the connection once more.
                let _ = sender.send(result);
                let _ = client.tls.read(&mut [0; 1]);
            });
        }
    });
    (address, results)
}

impl Client {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        tls::peer_fingerprint(&self.tls.conn).unwrap()
    }

    /// The next frame; `None` once the client is gone.
    pub(super) fn frame(&mut self) -> Option<(Flag, Vec<u8>)> {
        let mut head = [0; HEAD_LEN];
        self.tls.read_exact(&mut head).ok()?;
        let head = Head::from_bytes(head);
        let mut payload = vec![0; head.len.into()];
        self.tls.read_exact(&mut payload).ok()?;
        Some((head.flag, payload))
    }

    pub(super) fn send(&mut self, flag: Flag, payload: &[u8]) {
        let mut out = Vec::new();
        frame::encode(flag, payload, &mut out);
        let _ = self.tls.write_all(&out);
        let _ = self.tls.flush();
    }

    /// Reads HELLO and sends CHALLENGE; answers with what the proof is about.
    pub(super) fn challenge(&mut self) -> Option<Challenged> {
        let (Flag::HELLO, hello) = self.frame()? else { return None };
        self.challenge_to(&hello)
    }

    fn challenge_to(&mut self, hello: &[u8]) -> Option<Challenged> {
        self.send(Flag::CHALLENGE, &[3; 32]);
        let (Flag::PROOF, proof) = self.frame()? else { return None };
        let (hello, proof) = (decode_exact(hello).unwrap(), decode_exact(&proof).unwrap());
        Some(Challenged { hello, proof, binding: tls::exporter(&self.tls.conn).unwrap() })
    }

    /// Does what fcpd does with a client whose token has this verifier; whether it is let in.
    pub(super) fn greet(&mut self, name: &str, verifier: &Verifier) -> bool {
        let Some(challenged) = self.challenge() else { return false };
        self.judge(&challenged, name, verifier)
    }

    /// The same with one that may attach, too; its first frame.
    pub(super) fn first_frame(&mut self, name: &str, verifier: &Verifier) -> (Flag, Vec<u8>) {
        let (flag, payload) = self.frame().unwrap();
        if flag == Flag::HELLO {
            let challenged = self.challenge_to(&payload).unwrap();
            self.judge(&challenged, name, verifier);
        }
        (flag, payload)
    }

    fn judge(&mut self, challenged: &Challenged, name: &str, verifier: &Verifier) -> bool {
        let Challenged { hello, proof, binding } = challenged;
        let (auth, binding) = (hello.auth.as_ref().unwrap(), *binding);
        let exchange = Exchange { binding, name, client_nonce: auth.nonce, server_nonce: [3; 32] };
        let signature = exchange.verify(verifier, proof).filter(|_| auth.name() == name);
        let Some(signature) = signature else {
            let mut no = Vec::new();
            WireError::new(ErrorCode::REFUSED, "no").encode(&mut no);
            self.send(Flag::ERROR, &no);
            return false;
        };
        self.accept(hello, ReplyExtra { auth: Some(signature), direct: None });
        true
    }

    pub(super) fn accept(&mut self, hello: &Hello, extra: ReplyExtra) {
        let agreed = Some(negotiate(&Hello::ours(128), hello).unwrap());
        let mut out = Vec::new();
        Reply { sid: SID, agreed, extra }.encode(Flag::ACCEPT, &mut out);
        let _ = self.tls.write_all(&out);
        let _ = self.tls.flush();
    }
}

/// A listener that drops every SYN, as a firewall does; for as long as the result lives.
pub(super) fn black_hole() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Shrinks the queue, which nobody takes from.
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
    }
    (address, queued, listener)
}
