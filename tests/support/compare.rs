//! Compares two trees entry by entry, and says what differs in words.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// How many lines of a difference are worth reading.
const MAX_LINES: usize = 40;

/// What counts as a difference. Names, kinds, sizes, contents and link targets always do.
#[derive(Debug, Clone, Copy)]
pub struct Compare {
    /// Permission bits of files and directories.
    pub modes: bool,
    /// Mtimes of files.
    pub mtimes: bool,
    /// Mtimes of directories.
    pub dir_mtimes: bool,
    /// Mtimes of symlinks.
    pub link_mtimes: bool,
    /// Nanoseconds by which mtimes may differ: version 1 carries them as f64.
    pub mtime_slack: u64,
}

impl Compare {
    /// Everything counts, to the nanosecond.
    pub const EXACT: Self =
        Self { modes: true, mtimes: true, dir_mtimes: true, link_mtimes: true, mtime_slack: 0 };
    /// What version 1 of the protocol carries: modes, and file mtimes to a microsecond.
    pub const VERSION_1: Self = Self {
        modes: true,
        mtimes: true,
        dir_mtimes: false,
        link_mtimes: false,
        mtime_slack: 1_000,
    };
    /// Nothing more than what always counts.
    pub const CONTENTS: Self =
        Self { modes: false, mtimes: false, dir_mtimes: false, link_mtimes: false, mtime_slack: 0 };

    /// The differences, a line each; none if the trees are equal. The roots' own metadata counts too.
    pub fn differences(&self, a: &Path, b: &Path) -> Vec<String> {
        let (left, right) = (listing(a), listing(b));
        let names: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
        let mut lines = Vec::new();
        for name in names {
            let shown = shown(name);
            match (left.get(name), right.get(name)) {
                (Some(l), Some(r)) => {
                    let path = |root: &Path| root.join(OsStr::from_bytes(name));
                    for what in self.entry(l, r, &path(a), &path(b)) {
                        lines.push(format!("{shown}: {what}"));
                    }
                }
                (Some(l), None) => {
                    lines.push(format!("{shown}: missing in the copy ({})", kind(l)))
                }
                _ => lines.push(format!("{shown}: only in the copy")),
            }
        }
        lines
    }

    /// Panics with the differences, if there are any.
    #[track_caller]
    pub fn assert_same(&self, a: &Path, b: &Path) {
        let lines = self.differences(a, b);
        let shown = lines.iter().take(MAX_LINES).cloned().collect::<Vec<_>>().join("\n  ");
        assert!(
            lines.is_empty(),
            "{} differences between {} and {}:\n  {shown}",
            lines.len(),
            a.display(),
            b.display()
        );
    }

    fn entry(&self, l: &Metadata, r: &Metadata, a: &Path, b: &Path) -> Vec<String> {
        if kind(l) != kind(r) {
            return vec![format!("kind {} != {}", kind(l), kind(r))];
        }
        let mut lines = Vec::new();
        let (lm, rm) = (l.mode() & 0o7777, r.mode() & 0o7777);
        if self.modes && !l.is_symlink() && lm != rm {
            lines.push(format!("mode {lm:04o} != {rm:04o}"));
        }
        let wants_time = match l.file_type() {
            kind if kind.is_symlink() => self.link_mtimes,
            kind if kind.is_dir() => self.dir_mtimes,
            _ => self.mtimes,
        };
        if wants_time && nanoseconds(l).abs_diff(nanoseconds(r)) > u128::from(self.mtime_slack) {
            let time = |m: &Metadata| format!("{}s+{}ns", m.mtime(), m.mtime_nsec());
            lines.push(format!("mtime {} != {}", time(l), time(r)));
        }
        if l.is_file() {
            lines.extend(contents(l, r, a, b));
        }
        if l.is_symlink() && fs::read_link(a).unwrap() != fs::read_link(b).unwrap() {
            let target = |p: &Path| shown(fs::read_link(p).unwrap().as_os_str().as_bytes());
            lines.push(format!("target {} != {}", target(a), target(b)));
        }
        lines
    }
}

/// [`Compare::EXACT`] finds no difference.
#[track_caller]
pub fn assert_same_tree(a: &Path, b: &Path) {
    Compare::EXACT.assert_same(a, b);
}

fn contents(l: &Metadata, r: &Metadata, a: &Path, b: &Path) -> Option<String> {
    if l.len() != r.len() {
        return Some(format!("size {} != {}", l.len(), r.len()));
    }
    let (left, right) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    let first = left.iter().zip(&right).position(|(x, y)| x != y)?;
    Some(format!("contents differ from byte {first} on"))
}

fn listing(root: &Path) -> BTreeMap<Vec<u8>, Metadata> {
    let mut found = BTreeMap::new();
    list(root, &[], &mut found);
    found
}

fn list(path: &Path, name: &[u8], found: &mut BTreeMap<Vec<u8>, Metadata>) {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if metadata.is_dir() {
        let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for entry in entries {
            let entry = entry.unwrap();
            let mut below = name.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(entry.file_name().into_vec());
            list(&entry.path(), &below, found);
        }
    }
    found.insert(name.to_vec(), metadata);
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () => "device",
    }
}

fn nanoseconds(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

fn shown(name: &[u8]) -> String {
    format!("\"{}\"", name.escape_ascii())
}
