//! Status codes, draft section 7.

use std::fmt;

/// What a server says of a request. Codes that nobody named survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusCode(pub u32);

macro_rules! codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        #[allow(missing_docs)]
        impl StatusCode {
            $(pub const $name: StatusCode = StatusCode($code);)*
        }

        impl fmt::Display for StatusCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($code => f.write_str($text),)*
                    other => write!(f, "status {other}"),
                }
            }
        }
    };
}

// Those over 8 belong to later versions; servers send them in version 3, too.
codes! {
    OK = 0, "ok";
    EOF = 1, "end of file";
    NO_SUCH_FILE = 2, "no such file";
    PERMISSION_DENIED = 3, "permission denied";
    FAILURE = 4, "failure";
    BAD_MESSAGE = 5, "bad message";
    NO_CONNECTION = 6, "no connection";
    CONNECTION_LOST = 7, "connection lost";
    OP_UNSUPPORTED = 8, "operation unsupported";
    INVALID_HANDLE = 9, "invalid handle";
    NO_SUCH_PATH = 10, "no such path";
    FILE_ALREADY_EXISTS = 11, "file already exists";
    WRITE_PROTECT = 12, "write protected";
    NO_SPACE_ON_FILESYSTEM = 14, "no space on file system";
    QUOTA_EXCEEDED = 15, "quota exceeded";
    DIR_NOT_EMPTY = 18, "directory not empty";
    NOT_A_DIRECTORY = 19, "not a directory";
    FILE_IS_A_DIRECTORY = 24, "file is a directory";
}
