//! Who holds what.

use fcp_common::private::{Fate, Process};

/// A run that has not ended, as another one sees it.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Its job's key.
    pub(super) job: String,
    /// Its process.
    pub(super) process: Process,
    /// Until when its claims hold, in seconds since the epoch.
    pub(super) lease: i64,
}

impl Owner {
    /// Whether its claims hold at `now`. A process of this host is asked of the kernel: a slow one
    /// keeps what it has, a dead one nothing. What cannot be seen has what its lease says.
    pub(super) fn holds(&self, own: &Process, now: i64) -> bool {
        match self.process.fate(own) {
            Fate::Alive => true,
            Fate::Dead => false,
            Fate::Unknown => self.lease > now,
        }
    }

    /// For [`Claim::Taken`](super::Claim::Taken).
    pub(super) fn shown(&self) -> String {
        format!("job {}, {}", fcp_proto::escape_text(&self.job), self.process)
    }
}
