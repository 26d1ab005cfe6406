//! Whether a copy equals its source: by our own comparison, and by rsync's.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

const BUFFER: usize = 1 << 18;

/// How closely a copy is looked at. Names, kinds, modes, mtimes and sizes always count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Nothing more.
    Metadata,
    /// Every byte as well.
    Contents,
}

/// Compares two trees; the error names the first entry that differs.
pub fn same_tree(source: &Path, copy: &Path, depth: Depth) -> io::Result<()> {
    let mut buffers = (vec![0; BUFFER], vec![0; BUFFER]);
    compare(source, copy, depth, &mut buffers)
}

/// The second opinion: `rsync -rlptn --delete -i --checksum` must find nothing to do.
pub fn rsync_agrees(source: &Path, copy: &Path) -> io::Result<()> {
    let slashed = |path: &Path| format!("{}/", path.display());
    let output = Command::new("rsync")
        .args(["-rlptn", "--delete", "-i", "--checksum"])
        .args([slashed(source), slashed(copy)])
        .output()?;
    if output.status.success() && output.stdout.is_empty() {
        return Ok(());
    }
    let first = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_owned();
    Err(io::Error::other(format!("rsync finds a difference ({}): {first}", output.status)))
}

type Buffers = (Vec<u8>, Vec<u8>);

fn compare(source: &Path, copy: &Path, depth: Depth, buffers: &mut Buffers) -> io::Result<()> {
    let (a, b) = (lstat(source)?, lstat(copy)?);
    if let Some(what) = difference(&a, &b) {
        return Err(differs(copy, what));
    }
    if a.is_dir() {
        let names = sorted_names(source)?;
        if names != sorted_names(copy)? {
            return Err(differs(copy, "entries"));
        }
        return names
            .iter()
            .try_for_each(|n| compare(&source.join(n), &copy.join(n), depth, buffers));
    }
    if a.is_symlink() {
        let same = fs::read_link(source)? == fs::read_link(copy)?;
        return if same { Ok(()) } else { Err(differs(copy, "link target")) };
    }
    if a.is_file() && depth == Depth::Contents && !same_bytes(source, copy, buffers)? {
        return Err(differs(copy, "contents"));
    }
    Ok(())
}

fn lstat(path: &Path) -> io::Result<Metadata> {
    fs::symlink_metadata(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// What differs between two entries. A symlink's mode and mtime do not count: not every tool sets them.
fn difference(a: &Metadata, b: &Metadata) -> Option<&'static str> {
    if a.file_type() != b.file_type() {
        Some("kind")
    } else if a.is_symlink() {
        None
    } else if a.mode() != b.mode() {
        Some("mode")
    } else if (a.mtime(), a.mtime_nsec()) != (b.mtime(), b.mtime_nsec()) {
        Some("mtime")
    } else if a.is_file() && a.size() != b.size() {
        Some("size")
    } else {
        None
    }
}

fn sorted_names(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Compares two files of equal size.
fn same_bytes(a: &Path, b: &Path, (left, right): &mut Buffers) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    loop {
        let n = a.read(left)?;
        if n == 0 {
            return Ok(true);
        }
        b.read_exact(&mut right[..n])?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
    }
}

fn differs(path: &Path, what: &str) -> io::Error {
    io::Error::other(format!("{}: {what} differ from the source", path.display()))
}
