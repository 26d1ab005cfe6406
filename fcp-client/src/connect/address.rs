//! From a host's name to a connection: all of its addresses, each tried, until a moment and no
//! longer.
//!
//! As RFC 8305 has it: the second address is tried when the first one failed or kept silent for a
//! quarter of a second, and the first success counts. Each step that nobody can bound (the
//! resolver, above all) runs in a thread that is left alone when its time is up.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long an address may keep silent before the next one is tried beside it (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// More than any host has by design; the resolver's answer is not ours.
const MAX_ADDRESSES: usize = 16;
const STACK: usize = 256 << 10;

/// Which addresses count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Family {
    /// All.
    #[default]
    Any,
    /// `-4`.
    V4,
    /// `-6`.
    V6,
}

/// The addresses of `host`, a name or an address without brackets: best first, families taking
/// turns.
///
/// # Errors
/// It has none that count, or the resolver took longer than until `end`.
pub fn resolve(host: &str, port: u16, family: Family, end: Instant) -> io::Result<Vec<SocketAddr>> {
    let name = host.to_owned();
    let found = until(end, move || {
        (name.as_str(), port).to_socket_addrs().map(|all| all.collect::<Vec<_>>())
    })?;
    let found = in_turns(found.into_iter().filter(|address| family.counts(*address)));
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no such address"));
    }
    Ok(found)
}

/// Calls `attempt` with each address and the moment when its time is up; answers with its first
/// success and the address that had it.
///
/// # Errors
/// No address had one; with what each one said.
pub fn race<T: Send + 'static>(
    addresses: Vec<SocketAddr>,
    end: Instant,
    attempt: impl Fn(SocketAddr, Instant) -> io::Result<T> + Send + Sync + 'static,
) -> io::Result<(SocketAddr, T)> {
    let attempt = Arc::new(attempt);
    let (sender, results) = mpsc::channel();
    let (mut waiting, mut under_way) = (addresses.into_iter(), 0);
    let mut failures = Failures::default();
    let mut next = Instant::now();
    loop {
        if next <= Instant::now()
            && let Some(address) = waiting.next()
        {
            let (attempt, sender) = (Arc::clone(&attempt), sender.clone());
            // Whoever comes too late finds nobody who takes the result, which closes it.
            spawn("fcp-dial", move || drop(sender.send((address, attempt(address, end)))))?;
            under_way += 1;
            next = Instant::now() + STAGGER;
        }
        if under_way == 0 {
            return Err(failures.into_error());
        }
        let until = if waiting.len() > 0 { next.min(end) } else { end };
        match results.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((address, Ok(success))) => return Ok((address, success)),
            Ok((address, Err(error))) => {
                failures.add(address, error);
                under_way -= 1;
                next = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
            Err(_) => return Err(failures.or_timeout()),
        }
    }
}

/// Connects, until `end`; answers with the round trip that it took.
///
/// # Errors
/// The system's.
pub fn connect(address: SocketAddr, end: Instant) -> io::Result<(TcpStream, Duration)> {
    let started = Instant::now();
    let left = end.saturating_duration_since(started);
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let stream = TcpStream::connect_timeout(&address, left)?;
    Ok((stream, started.elapsed()))
}

impl Family {
    fn counts(self, address: SocketAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

/// Keeps the resolver's order (RFC 6724) within a family, and puts the second family's first
/// address second, so that one broken family costs one attempt.
fn in_turns(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = found.collect();
    found.dedup();
    let first_is_v4 = found.first().is_some_and(SocketAddr::is_ipv4);
    let (a, b): (Vec<_>, Vec<_>) = found.into_iter().partition(|x| x.is_ipv4() == first_is_v4);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let turns = std::iter::from_fn(|| Some([a.next(), b.next()]).filter(|pair| *pair != [None; 2]));
    turns.flatten().flatten().take(MAX_ADDRESSES).collect()
}

/// Runs something that cannot be bounded.
fn until<T: Send + 'static>(
    end: Instant,
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = mpsc::channel();
    spawn("fcp-resolve", move || drop(sender.send(run())))?;
    result
        .recv_timeout(end.saturating_duration_since(Instant::now()))
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the resolver is slow")))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    builder.spawn(run).map(drop)
}

/// What the addresses said; the kind of the first one stands for all.
#[derive(Default)]
struct Failures(Vec<(SocketAddr, io::Error)>);

impl Failures {
    fn add(&mut self, address: SocketAddr, error: io::Error) {
        self.0.push((address, error));
    }

    fn or_timeout(self) -> io::Error {
        if self.0.is_empty() { io::ErrorKind::TimedOut.into() } else { self.into_error() }
    }

    fn into_error(mut self) -> io::Error {
        if self.0.len() == 1
            && let Some((_, only)) = self.0.pop()
        {
            return only;
        }
        let Some((_, first)) = self.0.first() else { return io::ErrorKind::NotFound.into() };
        let all: Vec<String> = self.0.iter().map(|(at, error)| format!("{at}: {error}")).collect();
        io::Error::new(first.kind(), all.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let [a, b, c] = ["[::1]:1", "[::2]:1", "[::3]:1"].map(at);
        let [d, e] = ["10.0.0.1:1", "10.0.0.2:1"].map(at);
        assert_eq!(in_turns([a, b, c, d, e].into_iter()), [a, d, b, e, c]);
        assert_eq!(in_turns([d, d, e].into_iter()), [d, e]);
        assert_eq!(in_turns(vec![a; 0].into_iter()), []);
        let many = (0..99).map(|port| SocketAddr::new(d.ip(), port));
        assert_eq!(in_turns(many).len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_name_has_addresses_of_the_wanted_family() {
        let found = resolve("localhost", 7, Family::V4, soon()).unwrap();
        assert_eq!(found, [at("127.0.0.1:7")]);
        assert_eq!(resolve("::1", 7, Family::Any, soon()).unwrap(), [at("[::1]:7")]);
        resolve("::1", 7, Family::V4, soon()).unwrap_err();
        resolve("127.0.0.1", 7, Family::V6, soon()).unwrap_err();
    }

    #[test]
    fn the_first_that_answers_counts_and_a_silent_one_costs_a_quarter_of_a_second() {
        let (silent, good) = (at("127.0.0.1:1"), at("127.0.0.1:2"));
        let started = Instant::now();
        let won = race(vec![silent, good], soon(), move |address, _| {
            let wait = if address == silent { Duration::from_secs(4) } else { Duration::ZERO };
            std::thread::sleep(wait);
            Ok(())
        });
        assert_eq!(won.unwrap().0, good);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[test]
    fn a_failure_is_followed_by_the_next_address_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let started = Instant::now();
        let (won, _) = race(vec![closed, good], soon(), connect).unwrap();
        assert_eq!(won, good);
        assert!(started.elapsed() < STAGGER, "{:?}", started.elapsed());
    }

    #[test]
    fn all_failures_are_told() {
        let fail = |_, _| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = race(vec![at("10.0.0.1:1"), at("10.0.0.2:1")], soon(), fail).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let text = error.to_string();
        assert!(text.contains("10.0.0.1:1") && text.contains("10.0.0.2:1"), "{text}");
        race(Vec::new(), soon(), fail).unwrap_err();
    }

    #[test]
    fn the_end_is_the_end() {
        let end = Instant::now() + Duration::from_millis(300);
        let sleep = |_, _| {
            std::thread::sleep(Duration::from_secs(3));
            Ok(())
        };
        let error = race(vec![at("10.0.0.1:1"); 2], end, sleep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(end.elapsed() < Duration::from_secs(1));
        let late = until(Instant::now(), || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(())
        });
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
