//! What appears under a final name, and over what.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use fcp_common::fs::{
    Dir, Expected, FileMeta, Kind, PublishError, RunId, SyncPolicy, TempNames, finish_dir, publish,
    publish_dir, publish_symlink,
};
use fcp_proto::meta::Timestamp;
use support::{Place, name, rel};

const ANY: Expected = Expected::Any;

fn mkfifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn p09_symlink_fifo_and_socket_are_replaced_never_written_through() {
    let place = Place::new();
    symlink("../outside/sentinel", place.path("to-file")).unwrap();
    symlink("../outside", place.path("to-dir")).unwrap();
    symlink("../outside/new", place.path("dangling")).unwrap();
    mkfifo(&place.path("fifo"));
    let _socket = UnixListener::bind(place.path("socket")).unwrap();
    for to in ["to-file", "to-dir", "dangling", "fifo", "socket"] {
        place.put(&place.root, to, "new").unwrap();
        assert!(fs::symlink_metadata(place.path(to)).unwrap().is_file(), "{to}");
        assert_eq!(place.read(to), "new");
    }
    place.check_outside();
}

#[test]
fn p09_a_directory_is_never_replaced() {
    let place = Place::new();
    fs::create_dir_all(place.path("full/x")).unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    let stat = place.root.stat(&name("empty")).unwrap().unwrap();
    for to in ["full", "empty"] {
        for expect in [Expected::Any, Expected::Absent, Expected::Same(stat)] {
            let refused = place.put_if(&place.root, to, "new", &expect);
            assert!(matches!(refused, Err(PublishError::IsDirectory)), "{to} {expect:?}");
            let refused =
                publish_symlink(&place.names, &place.root, b"t", &name(to), None, &expect);
            assert!(matches!(refused, Err(PublishError::IsDirectory)), "{to} {expect:?}");
        }
    }
    place.check_no_leftovers();
    assert!(place.path("full/x").is_dir());
}

#[test]
fn p09_opening_a_fifo_for_reading_never_blocks() {
    let place = Place::new();
    mkfifo(&place.path("fifo"));
    symlink("/etc/passwd", place.path("link")).unwrap();
    fs::create_dir(place.path("dir")).unwrap();
    for bad in ["fifo", "link", "dir", "absent"] {
        assert!(place.root.open_file(&name(bad)).is_err(), "{bad}");
    }
}

#[test]
fn p13_d12_wire_modes_are_masked_to_permissions() {
    let place = Place::new();
    for (wire, want) in
        [(0o7777, 0o777), (0o177_777, 0o777), (0o4755, 0o755), (0, 0), (0o644, 0o644)]
    {
        let meta = FileMeta { mode: Some(wire), mtime: None };
        let temp = place.temp(&place.root, "x");
        publish(temp, &name("f"), &meta, SyncPolicy::None, &ANY).unwrap();
        assert_eq!(fs::metadata(place.path("f")).unwrap().mode() & 0o7777, want, "{wire:o}");
    }
}

#[test]
fn p13_a_directory_of_mode_zero_is_filled_first_and_closed_after() {
    let place = Place::new();
    let made = publish_dir(&place.root, &place.root, &rel("d"), 0o7000).unwrap();
    assert!(made.created);
    let during = made.dir.own_stat().unwrap().mode;
    assert_eq!(during & 0o7700, 0o700);
    place.put(&made.dir, "f", "x").unwrap();
    let mtime = Timestamp { secs: 5, nanos: 6 };
    finish_dir(&made.dir, &FileMeta { mode: Some(0o6000), mtime: Some(mtime) }).unwrap();
    let stat = place.root.stat(&name("d")).unwrap().unwrap();
    assert_eq!((stat.mode, stat.mtime), (0, mtime));
}

#[test]
fn a_read_only_directory_is_opened_up_and_tells_what_to_restore() {
    let place = Place::new();
    fs::create_dir(place.path("d")).unwrap();
    fs::set_permissions(place.path("d"), fs::Permissions::from_mode(0o2555)).unwrap();
    let made = publish_dir(&place.root, &place.root, &rel("d"), 0o777).unwrap();
    assert_eq!((made.created, made.restore_mode), (false, Some(0o2555)));
    assert_eq!(made.dir.own_stat().unwrap().mode, 0o2755);
    finish_dir(&made.dir, &FileMeta { mode: made.restore_mode, mtime: None }).unwrap();
    assert_eq!(made.dir.own_stat().unwrap().mode, 0o2555, "its own setgid bit stays");
}

#[test]
fn f11_a_directory_that_we_may_write_but_not_list_takes_files() {
    let place = Place::new();
    fs::create_dir(place.path("drop")).unwrap();
    fs::set_permissions(place.path("drop"), fs::Permissions::from_mode(0o300)).unwrap();
    let typed = Dir::open_user(&place.path("drop")).unwrap();
    let beneath = place.root.open_beneath(&rel("drop")).unwrap();
    let walked = place.root.open_beneath_by_walk(&rel("drop")).unwrap();
    let child = place.root.open_child_nofollow(&name("drop")).unwrap();
    for (i, dir) in [typed, beneath, walked, child].into_iter().map(Arc::new).enumerate() {
        place.put(&dir, &format!("f{i}"), "x").unwrap();
        assert_eq!(fs::read_to_string(place.path(&format!("drop/f{i}"))).unwrap(), "x");
        finish_dir(&dir, &FileMeta { mode: Some(0o300), mtime: Some(Default::default()) }).unwrap();
    }
    let made = publish_dir(&place.root, &place.root, &rel("drop"), 0o755).unwrap();
    assert_eq!((made.restore_mode, made.dir.entries().unwrap().count()), (Some(0o300), 4));
}

#[test]
fn f11_a_file_of_mode_zero_can_be_given_another() {
    let place = Place::new();
    fs::write(place.path("f"), "x").unwrap();
    for mode in [0, 0o640] {
        place.root.set_mode(&name("f"), mode).unwrap();
        assert_eq!(place.root.stat(&name("f")).unwrap().unwrap().mode, mode);
    }
}

#[test]
fn directories_follow_links_beneath_and_replace_links_that_lead_out() {
    let place = Place::new();
    fs::create_dir_all(place.path("a/real")).unwrap();
    symlink("a/real", place.path("in")).unwrap();
    symlink("../a/real", place.path("a/in2")).unwrap();
    for (path, parent) in [("in", "."), ("a/in2", "a")] {
        let parent = Dir::open_user(&place.path(parent)).unwrap();
        let made = publish_dir(&place.root, &parent, &rel(path), 0o755).unwrap();
        let real = place.root.open_beneath(&rel("a/real")).unwrap().own_stat().unwrap();
        assert_eq!(made.dir.own_stat().unwrap().ino, real.ino);
    }
    fs::set_permissions(place.path("a/real"), fs::Permissions::from_mode(0o500)).unwrap();
    let made = publish_dir(&place.root, &place.root, &rel("in"), 0o755).unwrap();
    assert_eq!((made.restore_mode, made.dir.own_stat().unwrap().mode), (Some(0o500), 0o700));
    symlink("../outside", place.path("out")).unwrap();
    symlink(place.outside(), place.path("absolute")).unwrap();
    symlink("nowhere", place.path("dangling")).unwrap();
    symlink("self", place.path("self")).unwrap();
    for path in ["out", "absolute", "dangling", "self"] {
        assert!(
            publish_dir(&place.root, &place.root, &rel(path), 0o755).unwrap().created,
            "{path}"
        );
        assert!(fs::symlink_metadata(place.path(path)).unwrap().is_dir(), "{path}");
    }
    place.check_outside();
}

#[test]
fn p08_a_directory_where_a_file_is_fails_cleanly() {
    let place = Place::new();
    fs::write(place.path("f"), "old").unwrap();
    mkfifo(&place.path("fifo"));
    for to in ["f", "fifo"] {
        let refused = publish_dir(&place.root, &place.root, &rel(to), 0o755);
        assert!(matches!(refused, Err(PublishError::NotDirectory)), "{to}");
    }
    assert_eq!(place.read("f"), "old");
    assert!(fs::symlink_metadata(place.path("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn p14_symlinks_are_made_as_they_are_and_never_followed() {
    let place = Place::new();
    symlink("../outside/sentinel", place.path("x")).unwrap();
    let mtime = Timestamp { secs: 1_000_000_000, nanos: 1 };
    for target in ["/etc/passwd", "../outside", "x", "a/../b", "\u{1b}[31m"] {
        let to = name("x");
        publish_symlink(&place.names, &place.root, target.as_bytes(), &to, Some(mtime), &ANY)
            .unwrap();
        assert_eq!(place.root.read_link(&to).unwrap(), target.as_bytes());
        let stat = place.root.stat(&to).unwrap().unwrap();
        assert_eq!((stat.kind, stat.mtime), (Kind::Symlink, mtime));
    }
    assert_eq!(place.root.set_mode(&name("x"), 0o777).unwrap_err().raw_os_error(), Some(40));
    place.check_no_leftovers();
    place.check_outside();
}

#[test]
fn p15_a_hard_link_to_outside_is_broken_not_written() {
    let place = Place::new();
    fs::write(place.temp.path().join("shared"), "old").unwrap();
    fs::hard_link(place.temp.path().join("shared"), place.path("f")).unwrap();
    place.put(&place.root, "f", "new").unwrap();
    assert_eq!(fs::read_to_string(place.temp.path().join("shared")).unwrap(), "old");
}

#[test]
fn r04_temp_names_that_exist_already_are_stepped_over() {
    let place = Place::new();
    let run = RunId(0xabc);
    let planted = |n: u64| place.path(std::str::from_utf8(&run.temp_name(n)).unwrap());
    fs::write(place.temp.path().join("linked"), "old").unwrap();
    symlink("../outside/sentinel", planted(0)).unwrap();
    fs::hard_link(place.temp.path().join("linked"), planted(1)).unwrap();
    mkfifo(&planted(2));
    symlink("../outside/new", planted(3)).unwrap();
    let names = TempNames::new(run);
    let temp = names.create(&place.root).unwrap();
    assert_eq!(*temp.name(), run.temp_name(4));
    temp.file().write_all_at(b"hostile", 0).unwrap();
    assert_eq!(temp.file().stat().unwrap().mode, 0o600);
    assert_eq!(fs::read_to_string(place.temp.path().join("linked")).unwrap(), "old");
    place.check_outside();
}

#[test]
fn f07_a_destination_that_somebody_changed_is_left_alone() {
    let place = Place::new();
    fs::write(place.path("f"), "seen").unwrap();
    let seen = Expected::Same(place.root.stat(&name("f")).unwrap().unwrap());
    place.put_if(&place.root, "f", "first", &seen).unwrap();
    let changed = |result| assert!(matches!(result, Err(PublishError::DestinationChanged)));
    changed(place.put_if(&place.root, "f", "second", &seen));
    changed(place.put_if(&place.root, "f", "second", &Expected::Absent));
    assert_eq!(place.read("f"), "first");
    fs::remove_file(place.path("f")).unwrap();
    changed(place.put_if(&place.root, "f", "second", &seen));
    place.put_if(&place.root, "f", "second", &Expected::Absent).unwrap();
    assert_eq!(place.read("f"), "second");
    place.check_no_leftovers();
}

#[test]
fn f08_a_hole_of_a_terabyte_costs_nothing() {
    let place = Place::new();
    let temp = place.names.create(&place.root).unwrap();
    temp.file().write_all_at(&[7; 4096], 1 << 40).unwrap();
    temp.file().set_len((1 << 40) + (1 << 20)).unwrap();
    publish(temp, &name("f"), &FileMeta::default(), SyncPolicy::None, &ANY).unwrap();
    let meta = fs::metadata(place.path("f")).unwrap();
    assert_eq!(meta.len(), (1 << 40) + (1 << 20));
    assert!(meta.blocks() * 512 <= 2 << 20, "{} blocks", meta.blocks());
}

#[test]
fn f10_times_of_two_centuries_survive_to_the_nanosecond() {
    let place = Place::new();
    // The very first and last second that a file system can hold lose their nanoseconds.
    for secs in [-2_147_483_647, -1, 0, 2_147_483_647, 2_147_483_648, 4_294_967_296, 15_032_385_534]
    {
        let mtime = Timestamp { secs, nanos: 123_456_789 };
        let meta = FileMeta { mode: None, mtime: Some(mtime) };
        publish(place.temp(&place.root, "x"), &name("f"), &meta, SyncPolicy::None, &ANY).unwrap();
        assert_eq!(place.root.stat(&name("f")).unwrap().unwrap().mtime, mtime);
    }
    // UTIME_NOW and UTIME_OMIT are no times.
    for nanos in [1_000_000_000, (1 << 30) - 1, (1 << 30) - 2] {
        let meta = FileMeta { mode: None, mtime: Some(Timestamp { secs: 0, nanos }) };
        let temp = place.temp(&place.root, "x");
        assert!(publish(temp, &name("f"), &meta, SyncPolicy::None, &ANY).is_err());
    }
}

#[test]
fn f09_listing_a_large_directory_gives_every_name_once() {
    let place = Place::new();
    for i in 0..3000 {
        fs::write(place.path(&format!("a-rather-long-name-{i}")), "").unwrap();
    }
    fs::write(place.path("dir"), "").unwrap();
    let entries: Vec<_> = place.root.entries().unwrap().map(Result::unwrap).collect();
    let names: std::collections::HashSet<_> = entries.iter().map(|e| e.name.clone()).collect();
    assert_eq!((entries.len(), names.len()), (3001, 3001));
    assert!(entries.iter().all(|e| matches!(e.kind, None | Some(Kind::File))));
}

#[test]
fn f12_two_runs_into_one_name_leave_one_whole_file() {
    let place = Place::new();
    let texts = ["a".repeat(100_000), "b".repeat(100_000)];
    std::thread::scope(|scope| {
        for text in &texts {
            let names = TempNames::new(RunId::random());
            let root = &place.root;
            scope.spawn(move || {
                for _ in 0..200 {
                    let temp = names.create(root).unwrap();
                    temp.file().write_all_at(text.as_bytes(), 0).unwrap();
                    let meta = FileMeta::default();
                    publish(temp, &name("f"), &meta, SyncPolicy::None, &ANY).unwrap();
                }
            });
        }
    });
    assert!(texts.contains(&place.read("f")));
    place.check_no_leftovers();
}

#[test]
fn every_sync_policy_publishes() {
    let place = Place::new();
    for sync in [SyncPolicy::None, SyncPolicy::Batch, SyncPolicy::Always] {
        let temp = place.temp(&place.root, "x");
        publish(temp, &name("f"), &FileMeta::default(), sync, &ANY).unwrap();
    }
    place.root.sync().unwrap();
    assert!(place.root.free_bytes().unwrap() > 0);
    assert!(place.root.fs_magic().unwrap() > 0);
    let dir: Arc<Dir> = Arc::clone(&place.root);
    drop(place.temp(&dir, "dropped"));
    place.check_no_leftovers();
}

#[test]
fn large_vectored_writes_are_carried_to_their_end() {
    let place = Place::new();
    let temp = place.names.create(&place.root).unwrap();
    let parts: Vec<Vec<u8>> = (0..3000).map(|i| vec![i as u8; i % 40]).collect();
    let mut slices: Vec<_> = parts.iter().map(|part| std::io::IoSlice::new(part)).collect();
    temp.file().write_all_vectored_at(&mut slices, 3).unwrap();
    let want = parts.concat();
    let mut got = vec![0; want.len() + 10];
    assert_eq!(temp.file().read_full_at(&mut got, 3).unwrap(), want.len());
    assert_eq!(got[..want.len()], want);
}
