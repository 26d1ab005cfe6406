//! What the ledger says of a job, for people, read while runs go on.

use std::path::Path;

use fcp_common::private::Process;
use rusqlite::{Connection, Row, params};

use super::owner::Owner;
use super::sqlite::{COLUMNS, failed, open_for_reading, owner_of, record_of};
use super::{LedgerError, Record, rules};

/// The most files of each kind that are told of; the rest is counted.
const MOST: usize = 1000;

/// A ledger that nothing is written to.
#[derive(Debug)]
pub struct Overview {
    connection: Connection,
    place: std::path::PathBuf,
}

/// What became of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobOverview {
    /// Its last run that does not go on any more.
    pub last: Option<RunLine>,
    /// What a run holds now.
    pub in_flight: Files,
    /// What the last try did not finish, and why.
    pub failed: Files,
    /// What a run left when it was killed, for the next one to finish.
    pub interrupted: Files,
    /// Files that got their final name since `midnight`.
    pub delivered_today: u64,
    /// Files that ever did.
    pub delivered: u64,
}

/// Some files, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<FileLine>,
}

/// A file on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    /// Below the base of the source.
    pub path: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Bytes that are known to be written, of a large file.
    pub written: u64,
    /// How far it is: `copying`, `verified`, `delivered`, `leaving`.
    pub state: &'static str,
    /// When that changed, in seconds since the epoch.
    pub changed: i64,
    /// Claims so far.
    pub attempts: u32,
    /// The last error.
    pub error: Option<String>,
}

/// A run. Times are in seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLine {
    /// The year that was asked for.
    pub year: Option<i16>,
    /// Its process.
    pub pid: u32,
    /// Its host.
    pub host: String,
    /// When it began.
    pub began: i64,
    /// When it ended; `None` when it was killed and no run came since.
    pub ended: Option<i64>,
    /// Its exit code; none when it was killed.
    pub exit: Option<u8>,
    /// What it found, delivered, skipped and failed with, and bytes sent; as `exit`.
    pub counts: Option<[u64; 5]>,
    /// Why it ended early.
    pub error: Option<String>,
}

impl Overview {
    /// The ledger at `path`; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path) -> Result<Option<Overview>, LedgerError> {
        let place = path.to_owned();
        Ok(open_for_reading(path)?.map(|connection| Overview { connection, place }))
    }

    /// What became of `job`, seen from this process at `now`; `midnight` is when today began. Both
    /// in seconds since the epoch.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn job(&self, job: &str, now: i64, midnight: i64) -> Result<JobOverview, LedgerError> {
        self.read(job, now, midnight).map_err(|error| failed(&self.place, &error))
    }

    /// All lines of `job`, finished ones with them.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn records(&self, job: &str) -> Result<Vec<Record>, LedgerError> {
        self.read_records(job).map_err(|error| failed(&self.place, &error))
    }

    fn read_records(&self, job: &str) -> rusqlite::Result<Vec<Record>> {
        let sql = format!("SELECT {COLUMNS} FROM files WHERE job = ?1 AND state > 0");
        let mut select = self.connection.prepare(&sql)?;
        select.query_map([job], record_of)?.collect()
    }

    fn read(&self, job: &str, now: i64, midnight: i64) -> rusqlite::Result<JobOverview> {
        // One look at one moment.
        let tx = self.connection.unchecked_transaction()?;
        let own = Process::own();
        let mut found = JobOverview { last: last_run(&tx, job, &own, now)?, ..Default::default() };
        let count = |from: i64| {
            let sql = "SELECT count(*) FROM files WHERE job = ?1 AND delivered >= ?2";
            tx.query_row(sql, params![job, from], |row| row.get::<_, i64>(0))
        };
        found.delivered_today = count(midnight)?.cast_unsigned();
        found.delivered = count(i64::MIN)?.cast_unsigned();
        read_open(&tx, job, &own, now, &mut found)?;
        Ok(found)
    }
}

/// Files on their way, by who has them.
fn read_open(
    tx: &Connection,
    job: &str,
    own: &Process,
    now: i64,
    found: &mut JobOverview,
) -> rusqlite::Result<()> {
    let mut open = tx.prepare(
        "SELECT path, size, state, changed, attempts, files.error, files.run,
                runs.job, host, world, pid, start, lease,
                (SELECT sum(past - first) FROM ranges WHERE ranges.file = files.id)
         FROM files LEFT JOIN runs ON runs.id = files.run AND ended IS NULL
         WHERE files.job = ?1 AND state BETWEEN 1 AND 4 AND state < 5 ORDER BY files.id",
    )?;
    let mut rows = open.query([job])?;
    while let Some(row) = rows.next()? {
        let is_held = match row.get::<_, Option<String>>(7)? {
            Some(_) => owner_of(row, 7)?.holds(own, now),
            None => false,
        };
        let line = file_of(row)?;
        let files = match (is_held, &line.error) {
            (true, _) => &mut found.in_flight,
            (false, Some(_)) => &mut found.failed,
            (false, None) => &mut found.interrupted,
        };
        files.count += 1;
        if files.first.len() < MOST {
            files.first.push(line);
        }
    }
    Ok(())
}

fn last_run(
    tx: &Connection,
    job: &str,
    own: &Process,
    now: i64,
) -> rusqlite::Result<Option<RunLine>> {
    let sql = "SELECT job, host, world, pid, start, lease, year, began, ended, exit, error,
                      found, delivered, skipped, failed, bytes
               FROM runs WHERE job = ?1 ORDER BY id DESC";
    let mut runs = tx.prepare(sql)?;
    let mut rows = runs.query([job])?;
    while let Some(row) = rows.next()? {
        let (owner, ended) = (owner_of(row, 0)?, row.get::<_, Option<i64>>(8)?);
        if ended.is_some() || !owner.holds(own, now) {
            return run_of(row, &owner, ended).map(Some);
        }
    }
    Ok(None)
}

fn run_of(row: &Row<'_>, owner: &Owner, ended: Option<i64>) -> rusqlite::Result<RunLine> {
    let killed = ended.is_none().then(|| "it was killed".to_owned());
    Ok(RunLine {
        year: row.get(6)?,
        pid: owner.process.pid,
        host: owner.process.host.clone(),
        began: row.get(7)?,
        ended,
        exit: row.get(9)?,
        counts: counts_of(row)?,
        error: killed.or(row.get(10)?),
    })
}

fn counts_of(row: &Row<'_>) -> rusqlite::Result<Option<[u64; 5]>> {
    let mut counts = [0; 5];
    for (count, column) in counts.iter_mut().zip(11..) {
        match row.get::<_, Option<i64>>(column)? {
            Some(number) => *count = number.cast_unsigned(),
            None => return Ok(None),
        }
    }
    Ok(Some(counts))
}

fn file_of(row: &Row<'_>) -> rusqlite::Result<FileLine> {
    Ok(FileLine {
        path: row.get(0)?,
        size: row.get::<_, i64>(1)?.cast_unsigned(),
        written: row.get::<_, Option<i64>>(13)?.unwrap_or_default().cast_unsigned(),
        state: rules::name_of(row.get(2)?),
        changed: row.get(3)?,
        attempts: row.get(4)?,
        error: row.get(5)?,
    })
}
