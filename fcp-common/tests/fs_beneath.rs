//! Opening beneath a root, with `openat2` and with the walk that replaces it (R06).
#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fcp_common::fs::{Dir, FileMeta, finish_dir, publish_dir};
use fcp_proto::path::RelPath;
use support::{Place, name, rel};

type Open = fn(&Dir, &RelPath) -> io::Result<Dir>;
const BOTH: [(&str, Open); 2] =
    [("openat2", Dir::open_beneath), ("walk", Dir::open_beneath_by_walk)];

/// How many swaps a racing thread makes at least in the R tests.
const SWAPS: usize = 10_000;

#[test]
fn p10_links_that_stay_beneath_are_followed() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("a/b/c")).unwrap();
    std::fs::create_dir_all(place.path("other/deep")).unwrap();
    symlink("b/c", place.path("a/down")).unwrap();
    symlink("../other/./deep", place.path("a/across")).unwrap();
    symlink("a/across/", place.path("chain")).unwrap();
    symlink("../../a/b/..", place.path("other/deep/round")).unwrap();
    let cases = [
        ("a/b", "a/b"),
        ("a/down", "a/b/c"),
        ("a/across", "other/deep"),
        ("chain", "other/deep"),
        ("chain/round", "a"),
        ("chain/round/down", "a/b/c"),
    ];
    for (how, open) in BOTH {
        for (path, really) in cases {
            let got = open(&place.root, &rel(path)).unwrap().own_stat().unwrap();
            let want = place.root.open_beneath(&rel(really)).unwrap().own_stat().unwrap();
            assert_eq!(got.ino, want.ino, "{path} by {how}");
        }
        let got = open(&place.root, &RelPath::root()).unwrap().own_stat().unwrap();
        assert_eq!(got.ino, place.root.own_stat().unwrap().ino);
    }
}

#[test]
fn p10_a_root_that_the_user_typed_may_be_a_symlink() {
    let place = Place::new();
    symlink("root", place.temp.path().join("typed")).unwrap();
    let typed = Dir::open_user(&place.temp.path().join("typed")).unwrap();
    assert_eq!(typed.own_stat().unwrap().ino, place.root.own_stat().unwrap().ino);
}

#[test]
fn p14_links_that_lead_out_are_refused_with_the_same_errno() {
    let place = Place::new();
    std::fs::create_dir(place.path("sub")).unwrap();
    std::fs::write(place.path("file"), "").unwrap();
    let absolute = place.path("sub");
    symlink(&absolute, place.path("absolute-though-inside")).unwrap();
    symlink(place.outside(), place.path("absolute")).unwrap();
    symlink("../outside", place.path("up")).unwrap();
    symlink("../../outside", place.path("sub/up2")).unwrap();
    symlink("sub/../../root/sub", place.path("out-and-in")).unwrap();
    symlink("loop", place.path("loop")).unwrap();
    symlink("ping", place.path("pong")).unwrap();
    symlink("pong", place.path("ping")).unwrap();
    symlink("nothing", place.path("dangling")).unwrap();
    let bad = [
        "absolute-though-inside",
        "absolute",
        "up",
        "sub/up2",
        "out-and-in",
        "loop",
        "ping",
        "dangling",
        "file",
        "file/x",
        "absent",
        "up/sentinel",
    ];
    for path in bad {
        let errors = BOTH.map(|(_, open)| open(&place.root, &rel(path)).unwrap_err());
        let codes = errors.map(|error| error.raw_os_error());
        assert_eq!(codes[0], codes[1], "{path}");
    }
    place.check_outside();
}

#[test]
fn a_chain_of_forty_links_is_followed_and_of_41_is_not() {
    let place = Place::new();
    std::fs::create_dir(place.path("l0")).unwrap();
    for i in 1..=41 {
        symlink(format!("l{}", i - 1), place.path(&format!("l{i}"))).unwrap();
    }
    for (how, open) in BOTH {
        assert!(open(&place.root, &rel("l40")).is_ok(), "{how}");
        assert!(open(&place.root, &rel("l41")).is_err(), "{how}");
    }
}

#[test]
fn p03_a_tree_deeper_than_the_held_descriptors_is_walked() {
    let place = Place::new();
    let deep = vec!["d"; 1500].join("/");
    std::fs::create_dir_all(place.path(&deep)).unwrap();
    symlink("..", place.path(&format!("{deep}/up"))).unwrap();
    symlink(vec![".."; 100].join("/"), place.path(&format!("{deep}/far"))).unwrap();
    for (how, open) in BOTH {
        assert!(open(&place.root, &rel(&deep)).is_ok(), "{how}");
        assert!(open(&place.root, &rel(&format!("{deep}/up/d"))).is_ok(), "{how}");
    }
    // The walk forgets what is so far up, and says so rather than guess.
    let far = Dir::open_beneath_by_walk(&place.root, &rel(&format!("{deep}/far")));
    assert_eq!(far.unwrap_err().raw_os_error(), Some(40), "ELOOP");
}

#[test]
fn r07_magic_links_are_refused() {
    let fd = std::fs::File::open("/tmp").unwrap();
    let magic = format!("self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let proc = Dir::open_user(Path::new("/proc")).unwrap();
    for (how, open) in BOTH {
        assert!(open(&proc, &rel(&magic)).is_err(), "{how}");
        assert!(open(&proc, &rel("self/cwd")).is_err(), "{how}");
    }
    assert!(Dir::open_user(&Path::new("/proc").join(&magic)).is_err());
    assert!(Dir::open_user(Path::new("/dev/stdin")).is_err());
    let dev = Dir::open_user(Path::new("/dev")).unwrap();
    assert!(dev.open_file(&name("stdin")).is_err());
    assert!(dev.open_file(&name("null")).is_err());
}

/// Runs `work` again and again while another thread swaps `sub` and `link`: [`SWAPS`] times at
/// least, and until `work` says that it has seen both sides of the race.
fn while_swapping(place: &Place, link_to: &Path, mut work: impl FnMut() -> bool) {
    std::fs::create_dir(place.path("sub")).unwrap();
    symlink(link_to, place.path("link")).unwrap();
    let (done, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The limit ends it when `work` panics.
            while !done.load(Ordering::Acquire) && started.elapsed() < Duration::from_secs(70) {
                // The other side may have replaced either: put back what is missing.
                if place.root.exchange(&name("sub"), &name("link")).is_ok() {
                    swaps.fetch_add(1, Ordering::Relaxed);
                } else {
                    let _ = symlink(link_to, place.path("link"));
                }
            }
        });
        while !(work() && swaps.load(Ordering::Relaxed) >= SWAPS) {
            if started.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        done.store(true, Ordering::Release);
    });
    assert!(swaps.load(Ordering::Relaxed) >= SWAPS, "the race was not run");
}

#[test]
fn r01_publishing_beneath_never_leaves_the_root_whatever_is_swapped() {
    for (how, open) in BOTH {
        for link_to in ["../outside", "/"] {
            let place = Place::new();
            let outside = place.outside();
            let link_to = if link_to == "/" { outside.as_path() } else { Path::new(link_to) };
            let (mut won, mut lost) = (0, 0);
            while_swapping(&place, link_to, || {
                match open(&place.root, &rel("sub")) {
                    Ok(dir) => {
                        place.put(&Arc::new(dir), "sentinel", "hostile").unwrap();
                        won += 1;
                    }
                    Err(_) => lost += 1,
                }
                won > 0 && lost > 0
            });
            place.check_outside();
            assert!(won > 0 && lost > 0, "{how}: {won} opened, {lost} refused");
        }
    }
}

#[test]
fn r02_making_and_finishing_directories_never_leaves_the_root() {
    let place = Place::new();
    let outside = place.outside();
    let mut made = 0;
    while_swapping(&place, &outside, || {
        if let Ok(published) = publish_dir(&place.root, &place.root, &rel("sub"), 0o777) {
            place.put(&published.dir, "sentinel", "hostile").unwrap();
            let meta = FileMeta { mode: Some(0o700), mtime: Some(Default::default()) };
            finish_dir(&published.dir, &meta).unwrap();
            made += 1;
        }
        let _ = place.root.set_mode(&name("sub"), 0o755);
        let _ = place.root.set_times(&name("sub"), Default::default());
        made > 0
    });
    place.check_outside();
    assert!(made > 0);
}
