//! Announcements: directories and their children, from the first to the last.

use fcp_proto::limits::{MAX_DEPTH, MAX_OPEN_ENTRIES, MAX_OPEN_METADATA, MAX_PATH};
use fcp_proto::packet::{Entry, EntryBody, FileResult, Outcome, WireError};
use fcp_proto::{DirId, EntryKind, ErrorCode, FileId, Flag, RelPath, Timestamp, Violation};

use super::Receiver;
use super::types::{Action, Done, File, RootRule, State};

/// Unfinished entries above the agreed number before the peer is at fault: a batch may be under
/// way when the sender notices that it must wait.
const SLACK: usize = 4096;
/// Bytes of paths of unfinished directories: as long as the kernel takes them, each. Without it a
/// chain of long names would take the square of what it announces.
const MAX_OPEN_PATHS: usize = MAX_PATH * MAX_OPEN_ENTRIES as usize;

/// An unfinished directory.
pub(super) struct Dir<D> {
    /// `None` for the root.
    entry: Option<Entry>,
    path: RelPath,
    depth: usize,
    state: DirState<D>,
    /// Children that are announced and unfinished.
    open: u32,
    /// Children announced so far.
    announced: u64,
    /// All children have been announced.
    ended: bool,
    /// Children that wait for the directory to be made.
    waiting: Vec<FileId>,
    /// Whether its metadata must be set at the end.
    dirty: bool,
    /// Permission bits that were widened so that it can be filled.
    narrow: Option<u16>,
    /// Its metadata is being set.
    finishing: bool,
    outcome: Outcome,
}

enum DirState<D> {
    Making,
    Ready(D),
    Failed(WireError),
}

/// How the caller found or made a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeDir {
    /// It did not exist before.
    pub created: bool,
    /// Permission bits before anything was touched.
    pub mode: u16,
    /// Modification time before anything was touched.
    pub mtime: Timestamp,
    /// Its permission bits had to be widened so that it can be filled.
    pub widened: bool,
}

impl<D> Dir<D> {
    /// Whether children may still be announced; the root ends with FINISH.
    pub(super) fn is_growing(&self) -> bool {
        !self.ended && self.entry.is_some()
    }

    pub(super) fn root() -> Dir<D> {
        Dir::with_state(None, RelPath::root(), 0, DirState::Making)
    }

    fn with_state(entry: Option<Entry>, path: RelPath, depth: usize, state: DirState<D>) -> Dir<D> {
        Dir {
            entry,
            path,
            depth,
            state,
            open: 0,
            announced: 0,
            ended: false,
            waiting: Vec::new(),
            dirty: false,
            narrow: None,
            finishing: false,
            outcome: Outcome::Same,
        }
    }
}

impl<D: Clone, F: Clone> Receiver<D, F> {
    /// The destination is open: what its rule for names is, and whether an earlier run left blocks.
    pub fn handle_root_opened(&mut self, handle: D, rule: RootRule, recover: bool) {
        self.root_rule = rule;
        self.recover = recover;
        self.root_asked = true;
        let Some(root) = self.dirs.get_mut(&DirId::ROOT) else { return };
        root.state = DirState::Ready(handle);
        for child in std::mem::take(&mut root.waiting) {
            self.start(child);
        }
        self.finish_if_done(DirId::ROOT);
    }

    /// The destination is needed: `single` if one thing comes that is not a directory.
    pub(super) fn ask_root(&mut self, single: bool) {
        if !std::mem::replace(&mut self.root_asked, true) {
            self.actions.push_back(Action::OpenRoot { single });
        }
    }

    /// Nothing was announced, so the destination was never needed.
    pub(super) fn forget_root_if_unused(&mut self) {
        if !self.root_asked {
            self.dirs.remove(&DirId::ROOT);
        }
    }

    /// A directory is there, or could not be made.
    pub fn handle_dir_made(&mut self, dir: DirId, made: Result<(D, MadeDir), WireError>) {
        self.set_made(dir, made);
        // A failure goes down the tree, which may be deeper than the stack.
        let mut ready = vec![dir];
        while let Some(dir) = ready.pop() {
            let Some(d) = self.dirs.get_mut(&dir) else { continue };
            let children = std::mem::take(&mut d.waiting);
            ready.extend(children.into_iter().filter_map(|child| self.start(child)));
            self.finish_if_done(dir);
        }
    }

    /// A directory's metadata is set, or could not be.
    pub fn handle_dir_finished(&mut self, dir: DirId, done: Done) {
        if let Some(d) = self.dirs.get_mut(&dir) {
            if let Err(error) = done {
                d.outcome = Outcome::Failed(error);
            }
            (d.dirty, d.finishing) = (false, false);
            self.finish_if_done(dir);
        }
    }

    pub(super) fn handle_entry(&mut self, entry: Entry, flag: Flag) -> Result<(), Violation> {
        let rule = |reason| Err(Violation::rule(flag, reason));
        if entry.id.0 < self.next_id {
            return rule("uses an id twice");
        }
        let Some(parent) = self.dirs.get_mut(&entry.parent) else {
            return rule("names a directory that is unknown or finished");
        };
        if parent.ended && flag != Flag::REPLACED {
            return rule("announces a child of a directory that has ended");
        }
        let again = parent.announced > 0 && flag != Flag::REPLACED;
        if entry.parent == DirId::ROOT && self.config.one_thing && again {
            return rule("announces more than the one thing that was asked for");
        }
        let path = parent.path.join_unbounded(&entry.name);
        let depth = parent.depth + 1;
        if entry.kind() == EntryKind::Symlink && !self.config.links {
            return rule("announces a symbolic link, which was not asked for");
        }
        if let Some(admits) = &self.config.admits
            && !admits(&path, entry.kind() == EntryKind::Dir)
        {
            return rule("announces something that was not asked for");
        }
        parent.open += 1;
        parent.announced += 1;
        if entry.parent == DirId::ROOT {
            self.ask_root(entry.kind() != EntryKind::Dir);
        }
        if flag != Flag::REPLACED {
            self.announced.entries += 1;
            // Sizes are a peer's word: any sum of them is possible.
            self.announced.bytes = self.announced.bytes.saturating_add(entry.size());
        }
        self.next_id = entry.id.0 + 1;
        self.charge(&entry, flag)?;
        let id = entry.id;
        if entry.kind() == EntryKind::Dir {
            self.paths += path.as_bytes().len();
            if self.paths > MAX_OPEN_PATHS {
                return rule("nests too many directories too deeply");
            }
            let dir = Dir::with_state(Some(entry), path, depth, DirState::Making);
            self.dirs.insert(id.into(), dir);
        } else {
            self.files.insert(id, File::new(entry));
        }
        self.start(id);
        Ok(())
    }

    pub(super) fn handle_dir_end(&mut self, dir: DirId) -> Result<(), Violation> {
        let flag = Flag::DIRS_END;
        let Some(d) = self.dirs.get_mut(&dir) else {
            return Err(Violation::rule(flag, "ends a directory that is unknown or finished"));
        };
        if std::mem::replace(&mut d.ended, true) {
            return Err(Violation::rule(flag, "ends a directory twice"));
        }
        self.finish_if_done(dir);
        Ok(())
    }

    pub(super) fn handle_replaced(&mut self, old: FileId, entry: Entry) -> Result<(), Violation> {
        let flag = Flag::REPLACED;
        // One that is getting its final name stays: two versions must not race for it.
        let Some(file) = self.files.get(&old).filter(|f| !f.is_publishing()) else {
            return self.replaced_too_late(old, entry);
        };
        let renamed = entry.parent == DirId::ROOT && self.root_rule != RootRule::Keep;
        let same_name = file.entry.name == entry.name || renamed;
        let same_place =
            file.entry.parent == entry.parent && same_name && entry.kind() == EntryKind::File;
        if !same_place {
            return Err(Violation::rule(flag, "puts something else in a file's place"));
        }
        self.handle_entry(entry, flag)?;
        self.forget(old);
        Ok(())
    }

    pub(super) fn handle_gone(&mut self, id: FileId, error: WireError) -> Result<(), Violation> {
        if id.0 >= self.next_id {
            return Err(Violation::rule(Flag::GONE, "names what was never announced"));
        }
        if let Some(file) = self.files.get(&id).filter(|f| !f.is_publishing()) {
            // The sender has forgotten it: settle it here without an answer.
            let entry = file.entry.clone();
            self.discard(id);
            self.settle(id, &entry, Outcome::Failed(error));
            self.results.retain(|r: &FileResult| r.file != id);
        }
        Ok(())
    }

    pub(super) fn child_done(&mut self, parent: DirId) {
        if let Some(d) = self.dirs.get_mut(&parent) {
            d.open = d.open.saturating_sub(1);
            self.finish_if_done(parent);
        }
    }

    /// Something in `parent` was touched, so its mtime is no longer what it was.
    pub(super) fn touch(&mut self, parent: DirId) {
        if let Some(d) = self.dirs.get_mut(&parent) {
            d.dirty = true;
        }
    }

    /// The path of `entry` below the root, as far as its directory is still known.
    pub(super) fn path_of(&self, entry: &Entry) -> RelPath {
        match self.dirs.get(&entry.parent) {
            Some(d) => d.path.join_unbounded(&entry.name),
            None => RelPath::from(entry.name.clone()),
        }
    }

    fn charge(&mut self, entry: &Entry, flag: Flag) -> Result<(), Violation> {
        self.metadata += entry.cost();
        let open = self.files.len() + self.dirs.len();
        if open > self.agreed.open_entries as usize + SLACK
            || self.metadata > MAX_OPEN_METADATA + SLACK * 8192
        {
            return Err(Violation::rule(flag, "announces more than was agreed on"));
        }
        Ok(())
    }

    /// Begins an entry whose directory is there, or fails it with its directory; the answer is a
    /// directory that failed and whose children must be looked at.
    fn start(&mut self, id: FileId) -> Option<DirId> {
        let dir_entry = self.dirs.get(&id.into()).and_then(|d| d.entry.as_ref());
        let entry = dir_entry.or(self.files.get(&id).map(|f| &f.entry)).cloned()?;
        let parent = self.dirs.get_mut(&entry.parent)?;
        let handle = match &parent.state {
            DirState::Making => {
                parent.waiting.push(id);
                return None;
            }
            DirState::Ready(handle) => handle.clone(),
            DirState::Failed(error) => {
                let error = WireError::new(error.code, "its directory could not be made");
                return self.fail_start(id, error);
            }
        };
        if parent.depth >= MAX_DEPTH {
            return self.fail_start(id, WireError::new(ErrorCode::NAME, "nested too deeply"));
        }
        self.act(entry, handle);
        None
    }

    fn fail_start(&mut self, id: FileId, error: WireError) -> Option<DirId> {
        let dir = DirId::from(id);
        if self.dirs.contains_key(&dir) {
            self.set_made(dir, Err(error));
            return Some(dir);
        }
        self.fail(id, error);
        None
    }

    fn set_made(&mut self, dir: DirId, made: Result<(D, MadeDir), WireError>) {
        let Some(d) = self.dirs.get_mut(&dir) else { return };
        match made {
            Ok((handle, made)) => {
                let meta = d.entry.as_ref().map(|e| (e.mode & 0o777, e.mtime));
                let differs = meta.is_some_and(|(mode, mtime)| {
                    (self.config.perms && mode != made.mode)
                        || (self.config.times && mtime != made.mtime)
                });
                d.dirty = made.created || made.widened || differs;
                d.narrow = made.widened.then_some(made.mode);
                d.outcome = match (made.created, differs) {
                    (true, _) => Outcome::Created,
                    (false, true) => Outcome::Metadata,
                    (false, false) => Outcome::Same,
                };
                d.state = DirState::Ready(handle);
            }
            Err(error) => {
                d.outcome = Outcome::Failed(error.clone());
                d.state = DirState::Failed(error);
            }
        }
    }

    fn act(&mut self, mut entry: Entry, parent: D) {
        if let (DirId::ROOT, RootRule::Single(name)) = (entry.parent, &self.root_rule) {
            entry.name = name.clone();
        }
        let (id, name, bits) = (entry.id, entry.name.clone(), entry.mode & 0o777);
        if let Some(file) = self.files.get_mut(&id) {
            file.state = State::Disk;
            file.entry.name = name.clone();
        }
        let version = entry.version();
        let action = match entry.body {
            EntryBody::Dir => {
                let mode = if self.config.perms { bits } else { bits & !self.config.umask };
                let dir = DirId::from(id);
                let path = self.dirs.get(&dir).map(|d| d.path.clone()).unwrap_or_default();
                Action::MakeDir { dir, parent, name, path, mode }
            }
            EntryBody::File { .. } => Action::Inspect { file: id, parent, name, version },
            EntryBody::Symlink { .. } if !self.config.links => {
                let text = "symbolic links were not asked for";
                return self.fail(id, WireError::new(ErrorCode::SPECIAL, text));
            }
            EntryBody::Symlink { target } => {
                let mtime = self.config.times.then_some(entry.mtime);
                Action::Link { file: id, parent, name, target, mtime }
            }
        };
        self.actions.push_back(action);
    }

    /// Finishes a directory whose children are all finished, then perhaps the one above it, and so
    /// on: a loop, as trees may be deeper than the stack.
    fn finish_if_done(&mut self, dir: DirId) {
        let mut next = Some(dir);
        while let Some(dir) = next {
            next = None;
            if let Some(d) = self.dirs.get(&dir)
                && d.ended
                && d.open == 0
                && !d.finishing
                && !matches!(d.state, DirState::Making)
            {
                next = self.finish_dir(dir);
            }
        }
    }

    /// Sets what a directory still needs; without need it is settled, and the answer is its parent,
    /// which has a child less.
    fn finish_dir(&mut self, dir: DirId) -> Option<DirId> {
        let d = self.dirs.get_mut(&dir)?;
        if let (DirState::Ready(handle), Some(entry), true) = (&d.state, &d.entry, d.dirty)
            && !self.config.dry_run
        {
            let mut meta = self.config.dir_meta(entry.mode, entry.mtime);
            if d.outcome == Outcome::Created && meta.mode.is_none() {
                meta.mode = Some(entry.mode & 0o777 & !self.config.umask);
            }
            meta.mode = meta.mode.or(d.narrow);
            d.finishing = true;
            self.actions.push_back(Action::FinishDir { dir, handle: handle.clone(), meta });
            return None;
        }
        let d = self.dirs.remove(&dir)?;
        self.paths -= d.path.as_bytes().len();
        let entry = d.entry?;
        if d.outcome == Outcome::Created {
            self.touch(entry.parent);
        }
        self.record(entry.id, &entry, d.outcome);
        let parent = self.dirs.get_mut(&entry.parent)?;
        parent.open = parent.open.saturating_sub(1);
        Some(entry.parent)
    }

    fn replaced_too_late(&mut self, old: FileId, entry: Entry) -> Result<(), Violation> {
        if old.0 >= self.next_id || entry.id.0 < self.next_id {
            return Err(Violation::rule(Flag::REPLACED, "names what was never announced"));
        }
        self.next_id = entry.id.0 + 1;
        if self.closed {
            return Ok(());
        }
        let error = WireError::new(ErrorCode::CHANGED, "it changed while it was finished");
        self.metadata += entry.cost();
        self.record(entry.id, &entry, Outcome::Failed(error));
        Ok(())
    }

    /// Drops a file; its directory no longer waits for it.
    fn forget(&mut self, id: FileId) {
        if let Some(entry) = self.discard(id) {
            self.metadata = self.metadata.saturating_sub(entry.cost());
            self.child_done(entry.parent);
        }
    }

    /// Drops a file and its temporary content.
    fn discard(&mut self, id: FileId) -> Option<Entry> {
        let file = self.files.remove(&id)?;
        if let Some(handle) = file.handle {
            self.touch(file.entry.parent);
            self.actions.push_back(Action::Discard { handle });
        }
        Some(file.entry)
    }
}
