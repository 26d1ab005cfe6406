//! The database file: made, opened, checked, and its errors in words.

use std::path::Path;
use std::time::Duration;

use fcp_common::private::{self, PrivateError};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{beside, shown};
use crate::job::ledger::LedgerError;

/// The version that this program writes.
const VERSION: i64 = 1;

/// "fcpj": tells our database from others.
const APPLICATION: i64 = 0x6663_706a;

/// Up to this length in bytes a ledger is checked whole whenever it is opened, in well under a
/// second.
const CHECKED: u64 = 32 << 20;

/// Another process of ours writes for milliseconds; one that takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pages of 4 KiB in the '-wal' file at which they are put back into the database: so many that
/// most runs do so at their end only. The file grows to 16 MiB and is removed when nobody uses it.
const WAL_PAGES: u32 = 4000;

/// `spot` is set while a line is held. `target`, `hash`, `moved`, `action`: see `cells`. `run` is
/// the run that holds a line, `alone` whether no other job may hold the file meanwhile.
const SCHEMA: &str = "
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, job TEXT NOT NULL, year INTEGER,
    host TEXT NOT NULL, world TEXT NOT NULL, pid INTEGER NOT NULL, start INTEGER NOT NULL,
    began INTEGER NOT NULL, lease INTEGER NOT NULL, ended INTEGER, exit INTEGER,
    found INTEGER, delivered INTEGER, skipped INTEGER, failed INTEGER, bytes INTEGER, error TEXT
);
CREATE INDEX runs_of_job ON runs (job, id);
CREATE INDEX runs_going_on ON runs (id) WHERE ended IS NULL;
CREATE TABLE files (
    id INTEGER PRIMARY KEY, job TEXT NOT NULL, place TEXT NOT NULL, path BLOB NOT NULL,
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, nanos INTEGER NOT NULL,
    state INTEGER NOT NULL, temp BLOB, target BLOB, hash TEXT, moved BLOB, action TEXT,
    seen INTEGER NOT NULL, changed INTEGER NOT NULL, delivered INTEGER,
    attempts INTEGER NOT NULL, error TEXT,
    run INTEGER, alone INTEGER, spot TEXT,
    UNIQUE (job, path, place, size, mtime, nanos)
);
CREATE INDEX files_open ON files (job, id) WHERE state < 5;
CREATE INDEX files_held ON files (spot) WHERE spot IS NOT NULL;
CREATE INDEX files_of_run ON files (run) WHERE run IS NOT NULL;
CREATE INDEX files_delivered ON files (job, delivered) WHERE delivered IS NOT NULL;
CREATE INDEX files_target ON files (job, target) WHERE target IS NOT NULL;
CREATE TABLE ranges (
    file INTEGER NOT NULL, first INTEGER NOT NULL, past INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (file, first)
) WITHOUT ROWID;
";

/// Opens the ledger for reading and writing; makes it if there is none.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerError> {
    let ours = |error: PrivateError| own(path, error);
    private::own_dirs(path.parent().unwrap_or(Path::new("."))).map_err(ours)?;
    let length = match private::require_own_file(path).map_err(ours)? {
        Some(length) => length,
        None => make(path)?,
    };
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    prepare(&connection, length).map_err(|error| failed(path, &error))?;
    Ok(connection)
}

/// Opens the ledger for reading, while others write; `None` when there is none.
pub(in crate::job::ledger) fn open_for_reading(
    path: &Path,
) -> Result<Option<Connection>, LedgerError> {
    match private::require_own_file(path) {
        Ok(Some(_)) => connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(own(path, error)),
    }
}

/// Puts an empty ledger at `path`, whole or not at all: a file of no bytes is never a new ledger,
/// it is a damaged one. Of several processes one makes it.
fn make(path: &Path) -> Result<u64, LedgerError> {
    if private::require_own_file(&beside(path, "-wal")).is_ok_and(|found| found.is_some()) {
        return Err(told(
            path,
            "its file is missing, but the '-wal' file beside it is there. Files \
             would be sent twice without it: put it back from a copy, or move the '-wal' file away \
             to begin anew",
        ));
    }
    let image = image().map_err(|error| failed(path, &error))?;
    match private::create(path, &image) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(own(path, error)),
        _ => Ok(image.len() as u64),
    }
}

/// The bytes of an empty ledger.
fn image() -> rusqlite::Result<Vec<u8>> {
    let mut memory = Connection::open_in_memory()?;
    memory.execute_batch(SCHEMA)?;
    memory.pragma_update(None, "application_id", APPLICATION)?;
    memory.pragma_update(None, "user_version", VERSION)?;
    Ok(memory.serialize("main")?.to_vec())
}

fn connect(path: &Path, mode: OpenFlags) -> Result<Connection, LedgerError> {
    let wrong = |error: rusqlite::Error| failed(path, &error);
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    let connection = connection.map_err(wrong)?;
    connection.busy_timeout(PATIENCE).map_err(wrong)?;
    let pragma = |name| connection.query_row(&format!("PRAGMA {name}"), (), |row| row.get(0));
    let application: i64 = pragma("application_id").map_err(wrong)?;
    let version: i64 = pragma("user_version").map_err(wrong)?;
    match version {
        _ if application != APPLICATION => Err(told(path, &damaged("it is no ledger of fcp"))),
        VERSION => Ok(connection),
        newer if newer > VERSION => Err(told(
            path,
            &format!(
                "a newer fcp wrote it (version {newer}; this one knows {VERSION}): use that fcp"
            ),
        )),
        other => Err(told(path, &damaged(&format!("its version is {other}")))),
    }
}

fn prepare(connection: &Connection, length: u64) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
    if mode != "wal" {
        return Err(refusal(format!(
            "its file system cannot share memory (journal mode {mode}); \
             set XDG_STATE_HOME to a directory of a local file system"
        )));
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cell_size_check = ON;")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    // Ledgers of earlier programs have not got it.
    connection.execute_batch(
        "CREATE INDEX IF NOT EXISTS files_target ON files (job, target) WHERE target IS NOT NULL",
    )?;
    if length <= CHECKED {
        let found: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0))?;
        if found != "ok" {
            return Err(refusal(damaged(&found)));
        }
    }
    Ok(())
}

/// What went wrong with the ledger at `path`, and what to do.
pub(in crate::job::ledger) fn failed(path: &Path, error: &rusqlite::Error) -> LedgerError {
    let code = error.sqlite_error_code();
    let text = match code {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(&error.to_string()),
        Some(ErrorCode::DiskFull) => "its disk is full; what was recorded is safe. Make room and \
             run the job again"
            .to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => format!(
            "another process has locked it for {} seconds; see with 'fuser' or 'lsof' which, and \
             end it if it hangs",
            PATIENCE.as_secs()
        ),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            format!("it cannot be written ({error}): fcp needs to write to it and to its directory")
        }
        Some(ErrorCode::SystemIoFailure) => format!(
            "its disk refused ({error}); what was recorded is safe. Look for errors of the disk or \
             for a full one, and run the job again"
        ),
        _ => match error {
            rusqlite::Error::InvalidParameterName(text) => text.clone(),
            _ => error.to_string(),
        },
    };
    told(path, &text)
}

fn damaged(how: &str) -> String {
    format!(
        "it is damaged ({how}). No job runs without it, as files would be sent twice. Put it back \
         from a copy, or save what is readable with 'sqlite3 OLD .recover | sqlite3 NEW'. To begin \
         anew, and send again all that is still at the sources, move it away with its '-wal' file"
    )
}

/// A text of ours where only SQLite's errors fit.
pub(super) fn refusal(text: String) -> rusqlite::Error {
    rusqlite::Error::InvalidParameterName(text)
}

pub(super) fn told(path: &Path, text: &str) -> LedgerError {
    LedgerError { place: shown(path), text: text.to_owned() }
}

fn own(path: &Path, error: PrivateError) -> LedgerError {
    told(path, &error.to_string())
}
