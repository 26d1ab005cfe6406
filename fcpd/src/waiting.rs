//! Connections that have not said what they are yet: few, and the oldest gives way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::identity::Origin;

/// The connections of which no complete first frame has come.
#[derive(Debug)]
pub(crate) struct Waiting {
    per_origin: usize,
    total: usize,
    /// Oldest first.
    places: Mutex<VecDeque<(Origin, CancellationToken)>>,
}

impl Waiting {
    pub(crate) fn new(limits: &Limits) -> Arc<Waiting> {
        let (per_origin, total) = (limits.waiting_per_uid, limits.waiting);
        Arc::new(Waiting { per_origin, total, places: Mutex::default() })
    }

    /// Gives a connection from `origin` a place, that of the oldest when there are too many.
    pub(crate) fn admit(self: &Arc<Waiting>, origin: Origin) -> Place {
        let lost = CancellationToken::new();
        let mut places = self.places();
        if places.iter().filter(|(of, _)| *of == origin).count() >= self.per_origin {
            let oldest = places.iter().position(|(of, _)| *of == origin);
            give_up(oldest.and_then(|at| places.remove(at)));
        } else if places.len() >= self.total {
            give_up(places.pop_front());
        }
        places.push_back((origin, lost.clone()));
        Place { waiting: Arc::clone(self), lost }
    }

    /// Takes the place of the connection that waits longest, as its descriptor is needed; `false`
    /// when none waits.
    pub(crate) fn drop_oldest(&self) -> bool {
        let oldest = self.places().pop_front();
        let waited = oldest.is_some();
        give_up(oldest);
        waited
    }

    fn places(&self) -> MutexGuard<'_, VecDeque<(Origin, CancellationToken)>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give_up(place: Option<(Origin, CancellationToken)>) {
    if let Some((_, lost)) = place {
        lost.cancel();
    }
}

/// A connection's place among those that wait; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    waiting: Arc<Waiting>,
    lost: CancellationToken,
}

impl Place {
    /// Completes when the place went to another connection.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A token that nobody else holds any more is found by cancelling it.
        self.lost.cancel();
        self.waiting.places().retain(|(_, lost)| !lost.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn uid(uid: u32) -> Origin {
        Origin::Known(Identity::Uid(uid))
    }

    fn waiting(waiting_per_uid: usize, waiting: usize) -> Arc<Waiting> {
        Waiting::new(&Limits { waiting_per_uid, waiting, ..Limits::default() })
    }

    #[test]
    fn w26_the_oldest_of_the_same_origin_gives_way() {
        let waiting = waiting(2, 9);
        let places = [1, 2, 1, 1].map(|n| waiting.admit(uid(n)));
        assert_eq!(places.map(|p| p.lost.is_cancelled()), [true, false, false, false]);
    }

    #[test]
    fn w26_when_all_are_taken_the_oldest_of_all_gives_way() {
        let waiting = waiting(2, 3);
        let places = [1, 2, 3, 4].map(|n| waiting.admit(uid(n)));
        assert_eq!(places.map(|p| p.lost.is_cancelled()), [true, false, false, false]);
    }

    #[test]
    fn a_place_that_is_given_back_is_free() {
        let waiting = waiting(2, 9);
        let first = waiting.admit(uid(1));
        drop(waiting.admit(uid(1)));
        drop(waiting.admit(uid(1)));
        let _third = waiting.admit(uid(1));
        assert!(!first.lost.is_cancelled());
        assert!(waiting.drop_oldest());
        assert!(first.lost.is_cancelled());
    }
}
