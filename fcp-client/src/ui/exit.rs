//! Exit codes: rsync's numbers, so that scripts which call rsync today keep working.

use std::process::ExitCode;

/// How fcp ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Everything was done.
    Success = 0,
    /// What was typed makes no sense.
    Usage = 1,
    /// The peer broke the protocol or speaks another.
    Protocol = 2,
    /// Source or destination cannot be used as they are.
    FileSelection = 3,
    /// This fcp or its peer cannot do that.
    Unsupported = 4,
    /// The server refused to begin.
    Start = 5,
    /// No connection.
    Socket = 10,
    /// A file or the disk failed and nothing could go on.
    FileIo = 11,
    /// The connection was lost.
    Stream = 12,
    /// SIGINT, SIGTERM or SIGHUP.
    Signal = 20,
    /// Some entries failed.
    Partial = 23,
    /// Some sources vanished before they were read.
    Vanished = 24,
    /// Nothing happened for too long.
    Timeout = 30,
    /// Another run holds the lock of a job: try again later, as sysexits' `EX_TEMPFAIL`.
    Locked = 75,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}
