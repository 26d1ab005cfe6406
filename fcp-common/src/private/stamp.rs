//! Whether a file changed since it was read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::dir;

/// Seconds after which no second change can have the time of the first one.
const SETTLED: u64 = 3;

/// What tells a state of a file, and who may change it, from another.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64, u64, i64, i64),
    dir: (u64, u64, u32, u32),
}

impl Stamp {
    /// Of the file at `path`, links not followed; `None` when there is nothing to look at.
    pub fn of(path: &Path) -> Option<Stamp> {
        let file = fs::symlink_metadata(path).ok()?;
        let dir = fs::metadata(dir::of(path)).ok()?;
        Some(Stamp {
            // The time of the last change of anything: contents, owner, mode.
            file: (file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()),
            dir: (dir.dev(), dir.ino(), dir.uid(), dir.mode()),
        })
    }

    /// Whether `now`, in seconds of the epoch, any change would show in a new stamp.
    pub fn is_settled(&self, now: u64) -> bool {
        u64::try_from(self.file.3).is_ok_and(|changed| changed + SETTLED < now)
    }
}
