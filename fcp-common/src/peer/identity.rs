//! The algorithm: whose socket is at the other end, proven against port re-use.
//!
//! 1. Our own end, *the very socket of our descriptor*, is ESTABLISHED.
//! 2. The row of the other end (same addresses, swapped) is ESTABLISHED and held by a process.
//! 3. Our own end is still ESTABLISHED.
//!
//! A peer may send its bytes, reset the connection and let a victim bind the same port; the table
//! then lists the victim under the peer's address, while our descriptor still yields the peer's
//! bytes. Step 3 is what catches that: a socket enters ESTABLISHED once, and while ours is in it
//! nobody else can complete a handshake with the same two addresses. So the row of step 2, read
//! between two sightings of our own end, belongs to the other end of our descriptor.
//!
//! "Our own end" must be found by more than its addresses. When the victim connects *to us*, our
//! listener makes a second socket with exactly the addresses of the first, ESTABLISHED too. The
//! usual check, `TCP_INFO` on the descriptor, cannot confuse them; there is no safe wrapper for it,
//! so the same is had from the table: `sock_diag` is asked for the socket with our addresses *and*
//! the `SO_COOKIE` of our descriptor (a number the kernel never gives twice), and the `/proc`
//! fallback compares the inode of the row with that of the descriptor. The kernel takes a socket
//! out of the table before it leaves ESTABLISHED for CLOSE, so this sees a reset no later than
//! `TCP_INFO` does. A `poll` for a hang-up goes first each time: it costs nothing, and spares the
//! table of peers that are already gone.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::diag_codec::Query;
use super::own_end::OwnEnd;
use super::row::{Row, TcpState, Tuple, only_established, reached_listener};
use super::table::{Sources, Table, overflow_uid};
use super::unknown::{End, Unknown};

/// The uid of the process at the other end of `stream`, an accepted loopback TCP connection.
///
/// `peer` and `local` are the two addresses of `stream`. Nothing may have been shut down on it.
/// Never blocks on the network; the `/proc` fallback reads a file as long as the socket table.
///
/// # Errors
/// [`Unknown`]: refuse the peer. A uid is returned only if it is certain.
pub fn peer_uid(stream: impl AsFd, peer: SocketAddr, local: SocketAddr) -> Result<u32, Unknown> {
    peer_uid_from(&Sources::default(), stream, peer, local)
}

/// [`peer_uid`], asking `sources`.
///
/// # Errors
/// As [`peer_uid`].
pub fn peer_uid_from(
    sources: &Sources<'_>,
    stream: impl AsFd,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<u32, Unknown> {
    let look = Look::begin(sources, stream.as_fd(), peer, local)?;
    let row = only_established(&look.their_rows()?, End::Theirs)?;
    look.own_end_still_established()?;
    owner(sources, row, End::Theirs)
}

/// The uid of the server at the other end of `stream`, a loopback TCP connection that we made.
///
/// As [`peer_uid`], with one more case. Until the server calls `accept` its end has no inode, and
/// its uid is the listener's (measured on Linux 6.18), or 0 (kernels before 2025, by their source),
/// or always 0 while it is in SYN_RECV, as under `TCP_DEFER_ACCEPT`. Then the listener's owner is
/// the answer. The look-up of the listener stands between the two sightings of our own end too: a
/// listener that closes resets what it has not accepted, so no other can have taken its place.
///
/// # Errors
/// [`Unknown`]: send nothing.
pub fn server_uid(stream: impl AsFd, peer: SocketAddr, local: SocketAddr) -> Result<u32, Unknown> {
    server_uid_from(&Sources::default(), stream, peer, local)
}

/// [`server_uid`], asking `sources`.
///
/// # Errors
/// As [`server_uid`].
pub fn server_uid_from(
    sources: &Sources<'_>,
    stream: impl AsFd,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<u32, Unknown> {
    let look = Look::begin(sources, stream.as_fd(), peer, local)?;
    let rows = look.their_rows()?;
    let (row, end) = match awaits_accept(&rows) {
        true => (look.their_listener()?, End::Listener),
        false => (only_established(&rows, End::Theirs)?, End::Theirs),
    };
    look.own_end_still_established()?;
    owner(sources, row, end)
}

/// The uid of the process that listens where a connection to `addr` arrives.
///
/// Proves less than [`server_uid`] does about a connection in hand: the listener may change between
/// the question and the connect.
///
/// # Errors
/// [`Unknown`], with [`End::Listener`] when nobody listens there.
pub fn listener_owner(addr: SocketAddr) -> Result<u32, Unknown> {
    listener_owner_from(&Sources::default(), addr)
}

/// [`listener_owner`], asking `sources`.
///
/// # Errors
/// As [`listener_owner`].
pub fn listener_owner_from(sources: &Sources<'_>, addr: SocketAddr) -> Result<u32, Unknown> {
    require_loopback(addr)?;
    let (_, row) = Table::first_that_knows(sources, |table| {
        Ok(reached_listener(&table.listeners(addr)?, addr))
    })?;
    owner(sources, row, End::Listener)
}

/// One identification under way: the first sighting of our own end is behind us.
pub(super) struct Look<'a> {
    pub(super) own: OwnEnd<'a>,
    pub(super) table: Table<'a>,
}

impl<'a> Look<'a> {
    /// Step 1.
    pub(super) fn begin(
        sources: &Sources<'a>,
        fd: BorrowedFd<'a>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Look<'a>, Unknown> {
        require_loopback(peer)?;
        require_loopback(local)?;
        if peer == local {
            return Err(Unknown::SelfConnected(peer));
        }
        let own = OwnEnd::of(fd, Tuple::new(local, peer))?;
        own.require_no_hang_up()?;
        let (table, ()) = Table::first_that_knows(sources, |table| own.sighting(table))?;
        Ok(Look { own, table })
    }

    /// Step 2: every row of the other end, to be judged by the caller.
    pub(super) fn their_rows(&self) -> Result<Vec<Row>, Unknown> {
        let query = Query { tuple: self.own.tuple.reversed(), cookie: None };
        self.table.rows(&query).map_err(|e| self.table.unusable(&e))
    }

    fn their_listener(&self) -> Result<Row, Unknown> {
        let addr = self.own.tuple.remote;
        let rows = self.table.listeners(addr).map_err(|e| self.table.unusable(&e))?;
        reached_listener(&rows, addr)
    }

    /// Step 3.
    pub(super) fn own_end_still_established(&self) -> Result<(), Unknown> {
        self.own.require_no_hang_up()?;
        self.own.sighting(&self.table).map_err(|e| self.table.unusable(&e))?
    }
}

/// Whether the server's end is still in its listener's queue, so that it has no owner of its own.
fn awaits_accept(rows: &[Row]) -> bool {
    match only_established(rows, End::Theirs) {
        Ok(row) => row.inode == 0,
        Err(_) => rows.iter().any(|row| row.state == TcpState::SYN_RECV),
    }
}

fn owner(sources: &Sources<'_>, row: Row, end: End) -> Result<u32, Unknown> {
    if row.inode == 0 {
        return Err(Unknown::Orphaned(end));
    }
    if row.uid == overflow_uid(sources) {
        return Err(Unknown::Unmapped(row.uid));
    }
    Ok(row.uid)
}

fn require_loopback(addr: SocketAddr) -> Result<(), Unknown> {
    match addr.ip().to_canonical().is_loopback() {
        true => Ok(()),
        false => Err(Unknown::NotLoopback(addr)),
    }
}
