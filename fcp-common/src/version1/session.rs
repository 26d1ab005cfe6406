//! One end of a version 1 session: its connections' threads around its machine.
//!
//! A connection may be silent for as long as it likes, as the peer sends over whichever it wants
//! and version 1 has no keepalive; only the session as a whole has deadlines.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fcp_proto::v1::V1Packet;
use fcp_proto::{ConnId, Violation};

use super::types::Silent;
use crate::engine::{Control, Counters, Duplex, Ended, FrameReader, Inlet, SessionError, spawn};

/// How long a thread sleeps at most; also how exact deadlines are.
const TICK: Duration = Duration::from_millis(200);
/// How long the peer may take to hang up after DONE.
const LINGER: Duration = Duration::from_secs(5);
/// How long the peer may take to read our EXCEPTION; the published sender ignores it.
const LINGER_FAILED: Duration = Duration::from_secs(1);
/// Connections lost to damaged frames before the path itself is blamed.
const MAX_DAMAGED: usize = 3;

type Closer = Box<dyn Fn() + Send + Sync>;

/// What the threads need of a machine.
pub(super) trait Machine: Send {
    fn handle_conn_opened(&mut self, conn: ConnId);
    fn handle_conn_lost(&mut self, conn: ConnId);
    fn handle_timeout(&mut self, now: Duration) -> Result<(), Silent>;
    fn poll_transmit(&mut self, conn: ConnId, out: &mut Vec<u8>);
    fn has_transmit(&self, conn: ConnId) -> bool;
    fn connections(&self) -> usize;
    /// Whether the session is over for this end.
    fn is_over(&self) -> bool;
}

/// What sender and receiver do differently.
pub(super) trait Side: Send + Sync + Sized + 'static {
    type Machine: Machine;
    /// Whether this end closes the connections once the session is over; the other one waits.
    const HANGS_UP: bool;

    /// Acts on packets that came over one connection, in order.
    fn take(&self, session: &Session<Self>, packets: Vec<V1Packet<'_>>) -> Result<(), Violation>;

    /// Writes content to `conn` if there is any.
    fn write_content(
        &self,
        session: &Session<Self>,
        conn: ConnId,
        writer: &mut dyn Write,
    ) -> io::Result<()>;
}

/// One end of a session.
pub(super) struct Session<R: Side> {
    pub(super) side: R,
    pub(super) counters: Arc<Counters>,
    machine: Mutex<R::Machine>,
    /// Writers, workers and the walker wait here.
    changed: Condvar,
    started: Instant,
    over: AtomicBool,
    failure: Mutex<Option<SessionError>>,
    /// The EXCEPTION that one of the writers is to send.
    last_words: Mutex<Option<Vec<u8>>>,
    damaged: AtomicUsize,
    closers: Mutex<HashMap<ConnId, Closer>>,
    control: Sender<Control>,
}

impl<R: Side> Session<R> {
    pub(super) fn new(
        side: R,
        machine: R::Machine,
        counters: Arc<Counters>,
        inlet: &Inlet,
    ) -> Arc<Session<R>> {
        Arc::new(Session {
            side,
            counters,
            machine: Mutex::new(machine),
            changed: Condvar::new(),
            started: Instant::now(),
            over: AtomicBool::new(false),
            failure: Mutex::default(),
            last_words: Mutex::default(),
            damaged: AtomicUsize::new(0),
            closers: Mutex::default(),
            control: inlet.sender.clone(),
        })
    }

    /// Time since the session began.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, R::Machine> {
        locked(&self.machine)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Wakes whoever waits for the machine to have something; ends the session if it is over.
    pub(super) fn notify(&self) {
        if self.machine().is_over() {
            self.end();
        }
        self.changed.notify_all();
    }

    /// Waits until something changed, but not for long.
    pub(super) fn wait<'a>(
        &self,
        machine: MutexGuard<'a, R::Machine>,
    ) -> MutexGuard<'a, R::Machine> {
        let woken = self.changed.wait_timeout(machine, TICK);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends the session with an error; the first one counts, and the peer is told.
    pub(super) fn fail(&self, error: SessionError) {
        if self.is_over() {
            return;
        }
        // The peer knows its own error, and a lost connection tells nobody.
        if !matches!(error, SessionError::Peer(_)) {
            let mut words = Vec::new();
            V1Packet::Exception(error.to_string()).encode(&mut words);
            locked(&self.last_words).get_or_insert(words);
        }
        locked(&self.failure).get_or_insert(error);
        self.end();
    }

    /// Starts a thread of this session, which ends the session when it panics.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Session<R>) + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        let session = Arc::clone(self);
        let guarded = move || {
            let guard = PanicGuard(&session);
            run(&session);
            std::mem::forget(guard);
        };
        spawn(name, guarded)
            .inspect_err(|error| {
                self.fail(SessionError::Local(format!("cannot start a thread: {error}")));
            })
            .ok()
    }

    /// Runs until the session is over: `first`, what comes in through `inlet`, and `helpers`.
    pub(super) fn run(
        self: &Arc<Self>,
        first: Vec<Duplex>,
        inlet: Inlet,
        helpers: Vec<JoinHandle<()>>,
    ) -> Ended<()> {
        let mut threads = Vec::new();
        let mut next = 0;
        for duplex in first {
            self.open(&mut next, duplex, &mut threads);
        }
        while !self.is_over() {
            match inlet.receiver.recv_timeout(TICK) {
                Ok(Control::Conn(duplex)) => self.open(&mut next, *duplex, &mut threads),
                Ok(Control::Cancel) => self.fail(SessionError::Cancelled),
                Ok(Control::Over) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => threads.retain(|t| !t.is_finished()),
            }
            let timely = self.machine().handle_timeout(self.now());
            if let Err(silent) = timely {
                self.fail(SessionError::Lost(silent.to_string()));
            }
            self.notify();
        }
        self.linger(&threads);
        self.close_all();
        for thread in threads.into_iter().chain(helpers) {
            // A thread that panicked has ended the session with an error.
            let _ = thread.join();
        }
        locked(&self.failure).take().map_or(Ok(()), Err)
    }

    /// Closing with unread bytes would reset the connection and could take DONE or EXCEPTION with
    /// it, so the peer gets the time to hang up first.
    fn linger(&self, threads: &[JoinHandle<()>]) {
        let failed = locked(&self.failure).is_some();
        if R::HANGS_UP && !failed {
            return;
        }
        let until = Instant::now() + if failed { LINGER_FAILED } else { LINGER };
        let mut pause = Duration::from_micros(50);
        while Instant::now() < until && !threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn open(self: &Arc<Self>, next: &mut u32, duplex: Duplex, threads: &mut Vec<JoinHandle<()>>) {
        let conn = ConnId(*next);
        *next += 1;
        let Duplex { reader, writer, close, .. } = duplex;
        locked(&self.closers).insert(conn, close);
        self.machine().handle_conn_opened(conn);
        threads.extend(self.spawn("fcp1-read", move |session| session.read(conn, reader)));
        threads.extend(self.spawn("fcp1-write", move |session| session.write(conn, writer)));
    }

    fn read(&self, conn: ConnId, reader: Box<dyn Read + Send>) {
        let mut reader = FrameReader::new(reader);
        let lost = match self.read_frames(&mut reader) {
            Ok(()) => "the peer hung up".to_owned(),
            Err(ReadError::Violation(Violation::Checksum(bad))) => {
                if self.damaged.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_DAMAGED {
                    self.fail(SessionError::Violation(bad.into()));
                }
                bad.to_string()
            }
            Err(ReadError::Violation(violation)) => {
                let text = violation.to_string();
                self.fail(violation.into());
                // Closing at once would take our EXCEPTION with it.
                drain(&mut reader);
                text
            }
            Err(ReadError::Io(error)) => error.to_string(),
        };
        self.lose(conn, &lost);
    }

    fn read_frames(&self, reader: &mut FrameReader) -> Result<(), ReadError> {
        loop {
            let n = match reader.fill(usize::MAX) {
                Err(error) if is_timeout(&error) => continue,
                filled => filled.map_err(ReadError::Io)?,
            };
            if n == 0 {
                return Ok(());
            }
            Counters::add(&self.counters.wire_in, n as u64);
            if self.is_over() {
                reader.take(reader.bytes().len());
                continue;
            }
            let used = self.take_frames(reader)?;
            reader.take(used);
            self.notify();
        }
    }

    /// Acts on all complete frames; answers how many bytes they are.
    fn take_frames(&self, reader: &FrameReader) -> Result<usize, Violation> {
        let (mut packets, mut used) = (Vec::new(), 0);
        let mut bad = None;
        loop {
            match reader.frame_at(used) {
                Ok(None) => break,
                Ok(Some((frame, len))) => {
                    packets.push(V1Packet::decode(frame)?);
                    used += len;
                }
                Err(violation) => {
                    bad = Some(violation);
                    break;
                }
            }
        }
        // What came before a damaged frame is good.
        self.side.take(self, packets)?;
        bad.map_or(Ok(used), Err)
    }

    fn write(&self, conn: ConnId, mut writer: Box<dyn Write + Send>) {
        if let Err(error) = self.write_frames(conn, &mut *writer) {
            tracing::info!("cannot write to connection {}: {error}", conn.0);
            // The reader may still find DONE or EXCEPTION there, and is the one to give it up.
            if let Some(close) = locked(&self.closers).get(&conn) {
                close();
            }
        }
    }

    fn write_frames(&self, conn: ConnId, writer: &mut dyn Write) -> io::Result<()> {
        let mut out = Vec::new();
        while self.await_work(conn, &mut out) {
            self.write_all(writer, &out)?;
            out.clear();
            self.notify();
            self.side.write_content(self, conn, writer)?;
        }
        let words = locked(&self.last_words).take();
        self.write_all(writer, &words.unwrap_or_default())
    }

    /// Waits until `conn` has something to write and puts messages into `out`; `false` at the end.
    fn await_work(&self, conn: ConnId, out: &mut Vec<u8>) -> bool {
        let mut machine = self.machine();
        while !self.is_over() && locked(&self.closers).contains_key(&conn) {
            if machine.has_transmit(conn) {
                machine.poll_transmit(conn, out);
                return true;
            }
            machine = self.wait(machine);
        }
        false
    }

    pub(super) fn write_all(&self, writer: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
        Counters::add(&self.counters.wire_out, bytes.len() as u64);
        writer.write_all(bytes)
    }

    fn lose(&self, conn: ConnId, why: &str) {
        let Some(close) = locked(&self.closers).remove(&conn) else { return };
        close();
        let (left, over) = {
            let mut machine = self.machine();
            machine.handle_conn_lost(conn);
            (machine.connections(), machine.is_over())
        };
        if !self.is_over() && !over {
            tracing::info!("connection {} is gone ({why}), {left} left", conn.0);
            if left == 0 {
                self.fail(SessionError::Lost(why.to_owned()));
            }
        }
        self.notify();
    }

    fn end(&self) {
        if !self.over.swap(true, Ordering::AcqRel) {
            // Nobody listens any more once the session has run.
            let _ = self.control.send(Control::Over);
        }
        // Taken once so that nobody is between looking and waiting.
        drop(self.machine());
        self.changed.notify_all();
    }

    fn close_all(&self) {
        let closers = std::mem::take(&mut *locked(&self.closers));
        closers.values().for_each(|close| close());
        self.changed.notify_all();
    }
}

enum ReadError {
    Io(io::Error),
    Violation(Violation),
}

impl From<Violation> for ReadError {
    fn from(violation: Violation) -> Self {
        ReadError::Violation(violation)
    }
}

/// Reads and forgets until the connection ends; the session closes it soon.
fn drain(reader: &mut FrameReader) {
    loop {
        reader.take(reader.bytes().len());
        match reader.fill(usize::MAX) {
            Err(error) if is_timeout(&error) => {}
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What a mutex guards, also after a panic: the session has ended then, and nothing is decided.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the session when its thread panics, so that nobody waits for it.
struct PanicGuard<'a, R: Side>(&'a Session<R>);

impl<R: Side> Drop for PanicGuard<'_, R> {
    fn drop(&mut self) {
        self.0.fail(SessionError::Local("an error inside fcp (a thread panicked)".to_owned()));
    }
}
