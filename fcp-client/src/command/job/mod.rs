//! `fcp job`: from the job file to what each command does with its jobs.

mod check;
mod list;
mod reach;
mod run;
mod status;

use std::ffi::OsString;

use crate::cli::{JobArgs, JobCommand, JobOptions};
use crate::error::CliError;
use crate::job::spec::{self, Checked, JobFile, JobSpec, KEYS, SpecError};
use crate::ui;
use crate::ui::exit::ExitStatus;

/// The jobs that a command is about.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Those that make sense, in the order in which they were asked for.
    pub(crate) jobs: Vec<JobSpec>,
    /// What is wrong with the others.
    pub(crate) refused: Vec<SpecError>,
}

/// Runs what was typed.
pub(super) fn run(args: &JobArgs) -> Result<ExitStatus, CliError> {
    leave_no_core();
    let options = &args.options;
    match &args.what {
        JobCommand::Keys => {
            KEYS.lines().for_each(ui::line);
            Ok(ExitStatus::Success)
        }
        JobCommand::List => Ok(list::run(options, &load(options)?)),
        JobCommand::Check(check) => check::run(options, check, &load(options)?),
        JobCommand::Run(run) => {
            let selection = select(options, &run.names)?;
            let refused = tell(&selection)?;
            run::run(options, run, selection).map(|status| worse(status, refused))
        }
        JobCommand::Status(status) => {
            let selection = select(options, &status.names)?;
            let refused = tell(&selection)?;
            status::run(options, status, selection).map(|status| worse(status, refused))
        }
    }
}

/// Reads the job file and picks the jobs `names` from it, each once; all of them without names.
///
/// # Errors
/// The file cannot be used, or has no such job. A job that makes no sense is no error here.
pub(crate) fn select(options: &JobOptions, names: &[String]) -> Result<Selection, CliError> {
    let file = load(options)?;
    let mut selection = Selection { jobs: Vec::new(), refused: Vec::new() };
    for job in pick(&file, names)? {
        match &job.spec {
            Ok(spec) => selection.jobs.push(spec.clone()),
            Err(errors) => selection.refused.extend(errors.iter().cloned()),
        }
    }
    Ok(selection)
}

fn load(options: &JobOptions) -> Result<JobFile, CliError> {
    let env = |name: &str| -> Option<OsString> { std::env::var_os(name) };
    Ok(spec::find(options.file.as_deref(), &env)?)
}

fn pick<'a>(file: &'a JobFile, names: &[String]) -> Result<Vec<&'a Checked>, SpecError> {
    let mut picked: Vec<&Checked> = Vec::new();
    for name in names {
        let job = file.job(name)?;
        if !picked.iter().any(|other| other.key == job.key) {
            picked.push(job);
        }
    }
    Ok(if names.is_empty() { file.jobs.iter().collect() } else { picked })
}

/// Tells what is wrong with jobs that were asked for; whether there is any.
///
/// # Errors
/// No job is left.
fn tell(selection: &Selection) -> Result<bool, CliError> {
    match (selection.refused.split_last(), selection.jobs.is_empty()) {
        (None, true) => Err(CliError::Usage("the job file has no jobs".to_owned())),
        (Some((last, others)), true) => {
            others.iter().for_each(|error| ui::error(&error.to_string()));
            Err(last.clone().into())
        }
        (refused, false) => {
            selection.refused.iter().for_each(|error| ui::error(&error.to_string()));
            Ok(refused.is_some())
        }
    }
}

/// The status of a command that left jobs out.
fn worse(status: ExitStatus, refused: bool) -> ExitStatus {
    if refused && status == ExitStatus::Success { ExitStatus::Usage } else { status }
}

/// Passwords are in memory, and a core would put them on the disk.
fn leave_no_core() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    let _ = setrlimit(Resource::Core, limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn options(yaml: &str) -> (tempfile::TempDir, JobOptions) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("jobs.yaml");
        std::fs::write(&file, yaml).expect("written");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("mode");
        (dir, JobOptions { file: Some(file), ..JobOptions::default() })
    }

    fn job(name: &str, more: &str) -> String {
        let end = |path| format!("{{type: LOCAL, path: /{path}}}");
        let (from, to) = (end("in"), end("out"));
        format!("{name}: {{source: {from}, destination: {to}, log_dir: /l{more}}}\n")
    }

    #[test]
    fn jobs_are_picked_once_and_broken_ones_left_out() {
        let (_dir, options) = options(&(job("A", "") + &job("B", ", layout: x") + &job("C", "")));
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let keys = |picked: &[&str]| {
            let selection = select(&options, &names(picked)).expect("known jobs");
            let refused = tell(&selection).map_err(|error| error.exit_code());
            (selection.jobs.into_iter().map(|job| job.key).collect::<Vec<_>>(), refused)
        };
        assert_eq!(keys(&["C", "A", "C"]), (names(&["C", "A"]), Ok(false)));
        assert_eq!(keys(&[]), (names(&["A", "C"]), Ok(true)));
        assert_eq!(keys(&["B"]), (vec![], Err(ExitStatus::Usage)));
        assert!(select(&options, &names(&["D"])).is_err());
        assert_eq!(worse(ExitStatus::Success, true), ExitStatus::Usage);
        assert_eq!(worse(ExitStatus::Locked, true), ExitStatus::Locked);
    }
}
