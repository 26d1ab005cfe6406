//! A copy up to the moment before its name appears.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fcp_common::fs::Kind;

use super::hash::Hasher;
use super::ranges::{self, Done, Transfer};
use super::{Proof, Stage, Staged, discard, hash, proof};
use crate::location::{LocationError, Meta, Op, Reason, Result, SetMeta, Sink, Source};

/// Up to this many bytes a file is held in memory whole. Jobs have up to 80 of them on their way.
const SMALL: u64 = 255 * 1024;

/// What one stream sends between two things that it tells of.
const STEP: u64 = 8 << 20;

/// Copies one file to its temporary name and proves it.
///
/// # Errors
/// [`Reason::Exists`] when `temp` is there and [`Stage::done`] is empty: whoever knows that it is
/// its own removes it first, with [`discard`]. [`Reason::Changed`] when the source is not what was
/// listed any more, or when the copy reads back differently; [`Reason::NotDurable`] before anything is
/// moved; [`Reason::Cancelled`]; and those of both locations. What this call made is removed, but for large
/// files that another try may go on with, and where the destination is out of reach. What somebody
/// else made is never touched.
pub async fn stage(stage: Stage<'_>) -> Result<Staged> {
    if stage.listed.kind != Kind::File {
        let text = "it is not a regular file";
        return Err(stage.failed(Op::Open, Reason::NotFile, text));
    }
    if stage.options.durable && !stage.to.capabilities().durable {
        let (place, path) = (stage.to.name(), stage.temp.as_bytes());
        let text = "it cannot promise that a file survives a power cut";
        return Err(LocationError::new(place, Op::Sync, path, Reason::NotDurable, text));
    }
    if let Err((reason, text)) = check_room(&stage).await? {
        let (place, path) = (stage.to.name(), stage.temp.as_bytes());
        return Err(LocationError::new(place, Op::Create, path, reason, &text));
    }
    if stage.watch.is_cancelled() {
        return Err(stage.failed(Op::Read, Reason::Cancelled, "it was stopped"));
    }
    // Whether what has the temp's name is known to be of this copy. Until then it is not touched.
    let made = AtomicBool::new(!stage.done.is_empty());
    let staged = match stage.listed.size {
        size if size <= SMALL && !stage.is_resumable() => small(&stage, &made).await,
        _ => streamed(&stage, &made).await,
    };
    if let Err(error) = &staged
        && made.load(Ordering::Relaxed)
        && !stage.keeps_temp(error)
    {
        // What failed is the news; a temp that stays is ours to remove in the next run.
        let _ = discard(stage.to, stage.temp).await;
    }
    staged
}

/// Whether so many bytes can be there at all, and there is room for them, as far as the place tells.
async fn check_room(stage: &Stage<'_>) -> Result<std::result::Result<(), (Reason, String)>> {
    let size = stage.listed.size;
    if i64::try_from(size).is_err() {
        let text = format!("no file is {size} bytes long; the source tells nonsense");
        return Ok(Err((Reason::Unsupported, text)));
    }
    let Some(free) = stage.to.free_bytes().await? else { return Ok(Ok(())) };
    // What is there already takes its room already.
    let done = stage.done.iter().map(|(range, _)| range.end.saturating_sub(range.start));
    let needed = size.saturating_sub(done.fold(0, u64::saturating_add));
    if size > SMALL && needed > free {
        let text = format!("it needs {needed} bytes and {free} are free");
        return Ok(Err((Reason::Full, text)));
    }
    Ok(Ok(()))
}

async fn small(stage: &Stage<'_>, made: &AtomicBool) -> Result<Staged> {
    let (options, size) = (stage.options, stage.listed.size);
    let (content, now) = stage.from.read_small(stage.source, size).await?;
    stage.check_unchanged(Some(now))?;
    let write = stage.to.write_small(stage.temp, content.clone(), options.meta, options.durable);
    let written = write.await;
    // These come after the file was made; of any other nobody knows.
    let late = |error: &LocationError| matches!(error.op, Op::Write | Op::Sync | Op::Close);
    made.store(written.as_ref().err().is_none_or(late), Ordering::Relaxed);
    let temp = written?;
    let mut staged = Staged { size, digest: None, proven_by: "size", resumed: 0, temp };
    if options.proof == Proof::Content {
        let (back, _) = stage.to.read_small(stage.temp, size).await?;
        if back != content {
            return Err(proof::differs(stage, "the bytes read back are others"));
        }
        staged.digest = Some(hash::sha256(&content));
        staged.proven_by = proof::READ_BACK;
    }
    stage.watch.moved(size);
    Ok(staged)
}

async fn streamed(stage: &Stage<'_>, made: &AtomicBool) -> Result<Staged> {
    let (options, size) = (stage.options, stage.listed.size);
    let source = Arc::new(stage.from.open(stage.source).await?);
    stage.check_unchanged(Some(source.stat().await?))?;
    let (sink, kept) = open_temp(stage, made).await?;
    let resumed = kept.iter().map(|(range, _)| range.end - range.start).sum();
    stage.watch.moved(resumed);
    let copied = transfer(stage, &source, &sink, kept).await?;
    let must = options.proof == Proof::Content || resumed > 0;
    let (digest, proven_by) = match must {
        true => proof::prove(stage, &source, &sink, &copied).await?,
        false => (None, "size"),
    };
    let (open, named) = tokio::join!(source.stat(), stage.from.stat(stage.source));
    stage.check_unchanged(Some(open?))?;
    stage.check_unchanged(named?)?;
    let temp = close(stage, sink).await?;
    Ok(Staged { size, digest, proven_by, resumed, temp })
}

/// What a transfer came to: ranges that cover the whole file in order.
pub(super) struct Copied {
    pub(super) ranges: Vec<Done>,
    /// Of what was read, where it was read in order.
    pub(super) sha256: Option<crate::location::Digest>,
}

async fn transfer(
    stage: &Stage<'_>,
    source: &Arc<Source>,
    sink: &Arc<Sink>,
    kept: Vec<Done>,
) -> Result<Copied> {
    let (options, size, large) = (stage.options, stage.listed.size, stage.is_large());
    let transfer = Transfer {
        source: Arc::clone(source),
        sink: Arc::clone(sink),
        watch: Arc::clone(&stage.watch),
        label: Arc::new((stage.from.name().to_owned(), stage.source.as_bytes().to_vec())),
        mark: ranges::mark(size, options.chunk),
        tell_ranges: stage.is_resumable(),
    };
    if !large {
        return in_order(stage, &transfer, kept).await;
    }
    let todo = ranges::missing(&kept, size, options.chunk);
    let ranges = whole(transfer.run(todo, options.streams).await?, kept);
    Ok(Copied { ranges, sha256: None })
}

/// What is missing, by one stream; hashed on the way where nothing was there.
async fn in_order(stage: &Stage<'_>, transfer: &Transfer, kept: Vec<Done>) -> Result<Copied> {
    let step = if stage.is_resumable() { stage.options.chunk.min(STEP) } else { u64::MAX };
    let hashes = kept.is_empty() && stage.options.proof == Proof::Content;
    let mut hasher = hashes.then(|| Hasher::new(false));
    let mut ranges = Vec::new();
    for range in ranges::missing(&kept, stage.listed.size, u64::MAX) {
        ranges.push(transfer.run_in_order(range, step, hasher.as_mut()).await?);
    }
    Ok(Copied { ranges: whole(ranges, kept), sha256: hasher.map(|hasher| hasher.finish().0) })
}

fn whole(mut moved: Vec<Done>, kept: Vec<Done>) -> Vec<Done> {
    moved.extend(kept);
    moved.sort_unstable_by_key(|(range, _)| range.start);
    moved
}

/// The temp, new or of an earlier run, and what of that counts.
async fn open_temp(stage: &Stage<'_>, made: &AtomicBool) -> Result<(Arc<Sink>, Vec<Done>)> {
    let create = async || {
        let sink = stage.to.create(stage.temp).await?;
        made.store(true, Ordering::Relaxed);
        stage.watch.made();
        Ok((Arc::new(sink), Vec::new()))
    };
    if stage.done.is_empty() {
        return create().await;
    }
    match reopen(stage).await {
        Ok(sink) => {
            let kept = still_good(stage, &sink).await?;
            stage.watch.kept(&kept);
            Ok((Arc::new(sink), kept))
        }
        Err(error) if error.reason == Reason::NotFound => {
            // Before anything is written that what was there before does not tell of.
            stage.watch.kept(&[]);
            create().await
        }
        Err(error) => Err(error),
    }
}

/// The temp of an earlier run, which may have its final mode already.
async fn reopen(stage: &Stage<'_>) -> Result<Sink> {
    match stage.to.reopen(stage.temp).await {
        Err(error) if error.reason == Reason::Denied => {
            let own = SetMeta { mode: Some(0o600), mtime: None };
            stage.to.set_meta(stage.temp, own).await.map_err(|_| error)?;
            stage.to.reopen(stage.temp).await
        }
        done => done,
    }
}

/// The ranges that the temp still holds. Where its content is near it is read; elsewhere its
/// length must do, as the whole copy is proven by content in the end.
async fn still_good(stage: &Stage<'_>, sink: &Sink) -> Result<Vec<Done>> {
    let length = sink.stat().await?.size.min(stage.listed.size);
    let mut done = stage.done.clone();
    done.sort_unstable_by_key(|(range, _)| range.start);
    let mut kept: Vec<Done> = Vec::new();
    for (range, digest) in done {
        let after = kept.last().map_or(0, |(before, _)| before.end);
        let fits = after <= range.start && range.start < range.end && range.end <= length;
        if fits && (!stage.to.capabilities().near || reads_as(sink, &range, digest).await?) {
            kept.push((range, digest));
        }
    }
    Ok(kept)
}

async fn reads_as(sink: &Sink, range: &std::ops::Range<u64>, digest: u128) -> Result<bool> {
    Ok(ranges::digest_of(sink.read_back(range.clone()), |_| {}).await? == digest)
}

async fn close(stage: &Stage<'_>, sink: Arc<Sink>) -> Result<Option<Meta>> {
    let (options, size) = (stage.options, stage.listed.size);
    let Ok(sink) = Arc::try_unwrap(sink) else {
        // All tasks have ended; a clone that is left is a mistake of ours, not a good copy.
        return Err(stage.failed(Op::Close, Reason::Io, "it is still being written"));
    };
    sink.close(size, options.meta, options.durable).await
}

impl Stage<'_> {
    fn is_large(&self) -> bool {
        self.listed.size >= self.options.large
    }

    /// Whether another try may go on with what this one leaves.
    fn is_resumable(&self) -> bool {
        self.is_large() || self.listed.size >= self.options.resume_from || !self.done.is_empty()
    }

    /// S05, S16: what was copied is what was listed.
    fn check_unchanged(&self, now: Option<Meta>) -> Result<()> {
        match now {
            Some(now) if now.is_same_version(&self.listed) => Ok(()),
            Some(_) => {
                Err(self.failed(Op::Read, Reason::Changed, "it changed since it was listed"))
            }
            None => Err(self.failed(Op::Read, Reason::Changed, "it went away while it was copied")),
        }
    }

    /// Whether what is at the temporary name stays there after this error.
    fn keeps_temp(&self, error: &LocationError) -> bool {
        let not_ours = error.op == Op::Create && error.reason == Reason::Exists;
        let gone = error.is_transient() && error.place == self.to.name();
        let resumable = error.is_transient() || error.reason == Reason::Cancelled;
        not_ours || gone || (self.is_resumable() && resumable)
    }

    fn failed(&self, op: Op, reason: Reason, text: &str) -> LocationError {
        LocationError::new(self.from.name(), op, self.source.as_bytes(), reason, text)
    }
}
