//! The journal of a live run: one file, locked for as long as the run lives.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fcp_proto::meta::{Digest, SourceVersion};
use fcp_proto::path::{Name, RelPath};
use rustix::io::Errno;

use super::names::{RunId, journal_dir};
use super::record::{Record, header};
use crate::fs::{Dir, File, sys};

/// How often creation starts again because another run removed the directory meanwhile.
const CREATE_TRIES: usize = 64;
/// Writable by us only: whoever can write a journal can have our temps removed.
const HOME_MODE: u32 = 0o700;
const JOURNAL_MODE: u32 = 0o600;

/// The journal of this run, made at its first record.
///
/// What cannot be journaled is not an error: the run goes on without being resumable, which is
/// logged once and told by [`RunJournal::is_off`]. Records are not synced: after a power cut the
/// blocks they speak of may be gone as well.
#[derive(Debug)]
pub struct RunJournal {
    root: Arc<Dir>,
    run: RunId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    dirs: HashSet<RelPath>,
    next_no: u32,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Unwritten,
    On(Journal),
    /// Without a file, or with one that takes no more records but still holds the lock.
    Off(Option<Journal>),
}

#[derive(Debug)]
struct Journal {
    home: Dir,
    file: File,
    len: u64,
}

impl RunJournal {
    /// A journal in `root` that touches nothing before its first record.
    pub fn create_lazily(root: Arc<Dir>, run: RunId) -> RunJournal {
        RunJournal { root, run, state: Mutex::default() }
    }

    /// Says that temps may come to exist in the directory `path`; to be called before the first.
    /// Cheap when it was said already.
    pub fn dir(&self, path: &RelPath) {
        let mut state = self.lock();
        if !state.dirs.contains(path) && self.append(&mut state, &[Record::Dir(path.clone())]) {
            state.dirs.insert(path.clone());
        }
    }

    /// Says that `path` is being written to `temp`; its number, or `None` when it cannot be
    /// resumed, as the journal is off or the path too long.
    pub fn begin(&self, path: &RelPath, temp: &Name, version: SourceVersion) -> Option<u32> {
        let mut state = self.lock();
        let no = state.next_no;
        state.next_no = no.checked_add(1)?;
        let record = Record::Begin { no, path: path.clone(), temp: temp.clone(), version };
        self.append(&mut state, &[record]).then_some(no)
    }

    /// Says which blocks of file `no` are written to its temp, in one write.
    pub fn blocks(&self, no: u32, blocks: &[(u32, Digest)]) {
        let record = |&(index, digest): &(u32, Digest)| Record::Block { no, index, digest };
        let records: Vec<Record> = blocks.iter().map(record).collect();
        self.append(&mut self.lock(), &records);
    }

    /// Says that file `no` is published or given up.
    pub fn end(&self, no: u32) {
        self.append(&mut self.lock(), &[Record::End { no }]);
    }

    /// Whether this run can not be resumed, or only as far as it was before something failed.
    pub fn is_off(&self) -> bool {
        matches!(self.lock().stage, Stage::Off(_))
    }

    /// Removes the journal: nothing of this run is left to resume or to clean.
    ///
    /// Dropping it instead leaves the journal to the next run.
    pub fn close(self) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (Stage::On(journal) | Stage::Off(Some(journal))) = state.stage else { return };
        remove(&self.root, &journal.home, self.run);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is sound between any two lines that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, state: &mut State, records: &[Record]) -> bool {
        let mut bytes = Vec::new();
        if !records.iter().all(|record| record.encode(&mut bytes)) {
            return false;
        }
        if matches!(state.stage, Stage::Unwritten) {
            state.stage = match Journal::create(&self.root, self.run) {
                Ok(journal) => Stage::On(journal),
                Err(error) => off(None, &error),
            };
        }
        let Stage::On(journal) = &mut state.stage else { return false };
        let written = journal.append(&bytes);
        if let Err(error) = &written
            && let Stage::On(journal) = std::mem::take(&mut state.stage)
        {
            state.stage = off(Some(journal), error);
        }
        written.is_ok()
    }
}

fn off(journal: Option<Journal>, error: &io::Error) -> Stage {
    tracing::info!("cannot write a journal in the destination, so no resume from here: {error}");
    Stage::Off(journal)
}

/// Removes a run's journal, and the directory when no other run has one in it.
pub(super) fn remove(root: &Dir, home: &Dir, run: RunId) {
    let name = run.journal_name();
    match home.unlink(&name) {
        Err(error) if !sys::is(&error, Errno::NOENT) => {
            tracing::warn!("cannot remove the journal {name}: {error}");
        }
        _ => remove_home(root),
    }
}

/// Removes the journal directory when it is empty.
pub(super) fn remove_home(root: &Dir) {
    // Not empty: another run lives in it. Gone: another run was faster.
    let _ = root.rmdir(&journal_dir());
}

/// Opens the journal directory, if it is one that nobody else can have written to.
pub(super) fn open_home(root: &Dir) -> io::Result<Dir> {
    let home = root.open_child_nofollow(&journal_dir())?;
    let stat = home.own_stat()?;
    if stat.uid != sys::euid() || stat.mode & 0o022 != 0 {
        let why = "somebody else can write to the journal directory .fcp-journal";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(home)
}

impl Journal {
    fn create(root: &Dir, run: RunId) -> io::Result<Journal> {
        let mut tries = 1;
        loop {
            match Journal::try_create(root, run) {
                // The directory or the newborn file was removed between two of our calls.
                Err(error) if sys::is(&error, Errno::NOENT) && tries < CREATE_TRIES => tries += 1,
                done => return done,
            }
        }
    }

    fn try_create(root: &Dir, run: RunId) -> io::Result<Journal> {
        match root.mkdir(&journal_dir(), HOME_MODE) {
            Err(error) if !sys::is(&error, Errno::EXIST) => return Err(error),
            _ => {}
        }
        let created = open_home(root).and_then(|home| Journal::create_in(root, home, run));
        if created.is_err() {
            remove_home(root);
        }
        created
    }

    fn create_in(root: &Dir, home: Dir, run: RunId) -> io::Result<Journal> {
        let file = home.create_new(&run.journal_name(), JOURNAL_MODE)?;
        let mut journal = Journal { home, file, len: 0 };
        let started = journal.start(run);
        if started.is_err() {
            remove(root, &journal.home, run);
        }
        started.map(|()| journal)
    }

    fn start(&mut self, run: RunId) -> io::Result<()> {
        // A recovering run may hold the newborn: it finds it empty, removes it and lets go.
        if !self.file.try_lock()? {
            self.file.lock()?;
        }
        if self.file.stat()?.nlink == 0 {
            return Err(Errno::NOENT.into());
        }
        self.append(&header(run))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, self.len);
        match written {
            Ok(()) => self.len += bytes.len() as u64,
            // A torn record would hide all later ones. The reader copes if this fails as well.
            Err(_) => drop(self.file.set_len(self.len)),
        }
        written
    }
}
