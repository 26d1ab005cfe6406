//! What goes wrong in a run, and what is counted.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fcp_proto::packet::{Outcome, Summary};
use fcp_proto::{FileId, SourceVersion};

/// What goes wrong, in 10,000ths per occasion.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) conns: u32,
    /// The first connection is a spare one until then.
    pub(super) spare: Option<Duration>,
    /// Which [`crate::transfer::Help`] it is.
    pub(super) help: usize,
    /// When the others join.
    pub(super) join_at: Duration,
    pub(super) latency: Duration,
    pub(super) rate: u64,
    pub(super) window: usize,
    pub(super) max_frame: u16,
    pub(super) open_entries: u32,
    /// Bytes that one read returns at most.
    pub(super) read: usize,
    /// Longest time that a job on the disk takes; jobs overtake each other.
    pub(super) disk: Duration,
    /// Per segment.
    pub(super) lose: u64,
    /// Per segment.
    pub(super) stall: u64,
    /// One connection lives through everything.
    pub(super) keep_one: bool,
    /// All at once, at this step.
    pub(super) lose_all_at: Option<u64>,
    /// A new connection comes when one was lost.
    pub(super) reopen: bool,
    /// Per block.
    pub(super) flip_content: u64,
    /// Per piece that is sent.
    pub(super) flip_frame: u64,
    /// Per block.
    pub(super) change: u64,
    /// Per block.
    pub(super) vanish: u64,
    /// Per job.
    pub(super) disk_error: u64,
    pub(super) crash: Option<(Side, u64)>,
    /// Per journalled block, when the receiver crashes.
    pub(super) rot: u64,
    pub(super) checksum: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Receiver,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            conns: 3,
            spare: None,
            help: 2,
            join_at: Duration::ZERO,
            latency: Duration::from_millis(20),
            rate: 20 << 20,
            window: 2 << 20,
            max_frame: 65_535,
            open_entries: 1000,
            read: usize::MAX,
            disk: Duration::from_millis(5),
            lose: 0,
            stall: 0,
            keep_one: true,
            lose_all_at: None,
            reopen: false,
            flip_content: 0,
            flip_frame: 0,
            change: 0,
            vanish: 0,
            disk_error: 0,
            crash: None,
            rot: 0,
            checksum: false,
        }
    }
}

#[derive(Default, Debug)]
pub(super) struct Stats {
    pub(super) sessions: u32,
    /// Hash of everything that happened.
    pub(super) log: u64,
    /// Content bytes put into frames, in all sessions.
    pub(super) sent: u64,
    /// The same by connection.
    pub(super) sent_over: BTreeMap<u32, u64>,
    pub(super) steps: u64,
    pub(super) flips: HashMap<FileId, u8>,
    /// Entries the sender took back in the last session.
    pub(super) taken_back: u64,
    /// What the sender heard in the last session.
    pub(super) finished: Vec<(usize, SourceVersion, Outcome)>,
    pub(super) summary: Summary,
}
