//! One file from one location to another: staged under a temporary name, proven, then published.
//!
//! Whoever calls decides what is copied and when it may appear; what is here makes sure that what
//! appears is whole.

mod hash;
mod names;
mod proof;
mod publish;
mod ranges;
mod stage;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use fcp_proto::path::RelPath;

pub(in crate::location) use names::{aside_name, probe_name};
pub use names::{is_probe_name, is_temp_name, numbered, other_temp_name, temp_name};
pub use publish::{
    check_renamed, discard, end_replace, free_name, free_temp, publish, rename_aside,
};
pub use stage::stage;

use super::{Digest, Location, Meta, SetMeta};

/// How a copy is proven before it may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its length is that of the source.
    Size,
    /// Its content is read or hashed where it now lies, and equals what was read from the source.
    Content,
}

/// How a file is copied.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// From this length in bytes on a file is copied in ranges at the same time.
    pub large: u64,
    /// From this length in bytes on, or from `large` on, it is told what is written, so that another
    /// try may go on from there.
    pub resume_from: u64,
    /// Length of such a range in bytes.
    pub chunk: u64,
    /// Ranges at the same time.
    pub streams: usize,
    /// What must be proven. A resumed copy is always proven by content.
    pub proof: Proof,
    /// Survive a power cut before it may be published.
    pub durable: bool,
    /// What the copy is to have.
    pub meta: SetMeta,
}

/// What hears of a copy while it goes on.
pub trait Watch: Send + Sync {
    /// The temp was made just now: whatever has its name is ours. Told before anything is written
    /// to it, and not of small files, which are there whole at once.
    fn made(&self) {}
    /// So many more bytes are at the destination, or were there already.
    fn moved(&self, bytes: u64);
    /// This range is written; its digest is xxh3-128 of its bytes. Told only from
    /// [`StageOptions::resume_from`] on.
    fn written(&self, range: Range<u64>, digest: u128);
    /// Of [`Stage::done`] this still holds, and nothing else; told before anything is written.
    fn kept(&self, _ranges: &[(Range<u64>, u128)]) {}
    /// Whether to stop.
    fn is_cancelled(&self) -> bool;
}

/// One file to copy.
pub struct Stage<'a> {
    /// Where it is.
    pub from: &'a Location,
    /// Its name there.
    pub source: &'a RelPath,
    /// What it was when it was listed: what it must still be, before and after.
    pub listed: Meta,
    /// Where it goes.
    pub to: &'a Location,
    /// The temporary name there.
    pub temp: &'a RelPath,
    /// How.
    pub options: &'a StageOptions,
    /// Ranges of `temp` that an earlier run wrote of this very version, with their digests; empty
    /// to begin afresh.
    pub done: Vec<(Range<u64>, u128)>,
    /// Who hears of it.
    pub watch: Arc<dyn Watch>,
}

/// A copy under its temporary name, whole and proven as was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of what was read from the source, where [`Proof::Content`] was asked or needed (MD5
    /// where neither side's tools know better).
    pub digest: Option<Digest>,
    /// How it was proven, for people: `size`, `check-file`, `sha256sum`, `shasum`, `md5sum`,
    /// `read back`.
    pub proven_by: &'static str,
    /// Bytes that an earlier run had brought.
    pub resumed: u64,
    /// What the temp was through its open handle when it was closed, as far as the place told.
    pub temp: Option<Meta>,
}
