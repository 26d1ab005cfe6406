//! What the source has announced and the sink has not finished: checks on both, names for reports.

use std::collections::{HashMap, VecDeque};

use fcp_proto::limits::{MAX_OPEN_ENTRIES, MAX_OPEN_METADATA, MAX_PATH};
use fcp_proto::packet::{Entry, FileResult, Outcome, Problem, RootMeta, WireError};
use fcp_proto::version::Agreed;
use fcp_proto::{DirId, EntryKind, ErrorCode, FileId, Flag, Name, RelPath, Violation};

use crate::transfer::{Admits, Announced, ReceiveEvent};

/// Unfinished entries above the agreed number before the source is at fault, as at a receiver.
const SLACK: usize = 4096;
/// Bytes of paths of unfinished directories.
const MAX_OPEN_PATHS: usize = MAX_PATH * MAX_OPEN_ENTRIES as usize;

/// The unfinished entries of a session, and what the user is to hear of the finished ones.
pub(super) struct Ledger {
    open_entries: usize,
    one_thing: bool,
    contents: bool,
    links: bool,
    admits: Option<Admits>,
    open: HashMap<FileId, Open>,
    next_id: u32,
    metadata: usize,
    paths: usize,
    /// Entries announced below the root, and what the first was.
    tops: u64,
    first: Option<EntryKind>,
    announced: Announced,
    events: VecDeque<ReceiveEvent>,
}

struct Open {
    parent: DirId,
    name: Name,
    kind: EntryKind,
    size: u64,
    cost: usize,
    /// Of a directory.
    path: Option<RelPath>,
    /// Of a directory: its children have all been announced.
    ended: bool,
    /// It stands for a file that changed.
    replaced: bool,
}

impl Ledger {
    pub(super) fn new(
        agreed: &Agreed,
        (one_thing, contents): (bool, bool),
        links: bool,
        admits: Option<Admits>,
    ) -> Ledger {
        Ledger {
            open_entries: agreed.open_entries as usize,
            one_thing,
            contents,
            links,
            admits,
            open: HashMap::new(),
            next_id: 0,
            metadata: 0,
            paths: 0,
            tops: 0,
            first: None,
            announced: Announced::default(),
            events: VecDeque::new(),
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<ReceiveEvent> {
        self.events.pop_front()
    }

    pub(super) fn announced(&self) -> Announced {
        self.announced
    }

    /// Whether something was announced, and the first of it was no directory.
    pub(super) fn first_is_no_dir(&self) -> bool {
        self.first.is_some_and(|kind| kind != EntryKind::Dir)
    }

    pub(super) fn announce(&mut self, entry: Entry) -> Result<(), Violation> {
        if self.announced.all {
            return Err(Violation::rule(Flag::ENTRIES, "announces something after FINISH"));
        }
        let again = entry.parent == DirId::ROOT && self.tops > 0;
        if again && self.one_thing {
            let reason = "announces more than the one thing that was asked for";
            return Err(Violation::rule(Flag::ENTRIES, reason));
        }
        self.announced.entries += 1;
        // Sizes are a peer's word: any sum of them is possible.
        self.announced.bytes = self.announced.bytes.saturating_add(entry.size());
        self.tops += u64::from(entry.parent == DirId::ROOT);
        self.first.get_or_insert(entry.kind());
        self.insert(entry, Flag::ENTRIES)
    }

    pub(super) fn end(&mut self, dir: DirId) -> Result<(), Violation> {
        match self.open.get_mut(&FileId(dir.0)) {
            Some(open) if open.kind == EntryKind::Dir && !open.ended => {
                open.ended = true;
                Ok(())
            }
            _ => Err(Violation::rule(Flag::DIRS_END, "ends what is no directory under way")),
        }
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        self.events.push_back(ReceiveEvent::Problem(problem));
    }

    pub(super) fn replace(&mut self, old: FileId, entry: Entry) -> Result<(), Violation> {
        let rule = |reason| Err(Violation::rule(Flag::REPLACED, reason));
        if old.0 >= self.next_id {
            return rule("names what was never announced");
        }
        if let Some(open) = self.open.get(&old) {
            let same_place = open.parent == entry.parent && open.name == entry.name;
            let files = open.kind == EntryKind::File && entry.kind() == EntryKind::File;
            if !(same_place && files) {
                return rule("puts something else in a file's place");
            }
            self.insert(entry, Flag::REPLACED)?;
            self.remove(old);
            return Ok(());
        }
        // The sink has finished the old one and touches nothing for the new one.
        self.check_id(entry.id, Flag::REPLACED)?;
        self.keep(entry, None, true, Flag::REPLACED)
    }

    pub(super) fn gone(&mut self, id: FileId, error: WireError) -> Result<(), Violation> {
        if id.0 >= self.next_id {
            return Err(Violation::rule(Flag::GONE, "names what was never announced"));
        }
        // The sink gives no result for it.
        if self.open.get(&id).is_some_and(|open| open.kind != EntryKind::Dir) {
            self.settle(id, Outcome::Failed(error));
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, root: RootMeta) -> Result<(), Violation> {
        if root.0.is_some() && !self.contents {
            let reason = "describes a directory whose contents were not asked for";
            return Err(Violation::rule(Flag::FINISH, reason));
        }
        if self.announced.all {
            return Err(Violation::rule(Flag::FINISH, "comes twice"));
        }
        self.announced.all = true;
        Ok(())
    }

    pub(super) fn result(&mut self, result: FileResult) -> Result<(), Violation> {
        let FileResult { file, outcome } = result;
        let rule = |reason| Err(Violation::rule(Flag::RESULTS, reason));
        if file.0 >= self.next_id {
            return rule("names what was never announced");
        }
        match self.open.get(&file) {
            Some(open) if open.kind == EntryKind::Dir && !open.ended => {
                return rule("finishes a directory that has not ended");
            }
            // One that is not here crossed with what made it void, or the source will complain.
            _ => self.settle(file, outcome),
        }
        Ok(())
    }

    /// Everything is finished; only a file that replaced a finished one can be open now.
    pub(super) fn close(&mut self) -> Result<(), Violation> {
        if !self.announced.all {
            return Err(Violation::rule(Flag::CLOSE, "comes before FINISH"));
        }
        if self.open.values().any(|open| !open.replaced) {
            return Err(Violation::rule(Flag::CLOSE, "leaves entries unfinished"));
        }
        let mut left: Vec<_> = self.open.keys().copied().collect();
        left.sort();
        for id in left {
            let error = WireError::new(ErrorCode::CHANGED, "it changed while it was finished");
            self.settle(id, Outcome::Failed(error));
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry, flag: Flag) -> Result<(), Violation> {
        let rule = |reason| Err(Violation::rule(flag, reason));
        self.check_id(entry.id, flag)?;
        let path = match entry.parent {
            DirId::ROOT => RelPath::from(entry.name.clone()),
            parent => match self.open.get(&FileId(parent.0)) {
                Some(Open { ended: true, .. }) if flag != Flag::REPLACED => {
                    return rule("announces a child of a directory that has ended");
                }
                Some(Open { path: Some(path), .. }) => path.join_unbounded(&entry.name),
                _ => return rule("names a directory that is unknown or finished"),
            },
        };
        let is_dir = entry.kind() == EntryKind::Dir;
        if entry.kind() == EntryKind::Symlink && !self.links {
            return rule("announces a symbolic link, which was not asked for");
        }
        if self.admits.as_ref().is_some_and(|admits| !admits(&path, is_dir)) {
            return rule("announces something that was not asked for");
        }
        self.keep(entry, is_dir.then_some(path), flag == Flag::REPLACED, flag)
    }

    fn check_id(&mut self, id: FileId, flag: Flag) -> Result<(), Violation> {
        if id.0 < self.next_id {
            return Err(Violation::rule(flag, "uses an id twice"));
        }
        // An entry's id is never the root's, so this does not overflow.
        self.next_id = id.0 + 1;
        Ok(())
    }

    fn keep(
        &mut self,
        entry: Entry,
        path: Option<RelPath>,
        replaced: bool,
        flag: Flag,
    ) -> Result<(), Violation> {
        let (kind, size, cost) = (entry.kind(), entry.size(), entry.cost());
        self.metadata += cost;
        self.paths += path.as_ref().map_or(0, |path| path.as_bytes().len());
        let open = Open {
            parent: entry.parent,
            name: entry.name,
            kind,
            size,
            cost,
            path,
            ended: false,
            replaced,
        };
        self.open.insert(entry.id, open);
        let too_much = self.open.len() > self.open_entries + SLACK
            || self.metadata > MAX_OPEN_METADATA + SLACK * 8192
            || self.paths > MAX_OPEN_PATHS;
        if too_much {
            return Err(Violation::rule(flag, "announces more than was agreed on"));
        }
        Ok(())
    }

    fn remove(&mut self, id: FileId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.metadata -= open.cost;
        self.paths -= open.path.as_ref().map_or(0, |path| path.as_bytes().len());
        Some(open)
    }

    fn settle(&mut self, id: FileId, outcome: Outcome) {
        let Some(open) = self.remove(id) else { return };
        let above = self.open.get(&FileId(open.parent.0)).and_then(|dir| dir.path.as_ref());
        let path = match (&open.path, above) {
            (Some(path), _) => path.clone(),
            (None, Some(above)) => above.join_unbounded(&open.name),
            (None, None) => RelPath::from(open.name),
        };
        let (kind, size) = (open.kind, open.size);
        self.events.push_back(ReceiveEvent::Finished { path, kind, size, outcome });
    }
}
