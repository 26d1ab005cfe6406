//! The receiving end: readers that check and write blocks, and do what the machine decides.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fcp_proto::frame::{Frame, HEAD_LEN};
use fcp_proto::limits::BLOCK;
use fcp_proto::packet::{
    Block, BlockDigest, Data, Durability, Message, Outcome, Sequenced, Summary, Whole, WireError,
};
use fcp_proto::version::Agreed;
use fcp_proto::{ConnId, Digest, ErrorCode, FileId, Flag, Violation};

use super::conn::Duplex;
use super::destination::{Destination, DestinationError};
use super::report::{Counters, EntryReport, Report};
use super::session::{
    Ended, Inlet, Machine, RequestBy, Role, Session, SessionError, forward_to_machine,
};
use super::store::{DestDir, DestFile, Store};
use super::workers::Workers;
use crate::transfer::{
    Action, Assembler, Config, FileMeta, Placement, ReceiveEvent, Receiver, digest,
};

/// Decisions carried out between two looks at the socket.
const ACTIONS_AT_ONCE: usize = 64;

/// What to receive, and where to.
pub struct ReceiveOptions {
    /// What was agreed with the peer.
    pub agreed: Agreed,
    /// The client's REQUEST, which this end sends if it is the client and has read if not.
    pub request: RequestBy,
    /// Opens the destination once it is known whether one thing comes that is not a directory.
    pub destination: OpenDestination,
    /// Opens it before anything comes, as a server can that was told what it means.
    pub open_now: bool,
    /// How it is received.
    pub config: Config,
    /// How much is made durable.
    pub durability: Durability,
    /// Who hears of entries and problems.
    pub report: Arc<dyn Report>,
    /// Numbers for progress.
    pub counters: Arc<Counters>,
}

/// Opens a destination; the argument says that one thing comes that is not a directory.
pub type OpenDestination = Box<dyn FnOnce(bool) -> Result<Destination, DestinationError> + Send>;

type Files = Receiver<Arc<DestDir>, Arc<DestFile>>;

/// Receives over `conns` and what joins them until everything is there; answers with the summary.
///
/// # Errors
/// The session ended before everything was there; what came is kept for the next run.
pub fn receive(options: ReceiveOptions, conns: Vec<Duplex>, inlet: Inlet) -> Ended<Summary> {
    let session = start(options, &inlet);
    let ended = session.run(conns, inlet);
    finish(&session, ended)
}

/// A receiving session, ready to run.
pub(super) fn start(options: ReceiveOptions, inlet: &Inlet) -> Arc<Session<ReceiveRole>> {
    let ReceiveOptions { agreed, request, destination, open_now, .. } = options;
    let ReceiveOptions { config, durability, report, counters, .. } = options;
    let max_frame = agreed.max_frame;
    let dry_run = config.dry_run;
    let mut machine = Receiver::new(agreed, config);
    match request {
        RequestBy::Us(request) => machine.send(&Message::Request(request), Duration::ZERO),
        RequestBy::Peer => machine.handle_request_taken(Duration::ZERO),
        RequestBy::Nobody => {}
    }
    let role = ReceiveRole {
        destination: Mutex::new(Some(destination)),
        store: OnceLock::new(),
        durability,
        dry_run,
        report,
        workers: Workers::default(),
    };
    let session = Session::new(role, machine, counters, max_frame, inlet);
    if open_now {
        session.role.open_root(&session, true);
    }
    session
}

pub(super) fn finish(session: &Session<ReceiveRole>, ended: Ended<()>) -> Ended<Summary> {
    session.role.workers.end();
    if let Some(store) = session.role.store.get() {
        store.abandon();
    }
    ended.map(|()| session.machine().summary().clone())
}

/// What a receiver's threads share besides the machine.
pub(super) struct ReceiveRole {
    /// Until the first entry is here.
    destination: Mutex<Option<OpenDestination>>,
    /// From then on.
    store: OnceLock<Store>,
    durability: Durability,
    dry_run: bool,
    report: Arc<dyn Report>,
    workers: Workers<ReceiveRole>,
}

/// What a connection's reader keeps between reads.
#[derive(Default)]
pub(super) struct Intake {
    assembler: Assembler,
    /// Where in the buffer the unfinished block begins.
    block_at: usize,
    /// Small files that were seen, whether they matched, and where in the buffer they lie.
    wholes: Vec<(FileId, Range<usize>, bool)>,
}

impl Machine for Files {
    forward_to_machine!();

    fn is_over(&self) -> bool {
        self.is_closed()
    }
    fn is_acknowledged(&self) -> bool {
        self.is_acknowledged()
    }
}

impl Role for ReceiveRole {
    type Machine = Files;
    type Intake = Intake;
    const HANGS_UP: bool = false;

    fn content(
        &self,
        session: &Session<Self>,
        intake: &mut Intake,
        frame: Frame<'_>,
        at: usize,
        buffer: &[u8],
    ) -> Result<(), Violation> {
        let flag = frame.flag;
        let malformed = |error| Violation::Decode { flag, error };
        let payload = at + HEAD_LEN;
        match flag {
            Flag::DATA => {
                let data = Data::decode(frame.payload).map_err(malformed)?;
                if intake.assembler.pending().is_none() {
                    intake.block_at = at;
                }
                let start = payload + Data::HEAD - intake.block_at;
                intake.assembler.handle_data(&data, start..start + data.bytes.len())
            }
            Flag::BLOCK => {
                let end = BlockDigest::decode(frame.payload).map_err(malformed)?;
                let base = &buffer[intake.block_at..];
                let (pieces, matches) = intake.assembler.handle_block(&end, base)?;
                self.take_block(session, end, base, &pieces, matches)
            }
            _ => {
                intake.assembler.check_idle(flag)?;
                let whole = Whole::decode(frame.payload).map_err(malformed)?;
                let matches = digest(whole.bytes) == whole.digest;
                let start = payload + Whole::HEAD;
                intake.wholes.push((whole.file, start..start + whole.bytes.len(), matches));
                Ok(())
            }
        }
    }

    fn drained(
        &self,
        session: &Session<Self>,
        intake: &mut Intake,
        buffer: &[u8],
        parsed: usize,
    ) -> Result<(usize, usize), Violation> {
        self.take_wholes(session, std::mem::take(&mut intake.wholes), buffer)?;
        let Some(pending) = intake.assembler.pending() else { return Ok((parsed, usize::MAX)) };
        // Up to the end of the block and little more, so that little is moved afterwards.
        let keep_from = std::mem::take(&mut intake.block_at);
        let rest = (BLOCK - pending) as usize;
        Ok((keep_from, rest + 40 * (HEAD_LEN + Data::HEAD) + HEAD_LEN + BlockDigest::LEN))
    }

    fn check(&self, intake: &Intake, flag: Flag) -> Result<(), Violation> {
        intake.assembler.check_idle(flag)
    }

    fn act(&self, session: &Session<Self>) {
        loop {
            let (actions, events) = {
                let mut m = session.machine();
                let actions: Vec<_> =
                    std::iter::from_fn(|| m.poll_action()).take(ACTIONS_AT_ONCE).collect();
                session.counters.set_announced(m.announced());
                (actions, std::iter::from_fn(|| m.poll_event()).collect::<Vec<_>>())
            };
            events.into_iter().for_each(|event| self.tell(session, event));
            if actions.is_empty() {
                return;
            }
            actions.into_iter().for_each(|action| self.carry_out(session, action));
            session.notify();
        }
    }

    fn write_content(&self, _: &Session<Self>, _: ConnId, _: &mut dyn Write) -> io::Result<bool> {
        Ok(false)
    }
}

impl ReceiveRole {
    /// A block is complete: writes it if somebody needs it.
    pub(super) fn take_block(
        &self,
        session: &Session<Self>,
        end: BlockDigest,
        base: &[u8],
        pieces: &[Range<usize>],
        matches: bool,
    ) -> Result<(), Violation> {
        let Block { file, offset, len } = end.block;
        if !matches {
            return session.machine().handle_mismatch(file, offset, len);
        }
        let placement = session.machine().place(file, offset, len)?;
        if let Placement::Write { handle, .. } = placement {
            let done = self.with_store(|s| s.write(&handle, offset, base, pieces, end.digest));
            drop(handle);
            Counters::add(&session.counters.moved_bytes, len.into());
            session.machine().handle_written(file, offset, len, done);
        }
        Ok(())
    }

    /// Small files are complete: writes and publishes those that somebody needs.
    pub(super) fn take_wholes(
        &self,
        session: &Session<Self>,
        wholes: Vec<(FileId, Range<usize>, bool)>,
        buffer: &[u8],
    ) -> Result<(), Violation> {
        if wholes.is_empty() {
            return Ok(());
        }
        let mut placed = Vec::with_capacity(wholes.len());
        {
            let mut machine = session.machine();
            for (file, place, matches) in wholes {
                if !matches {
                    machine.handle_mismatch(file, 0, place.len() as u32)?;
                } else if let Placement::Publish { handle, meta } =
                    machine.place_whole(file, place.len())?
                {
                    placed.push((file, place, handle, meta));
                }
            }
        }
        let done: Vec<_> = placed
            .into_iter()
            .map(|(file, place, handle, meta)| {
                Counters::add(&session.counters.moved_bytes, place.len() as u64);
                (file, self.with_store(|s| s.write_whole(&handle, &buffer[place], meta)))
            })
            .collect();
        let mut machine = session.machine();
        done.into_iter().for_each(|(file, done)| machine.handle_published(file, done));
        Ok(())
    }

    /// A block in this process's memory.
    pub(super) fn take_local_block(
        &self,
        session: &Session<Self>,
        block: Block,
        content: &[u8],
    ) -> Result<(), Violation> {
        let end = BlockDigest { block, digest: digest(content) };
        self.take_block(session, end, content, std::slice::from_ref(&(0..content.len())), true)
    }

    fn carry_out(&self, session: &Session<Self>, action: Action<Arc<DestDir>, Arc<DestFile>>) {
        if let Action::OpenRoot { single } = action {
            return self.open_root(session, single);
        }
        // The machine asks for nothing else before the root is open, but for the end.
        let Some(store) = self.store.get() else {
            return session.machine().handle_finished(session.now());
        };
        match action {
            Action::OpenRoot { .. } => {}
            Action::MakeDir { dir, parent, name, path, mode } => {
                let made = store.make_dir(&parent, &name, path, mode);
                session.machine().handle_dir_made(dir, made);
            }
            Action::Inspect { file, parent, name, version } => {
                let found = store.inspect(&parent, name, version);
                session.machine().handle_inspected(file, found);
            }
            Action::Link { file, parent, name, target, mtime } => {
                let done = store.link(&parent, &name, &target, mtime);
                session.machine().handle_linked(file, done);
            }
            Action::Hash { file, handle } => self.workers.run(session, move |session| {
                let hashes = session.role.with_store(|store| store.hash(&handle));
                session.machine().handle_hashed(file, hashes);
                session.role.worked(session);
            }),
            Action::Recover { file, handle, .. } => {
                let kept = store.recover(&handle);
                session.machine().handle_recovered(file, kept);
            }
            Action::Rehash { file, handle, kept, size } => {
                self.workers.run(session, move |session| {
                    session.role.rehash(session, file, handle, &kept, size);
                });
            }
            Action::Publish { file, handle, meta } => {
                let done = store.publish(&handle, meta);
                session.machine().handle_published(file, done);
            }
            Action::SetMeta { file, handle, meta } => {
                let done = store.set_meta(&handle, meta);
                session.machine().handle_meta_set(file, done);
            }
            Action::FinishDir { dir, handle, meta } => {
                let done = store.finish_dir(&handle, meta);
                session.machine().handle_dir_finished(dir, done);
            }
            Action::Discard { handle } => store.discard(&handle),
            Action::Finish { meta } => self.finish(session, store, meta),
        }
    }

    fn open_root(&self, session: &Session<Self>, single: bool) {
        let open = self.destination.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(open) = open else { return };
        match open(single) {
            Ok(destination) => {
                let store = Store::open(&destination, self.durability, self.dry_run);
                let store = self.store.get_or_init(|| store);
                let (root, recover) = (store.root(), store.has_dead_runs());
                session.machine().handle_root_opened(root, destination.rule, recover);
            }
            Err(error) => session.fail(SessionError::Destination(error)),
        }
    }

    fn with_store<T>(
        &self,
        ask: impl FnOnce(&Store) -> Result<T, WireError>,
    ) -> Result<T, WireError> {
        match self.store.get() {
            Some(store) => ask(store),
            None => Err(WireError::new(ErrorCode::INTERNAL, "the destination is not open")),
        }
    }

    fn rehash(
        &self,
        session: &Session<Self>,
        file: FileId,
        handle: Arc<DestFile>,
        kept: &[(u32, Digest)],
        size: u64,
    ) {
        let bad =
            self.with_store(|store| Ok(store.rehash(&handle, kept, size))).unwrap_or_default();
        // Publishing needs the only handle on the temporary file.
        drop(handle);
        let kept_bytes: u64 = kept
            .iter()
            .filter(|(n, _)| !bad.contains(n))
            .map(|(n, _)| BLOCK.min(size - u64::from(*n) * BLOCK))
            .sum();
        Counters::add(&session.counters.kept_bytes, kept_bytes);
        session.machine().handle_rehashed(file, kept, &bad);
        self.worked(session);
    }

    fn finish(&self, session: &Session<Self>, store: &Store, meta: Option<FileMeta>) {
        match store.finish(meta) {
            Ok(()) => session.machine().handle_finished(session.now()),
            // The root is no entry that a result could be given for, and must not look done.
            Err(WireError { text, .. }) => session.fail(SessionError::Local(format!(
                "failed to finish the destination directory: {text}"
            ))),
        }
    }

    /// A worker or the local plane has fed the machine: do what follows from it.
    pub(super) fn worked(&self, session: &Session<Self>) {
        self.act(session);
        session.notify();
    }

    fn tell(&self, session: &Session<Self>, event: ReceiveEvent) {
        match event {
            ReceiveEvent::Problem(problem) => self.report.problem(problem),
            ReceiveEvent::Finished { path, kind, size, outcome } => {
                Counters::add(&session.counters.done_entries, 1);
                if !matches!(outcome, Outcome::Failed(_)) {
                    Counters::add(&session.counters.done_bytes, size);
                }
                let path = path.as_bytes().to_vec();
                self.report.entry(EntryReport { path, kind, size, outcome });
            }
        }
    }
}
