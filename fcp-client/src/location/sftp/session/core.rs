//! What calls and tasks share: who waits for which answer, and what is still to be sent.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::pending::Pending;
use super::waiter::{Deliver, Expect, Waiter};
use super::window::Window;
use super::{DataLimits, Result, Session, SessionError, SessionOptions, SftpOp};
use crate::location::sftp::wire::{Extensions, Reply, Request};

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
                // First, so that whoever is told finds the session closed.
                let error = self.protocol(format!("it answered {} with {what}", waiter.op));
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
            // A server that hashes or copies a large file says nothing meanwhile, to nobody.
            let long = state.waiters.values().any(|waiter| waiter.op.is_long());
            let patience = if long { self.options.request } else { self.options.watchdog };
            if now.duration_since(self.began).saturating_sub(still) >= patience {
                return Err(SessionError::Stalled(patience));
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

impl Shared {
    /// Sends a request whose answer one caller waits for.
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

    /// Ends the session for what the server did.
    pub(super) fn protocol(&self, what: String) -> SessionError {
        let error = SessionError::Protocol(what);
        self.fail(error.clone());
        error
    }
}
