//! Errors that end a command, and the exit code of each.

use fcp_common::engine::SessionError;
use fcp_proto::ErrorCode;

use crate::location::{LocationError, Op, Reason};
use crate::ui::exit::ExitStatus;

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was typed makes no sense; the text says what to type.
    #[error("{0}")]
    Usage(String),
    /// An operand needs something that this fcp cannot do yet.
    #[error("{0}")]
    Unsupported(String),
    /// The server cannot be reached or may not be trusted.
    #[error("cannot connect to {server}: {reason}")]
    Connect {
        /// Where.
        server: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The host can be logged in at, and has no fcpd.
    #[error("cannot connect to {server}: {reason}")]
    NoFcpd {
        /// Where.
        server: String,
        /// How that was told, and what to do.
        reason: String,
    },
    /// The session broke off.
    #[error("{0}{hint}", hint = resume_hint(.0))]
    Session(#[from] SessionError),
    /// One of the two sessions of a relay broke off.
    #[error("{server}: {error}{hint}", hint = resume_hint(.error))]
    Relay {
        /// Which of the two, and where it is.
        server: String,
        /// Why, as its session ended.
        error: SessionError,
    },
    /// Where something is to go cannot be used.
    #[error("{0}")]
    Destination(String),
    /// A place failed, and nothing could go on there.
    #[error("{0}{hint}", hint = if .0.is_transient() { AGAIN } else { "" })]
    Place(LocationError),
    /// Something in this process cannot go on.
    #[error("{0}")]
    Internal(String),
}

impl CliError {
    /// The exit code, with rsync's meaning.
    pub fn exit_code(&self) -> ExitStatus {
        match self {
            CliError::Usage(_) => ExitStatus::Usage,
            CliError::Unsupported(_) => ExitStatus::Unsupported,
            CliError::Connect { .. } | CliError::NoFcpd { .. } => ExitStatus::Socket,
            CliError::Session(error) | CliError::Relay { error, .. } => session_exit_code(error),
            CliError::Destination(_) => ExitStatus::FileSelection,
            CliError::Place(error) => place_exit_code(error),
            CliError::Internal(_) => ExitStatus::FileIo,
        }
    }
}

const AGAIN: &str = "; run the same command again to go on";

/// Where running the command again helps, says so.
fn resume_hint(error: &SessionError) -> &'static str {
    match error {
        SessionError::Lost(_) | SessionError::Cancelled => AGAIN,
        SessionError::Peer(error) if error.code == ErrorCode::CANCELLED => AGAIN,
        _ => "",
    }
}

fn session_exit_code(error: &SessionError) -> ExitStatus {
    match error {
        SessionError::Lost(text) if text.contains("silent") => ExitStatus::Timeout,
        SessionError::Lost(_) => ExitStatus::Stream,
        SessionError::Violation(_) => ExitStatus::Protocol,
        SessionError::Stalled => ExitStatus::Timeout,
        SessionError::Destination(_) => ExitStatus::FileSelection,
        SessionError::Cancelled => ExitStatus::Signal,
        SessionError::Local(_) => ExitStatus::FileIo,
        SessionError::Peer(error) => match error.code {
            ErrorCode::PROTOCOL | ErrorCode::VERSION => ExitStatus::Protocol,
            ErrorCode::REFUSED => ExitStatus::Start,
            ErrorCode::USAGE | ErrorCode::NOT_FOUND | ErrorCode::NOT_DIRECTORY => {
                ExitStatus::FileSelection
            }
            ErrorCode::TIMEOUT => ExitStatus::Timeout,
            // Somebody stopped the peer, not us.
            ErrorCode::CANCELLED => ExitStatus::Stream,
            _ => ExitStatus::FileIo,
        },
    }
}

fn place_exit_code(error: &LocationError) -> ExitStatus {
    match error.reason {
        _ if error.op == Op::Connect => ExitStatus::Socket,
        Reason::Login | Reason::HostKey => ExitStatus::Socket,
        Reason::Lost | Reason::Busy => ExitStatus::Stream,
        Reason::Timeout => ExitStatus::Timeout,
        Reason::Protocol => ExitStatus::Protocol,
        Reason::Cancelled => ExitStatus::Signal,
        _ => ExitStatus::FileIo,
    }
}
