//! That a copy holds what was read, by content.
//!
//! Ranges come in parallel, and SHA-256 wants order. So what was read is known by one xxh3-128 for
//! each range, taken on the way; whoever then reads the whole file in order, copy or source,
//! compares those and has the SHA-256 for free. A server's own tool tells a digest of the whole,
//! which is compared with that of the source: hashed on the way where there was one stream, or
//! read again where the source is near. Two tools are never held against each other: what is left is
//! reading the copy back.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use twox_hash::XxHash3_128;

use super::Stage;
use super::hash::Hasher;
use super::stage::Copied;
use crate::location::{
    Digest, DigestKind, LocationError, Op, Pieces, Reason, Result, Sink, Source,
};

/// How it is told that every byte was compared.
pub(super) const READ_BACK: &str = "read back";

/// Compares the copy with what was read; what it was compared by, for people.
///
/// # Errors
/// [`Reason::Changed`] when they differ.
pub(super) async fn prove(
    stage: &Stage<'_>,
    source: &Arc<Source>,
    sink: &Arc<Sink>,
    copied: &Copied,
) -> Result<(Option<Digest>, &'static str)> {
    if !stage.to.capabilities().near
        && let Some(theirs) = tool_digest(stage).await?
        && let Some((ours, sha256)) = of_source(stage, source, copied, theirs.kind).await?
    {
        if ours.agrees(&theirs) {
            return Ok((Some(sha256.unwrap_or(ours)), theirs.by));
        }
        // A shell may see other files than SFTP does; what reads back decides.
        tracing::warn!("{}: {} finds {theirs} for {ours}", stage.to.name(), theirs.by);
    }
    let different = || differs(stage, "what is written there reads back differently");
    if let Some(sha256) = &copied.sha256 {
        let same = read_whole(copied, |range| sink.read_back(range), |_| {}).await?;
        return same.then(|| (Some(sha256.clone()), READ_BACK)).ok_or_else(different);
    }
    let mut hasher = Hasher::new(false);
    let read = read_whole(copied, |range| sink.read_back(range), |content| hasher.update(content));
    match read.await? {
        true => Ok((Some(hasher.finish().0), READ_BACK)),
        false => Err(different()),
    }
}

/// What the destination finds by itself. A tool that fails is no failure of the copy: it is read
/// back instead.
async fn tool_digest(stage: &Stage<'_>) -> Result<Option<Digest>> {
    match stage.to.digest(stage.temp, &[DigestKind::Sha256, DigestKind::Md5]).await {
        Err(error) if !error.is_transient() => Ok(None),
        done => done,
    }
}

/// The source's digest of this kind, and its SHA-256 if that came with it.
async fn of_source(
    stage: &Stage<'_>,
    source: &Arc<Source>,
    copied: &Copied,
    kind: DigestKind,
) -> Result<Option<(Digest, Option<Digest>)>> {
    if let Some(sha256) = copied.sha256.clone().filter(|_| kind == DigestKind::Sha256) {
        return Ok(Some((sha256.clone(), Some(sha256))));
    }
    if stage.from.capabilities().near {
        let mut hasher = Hasher::new(kind == DigestKind::Md5);
        let read = |range| source.read_range(range);
        if !read_whole(copied, read, |content| hasher.update(content)).await? {
            let (place, path) = (stage.from.name(), stage.source.as_bytes());
            let text = "it changed while it was copied";
            return Err(LocationError::new(place, Op::Read, path, Reason::Changed, text));
        }
        let (sha256, md5) = hasher.finish();
        return Ok(Some((md5.unwrap_or_else(|| sha256.clone()), Some(sha256))));
    }
    // What two servers say of both ends says nothing of what passed through us.
    Ok(None)
}

/// Reads all ranges in order, as one, and `each` piece besides; whether every one is what it was.
async fn read_whole(
    copied: &Copied,
    read: impl Fn(Range<u64>) -> Pieces,
    mut each: impl FnMut(&[u8]),
) -> Result<bool> {
    let end = copied.ranges.last().map_or(0, |(range, _)| range.end);
    let (mut pieces, mut ahead) = (read(0..end), Bytes::new());
    for (range, digest) in &copied.ranges {
        let (mut hash, mut left) = (XxHash3_128::new(), range.end - range.start);
        while left > 0 {
            if ahead.is_empty() {
                let Some(piece) = pieces.next().await else { return Ok(false) };
                ahead = piece?.1;
            }
            let length = usize::try_from(left).map_or(ahead.len(), |left| left.min(ahead.len()));
            let content = ahead.split_to(length);
            hash.write(&content);
            each(&content);
            left -= length as u64;
        }
        if hash.finish_128() != *digest {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The copy is not what was read.
pub(super) fn differs(stage: &Stage<'_>, text: &str) -> LocationError {
    let path = stage.temp.as_bytes();
    LocationError::new(stage.to.name(), Op::Hash, path, Reason::Changed, text)
}
