//! What calls about a whole run do to the database.

use std::time::Duration;

use fcp_common::private::Process;
use rusqlite::{Row, params};

use super::actor::{Refused, Tx};
use crate::job::ledger::owner::Owner;
use crate::job::report::JobSummary;

/// Lines of files that were seen and never claimed are dropped after this time: the files are gone,
/// or they begin to be seen again.
const SEEN_FOR: i64 = 90 * 86_400;

/// Begins a run and ends those that were killed.
pub(super) fn begin(
    tx: &mut Tx<'_, '_>,
    job: &str,
    year: Option<i16>,
    lease: Duration,
) -> Result<i64, Refused> {
    sweep(tx)?;
    let (now, own, until) = (tx.now, tx.own, until(tx.now, lease));
    let old = tx.statement("DELETE FROM files WHERE state = 0 AND job = ?1 AND seen < ?2")?;
    old.execute(params![job, now - SEEN_FOR])?;
    let insert = tx.statement(
        "INSERT INTO runs (job, year, host, world, pid, start, began, lease)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let start = own.start.cast_signed();
    Ok(insert.insert(params![job, year, own.host, own.world, own.pid, start, now, until])?)
}

/// Keeps the claims of a run.
pub(super) fn renew(tx: &mut Tx<'_, '_>, run: i64, lease: Duration) -> Result<(), Refused> {
    let until = until(tx.now, lease);
    let renew = tx.statement("UPDATE runs SET lease = ?2 WHERE id = ?1 AND ended IS NULL")?;
    match renew.execute(params![run, until])? {
        0 => Err(ended()),
        _ => Ok(()),
    }
}

/// Ends a run as it says.
pub(super) fn end(tx: &mut Tx<'_, '_>, run: i64, summary: &JobSummary) -> Result<(), Refused> {
    let now = tx.now;
    let end = tx.statement(
        "UPDATE runs SET ended = ?2, exit = ?3, found = ?4, delivered = ?5, skipped = ?6,
         failed = ?7, bytes = ?8, error = ?9 WHERE id = ?1 AND ended IS NULL",
    )?;
    let counts = [summary.found, summary.delivered, summary.skipped, summary.failed, summary.bytes];
    let [found, delivered, skipped, failed, bytes] = counts.map(u64::cast_signed);
    let (exit, error) = (summary.exit_code, summary.error.as_deref());
    let row = params![run, now, exit, found, delivered, skipped, failed, bytes, error];
    if end.execute(row)? == 0 {
        return Err(ended());
    }
    give_back(tx, run)
}

/// Ends a run that says nothing.
pub(super) fn abandon(tx: &mut Tx<'_, '_>, run: i64) -> Result<(), Refused> {
    let now = tx.now;
    let end = tx.statement(
        "UPDATE runs SET ended = ?2, error = 'it ended without a summary'
         WHERE id = ?1 AND ended IS NULL",
    )?;
    match end.execute(params![run, now])? {
        0 => Ok(()),
        _ => give_back(tx, run),
    }
}

/// Ends a run that was killed, or whose lease is over where nobody can see it; what it held is free.
pub(super) fn bury(tx: &mut Tx<'_, '_>, run: i64) -> Result<(), Refused> {
    let now = tx.now;
    let end = tx.statement(
        "UPDATE runs SET ended = ?2, error = 'it was killed' WHERE id = ?1 AND ended IS NULL",
    )?;
    end.execute(params![run, now])?;
    give_back(tx, run)
}

/// Refuses what a run wants that was ended, by itself or by another one.
pub(super) fn require(tx: &mut Tx<'_, '_>, run: i64) -> Result<(), Refused> {
    match tx.statement("SELECT 1 FROM runs WHERE id = ?1 AND ended IS NULL")?.exists([run])? {
        true => Ok(()),
        false => Err(ended()),
    }
}

/// The owner in a row that has at `from`: job, host, world, pid, start, lease.
pub(in crate::job::ledger) fn owner_of(row: &Row<'_>, from: usize) -> rusqlite::Result<Owner> {
    let process = Process {
        host: row.get(from + 1)?,
        world: row.get(from + 2)?,
        pid: row.get(from + 3)?,
        start: row.get::<_, i64>(from + 4)?.cast_unsigned(),
    };
    Ok(Owner { job: row.get(from)?, process, lease: row.get(from + 5)? })
}

fn sweep(tx: &mut Tx<'_, '_>) -> Result<(), Refused> {
    let going_on = tx.statement(
        "SELECT id, job, host, world, pid, start, lease FROM runs WHERE ended IS NULL",
    )?;
    let rows = going_on.query_map((), |row| Ok((row.get::<_, i64>(0)?, owner_of(row, 1)?)))?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for (run, owner) in rows {
        if !owner.holds(tx.own, tx.now) {
            bury(tx, run)?;
        }
    }
    Ok(())
}

fn give_back(tx: &mut Tx<'_, '_>, run: i64) -> Result<(), Refused> {
    let free = tx.statement("UPDATE files SET run = NULL, spot = NULL WHERE run = ?1")?;
    free.execute([run])?;
    Ok(())
}

fn until(now: i64, lease: Duration) -> i64 {
    now.saturating_add(i64::try_from(lease.as_secs()).unwrap_or(i64::MAX))
}

fn ended() -> Refused {
    Refused::Told("this run was ended, maybe by another one after its lease was over".to_owned())
}
