//! Which file was proven, so that no other one gets its final name.

use fcp_proto::path::RelPath;

use super::Trouble;
use super::file::File;
use crate::job::ledger::Ledger;
use crate::location::{Meta, SetMeta};

/// A staged copy as it looked when it was proven.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proven {
    meta: Meta,
    /// Whether its time counts: some servers set it only after the file is closed.
    timed: bool,
}

impl Proven {
    /// As its open handle told, when `set` had been set.
    pub(super) fn held(meta: Meta, set: SetMeta) -> Proven {
        let secs = |time: Option<fcp_proto::meta::Timestamp>| time.map(|time| time.secs);
        let timed = meta.id.is_some() || set.mtime.is_some() && secs(meta.mtime) == secs(set.mtime);
        Proven { meta, timed }
    }

    /// As its name told.
    pub(super) fn looked_at(meta: Meta) -> Proven {
        Proven { meta, timed: true }
    }

    /// Whether what has the name now is that file, as far as the place tells.
    pub(super) fn is(&self, now: &Meta) -> bool {
        let same_time = !self.timed || now.mtime == self.meta.mtime;
        now.is_file() && now.size == self.meta.size && now.id == self.meta.id && same_time
    }
}

impl<L: Ledger + 'static> File<'_, L> {
    /// Whether what has the temp's name surely is another file than the one that was proven. It
    /// costs a round trip where sources depend on it, and nothing elsewhere but near by.
    pub(super) async fn is_replaced(&self, temp: &RelPath) -> Result<bool, Trouble> {
        let place = &self.run.order.destination;
        let Some(proven) = self.proven else { return Ok(false) };
        if !place.capabilities().near && !self.run.sources_go() {
            return Ok(false);
        }
        Ok(place.stat(temp).await?.is_some_and(|now| !proven.is(&now)))
    }
}
