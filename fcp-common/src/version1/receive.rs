//! The receiving end of version 1: readers that write chunks, workers that do what takes long.

use std::io::{self, IoSlice, Write};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use fcp_proto::limits::V1_CHUNK;
use fcp_proto::packet::{Durability, Outcome, Summary, WireError};
use fcp_proto::v1::V1Packet;
use fcp_proto::{ConnId, ErrorCode, FileId, Violation};

use super::receiver::Receiver;
use super::session::{Machine, Session, Side, locked};
use super::store::{Keep, Store};
use super::types::{Action, Finished, ReceiveConfig, Silent};
use crate::engine::{
    Counters, Destination, DestinationError, DestinationOptions, Duplex, Ended, EntryReport, Inlet,
    Report, SessionError,
};

/// Hashing is bound by the disk or by one core each; two keep both busy.
const WORKERS: usize = 2;

/// Opens the destination once the first entry has come, so that a sender that finds nothing leaves
/// no trace; the argument says that one file is coming.
pub type OpenDestination = Box<dyn Fn(bool) -> Result<Destination, DestinationError> + Send + Sync>;

/// What to receive from a version 1 peer, and where to.
pub struct V1ReceiveOptions {
    /// Where it goes.
    pub destination: OpenDestination,
    /// What was asked for.
    pub config: ReceiveConfig,
    /// Set permission bits.
    pub perms: bool,
    /// Set modification times of files.
    pub times: bool,
    /// Bits that new files do not get when permissions are not kept.
    pub umask: u16,
    /// How much is made durable.
    pub durability: Durability,
    /// Who hears of entries.
    pub report: Arc<dyn Report>,
    /// Numbers for progress.
    pub counters: Arc<Counters>,
}

/// The destination `path`: an existing directory, or a path with a trailing slash, is where
/// entries go; otherwise one file gets that name, and more get a new directory there. With
/// `mkpath`, as in the published receiver, missing parents are made.
pub fn destination_at(path: Vec<u8>, mkpath: bool) -> OpenDestination {
    Box::new(move |single| {
        Destination::open(&path, DestinationOptions { single, mkpath, dry_run: false })
    })
}

/// Receives over `conns` and what joins them until everything is there.
///
/// # Errors
/// The session ended before everything was there; files that were complete are kept.
pub fn receive(options: V1ReceiveOptions, conns: Vec<Duplex>, inlet: Inlet) -> Ended<Summary> {
    let V1ReceiveOptions { destination, config, perms, times, umask, durability, report, counters } =
        options;
    let keep = Keep { perms, times, umask };
    let store = OnceLock::new();
    let root = Mutex::default();
    let side = ReceiveSide { destination, keep, durability, root, store, report };
    let session = Session::new(side, Receiver::new(config), counters, &inlet);
    let workers = (0..WORKERS).filter_map(|_| session.spawn("fcp1-work", work)).collect();
    let ended = session.run(conns, inlet, workers);
    session.side.tell(&session);
    if let Some(store) = session.side.store.get() {
        store.abandon();
    }
    ended?;
    let machine = session.machine();
    match machine.exception() {
        Some(text) => Err(SessionError::Peer(WireError::new(code_of(text), text))),
        None => Ok(machine.summary().clone()),
    }
}

/// The published sender says this and nothing else in words that one can rely on.
fn code_of(exception: &str) -> ErrorCode {
    match exception {
        "No such file or directory" => ErrorCode::NOT_FOUND,
        _ => ErrorCode::INTERNAL,
    }
}

struct ReceiveSide {
    destination: OpenDestination,
    keep: Keep,
    durability: Durability,
    /// What MONOFILE said; held while the destination is being opened.
    root: Mutex<bool>,
    store: OnceLock<Store>,
    report: Arc<dyn Report>,
}

/// Consecutive chunks of one file that came together.
struct Arrived<'a> {
    file: FileId,
    first: u64,
    pieces: Vec<&'a [u8]>,
}

impl Machine for Receiver {
    fn handle_conn_opened(&mut self, _: ConnId) {
        self.handle_conn_opened();
    }
    fn handle_conn_lost(&mut self, _: ConnId) {
        self.handle_conn_lost();
    }
    fn handle_timeout(&mut self, now: Duration) -> Result<(), Silent> {
        self.handle_timeout(now)
    }
    fn poll_transmit(&mut self, _: ConnId, out: &mut Vec<u8>) {
        self.poll_transmit(out);
    }
    fn has_transmit(&self, _: ConnId) -> bool {
        self.has_transmit()
    }
    fn connections(&self) -> usize {
        self.connections()
    }
    fn is_over(&self) -> bool {
        self.is_over()
    }
}

impl Side for ReceiveSide {
    type Machine = Receiver;
    const HANGS_UP: bool = false;

    fn take(&self, session: &Session<Self>, packets: Vec<V1Packet<'_>>) -> Result<(), Violation> {
        let arrived = sort(session, packets)?;
        if !arrived.is_empty() {
            let done: Vec<_> = arrived.iter().map(|run| self.write(session, run)).collect();
            let mut machine = session.machine();
            for (run, done) in arrived.iter().zip(done) {
                machine.handle_written(run.file, run.pieces.len() as u64, done, session.now());
            }
        }
        self.tell(session);
        Ok(())
    }

    fn write_content(&self, _: &Session<Self>, _: ConnId, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

/// Hands the packets to the machine; answers which chunks it wants written.
fn sort<'a>(
    session: &Session<ReceiveSide>,
    packets: Vec<V1Packet<'a>>,
) -> Result<Vec<Arrived<'a>>, Violation> {
    let now = session.now();
    let mut machine = session.machine();
    let mut arrived: Vec<Arrived<'a>> = Vec::new();
    for packet in packets {
        let V1Packet::FileChunk(chunk) = packet else {
            machine.handle_packet(packet, now)?;
            continue;
        };
        if !machine.handle_chunk(chunk.file, chunk.seq, chunk.bytes.len(), now)? {
            continue;
        }
        let seq = u64::from(chunk.seq);
        match arrived.last_mut() {
            Some(run) if run.file == chunk.file && run.next() == seq => {
                run.pieces.push(chunk.bytes)
            }
            _ => arrived.push(Arrived { file: chunk.file, first: seq, pieces: vec![chunk.bytes] }),
        }
    }
    Ok(arrived)
}

impl Arrived<'_> {
    fn next(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }
}

/// A worker's life.
fn work(session: &Session<ReceiveSide>) {
    let mut machine = session.machine();
    while !session.is_over() {
        let Some(action) = machine.poll_action() else {
            machine = session.wait(machine);
            continue;
        };
        drop(machine);
        session.side.carry_out(session, action);
        session.side.tell(session);
        session.notify();
        machine = session.machine();
    }
}

impl ReceiveSide {
    fn write(&self, session: &Session<Self>, run: &Arrived<'_>) -> Result<(), WireError> {
        let mut slices: Vec<_> = run.pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let len: usize = run.pieces.iter().map(|piece| piece.len()).sum();
        Counters::add(&session.counters.moved_bytes, len as u64);
        self.store()?.write(run.file, run.first * V1_CHUNK as u64, &mut slices)
    }

    fn carry_out(&self, session: &Session<Self>, action: Action) {
        let machine = || (session.machine(), session.now());
        match action {
            Action::OpenRoot { single } => {
                *locked(&self.root) = single;
                let (mut machine, now) = machine();
                machine.handle_rooted(now);
            }
            Action::MakeDir { mode, path } => {
                if !self.has_root(session) {
                    return;
                }
                let made = self.store().and_then(|store| store.make_dir(&path, mode));
                let (mut machine, now) = machine();
                machine.handle_dir_made(path, made, now);
            }
            Action::Begin(info) => {
                if !self.has_root(session) {
                    return;
                }
                let id = info.id;
                Counters::add(&session.counters.total_entries, 1);
                Counters::add(&session.counters.total_bytes, info.size);
                let go_on = || !session.is_over();
                let begun = self.store().and_then(|store| store.begin(info, &go_on));
                let (mut machine, now) = machine();
                machine.handle_begun(id, begun, now);
            }
            Action::Verify(id) => {
                let go_on = || !session.is_over();
                let verified = self.store().and_then(|store| store.verify(id, &go_on));
                let (mut machine, now) = machine();
                machine.handle_verified(id, verified, now);
            }
            Action::Discard(id) => {
                if let Some(store) = self.store.get() {
                    store.discard(id);
                }
            }
            Action::Finish => {
                if let Some(store) = self.store.get() {
                    store.finish();
                }
                session.machine().handle_finished();
            }
        }
    }

    /// Opens the destination if it is not open; without one the session ends.
    fn has_root(&self, session: &Session<Self>) -> bool {
        let single = locked(&self.root);
        if self.store.get().is_none() && !session.is_over() {
            self.open_root(session, *single);
        }
        self.store.get().is_some()
    }

    fn open_root(&self, session: &Session<Self>, single: bool) {
        let opened = (self.destination)(single).map_err(|error| error.to_string());
        // Only a dry run, which version 1 does not have, is without a root.
        let opened = opened.and_then(|d| Ok((d.root.ok_or("it does not exist")?, d.rule)));
        match opened {
            Ok((root, rule)) => {
                // The caller holds the lock and has looked, so nothing is there yet.
                let _ = self.store.set(Store::open(root, rule, self.keep, self.durability));
            }
            Err(error) => {
                let text = format!("cannot use the destination: {error}");
                session.fail(SessionError::Local(text));
            }
        }
    }

    fn store(&self) -> Result<&Store, WireError> {
        // Whatever begins is begun after the root was opened.
        self.store.get().ok_or_else(|| WireError::new(ErrorCode::INTERNAL, "there is no root"))
    }

    fn tell(&self, session: &Session<Self>) {
        let finished: Vec<_> = {
            let mut machine = session.machine();
            std::iter::from_fn(|| machine.poll_finished()).collect()
        };
        for Finished { path, kind, size, outcome } in finished {
            Counters::add(&session.counters.done_entries, 1);
            if !matches!(outcome, Outcome::Failed(_)) {
                Counters::add(&session.counters.done_bytes, size);
            }
            let path = path.as_bytes().to_vec();
            self.report.entry(EntryReport { path, kind, size, outcome });
        }
    }
}
