//! `--json`: one object a line on stdout. Fields are added, never renamed.

use fcp_proto::EntryKind;
use fcp_proto::packet::{Outcome, Problem, Summary};
use serde_json::{Value, json};

use fcp_common::engine::EntryReport;

/// What became of an entry.
pub(super) fn entry(entry: &EntryReport, dry_run: bool) -> Value {
    let mut value = json!({
        "event": "entry",
        "path": fcp_proto::escape(&entry.path),
        "kind": kind(entry.kind),
        "size": entry.size,
        "outcome": outcome(&entry.outcome),
        "dry_run": dry_run,
    });
    if let Outcome::Failed(error) = &entry.outcome {
        value["error"] = error_of(error);
    }
    value
}

/// A source that could not be announced.
pub(super) fn problem(problem: &Problem) -> Value {
    json!({
        "event": "problem",
        "path": fcp_proto::escape(&problem.path),
        "error": error_of(&problem.error),
    })
}

/// Something left out on purpose.
pub(super) fn skipped(path: &[u8], why: &str) -> Value {
    json!({ "event": "skipped", "path": fcp_proto::escape(path), "reason": why })
}

/// The end. Bytes are content bytes unless they are called wire bytes.
pub(super) fn summary(summary: &Summary, totals: &super::report::Totals, code: u8) -> Value {
    json!({
        "event": "summary",
        "exit_code": code,
        "changed": summary.changed,
        "same": summary.same,
        "failed": totals.failed,
        "problems": totals.problems,
        "total_bytes": totals.total_bytes,
        "sent_bytes": totals.moved_bytes,
        // Of a push, only the receiver knows.
        "kept_bytes": totals.kept_bytes.max(summary.kept),
        "wire_bytes_out": totals.wire_out,
        "wire_bytes_in": totals.wire_in,
        "seconds": totals.seconds,
        "dry_run": totals.dry_run,
    })
}

/// The end without a summary.
pub(super) fn aborted(error: &str, totals: &super::report::Totals, code: u8) -> Value {
    let mut value = summary(&Summary::default(), totals, code);
    value["error"] = json!({ "text": error });
    value
}

fn error_of(error: &fcp_proto::packet::WireError) -> Value {
    let name = error.code.describe().map_or("UNKNOWN", |(name, _)| name);
    json!({ "code": name, "text": fcp_proto::escape_text(&error.text) })
}

pub(super) fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Dir => "directory",
        EntryKind::Symlink => "symlink",
    }
}

fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Same => "same",
        Outcome::Created => "created",
        Outcome::Replaced => "replaced",
        Outcome::Metadata => "metadata",
        Outcome::Failed(_) => "failed",
    }
}
