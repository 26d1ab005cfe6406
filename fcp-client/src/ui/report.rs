//! Hears what a session tells and prints it as was asked for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fcp_common::engine::{Counters, EntryReport, Report};
use fcp_proto::packet::{Outcome, Problem, Summary, WireError};
use fcp_proto::{EntryKind, ErrorCode};
use serde_json::Value;

use super::exit::ExitStatus;
use super::progress::Progress;
use super::{error, json, line};
use crate::cli::TransferOptions;
use crate::error::CliError;

/// Prints entries, problems and the end of a transfer.
pub struct Reporter {
    style: Style,
    counters: Arc<Counters>,
    progress: Mutex<Progress>,
    started: Instant,
    failed: AtomicU64,
    problems: AtomicU64,
    vanished: AtomicU64,
}

#[derive(Clone, Copy)]
struct Style {
    verbose: u8,
    quiet: bool,
    json: bool,
    stats: bool,
    dry_run: bool,
}

/// The numbers of a finished transfer; bytes are content bytes unless they are called wire bytes.
pub(super) struct Totals {
    pub(super) failed: u64,
    pub(super) problems: u64,
    pub(super) total_bytes: u64,
    pub(super) moved_bytes: u64,
    pub(super) kept_bytes: u64,
    pub(super) wire_out: u64,
    pub(super) wire_in: u64,
    pub(super) seconds: f64,
    pub(super) dry_run: bool,
}

impl Reporter {
    /// A reporter for what was typed.
    pub fn new(options: &TransferOptions, counters: Arc<Counters>) -> Arc<Reporter> {
        let style = Style {
            verbose: options.verbose,
            quiet: options.quiet,
            json: options.json,
            stats: options.stats,
            dry_run: options.dry_run,
        };
        let wanted = !style.quiet && !style.json && !style.dry_run;
        let progress = Mutex::new(Progress::start(Arc::clone(&counters), wanted));
        Arc::new(Reporter {
            style,
            counters,
            progress,
            started: Instant::now(),
            failed: AtomicU64::new(0),
            problems: AtomicU64::new(0),
            vanished: AtomicU64::new(0),
        })
    }

    /// Prints the end and answers with the exit code.
    pub fn finish(&self, ended: Result<Summary, CliError>) -> ExitStatus {
        self.finish_early();
        let totals = self.totals();
        match ended {
            Ok(summary) => {
                let mut code = self.code();
                if summary.failed > 0 && code == ExitStatus::Success {
                    code = ExitStatus::Partial;
                }
                self.print_end(&summary, &totals, code);
                let unprinted = super::output_failed() && code == ExitStatus::Success;
                if unprinted { ExitStatus::FileIo } else { code }
            }
            Err(why) => {
                let code = why.exit_code();
                error(&why.to_string());
                if self.style.json {
                    print_json(&json::aborted(&why.to_string(), &totals, code as u8));
                } else if self.style.stats {
                    print_stats(&Summary::default(), &totals);
                }
                code
            }
        }
    }

    /// Ends a transfer that never began; its error is printed by the caller.
    pub fn abort(&self, why: &CliError) {
        self.finish_early();
        if self.style.json {
            print_json(&json::aborted(&why.to_string(), &self.totals(), why.exit_code() as u8));
        }
    }

    fn finish_early(&self) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).finish();
    }

    fn print_end(&self, summary: &Summary, totals: &Totals, code: ExitStatus) {
        if self.style.json {
            return print_json(&json::summary(summary, totals, code as u8));
        }
        if self.style.stats {
            print_stats(summary, totals);
        } else if self.style.verbose > 0 && !self.style.quiet {
            let Totals { moved_bytes, seconds, .. } = totals;
            let Summary { changed, same, .. } = summary;
            line(&format!("{changed} changed, {same} same, {moved_bytes} bytes in {seconds:.2} s"));
        }
        let bad = totals.failed + totals.problems;
        if bad > 0 {
            error(&format!("{bad} of the files or sources failed (code {})", code as u8));
        }
    }

    fn code(&self) -> ExitStatus {
        let bad = self.failed.load(Relaxed) + self.problems.load(Relaxed);
        match (bad, self.vanished.load(Relaxed)) {
            (0, _) => ExitStatus::Success,
            (bad, vanished) if bad == vanished => ExitStatus::Vanished,
            _ => ExitStatus::Partial,
        }
    }

    fn totals(&self) -> Totals {
        let c = &self.counters;
        Totals {
            failed: self.failed.load(Relaxed),
            problems: self.problems.load(Relaxed),
            total_bytes: c.total_bytes.load(Relaxed),
            moved_bytes: c.moved_bytes.load(Relaxed),
            kept_bytes: c.kept_bytes.load(Relaxed),
            wire_out: c.wire_out.load(Relaxed),
            wire_in: c.wire_in.load(Relaxed),
            seconds: self.started.elapsed().as_secs_f64(),
            dry_run: self.style.dry_run,
        }
    }

    fn print(&self, print: impl FnOnce()) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).suspend(print);
    }

    fn count_vanished(&self, why: &WireError) {
        if why.code == ErrorCode::VANISHED {
            self.vanished.fetch_add(1, Relaxed);
        }
    }
}

impl Report for Reporter {
    fn entry(&self, entry: EntryReport) {
        if let Outcome::Failed(why) = &entry.outcome {
            self.failed.fetch_add(1, Relaxed);
            self.count_vanished(why);
            self.print(|| error(&failure(&entry.path, why)));
        }
        if self.style.json {
            return print_json(&json::entry(&entry, self.style.dry_run));
        }
        let changed = !matches!(entry.outcome, Outcome::Same | Outcome::Failed(_));
        let wanted = self.style.verbose > 0 || self.style.dry_run;
        if entry.outcome == Outcome::Same && self.style.verbose > 1 && !self.style.quiet {
            self.print(|| line(&format!("{} is the same", fcp_proto::escape(&entry.path))));
        }
        if changed && wanted && !self.style.quiet {
            let slash = if entry.kind == EntryKind::Dir { "/" } else { "" };
            self.print(|| line(&format!("{}{slash}", fcp_proto::escape(&entry.path))));
        }
    }

    fn problem(&self, problem: Problem) {
        if problem.error.code == ErrorCode::SKIPPED {
            return self.skipped(problem.path, &fcp_proto::escape_text(&problem.error.text));
        }
        self.problems.fetch_add(1, Relaxed);
        self.count_vanished(&problem.error);
        self.print(|| error(&failure(&problem.path, &problem.error)));
        if self.style.json {
            print_json(&json::problem(&problem));
        }
    }

    fn skipped(&self, path: Vec<u8>, why: &str) {
        if self.style.json {
            print_json(&json::skipped(&path, why));
        } else if !self.style.quiet {
            self.print(|| error(&format!("skipping {}: {why}", fcp_proto::escape(&path))));
        }
    }
}

fn failure(path: &[u8], why: &WireError) -> String {
    format!("{}: {}", fcp_proto::escape(path), fcp_proto::escape_text(&why.text))
}

fn print_json(value: &Value) {
    line(&value.to_string());
}

fn print_stats(summary: &Summary, totals: &Totals) {
    let rows = [
        ("Entries changed", summary.changed),
        ("Entries the same", summary.same),
        ("Entries failed", totals.failed + totals.problems),
        ("Content bytes in all", totals.total_bytes),
        ("Content bytes sent", totals.moved_bytes),
        ("Content bytes kept from an earlier run", totals.kept_bytes.max(summary.kept)),
        ("Wire bytes written", totals.wire_out),
        ("Wire bytes read", totals.wire_in),
    ];
    rows.iter().for_each(|(name, value)| line(&format!("{name}: {value}")));
    line(&format!("Seconds: {:.3}", totals.seconds));
}
