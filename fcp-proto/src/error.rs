//! Errors that travel, and the error of a peer that broke the rules.

use std::fmt;

use crate::coding::DecodeError;
use crate::flag::Flag;

/// Why something failed, as a number on the wire; unknown numbers survive and print.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u16);

macro_rules! codes {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl ErrorCode {
            $(#[doc = $text] pub const $name: ErrorCode = ErrorCode($number);)*

            /// Every code that has a name, in order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The name in PROTOCOL.md and what it means.
            pub fn describe(self) -> Option<(&'static str, &'static str)> {
                match self { $(ErrorCode::$name => Some((stringify!($name), $text)),)* _ => None }
            }
        }
    };
}

codes! {
    PROTOCOL = 1, "the peer broke the protocol";
    VERSION = 2, "no common protocol version";
    REFUSED = 3, "the peer may not use this server";
    USAGE = 4, "the request makes no sense";
    LIMIT = 5, "a limit of this end is reached";
    TIMEOUT = 6, "nothing happened for too long";
    CANCELLED = 7, "the user or the operator stopped the session";
    INTERNAL = 8, "an error inside fcp";
    NOT_FOUND = 16, "no such file or directory";
    PERMISSION = 17, "permission denied";
    NO_SPACE = 18, "no space left on the device";
    IO = 19, "the device or file system failed";
    CHANGED = 20, "the source changed while it was read";
    VANISHED = 21, "the source vanished";
    DESTINATION_CHANGED = 22, "the destination changed during the transfer";
    IS_DIRECTORY = 23, "a directory stands where a file should go";
    NOT_DIRECTORY = 24, "something else stands where a directory should go";
    SPECIAL = 25, "not a regular file, directory or symbolic link";
    NAME = 26, "a name that cannot be used";
    MISMATCH = 27, "the content does not match its digest";
    COLLISION = 28, "two sources have the same name";
    SKIPPED = 30, "left out on purpose; a notice, not a failure";
    READ_ONLY = 29, "the destination is read-only";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.describe() {
            Some((_, text)) => f.write_str(text),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.describe() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "ErrorCode({})", self.0),
        }
    }
}

/// A peer that sent what the protocol does not allow. Always the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The payload of a frame cannot be read.
    #[error("the peer sent {error} ({flag})")]
    Decode {
        /// The frame.
        flag: Flag,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A frame whose checksum is wrong.
    #[error("the peer sent {0}")]
    Checksum(#[from] crate::frame::BadChecksum),
    /// A frame that has no place here and now.
    #[error("the peer sent {got} where {expected} was expected")]
    Unexpected {
        /// What came.
        got: Flag,
        /// What could have come.
        expected: &'static str,
    },
    /// A well-formed frame that contradicts what was agreed or said before.
    #[error("the peer sent {flag} that {reason}")]
    Rule {
        /// The frame.
        flag: Flag,
        /// Completes "a frame that ...".
        reason: &'static str,
    },
}

impl Violation {
    /// A [`Violation::Rule`].
    pub fn rule(flag: Flag, reason: &'static str) -> Violation {
        Violation::Rule { flag, reason }
    }
}
