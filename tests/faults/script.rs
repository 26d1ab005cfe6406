//! A peer that says what a script tells it: frames made with fcp's own encoders, or bytes by hand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use fcp_proto::coding::{Wire, decode_exact};
use fcp_proto::frame::{HEAD_LEN, Head};
use fcp_proto::packet::{
    Direction, Durability, Message, Opening, Options, PullOpening, PushOpening, Reply, Request,
    Sequenced, WireError,
};
use fcp_proto::version::{Agreed, Hello, negotiate};
use fcp_proto::{Flag, SessionId, frame};

/// Longer than any answer may take, and shorter than a test may.
const ANSWER: Duration = Duration::from_secs(20);

pub(crate) const FILE: u8 = 1;
pub(crate) const DIR: u8 = 2;
pub(crate) const LINK: u8 = 3;
pub(crate) const ROOT: u32 = u32::MAX;

/// What `fcp push` asks for.
pub(crate) fn usual() -> Options {
    let all = Options::PERMS.0 | Options::TIMES.0 | Options::LINKS.0 | Options::RECURSIVE.0;
    Options(all)
}

/// One end of a connection.
pub(crate) struct Peer {
    stream: TcpStream,
    next: u32,
}

impl Peer {
    /// Connects without saying anything.
    pub(crate) fn silent(port: u16) -> Peer {
        Peer::over(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap())
    }

    fn over(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        stream.set_write_timeout(Some(ANSWER)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream, next: 0 }
    }

    /// A session that was agreed on; nothing is requested yet.
    pub(crate) fn greeted(port: u16, pull: bool) -> Peer {
        let mut peer = Peer::silent(port);
        let fcp = Some(Hello::ours(4));
        let user = String::new();
        let opening = if pull {
            let (srcs, include, exclude) = (vec![], "*".into(), vec![]);
            Opening::Pull(PullOpening { user, srcs, include, exclude, fcp })
        } else {
            Opening::Push(PushOpening { user, dst: String::new(), fcp })
        };
        let mut bytes = Vec::new();
        opening.encode(&mut bytes).unwrap();
        peer.bytes(&bytes);
        let (flag, payload) = peer.read().expect("an answer");
        Reply::decode(frame::Frame { flag, payload: &payload }).unwrap();
        peer
    }

    /// A push into a directory.
    pub(crate) fn pushing(port: u16, dst: &std::path::Path) -> Peer {
        let mut peer = Peer::greeted(port, false);
        peer.say(Message::Request(Request {
            direction: Direction::Push,
            options: usual(),
            durability: Durability::None,
            paths: vec![dst.as_os_str().as_encoded_bytes().to_vec()],
            rules: vec![],
        }));
        peer
    }

    /// Sends whatever bytes; a peer that has hung up already is what the test asks about later.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a frame of whatever content.
    pub(crate) fn frame(&mut self, flag: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::encode(Flag(flag), payload, &mut bytes);
        self.bytes(&bytes);
    }

    /// Sends a message of whatever body under the next number.
    pub(crate) fn numbered(&mut self, flag: Flag, body: &[u8]) {
        let payload = [&self.next.to_be_bytes()[..], body].concat();
        self.next += 1;
        let mut bytes = Vec::new();
        Sequenced::put_frames(flag, &payload, frame::MAX_PAYLOAD, &mut bytes);
        self.bytes(&bytes);
    }

    /// Sends a message under a number that was had before.
    pub(crate) fn again(&mut self, flag: Flag, number: u32, body: &[u8]) {
        self.frame(flag.0, &[&number.to_be_bytes()[..], body].concat());
    }

    /// Sends a message.
    pub(crate) fn say(&mut self, message: Message) {
        let payload = message.to_payload(self.next);
        self.numbered(message.flag(), &payload[4..]);
    }

    /// Announces one entry.
    pub(crate) fn entry(&mut self, entry: &[u8]) {
        self.numbered(Flag::ENTRIES, entry);
    }

    /// The next frame; none at the end.
    pub(crate) fn read(&mut self) -> Option<(Flag, Vec<u8>)> {
        let mut head = [0; HEAD_LEN];
        self.stream.read_exact(&mut head).ok()?;
        let head = Head::from_bytes(head);
        let mut payload = vec![0; head.len.into()];
        self.stream.read_exact(&mut payload).ok()?;
        Some((head.flag, payload))
    }

    /// The next message of the peer.
    pub(crate) fn hear(&mut self) -> Option<Message> {
        loop {
            let (flag, payload) = self.read()?;
            if flag.is_message() {
                let Sequenced { seq, message } = Sequenced::from_payload(flag, &payload).unwrap();
                self.frame(Flag::ACK.0, &(seq + 1).to_be_bytes());
                return Some(message);
            }
            if flag == Flag::ERROR {
                return None;
            }
        }
    }

    /// Ends the connection in both directions.
    pub(crate) fn hang_up(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Reads until the peer hangs up, and answers with its last error. Panics if it does not.
    pub(crate) fn refusal(&mut self) -> Option<WireError> {
        let mut error = None;
        loop {
            let mut head = [0; HEAD_LEN];
            match self.stream.read_exact(&mut head) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the peer neither refuses nor hangs up")
                }
                Err(_) => return error,
            }
            let head = Head::from_bytes(head);
            let mut payload = vec![0; head.len.into()];
            if self.stream.read_exact(&mut payload).is_err() {
                return error;
            }
            if head.flag == Flag::ERROR {
                error = decode_exact::<WireError>(&payload).ok();
            }
        }
    }
}

/// The bytes of an entry of ENTRIES.
pub(crate) fn entry(
    kind: u8,
    id: u32,
    parent: u32,
    name: &[u8],
    mode: u16,
    body: &[u8],
) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(id.to_be_bytes());
    out.extend(parent.to_be_bytes());
    out.push(name.len() as u8);
    out.extend(name);
    out.extend(mode.to_be_bytes());
    out.extend(1_000_000_000i64.to_be_bytes());
    out.extend(0u32.to_be_bytes());
    out.extend(body);
    out
}

/// A file of this size.
pub(crate) fn file(id: u32, parent: u32, name: &[u8], size: u64) -> Vec<u8> {
    let body = [size.to_be_bytes(), 7u64.to_be_bytes()].concat();
    entry(FILE, id, parent, name, 0o644, &body)
}

/// A directory.
pub(crate) fn dir(id: u32, parent: u32, name: &[u8]) -> Vec<u8> {
    entry(DIR, id, parent, name, 0o755, &[])
}

/// A symlink.
pub(crate) fn link(id: u32, parent: u32, name: &[u8], target: &[u8]) -> Vec<u8> {
    let body = [&(target.len() as u16).to_be_bytes()[..], target].concat();
    entry(LINK, id, parent, name, 0o777, &body)
}

/// WHOLE with the right digest, or any other.
pub(crate) fn whole(id: u32, content: &[u8]) -> Vec<u8> {
    let digest = fcp_common::transfer::digest(content);
    [&id.to_be_bytes()[..], &digest.0, content].concat()
}

/// A server for one connection of a pulling fcp; `talk` gets the peer after its REQUEST.
pub(crate) fn serve(
    agree: impl FnOnce(Agreed) -> Agreed + Send + 'static,
    talk: impl FnOnce(&mut Peer) + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut peer = Peer::over(listener.accept().unwrap().0);
        let (flag, payload) = peer.read().unwrap();
        let opening = Opening::decode(frame::Frame { flag, payload: &payload }).unwrap();
        let theirs = match opening {
            Opening::Pull(pull) => pull.fcp.unwrap(),
            Opening::Push(push) => push.fcp.unwrap(),
            other => panic!("{other:?}"),
        };
        let agreed = agree(negotiate(&Hello::ours(4), &theirs).unwrap());
        let mut bytes = Vec::new();
        Reply { sid: SessionId([7; 16]), agreed: Some(agreed), extra: Default::default() }
            .encode(Flag::SID, &mut bytes);
        peer.bytes(&bytes);
        let _request = peer.read();
        peer.frame(Flag::ACK.0, &1u32.to_be_bytes());
        talk(&mut peer);
        // Whatever it still says; a closed socket would take our words away from it.
        while peer.read().is_some() {}
    });
    port
}

/// Announces, then gives every file that is wanted four bytes, until CLOSE or the end.
pub(crate) fn announce_and_send(peer: &mut Peer, entries: &[Vec<u8>], ended: &[u32]) {
    entries.iter().for_each(|entry| peer.entry(entry));
    let ended: Vec<u8> = ended.iter().flat_map(|id| id.to_be_bytes()).collect();
    peer.numbered(Flag::DIRS_END, &ended);
    peer.numbered(Flag::FINISH, &[]);
    while let Some(message) = peer.hear() {
        match message {
            Message::Want(wants) => {
                wants.iter().for_each(|w| peer.frame(Flag::WHOLE.0, &whole(w.file.0, b"evil")));
            }
            Message::Close(_) => return,
            _ => {}
        }
    }
}

/// The body of ERROR.
pub(crate) fn error_body(error: &WireError) -> Vec<u8> {
    let mut out = Vec::new();
    error.encode(&mut out);
    out
}
