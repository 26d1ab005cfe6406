//! Which sessions there are, whose they are, and how more connections join them.
//!
//! A session id is 128 bits from the system's generator, bound to the identity that made the
//! session; it means nothing once the session is over. What a wrong id gets is what a foreign one gets, and one
//! that is over: a closed connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fcp_proto::SessionId;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::identity::Identity;
use crate::transport::Transport;

/// One connection of a session; dropped when the connection is closed, so that another may join.
pub(crate) type Permit = OwnedSemaphorePermit;

/// Takes a connection that joins a session.
pub(crate) type Join = Box<dyn Fn(Transport, Permit) + Send + Sync>;

/// All sessions of this server.
#[derive(Debug)]
pub(crate) struct Sessions {
    per_identity: usize,
    total: usize,
    all: Mutex<HashMap<SessionId, Session>>,
}

struct Session {
    owner: Identity,
    permits: Arc<Semaphore>,
    join: Join,
}

/// Why no session is opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOpened {
    #[error("too many sessions at once; wait for one to end")]
    Full,
    #[error("the system gives no random numbers: {0}")]
    NoRandom(#[from] rustix::io::Errno),
}

/// Why a connection may not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotJoined {
    #[error("refused ATTACH to a session that does not exist")]
    Unknown,
    #[error("ALARM: {by} tried to attach to a session of {owner}")]
    Foreign { by: Identity, owner: Identity },
    #[error("refused ATTACH: the session has all the connections that were agreed on")]
    Full,
}

impl NotJoined {
    /// What the log counts together.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            NotJoined::Unknown => "attach",
            NotJoined::Foreign { .. } => "attach-foreign",
            NotJoined::Full => "attach-full",
        }
    }
}

impl Sessions {
    pub(crate) fn new(limits: &Limits) -> Arc<Sessions> {
        let (per_identity, total) = (limits.sessions_per_uid, limits.sessions);
        Arc::new(Sessions { per_identity, total, all: Mutex::default() })
    }

    /// Opens a session of `owner` with at most `connections`; `join` takes all but the first.
    ///
    /// # Errors
    /// [`NotOpened`] when there are too many.
    pub(crate) fn open(
        self: &Arc<Sessions>,
        owner: Identity,
        connections: u16,
        join: Join,
    ) -> Result<(Registration, Permit), NotOpened> {
        let permits = Arc::new(Semaphore::new(connections.into()));
        // There is no other holder yet, so only a session of no connections has none.
        let first = Arc::clone(&permits).try_acquire_owned().map_err(|_| NotOpened::Full)?;
        let sid = random_id()?;
        let mut all = self.all();
        let own = all.values().filter(|session| session.owner.counts_with(&owner)).count();
        if own >= self.per_identity || all.len() >= self.total {
            return Err(NotOpened::Full);
        }
        all.insert(sid, Session { owner, permits, join });
        drop(all);
        Ok((Registration { sessions: Arc::clone(self), sid }, first))
    }

    /// Who made the session `sid`, while it runs.
    pub(crate) fn owner(&self, sid: SessionId) -> Option<Identity> {
        self.all().get(&sid).map(|session| session.owner.clone())
    }

    /// Gives `transport`, a connection of `by`, to the session `sid`.
    ///
    /// # Errors
    /// [`NotJoined`]; the connection is closed.
    pub(crate) fn join(
        &self,
        sid: SessionId,
        by: &Identity,
        transport: Transport,
    ) -> Result<(), NotJoined> {
        let all = self.all();
        let session = all.get(&sid).ok_or(NotJoined::Unknown)?;
        if !session.owner.admits(by) {
            let owner = session.owner.clone();
            return Err(NotJoined::Foreign { by: by.clone(), owner });
        }
        let permit =
            Arc::clone(&session.permits).try_acquire_owned().map_err(|_| NotJoined::Full)?;
        (session.join)(transport, permit);
        Ok(())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        // Every change is one call, so a panic leaves nothing half done.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// A session's place among all; the session id dies with it.
#[derive(Debug)]
pub(crate) struct Registration {
    sessions: Arc<Sessions>,
    sid: SessionId,
}

impl Registration {
    /// The session's id.
    pub(crate) fn sid(&self) -> SessionId {
        self.sid
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.sessions.all().remove(&self.sid);
    }
}

fn random_id() -> Result<SessionId, rustix::io::Errno> {
    let mut id = [0; 16];
    let mut filled = 0;
    while filled < id.len() {
        filled += getrandom(&mut id[filled..], GetRandomFlags::empty())?;
    }
    Ok(SessionId(id))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const ALICE: Identity = Identity::Uid(7);
    const BOB: Identity = Identity::Uid(8);

    /// To be within while there are connections.
    fn runtime() -> tokio::runtime::Runtime {
        crate::server::runtime().unwrap()
    }

    fn stream() -> Transport {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        Transport::Tcp(tokio::net::TcpStream::from_std(stream).unwrap())
    }

    fn keep() -> (Join, Arc<Mutex<Vec<Permit>>>) {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keeper = Arc::clone(&kept);
        (Box::new(move |_, permit| keeper.lock().unwrap().push(permit)), kept)
    }

    #[test]
    fn a17_only_a_living_session_can_be_joined() {
        let runtime = runtime();
        let _within = runtime.enter();
        let sessions = Sessions::new(&Limits::default());
        assert_eq!(sessions.join(SessionId([0; 16]), &ALICE, stream()), Err(NotJoined::Unknown));
        let (registration, _permit) = sessions.open(ALICE, 2, keep().0).unwrap();
        let sid = registration.sid();
        assert_eq!(sessions.join(sid, &ALICE, stream()), Ok(()));
        drop(registration);
        assert_eq!(sessions.join(sid, &ALICE, stream()), Err(NotJoined::Unknown));
    }

    #[test]
    fn a18_another_identity_with_the_right_id_is_refused() {
        let runtime = runtime();
        let _within = runtime.enter();
        let sessions = Sessions::new(&Limits::default());
        let (registration, _permit) = sessions.open(ALICE, 2, keep().0).unwrap();
        let refused = sessions.join(registration.sid(), &BOB, stream());
        assert_eq!(refused, Err(NotJoined::Foreign { by: BOB, owner: ALICE }));
    }

    #[test]
    fn a19_no_more_connections_than_agreed_and_a_closed_one_makes_room() {
        let runtime = runtime();
        let _within = runtime.enter();
        let sessions = Sessions::new(&Limits::default());
        let (join, kept) = keep();
        let (registration, _first) = sessions.open(ALICE, 128, join).unwrap();
        for _ in 1..128 {
            assert_eq!(sessions.join(registration.sid(), &ALICE, stream()), Ok(()));
        }
        assert_eq!(sessions.join(registration.sid(), &ALICE, stream()), Err(NotJoined::Full));
        kept.lock().unwrap().pop();
        assert_eq!(sessions.join(registration.sid(), &ALICE, stream()), Ok(()));
    }

    #[test]
    fn w28_sessions_are_counted_by_identity_and_in_all() {
        let limits = Limits { sessions_per_uid: 2, sessions: 3, ..Limits::default() };
        let sessions = Sessions::new(&limits);
        let open = |uid| sessions.open(Identity::Uid(uid), 1, keep().0);
        let held = [open(1).unwrap(), open(1).unwrap()];
        assert!(matches!(open(1), Err(NotOpened::Full)));
        let other = open(2).unwrap();
        assert!(matches!(open(3), Err(NotOpened::Full)));
        drop((held, other));
        assert!(open(1).is_ok());
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| random_id().unwrap()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
