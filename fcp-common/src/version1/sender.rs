//! The sending machine of version 1: what to announce, what to send, when it is over.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use fcp_proto::limits::V1_CHUNK;
use fcp_proto::packet::Summary;
use fcp_proto::state::{Role, State, Verdict, Version, verdict};
use fcp_proto::v1::{V1Dir, V1File, V1Packet};
use fcp_proto::{ConnId, FileId, Flag, SourceVersion, Violation};

use super::types::{Run, SendEvent, Silent, Work, chunks_of};
use crate::range_set::RangeSet;

/// Chunks in one run: 256 KiB, so that a write carries many frames.
const RUN: u64 = 64;
/// READY for one file: once, and three times more.
const MAX_ASKED: u8 = 4;
/// Announcements that wait to be written, in bytes; the walker stops above.
const MAX_UNSENT: usize = 256 << 10;
/// Chunks that one connection may hold in its buffers at both ends: 16 MiB.
const MAX_RECENT: u64 = 4096;
/// How long the peer may be silent while it is its turn; it may be hashing.
const SILENCE: Duration = Duration::from_secs(300);
/// Nothing was asked for so long that what is left can only be the files that we cannot send.
const BROKEN_QUIET: Duration = Duration::from_secs(5);
/// How long DONE may take after EXCEPTION.
const DONE_AFTER_EXCEPTION: Duration = Duration::from_secs(10);

/// The sending end of a version 1 session; `S` says where a file's content is.
pub struct Sender<S> {
    state: State,
    entries: Vec<Slot<S>>,
    conns: BTreeSet<ConnId>,
    /// Announcements as frames. They keep their order by going over one connection, since the
    /// published receiver ends a session that does not begin with MONOFILE.
    unsent: Vec<u8>,
    queue: VecDeque<FileId>,
    /// What went over a connection last, for the case that it is lost.
    recent: HashMap<ConnId, Recent>,
    window: usize,
    /// Files asked for and not sent to their end.
    open_files: usize,
    /// Runs being written.
    in_flight: usize,
    /// When something happened last.
    active: Duration,
    broken: u64,
    first_broken: String,
    summary: Summary,
    events: VecDeque<SendEvent<S>>,
}

enum Slot<S> {
    Dir,
    File(Outgoing<S>),
}

struct Outgoing<S> {
    source: S,
    size: u64,
    version: SourceVersion,
    asked: u8,
    pending: RangeSet,
    in_flight: u32,
    queued: bool,
    sent: bool,
    failed: bool,
}

#[derive(Default)]
struct Recent {
    runs: VecDeque<Run>,
    chunks: u64,
}

impl<S: Clone> Sender<S> {
    /// A sender that has said MONOFILE and nothing else. `window` is how many files the peer may
    /// have asked for and not got.
    pub fn new(single: bool, window: usize) -> Sender<S> {
        let mut unsent = Vec::new();
        V1Packet::Monofile(single).encode(&mut unsent);
        Sender {
            state: State::ExpectReady,
            entries: Vec::new(),
            conns: BTreeSet::new(),
            unsent,
            queue: VecDeque::new(),
            recent: HashMap::new(),
            window,
            open_files: 0,
            in_flight: 0,
            active: Duration::ZERO,
            broken: 0,
            first_broken: String::new(),
            summary: Summary::default(),
            events: VecDeque::new(),
        }
    }

    /// Announces a directory; `draft` gets its number.
    pub fn handle_dir(&mut self, draft: impl FnOnce(FileId) -> V1Dir, now: Duration) {
        let dir = draft(self.next_id());
        self.announce(&V1Packet::DirInfo(dir), Slot::Dir, now);
    }

    /// Announces a file; `draft` gets its number.
    pub fn handle_file(
        &mut self,
        source: S,
        version: SourceVersion,
        draft: impl FnOnce(FileId) -> V1File,
        now: Duration,
    ) {
        let info = draft(self.next_id());
        let slot = Slot::File(Outgoing {
            source,
            size: info.size,
            version,
            asked: 0,
            pending: RangeSet::default(),
            in_flight: 0,
            queued: false,
            sent: false,
            failed: false,
        });
        self.announce(&V1Packet::FileInfo(info), slot, now);
    }

    /// Something could not be announced.
    pub fn handle_problem(&mut self) {
        self.summary.failed += 1;
    }

    /// Everything is announced.
    pub fn handle_walked(&mut self, now: Duration) {
        self.active = now;
        if self.state != State::ExpectReady {
            return;
        }
        if self.entries.is_empty() {
            self.give_up("No such file or directory");
        } else {
            // At most as many as there are ids: the walker stops at [`Sender::is_full`].
            let count = self.entries.len() as u32;
            V1Packet::FileCount(count).encode(&mut self.unsent);
            self.state = State::ExpectReadyOrDone;
        }
    }

    /// Whether the walker must wait: too much is announced and not yet written.
    pub fn is_full(&self) -> bool {
        self.unsent.len() > MAX_UNSENT
    }

    /// Whether no more entries fit into a session.
    pub fn is_exhausted(&self) -> bool {
        self.entries.len() >= u32::MAX as usize
    }

    /// A connection joined.
    pub fn handle_conn_opened(&mut self, conn: ConnId) {
        self.conns.insert(conn);
    }

    /// A connection is gone, and what it carried last may be too: that is sent again.
    pub fn handle_conn_lost(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
        let recent = self.recent.remove(&conn).unwrap_or_default();
        recent.runs.into_iter().for_each(|run| self.requeue(run));
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Takes a packet of the peer.
    pub fn handle_packet(&mut self, p: &V1Packet<'_>, now: Duration) -> Result<(), Violation> {
        let flag = p.flag();
        match verdict(Version::One, Role::Sender, self.state, flag) {
            Verdict::Allowed => {}
            Verdict::Ignored => return Ok(()),
            Verdict::Violation => {
                let expected = "FILE_READY, or DONE after FILE_COUNT";
                return Err(Violation::Unexpected { got: flag, expected });
            }
        }
        self.active = now;
        match p {
            V1Packet::FileReady(file) => self.handle_ready(*file),
            V1Packet::Done => self.handle_done(),
            // EXCEPTION is for the caller, who knows how to tell it.
            _ => Ok(()),
        }
    }

    /// Announcements to be written over `conn`.
    pub fn poll_transmit(&mut self, conn: ConnId, out: &mut Vec<u8>) {
        if self.conns.first() == Some(&conn) {
            out.append(&mut self.unsent);
        }
    }

    /// Whether `conn` has something to write.
    pub fn has_transmit(&self, conn: ConnId) -> bool {
        !self.queue.is_empty() || (!self.unsent.is_empty() && self.conns.first() == Some(&conn))
    }

    /// The next content to send, over any connection.
    pub fn poll_work(&mut self) -> Option<Work<S>> {
        loop {
            let id = *self.queue.front()?;
            // Only files are ever queued.
            let file = self.file_mut(id)?;
            let work = file.pending.pop_block(RUN).map(|chunks| file.work(id, chunks));
            if file.pending.is_empty() {
                file.queued = false;
                self.queue.pop_front();
            }
            if work.is_some() {
                self.in_flight += 1;
                return work;
            }
        }
    }

    /// A run was written to `conn`.
    pub fn handle_sent(&mut self, conn: ConnId, run: Run, now: Duration) {
        self.active = now;
        self.in_flight -= 1;
        if self.conns.contains(&conn) {
            self.recent.entry(conn).or_default().push(run.clone());
        } else {
            // It died before we could say that this went over it.
            self.requeue(run.clone());
        }
        self.landed(run.file);
    }

    /// A run could not be written, or only in part: it goes over another connection.
    pub fn handle_unsent(&mut self, run: Run) {
        self.in_flight -= 1;
        let id = run.file;
        if let Some(file) = self.file_mut(id) {
            file.in_flight -= 1;
        }
        self.requeue(run);
    }

    /// The content of a file cannot be sent: it changed, vanished or cannot be read.
    ///
    /// Version 1 cannot say so of one file; once nothing else is asked for, the session ends with
    /// EXCEPTION. Answers whether that was news.
    pub fn handle_source_failed(&mut self, run: &Run, why: &str, now: Duration) -> bool {
        self.active = now;
        self.in_flight -= 1;
        let Some(file) = self.file_mut(run.file) else { return false };
        file.in_flight -= 1;
        file.pending = RangeSet::default();
        let (news, was_open) = (!file.failed, !file.failed && !file.sent);
        file.failed = true;
        self.open_files -= usize::from(was_open);
        if news {
            self.broken += 1;
            self.summary.failed += 1;
            if self.first_broken.is_empty() {
                why.clone_into(&mut self.first_broken);
            }
        }
        news
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The peer is silent while it is its turn.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), Silent> {
        let quiet = now.saturating_sub(self.active);
        let waits = self.queue.is_empty() && self.in_flight == 0 && self.unsent.is_empty();
        match self.state {
            State::ExpectReadyOrDone if waits && self.broken > 0 && quiet >= BROKEN_QUIET => {
                self.active = now;
                let text = format!("cannot send {} files: {}", self.broken, self.first_broken);
                self.give_up(&text);
            }
            State::ExpectReadyOrDone if waits && quiet >= SILENCE => {
                return Err(Silent(SILENCE.as_secs()));
            }
            State::ExpectDone if quiet >= DONE_AFTER_EXCEPTION => self.state = State::ExpectNothing,
            _ => {}
        }
        Ok(())
    }

    /// What happened since the last time.
    pub fn poll_event(&mut self) -> Option<SendEvent<S>> {
        self.events.pop_front()
    }

    /// Whether the session is over for this end.
    pub fn is_over(&self) -> bool {
        // After EXCEPTION a peer may simply hang up; without a first connection it has not heard it.
        let has_heard = self.unsent.is_empty();
        self.state == State::ExpectNothing
            || (self.state == State::ExpectDone && has_heard && self.conns.is_empty())
    }

    /// The account of a session that is over. What was not asked for counts as the same.
    ///
    /// # Errors
    /// The text that the peer was told because files could not be sent.
    pub fn summary(&self) -> Result<Summary, String> {
        if self.broken > 0 {
            return Err(format!("cannot send {} files: {}", self.broken, self.first_broken));
        }
        let same = self.entries.len() as u64 - self.summary.changed;
        Ok(Summary { same, ..self.summary.clone() })
    }

    /// Files that the peer never asked for, with their lengths: it had them, or they are empty.
    pub fn unasked(&self) -> impl Iterator<Item = (&S, u64)> {
        self.entries.iter().filter_map(|slot| match slot {
            Slot::File(file) if file.asked == 0 => Some((&file.source, file.size)),
            _ => None,
        })
    }

    fn next_id(&self) -> FileId {
        FileId(self.entries.len() as u32)
    }

    fn announce(&mut self, packet: &V1Packet<'_>, slot: Slot<S>, now: Duration) {
        self.active = now;
        packet.encode(&mut self.unsent);
        self.entries.push(slot);
    }

    fn give_up(&mut self, text: &str) {
        V1Packet::Exception(text.to_owned()).encode(&mut self.unsent);
        self.state = State::ExpectDone;
    }

    fn handle_ready(&mut self, id: FileId) -> Result<(), Violation> {
        let refuse = |reason| Err(Violation::rule(Flag::FILE_READY, reason));
        let Some(file) = self.file_mut(id) else { return refuse("names no file") };
        if file.size == 0 {
            return refuse("asks for a file without content");
        }
        if file.asked >= MAX_ASKED {
            return refuse("asks for a file too often");
        }
        file.asked += 1;
        if file.failed {
            return Ok(());
        }
        let (first, chunks) = (file.asked == 1, chunks_of(file.size));
        file.pending = RangeSet::of(0..chunks);
        self.enqueue(id);
        self.open_files += usize::from(first);
        if self.open_files > self.window {
            return refuse("asks for too many files at once");
        }
        Ok(())
    }

    fn handle_done(&mut self) -> Result<(), Violation> {
        let told = self.state == State::ExpectDone;
        self.state = State::ExpectNothing;
        // What a writer has just written may have arrived before the writer could say so.
        if self.queue.is_empty() {
            (0..self.entries.len() as u32).for_each(|id| self.finish_file(FileId(id), false));
        }
        if self.open_files > 0 && !told {
            let reason = "comes before the content that was asked for is sent";
            return Err(Violation::rule(Flag::DONE, reason));
        }
        Ok(())
    }

    fn landed(&mut self, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        file.in_flight -= 1;
        let under_way = file.in_flight > 0;
        self.finish_file(id, under_way);
    }

    /// Counts a file that was asked for as sent, unless content of it is `under_way` or wanted.
    fn finish_file(&mut self, id: FileId, under_way: bool) {
        let Some(file) = self.file_mut(id) else { return };
        if file.asked == 0 || file.sent || file.failed || under_way || !file.pending.is_empty() {
            return;
        }
        file.sent = true;
        let event = SendEvent::Sent { file: id, source: file.source.clone(), size: file.size };
        self.open_files -= 1;
        self.summary.changed += 1;
        self.summary.received += event.size();
        self.events.push_back(event);
    }

    fn requeue(&mut self, run: Run) {
        let Some(file) = self.file_mut(run.file) else { return };
        if !file.failed {
            file.pending.insert(run.chunks);
            self.enqueue(run.file);
        }
    }

    fn enqueue(&mut self, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        if !file.queued {
            file.queued = true;
            self.queue.push_back(id);
        }
    }

    fn file_mut(&mut self, id: FileId) -> Option<&mut Outgoing<S>> {
        match self.entries.get_mut(id.0 as usize) {
            Some(Slot::File(file)) => Some(file),
            _ => None,
        }
    }
}

impl<S: Clone> Outgoing<S> {
    fn work(&mut self, file: FileId, chunks: Range<u64>) -> Work<S> {
        self.in_flight += 1;
        let offset = chunks.start * V1_CHUNK as u64;
        let end = (chunks.end * V1_CHUNK as u64).min(self.size);
        Work {
            run: Run { file, chunks },
            offset,
            len: (end - offset) as usize,
            version: self.version,
            source: self.source.clone(),
        }
    }
}

impl<S> SendEvent<S> {
    fn size(&self) -> u64 {
        let SendEvent::Sent { size, .. } = self;
        *size
    }
}

impl Recent {
    fn push(&mut self, run: Run) {
        self.chunks += run.chunks.end - run.chunks.start;
        self.runs.push_back(run);
        while self.chunks > MAX_RECENT
            && let Some(old) = self.runs.pop_front()
        {
            self.chunks -= old.chunks.end - old.chunks.start;
        }
    }
}
