//! The workloads of the side-by-side run, from a seeded generator: the same bytes everywhere, every time.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

const FILES_PER_DIR: u64 = 100;
const CHUNK: usize = 1 << 20;
/// Every mtime is a whole second: tar's default format carries no fraction, and the copies must be equal.
const FIRST_MTIME: u64 = 1_600_000_000;
/// Octaves between the smallest (1 KiB) and the largest (16 MiB) file of W3.
const OCTAVES: f64 = 14.0;
/// Leans W3 towards small files so far that its 2,000 files make 1.9 GB.
const LEAN: f64 = 1.94;

/// What a run copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// One incompressible file of 4 GiB.
    W1,
    /// 50,000 files of 1 to 16 KiB, 100 a directory.
    W2,
    /// 2,000 files, sizes spread over the octaves from 1 KiB to 16 MiB.
    W3,
    /// W2 again, into a destination that already holds it.
    W4,
    /// One incompressible file of 1 KiB: what a session costs.
    L0,
    /// One incompressible file of 1 GiB, for a long link.
    L1,
    /// One incompressible file of 256 MiB, for a long link.
    L2,
    /// 2,000 files of 1 to 16 KiB, 100 a directory, for a long link.
    L3,
    /// One incompressible file of 1 GiB, in a month's folder as jobs have it.
    J1,
    /// 5,000 files of 1 to 16 KiB in a month's folder.
    J2,
    /// One incompressible file of 256 MiB in a month's folder, for a long link.
    J3,
}

/// Touches as much memory as a copy of `bytes` will need and frees it again: a virtual machine gives
/// free pages back to its host, and whoever is the first to want them pays, by turns and by a factor
/// of two.
pub fn warm_pages(ballast: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(ballast)?;
    io::copy(&mut io::repeat(1).take(bytes), &mut file)?;
    fs::remove_file(ballast)
}

/// Makes the folder anew.
pub fn empty(dir: &Path) -> io::Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)
}

/// A source tree on disk.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its root.
    pub path: PathBuf,
    /// Regular files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Workload {
    /// Those of a fast link, in the order they run.
    pub const ALL: [Self; 4] = [Self::W1, Self::W2, Self::W3, Self::W4];
    /// Those of a long link, in the order they run.
    pub const LONG: [Self; 4] = [Self::L0, Self::L1, Self::L2, Self::L3];

    /// Those of jobs and their peers, in the order they run.
    pub const JOBS: [Self; 3] = [Self::J1, Self::J2, Self::J3];
    /// The folder of those.
    pub const MONTH: &str = "2024/202401";

    /// The name in tables, files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::W1 => "W1",
            Self::W2 => "W2",
            Self::W3 => "W3",
            Self::W4 => "W4",
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::J1 => "J1",
            Self::J2 => "J2",
            Self::J3 => "J3",
        }
    }

    /// Whether the destination stays filled between runs, so that nothing is to be done.
    pub fn is_no_op(self) -> bool {
        self == Self::W4
    }

    /// The unit its speed is read in: whether files matter rather than bytes.
    pub fn counts_files(self) -> bool {
        matches!(self, Self::W2 | Self::W4 | Self::L3 | Self::J2)
    }

    /// Makes the source under `dir`, unless an earlier run has; `small` is the size for smoke tests.
    pub fn make(self, dir: &Path, small: bool) -> io::Result<Source> {
        // W4 reads the very tree of W2.
        let tree = if self == Self::W4 { Self::W2 } else { self };
        let name = format!("{}{}", tree.name(), if small { "-small" } else { "" });
        let path = dir.join(&name);
        let sizes = tree.sizes(small);
        let source = Source { path, files: sizes.len() as u64, bytes: sizes.iter().copied().sum() };
        let done = dir.join(format!("{name}.made"));
        if !done.exists() {
            let _ = fs::remove_dir_all(&source.path);
            write_tree(&source.path, &sizes, tree)?;
            File::create(done)?;
        }
        Ok(source)
    }

    /// The folder of a file below the root.
    fn folder(self, index: u64) -> String {
        match self {
            Self::J1 | Self::J2 | Self::J3 => Self::MONTH.to_owned(),
            Self::W1 | Self::L0 | Self::L1 | Self::L2 => String::new(),
            _ => format!("d{:04}", index / FILES_PER_DIR),
        }
    }

    fn sizes(self, small: bool) -> Vec<u64> {
        let mut random = SplitMix64(0xfc9 + self as u64);
        match self {
            Self::W1 => vec![if small { 64 << 20 } else { 4 << 30 }],
            Self::W2 | Self::W4 => {
                let count = if small { 1_000 } else { 50_000 };
                (0..count).map(|_| small_size(&mut random)).collect()
            }
            Self::W3 => octave_sizes(if small { 100 } else { 2_000 }, &mut random),
            Self::L0 => vec![1 << 10],
            Self::L1 | Self::J1 => vec![if small { 16 << 20 } else { 1 << 30 }],
            Self::L2 | Self::J3 => vec![if small { 4 << 20 } else { 256 << 20 }],
            Self::L3 => {
                let count = if small { 200 } else { 2_000 };
                (0..count).map(|_| small_size(&mut random)).collect()
            }
            Self::J2 => {
                let count = if small { 500 } else { 5_000 };
                (0..count).map(|_| small_size(&mut random)).collect()
            }
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter().chain(Self::LONG).chain(Self::JOBS);
        let found = all.find(|w| w.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| {
            format!("{name}: no such workload; there are W1 to W4, L0 to L3, J1 to J3")
        })
    }
}

/// 1 to 16 KiB.
fn small_size(random: &mut SplitMix64) -> u64 {
    1024 + random.next() % (15 * 1024 + 1)
}

/// `count` sizes at even steps of the leaning log distribution, shuffled.
fn octave_sizes(count: u64, random: &mut SplitMix64) -> Vec<u64> {
    let size = |i: u64| {
        let place = (i as f64 + 0.5) / count as f64;
        (1024.0 * (OCTAVES * place.powf(LEAN)).exp2()) as u64
    };
    let mut sizes: Vec<u64> = (0..count).map(size).collect();
    for i in (1..sizes.len()).rev() {
        sizes.swap(i, (random.next() % (i as u64 + 1)) as usize);
    }
    sizes
}

fn write_tree(root: &Path, sizes: &[u64], workload: Workload) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let mut buffer = vec![0; CHUNK];
    for (index, &size) in (0u64..).zip(sizes) {
        let dir = root.join(workload.folder(index));
        if index % FILES_PER_DIR == 0 {
            fs::create_dir_all(&dir)?;
        }
        let path = dir.join(format!("f{index:06}"));
        write_file(&path, size, SplitMix64((workload as u64) << 32 | index), &mut buffer)?;
        set_mtime(&path, index)?;
    }
    // Directories last: each file made in one would have touched it again.
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() {
            set_mtime(&path, 1)?;
        }
    }
    set_mtime(root, 0)
}

fn write_file(path: &Path, size: u64, mut random: SplitMix64, buffer: &mut [u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).map_or(buffer.len(), |n| n.min(buffer.len()));
        let piece = &mut buffer[..length];
        random.fill(piece);
        file.write_all(piece)?;
        left -= length as u64;
    }
    Ok(())
}

fn set_mtime(path: &Path, seconds: u64) -> io::Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST_MTIME + seconds);
    File::open(path)?.set_times(FileTimes::new().set_modified(time).set_accessed(time))
}

/// Vigna's splitmix64: a full-period stream from any seed, fast and incompressible.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            word.copy_from_slice(&random[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workloads_have_the_published_sizes() {
        let sum = |w: Workload| w.sizes(false).iter().sum::<u64>() as f64 / 1e6;
        assert_eq!(Workload::W1.sizes(false), [4 << 30]);
        assert_eq!(Workload::W2.sizes(false).len(), 50_000);
        assert!((430.0..440.0).contains(&sum(Workload::W2)), "{}", sum(Workload::W2));
        assert!((1850.0..1950.0).contains(&sum(Workload::W3)), "{}", sum(Workload::W3));
    }

    #[test]
    fn splitmix64_gives_its_published_first_value() {
        assert_eq!(SplitMix64(0).next(), 0xe220_a839_7b1d_cdaf);
    }
}
