//! More connections, and more files on their way, once there is enough to do: each connection costs
//! a login, which a short copy is not worth.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fcp_common::engine::Counters;
use tokio::sync::Semaphore;

use super::host::{Host, Remote};
use super::work::FILES;

/// How often is looked. What one connection brings in that time needs no other.
const LOOK: Duration = Duration::from_millis(300);
/// So many bytes to go are worth more logins.
const BYTES: u64 = 8 << 20;
/// So many files to go are.
const FILES_LEFT: u64 = 256;

/// Waits until more is worth it, and allows it then.
pub(super) async fn ramp(counters: &Counters, hosts: [&Host; 2], files: &Arc<Semaphore>) {
    loop {
        tokio::time::sleep(LOOK).await;
        if is_worth_more(counters) {
            break;
        }
    }
    let remotes = hosts.into_iter().filter_map(|host| match host {
        Host::Here => None,
        Host::There(remote) => Some(remote),
    });
    let mut most = 1;
    for Remote { pool, most: connections, .. } in remotes {
        pool.allow(*connections);
        most = most.max(*connections);
    }
    files.add_permits(FILES * most.clamp(1, 4) - FILES);
}

fn is_worth_more(counters: &Counters) -> bool {
    let left = |all: &std::sync::atomic::AtomicU64, done: &std::sync::atomic::AtomicU64| {
        all.load(Relaxed).saturating_sub(done.load(Relaxed))
    };
    left(&counters.total_bytes, &counters.done_bytes) >= BYTES
        || left(&counters.total_entries, &counters.done_entries) >= FILES_LEFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_spent_where_much_is_left() {
        let worth = |bytes: u64, done: u64, entries: u64, finished: u64| {
            let counters = Counters::default();
            counters.total_bytes.store(bytes, Relaxed);
            counters.done_bytes.store(done, Relaxed);
            counters.total_entries.store(entries, Relaxed);
            counters.done_entries.store(finished, Relaxed);
            is_worth_more(&counters)
        };
        assert!(!worth(0, 0, 0, 0) && !worth(BYTES - 1, 0, 200, 0));
        assert!(worth(BYTES, 0, 1, 0) && worth(1_000, 0, 1_000, 0));
        assert!(!worth(1 << 40, 1 << 40, 1_000, 900));
        assert!(!worth(5, 9, 5, 9), "counted twice after a break is no less than nothing");
    }
}
