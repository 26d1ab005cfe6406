//! Both of our version 1 ends over loopback sockets, and each against a scripted peer.
#![allow(clippy::unwrap_used)]

mod version1_support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fcp_common::engine::SessionError;
use fcp_proto::v1::{V1Chunk, V1Dir, V1File, V1Packet};
use fcp_proto::{FileId, RelPath, Timestamp, frame};
use md5::{Digest, Md5};
use version1_support::*;

fn transfer(from: &Path, to: &Path, as_server: bool, n: usize) -> Arc<Notes> {
    let notes = Arc::new(Notes::default());
    let (a, b) = sockets(n);
    let receiving = start_receive(receive_options(to, &notes), a);
    let sending = start_send(send_options(from, as_server, &notes), b);
    sending.join().unwrap().unwrap();
    receiving.join().unwrap().unwrap();
    notes
}

#[test]
fn trees_arrive_over_one_and_eight_connections() {
    for n in [1, 8] {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to/new"));
        fs::create_dir(&from).unwrap();
        odd_tree(&from);
        transfer(&from, &to, true, n);
        assert_same(&tree(&from), &tree(&to));
        // Once more: nothing is to be sent, and changed metadata is put right.
        fs::File::open(to.join("size4096")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        transfer(&from, &to, true, n);
        assert_same(&tree(&from), &tree(&to));
    }
}

#[test]
fn a_pushed_operand_keeps_its_name_as_in_rsync() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/x"), "x").unwrap();
    transfer(&from, &to, false, 1);
    assert_eq!(fs::read(to.join("from/sub/x")).unwrap(), b"x");
    transfer(&from.join("sub/"), &to, false, 1);
    assert_eq!(fs::read(to.join("x")).unwrap_or_default(), b"x");
}

#[test]
fn one_file_gets_the_destination_as_its_name_or_goes_into_it() {
    let temp = tempfile::tempdir().unwrap();
    let from = temp.path().join("one");
    fs::write(&from, "1").unwrap();
    transfer(&from, &temp.path().join("p/q/two"), true, 2);
    assert_eq!(fs::read(temp.path().join("p/q/two")).unwrap(), b"1");
    transfer(&from, &temp.path().join("p"), true, 2);
    assert_eq!(fs::read(temp.path().join("p/one")).unwrap(), b"1");
}

#[test]
fn d01_d02_longer_files_are_replaced_by_empty_and_shorter_ones() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    for (dir, empty, short) in [(&from, "", "short"), (&to, "not empty", "much longer")] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("empty"), empty).unwrap();
        fs::write(dir.join("short"), short).unwrap();
    }
    transfer(&from, &to, true, 1);
    assert_same(&tree(&from), &tree(&to));
}

#[test]
fn d17_two_sources_with_one_name_are_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let notes = Arc::new(Notes::default());
    let mut options = None;
    for dir in ["a", "b"] {
        fs::create_dir(temp.path().join(dir)).unwrap();
        fs::write(temp.path().join(dir).join("x"), dir).unwrap();
        let mut one = send_options(&temp.path().join(dir), true, &notes);
        match &mut options {
            None => options = Some(one),
            Some(first) => first.roots.append(&mut one.roots),
        }
    }
    let (a, b) = sockets(1);
    let receiving = start_receive(receive_options(&temp.path().join("to"), &notes), a);
    let summary = start_send(options.unwrap(), b).join().unwrap().unwrap();
    receiving.join().unwrap().unwrap();
    assert_eq!((summary.failed, notes.problems.lock().unwrap().len()), (1, 1));
    assert_eq!(fs::read(temp.path().join("to/x")).unwrap(), b"a");
}

#[test]
fn d20_links_are_reported_and_never_read_through() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("x"), "x").unwrap();
    add_link(&from);
    let notes = transfer(&from, &to, true, 1);
    assert_eq!(notes.skipped.lock().unwrap().len(), 1);
    assert_eq!(tree(&to).len(), 1);
}

#[test]
fn nothing_to_send_is_told_to_the_receiver() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("from")).unwrap();
    let notes = Arc::new(Notes::default());
    let (a, b) = sockets(1);
    let receiving = start_receive(receive_options(&temp.path().join("to"), &notes), a);
    let sending = start_send(send_options(&temp.path().join("from"), true, &notes), b);
    sending.join().unwrap().unwrap();
    let error = receiving.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("No such file or directory"), "{error}");
}

/// A scripted peer.
struct Peer(TcpStream);

impl Peer {
    fn send(&mut self, packets: &[V1Packet<'_>]) {
        let mut out = Vec::new();
        packets.iter().for_each(|p| p.encode(&mut out));
        self.0.write_all(&out).unwrap();
    }

    /// The next packet as text; empty at the end of the connection.
    fn next(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            if let Some((frame, _)) = frame::decode(&bytes).unwrap() {
                return format!("{:?}", V1Packet::decode(frame).unwrap());
            }
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => bytes.push(byte[0]),
                _ => return String::new(),
            }
        }
    }
}

fn info(id: u32, name: &[u8], content: &[u8], mode: u16) -> V1Packet<'static> {
    V1Packet::FileInfo(V1File {
        id: FileId(id),
        mode,
        size: content.len() as u64,
        mtime: Timestamp { secs: 7, nanos: 0 },
        md5: Md5::digest(content).into(),
        path: RelPath::new(name).unwrap(),
    })
}

fn chunk(id: u32, seq: u32, bytes: &[u8]) -> V1Packet<'_> {
    V1Packet::FileChunk(V1Chunk { file: FileId(id), seq, bytes })
}

/// A receiver into a new directory and the sender that it talks to.
fn scripted(n: usize) -> (tempfile::TempDir, Vec<Peer>, Running) {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = sockets(n);
    let options = receive_options(&temp.path().join("to"), &Arc::default());
    let receiving = start_receive(options, a);
    (temp, b.into_iter().map(Peer).collect(), receiving)
}

#[test]
fn d03_bad_content_never_gets_the_name_and_the_session_ends() {
    let (temp, mut peers, receiving) = scripted(1);
    let peer = &mut peers[0];
    peer.send(&[V1Packet::Monofile(false), info(0, b"x", b"good", 0o644), V1Packet::FileCount(1)]);
    for _ in 0..4 {
        assert_eq!(peer.next(), "FileReady(FileId(0))");
        peer.send(&[chunk(0, 0, b"evil")]);
    }
    assert_eq!(peer.next(), "Exception(\"1 of the files were not received\")");
    assert_eq!(peer.next(), "Done");
    drop(peers);
    assert_eq!(receiving.join().unwrap().unwrap().failed, 1);
    assert!(tree(&temp.path().join("to")).is_empty());
}

#[test]
fn d05_a_lost_chunk_is_asked_for_again_over_another_connection() {
    let (temp, mut peers, receiving) = scripted(2);
    let content = [vec![1; 4096], vec![2; 4096]].concat();
    let first = [V1Packet::Monofile(false), info(0, b"x", &content, 0o644), V1Packet::FileCount(1)];
    peers[0].send(&first);
    for peer in &peers {
        peer.0.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    }
    while peers[0].next().is_empty() && peers[1].next().is_empty() {}
    peers[0].send(&[chunk(0, 0, &content[..4096])]);
    peers[1].0.shutdown(Shutdown::Both).unwrap();
    let peer = &mut peers[0];
    peer.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(peer.next(), "FileReady(FileId(0))");
    peer.send(&[chunk(0, 0, &content[..4096]), chunk(0, 1, &content[4096..])]);
    assert_eq!(peer.next(), "Done");
    drop(peers);
    assert_eq!(receiving.join().unwrap().unwrap().changed, 1);
    assert_eq!(fs::read(temp.path().join("to/x")).unwrap(), content);
}

#[test]
fn a_session_without_connections_is_lost() {
    let (temp, mut peers, receiving) = scripted(1);
    peers[0].send(&[V1Packet::Monofile(false), info(0, b"x", b"good", 0o644)]);
    assert!(peers[0].next().starts_with("FileReady"));
    drop(peers);
    assert!(matches!(receiving.join().unwrap(), Err(SessionError::Lost(_))));
    assert!(tree(&temp.path().join("to")).is_empty(), "no temp and no journal is left");
}

#[test]
fn d12_d14_modes_are_masked_and_names_keep_their_bytes() {
    let (temp, mut peers, receiving) = scripted(1);
    let name = b"n\xff\xfe";
    let infos = [info(0, name, b"", 0o104_755), V1Packet::FileCount(1)];
    peers[0].send(&[V1Packet::Monofile(false)]);
    peers[0].send(&infos);
    assert_eq!(peers[0].next(), "Done");
    drop(peers);
    receiving.join().unwrap().unwrap();
    let path = temp.path().join("to").join(std::ffi::OsStr::from_bytes(name));
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(path).unwrap());
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn d15_directories_get_their_modes_after_their_files() {
    let (temp, mut peers, receiving) = scripted(1);
    let dir = |id, path: &[u8]| {
        let path = RelPath::new(path).unwrap();
        V1Packet::DirInfo(V1Dir { id: FileId(id), mode: 0o500, path })
    };
    let mode = |path: &str| {
        let meta = fs::metadata(temp.path().join("to").join(path)).unwrap();
        std::os::unix::fs::MetadataExt::mode(&meta) & 0o777
    };
    peers[0].send(&[V1Packet::Monofile(false), dir(0, b"a"), dir(1, b"a/b")]);
    peers[0].send(&[info(2, b"a/b/x", b"good", 0o644), V1Packet::FileCount(3)]);
    assert!(peers[0].next().starts_with("FileReady"));
    assert_eq!(mode("a") & mode("a/b") & 0o700, 0o700);
    peers[0].send(&[chunk(2, 0, b"good")]);
    assert_eq!(peers[0].next(), "Done");
    assert_eq!((mode("a"), mode("a/b")), (0o500, 0o500));
    drop(peers);
    receiving.join().unwrap().unwrap();
}

#[test]
fn d10_paths_that_lead_out_end_the_session() {
    for path in [&b"../x"[..], b"/tmp/x", b"a/../../x"] {
        let (temp, mut peers, receiving) = scripted(1);
        peers[0].send(&[V1Packet::Monofile(false)]);
        let mut payload = vec![0; 6];
        payload.extend_from_slice(path);
        let mut out = Vec::new();
        frame::encode(fcp_proto::Flag::DIR_INFO, &payload, &mut out);
        peers[0].0.write_all(&out).unwrap();
        assert!(peers[0].next().starts_with("Exception"));
        assert!(matches!(receiving.join().unwrap(), Err(SessionError::Violation(_))));
        assert!(!temp.path().join("x").exists());
    }
}

#[test]
fn w09_to_w13_a_hostile_sender_is_told_and_left() {
    let mono = V1Packet::Monofile(false);
    let big = vec![7; 4096];
    for script in [
        vec![mono.clone(), chunk(5, 0, b"x")],
        vec![mono.clone(), info(0, b"x", b"good", 0), chunk(0, 3, b"x")],
        vec![mono.clone(), info(0, b"x", b"good", 0), chunk(0, 0, &big)],
        vec![mono.clone(), info(0, b"x", b"", 0), info(0, b"y", b"", 0)],
        vec![mono.clone(), V1Packet::FileCount(1), V1Packet::FileCount(1)],
        vec![mono.clone(), info(0, b"x", b"", 0), info(1, b"y", b"", 0), V1Packet::FileCount(1)],
        vec![mono.clone(), V1Packet::FileReady(FileId(0))],
        vec![chunk(0, 0, b"x")],
        vec![mono.clone(), mono],
    ] {
        let (_temp, mut peers, receiving) = scripted(1);
        peers[0].send(&script);
        let mut seen = peers[0].next();
        while seen.starts_with("FileReady") {
            seen = peers[0].next();
        }
        assert!(seen.starts_with("Exception"), "{script:?}: {seen}");
        drop(peers);
        let ended = receiving.join().unwrap();
        assert!(matches!(ended, Err(SessionError::Violation(_))), "{script:?}: {ended:?}");
    }
}

#[test]
fn d08_w15_a_hostile_receiver_is_told_and_left() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("x"), "x").unwrap();
    for script in [V1Packet::FileReady(FileId(9)), V1Packet::Monofile(true)] {
        let (a, b) = sockets(1);
        let sending = start_send(send_options(temp.path(), true, &Arc::default()), a);
        let mut peer = Peer(b.into_iter().next().unwrap());
        while !peer.next().starts_with("FileCount") {}
        peer.send(&[script]);
        assert!(peer.next().starts_with("Exception"));
        drop(peer);
        assert!(matches!(sending.join().unwrap(), Err(SessionError::Violation(_))));
    }
}

#[test]
fn d06_a_file_that_changes_after_it_was_announced_is_not_sent() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("x");
    fs::write(&path, "before").unwrap();
    let notes = Arc::new(Notes::default());
    let (a, b) = sockets(1);
    let sending = start_send(send_options(temp.path(), true, &notes), a);
    let mut peer = Peer(b.into_iter().next().unwrap());
    while !peer.next().starts_with("FileCount") {}
    fs::write(&path, "after, and longer").unwrap();
    peer.send(&[V1Packet::FileReady(FileId(0))]);
    let text = peer.next();
    assert!(text.starts_with("Exception") && text.contains("changed"), "{text}");
    peer.send(&[V1Packet::Done]);
    assert!(matches!(sending.join().unwrap(), Err(SessionError::Local(_))));
    assert_eq!(notes.failed.lock().unwrap().len(), 1);
}
