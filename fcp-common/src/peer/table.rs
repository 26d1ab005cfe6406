//! The kernel's socket table through whichever door is open.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::diag_codec::Query;
use super::netlink::Netlink;
use super::proc_net;
use super::row::{Row, TcpState, Tuple};
use super::unknown::Unknown;

/// Where the kernel may be asked. The default is right everywhere but in a test.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Whether `sock_diag` is tried before `/proc/net/tcp`.
    pub netlink: bool,
    /// Where procfs is mounted.
    pub proc_root: &'a Path,
}

impl Default for Sources<'_> {
    fn default() -> Self {
        Sources { netlink: true, proc_root: Path::new("/proc") }
    }
}

/// The door in use for one identification; it does not change half-way.
pub(super) enum Table<'a> {
    Netlink(Netlink),
    Proc(&'a Path),
}

impl<'a> Table<'a> {
    /// The first table that answers `ask`, a question about a socket that must exist, and its
    /// answer.
    ///
    /// `sock_diag` saying "no such socket" is no answer: a kernel without the `tcp_diag` module
    /// says the same of every socket.
    pub(super) fn first_that_knows<T>(
        sources: &Sources<'a>,
        ask: impl Fn(&Table<'a>) -> io::Result<Result<T, Unknown>>,
    ) -> Result<(Table<'a>, T), Unknown> {
        let netlink = match Self::try_netlink(sources, &ask) {
            Ok((_, Err(Unknown::NoSuchSocket(end)))) => Unknown::NoSuchSocket(end).to_string(),
            Ok((table, answer)) => return answer.map(|answer| (table, answer)),
            Err(e) => e.to_string(),
        };
        let table = Table::Proc(sources.proc_root);
        match ask(&table) {
            Ok(answer) => answer.map(|answer| (table, answer)),
            Err(e) => Err(Unknown::NoKernelTable { netlink, proc: e.to_string() }),
        }
    }

    fn try_netlink<T>(
        sources: &Sources<'a>,
        ask: &impl Fn(&Table<'a>) -> io::Result<Result<T, Unknown>>,
    ) -> io::Result<(Table<'a>, Result<T, Unknown>)> {
        if !sources.netlink {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "switched off"));
        }
        let table = Table::Netlink(Netlink::open()?);
        let answer = ask(&table)?;
        Ok((table, answer))
    }

    /// The sockets with exactly the addresses of `query`, in whatever state. The cookie is honoured
    /// by `sock_diag` only.
    pub(super) fn rows(&self, query: &Query) -> io::Result<Vec<Row>> {
        let fits = |row: &Row| row.tuple == query.tuple;
        match self {
            // A listener on the port answers for a connection that does not exist; it does not fit.
            Table::Netlink(netlink) => Ok(netlink.find(query)?.into_iter().filter(fits).collect()),
            Table::Proc(root) => proc_net::rows(root, fits),
        }
    }

    /// The listeners on the port of `addr`, at least the one that a connection to `addr` reaches.
    pub(super) fn listeners(&self, addr: SocketAddr) -> io::Result<Vec<Row>> {
        match self {
            Table::Netlink(netlink) => {
                let query = Query { tuple: Tuple::listening(addr), cookie: None };
                Ok(netlink.find(&query)?.into_iter().collect())
            }
            Table::Proc(root) => proc_net::rows(root, |row| {
                row.state == TcpState::LISTEN && row.tuple.local.port() == addr.port()
            }),
        }
    }

    /// `error` of a table that answered before.
    pub(super) fn unusable(&self, error: &io::Error) -> Unknown {
        let (netlink, proc) = match self {
            Table::Netlink(_) => (error.to_string(), "not asked".to_owned()),
            Table::Proc(_) => ("not usable".to_owned(), error.to_string()),
        };
        Unknown::NoKernelTable { netlink, proc }
    }
}

/// The uid that the kernel shows for an owner without a uid in our user namespace.
pub(super) fn overflow_uid(sources: &Sources<'_>) -> u32 {
    // The kernel's own default, used where /proc is not mounted.
    const DEFAULT: u32 = 65534;
    let text = std::fs::read_to_string(sources.proc_root.join("sys/kernel/overflowuid"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT)
}
