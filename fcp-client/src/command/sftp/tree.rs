//! Walks the sources, looks at what is at the destination, and gives out what is to be done.
//!
//! Many directories are listed at a time, as each listing costs round trips; a directory of the
//! destination is there before anything below it is begun, and gets its mode and time last.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use fcp_common::fs::{Kind, is_reserved};
use fcp_common::select::{RuleSet, Verdict};
use fcp_proto::packet::{Outcome, WireError};
use fcp_proto::{ErrorCode, Name, RelPath};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::again::again;
use super::destination::Destination;
use super::journal::{Journal, Partial, Version};
use super::plan::{Rules, Step};
use super::sources::Root;
use super::tell::{Tell, wire};
use crate::location::{Entry, Location, Meta, SetMeta, copy};

/// Directories that are listed at a time.
const LISTED_AT_ONCE: usize = 32;
/// From so many names on the destination is listed instead of asked for each.
const WORTH_LISTING: usize = 4;

/// What all tasks of a copy share.
pub(super) struct Shared {
    pub(super) to: Destination,
    pub(super) rules: Rules,
    pub(super) filters: RuleSet,
    pub(super) dry_run: bool,
    pub(super) durable: bool,
    pub(super) journal: Journal,
    pub(super) tell: Tell,
    /// Leaves so far, to notice that two sources have the same name; with several sources only.
    pub(super) seen: Option<Mutex<HashSet<RelPath>>>,
    /// Directories in the order in which they were found.
    pub(super) dirs: Mutex<Vec<Arc<Dir>>>,
}

/// A directory of the destination.
pub(super) struct Dir {
    pub(super) path: RelPath,
    /// What the source is, to be told; none of the destination itself.
    pub(super) shown: Option<Vec<u8>>,
    /// Whose mode and time it gets.
    pub(super) source: Option<Meta>,
    /// What was there.
    pub(super) there: Option<Meta>,
    /// Its mode or time differ.
    pub(super) differs: bool,
    /// Its mode was changed so that we can work in it.
    pub(super) widened: AtomicBool,
    /// A name in it was made or replaced, so its time is no longer what it was.
    pub(super) touched: AtomicBool,
    /// It could not be made or looked into.
    pub(super) failed: Mutex<Option<WireError>>,
}

/// Something to do with a file or link.
pub(super) struct Work {
    pub(super) root: Arc<Root>,
    /// Its path at the source.
    pub(super) from: RelPath,
    /// Its path at the destination.
    pub(super) to: RelPath,
    pub(super) dir: Arc<Dir>,
    pub(super) meta: Meta,
    /// What has its name.
    pub(super) there: Option<Meta>,
    pub(super) step: Step,
    /// What an earlier run has of it.
    pub(super) partial: Option<Partial>,
}

/// A directory of the source that is to be looked into.
struct Visit {
    root: Arc<Root>,
    from: RelPath,
    dir: Arc<Dir>,
    /// What is to happen before.
    step: Step,
}

impl Dir {
    pub(super) fn touch(&self) {
        self.touched.store(true, Relaxed);
    }

    fn new(
        path: RelPath,
        shown: Option<Vec<u8>>,
        source: Option<Meta>,
        there: Option<Meta>,
    ) -> Dir {
        let (differs, failed) = (false, Mutex::default());
        let (widened, touched) = Default::default();
        Dir { path, shown, source, there, differs, widened, touched, failed }
    }

    fn fail(&self, error: WireError) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Walks all roots; what is to be done with files and links goes to `works`.
pub(super) async fn walk(run: &Arc<Shared>, roots: Vec<Root>, works: mpsc::Sender<Work>) {
    let mut walker =
        Walker { run: Arc::clone(run), works, tasks: JoinSet::new(), waiting: Vec::new() };
    let (named, contents): (Vec<_>, Vec<_>) = roots.into_iter().partition(|r| r.named.is_some());
    let top = walker.top(contents.first()).await;
    walker.named(&top, named).await;
    for root in contents {
        // One after the other: of several that have the same names the first one counts.
        let (root, dir) = (Arc::new(root), Arc::clone(&top));
        let step = Step::EnterDir { differs: false };
        walker.visit(Visit { root, from: RelPath::root(), dir, step }).await;
        walker.drain().await;
    }
}

struct Walker {
    run: Arc<Shared>,
    works: mpsc::Sender<Work>,
    tasks: JoinSet<Vec<Visit>>,
    waiting: Vec<Visit>,
}

impl Walker {
    /// The destination itself.
    async fn top(&self, first: Option<&Root>) -> Arc<Dir> {
        let run = &self.run;
        let mut dir = Dir::new(RelPath::root(), None, None, None);
        if let Some(root) = first.filter(|_| run.rules.recursive) {
            dir.source = root.at.stat(&RelPath::root()).await.ok().flatten();
            if let Some(to) = run.to.at.as_ref().filter(|_| !run.to.made) {
                dir.there = to.stat(&RelPath::root()).await.ok().flatten();
            }
            if let (Some(source), Some(there)) = (&dir.source, &dir.there) {
                let step = run.rules.step(source, Some(there));
                dir.differs = step == Step::EnterDir { differs: true };
            }
        }
        let dir = Arc::new(dir);
        run.add_dir(&dir);
        dir
    }

    /// Things that were named. Two of the same name are worked on in their order.
    async fn named(&mut self, top: &Arc<Dir>, roots: Vec<Root>) {
        let run = Arc::clone(&self.run);
        let mut there = match run.there_for(&roots).await {
            Ok(there) => there,
            Err(error) => return run.tell.unseen(b".".to_vec(), &error),
        };
        let mut begun = HashSet::new();
        for root in roots {
            let Some((name, meta)) = root.named.clone() else { continue };
            if !begun.insert(name.clone()) {
                self.drain().await;
            }
            let root = Arc::new(root);
            let to = run.to.rename.clone().unwrap_or_else(|| name.clone());
            let place = Place { root: &root, from: &RelPath::root(), dir: top };
            let entry = Entry { name, meta };
            let old = there.get(&to).copied();
            if meta.kind == Kind::Dir && old.is_some_and(|old| old.kind == Kind::Symlink) {
                // Of two directories of one name the first has made room.
                there.remove(&to);
            }
            if let Some(visit) = run.entry(&place, entry, to, old, &self.works).await {
                self.visit(visit).await;
            }
        }
        self.drain().await;
    }

    async fn visit(&mut self, visit: Visit) {
        self.waiting.push(visit);
        self.start();
        while self.tasks.len() >= LISTED_AT_ONCE {
            self.one().await;
        }
    }

    async fn drain(&mut self) {
        while !self.tasks.is_empty() {
            self.one().await;
        }
    }

    async fn one(&mut self) {
        if let Some(Ok(found)) = self.tasks.join_next().await {
            // The next of a directory's first: then little waits.
            self.waiting.extend(found.into_iter().rev());
        }
        self.start();
    }

    fn start(&mut self) {
        while self.tasks.len() < LISTED_AT_ONCE {
            let Some(visit) = self.waiting.pop() else { return };
            let (run, works) = (Arc::clone(&self.run), self.works.clone());
            self.tasks.spawn(async move { run.look_into(visit, &works).await });
        }
    }
}

/// Where entries of a listing are.
struct Place<'a> {
    root: &'a Arc<Root>,
    from: &'a RelPath,
    dir: &'a Arc<Dir>,
}

impl Shared {
    /// What is at the destination of things that were named.
    async fn there_for(&self, roots: &[Root]) -> crate::location::Result<HashMap<Name, Meta>> {
        let Some(at) = self.to.at.as_ref().filter(|_| !self.to.made) else {
            return Ok(HashMap::new());
        };
        if roots.len() >= WORTH_LISTING || (!roots.is_empty() && self.journal.has_dead()) {
            let listing = at.list(&RelPath::root()).await?;
            return Ok(self.known(at, &RelPath::root(), listing.entries).await);
        }
        let mut there = HashMap::new();
        for (name, _) in roots.iter().filter_map(|root| root.named.as_ref()) {
            let name = self.to.rename.as_ref().unwrap_or(name);
            if let Some(meta) = at.stat(&RelPath::from(name.clone())).await? {
                there.insert(name.clone(), meta);
            }
        }
        Ok(there)
    }

    /// Looks into a directory, after it was made where it is to be.
    async fn look_into(&self, visit: Visit, works: &mpsc::Sender<Work>) -> Vec<Visit> {
        let Visit { root, from, dir, step } = visit;
        if self.tell.is_over() {
            return Vec::new();
        }
        if let Err(error) = again(|| self.prepare(&dir, &step)).await {
            self.tell.note_fatal(&error);
            dir.fail(wire(&error));
            return Vec::new();
        }
        let (listed, there) =
            tokio::join!(again(|| root.at.list(&from)), again(|| self.there(&dir, &step)));
        let (listed, there) = match (listed, there) {
            (Ok(listed), Ok(there)) => (listed, there),
            (Err(error), _) => {
                self.tell.unseen(root.show(&from), &error);
                return Vec::new();
            }
            (_, Err(error)) => {
                self.tell.note_fatal(&error);
                dir.fail(wire(&error));
                return Vec::new();
            }
        };
        for refused in listed.refused {
            let mut path = root.show(&from);
            path.extend([b"/".as_slice(), &refused.name].concat());
            let text = format!("a name that cannot be used: {}", refused.why);
            self.tell.problem(path, WireError::new(ErrorCode::NAME, text));
        }
        let mut entries = listed.entries;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let place = Place { root: &root, from: &from, dir: &dir };
        let mut visits = Vec::new();
        for entry in entries {
            let old = there.get(&entry.name).copied();
            let to = entry.name.clone();
            visits.extend(self.entry(&place, entry, to, old, works).await);
        }
        visits
    }

    /// Makes a directory, or makes sure that we can work in it.
    async fn prepare(&self, dir: &Dir, step: &Step) -> crate::location::Result<()> {
        let Some(at) = self.to.at.as_ref().filter(|_| !self.dry_run) else { return Ok(()) };
        match step {
            Step::MakeDir { clear } => {
                if *clear {
                    copy::discard(at, &dir.path).await?;
                }
                at.make_dirs(&dir.path).await?;
                dir.touch();
                self.close_to_others(at, dir).await
            }
            _ => self.widen(at, dir).await,
        }
    }

    /// What others may not see at last they may not see before.
    async fn close_to_others(&self, at: &Location, dir: &Dir) -> crate::location::Result<()> {
        let Some(mode) = dir.source.and_then(|meta| meta.mode).filter(|_| self.rules.perms) else {
            return Ok(());
        };
        if mode & 0o055 == 0o055 {
            return Ok(());
        }
        let meta = SetMeta { mode: Some((mode & 0o777) | 0o700), mtime: None };
        at.set_meta(&dir.path, meta).await
    }

    async fn widen(&self, at: &Location, dir: &Dir) -> crate::location::Result<()> {
        let Some(mode) = dir.there.and_then(|meta| meta.mode) else { return Ok(()) };
        if mode & 0o700 == 0o700 || dir.path.is_root() {
            return Ok(());
        }
        let meta = SetMeta { mode: Some((mode & 0o777) | 0o700), mtime: None };
        at.set_meta(&dir.path, meta).await?;
        dir.widened.store(true, Relaxed);
        Ok(())
    }

    /// What is in a directory of the destination.
    async fn there(&self, dir: &Dir, step: &Step) -> crate::location::Result<HashMap<Name, Meta>> {
        let is_new = matches!(step, Step::MakeDir { .. }) || (dir.path.is_root() && self.to.made);
        match &self.to.at {
            Some(at) if !is_new => {
                let listing = at.list(&dir.path).await?;
                Ok(self.known(at, &dir.path, listing.entries).await)
            }
            _ => Ok(HashMap::new()),
        }
    }

    /// A listing without what dead runs left in it, which is removed unless it can be gone on with.
    async fn known(
        &self,
        at: &Location,
        dir: &RelPath,
        entries: Vec<Entry>,
    ) -> HashMap<Name, Meta> {
        let mut there = HashMap::with_capacity(entries.len());
        for entry in entries {
            if self.journal.is_dead(&entry.name) {
                let temp = dir.join_unbounded(&entry.name);
                if !self.dry_run && !self.journal.may_resume(&temp) {
                    let _ = at.remove(&temp).await;
                }
                continue;
            }
            there.insert(entry.name, entry.meta);
        }
        there
    }

    /// Decides about an entry; a directory to look into is given back.
    async fn entry(
        &self,
        place: &Place<'_>,
        entry: Entry,
        to: Name,
        there: Option<Meta>,
        works: &mpsc::Sender<Work>,
    ) -> Option<Visit> {
        let Entry { name, meta } = entry;
        let from = place.from.join_unbounded(&name);
        let wanted = place.dir.path.join_unbounded(&name);
        if self.filters.decide(&wanted, meta.kind == Kind::Dir) == Verdict::Exclude {
            return None;
        }
        let shown = place.root.show(&from);
        if is_reserved(&name) {
            self.tell.skipped(shown, "temporary file of fcp");
            return None;
        }
        let to = place.dir.path.join_unbounded(&to);
        let step = self.rules.step(&meta, there.as_ref());
        if let Step::Skip(why) = step {
            self.tell.skipped(shown, why);
            return None;
        }
        if meta.kind != Kind::Dir && !self.is_first(&to) {
            let error = WireError::new(ErrorCode::COLLISION, "another source has this name");
            self.tell.problem(shown, error);
            return None;
        }
        if meta.kind == Kind::Dir && self.is_destination(place.root, &from) {
            return self.skip_destination(shown);
        }
        self.tell.announced(&meta);
        let (root, dir) = (Arc::clone(place.root), Arc::clone(place.dir));
        match step {
            Step::Fail(error) => self.tell.done(shown, &meta, Outcome::Failed(error)),
            Step::MakeDir { .. } | Step::EnterDir { .. } => {
                if matches!(step, Step::MakeDir { .. }) {
                    dir.touch();
                }
                let mut dir = Dir::new(to, Some(shown), Some(meta), there.filter(is_dir));
                dir.differs = step == Step::EnterDir { differs: true };
                let dir = Arc::new(dir);
                self.add_dir(&dir);
                return Some(Visit { root, from, dir, step });
            }
            step => {
                let partial = self.partial(&root, &from, &to, &meta, &step);
                let work = Work { root, from, to, dir, meta, there, step, partial };
                // Whoever does the work is gone only when all is over.
                let _ = works.send(work).await;
            }
        }
        None
    }

    /// Whether a directory of the source is where the copy goes: it would never end.
    fn is_destination(&self, root: &Root, from: &RelPath) -> bool {
        let Some(to) = &self.to.at else { return false };
        let (source, to) = (root.at.name(), to.name());
        let below = to.strip_prefix(source).map(|below| below.trim_start_matches('/'));
        below.is_some_and(|below| below == from.to_string() && (from.is_root() || to != source))
    }

    fn skip_destination(&self, shown: Vec<u8>) -> Option<Visit> {
        // One that was made for this is no surprise.
        if !self.to.made {
            let text = "it is the destination, and is not copied into itself";
            self.tell.problem(shown, WireError::new(ErrorCode::COLLISION, text));
        }
        None
    }

    fn partial(
        &self,
        root: &Root,
        from: &RelPath,
        to: &RelPath,
        meta: &Meta,
        step: &Step,
    ) -> Option<Partial> {
        if self.dry_run || !matches!(step, Step::Copy { .. } | Step::Compare(_)) {
            return None;
        }
        self.journal.take(to, &Version::of(root.at.name(), from, meta)?)
    }

    fn is_first(&self, path: &RelPath) -> bool {
        let Some(seen) = &self.seen else { return true };
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone())
    }

    fn add_dir(&self, dir: &Arc<Dir>) {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(dir));
    }
}

fn is_dir(meta: &Meta) -> bool {
    meta.kind == Kind::Dir
}
