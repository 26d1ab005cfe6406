//! Names made durable. Many renames in a folder share one sync.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fcp_proto::path::RelPath;

use super::{Run, Side};
use crate::location::LocationError;

/// The syncs of all folders of a run.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    folders: Mutex<HashMap<(Side, RelPath), Arc<Turns>>>,
}

/// The syncs of one folder, by number.
#[derive(Debug, Default)]
struct Turns {
    begun: AtomicU64,
    /// The last one that succeeded; whoever holds this syncs.
    done: tokio::sync::Mutex<u64>,
}

impl Syncs {
    /// Runs `sync`, unless one that began after this call did what it does.
    async fn after(
        &self,
        folder: (Side, RelPath),
        sync: impl Future<Output = Result<(), LocationError>>,
    ) -> Result<(), LocationError> {
        let turns = {
            let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(folders.entry(folder).or_default())
        };
        let before = turns.begun.load(Ordering::SeqCst);
        let mut done = turns.done.lock().await;
        if *done > before {
            return Ok(());
        }
        let number = turns.begun.fetch_add(1, Ordering::SeqCst) + 1;
        sync.await?;
        *done = number;
        Ok(())
    }
}

impl<L> Run<L> {
    /// Makes what has a name in this folder now keep it over a power cut, where the place can do
    /// that. It fails only where a source depends on it: what is kept can be sent again.
    pub(super) async fn sync_dir(&self, side: Side, dir: &RelPath) -> Result<(), LocationError> {
        let place = self.at(side);
        let sync = async { place.sync_dir(dir).await.map(drop) };
        match self.syncs.after((side, dir.clone()), sync).await {
            Err(error) if side == Side::Source || !self.sources_go() => {
                tracing::debug!("{error}; names there may not survive a power cut");
                Ok(())
            }
            done => done,
        }
    }

    /// As [`Run::sync_dir`], of the folder that this name is in.
    pub(super) async fn sync_name(&self, side: Side, path: &RelPath) -> Result<(), LocationError> {
        let dir = path.split_last().map(|(dir, _)| dir).unwrap_or_default();
        self.sync_dir(side, &dir).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_share_one_sync_and_none_that_began_before() {
        let syncs = Syncs::default();
        let (count, running) = (AtomicU64::new(0), tokio::sync::Semaphore::new(0));
        let folder = || (Side::Destination, RelPath::root());
        let sync = || {
            syncs.after(folder(), async {
                count.fetch_add(1, Ordering::SeqCst);
                running.acquire().await.unwrap().forget();
                Ok(())
            })
        };
        let mut first = Box::pin(sync());
        assert!(futures(&mut first).await.is_none(), "it runs");
        // These come while it runs: it may be too early for their names, and one does for all.
        let mut others: Vec<_> = (0..50).map(|_| Box::pin(sync())).collect();
        for other in &mut others {
            assert!(futures(other).await.is_none());
        }
        running.add_permits(2);
        first.await.unwrap();
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    /// What a future has after one poll.
    async fn futures<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
