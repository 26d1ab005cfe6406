//! The sessions with one server: how many connections and channels, when to try again, when not.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use crate::location::Result;
use crate::location::sftp::dial::{Connection, Login, Stream};

/// What a pool keeps: something that speaks over a stream.
pub trait Pooled: Send + Sync + Sized + 'static {
    /// Begins over a fresh stream; `place` is what errors call the server.
    fn begin(place: &str, stream: Stream) -> impl Future<Output = Result<Self>> + Send;
    /// Whether it is of no more use.
    fn is_closed(&self) -> bool;
}

/// How much a pool may ask of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Most logins at a time; at least 1.
    pub max_connections: usize,
    /// Most sessions over each of them; at least 1.
    pub max_channels: usize,
}

/// The sessions with one server as one login. Clones share them.
#[derive(Debug)]
pub struct Pool<S: Pooled> {
    inner: Arc<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    login: Login,
    options: PoolOptions,
    sessions: Vec<S>,
}

/// The use of a session. It may have other users, too, once the server allows no more sessions.
#[derive(Debug)]
pub struct Lease<S: Pooled> {
    session: Arc<S>,
    connection: Connection,
}

impl<S: Pooled> Pool<S> {
    /// Nothing is connected yet.
    pub fn new(login: Login, options: PoolOptions) -> Pool<S> {
        Pool { inner: Arc::new(Inner { login, options, sessions: Vec::new() }) }
    }

    /// A session: an idle one, else a new one as long as the limits and the server allow it, else
    /// the one with the fewest users. It never waits for another lease to end.
    ///
    /// # Errors
    /// Why there is no session at all.
    #[allow(clippy::unused_async)]
    pub async fn acquire(&self) -> Result<Lease<S>> {
        let _ = (&self.inner.login, &self.inner.options, &self.inner.sessions);
        todo!()
    }

    /// The session with the fewest users; a new one only where there is none.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    #[allow(clippy::unused_async)]
    pub async fn share(&self) -> Result<Lease<S>> {
        todo!()
    }

    /// How many sessions there are now, and over how many connections.
    pub fn size(&self) -> (usize, usize) {
        todo!()
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

impl<S: Pooled> Deref for Lease<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.session
    }
}
