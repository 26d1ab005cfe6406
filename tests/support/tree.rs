//! Makes trees to copy: a small ordinary one, and a nasty one.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A file of so many bytes that look random.
    File(u64),
    /// A file of so many bytes, all of them a hole but for the first and the last KiB.
    Sparse(u64),
    /// A symlink with this target.
    Symlink(Vec<u8>),
}

/// One entry of a tree.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its path below the root, in bytes; parents are made as needed.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits; no meaning for symlinks.
    pub mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
}

/// An mtime that no clock of a test run gives by chance.
const MTIME: (i64, i64) = (1_500_000_001, 123_456_789);

impl Item {
    /// A file with mode 0644.
    pub fn file(path: impl AsRef<[u8]>, size: u64) -> Self {
        Self::new(path.as_ref(), Kind::File(size), 0o644)
    }

    /// A directory with mode 0755.
    pub fn dir(path: impl AsRef<[u8]>) -> Self {
        Self::new(path.as_ref(), Kind::Dir, 0o755)
    }

    /// A symlink.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(path.as_ref(), Kind::Symlink(target.as_ref().to_vec()), 0o777)
    }

    /// The same with another mode.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The same with another mtime.
    pub fn mtime(mut self, seconds: i64, nanoseconds: i64) -> Self {
        self.mtime = (seconds, nanoseconds);
        self
    }

    fn new(path: &[u8], kind: Kind, mode: u32) -> Self {
        Self { path: path.to_vec(), kind, mode, mtime: MTIME }
    }

    fn below(&self, root: &Path) -> PathBuf {
        root.join(OsStr::from_bytes(&self.path))
    }
}

/// Makes the tree. Modes and mtimes are set last and bottom-up, so that none disturbs another.
pub fn build(root: &Path, items: &[Item]) {
    fs::create_dir_all(root).unwrap();
    for (seed, item) in (1..).zip(items) {
        let path = item.below(root);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match &item.kind {
            Kind::Dir => fs::create_dir_all(&path).unwrap(),
            Kind::File(size) => fs::write(&path, random_bytes(*size, seed)).unwrap(),
            Kind::Sparse(size) => write_sparse(&path, *size, seed),
            Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
        }
    }
    let mut bottom_up: Vec<&Item> = items.iter().collect();
    bottom_up.sort_by(|a, b| b.path.cmp(&a.path));
    let (dirs, leaves): (Vec<_>, Vec<_>) = bottom_up.into_iter().partition(|i| i.kind == Kind::Dir);
    leaves.into_iter().chain(dirs).for_each(|item| set_metadata(root, item));
}

/// A dozen ordinary entries: nested directories, files of 0 to 100,000 bytes, one symlink.
pub fn small(root: &Path) {
    let items = [
        Item::file("empty", 0),
        Item::file("one", 1),
        Item::file("script.sh", 200).mode(0o755),
        Item::file("docs/readme.txt", 3_000),
        Item::file("docs/private.txt", 10).mode(0o600),
        Item::file("docs/deep/er/block.bin", 100_000),
        Item::file("data/four-k.bin", 4_096),
        Item::symlink("data/latest", "four-k.bin"),
        Item::dir("data"),
        Item::dir("docs").mode(0o750),
        Item::dir("docs/deep"),
        Item::dir("docs/deep/er"),
        Item::dir("nothing-inside"),
    ];
    build(root, &items);
}

/// Whatever a Linux file system allows and a copier gets wrong. Modes that forbid reading are only
/// made for root, who can read them; so a user's nasty tree can still be copied whole.
pub fn nasty(root: &Path) {
    build(root, &nasty_items());
}

/// The entries of [`nasty`].
pub fn nasty_items() -> Vec<Item> {
    [nasty_names(), nasty_links(), nasty_modes(), nasty_times(), nasty_sizes()].concat()
}

fn nasty_names() -> Vec<Item> {
    let odd: [&[u8]; 24] = [
        b"new\nline",
        b"return\r",
        b"tab\t",
        b" leading",
        b"trailing ",
        b"quote'\"`",
        b"back\\slash",
        b"*?[a-z]",
        b"-rf",
        b"--delete",
        b"~root",
        b"host:path",
        b"per%2fcent",
        b"$HOME",
        b";&|<>()!#",
        b"\x01\x1b[31m\x7f",
        b"\xff\xfe",
        b"latin-1-\xe9",
        b"nfc-\xc3\xa9",
        b"nfd-e\xcc\x81",
        b"\xf0\x9f\xa6\x80",
        b".hidden",
        b"...",
        b"cut-\xf0\x9f",
    ];
    let mut items: Vec<Item> =
        odd.iter().map(|name| Item::file([b"names/", *name].concat(), 10)).collect();
    items.push(Item::file([b"names/".as_slice(), &[b'n'; 255]].concat(), 10));
    items.push(Item::file([b"names/".as_slice(), &[b'd'; 255], b"/\xff\n/leaf"].concat(), 10));
    items.push(Item::file(format!("names/deep{}/leaf", "/d".repeat(60)), 10));
    items
}

fn nasty_links() -> Vec<Item> {
    vec![
        Item::file("links/file", 10),
        Item::file("links/dir/inner", 10),
        Item::symlink("links/relative", "file"),
        Item::symlink("links/to-dir", "dir"),
        Item::symlink("links/through-dir", "to-dir/inner"),
        Item::symlink("links/up", "../names"),
        Item::symlink("links/outside", "../../../../../../../../etc/passwd"),
        Item::symlink("links/absolute", "/etc/passwd"),
        Item::symlink("links/dangling", "nobody/here"),
        Item::symlink("links/dangling-absolute", "/nobody/here"),
        Item::symlink("links/loop", "loop"),
        Item::symlink("links/dot", "."),
        Item::symlink("links/odd-target", b"\xff\n '"),
        Item::symlink("links/long-target", [b't'; 3_000]),
        Item::symlink("links/old", "file").mtime(1, 1),
    ]
}

fn nasty_modes() -> Vec<Item> {
    let is_root = rustix::process::geteuid().is_root();
    let files = [
        0o000, 0o001, 0o010, 0o100, 0o111, 0o200, 0o222, 0o333, 0o400, 0o444, 0o555, 0o600, 0o604,
        0o640, 0o644, 0o664, 0o666, 0o700, 0o711, 0o751, 0o755, 0o770, 0o777,
    ];
    let dirs = [0o000, 0o111, 0o300, 0o500, 0o555, 0o700, 0o711, 0o755, 0o777];
    let mut items = Vec::new();
    for mode in files.into_iter().filter(|m| is_root || m & 0o400 != 0) {
        items.push(Item::file(format!("modes/file-{mode:04o}"), 10).mode(mode));
    }
    for mode in dirs.into_iter().filter(|m| is_root || m & 0o500 == 0o500) {
        items.push(Item::dir(format!("modes/dir-{mode:04o}")).mode(mode));
        items.push(Item::file(format!("modes/dir-{mode:04o}/inner"), 10));
    }
    items.push(Item::dir("modes/read-only/nested").mode(0o555));
    items.push(Item::dir("modes/read-only").mode(0o555));
    items
}

fn nasty_times() -> Vec<Item> {
    let times: [(i64, i64); 11] = [
        (0, 0),
        (0, 1),
        (1, 999_999_999),
        (-1, 0),
        (-1, 999_999_999),
        (-2, 1),
        (-1_000_000_000, 123_456_789),
        (i32::MAX as i64, 999_999_999),
        (i32::MAX as i64 + 1, 0),
        (u32::MAX as i64 + 1, 1),
        // ext4 ends in 2446.
        (15_000_000_000, 999_999_999),
    ];
    let mut items = Vec::new();
    for (n, (seconds, nanoseconds)) in times.into_iter().enumerate() {
        items.push(Item::file(format!("times/file-{n}"), 10).mtime(seconds, nanoseconds));
        items.push(Item::dir(format!("times/dir-{n}")).mtime(seconds, nanoseconds));
    }
    items.push(Item::dir("times/filled").mtime(-5, 5));
    items.push(Item::file("times/filled/file", 10).mtime(-6, 6));
    items
}

fn nasty_sizes() -> Vec<Item> {
    const MIB: u64 = 1 << 20;
    let sizes = [0, 1, 4_095, 4_096, 4_097, 61_440, 65_535, 65_536, MIB - 1, MIB, MIB + 1, 5 * MIB];
    let mut items: Vec<Item> =
        sizes.iter().map(|size| Item::file(format!("sizes/{size}"), *size)).collect();
    items.push(Item::new(b"sizes/sparse", Kind::Sparse(3 * MIB + 7), 0o644));
    items.push(Item::dir("sizes/empty-dir"));
    items.push(Item::dir("sizes/empty-dirs/inside/one-another"));
    items
}

/// Makes every directory of the tree writable again, so that a user can remove it.
pub fn unlock(root: &Path) {
    fs::set_permissions(root, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            unlock(&entry.path());
        }
    }
}

/// Bytes from xorshift64, the same for the same seed.
pub fn random_bytes(size: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    bytes
}

fn write_sparse(path: &Path, size: u64, seed: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(&random_bytes(1_024, seed)).unwrap();
    file.set_len(size).unwrap();
    file.seek(SeekFrom::Start(size - 1_024)).unwrap();
    file.write_all(&random_bytes(1_024, seed + 1)).unwrap();
}

fn set_metadata(root: &Path, item: &Item) {
    let path = item.below(root);
    let time = Timespec { tv_sec: item.mtime.0, tv_nsec: item.mtime.1 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if !matches!(item.kind, Kind::Symlink(_)) {
        fs::set_permissions(&path, Permissions::from_mode(item.mode)).unwrap();
    }
}
