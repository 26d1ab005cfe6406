//! What sessions and servers say, in the terms of locations.

use super::dial::Stream;
use super::pool::Pooled;
use super::session::{Session, SessionError, SessionOptions};
use super::wire::StatusCode;
use crate::location::{LocationError, Op, Reason, Result};

impl Pooled for Session {
    async fn begin(place: &str, stream: Stream) -> Result<Session> {
        let begun = Session::start(stream.reader, stream.writer, SessionOptions::default()).await;
        begun.map_err(|error| told(place, Op::Connect, b"to its SFTP subsystem", &error))
    }

    fn is_closed(&self) -> bool {
        Session::is_closed(self)
    }

    fn is_stalled(&self) -> bool {
        matches!(self.end(), Some(SessionError::Stalled(_)))
    }

    fn is_lost(&self) -> bool {
        matches!(self.end(), Some(SessionError::Lost(_)))
    }

    async fn answers(&self) -> bool {
        // A refusal is an answer, too.
        self.real_path(b".").await.map_or_else(|error| !error.is_fatal(), |_| true)
    }
}

pub(super) fn told(place: &str, op: Op, path: &[u8], error: &SessionError) -> LocationError {
    let reason = reason(error);
    let text = match error {
        SessionError::Status(said) if said.message.is_empty() => said.code.to_string(),
        SessionError::Status(said) => format!("{} (the server says: {})", said.code, said.message),
        SessionError::Size { expected, found, .. } => {
            format!("it had {expected} bytes, {found}; somebody changed it meanwhile")
        }
        SessionError::Listing { why, .. } => (*why).to_owned(),
        other => other.to_string(),
    };
    LocationError::new(place, op, path, reason, &text)
}

/// Nothing has the name.
pub(super) fn is_not_found(error: &SessionError) -> bool {
    matches!(error.code(), Some(StatusCode::NO_SUCH_FILE | StatusCode::NO_SUCH_PATH))
}

/// A refusal that may mean anything.
pub(super) fn is_vague(error: &SessionError) -> bool {
    matches!(error.code(), Some(StatusCode::FAILURE | StatusCode::FILE_ALREADY_EXISTS))
}

fn reason(error: &SessionError) -> Reason {
    match error {
        SessionError::Status(said) => of_status(said.code, &said.message),
        SessionError::Timeout { .. } | SessionError::Stalled(_) => Reason::Timeout,
        SessionError::Size { .. } => Reason::Changed,
        SessionError::Listing { .. } | SessionError::Protocol(_) => Reason::Protocol,
        SessionError::Unsupported(_) => Reason::Unsupported,
        SessionError::Lost(_) | SessionError::Closed => Reason::Lost,
    }
}

fn of_status(code: StatusCode, message: &str) -> Reason {
    match code {
        StatusCode::NO_SUCH_FILE | StatusCode::NO_SUCH_PATH => Reason::NotFound,
        StatusCode::PERMISSION_DENIED | StatusCode::WRITE_PROTECT => Reason::Denied,
        StatusCode::FILE_ALREADY_EXISTS => Reason::Exists,
        StatusCode::NO_SPACE_ON_FILESYSTEM | StatusCode::QUOTA_EXCEEDED => Reason::Full,
        StatusCode::DIR_NOT_EMPTY => Reason::NotEmpty,
        StatusCode::NOT_A_DIRECTORY => Reason::NotDirectory,
        StatusCode::FILE_IS_A_DIRECTORY => Reason::IsDirectory,
        StatusCode::OP_UNSUPPORTED => Reason::Unsupported,
        StatusCode::NO_CONNECTION | StatusCode::CONNECTION_LOST => Reason::Lost,
        _ => of_words(message),
    }
}

/// Servers that say more than "failure" say it in English, mostly in the words of POSIX.
fn of_words(message: &str) -> Reason {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["no space", "quota", "disk full", "not enough space", "552"]) {
        Reason::Full
    } else if says(&["not empty"]) {
        Reason::NotEmpty
    } else if says(&["already exist", "file exists"]) {
        Reason::Exists
    } else {
        Reason::Io
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s14_a_full_disk_is_known_by_code_and_by_words() {
        let full = [
            (StatusCode::NO_SPACE_ON_FILESYSTEM, ""),
            (StatusCode::QUOTA_EXCEEDED, ""),
            (StatusCode::FAILURE, "write: No space left on device"),
            (StatusCode::FAILURE, "Disk quota exceeded"),
        ];
        for (code, message) in full {
            assert_eq!(of_status(code, message), Reason::Full, "{message}");
        }
        assert_eq!(of_status(StatusCode::FAILURE, "Failure"), Reason::Io);
        assert_eq!(of_status(StatusCode::PERMISSION_DENIED, "quota"), Reason::Denied);
    }
}
