//! Settings of a TCP socket for long and fast paths. All of them are wishes.

use std::net::TcpStream;

use rustix::net::sockopt;

/// Enough for 10 Gbit/s over 13 ms or 1 Gbit/s over 130 ms; more is for the system's owner to give.
const BUFFER: usize = 16 << 20;

/// Prepares a connected socket for bulk data. What the kernel refuses is left as it was.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    if stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
        return;
    }
    // Loss is not congestion on every path. Refused where it is not loaded or not allowed.
    let _ = sockopt::set_tcp_congestion(stream, "bbr");
    // The send buffer is left to the kernel, which lets it grow with the window: one that was set
    // takes many blocks at once, and a connection that is new or slow would hold them while others
    // are idle. Measured over 100 ms and 1 Gbit/s: 32 MiB waited in four new connections at the end.
    if let Some(size) = better(numbers("ipv4/tcp_rmem").last(), numbers("core/rmem_max").last()) {
        let _ = sockopt::set_socket_recv_buffer_size(stream, size);
    }
}

/// The size to set, if that is more than what the kernel may come to by itself: a size that was
/// set is doubled by the kernel, and never changed again.
fn better(auto_max: Option<&usize>, set_max: Option<&usize>) -> Option<usize> {
    let size = BUFFER.min(*set_max?);
    (size.saturating_mul(2) > *auto_max?).then_some(size)
}

/// The numbers in a file below `/proc/sys/net`; none if it cannot be read.
fn numbers(name: &str) -> Vec<usize> {
    let text = std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_set_only_where_the_kernel_would_not_get_as_far() {
        let mib = |n: usize| n << 20;
        assert_eq!(better(Some(&mib(4)), Some(&212_992)), None);
        assert_eq!(better(Some(&mib(4)), Some(&mib(8))), Some(mib(8)));
        assert_eq!(better(Some(&mib(4)), Some(&mib(512))), Some(BUFFER));
        assert_eq!(better(Some(&mib(64)), Some(&mib(512))), None);
        assert_eq!(better(None, Some(&mib(8))), None);
    }

    #[test]
    fn the_kernels_limits_can_be_read() {
        assert_eq!(numbers("ipv4/tcp_wmem").len(), 3);
        assert!(numbers("no/such/file").is_empty());
    }
}
