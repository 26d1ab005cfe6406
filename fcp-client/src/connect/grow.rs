//! The thread that opens further connections while a session runs, as its [`Ramp`] decides.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use fcp_common::engine::{Connections, Counters, Duplex};

use super::ramp::{Ramp, Step};

/// How often the counters are looked at.
const SAMPLE: Duration = Duration::from_millis(250);
/// No thread here holds more than a handshake.
const STACK: usize = 256 << 10;

/// Opens one more connection of the session, attached and ready to carry content. It blocks, for a
/// bounded time.
pub type Dial = Arc<dyn Fn() -> io::Result<Duplex> + Send + Sync>;

/// The session that further connections are opened for.
#[derive(Clone)]
pub struct Session {
    /// Its inlet.
    pub connections: Connections,
    /// Its numbers.
    pub counters: Arc<Counters>,
}

/// How further connections are opened.
pub struct Prepared {
    /// How many, and when; the session's first connection of this kind counts.
    pub ramp: Ramp,
    /// That first connection, when the session does not have it yet.
    pub first: Option<Duplex>,
    /// Further ones that are being opened already.
    pub early: Option<Early>,
    /// Opens one; called from several threads at once.
    pub dial: Dial,
}

/// Connections that are on their way.
pub struct Early {
    /// How many were tried.
    pub count: u16,
    /// Those that come about; it ends with the last.
    pub come: Receiver<Duplex>,
}

/// Opens no more connections once it is dropped; keep it while the session runs.
///
/// Nobody waits for a connection that is being opened: its thread ends by itself, and the process
/// does not wait for it.
#[must_use = "dropping it ends the growth"]
pub struct Growth {
    is_over: Arc<AtomicBool>,
    news: Sender<News>,
}

enum News {
    /// A connection could not be opened.
    Refused(io::Error),
    /// The session has ended.
    Over,
}

impl Growth {
    /// Starts the thread, which first runs `prepare`; an error of that, which it has told itself,
    /// is the end. A session without further connections is slower, not wrong, so this does not
    /// fail.
    pub fn start(
        session: Session,
        prepare: impl FnOnce() -> io::Result<Prepared> + Send + 'static,
    ) -> Growth {
        let (news, inbox) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let growth = Growth { is_over: Arc::clone(&is_over), news: news.clone() };
        spawn("fcp-grow", move || {
            let Ok(Prepared { ramp, first, early, dial }) = prepare() else { return };
            // The first one is there, or is about to be.
            let alive = Arc::new(AtomicU16::new(1));
            let thread = Thread { session, ramp, dial, alive, is_over, news };
            first.into_iter().for_each(|first| thread.add(first));
            let begun = early.map_or(0, |early| thread.take(early));
            thread.run(begun, &inbox);
        });
        growth
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let _ = self.news.send(News::Over);
    }
}

struct Thread {
    session: Session,
    ramp: Ramp,
    dial: Dial,
    alive: Arc<AtomicU16>,
    is_over: Arc<AtomicBool>,
    news: Sender<News>,
}

impl Thread {
    fn run(mut self, begun: u16, inbox: &Receiver<News>) {
        let started = Instant::now();
        self.open(self.ramp.initial().saturating_sub(1).saturating_sub(begun));
        while !self.ramp.is_over() {
            match inbox.recv_timeout(SAMPLE) {
                Ok(News::Over) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(News::Refused(error)) => {
                    tracing::info!("no more connections: {error}");
                    self.ramp.handle_refused();
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.sample(started.elapsed()),
            }
        }
    }

    fn sample(&mut self, now: Duration) {
        let counters = &self.session.counters;
        let moved = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let bytes = moved(&counters.wire_in).saturating_add(moved(&counters.wire_out));
        let alive = self.alive.load(Ordering::Acquire);
        if let Step::Open(more) = self.ramp.handle_sample(now, bytes, alive) {
            tracing::debug!("{alive} connections, {bytes} bytes so far: opening {more} more");
            self.open(more);
        }
    }

    /// Adds connections as they come; answers how many may.
    fn take(&self, early: Early) -> u16 {
        let (alive, is_over) = (Arc::clone(&self.alive), Arc::clone(&self.is_over));
        let connections = self.session.connections.clone();
        spawn("fcp-dial", move || {
            for duplex in early.come {
                if !is_over.load(Ordering::Acquire) {
                    connections.add(duplex.with_guard(Alive::new(Arc::clone(&alive))));
                }
            }
        });
        early.count
    }

    /// Adds a connection that counts already.
    fn add(&self, duplex: Duplex) {
        if !self.is_over.load(Ordering::Acquire) {
            self.session.connections.add(duplex.with_guard(Alive(Arc::clone(&self.alive))));
        }
    }

    /// Opens all of them at once, so that they take the time of one.
    fn open(&self, count: u16) {
        for _ in 0..count {
            let (alive, is_over) = (Arc::clone(&self.alive), Arc::clone(&self.is_over));
            let (dial, news) = (Arc::clone(&self.dial), self.news.clone());
            let connections = self.session.connections.clone();
            spawn("fcp-dial", move || match dial() {
                Ok(_) if is_over.load(Ordering::Acquire) => {}
                Ok(duplex) => connections.add(duplex.with_guard(Alive::new(alive))),
                // The thread may have ended before its session.
                Err(error) => drop(news.send(News::Refused(error))),
            });
        }
    }
}

/// Counts a connection until it is closed.
struct Alive(Arc<AtomicU16>);

impl Alive {
    fn new(count: Arc<AtomicU16>) -> Alive {
        count.fetch_add(1, Ordering::AcqRel);
        Alive(count)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs on a thread that nobody waits for.
pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    if let Err(error) = builder.spawn(run) {
        tracing::info!("no more connections: cannot start a thread: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::ramp::PathKind;
    use fcp_common::engine::Inlet;
    use std::net::{TcpListener, TcpStream};

    const FAR: Duration = Duration::from_millis(15);

    fn start(ramp: Ramp, inlet: &Inlet, dial: Dial) -> (Growth, Arc<Counters>) {
        let session = Session { connections: inlet.connections(), counters: Arc::default() };
        let counters = Arc::clone(&session.counters);
        (
            Growth::start(session, move || Ok(Prepared { ramp, first: None, early: None, dial })),
            counters,
        )
    }

    fn wait_for(count: &AtomicU16, wanted: u16) {
        let end = Instant::now() + Duration::from_secs(10);
        while count.load(Ordering::Acquire) != wanted {
            assert!(Instant::now() < end, "{} of {wanted}", count.load(Ordering::Acquire));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Dials a listener that nobody accepts from, which takes `delay`, and counts.
    fn dialer(delay: Duration) -> (Dial, Arc<AtomicU16>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (count, server) = (Arc::new(AtomicU16::new(0)), listener.local_addr().unwrap());
        let dialed = Arc::clone(&count);
        let dial = move || {
            let _ = &listener;
            std::thread::sleep(delay);
            let stream = TcpStream::connect(server)?;
            dialed.fetch_add(1, Ordering::AcqRel);
            Duplex::tcp(stream, Duration::from_secs(60))
        };
        (Arc::new(dial), count)
    }

    #[test]
    fn the_first_ones_take_the_time_of_one() {
        let inlet = Inlet::new();
        let (dial, count) = dialer(Duration::from_millis(300));
        let started = Instant::now();
        let ramp = Ramp::new(PathKind::Direct, FAR, 9, true);
        let (growth, _) = start(ramp, &inlet, dial);
        wait_for(&count, 8);
        assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
        drop(growth);
    }

    #[test]
    fn the_rate_brings_more() {
        let inlet = Inlet::new();
        let (dial, count) = dialer(Duration::ZERO);
        let ramp = Ramp::new(PathKind::Direct, FAR, 8, false);
        let (growth, counters) = start(ramp, &inlet, dial);
        wait_for(&count, 3);
        let end = Instant::now() + Duration::from_secs(10);
        while count.load(Ordering::Acquire) < 7 && Instant::now() < end {
            counters.wire_out.fetch_add(10 << 20, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
        wait_for(&count, 7);
        drop(growth);
    }

    #[test]
    fn a_refused_one_ends_the_growth_and_nothing_else() {
        let inlet = Inlet::new();
        let calls = Arc::new(AtomicU16::new(0));
        let seen = Arc::clone(&calls);
        let refuse: Dial = Arc::new(move || {
            seen.fetch_add(1, Ordering::AcqRel);
            Err(io::ErrorKind::ConnectionRefused.into())
        });
        let ramp = Ramp::new(PathKind::Ssh { free_logins: true }, FAR, 9, true);
        let (growth, _) = start(ramp, &inlet, refuse);
        wait_for(&calls, 2);
        std::thread::sleep(SAMPLE * 3);
        wait_for(&calls, 2);
        drop(growth);
    }

    #[test]
    fn a_connection_that_comes_after_the_end_is_closed() {
        let inlet = Inlet::new();
        let closed = Arc::new(AtomicU16::new(0));
        let (dial, count) = dialer(Duration::from_millis(200));
        let sees = Arc::clone(&closed);
        let guarded: Dial = Arc::new(move || {
            let guard = Alive::new(Arc::clone(&sees));
            Ok(dial()?.with_guard(guard))
        });
        let ramp = Ramp::new(PathKind::Direct, FAR, 3, true);
        drop(start(ramp, &inlet, guarded));
        wait_for(&count, 2);
        wait_for(&closed, 0);
    }
}
