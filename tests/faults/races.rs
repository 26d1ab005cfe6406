//! Somebody else works on the same files: swaps directories, changes sources, copies as well.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use fcp_tests::compare::{Compare, assert_same_tree};
use fcp_tests::process::{Running, start};
use fcp_tests::proxy::{Lane, Plan, Proxy};
use fcp_tests::rsync;
use fcp_tests::sentinel::Sentinel;
use fcp_tests::tree::{self, Item};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::common::*;

const MIB: u64 = 1 << 20;

/// A tree of many small files in a few directories.
fn many(root: &Path, files: u32) {
    let mut items: Vec<Item> = (0..4).map(|d| Item::dir(format!("sub/d{d}")).mode(0o751)).collect();
    items.push(Item::dir("sub"));
    items.extend((0..files).map(|n| Item::file(format!("sub/d{}/f{n}", n % 4), 100)));
    tree::build(root, &items);
}

/// Everything outside that a wrong step could touch: the names are those of the transfer.
fn plant_outside(outside: &Path, files: u32) -> Sentinel {
    let mut watched: Vec<PathBuf> = vec![outside.to_owned()];
    for d in 0..4 {
        let dir = outside.join(format!("d{d}"));
        fs::create_dir_all(&dir).unwrap();
        watched.push(dir);
    }
    for n in 0..files {
        let path = outside.join(format!("d{}/f{n}", n % 4));
        fs::write(&path, "secret").unwrap();
        watched.push(path);
    }
    Sentinel::watch(&watched.iter().map(PathBuf::as_path).collect::<Vec<_>>())
}

/// Swaps two names until told to stop; answers how often.
fn swap(a: &Path, b: &Path, stop: &AtomicBool) -> u64 {
    let mut swaps = 0;
    while !stop.load(Relaxed) {
        // One of them may not be there yet.
        swaps += u64::from(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok());
        thread::sleep(Duration::from_micros(100));
    }
    swaps
}

#[test]
fn r01_r02_a_directory_that_is_swapped_with_a_link_to_outside() {
    const FILES: u32 = 600;
    let mut swaps = 0;
    for way in Way::BOTH {
        let dir = scratch();
        let source = dir.path().join("source");
        many(&source, FILES);
        let outside = dir.path().join("outside");
        let sentinel = plant_outside(&outside, FILES);
        let daemon = fcpd();
        for round in 0..knob("FCP_ROUNDS", 5) {
            let dst = dir.path().join(format!("dst{round}"));
            let (place, link) = (dst.join("sub"), dst.join("link"));
            fs::create_dir_all(&place).unwrap();
            symlink(&outside, &link).unwrap();
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let swapper = scope.spawn(|| swap(&place, &link, &stop));
                let finished = ended(&mut way.command(4, &source, &dst, |p| daemon.url(p)));
                stop.store(true, Relaxed);
                swaps += swapper.join().unwrap();
                // Whatever it could do; it must only tell the truth and end.
                assert!(matches!(finished.code(), Some(0 | 3 | 11 | 12 | 23)), "{finished:?}");
                assert!(!finished.stderr_text().contains("panic"), "{finished:?}");
            });
            sentinel.assert_untouched();
        }
        assert!(!daemon.log().contains("panic"), "{}", daemon.log());
    }
    assert!(swaps > 100, "only {swaps} swaps");
    report(&format!("{swaps} swaps of a directory with a link to outside: outside untouched"));
}

#[test]
fn r01_a_parent_far_up_is_swapped() {
    // The swapped name is a parent of what is written, not the directory itself.
    const FILES: u32 = 400;
    let dir = scratch();
    let source = dir.path().join("source");
    many(&source.join("top"), FILES);
    let outside = dir.path().join("outside");
    let sentinel = plant_outside(&outside.join("sub"), FILES);
    let daemon = fcpd();
    let dst = dir.path().join("dst");
    let (place, link) = (dst.join("top"), dst.join("link"));
    fs::create_dir_all(&place).unwrap();
    symlink("../outside", &link).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let swapper = scope.spawn(|| swap(&place, &link, &stop));
        ended(&mut Way::Push.command(2, &source, &dst, |p| daemon.url(p)));
        stop.store(true, Relaxed);
        swapper.join().unwrap();
    });
    sentinel.assert_untouched();
}

#[test]
fn r05_the_destination_is_renamed_away_while_it_is_written() {
    for way in Way::BOTH {
        let dir = scratch();
        let source = dir.path().join("source");
        many(&source, 2_000);
        let sentinel = plant_outside(&dir.path().join("outside"), 10);
        let daemon = fcpd();
        let (dst, away) = (dir.path().join("dst"), dir.path().join("away"));
        fs::create_dir(&dst).unwrap();
        let running = start(&mut way.command(2, &source, &dst, |p| daemon.url(p)));
        eventually("it has begun", LIMIT, || dst.join("sub").exists());
        fs::rename(&dst, &away).unwrap();
        symlink(dir.path().join("outside"), &dst).unwrap();
        let finished = running.finish(LIMIT);
        assert!(!finished.timed_out && finished.code().is_some(), "{finished:?}");
        sentinel.assert_untouched();
        if finished.code() == Some(0) {
            rsync::assert_agrees(&source, &away);
        }
    }
}

/// A transfer that is slow enough to be interfered with, at this file.
fn slow(way: Way, source: &Path, dst: &Path) -> (fcp_tests::process::Daemon, Proxy, Running) {
    let daemon = fcpd();
    let lane = Lane::rate(20 * MIB);
    let plan = if way == Way::Push { Plan::up(lane) } else { Plan::down(lane) };
    let proxy = Proxy::start(daemon.address(), move |_| plan);
    let running = start(&mut way.command(1, source, dst, |p| proxy.url(p)));
    (daemon, proxy, running)
}

type Change = (&'static str, fn(&Path), &'static [i32]);

/// What happens to a source while it is read, and how fcp may end.
const CHANGES: [Change; 6] = [
    // It starts afresh with the new content, or is given up and said so.
    ("rewritten", |p| fs::write(p, tree::random_bytes(16 * MIB, 77)).unwrap(), &[0, 23]),
    ("grown", |p| fs::write(p, tree::random_bytes(20 * MIB, 78)).unwrap(), &[0, 23]),
    (
        "truncated",
        |p| fs::OpenOptions::new().write(true).open(p).unwrap().set_len(MIB + 3).unwrap(),
        &[0, 23],
    ),
    (
        "replaced",
        |p| {
            fs::write(p.with_extension("new"), tree::random_bytes(16 * MIB, 79)).unwrap();
            fs::rename(p.with_extension("new"), p).unwrap();
        },
        &[0, 23],
    ),
    ("removed", |p| fs::remove_file(p).unwrap(), &[23, 24]),
    (
        "replaced by a FIFO",
        |p| {
            fs::remove_file(p).unwrap();
            mknodat(CWD, p, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        },
        &[23, 24],
    ),
];

#[test]
fn f05_f06_a_source_that_changes_while_it_is_sent() {
    for way in Way::BOTH {
        for (name, change, codes) in CHANGES {
            let dir = scratch();
            let (source, dst) = (dir.path().join("source"), dir.path().join("dst"));
            let mut items = vec![Item::file("m-large", 16 * MIB)];
            items.extend((0..10).flat_map(|n| {
                [Item::file(format!("a{n}"), 50_000), Item::file(format!("z{n}"), 50_000)]
            }));
            tree::build(&source, &items);
            let before = fs::read(source.join("m-large")).unwrap();
            let (daemon, proxy, running) = slow(way, &source, &dst);
            let moved = || proxy.moved().0 + proxy.moved().1;
            eventually("some of it was sent", LIMIT, || moved() > 4 * MIB);
            change(&source.join("m-large"));
            let finished = running.finish(LIMIT);
            let told = format!("{way:?} {name}: {}\n{}", finished.stderr_text(), daemon.log());
            assert!(!finished.timed_out, "it hangs: {told}");
            let code = finished.code().unwrap();
            // What was sent to its end before the change is no failure.
            let whole = fs::read(dst.join("m-large")).ok();
            let finished_before = whole.as_ref() == Some(&before);
            assert!(codes.contains(&code) || (finished_before && code == 0), "code {code}, {told}");
            if code != 0 {
                assert!(told.contains("m-large"), "{told}");
            }
            let now = fs::symlink_metadata(source.join("m-large")).ok();
            let now = now.filter(fs::Metadata::is_file).map(|_| fs::read(source.join("m-large")));
            let is_known = match &whole {
                None => code != 0,
                Some(bytes) => *bytes == before || now.is_some_and(|now| now.unwrap() == *bytes),
            };
            assert!(is_known, "a mixed file: {told}");
            for n in 0..10 {
                for other in [format!("a{n}"), format!("z{n}")] {
                    let pair = [&source, &dst].map(|root| fs::read(root.join(&other)).unwrap());
                    assert_eq!(pair[0], pair[1], "{other} was not copied: {told}");
                }
            }
            assert!(!told.contains("panic"), "{told}");
            assert_clean(&dst);
        }
    }
}

#[test]
fn f05_a_source_that_never_rests_is_given_up() {
    let dir = scratch();
    let (source, dst) = (dir.path().join("source"), dir.path().join("dst"));
    tree::build(&source, &[Item::file("busy", 12 * MIB), Item::file("calm", 10)]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 0;
            while !stop.load(Relaxed) {
                seed += 1;
                let file = fs::OpenOptions::new().write(true).open(source.join("busy")).unwrap();
                let bytes = tree::random_bytes(4_096, seed);
                std::os::unix::fs::FileExt::write_all_at(&file, &bytes, seed % 12 * MIB).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let (_daemon, _proxy, running) = slow(Way::Push, &source, &dst);
        let finished = running.finish(LIMIT);
        stop.store(true, Relaxed);
        finished.assert_code(23);
        assert!(finished.stderr_text().contains("busy"), "{finished:?}");
    });
    assert!(!dst.join("busy").exists());
    assert!(dst.join("calm").exists());
    assert_clean(&dst);
}

#[test]
fn f12_two_fcp_into_the_same_destination_at_once() {
    for way in Way::BOTH {
        for _ in 0..3 {
            let dir = scratch();
            let [a, b, dst] = ["a", "b", "dst"].map(|name| dir.path().join(name));
            let items = |shift: u64| -> Vec<Item> {
                // Other content and other sizes under the same names.
                let mut items = vec![Item::file("large", 12 * MIB + shift)];
                items.push(Item::dir("d"));
                items.extend((0..50).map(|n| Item::file(format!("d/f{n}"), 1_000 + n + shift)));
                items.into_iter().map(|i| i.mtime(shift as i64, 5)).collect()
            };
            tree::build(&a, &items(1_000));
            tree::build(&b, &items(2_000));
            fs::create_dir(&dst).unwrap();
            let daemon = fcpd();
            let both =
                [&a, &b].map(|from| start(&mut way.command(2, from, &dst, |p| daemon.url(p))));
            let both = both.map(|running| running.finish(LIMIT));
            for finished in &both {
                assert!(!finished.timed_out, "it hangs: {finished:?}");
                // The slower one may find that its destination has changed, and says so.
                assert!(matches!(finished.code(), Some(0 | 23)), "{finished:?}");
            }
            // Each name holds the whole of one of the two.
            assert_old_or_new(&a, &b, &dst);
            ended(&mut way.command(2, &a, &dst, |p| daemon.url(p))).assert_success();
            assert_clean(&dst);
            assert_same_tree(&a, &dst);
        }
    }
}

#[test]
fn f12_two_fcp_with_the_same_source_and_destination() {
    for way in Way::BOTH {
        let dir = scratch();
        let (source, dst) = (dir.path().join("source"), dir.path().join("dst"));
        tree::build(&source, &[Item::file("large", 24 * MIB), Item::file("d/small", 10)]);
        fs::create_dir(&dst).unwrap();
        let daemon = fcpd();
        let both = [0, 1].map(|_| start(&mut way.command(2, &source, &dst, |p| daemon.url(p))));
        let both = both.map(|running| running.finish(LIMIT));
        assert!(both.iter().any(|f| f.code() == Some(0)), "{both:?}");
        Compare::CONTENTS.assert_same(&source, &dst);
        ended(&mut way.command(2, &source, &dst, |p| daemon.url(p))).assert_success();
        assert_clean(&dst);
        assert_same_tree(&source, &dst);
    }
}

#[test]
fn f07_a_destination_that_somebody_changed_meanwhile_is_kept() {
    for way in Way::BOTH {
        let dir = scratch();
        let (source, dst) = (dir.path().join("source"), dir.path().join("dst"));
        tree::build(&source, &[Item::file("large", 16 * MIB), Item::file("other", 10)]);
        tree::build(&dst, &[Item::file("large", 100).mtime(1, 1)]);
        let (daemon, proxy, running) = slow(way, &source, &dst);
        let moved = || proxy.moved().0 + proxy.moved().1;
        eventually("some of it was sent", LIMIT, || moved() > 4 * MIB);
        fs::write(dst.join("large"), "somebody's own work").unwrap();
        let finished = running.finish(LIMIT);
        let told = format!("{way:?}: {}\n{}", finished.stderr_text(), daemon.log());
        assert_eq!(finished.code(), Some(23), "{told}");
        assert!(told.contains("large"), "{told}");
        assert_eq!(fs::read(dst.join("large")).unwrap(), b"somebody's own work", "{told}");
        assert!(dst.join("other").exists());
        assert_clean(&dst);
    }
}
