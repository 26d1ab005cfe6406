//! The log of a job: one file a day, 30 days of them.

use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::daily::Daily;

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
    files: Daily,
    complain: Complain,
}

impl JobLog {
    /// The log of a job for a year; `complain` hears, once, why it cannot be written.
    pub fn new(log_dir: &Path, job: &str, year: i16, complain: Complain) -> JobLog {
        let files = Daily::new(log_dir, job, year, ".log", TimeZone::system());
        JobLog { files, complain }
    }

    /// Adds one line, whatever is in the text: `2026-11-20T12:00:00+01:00 INFO text`.
    pub fn line(&self, level: Level, text: &str) {
        self.line_at(Timestamp::now(), level, text);
    }

    fn line_at(&self, now: Timestamp, level: Level, text: &str) {
        let time = stamp(&self.files, now);
        let line = format!("{time} {level} {}", fcp_proto::escape_text(text));
        if let Some(error) = self.files.line(now, &line) {
            (self.complain)(&format!("nothing is logged: {error}; the job goes on"));
        }
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
        f.debug_struct("JobLog").field("files", &self.files).finish_non_exhaustive()
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
        let log = JobLog { files, ..log };
        let now = "2026-11-20T11:00:00Z".parse().unwrap();
        log.line_at(now, Level::Info, "'a\nb\u{1b}[31m\u{9b}\u{202e}\u{e9}' \\012");
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
        log.line(Level::Error, "2");
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("the job goes on"), "{told:?}");
    }
}
