//! The places for requests of ranges on one session, as many as [`Depth`] wants.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::depth::{Depth, START};

/// Places that all ranges of a session share.
pub(super) struct Window {
    places: Arc<Semaphore>,
    state: Mutex<State>,
    began: Instant,
}

struct State {
    depth: Depth,
    /// Places that there are, taken or free.
    places: usize,
}

impl Window {
    pub(super) fn new() -> Self {
        Window {
            places: Arc::new(Semaphore::new(START)),
            state: Mutex::new(State { depth: Depth::new(), places: START }),
            began: Instant::now(),
        }
    }

    /// A place, if one is free.
    pub(super) fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// A place, once one is free; `None` never happens, for nobody closes the window.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// Somebody begins a range. Only after a pause does that begin a new measurement.
    pub(super) fn handle_start(&self) {
        let now = self.began.elapsed();
        self.with(|state, free| {
            if free == state.places {
                state.depth.handle_start(now);
            }
        });
    }

    /// A reply came, `took` after its request.
    pub(super) fn handle_reply(&self, took: Duration) {
        let now = self.began.elapsed();
        self.with(|state, _| state.depth.handle_reply(now, took));
    }

    /// Sets the most places.
    pub(super) fn cap(&self, cap: usize) {
        self.with(|state, _| state.depth.cap(cap));
    }

    fn with(&self, change: impl FnOnce(&mut State, usize)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state, self.places.available_permits());
        let wanted = state.depth.limit();
        if wanted > state.places {
            self.places.add_permits(wanted - state.places);
            state.places = wanted;
        } else {
            // Only free ones; the others go at a later reply.
            state.places -= self.places.forget_permits(state.places - wanted);
        }
    }
}
