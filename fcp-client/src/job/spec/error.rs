//! What is wrong with a `jobs.yaml`: which file, line, job and key. Never what stands there.

use std::fmt;

use crate::error::CliError;

/// A mistake in a job file, or in what it names. No text of the file is in it but names of keys
/// and jobs: any other could be a password that stands in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The file, escaped.
    pub file: String,
    /// The line, from 1, where there is one.
    pub line: Option<usize>,
    /// The job, escaped.
    pub job: Option<String>,
    /// The key with the keys that it is below, as in `source.port`.
    pub key: Option<String>,
    /// What is wrong and what to do.
    pub text: String,
}

impl SpecError {
    /// A mistake in the file as a whole.
    pub(crate) fn of_file(file: &str, line: Option<usize>, text: impl Into<String>) -> SpecError {
        SpecError { file: file.to_owned(), line, job: None, key: None, text: text.into() }
    }
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))?;
        f.write_str(": ")?;
        self.job.as_ref().map_or(Ok(()), |job| write!(f, "job {job}: "))?;
        self.key.as_ref().map_or(Ok(()), |key| write!(f, "{key}: "))?;
        f.write_str(&self.text)
    }
}

impl From<SpecError> for CliError {
    fn from(error: SpecError) -> CliError {
        CliError::Usage(error.to_string())
    }
}

/// What was most likely meant by `typed`.
pub(crate) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let typed = plain(typed);
    let distance = |other: &str| strsim::damerau_levenshtein(&typed, &plain(other));
    let best = known.min_by_key(|other| distance(other))?;
    (distance(best) <= 1 + best.len() / 4).then_some(best)
}
