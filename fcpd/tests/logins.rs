//! Who comes in over TLS and through tunnels, and what is done with everybody else.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use fcp_common::auth::{Exchange, Token};
use fcp_common::engine::{Duplex, Inlet, NoReport, RequestBy, SendOptions, send};
use fcp_common::fs::DirPool;
use fcp_common::tls::{Identity, ServerPin, client_config, connect, exporter};
use fcp_common::walk::{SourceRoot, WalkOptions};
use fcp_proto::auth::{AuthOffer, Challenge, Proof, Signature};
use fcp_proto::coding::decode_exact;
use fcp_proto::packet::{Direction, Durability, Opening, Options, Reply, Request, WireError};
use fcp_proto::version::Hello;
use fcp_proto::{ErrorCode, Flag, SessionId, frame};
use fcpd::config::Limits;
use fcpd::server;
use fcpd::tls::Listener;
use fcpd::token::{Entry, Store, Time, local};
use support::push::*;
use support::*;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

type Secured = Peer<StreamOwned<ClientConnection, TcpStream>>;

/// A server with TLS and a token that lets its holder write below `root`.
struct Server {
    daemon: Daemon,
    store: Store,
    root: PathBuf,
    token: Token,
    key: Identity,
    _home: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        Server::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Server {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let store = Store::in_dir(&home.path().join(".config/fcp"));
        let key = Identity::fresh().unwrap();
        let socket = server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        let listener = Listener::with_tls(socket, &key).unwrap();
        let daemon = Daemon::serve(listener, addr, home.path(), limits);
        let token = Token::from_random([7; 32]);
        let server = Server { daemon, store, root, token, key, _home: home };
        server.add("laptop", |entry| entry);
        server
    }

    /// Adds the token under another name, changed by `change`.
    fn add(&self, name: &str, change: impl Fn(Entry) -> Entry) {
        let entry = Entry {
            name: name.to_owned(),
            verifier: self.token.verifier(),
            root: self.root.clone(),
            read_only: false,
            created: Time::now(),
            expires: None,
        };
        self.store.add(change(entry)).unwrap();
    }

    fn connect(&self, client: &Identity) -> Secured {
        let stream = TcpStream::connect(self.daemon.addr).unwrap();
        let config = client_config(client, ServerPin::Exactly(self.key.fingerprint())).unwrap();
        let (stream, conn) = connect(stream, config, Instant::now() + SOON).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Peer { stream: StreamOwned::new(conn, stream) }
    }

    fn login(&self, client: &Identity, name: &str) -> Result<(Secured, Reply), WireError> {
        let mut peer = self.connect(client);
        let binding = exporter(&peer.stream.conn).unwrap();
        prove(&mut peer, binding, name, &self.token).map(|reply| (peer, reply))
    }

    fn in_with(&self, name: &str) -> Secured {
        self.login(&client(), name).unwrap().0
    }

    /// What a token of this name is told.
    fn refused(&self, name: &str) -> WireError {
        self.login(&client(), name).map(|_| ()).expect_err("the token is not good")
    }
}

fn client() -> Identity {
    Identity::fresh().unwrap()
}

fn hello(name: &str, nonce: [u8; 32]) -> Vec<u8> {
    let auth = Some(AuthOffer::new(name, nonce).unwrap());
    encoded(Opening::Hello(Hello { auth, ..Hello::ours(8) }))
}

fn encoded(opening: Opening) -> Vec<u8> {
    let mut out = Vec::new();
    opening.encode(&mut out).unwrap();
    out
}

fn proof_frame(proof: &Proof) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(Flag::PROOF, &proof.0, &mut out);
    out
}

fn challenged<S: std::io::Read + Write>(peer: &mut Peer<S>) -> [u8; 32] {
    let (flag, payload) = peer.frame().expect("a challenge");
    assert_eq!(flag, Flag::CHALLENGE, "{:?}", decode_exact::<WireError>(&payload));
    decode_exact::<Challenge>(&payload).unwrap().nonce
}

/// ACCEPT, or why not.
fn accepted<S: std::io::Read + Write>(peer: &mut Peer<S>) -> Result<Reply, WireError> {
    let (flag, payload) = peer.frame().expect("an answer");
    if flag == Flag::ERROR {
        return Err(decode_exact(&payload).unwrap());
    }
    let mut bytes = Vec::new();
    frame::encode(flag, &payload, &mut bytes);
    let (frame, _) = frame::decode(&bytes).unwrap().unwrap();
    Ok(Reply::decode(frame).unwrap())
}

/// Both ends prove to have `token`.
fn prove<S: std::io::Read + Write>(
    peer: &mut Peer<S>,
    binding: [u8; 32],
    name: &str,
    token: &Token,
) -> Result<Reply, WireError> {
    let client_nonce = [0xa1; 32];
    peer.send(&hello(name, client_nonce));
    let exchange = Exchange { binding, name, client_nonce, server_nonce: challenged(peer) };
    peer.send(&proof_frame(&exchange.proof(token)));
    let reply = accepted(peer)?;
    let signature = reply.extra.auth.expect("a21: the server proves itself, too");
    assert!(exchange.server_knows(token, &signature), "a21: the server knows the token");
    assert!(!exchange.server_knows(&Token::from_random([8; 32]), &signature));
    Ok(reply)
}

fn is_refusal(error: &WireError) -> bool {
    error.code == ErrorCode::REFUSED && error.text.contains("wrong, expired or revoked")
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Begins to keep what is logged in this process.
fn keep_log() {
    struct Log;
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOG.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    });
}

fn is_logged(what: &str) -> bool {
    String::from_utf8_lossy(&LOG.lock().unwrap()).contains(what)
}

#[test]
fn a21_the_holder_of_a_token_pushes_below_its_root_once_both_are_proven() {
    let server = Server::start();
    let mut peer = server.in_with("laptop");
    peer.send(&push_frames("in"));
    finish_push(&mut peer);
    assert_eq!(std::fs::read(server.root.join("in/greeting")).unwrap(), CONTENT);
}

#[test]
fn a23_wrong_unknown_expired_and_revoked_tokens_are_told_the_same_and_late() {
    let server = Server::start();
    let other = Token::from_random([9; 32]).verifier();
    server.add("wrong", |entry| Entry { verifier: other.clone(), ..entry });
    server.add("expired", |entry| Entry { expires: Some(Time(1)), ..entry });
    server.add("revoked", |entry| entry);
    server.store.revoke("revoked").unwrap();
    let told = ["wrong", "unknown", "expired", "revoked", ""].map(|name| {
        let start = Instant::now();
        let error = server.refused(name);
        assert!(is_refusal(&error), "{error:?}");
        assert!(start.elapsed() >= Duration::from_millis(300), "{name}: {:?}", start.elapsed());
        error
    });
    assert!(told.iter().all(|error| *error == told[0]));
    server.in_with("laptop");
}

#[test]
fn a23_a_recorded_login_is_of_no_use_on_another_connection() {
    let server = Server::start();
    let (name, client_nonce) = ("laptop", [0xa1; 32]);
    let mut first = server.connect(&client());
    let binding = exporter(&first.stream.conn).unwrap();
    first.send(&hello(name, client_nonce));
    let server_nonce = challenged(&mut first);
    let exchange = Exchange { binding, name, client_nonce, server_nonce };
    let proof = exchange.proof(&server.token);
    first.send(&proof_frame(&proof));
    let Signature(signature) = accepted(&mut first).unwrap().extra.auth.unwrap();

    // The same proof, what the server said, its challenge, and ours.
    for replayed in [proof.0, signature, server_nonce, client_nonce] {
        let mut peer = server.connect(&client());
        peer.send(&hello(name, client_nonce));
        assert_ne!(challenged(&mut peer), server_nonce);
        peer.send(&proof_frame(&Proof(replayed)));
        assert!(is_refusal(&accepted(&mut peer).unwrap_err()));
    }
}

#[test]
fn a23_reflected_challenges_and_proofs_for_another_connection_are_refused() {
    let server = Server::start();
    // In the middle: the server's challenge goes to an honest client on another connection.
    let (name, client_nonce) = ("laptop", [0xa1; 32]);
    let honest = server.connect(&client());
    let mut middle = server.connect(&client());
    middle.send(&hello(name, client_nonce));
    let server_nonce = challenged(&mut middle);
    let binding = exporter(&honest.stream.conn).unwrap();
    let exchange = Exchange { binding, name, client_nonce, server_nonce };
    middle.send(&proof_frame(&exchange.proof(&server.token)));
    assert!(is_refusal(&accepted(&mut middle).unwrap_err()));

    let mut mirror = server.connect(&client());
    mirror.send(&hello(name, client_nonce));
    let nonce = challenged(&mut mirror);
    let mut reflected = Vec::new();
    frame::encode(Flag::CHALLENGE, &nonce, &mut reflected);
    mirror.send(&reflected);
    assert!(is_refusal(&accepted(&mut mirror).unwrap_err()));
}

#[test]
fn a23_a_login_that_is_cut_anywhere_ends_and_nobody_is_in() {
    let short = Duration::from_millis(400);
    let server =
        Server::with_limits(Limits { first_frame: short, request: short, ..Limits::default() });
    let greeting = hello("laptop", [0xa1; 32]);
    for cut in [0, 1, frame::HEAD_LEN, greeting.len() - 1] {
        let mut peer = server.connect(&client());
        peer.send(&greeting[..cut]);
        assert_eq!(peer.frame(), None, "cut at {cut}");
    }
    let proof = proof_frame(&Proof([0; 32]));
    for cut in [0, 1, frame::HEAD_LEN, proof.len() - 1] {
        let mut peer = server.connect(&client());
        peer.send(&greeting);
        challenged(&mut peer);
        peer.send(&proof[..cut]);
        assert!(is_refusal(&accepted(&mut peer).unwrap_err()), "cut at {cut}");
    }
    // Goodbyes at the same places.
    for sent in [&greeting[..9], &greeting, &[&greeting[..], &proof[..9]].concat()] {
        let mut peer = server.connect(&client());
        peer.send(sent);
        peer.stream.conn.send_close_notify();
        peer.stream.flush().unwrap();
        while let Some((flag, _)) = peer.frame() {
            assert!(matches!(flag, Flag::CHALLENGE | Flag::ERROR));
        }
    }
    let mut damaged = proof.clone();
    damaged[frame::HEAD_LEN] ^= 1;
    let mut long = Vec::new();
    frame::encode(Flag::PROOF, &[0; 33], &mut long);
    for bad in [damaged, long] {
        let mut peer = server.connect(&client());
        peer.send(&greeting);
        challenged(&mut peer);
        peer.send(&bad);
        assert!(is_refusal(&accepted(&mut peer).unwrap_err()));
    }
    server.in_with("laptop");
}

#[test]
fn no_path_and_no_data_are_taken_before_the_proof() {
    let server = Server::start();
    let mut peer = server.connect(&client());
    peer.send(&[hello("laptop", [0xa1; 32]), push_frames("in")].concat());
    challenged(&mut peer);
    assert!(is_refusal(&accepted(&mut peer).unwrap_err()));
    assert!(!server.root.join("in").exists());

    let without = encoded(Opening::Hello(Hello::ours(8)));
    let push = opening(Some(Hello::ours(8)));
    for (first, code) in [(without, ErrorCode::REFUSED), (push, ErrorCode::PROTOCOL)] {
        let mut peer = server.connect(&client());
        peer.send(&[first, push_frames("in")].concat());
        let error = accepted(&mut peer).unwrap_err();
        assert_eq!(error.code, code, "{}", error.text);
    }
    assert!(!server.root.join("in").exists());
}

#[test]
fn a_revoked_token_ends_its_running_session() {
    let server = Server::start();
    let (mut peer, _) = server.login(&client(), "laptop").unwrap();
    peer.send(&request(Direction::Push, "in", Options::default()));
    eventually("the session runs", || server.root.join("in").exists());
    let start = Instant::now();
    server.store.revoke("laptop").unwrap();
    assert_eq!(peer.expect_error().code, ErrorCode::CANCELLED);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(is_refusal(&server.refused("laptop")));
}

#[test]
fn a22_a_store_that_others_can_read_lets_nobody_in() {
    let server = Server::start();
    let chmod = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(server.store.path(), mode).unwrap();
    };
    server.in_with("laptop");
    chmod(0o644);
    assert!(is_refusal(&server.refused("laptop")));
    chmod(0o600);
    server.in_with("laptop");
}

#[test]
fn a18_another_certificate_with_the_right_id_is_refused_and_raises_an_alarm() {
    keep_log();
    let server = Server::start();
    let owner = client();
    let (_peer, Reply { sid, .. }) = server.login(&owner, "laptop").unwrap();
    let thief = client();
    let mut foreign = server.connect(&thief);
    foreign.send(&attach(sid));
    assert_eq!(foreign.frame(), None);
    let alarm = format!("ALARM: a client with certificate {}", thief.fingerprint());
    eventually("an alarm", || is_logged(&alarm));
    let mut unknown = server.connect(&owner);
    unknown.send(&attach(SessionId([0; 16])));
    assert_eq!(unknown.frame(), None);
    // A second login of the same token elsewhere is not the first one's.
    let (_other, _) = server.login(&thief, "laptop").unwrap();
    let mut foreign = server.connect(&thief);
    foreign.send(&attach(sid));
    assert_eq!(foreign.frame(), None);
}

#[test]
fn further_connections_join_with_the_same_certificate_while_the_token_is_good() {
    let server = Server::start();
    let owner = client();
    let (mut first, Reply { sid, .. }) = server.login(&owner, "laptop").unwrap();
    first.send(&request(Direction::Push, "in", Options::default()));
    let mut joined = server.connect(&owner);
    joined.send(&attach(sid));
    // It belongs to the session: there it lives, and ends with it.
    joined.stream.sock.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut byte = [0];
    let silent = std::io::Read::read(&mut joined.stream, &mut byte).map_err(|e| e.kind());
    assert!(!matches!(silent, Ok(0)), "{silent:?}");
    server.store.revoke("laptop").unwrap();
    let mut late = server.connect(&owner);
    late.send(&attach(sid));
    assert_eq!(late.frame(), None);
}

#[test]
fn a_large_file_is_pushed_over_four_connections() {
    let server = Server::start();
    let here = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..20_000_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(here.path().join("large"), &content).unwrap();
    let owner = client();
    let (first, reply) = server.login(&owner, "laptop").unwrap();
    let joined = (1..4).map(|_| {
        let mut peer = server.connect(&owner);
        peer.send(&attach(reply.sid));
        peer
    });
    let duplex = |peer: Secured| {
        let (conn, stream) = peer.stream.into_parts();
        Duplex::tls(stream, conn, Duration::from_secs(20)).unwrap()
    };
    let connections = std::iter::once(first).chain(joined).map(duplex).collect();
    let source = [here.path().as_os_str().as_encoded_bytes(), b"/"].concat();
    let options = SendOptions {
        agreed: reply.agreed.unwrap(),
        request: RequestBy::Us(Request {
            direction: Direction::Push,
            options: Options::RECURSIVE,
            durability: Durability::None,
            paths: vec!["/there".into()],
            rules: Vec::new(),
        }),
        roots: vec![SourceRoot::open(&source, &DirPool::new(8)).unwrap()],
        walk: WalkOptions { recursive: true, ..WalkOptions::default() },
        problems: Vec::new(),
        report: Arc::new(NoReport),
        counters: Arc::default(),
    };
    let summary = send(options, connections, Inlet::new()).unwrap();
    assert_eq!((summary.failed, summary.received), (0, content.len() as u64));
    assert!(std::fs::read(server.root.join("there/large")).unwrap() == content);
}

#[test]
fn the_root_is_all_that_a_token_opens() {
    let server = Server::start();
    let outside = server.root.parent().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink("../outside", server.root.join("link")).unwrap();
    for path in ["../outside/in", "a/../../outside/in", "link/in"] {
        let mut peer = server.in_with("laptop");
        peer.send(&request(Direction::Push, path, Options::default()));
        peer.expect_error();
    }
    // An absolute path is below the root, too.
    let mut peer = server.in_with("laptop");
    peer.send(&push_frames("/fcpd-logins-test"));
    finish_push(&mut peer);
    assert!(server.root.join("fcpd-logins-test/greeting").exists());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!Path::new("/fcpd-logins-test").exists());
}

#[test]
fn a_read_only_token_changes_nothing() {
    let server = Server::start();
    server.add("reader", |entry| Entry { read_only: true, ..entry });
    let mut peer = server.in_with("reader");
    peer.send(&request(Direction::Push, "in", Options::default()));
    assert_eq!(peer.expect_error().code, ErrorCode::READ_ONLY);
    assert!(!server.root.join("in").exists());
}

#[test]
fn a_root_that_is_gone_is_an_error_of_the_server() {
    let server = Server::start();
    std::fs::remove_dir(&server.root).unwrap();
    assert_eq!(server.refused("laptop").code, ErrorCode::NOT_FOUND);
}

#[test]
fn a24_what_is_not_tls_is_closed_on_its_first_byte_and_tls_on_a_plain_port_as_well() {
    let server = Server::start();
    for first in (0..=255u8).filter(|b| *b != 22) {
        let mut plain = Peer::connect(server.daemon.addr);
        plain.send(&[first]);
        plain.expect_silent_close(Duration::from_secs(2));
    }
    let home = tempfile::tempdir().unwrap();
    let plain = Daemon::start(home.path());
    let stream = TcpStream::connect(plain.addr).unwrap();
    let config = client_config(&client(), ServerPin::Any).unwrap();
    let start = Instant::now();
    assert!(connect(stream, config, start + SOON).is_err());
    assert!(start.elapsed() < SOON, "closed, not timed out");
}

#[test]
fn w26_a_thousand_half_open_connections_leave_the_honest_client_served() {
    let server = Server::start();
    let half: Vec<_> = (0..1000)
        .map(|n| {
            let mut stream = TcpStream::connect(server.daemon.addr).unwrap();
            // Silent, or within the first record.
            let sent = [&[][..], &[22, 3, 1], &[22, 3, 1, 2, 0, 1, 0, 1]][n % 3];
            // Those that had to give way may be closed already.
            let _ = stream.write_all(sent);
            stream
        })
        .collect();
    let mut peer = server.in_with("laptop");
    peer.send(&push_frames("in"));
    finish_push(&mut peer);
    assert_eq!(half.len(), 1000);
}

/// A plain server whose user has a token for tunnels.
fn tunnels() -> (tempfile::TempDir, Daemon, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path());
    let dir = home.path().join(".config/fcp");
    local::ensure(&dir).unwrap();
    (home, daemon, dir)
}

#[test]
fn a21_through_a_tunnel_both_ends_prove_to_have_the_local_token() {
    let (home, daemon, dir) = tunnels();
    let token = local::read(&dir).unwrap().unwrap();
    let mut peer = daemon.connect();
    prove(&mut peer, [0; 32], "", &token).unwrap();
    peer.send(&push_frames("in"));
    finish_push(&mut peer);
    assert_eq!(std::fs::read(home.path().join("in/greeting")).unwrap(), CONTENT);
}

#[test]
fn a23_a_tunnel_without_the_right_token_is_refused() {
    let (_home, daemon, dir) = tunnels();
    let token = local::read(&dir).unwrap().unwrap();
    let wrong = Token::from_random([8; 32]);
    let refused = |name: &str, token: &Token| {
        prove(&mut daemon.connect(), [0; 32], name, token).expect_err("not good")
    };
    assert!(is_refusal(&refused("", &wrong)));
    assert!(is_refusal(&refused("laptop", &token)));
    let path = local::path(&dir);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(is_refusal(&refused("", &token)));
    std::fs::remove_file(&path).unwrap();
    assert!(is_refusal(&refused("", &token)));
    let mut peer = daemon.connect();
    peer.send(&encoded(Opening::Hello(Hello::ours(8))));
    assert_eq!(accepted(&mut peer).unwrap_err().code, ErrorCode::PROTOCOL);
}
