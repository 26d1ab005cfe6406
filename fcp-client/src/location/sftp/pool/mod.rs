//! The sessions with one server: how many connections and channels, when to try again, when not.
//!
//! A login that was refused, and a server that is not whom we know, are final: nobody tries again.
//! Until one connection has succeeded there is one attempt at a time, and whoever waits for it gets
//! its failure.

mod policy;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OnceCell};
use tokio::time::timeout;

use self::policy::{ATTEMPTS, pause};
use self::state::{Grow, Slot, State, Step};
use crate::location::sftp::dial::{self, Connection, Door, Login, Stream};
use crate::location::{LocationError, Reason, Result};

/// How long one more connection may take before its user goes on with a session of others.
const IMPATIENCE: Duration = Duration::from_secs(5);

/// How long a session may take to show that it is alive, once another one was not.
const ALIVE: Duration = Duration::from_secs(5);

/// What a pool keeps: something that speaks over a stream.
pub trait Pooled: Send + Sync + Sized + 'static {
    /// Begins over a fresh stream; `place` is what errors call the server.
    fn begin(place: &str, stream: Stream) -> impl Future<Output = Result<Self>> + Send;
    /// Whether it is of no more use.
    fn is_closed(&self) -> bool;
    /// Whether it ended as nothing answered any more: then nothing on its connection does.
    fn is_stalled(&self) -> bool {
        false
    }
    /// Whether it ended as its stream broke: others may be about to.
    fn is_lost(&self) -> bool {
        false
    }
    /// Asks the server for anything; whether it answered. It need not come back.
    fn answers(&self) -> impl Future<Output = bool> + Send {
        std::future::ready(true)
    }
}

/// How much a pool may ask of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Most logins at a time; at least 1.
    pub max_connections: usize,
    /// Most sessions over each of them; at least 1.
    pub max_channels: usize,
}

/// The sessions with one server as one login. Clones share them; they end with the last clone and
/// lease.
pub struct Pool<S: Pooled> {
    inner: Arc<Inner<S>>,
}

/// The use of a session. It may have other users, too, once the server allows no more sessions.
pub struct Lease<S: Pooled> {
    slot: Arc<Slot<S>>,
    connection: Connection,
}

/// Makes a connection.
pub type Opener = dyn Fn() -> dial::Future<'static, Result<Connection>> + Send + Sync;

struct Inner<S> {
    opener: Box<Opener>,
    state: Mutex<State<S>>,
    /// Something that somebody may wait for has happened.
    changed: Notify,
}

impl<S: Pooled> Pool<S> {
    /// Nothing is connected yet.
    pub fn new(login: Login, options: PoolOptions) -> Pool<S> {
        let door = Arc::new(OnceCell::<Door>::new());
        let opener = move || -> dial::Future<'static, Result<Connection>> {
            let (login, door) = (login.clone(), Arc::clone(&door));
            Box::pin(async move { door.get_or_try_init(|| Door::find(login)).await?.enter().await })
        };
        Pool::over(Box::new(opener), options)
    }

    /// One whose connections come from somewhere else.
    pub fn over(opener: Box<Opener>, options: PoolOptions) -> Pool<S> {
        let state = Mutex::new(State::new(options));
        Pool { inner: Arc::new(Inner { opener, state, changed: Notify::new() }) }
    }

    /// A session: an idle one, else a new one as long as the limits and the server allow it, else
    /// the one with the fewest users. It never waits for another lease to end.
    ///
    /// # Errors
    /// Why there is no session at all.
    pub async fn acquire(&self) -> Result<Lease<S>> {
        self.inner.lease(Grow::Wide).await
    }

    /// The session with the fewest users; a new one only where there is none.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    pub async fn share(&self) -> Result<Lease<S>> {
        self.inner.lease(Grow::Never).await
    }

    /// A session for something small, of which many may be on their way over each: a new one only
    /// where all have enough to do, over the connections that there are as long as these take more.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    pub async fn crowd(&self) -> Result<Lease<S>> {
        self.inner.lease(Grow::Slowly).await
    }

    /// From now on there may be so many connections, if that is more than before: for whoever finds
    /// out later how many are worth their logins.
    pub fn allow(&self, connections: usize) {
        self.inner.lock().allow(connections);
    }

    /// How many sessions there are now, and over how many connections.
    pub fn size(&self) -> (usize, usize) {
        self.inner.lock().size()
    }
}

impl<S: Pooled> Inner<S> {
    async fn lease(self: &Arc<Self>, mut grow: Grow) -> Result<Lease<S>> {
        let mut seen = self.lock().failures();
        loop {
            // Before the look at the state, so that no change is missed.
            let changed = self.changed.notified();
            let step = self.lock().step(grow, seen, Instant::now());
            match step {
                Step::Use(lease) => return Ok(lease),
                Step::Check(id, lease) => {
                    let alive = timeout(ALIVE, lease.answers()).await.unwrap_or(false);
                    self.lock().checked(id, alive);
                    if alive {
                        return Ok(lease);
                    }
                }
                Step::Fail(error) => return Err(*error),
                Step::Wait => {
                    changed.await;
                    // What failed meanwhile failed for us, too.
                    continue;
                }
                Step::Dial => match self.dialed().await {
                    // It goes on with what there is.
                    Some(Err(error)) if self.lock().has_sessions() => tracing::debug!("{error}"),
                    Some(done) => return done,
                    None => grow = Grow::Never,
                },
                Step::Open(id, connection) => match self.open(id, &connection).await {
                    // It goes on with what there is, or over another connection.
                    Err(error) => tracing::debug!("{error}"),
                    done => return done,
                },
            }
            seen = self.lock().failures();
        }
    }

    /// One more connection, made in the background, so that who gives up does not end it, and
    /// everybody goes on with what there is if it takes long; then `None`.
    async fn dialed(self: &Arc<Self>) -> Option<Result<Lease<S>>> {
        let inner = Arc::clone(self);
        let reserved = Reserved { inner: Arc::clone(self), id: None };
        let mut dialing = tokio::spawn(async move { inner.dial(reserved).await });
        loop {
            match timeout(IMPATIENCE, &mut dialing).await {
                Ok(Ok(done)) => return Some(done),
                // The runtime ends, or we have a bug.
                Ok(Err(error)) => resume(error).await,
                Err(_) if self.lock().has_sessions() => return None,
                Err(_) => {}
            }
        }
    }

    /// One more connection, and a session over it. As long as there is none at all, a server that
    /// takes no more connections for now is asked again.
    async fn dial(&self, reserved: Reserved<S>) -> Result<Lease<S>> {
        let mut made = self.connect().await;
        for attempt in 1..ATTEMPTS {
            let is_busy = made.as_ref().is_err_and(|error| error.reason == Reason::Busy);
            if !is_busy || self.lock().has_sessions() {
                break;
            }
            tokio::time::sleep(pause(attempt - 1, chance())).await;
            made = self.connect().await;
        }
        let mut state = self.lock();
        let made = match made {
            Ok((connection, session)) => Ok(state.connected(connection, session)),
            Err(error) => {
                state.refused(&error, Instant::now());
                Err(error)
            }
        };
        drop(state);
        drop(reserved);
        made
    }

    async fn connect(&self) -> Result<(Connection, S)> {
        let connection = (self.opener)().await?;
        let session = self.begin(&connection).await?;
        Ok((connection, session))
    }

    /// One more session over a connection.
    async fn open(self: &Arc<Self>, id: u64, connection: &Connection) -> Result<Lease<S>> {
        let reserved = Reserved { inner: Arc::clone(self), id: Some(id) };
        let begun = self.begin(connection).await;
        let mut state = self.lock();
        let begun = match begun {
            Ok(session) => Ok(state.opened(id, connection.clone(), session)),
            Err(error) => {
                state.closed(id);
                Err(error)
            }
        };
        drop(state);
        drop(reserved);
        begun
    }

    async fn begin(&self, connection: &Connection) -> Result<S> {
        let stream = connection.open_sftp().await?;
        match S::begin(connection.name(), stream).await {
            Ok(session) => Ok(session),
            Err(error) => Err(connection.explain(error).await),
        }
    }

    /// Nothing that runs under the lock leaves the state half changed.
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is kept for a connection or channel that is being made, also when whoever makes it
/// gives up.
struct Reserved<S: Pooled> {
    inner: Arc<Inner<S>>,
    id: Option<u64>,
}

impl<S: Pooled> Drop for Reserved<S> {
    fn drop(&mut self) {
        self.inner.lock().release(self.id);
        self.inner.changed.notify_waiters();
    }
}

/// A task that did not end by itself: its panic is ours, and a runtime that ends asks no more.
async fn resume(error: tokio::task::JoinError) -> ! {
    if error.is_panic() {
        std::panic::resume_unwind(error.into_panic());
    }
    std::future::pending().await
}

/// Any number.
fn chance() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(4) => u32::from_ne_bytes(bytes),
        _ => u32::MAX / 2,
    }
}

impl<S: Pooled> Clone for Pool<S> {
    fn clone(&self) -> Pool<S> {
        Pool { inner: Arc::clone(&self.inner) }
    }
}

impl<S: Pooled> Lease<S> {
    /// What the session runs over, for commands.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl<S: Pooled> Clone for Lease<S> {
    fn clone(&self) -> Lease<S> {
        Lease { slot: Arc::clone(&self.slot), connection: self.connection.clone() }
    }
}

impl<S: Pooled> Deref for Lease<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.slot.session
    }
}

impl<S: Pooled> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("size", &self.size()).finish_non_exhaustive()
    }
}

impl<S: Pooled> fmt::Debug for Lease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// For the state: what it answers with.
fn lease<S: Pooled>(slot: &Arc<Slot<S>>, connection: &Connection) -> Lease<S> {
    Lease { slot: Arc::clone(slot), connection: connection.clone() }
}

/// The failure of a host that is left alone.
fn alone(last: &LocationError, left: Duration) -> LocationError {
    let seconds = left.as_secs().saturating_add(1);
    let text =
        format!("{}; after several failures in a row it is left alone for {seconds} s", last.text);
    LocationError { text, ..last.clone() }
}
