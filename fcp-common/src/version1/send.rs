//! The sending end of version 1: a walker that hashes, and a writer per connection.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fcp_proto::limits::V1_CHUNK;
use fcp_proto::packet::{Entry, Outcome, Problem, Summary, WireError};
use fcp_proto::v1::{V1Chunk, V1Dir, V1File, V1Packet};
use fcp_proto::{
    ConnId, DirId, EntryKind, ErrorCode, FileId, RelPath, SourceVersion, Violation, escape,
};

use super::filter::V1Filter;
use super::sender::Sender;
use super::session::{Machine, Session, Side, locked};
use super::source::{Unreadable, hash, read_version};
use super::types::{SendEvent, Silent, Work};
use crate::engine::{Counters, Duplex, Ended, EntryReport, Inlet, Report, SessionError};
use crate::fs::{File, Stat};
use crate::walk::{Sink, Source, SourceRoot, WalkOptions, io_error, walk};

/// Content bytes in one write.
const BYTES_AT_ONCE: usize = 256 << 10;
/// Runs in one write: many small files.
const RUNS_AT_ONCE: usize = 128;
/// File type bits as the published sender has them in its modes.
const REGULAR: u16 = 0o100_000;
const DIRECTORY: u16 = 0o040_000;

/// What to send to a version 1 peer.
pub struct V1SendOptions {
    /// Where content comes from.
    pub roots: Vec<SourceRoot>,
    /// How to walk it. Links are never sent, as version 1 has none.
    pub walk: WalkOptions,
    /// What the PULL leaves out; the default leaves out nothing.
    pub filter: V1Filter,
    /// The one source is a file that was named without a glob, so the destination may be its name.
    pub single: bool,
    /// Sources that could not even be opened.
    pub problems: Vec<Problem>,
    /// Who hears of entries and problems.
    pub report: Arc<dyn Report>,
    /// Numbers for progress.
    pub counters: Arc<Counters>,
    /// Files that the peer may have asked for and not got; see [`super::SEND_WINDOW`].
    pub window: usize,
}

/// Sends everything over `conns` and what joins them. In the summary, `received` is what was sent,
/// and what the peer did not ask for counts as the same.
///
/// # Errors
/// The session ended before the peer said DONE, or a file changed after it was announced, which
/// version 1 can only tell by ending the session after all others.
pub fn send(options: V1SendOptions, conns: Vec<Duplex>, inlet: Inlet) -> Ended<Summary> {
    let V1SendOptions { roots, mut walk, filter, single, problems, report, counters, window } =
        options;
    walk.links = false;
    let machine = Sender::new(single, window);
    let session =
        Session::new(SendSide { report, open: Mutex::default() }, machine, counters, &inlet);
    let walker = session.spawn("fcp1-walk", move |session| {
        let seen = (roots.len() > 1).then(HashSet::new);
        let mut sink = Announcer { session, filter, in_single: false, seen, dirs: 0 };
        sink.walk_all(&roots, &walk, problems);
    });
    session.run(conns, inlet, walker.into_iter().collect())?;
    session.side.tell_rest(&session);
    session.machine().summary().map_err(SessionError::Local)
}

struct SendSide {
    report: Arc<dyn Report>,
    /// Files of several runs while they are being sent.
    open: Mutex<HashMap<FileId, Arc<File>>>,
}

impl Machine for Sender<Source> {
    fn handle_conn_opened(&mut self, conn: ConnId) {
        self.handle_conn_opened(conn);
    }
    fn handle_conn_lost(&mut self, conn: ConnId) {
        self.handle_conn_lost(conn);
    }
    fn handle_timeout(&mut self, now: Duration) -> Result<(), Silent> {
        self.handle_timeout(now)
    }
    fn poll_transmit(&mut self, conn: ConnId, out: &mut Vec<u8>) {
        self.poll_transmit(conn, out);
    }
    fn has_transmit(&self, conn: ConnId) -> bool {
        self.has_transmit(conn)
    }
    fn connections(&self) -> usize {
        self.connections()
    }
    fn is_over(&self) -> bool {
        self.is_over()
    }
}

impl Side for SendSide {
    type Machine = Sender<Source>;
    const HANGS_UP: bool = true;

    fn take(&self, session: &Session<Self>, packets: Vec<V1Packet<'_>>) -> Result<(), Violation> {
        let mut machine = session.machine();
        for packet in packets {
            machine.handle_packet(&packet, session.now())?;
            if let V1Packet::Exception(text) = packet {
                drop(machine);
                session.fail(SessionError::Peer(WireError::new(ErrorCode::INTERNAL, text)));
                return Ok(());
            }
        }
        Ok(())
    }

    fn write_content(
        &self,
        session: &Session<Self>,
        conn: ConnId,
        writer: &mut dyn Write,
    ) -> io::Result<()> {
        let works = take_work(session);
        if works.is_empty() {
            return Ok(());
        }
        let mut out = Vec::with_capacity(BYTES_AT_ONCE + (BYTES_AT_ONCE >> 8));
        let mut content = Vec::new();
        let read: Vec<_> =
            works.into_iter().filter(|w| self.put(session, w, &mut content, &mut out)).collect();
        let written = session.write_all(writer, &out);
        let mut machine = session.machine();
        for work in read {
            match &written {
                Ok(()) => machine.handle_sent(conn, work.run, session.now()),
                Err(_) => machine.handle_unsent(work.run),
            }
        }
        let events: Vec<_> = std::iter::from_fn(|| machine.poll_event()).collect();
        drop(machine);
        events.into_iter().for_each(|event| self.tell_sent(session, event));
        written
    }
}

/// As much content as one write should carry.
fn take_work(session: &Session<SendSide>) -> Vec<Work<Source>> {
    let mut machine = session.machine();
    let (mut works, mut bytes) = (Vec::new(), 0);
    while bytes < BYTES_AT_ONCE && works.len() < RUNS_AT_ONCE {
        let Some(work) = machine.poll_work() else { break };
        bytes += work.len;
        works.push(work);
    }
    works
}

impl SendSide {
    /// Appends the chunks of `work`, or tells the machine why that cannot be.
    fn put(
        &self,
        session: &Session<Self>,
        work: &Work<Source>,
        content: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> bool {
        content.resize(work.len, 0);
        let read = self
            .open_for(work)
            .and_then(|file| read_version(&file, &work.version, content, work.offset));
        if let Err(why) = read {
            self.give_up(session, work, why);
            return false;
        }
        for (seq, bytes) in work.run.chunks.clone().zip(content.chunks(V1_CHUNK)) {
            // A file has at most 2^32 chunks: the walker announces no larger one.
            let chunk = V1Chunk { file: work.run.file, seq: seq as u32, bytes };
            V1Packet::FileChunk(chunk).encode(out);
        }
        Counters::add(&session.counters.moved_bytes, work.len as u64);
        true
    }

    fn open_for(&self, work: &Work<Source>) -> Result<Arc<File>, Unreadable> {
        let mut open = locked(&self.open);
        if let Some(file) = open.get(&work.run.file) {
            return Ok(Arc::clone(file));
        }
        let (file, stat) = work.source.dir.get()?.open_file(&work.source.name)?;
        if stat.version() != work.version {
            return Err(Unreadable::Changed);
        }
        let file = Arc::new(file);
        if work.len as u64 != work.version.size {
            open.insert(work.run.file, Arc::clone(&file));
        }
        Ok(file)
    }

    fn give_up(&self, session: &Session<Self>, work: &Work<Source>, why: Unreadable) {
        locked(&self.open).remove(&work.run.file);
        let error = wire_error(&why);
        let path = work.source.path();
        let text = format!("{}: {}", escape(&path), error.text);
        if session.machine().handle_source_failed(&work.run, &text, session.now()) {
            let outcome = Outcome::Failed(error);
            self.report_file(path, work.version.size, outcome);
        }
    }

    fn tell_sent(&self, session: &Session<Self>, event: SendEvent<Source>) {
        let SendEvent::Sent { file, source, size } = event;
        locked(&self.open).remove(&file);
        count_done(&session.counters, size);
        // Version 1 does not say whether there was a file before.
        self.report_file(source.path(), size, Outcome::Replaced);
    }

    /// The session is over: reports the files that the peer did not ask for.
    fn tell_rest(&self, session: &Session<Self>) {
        let machine = session.machine();
        for (source, size) in machine.unasked() {
            count_done(&session.counters, size);
            self.report_file(source.path(), size, Outcome::Same);
        }
    }

    fn report_file(&self, path: Vec<u8>, size: u64, outcome: Outcome) {
        self.report.entry(EntryReport { path, kind: EntryKind::File, size, outcome });
    }
}

fn count_done(counters: &Counters, size: u64) {
    Counters::add(&counters.done_entries, 1);
    Counters::add(&counters.done_bytes, size);
}

fn wire_error(why: &Unreadable) -> WireError {
    match why {
        Unreadable::Changed => WireError::new(ErrorCode::CHANGED, "it changed while it was sent"),
        Unreadable::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            WireError::new(ErrorCode::VANISHED, "it vanished before it was read")
        }
        Unreadable::Io(error) => io_error(error),
    }
}

/// Hands what the walker finds to the machine, and waits while that is full.
struct Announcer<'a> {
    session: &'a Session<SendSide>,
    filter: V1Filter,
    /// The root being walked is a single file.
    in_single: bool,
    /// Paths announced so far, to notice that two sources have the same name.
    seen: Option<HashSet<RelPath>>,
    dirs: u32,
}

impl Announcer<'_> {
    fn walk_all(&mut self, roots: &[SourceRoot], options: &WalkOptions, problems: Vec<Problem>) {
        if !problems.into_iter().all(|problem| self.problem(problem)) {
            return;
        }
        for root in roots {
            self.in_single = root.is_single();
            if walk(std::slice::from_ref(root), options, self).is_none() {
                return;
            }
        }
        self.session.machine().handle_walked(self.session.now());
        self.session.counters.walked.store(1, Relaxed);
        self.session.notify();
    }

    /// Feeds the machine; `false` when the session is over.
    fn feed(&self, feed: impl FnOnce(&mut Sender<Source>, Duration)) -> bool {
        let mut machine = self.session.machine();
        while machine.is_full() && !self.session.is_over() {
            machine = self.session.wait(machine);
        }
        let goes_on = !self.session.is_over() && !machine.is_exhausted();
        if goes_on {
            feed(&mut machine, self.session.now());
        }
        drop(machine);
        self.session.notify();
        goes_on
    }

    fn admits(&self, path: &RelPath) -> bool {
        if self.in_single { self.filter.admits_single(path) } else { self.filter.admits(path) }
    }

    /// The path if version 1 can carry it.
    fn checked_path(&self, source: &Source) -> Result<RelPath, Problem> {
        let path = source.rel_path();
        let refuse = |text: &str| {
            let error = WireError::new(ErrorCode::NAME, text);
            Err(Problem { path: source.path(), error })
        };
        if std::str::from_utf8(path.as_bytes()).is_err() {
            return refuse("version 1 peers need names in UTF-8");
        }
        RelPath::new(path.as_bytes()).or_else(|_| refuse("its path is too long to be sent"))
    }

    fn file(&mut self, source: Source, path: RelPath) -> bool {
        let session = self.session;
        let failed = |error| Problem { path: source.path(), error };
        let (stat, md5) = match hash(&source, &|| !session.is_over()) {
            Ok(hashed) => hashed,
            Err(why) => {
                let problem = failed(wire_error(&why));
                return self.problem(problem);
            }
        };
        if stat.size > fcp_proto::limits::V1_MAX_FILE_SIZE {
            let error = WireError::new(ErrorCode::LIMIT, "it is too large for version 1");
            let problem = failed(error);
            return self.problem(problem);
        }
        count(&session.counters, stat.size);
        let version: SourceVersion = stat.version();
        self.feed(|machine, now| {
            machine.handle_file(source, version, |id| file_info(id, &stat, md5, path), now);
        })
    }
}

fn file_info(id: FileId, stat: &Stat, md5: [u8; 16], path: RelPath) -> V1File {
    let mode = (stat.mode & 0o777) as u16 | REGULAR;
    V1File { id, mode, size: stat.size, mtime: stat.mtime, md5, path }
}

impl Sink for Announcer<'_> {
    fn leaf(&mut self, source: Source, _: Entry) -> bool {
        let path = match self.checked_path(&source) {
            Ok(path) => path,
            Err(problem) => return self.problem(problem),
        };
        if !self.admits(&path) {
            return true;
        }
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(path.clone())) {
            let error = WireError::new(ErrorCode::COLLISION, "another source has this name");
            return self.problem(Problem { path: source.path(), error });
        }
        self.file(source, path)
    }

    fn dir(&mut self, source: Source, entry: Entry) -> Option<DirId> {
        self.dirs += 1;
        let number = DirId(self.dirs);
        let path = match self.checked_path(&source) {
            Ok(path) => path,
            Err(problem) => return self.problem(problem).then_some(number),
        };
        let is_new = self.seen.as_mut().is_none_or(|seen| seen.insert(path.clone()));
        if !is_new || !self.admits(&path) {
            return Some(number);
        }
        count(&self.session.counters, 0);
        let mode = entry.mode | DIRECTORY;
        self.feed(|machine, now| machine.handle_dir(|id| V1Dir { id, mode, path }, now))
            .then_some(number)
    }

    fn dir_end(&mut self, _: DirId) -> bool {
        !self.session.is_over()
    }

    fn problem(&mut self, problem: Problem) -> bool {
        self.session.side.report.problem(problem);
        self.feed(|machine, _| machine.handle_problem())
    }

    fn skipped(&mut self, path: Vec<u8>, why: &'static str) {
        self.session.side.report.skipped(path, why);
    }
}

fn count(counters: &Counters, size: u64) {
    Counters::add(&counters.total_entries, 1);
    Counters::add(&counters.total_bytes, size);
}
