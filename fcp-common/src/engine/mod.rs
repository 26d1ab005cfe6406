//! The shells around the transfer machines: threads, sockets, files. No decisions.
//!
//! Each connection has a reading and a writing thread with blocking sockets; measured against
//! tokio tasks in `benches/runs`, threads were faster and need no hand-over per block. The reading
//! threads also do what a receiver decides; only what takes long goes to workers.
//!
//! [`send`] and [`receive`] run one end of a session to its end; [`copy`] runs both in this
//! process with the local data plane; [`relay`] joins two servers.

mod conn;
mod destination;
mod fds;
mod local;
mod receive;
mod relay;
mod report;
mod send;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod workers;

pub use conn::Duplex;
pub(crate) use conn::FrameReader;
pub use destination::{Destination, DestinationError, DestinationOptions, Unusable};
pub use local::copy;
pub use receive::{OpenDestination, ReceiveOptions, receive};
pub use relay::{RelayError, RelayOptions, relay};
pub use report::{Counters, EntryReport, NoReport, Report};
pub use send::{SendOptions, send};
pub use session::{Cancel, Connections, Ended, Inlet, RequestBy, SessionError};
pub(crate) use session::{Control, spawn};
