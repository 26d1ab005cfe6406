//! A version 1 server of our own making: fcpd, behind a door that takes `fcp` out of the opening.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use fcp_proto::frame::{self, HEAD_LEN, Head};
use fcp_proto::packet::{Opening, PullOpening, PushOpening};
use fcp_tests::process::Daemon;

use crate::programs::fcpd;

/// The server; its door is open as long as the test's process lives.
pub(crate) struct OldServer {
    pub(crate) port: u16,
    _daemon: Daemon,
}

impl OldServer {
    pub(crate) fn start() -> OldServer {
        let daemon = fcpd();
        let behind = daemon.address();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = door.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in door.incoming().flatten() {
                thread::spawn(move || let_in(stream, behind));
            }
        });
        OldServer { port, _daemon: daemon }
    }
}

fn let_in(mut client: TcpStream, behind: SocketAddr) -> io::Result<()> {
    let first = older(&first_frame(&mut client)?);
    let mut server = TcpStream::connect(behind)?;
    server.write_all(&first)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || pass(from, to));
    pass(server, client);
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn first_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = [0; HEAD_LEN];
    stream.read_exact(&mut head)?;
    let mut bytes = head.to_vec();
    stream.take(Head::from_bytes(head).len.into()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn older(first: &[u8]) -> Vec<u8> {
    let (frame, _) = frame::decode(first).unwrap().unwrap();
    let opening = match Opening::decode(frame).unwrap() {
        Opening::Push(push) => Opening::Push(PushOpening { fcp: None, ..push }),
        Opening::Pull(pull) => Opening::Pull(PullOpening { fcp: None, ..pull }),
        other => other,
    };
    let mut out = Vec::new();
    opening.encode(&mut out).unwrap();
    out
}
