//! Against fastcopy 0.1.8, whose python is named by `FCP_FASTCOPY_PYTHON`; skipped without it.
#![allow(clippy::unwrap_used)]

mod version1_support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use fcp_common::engine::{Inlet, SessionError};
use fcp_common::version1::{read_reply, receive, send};
use fcp_proto::packet::{Opening, PullOpening, PushOpening};
use fcp_proto::{Flag, SessionId, frame};
use version1_support::*;

const SID: [u8; 16] = *b"sixteen bytes id";

fn python() -> Option<Command> {
    let Some(python) = std::env::var_os("FCP_FASTCOPY_PYTHON") else {
        println!("skipped: FCP_FASTCOPY_PYTHON does not name fastcopy's python");
        return None;
    };
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/version1_fastcopy.py"));
    Some(command)
}

fn source(temp: &tempfile::TempDir) -> std::path::PathBuf {
    let from = temp.path().join("from");
    fs::create_dir(&from).unwrap();
    odd_tree(&from);
    // fastcopy sets a directory's mode before it fills it (D15); only root gets away with that.
    from
}

/// Takes fastcopy's client's connections: answers the first, lets the others join.
fn accept(listener: &TcpListener, n: usize) -> Vec<TcpStream> {
    (0..n)
        .map(|i| {
            let mut conn = listener.accept().unwrap().0;
            let mut head = [0; 7];
            conn.read_exact(&mut head).unwrap();
            let mut payload = vec![0; usize::from(u16::from_be_bytes([head[5], head[6]]))];
            conn.read_exact(&mut payload).unwrap();
            if i == 0 {
                let mut sid = Vec::new();
                frame::encode(Flag::SID, &SID, &mut sid);
                conn.write_all(&sid).unwrap();
            } else {
                assert_eq!(payload, SID);
            }
            conn
        })
        .collect()
}

fn client(mode: &str, path: &Path, n: usize) -> Option<(Child, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut python = python()?;
    let child = python.arg(mode).arg(path).args([n.to_string(), port.to_string()]).spawn().unwrap();
    Some((child, accept(&listener, n)))
}

#[test]
fn fastcopys_client_pushes_to_us() {
    for n in [1, 8] {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (source(&temp), temp.path().join("to"));
        let Some((mut child, conns)) = client("push", &from, n) else { return };
        let summary = start_receive(receive_options(&to, &Arc::default()), conns).join().unwrap();
        assert_eq!(summary.unwrap().failed, 0);
        assert!(child.wait().unwrap().success());
        assert_same(&tree(&from), &tree(&to));
    }
}

#[test]
fn fastcopys_client_pushes_one_file_to_us() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("one"), temp.path().join("p/two"));
    fs::write(&from, vec![3; 10_000]).unwrap();
    let Some((mut child, conns)) = client("push", &from, 2) else { return };
    start_receive(receive_options(&to, &Arc::default()), conns).join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read(&to).unwrap(), vec![3; 10_000]);
}

#[test]
fn fastcopys_client_pulls_from_us() {
    for n in [1, 8] {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (source(&temp), temp.path().join("to"));
        let Some((mut child, conns)) = client("pull", &to, n) else { return };
        let notes = Arc::default();
        start_send(send_options(&from, true, &notes), conns).join().unwrap().unwrap();
        assert!(child.wait().unwrap().success());
        assert_same(&tree(&from), &tree(&to));
    }
}

/// fastcopy's server, ended with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Option<Server> {
        let mut python = python()?;
        let mut child =
            python.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Some(Server { child, port: line.trim().parse().unwrap() })
    }

    /// Opens a session of `n` connections; the first one, with what came before SID, first.
    fn open(&self, opening: &Opening, n: usize) -> Vec<fcp_common::engine::Duplex> {
        let connect = || TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut out = Vec::new();
        opening.encode(&mut out).unwrap();
        let mut first = connect();
        first.write_all(&out).unwrap();
        let opened = read_reply(&mut first, matches!(opening, Opening::Pull(_))).unwrap();
        assert_eq!(opened.reply.agreed, None);
        let mut attach = Vec::new();
        Opening::Attach(SessionId(opened.reply.sid.0)).encode(&mut attach).unwrap();
        let others = (1..n).map(|_| {
            let mut conn = connect();
            conn.write_all(&attach).unwrap();
            duplex(conn)
        });
        let others: Vec<_> = others.collect();
        [duplex(first).after(opened.early)].into_iter().chain(others).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn push_opening(dst: &Path) -> Opening {
    let dst = dst.to_str().unwrap().to_owned();
    Opening::Push(PushOpening { user: "root".into(), dst, fcp: None })
}

fn pull_opening(src: &Path) -> Opening {
    let srcs = vec![src.to_str().unwrap().to_owned()];
    let (user, include) = ("root".into(), "*".into());
    Opening::Pull(PullOpening { user, srcs, include, exclude: Vec::new(), fcp: None })
}

#[test]
fn we_push_to_fastcopys_server() {
    let Some(server) = Server::start() else { return };
    for n in [1, 8] {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (source(&temp), temp.path().join("to"));
        let options = send_options(&from, false, &Arc::default());
        send(options, server.open(&push_opening(&to), n), Inlet::new()).unwrap();
        assert_same(&tree(&from), &tree(&to.join("from")));
    }
}

#[test]
fn we_pull_from_fastcopys_server() {
    let Some(server) = Server::start() else { return };
    for n in [1, 8] {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (source(&temp), temp.path().join("to"));
        let options = receive_options(&to, &Arc::default());
        receive(options, server.open(&pull_opening(&from), n), Inlet::new()).unwrap();
        assert_same(&tree(&from), &tree(&to));
    }
}

#[test]
fn we_pull_nothing_from_fastcopys_server() {
    let Some(server) = Server::start() else { return };
    let temp = tempfile::tempdir().unwrap();
    let options = receive_options(&temp.path().join("to"), &Arc::default());
    let conns = server.open(&pull_opening(&temp.path().join("missing")), 1);
    let error = receive(options, conns, Inlet::new()).unwrap_err();
    assert!(matches!(error, SessionError::Peer(_)), "{error}");
}
