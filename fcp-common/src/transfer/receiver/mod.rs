//! The receiving machine: announcements and content in; inspections, writes and answers out.
//!
//! ```text
//!  ENTRIES -> waiting (for its directory) -> inspecting -+-> same: RESULTS
//!                                                        +-> metadata only
//!                                                        +-> comparing (hashes of both ends)
//!                                                        +-> recovering (an earlier run's blocks)
//!                                                        +-> wanted -> publishing -> RESULTS
//! ```
//!
//! A directory is finished, its mode and times set, when its last child is: deepest first, and
//! nothing is remembered about it afterwards.
//!
//! Calling order: feed what happened (`handle_*`), do every [`Receiver::poll_action`], then let
//! [`Receiver::poll_transmit`] fill what a connection can write. Content is asked about with
//! [`Receiver::place`] before it is written and reported with [`Receiver::handle_written`] after.

mod content;
mod tree;
mod types;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use fcp_proto::packet::{
    Entry, FileResult, Message, Outcome, RootMeta, Sequenced, Summary, Want, WireError, Written,
};
use fcp_proto::version::Agreed;
use fcp_proto::{ConnId, DirId, FileId, Violation};

use super::link::Link;
use tree::Dir;
pub use tree::MadeDir;
use types::File;
pub use types::{
    Action, Admits, Config, Existing, FileMeta, Placement, ReceiveEvent, RootMetaRule, RootRule,
};

/// Results, digests wanted or acknowledgements in one message: with the longest texts 1,033,000
/// bytes.
const AT_ONCE: usize = 1000;
/// Results and acknowledgements that are worth a frame at once. Nobody waits for a single one.
const LAZY_AT_ONCE: usize = 128;
/// Longest time that fewer of them are held back.
const LAZY_DELAY: Duration = Duration::from_millis(3);
/// Ranges in one WANT, 16 bytes each, counting a file as one.
const RANGES_AT_ONCE: usize = 4000;

/// The receiving end of a session. `D` is the caller's handle on a directory, `F` on a file.
pub struct Receiver<D, F> {
    link: Link,
    agreed: Agreed,
    config: Config,
    dirs: HashMap<DirId, Dir<D>>,
    files: HashMap<FileId, File<F>>,
    next_id: u32,
    metadata: usize,
    /// Bytes of the paths in `dirs`.
    paths: usize,
    actions: VecDeque<Action<D, F>>,
    events: VecDeque<ReceiveEvent>,
    wants: Vec<Want>,
    results: Vec<FileResult>,
    written: Vec<Written>,
    digests_wanted: Vec<FileId>,
    root_rule: RootRule,
    root_asked: bool,
    /// Whether an earlier run left blocks that may be kept.
    recover: bool,
    finish: Option<RootMeta>,
    finishing: bool,
    closed: bool,
    /// When results and acknowledgements were last put into messages.
    flushed: Duration,
    summary: Summary,
    announced: Announced,
}

/// What a receiver has been told of so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Files, directories and links.
    pub entries: u64,
    /// Content bytes of the files.
    pub bytes: u64,
    /// Nothing more comes.
    pub all: bool,
}

impl<D: Clone, F: Clone> Receiver<D, F> {
    /// A machine that asks for the root with the first entry.
    pub fn new(agreed: Agreed, config: Config) -> Receiver<D, F> {
        Receiver {
            link: Link::default(),
            agreed,
            config,
            dirs: HashMap::from([(DirId::ROOT, Dir::root())]),
            files: HashMap::new(),
            next_id: 0,
            metadata: 0,
            paths: 0,
            actions: VecDeque::new(),
            events: VecDeque::new(),
            wants: Vec::new(),
            results: Vec::new(),
            written: Vec::new(),
            digests_wanted: Vec::new(),
            root_rule: RootRule::Keep,
            root_asked: false,
            recover: false,
            finish: None,
            finishing: false,
            closed: false,
            flushed: Duration::ZERO,
            summary: Summary::default(),
            announced: Announced::default(),
        }
    }

    /// A connection joined.
    pub fn handle_conn_opened(&mut self, conn: ConnId) {
        self.link.handle_conn_opened(conn);
    }

    /// A connection is gone.
    pub fn handle_conn_lost(&mut self, conn: ConnId) {
        self.link.handle_conn_lost(conn);
    }

    /// The caller, a server, has read the client's REQUEST itself: the next message is number 1.
    pub fn handle_request_taken(&mut self, now: Duration) {
        self.link.handle_request_taken(now);
    }

    /// A numbered message of `len` bytes arrived.
    pub fn handle_message(
        &mut self,
        m: Sequenced,
        len: usize,
        now: Duration,
    ) -> Result<(), Violation> {
        self.link.handle_message(m, len, now)?;
        while let Some(message) = self.link.poll_message() {
            self.handle_in_order(message)?;
        }
        Ok(())
    }

    /// An ACK arrived.
    pub fn handle_ack(&mut self, next: u32, now: Duration) -> Result<(), Violation> {
        self.link.handle_ack(next, now)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.link.handle_timeout(now);
        if self.lazy() > 0 && now >= self.flushed + LAZY_DELAY {
            self.flush(now);
        }
    }

    /// The root has its metadata and everything is as durable as was asked: the session may close.
    pub fn handle_finished(&mut self, now: Duration) {
        self.flush(now);
        self.link.send(&Message::Close(self.summary.clone()), now);
        self.closed = true;
    }

    /// Queues a message of the caller's: the client's REQUEST.
    pub fn send(&mut self, message: &Message, now: Duration) {
        self.link.send(message, now);
    }

    /// The next thing to do on the disk.
    pub fn poll_action(&mut self) -> Option<Action<D, F>> {
        self.actions.pop_front().or_else(|| self.poll_finish())
    }

    /// The next thing the caller should know.
    pub fn poll_event(&mut self) -> Option<ReceiveEvent> {
        self.events.pop_front()
    }

    /// Appends the message frames that should go over `conn` now.
    pub fn poll_transmit(&mut self, conn: ConnId, now: Duration, budget: usize, out: &mut Vec<u8>) {
        self.flush(now);
        self.link.poll_transmit(conn, now, self.agreed.max_frame.into(), budget, out);
    }

    /// When to call again though nothing happened.
    pub fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let soon = (self.flushed + LAZY_DELAY).max(now + Duration::from_millis(1));
        let lazy = (self.lazy() > 0).then_some(soon);
        [self.link.poll_timeout(), lazy].into_iter().flatten().min()
    }

    /// Whether `conn` has anything to transmit now.
    pub fn has_transmit(&self, conn: ConnId, now: Duration) -> bool {
        let lazy = self.lazy();
        let due = lazy >= LAZY_AT_ONCE || (lazy > 0 && now >= self.flushed + LAZY_DELAY);
        let pending = !self.wants.is_empty() || !self.digests_wanted.is_empty() || due;
        (pending && self.is_carrier(conn)) || self.link.has_transmit(conn, now)
    }

    /// Whether any connection has anything to transmit now.
    pub fn has_any_transmit(&self, now: Duration) -> bool {
        self.link.carrier().is_some_and(|carrier| self.has_transmit(carrier, now))
    }

    /// Whether messages travel on `conn` now.
    pub fn is_carrier(&self, conn: ConnId) -> bool {
        self.link.carrier() == Some(conn)
    }

    /// Whether CLOSE has been queued and everything transmitted.
    pub fn is_closed(&self) -> bool {
        self.closed && self.link.is_flushed()
    }

    /// Whether the sender has CLOSE: nobody needs the connections any more.
    pub fn is_acknowledged(&self) -> bool {
        self.closed && self.link.is_acknowledged()
    }

    /// What was done so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What is to come, as far as it is known.
    pub fn announced(&self) -> Announced {
        Announced { all: self.finish.is_some(), ..self.announced }
    }

    /// How many connections live.
    pub fn connections(&self) -> usize {
        self.link.connections()
    }

    /// Unfinished entries and their metadata in bytes.
    #[cfg(test)]
    pub(in crate::transfer) fn load(&self) -> (usize, usize) {
        (self.files.len() + self.dirs.len(), self.metadata)
    }

    fn handle_in_order(&mut self, message: Message) -> Result<(), Violation> {
        let flag = message.flag();
        if self.finish.is_some() && matches!(message, Message::Entries(_) | Message::DirsEnd(_)) {
            return Err(Violation::rule(flag, "announces something after FINISH"));
        }
        match message {
            Message::Entries(list) => list.into_iter().try_for_each(|e| self.handle_entry(e, flag)),
            Message::DirsEnd(list) if list.contains(&DirId::ROOT) => {
                Err(Violation::rule(flag, "ends the root, which FINISH ends"))
            }
            Message::DirsEnd(list) => list.into_iter().try_for_each(|d| self.handle_dir_end(d)),
            Message::Digests(digests) => self.handle_digests(digests),
            Message::Problem(problem) => {
                self.events.push_back(ReceiveEvent::Problem(problem));
                Ok(())
            }
            Message::Replaced(old, entry) => self.handle_replaced(old, entry),
            Message::Gone(id, error) => self.handle_gone(id, error),
            Message::Finish(root) => {
                if root.0.is_some() && self.config.root_meta == RootMetaRule::Refuse {
                    let reason = "describes a directory whose contents were not asked for";
                    return Err(Violation::rule(flag, reason));
                }
                if self.finish.replace(root).is_some() {
                    return Err(Violation::rule(flag, "comes twice"));
                }
                if self.dirs.values().any(Dir::is_growing) {
                    return Err(Violation::rule(flag, "comes before the end of a directory"));
                }
                if root.0.is_some() {
                    // An empty directory's contents: nothing was announced, but it is to be there.
                    self.ask_root(false);
                }
                self.forget_root_if_unused();
                if self.dirs.contains_key(&DirId::ROOT) {
                    self.handle_dir_end(DirId::ROOT)
                } else {
                    Ok(())
                }
            }
            _ => Err(Violation::Unexpected {
                got: flag,
                expected: "ENTRIES, DIRS_END, DIGESTS, PROBLEM, REPLACED, GONE or FINISH",
            }),
        }
    }

    fn poll_finish(&mut self) -> Option<Action<D, F>> {
        let root = self.finish?;
        let idle = self.files.is_empty() && self.dirs.is_empty() && !self.finishing;
        idle.then(|| {
            self.finishing = true;
            let told = root.0.filter(|_| self.config.root_meta == RootMetaRule::Take);
            Action::Finish { meta: told.map(|(mode, mtime)| self.config.dir_meta(mode, mtime)) }
        })
    }

    /// A file or link is finished; perhaps its directory is too.
    fn settle(&mut self, id: FileId, entry: &Entry, outcome: Outcome) {
        self.record(id, entry, outcome);
        self.child_done(entry.parent);
    }

    /// Records what became of an entry and tells both ends.
    fn record(&mut self, id: FileId, entry: &Entry, outcome: Outcome) {
        self.metadata = self.metadata.saturating_sub(entry.cost());
        match &outcome {
            Outcome::Same => self.summary.same += 1,
            Outcome::Failed(_) => self.summary.failed += 1,
            Outcome::Created | Outcome::Replaced | Outcome::Metadata => self.summary.changed += 1,
        }
        if self.config.report {
            let path = self.path_of(entry);
            let (kind, size) = (entry.kind(), entry.size());
            self.events.push_back(ReceiveEvent::Finished {
                path,
                kind,
                size,
                outcome: outcome.clone(),
            });
        }
        self.results.push(FileResult { file: id, outcome });
    }

    fn fail(&mut self, id: FileId, error: WireError) {
        if let Some(file) = self.files.remove(&id) {
            if let Some(handle) = file.handle {
                self.touch(file.entry.parent);
                self.actions.push_back(Action::Discard { handle });
            }
            self.settle(id, &file.entry, Outcome::Failed(error));
        }
    }

    fn lazy(&self) -> usize {
        self.results.len() + self.written.len()
    }

    fn flush(&mut self, now: Duration) {
        self.flushed = now;
        self.flush_wants(now);
        send_all(&mut self.link, &mut self.digests_wanted, Message::DigestsWanted, now);
        send_all(&mut self.link, &mut self.written, Message::Written, now);
        send_all(&mut self.link, &mut self.results, Message::Results, now);
    }

    fn flush_wants(&mut self, now: Duration) {
        let (mut list, mut ranges) = (Vec::new(), 0);
        for want in std::mem::take(&mut self.wants) {
            ranges += 1 + want.ranges.len();
            list.push(want);
            if ranges >= RANGES_AT_ONCE {
                self.link.send(&Message::Want(std::mem::take(&mut list)), now);
                ranges = 0;
            }
        }
        if !list.is_empty() {
            self.link.send(&Message::Want(list), now);
        }
    }
}

fn send_all<T>(
    link: &mut Link,
    list: &mut Vec<T>,
    message: impl Fn(Vec<T>) -> Message,
    now: Duration,
) {
    while !list.is_empty() {
        let more = list.split_off(list.len().min(AT_ONCE));
        link.send(&message(std::mem::replace(list, more)), now);
    }
}
