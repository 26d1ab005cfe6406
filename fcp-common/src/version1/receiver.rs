//! The receiving machine of version 1: what to ask for, what to accept, when it is over.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use fcp_proto::limits::{MAX_OPEN_METADATA, V1_CHUNK};
use fcp_proto::packet::{Outcome, Summary, WireError};
use fcp_proto::state::{Role, State, Verdict, Version, verdict};
use fcp_proto::v1::{V1Dir, V1File, V1Packet};
use fcp_proto::{EntryKind, ErrorCode, FileId, Flag, RelPath, Violation};

use super::types::{Action, Admission, Finished, ReceiveConfig, Silent, chunks_of};
use crate::range_set::RangeSet;

/// READY for one file: once, and three times more.
const MAX_ASKED: u8 = 4;
/// Without new content for this long, what a lost connection carried is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Silence before the first entry.
const FIRST_SILENCE: Duration = Duration::from_secs(60);
/// Silence afterwards: the published sender hashes a file before it announces it.
const SILENCE: Duration = Duration::from_secs(300);
/// Metadata of unfinished entries, in bytes. Version 1 cannot hold a sender back, so this is
/// twice what version 2 keeps: some half a million small files.
const MAX_METADATA: usize = 2 * MAX_OPEN_METADATA;
/// What an unfinished entry costs besides its path.
const ENTRY_COST: usize = 160;
/// How far numbers may run ahead of how many came: connections overtake each other.
const MAX_AHEAD: u64 = 1 << 20;

/// The receiving end of a version 1 session.
pub struct Receiver {
    config: ReceiveConfig,
    state: State,
    single: bool,
    rooted: bool,
    /// Entries that came before the destination was open.
    early: VecDeque<Early>,
    total: Option<u32>,
    announced: u64,
    used: RangeSet,
    /// Numbers of files that were asked for: their chunks may come late.
    asked: RangeSet,
    files: HashMap<FileId, Incoming>,
    /// Files that wait until they may be asked for.
    waiting: VecDeque<FileId>,
    under_way: usize,
    metadata: usize,
    /// Actions that are queued or being done.
    busy: usize,
    /// Chunks that are being written.
    writing: u64,
    finishing: bool,
    done: bool,
    conns: usize,
    /// Connections lost so far.
    losses: u64,
    heard: Duration,
    /// When content came last that was new.
    advanced: Duration,
    exception: Option<String>,
    actions: VecDeque<Action>,
    outbox: VecDeque<V1Packet<'static>>,
    finished: VecDeque<Finished>,
    summary: Summary,
}

enum Early {
    Dir(V1Dir),
    File(V1File),
}

impl Early {
    fn flag(&self) -> Flag {
        match self {
            Early::Dir(_) => Flag::DIR_INFO,
            Early::File(_) => Flag::FILE_INFO,
        }
    }
}

struct Incoming {
    path: RelPath,
    size: u64,
    stage: Stage,
    asked: u8,
    missing: RangeSet,
    writing: u64,
    /// [`Receiver::losses`] when it was asked for last.
    losses: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Checking,
    Waiting,
    Asked,
    Verifying,
}

impl Receiver {
    /// A receiver that has heard nothing.
    pub fn new(config: ReceiveConfig) -> Receiver {
        Receiver {
            config,
            state: State::ExpectMonofile,
            single: false,
            rooted: false,
            early: VecDeque::new(),
            total: None,
            announced: 0,
            used: RangeSet::default(),
            asked: RangeSet::default(),
            files: HashMap::new(),
            waiting: VecDeque::new(),
            under_way: 0,
            metadata: 0,
            busy: 0,
            writing: 0,
            finishing: false,
            done: false,
            conns: 0,
            losses: 0,
            heard: Duration::ZERO,
            advanced: Duration::ZERO,
            exception: None,
            actions: VecDeque::new(),
            outbox: VecDeque::new(),
            finished: VecDeque::new(),
            summary: Summary::default(),
        }
    }

    /// A connection joined.
    pub fn handle_conn_opened(&mut self) {
        self.conns += 1;
    }

    /// A connection is gone, and with it whatever it carried.
    pub fn handle_conn_lost(&mut self) {
        self.conns -= 1;
        self.losses += 1;
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.conns
    }

    /// Takes a packet that is not FILE_CHUNK.
    pub fn handle_packet(&mut self, p: V1Packet<'_>, now: Duration) -> Result<(), Violation> {
        if !self.admits_flag(p.flag())? {
            return Ok(());
        }
        self.heard = now;
        match p {
            V1Packet::Monofile(single) => self.handle_monofile(single)?,
            V1Packet::DirInfo(dir) => self.handle_dir(dir)?,
            V1Packet::FileInfo(file) => self.handle_file(file)?,
            V1Packet::FileCount(count) => self.handle_count(count)?,
            V1Packet::Exception(text) => self.handle_exception(text),
            // The table has refused the others.
            _ => {}
        }
        self.finish_if_complete();
        Ok(())
    }

    /// Takes a chunk; whether it is to be written, which `handle_written` then answers.
    pub fn handle_chunk(
        &mut self,
        id: FileId,
        seq: u32,
        len: usize,
        now: Duration,
    ) -> Result<bool, Violation> {
        let refuse = |reason| Err(Violation::rule(Flag::FILE_CHUNK, reason));
        if !self.admits_flag(Flag::FILE_CHUNK)? {
            return Ok(false);
        }
        let seq = u64::from(seq);
        if !contains(&self.asked, id) {
            return refuse("nobody asked for");
        }
        let Some(file) = self.files.get_mut(&id) else { return Ok(false) };
        let offset = seq * V1_CHUNK as u64;
        if offset >= file.size {
            return refuse("lies behind the end of its file");
        }
        if len as u64 != (file.size - offset).min(V1_CHUNK as u64) {
            return refuse("has the wrong length");
        }
        if file.stage != Stage::Asked || !file.missing.contains(&(seq..seq + 1)) {
            return Ok(false);
        }
        file.missing.remove(seq..seq + 1);
        file.writing += 1;
        self.writing += 1;
        self.summary.received += len as u64;
        (self.heard, self.advanced) = (now, now);
        Ok(true)
    }

    /// `chunks` chunks of a file were written, or could not be.
    pub fn handle_written(
        &mut self,
        id: FileId,
        chunks: u64,
        done: Result<(), WireError>,
        now: Duration,
    ) {
        self.writing -= chunks;
        let Some(file) = self.files.get_mut(&id) else { return };
        file.writing -= chunks;
        match done {
            Err(error) => self.fail(id, error),
            Ok(()) if file.stage == Stage::Asked && file.is_complete() => {
                file.stage = Stage::Verifying;
                self.act(Action::Verify(id));
            }
            Ok(()) => {}
        }
        self.heard = now;
        self.finish_if_complete();
    }

    /// The destination is open.
    pub fn handle_rooted(&mut self, now: Duration) {
        self.acted(now);
        self.rooted = true;
        for entry in std::mem::take(&mut self.early) {
            self.begin(entry);
        }
        self.finish_if_complete();
    }

    /// A directory was made, or not.
    pub fn handle_dir_made(
        &mut self,
        path: RelPath,
        made: Result<Outcome, WireError>,
        now: Duration,
    ) {
        self.acted(now);
        self.metadata -= cost(&path);
        let outcome = made.unwrap_or_else(Outcome::Failed);
        self.report(path, EntryKind::Dir, 0, outcome);
        self.finish_if_complete();
    }

    /// A file was looked at: what became of it, or `None` when its content is needed.
    pub fn handle_begun(
        &mut self,
        id: FileId,
        begun: Result<Option<Outcome>, WireError>,
        now: Duration,
    ) {
        self.acted(now);
        match begun {
            Ok(Some(outcome)) => self.finish(id, outcome),
            Err(error) => self.fail(id, error),
            Ok(None) => {
                if let Some(text) = &self.exception {
                    let error = WireError::new(ErrorCode::INTERNAL, text.clone());
                    self.fail(id, error);
                } else if let Some(file) = self.files.get_mut(&id) {
                    file.stage = Stage::Waiting;
                    self.waiting.push_back(id);
                    self.ask(now);
                }
            }
        }
        self.finish_if_complete();
    }

    /// A complete file was checked: what became of it, or `None` when its MD5 does not match.
    pub fn handle_verified(
        &mut self,
        id: FileId,
        verified: Result<Option<Outcome>, WireError>,
        now: Duration,
    ) {
        self.acted(now);
        match verified {
            Ok(Some(outcome)) => self.finish(id, outcome),
            Err(error) => self.fail(id, error),
            Ok(None) => self.ask_again(id, now, true),
        }
        self.ask(now);
        self.finish_if_complete();
    }

    /// The directories have their metadata.
    pub fn handle_finished(&mut self) {
        if self.summary.failed > 0 {
            // DONE alone would say that everything was received; the published sender goes by it
            // and only notes this.
            let text = format!("{} of the files were not received", self.summary.failed);
            self.outbox.push_back(V1Packet::Exception(text));
        }
        self.outbox.push_back(V1Packet::Done);
    }

    /// Time has passed.
    ///
    /// # Errors
    /// The peer is silent while it is its turn.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), Silent> {
        if self.finishing || self.busy > 0 || self.writing > 0 {
            return Ok(());
        }
        if now.saturating_sub(self.advanced) >= ASK_AGAIN {
            self.ask_for_lost(now);
            self.finish_if_complete();
        }
        let limit = if self.announced == 0 { FIRST_SILENCE } else { SILENCE };
        let silent = now.saturating_sub(self.heard) >= limit;
        if silent { Err(Silent(limit.as_secs())) } else { Ok(()) }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Appends what is to be sent, over any connection.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        for packet in self.outbox.drain(..) {
            packet.encode(out);
            self.done |= packet == V1Packet::Done;
        }
        if self.done {
            self.state = State::ExpectNothing;
        }
    }

    /// Whether there is something to send.
    pub fn has_transmit(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether DONE was handed out for sending.
    pub fn is_over(&self) -> bool {
        self.done
    }

    /// What the sender gave as the reason for ending the session.
    pub fn exception(&self) -> Option<&str> {
        self.exception.as_deref()
    }

    /// The account of the session so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The next entry that is finished.
    pub fn poll_finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    /// Whether a frame counts; `false` when it comes too late to matter.
    fn admits_flag(&self, flag: Flag) -> Result<bool, Violation> {
        match verdict(Version::One, Role::Receiver, self.state, flag) {
            Verdict::Allowed => Ok(true),
            Verdict::Ignored => Ok(false),
            Verdict::Violation => {
                let expected = match self.state {
                    State::ExpectMonofile => "MONOFILE",
                    State::ExpectEntriesAndCount => "an entry, FILE_COUNT or content",
                    _ => "an entry or content",
                };
                Err(Violation::Unexpected { got: flag, expected })
            }
        }
    }

    fn handle_monofile(&mut self, single: bool) -> Result<(), Violation> {
        if single && !self.config.may_be_single {
            let reason = "says that one file comes where more was asked for";
            return Err(Violation::rule(Flag::MONOFILE, reason));
        }
        self.single = single;
        // An entry, or even FILE_COUNT, may have overtaken it.
        self.state = match self.total {
            Some(_) => State::ExpectRest,
            None => State::ExpectEntriesAndCount,
        };
        self.act(Action::OpenRoot { single });
        self.early.iter().try_for_each(|entry| self.check(entry))
    }

    fn handle_dir(&mut self, dir: V1Dir) -> Result<(), Violation> {
        self.admit(dir.id, &dir.path, Flag::DIR_INFO)?;
        self.keep_or_begin(Early::Dir(dir))
    }

    fn handle_file(&mut self, file: V1File) -> Result<(), Violation> {
        self.admit(file.id, &file.path, Flag::FILE_INFO)?;
        self.keep_or_begin(Early::File(file))
    }

    fn handle_count(&mut self, count: u32) -> Result<(), Violation> {
        let highest = self.used.iter().last().map_or(0, |r| r.end);
        if self.total.is_some() {
            return Err(Violation::rule(Flag::FILE_COUNT, "comes twice"));
        }
        if highest > u64::from(count) {
            return Err(Violation::rule(Flag::FILE_COUNT, "is less than what was announced"));
        }
        self.total = Some(count);
        if self.state == State::ExpectEntriesAndCount {
            self.state = State::ExpectRest;
        }
        Ok(())
    }

    fn handle_exception(&mut self, text: String) {
        let error = WireError::new(ErrorCode::INTERNAL, text.clone());
        self.exception = Some(text);
        self.early.clear();
        self.waiting.clear();
        let is_stuck = |file: &Incoming| matches!(file.stage, Stage::Waiting | Stage::Asked);
        let stuck: Vec<_> =
            self.files.iter().filter(|(_, file)| is_stuck(file)).map(|(id, _)| *id).collect();
        stuck.into_iter().for_each(|id| self.fail(id, error.clone()));
    }

    /// Takes note of a number and a path, or refuses them.
    fn admit(&mut self, id: FileId, path: &RelPath, flag: Flag) -> Result<(), Violation> {
        let refuse = |reason| Err(Violation::rule(flag, reason));
        if contains(&self.used, id) {
            return refuse("has a number that is used already");
        }
        let end = self.total.map_or(u64::MAX, u64::from).min(self.announced + MAX_AHEAD);
        if u64::from(id.0) >= end {
            return refuse("has a number beyond how many there are");
        }
        self.used.insert(u64::from(id.0)..u64::from(id.0) + 1);
        self.announced += 1;
        self.metadata += cost(path);
        if self.metadata > MAX_METADATA {
            return refuse("is more than this end can keep in mind");
        }
        Ok(())
    }

    fn keep_or_begin(&mut self, entry: Early) -> Result<(), Violation> {
        self.check(&entry)?;
        if self.exception.is_some() {
            // The session is ending.
        } else if self.rooted {
            self.begin(entry);
        } else {
            self.early.push_back(entry);
        }
        Ok(())
    }

    fn check(&self, entry: &Early) -> Result<(), Violation> {
        if self.admission(entry) == Admission::Refuse {
            return Err(Violation::rule(entry.flag(), "has a path that nobody asked for"));
        }
        self.check_single(entry)
    }

    fn admission(&self, entry: &Early) -> Admission {
        let (path, is_dir) = match entry {
            Early::Dir(dir) => (&dir.path, true),
            Early::File(file) => (&file.path, false),
        };
        let admit = self.config.admit.as_ref();
        admit.map_or(Admission::Take, |admit| admit(path, is_dir, self.single))
    }

    /// One file means one entry, a file, directly below the root.
    fn check_single(&self, entry: &Early) -> Result<(), Violation> {
        let is_name = match entry {
            Early::Dir(_) => false,
            Early::File(file) => file.path.components().count() == 1,
        };
        if self.single && (!is_name || self.announced > 1) {
            return Err(Violation::rule(entry.flag(), "is not the one file that was announced"));
        }
        Ok(())
    }

    fn begin(&mut self, entry: Early) {
        let skips = self.admission(&entry) == Admission::Skip;
        match entry {
            Early::Dir(V1Dir { path, .. }) | Early::File(V1File { path, .. }) if skips => {
                self.metadata -= cost(&path);
            }
            Early::Dir(V1Dir { mode, path, .. }) => {
                self.act(Action::MakeDir { mode: mode & 0o777, path });
            }
            Early::File(file) => {
                let incoming = Incoming {
                    path: file.path.clone(),
                    size: file.size,
                    stage: Stage::Checking,
                    asked: 0,
                    missing: RangeSet::default(),
                    writing: 0,
                    losses: 0,
                };
                self.files.insert(file.id, incoming);
                self.act(Action::Begin(V1File { mode: file.mode & 0o777, ..file }));
            }
        }
    }

    /// Asks for as many files as may be under way.
    fn ask(&mut self, now: Duration) {
        while self.under_way < self.config.window
            && let Some(id) = self.waiting.pop_front()
        {
            let losses = self.losses;
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.stage = Stage::Asked;
            file.asked += 1;
            file.losses = losses;
            file.missing = RangeSet::of(0..chunks_of(file.size));
            self.under_way += 1;
            self.advanced = now;
            self.asked.insert(u64::from(id.0)..u64::from(id.0) + 1);
            self.outbox.push_back(V1Packet::FileReady(id));
        }
    }

    /// Asks once more for one file: from the start after a mismatch, else for what is missing.
    fn ask_again(&mut self, id: FileId, now: Duration, mismatch: bool) {
        let losses = self.losses;
        let Some(file) = self.files.get_mut(&id) else { return };
        if file.asked >= MAX_ASKED {
            let text = match mismatch {
                true => "its content did not match its MD5, four times",
                false => "its content was lost with connections, four times",
            };
            return self.fail(id, WireError::new(ErrorCode::MISMATCH, text));
        }
        if mismatch {
            file.missing = RangeSet::of(0..chunks_of(file.size));
        }
        file.stage = Stage::Asked;
        file.asked += 1;
        file.losses = losses;
        self.advanced = now;
        if let Some(text) = &self.exception {
            let error = WireError::new(ErrorCode::INTERNAL, text.clone());
            return self.fail(id, error);
        }
        self.outbox.push_back(V1Packet::FileReady(id));
    }

    fn ask_for_lost(&mut self, now: Duration) {
        let losses = self.losses;
        let may_lack = |f: &Incoming| f.stage == Stage::Asked && f.losses < losses;
        let lost: Vec<_> =
            self.files.iter().filter(|(_, file)| may_lack(file)).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|id| self.ask_again(id, now, false));
        self.ask(now);
    }

    fn fail(&mut self, id: FileId, error: WireError) {
        if self.files.contains_key(&id) {
            self.actions.push_back(Action::Discard(id));
            self.finish(id, Outcome::Failed(error));
        }
    }

    fn finish(&mut self, id: FileId, outcome: Outcome) {
        let Some(file) = self.files.remove(&id) else { return };
        if matches!(file.stage, Stage::Asked | Stage::Verifying) {
            self.under_way -= 1;
        }
        self.metadata -= cost(&file.path);
        self.report(file.path, EntryKind::File, file.size, outcome);
        self.ask(self.advanced);
    }

    fn report(&mut self, path: RelPath, kind: EntryKind, size: u64, outcome: Outcome) {
        match &outcome {
            Outcome::Same => self.summary.same += 1,
            Outcome::Failed(_) => self.summary.failed += 1,
            _ => self.summary.changed += 1,
        }
        self.finished.push_back(Finished { path, kind, size, outcome });
    }

    fn act(&mut self, action: Action) {
        self.busy += 1;
        self.actions.push_back(action);
    }

    /// An action is done: the peer was not to blame for the time that it took.
    fn acted(&mut self, now: Duration) {
        self.busy -= 1;
        self.heard = now;
    }

    fn finish_if_complete(&mut self) {
        let all_came = self.total.is_some_and(|total| self.announced == u64::from(total));
        let ends = self.exception.is_some() || (all_came && self.rooted);
        if ends && self.busy == 0 && self.files.is_empty() && !self.finishing {
            self.finishing = true;
            self.actions.push_back(Action::Finish);
        }
    }
}

impl Incoming {
    fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.writing == 0
    }
}

fn contains(set: &RangeSet, id: FileId) -> bool {
    set.contains(&(u64::from(id.0)..u64::from(id.0) + 1))
}

fn cost(path: &RelPath) -> usize {
    path.as_bytes().len() + ENTRY_COST
}
