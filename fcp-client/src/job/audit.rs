//! One JSON line for each file that a job delivered, skipped or gave up, beside the log.

use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::daily::Daily;
use super::log::{Complain, stamp};
use super::outbox::Outbox;
use super::report::{FileRecord, JobEvent};

/// `{log_dir}/logs/fcp_job_{job}_{year}.audit.jsonl`, by the days and rules of the log.
pub struct Audit {
    lines: Outbox,
}

/// A line.
#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Line<'a> {
    Delivered(&'a FileRecord),
    Skipped { when: String, job: &'a str, source: &'a str, why: &'a str },
    Failed { when: String, job: &'a str, source: &'a str, attempts: u32, error: &'a str },
}

impl Audit {
    /// The audit of a job for a year; `complain` hears, once, why it cannot be written.
    pub fn new(log_dir: &Path, job: &str, year: i16, complain: Complain) -> Audit {
        let files = Daily::new(log_dir, job, year, ".audit.jsonl", TimeZone::system());
        Audit { lines: Outbox::new(files, "no audit is kept", complain) }
    }

    /// Adds the line of an event, if it is the end of a file. It is written within a tenth of a
    /// second, by [`Audit::flush`], or when this is dropped.
    pub fn note(&self, event: &JobEvent) {
        let now = Timestamp::now();
        let Some(line) = line_of(event, stamp(self.lines.files(), now)) else { return };
        // JSON escapes what ends a line; what turns a terminal's text around stays data.
        let Ok(json) = serde_json::to_string(&line) else { return };
        self.lines.push(now, json, matches!(line, Line::Failed { .. }));
    }

    /// Returns when all lines are written.
    pub fn flush(&self) {
        self.lines.flush();
    }
}

fn line_of(event: &JobEvent, when: String) -> Option<Line<'_>> {
    Some(match event {
        JobEvent::Done(record) => Line::Delivered(record),
        JobEvent::Skipped { job, file, why, .. } => Line::Skipped { when, job, source: file, why },
        JobEvent::Failed { job, file, attempts, error } => {
            Line::Failed { when, job, source: file, attempts: *attempts, error }
        }
        JobEvent::Started { .. }
        | JobEvent::Progress { .. }
        | JobEvent::Phase { .. }
        | JobEvent::Planned { .. }
        | JobEvent::Planning { .. }
        | JobEvent::Retried { .. }
        | JobEvent::Note { .. } => {
            return None;
        }
    })
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("lines", &self.lines).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn j16_each_end_of_a_file_is_one_json_line() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::new(dir.path(), "A", 2026, Box::new(|text| panic!("{text}")));
        let (job, file) = ("A".to_owned(), "2026/x\n\"y\u{1b}".to_owned());
        audit.note(&JobEvent::Note { job: job.clone(), text: "no file".to_owned() });
        audit.note(&JobEvent::Skipped {
            job: job.clone(),
            file: file.clone(),
            class: "too young",
            why: "too young".to_owned(),
        });
        audit.note(&JobEvent::Failed {
            job: job.clone(),
            file: file.clone(),
            attempts: 3,
            error: "gone".to_owned(),
        });
        audit.note(&JobEvent::Done(Box::new(FileRecord {
            when: "2026-11-20T12:00:00+01:00".to_owned(),
            job,
            file: file.clone(),
            source: file.clone(),
            destination: "x".to_owned(),
            size: 7,
            hash: Some("sha256:00".to_owned()),
            proven_by: "read back".to_owned(),
            attempts: 1,
            seconds: 0.5,
            action: "kept".to_owned(),
            resumed: 0,
        })));
        audit.flush();
        let text = fs::read_to_string(dir.path().join("logs/fcp_job_A_2026.audit.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["skipped", "failed", "delivered"]);
        assert!(lines.iter().all(|line| line["source"] == file.as_str() && line["job"] == "A"));
        assert_eq!((&lines[1]["attempts"], &lines[2]["size"]), (&3.into(), &7.into()));
        assert!(!text.contains('\u{1b}'));
    }
}
