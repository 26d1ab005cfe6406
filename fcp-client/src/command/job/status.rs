//! `fcp job status`.

use super::Selection;
use crate::cli::{JobOptions, StatusArgs};
use crate::error::CliError;
use crate::ui::exit::ExitStatus;

/// Tells what the ledgers of jobs know.
pub(super) fn run(
    _options: &JobOptions,
    _args: &StatusArgs,
    jobs: Selection,
) -> Result<ExitStatus, CliError> {
    let file = fcp_proto::escape(jobs.file.as_os_str().as_encoded_bytes());
    Err(CliError::Unsupported(format!("this fcp cannot tell about the jobs of {file} yet")))
}
