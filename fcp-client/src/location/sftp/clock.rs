//! The server's clock, by the time that it gives to a new file (S15).

use std::time::Duration;

use fcp_proto::meta::Timestamp;
use fcp_proto::path::RelPath;

use super::small::PRIVATE;
use super::spot::Spot;
use super::wire::OpenFlags;
use super::{Sftp, session};
use crate::location::clock::now_millis;
use crate::location::copy::probe_name;
use crate::location::{Clock, Op, Result};

/// SFTP and `date` tell whole seconds.
const GRAIN: Duration = Duration::from_secs(1);
/// More than `date +%s` ever prints.
const MAX_OUTPUT: usize = 4096;

pub(super) async fn measure(sftp: &Sftp, dir: &RelPath) -> Result<Clock> {
    let path = dir.join_unbounded(&probe_name());
    let spot = sftp.spot(&path).await?;
    match by_file(&spot).await {
        Ok(Some(clock)) => Ok(clock),
        Err(error) if error.is_fatal() => Err(spot.failed(Op::Create, &error).await),
        // A place where we may not write; its clock may still be told.
        Ok(None) | Err(_) => by_command(&spot).await,
    }
}

async fn by_file(spot: &Spot<'_>) -> session::Result<Option<Clock>> {
    let before = now_millis();
    let handle = spot.session().open(&spot.full, OpenFlags::CREATE_NEW, PRIVATE).await?;
    let after = now_millis();
    let stat = handle.stat().await;
    let closed = handle.close().await;
    // It goes whatever came of the rest.
    spot.session().remove(&spot.full).await?;
    closed?;
    Ok(stat?.mtime().map(|secs| clock(before, after, secs.into())))
}

async fn by_command(spot: &Spot<'_>) -> Result<Clock> {
    let connection = spot.lease.connection();
    if !connection.has_exec() {
        return Ok(Clock::Unknown);
    }
    let before = now_millis();
    let output = match connection.exec(b"date +%s", MAX_OUTPUT).await {
        Err(error) if error.is_transient() => return Err(error),
        Err(_) => return Ok(Clock::Unknown),
        Ok(output) => output,
    };
    let after = now_millis();
    let text = String::from_utf8_lossy(&output.stdout);
    let secs = text.lines().next_back().and_then(|line| line.trim().parse().ok());
    Ok(secs
        .filter(|_| output.status == Some(0))
        .map_or(Clock::Unknown, |s| clock(before, after, s)))
}

fn clock(before: i64, after: i64, secs: i64) -> Clock {
    Clock::between(before, after, Timestamp { secs, nanos: 0 }, GRAIN)
}
