//! What only folders of this machine can do or fail to do.

use super::*;
use crate::location::local::Local;

#[tokio::test]
async fn s18_symlinks_are_followed_beneath_the_base_and_never_out_of_it() {
    let place = Place::local();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    std::fs::create_dir(place.local_path("disk2")).unwrap();
    place.put("disk2/file", "12");
    symlink("disk2", place.local_path("inside")).unwrap();
    symlink(outside.path(), place.local_path("out")).unwrap();
    assert_eq!(place.at.read_small(&path("inside/file"), 2).await.unwrap().0, b"12"[..]);
    assert_eq!(reason(place.at.open(&path("out/secret"))).await, Reason::Denied);
    assert_eq!(reason(place.at.create(&path("out/new"))).await, Reason::Denied);
    assert_eq!(reason(place.at.remove(&path("out/secret"))).await, Reason::Denied);
    assert_eq!(reason(place.at.make_dirs(&path("out/dir"))).await, Reason::Denied);
    assert!(outside.path().join("secret").exists());
}

#[tokio::test]
async fn a_pipe_is_not_waited_for() {
    let place = Place::local();
    let made = std::process::Command::new("mkfifo").arg(place.local_path("pipe")).status();
    assert!(made.unwrap().success());
    assert_eq!(place.at.stat(&path("pipe")).await.unwrap().unwrap().kind, Kind::Other);
    assert_eq!(reason(place.at.open(&path("pipe"))).await, Reason::NotFile);
}

#[tokio::test]
async fn a_base_is_made_where_it_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    assert_eq!(Local::new(&deep).unwrap_err().reason, Reason::NotFound);
    let made = Local::make(&deep).unwrap();
    assert!(deep.is_dir());
    made.write_small(&path("f"), Bytes::from_static(b"x"), SetMeta::default(), true).await.unwrap();
    assert!(Local::make(&deep).is_ok());
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(Local::make(&dir.path().join("file/x")).unwrap_err().reason, Reason::NotDirectory);
}

#[tokio::test]
async fn times_are_kept_to_the_nanosecond() {
    let place = Place::local();
    place.put("a", "a");
    let mtime = Some(Timestamp { secs: 1_000_000, nanos: 123_456_789 });
    place.at.set_meta(&path("a"), SetMeta { mode: None, mtime }).await.unwrap();
    assert_eq!(place.at.stat(&path("a")).await.unwrap().unwrap().mtime, mtime);
}
