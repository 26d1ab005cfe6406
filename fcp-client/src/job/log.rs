//! The log of a job: one file a day, 30 days of them.

use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::daily::Daily;
use super::outbox::Outbox;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What was done.
    Info,
    /// What a person should know.
    Warn,
    /// What failed.
    Error,
}

/// Who is told that a log cannot be written.
pub type Complain = Box<dyn Fn(&str) + Send + Sync>;

/// `{log_dir}/logs/fcp_job_{job}_{year}.log`. A log that cannot be written does not stop a job.
pub struct JobLog {
    lines: Outbox,
}

impl JobLog {
    /// The log of a job for a year; `complain` hears, once, why it cannot be written.
    pub fn new(log_dir: &Path, job: &str, year: i16, complain: Complain) -> JobLog {
        let files = Daily::new(log_dir, job, year, ".log", TimeZone::system());
        JobLog { lines: Outbox::new(files, "nothing is logged", complain) }
    }

    /// Adds one line, whatever is in the text: `2026-11-20T12:00:00+01:00 INFO text`. It is written
    /// within a tenth of a second, by [`JobLog::flush`], or when this is dropped.
    pub fn line(&self, level: Level, text: &str) {
        self.line_at(Timestamp::now(), level, text);
    }

    /// Returns when all lines are written.
    pub fn flush(&self) {
        self.lines.flush();
    }

    fn line_at(&self, now: Timestamp, level: Level, text: &str) {
        let time = stamp(self.lines.files(), now);
        let line = format!("{time} {level} {}", fcp_proto::escape_text(text));
        self.lines.push(now, line, level == Level::Error);
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        })
    }
}

impl fmt::Debug for JobLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobLog").field("lines", &self.lines).finish()
    }
}

/// Local time with its distance from UTC, to the second.
pub(super) fn stamp(files: &Daily, now: Timestamp) -> String {
    files.local(now).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn log(dir: &Path) -> (JobLog, Arc<Mutex<Vec<String>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let complain = Box::new(move |text: &str| heard.lock().unwrap().push(text.to_owned()));
        (JobLog::new(dir, "A", 2026, complain), told)
    }

    #[test]
    fn j16_a_line_is_one_line_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (log, told) = log(dir.path());
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let files = Daily::new(dir.path(), "A", 2026, ".log", zone);
        drop(log);
        let log = JobLog { lines: Outbox::new(files, "no", Box::new(|text| panic!("{text}"))) };
        let now = "2026-11-20T11:00:00Z".parse().unwrap();
        log.line_at(now, Level::Info, "'a\nb\u{1b}[31m\u{9b}\u{202e}\u{e9}' \\012");
        log.flush();
        let text = fs::read_to_string(dir.path().join("logs/fcp_job_A_2026.log")).unwrap();
        assert!(text.starts_with("2026-11-20T12:00:00+01:00 INFO 'a\\012b\\033[31m"), "{text}");
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.ends_with("\u{e9}' \\012\n"), "{text}");
        assert!(told.lock().unwrap().is_empty());
    }

    #[test]
    fn j11_a_log_that_cannot_be_written_is_told_once() {
        let (log, told) = log(Path::new("/proc/nowhere"));
        log.line(Level::Info, "1");
        log.flush();
        log.line(Level::Error, "2");
        log.flush();
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("the job goes on"), "{told:?}");
    }
}
