//! Further connections of a session that is faked: who joins it, and who does not.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fcp_common::tls::{self, Identity as Key, ServerPin};
use fcp_proto::SessionId;
use fcp_proto::auth::DirectOffer;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::task::spawn_blocking;

use super::*;
use crate::config::{Limits, Settings};
use crate::sessions::{Permit, Registration};

const SOON: Duration = Duration::from_secs(5);

/// A session of `connections`, of which one is there.
struct Fake {
    server: Arc<Server>,
    registration: Registration,
    joined: Arc<Mutex<Vec<(Transport, Permit)>>>,
    dir: tempfile::TempDir,
    _first: Permit,
}

impl Fake {
    fn new(connections: u16) -> Fake {
        let args = crate::cli::parse(["fcpd".into()]).unwrap();
        let mut config = Settings::resolve(args, |_| None, 0o022).unwrap().server;
        config.limits = Limits { direct: Duration::from_secs(2), ..Limits::default() };
        let server = Arc::new(Server::new(config, Shutdown::new()));
        let joined = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&joined);
        let join =
            Box::new(move |transport, permit| keep.lock().unwrap().push((transport, permit)));
        let (registration, first) =
            server.sessions.open(Identity::Login, connections, join).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Fake { server, registration, joined, dir, _first: first }
    }

    fn sid(&self) -> SessionId {
        self.registration.sid()
    }

    fn dirs(&self) -> Vec<PathBuf> {
        vec![self.dir.path().join("fcp")]
    }

    fn joined(&self) -> usize {
        self.joined.lock().unwrap().len()
    }

    async fn joined_is(&self, n: usize) {
        let until = Instant::now() + SOON;
        while self.joined() != n {
            assert!(Instant::now() < until, "{} joined instead of {n}", self.joined());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Listens at the session's socket.
    fn listen(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let bound = socket::Bound::new(&self.dirs(), self.sid()).unwrap();
        tasks.spawn(attach::accept_all(Arc::clone(&self.server), bound, self.sid(), 8));
        tasks
    }

    /// A process with a connection that names `sid`; the connection's other end.
    fn attach(&self, sid: SessionId) -> (UnixStream, tokio::task::JoinHandle<bool>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(SOON)).unwrap();
        let fds = Fds::new(theirs.try_clone().unwrap().into(), theirs.into()).unwrap();
        let (server, dirs) = (Arc::clone(&self.server), self.dirs());
        let handed = tokio::spawn(async move { attach::hand_over(&server, &dirs, sid, fds).await });
        (ours, handed)
    }
}

fn run<F: Future>(test: F) -> F::Output {
    server::runtime().unwrap().block_on(test)
}

#[test]
fn a17_descriptors_are_handed_over_and_the_process_stays_until_they_are_closed() {
    run(async {
        let fake = Fake::new(3);
        let _tasks = fake.listen();
        let (mut ours, handed) = fake.attach(fake.sid());
        fake.joined_is(1).await;
        let (mut transport, _permit) = fake.joined.lock().unwrap().pop().unwrap();
        transport.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        ours.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        sleep(Duration::from_millis(50)).await;
        assert!(!handed.is_finished(), "sshd would close the channel");
        drop(transport);
        assert!(timeout(SOON, handed).await.unwrap().unwrap());
        assert_eq!(ours.read(&mut got).unwrap(), 0, "nobody holds it any more");
    });
}

#[test]
fn a17_an_id_without_a_session_is_told_nothing() {
    run(async {
        let fake = Fake::new(3);
        let _tasks = fake.listen();
        for sid in [SessionId([0; 16]), SessionId([255; 16])] {
            let (mut ours, handed) = fake.attach(sid);
            assert!(!handed.await.unwrap());
            assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0);
        }
        assert_eq!(fake.joined(), 0);
    });
}

#[test]
fn a19_no_more_processes_than_connections_were_agreed_on() {
    run(async {
        let fake = Fake::new(2);
        let _tasks = fake.listen();
        let (_first, _handed) = fake.attach(fake.sid());
        fake.joined_is(1).await;
        let (mut second, handed) = fake.attach(fake.sid());
        assert!(!handed.await.unwrap());
        assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
        fake.joined.lock().unwrap().clear();
        let (_third, _handed) = fake.attach(fake.sid());
        fake.joined_is(1).await;
    });
}

#[test]
fn a20_what_is_not_an_id_and_two_descriptors_is_closed_and_nothing_kept() {
    run(async {
        let fake = Fake::new(8);
        let _tasks = fake.listen();
        let sid = fake.sid().0;
        let mut wrong = sid;
        wrong[15] ^= 1;
        let long = [&sid[..], &[0]].concat();
        for (bytes, fds) in [
            (&sid[..], 0),
            (&sid, 1),
            (&sid, 3),
            (&sid, 9),
            (&sid[..15], 2),
            (&long, 2),
            (&[7; 1], 2),
            (&wrong, 2),
        ] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let mut stream = UnixStream::from(socket::find(&fake.dirs(), fake.sid()).unwrap());
            send_raw(&stream, bytes, &vec![writer.as_fd(); fds]);
            drop(writer);
            let closed = spawn_blocking(move || {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(SOON)).unwrap();
                (reader.read(&mut [0; 1]), stream.read(&mut [0; 1]))
            });
            let (read, answer) = closed.await.unwrap();
            assert_eq!(read.unwrap(), 0, "a descriptor of {fds} is kept");
            // A reset tells the same as a close.
            assert!(matches!(answer, Ok(0) | Err(_)), "{} bytes, {fds} descriptors", bytes.len());
        }
        assert_eq!(fake.joined(), 0);
    });
}

fn send_raw(stream: &UnixStream, bytes: &[u8], fds: &[std::os::fd::BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
}

#[test]
fn the_socket_goes_with_the_session() {
    run(async {
        let fake = Fake::new(2);
        let tasks = fake.listen();
        let entries = || std::fs::read_dir(&fake.dirs()[0]).unwrap().count();
        assert_eq!(entries(), 1);
        drop(tasks);
        tokio::task::yield_now().await;
        assert_eq!(entries(), 0);
    });
}

/// A port that is open for `client`, and what is offered there.
fn open(fake: &Fake, client: &Key, tasks: &mut JoinSet<()>) -> DirectOffer {
    let listening = direct::Listening::new("127.0.0.1 5 127.0.0.1 22", client.fingerprint());
    let listening = listening.unwrap();
    let offer = listening.offer();
    tasks.spawn(listening.accept_all(Arc::clone(&fake.server), 4));
    offer
}

/// Sends `bytes` there with the key `own`; what comes back until the server hangs up, or `None`
/// when it is silent for a while.
fn send_direct(offer: DirectOffer, own: &Key, bytes: &[u8]) -> Option<std::io::Result<Vec<u8>>> {
    let config = tls::client_config(own, ServerPin::Exactly(offer.fingerprint)).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", offer.port)).unwrap();
    let (tcp, conn) = match tls::connect(tcp, config, Instant::now() + SOON) {
        Ok(connected) => connected,
        Err(error) => return Some(Err(error)),
    };
    tcp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut stream = tokio_rustls::rustls::StreamOwned::new(conn, tcp);
    let mut answer = Vec::new();
    match stream.write_all(bytes).and_then(|()| stream.read_to_end(&mut answer)) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            // Kept for as long as the test looks who has joined.
            std::mem::forget(stream);
            None
        }
        done => Some(done.map(|_| answer)),
    }
}

fn attach_frame(sid: SessionId) -> Vec<u8> {
    let mut out = Vec::new();
    Opening::Attach(sid).encode(&mut out).unwrap();
    out
}

#[test]
fn a_direct_connection_with_the_right_key_joins() {
    run(async {
        let fake = Fake::new(3);
        let (client, mut tasks) = (Key::fresh().unwrap(), JoinSet::new());
        let offer = open(&fake, &client, &mut tasks);
        let frame = attach_frame(fake.sid());
        let sent = spawn_blocking(move || send_direct(offer, &client, &frame).is_none());
        assert!(sent.await.unwrap(), "the server hung up");
        fake.joined_is(1).await;
        assert!(matches!(fake.joined.lock().unwrap()[0].0, Transport::Tls(_)));
    });
}

#[test]
fn a18_other_keys_ids_and_openings_are_dropped() {
    run(async {
        let fake = Fake::new(3);
        let (client, mut tasks) = (Key::fresh().unwrap(), JoinSet::new());
        let offer = open(&fake, &client, &mut tasks);
        let right = attach_frame(fake.sid());
        let mut hello = Vec::new();
        Opening::Hello(Hello::ours(1)).encode(&mut hello).unwrap();
        let foreign = Key::fresh().unwrap();
        let wrong_id = attach_frame(SessionId([1; 16]));
        let all = spawn_blocking(move || {
            let try_it = |key, bytes: &[u8]| send_direct(offer, key, bytes).expect("a hang-up");
            assert!(try_it(&foreign, &right).is_err(), "another key");
            for bytes in [&hello, &wrong_id, &b"\xff\0\0"[..].to_vec()] {
                assert!(try_it(&client, bytes).map_or(true, |answer| answer.is_empty()));
            }
            let mut plain = TcpStream::connect(("127.0.0.1", offer.port)).unwrap();
            plain.set_read_timeout(Some(SOON)).unwrap();
            plain.write_all(&right).unwrap();
            assert!(plain.read_to_end(&mut Vec::new()).is_ok(), "no TLS");
        });
        all.await.unwrap();
        assert_eq!(fake.joined(), 0);
    });
}

#[test]
fn the_direct_port_closes_and_its_connections_stay() {
    run(async {
        let fake = Fake::new(3);
        let (client, mut tasks) = (Key::fresh().unwrap(), JoinSet::new());
        let offer = open(&fake, &client, &mut tasks);
        let frame = attach_frame(fake.sid());
        spawn_blocking(move || send_direct(offer, &client, &frame)).await.unwrap();
        fake.joined_is(1).await;
        timeout(SOON, tasks.join_next()).await.unwrap();
        assert!(TcpStream::connect(("127.0.0.1", offer.port)).is_err());
        assert_eq!(fake.joined(), 1);
    });
}
