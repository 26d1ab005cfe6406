//! A source and a destination, and sessions between them until one is closed.

use std::time::Duration;

use fcp_proto::packet::{Outcome, Summary};

use super::disk::{Disk, Node};
use super::plan::{Plan, Stats};
use super::random::{Random, mix};
use super::session::{End, Session};
use super::source::Source;

/// Everything that outlives a session.
pub(super) struct Pair {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) now: Duration,
    pub(super) source: Source,
    pub(super) disk: Disk,
    pub(super) stats: Stats,
    pub(super) trace: bool,
}

impl Pair {
    pub(super) fn new(seed: u64, plan: Plan, source: Source) -> Pair {
        let (random, now) = (Random(seed), Duration::ZERO);
        let (disk, stats) = (Disk::default(), Stats::default());
        let trace = std::env::var_os("FCP_SEED").is_some();
        Pair { plan, random, now, source, disk, stats, trace }
    }

    /// Runs sessions until one is closed, then checks the destination.
    pub(super) fn run(&mut self) -> Summary {
        loop {
            self.stats.sessions += 1;
            assert!(self.stats.sessions < 20, "no session ever closes");
            self.stats.finished.clear();
            self.stats.flips.clear();
            self.stats.taken_back = 0;
            let end = Session::new(self).run();
            if end == End::Closed {
                self.check();
                return self.stats.summary.clone();
            }
            self.rot();
            // Faults that end a session come once.
            (self.plan.crash, self.plan.lose_all_at) = (None, None);
            self.plan.keep_one = true;
        }
    }

    /// The power failed: some of what was journalled is not what was written.
    fn rot(&mut self) {
        for temp in &self.disk.temps {
            let mut temp = temp.borrow_mut();
            for block in temp.journal.keys().copied().collect::<Vec<_>>() {
                if self.random.chance(self.plan.rot) {
                    temp.bytes[(block as usize) << 20] ^= 1;
                }
            }
        }
    }

    pub(super) fn log(&mut self, what: std::fmt::Arguments<'_>) {
        let text = format!("{:?} {what}", self.now);
        if self.trace {
            println!("{text}");
        }
        let log = &mut self.stats.log;
        text.bytes().for_each(|b| *log = (*log ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        *log = mix(*log);
    }

    /// What was reported as done is done.
    fn check(&self) {
        for (node, version, outcome) in &self.stats.finished {
            let path = self.source.path(*node);
            let (name, n) = (String::from_utf8_lossy(&path), &self.source.nodes[*node]);
            if matches!(outcome, Outcome::Failed(_)) {
                continue;
            }
            match self.disk.nodes.get(&path) {
                Some(Node::Dir { mtime, mode }) => {
                    assert_eq!((*mtime, *mode), (n.mtime, n.mode), "directory {name}");
                }
                Some(Node::Link { mtime, .. }) => assert_eq!(*mtime, n.mtime),
                Some(Node::File { content, mtime, mode, .. }) => {
                    assert!(**content == **self.source.versions[&version.token], "{name}");
                    assert_eq!((*mtime, *mode), (version.mtime, n.mode), "file {name}");
                }
                None => panic!("{name} is {outcome:?} and not there"),
            }
        }
    }
}
