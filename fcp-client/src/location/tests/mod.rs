//! What every location does alike, whichever it is.

mod local;
mod sftp;
pub(crate) mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use bytes::Bytes;
use fcp_common::fs::Kind;
use fcp_proto::meta::Timestamp;
use fcp_proto::path::RelPath;

use super::*;
use support::{POOR, Place, content, path};

/// Runs each function once over a folder of this machine, over one as if behind a network, over OpenSSH's server, and over a server
/// that can do nothing but version 3.
macro_rules! for_every_location {
    ($($name:ident)*) => {
        /// All of them, one after the other.
        #[cfg(feature = "sftp")]
        pub(super) async fn all(place: impl AsyncFn() -> Place) {
            $($name(place().await).await;)*
        }

        mod near {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::local()).await;
            })*
        }
        mod local_far {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::local_far()).await;
            })*
        }
        mod openssh {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::sftp().await).await;
            })*
        }
        mod plain_version_3 {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::sftp_without(super::POOR, false).await).await;
            })*
        }
    };
}

for_every_location! {
    lists_what_there_is
    s18_a_symlink_is_never_the_directory_or_file_that_it_leads_to
    stat_tells_what_is_there_and_that_nothing_is
    small_files_go_and_come
    a_taken_name_is_never_created_over
    ranges_come_in_order_and_whole
    s16_a_file_that_ends_early_is_noticed
    writes_land_where_they_belong
    a_longer_file_is_cut_when_it_is_closed
    rename_new_never_replaces
    s10_replace_leaves_the_new_file_alone_and_nothing_else
    directories_are_made_and_removed
    s15_the_clock_is_measured
    links_are_made_and_read
    meta_is_set_and_kept
    names_need_not_be_text
}

fn set(mode: u32, secs: i64) -> SetMeta {
    SetMeta { mode: Some(mode), mtime: Some(Timestamp { secs, nanos: 0 }) }
}

async fn reason<T: std::fmt::Debug>(done: impl Future<Output = Result<T>>) -> Reason {
    done.await.unwrap_err().reason
}

async fn lists_what_there_is(place: Place) {
    std::fs::create_dir(place.local_path("dir")).unwrap();
    for n in 0..300 {
        place.put(&format!("dir/file {n}"), vec![b'x'; n]);
    }
    std::fs::create_dir(place.local_path("dir/sub")).unwrap();
    symlink("/etc", place.local_path("dir/link")).unwrap();
    let listing = place.at.list(&path("dir")).await.unwrap();
    assert_eq!((listing.entries.len(), listing.refused), (302, vec![]));
    let of = |name: &str| {
        listing.entries.iter().find(|e| e.name.as_bytes() == name.as_bytes()).unwrap().meta
    };
    assert_eq!((of("file 7").kind, of("file 7").size), (Kind::File, 7));
    assert_eq!((of("sub").kind, of("link").kind), (Kind::Dir, Kind::Symlink));
    let real = place.local_path("dir/file 7").metadata().unwrap();
    assert_eq!(of("file 7").mode, Some(real.mode() & 0o7777));
    assert_eq!(of("file 7").mtime.unwrap().secs, real.mtime());
    assert_eq!(place.at.list(&RelPath::root()).await.unwrap().entries.len(), 1);
    assert_eq!(reason(place.at.list(&path("none"))).await, Reason::NotFound);
    assert_eq!(reason(place.at.list(&path("dir/file 1"))).await, Reason::NotDirectory);
}

async fn s18_a_symlink_is_never_the_directory_or_file_that_it_leads_to(place: Place) {
    std::fs::create_dir(place.local_path("real")).unwrap();
    place.put("real/file", "text");
    symlink("real", place.local_path("dir")).unwrap();
    symlink("real/file", place.local_path("file")).unwrap();
    assert_eq!(reason(place.at.list(&path("dir"))).await, Reason::NotDirectory);
    assert_eq!(reason(place.at.open(&path("file"))).await, Reason::NotFile);
    assert_eq!(reason(place.at.reopen(&path("file"))).await, Reason::NotFile);
    assert_eq!(reason(place.at.read_small(&path("file"), 4)).await, Reason::NotFile);
    assert_eq!(reason(place.at.create(&path("file"))).await, Reason::Exists);
    place.at.remove(&path("file")).await.unwrap();
    assert!(place.has("real/file"));
}

async fn stat_tells_what_is_there_and_that_nothing_is(place: Place) {
    place.put("file", "12345");
    let meta = place.at.stat(&path("file")).await.unwrap().unwrap();
    assert_eq!((meta.kind, meta.size), (Kind::File, 5));
    assert_eq!(place.at.stat(&path("none")).await.unwrap(), None);
    assert_eq!(place.at.stat(&path("none/below")).await.unwrap(), None);
    let root = place.at.stat(&RelPath::root()).await.unwrap().unwrap();
    assert_eq!(root.kind, Kind::Dir);
}

async fn small_files_go_and_come(place: Place) {
    for size in [0, 1, 40_000, 255 * 1024] {
        let name = path(&format!("f{size}"));
        let durable = place.at.capabilities().durable;
        let bytes = Bytes::from(content(size));
        place.at.write_small(&name, bytes.clone(), set(0o644, 1_000_000), durable).await.unwrap();
        let real = place.local_path(&name.to_string()).metadata().unwrap();
        assert_eq!((real.mode() & 0o7777, real.mtime()), (0o644, 1_000_000));
        let (read, meta) = place.at.read_small(&name, size as u64).await.unwrap();
        assert_eq!((&read, meta.size), (&bytes, size as u64));
        for wrong in [size as u64 + 1, (size as u64).wrapping_sub(1)] {
            if wrong < 1 << 20 {
                assert_eq!(reason(place.at.read_small(&name, wrong)).await, Reason::Changed);
            }
        }
    }
    assert_eq!(reason(place.at.read_small(&path("none"), 1)).await, Reason::NotFound);
}

async fn a_taken_name_is_never_created_over(place: Place) {
    place.put("taken", "theirs");
    std::fs::create_dir(place.local_path("dir")).unwrap();
    for name in ["taken", "dir"] {
        let to = path(name);
        let write = place.at.write_small(&to, Bytes::new(), SetMeta::default(), false);
        assert_eq!(reason(write).await, Reason::Exists);
        assert_eq!(reason(place.at.create(&path(name))).await, Reason::Exists);
    }
    assert_eq!(place.get("taken"), b"theirs");
    let sink = place.at.create(&path("new")).await.unwrap();
    assert_eq!(place.local_path("new").metadata().unwrap().mode() & 0o777, 0o600);
    sink.close(0, SetMeta::default(), false).await.unwrap();
}

async fn ranges_come_in_order_and_whole(place: Place) {
    let bytes = content((3 << 20) + 17);
    place.put("file", &bytes);
    let source = place.at.open(&path("file")).await.unwrap();
    let length = bytes.len() as u64;
    // Several at the same time, over several sessions where there are any.
    for range in [0..length, 5..5, 1..2, 1_000_000..length, 0..1 << 20] {
        let (mut one, mut two) =
            (source.read_range(range.clone()), source.read_range(range.clone()));
        let (mut got, mut at) = (Vec::new(), range.start);
        while let (Some(piece), Some(same)) = tokio::join!(one.next(), two.next()) {
            let (offset, piece) = piece.unwrap();
            assert_eq!((offset, piece.len() <= 1 << 20), (at, true));
            assert_eq!(same.unwrap().0, offset);
            at += piece.len() as u64;
            got.extend_from_slice(&piece);
        }
        assert_eq!(got, &bytes[range.start as usize..range.end as usize]);
    }
    let meta = source.stat().await.unwrap();
    assert!(meta.is_same_version(&place.at.stat(&path("file")).await.unwrap().unwrap()));
}

async fn s16_a_file_that_ends_early_is_noticed(place: Place) {
    place.put("file", content(100_000));
    let source = place.at.open(&path("file")).await.unwrap();
    let mut pieces = source.read_range(0..100_001);
    let error = loop {
        match pieces.next().await.expect("an end without an error") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason, Reason::Changed);
    assert!(pieces.next().await.is_none());
}

async fn writes_land_where_they_belong(place: Place) {
    let bytes = Bytes::from(content(2 << 20));
    let sink = place.at.create(&path("file")).await.unwrap();
    let half = bytes.len() / 2;
    {
        let (one, two) = (sink.writer().await, sink.writer().await);
        for at in (0..half).step_by(100_000) {
            let piece = |at: usize, end| (at as u64, bytes.slice(at..(at + 100_000).min(end)));
            let ((a, first), (b, second)) = (piece(at, half), piece(half + at, bytes.len()));
            one.write_at(a, first).await.unwrap();
            two.write_at(b, second).await.unwrap();
        }
        one.settle().await.unwrap();
        two.settle().await.unwrap();
    }
    assert_eq!(sink.stat().await.unwrap().size, bytes.len() as u64);
    let mut back = Vec::new();
    let mut pieces = sink.read_back(0..bytes.len() as u64);
    while let Some(piece) = pieces.next().await {
        back.extend_from_slice(&piece.unwrap().1);
    }
    assert_eq!(back, bytes);
    drop(pieces);
    sink.close(bytes.len() as u64, set(0o600, 1_000_000), false).await.unwrap();
    assert_eq!(place.get("file"), bytes);
    assert_eq!(place.local_path("file").metadata().unwrap().mtime(), 1_000_000);
}

async fn a_longer_file_is_cut_when_it_is_closed(place: Place) {
    place.put("file", content(1000));
    let sink = place.at.reopen(&path("file")).await.unwrap();
    sink.write_at(0, Bytes::from_static(b"new")).await.unwrap();
    sink.close(10, SetMeta::default(), false).await.unwrap();
    assert_eq!(place.get("file"), [b"new", &content(1000)[3..10]].concat());
    assert_eq!(reason(place.at.reopen(&path("none"))).await, Reason::NotFound);
}

async fn rename_new_never_replaces(place: Place) {
    std::fs::create_dir_all(place.local_path("dir")).unwrap();
    place.put("a", "a");
    place.put("b", "b");
    let rename = |from: &str, to: &str| {
        let (at, from, to) = (place.at.clone(), path(from), path(to));
        async move { at.rename_new(&from, &to).await }
    };
    assert_eq!(reason(rename("a", "b")).await, Reason::Exists);
    assert_eq!(reason(rename("none", "c")).await, Reason::NotFound);
    // That the copy is gone is never said of a directory that is missing.
    assert_eq!(reason(rename("a", "none/c")).await, Reason::NotDirectory);
    rename("a", "dir/a").await.unwrap();
    assert_eq!(
        (place.has("a"), place.get("dir/a"), place.get("b")),
        (false, vec![b'a'], vec![b'b'])
    );
}

async fn s10_replace_leaves_the_new_file_alone_and_nothing_else(place: Place) {
    std::fs::create_dir(place.local_path("dir")).unwrap();
    for round in 0..2 {
        place.put(".tmp.a", format!("new {round}"));
        place.at.replace(&path(".tmp.a"), &path("a")).await.unwrap();
        assert_eq!(place.get("a"), format!("new {round}").as_bytes());
    }
    assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 2);
    assert_eq!(reason(place.at.replace(&path("a"), &path("dir"))).await, Reason::IsDirectory);
    assert_eq!(reason(place.at.replace(&path("none"), &path("a"))).await, Reason::NotFound);
    assert_eq!(place.get("a"), b"new 1");
    place.at.recover_replace(&path("a")).await.unwrap();
    assert_eq!(place.get("a"), b"new 1");
}

async fn directories_are_made_and_removed(place: Place) {
    place.at.make_dirs(&path("a/b/c")).await.unwrap();
    place.at.make_dirs(&path("a/b/c")).await.unwrap();
    place.at.make_dirs(&RelPath::root()).await.unwrap();
    assert!(place.local_path("a/b/c").is_dir());
    place.put("a/file", "");
    assert_eq!(reason(place.at.make_dirs(&path("a/file"))).await, Reason::NotDirectory);
    assert!(place.at.make_dirs(&path("a/file/x")).await.is_err());
    assert_eq!(reason(place.at.remove_dir(&path("a"))).await, Reason::NotEmpty);
    assert_eq!(reason(place.at.remove(&path("a/b"))).await, Reason::IsDirectory);
    place.at.remove_dir(&path("a/b/c")).await.unwrap();
    place.at.remove(&path("a/file")).await.unwrap();
    assert_eq!(reason(place.at.remove(&path("a/file"))).await, Reason::NotFound);
}

async fn s15_the_clock_is_measured(place: Place) {
    let Clock::Skew { millis, error } = place.at.clock(&RelPath::root()).await.unwrap() else {
        panic!("unknown");
    };
    assert!(Duration::from_millis(millis.unsigned_abs()) <= error, "{millis} +- {error:?}");
    assert!(error < Duration::from_secs(5));
    assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 0, "the probe stayed");
}

async fn links_are_made_and_read(place: Place) {
    place.at.symlink(b"to/where ever", &path("link")).await.unwrap();
    assert_eq!(place.at.read_link(&path("link")).await.unwrap(), b"to/where ever");
    assert_eq!(reason(place.at.symlink(b"x", &path("link"))).await, Reason::Exists);
    assert_eq!(place.at.stat(&path("link")).await.unwrap().unwrap().kind, Kind::Symlink);
}

async fn meta_is_set_and_kept(place: Place) {
    place.put("file", "x");
    place.at.set_meta(&path("file"), set(0o4751, 1_234_567)).await.unwrap();
    let meta = place.at.stat(&path("file")).await.unwrap().unwrap();
    assert_eq!((meta.mode, meta.mtime.map(|t| t.secs)), (Some(0o751), Some(1_234_567)));
    std::fs::set_permissions(place.local_path("file"), PermissionsExt::from_mode(0o640)).unwrap();
    place.at.set_meta(&path("file"), SetMeta::default()).await.unwrap();
    assert_eq!(place.at.stat(&path("file")).await.unwrap().unwrap().mode, Some(0o640));
}

async fn names_need_not_be_text(place: Place) {
    let name = RelPath::new(b"caf\xe9 '\"\n$(x)").unwrap();
    let content = Bytes::from_static(b"x");
    place.at.write_small(&name, content, SetMeta::default(), false).await.unwrap();
    let listing = place.at.list(&RelPath::root()).await.unwrap();
    assert_eq!(listing.entries[0].name.as_bytes(), name.as_bytes());
    assert_eq!(place.at.read_small(&name, 1).await.unwrap().0, b"x"[..]);
    place.at.rename_new(&name, &path("plain")).await.unwrap();
    assert!(place.has("plain"));
}
