//! One end of a session: its connections' threads around its machine.
//!
//! [`reading`] and [`writing`] are the two threads of a connection, [`inlet`] what reaches the
//! session from outside.

mod inlet;
mod reading;
mod writing;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use fcp_proto::frame::Frame;
use fcp_proto::packet::{Request, Sequenced, WireError};
use fcp_proto::{ConnId, ErrorCode, Flag, Violation};

use super::conn::Duplex;
use super::destination::DestinationError;
use super::report::Counters;
use crate::transfer::Help;
pub(crate) use inlet::Control;
pub use inlet::{Cancel, Connections, Inlet};

/// How long telling the peer why the session failed may take.
const TELL: Duration = Duration::from_secs(1);
/// How long the peer may take to hang up after CLOSE.
const LINGER: Duration = Duration::from_secs(5);
/// How long a peer may send nothing but signs of life. Long, as it may be hashing a huge file.
const STALLED: Duration = Duration::from_secs(3600);
/// Stacks hold no buffers, and there may be hundreds of threads.
const STACK: usize = 256 << 10;

/// Why a session ended without its CLOSE. What was received is kept for the next run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Every connection is gone.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The peer ended the session and said why.
    #[error("the peer ended the session: {}", fcp_proto::escape_text(&.0.text))]
    Peer(WireError),
    /// The peer lives and does nothing.
    #[error("the peer did nothing for an hour")]
    Stalled,
    /// The user or the operator ended the session.
    #[error("cancelled")]
    Cancelled,
    /// The destination cannot be used.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// This end cannot go on.
    #[error("{0}")]
    Local(String),
}

impl SessionError {
    fn to_wire(&self) -> WireError {
        let code = match self {
            SessionError::Lost(_) | SessionError::Local(_) => ErrorCode::INTERNAL,
            SessionError::Destination(error) => error.code(),
            SessionError::Violation(_) => ErrorCode::PROTOCOL,
            SessionError::Peer(error) => error.code,
            SessionError::Stalled => ErrorCode::TIMEOUT,
            SessionError::Cancelled => ErrorCode::CANCELLED,
        };
        WireError::new(code, self.to_string())
    }
}

/// How a session ended.
pub type Ended<T> = Result<T, SessionError>;

/// Whose the session's REQUEST is.
#[derive(Clone, Debug)]
pub enum RequestBy {
    /// This end is the client and sends it.
    Us(Request),
    /// This end is the server and has read it.
    Peer,
    /// Both ends are in this process.
    Nobody,
}

/// What the threads need of a machine.
pub(in crate::engine) trait Machine: Send {
    fn handle_conn_opened(&mut self, conn: ConnId);
    /// `conn`, just opened, carries content only while no other kind lives, and before `from` only
    /// to `help`. A machine that sends no content need not know.
    fn handle_spare(&mut self, _conn: ConnId, _from: Duration, _help: Help) {}
    fn handle_conn_lost(&mut self, conn: ConnId);
    fn handle_message(&mut self, m: Sequenced, len: usize, now: Duration) -> Result<(), Violation>;
    fn handle_ack(&mut self, next: u32, now: Duration) -> Result<(), Violation>;
    fn handle_timeout(&mut self, now: Duration);
    fn poll_transmit(&mut self, conn: ConnId, now: Duration, budget: usize, out: &mut Vec<u8>);
    fn poll_timeout(&self, now: Duration) -> Option<Duration>;
    fn has_transmit(&self, conn: ConnId, now: Duration) -> bool;
    fn has_any_transmit(&self, now: Duration) -> bool;
    fn is_carrier(&self, conn: ConnId) -> bool;
    fn connections(&self) -> usize;
    /// Whether the session is over for this end.
    fn is_over(&self) -> bool;
    /// Whether the peer knows that the session is over.
    fn is_acknowledged(&self) -> bool;
}

/// The methods of [`Machine`] that both machines have under the same name.
macro_rules! forward_to_machine {
    () => {
        fn handle_conn_opened(&mut self, conn: ConnId) {
            self.handle_conn_opened(conn);
        }
        fn handle_conn_lost(&mut self, conn: ConnId) {
            self.handle_conn_lost(conn);
        }
        fn handle_message(
            &mut self,
            m: Sequenced,
            len: usize,
            now: Duration,
        ) -> Result<(), Violation> {
            self.handle_message(m, len, now)
        }
        fn handle_ack(&mut self, next: u32, now: Duration) -> Result<(), Violation> {
            self.handle_ack(next, now)
        }
        fn handle_timeout(&mut self, now: Duration) {
            self.handle_timeout(now);
        }
        fn poll_transmit(&mut self, conn: ConnId, now: Duration, budget: usize, out: &mut Vec<u8>) {
            self.poll_transmit(conn, now, budget, out);
        }
        fn poll_timeout(&self, now: Duration) -> Option<Duration> {
            self.poll_timeout(now)
        }
        fn has_transmit(&self, conn: ConnId, now: Duration) -> bool {
            self.has_transmit(conn, now)
        }
        fn has_any_transmit(&self, now: Duration) -> bool {
            self.has_any_transmit(now)
        }
        fn is_carrier(&self, conn: ConnId) -> bool {
            self.is_carrier(conn)
        }
        fn connections(&self) -> usize {
            self.connections()
        }
    };
}
pub(in crate::engine) use forward_to_machine;

/// What sender and receiver do differently.
pub(in crate::engine) trait Role: Send + Sync + Sized + 'static {
    type Machine: Machine;
    /// What a connection's reader keeps between reads.
    type Intake: Default + Send;
    /// Whether this end closes the connections once the session is over; the other one waits.
    const HANGS_UP: bool;

    /// Takes a DATA, BLOCK or WHOLE frame that begins `at` bytes into the reader's buffer.
    fn content(
        &self,
        session: &Session<Self>,
        intake: &mut Self::Intake,
        frame: Frame<'_>,
        at: usize,
        buffer: &[u8],
    ) -> Result<(), Violation>;

    /// All complete frames of `buffer` were seen; answers how much of it is still needed, as the
    /// place where that begins, and how much to read next at most.
    fn drained(
        &self,
        session: &Session<Self>,
        intake: &mut Self::Intake,
        buffer: &[u8],
        parsed: usize,
    ) -> Result<(usize, usize), Violation>;

    /// Fails when `flag` may not stand where it does.
    fn check(&self, intake: &Self::Intake, flag: Flag) -> Result<(), Violation>;

    /// Does what the machine has decided.
    fn act(&self, session: &Session<Self>);

    /// Writes content that should go over `conn`; answers whether there was any.
    fn write_content(
        &self,
        session: &Session<Self>,
        conn: ConnId,
        writer: &mut dyn Write,
    ) -> io::Result<bool>;
}

/// One end of a session.
pub(in crate::engine) struct Session<R: Role> {
    pub(in crate::engine) role: R,
    pub(in crate::engine) counters: Arc<Counters>,
    machine: Mutex<R::Machine>,
    /// Writers wait here.
    changed: Condvar,
    /// The walker waits here.
    room: Condvar,
    /// When the machine was last fed, in milliseconds since the session began.
    active: AtomicU64,
    /// When the peer last said anything but KEEPALIVE, in seconds since the session began.
    heard: AtomicU64,
    waiting: AtomicUsize,
    /// Writing threads that have not ended.
    writers: AtomicUsize,
    started: Instant,
    over: AtomicBool,
    /// The machine was seen to be over when a connection ended.
    complete: AtomicBool,
    failure: Mutex<Option<SessionError>>,
    damaged: AtomicUsize,
    closers: Mutex<HashMap<ConnId, Box<dyn Fn() + Send + Sync>>>,
    control: mpsc::Sender<Control>,
    max_frame: usize,
    myself: Weak<Session<R>>,
}

impl<R: Role> Session<R> {
    pub(in crate::engine) fn new(
        role: R,
        machine: R::Machine,
        counters: Arc<Counters>,
        max_frame: u16,
        inlet: &Inlet,
    ) -> Arc<Session<R>> {
        Arc::new_cyclic(|myself| Session {
            role,
            counters,
            machine: Mutex::new(machine),
            changed: Condvar::new(),
            room: Condvar::new(),
            active: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            started: Instant::now(),
            over: AtomicBool::new(false),
            complete: AtomicBool::new(false),
            failure: Mutex::new(None),
            damaged: AtomicUsize::new(0),
            closers: Mutex::default(),
            control: inlet.sender.clone(),
            max_frame: max_frame.into(),
            myself: myself.clone(),
        })
    }

    /// Time since the session began.
    pub(in crate::engine) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(in crate::engine) fn machine(&self) -> MutexGuard<'_, R::Machine> {
        // A machine that panicked has ended the session; its state is not used for decisions.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::engine) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Wakes the writers if the machine has something for them, which saves most wake-ups: what
    /// may wait for company is found by the carrier's own tick.
    pub(in crate::engine) fn notify(&self) {
        self.active.store(self.now().as_millis() as u64, Ordering::Relaxed);
        if self.waiting.load(Ordering::Acquire) > 0 && self.machine().has_any_transmit(self.now()) {
            self.changed.notify_all();
        }
    }

    /// Wakes the walker, which waits for room.
    pub(in crate::engine) fn notify_room(&self) {
        self.room.notify_all();
    }

    /// Waits until there may be room for more entries, at most `limit`.
    pub(in crate::engine) fn wait_for_room<'a>(
        &self,
        machine: MutexGuard<'a, R::Machine>,
        limit: Duration,
    ) -> MutexGuard<'a, R::Machine> {
        self.room.wait_timeout(machine, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    fn wait<'a>(
        &self,
        machine: MutexGuard<'a, R::Machine>,
        limit: Duration,
    ) -> MutexGuard<'a, R::Machine> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let woken = self.changed.wait_timeout(machine, limit);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends the session with an error; the first one counts.
    pub(in crate::engine) fn fail(&self, error: SessionError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.end();
    }

    /// Runs until the session is over: `first` and whatever comes in through `inlet`.
    pub(in crate::engine) fn run(self: &Arc<Self>, first: Vec<Duplex>, inlet: Inlet) -> Ended<()> {
        let mut threads = Vec::new();
        let mut next = 0;
        for duplex in first {
            self.open(&mut next, duplex, &mut threads);
        }
        let mut deadline = None;
        loop {
            match inlet.receiver.recv_timeout(Duration::from_secs(1)) {
                Ok(Control::Conn(duplex)) => self.open(&mut next, *duplex, &mut threads),
                Ok(Control::Cancel) => self.fail(SessionError::Cancelled),
                Ok(Control::Over) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if self.is_stalled() {
                        self.fail(SessionError::Stalled);
                    }
                    threads.retain(|t: &std::thread::JoinHandle<()>| !t.is_finished());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {}
            }
            if self.is_over() && self.has_failed() {
                self.await_writers();
                break;
            }
            if self.is_over() {
                let until = *deadline.get_or_insert_with(|| Instant::now() + LINGER);
                if R::HANGS_UP || threads.iter().all(|t| t.is_finished()) || Instant::now() >= until
                {
                    break;
                }
                // The writers flush what is queued; then the peer hangs up.
                self.await_threads(&threads, until);
                break;
            }
        }
        self.close_all();
        for thread in threads {
            // A thread that panicked has been reported by its guard.
            let _ = thread.join();
        }
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn is_stalled(&self) -> bool {
        let heard = Duration::from_secs(self.heard.load(Ordering::Relaxed));
        self.now().saturating_sub(heard) >= STALLED
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Gives the writers the time to tell the peer why.
    fn await_writers(&self) {
        let until = Instant::now() + TELL;
        while self.failure_to_tell().is_some()
            && self.writers.load(Ordering::Acquire) > 0
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn await_threads(&self, threads: &[std::thread::JoinHandle<()>], until: Instant) {
        let mut pause = Duration::from_micros(50);
        // A connection may be slow to tell that the peer has hung up.
        let ended = || threads.iter().all(|t| t.is_finished()) || self.machine().is_acknowledged();
        while Instant::now() < until && !ended() {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn open(
        self: &Arc<Self>,
        next: &mut u32,
        duplex: Duplex,
        threads: &mut Vec<std::thread::JoinHandle<()>>,
    ) {
        let conn = ConnId(*next);
        *next += 1;
        let Duplex { reader, writer, close, hold } = duplex;
        self.closers.lock().unwrap_or_else(PoisonError::into_inner).insert(conn, close);
        {
            let mut machine = self.machine();
            machine.handle_conn_opened(conn);
            if let Some((hold, help)) = hold {
                machine.handle_spare(conn, hold, help);
            }
        }
        let (a, b) = (Arc::clone(self), Arc::clone(self));
        self.writers.fetch_add(1, Ordering::AcqRel);
        let spawned = spawn("fcp-read", move || a.read(conn, reader))
            .and_then(|read| Ok((read, spawn("fcp-write", move || b.write(conn, writer))?)));
        match spawned {
            Ok((read, write)) => threads.extend([read, write]),
            Err(error) => self.fail(SessionError::Local(format!("cannot start a thread: {error}"))),
        }
    }

    fn lose(&self, conn: ConnId, why: &str) {
        let close = self.closers.lock().unwrap_or_else(PoisonError::into_inner).remove(&conn);
        let Some(close) = close else { return };
        close();
        let (over, left) = {
            let mut machine = self.machine();
            // The peer hangs up as soon as it has CLOSE, perhaps before our writer returns.
            let over = machine.is_over() || self.complete.load(Ordering::Acquire);
            // Remembered before the machine takes CLOSE back to send it again elsewhere.
            self.complete.store(over, Ordering::Release);
            machine.handle_conn_lost(conn);
            (over, machine.connections())
        };
        if over {
            self.end();
        }
        if !self.is_over() {
            tracing::info!("connection {} is gone ({why}), {left} left", conn.0);
            if left == 0 {
                self.fail(SessionError::Lost(why.to_owned()));
            }
        }
        self.notify();
        // Its own writer too, though nothing is to be written: a pipe is closed by letting it go.
        self.changed.notify_all();
    }

    fn end(&self) {
        if !self.over.swap(true, Ordering::AcqRel) {
            let _ = self.control.send(Control::Over);
        }
        // Taken once so that nobody is between looking and waiting.
        drop(self.machine());
        self.changed.notify_all();
        self.room.notify_all();
    }

    fn close_all(&self) {
        let closers =
            std::mem::take(&mut *self.closers.lock().unwrap_or_else(PoisonError::into_inner));
        closers.values().for_each(|close| close());
        self.changed.notify_all();
    }

    /// This session, for a thread of its own.
    pub(in crate::engine) fn shared(&self) -> Option<Arc<Session<R>>> {
        self.myself.upgrade()
    }

    pub(in crate::engine) fn max_frame(&self) -> usize {
        self.max_frame
    }
}

/// Ends the session when its thread panics, so that nobody waits for it.
struct PanicGuard<'a, R: Role>(&'a Session<R>);

impl<R: Role> PanicGuard<'_, R> {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl<R: Role> Drop for PanicGuard<'_, R> {
    fn drop(&mut self) {
        self.0.fail(SessionError::Local("an error inside fcp (a thread panicked)".to_owned()));
    }
}

/// A thread with a small stack.
pub(crate) fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(run)
}
