//! What a user's paths reach when they are restricted to a directory.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::Path;

use fcp_common::engine::{Destination, DestinationOptions, Unusable};
use fcp_common::expand::{MAX_MATCHES, expand};
use fcp_common::fs::{Base, Dir, DirPool};
use fcp_common::transfer::RootRule;
use fcp_common::walk::SourceRoot;
use fcp_proto::ErrorCode;
use support::Place;

type Open = fn(&Dir, &[u8]) -> io::Result<Dir>;
const BOTH: [(&str, Open); 2] = [("openat2", Dir::open_typed), ("walk", Dir::open_typed_by_walk)];

/// A root with links of every sort, and the base that is restricted to it.
fn place() -> (Place, Base) {
    let place = Place::new();
    std::fs::create_dir_all(place.path("a/b")).unwrap();
    std::fs::write(place.path("a/file.txt"), "1").unwrap();
    symlink("a/b", place.path("inside")).unwrap();
    symlink("../a/../a/b", place.path("a/inside-by-dots")).unwrap();
    symlink(place.outside(), place.path("absolute")).unwrap();
    symlink(place.path("a"), place.path("absolute-though-inside")).unwrap();
    symlink("../outside", place.path("up")).unwrap();
    symlink("../outside/sentinel", place.path("up-to-file")).unwrap();
    symlink("a/file.txt", place.path("link.txt")).unwrap();
    let base = Base::beneath(&place.temp.path().join("root")).unwrap();
    (place, base)
}

const INSIDE: [&str; 12] = [
    "",
    "/",
    "a",
    "/a",
    "//a//b/",
    "./a/..",
    "a/b/../..",
    "inside",
    "inside/",
    "/inside/../b",
    "a/inside-by-dots",
    "a/./b",
];
const OUTSIDE: [&str; 13] = [
    "..",
    "../",
    "/..",
    "a/../..",
    "../root",
    "../root/a",
    "absolute",
    "absolute/",
    "up",
    "up/../root",
    "absolute-though-inside",
    "inside/../../..",
    "/../outside",
];

#[test]
fn p14_paths_that_lead_out_are_refused_and_others_work_by_both_ways() {
    let (place, base) = place();
    for (how, open) in BOTH {
        for path in INSIDE {
            assert!(open(&place.root, path.as_bytes()).is_ok(), "{path} by {how}");
        }
        for path in OUTSIDE {
            let error = open(&place.root, path.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CrossesDevices, "{path} by {how}");
        }
    }
    for path in OUTSIDE {
        let error = base.open_dir(path.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
    }
    place.check_outside();
}

#[test]
fn the_root_stays_the_same_directory_when_it_is_moved() {
    let (place, base) = place();
    std::fs::rename(place.temp.path().join("root"), place.temp.path().join("moved")).unwrap();
    std::fs::create_dir(place.temp.path().join("root")).unwrap();
    assert!(base.open_dir(b"a/b").is_ok());
}

#[test]
fn r07_magic_links_are_refused_below_a_root_that_holds_them() {
    let proc = Base::beneath(Path::new("/proc")).unwrap();
    let everything = Base::beneath(Path::new("/")).unwrap();
    assert!(proc.open_dir(b"self/task").is_ok(), "a plain symlink works");
    for magic in ["self/root", "self/cwd", "self/root/etc", "thread-self/root"] {
        assert!(proc.open_dir(magic.as_bytes()).is_err(), "{magic}");
        assert!(everything.open_dir(format!("proc/{magic}").as_bytes()).is_err(), "{magic}");
        let Base::Beneath(dir) = &proc else { panic!() };
        assert!(dir.open_typed_by_walk(magic.as_bytes()).is_err(), "{magic} by walk");
    }
}

#[test]
fn sources_are_beneath_the_root() {
    let (place, base) = place();
    let open = |path: &str| SourceRoot::open_in(&base, path.as_bytes(), &DirPool::new(1));
    for path in ["a/file.txt", "/a/file.txt", "~", "inside/", "link.txt", "up", "a/b/../file.txt"] {
        // A link itself is what its name means, and may point anywhere.
        assert_eq!(open(path).is_ok(), path != "~", "{path}");
    }
    for path in ["up/", "up/sentinel", "absolute/sentinel", "../outside/sentinel", ".."] {
        assert_eq!(open(path).unwrap_err().kind(), ErrorKind::PermissionDenied, "{path}");
    }
    let real = place.outside().join("sentinel");
    let real = real.as_os_str().as_encoded_bytes();
    let error = SourceRoot::open_in(&base, real, &DirPool::new(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "absolute paths are below the root, too");
}

#[test]
fn globs_match_only_beneath_the_root() {
    let (_place, base) = place();
    let found = |glob: &str| -> Vec<String> {
        let found = expand(&base, glob.as_bytes(), &mut MAX_MATCHES.clone()).unwrap_or_default();
        found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
    };
    assert_eq!(found("a/*.txt"), ["a/file.txt"]);
    assert_eq!(found("/a/*.txt"), ["/a/file.txt"]);
    assert_eq!(found("*/file.txt"), ["a/file.txt"]);
    assert_eq!(found("in*/"), ["inside/"]);
    for glob in ["../*", "*/../../outside/*", "up/*", "u*/sentinel", "absolute/s*", "*/sentinel"] {
        assert_eq!(found(glob), [""; 0], "{glob}");
    }
}

#[test]
fn p09_destinations_are_beneath_the_root_and_no_link_leads_out() {
    let (place, base) = place();
    let single = DestinationOptions { single: true, ..DestinationOptions::default() };
    let open = |path: &str, options| Destination::open_in(&base, path.as_bytes(), options);
    for path in ["up", "up-to-file", "absolute", "up/new", "../new", "absolute/new", "/..", ".."] {
        for options in [single, DestinationOptions { mkpath: true, ..single }, Default::default()] {
            let error = open(path, options).unwrap_err();
            assert_eq!(error.code(), ErrorCode::PERMISSION, "{path}");
            assert!(error.to_string().contains(&format!("'{path}'")), "{error}");
        }
    }
    for (path, name) in [("new", "new"), ("/a/new", "new"), ("link.txt", "link.txt")] {
        let opened = open(path, single).unwrap();
        let RootRule::Single(given) = opened.rule else { panic!("{path}") };
        assert_eq!(&*given, name.as_bytes());
    }
    place.check_outside();
}

#[test]
fn parents_of_destinations_are_made_beneath_the_root() {
    let (place, base) = place();
    let mkpath = DestinationOptions { mkpath: true, ..DestinationOptions::default() };
    let open = |path: &str| Destination::open_in(&base, path.as_bytes(), mkpath);
    assert!(open("/m/n/o").unwrap().created && place.path("m/n/o").is_dir());
    assert!(open("inside/p/q").unwrap().created && place.path("a/b/p/q").is_dir());
    for path in ["up/m/n", "absolute/m/n", "../m/n", "x/../../m"] {
        let error = open(path).unwrap_err();
        assert!(
            error.code() == ErrorCode::PERMISSION || matches!(error.reason, Unusable::NoParent),
            "{error}"
        );
    }
    assert!(!place.temp.path().join("m").exists());
    place.check_outside();
}

#[test]
fn r06_a_parent_that_becomes_a_link_never_leads_out() {
    let (place, base) = place();
    let (dir, link) = (place.path("swap"), place.path("swap.link"));
    std::fs::create_dir(&dir).unwrap();
    symlink("../outside", &link).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = place.path("swap.dir");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::rename(&dir, &other).unwrap();
                std::fs::rename(&link, &dir).unwrap();
                std::fs::rename(&dir, &link).unwrap();
                std::fs::rename(&other, &dir).unwrap();
            }
        });
        let pool = DirPool::new(1);
        for _ in 0..2000 {
            assert!(SourceRoot::open_in(&base, b"swap/sentinel", &pool).is_err());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    place.check_outside();
}
