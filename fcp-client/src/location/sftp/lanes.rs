//! One file open over several sessions, so that its ranges do not share one window.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fcp_proto::path::RelPath;

use super::Sftp;
use super::pool::Lease;
use super::session::{Handle, Session};
use super::spot::meta_of;
use super::wire::{Attrs, OpenFlags};
use crate::location::Meta;

/// One of the sessions over which a file is open.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) handle: Handle,
    pub(super) lease: Lease<Session>,
}

/// All of them: the first from the beginning, the others as they are needed.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) sftp: Sftp,
    pub(super) path: RelPath,
    pub(super) first: Arc<Lane>,
    how: How,
    more: Mutex<More>,
}

/// How one more is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) flags: OpenFlags,
    /// What the first one is: another must be the same file. `None` for one that we write.
    pub(super) seen: Option<Meta>,
}

#[derive(Debug, Default)]
struct More {
    open: Vec<Arc<Lane>>,
    opening: usize,
}

impl Lanes {
    pub(super) fn new(sftp: &Sftp, path: &RelPath, first: Lane, how: How) -> Arc<Lanes> {
        let (sftp, path, first) = (sftp.clone(), path.clone(), Arc::new(first));
        Arc::new(Lanes { sftp, path, first, how, more: Mutex::default() })
    }

    /// The lane with the fewest users; a new one while all are in use and more are allowed.
    pub(super) async fn free(&self) -> Arc<Lane> {
        let (best, opening) = {
            let mut more = self.lock();
            let best = more.open.iter().chain([&self.first]).min_by_key(|l| Arc::strong_count(l));
            let best = Arc::clone(best.unwrap_or(&self.first));
            // The list's own and this one.
            let idle = Arc::strong_count(&best) <= 2;
            let room = more.open.len() + more.opening + 1 < self.sftp.inner.lanes;
            if idle || !room {
                return best;
            }
            more.opening += 1;
            (best, Opening(self))
        };
        let opened = self.open_one().await;
        drop(opening);
        match opened {
            Some(lane) => {
                let lane = Arc::new(lane);
                self.lock().open.push(Arc::clone(&lane));
                lane
            }
            None => best,
        }
    }

    /// Those beside the first, no longer ours.
    pub(super) fn take_others(&self) -> Vec<Arc<Lane>> {
        std::mem::take(&mut self.lock().open)
    }

    /// `None` where the server allows no more, or where the name is another file by now: the first
    /// lane still is the right one.
    async fn open_one(&self) -> Option<Lane> {
        let lease = self.sftp.inner.pool.acquire().await.ok()?;
        if self.uses(&lease) {
            return None;
        }
        let full = self.sftp.full(&self.path);
        let handle = lease.open(&full, self.how.flags, Attrs::default()).await.ok()?;
        if let Some(seen) = &self.how.seen {
            let now = handle.stat().await.ok()?;
            let same = meta_of(&now)?.is_same_version(seen);
            same.then_some(())?;
        }
        Some(Lane { handle, lease })
    }

    fn uses(&self, lease: &Lease<Session>) -> bool {
        let one = |lane: &Arc<Lane>| std::ptr::eq::<Session>(&*lane.lease, &**lease);
        one(&self.first) || self.lock().open.iter().any(one)
    }

    fn lock(&self) -> MutexGuard<'_, More> {
        // Nothing that can panic runs while it is held.
        self.more.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for a lane that is being opened, given back whatever becomes of it.
struct Opening<'a>(&'a Lanes);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.lock().opening -= 1;
    }
}
