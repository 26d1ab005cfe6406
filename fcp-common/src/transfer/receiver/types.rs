//! What goes in and out of the receiving machine.

use fcp_proto::packet::{Entry, Outcome, Problem, WireError};
use fcp_proto::{Digest, DirId, EntryKind, FileId, Name, RelPath, SourceVersion, Timestamp};

use crate::range_set::RangeSet;

/// Whether a path, and whether it is a directory's, was asked for.
pub type Admits = Box<dyn Fn(&RelPath, bool) -> bool + Send>;

/// What the request asked of the receiver.
pub struct Config {
    /// Compare content even where size and mtime are the same.
    pub checksum: bool,
    /// Touch nothing; report what would be done.
    pub dry_run: bool,
    /// Set permission bits.
    pub perms: bool,
    /// Set modification times.
    pub times: bool,
    /// Make symbolic links; otherwise they fail with a notice.
    pub links: bool,
    /// Bits that new files do not get when permissions are not kept.
    pub umask: u16,
    /// The request names one thing, so one entry comes below the root, whatever it is.
    pub one_thing: bool,
    /// Queue a [`ReceiveEvent::Finished`] for each entry.
    pub report: bool,
    /// Whether the sender may announce this path; the second argument says that it is a directory.
    pub admits: Option<Admits>,
    /// What FINISH may say of the destination itself.
    pub root_meta: RootMetaRule,
}

/// What becomes of FINISH's mode and mtime for the destination directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootMetaRule {
    /// They are set: the contents of a directory come, and it is that directory.
    Take,
    /// They are passed over: the directory is not the sender's to change.
    Ignore,
    /// They break the protocol: no directory's contents were asked for (threat T5).
    Refuse,
}

/// What happens to names directly below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootRule {
    /// They are kept.
    Keep,
    /// There is one, not a directory, and it gets this name.
    Single(Name),
}

/// Metadata to set; `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FileMeta {
    /// Permission bits, at most 0o777.
    pub mode: Option<u16>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
}

/// What stands under an entry's name at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Its modification time.
        mtime: Timestamp,
        /// Its permission bits.
        mode: u16,
    },
    /// A directory.
    Dir,
    /// A symbolic link, and whether it already points where the entry's does and has its mtime.
    Symlink {
        /// Same target.
        same: bool,
        /// Its modification time.
        mtime: Timestamp,
    },
    /// A device, FIFO or socket.
    Special,
}

/// Something to do on the disk. Each but `Discard` is answered by the `handle_*` it names.
#[derive(Debug)]
pub enum Action<D, F> {
    /// The first entry is here, so it is known how the destination is meant: open it
    /// (`handle_root_opened`).
    OpenRoot {
        /// The one thing that comes is not a directory.
        single: bool,
    },
    /// Make or open a directory: `handle_dir_made`.
    MakeDir {
        /// The directory.
        dir: DirId,
        /// Where.
        parent: D,
        /// Its name there.
        name: Name,
        /// Its path below the root.
        path: RelPath,
        /// Its final permission bits when it must be made.
        mode: u16,
    },
    /// Look at what stands under a file's name: `handle_inspected`.
    Inspect {
        /// The file.
        file: FileId,
        /// Where.
        parent: D,
        /// Its name there.
        name: Name,
        /// What is coming.
        version: SourceVersion,
    },
    /// Make a symbolic link unless it is there: `handle_linked`.
    Link {
        /// The entry.
        file: FileId,
        /// Where.
        parent: D,
        /// Its name there.
        name: Name,
        /// Where it points.
        target: Box<[u8]>,
        /// Its modification time, if times are kept.
        mtime: Option<Timestamp>,
    },
    /// Hash the blocks of what stands there with BLAKE3: `handle_hashed`. Takes long.
    Hash {
        /// The file.
        file: FileId,
        /// The caller's handle.
        handle: F,
    },
    /// Look for blocks of an earlier run: `handle_recovered`.
    Recover {
        /// The file.
        file: FileId,
        /// The caller's handle.
        handle: F,
        /// What is coming.
        version: SourceVersion,
    },
    /// Hash kept blocks and compare them with the journal: `handle_rehashed`. Takes long.
    Rehash {
        /// The file.
        file: FileId,
        /// The caller's handle.
        handle: F,
        /// Block numbers and their journalled digests.
        kept: Vec<(u32, Digest)>,
        /// The file's length in bytes.
        size: u64,
    },
    /// The content is complete: give it its name (`handle_published`). A file that got no content
    /// is empty.
    Publish {
        /// The file.
        file: FileId,
        /// The caller's handle.
        handle: F,
        /// What to set.
        meta: FileMeta,
    },
    /// The content is right: set what is given (`handle_meta_set`).
    SetMeta {
        /// The file.
        file: FileId,
        /// The caller's handle.
        handle: F,
        /// What to set.
        meta: FileMeta,
    },
    /// The last child is finished: set the directory's metadata (`handle_dir_finished`).
    FinishDir {
        /// The directory.
        dir: DirId,
        /// The caller's handle.
        handle: D,
        /// What to set.
        meta: FileMeta,
    },
    /// The file will not be published: forget its temporary file.
    Discard {
        /// The caller's handle.
        handle: F,
    },
    /// All is received: give the root its metadata, make things durable, then `handle_finished`.
    Finish {
        /// The root's metadata, if it has any.
        meta: Option<FileMeta>,
    },
}

/// What the caller of a [`super::Receiver`] learns.
#[derive(Clone, Debug)]
pub enum ReceiveEvent {
    /// An entry is finished.
    Finished {
        /// Its path below the root.
        path: RelPath,
        /// What it is.
        kind: EntryKind,
        /// Its length in bytes.
        size: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Something at the source could not be announced.
    Problem(Problem),
}

/// What to do with content that arrived.
#[derive(Clone, Debug)]
pub enum Placement<F> {
    /// Write it and report with `handle_written`.
    Write {
        /// The caller's handle.
        handle: F,
        /// The file's length in bytes.
        size: u64,
    },
    /// It is the whole file: write it, publish it, report with `handle_published`.
    Publish {
        /// The caller's handle.
        handle: F,
        /// What to set.
        meta: FileMeta,
    },
    /// Nobody needs it any more.
    Discard,
}

/// An unfinished file at the receiver.
pub(super) struct File<F> {
    pub(super) entry: Entry,
    pub(super) state: State,
    pub(super) handle: Option<F>,
    pub(super) existed: bool,
    /// Permission bits of what stands there, when it is a regular file.
    pub(super) old_mode: Option<u16>,
    /// What stands there has the right mtime.
    pub(super) same_time: bool,
    pub(super) mismatches: u8,
}

/// What an unfinished file waits for.
pub(super) enum State {
    /// Its directory.
    Waiting,
    /// The disk: a look, a link, metadata or the journal.
    Disk,
    /// Hashes of both ends.
    Comparing { ours: Option<Vec<[u8; 32]>>, theirs: Vec<[u8; 32]> },
    /// Content.
    Wanted { missing: RangeSet, writing: Vec<u64>, rehashing: bool },
    /// Its final name.
    Publishing,
}

impl Config {
    /// What to set on a file or new directory with these bits and times.
    pub(super) fn meta(&self, entry: &Entry, old_mode: Option<u16>) -> FileMeta {
        let bits = entry.mode & 0o777;
        let mode = if self.perms { bits } else { old_mode.unwrap_or(bits & !self.umask) };
        FileMeta { mode: Some(mode), mtime: self.times.then_some(entry.mtime) }
    }

    /// What to set on a directory when it is finished.
    pub(super) fn dir_meta(&self, mode: u16, mtime: Timestamp) -> FileMeta {
        FileMeta { mode: self.perms.then_some(mode & 0o777), mtime: self.times.then_some(mtime) }
    }
}

impl<F> File<F> {
    pub(super) fn new(entry: Entry) -> File<F> {
        File {
            entry,
            state: State::Waiting,
            handle: None,
            existed: false,
            old_mode: None,
            same_time: false,
            mismatches: 0,
        }
    }

    /// Whether its content is complete and the disk is giving it its name.
    pub(super) fn is_publishing(&self) -> bool {
        matches!(self.state, State::Publishing)
    }

    pub(super) fn outcome(&self) -> Outcome {
        if self.existed { Outcome::Replaced } else { Outcome::Created }
    }
}

/// What a caller reports of something it did.
pub(super) type Done = Result<(), WireError>;
