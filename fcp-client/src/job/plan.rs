//! What a run does with every file of a folder, and why. Pure: listings, clocks and what the ledger
//! knows come in, decisions go out.
//!
//! [`sift`] keeps what is a file of the job, [`ripe`] what nobody writes any more, [`is_stable`]
//! what two looks agree on, and [`Planner::decide`] holds it against what the destination has.
//! Every file is judged for itself: never "newer than the last run", so a late file with an old
//! time is seen.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use fcp_common::fs::Kind;
use fcp_proto::meta::Timestamp;
use fcp_proto::path::{Name, RelPath};

use sha2::{Digest as _, Sha256};

use super::ledger::State;
use super::spec::{Action, JobSpec, Layout, Overwrite};
use crate::location::{Clock, Listing, Meta};

/// How temporary names of ours begin.
pub const TEMP_PREFIX: &[u8] = b".tmp.";

/// The longest name that file systems take.
const NAME_MAX: usize = 255;

/// What happens to one entry of a source folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is copied.
    Take(Take),
    /// A file of its name and size is there: it counts as delivered, once that is proven where the
    /// source is to go.
    There {
        /// The file.
        candidate: Candidate,
        /// Its name at the destination.
        to: RelPath,
    },
    /// It is left alone.
    Skip {
        /// The file.
        path: RelPath,
        /// Why.
        why: Skip,
    },
}

/// A file to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// Which.
    pub candidate: Candidate,
    /// Its name at the destination.
    pub to: RelPath,
    /// What must be there when it gets that name.
    pub expect: Expect,
}

/// What has the final name before a copy gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// This file, which is replaced.
    Replace(Meta),
}

/// A file that is one of the job's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Below the source's base.
    pub path: RelPath,
    /// As listed.
    pub meta: Meta,
}

/// Why a file is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// `file_pattern` does not find anything in its name.
    NoMatch,
    /// Somebody's temporary name.
    Temp,
    /// The folder of files that are done.
    DoneFolder,
    /// A directory.
    Directory,
    /// A symlink; what it leads to is not the job's.
    Symlink,
    /// A device, a socket or the like.
    Special,
    /// The marker of another file.
    Marker,
    /// Its marker is not there.
    MarkerMissing(String),
    /// It changed this short a while ago.
    TooYoung {
        /// Its age by the server's clock.
        age: Duration,
        /// `min_file_age_minutes`.
        min: Duration,
    },
    /// Its time lies ahead of the server's clock by this much.
    InFuture(Duration),
    /// The server's clock is not known, and we have not seen it for long enough.
    NotSeenLong {
        /// For how long we have.
        seen: Duration,
        /// `min_file_age_minutes`.
        min: Duration,
    },
    /// It changed between two looks.
    Unstable,
    /// It was gone when it was to be read.
    Vanished,
    /// The ledger has it as delivered, under this name.
    Delivered(String),
    /// A file of its name and size is there.
    SameThere,
    /// The file of its name stays by the overwrite rule, for this reason.
    Kept(Stays),
    /// As before, but the source would have gone (MOVE, DELETE): a person has to look.
    Conflict(Stays),
    /// Something that is no file has its name at the destination.
    NameTaken,
    /// Another file of this run has the same name at the destination.
    Twin(RelPath),
    /// The name is none that we can use.
    Refused(&'static str),
    /// Its name at the destination is none.
    NoName(String),
    /// Another run has it.
    Elsewhere(String),
}

/// Why a file at the destination stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// `overwrite: larger`, and it is.
    Larger,
    /// `overwrite: never`.
    Never,
    /// `overwrite: newer`, and it is not older.
    NotOlder,
    /// `overwrite: newer`, and the destination tells no times.
    NoTime,
    /// It has the same size, but not the same content.
    OtherContent,
    /// It was delivered from another path of the source.
    OfAnother,
}

impl Skip {
    /// Whether it is no file of the job at all.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Skip::NoMatch | Skip::DoneFolder | Skip::Directory | Skip::Marker)
    }

    /// Whether the run has failed to do what it was asked.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            Skip::Conflict(_)
                | Skip::NameTaken
                | Skip::Twin(_)
                | Skip::Refused(_)
                | Skip::NoName(_)
        )
    }

    /// The reason in one or two words, to count by.
    pub fn class(&self) -> &'static str {
        match self {
            Skip::NoMatch => "no match",
            Skip::Temp => "temporary name",
            Skip::DoneFolder | Skip::Directory => "directory",
            Skip::Symlink => "symlink",
            Skip::Special => "not a regular file",
            Skip::Marker | Skip::MarkerMissing(_) => "marker missing",
            Skip::TooYoung { .. } | Skip::NotSeenLong { .. } => "too young",
            Skip::InFuture(_) => "time in the future",
            Skip::Unstable => "still changing",
            Skip::Vanished => "vanished",
            Skip::Delivered(_) => "delivered before",
            Skip::SameThere => "already there",
            Skip::Kept(_) => "kept by the overwrite rule",
            Skip::Conflict(_) => "conflict",
            Skip::NameTaken | Skip::Twin(_) => "name taken",
            Skip::Refused(_) | Skip::NoName(_) => "unusable name",
            Skip::Elsewhere(_) => "in another run",
        }
    }
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stays::Larger => "a larger file of this name is there (overwrite: larger)",
            Stays::Never => "a file of this name is there (overwrite: never)",
            Stays::NotOlder => "the file of this name there is not older (overwrite: newer)",
            Stays::NoTime => "the destination does not tell how old its file is (overwrite: newer)",
            Stays::OfAnother => {
                "the file of this name there was delivered from another folder; use overwrite: \
                 rename or layout: tree"
            }
            Stays::OtherContent => "a file of this name and size with other content is there",
        })
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::NoMatch => f.write_str("file_pattern does not match its name"),
            Skip::Temp => f.write_str("it has the name of an unfinished file"),
            Skip::DoneFolder => f.write_str("the folder of files that are done"),
            Skip::Directory => f.write_str("a directory"),
            Skip::Symlink => f.write_str("a symlink; links are not followed"),
            Skip::Special => f.write_str("not a regular file"),
            Skip::Marker => f.write_str("the marker of another file"),
            Skip::MarkerMissing(name) => write!(f, "its marker {name} is not there"),
            Skip::TooYoung { age, min } => write!(
                f,
                "it changed {} ago by the server's clock; min_file_age is {}",
                span(*age),
                span(*min)
            ),
            Skip::InFuture(by) => {
                write!(f, "its time is {} ahead of the server's clock", span(*by))
            }
            Skip::NotSeenLong { seen, min } => write!(
                f,
                "the server's clock is not known and we have seen it so for {}; min_file_age is {}",
                span(*seen),
                span(*min)
            ),
            Skip::Unstable => f.write_str("it changed between two looks: somebody is writing it"),
            Skip::Vanished => f.write_str("it was gone when it was to be read"),
            Skip::Delivered(to) => write!(
                f,
                "delivered before as {to}; give it a new time (touch) to have it sent again"
            ),
            Skip::SameThere => f.write_str("a file of this name and size is there"),
            Skip::Kept(why) => why.fmt(f),
            Skip::Conflict(why) => write!(f, "{why}; the source is kept: compare both"),
            Skip::NameTaken => {
                f.write_str("a directory, a link or a device has its name at the destination")
            }
            Skip::Twin(other) => write!(
                f,
                "{other} gets the same name at the destination; use layout: tree or overwrite: rename"
            ),
            Skip::Refused(why) => write!(f, "its name cannot be used: {why}"),
            Skip::NoName(why) => write!(f, "it can have no name at the destination: {why}"),
            Skip::Elsewhere(owner) => write!(f, "another run ({owner}) has it"),
        }
    }
}

/// A span of time for people.
pub fn span(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..172_800 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} days", secs / 86_400),
    }
}

/// What a folder has for the job, and what is left alone for its name or kind.
pub fn sift(
    spec: &JobSpec,
    folder: &RelPath,
    listing: &Listing,
) -> (Vec<Candidate>, Vec<(RelPath, Skip)>) {
    let names: HashSet<&[u8]> = listing.entries.iter().map(|e| e.name.as_bytes()).collect();
    let markers = markers(spec, &names);
    let (mut candidates, mut skipped) = (Vec::new(), Vec::new());
    for entry in &listing.entries {
        let path = folder.join_unbounded(&entry.name);
        match by_name(spec, &entry.name, entry.meta.kind, &names, &markers) {
            Some(why) => skipped.push((path, why)),
            None => candidates.push(Candidate { path, meta: entry.meta }),
        }
    }
    for refused in &listing.refused {
        if spec.file_pattern.is_match(&refused.name) {
            skipped.push((shown(folder, &refused.name), Skip::Refused(refused.why)));
        }
    }
    // A listing has no order; a run and its dry run must have the same.
    candidates.sort_by(|a, b| a.path.cmp(&b.path));
    skipped.sort_by(|a, b| a.0.cmp(&b.0));
    (candidates, skipped)
}

fn by_name(
    spec: &JobSpec,
    name: &Name,
    kind: Kind,
    names: &HashSet<&[u8]>,
    markers: &HashSet<Vec<u8>>,
) -> Option<Skip> {
    if kind == Kind::Dir {
        let done = spec.done.folder.split('/').find(|part| !part.is_empty());
        let done = done.is_some_and(|done| name.as_bytes() == done.as_bytes());
        return Some(if done { Skip::DoneFolder } else { Skip::Directory });
    }
    if !spec.file_pattern.is_match(name.as_bytes()) {
        return Some(Skip::NoMatch);
    }
    match kind {
        Kind::Symlink => return Some(Skip::Symlink),
        Kind::File => {}
        _ => return Some(Skip::Special),
    }
    if is_temp(name) {
        return Some(Skip::Temp);
    }
    let pattern = spec.marker.as_deref()?;
    if markers.contains(name.as_bytes()) {
        return Some(Skip::Marker);
    }
    let marker = marker(pattern, name);
    (!names.contains(marker.as_slice())).then(|| Skip::MarkerMissing(fcp_proto::escape(&marker)))
}

/// The names that are markers of others here.
fn markers(spec: &JobSpec, names: &HashSet<&[u8]>) -> HashSet<Vec<u8>> {
    let Some(pattern) = spec.marker.as_deref() else { return HashSet::new() };
    let of = |name: &&[u8]| marker(pattern, name);
    names.iter().map(of).filter(|marker| names.contains(marker.as_slice())).collect()
}

fn marker(pattern: &str, name: &[u8]) -> Vec<u8> {
    let mut parts = pattern.split("{name}");
    let mut marker = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        marker.extend_from_slice(name);
        marker.extend_from_slice(part.as_bytes());
    }
    marker
}

/// A name that is none as a path for people.
fn shown(folder: &RelPath, name: &[u8]) -> RelPath {
    let mut text = fcp_proto::escape(name).replace('/', "\\057");
    text.truncate(text.floor_char_boundary(NAME_MAX));
    Name::new(text.as_bytes()).map_or_else(|_| folder.clone(), |name| folder.join_unbounded(&name))
}

/// Whether a name looks like that of a file somebody still writes: ours, rsync's (`.name.Xy1Zab`),
/// browsers', WinSCP's, and the usual endings.
pub fn is_temp(name: &[u8]) -> bool {
    const ENDINGS: [&str; 9] = [
        ".tmp",
        ".temp",
        ".part",
        ".partial",
        ".filepart",
        ".crdownload",
        ".inprogress",
        ".uploading",
        "~",
    ];
    let lower = name.to_ascii_lowercase();
    lower.starts_with(TEMP_PREFIX)
        || lower.starts_with(b"~$")
        || ENDINGS.iter().any(|ending| lower.ends_with(ending.as_bytes()))
        || is_rsync_temp(name)
}

fn is_rsync_temp(name: &[u8]) -> bool {
    let Some(dot) = name.iter().rposition(|b| *b == b'.') else { return false };
    let random = &name[dot + 1..];
    // Six lower-case letters may be a word; six random ones of 62 hardly ever are all lower-case.
    name.first() == Some(&b'.')
        && dot > 0
        && random.len() == 6
        && random.iter().all(u8::is_ascii_alphanumeric)
        && random.iter().any(|b| !b.is_ascii_lowercase())
}

/// The time at the source while it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds since the epoch by our clock.
    pub ours: i64,
    /// How the source's clock differs.
    pub clock: Clock,
}

/// Why a file may still be written, by its age; `first_seen` (seconds since the epoch, our clock)
/// counts where the place's clock or the file's time is not known.
pub fn ripe(meta: &Meta, now: Now, min: Duration, first_seen: Option<i64>) -> Option<Skip> {
    if min.is_zero() {
        return None;
    }
    let (Clock::Skew { millis, error }, Some(mtime)) = (now.clock, meta.mtime) else {
        let seen =
            millis_span(now.ours.saturating_sub(first_seen.unwrap_or(i64::MAX / 1000) * 1000));
        return (seen < min).then_some(Skip::NotSeenLong { seen, min });
    };
    let theirs = now.ours.saturating_add(millis);
    let age = theirs.saturating_sub(millis_of(mtime));
    let slack = i64::try_from(error.as_millis()).unwrap_or(i64::MAX);
    if age < -slack {
        return Some(Skip::InFuture(millis_span(age.saturating_neg())));
    }
    // What we do not know of the clock counts against the file: a little later is no harm.
    let age = millis_span(age.saturating_sub(slack));
    (age < min).then_some(Skip::TooYoung { age, min })
}

fn millis_span(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn millis_of(time: Timestamp) -> i64 {
    time.secs.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000))
}

/// Whether a second look finds what the first one found.
pub fn is_stable(first: &Meta, second: Option<&Meta>) -> bool {
    second.is_some_and(|now| is_same(first, now))
}

/// Whether a file is what it was: kind, size and time.
pub fn is_same(one: &Meta, other: &Meta) -> bool {
    one.kind == other.kind && one.size == other.size && one.mtime == other.mtime
}

/// Whether nothing is left to do about a version of a file that is listed. What was put away and is
/// there again is a new file, even if its size and time are those of the old one; where files are
/// kept, it is the old one.
pub fn is_settled(spec: &JobSpec, known: &State) -> bool {
    match known {
        State::Finished { gone, .. } => !gone || spec.done.action == Action::Keep,
        _ => false,
    }
}

/// Holds candidates against the destination, and against each other.
#[derive(Debug)]
pub struct Planner<'a> {
    spec: &'a JobSpec,
    /// Final names of this run, and whose they are.
    given: HashMap<RelPath, RelPath>,
    /// Final names of earlier runs, and whose they are.
    owned: HashMap<RelPath, RelPath>,
}

impl<'a> Planner<'a> {
    /// For one run.
    pub fn new(spec: &'a JobSpec) -> Planner<'a> {
        Planner { spec, given: HashMap::new(), owned: HashMap::new() }
    }

    /// The folder of the destination that files of this folder go to.
    pub fn folder(spec: &JobSpec, folder: &RelPath) -> RelPath {
        match spec.layout {
            Layout::Tree => folder.clone(),
            Layout::Flat => RelPath::root(),
        }
    }

    /// Notes final names that the ledger knows, and the sources that were delivered under them.
    pub fn owned(&mut self, names: impl IntoIterator<Item = (RelPath, RelPath)>) {
        self.owned.extend(names);
    }

    /// What happens to a ripe, stable candidate; `known` is what the ledger has of this version,
    /// `there` the destination's folder by name.
    pub fn decide(
        &mut self,
        candidate: Candidate,
        known: Option<&State>,
        there: &HashMap<Name, Meta>,
    ) -> Decision {
        let skip = |path: &RelPath, why| Decision::Skip { path: path.clone(), why };
        if let Some(State::Finished { to, .. }) = known.filter(|known| is_settled(self.spec, known))
        {
            return skip(&candidate.path, Skip::Delivered(to.to_string()));
        }
        let Some((folder, name)) = candidate.path.split_last() else {
            return skip(&candidate.path, Skip::Refused("it is the base itself"));
        };
        let folder = Planner::folder(self.spec, &folder);
        let to = match folder.join(&name) {
            Ok(to) => to,
            Err(why) => return skip(&candidate.path, Skip::NoName(why.to_string())),
        };
        if self.spec.overwrite == Overwrite::Rename {
            return self.renamed(candidate, &folder, &name, there);
        }
        if let Some(twin) = self.given.get(&to) {
            return skip(&candidate.path, Skip::Twin(twin.clone()));
        }
        self.given.insert(to.clone(), candidate.path.clone());
        match there.get(&name) {
            None => Decision::Take(Take { candidate, to, expect: Expect::Absent }),
            Some(theirs) => self.against(candidate, to, theirs),
        }
    }

    fn against(&self, candidate: Candidate, to: RelPath, theirs: &Meta) -> Decision {
        let ours = candidate.meta;
        let verdict = match theirs.kind {
            Kind::File => rule(self.spec.overwrite, &ours, theirs),
            _ => return Decision::Skip { path: candidate.path, why: Skip::NameTaken },
        };
        let of_another = self.owned.get(&to).is_some_and(|owner| *owner != candidate.path);
        match of_another_source(of_another, self.spec.done.action, verdict) {
            Verdict::Replace => {
                Decision::Take(Take { candidate, to, expect: Expect::Replace(*theirs) })
            }
            Verdict::Same => Decision::There { candidate, to },
            Verdict::Stays(why) => {
                Decision::Skip { path: candidate.path, why: stays(self.spec.done.action, why) }
            }
        }
    }

    fn renamed(
        &mut self,
        candidate: Candidate,
        folder: &RelPath,
        name: &Name,
        there: &HashMap<Name, Meta>,
    ) -> Decision {
        for number in 0..u32::MAX {
            let Ok(other) = alternative(name, number) else { break };
            let Ok(to) = folder.join(&other) else { break };
            if !there.contains_key(&other) && !self.given.contains_key(&to) {
                self.given.insert(to.clone(), candidate.path.clone());
                return Decision::Take(Take { candidate, to, expect: Expect::Absent });
            }
        }
        Decision::Skip { path: candidate.path, why: Skip::NoName("too long".to_owned()) }
    }
}

/// What it means that the destination's file stays: with a source that was to go, a conflict.
pub fn stays(action: Action, why: Stays) -> Skip {
    match action {
        Action::Keep => Skip::Kept(why),
        Action::Move | Action::Delete => Skip::Conflict(why),
    }
}

/// What the overwrite rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is replaced.
    Replace,
    /// It counts as the same, by its size.
    Same,
    /// It stays.
    Stays(Stays),
}

/// What happens to a file of the same name at the destination.
pub fn rule(overwrite: Overwrite, ours: &Meta, theirs: &Meta) -> Verdict {
    use std::cmp::Ordering::{Equal, Greater, Less};
    match (overwrite, ours.size.cmp(&theirs.size)) {
        (Overwrite::Always, _) => Verdict::Replace,
        (Overwrite::Larger, Greater) => Verdict::Replace,
        (Overwrite::Larger, Less) => Verdict::Stays(Stays::Larger),
        (Overwrite::Larger | Overwrite::Never | Overwrite::Rename, Equal) => Verdict::Same,
        (Overwrite::Never | Overwrite::Rename, _) => Verdict::Stays(Stays::Never),
        (Overwrite::Newer, size) => match (ours.mtime, theirs.mtime) {
            (Some(ours), Some(theirs)) if is_older(theirs, ours) => Verdict::Replace,
            _ if size == Equal => Verdict::Same,
            (Some(_), Some(_)) => Verdict::Stays(Stays::NotOlder),
            _ => Verdict::Stays(Stays::NoTime),
        },
        (Overwrite::Differs, Equal) => match (ours.mtime, theirs.mtime) {
            (Some(ours), Some(theirs)) if ours.secs != theirs.secs => Verdict::Replace,
            _ => Verdict::Same,
        },
        (Overwrite::Differs, _) => Verdict::Replace,
    }
}

/// By whole seconds: SFTP has no finer ones, and one side may keep more than the other.
fn is_older(one: Timestamp, other: Timestamp) -> bool {
    one.secs < other.secs
}

/// A verdict on a file that was delivered from another path of the source: it is never replaced. One
/// of the same size counts as the same only where its content is looked at.
pub fn of_another_source(of_another: bool, action: Action, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Replace if of_another => Verdict::Stays(Stays::OfAnother),
        Verdict::Same if of_another && action == Action::Keep => Verdict::Stays(Stays::OfAnother),
        verdict => verdict,
    }
}

/// A name with a number before its last ending: `a.csv`, `a-1.csv`, `a-2.csv`.
///
/// # Errors
/// It is too long.
pub fn alternative(name: &Name, number: u32) -> Result<Name, fcp_proto::path::PathRefused> {
    if number == 0 {
        return Ok(name.clone());
    }
    let bytes = name.as_bytes();
    let cut = match bytes.iter().rposition(|b| *b == b'.') {
        Some(at) if at > 0 => at,
        _ => bytes.len(),
    };
    let mut other = bytes[..cut].to_vec();
    other.extend_from_slice(format!("-{number}").as_bytes());
    other.extend_from_slice(&bytes[cut..]);
    Name::new(&other)
}

/// The temporary name of a final one: `.tmp.NAME`, or `.tmp.NAME.<salt>` where that is taken; a
/// name that gets too long is cut, and a digest keeps it apart from others.
pub fn temp_path(to: &RelPath, salt: Option<u32>) -> Option<RelPath> {
    let (folder, name) = to.split_last()?;
    let mut temp = TEMP_PREFIX.to_vec();
    let room = NAME_MAX - TEMP_PREFIX.len() - ".00000000".len();
    if name.len() <= room {
        temp.extend_from_slice(&name);
    } else {
        let digest = Sha256::digest(&name[..]);
        temp.extend_from_slice(&name[..room - 17]);
        temp.push(b'-');
        let hex = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
        temp.extend_from_slice(hex.collect::<String>().as_bytes());
    }
    if let Some(salt) = salt {
        temp.extend_from_slice(format!(".{salt:08x}").as_bytes());
    }
    folder.join(&Name::new(&temp).ok()?).ok()
}

/// Whether a temp's name has a random part, so that only whoever wrote it down can have made it;
/// `natural` is the one that it would have without.
pub fn is_salted(temp: &RelPath, natural: Option<&RelPath>) -> bool {
    let Some((_, name)) = temp.split_last() else { return false };
    let Some((rest, salt)) = name.split_at_checked(name.len().saturating_sub(9)) else {
        return false;
    };
    let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    Some(temp) != natural
        && rest.starts_with(TEMP_PREFIX)
        && salt.split_first().is_some_and(|(dot, hex)| *dot == b'.' && hex.iter().all(is_hex))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
