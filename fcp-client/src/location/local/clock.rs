//! The clock that a folder's times come from: ours, unless a network lies between.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fcp_common::fs::Dir;
use fcp_proto::meta::Timestamp;
use fcp_proto::path::RelPath;

use super::{Local, off, open};
use crate::location::copy::probe_name;
use crate::location::{Clock, Result};

/// The kernel stamps files with the time of its last tick, 10 ms ago at most.
const TICK: Duration = Duration::from_millis(20);

pub(super) async fn measure(local: &Local, dir: &RelPath) -> Result<Clock> {
    if !local.inner.far {
        return Ok(Clock::Skew { millis: 0, error: TICK });
    }
    let (inner, dir) = (Arc::clone(&local.inner), dir.clone());
    // Where no probe can be made, nothing can be measured, and nothing is wrong.
    Ok(off(move || probe(&open::beneath(&inner.base, &dir)?)).await.unwrap_or(Clock::Unknown))
}

fn probe(dir: &Dir) -> io::Result<Clock> {
    let name = probe_name();
    let before = now_millis();
    let file = dir.create_new(&name, 0o600)?;
    let written = file.write_all_at(b"fcp", 0).and_then(|()| file.sync_data());
    let stat = file.stat();
    let after = now_millis();
    dir.unlink(&name)?;
    written?;
    Ok(Clock::between(before, after, stat?.mtime, TICK))
}

/// Our own clock in milliseconds since the epoch.
pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Clock {
    /// From a stamp that a place made between two moments of our clock (milliseconds since the
    /// epoch), when it counts in steps of `grain`.
    pub fn between(before: i64, after: i64, stamp: Timestamp, grain: Duration) -> Clock {
        let stamp =
            stamp.secs.saturating_mul(1000).saturating_add(i64::from(stamp.nanos / 1_000_000));
        let trip = after.saturating_sub(before).max(0);
        // A stamp is cut off, so its middle lies half a step later.
        let half = i64::try_from(grain.as_millis() / 2).unwrap_or(0);
        let ours = before.saturating_add(trip / 2);
        let trip = Duration::from_millis(trip.unsigned_abs());
        Clock::Skew {
            millis: stamp.saturating_add(half).saturating_sub(ours),
            error: trip / 2 + grain / 2 + Duration::from_millis(1),
        }
    }
}
