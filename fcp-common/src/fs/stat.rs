//! What `stat` says, in our own terms.

use std::hash::Hasher;

use fcp_proto::meta::{SourceVersion, Timestamp};
use rustix::fs::FileType;
use twox_hash::XxHash3_64;

/// What kind of thing a name holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device.
    Other,
}

impl Kind {
    /// From a file type; `None` when a directory listing does not know it.
    pub(super) fn of(file_type: FileType) -> Option<Kind> {
        match file_type {
            FileType::RegularFile => Some(Kind::File),
            FileType::Directory => Some(Kind::Dir),
            FileType::Symlink => Some(Kind::Symlink),
            FileType::Unknown => None,
            _ => Some(Kind::Other),
        }
    }
}

/// One answer of `stat`, links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Permission bits with setuid, setgid and sticky (07777).
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Change time of the inode.
    pub ctime: Timestamp,
    /// Number of hard links.
    pub nlink: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Stat {
    /// What tells this version of the file from the next.
    pub fn version(&self) -> SourceVersion {
        let mut hash = XxHash3_64::with_seed(0);
        hash.write(&self.dev.to_le_bytes());
        hash.write(&self.ino.to_le_bytes());
        hash.write(&self.ctime.secs.to_le_bytes());
        hash.write(&self.ctime.nanos.to_le_bytes());
        SourceVersion { size: self.size, mtime: self.mtime, token: hash.finish() }
    }

    /// Whether `other` is the same inode with the same content, as far as `stat` can tell.
    pub fn is_same_version(&self, other: &Stat) -> bool {
        let id = |s: &Stat| (s.kind, s.dev, s.ino, s.size, s.mtime, s.ctime);
        id(self) == id(other)
    }
}

// The widths of these fields differ between architectures.
#[allow(clippy::unnecessary_cast)]
impl From<rustix::fs::Stat> for Stat {
    fn from(st: rustix::fs::Stat) -> Stat {
        let mode = st.st_mode as u32;
        Stat {
            kind: Kind::of(FileType::from_raw_mode(st.st_mode)).unwrap_or(Kind::Other),
            dev: st.st_dev as u64,
            ino: st.st_ino as u64,
            mode: mode & 0o7777,
            size: u64::try_from(st.st_size).unwrap_or(0),
            mtime: Timestamp { secs: st.st_mtime as i64, nanos: st.st_mtime_nsec as u32 },
            ctime: Timestamp { secs: st.st_ctime as i64, nanos: st.st_ctime_nsec as u32 },
            nlink: st.st_nlink as u64,
            uid: st.st_uid,
            gid: st.st_gid,
        }
    }
}
