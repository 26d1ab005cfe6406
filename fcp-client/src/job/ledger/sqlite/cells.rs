//! Entities and states as the columns of a row.

use fcp_proto::path::RelPath;
use rusqlite::Row;

use super::schema::refusal;
use crate::job::ledger::{Entity, Record, State, rules};

/// The columns that [`record_of`] reads, in its order.
pub(in crate::job::ledger) const COLUMNS: &str = "id, job, place, path, size, mtime, nanos, state, temp, target, \
     hash, moved, action, changed, attempts, error";

/// What a state is in a row.
pub(super) struct Cells<'a> {
    pub(super) rank: i64,
    pub(super) temp: Option<&'a [u8]>,
    pub(super) target: Option<&'a [u8]>,
    pub(super) hash: Option<&'a str>,
    pub(super) moved: Option<&'a [u8]>,
    pub(super) action: Option<&'a str>,
}

impl<'a> Cells<'a> {
    pub(super) fn of(state: &'a State) -> Cells<'a> {
        let rank = rules::rank(state);
        let (temp, to, hash, moved, action) = match state {
            State::Claimed { temp } => (Some(temp), None, None, None, None),
            State::Verified { temp, to, hash } => (Some(temp), Some(to), hash.as_ref(), None, None),
            State::Delivered { to, hash } => (None, Some(to), hash.as_ref(), None, None),
            State::Leaving { to, hash, moved } => {
                (None, Some(to), hash.as_ref(), moved.as_ref(), None)
            }
            State::Finished { to, hash, action, .. } => {
                (None, Some(to), hash.as_ref(), None, Some(action))
            }
        };
        // Of what is finished only whether it went.
        let gone = matches!(state, State::Finished { gone: true, .. }).then_some(&b""[..]);
        Cells {
            rank,
            temp: temp.map(RelPath::as_bytes),
            target: to.map(RelPath::as_bytes),
            hash: hash.map(String::as_str),
            moved: moved.map(RelPath::as_bytes).or(gone),
            action: action.map(String::as_str),
        }
    }
}

/// The numbers of an entity as SQLite keeps them: sizes beyond its integers, which only a peer that
/// lies can tell of, turn negative and come back.
pub(super) fn numbers(entity: &Entity) -> (i64, i64, i64) {
    let seconds = entity.mtime.div_euclid(1_000_000_000);
    let seconds = seconds.clamp(i64::MIN.into(), i64::MAX.into());
    let nanos = entity.mtime.rem_euclid(1_000_000_000);
    (entity.size.cast_signed(), seconds as i64, nanos as i64)
}

/// The record in a row that begins with [`COLUMNS`]; a line that was seen and not claimed has none.
pub(crate) fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    let (seconds, nanos): (i64, i64) = (row.get(5)?, row.get(6)?);
    let entity = Entity {
        job: row.get(1)?,
        place: row.get(2)?,
        path: path(row, 3)?,
        size: row.get::<_, i64>(4)?.cast_unsigned(),
        mtime: i128::from(seconds) * 1_000_000_000 + i128::from(nanos),
    };
    Ok(Record {
        id: row.get(0)?,
        entity,
        state: state(row)?,
        changed: row.get(13)?,
        attempts: row.get(14)?,
        error: row.get(15)?,
    })
}

fn state(row: &Row<'_>) -> rusqlite::Result<State> {
    let hash = row.get(10)?;
    let leads = row.get_ref(11)? != rusqlite::types::ValueRef::Null;
    Ok(match row.get::<_, i64>(7)? {
        1 => State::Claimed { temp: path(row, 8)? },
        2 => State::Verified { temp: path(row, 8)?, to: path(row, 9)?, hash },
        3 => State::Delivered { to: path(row, 9)?, hash },
        4 => {
            let moved = if leads { Some(path(row, 11)?) } else { None };
            State::Leaving { to: path(row, 9)?, hash, moved }
        }
        5 => State::Finished { to: path(row, 9)?, hash, action: row.get(12)?, gone: leads },
        other => return Err(refusal(format!("a line of it has the unknown state {other}"))),
    })
}

fn path(row: &Row<'_>, column: usize) -> rusqlite::Result<RelPath> {
    let bytes: Vec<u8> = row.get(column)?;
    RelPath::new(&bytes).map_err(|why| refusal(format!("a line of it has no usable path: {why}")))
}
