//! Why a socket's owner could not be told.

use std::fmt;
use std::net::SocketAddr;

/// Why the kernel's table does not say beyond doubt who owns a socket. Each one means: refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// An address of the connection is not a loopback address, so its owner is not on this host.
    #[error("{0} is not a loopback address, so no local user can be named for it")]
    NotLoopback(SocketAddr),
    /// Both ends are the same socket: the kernel let a connect to a free port meet itself.
    #[error("the socket at {0} is connected to itself")]
    SelfConnected(SocketAddr),
    /// An end is there but is closing, closed or half open; an owner found now could be anybody's.
    #[error("{0} end of the connection is not (or no longer) established")]
    NotEstablished(End),
    /// The table has no such socket: it was reset, or lives in another network namespace.
    #[error("the kernel's socket table does not list {0} end of the connection")]
    NoSuchSocket(End),
    /// Two sockets fit the description, which an honest pair of ends cannot cause.
    #[error("the kernel's socket table lists several owners for {0} end of the connection")]
    Ambiguous(End),
    /// The socket has no inode: no process holds it, and its uid is meaningless.
    #[error("no process holds {0} end of the connection")]
    Orphaned(End),
    /// The owner has no uid in our user namespace (the kernel shows the overflow uid).
    #[error("the owner has no uid here (the kernel shows the overflow uid {0})")]
    Unmapped(u32),
    /// Neither `sock_diag` nor `/proc/net/tcp` could be asked.
    #[error("no socket table to ask: sock_diag: {netlink}; /proc/net/tcp: {proc}")]
    NoKernelTable {
        /// What the netlink look-up said.
        netlink: String,
        /// What reading `/proc/net/tcp` said.
        proc: String,
    },
    /// Our own descriptor could not be examined; the fault is this program's or its sandbox's.
    #[error("cannot examine our own socket: {0}")]
    OwnSocket(String),
}

/// Which end of the connection a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The descriptor in our hands.
    Ours,
    /// The socket at the other end.
    Theirs,
    /// The listening socket that a connection reaches.
    Listener,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Ours => "our",
            End::Theirs => "the other",
            End::Listener => "the listening",
        })
    }
}
