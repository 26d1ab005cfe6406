//! Joins two sessions: for each pair of connections two threads that copy frames.
//!
//! [`pump`] is one direction of one pair; here is what they share, and the end of it all.

mod pump;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fcp_proto::packet::{Message, Outcome, Request, Sequenced, Summary, WireError};
use fcp_proto::version::Agreed;
use fcp_proto::{ErrorCode, escape_text};

use super::conn::Duplex;
use super::report::{Counters, EntryReport, Report};
use super::session::{Control, Inlet, SessionError, spawn};
use crate::relay::{Config, Relay, Side, error_frame};
use crate::transfer::{Admits, ReceiveEvent};

/// How long the source may take for its first announcement: the sink waits 10 s for its REQUEST.
const FIRST_WORD: Duration = Duration::from_secs(8);
/// How long telling a server why the relay ends may take.
const TELL: Duration = Duration::from_secs(1);
/// How long the source may take to hang up after CLOSE.
const LINGER: Duration = Duration::from_secs(5);
/// How often a waiting thread looks again.
const TICK: Duration = Duration::from_millis(5);

/// What to relay.
pub struct RelayOptions {
    /// What both sessions agreed on: it must be the same.
    pub agreed: Agreed,
    /// Connections to the server that sends, the first one first.
    pub source: Vec<Duplex>,
    /// What it is asked: a pull.
    pub source_request: Request,
    /// Connections to the server that receives, the first one first.
    pub sink: Vec<Duplex>,
    /// What it is asked: a push. SINGLE is set once it is known.
    pub sink_request: Request,
    /// The source was asked for one thing, so one entry may come below the root.
    pub one_thing: bool,
    /// The source was asked for a directory's contents, so that it may tell its mode and time.
    pub contents: bool,
    /// Whether the source may announce this path; the second argument says that it is a directory.
    pub admits: Option<Admits>,
    /// Who hears of entries and problems.
    pub report: Arc<dyn Report>,
    /// Numbers for progress; wire bytes are those of both sessions.
    pub counters: Arc<Counters>,
}

/// Why a relay ended without the sink's CLOSE. What the sink has, it keeps for the next run.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct RelayError {
    /// The server whose fault or loss it is; `None` for this process and its user.
    pub side: Option<Side>,
    /// What it is, as seen from that server's session.
    pub error: SessionError,
}

/// Passes on everything between two servers until the sink has closed; answers with its summary.
///
/// Connection i of one is tied to connection i of the other, so what one has more is closed.
/// Of `inlet` only the cancelling is used.
///
/// # Errors
/// [`RelayError`], and whose it is.
pub fn relay(options: RelayOptions, inlet: Inlet) -> Result<Summary, RelayError> {
    let (hub, readers) = Hub::new(options, &inlet);
    let mut threads = Vec::new();
    for (n, (source, sink)) in readers.into_iter().enumerate() {
        for (from, reader) in [(Side::Source, source), (Side::Sink, sink)] {
            let own = Arc::clone(&hub);
            match spawn("fcp-relay", move || own.pump(n, from, reader)) {
                Ok(thread) => threads.push(thread),
                Err(error) => hub.fail(None, local(&format!("cannot start a thread: {error}"))),
            }
        }
    }
    hub.ask_source();
    hub.wait(&inlet);
    hub.end(threads)
}

fn local(text: &str) -> SessionError {
    SessionError::Local(text.to_owned())
}

/// What the threads share.
struct Hub {
    relay: Mutex<Relay>,
    source_request: Request,
    max_frame: usize,
    pairs: Vec<Pair>,
    living: AtomicUsize,
    /// The sink was asked, so content may come.
    started: AtomicBool,
    /// The sink has everything: nothing that happens afterwards matters.
    closed: AtomicBool,
    failure: Mutex<Option<RelayError>>,
    /// Connections lost to damaged frames, of both.
    damaged: AtomicUsize,
    report: Arc<dyn Report>,
    counters: Arc<Counters>,
    control: mpsc::Sender<Control>,
    begun: Instant,
}

/// Two connections that live and die together.
struct Pair {
    alive: AtomicBool,
    source: Port,
    sink: Port,
}

impl Pair {
    fn port(&self, side: Side) -> &Port {
        match side {
            Side::Source => &self.source,
            Side::Sink => &self.sink,
        }
    }
}

/// Where one connection is written.
struct Port {
    out: Mutex<Out>,
    close: Box<dyn Fn() + Send + Sync>,
}

struct Out {
    writer: Box<dyn Write + Send>,
    /// No frame of another kind may be put in now.
    in_block: bool,
}

type Readers = Vec<(Box<dyn io::Read + Send>, Box<dyn io::Read + Send>)>;

impl Hub {
    fn new(options: RelayOptions, inlet: &Inlet) -> (Arc<Hub>, Readers) {
        let RelayOptions { agreed, source, source_request, sink, sink_request, .. } = options;
        let RelayOptions { one_thing, contents, admits, report, counters, .. } = options;
        let (mut pairs, mut readers) = (Vec::new(), Vec::new());
        for (source, sink) in source.into_iter().zip(sink) {
            let (source_reader, source) = split(source);
            let (sink_reader, sink) = split(sink);
            pairs.push(Pair { alive: AtomicBool::new(true), source, sink });
            readers.push((source_reader, sink_reader));
        }
        let max_frame = agreed.max_frame.into();
        let config = Config { agreed, sink_request, one_thing, contents, admits };
        let hub = Hub {
            relay: Mutex::new(Relay::new(config)),
            source_request,
            max_frame,
            living: AtomicUsize::new(pairs.len()),
            pairs,
            started: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            failure: Mutex::new(None),
            damaged: AtomicUsize::new(0),
            report,
            counters,
            control: inlet.sender.clone(),
            begun: Instant::now(),
        };
        (Arc::new(hub), readers)
    }

    fn relay(&self) -> MutexGuard<'_, Relay> {
        // A relay that panicked has ended with its thread; its state is not used for decisions.
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> MutexGuard<'_, Option<RelayError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.failure().is_some()
    }

    /// The client's first message to the source.
    fn ask_source(&self) {
        let request = Message::Request(self.source_request.clone());
        let mut out = Vec::new();
        Sequenced::put_frames(request.flag(), &request.to_payload(0), self.max_frame, &mut out);
        match self.pairs.first() {
            Some(_) => self.put(0, Side::Source, &out),
            None => self.fail(None, local("there is no connection to either server")),
        }
    }

    /// Asks the sink, if it is time; then content may come.
    fn start_if_due(&self) {
        let frames = {
            let mut relay = self.relay();
            let frames = relay.poll_start();
            self.started.store(relay.is_started(), Ordering::Release);
            frames
        };
        let Some(frames) = frames else { return };
        for (conn, frames) in frames {
            self.put(conn.0 as usize, Side::Sink, &frames);
        }
        // It was kept for the REQUEST alone.
        if let Some(first) = self.pairs.first().filter(|pair| !pair.alive.load(Ordering::Acquire)) {
            (first.sink.close)();
        }
    }

    /// Writes frames of the relay's own, at a time when no block can be under way there.
    fn put(&self, pair: usize, to: Side, frames: &[u8]) {
        let Some(port) = self.pairs.get(pair).map(|pair| pair.port(to)) else { return };
        let mut out = port.out.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.write(&mut out, frames);
        drop(out);
        if let Err(error) = done {
            self.lose(pair, to, &error.to_string());
        }
    }

    fn write(&self, out: &mut Out, bytes: &[u8]) -> io::Result<()> {
        Counters::add(&self.counters.wire_out, bytes.len() as u64);
        out.writer.write_all(bytes)
    }

    /// A connection of `side` is gone, so its pair is.
    fn lose(&self, pair: usize, side: Side, why: &str) {
        let Some(ends) = self.pairs.get(pair) else { return };
        if !ends.alive.swap(false, Ordering::AcqRel) {
            return;
        }
        // Before the closing, which others take for the other side's loss.
        let left = self.living.fetch_sub(1, Ordering::AcqRel) - 1;
        // The sink takes its REQUEST over its first connection only.
        let needed = pair == 0 && !self.started.load(Ordering::Acquire);
        if !self.is_over() {
            tracing::info!("connection {pair} of the {} is gone ({why}), {left} left", name(side));
            if left == 0 || (needed && side == Side::Sink) {
                self.fail(Some(side), SessionError::Lost(why.to_owned()));
            }
        }
        (ends.source.close)();
        if !needed || self.is_over() {
            (ends.sink.close)();
        }
        if left == 0 {
            let _ = self.control.send(Control::Over);
        } else {
            self.repeat_request();
        }
    }

    fn repeat_request(&self) {
        let frames = self.relay().repeat_request();
        let living = self.pairs.iter().position(|pair| pair.alive.load(Ordering::Acquire));
        if let (Some(frames), Some(pair)) = (frames, living) {
            self.put(pair, Side::Sink, &frames);
        }
    }

    /// Ends the relay with an error; the first one counts, and none after the sink's CLOSE.
    fn fail(&self, side: Option<Side>, error: SessionError) {
        if !self.closed.load(Ordering::Acquire) {
            self.failure().get_or_insert(RelayError { side, error });
            let _ = self.control.send(Control::Over);
        }
    }

    /// What the user should hear.
    fn tell(&self, events: Vec<ReceiveEvent>) {
        for event in events {
            match event {
                ReceiveEvent::Problem(problem) => self.report.problem(problem),
                ReceiveEvent::Finished { path, kind, size, outcome } => {
                    Counters::add(&self.counters.done_entries, 1);
                    if !matches!(outcome, Outcome::Failed(_)) {
                        Counters::add(&self.counters.done_bytes, size);
                    }
                    let path = path.as_bytes().to_vec();
                    self.report.entry(EntryReport { path, kind, size, outcome });
                }
            }
        }
    }

    /// Waits until the relay has failed, or the source has hung up after CLOSE.
    fn wait(&self, inlet: &Inlet) {
        let mut until = None;
        while self.failure().is_none() {
            if self.closed.load(Ordering::Acquire) {
                let until = *until.get_or_insert_with(|| Instant::now() + LINGER);
                if self.living.load(Ordering::Acquire) == 0 || Instant::now() >= until {
                    return;
                }
            }
            match inlet.receiver.recv_timeout(Duration::from_millis(500)) {
                Ok(Control::Cancel) => self.fail(None, SessionError::Cancelled),
                // One connection alone has nothing that it could be tied to.
                Ok(Control::Conn(_) | Control::Over) => {}
                Err(RecvTimeoutError::Timeout) => self.look_at_the_clock(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look_at_the_clock(&self) {
        if self.started.load(Ordering::Acquire) || self.begun.elapsed() < FIRST_WORD {
            return;
        }
        if self.relay().handle_impatience() {
            self.start_if_due();
        } else {
            let text = "it is silent about what it was asked for";
            self.fail(Some(Side::Source), SessionError::Lost(text.to_owned()));
        }
    }

    fn end(self: &Arc<Self>, threads: Vec<JoinHandle<()>>) -> Result<Summary, RelayError> {
        if self.failure().is_some() {
            self.tell_both();
        }
        for pair in &self.pairs {
            (pair.source.close)();
            (pair.sink.close)();
        }
        for thread in threads {
            // A thread that panicked has been reported by its guard.
            let _ = thread.join();
        }
        if let Some(error) = self.failure().take() {
            return Err(error);
        }
        let lost = || RelayError { side: None, error: local("the relay ended before its summary") };
        self.relay().closed().cloned().ok_or_else(lost)
    }

    /// Tells both servers why, as far as they do not know and take it in time.
    fn tell_both(self: &Arc<Self>) {
        let (hub, (done, told)) = (Arc::clone(self), mpsc::channel());
        let telling = spawn("fcp-tell", move || {
            hub.tell_why();
            let _ = done.send(());
        });
        if telling.is_ok() {
            let _ = told.recv_timeout(TELL);
        }
    }

    fn tell_why(&self) {
        let until = Instant::now() + TELL;
        let frames = match &*self.failure() {
            Some(why) => [Side::Source, Side::Sink].map(|to| (to, parting(why, to))),
            None => return,
        };
        for pair in self.pairs.iter().filter(|pair| pair.alive.load(Ordering::Acquire)) {
            for (to, error) in &frames {
                let Some(error) = error else { continue };
                if let Some(mut out) = lock_until(&pair.port(*to).out, until)
                    && !out.in_block
                {
                    // A connection that does not take it is closed all the same.
                    let _ = self.write(&mut out, &error_frame(error));
                }
            }
        }
    }
}

fn split(duplex: Duplex) -> (Box<dyn io::Read + Send>, Port) {
    let Duplex { reader, writer, close, .. } = duplex;
    (reader, Port { out: Mutex::new(Out { writer, in_block: false }), close })
}

/// The lock, unless whoever holds it writes to somebody who does not read.
fn lock_until<T>(mutex: &Mutex<T>, until: Instant) -> Option<MutexGuard<'_, T>> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(TICK),
        }
    }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Source => "source",
        Side::Sink => "destination",
    }
}

/// What `to` is told of why the relay ends; nothing when it said it itself.
fn parting(why: &RelayError, to: Side) -> Option<WireError> {
    let RelayError { side, error } = why;
    let own = *side == Some(to);
    let (code, text) = match error {
        SessionError::Peer(_) if own => return None,
        SessionError::Peer(error) => (error.code, escape_text(&error.text)),
        SessionError::Violation(violation) if own => (ErrorCode::PROTOCOL, violation.to_string()),
        SessionError::Violation(violation) => (ErrorCode::CANCELLED, violation.to_string()),
        SessionError::Lost(_) if own => return None,
        SessionError::Lost(why) => (ErrorCode::CANCELLED, format!("it is lost: {why}")),
        SessionError::Cancelled => (ErrorCode::CANCELLED, error.to_string()),
        _ => (ErrorCode::INTERNAL, error.to_string()),
    };
    let text = match side {
        Some(side) if !own => format!("the {} of this relay: {text}", name(*side)),
        _ => text,
    };
    Some(WireError::new(code, text))
}
