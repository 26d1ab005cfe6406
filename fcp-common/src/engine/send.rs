//! The sending end: a walker, a reader of files per connection, a hasher.

use std::collections::HashMap;
use std::io::{self, IoSlice, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fcp_proto::frame::{Frame, HEAD_LEN};
use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{
    BlockDigest, Data, Entry, EntryBody, Message, Problem, RootMeta, Sequenced, Summary, Whole,
    WireError, put_block, put_data_head, put_whole_head,
};
use fcp_proto::version::Agreed;
use fcp_proto::{ConnId, DirId, ErrorCode, FileId, Flag, SourceVersion, Violation};

use super::conn::Duplex;
use super::local::LocalPlane;
use super::report::{Counters, EntryReport, Report};
use super::session::{
    Ended, Inlet, Machine, RequestBy, Role, Session, SessionError, forward_to_machine, spawn,
};
use super::workers::Workers;
use crate::fs::{File, Stat};
use crate::transfer::{Event, Help, Sender, Work, digest};
use crate::walk::{Sink, Source, SourceRoot, WalkOptions, io_error, walk};

/// Content bytes of one DATA frame. A block is 18 of these; larger ones would leave a short tail.
const DATA_AT_ONCE: usize = 60 << 10;
/// Small files in one write.
const WHOLES_AT_ONCE: usize = 128;
/// Entries that the walker hands over together.
const LEAVES_AT_ONCE: usize = 64;
/// How long the walker sleeps at most before it looks again whether it may go on.
const WALKER_TICK: Duration = Duration::from_millis(500);

/// What to send.
pub struct SendOptions {
    /// What was agreed with the peer.
    pub agreed: Agreed,
    /// The client's REQUEST, which this end sends if it is the client and has read if not.
    pub request: RequestBy,
    /// Where content comes from.
    pub roots: Vec<SourceRoot>,
    /// How to walk it.
    pub walk: WalkOptions,
    /// Sources that could not even be opened: told to the peer as well.
    pub problems: Vec<Problem>,
    /// Who hears of entries and problems.
    pub report: Arc<dyn Report>,
    /// Numbers for progress.
    pub counters: Arc<Counters>,
}

/// Sends everything over `conns` and what joins them; answers with the receiver's summary.
///
/// # Errors
/// The session ended without CLOSE; what the receiver has, it keeps for the next run.
pub fn send(options: SendOptions, conns: Vec<Duplex>, inlet: Inlet) -> Ended<Summary> {
    let session = start(options, None, &inlet)?;
    session.run(conns, inlet)?;
    summary(&session)
}

/// A sending session whose walker runs; `plane` replaces frames for content.
pub(super) fn start(
    options: SendOptions,
    plane: Option<LocalPlane>,
    inlet: &Inlet,
) -> Ended<Arc<Session<SendRole>>> {
    let SendOptions { agreed, request, roots, walk, problems, report, counters } = options;
    let max_frame = agreed.max_frame;
    let mut machine = Sender::new(agreed);
    let tell_skipped = matches!(request, RequestBy::Peer);
    match request {
        RequestBy::Us(request) => machine.send(&Message::Request(request), Duration::ZERO),
        RequestBy::Peer => machine.handle_request_taken(Duration::ZERO),
        RequestBy::Nobody => {}
    }
    let (open, workers) = (Mutex::default(), Workers::default());
    let role = SendRole { tell_skipped, report, plane, open, workers };
    let session = Session::new(role, machine, counters, max_frame, inlet);
    let walker = Arc::clone(&session);
    spawn("fcp-walk", move || run_walker(&walker, &roots, &walk, problems))
        .map_err(|error| SessionError::Local(format!("cannot start a thread: {error}")))?;
    Ok(session)
}

pub(super) fn summary(session: &Session<SendRole>) -> Ended<Summary> {
    let closed = session.machine().closed().cloned();
    closed.ok_or_else(|| SessionError::Lost("the session ended before its summary".to_owned()))
}

/// What a sender's threads share besides the machine.
pub(super) struct SendRole {
    /// The client is the other end, and wants to hear what was left out.
    tell_skipped: bool,
    report: Arc<dyn Report>,
    plane: Option<LocalPlane>,
    /// Files of several blocks while they are being sent.
    open: Mutex<HashMap<FileId, Arc<File>>>,
    /// For hashing, which takes long while no connection may wait.
    workers: Workers<SendRole>,
}

impl Machine for Sender<Source> {
    forward_to_machine!();

    fn handle_spare(&mut self, conn: ConnId, from: Duration, help: Help) {
        self.handle_spare(conn, from, help);
    }
    fn is_over(&self) -> bool {
        self.closed().is_some()
    }
    fn is_acknowledged(&self) -> bool {
        // A sender hangs up first.
        self.is_over()
    }
}

impl Role for SendRole {
    type Machine = Sender<Source>;
    type Intake = ();
    const HANGS_UP: bool = true;

    fn content(
        &self,
        _: &Session<Self>,
        _: &mut (),
        frame: Frame<'_>,
        _: usize,
        _: &[u8],
    ) -> Result<(), Violation> {
        Err(Violation::Unexpected { got: frame.flag, expected: "messages, as this end sends" })
    }

    fn drained(
        &self,
        _: &Session<Self>,
        _: &mut (),
        _: &[u8],
        parsed: usize,
    ) -> Result<(usize, usize), Violation> {
        Ok((parsed, usize::MAX))
    }

    fn check(&self, _: &(), _: Flag) -> Result<(), Violation> {
        Ok(())
    }

    fn act(&self, session: &Session<Self>) {
        loop {
            let events: Vec<_> = {
                let mut machine = session.machine();
                std::iter::from_fn(|| machine.poll_event()).collect()
            };
            if events.is_empty() {
                return;
            }
            session.notify_room();
            events.into_iter().for_each(|event| self.handle_event(session, event));
        }
    }

    fn write_content(
        &self,
        session: &Session<Self>,
        conn: ConnId,
        writer: &mut dyn Write,
    ) -> io::Result<bool> {
        let works = take_work(session, conn);
        if works.is_empty() {
            return Ok(false);
        }
        if let Some(plane) = &self.plane {
            plane.copy(self, session, &works);
            return Ok(true);
        }
        BUFFERS.with_borrow_mut(|(small, block)| {
            for work in &works {
                if work.whole {
                    self.put_whole(session, work, small);
                } else {
                    flush(session, writer, small)?;
                    self.write_block(session, work, block, writer)?;
                }
            }
            flush(session, writer, small)
        })?;
        Ok(true)
    }
}

thread_local! {
    /// The small files, and the block, that a connection's writer is sending.
    static BUFFERS: std::cell::RefCell<(Vec<u8>, Vec<u8>)> =
        const { std::cell::RefCell::new((Vec::new(), Vec::new())) };
}

/// As much content as one write should carry: a block, or many small files.
fn take_work(session: &Session<SendRole>, conn: ConnId) -> Vec<Work<Source>> {
    let now = session.now();
    let mut machine = session.machine();
    let (mut works, mut bytes) = (Vec::new(), 0);
    while bytes < BLOCK / 4 && works.len() < WHOLES_AT_ONCE {
        let Some(work) = machine.poll_work(conn, now) else { break };
        bytes += u64::from(work.block.len);
        works.push(work);
    }
    works
}

fn flush(session: &Session<SendRole>, writer: &mut dyn Write, buf: &mut Vec<u8>) -> io::Result<()> {
    if !buf.is_empty() {
        session.write_all(writer, buf)?;
        buf.clear();
    }
    Ok(())
}

impl SendRole {
    /// Appends a WHOLE frame: the file is read where the frame's payload will be.
    fn put_whole(&self, session: &Session<Self>, work: &Work<Source>, buf: &mut Vec<u8>) {
        const HEADS: usize = HEAD_LEN + Whole::HEAD;
        let (start, len) = (buf.len(), work.block.len as usize);
        buf.resize(start + HEADS + len, 0);
        match read_whole(work, &mut buf[start + HEADS..]) {
            Ok(()) => {
                let mut head = [0; HEADS];
                let content = &buf[start + HEADS..];
                put_whole_head(&mut head, work.block.file, digest(content), content);
                buf[start..start + HEADS].copy_from_slice(&head);
                Counters::add(&session.counters.moved_bytes, len as u64);
            }
            Err(problem) => {
                buf.truncate(start);
                self.give_up(session, work, problem);
            }
        }
    }

    /// Reads a block and writes its DATA frames and its BLOCK frame with as few calls as possible.
    fn write_block(
        &self,
        session: &Session<Self>,
        work: &Work<Source>,
        buf: &mut Vec<u8>,
        writer: &mut dyn Write,
    ) -> io::Result<()> {
        // Never cleared, so that only its first use fills it with zeros.
        buf.resize(BLOCK as usize, 0);
        let buf = &mut buf[..work.block.len as usize];
        if let Err(problem) = self.read_block(work, buf) {
            self.give_up(session, work, problem);
            return Ok(());
        }
        let piece = DATA_AT_ONCE.min(session.max_frame() - Data::HEAD);
        let mut offset = work.block.offset;
        let heads: Vec<_> = buf
            .chunks(piece)
            .map(|content| {
                let mut head = [0; HEAD_LEN + Data::HEAD];
                put_data_head(&mut head, work.block.file, offset, content);
                offset += content.len() as u64;
                head
            })
            .collect();
        let end = put_block(BlockDigest { block: work.block, digest: digest(buf) });
        let mut slices: Vec<IoSlice<'_>> = heads
            .iter()
            .zip(buf.chunks(piece))
            .flat_map(|(head, content)| [IoSlice::new(head), IoSlice::new(content)])
            .chain([IoSlice::new(&end)])
            .collect();
        let total: usize = slices.iter().map(|s| s.len()).sum();
        write_all_vectored(writer, &mut slices)?;
        Counters::add(&session.counters.wire_out, total as u64);
        Counters::add(&session.counters.moved_bytes, buf.len() as u64);
        Ok(())
    }

    /// Fills `buf` with the block of `work`, from the version that was announced or not at all.
    pub(super) fn read_block(&self, work: &Work<Source>, buf: &mut [u8]) -> Result<(), Unreadable> {
        let file = self.open_for(work)?;
        read_exactly(&file, buf, work.block.offset)?;
        check_version(&file.stat()?, &work.version)
    }

    pub(super) fn open_for(&self, work: &Work<Source>) -> Result<Arc<File>, Unreadable> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&work.block.file) {
            return Ok(Arc::clone(file));
        }
        let (file, stat) = work.source.dir.get()?.open_file(&work.source.name)?;
        check_version(&stat, &work.version)?;
        let file = Arc::new(file);
        open.insert(work.block.file, Arc::clone(&file));
        Ok(file)
    }

    /// Tells the machine why content cannot be sent.
    pub(super) fn give_up(&self, session: &Session<Self>, work: &Work<Source>, why: Unreadable) {
        let file = work.block.file;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&file);
        let fresh = work.source.dir.get().and_then(|dir| dir.stat(&work.source.name));
        let now = session.now();
        let mut machine = session.machine();
        match (why, fresh) {
            (Unreadable::Changed, Ok(Some(stat))) if stat.kind == crate::fs::Kind::File => {
                machine.handle_source_changed(file, |entry| renew(entry, &stat), now);
            }
            (_, Ok(None)) => {
                let error = WireError::new(ErrorCode::VANISHED, "it vanished before it was read");
                machine.handle_source_failed(file, error, now);
            }
            (Unreadable::Io(error), _) | (Unreadable::Changed, Err(error)) => {
                machine.handle_source_failed(file, io_error(&error), now);
            }
            (Unreadable::Changed, _) => {
                let error = WireError::new(ErrorCode::CHANGED, "it is no longer a regular file");
                machine.handle_source_failed(file, error, now);
            }
        }
        drop(machine);
        self.act(session);
        session.notify();
    }

    fn handle_event(&self, session: &Session<Self>, event: Event<Source>) {
        match event {
            Event::Finished { source, entry, outcome } => {
                self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&entry.id);
                Counters::add(&session.counters.done_entries, 1);
                Counters::add(&session.counters.done_bytes, entry.size());
                let (path, kind, size) = (source.path(), entry.kind(), entry.size());
                self.report.entry(EntryReport { path, kind, size, outcome });
            }
            Event::Hash { file, version, source } => {
                let hashing = move |session: &Session<SendRole>| {
                    let answer = hash_source(&source, &version);
                    session.role.hashed(session, file, version, source, answer);
                };
                self.workers.run(session, hashing);
            }
        }
    }

    fn hashed(
        &self,
        session: &Session<Self>,
        file: FileId,
        version: SourceVersion,
        source: Source,
        answer: Result<Vec<[u8; 32]>, Unreadable>,
    ) {
        match answer {
            Ok(hashes) => session.machine().handle_hashed(file, &hashes, session.now()),
            Err(why) => {
                let block = fcp_proto::packet::Block { file, offset: 0, len: 0 };
                self.give_up(session, &Work { block, whole: false, version, source }, why);
            }
        }
        session.notify();
    }
}

/// Why content of a source cannot be sent.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is another version than was announced.
    Changed,
    /// It cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Unreadable::Io(error)
    }
}

/// Reads a whole small file, checking before and after that it is what was announced.
pub(super) fn read_whole(work: &Work<Source>, buf: &mut [u8]) -> Result<(), Unreadable> {
    let (file, stat) = work.source.dir.get()?.open_file(&work.source.name)?;
    check_version(&stat, &work.version)?;
    read_exactly(&file, buf, 0)?;
    check_version(&file.stat()?, &work.version)
}

fn read_exactly(file: &File, buf: &mut [u8], offset: u64) -> Result<(), Unreadable> {
    // A short read means that the file shrank, which its version will not hide.
    if file.read_full_at(buf, offset)? < buf.len() { Err(Unreadable::Changed) } else { Ok(()) }
}

pub(super) fn check_version(stat: &Stat, announced: &SourceVersion) -> Result<(), Unreadable> {
    if stat.version() == *announced { Ok(()) } else { Err(Unreadable::Changed) }
}

/// BLAKE3 of every block of a source file.
fn hash_source(source: &Source, version: &SourceVersion) -> Result<Vec<[u8; 32]>, Unreadable> {
    let (file, stat) = source.dir.get()?.open_file(&source.name)?;
    check_version(&stat, version)?;
    let hashes = super::store::hash_blocks(&file, version.size)?;
    check_version(&file.stat()?, version)?;
    Ok(hashes)
}

/// Brings an entry up to what `stat` says now.
fn renew(entry: &mut Entry, stat: &Stat) {
    entry.mode = (stat.mode & 0o777) as u16;
    entry.mtime = stat.mtime;
    entry.body = EntryBody::File { size: stat.size, token: stat.version().token };
}

fn write_all_vectored(writer: &mut dyn Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match writer.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn run_walker(
    session: &Arc<Session<SendRole>>,
    roots: &[SourceRoot],
    options: &WalkOptions,
    problems: Vec<Problem>,
) {
    let mut sink = Announcer { session: Arc::clone(session), leaves: Vec::new() };
    let told = problems.into_iter().all(|problem| sink.problem(problem));
    if let (true, Some(root)) = (told, walk(roots, options, &mut sink)) {
        sink.finish(root);
    }
}

/// Hands what the walker finds to the machine, and waits while that is full.
struct Announcer {
    session: Arc<Session<SendRole>>,
    leaves: Vec<(Source, Entry)>,
}

impl Announcer {
    /// Feeds the machine; `None` when the session is over.
    fn feed<T>(&mut self, feed: impl FnOnce(&mut Sender<Source>, Duration) -> T) -> Option<T> {
        let session = &self.session;
        let mut machine = session.machine();
        while machine.is_full() {
            if session.is_over() {
                return None;
            }
            machine = session.wait_for_room(machine, WALKER_TICK);
        }
        if session.is_over() {
            return None;
        }
        for (source, entry) in self.leaves.drain(..) {
            count(&session.counters, &entry);
            machine.handle_entry(source, |id| Entry { id, ..entry });
        }
        let fed = feed(&mut machine, session.now());
        drop(machine);
        session.notify();
        Some(fed)
    }

    fn finish(&mut self, root: RootMeta) {
        self.feed(|machine, _| machine.handle_walked(root));
        self.session.counters.walked.store(1, Relaxed);
    }
}

impl Sink for Announcer {
    fn leaf(&mut self, source: Source, entry: Entry) -> bool {
        self.leaves.push((source, entry));
        self.leaves.len() < LEAVES_AT_ONCE || self.feed(|_, _| ()).is_some()
    }

    fn dir(&mut self, source: Source, entry: Entry) -> Option<DirId> {
        count(&self.session.counters, &entry);
        self.feed(|machine, _| machine.handle_entry(source, |id| Entry { id, ..entry }).into())
    }

    fn dir_end(&mut self, dir: DirId) -> bool {
        self.feed(|machine, _| machine.handle_dir_end(dir)).is_some()
    }

    fn problem(&mut self, problem: Problem) -> bool {
        self.session.role.report.problem(problem.clone());
        self.feed(|machine, now| machine.handle_problem(problem, now)).is_some()
    }

    fn skipped(&mut self, path: Vec<u8>, why: &'static str) {
        let role = &self.session.role;
        role.report.skipped(path.clone(), why);
        if role.tell_skipped {
            let error = WireError::new(ErrorCode::SKIPPED, why);
            self.feed(|machine, now| machine.handle_problem(Problem { path, error }, now));
        }
    }
}

fn count(counters: &Counters, entry: &Entry) {
    Counters::add(&counters.total_entries, 1);
    Counters::add(&counters.total_bytes, entry.size());
}
