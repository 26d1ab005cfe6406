//! The clock that a folder's times come from: ours, unless a network lies between.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fcp_common::fs::Dir;
use fcp_proto::path::RelPath;

use super::{Local, off, open};
use crate::location::clock::now_millis;
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
