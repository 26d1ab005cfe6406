//! The identification against the real kernel, with real processes under other uids.
//!
//! Each case runs with `sock_diag` and again (A10) as if a sandbox forbade it.

mod actor;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use self::actor::{Actor, can_become_others};
use super::diag_codec::Query;
use super::identity::Look;
use super::row::{TcpState, only_established};
use super::{
    End, Sources, Unknown, listener_owner, listener_owner_from, peer_uid_from, server_uid_from,
};

const ATTACKER: u32 = 12345;
const VICTIM: u32 = 23456;
const ANY_V4: &str = "127.0.0.1:0";

fn each_source(test: &str, case: impl Fn(Sources<'static>)) {
    if can_become_others(test) {
        for netlink in [true, false] {
            println!("{test}: netlink {netlink}");
            case(Sources { netlink, ..Sources::default() });
        }
    }
}

fn any() -> SocketAddr {
    ANY_V4.parse().unwrap()
}

/// A server of ours and a connection to it from a process of `uid`.
fn connected(uid: u32, from: &str, listen: &str) -> (TcpListener, Actor, TcpStream) {
    let listener = TcpListener::bind(listen).unwrap();
    let mut actor = Actor::with_uid(uid);
    let from: SocketAddr = from.parse().unwrap();
    let to = SocketAddr::new(from.ip(), listener.local_addr().unwrap().port());
    actor.connect(from, to);
    let stream = listener.accept().unwrap().0;
    (listener, actor, stream)
}

fn verdict(sources: &Sources<'_>, stream: &TcpStream) -> Result<u32, Unknown> {
    // After a reset the socket forgets its peer; fcpd has the address from accept.
    let peer = stream.peer_addr().unwrap();
    peer_uid_from(sources, stream, peer, stream.local_addr().unwrap())
}

fn server_verdict(sources: &Sources<'_>, stream: &TcpStream) -> Result<u32, Unknown> {
    server_uid_from(sources, stream, stream.peer_addr().unwrap(), stream.local_addr().unwrap())
}

#[test]
fn our_own_connection_is_ours() {
    for netlink in [true, false] {
        let sources = Sources { netlink, ..Sources::default() };
        for at in [ANY_V4, "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(at) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let stream = listener.accept().unwrap().0;
            let us = rustix::process::geteuid().as_raw();
            assert_eq!(verdict(&sources, &stream), Ok(us), "{at}");
            assert_eq!(server_verdict(&sources, &client), Ok(us), "{at}");
        }
    }
}

#[test]
fn a05_another_uid_is_told() {
    each_source("a05", |sources| {
        let (_listener, mut actor, stream) = connected(ATTACKER, ANY_V4, ANY_V4);
        assert_eq!(verdict(&sources, &stream), Ok(ATTACKER));
        actor.ask("send A");
        assert_eq!(verdict(&sources, &stream), Ok(ATTACKER), "bytes that wait change nothing");
    });
}

#[test]
fn a06_a_peer_that_closed_or_half_closed_is_refused() {
    each_source("a06", |sources| {
        for goodbye in ["close", "shutdown"] {
            let (_listener, mut actor, stream) = connected(ATTACKER, ANY_V4, ANY_V4);
            actor.ask("send A");
            actor.ask(goodbye);
            let gone = Err(Unknown::NotEstablished(End::Ours));
            assert_eq!(verdict(&sources, &stream), gone, "{goodbye}");
        }
    });
}

#[test]
fn a06_rows_of_a_closed_peer_convince_nobody() {
    each_source("a06 rows", |sources| {
        let (_listener, mut actor, stream) = connected(ATTACKER, ANY_V4, ANY_V4);
        let (peer, local) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
        let look = Look::begin(&sources, stream.as_fd(), peer, local).unwrap();
        actor.ask("close");
        let row = only_established(&look.their_rows().unwrap(), End::Theirs);
        assert_eq!(row, Err(Unknown::NotEstablished(End::Theirs)), "FIN_WAIT");
    });
}

/// The attack of A07: what the descriptor yields is the attacker's, what the table lists is the
/// victim's. `Look::begin` happens before it, as the worst moment would have it.
#[test]
fn a07_port_reuse_between_the_steps_is_caught() {
    each_source("a07", |sources| {
        let (listener, mut attacker, mut stream) = connected(ATTACKER, ANY_V4, ANY_V4);
        let (peer, local) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
        let look = Look::begin(&sources, stream.as_fd(), peer, local).unwrap();
        attacker.ask("reset");
        let mut victim = Actor::with_uid(VICTIM);
        victim.connect(peer, local);

        let row = only_established(&look.their_rows().unwrap(), End::Theirs).unwrap();
        assert_eq!(row.uid, VICTIM, "the attack works against the bare table");
        let by_address = Query { tuple: look.own.tuple, cookie: None };
        let ours = look.table.rows(&by_address).unwrap();
        assert_eq!(ours[0].state, TcpState::ESTABLISHED, "and against our addresses alone");

        let seen = look.own.sighting(&look.table).unwrap();
        assert_eq!(seen, Err(Unknown::NoSuchSocket(End::Ours)), "the table, asked for the socket");
        let end = look.own_end_still_established();
        assert_eq!(end, Err(Unknown::NotEstablished(End::Ours)), "step 3");
        let whole = peer_uid_from(&sources, &stream, peer, local);
        assert_eq!(whole, Err(Unknown::NotEstablished(End::Ours)), "step 1, had it come later");

        let second = listener.accept().unwrap().0;
        assert_eq!(verdict(&sources, &second), Ok(VICTIM), "the victim's own connection is served");
        let seen = look.own.sighting(&look.table).unwrap();
        assert_eq!(seen, Err(Unknown::NoSuchSocket(End::Ours)), "accepted, it has another inode");
        assert!(stream.read(&mut [0]).is_err());
    });
}

#[test]
fn a08_a_time_wait_row_on_the_same_port_is_passed_over() {
    each_source("a08", |sources| {
        let (_listener, mut root, first) = connected(0, ANY_V4, ANY_V4);
        let peer = first.peer_addr().unwrap();
        root.ask("close");
        drop(first);
        let listener = TcpListener::bind(ANY_V4).unwrap();
        let mut actor = Actor::with_uid(ATTACKER);
        actor.connect(peer, listener.local_addr().unwrap());
        let stream = listener.accept().unwrap().0;
        assert_eq!(verdict(&sources, &stream), Ok(ATTACKER));
    });
}

#[test]
fn a08_a_time_wait_row_of_the_same_tuple_is_passed_over() {
    if !can_become_others("a08 tuple") {
        return;
    }
    let (_listener, _actor, stream) = connected(ATTACKER, ANY_V4, ANY_V4);
    let theirs = their_line(&stream);
    let stale = rewrite(&theirs, &[(3, "06"), (7, "0"), (9, "0")]);
    let proc = FakeProc::with(&stream, |real| format!("{stale}\n{real}"));
    assert_eq!(verdict(&proc.sources(), &stream), Ok(ATTACKER));
    let proc = FakeProc::with(&stream, |_| stale.clone());
    let refused = Err(Unknown::NotEstablished(End::Theirs));
    assert_eq!(verdict(&proc.sources(), &stream), refused, "alone it is not uid 0");
    let twin = rewrite(&theirs, &[(7, "0"), (9, "77")]);
    let proc = FakeProc::with(&stream, |real| format!("{twin}\n{real}"));
    assert_eq!(verdict(&proc.sources(), &stream), Err(Unknown::Ambiguous(End::Theirs)));
    let orphan = rewrite(&theirs, &[(7, "0"), (9, "0")]);
    let proc = FakeProc::with(&stream, |_| orphan.clone());
    assert_eq!(verdict(&proc.sources(), &stream), Err(Unknown::Orphaned(End::Theirs)));
    let proc = FakeProc::with(&stream, |_| String::new());
    assert_eq!(verdict(&proc.sources(), &stream), Err(Unknown::NoSuchSocket(End::Theirs)));
}

/// Two users fight for one port as fast as they can; whoever's byte comes out of a descriptor must
/// be who was named for it.
#[test]
fn a09_no_interleaving_of_resets_names_the_wrong_user() {
    each_source("a09", |sources| {
        // A short queue, or a slow look-up would only ever meet peers that left long ago.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let listener = listener.unwrap();
        listener.bind(&any().into()).unwrap();
        listener.listen(3).unwrap();
        let listener = TcpListener::from(listener);
        let to = listener.local_addr().unwrap();
        let from = TcpListener::bind(ANY_V4).unwrap().local_addr().unwrap();
        let stop = tempfile::tempdir().unwrap();
        std::fs::set_permissions(stop.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let until = stop.path().join("stop");
        let mut actors = [(ATTACKER, "A"), (VICTIM, "V")].map(|(uid, text)| {
            let mut actor = Actor::with_uid(uid);
            actor.start(&format!("hammer {from} {to} {text} {}", until.display()));
            actor
        });
        let counts = referee(&sources, &listener);
        std::fs::write(&until, "").unwrap();
        // Whatever still waits in the queue is dropped, so that nobody waits for us.
        drop(listener);
        for actor in &mut actors {
            assert_eq!(actor.reply(), "ok");
        }
        println!("a09: named {}, refused {}, checked {:?}", counts.0, counts.1, counts.2);
        // The referee has checked every name that was given. Whether both sides of the race were
        // seen depends on the machine's mood.
        if counts.1 == 0 || counts.2.contains(&0) {
            println!("a09: this machine was too busy to see the race from both sides");
        }
    });
}

/// Gives how many were named, how many refused, and for how many of each user a byte agreed.
fn referee(sources: &Sources<'_>, listener: &TcpListener) -> (u32, u32, [u32; 2]) {
    let (mut named, mut refused, mut agreed) = (0, 0, [0; 2]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let enough = |n: u32, agreed: [u32; 2]| n >= 1000 && agreed.iter().all(|n| *n >= 5);
    while !enough(named + refused, agreed) && Instant::now() < deadline {
        let (mut stream, peer) = listener.accept().unwrap();
        let local = stream.local_addr().unwrap();
        if (named + refused) % 3 == 0 {
            std::thread::sleep(Duration::from_micros(u64::from(refused % 400)));
        }
        let Ok(uid) = peer_uid_from(sources, &stream, peer, local) else {
            refused += 1;
            continue;
        };
        named += 1;
        let mut byte = [0];
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        if matches!(stream.read(&mut byte), Ok(1)) {
            let (at, owner) = if byte == *b"A" { (0, ATTACKER) } else { (1, VICTIM) };
            assert_eq!(uid, owner, "the byte is of {owner}, the name of {uid}");
            agreed[at] += 1;
        }
    }
    (named, refused, agreed)
}

#[test]
fn a11_without_any_table_everybody_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    let sources = Sources { netlink: false, proc_root: empty.path() };
    let listener = TcpListener::bind(ANY_V4).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = listener.accept().unwrap().0;
    for end in [verdict(&sources, &stream), server_verdict(&sources, &client)] {
        assert!(matches!(end, Err(Unknown::NoKernelTable { .. })), "{end:?}");
    }
    let owner = listener_owner_from(&sources, listener.local_addr().unwrap());
    assert!(matches!(owner, Err(Unknown::NoKernelTable { .. })), "{owner:?}");
    let us = rustix::process::geteuid().as_raw();
    let sources = Sources { netlink: true, ..sources };
    assert_eq!(verdict(&sources, &stream), Ok(us), "sock_diag alone is enough");
}

#[test]
fn a12_an_overflow_uid_is_nobody() {
    each_source("a12", |sources| {
        let (_listener, _actor, stream) = connected(65534, ANY_V4, ANY_V4);
        assert_eq!(verdict(&sources, &stream), Err(Unknown::Unmapped(65534)));
        let (_listener, _actor, stream) = connected(ATTACKER, ANY_V4, ANY_V4);
        let proc = FakeProc::with(&stream, str::to_owned);
        std::fs::create_dir_all(proc.0.path().join("sys/kernel")).unwrap();
        std::fs::write(proc.0.path().join("sys/kernel/overflowuid"), "12345\n").unwrap();
        let sources = Sources { netlink: sources.netlink, ..proc.sources() };
        assert_eq!(verdict(&sources, &stream), Err(Unknown::Unmapped(ATTACKER)));
    });
}

#[test]
fn a13_a_mapped_address_gets_the_verdict_of_v4() {
    each_source("a13", |sources| {
        let (_listener, mut actor, stream) = connected(ATTACKER, ANY_V4, "[::]:0");
        assert!(stream.peer_addr().unwrap().is_ipv6(), "the address is mapped");
        assert_eq!(verdict(&sources, &stream), Ok(ATTACKER));
        actor.ask("close");
        assert_eq!(verdict(&sources, &stream), Err(Unknown::NotEstablished(End::Ours)));
        let (_listener, _actor, stream) = connected(ATTACKER, "[::1]:0", "[::]:0");
        assert_eq!(verdict(&sources, &stream), Ok(ATTACKER), "::1");
        let mapped = connected(ATTACKER, "[::ffff:127.0.0.1]:0", ANY_V4);
        assert_eq!(verdict(&sources, &mapped.2), Ok(ATTACKER), "the peer's end is the mapped one");
    });
}

#[test]
fn a25_root_is_named_as_root() {
    each_source("a25", |sources| {
        let (_listener, _actor, stream) = connected(0, ANY_V4, ANY_V4);
        assert_eq!(verdict(&sources, &stream), Ok(0));
    });
}

#[test]
fn only_loopback_is_looked_up() {
    let listener = TcpListener::bind(ANY_V4).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let local = stream.local_addr().unwrap();
    for far in ["192.0.2.1:7523", "[2001:db8::1]:7523", "[::ffff:192.0.2.1]:7523", "0.0.0.0:7523"] {
        let far: SocketAddr = far.parse().unwrap();
        let refused = Err(Unknown::NotLoopback(far));
        assert_eq!(peer_uid_from(&Sources::default(), &stream, far, local), refused);
        assert_eq!(server_uid_from(&Sources::default(), &stream, local, far), refused);
        assert_eq!(listener_owner(far), refused);
    }
}

#[test]
fn addresses_that_are_not_the_descriptors_are_refused() {
    each_source("wrong addresses", |sources| {
        let (_l1, _a1, mine) = connected(ATTACKER, ANY_V4, ANY_V4);
        let (_l2, _a2, other) = connected(VICTIM, ANY_V4, ANY_V4);
        let (peer, local) = (other.peer_addr().unwrap(), other.local_addr().unwrap());
        let refused = Err(Unknown::NoSuchSocket(End::Ours));
        assert_eq!(peer_uid_from(&sources, &mine, peer, local), refused);
    });
}

#[test]
fn a_socket_connected_to_itself_is_no_server() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&any().into()).unwrap();
    let own = socket.local_addr().unwrap();
    socket.connect(&own).unwrap();
    let stream = TcpStream::from(socket);
    let addr = stream.local_addr().unwrap();
    assert_eq!(server_verdict(&Sources::default(), &stream), Err(Unknown::SelfConnected(addr)));
}

#[test]
fn a21_a_squatter_is_named_before_and_after_it_accepts() {
    each_source("a21", |sources| {
        for at in [ANY_V4, "0.0.0.0:0", "[::]:0"] {
            let mut squatter = Actor::with_uid(ATTACKER);
            let port = squatter.listen(at.parse().unwrap()).port();
            let addr = SocketAddr::new(any().ip(), port);
            assert_eq!(listener_owner_from(&sources, addr), Ok(ATTACKER), "{at}");
            let client = TcpStream::connect(addr).unwrap();
            assert_eq!(server_verdict(&sources, &client), Ok(ATTACKER), "{at} in the queue");
            squatter.ask("accept");
            assert_eq!(server_verdict(&sources, &client), Ok(ATTACKER), "{at} accepted");
            squatter.ask("unlisten");
            assert_eq!(server_verdict(&sources, &client), Ok(ATTACKER), "{at} listener gone");
            let nobody = Err(Unknown::NoSuchSocket(End::Listener));
            assert_eq!(listener_owner_from(&sources, addr), nobody, "{at}");
        }
    });
}

/// The finding that `server_uid` documents: what a server's end shows before it is accepted.
#[test]
fn an_unaccepted_server_end_has_no_inode() {
    each_source("unaccepted", |sources| {
        let mut server = Actor::with_uid(ATTACKER);
        let addr = server.listen(any());
        let client = TcpStream::connect(addr).unwrap();
        let local = client.local_addr().unwrap();
        let look = Look::begin(&sources, client.as_fd(), addr, local).unwrap();
        let row = only_established(&look.their_rows().unwrap(), End::Theirs).unwrap();
        assert_eq!(row.inode, 0);
        assert!([0, ATTACKER].contains(&row.uid), "0 before Linux 6.17 or so, then the listener's");
        assert_eq!(
            peer_uid_from(&sources, &client, addr, local),
            Err(Unknown::Orphaned(End::Theirs))
        );
    });
}

#[test]
fn an_unaccepted_end_of_a_closed_listener_is_refused() {
    each_source("closed listener", |sources| {
        let mut squatter = Actor::with_uid(ATTACKER);
        let addr = squatter.listen(any());
        let client = TcpStream::connect(addr).unwrap();
        let local = client.local_addr().unwrap();
        let look = Look::begin(&sources, client.as_fd(), addr, local).unwrap();
        squatter.ask("unlisten");
        let _ours_now = TcpListener::bind(addr).unwrap();
        let refused = Err(Unknown::NotEstablished(End::Ours));
        assert_eq!(look.own_end_still_established(), refused);
    });
}

#[test]
fn a_half_open_server_end_is_the_listeners() {
    if !can_become_others("half open") {
        return;
    }
    let mut server = Actor::with_uid(ATTACKER);
    let client = TcpStream::connect(server.listen(any())).unwrap();
    let theirs = their_line(&client);
    let half_open = rewrite(&theirs, &[(3, "03"), (7, "0"), (9, "0")]);
    let proc = FakeProc::with(&client, |_| half_open.clone());
    assert_eq!(server_verdict(&proc.sources(), &client), Ok(ATTACKER));
}

/// A procfs whose TCP table is the real one, tampered with.
struct FakeProc(tempfile::TempDir);

impl FakeProc {
    /// `tamper` gets the line of the other end of `stream`, and gives what stands in its place.
    fn with(stream: &TcpStream, tamper: impl Fn(&str) -> String) -> FakeProc {
        let change = |line: &str| match is_theirs(line, stream) {
            true => tamper(line) + "\n",
            false => line.to_owned() + "\n",
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("net")).unwrap();
        let table: String = real_table().lines().map(change).collect();
        std::fs::write(dir.path().join("net/tcp"), table).unwrap();
        FakeProc(dir)
    }

    fn sources(&self) -> Sources<'_> {
        Sources { netlink: false, proc_root: self.0.path() }
    }
}

fn real_table() -> String {
    std::fs::read_to_string(Path::new("/proc/net/tcp")).unwrap()
}

/// The line of the other end of `stream` in the real table.
fn their_line(stream: &TcpStream) -> String {
    let table = real_table();
    table.lines().find(|line| is_theirs(line, stream)).unwrap().to_owned()
}

fn is_theirs(line: &str, stream: &TcpStream) -> bool {
    let port = |addr: SocketAddr| format!(":{:04X}", addr.port());
    let (theirs, ours) = (port(stream.peer_addr().unwrap()), port(stream.local_addr().unwrap()));
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    fields[1].ends_with(&theirs) && fields[2].ends_with(&ours)
}

fn rewrite(line: &str, changes: &[(usize, &str)]) -> String {
    let mut fields: Vec<&str> = line.split_ascii_whitespace().collect();
    for (at, value) in changes {
        fields[*at] = value;
    }
    fields.join(" ")
}
