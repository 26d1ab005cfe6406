//! Guards what a transfer must not touch.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Paths outside a destination, as they were. A path that did not exist must not appear either.
#[derive(Debug)]
pub struct Sentinel {
    watched: Vec<(PathBuf, Option<State>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct State {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Changes even where somebody put the other three back.
    ctime: (i64, i64),
    inode: (u64, u64),
    /// Bytes of a file, target of a symlink, sorted names of a directory.
    content: Vec<u8>,
}

impl Sentinel {
    /// Makes a file with known contents outside the destination and watches it and its directory.
    pub fn plant(path: &Path) -> Self {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"do not touch\n").unwrap();
        Self::watch(&[path, path.parent().unwrap()])
    }

    /// Records the paths as they are now. Directories are not descended into.
    pub fn watch(paths: &[&Path]) -> Self {
        Self { watched: paths.iter().map(|path| (path.to_path_buf(), state(path))).collect() }
    }

    /// Panics, naming the path, if one of them changed, vanished or appeared.
    #[track_caller]
    pub fn assert_untouched(&self) {
        for (path, before) in &self.watched {
            let now = state(path);
            assert!(
                *before == now,
                "{} was touched:\n  before {}\n  now    {}",
                path.display(),
                told(before),
                told(&now)
            );
        }
    }
}

fn state(path: &Path) -> Option<State> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let content = if metadata.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_vec()
    } else if metadata.is_dir() {
        let mut names: Vec<Vec<u8>> =
            fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_vec()).collect();
        names.sort();
        names.join(&0)
    } else {
        fs::read(path).unwrap()
    };
    Some(State {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        ctime: (metadata.ctime(), metadata.ctime_nsec()),
        inode: (metadata.dev(), metadata.ino()),
        content,
    })
}

fn told(state: &Option<State>) -> String {
    let Some(State { mode, owner, mtime, ctime, inode, content }) = state else {
        return "absent".into();
    };
    let start = content.get(..60).unwrap_or(content).escape_ascii();
    format!(
        "mode {mode:o}, owner {owner:?}, mtime {mtime:?}, ctime {ctime:?}, inode {inode:?}, {} bytes: {start}",
        content.len()
    )
}
