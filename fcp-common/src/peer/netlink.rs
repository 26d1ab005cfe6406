//! Asks the kernel's `sock_diag` for one socket by its exact addresses.
//!
//! Constant time however many sockets there are, and open to unprivileged callers, so this is the
//! first choice; a sandbox may forbid it, and then `proc_net.rs` is asked.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recvfrom, sendto, socket_with,
};

use super::diag_codec::{ANSWER_MAX, Answer, Query, encode, parse};
use super::row::Row;

/// A `sock_diag` socket. Opened anew for every connection that is looked up, so that no answer can
/// be left over from an earlier question.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// # Errors
    /// Whatever a sandbox or a kernel without `sock_diag` answers: `EPERM`, `EPROTONOSUPPORT`, ...
    pub(super) fn open() -> io::Result<Netlink> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Netlink(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?))
    }

    /// The socket that fits `query`, or a listener on its local port, or none.
    ///
    /// A kernel without the `tcp_diag` module also says "none" (`ENOENT`), so "none" for a socket
    /// that must exist means "ask elsewhere".
    ///
    /// # Errors
    /// As the system calls; `InvalidData` for an answer that is not the kernel's or is malformed.
    pub(super) fn find(&self, query: &Query) -> io::Result<Option<Row>> {
        match self.ask(query)? {
            Answer::Row(row) => Ok(Some(row)),
            Answer::Errno(code) => match Errno::from_raw_os_error(code) {
                Errno::NOENT | Errno::STALE => Ok(None),
                errno => Err(errno.into()),
            },
        }
    }

    fn ask(&self, query: &Query) -> io::Result<Answer> {
        const SEQ: u32 = 1;
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &encode(query, SEQ), SendFlags::empty(), &kernel)?;
        let mut buf = [0; ANSWER_MAX];
        // The kernel has queued the answer when sendto returns, so nothing here ever waits.
        let (len, _, from) = recvfrom(&self.0, &mut buf, RecvFlags::DONTWAIT)?;
        let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
        if from.is_none_or(|from| from.pid() != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "answer not from the kernel"));
        }
        let answer = buf.get(..len).unwrap_or_default();
        parse(answer, SEQ).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}
