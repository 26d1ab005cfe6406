//! What ends a run before its work does: a signal, a dead host, a broken ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Why a run ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Somebody stopped it.
    Cancelled,
    /// A host does not answer any more.
    Dead(String),
    /// The run must not go on, e.g. as its ledger failed.
    Broken(String),
}

/// Tells everybody in a run to come to an end. Clones are one; a [`Stop::child`] also ends with
/// its parent.
#[derive(Clone, Debug)]
pub struct Stop {
    told: Arc<watch::Sender<Option<Halt>>>,
    parent: Option<Arc<watch::Sender<Option<Halt>>>>,
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::new()
    }
}

impl Stop {
    /// One that nobody has used.
    pub fn new() -> Stop {
        Stop { told: Arc::new(watch::Sender::new(None)), parent: None }
    }

    /// One that ends with this one, or alone.
    pub fn child(&self) -> Stop {
        Stop { told: Arc::new(watch::Sender::new(None)), parent: Some(Arc::clone(&self.told)) }
    }

    /// Ends it; the first reason stays, also that of a parent.
    pub fn halt(&self, why: Halt) {
        if self.is_over() {
            return;
        }
        self.told.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some(why);
            }
            first
        });
    }

    /// Why it ends, if it does.
    pub fn why(&self) -> Option<Halt> {
        let parent = || self.parent.as_ref().and_then(|parent| parent.borrow().clone());
        self.told.borrow().clone().or_else(parent)
    }

    /// Whether it ends.
    pub fn is_over(&self) -> bool {
        self.told.borrow().is_some()
            || self.parent.as_ref().is_some_and(|parent| parent.borrow().is_some())
    }

    /// Waits until it ends.
    pub async fn over(&self) {
        match &self.parent {
            None => ended(&self.told).await,
            Some(parent) => tokio::select! {
                () = ended(&self.told) => {}
                () = ended(parent) => {}
            },
        }
    }

    /// Waits until it ends, and for `grace` after that.
    pub async fn over_for(&self, grace: Duration) {
        self.over().await;
        tokio::time::sleep(grace).await;
    }
}

async fn ended(told: &watch::Sender<Option<Halt>>) {
    // The sender is ours: it cannot have gone away.
    let _ = told.subscribe().wait_for(Option::is_some).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays_and_children_end_with_their_parent() {
        let stop = Stop::new();
        let (one, other) = (stop.child(), stop.child());
        one.halt(Halt::Dead("host".to_owned()));
        assert!(one.is_over() && !other.is_over() && !stop.is_over());
        stop.halt(Halt::Cancelled);
        stop.halt(Halt::Broken("later".to_owned()));
        other.over().await;
        other.halt(Halt::Dead("a copy that was broken off".to_owned()));
        assert_eq!(other.why(), Some(Halt::Cancelled));
        assert_eq!(one.why(), Some(Halt::Dead("host".to_owned())));
    }
}
