//! One row of the kernel's TCP table, wherever it was read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::unknown::{End, Unknown};

/// A connection as one of its ends sees it, in canonical form: IPv4-mapped IPv6 addresses are IPv4,
/// flow labels and scopes are gone. A dual-stack server and its IPv4 client thus compare equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

impl Tuple {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Tuple {
        Tuple { local: canonical(local), remote: canonical(remote) }
    }

    /// What a listener at `addr` looks like: no remote end.
    pub(super) fn listening(addr: SocketAddr) -> Tuple {
        let local = canonical(addr);
        let any: IpAddr = match local {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Tuple { local, remote: SocketAddr::new(any, 0) }
    }

    /// The same connection seen from its other end.
    pub(super) fn reversed(self) -> Tuple {
        Tuple { local: self.remote, remote: self.local }
    }
}

/// The kernel's TCP state number; the same in `sock_diag`, `/proc/net/tcp` and `TCP_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpState(pub(super) u8);

impl TcpState {
    pub(super) const ESTABLISHED: TcpState = TcpState(1);
    pub(super) const SYN_RECV: TcpState = TcpState(3);
    pub(super) const LISTEN: TcpState = TcpState(10);
}

/// One socket: `uid` means something only while `inode` is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) tuple: Tuple,
    pub(super) state: TcpState,
    pub(super) uid: u32,
    pub(super) inode: u32,
}

/// The one established row among `rows`, which all have the tuple asked for.
///
/// Rows in other states are passed over, never taken: a TIME_WAIT row prints uid 0, and may come
/// first. Two different established rows cannot both be the other end, so neither is believed.
pub(super) fn only_established(rows: &[Row], end: End) -> Result<Row, Unknown> {
    let mut live = rows.iter().filter(|row| row.state == TcpState::ESTABLISHED);
    match (live.next(), live.next()) {
        (Some(row), None) => Ok(*row),
        (Some(_), Some(_)) => Err(Unknown::Ambiguous(end)),
        (None, _) if rows.is_empty() => Err(Unknown::NoSuchSocket(end)),
        (None, _) => Err(Unknown::NotEstablished(end)),
    }
}

/// The listener among `rows` that a connection to `addr` reaches, by the kernel's own order: the
/// exact address, then the wildcard of its family, then for IPv4 a dual-stack IPv6 wildcard.
///
/// Several rows of one rank are a `SO_REUSEPORT` group, which has one owner by the kernel's rule.
pub(super) fn reached_listener(rows: &[Row], addr: SocketAddr) -> Result<Row, Unknown> {
    let ranked = || rows.iter().filter_map(|row| Some((listener_rank(row, addr)?, row)));
    let Some((best, first)) = ranked().min_by_key(|(rank, _)| *rank) else {
        return Err(Unknown::NoSuchSocket(End::Listener));
    };
    let mut group = ranked().filter(|(rank, _)| *rank == best);
    match group.any(|(_, row)| row.uid != first.uid) {
        true => Err(Unknown::Ambiguous(End::Listener)),
        false => Ok(*first),
    }
}

fn listener_rank(row: &Row, addr: SocketAddr) -> Option<u8> {
    let (ours, wanted) = (row.tuple.local, canonical(addr));
    if row.state != TcpState::LISTEN || ours.port() != wanted.port() {
        return None;
    }
    match (ours.ip(), wanted.ip()) {
        (a, b) if a == b => Some(0),
        (a, _) if !a.is_unspecified() => None,
        (a, b) if a.is_ipv4() == b.is_ipv4() => Some(1),
        (IpAddr::V6(_), IpAddr::V4(_)) => Some(2),
        _ => None,
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
