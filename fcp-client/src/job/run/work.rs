//! Many files at the same time: a large one fills a worker, of small ones each has sixteen on their
//! way.

use std::sync::{Arc, Mutex, PoisonError};

use fcp_proto::path::RelPath;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Run;
use super::ahead::Ahead;
use super::claim;
use super::file::{self, End, File};
use crate::job::ledger::{Claim, Ledger};
use crate::job::plan::Decision;

/// Shares of one worker.
const SHARES: u32 = 16;
/// From this length in bytes on a file takes a worker for itself.
pub(super) const LARGE: u64 = 1 << 20;

/// The workers of a run: who has a share, and room for those who want one.
pub(super) struct Workers {
    shares: Arc<Semaphore>,
    loads: Arc<Mutex<Vec<u32>>>,
}

/// A file's share of a worker, until it is dropped.
pub(super) struct Share {
    loads: Arc<Mutex<Vec<u32>>>,
    pub(super) worker: usize,
    shares: u32,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Workers {
    pub(super) fn new(workers: usize) -> Workers {
        let workers = workers.clamp(1, Semaphore::MAX_PERMITS / SHARES as usize);
        Workers {
            shares: Arc::new(Semaphore::new(workers * SHARES as usize)),
            loads: Arc::new(Mutex::new(vec![0; workers])),
        }
    }

    /// Waits for room for a file of so many bytes; `None` once there is none ever.
    pub(super) async fn share(&self, size: u64) -> Option<Share> {
        let shares = if size >= LARGE { SHARES } else { 1 };
        let permit = Arc::clone(&self.shares).acquire_many_owned(shares).await.ok()?;
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let (worker, load) = loads.iter_mut().enumerate().min_by_key(|(_, load)| **load)?;
        *load += shares;
        Some(Share { loads: Arc::clone(&self.loads), worker, shares, _permit: permit })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = loads.get_mut(self.worker) {
            *load = load.saturating_sub(self.shares);
        }
    }
}

/// Does what was decided.
pub(super) async fn work<L: Ledger + 'static>(run: &Arc<Run<L>>, decisions: Vec<Decision>) {
    announce(run, &decisions);
    let workers = Workers::new(run.spec().max_workers);
    let mut tasks = JoinSet::new();
    let mut ahead = Ahead::new(run, decisions);
    while let Some((decision, claim)) = ahead.next().await {
        let size = match &decision {
            Decision::Skip { path, why } => {
                run.tell.skipped(path, why);
                continue;
            }
            Decision::Take(take) => take.candidate.meta.size,
            Decision::There { candidate, .. } => candidate.meta.size,
        };
        let Some(share) = claim_share(run, &workers, size, &mut tasks).await else {
            ahead.unused(claim);
            break;
        };
        let run = Arc::clone(run);
        let threads = run.order.large.clone();
        let work = async move { one(&run, decision, claim, &share).await };
        spawn(&mut tasks, threads, size, work);
    }
    bury(run, &mut tasks).await;
    ahead.give_back().await;
}

/// Starts the work for a file of so many bytes where it belongs.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    large: Option<Handle>,
    size: u64,
    work: impl Future<Output = ()> + Send + 'static,
) {
    match large.filter(|_| size >= LARGE) {
        Some(threads) => tasks.spawn_on(work, &threads),
        None => tasks.spawn(work),
    };
}

/// Waits for what still runs. A task that ended by a mistake of ours is a failure, not silence.
pub(super) async fn bury<L>(run: &Run<L>, tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        told_end(run, ended);
    }
}

fn told_end<L>(run: &Run<L>, ended: Result<(), tokio::task::JoinError>) {
    if let Err(why) = ended {
        run.tell.failed(&RelPath::root(), 1, &format!("a file's work broke off, a bug: {why}"));
    }
}

/// Waits for a worker, unless the run ends first; buries tasks meanwhile.
pub(super) async fn claim_share<L: Ledger + 'static>(
    run: &Run<L>,
    workers: &Workers,
    size: u64,
    tasks: &mut JoinSet<()>,
) -> Option<Share> {
    while let Some(ended) = tasks.try_join_next() {
        told_end(run, ended);
    }
    if run.stop.is_over() {
        return None;
    }
    tokio::select! {
        share = workers.share(size) => share,
        () = run.stop.over() => None,
    }
}

fn announce<L>(run: &Run<L>, decisions: &[Decision]) {
    let sizes = decisions.iter().filter_map(|decision| match decision {
        Decision::Take(take) => Some(take.candidate.meta.size),
        _ => None,
    });
    let (files, bytes) = sizes.fold((0, 0_u64), |(n, sum), size| (n + 1, sum.saturating_add(size)));
    run.tell.planning(files, bytes);
}

async fn one<L: Ledger + 'static>(
    run: &Arc<Run<L>>,
    decision: Decision,
    claim: Option<Claim>,
    share: &Share,
) {
    match decision {
        Decision::Take(take) => {
            let (path, size) = (take.candidate.path.clone(), take.candidate.meta.size);
            run.tell.started(&path, size, share.worker);
            let end = claim::take(run, take, claim, share.worker).await;
            told(run, &path, end, false);
        }
        Decision::There { candidate, to } => {
            let path = candidate.path.clone();
            let end = claim::there(run, candidate, to, share.worker).await;
            told(run, &path, end, false);
        }
        Decision::Skip { .. } => {}
    }
}

/// Brings what an earlier run left to its end.
pub(super) async fn go_on<L: Ledger + 'static>(file: File<'_, L>) {
    let (run, path) = (file.run, file.candidate.path.clone());
    let end = file.live().await;
    told(run, &path, end, true);
}

fn told<L>(run: &Run<L>, path: &RelPath, end: End, recovered: bool) {
    match end {
        End::Done(record) => {
            let sent = if record.proven_by == file::BEFORE { 0 } else { record.size };
            run.tell.done(*record, sent, recovered);
        }
        End::Skipped(why) => run.tell.skipped(path, &why),
        End::Failed { attempts, error } => run.tell.failed(path, attempts, &error),
        End::Halted => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_file_fills_a_worker_and_small_ones_share() {
        let workers = Workers::new(2);
        let large = workers.share(LARGE).await.unwrap();
        let small: Vec<_> =
            futures(16, || workers.share(1)).await.into_iter().map(Option::unwrap).collect();
        assert!(small.iter().all(|share| share.worker != large.worker));
        let more = tokio::time::timeout(std::time::Duration::from_millis(10), workers.share(1));
        assert!(more.await.is_err(), "there is no room");
        drop(large);
        assert!(workers.share(LARGE).await.is_some());
    }

    async fn futures<T, F: Future<Output = T>>(count: usize, make: impl Fn() -> F) -> Vec<T> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(make().await);
        }
        all
    }
}
