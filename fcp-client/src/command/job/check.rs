//! `fcp job check`: everything that is wrong with jobs, before a run finds it out.

use serde_json::json;

use super::pick;
use super::reach::{self, Finding, Logins};
use crate::cli::{CheckArgs, JobOptions};
use crate::error::CliError;
use crate::job::spec::{Checked, JobFile, JobSpec, SpecError};
use crate::ui;
use crate::ui::exit::ExitStatus;

/// Tells what is wrong with each job, all of it.
pub(super) fn run(
    options: &JobOptions,
    args: &CheckArgs,
    file: &JobFile,
) -> Result<ExitStatus, CliError> {
    let jobs = pick(file, &args.names)?;
    if jobs.is_empty() {
        return Err(CliError::Usage("the job file has no jobs".to_owned()));
    }
    let runtime = match args.offline {
        true => None,
        false => Some(runtime()?),
    };
    let mut status = ExitStatus::Success;
    for job in jobs {
        let report = Report::of(job, runtime.as_ref());
        report.tell(options);
        status = graver(status, report.status());
    }
    Ok(status)
}

/// What is told about one job.
struct Report<'a> {
    job: &'a Checked,
    errors: Vec<SpecError>,
    findings: Vec<Finding>,
}

impl<'a> Report<'a> {
    fn of(job: &'a Checked, online: Option<&tokio::runtime::Runtime>) -> Report<'a> {
        let mut report = Report { job, errors: Vec::new(), findings: Vec::new() };
        match (&job.spec, online) {
            (Err(errors), _) => report.errors = errors.clone(),
            (Ok(_), None) => {}
            (Ok(spec), Some(runtime)) => match logins(spec) {
                Ok(logins) => report.findings = runtime.block_on(reach::reach(spec, logins)),
                Err(errors) => report.errors = errors,
            },
        }
        report
    }

    fn status(&self) -> ExitStatus {
        let unreachable = self.findings.iter().any(|finding| finding.unreachable);
        match (self.errors.is_empty(), unreachable) {
            (false, _) => ExitStatus::Usage,
            (true, true) => ExitStatus::Socket,
            (true, false) if self.findings.iter().any(|finding| !finding.ok) => ExitStatus::Partial,
            (true, false) => ExitStatus::Success,
        }
    }

    fn tell(&self, options: &JobOptions) {
        if options.json {
            return ui::line(&self.as_json().to_string());
        }
        let name = fcp_proto::escape_text(&self.job.key);
        self.errors.iter().for_each(|error| ui::error(&error.to_string()));
        for warning in &self.job.warnings {
            ui::error(&format!("job {name}: warning: {warning}"));
        }
        for finding in &self.findings {
            match finding.ok {
                true if options.verbose > 0 => {
                    ui::line(&format!("{name}: {}: {}", finding.end, finding.text));
                }
                true => {}
                false => ui::error(&format!("job {name}: {}: {}", finding.end, finding.text)),
            }
        }
        match self.status() {
            ExitStatus::Success if !options.quiet => ui::line(&format!("{name}: ok")),
            ExitStatus::Success => {}
            _ => ui::line(&format!("{name}: not ok")),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let errors: Vec<_> = self.errors.iter().map(ToString::to_string).collect();
        let finding = |f: &Finding| json!({ "end": f.end, "ok": f.ok, "text": f.text });
        json!({
            "job": self.job.key,
            "ok": self.status() == ExitStatus::Success,
            "errors": errors,
            "warnings": self.job.warnings,
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

/// The logins of both ends, or what is wrong with either.
fn logins(spec: &JobSpec) -> Result<Logins, Vec<SpecError>> {
    match (spec.source.login(), spec.destination.login()) {
        (Ok(source), Ok(destination)) => Ok(Logins { source, destination }),
        (source, destination) => {
            Err([source.err(), destination.err()].into_iter().flatten().collect())
        }
    }
}

/// What the whole command ends in: a mistake in the file goes before a host that is down.
fn graver(one: ExitStatus, other: ExitStatus) -> ExitStatus {
    let rank = |status| match status {
        ExitStatus::Success => 0,
        ExitStatus::Partial => 1,
        ExitStatus::Socket => 2,
        _ => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|why| CliError::Internal(format!("cannot start: {why}")))
}
