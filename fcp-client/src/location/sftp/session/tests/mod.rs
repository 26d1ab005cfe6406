//! Against OpenSSH's server, and against servers that lie.

mod evil;
mod far;
mod lies;
mod listings;
mod openssh;
mod patience;
mod small;
mod streams;

use std::time::Duration;

use super::{Result, Session, SessionError, SessionOptions};
use crate::location::sftp::wire::{Attrs, OpenFlags};

/// A future that hangs fails its test.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it hangs")
}

/// Content that shows where it was cut.
fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

async fn open(session: &Session, path: &[u8]) -> Result<super::Handle> {
    session.open(path, OpenFlags::READ, Attrs::default()).await
}

async fn create(session: &Session, path: &[u8]) -> Result<super::Handle> {
    session.open(path, OpenFlags::CREATE_NEW, Attrs::default()).await
}

fn protocol_text(error: &SessionError) -> &str {
    match error {
        SessionError::Protocol(text) => text,
        other => panic!("not a protocol error: {other:?}"),
    }
}

fn quick(watchdog: u64, request: u64) -> SessionOptions {
    SessionOptions {
        watchdog: Duration::from_millis(watchdog),
        request: Duration::from_millis(request),
    }
}
