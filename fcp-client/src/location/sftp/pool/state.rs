//! What a pool has, and what it does next. No I/O.

use std::sync::Arc;
use std::time::Instant;

use super::policy::{Breaker, Cap};
use super::{Connection, Lease, LocationError, PoolOptions, Pooled, Reason, alone, lease};

/// Users of a session from which on something small gets one more. A server answers what comes over
/// one session in order; that is little to wait for, and much less than another login.
const CROWD: usize = 8;
/// The same for one more connection.
const THRONG: usize = 64;

/// A session. Its users are whoever else holds it.
pub(super) struct Slot<S> {
    pub(super) session: S,
}

impl<S: Pooled> Slot<S> {
    fn users(slot: &Arc<Slot<S>>) -> usize {
        Arc::strong_count(slot) - 1
    }
}

/// A connection and its sessions.
struct Entry<S> {
    id: u64,
    connection: Connection,
    /// How many sessions it takes.
    cap: usize,
    /// Those that are being opened.
    opening: usize,
    slots: Vec<Arc<Slot<S>>>,
    /// Something else at this server broke since it was known to be alive.
    is_suspect: bool,
}

impl<S> Entry<S> {
    fn load(&self) -> usize {
        self.slots.len() + self.opening
    }
}

pub(super) struct State<S> {
    entries: Vec<Entry<S>>,
    connections: Cap,
    max_channels: usize,
    /// Connections that are being made.
    dialing: usize,
    next_id: u64,
    breaker: Breaker,
    /// How many attempts failed, and how the last one did.
    failures: u64,
    last: Option<LocationError>,
    /// Some connection succeeded, so the login is good.
    is_proven: bool,
    /// The login is refused, or the server is another one. Nobody tries again.
    is_final: bool,
}

/// Whether there may be more sessions than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grow {
    /// Only where there is none.
    Never,
    /// Where each has many users.
    Slowly,
    /// Where each has one.
    Wide,
}

/// What to do for somebody who wants a session.
pub(super) enum Step<S: Pooled> {
    /// Here is one.
    Use(Lease<S>),
    /// Here is one over this connection, if it still answers.
    Check(u64, Lease<S>),
    /// A place for a connection is reserved: make it.
    Dial,
    /// A place on this connection is reserved: open a session.
    Open(u64, Connection),
    /// Somebody is making one.
    Wait,
    /// There is none, and will be none.
    Fail(Box<LocationError>),
}

impl<S: Pooled> State<S> {
    pub(super) fn new(options: PoolOptions) -> State<S> {
        State {
            entries: Vec::new(),
            connections: Cap::new(options.max_connections),
            max_channels: options.max_channels.max(1),
            dialing: 0,
            next_id: 0,
            breaker: Breaker::default(),
            failures: 0,
            last: None,
            is_proven: false,
            is_final: false,
        }
    }

    /// Decides for one who has seen `seen` failures, and reserves the place that it is about.
    pub(super) fn step(&mut self, grow: Grow, seen: u64, now: Instant) -> Step<S> {
        self.tidy();
        let best = self.least_used();
        if let Some((users, suspect, lease)) = best {
            let grown = match grow {
                _ if users == 0 => None,
                Grow::Never => None,
                Grow::Wide => self.grow(now),
                Grow::Slowly => self.grow_slowly(users, now),
            };
            let step = match suspect {
                None => Step::Use(lease),
                Some(id) => Step::Check(id, lease),
            };
            return grown.unwrap_or(step);
        }
        if let Some(error) = self.last.as_ref().filter(|_| self.failures > seen || self.is_final) {
            return Step::Fail(Box::new(error.clone()));
        }
        if let (Some(left), Some(last)) = (self.breaker.left(now), &self.last) {
            return Step::Fail(Box::new(alone(last, left)));
        }
        self.grow(now).unwrap_or(Step::Wait)
    }

    /// There may be so many connections from now on, if that is more than before.
    pub(super) fn allow(&mut self, connections: usize) {
        self.connections.raise(connections);
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    pub(super) fn has_sessions(&mut self) -> bool {
        self.tidy();
        self.entries.iter().any(|entry| !entry.slots.is_empty())
    }

    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.iter().map(|entry| entry.slots.len()).sum(), self.entries.len())
    }

    /// A connection succeeded, with its first session.
    pub(super) fn connected(&mut self, connection: Connection, session: S) -> Lease<S> {
        self.breaker.succeeded();
        self.is_proven = true;
        self.next_id += 1;
        let slot = Arc::new(Slot { session });
        let made = lease(&slot, &connection);
        let cap = self.max_channels.min(connection.max_channels()).max(1);
        let (id, slots) = (self.next_id, vec![slot]);
        self.entries.push(Entry { id, connection, cap, opening: 0, slots, is_suspect: false });
        self.connections.granted(self.entries.len());
        made
    }

    /// A connection failed.
    pub(super) fn refused(&mut self, error: &LocationError, now: Instant) {
        self.failures += 1;
        self.last = Some(error.clone());
        match error.reason {
            Reason::Busy => self.connections.refused(self.entries.len(), now),
            // Nothing makes these better, and a refused login may lock the account.
            Reason::Login | Reason::HostKey | Reason::Unsupported => self.is_final = true,
            _ => {
                self.breaker.failed(now);
                // What there is goes on; more is asked for later.
                self.connections.refused(self.entries.len(), now);
            }
        }
    }

    /// A session over a connection began.
    pub(super) fn opened(&mut self, id: u64, connection: Connection, session: S) -> Lease<S> {
        let slot = Arc::new(Slot { session });
        let made = lease(&slot, &connection);
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.slots.push(slot);
        }
        made
    }

    /// No further session over this connection.
    pub(super) fn closed(&mut self, id: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.cap = entry.slots.len();
        }
    }

    /// What was being made is made, or given up.
    pub(super) fn release(&mut self, id: Option<u64>) {
        match id {
            None => self.dialing = self.dialing.saturating_sub(1),
            Some(id) => {
                let entry = self.entries.iter_mut().find(|entry| entry.id == id);
                entry.into_iter().for_each(|entry| entry.opening = entry.opening.saturating_sub(1));
            }
        }
    }

    /// Whether what was suspect is alive; what is not goes with all its sessions.
    pub(super) fn checked(&mut self, id: u64, alive: bool) {
        self.entries.retain(|entry| alive || entry.id != id);
        let entry = self.entries.iter_mut().find(|entry| entry.id == id);
        entry.into_iter().for_each(|entry| entry.is_suspect = false);
    }

    /// Forgets connections on which nothing moves any more, before each of their sessions has
    /// found that out for itself, and suspects all others of the same.
    fn condemn(&mut self) {
        let any = |entry: &Entry<S>, is: fn(&S) -> bool| entry.slots.iter().any(|s| is(&s.session));
        let before = self.entries.len();
        let is_lost = self.entries.iter().any(|entry| any(entry, S::is_lost));
        self.entries.retain(|entry| !any(entry, S::is_stalled));
        if is_lost || self.entries.len() < before {
            // One without a session cannot be asked.
            self.entries.retain(|entry| entry.load() > 0);
            self.entries.iter_mut().for_each(|entry| entry.is_suspect = true);
        }
    }

    /// Forgets what is over.
    fn tidy(&mut self) {
        self.condemn();
        for entry in &mut self.entries {
            entry.slots.retain(|slot| !slot.session.is_closed());
        }
        self.entries.retain(|entry| {
            let connection = &entry.connection;
            let may_serve = entry.cap > 0 && connection.max_channels() > 1;
            entry.load() > 0 || (may_serve && !connection.is_closed())
        });
    }

    /// With its users, and its connection's number if that is suspect.
    fn least_used(&self) -> Option<(usize, Option<u64>, Lease<S>)> {
        let all = self
            .entries
            .iter()
            .flat_map(|entry| entry.slots.iter().map(move |slot| (Slot::users(slot), slot, entry)));
        let (users, slot, entry) = all.min_by_key(|(users, ..)| *users)?;
        let suspect = entry.is_suspect.then_some(entry.id);
        Some((users, suspect, lease(slot, &entry.connection)))
    }

    /// One more session where there is a crowd; one more connection only where that does not help.
    fn grow_slowly(&mut self, users: usize, now: Instant) -> Option<Step<S>> {
        let is_opening = self.dialing > 0 || self.entries.iter().any(|entry| entry.opening > 0);
        if users < CROWD || is_opening {
            return None;
        }
        self.open_one(true).or_else(|| (users >= THRONG).then(|| self.grow(now))?)
    }

    /// One more session over a connection that there is, or that has none yet unless `any`.
    fn open_one(&mut self, any: bool) -> Option<Step<S>> {
        let free = self
            .entries
            .iter_mut()
            .filter(|entry| entry.load() < entry.cap && !entry.is_suspect)
            .filter(|entry| !entry.connection.is_closed());
        let entry = free.min_by_key(|entry| entry.load())?;
        if entry.load() > 0 && !any {
            return None;
        }
        entry.opening += 1;
        Some(Step::Open(entry.id, entry.connection.clone()))
    }

    /// One more session: over a connection that has none, else over a new one, else over the one
    /// that has the fewest.
    fn grow(&mut self, now: Instant) -> Option<Step<S>> {
        let used = self.entries.len() + self.dialing;
        let may_dial = !self.is_final
            && used < self.connections.get(now)
            && self.breaker.left(now).is_none()
            && (self.is_proven || self.dialing == 0);
        if let Some(open) = self.open_one(!may_dial) {
            return Some(open);
        }
        may_dial.then(|| {
            self.dialing += 1;
            Step::Dial
        })
    }
}
