//! Files of lines that begin anew each day, and whose old days are removed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use fcp_common::private::{self, Appender, PrivateError};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

use super::lock::file_name;

/// Days that a file is kept after its own, by the local calendar.
const KEPT: i64 = 30;

/// As many files of one day are told apart; more would mean that something renames in a loop.
const MOST_A_DAY: u32 = 10_000;

/// Which files: `fcp_job_{job}_{year}{end}` below `{log_dir}/logs`, and with `.YYYY-MM-DD` those of
/// earlier days.
#[derive(Debug)]
pub(super) struct Daily {
    dir: PathBuf,
    /// `fcp_job_{job}_`.
    start: String,
    year: i16,
    /// `.log` or `.audit.jsonl`.
    end: &'static str,
    zone: TimeZone,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    file: Option<(Appender, Date)>,
    /// The trouble that was told.
    told: bool,
}

impl Daily {
    /// The files of a job and year. Nothing is touched before the first line.
    pub(super) fn new(
        log_dir: &Path,
        job: &str,
        year: i16,
        end: &'static str,
        zone: TimeZone,
    ) -> Daily {
        let (dir, start) = (log_dir.join("logs"), format!("fcp_job_{}_", file_name(job)));
        Daily { dir, start, year, end, zone, open: Mutex::default() }
    }

    /// The time of day as lines have it.
    pub(super) fn local(&self, now: Timestamp) -> Zoned {
        now.to_zoned(self.zone.clone())
    }

    /// Adds lines, each with its time, with one write for those of a day. It is told why it cannot, the first time that it cannot; each line
    /// tries anew, as disks get room again.
    pub(super) fn lines(&self, lines: &[(Timestamp, String)]) -> Option<PrivateError> {
        let day = |(at, _): &(Timestamp, String)| self.local(*at).date();
        let (first, last) = (day(lines.first()?), day(lines.last()?));
        let of_one_day = |lines: &[(Timestamp, String)]| {
            let texts: Vec<&str> = lines.iter().map(|(_, line)| line.as_str()).collect();
            self.of_a_day(lines.first().map_or(first, day), &texts.join("\n"))
        };
        if first == last {
            return of_one_day(lines);
        }
        // Once a day.
        lines.chunk_by(|a, b| day(a) == day(b)).filter_map(of_one_day).last()
    }

    fn of_a_day(&self, day: Date, lines: &str) -> Option<PrivateError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let error = self.try_line(&mut open, day, lines).err()?;
        (!std::mem::replace(&mut open.told, true)).then_some(error)
    }

    #[cfg(test)]
    fn line(&self, now: Timestamp, line: &str) -> Option<PrivateError> {
        self.lines(&[(now, line.to_owned())])
    }

    fn try_line(&self, open: &mut Open, today: Date, line: &str) -> Result<(), PrivateError> {
        let stale = |(file, day): &(Appender, Date)| *day < today || !file.is_current();
        if open.file.as_ref().is_none_or(stale) {
            let file = self.reopen(open.file.take(), today)?;
            open.file = Some((file, today));
            self.remove_old(today);
        }
        match &mut open.file {
            Some((file, _)) => file.line(line),
            None => Ok(()),
        }
    }

    /// Opens today's file, after one of an earlier day was put aside: by the day that we opened it
    /// on, or, if we did not, that of its last line.
    fn reopen(
        &self,
        held: Option<(Appender, Date)>,
        today: Date,
    ) -> Result<Appender, PrivateError> {
        let path = self.path();
        if let Some((file, day)) = held.filter(|(_, day)| *day < today) {
            file.put_aside(self.names(day))?;
        }
        let file = Appender::open(&path)?;
        let day = file.written().and_then(|at| self.day(at));
        match day.filter(|day| *day < today) {
            Some(day) => {
                file.put_aside(self.names(day))?;
                Appender::open(&path)
            }
            None => Ok(file),
        }
    }

    /// Removes what is of a day long ago: by the day in its name, or, for the last file of an
    /// earlier year, by its last line. Other jobs' files and anything else are not looked at.
    fn remove_old(&self, today: Date) {
        let Ok(first) = today.checked_sub(Span::new().days(KEPT)) else { return };
        for (name, written) in private::names(&self.dir) {
            let day = match self.parse(&name) {
                Some((_, Some(day))) => Some(day),
                Some((year, None)) if year != self.year => self.day(written),
                _ => None,
            };
            if day.is_some_and(|day| day < first) {
                private::remove(&self.dir.join(name));
            }
        }
    }

    /// The year, and the day if it was put aside, of a file of this job and kind.
    fn parse(&self, name: &OsStr) -> Option<(i16, Option<Date>)> {
        let rest = name.to_str()?.strip_prefix(&self.start)?;
        let (year, rest) = rest.split_at_checked(4)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let year = Some(year).filter(|year| digits(year))?.parse().ok()?;
        let rest = rest.strip_prefix(self.end)?;
        if rest.is_empty() {
            return Some((year, None));
        }
        let (day, suffix) = rest.strip_prefix('.')?.split_at_checked(10)?;
        let is_suffix = suffix.is_empty()
            || suffix.strip_prefix('.').is_some_and(|number| !number.is_empty() && digits(number));
        let day = Date::strptime("%Y-%m-%d", day).ok().filter(|_| is_suffix)?;
        Some((year, Some(day)))
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{}{:04}{}", self.start, self.year, self.end))
    }

    /// The name of a file of an earlier day; with a number when there is one already.
    fn names(&self, day: Date) -> impl Iterator<Item = PathBuf> {
        let base = self.path().into_os_string();
        (0..MOST_A_DAY).map(move |number| {
            let mut name = base.clone();
            name.push(format!(".{day}"));
            if number > 0 {
                name.push(format!(".{number}"));
            }
            name.into()
        })
    }

    fn day(&self, at: SystemTime) -> Option<Date> {
        Some(self.local(Timestamp::try_from(at).ok()?).date())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::Arc;

    use super::*;

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(2))
    }

    fn daily(dir: &Path) -> Daily {
        Daily::new(dir, "A", 2026, ".log", zone())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir.join("logs")).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn text(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join("logs").join(name)).unwrap()
    }

    #[test]
    fn j11_a_day_ends_at_local_midnight_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let log = daily(dir.path());
        for (now, line) in [
            ("2026-11-19T21:59:59Z", "late"),
            ("2026-11-19T22:00:00Z", "early"),
            ("2026-11-20T10:00:00Z", "noon"),
        ] {
            assert!(log.line(at(now), line).is_none());
        }
        let (old, new) = ("fcp_job_A_2026.log.2026-11-19", "fcp_job_A_2026.log");
        assert_eq!(text(dir.path(), old), "late\n");
        assert_eq!(text(dir.path(), new), "early\nnoon\n");
        fs::write(dir.path().join("logs/fcp_job_A_2026.log.2026-11-20"), "x").unwrap();
        log.line(at("2026-11-21T10:00:00Z"), "next");
        assert_eq!(text(dir.path(), "fcp_job_A_2026.log.2026-11-20"), "x");
        assert_eq!(text(dir.path(), "fcp_job_A_2026.log.2026-11-20.1"), "early\nnoon\n");
        assert_eq!(text(dir.path(), new), "next\n");
        let mode =
            |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("logs"), mode("logs/fcp_job_A_2026.log")), (0o700, 0o600));
    }

    #[test]
    fn j11_a_file_of_an_earlier_run_is_put_aside_by_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        daily(dir.path()).line(at("2026-11-18T10:00:00Z"), "old");
        let path = dir.path().join("logs/fcp_job_A_2026.log");
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::from(at("2026-11-18T23:00:00Z"))).unwrap();
        daily(dir.path()).line(at("2026-11-20T10:00:00Z"), "new");
        assert_eq!(text(dir.path(), "fcp_job_A_2026.log.2026-11-19"), "old\n");
        assert_eq!(text(dir.path(), "fcp_job_A_2026.log"), "new\n");
    }

    #[test]
    fn j11_only_own_files_older_than_30_days_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let own = [
            "fcp_job_A_2026.log.2026-10-20",
            "fcp_job_A_2026.log.2026-10-20.3",
            "fcp_job_A_2025.log.2025-12-31",
            "fcp_job_A_2024.log",
        ];
        let others = [
            "fcp_job_A_2025.log",
            "fcp_job_A_2026.audit.jsonl.2020-01-01",
            "fcp_job_A_2026.log.2020-01-01.gz",
            "fcp_job_A_2026.log.2020-13-01",
            "fcp_job_A_2026.log.2026-10-21",
            "fcp_job_A_2026.log.mine",
            "fcp_job_A_2026_2026.log.2020-01-01",
            "fcp_job_B_2026.log.2020-01-01",
            "x.log.2020-01-01",
        ];
        for name in own.iter().chain(&others) {
            let file = File::create(logs.join(name)).unwrap();
            let year = if *name == "fcp_job_A_2024.log" { "2024" } else { "2026" };
            let time = at(&format!("{year}-11-01T10:00:00Z"));
            file.set_modified(SystemTime::from(time)).unwrap();
        }
        let link = logs.join("fcp_job_A_2026.log.2019-01-01");
        symlink("/dev/null", &link).unwrap();
        daily(dir.path()).line(at("2026-11-20T10:00:00Z"), "x");
        let mut left: Vec<_> = others.to_vec();
        left.extend(["fcp_job_A_2026.log", "fcp_job_A_2026.log.2019-01-01"]);
        left.sort_unstable();
        assert_eq!(names(dir.path()), left);
    }

    #[test]
    fn j11_what_cannot_be_written_is_told_once_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let log = daily(dir.path());
        fs::write(&logs, "in the way").unwrap();
        let now = at("2026-11-20T10:00:00Z");
        assert!(log.line(now, "1").is_some());
        assert!(log.line(now, "2").is_none());
        fs::remove_file(&logs).unwrap();
        assert!(log.line(now, "3").is_none());
        assert_eq!(text(dir.path(), "fcp_job_A_2026.log"), "3\n");
    }

    #[test]
    fn j11_a_link_a_fifo_or_a_full_disk_in_place_of_the_log_is_told() {
        let now = at("2026-11-20T10:00:00Z");
        for target in ["/dev/null", "/dev/full", "victim"] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("logs")).unwrap();
            let victim = dir.path().join("logs/victim");
            fs::write(&victim, "precious").unwrap();
            symlink(target, dir.path().join("logs/fcp_job_A_2026.log")).unwrap();
            let error = daily(dir.path()).line(now, "x").unwrap().to_string();
            assert!(error.contains("symbolic link"), "{error}");
            assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        let fifo = dir.path().join("logs/fcp_job_A_2026.log");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(daily(dir.path()).line(now, "x").is_some());
    }

    #[test]
    fn j11_many_that_rotate_at_once_lose_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let writers: Vec<_> = (0..8).map(|_| Arc::new(daily(dir.path()))).collect();
        let (before, after) = (at("2026-11-19T21:59:59Z"), at("2026-11-19T22:00:01Z"));
        let threads: Vec<_> = writers
            .iter()
            .enumerate()
            .map(|(who, log)| {
                let log = log.clone();
                std::thread::spawn(move || {
                    for line in 0..200 {
                        let now = if line < 100 { before } else { after };
                        assert!(log.line(now, &format!("{who} {line}")).is_none());
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let all: String = names(dir.path()).iter().map(|name| text(dir.path(), name)).collect();
        let mut lines: Vec<_> = all.lines().collect();
        assert_eq!(lines.len(), 1600);
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 1600);
    }
}
