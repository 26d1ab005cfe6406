//! One file or link: compared where that must be, staged, proven, published.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fcp_proto::packet::{Outcome, WireError};
use fcp_proto::{ErrorCode, RelPath};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::again::{PAUSE, TRIES, again};
use super::journal::{Partial, Version};
use super::plan::Step;
use super::tell::wire;
use super::tree::{Shared, Work};
use crate::location::copy::{self, Proof, Stage, StageOptions, Watch};
use crate::location::{
    Digest, DigestKind, Location, LocationError, Meta, Op, Reason, Result, SetMeta, Source,
};

/// Files on their way at a time: small ones cost round trips, not bytes.
pub(super) const FILES: usize = 64;
/// Of these a file takes one for each so many bytes, so that large ones are few.
const WEIGHT: u64 = 1 << 20;
/// The most that one file takes.
const HEAVIEST: u64 = 16;
/// From so many bytes on a file goes in ranges at the same time, and can be gone on with.
const LARGE: u64 = 16 << 20;
/// Length of such a range in bytes.
const RANGE: u64 = 8 << 20;
/// Ranges of one file at a time.
const RANGES: usize = 4;
/// From so many bytes on a host is asked for a digest before the content is.
const WORTH_ASKING: u64 = 1 << 20;

/// Does all that comes until there is no more.
pub(super) async fn work(
    run: &Arc<Shared>,
    mut works: mpsc::Receiver<Work>,
    places: &Arc<Semaphore>,
) {
    let mut tasks = JoinSet::new();
    while let Some(work) = works.recv().await {
        if run.tell.is_over() {
            continue;
        }
        let weight = (work.meta.size / WEIGHT).clamp(1, HEAVIEST);
        let weight = u32::try_from(weight).unwrap_or(1);
        // It is never closed.
        let Ok(place) = Arc::clone(places).acquire_many_owned(weight).await else { return };
        let run = Arc::clone(run);
        tasks.spawn(async move {
            run.one(work).await;
            drop(place);
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

impl Shared {
    async fn one(self: &Arc<Self>, work: Work) {
        let done = match (&self.to.at, &work.step) {
            (Some(to), Step::Link { .. } | Step::CompareLink { .. }) => self.link(to, &work).await,
            (Some(to), _) => self.file(to, &work).await,
            (None, _) => Ok(Outcome::Created),
        };
        let outcome = done.unwrap_or_else(|error| {
            // What broke the connection broke no file.
            let _ = self.tell.note_fatal(&error);
            Outcome::Failed(blame(&work, &error))
        });
        if self.tell.is_over() && matches!(outcome, Outcome::Failed(_)) {
            return;
        }
        self.tell.done(work.root.show(&work.from), &work.meta, outcome);
    }

    async fn file(self: &Arc<Self>, to: &Location, work: &Work) -> Result<Outcome> {
        match &work.step {
            Step::Same => Ok(Outcome::Same),
            Step::Touch(meta) => self.touch(to, work, *meta).await,
            Step::Compare(meta) => {
                if again(|| is_same(work, to)).await? {
                    return match *meta == SetMeta::default() {
                        true => Ok(Outcome::Same),
                        false => self.touch(to, work, *meta).await,
                    };
                }
                let whole = self.whole_meta(work);
                self.copy(to, work, whole, true).await
            }
            Step::Copy { meta, replaces } => self.copy(to, work, *meta, *replaces).await,
            // Others are no work for here.
            _ => Ok(Outcome::Same),
        }
    }

    async fn touch(&self, to: &Location, work: &Work, meta: SetMeta) -> Result<Outcome> {
        if !self.dry_run {
            again(|| to.set_meta(&work.to, meta)).await?;
        }
        Ok(Outcome::Metadata)
    }

    /// What a copy is to have that takes the place of a file of other content.
    fn whole_meta(&self, work: &Work) -> SetMeta {
        let longer = work.there.map(|there| Meta { size: there.size.wrapping_add(1), ..there });
        match self.rules.step(&work.meta, longer.as_ref()) {
            Step::Copy { meta, .. } => meta,
            _ => SetMeta { mode: work.meta.mode, mtime: self.rules.kept_time(&work.meta) },
        }
    }

    async fn copy(
        self: &Arc<Self>,
        to: &Location,
        work: &Work,
        meta: SetMeta,
        replaces: bool,
    ) -> Result<Outcome> {
        let outcome = if replaces { Outcome::Replaced } else { Outcome::Created };
        if self.dry_run {
            return Ok(outcome);
        }
        let mut at = match self.usable(to, work.partial.clone()).await {
            Some(partial) => Attempt::of(partial, work.meta),
            None => self.begin(work, work.meta),
        };
        let mut seen = work.there;
        for again in 1.. {
            let error = match self.attempt(to, work, &at, meta, seen).await {
                Ok(()) => return Ok(outcome),
                Err(error) if again >= TRIES || self.tell.is_over() => return Err(error),
                Err(error) => error,
            };
            match error.reason {
                Reason::Changed if error.op != Op::Rename => {
                    // It is copied as it is now.
                    let listed = work.root.at.stat(&work.from).await?.unwrap_or(at.listed);
                    at = self.begin(work, listed);
                }
                // What an earlier run left cannot be used, or is not its own any more.
                _ if at.resumed && is_of_temp(&error, to) => at = self.begin(work, at.listed),
                Reason::Exists if error.op == Op::Create => at = self.begin(work, at.listed),
                reason if reason.is_transient() => {
                    tokio::time::sleep(PAUSE * again).await;
                    at = self.go_on(work, at);
                    // It may be the last try itself that has the name by now.
                    seen = to.stat(&work.to).await?;
                }
                _ => return Err(error),
            }
        }
        Ok(outcome)
    }

    fn begin(&self, work: &Work, listed: Meta) -> Attempt {
        let temp = self.temp_beside(&work.to);
        let version = Version::of(work.root.at.name(), &work.from, &listed);
        if let Some(version) = version.filter(|_| listed.size >= LARGE) {
            let begun = Partial { temp: temp.clone(), version, ranges: Vec::new() };
            self.journal.begin(&work.to, &begun);
        }
        Attempt { listed, temp, done: Done::default(), resumed: false }
    }

    /// What an earlier run left, if it is worth going on with; otherwise it goes away.
    async fn usable(&self, to: &Location, partial: Option<Partial>) -> Option<Partial> {
        let partial = partial?;
        if !partial.ranges.is_empty() {
            return Some(partial);
        }
        match copy::discard(to, &partial.temp).await {
            Ok(()) => self.journal.end(&partial.temp),
            // At the end it is tried again.
            Err(_) => self.journal.discard(partial.temp),
        }
        None
    }

    /// After the connection broke: what is written of a large file stays, all else begins anew.
    fn go_on(&self, work: &Work, at: Attempt) -> Attempt {
        if !at.done().is_empty() {
            return at;
        }
        // It may be there, and cannot be removed now.
        self.journal.discard(at.temp);
        self.begin(work, at.listed)
    }

    /// Stages and publishes once.
    async fn attempt(
        self: &Arc<Self>,
        to: &Location,
        work: &Work,
        at: &Attempt,
        meta: SetMeta,
        seen: Option<Meta>,
    ) -> Result<()> {
        let meta = SetMeta { mtime: self.rules.kept_time(&at.listed), ..meta };
        let staged = match self.stage(to, work, at, meta).await {
            Ok(staged) => staged,
            Err(error) => return Err(self.not_staged(to, &at.temp, error).await),
        };
        self.tell.kept(staged.resumed);
        if let Err(error) = copy::publish(to, &at.temp, &work.to, seen).await {
            return Err(self.not_staged(to, &at.temp, error).await);
        }
        work.dir.touch();
        if at.listed.size >= LARGE {
            self.journal.end(&at.temp);
        }
        Ok(())
    }

    async fn stage(
        self: &Arc<Self>,
        to: &Location,
        work: &Work,
        at: &Attempt,
        meta: SetMeta,
    ) -> Result<copy::Staged> {
        let options = StageOptions {
            large: LARGE,
            resume_from: LARGE,
            chunk: RANGE,
            streams: RANGES,
            proof: Proof::Size,
            durable: self.durable,
            meta,
        };
        let watcher = Watcher {
            run: Arc::clone(self),
            to: work.to.clone(),
            temp: at.temp.clone(),
            version: Version::of(work.root.at.name(), &work.from, &at.listed),
            done: Arc::clone(&at.done),
        };
        let stage = Stage {
            from: &work.root.at,
            source: &work.from,
            listed: at.listed,
            to,
            temp: &at.temp,
            options: &options,
            done: at.done().clone(),
            watch: Arc::new(watcher),
        };
        copy::stage(stage).await
    }

    /// After a failure that is no broken connection a temp is of no use.
    async fn not_staged(
        &self,
        to: &Location,
        temp: &RelPath,
        error: LocationError,
    ) -> LocationError {
        let not_ours = error.op == Op::Create && error.reason == Reason::Exists;
        if !not_ours && !error.is_transient() && error.reason != Reason::Cancelled {
            // What failed is the news; the next run finds what stays.
            if copy::discard(to, temp).await.is_ok() {
                self.journal.end(temp);
            }
        }
        error
    }

    async fn link(&self, to: &Location, work: &Work) -> Result<Outcome> {
        let content = again(|| work.root.at.read_link(&work.from)).await?;
        let replaces = match work.step {
            Step::Link { replaces } => replaces,
            Step::CompareLink { differs } if to.read_link(&work.to).await? == content => {
                return self.touch_link(to, work, differs).await;
            }
            _ => true,
        };
        let outcome = if replaces { Outcome::Replaced } else { Outcome::Created };
        if self.dry_run {
            return Ok(outcome);
        }
        let made = if replaces { self.temp_beside(&work.to) } else { work.to.clone() };
        to.symlink(&content, &made).await?;
        self.set_link_time(to, work, &made).await?;
        if replaces {
            let published = to.replace(&made, &work.to).await;
            if let Err(error) = published {
                return Err(self.not_staged(to, &made, error).await);
            }
        }
        work.dir.touch();
        Ok(outcome)
    }

    async fn touch_link(&self, to: &Location, work: &Work, differs: bool) -> Result<Outcome> {
        if !differs {
            return Ok(Outcome::Same);
        }
        if self.dry_run || self.set_link_time(to, work, &work.to).await? {
            return Ok(Outcome::Metadata);
        }
        Ok(Outcome::Same)
    }

    /// Sets a link's own time; whether the place can do that.
    async fn set_link_time(&self, to: &Location, work: &Work, link: &RelPath) -> Result<bool> {
        let mtime = self.rules.kept_time(&work.meta);
        if mtime.is_none() {
            return Ok(false);
        }
        match to.set_meta(link, SetMeta { mode: None, mtime }).await {
            // Few servers can, and a link works with any time.
            Err(error) if error.reason == Reason::Unsupported => Ok(false),
            done => done.map(|()| true),
        }
    }

    fn temp_beside(&self, path: &RelPath) -> RelPath {
        let name = self.journal.temp_name();
        match path.split_last() {
            Some((dir, _)) => dir.join_unbounded(&name),
            None => name.into(),
        }
    }
}

/// Says who is to blame: what vanished at the source is no error of the destination.
fn blame(work: &Work, error: &LocationError) -> WireError {
    let at_source = error.place == work.root.at.name();
    match error.reason {
        Reason::NotFound if at_source => {
            WireError::new(ErrorCode::VANISHED, ErrorCode::VANISHED.to_string())
        }
        _ => wire(error),
    }
}

/// Whether a file could not be opened or looked at where a copy was to go on.
fn is_of_temp(error: &LocationError, to: &Location) -> bool {
    error.place == to.name() && matches!(error.op, Op::Open | Op::Stat)
}

/// Whether both hold the same content, by digests that the places find where they can.
async fn is_same(work: &Work, to: &Location) -> Result<bool> {
    let size = work.meta.size;
    let (source, there) =
        tokio::join!(digest(&work.root.at, &work.from, size), digest(to, &work.to, size));
    let (source, there) = match (source, there) {
        // It changed or went away just now, which the copy finds out.
        (Err(error), _) | (_, Err(error)) if error.reason == Reason::Changed => return Ok(false),
        (source, there) => (source?, there?),
    };
    Ok(source == there)
}

async fn digest(at: &Location, path: &RelPath, size: u64) -> Result<Vec<u8>> {
    // For a small file a command costs more than its content.
    if size >= WORTH_ASKING
        && let Some(Digest { kind: DigestKind::Sha256, bytes, .. }) =
            at.digest(path, &[DigestKind::Sha256]).await?
    {
        return Ok(bytes);
    }
    let source = at.open(path).await?;
    read_digest(&source, size).await
}

/// The SHA-256 of what is read; pieces come in any order.
async fn read_digest(source: &Source, size: u64) -> Result<Vec<u8>> {
    let mut pieces = source.read_range(0..size);
    let (mut hash, mut next, mut early) = (Sha256::new(), 0, BTreeMap::<u64, Bytes>::new());
    while let Some(piece) = pieces.next().await {
        let (offset, bytes) = piece?;
        early.insert(offset, bytes);
        while let Some(bytes) = early.remove(&next) {
            hash.update(&bytes);
            next += bytes.len() as u64;
        }
    }
    Ok(hash.finalize().to_vec())
}

/// A try to copy one file.
struct Attempt {
    listed: Meta,
    temp: RelPath,
    done: Done,
    /// The temp is of an earlier run.
    resumed: bool,
}

/// Ranges that are written, with their digests.
type Done = Arc<Mutex<Vec<(Range<u64>, u128)>>>;

impl Attempt {
    fn of(partial: Partial, listed: Meta) -> Attempt {
        let done = Arc::new(Mutex::new(partial.ranges));
        Attempt { listed, temp: partial.temp, done, resumed: true }
    }

    fn done(&self) -> MutexGuard<'_, Vec<(Range<u64>, u128)>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears of one file's copy.
struct Watcher {
    run: Arc<Shared>,
    to: RelPath,
    temp: RelPath,
    /// Of the source.
    version: Option<Version>,
    done: Done,
}

impl Watch for Watcher {
    fn moved(&self, bytes: u64) {
        self.run.tell.counters.done_bytes.fetch_add(bytes, Relaxed);
        self.run.tell.moved(bytes);
    }

    fn written(&self, range: Range<u64>, digest: u128) {
        self.run.journal.range(&self.temp, &range, digest);
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push((range, digest));
    }

    fn kept(&self, ranges: &[(Range<u64>, u128)]) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = self.version.clone().filter(|_| ranges.len() < done.len()) {
            let begun = Partial { temp: self.temp.clone(), version, ranges: ranges.to_vec() };
            self.run.journal.begin(&self.to, &begun);
        }
        *done = ranges.to_vec();
    }

    fn is_cancelled(&self) -> bool {
        self.run.tell.is_over()
    }
}
