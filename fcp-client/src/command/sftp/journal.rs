//! What a run remembers on this machine, so that the next one goes on where it was cut.
//!
//! One file a run, locked while the run lives; what those of dead runs say goes into the next one,
//! and they go away. It names the run, whose temps are known by their
//! names, and for large files which ranges of which temp are written. What stands here is only
//! where to look: a resumed copy is proven by content before it appears.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fcp_common::fs::{RunId, TempNames};
use fcp_common::journal::names::parse_temp;
use fcp_common::private::{self, Held};
use fcp_proto::meta::Timestamp;
use fcp_proto::{Name, RelPath};
use sha2::{Digest as _, Sha256};

use crate::location::Meta;

/// The first line; another one is another program's.
const HEADER: &str = "fcp-sftp 1";
/// The most of a journal that is read: a hundred thousand ranges.
const MAX_JOURNAL: u64 = 32 << 20;

/// After so long nobody goes on any more.
const FORGOTTEN: Duration = Duration::from_secs(60 * 24 * 3600);

/// What tells one version of a source from the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Where it is, and its path there.
    pub(super) source: Vec<u8>,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Its time.
    pub(super) mtime: Timestamp,
}

/// What an earlier run has of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partial {
    /// Where it is, beside the file's name.
    pub(super) temp: RelPath,
    /// Of what.
    pub(super) version: Version,
    /// What is written, with xxh3-128 digests.
    pub(super) ranges: Vec<(Range<u64>, u128)>,
}

/// A run's journal, and those of dead runs into the same place.
#[derive(Debug)]
pub(super) struct Journal {
    names: TempNames,
    held: Option<Held>,
    dead: Vec<Held>,
    dead_runs: HashSet<RunId>,
    /// What dead runs have of each file: mostly one temp, of several the best is gone on with.
    partials: Mutex<HashMap<RelPath, Vec<Partial>>>,
    /// Temps of dead runs that are of no more use.
    stale: Mutex<Vec<RelPath>>,
}

impl Version {
    /// Of a file as it was listed; `None` where its time is not told.
    pub(super) fn of(place: &str, path: &RelPath, meta: &Meta) -> Option<Version> {
        let source = [place.as_bytes(), b"\0", path.as_bytes()].concat();
        Some(Version { source, size: meta.size, mtime: meta.mtime? })
    }
}

impl Journal {
    /// Opens a journal in `dir` for a run into `place`, and takes over those of dead runs. Where
    /// there is no directory, or it cannot be used, nothing is remembered.
    pub(super) fn open(dir: Option<&Path>, place: &str) -> Journal {
        let run = RunId::random();
        let mut journal = Journal {
            names: TempNames::new(run),
            held: None,
            dead: Vec::new(),
            dead_runs: HashSet::new(),
            partials: Mutex::default(),
            stale: Mutex::default(),
        };
        let Some(dir) = dir else { return journal };
        for old in private::not_changed_for(FORGOTTEN, dir) {
            // Nobody went on with it.
            Held::take_over(&old, 0).into_iter().for_each(|(held, _)| held.remove());
        }
        let prefix = format!("{}-", key(place));
        for path in private::named(dir, &prefix) {
            journal.take_over(&path, prefix.len());
        }
        match journal.carry_over(&dir.join(format!("{prefix}{}", shown(run)))) {
            Ok(held) => {
                journal.held = Some(held);
                // All that they say stands in this one.
                journal.dead.drain(..).for_each(Held::remove);
            }
            Err(error) => tracing::info!("cut transfers cannot be resumed: {error}"),
        }
        journal
    }

    /// A name for a temp that this run has not used yet; a later one knows it by the run.
    pub(super) fn temp_name(&self) -> Name {
        self.names.next()
    }

    /// Whether dead runs went to this place.
    pub(super) fn has_dead(&self) -> bool {
        !self.dead_runs.is_empty()
    }

    /// Whether the name is a temp of a dead run.
    pub(super) fn is_dead(&self, name: &Name) -> bool {
        parse_temp(name).is_some_and(|(run, _)| self.dead_runs.contains(&run))
    }

    /// Whether some file may be gone on with in this temp.
    pub(super) fn may_resume(&self, temp: &RelPath) -> bool {
        self.lock().values().flatten().any(|partial| partial.temp == *temp)
    }

    /// The most there is of `path` in this version. Each is given out once, and stands in this
    /// journal already.
    pub(super) fn take(&self, path: &RelPath, version: &Version) -> Option<Partial> {
        let all = self.lock().remove(path)?;
        let (these, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|partial| partial.version == *version);
        let best = these.iter().max_by_key(|partial| partial.covered()).cloned();
        let unused = these.into_iter().chain(others).map(|partial| partial.temp);
        unused.filter(|temp| best.as_ref().is_none_or(|b| b.temp != *temp)).for_each(|temp| {
            self.discard(temp);
        });
        best
    }

    /// A temp of a dead run is not gone on with.
    pub(super) fn discard(&self, temp: RelPath) {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner).push(temp);
    }

    /// Temps of dead runs that nobody goes on with, to be removed; told once.
    pub(super) fn leftovers(&self) -> Vec<RelPath> {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut *stale);
        all.extend(self.lock().drain().flat_map(|(_, all)| all).map(|partial| partial.temp));
        all
    }

    /// From now on a temp is to be `path`, and holds these ranges and no others.
    pub(super) fn begin(&self, path: &RelPath, partial: &Partial) {
        self.write(&begin_lines(path, partial));
    }

    /// A range of `temp` is written.
    pub(super) fn range(&self, temp: &RelPath, range: &Range<u64>, digest: u128) {
        self.write(&range_line(temp, range, digest));
    }

    /// `temp` is gone, or has its final name.
    pub(super) fn end(&self, temp: &RelPath) {
        self.write(&format!("end {}\n", hex(temp.as_bytes())));
    }

    /// The run has come to its end: nothing of it or of the dead ones is left to go on with.
    pub(super) fn finish(self) {
        self.dead.into_iter().chain(self.held).for_each(Held::remove);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RelPath, Vec<Partial>>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_over(&mut self, path: &Path, prefix: usize) {
        let name = path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
        let Some(run) = name.get(prefix..).and_then(RunId::from_journal_name) else { return };
        let Some((held, bytes)) = Held::take_over(path, MAX_JOURNAL) else { return };
        let said = replay(&bytes);
        self.dead_runs.insert(run);
        self.dead_runs.extend(said.runs);
        self.dead.push(held);
        let partials = self.partials.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (path, partial) in said.begun {
            let all = partials.entry(path).or_default();
            match all.iter_mut().find(|old| old.is_same(&partial)) {
                Some(old) => old.merge(partial.ranges),
                None => all.push(partial),
            }
        }
    }

    /// Begins this run's journal with all that those of dead runs say: there is one at a time,
    /// however often a copy is cut.
    fn carry_over(&self, path: &Path) -> std::io::Result<Held> {
        let held = Held::create(path)?;
        let mut text = format!("{HEADER}\n");
        for run in &self.dead_runs {
            let _ = writeln!(text, "run {}", hex(shown(*run).as_bytes()));
        }
        for (path, all) in &*self.lock() {
            text.extend(all.iter().map(|partial| begin_lines(path, partial)));
        }
        match held.append(text.as_bytes()) {
            Ok(()) => Ok(held),
            Err(error) => {
                held.remove();
                Err(error)
            }
        }
    }

    fn write(&self, text: &str) {
        let Some(held) = &self.held else { return };
        if let Err(error) = held.append(text.as_bytes()) {
            tracing::info!("a cut transfer cannot be resumed: {error}");
        }
    }
}

/// `fcp/sftp` in `$XDG_STATE_HOME`, which is `~/.local/state` by default.
pub(super) fn state_dir() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("fcp/sftp"))
}

impl Partial {
    /// Bytes that are written.
    fn covered(&self) -> u64 {
        self.ranges.iter().map(|(range, _)| range.end - range.start).sum()
    }

    fn is_same(&self, other: &Partial) -> bool {
        self.temp == other.temp && self.version == other.version
    }

    /// Adds what another journal says of the same temp.
    fn merge(&mut self, ranges: Vec<(Range<u64>, u128)>) {
        self.ranges.extend(ranges);
        self.ranges.sort_unstable_by_key(|(range, _)| (range.start, range.end));
        let mut end = 0;
        self.ranges.retain(|(range, _)| {
            let fits = range.start >= end;
            end = if fits { range.end } else { end };
            fits
        });
    }
}

/// What a journal says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Runs that were dead when it began.
    runs: Vec<RunId>,
    /// Files that had begun and not ended.
    begun: Vec<(RelPath, Partial)>,
}

/// What the journals of one place begin with.
fn key(place: &str) -> String {
    hex(&Sha256::digest(place.as_bytes())[..8])
}

/// What a journal says. Its end may be torn.
fn replay(bytes: &[u8]) -> Said {
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(&bytes[..0], |end| &bytes[..end]);
    let text = std::str::from_utf8(whole).unwrap_or_default();
    let mut lines = text.lines();
    let mut said = Said::default();
    if lines.next() != Some(HEADER) {
        return said;
    }
    let mut begun = HashMap::new();
    for line in lines {
        let taken = match line.strip_prefix("run ") {
            Some(run) => take_run(run).map(|run| said.runs.push(run)),
            None => take_line(line, &mut begun),
        };
        if taken.is_none() {
            break;
        }
    }
    said.begun = begun.into_values().collect();
    said
}

fn take_run(text: &str) -> Option<RunId> {
    RunId::from_journal_name(&unhex(text)?)
}

/// Takes one line into what has begun, by temp; `None` where it makes no sense.
fn take_line(line: &str, begun: &mut HashMap<RelPath, (RelPath, Partial)>) -> Option<()> {
    let mut words = line.split(' ');
    let what = words.next()?;
    let temp = path(words.next()?)?;
    match what {
        "begin" => {
            let to = path(words.next()?)?;
            let source = unhex(words.next()?)?;
            let size = words.next()?.parse().ok()?;
            let secs = words.next()?.parse().ok()?;
            let mtime = Timestamp { secs, nanos: words.next()?.parse().ok()? };
            let version = Version { source, size, mtime };
            let partial = Partial { temp: temp.clone(), version, ranges: Vec::new() };
            begun.insert(temp, (to, partial));
        }
        "range" => {
            let (start, end) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let digest = u128::from_str_radix(words.next()?, 16).ok()?;
            let (_, partial) = begun.get_mut(&temp)?;
            // Ranges of a file in order make sense to whoever resumes it, and only those.
            (start < end && end <= partial.version.size)
                .then(|| partial.ranges.push((start..end, digest)))?;
        }
        "end" => drop(begun.remove(&temp)),
        _ => return None,
    }
    Some(())
}

fn begin_lines(path: &RelPath, partial: &Partial) -> String {
    let Partial { temp, version: Version { source, size, mtime }, ranges } = partial;
    let (secs, nanos) = (mtime.secs, mtime.nanos);
    let [temp_name, path, source] = [temp.as_bytes(), path.as_bytes(), source].map(hex);
    let mut lines = format!("begin {temp_name} {path} {source} {size} {secs} {nanos}\n");
    lines.extend(ranges.iter().map(|(range, digest)| range_line(temp, range, *digest)));
    lines
}

fn range_line(temp: &RelPath, range: &Range<u64>, digest: u128) -> String {
    format!("range {} {} {} {digest:032x}\n", hex(temp.as_bytes()), range.start, range.end)
}

/// A run as its journal's name ends.
fn shown(run: RunId) -> String {
    String::from_utf8_lossy(run.journal_name().as_bytes()).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn path(text: &str) -> Option<RelPath> {
    RelPath::new(&unhex(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::new(path.as_bytes()).unwrap()
    }

    fn version(size: u64) -> Version {
        let mtime = Timestamp { secs: -7, nanos: 5 };
        Version { source: b"here\0a b".to_vec(), size, mtime }
    }

    fn partial(journal: &Journal) -> Partial {
        let temp = RelPath::from(journal.temp_name());
        Partial { temp, version: version(100), ranges: vec![(0..10, 7)] }
    }

    #[test]
    fn a_cut_run_is_gone_on_with_and_a_finished_one_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(Some(dir.path()), "sftp h/x");
        let begun = partial(&journal);
        journal.begin(&rel("sub/\n name"), &begun);
        journal.range(&begun.temp, &(20..30), u128::MAX);
        let over = Partial { temp: rel("other"), ..begun.clone() };
        journal.begin(&rel("done"), &over);
        journal.end(&over.temp);
        let other = Journal::open(Some(dir.path()), "sftp h/x");
        assert!(!other.has_dead(), "the first one lives");
        drop(other);
        drop(journal);
        assert!(!Journal::open(Some(dir.path()), "sftp h/y").has_dead());
        let next = Journal::open(Some(dir.path()), "sftp h/x");
        assert!(next.is_dead(&begun.temp.split_last().unwrap().1));
        assert_eq!(next.take(&rel("done"), &version(100)), None);
        let found = next.take(&rel("sub/\n name"), &version(100)).unwrap();
        assert_eq!(found.ranges, [(0..10, 7), (20..30, u128::MAX)]);
        assert_eq!(found.temp, begun.temp);
        assert_eq!(next.take(&rel("sub/\n name"), &version(100)), None, "once only");
        next.finish();
        assert!(!Journal::open(Some(dir.path()), "sftp h/x").has_dead());
    }

    fn journals(dir: &Path) -> usize {
        private::named(dir, "").len()
    }

    #[test]
    fn however_often_a_copy_is_cut_there_is_one_journal_that_knows_all() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Journal::open(Some(dir.path()), "p");
        let first = open();
        let begun = Partial { ranges: Vec::new(), ..partial(&first) };
        let small = first.temp_name();
        first.begin(&rel("a"), &begun);
        drop(first);
        for cut in 0..5 {
            let journal = open();
            assert_eq!(journals(dir.path()), 1);
            assert!(journal.is_dead(&small), "{cut}");
            let found = journal.take(&rel("a"), &version(100)).unwrap();
            assert_eq!(found.ranges.len() as u64, cut);
            journal.range(&found.temp, &(cut * 10..cut * 10 + 10), 1);
        }
        // One that never came to the file does not forget it.
        drop(open());
        let journal = open();
        assert_eq!(journal.take(&rel("a"), &version(100)).unwrap().covered(), 50);
        // The temp is gone.
        journal.begin(&rel("a"), &begun);
        drop(journal);
        let journal = open();
        assert_eq!(journal.take(&rel("a"), &version(100)).unwrap().covered(), 0);
        journal.finish();
        assert_eq!(journals(dir.path()), 0);
    }

    #[test]
    fn what_several_journals_say_of_one_temp_is_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [0, 1].map(|_| Journal::open(Some(dir.path()), "p"));
        let begun = partial(&one);
        one.begin(&rel("a"), &begun);
        other.begin(&rel("a"), &Partial { ranges: vec![(0..10, 7), (50..60, 8)], ..begun.clone() });
        let less = partial(&other);
        other.begin(&rel("a"), &less);
        drop((one, other));
        let next = Journal::open(Some(dir.path()), "p");
        let found = next.take(&rel("a"), &version(100)).unwrap();
        assert_eq!((found.temp, found.ranges), (begun.temp, vec![(0..10, 7), (50..60, 8)]));
        assert_eq!(next.leftovers(), [less.temp]);
    }

    #[test]
    fn another_version_of_the_source_begins_afresh() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(Some(dir.path()), "p");
        journal.begin(&rel("a"), &partial(&journal));
        drop(journal);
        let next = Journal::open(Some(dir.path()), "p");
        assert_eq!(next.take(&rel("a"), &version(101)), None);
    }

    #[test]
    fn a_torn_or_broken_journal_says_what_it_said_until_there() {
        let whole = format!("{HEADER}\nbegin 61 62 63 9 1 0\nrange 61 0 9 0a\n");
        assert_eq!(replay(whole.as_bytes()).begun[0].1.ranges, [(0..9, 10)]);
        for more in ["range 61 9", "range 61 8 9 0b", "range 61 5 10 0b\n", "what 61\n", "\u{0}\n"]
        {
            let found = replay(format!("{whole}{more}").as_bytes());
            assert_eq!(found.begun[0].1.ranges, [(0..9, 10)], "{more:?}");
        }
        for nothing in ["", "fcp-sftp 2\nbegin 61 62 63 9 1 0\n", "begin 61 62 63 9 1 0\n"] {
            assert_eq!(replay(nothing.as_bytes()), Said::default(), "{nothing:?}");
        }
        let climbing = format!("{HEADER}\nbegin 61 2e2e 63 9 1 0\n");
        assert_eq!(replay(climbing.as_bytes()), Said::default());
    }

    #[test]
    fn without_a_directory_nothing_is_remembered_and_nothing_fails() {
        let journal = Journal::open(None, "p");
        journal.begin(&rel("a"), &partial(&journal));
        assert!(!journal.has_dead());
        journal.finish();
    }
}
