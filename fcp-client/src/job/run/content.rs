//! Content in order, and what it hashes to.

use std::collections::BTreeMap;

use bytes::Bytes;
use fcp_proto::path::RelPath;
use sha2::{Digest as _, Sha256};

use super::Trouble;
use crate::location::{DigestKind, Location, LocationError, Op, Pieces, Reason, Source};

/// Read ahead of what is taken: enough to hide the round trip, small beside the memory of a run.
pub(super) const WINDOW: u64 = 4 << 20;

/// A file's content from its beginning, piece by piece in order; of pieces that come early at most
/// two windows wait.
pub(super) struct InOrder<'a> {
    source: &'a Source,
    size: u64,
    /// What is given out ends here.
    at: u64,
    /// What is asked for ends here.
    asked: u64,
    pieces: Option<Pieces>,
    next: Option<Pieces>,
    early: BTreeMap<u64, Bytes>,
}

impl<'a> InOrder<'a> {
    pub(super) fn new(source: &'a Source, size: u64) -> InOrder<'a> {
        let mut this = InOrder {
            source,
            size,
            at: 0,
            asked: 0,
            pieces: None,
            next: None,
            early: BTreeMap::new(),
        };
        this.pieces = this.ask();
        this.next = this.ask();
        this
    }

    fn ask(&mut self) -> Option<Pieces> {
        let end = self.size.min(self.asked.saturating_add(WINDOW));
        (end > self.asked).then(|| {
            let pieces = self.source.read_range(self.asked..end);
            self.asked = end;
            pieces
        })
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, LocationError> {
        loop {
            if let Some(piece) = self.early.remove(&self.at) {
                self.at += piece.len() as u64;
                return Ok(Some(piece));
            }
            let Some(pieces) = &mut self.pieces else { return Ok(None) };
            match pieces.next().await {
                Some(piece) => {
                    let (offset, piece) = piece?;
                    if !piece.is_empty() {
                        self.early.insert(offset, piece);
                    }
                }
                None => {
                    self.pieces = self.next.take();
                    self.next = self.ask();
                }
            }
        }
    }

    /// Whether everything was given out.
    pub(super) fn is_complete(&self) -> bool {
        self.at == self.size
    }
}

/// SHA-256 of a file that must be `size` bytes long.
pub(super) async fn sha256(
    place: &Location,
    path: &RelPath,
    size: u64,
) -> Result<Vec<u8>, LocationError> {
    let source = place.open(path).await?;
    let mut content = InOrder::new(&source, size);
    let mut hash = Sha256::new();
    while let Some(piece) = content.next().await? {
        hash.update(&piece);
    }
    if !content.is_complete() || source.stat().await?.size != size {
        return Err(changed(place, path));
    }
    Ok(hash.finalize().to_vec())
}

/// Whether two files of the same size have the same content; its hash as the ledger has it.
pub(super) async fn agree(
    one: (&Location, &RelPath),
    other: (&Location, &RelPath),
    size: u64,
) -> Result<Option<String>, Trouble> {
    let ours = sha256(one.0, one.1, size).await?;
    let theirs = match other.0.digest(other.1, &[DigestKind::Sha256]).await? {
        Some(digest) => digest.bytes,
        None => sha256(other.0, other.1, size).await?,
    };
    Ok((ours == theirs).then(|| text(&ours)))
}

/// Whether a file holds nothing but what another one holds at the same places, and zeros: an
/// unfinished copy of it. One that is not there holds nothing.
pub(super) async fn is_part_of(
    part: (&Location, &RelPath),
    whole: (&Location, &RelPath),
) -> Result<bool, Trouble> {
    let Some(meta) = part.0.stat(part.1).await? else { return Ok(true) };
    if !meta.is_file() {
        return Ok(false);
    }
    if meta.size == 0 {
        return Ok(true);
    }
    let source = whole.0.open(whole.1).await?;
    if source.stat().await?.size < meta.size {
        return Ok(false);
    }
    let part = match part.0.open(part.1).await {
        // Whoever may not read it has not made it.
        Err(error) if !error.is_transient() => return Ok(error.reason == Reason::NotFound),
        part => part?,
    };
    let (mut part, mut whole) = (InOrder::new(&part, meta.size), InOrder::new(&source, meta.size));
    Ok(holds_only(&mut part, &mut whole).await?)
}

async fn holds_only(
    part: &mut InOrder<'_>,
    whole: &mut InOrder<'_>,
) -> Result<bool, LocationError> {
    let (mut ours, mut theirs) = (Bytes::new(), Bytes::new());
    loop {
        if ours.is_empty() {
            let Some(piece) = part.next().await? else { return Ok(part.is_complete()) };
            ours = piece;
        }
        if theirs.is_empty() {
            let Some(piece) = whole.next().await? else { return Ok(false) };
            theirs = piece;
        }
        let length = ours.len().min(theirs.len());
        let (one, other) = (ours.split_to(length), theirs.split_to(length));
        if one != other && one.iter().zip(&other).any(|(one, other)| *one != 0 && one != other) {
            return Ok(false);
        }
    }
}

/// A SHA-256 as the ledger has it.
pub(super) fn text(hash: &[u8]) -> String {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub(super) fn changed(place: &Location, path: &RelPath) -> LocationError {
    LocationError {
        place: place.name().to_owned(),
        op: Op::Read,
        path: path.to_string(),
        reason: Reason::Changed,
        text: "it is not what it was when it was listed".to_owned(),
    }
}
