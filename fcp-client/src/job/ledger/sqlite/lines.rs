//! What calls about one file do to the database.

use std::ops::Range;

use fcp_proto::path::RelPath;
use rusqlite::{OptionalExtension as _, params};

use super::actor::{Refused, Tx};
use super::cells::{COLUMNS, Cells, numbers, record_of};
use super::runs;
use crate::job::ledger::place::spot;
use crate::job::ledger::{Claim, Entity, Hold, Record, State, rules};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, job, place, path, size, mtime, nanos, state, temp, target, hash, moved, \
             action, changed, attempts, error FROM files ",
            $rest
        )
    };
}

/// Claims an entity, see the trait.
pub(super) fn claim(
    tx: &mut Tx<'_, '_>,
    run: i64,
    entity: Entity,
    temp: RelPath,
    hold: Hold,
) -> Result<Claim, Refused> {
    debug_assert!(select!("").starts_with(&format!("SELECT {COLUMNS}")));
    runs::require(tx, run)?;
    let spot = spot(&entity.place, &entity.path);
    let known = find(tx, &entity)?;
    let id = known.as_ref().map(|(id, _)| *id);
    if let Some(owner) = in_the_way(tx, &spot, id, hold)? {
        return Ok(Claim::Taken { owner });
    }
    match known {
        Some((id, Some(Record { state: State::Finished { gone: true, .. }, .. })))
            if hold == Hold::Alone =>
        {
            begin(tx, run, id, temp, hold, &spot)
        }
        Some((_, Some(record))) if matches!(record.state, State::Finished { .. }) => {
            Ok(Claim::Done(record))
        }
        Some((id, Some(record))) => resume(tx, run, id, record, hold, &spot),
        Some((id, None)) => begin(tx, run, id, temp, hold, &spot),
        None => Ok(Claim::New(insert_claimed(tx, run, &entity, &temp, hold, &spot)?)),
    }
}

/// Claims entities in their order.
pub(super) fn claim_all(
    tx: &mut Tx<'_, '_>,
    run: i64,
    wanted: Vec<(Entity, RelPath, Hold)>,
) -> Result<Vec<Claim>, Refused> {
    let one = |(entity, temp, hold)| claim(tx, run, entity, temp, hold);
    wanted.into_iter().map(one).collect()
}

macro_rules! advance {
    ($more:literal) => {
        concat!(
            "UPDATE files SET state = ?2, temp = ?3, target = ?4, hash = ?5, moved = ?6,
             action = ?7, changed = ?8, error = NULL",
            $more,
            " WHERE id = ?1 AND run = ?9 AND state <= ?2"
        )
    };
}

/// Moves a line on. Columns that stay are not named: the pages of their indices are not written.
pub(super) fn record(tx: &mut Tx<'_, '_>, run: i64, id: i64, state: &State) -> Result<(), Refused> {
    let Cells { rank, temp, target, hash, moved, action } = Cells::of(state);
    let now = tx.now;
    let update = tx.statement(match rank {
        ..3 => advance!(""),
        3..5 => advance!(", delivered = coalesce(delivered, ?8)"),
        _ => advance!(", delivered = coalesce(delivered, ?8), run = NULL, spot = NULL"),
    })?;
    let row = params![id, rank, temp, target, hash, moved, action, now, run];
    if update.execute(row)? == 0 {
        return rules::advance(id, held(tx, run, id)?, rank).map_err(Refused::Told);
    }
    drop_ranges(tx, id)
}

/// Notes a range of a temp; one that is not ours any more is nobody's loss.
pub(super) fn written(
    tx: &mut Tx<'_, '_>,
    run: i64,
    id: i64,
    range: &Range<u64>,
    digest: u128,
) -> Result<(), Refused> {
    let insert = tx.statement(
        "INSERT OR REPLACE INTO ranges (file, first, past, digest)
         SELECT id, ?3, ?4, ?5 FROM files WHERE id = ?1 AND run = ?2 AND state = 1",
    )?;
    let (first, past) = (range.start.cast_signed(), range.end.cast_signed());
    insert.execute(params![id, run, first, past, digest.to_be_bytes()])?;
    Ok(())
}

/// Begins a line afresh.
pub(super) fn restart(
    tx: &mut Tx<'_, '_>,
    run: i64,
    id: i64,
    temp: RelPath,
) -> Result<(), Refused> {
    let from = held(tx, run, id)?;
    rules::restart(id, from).map_err(Refused::Told)?;
    drop_ranges(tx, id)?;
    claimed(tx, id, &temp)
}

/// Gives a line back.
pub(super) fn release(
    tx: &mut Tx<'_, '_>,
    run: i64,
    id: i64,
    error: Option<&str>,
) -> Result<(), Refused> {
    held(tx, run, id)?;
    let now = tx.now;
    let free = tx.statement(
        "UPDATE files SET run = NULL, spot = NULL, changed = ?2, error = coalesce(?3, error)
         WHERE id = ?1",
    )?;
    free.execute(params![id, now, error])?;
    Ok(())
}

/// Drops a line.
pub(super) fn forget(tx: &mut Tx<'_, '_>, run: i64, id: i64) -> Result<(), Refused> {
    let from = held(tx, run, id)?;
    rules::forget(id, from).map_err(Refused::Told)?;
    drop_ranges(tx, id)?;
    tx.statement("DELETE FROM files WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// The lines of a job that are not finished.
pub(super) fn open(tx: &mut Tx<'_, '_>, job: &str) -> Result<Vec<Record>, Refused> {
    let query = select!("WHERE job = ?1 AND state BETWEEN 1 AND 4 AND state < 5 ORDER BY id");
    let rows = tx.statement(query)?.query_map([job], record_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The lines of these entities, in their order.
pub(super) fn known(
    tx: &mut Tx<'_, '_>,
    entities: &[Entity],
) -> Result<Vec<Option<Record>>, Refused> {
    entities.iter().map(|entity| Ok(find(tx, entity)?.and_then(|(_, record)| record))).collect()
}

/// Whose these final names are.
pub(super) fn finals(
    tx: &mut Tx<'_, '_>,
    run: i64,
    names: &[RelPath],
) -> Result<Vec<Option<RelPath>>, Refused> {
    names.iter().map(|name| owner_of_final(tx, run, name)).collect()
}

fn owner_of_final(
    tx: &mut Tx<'_, '_>,
    run: i64,
    name: &RelPath,
) -> Result<Option<RelPath>, Refused> {
    let query = tx.statement(select!(
        "WHERE job = (SELECT job FROM runs WHERE runs.id = ?1) AND target = ?2
         AND target IS NOT NULL AND state >= 3 ORDER BY delivered DESC, changed DESC, id DESC LIMIT 1"
    ))?;
    let found = query.query_row(params![run, name.as_bytes()], record_of).optional()?;
    Ok(found.map(|record| record.entity.path))
}

/// When an entity was first seen.
pub(super) fn first_seen(tx: &mut Tx<'_, '_>, entity: &Entity) -> Result<i64, Refused> {
    let (size, mtime, nanos) = numbers(entity);
    let query = tx.statement(
        "SELECT seen FROM files WHERE job = ?1 AND path = ?2 AND place = ?3 AND size = ?4
         AND mtime = ?5 AND nanos = ?6",
    )?;
    let key = params![entity.job, entity.path.as_bytes(), entity.place, size, mtime, nanos];
    match query.query_row(key, |row| row.get(0)).optional()? {
        Some(seen) => Ok(seen),
        None => insert(tx, entity).map(|_| tx.now),
    }
}

/// The line of an entity; without a record when it was only seen.
fn find(tx: &mut Tx<'_, '_>, entity: &Entity) -> Result<Option<(i64, Option<Record>)>, Refused> {
    let (size, mtime, nanos) = numbers(entity);
    let query = tx.statement(select!(
        "WHERE job = ?1 AND path = ?2 AND place = ?3 AND size = ?4 AND mtime = ?5 AND nanos = ?6"
    ))?;
    let key = params![entity.job, entity.path.as_bytes(), entity.place, size, mtime, nanos];
    let found = query.query_row(key, |row| match row.get::<_, i64>(7)? {
        0 => Ok((row.get(0)?, None)),
        _ => Ok((row.get(0)?, Some(record_of(row)?))),
    });
    Ok(found.optional()?)
}

/// Who holds this file so that it cannot be claimed. Runs that are over are ended on the way.
fn in_the_way(
    tx: &mut Tx<'_, '_>,
    spot: &str,
    id: Option<i64>,
    hold: Hold,
) -> Result<Option<String>, Refused> {
    let query = tx.statement(
        "SELECT files.id, files.alone, runs.id,
                runs.job, runs.host, runs.world, runs.pid, runs.start, runs.lease
         FROM files JOIN runs ON runs.id = files.run WHERE files.spot = ?1",
    )?;
    let rows = query.query_map([spot], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, runs::owner_of(row, 3)?))
    })?;
    let rows = rows.collect::<rusqlite::Result<Vec<(i64, bool, i64, _)>>>()?;
    for (line, alone, run, owner) in rows {
        if !owner.holds(tx.own, tx.now) {
            runs::bury(tx, run)?;
        } else if alone || hold == Hold::Alone || id == Some(line) {
            return Ok(Some(owner.shown()));
        }
    }
    Ok(None)
}

fn insert(tx: &mut Tx<'_, '_>, entity: &Entity) -> Result<i64, Refused> {
    let (size, mtime, nanos) = numbers(entity);
    let now = tx.now;
    let insert = tx.statement(
        "INSERT INTO files (job, place, path, size, mtime, nanos, state, seen, changed, attempts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?7, 0)",
    )?;
    let path = entity.path.as_bytes();
    Ok(insert.insert(params![entity.job, entity.place, path, size, mtime, nanos, now])?)
}

/// A line that begins with its claim.
fn insert_claimed(
    tx: &mut Tx<'_, '_>,
    run: i64,
    entity: &Entity,
    temp: &RelPath,
    hold: Hold,
    spot: &str,
) -> Result<i64, Refused> {
    let (size, mtime, nanos) = numbers(entity);
    let now = tx.now;
    let insert = tx.statement(
        "INSERT INTO files (job, place, path, size, mtime, nanos, state, seen, changed, attempts,
                            temp, run, alone, spot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?7, 1, ?8, ?9, ?10, ?11)",
    )?;
    let (path, temp, alone) = (entity.path.as_bytes(), temp.as_bytes(), hold == Hold::Alone);
    let (job, place) = (&entity.job, &entity.place);
    let row = params![job, place, path, size, mtime, nanos, now, temp, run, alone, spot];
    Ok(insert.insert(row)?)
}

fn begin(
    tx: &mut Tx<'_, '_>,
    run: i64,
    id: i64,
    temp: RelPath,
    hold: Hold,
    spot: &str,
) -> Result<Claim, Refused> {
    claimed(tx, id, &temp)?;
    take(tx, run, id, hold, spot)?;
    Ok(Claim::New(id))
}

fn resume(
    tx: &mut Tx<'_, '_>,
    run: i64,
    id: i64,
    mut record: Record,
    hold: Hold,
    spot: &str,
) -> Result<Claim, Refused> {
    take(tx, run, id, hold, spot)?;
    record.attempts = record.attempts.saturating_add(1);
    let query = tx.statement("SELECT first, past, digest FROM ranges WHERE file = ?1")?;
    let ranges = query.query_map([id], |row| {
        let (first, past): (i64, i64) = (row.get(0)?, row.get(1)?);
        let digest = u128::from_be_bytes(row.get(2)?);
        Ok((first.cast_unsigned()..past.cast_unsigned(), digest))
    })?;
    let ranges = ranges.collect::<rusqlite::Result<_>>()?;
    Ok(Claim::Resumed(record, ranges))
}

fn claimed(tx: &mut Tx<'_, '_>, id: i64, temp: &RelPath) -> Result<(), Refused> {
    let now = tx.now;
    let update = tx.statement(
        "UPDATE files SET state = 1, temp = ?2, target = NULL, hash = NULL, moved = NULL,
         action = NULL, delivered = NULL, changed = ?3 WHERE id = ?1",
    )?;
    update.execute(params![id, temp.as_bytes(), now])?;
    Ok(())
}

fn take(tx: &mut Tx<'_, '_>, run: i64, id: i64, hold: Hold, spot: &str) -> Result<(), Refused> {
    let take = tx.statement(
        "UPDATE files SET run = ?2, alone = ?3, spot = ?4, attempts = attempts + 1 WHERE id = ?1",
    )?;
    take.execute(params![id, run, hold == Hold::Alone, spot])?;
    Ok(())
}

/// The number of the state of a line that this run holds.
fn held(tx: &mut Tx<'_, '_>, run: i64, id: i64) -> Result<i64, Refused> {
    let query = tx.statement("SELECT state FROM files WHERE id = ?1 AND run = ?2")?;
    let found = query.query_row(params![id, run], |row| row.get(0)).optional()?;
    found.ok_or_else(|| Refused::Told(rules::lost(id)))
}

fn drop_ranges(tx: &mut Tx<'_, '_>, id: i64) -> Result<(), Refused> {
    tx.statement("DELETE FROM ranges WHERE file = ?1")?.execute([id])?;
    Ok(())
}
