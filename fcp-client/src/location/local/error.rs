//! The system's errors in the terms of locations.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use fcp_proto::path::RelPath;
use rustix::io::Errno;

use crate::location::{LocationError, Op, Reason};

/// What errors of an open file are told with.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) place: Arc<str>,
    pub(super) path: RelPath,
    /// A call may wait for another machine.
    pub(super) far: bool,
}

impl Label {
    pub(super) fn failed(&self, op: Op, error: &io::Error) -> LocationError {
        failed(&self.place, op, self.path.as_bytes(), error)
    }

    pub(super) fn changed(&self, text: &str) -> LocationError {
        LocationError::new(&self.place, Op::Read, self.path.as_bytes(), Reason::Changed, text)
    }
}

pub(super) fn failed(place: &str, op: Op, path: &[u8], error: &io::Error) -> LocationError {
    let reason = reason(op, error);
    let text = match (reason, op) {
        (Reason::Unsupported, Op::Rename) => "both names must be on one file system".into(),
        (Reason::NotFile, Op::Open) => "it is not a regular file".into(),
        _ => error.to_string(),
    };
    LocationError::new(place, op, path, reason, &text)
}

fn reason(op: Op, error: &io::Error) -> Reason {
    let link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    match error.kind() {
        // What `openat` says of a link.
        _ if link && op == Op::Open => Reason::NotFile,
        _ if link => Reason::NotDirectory,
        ErrorKind::NotFound => Reason::NotFound,
        ErrorKind::AlreadyExists => Reason::Exists,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Reason::Denied,
        // What we say of a FIFO and the like.
        ErrorKind::InvalidInput if op == Op::Open => Reason::NotFile,
        ErrorKind::IsADirectory if op == Op::Open => Reason::NotFile,
        ErrorKind::IsADirectory => Reason::IsDirectory,
        ErrorKind::NotADirectory => Reason::NotDirectory,
        ErrorKind::DirectoryNotEmpty => Reason::NotEmpty,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Reason::Full,
        ErrorKind::CrossesDevices | ErrorKind::Unsupported => Reason::Unsupported,
        // What a network file system says while its server is away.
        ErrorKind::TimedOut => Reason::Timeout,
        ErrorKind::StaleNetworkFileHandle | ErrorKind::HostUnreachable => Reason::Lost,
        _ => Reason::Io,
    }
}
