//! Whole transfers in this process over real sockets, some of them spare.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{Durability, Summary};
use fcp_proto::version::{Agreed, Hello, negotiate};
use fcp_proto::{Flag, frame};

use super::*;
use crate::fs::DirPool;
use crate::transfer::{Config, Help};
use crate::walk::{SourceRoot, WalkOptions};

const IDLE: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(600);
const SMALL_FILES: usize = 300;
const LARGE: usize = 12 << 20;

/// What the sender wrote to a connection, up to a point where that fails.
#[derive(Clone)]
struct Tap {
    seen: Arc<Mutex<Vec<u8>>>,
    fails_after: usize,
    /// What every write takes.
    pause: Duration,
}

struct Tapped(Box<dyn Write + Send>, Tap);

impl Write for Tapped {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let Tapped(inner, Tap { seen, fails_after, pause }) = self;
        thread::sleep(*pause);
        let mut seen = seen.lock().unwrap();
        if seen.len() >= *fails_after {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let n = inner.write_vectored(bufs)?;
        let written = bufs.iter().flat_map(|buf| buf.iter().copied()).take(n);
        seen.extend(written);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Tap {
    fn new() -> Tap {
        Tap { seen: Arc::default(), fails_after: usize::MAX, pause: Duration::ZERO }
    }

    /// Content bytes of whole frames.
    fn content(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        let (mut at, mut content) = (0, 0);
        while let Ok(Some((frame, used))) = frame::decode(&seen[at..]) {
            at += used;
            if matches!(frame.flag, Flag::DATA | Flag::WHOLE) {
                content += frame.payload.len();
            }
        }
        content
    }
}

/// A connection's ends for the sender and the receiver.
fn connection(tap: &Tap) -> (Duplex, Duplex) {
    let (a, b) = UnixStream::pair().unwrap();
    let end = |stream: UnixStream| {
        let writer = stream.try_clone().unwrap();
        Duplex::fds(stream.into(), writer.into(), IDLE).unwrap()
    };
    let Duplex { reader, writer, close, hold } = end(a);
    let writer = Box::new(Tapped(writer, tap.clone()));
    (Duplex { reader, writer, close, hold }, end(b))
}

/// A sending and a receiving session that run.
struct Pair {
    home: tempfile::TempDir,
    began: Instant,
    inlets: (Connections, Connections),
    sent: thread::JoinHandle<Ended<Summary>>,
    received: thread::JoinHandle<Ended<Summary>>,
}

impl Pair {
    fn start(conns: Vec<(Duplex, Duplex)>) -> Pair {
        let home = tempfile::tempdir().unwrap();
        make_tree(&home.path().join("from"));
        let (ours, theirs) = conns.into_iter().unzip();
        let (a, b) = (Inlet::new(), Inlet::new());
        let inlets = (a.connections(), b.connections());
        let (send, receive) = (send_options(home.path()), receive_options(home.path()));
        let sent = thread::spawn(move || super::send(send, ours, a));
        let received = thread::spawn(move || super::receive(receive, theirs, b));
        Pair { home, began: Instant::now(), inlets, sent, received }
    }

    fn join(&self, (a, b): (Duplex, Duplex)) {
        self.inlets.0.add(a);
        self.inlets.1.add(b);
    }

    /// Waits for the end and compares the trees; answers how long it all took.
    fn finish(self) -> Duration {
        let summary = self.sent.join().unwrap().unwrap();
        assert_eq!(self.received.join().unwrap().unwrap(), summary);
        let took = self.began.elapsed();
        assert_eq!((summary.failed, summary.received), (0, total()));
        let read = |dir: &str, name: &str| std::fs::read(self.home.path().join(dir).join(name));
        for name in (0..SMALL_FILES).map(|i| i.to_string()).chain(["large".into()]) {
            assert!(read("from", &name).unwrap() == read("to", &name).unwrap(), "{name}");
        }
        took
    }
}

fn total() -> u64 {
    (LARGE + (0..SMALL_FILES).sum::<usize>()) as u64
}

fn make_tree(root: &Path) {
    std::fs::create_dir(root).unwrap();
    for i in 0..SMALL_FILES {
        std::fs::write(root.join(i.to_string()), vec![i as u8; i]).unwrap();
    }
    let large: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8).collect();
    std::fs::write(root.join("large"), large).unwrap();
}

fn agreed() -> Agreed {
    negotiate(&Hello::ours(8), &Hello::ours(8)).unwrap()
}

fn send_options(home: &Path) -> SendOptions {
    let source = [home.as_os_str().as_encoded_bytes(), b"/from/"].concat();
    SendOptions {
        agreed: agreed(),
        request: RequestBy::Nobody,
        roots: vec![SourceRoot::open(&source, &DirPool::new(8)).unwrap()],
        walk: WalkOptions { recursive: true, ..WalkOptions::default() },
        problems: Vec::new(),
        report: Arc::new(NoReport),
        counters: Arc::default(),
    }
}

fn receive_options(home: &Path) -> ReceiveOptions {
    let to = home.join("to");
    let config = Config {
        checksum: false,
        dry_run: false,
        perms: true,
        times: true,
        links: false,
        umask: 0o022,
        one_thing: false,
        report: false,
        admits: None,
        root_meta: crate::transfer::RootMetaRule::Take,
    };
    ReceiveOptions {
        agreed: agreed(),
        request: RequestBy::Nobody,
        open_now: false,
        destination: Box::new(move |_| {
            Destination::open(to.as_os_str().as_encoded_bytes(), DestinationOptions::default())
        }),
        config,
        durability: Durability::None,
        report: Arc::new(NoReport),
        counters: Arc::default(),
    }
}

fn spare((a, b): (Duplex, Duplex), hold: Duration) -> (Duplex, Duplex) {
    (a.spare(hold, Help::BesideYoung), b.spare(hold, Help::BesideYoung))
}

#[test]
fn a_spare_connection_carries_a_little_at_a_time_beside_others() {
    let slow = Tap { pause: Duration::from_millis(100), ..Tap::new() };
    let busy = Tap::new();
    let conns = vec![spare(connection(&slow), Duration::ZERO), connection(&busy)];
    Pair::start(conns).finish();
    assert!(slow.content() <= 4 * BLOCK as usize, "{}", slow.content());
    assert!(busy.content() >= LARGE - 4 * BLOCK as usize, "{}", busy.content());
    assert!(!slow.seen.lock().unwrap().is_empty(), "the first connection carries the messages");
}

#[test]
fn a_spare_connection_alone_carries_everything_hold_or_not() {
    for hold in [Duration::ZERO, Duration::from_millis(700), LONG] {
        let tap = Tap::new();
        let took = Pair::start(vec![spare(connection(&tap), hold)]).finish();
        assert!(tap.content() as u64 > total());
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[test]
fn most_content_waits_for_a_connection_that_joins_within_the_hold() {
    // Hardly a block gets through before the other comes.
    let slow = Tap { pause: Duration::from_millis(100), ..Tap::new() };
    let late = Tap::new();
    let pair = Pair::start(vec![spare(connection(&slow), LONG)]);
    thread::sleep(Duration::from_millis(200));
    pair.join(connection(&late));
    pair.finish();
    assert!(slow.content() <= 4 * BLOCK as usize, "{}", slow.content());
    assert!(late.content() >= LARGE - 4 * BLOCK as usize, "{}", late.content());
}

#[test]
fn d05_a_spare_connection_takes_over_when_the_last_other_is_lost() {
    let idle = Tap { pause: Duration::from_millis(20), ..Tap::new() };
    let busy = [2, 5].map(|blocks| Tap { fails_after: blocks * BLOCK as usize, ..Tap::new() });
    let [first, second] = &busy;
    let conns =
        vec![spare(connection(&idle), Duration::ZERO), connection(first), connection(second)];
    let took = Pair::start(conns).finish();
    let by_others: usize = busy.iter().map(Tap::content).sum();
    assert!(by_others > 4 * BLOCK as usize && idle.content() > BLOCK as usize);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_connection_that_is_closed_from_outside_hands_over_to_the_spare_one() {
    let slow = Tap { pause: Duration::from_millis(50), ..Tap::new() };
    let (idle, tap) = (Tap::new(), slow);
    let (a, b) = UnixStream::pair().unwrap();
    let cut = a.try_clone().unwrap();
    let end = |stream: UnixStream| {
        let writer = stream.try_clone().unwrap();
        Duplex::fds(stream.into(), writer.into(), IDLE).unwrap()
    };
    let direct = end(a);
    let direct = Duplex { writer: Box::new(Tapped(direct.writer, tap.clone())), ..direct };
    let pair = Pair::start(vec![spare(connection(&idle), Duration::ZERO), (direct, end(b))]);
    while tap.seen.lock().unwrap().len() < BLOCK as usize {
        thread::yield_now();
    }
    cut.shutdown(Shutdown::Both).unwrap();
    pair.finish();
    assert!(idle.content() > 0);
}
