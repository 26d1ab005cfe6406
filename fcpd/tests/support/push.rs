//! A push of one small file, by hand.
#![allow(unreachable_pub, reason = "each test binary uses its part of this")]

use std::io::{Read, Write};

use fcp_common::transfer::digest;
use fcp_proto::packet::{
    Direction, Entry, EntryBody, Message, Options, Outcome, RootMeta, Whole, put_whole_head,
};
use fcp_proto::{DirId, FileId, Name, Timestamp, frame};

use super::*;

pub const CONTENT: &[u8] = b"hello, fcpd\n";

pub fn entry(name: &[u8]) -> Message {
    Message::Entries(vec![Entry {
        id: FileId(0),
        parent: DirId::ROOT,
        name: Name::new(name).unwrap(),
        mode: 0o640,
        mtime: Timestamp { secs: 1_000_000_000, nanos: 7 },
        body: EntryBody::File { size: CONTENT.len() as u64, token: 1 },
    }])
}

pub fn whole(content: &[u8]) -> Vec<u8> {
    let mut head = [0; frame::HEAD_LEN + Whole::HEAD];
    put_whole_head(&mut head, FileId(0), digest(content), content);
    [&head[..], content].concat()
}

/// Everything a client sends behind its greeting to push one small file.
pub fn push_frames(path: &str) -> Vec<u8> {
    let options = Options::PERMS.with(Options::TIMES, true);
    [request(Direction::Push, path, options), numbered(1, &entry(b"greeting"))].concat()
}

pub fn finish_push<S: Read + Write>(peer: &mut Peer<S>) {
    let Message::Want(want) = peer.expect() else { panic!("WANT expected") };
    assert_eq!((want.len(), want[0].file), (1, FileId(0)));
    peer.send(&[whole(CONTENT), numbered(2, &Message::Finish(RootMeta(None)))].concat());
    let (mut outcomes, mut seq) = (Vec::new(), 1);
    loop {
        seq += 1;
        match peer.expect() {
            Message::Results(all) => outcomes.extend(all.into_iter().map(|r| r.outcome)),
            Message::Written(_) => {}
            Message::Close(summary) => {
                assert_eq!((summary.changed, summary.failed), (1, 0));
                peer.send(&ack(seq));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(outcomes.iter().all(|o| *o == Outcome::Created), "{outcomes:?}");
}
