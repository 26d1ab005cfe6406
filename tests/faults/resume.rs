//! Crashes, and the same command again: nothing wrong under a final name, little sent twice.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use fcp_tests::compare::assert_same_tree;
use fcp_tests::process::{Daemon, Finished, start};
use fcp_tests::rsync;
use fcp_tests::tree::{self, Item};
use tempfile::TempDir;

use crate::common::*;

const MIB: u64 = 1 << 20;
const CONNECTIONS: u16 = 4;

/// What a crash may cost beyond what was missing.
fn allowance(size: u64) -> u64 {
    (size / 100).max(8 * MIB * u64::from(CONNECTIONS))
}

/// Whom a crash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Client,
    Server,
    Both,
}

const VICTIMS: [Victim; 3] = [Victim::Client, Victim::Server, Victim::Both];

/// A source, what the destination held before, and the destination.
struct Case {
    way: Way,
    _dir: TempDir,
    old: PathBuf,
    new: PathBuf,
    dst: PathBuf,
}

impl Case {
    fn new(way: Way, old: &[Item], new: &[Item]) -> Case {
        let dir = scratch();
        let [old_root, new_root, dst] = ["old", "new", "dst"].map(|name| dir.path().join(name));
        tree::build(&old_root, old);
        tree::build(&new_root, new);
        let case = Case { way, _dir: dir, old: old_root, new: new_root, dst };
        case.reset();
        case
    }

    /// One large file.
    fn large(way: Way, size: u64) -> Case {
        Case::new(way, &[], &[Item::file("large", size)])
    }

    /// The destination as it was before the first run.
    fn reset(&self) {
        let _ = fs::remove_dir_all(&self.dst);
        let copied = Command::new("cp").arg("-a").arg(&self.old).arg(&self.dst).status();
        assert!(copied.unwrap().success());
    }

    fn command(&self, daemon: &Daemon) -> Command {
        self.way.command(CONNECTIONS, &self.new, &self.dst, |path| daemon.url(path))
    }

    fn total(&self) -> u64 {
        let files = paths_below(&self.new).into_iter().map(|p| self.new.join(p));
        files.filter(|p| p.is_file()).map(|p| fs::metadata(p).unwrap().len()).sum()
    }

    /// How long a whole run takes.
    fn measure(&self) -> Duration {
        let daemon = fcpd();
        let clock = Instant::now();
        ended(&mut self.command(&daemon)).assert_success();
        let took = clock.elapsed();
        self.reset();
        took
    }

    /// Starts a run and kills at the moment; answers what the client said if it lived.
    fn crash(&self, daemon: &mut Daemon, victim: Victim, after: Duration) -> Finished {
        let mut running = start(&mut self.command(daemon));
        thread::sleep(after);
        if victim != Victim::Client {
            daemon.kill9();
        }
        if victim != Victim::Server {
            running.kill9();
        }
        let finished = running.finish(LIMIT);
        assert!(!finished.timed_out, "the client hangs after the crash of {victim:?}");
        finished
    }

    /// Starts a run and kills as soon as so much content is on the disk.
    fn crash_at(&self, daemon: &mut Daemon, victim: Victim, bytes: u64) {
        let mut running = start(&mut self.command(daemon));
        let deadline = Instant::now() + LIMIT;
        while self.on_disk() < bytes && !self.dst.join("large").exists() {
            assert!(Instant::now() < deadline, "nothing is written");
            thread::sleep(Duration::from_micros(200));
        }
        if victim != Victim::Client {
            daemon.kill9();
        }
        if victim != Victim::Server {
            running.kill9();
        }
        assert!(!running.finish(LIMIT).timed_out, "the client hangs after {victim:?}");
    }

    /// Content bytes that temps and finished files hold.
    fn on_disk(&self) -> u64 {
        let all = paths_below(&self.dst).into_iter().map(|p| self.dst.join(p));
        let files = all.filter(|p| p.is_file() && !p.starts_with(self.dst.join(".fcp-journal")));
        // A temp may get its final name between two looks.
        files.filter_map(|p| fs::metadata(p).ok()).map(|file| file.blocks() * 512).sum()
    }

    /// The same command until it ends well: everything is as it should be.
    fn finish(&self, daemon: &Daemon) -> Numbers {
        let finished = ended(&mut self.command(daemon));
        finished.assert_success();
        assert_clean(&self.dst);
        assert_same_tree(&self.new, &self.dst);
        rsync::assert_agrees(&self.new, &self.dst);
        numbers(&finished)
    }

    fn assert_old_or_new(&self) {
        assert_old_or_new(&self.old, &self.new, &self.dst);
    }
}

/// Looks at the final names all the time until `stop`.
fn watch(old: &Path, new: &Path, now: &Path, stop: &AtomicBool) -> u64 {
    let mut looks = 0;
    while !stop.load(Relaxed) {
        assert_old_or_new(old, new, now);
        looks += 1;
        thread::sleep(Duration::from_millis(1));
    }
    looks
}

/// The last run of a crashed client may still be ending in the server; a user is not that fast.
fn settle(daemon: &Daemon) {
    // What it had sent may still have to be read.
    thread::sleep(Duration::from_millis(50));
    let ends = |log: &str| log.matches("failed:").count() + log.matches(" done:").count();
    let begun = |log: &str| log.matches(": push to").count() + log.matches(": pull of").count();
    eventually("the server ends the session of the dead client", Duration::from_secs(10), || {
        let log = daemon.log();
        ends(&log) >= begun(&log)
    });
}

fn random_kills(way: Way, size: u64, kills: u64, seed: u64) {
    let case = Case::large(way, size);
    let took = case.measure();
    let mut random = Random::new(seed);
    let (mut most, mut resumed) = (0, 0);
    for n in 0..kills {
        case.reset();
        let victim = VICTIMS[(n % 3) as usize];
        let mut daemon = fcpd();
        // From the first moment to a little after the end.
        let after = took.mul_f64(random.below(1100) as f64 / 1000.0);
        case.crash(&mut daemon, victim, after);
        case.assert_old_or_new();
        if victim == Victim::Client {
            settle(&daemon);
        } else {
            daemon = fcpd();
        }
        let there = case.on_disk();
        let again = case.finish(&daemon);
        let missing = size - there.min(size);
        let extra = again.sent.saturating_sub(missing);
        assert!(
            extra <= allowance(size),
            "kill {n} ({victim:?} after {after:?}): sent {} again beyond the {missing} missing; {again:?}",
            extra
        );
        most = most.max(extra);
        resumed += u64::from(again.kept > 0);
    }
    report(&format!(
        "{way:?} of one file of {} MiB: {kills} kills of client, server or both in turn at random \
         moments of {} ms; {resumed} runs resumed; most sent twice: {} KiB; wrong or left-over: 0",
        size / MIB,
        took.as_millis(),
        most >> 10,
    ));
}

#[test]
fn c01_c02_c03_random_kills_of_a_push() {
    random_kills(Way::Push, 96 * MIB, knob("FCP_KILLS", 10), 1);
}

#[test]
fn c01_c02_c03_random_kills_of_a_pull() {
    random_kills(Way::Pull, 96 * MIB, knob("FCP_KILLS", 10), 2);
}

/// Small files, a large one, links; some names are taken by other content before.
fn mixed() -> (Vec<Item>, Vec<Item>) {
    let old = vec![
        Item::file("replaced", 50_000).mtime(1, 1),
        Item::file("d0/f3", 7_000).mtime(1, 1),
        Item::file("d1/large", 3 * MIB).mtime(1, 1),
        Item::symlink("d0/link", "elsewhere").mtime(1, 1),
    ];
    let mut new = vec![
        Item::file("replaced", 60_000),
        Item::file("d1/large", 12 * MIB),
        Item::symlink("d0/link", "f1"),
    ];
    for dir in 0..4 {
        new.push(Item::dir(format!("d{dir}")));
        new.extend((0..40).map(|n| Item::file(format!("d{dir}/f{n}"), n * n * 211)));
    }
    (old, new)
}

fn random_kills_of_a_tree(way: Way, kills: u64, seed: u64) {
    let (old, new) = mixed();
    let case = Case::new(way, &old, &new);
    let took = case.measure();
    let mut random = Random::new(seed);
    let mut looks = 0;
    for n in 0..kills {
        case.reset();
        let victim = VICTIMS[(n % 3) as usize];
        let mut daemon = fcpd();
        let after = took.mul_f64(random.below(1100) as f64 / 1000.0);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&case.old, &case.new, &case.dst, &stop));
            case.crash(&mut daemon, victim, after);
            stop.store(true, Relaxed);
            looks += watcher.join().unwrap();
        });
        case.assert_old_or_new();
        if victim == Victim::Client {
            settle(&daemon);
        } else {
            daemon = fcpd();
        }
        case.finish(&daemon);
    }
    report(&format!(
        "{way:?} of a tree of {} entries over an older one: {kills} kills; {looks} looks at all \
         names while it ran; wrong or left-over: 0",
        new.len(),
    ));
}

#[test]
fn c01_c02_c03_random_kills_of_a_mixed_tree() {
    let kills = knob("FCP_KILLS", 12).div_ceil(2);
    random_kills_of_a_tree(Way::Push, kills, 3);
    random_kills_of_a_tree(Way::Pull, kills, 4);
}

/// A crash with something worth resuming on the disk.
fn crashed(case: &Case) -> Daemon {
    for _ in 0..10 {
        case.reset();
        let mut daemon = fcpd();
        case.crash_at(&mut daemon, Victim::Both, case.total() / 3);
        if !temps(&case.dst).is_empty() && case.on_disk() < case.total() - 4 * MIB {
            return fcpd();
        }
    }
    panic!("no crash left a partial file");
}

#[test]
fn c10_a_source_that_changed_between_runs_starts_afresh() {
    for way in Way::BOTH {
        let case = Case::large(way, 48 * MIB);
        let daemon = crashed(&case);
        fs::write(case.new.join("large"), tree::random_bytes(48 * MIB, 99)).unwrap();
        let again = case.finish(&daemon);
        assert_eq!((again.kept, again.sent), (0, 48 * MIB), "{way:?}");
    }
}

#[test]
fn c08_a_bit_changed_in_the_temp_is_detected() {
    for way in Way::BOTH {
        let case = Case::large(way, 48 * MIB);
        let daemon = crashed(&case);
        let [temp] = temps(&case.dst).try_into().unwrap();
        let mut bytes = fs::read(&temp).unwrap();
        // Every block of what is there, so that none of them may count.
        (0..bytes.len()).step_by(MIB as usize).for_each(|at| bytes[at + 4_321] ^= 4);
        let file = fs::OpenOptions::new().write(true).open(&temp).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        let again = case.finish(&daemon);
        assert_eq!(again.kept, 0, "{way:?}: tampered blocks counted as kept");
    }
}

#[test]
fn c08_one_bit_costs_one_block() {
    let case = Case::large(Way::Push, 48 * MIB);
    let daemon = crashed(&case);
    let missing = 48 * MIB - case.on_disk();
    let [temp] = temps(&case.dst).try_into().unwrap();
    let mut bytes = fs::read(&temp).unwrap();
    bytes[4_321] ^= 1;
    fs::write(&temp, &bytes).unwrap();
    let again = case.finish(&daemon);
    assert!(again.kept > 0, "{again:?}");
    assert!(again.sent <= missing + MIB + allowance(48 * MIB), "{again:?}");
}

type Spoil = fn(Vec<u8>) -> Vec<u8>;

#[test]
fn c07_a_bad_journal_is_ignored() {
    let spoil: [(&str, Spoil); 6] = [
        ("empty", |_| Vec::new()),
        ("half", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("torn", |bytes| bytes[..bytes.len() - 3].to_vec()),
        ("header", |mut bytes| {
            bytes[3] ^= 0x40;
            bytes
        }),
        ("garbage", |bytes| tree::random_bytes(bytes.len() as u64, 5)),
        ("middle", |mut bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 0x10;
            bytes
        }),
    ];
    let case = Case::large(Way::Push, 32 * MIB);
    for (name, spoil) in spoil {
        let daemon = crashed(&case);
        let journals: Vec<_> = fs::read_dir(case.dst.join(".fcp-journal")).unwrap().collect();
        for journal in journals {
            let path = journal.unwrap().path();
            let spoiled = spoil(fs::read(&path).unwrap());
            fs::write(&path, spoiled).unwrap();
        }
        let finished = ended(&mut case.command(&daemon));
        finished.assert_success();
        // What no journal speaks of any more stays, as nobody can tell whose it is.
        if matches!(name, "empty" | "header" | "garbage") {
            temps(&case.dst).iter().for_each(|temp| fs::remove_file(temp).unwrap());
            assert_eq!(numbers(&finished).kept, 0, "{name}");
            case.finish(&daemon);
        }
        assert_clean(&case.dst);
        assert_same_tree(&case.new, &case.dst);
    }
}

#[test]
fn c11_up_to_fifty_crashes_in_a_row_on_one_file() {
    const SIZE: u64 = 128 * MIB;
    let case = Case::large(Way::Push, SIZE);
    let mut daemon = fcpd();
    let (mut crashes, mut wasted, mut held) = (0, 0, 0);
    for n in 0..50 {
        let victim = VICTIMS[n % 3];
        // Each run gets a little further.
        case.crash_at(&mut daemon, victim, held + 1);
        case.assert_old_or_new();
        if victim == Victim::Client {
            settle(&daemon);
        } else {
            daemon = fcpd();
        }
        if case.dst.join("large").exists() {
            break;
        }
        crashes += 1;
        let now = case.on_disk();
        // What was there must not get lost by a crash, but for what was in flight.
        wasted += u64::saturating_sub(held, now);
        held = now;
        let partials = temps(&case.dst).len();
        assert!(partials <= 2, "{partials} partial files after {crashes} crashes");
    }
    assert!(crashes >= 15, "the file was there after {crashes} crashes already");
    let before = case.on_disk();
    let last = case.finish(&daemon);
    let sent_in_all = last.sent + before + wasted;
    assert!(
        sent_in_all <= SIZE / 10 * 11 + allowance(SIZE),
        "{sent_in_all} of {SIZE} sent over {crashes} crashes; {last:?}"
    );
    report(&format!(
        "push of one file of 128 MiB over {crashes} crashes in a row: {} MiB sent in all, {} MiB in the last run",
        sent_in_all / MIB,
        last.sent / MIB
    ));
}
