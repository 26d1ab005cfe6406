//! What goes in and out of the version 1 machines.

use std::ops::Range;

use fcp_proto::limits::V1_CHUNK;
use fcp_proto::packet::Outcome;
use fcp_proto::v1::V1File;
use fcp_proto::{EntryKind, FileId, RelPath, SourceVersion};

/// Consecutive chunks of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The file.
    pub file: FileId,
    /// The chunks' numbers.
    pub chunks: Range<u64>,
}

/// Content to be sent; answered by `handle_sent`, `handle_unsent` or `handle_source_failed`.
#[derive(Clone, Debug)]
pub struct Work<S> {
    /// Which chunks.
    pub run: Run,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// How much it is, in bytes.
    pub len: usize,
    /// What was announced: content of any other version must not be sent.
    pub version: SourceVersion,
    /// Where to read it.
    pub source: S,
}

/// What the sender's caller may like to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendEvent<S> {
    /// All content of a file was written to connections.
    Sent {
        /// Its number.
        file: FileId,
        /// The file.
        source: S,
        /// Its length in bytes.
        size: u64,
    },
}

/// The peer said nothing for too long, this many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer was silent for {0} seconds")]
pub struct Silent(pub u64);

/// What becomes of an entry that is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It was asked for.
    Take,
    /// It lies where something was asked for, but is left out: version 1 senders know no rules.
    Skip,
    /// Nobody asked for it, which ends the session.
    Refuse,
}

/// Judges a path, whether it is a directory's, and whether MONOFILE said that it is the only one;
/// an entry that came before MONOFILE is judged again.
pub type Admit = Box<dyn Fn(&RelPath, bool, bool) -> Admission + Send>;

/// What was asked of the receiver.
pub struct ReceiveConfig {
    /// Whether what was asked for can be one file: MONOFILE may say so, but never alone.
    pub may_be_single: bool,
    /// What to do with what is announced; `None` takes everything.
    pub admit: Option<Admit>,
    /// Files under way at once.
    pub window: usize,
}

/// Something to do on the disk; each but `Discard` is answered by the `handle_*` it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Resolve and open the destination: `handle_rooted`.
    OpenRoot {
        /// One file comes, so the destination may be its name.
        single: bool,
    },
    /// Make or open a directory: `handle_dir_made`.
    MakeDir {
        /// Its final permission bits.
        mode: u16,
        /// Where, below the root.
        path: RelPath,
    },
    /// Look at what stands under a file's name, and finish the file if that is enough:
    /// `handle_begun`. Takes long.
    Begin(V1File),
    /// All content is written: check its MD5 and give it its name: `handle_verified`. Takes long.
    Verify(FileId),
    /// Forget the content of a file that failed.
    Discard(FileId),
    /// Everything is finished: directories get their final metadata: `handle_finished`.
    Finish,
}

/// An entry that is finished at the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Below the root.
    pub path: RelPath,
    /// What it is.
    pub kind: EntryKind,
    /// Its length in bytes.
    pub size: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// How many chunks a file has.
pub(super) fn chunks_of(size: u64) -> u64 {
    size.div_ceil(V1_CHUNK as u64)
}
