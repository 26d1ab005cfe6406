//! A TCP proxy on loopback that does to connections what bad networks do.
//!
//! It runs in the test's process, and so belongs to the same user as both ends: fcp accepts it as a
//! listener, and fcpd as a peer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a waiting thread looks whether the test is over.
const TICK: Duration = Duration::from_millis(5);
/// Bytes moved at once where nothing asks for fewer.
const CHUNK: usize = 64 << 10;

/// What happens to the bytes of one direction of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lane {
    /// After so many bytes the connection ends, in both directions.
    pub cut_after: Option<u64>,
    /// After so many bytes nothing is read any more; nobody is told.
    pub stall_after: Option<u64>,
    /// Bits that change in the byte at this place.
    pub corrupt: Option<(u64, u8)>,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// Every piece waits so long before it goes on.
    pub delay: Duration,
    /// How far the other end is: everything arrives so much later, however much is under way.
    pub latency: Duration,
    /// Bytes that go on at once, at most.
    pub piece: Option<usize>,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// From the client to the server.
    pub up: Lane,
    /// From the server to the client.
    pub down: Lane,
}

impl Plan {
    /// The same fault in both directions.
    pub fn both(lane: Lane) -> Plan {
        Plan { up: lane, down: lane }
    }

    /// A fault on the way to the server.
    pub fn up(lane: Lane) -> Plan {
        Plan { up: lane, ..Plan::default() }
    }

    /// A fault on the way to the client.
    pub fn down(lane: Lane) -> Plan {
        Plan { down: lane, ..Plan::default() }
    }
}

impl Lane {
    /// Ends after so many bytes.
    pub fn cut(after: u64) -> Lane {
        Lane { cut_after: Some(after), ..Lane::default() }
    }

    /// Falls silent after so many bytes.
    pub fn stall(after: u64) -> Lane {
        Lane { stall_after: Some(after), ..Lane::default() }
    }

    /// Changes `bits` of the byte at `at`.
    pub fn corrupt(at: u64, bits: u8) -> Lane {
        Lane { corrupt: Some((at, bits)), ..Lane::default() }
    }

    /// Moves so many bytes per second.
    pub fn rate(rate: u64) -> Lane {
        Lane { rate: Some(rate), ..Lane::default() }
    }

    /// A path so long, without bounds on what is under way.
    pub fn latency(latency: Duration) -> Lane {
        Lane { latency, ..Lane::default() }
    }

    fn chunk(&self) -> usize {
        // A tenth of a second at a time, so that a slow lane flows evenly.
        let even = self.rate.map_or(CHUNK, |rate| (rate / 10).clamp(1, CHUNK as u64) as usize);
        self.piece.unwrap_or(CHUNK).min(even)
    }
}

/// A running proxy; every connection ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicUsize,
    up: AtomicU64,
    down: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Listens on a free loopback port; `plan` is told the number of each connection, from 0.
    pub fn start(
        server: SocketAddr,
        plan: impl Fn(usize) -> Plan + Send + Sync + 'static,
    ) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept_all(&listener, server, &own, &plan));
        Proxy { port, shared, acceptor: Some(acceptor) }
    }

    /// `fcp://127.0.0.1:<port><path>` through the proxy.
    pub fn url(&self, path: &std::path::Path) -> String {
        format!("fcp://127.0.0.1:{}{}", self.port, path.display())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Relaxed)
    }

    /// Bytes that went up and down so far.
    pub fn moved(&self) -> (u64, u64) {
        (self.shared.up.load(Relaxed), self.shared.down.load(Relaxed))
    }

    /// Ends all connections that are open now, at once.
    pub fn cut_all(&self) {
        let open = std::mem::take(&mut *self.shared.open.lock().unwrap());
        open.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.cut_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept_all(
    listener: &TcpListener,
    server: SocketAddr,
    shared: &Arc<Shared>,
    plan: &(impl Fn(usize) -> Plan + Send + Sync),
) {
    while !shared.stop.load(Relaxed) {
        match listener.accept() {
            Ok((client, _)) => {
                let number = shared.accepted.fetch_add(1, Relaxed);
                // A server that does not answer shows itself to the client as a lost connection.
                let _ = serve(client, server, shared, plan(number));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TICK / 5),
            Err(error) => panic!("the proxy cannot accept: {error}"),
        }
    }
}

fn serve(
    client: TcpStream,
    server: SocketAddr,
    shared: &Arc<Shared>,
    plan: Plan,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
    }
    shared.open.lock().unwrap().extend([client.try_clone()?, server.try_clone()?]);
    let pairs = [
        (client.try_clone()?, server.try_clone()?, plan.up, true),
        (server, client, plan.down, false),
    ];
    for (from, to, lane, is_up) in pairs {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let moved = if is_up { &shared.up } else { &shared.down };
            // An error is the end of the connection for both ends.
            if pump(&from, &to, lane, &shared.stop, moved).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            }
        });
    }
    Ok(())
}

fn pump(
    mut from: &TcpStream,
    to: &TcpStream,
    lane: Lane,
    stop: &AtomicBool,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut far = Far::new(to, lane.latency)?;
    let (mut buffer, mut at) = (vec![0; lane.chunk()], 0);
    loop {
        if lane.stall_after.is_some_and(|limit| at >= limit) {
            return wait(stop, Duration::MAX);
        }
        let limit = [lane.stall_after, lane.cut_after].into_iter().flatten().min();
        let room = limit.map_or(buffer.len(), |l| buffer.len().min((l - at) as usize));
        if room == 0 {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let n = from.read(&mut buffer[..room])?;
        if n == 0 {
            return far.put(None);
        }
        if let Some((place, bits)) = lane.corrupt
            && (at..at + n as u64).contains(&place)
        {
            buffer[(place - at) as usize] ^= bits;
        }
        let slow =
            lane.rate.map_or(Duration::ZERO, |r| Duration::from_secs_f64(n as f64 / r as f64));
        wait(stop, lane.delay + slow)?;
        far.put(Some(&buffer[..n]))?;
        at += n as u64;
        moved.fetch_add(n as u64, Relaxed);
    }
}

/// The end of a lane: there, or far away.
enum Far<'a> {
    Here(&'a TcpStream),
    Away { latency: Duration, line: mpsc::Sender<(Instant, Option<Vec<u8>>)> },
}

impl<'a> Far<'a> {
    fn new(to: &'a TcpStream, latency: Duration) -> io::Result<Far<'a>> {
        if latency.is_zero() {
            return Ok(Far::Here(to));
        }
        let (line, due) = mpsc::channel::<(Instant, Option<Vec<u8>>)>();
        let to = to.try_clone()?;
        thread::spawn(move || {
            for (at, bytes) in due {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if put(&to, bytes.as_deref()).is_err() {
                    let _ = to.shutdown(Shutdown::Both);
                }
            }
        });
        Ok(Far::Away { latency, line })
    }

    /// Passes on bytes, or that there are no more.
    fn put(&mut self, bytes: Option<&[u8]>) -> io::Result<()> {
        match self {
            Far::Here(to) => put(to, bytes),
            Far::Away { latency, line } => {
                let _ = line.send((Instant::now() + *latency, bytes.map(<[u8]>::to_vec)));
                Ok(())
            }
        }
    }
}

fn put(mut to: &TcpStream, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes {
        Some(bytes) => to.write_all(bytes),
        None => to.shutdown(Shutdown::Write),
    }
}

/// Sleeps, but not beyond the test's end.
fn wait(stop: &AtomicBool, mut left: Duration) -> io::Result<()> {
    while !left.is_zero() {
        if stop.load(Relaxed) {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let nap = left.min(TICK);
        thread::sleep(nap);
        left -= nap;
    }
    Ok(())
}
