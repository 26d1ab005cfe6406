//! What calls and tasks share: who waits for which answer, and what is still to be sent.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::handle::{Handle, is_end};
use super::range::{Arrived, Writing};
use super::window::Window;
use super::{DataLimits, Result, Session, SessionError, SessionOptions, SftpError, SftpOp};
use crate::location::sftp::wire::{
    Attrs, Extensions, NameEntry, Reply, Request, StatusCode, frame::FrameError,
};

/// Bytes of file content that may wait for the stream to take them. More would only sit there,
/// and keep small requests waiting behind them.
const QUEUE: u32 = 1 << 20;
/// Content below this is copied behind its head: a copy costs less than a segment of its own.
const COPY_BELOW: usize = 4096;

/// What the clones of a [`Session`] share.
pub(super) struct Inner {
    pub(super) shared: Finisher,
    pub(super) extensions: Extensions,
    pub(super) limits: DataLimits,
    pub(super) reads: Window,
    pub(super) writes: Window,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Ends the conversation, after what is queued, when dropped.
pub(super) struct Finisher(pub(super) Arc<Shared>);

impl std::ops::Deref for Finisher {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// What the tasks know.
pub(super) struct Shared {
    pub(super) options: SessionOptions,
    state: Mutex<State>,
    /// The writer waits for this.
    queued: Notify,
    room: Arc<Semaphore>,
    end: watch::Sender<Option<SessionError>>,
    began: Instant,
    /// Milliseconds after `began` at which something moved last.
    moved: AtomicU64,
}

#[derive(Default)]
struct State {
    end: Option<SessionError>,
    finishing: Option<Instant>,
    last_id: u32,
    waiters: HashMap<u32, Waiter>,
    /// The last segment, still growing.
    heads: BytesMut,
    segments: VecDeque<Segment>,
}

/// Bytes to be sent, and the room in the queue that they hold until then.
pub(super) struct Segment {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Content that has room in the queue.
pub(super) struct Payload {
    bytes: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

struct Waiter {
    op: SftpOp,
    expect: Expect,
    since: Instant,
    deliver: Deliver,
}

/// The replies that answer a request, besides a status that refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Status,
    Handle,
    /// At most so many bytes.
    Data(u32),
    Name,
    Attrs,
    Extended,
}

/// Where an answer goes.
pub(super) enum Deliver {
    /// To one who waits; the session for a handle to hold.
    Once(oneshot::Sender<Result<Answer>>, Option<Session>),
    /// To a reader of a range.
    Piece { to: mpsc::UnboundedSender<Arrived>, offset: u64, asked: u32 },
    /// To a writer of ranges, whose place in the window it frees.
    Ack { to: Arc<Writing>, range: std::ops::Range<u64>, _slot: OwnedSemaphorePermit },
    /// To nobody any more; the session for a late handle to be closed on.
    Nobody(Option<Session>),
}

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Reply),
    Handle(Handle),
}

impl Shared {
    pub(super) fn new(options: SessionOptions) -> Self {
        Shared {
            options,
            state: Mutex::default(),
            queued: Notify::new(),
            room: Arc::new(Semaphore::new(QUEUE as usize)),
            end: watch::Sender::new(None),
            began: Instant::now(),
            moved: AtomicU64::new(0),
        }
    }

    /// Waits until `content` may be queued.
    pub(super) async fn room(&self, content: Bytes) -> Result<Payload> {
        if content.len() < COPY_BELOW {
            return Ok(Payload { bytes: content, room: None });
        }
        let n = u32::try_from(content.len()).unwrap_or(QUEUE).min(QUEUE);
        match self.room.clone().acquire_many_owned(n).await {
            Ok(room) => Ok(Payload { bytes: content, room: Some(room) }),
            Err(_) => Err(self.end().unwrap_or(SessionError::Closed)),
        }
    }

    /// Queues a request; its answer will go to `deliver`.
    pub(super) fn send(
        &self,
        (op, expect): (SftpOp, Expect),
        request: Request<'_>,
        payload: Option<Payload>,
        deliver: Deliver,
    ) -> Result<()> {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(end) = state.end.clone() {
            // What is delivered to may hold a session, whose drop takes the lock.
            drop(state);
            return Err(end);
        }
        if state.waiters.is_empty() {
            self.note_move(now);
        }
        let id = state.free_id();
        state.waiters.insert(id, Waiter { op, expect, since: now, deliver });
        request.encode(id, &mut state.heads);
        if let Some(payload) = payload {
            state.push(payload);
        }
        drop(state);
        self.queued.notify_one();
        Ok(())
    }

    /// Everything that is to be sent now; waits for something; `None` when nothing more will come.
    pub(super) async fn batch(&self) -> Option<VecDeque<Segment>> {
        loop {
            {
                let mut state = self.lock();
                let batch = state.take_segments();
                if !batch.is_empty() {
                    return Some(batch);
                }
                if state.finishing.is_some() {
                    return None;
                }
            }
            self.queued.notified().await;
        }
    }

    /// Takes a packet to whoever waits for it.
    ///
    /// # Errors
    /// The session has to end.
    pub(super) fn handle_packet(&self, packet: &Bytes) -> Result<()> {
        let (id, reply) = Reply::decode(packet).map_err(|e| {
            SessionError::Protocol(format!("it sent {e} (type {})", packet.first().unwrap_or(&0)))
        })?;
        self.note_move(Instant::now());
        let waiter = self.lock().waiters.remove(&id);
        let Some(waiter) = waiter else {
            let name = reply.name();
            let what = format!("it sent {name} for request {id}, which does not wait for anything");
            return Err(SessionError::Protocol(what));
        };
        match waiter.expect.refusal(&reply) {
            None => {
                waiter.deliver(Ok(reply));
                Ok(())
            }
            Some(what) => {
                let error =
                    SessionError::Protocol(format!("it answered {} with {what}", waiter.op));
                waiter.deliver(Err(error.clone()));
                Err(error)
            }
        }
    }

    /// Fails requests that waited too long.
    ///
    /// # Errors
    /// Nothing moves: the session has to end.
    pub(super) fn check(&self) -> Result<()> {
        let now = Instant::now();
        let still = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        let mut late = Vec::new();
        {
            let mut state = self.lock();
            // A stream that takes nothing more must not keep the tasks for ever.
            let left = state.finishing.is_some_and(|at| now - at >= self.options.watchdog);
            if left {
                return Err(SessionError::Closed);
            }
            if state.waiters.is_empty() {
                return Ok(());
            }
            if now.duration_since(self.began).saturating_sub(still) >= self.options.watchdog {
                return Err(SessionError::Stalled(self.options.watchdog));
            }
            for waiter in state.waiters.values_mut() {
                if now.duration_since(waiter.since) >= self.options.request {
                    late.extend(waiter.give_up());
                }
            }
        }
        for (op, deliver) in late {
            let error = SessionError::Timeout { op, after: self.options.request };
            deliver.give(op, Err(error), self.options.request);
        }
        Ok(())
    }

    /// Ends the session: everything that waits, and whatever will be asked, gets this error. Only
    /// the first end counts.
    pub(super) fn fail(&self, error: SessionError) {
        let (waiters, segments) = {
            let mut state = self.lock();
            if state.end.is_some() {
                return;
            }
            state.end = Some(error.clone());
            (std::mem::take(&mut state.waiters), state.take_segments())
        };
        self.room.close();
        drop(segments);
        self.end.send_replace(Some(error.clone()));
        self.queued.notify_one();
        for waiter in waiters.into_values() {
            waiter.deliver(Err(error.clone()));
        }
    }

    /// Lets the writer end once everything queued is sent.
    pub(super) fn finish(&self) {
        self.lock().finishing = Some(Instant::now());
        self.queued.notify_one();
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.lock().finishing.is_some()
    }

    /// Why the session is over, if it is.
    pub(super) fn end(&self) -> Option<SessionError> {
        self.end.borrow().clone()
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> SessionError {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(SessionError::Closed),
            Err(_) => SessionError::Closed,
        }
    }

    /// Tells the watchdog that something moves.
    pub(super) fn note_move(&self, now: Instant) {
        let millis = now.duration_since(self.began).as_millis();
        self.moved.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn free_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.waiters.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn push(&mut self, payload: Payload) {
        if payload.bytes.len() < COPY_BELOW {
            return self.heads.extend_from_slice(&payload.bytes);
        }
        let head = Segment { bytes: self.heads.split().freeze(), _room: None };
        self.segments.push_back(head);
        self.segments.push_back(Segment { bytes: payload.bytes, _room: payload.room });
    }

    fn take_segments(&mut self) -> VecDeque<Segment> {
        if !self.heads.is_empty() {
            self.segments.push_back(Segment { bytes: self.heads.split().freeze(), _room: None });
        }
        std::mem::take(&mut self.segments)
    }
}

impl Waiter {
    fn deliver(self, answer: Result<Reply>) {
        self.deliver.give(self.op, answer, self.since.elapsed());
    }

    /// Takes out whom to tell that it is late, once.
    fn give_up(&mut self) -> Option<(SftpOp, Deliver)> {
        let session = match &self.deliver {
            Deliver::Once(_, session) => session.clone(),
            Deliver::Nobody(_) => return None,
            _ => None,
        };
        Some((self.op, std::mem::replace(&mut self.deliver, Deliver::Nobody(session))))
    }
}

impl Deliver {
    fn give(self, op: SftpOp, answer: Result<Reply>, took: Duration) {
        match self {
            Deliver::Once(to, session) => {
                let answer = answer.map(|reply| Answer::new(reply, session));
                // Whoever is gone does not want it; a handle closes itself.
                let _ = to.send(answer);
            }
            Deliver::Piece { to, offset, asked } => {
                let _ = to.send(Arrived { offset, asked, took, answer });
            }
            Deliver::Ack { to, range, _slot } => to.handle_answer(op, range, answer, took),
            Deliver::Nobody(session) => {
                let _ = answer.map(|reply| Answer::new(reply, session));
            }
        }
    }
}

impl Answer {
    fn new(reply: Reply, session: Option<Session>) -> Self {
        match (reply, session) {
            (Reply::Handle(id), Some(session)) => Answer::Handle(Handle::new(session, &id)),
            (reply, _) => Answer::Reply(reply),
        }
    }
}

impl Expect {
    /// What a reply is, in words, that does not answer this.
    fn refusal(self, reply: &Reply) -> Option<String> {
        match (self, reply) {
            (Expect::Status, Reply::Status { .. })
            | (Expect::Handle, Reply::Handle(_))
            | (Expect::Name, Reply::Name(_))
            | (Expect::Attrs, Reply::Attrs(_))
            | (Expect::Extended, Reply::Extended(_)) => None,
            (Expect::Data(asked), Reply::Data(data)) if data.len() <= asked as usize => None,
            (Expect::Data(asked), Reply::Data(data)) => {
                Some(format!("{} bytes where {asked} were asked for", data.len()))
            }
            (_, Reply::Status { code, .. }) if *code != StatusCode::OK => None,
            (_, Reply::Status { .. }) => Some("the status \"ok\" and nothing else".to_owned()),
            (_, other) => Some(other.name().to_owned()),
        }
    }
}

/// An answer that is on its way. Dropped, it is forgotten.
#[derive(Debug)]
pub(super) struct Pending {
    op: SftpOp,
    answer: oneshot::Receiver<Result<Answer>>,
}

impl Session {
    /// Sends a request.
    pub(super) fn ask(&self, op: SftpOp, expect: Expect, request: Request<'_>) -> Result<Pending> {
        self.ask_with(op, expect, request, None)
    }

    /// Sends a request that has content.
    pub(super) fn ask_with(
        &self,
        op: SftpOp,
        expect: Expect,
        request: Request<'_>,
        payload: Option<Payload>,
    ) -> Result<Pending> {
        let session = (expect == Expect::Handle).then(|| self.clone());
        self.inner.shared.ask((op, expect), request, payload, session)
    }

    /// Ends the session for what the server did.
    pub(super) fn protocol(&self, what: String) -> SessionError {
        self.inner.shared.protocol(what)
    }

    pub(super) fn unexpected(&self, op: SftpOp, reply: &Reply) -> SessionError {
        self.protocol(format!("it answered {op} with {}", reply.name()))
    }

    pub(super) fn bad_body(&self, op: SftpOp, error: impl fmt::Display) -> SessionError {
        self.protocol(format!("it answered {op} with {error}"))
    }
}

impl Shared {
    pub(super) fn ask(
        &self,
        (op, expect): (SftpOp, Expect),
        request: Request<'_>,
        payload: Option<Payload>,
        session: Option<Session>,
    ) -> Result<Pending> {
        let (to, answer) = oneshot::channel();
        self.send((op, expect), request, payload, Deliver::Once(to, session))?;
        Ok(Pending { op, answer })
    }

    pub(super) fn protocol(&self, what: String) -> SessionError {
        let error = SessionError::Protocol(what);
        self.fail(error.clone());
        error
    }
}

impl Pending {
    /// The answer; a status that refuses is an error about `path`.
    pub(super) async fn answer(self, path: &[u8]) -> Result<Answer> {
        match self.answer.await.unwrap_or(Err(SessionError::Closed))? {
            Answer::Reply(Reply::Status { code, message }) if code != StatusCode::OK => {
                Err(SftpError::new(self.op, path, code, &message).into())
            }
            answer => Ok(answer),
        }
    }

    pub(super) async fn reply(self, path: &[u8]) -> Result<Reply> {
        match self.answer(path).await? {
            Answer::Reply(reply) => Ok(reply),
            // Only a waiter for a handle is given one.
            Answer::Handle(_) => Err(SessionError::Closed),
        }
    }

    pub(super) async fn done(self, path: &[u8]) -> Result<()> {
        self.reply(path).await.map(drop)
    }

    pub(super) async fn attrs(self, session: &Session, path: &[u8]) -> Result<Attrs> {
        let op = self.op;
        match self.reply(path).await? {
            Reply::Attrs(attrs) => Ok(attrs),
            other => Err(session.unexpected(op, &other)),
        }
    }

    pub(super) async fn body(self, session: &Session, path: &[u8]) -> Result<Bytes> {
        let op = self.op;
        match self.reply(path).await? {
            Reply::Extended(body) => Ok(body),
            other => Err(session.unexpected(op, &other)),
        }
    }

    /// `None` at the end of the file. Servers that send no bytes where the end is mean the same.
    pub(super) async fn data(self, session: &Session, path: &[u8]) -> Result<Option<Bytes>> {
        let op = self.op;
        match self.reply(path).await {
            Ok(Reply::Data(data)) => Ok(Some(data).filter(|data| !data.is_empty())),
            Ok(other) => Err(session.unexpected(op, &other)),
            Err(error) if is_end(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` at the end of the directory.
    pub(super) async fn names(
        self,
        session: &Session,
        path: &[u8],
    ) -> Result<Option<Vec<NameEntry>>> {
        let op = self.op;
        match self.reply(path).await {
            Ok(Reply::Name(names)) => Ok(Some(names)),
            Ok(other) => Err(session.unexpected(op, &other)),
            Err(error) if is_end(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<FrameError> for SessionError {
    fn from(error: FrameError) -> Self {
        SessionError::Protocol(format!("it sent {error}"))
    }
}
