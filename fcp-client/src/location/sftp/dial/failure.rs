//! Errors of a server that cannot be reached or logged in at.

use std::io;
use std::sync::Arc;

use crate::location::{LocationError, Op, Reason};

/// Most characters of a peer's own words that are repeated.
const MAX_WORDS: usize = 300;

/// A server as errors name it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// As [`super::Login::name`] has it.
    pub(super) name: Arc<str>,
    /// The host, and the port if it is not the usual one, for people.
    pub(super) place: Arc<str>,
}

impl Server {
    pub(super) fn new(name: &str, host: &str, port: u16) -> Server {
        let place = match port {
            22 => format!("to {host}"),
            _ => format!("to {host} port {port}"),
        };
        Server { name: name.into(), place: fcp_proto::escape(place.as_bytes()).into() }
    }

    /// It cannot be used.
    pub(super) fn failed(&self, reason: Reason, text: impl Into<String>) -> LocationError {
        LocationError {
            place: self.name.to_string(),
            op: Op::Connect,
            path: self.place.to_string(),
            reason,
            text: text.into(),
        }
    }

    /// The system says why.
    pub(super) fn io(&self, error: &io::Error) -> LocationError {
        let reason = match error.kind() {
            io::ErrorKind::TimedOut => Reason::Timeout,
            _ => Reason::Lost,
        };
        self.failed(reason, error.to_string())
    }
}

/// What a peer or program said, escaped and cut.
pub(super) fn words(said: &[u8]) -> String {
    fcp_proto::escape(said.trim_ascii()).chars().take(MAX_WORDS).collect()
}
