//! The sending machine: entries in, wants in; announcements and blocks out.
//!
//! ```text
//!  walker --handle_entry--> announced --WANT--> wanted --poll_work--> in flight --WRITTEN--> ...
//!                               |                  ^                      |
//!                               |                  +---connection lost----+
//!                               +--RESULTS--> finished (forgotten, its budget returned)
//! ```
//!
//! Calling order: feed what happened (`handle_*`), then for a connection that can write
//! [`Sender::poll_transmit`] for messages and [`Sender::poll_work`] for content, then
//! [`Sender::poll_event`] until it is empty.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use fcp_proto::limits::{BLOCK, MAX_OPEN_METADATA, MAX_WHOLE};
use fcp_proto::packet::{
    Block, Entry, FileDigests, Message, Outcome, Problem, RootMeta, Sequenced, Summary, Want,
    WireError, Written,
};
use fcp_proto::version::Agreed;
use fcp_proto::{ConnId, DirId, ErrorCode, FileId, Flag, SourceVersion, Violation};

use super::link::Link;
use super::schedule::Schedule;

/// Entries of one ENTRIES message: with the longest names and link targets 200 take 875,200 bytes.
const ENTRIES_AT_ONCE: usize = 200;
/// A source that keeps changing is given up after this many fresh starts (case F05).
const MAX_RESTARTS: u8 = 3;
/// Content that a spare connection takes as long as this much is not in flight on it: what small
/// transfers need. ssh has a window of 2 MiB, so that it could carry no more anyway.
const HEAD_START: u64 = 2 * BLOCK;
/// Content that others have carried, together, when they can do without a spare connection: on a
/// long path slow start is over then.
const YOUNG: u64 = 16 * BLOCK;
/// Hashes in one DIGESTS message: 2,000 blocks in 64,000 bytes.
const HASHES_AT_ONCE: usize = 2000;

/// The sending end of a session. `S` is the caller's handle on a source file, given back with work.
#[derive(Debug)]
pub struct Sender<S> {
    link: Link,
    agreed: Agreed,
    whole_max: u64,
    next_id: u32,
    files: HashMap<FileId, Announced<S>>,
    /// Ids that REPLACED or GONE voided; wants for them are late, not wrong.
    void: HashSet<FileId>,
    metadata: usize,
    announce: Vec<Entry>,
    dirs_end: Vec<DirId>,
    root: RootMeta,
    walked: bool,
    finish_sent: bool,
    schedule: Schedule,
    /// Living connections that leave content to others, and from when on they may have to carry all
    /// of it.
    spares: HashMap<ConnId, (Duration, Help)>,
    events: VecDeque<Event<S>>,
    closed: Option<Summary>,
}

#[derive(Debug)]
struct Announced<S> {
    entry: Entry,
    source: S,
    restarts: u8,
}

/// Content to read and send.
#[derive(Clone, Debug)]
pub struct Work<S> {
    /// Where it lies.
    pub block: Block,
    /// Whether the file goes in one WHOLE frame.
    pub whole: bool,
    /// The file's length, and the version that was announced: content of any other must not go.
    pub version: SourceVersion,
    /// The caller's handle.
    pub source: S,
}

/// When a spare connection carries a little content, before it may have to carry all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Help {
    /// Not at all.
    Never,
    /// While there are no others.
    Alone,
    /// Also while the others are new, as slow start takes long on this path.
    BesideYoung,
}

/// What the caller of a [`Sender`] learns.
#[derive(Clone, Debug)]
pub enum Event<S> {
    /// An entry is finished at the receiver, or was given up here.
    Finished {
        /// The caller's handle.
        source: S,
        /// What was announced.
        entry: Entry,
        /// What became of it.
        outcome: Outcome,
    },
    /// The receiver wants to compare content: hash the source, then [`Sender::handle_hashed`].
    Hash {
        /// The file.
        file: FileId,
        /// What was announced.
        version: SourceVersion,
        /// The caller's handle.
        source: S,
    },
}

impl<S: Clone> Sender<S> {
    /// A machine for what was agreed on.
    pub fn new(agreed: Agreed) -> Sender<S> {
        let frame = usize::from(agreed.max_frame);
        let whole_max = MAX_WHOLE.min(frame - fcp_proto::packet::Whole::HEAD) as u64;
        Sender {
            link: Link::default(),
            agreed,
            whole_max,
            next_id: 0,
            files: HashMap::new(),
            void: HashSet::new(),
            metadata: 0,
            announce: Vec::new(),
            dirs_end: Vec::new(),
            root: RootMeta::default(),
            walked: false,
            finish_sent: false,
            schedule: Schedule::default(),
            spares: HashMap::new(),
            events: VecDeque::new(),
            closed: None,
        }
    }

    /// A connection joined.
    pub fn handle_conn_opened(&mut self, conn: ConnId) {
        self.link.handle_conn_opened(conn);
    }

    /// `conn`, just opened, is a spare one: it carries content only while all that live are. Before
    /// `from` others are on their way, and then they are slow at first: so long it may `help`.
    pub fn handle_spare(&mut self, conn: ConnId, from: Duration, help: Help) {
        self.spares.insert(conn, (from, help));
    }

    /// A connection is gone: its blocks go to the others.
    pub fn handle_conn_lost(&mut self, conn: ConnId) {
        self.spares.remove(&conn);
        self.link.handle_conn_lost(conn);
        self.schedule.handle_conn_lost(conn);
    }

    /// Announces what `build` makes of a fresh id; returns the id.
    pub fn handle_entry(&mut self, source: S, build: impl FnOnce(FileId) -> Entry) -> FileId {
        let id = self.fresh_id();
        let entry = build(id);
        self.metadata += entry.cost();
        self.announce.push(entry.clone());
        self.files.insert(id, Announced { entry, source, restarts: 0 });
        id
    }

    /// Every child of `dir` has been announced.
    pub fn handle_dir_end(&mut self, dir: DirId) {
        self.dirs_end.push(dir);
    }

    /// Something at the source cannot be announced.
    pub fn handle_problem(&mut self, problem: Problem, now: Duration) {
        self.flush_entries(now);
        self.link.send(&Message::Problem(problem), now);
    }

    /// Everything has been announced; `root` is what the transfer root itself gets.
    pub fn handle_walked(&mut self, root: RootMeta) {
        self.root = root;
        self.walked = true;
    }

    /// An announced file cannot be read.
    pub fn handle_source_failed(&mut self, file: FileId, error: WireError, now: Duration) {
        if let Some(Announced { entry, source, .. }) = self.void_entry(file) {
            self.flush_entries(now);
            self.link.send(&Message::Gone(file, error.clone()), now);
            // The receiver gives no result for it.
            self.events.push_back(Event::Finished {
                source,
                entry,
                outcome: Outcome::Failed(error),
            });
        }
    }

    /// An announced file is another than it was: it starts afresh with `metadata` under a new id,
    /// or is given up after three fresh starts. `metadata` rebuilds the entry.
    pub fn handle_source_changed(
        &mut self,
        file: FileId,
        metadata: impl FnOnce(&mut Entry),
        now: Duration,
    ) {
        let Some(restarts) = self.files.get(&file).map(|f| f.restarts) else { return };
        if restarts >= MAX_RESTARTS {
            let error = WireError::new(ErrorCode::CHANGED, "it changed each time it was read");
            return self.handle_source_failed(file, error, now);
        }
        let Some(mut old) = self.void_entry(file) else { return };
        let id = self.fresh_id();
        old.entry.id = id;
        old.restarts += 1;
        metadata(&mut old.entry);
        self.metadata += old.entry.cost();
        self.flush_entries(now);
        self.link.send(&Message::Replaced(file, old.entry.clone()), now);
        self.files.insert(id, old);
    }

    /// The hashes that [`Event::Hash`] asked for.
    pub fn handle_hashed(&mut self, file: FileId, hashes: &[[u8; 32]], now: Duration) {
        if !self.files.contains_key(&file) {
            return;
        }
        let mut first = 0u32;
        for hashes in hashes.chunks(HASHES_AT_ONCE) {
            let digests = FileDigests { file, first, hashes: hashes.to_vec() };
            self.link.send(&Message::Digests(digests), now);
            first += hashes.len() as u32;
        }
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
            self.handle_in_order(message, now)?;
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
    }

    /// Queues a message of the caller's: the client's REQUEST.
    pub fn send(&mut self, message: &Message, now: Duration) {
        self.link.send(message, now);
    }

    /// Appends the message frames that should go over `conn` now.
    pub fn poll_transmit(&mut self, conn: ConnId, now: Duration, budget: usize, out: &mut Vec<u8>) {
        self.flush(now);
        self.link.poll_transmit(conn, now, self.agreed.max_frame.into(), budget, out);
    }

    /// Content that should go over `conn` now.
    pub fn poll_work(&mut self, conn: ConnId, now: Duration) -> Option<Work<S>> {
        if !self.carries_content(conn, now) {
            return None;
        }
        loop {
            let block = self.schedule.next(conn, now)?;
            // Voided files leave the schedule with their entry, so this always finds one.
            let Some(file) = self.files.get(&block.file) else { continue };
            let version = file.entry.version();
            let whole = version.size <= self.whole_max;
            return Some(Work { block, whole, version, source: file.source.clone() });
        }
    }

    /// The next thing the caller should know or do.
    pub fn poll_event(&mut self) -> Option<Event<S>> {
        self.events.pop_front()
    }

    /// When to call again though nothing happened.
    pub fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let repeat = self.schedule.poll_timeout(now).filter(|_| self.link.connections() > 1);
        [self.link.poll_timeout(), repeat, self.spare_due(now)].into_iter().flatten().min()
    }

    /// Whether `conn` has anything to transmit now.
    pub fn has_transmit(&self, conn: ConnId, now: Duration) -> bool {
        let messages = !self.announce.is_empty()
            || !self.dirs_end.is_empty()
            || (self.walked && !self.finish_sent);
        let content = || self.schedule.has_fresh() || self.schedule.has_overdue(conn, now);
        (messages && self.is_carrier(conn))
            || self.link.has_transmit(conn, now)
            || (self.carries_content(conn, now) && content())
    }

    /// Whether any connection has anything to transmit now.
    pub fn has_any_transmit(&self, now: Duration) -> bool {
        // A spare carrier does not speak for the others, which may have content.
        let content = self.schedule.has_fresh() && self.is_anyone_free(now);
        content || self.link.carrier().is_some_and(|carrier| self.has_transmit(carrier, now))
    }

    /// Whether messages travel on `conn` now.
    pub fn is_carrier(&self, conn: ConnId) -> bool {
        self.link.carrier() == Some(conn)
    }

    /// Whether the walker must wait: too much is announced and unfinished.
    pub fn is_full(&self) -> bool {
        self.files.len() >= self.agreed.open_entries as usize
            || self.metadata >= MAX_OPEN_METADATA
            || self.link.is_full()
    }

    /// The receiver's summary, once it has closed the session.
    pub fn closed(&self) -> Option<&Summary> {
        self.closed.as_ref()
    }

    /// How many connections live.
    pub fn connections(&self) -> usize {
        self.link.connections()
    }

    /// Unfinished entries and their metadata in bytes.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize) {
        (self.files.len(), self.metadata)
    }

    fn carries_content(&self, conn: ConnId, now: Duration) -> bool {
        let Some((from, help)) = self.spares.get(&conn) else {
            return self.schedule.has_room(conn, now);
        };
        let is_alone = self.has_only_spares();
        let helps = match help {
            Help::Never => false,
            Help::Alone => is_alone,
            Help::BesideYoung => is_alone || self.others_are_young(),
        };
        (is_alone && now >= *from) || (helps && self.schedule.in_flight(conn) < HEAD_START)
    }

    /// Whether the connections that are not spare have not come up to speed.
    fn others_are_young(&self) -> bool {
        let others = self.link.each().filter(|conn| !self.spares.contains_key(conn));
        others.map(|conn| self.schedule.done(conn)).sum::<u64>() < YOUNG
    }

    fn has_only_spares(&self) -> bool {
        self.spares.len() == self.link.connections()
    }

    /// When the first spare connection will carry the content that no connection may carry now.
    fn spare_due(&self, now: Duration) -> Option<Duration> {
        let first = self.spares.values().map(|(from, _)| *from).min();
        let first = first.filter(|_| self.has_only_spares())?;
        let waits = self.schedule.has_fresh() && !self.is_anyone_free(now);
        (first > now && waits).then_some(first)
    }

    fn is_anyone_free(&self, now: Duration) -> bool {
        self.link.each().any(|conn| self.carries_content(conn, now))
    }

    fn fresh_id(&mut self) -> FileId {
        let id = FileId(self.next_id);
        self.next_id += 1;
        id
    }

    fn void_entry(&mut self, file: FileId) -> Option<Announced<S>> {
        let gone = self.files.remove(&file)?;
        self.metadata -= gone.entry.cost();
        self.schedule.forget(file);
        self.void.insert(file);
        Some(gone)
    }

    fn flush(&mut self, now: Duration) {
        self.flush_entries(now);
        if self.walked && !self.finish_sent {
            self.finish_sent = true;
            self.link.send(&Message::Finish(self.root), now);
        }
    }

    fn flush_entries(&mut self, now: Duration) {
        let mut rest = std::mem::take(&mut self.announce);
        while !rest.is_empty() {
            let more = rest.split_off(rest.len().min(ENTRIES_AT_ONCE));
            self.link.send(&Message::Entries(std::mem::replace(&mut rest, more)), now);
        }
        if !self.dirs_end.is_empty() {
            let ends = std::mem::take(&mut self.dirs_end);
            self.link.send(&Message::DirsEnd(ends), now);
        }
    }

    fn handle_in_order(&mut self, message: Message, now: Duration) -> Result<(), Violation> {
        if self.closed.is_some() {
            return Err(Violation::Unexpected {
                got: message.flag(),
                expected: "nothing after CLOSE",
            });
        }
        match message {
            Message::Want(wants) => wants.into_iter().try_for_each(|w| self.handle_want(w)),
            Message::Written(list) => {
                list.into_iter().try_for_each(|w| self.handle_written(w, now))
            }
            Message::Results(list) => list.into_iter().try_for_each(|r| self.handle_result(r, now)),
            Message::DigestsWanted(ids) => ids.into_iter().try_for_each(|id| self.ask_hash(id)),
            Message::Close(summary) if self.finish_sent && self.closed.is_none() => {
                self.closed = Some(summary);
                self.handle_close()
            }
            other => Err(Violation::Unexpected {
                got: other.flag(),
                expected: "WANT, WRITTEN, RESULTS, DIGESTS_WANTED or, after FINISH, CLOSE",
            }),
        }
    }

    /// Only a file that replaced a finished one can be open now: the messages crossed.
    fn handle_close(&mut self) -> Result<(), Violation> {
        let mut left: Vec<_> = std::mem::take(&mut self.files).into_values().collect();
        left.sort_by_key(|file| file.entry.id);
        for Announced { entry, source, restarts } in left {
            if restarts == 0 {
                return Err(Violation::rule(Flag::CLOSE, "leaves entries unfinished"));
            }
            self.metadata -= entry.cost();
            let error = WireError::new(ErrorCode::CHANGED, "it changed while it was finished");
            let outcome = Outcome::Failed(error);
            self.events.push_back(Event::Finished { source, entry, outcome });
        }
        Ok(())
    }

    fn handle_want(&mut self, want: Want) -> Result<(), Violation> {
        let Some(size) = self.known_file(want.file, Flag::WANT)? else { return Ok(()) };
        if size == 0 || want.ranges.iter().any(|r| r.end > size) {
            return Err(Violation::rule(Flag::WANT, "asks for content behind the end of a file"));
        }
        if want.ranges.is_empty() {
            self.schedule.want(want.file, 0..size);
        }
        for range in want.ranges {
            // A range may end inside a block only where the file does.
            if !range.end.is_multiple_of(BLOCK) && range.end != size {
                return Err(Violation::rule(Flag::WANT, "asks for a part of a block"));
            }
            self.schedule.want(want.file, range);
        }
        Ok(())
    }

    fn handle_written(&mut self, written: Written, now: Duration) -> Result<(), Violation> {
        if !written.offset.is_multiple_of(BLOCK) {
            return Err(Violation::rule(Flag::WRITTEN, "names no block"));
        }
        self.schedule.handle_written(written.file, written.offset, now);
        Ok(())
    }

    fn handle_result(
        &mut self,
        result: fcp_proto::packet::FileResult,
        now: Duration,
    ) -> Result<(), Violation> {
        let file = result.file;
        let Some(done) = self.files.remove(&file) else {
            return self.late_or_wrong(file, Flag::RESULTS);
        };
        self.metadata -= done.entry.cost();
        self.schedule.handle_finished(file, now);
        let Announced { entry, source, .. } = done;
        self.events.push_back(Event::Finished { source, entry, outcome: result.outcome });
        Ok(())
    }

    fn ask_hash(&mut self, file: FileId) -> Result<(), Violation> {
        if self.known_file(file, Flag::DIGESTS_WANTED)?.is_none() {
            return Ok(());
        }
        if let Some(f) = self.files.get(&file) {
            let (version, source) = (f.entry.version(), f.source.clone());
            self.events.push_back(Event::Hash { file, version, source });
        }
        Ok(())
    }

    /// The size of an announced regular file; `None` when it was voided meanwhile.
    fn known_file(&self, file: FileId, flag: Flag) -> Result<Option<u64>, Violation> {
        match self.files.get(&file) {
            Some(f) if f.entry.kind() == fcp_proto::EntryKind::File => Ok(Some(f.entry.size())),
            Some(_) => Err(Violation::rule(flag, "asks for the content of a directory or link")),
            None => self.late_or_wrong(file, flag).map(|()| None),
        }
    }

    fn late_or_wrong(&self, file: FileId, flag: Flag) -> Result<(), Violation> {
        if self.void.contains(&file) {
            return Ok(());
        }
        Err(Violation::rule(flag, "names a file that was never announced or is finished"))
    }
}
