//! `fcp job status`: what the ledger knows of jobs, while they run or not.

use std::path::Path;

use indicatif::HumanBytes;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};

use super::Selection;
use crate::cli::{JobOptions, StatusArgs};
use crate::error::CliError;
use crate::job::ledger::overview::{FileLine, Files, JobOverview, Overview, RunLine};
use crate::job::lock::{self, Holder};
use crate::job::state;
use crate::ui;
use crate::ui::exit::ExitStatus;

/// Files of a kind that are shown without `-v`.
const SHOWN: usize = 10;

/// One job.
struct Status {
    job: String,
    running: Option<Holder>,
    overview: JobOverview,
}

/// Tells what the ledger knows of jobs.
pub(super) fn run(
    options: &JobOptions,
    _args: &StatusArgs,
    jobs: Selection,
) -> Result<ExitStatus, CliError> {
    let none = || CliError::Usage("set HOME or XDG_STATE_HOME: the ledger is there".to_owned());
    let dir = state::dir(&|name: &str| std::env::var_os(name)).ok_or_else(none)?;
    let keys: Vec<_> = jobs.jobs.iter().map(|job| job.key.clone()).collect();
    let now = Zoned::now();
    for status in read(&dir, &keys, &now)? {
        if options.json {
            ui::line(&as_json(&status, &now).to_string());
        } else {
            let shown = if options.verbose > 0 { usize::MAX } else { SHOWN };
            as_text(&status, &now, shown).iter().for_each(|line| ui::line(line));
        }
    }
    Ok(ExitStatus::Success)
}

fn read(dir: &Path, jobs: &[String], now: &Zoned) -> Result<Vec<Status>, CliError> {
    let failed = |error: crate::job::ledger::LedgerError| CliError::Internal(error.to_string());
    let ledger = Overview::open(&state::ledger(dir)).map_err(failed)?;
    let midnight = now.start_of_day().map_or(i64::MIN, |day| day.timestamp().as_second());
    let status = |job: &String| {
        let seconds = now.timestamp().as_second();
        let overview = ledger.as_ref().map(|ledger| ledger.job(job, seconds, midnight));
        Ok(Status {
            job: job.clone(),
            running: lock::holder(dir, job),
            overview: overview.transpose().map_err(failed)?.unwrap_or_default(),
        })
    };
    jobs.iter().map(status).collect()
}

fn as_text(status: &Status, now: &Zoned, shown: usize) -> Vec<String> {
    let overview = &status.overview;
    let mut lines = vec![title(status, now)];
    if let Some(run) = &overview.last {
        lines.push(run_text(run, now));
    }
    if overview.delivered > 0 {
        let (today, all) = (overview.delivered_today, overview.delivered);
        lines.push(format!("    delivered    {today} today, {all} in all"));
    }
    for (name, files) in [
        ("in flight", &overview.in_flight),
        ("failed", &overview.failed),
        ("interrupted", &overview.interrupted),
    ] {
        if files.count > 0 {
            lines.push(format!("    {name:12} {}", files.count));
            let first = files.first.iter().take(shown);
            lines.extend(first.map(|file| match name {
                "in flight" => on_its_way(file, now),
                _ => left(file, now),
            }));
            let more = files.count.saturating_sub(files.first.len().min(shown) as u64);
            if more > 0 {
                lines.push(format!("        and {more} more"));
            }
        }
    }
    lines
}

fn title(status: &Status, now: &Zoned) -> String {
    let job = fcp_proto::escape_text(&status.job);
    match (&status.running, &status.overview.last) {
        (Some(by), _) => {
            let host = fcp_proto::escape_text(&by.host);
            format!("{job}  running: process {} on {host} since {}", by.pid, at(by.since, now))
        }
        (None, Some(_)) => format!("{job}  not running"),
        (None, None) => format!("{job}  never ran"),
    }
}

fn run_text(run: &RunLine, now: &Zoned) -> String {
    let ended = run.ended.map_or_else(|| "an unknown time".to_owned(), |ended| at(ended, now));
    let year = run.year.map(|year| format!(" for {year}")).unwrap_or_default();
    let mut line = format!("    last run     {} to {ended}{year}", at(run.began, now));
    if let Some(exit) = run.exit {
        line.push_str(&format!(", exit code {exit}"));
    }
    if let Some([found, delivered, skipped, failed, bytes]) = run.counts {
        let bytes = HumanBytes(bytes);
        line.push_str(&format!(
            ": {found} found, {delivered} delivered ({bytes}), {skipped} skipped, {failed} failed"
        ));
    }
    if let Some(error) = &run.error {
        line.push_str(&format!("; {}", fcp_proto::escape_text(error)));
    }
    line
}

fn on_its_way(file: &FileLine, now: &Zoned) -> String {
    let path = fcp_proto::escape(&file.path);
    let (state, attempts) = (file.state, file.attempts);
    let (age, size) = (HumanAge(age(file, now)), HumanBytes(file.size));
    let mut line = format!("        {path}  {state} for {age}, {size}");
    if file.written > 0 {
        let percent = u128::from(file.written) * 100 / u128::from(file.size.max(1));
        line.push_str(&format!(", {percent} % written"));
    }
    line.push_str(&format!(", try {attempts}"));
    line
}

/// A file that no run has now.
fn left(file: &FileLine, now: &Zoned) -> String {
    let path = fcp_proto::escape(&file.path);
    let state = match file.state {
        "copying" => "not copied",
        "verified" => "copied, not renamed yet",
        _ => "delivered, not put away",
    };
    let (when, attempts) = (at(file.changed, now), file.attempts);
    let mut line = format!("        {path}  {state}, since {when}, tries: {attempts}");
    if let Some(error) = &file.error {
        line.push_str(&format!(": {}", fcp_proto::escape_text(error)));
    }
    line
}

fn as_json(status: &Status, now: &Zoned) -> Value {
    let overview = &status.overview;
    let files = |files: &Files| {
        let first: Vec<_> = files.first.iter().map(|file| file_json(file, now)).collect();
        json!({ "count": files.count, "files": first })
    };
    let running = status.running.as_ref();
    json!({
        "job": status.job,
        "running": running.map(|by| json!({
            "pid": by.pid, "host": by.host, "since": at(by.since, now),
        })),
        "last_run": overview.last.as_ref().map(|run| run_json(run, now)),
        "delivered_today": overview.delivered_today,
        "delivered": overview.delivered,
        "in_flight": files(&overview.in_flight),
        "failed": files(&overview.failed),
        "interrupted": files(&overview.interrupted),
    })
}

fn run_json(run: &RunLine, now: &Zoned) -> Value {
    let counts = run.counts.map(|[found, delivered, skipped, failed, bytes]| {
        json!({
            "found": found, "delivered": delivered, "skipped": skipped, "failed": failed,
            "bytes": bytes,
        })
    });
    json!({
        "year": run.year,
        "began": at(run.began, now),
        "ended": run.ended.map(|ended| at(ended, now)),
        "exit_code": run.exit,
        "counts": counts,
        "error": run.error,
    })
}

fn file_json(file: &FileLine, now: &Zoned) -> Value {
    json!({
        "file": fcp_proto::escape(&file.path),
        "size": file.size,
        "written": file.written,
        "state": file.state,
        "age_seconds": age(file, now),
        "attempts": file.attempts,
        "error": file.error,
    })
}

/// Local time, as logs have it.
fn at(seconds: i64, now: &Zoned) -> String {
    let at = Timestamp::from_second(seconds).unwrap_or_default();
    at.to_zoned(now.time_zone().clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Seconds since a file's state changed.
fn age(file: &FileLine, now: &Zoned) -> i64 {
    now.timestamp().as_second().saturating_sub(file.changed).max(0)
}

/// Seconds as people say them.
struct HumanAge(i64);

impl std::fmt::Display for HumanAge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            seconds if seconds < 120 => write!(f, "{seconds} s"),
            seconds if seconds < 7200 => write!(f, "{} min", seconds / 60),
            seconds if seconds < 172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fcp_proto::path::RelPath;

    use super::*;
    use crate::job::ledger::sqlite::SqliteBook;
    use crate::job::ledger::{Book, Claim, Entity, Hold, Ledger, State};
    use crate::job::lock::JobLock;
    use crate::job::report::JobSummary;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    async fn claim(run: &impl Ledger, name: &str) -> i64 {
        let place = "sftp://h/in".to_owned();
        let entity = Entity { job: "A".to_owned(), place, path: path(name), size: 7, mtime: 0 };
        match run.claim(entity, path(".tmp.x"), Hold::Alone).await.unwrap() {
            Claim::New(id) => id,
            other => panic!("{other:?}"),
        }
    }

    async fn finish(run: &impl Ledger, id: i64) {
        let state =
            State::Finished { to: path("x"), hash: None, action: "kept".to_owned(), gone: false };
        run.record(id, state).await.unwrap();
    }

    fn read_one(dir: &Path) -> (String, Value) {
        let now = Zoned::now();
        let status = read(dir, &["A".to_owned()], &now).unwrap().remove(0);
        (as_text(&status, &now, SHOWN).join("\n"), as_json(&status, &now))
    }

    #[tokio::test]
    async fn status_tells_of_a_run_that_goes_on_and_of_what_is_left() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("fcp");
        assert_eq!(read_one(&dir).0, "A  never ran");
        let book = SqliteBook::open(&state::ledger(&dir)).unwrap();
        let lease = Duration::from_secs(60);
        let run = book.begin("A", Some(2026), lease).await.unwrap();
        let lock = JobLock::take(&dir, "A", Timestamp::now().as_second()).unwrap();
        let done = claim(&run, "done").await;
        finish(&run, done).await;
        let bad = claim(&run, "b\u{1b}ad").await;
        run.release(bad, Some("no\nroom".to_owned())).await.unwrap();
        for at in 0..12 {
            claim(&run, &format!("flying/{at}")).await;
        }
        let (text, json) = read_one(&dir);
        assert!(text.starts_with(&format!("A  running: process {} on", std::process::id())));
        assert!(text.contains("1 today, 1 in all"), "{text}");
        assert!(text.contains("in flight    12\n        flying/0  copying for "), "{text}");
        assert!(text.contains("and 2 more"), "{text}");
        assert!(
            text.contains("b\\033ad  not copied, since ") && text.contains("no\\012room"),
            "{text}"
        );
        assert_eq!(json["in_flight"]["count"], 12);
        assert_eq!(json["failed"]["files"][0]["error"], "no\nroom");
        assert_eq!(json["last_run"], Value::Null);

        let summary =
            JobSummary { found: 14, delivered: 1, failed: 1, exit_code: 23, ..Default::default() };
        run.end(&summary).await.unwrap();
        drop((run, lock));
        let (text, json) = read_one(&dir);
        assert!(text.starts_with("A  not running\n    last run "), "{text}");
        assert!(text.contains("for 2026, exit code 23: 14 found, 1 delivered (0 B)"), "{text}");
        assert_eq!((&json["running"], &json["interrupted"]["count"]), (&Value::Null, &12.into()));
        assert_eq!(json["last_run"]["counts"]["found"], 14);
    }

    #[tokio::test]
    async fn status_reads_a_ledger_that_nobody_has_open() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("fcp");
        drop(SqliteBook::open(&state::ledger(&dir)).unwrap());
        assert_eq!(read_one(&dir).0, "A  never ran");
    }
}
