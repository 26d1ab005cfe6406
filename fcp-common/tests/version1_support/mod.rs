//! What the version 1 tests share: trees, and both of our ends over loopback sockets.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use fcp_common::engine::{Duplex, Ended, EntryReport, Inlet, Report};
use fcp_common::fs::{Base, DirPool};
use fcp_common::version1::{
    ReceiveConfig, SEND_WINDOW, V1Filter, V1ReceiveOptions, V1SendOptions, WINDOW, destination_at,
    open_pull_source, receive, send,
};
use fcp_common::walk::{Parents, SourceRoot, WalkOptions};
use fcp_proto::packet::{Durability, Outcome, Problem, Summary};

/// Notes what a session tells.
#[derive(Default)]
pub struct Notes {
    pub failed: Mutex<Vec<Vec<u8>>>,
    pub problems: Mutex<Vec<Problem>>,
    pub skipped: Mutex<Vec<Vec<u8>>>,
}

impl Report for Notes {
    fn entry(&self, entry: EntryReport) {
        if matches!(entry.outcome, Outcome::Failed(_)) {
            self.failed.lock().unwrap().push(entry.path);
        }
    }
    fn problem(&self, problem: Problem) {
        self.problems.lock().unwrap().push(problem);
    }
    fn skipped(&self, path: Vec<u8>, _: &str) {
        self.skipped.lock().unwrap().push(path);
    }
}

/// Sends one operand; as the server of a pull does, or else as a pushing client does.
pub fn send_options(operand: &Path, as_server: bool, notes: &Arc<Notes>) -> V1SendOptions {
    let bytes = operand.as_os_str().as_encoded_bytes();
    let pool = DirPool::new(64);
    let root = match as_server {
        true => open_pull_source(&mut Parents::new(&Base::Unrestricted, &pool, 1), bytes),
        false => SourceRoot::open(bytes, &pool),
    }
    .unwrap();
    V1SendOptions {
        single: root.is_single(),
        roots: vec![root],
        walk: WalkOptions { recursive: true, ..WalkOptions::default() },
        filter: V1Filter::default(),
        problems: Vec::new(),
        report: Arc::clone(notes) as Arc<dyn Report>,
        counters: Arc::default(),
        window: SEND_WINDOW,
    }
}

pub fn receive_options(to: &Path, notes: &Arc<Notes>) -> V1ReceiveOptions {
    V1ReceiveOptions {
        destination: destination_at(to.as_os_str().as_encoded_bytes().to_vec(), true),
        config: ReceiveConfig { may_be_single: true, admit: None, window: WINDOW },
        perms: true,
        times: true,
        umask: 0o022,
        durability: Durability::None,
        report: Arc::clone(notes) as Arc<dyn Report>,
        counters: Arc::default(),
    }
}

pub fn duplex(stream: TcpStream) -> Duplex {
    Duplex::tcp(stream, Duration::from_secs(60)).unwrap()
}

/// Connected pairs of loopback sockets.
pub fn sockets(n: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (0..n).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).unzip()
}

pub type Running = JoinHandle<Ended<Summary>>;

pub fn start_send(options: V1SendOptions, conns: Vec<TcpStream>) -> Running {
    let conns = conns.into_iter().map(duplex).collect();
    std::thread::spawn(move || send(options, conns, Inlet::new()))
}

pub fn start_receive(options: V1ReceiveOptions, conns: Vec<TcpStream>) -> Running {
    let conns = conns.into_iter().map(duplex).collect();
    std::thread::spawn(move || receive(options, conns, Inlet::new()))
}

/// A tree with everything that version 1 can carry, and a link that it cannot.
pub fn odd_tree(root: &Path) {
    let dirs = ["empty", "deep/er/est", "locked", "a b\t'\"c"];
    dirs.iter().for_each(|dir| fs::create_dir_all(root.join(dir)).unwrap());
    let sizes = [0, 1, 4095, 4096, 4097, 65_535, 262_144, 262_145, 3_000_001];
    for (n, size) in sizes.into_iter().enumerate() {
        let content: Vec<u8> = (0..size).map(|i: usize| (i * 7 + i / 4096 + n) as u8).collect();
        write(&root.join(format!("size{size}")), &content, 0o640);
    }
    for n in 0..100 {
        write(&root.join(format!("deep/er/n{n}")), format!("small {n}").as_bytes(), 0o600);
    }
    write(&root.join("deep/er/est/\u{fc}n\u{ef}c\u{f6}de"), b"names", 0o755);
    write(&root.join("a b\t'\"c/-rf"), b"names", 0o444);
    write(&root.join("locked/inside"), b"in a read-only directory", 0o400);
    let old = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    fs::File::open(root.join("size1")).unwrap().set_modified(old).unwrap();
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o555)).unwrap();
}

pub fn write(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn add_link(root: &Path) {
    symlink("/etc/hostname", root.join("link")).unwrap();
}

/// Path to mode, content and mtime in microseconds (files only).
pub type Tree = BTreeMap<String, (u32, Option<(Vec<u8>, i64)>)>;

pub fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    walk(root, root, &mut found);
    found
}

fn walk(root: &Path, dir: &Path, found: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if meta.is_symlink() {
            continue;
        }
        let micros = (meta.mtime() * 1_000_000_000 + meta.mtime_nsec() + 500) / 1000;
        let file = meta.is_file().then(|| (fs::read(&path).unwrap(), micros));
        found.insert(name, (meta.mode() & 0o7777, file));
        if meta.is_dir() {
            walk(root, &path, found);
        }
    }
}

/// Trees are the same, times to the microsecond and a little rounding.
pub fn assert_same(expected: &Tree, got: &Tree) {
    assert_eq!(expected.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (name, (mode, file)) in expected {
        let (got_mode, got_file) = &got[name];
        assert_eq!(mode, got_mode, "mode of {name}");
        match (file, got_file) {
            (Some((a, at)), Some((b, bt))) => {
                assert!(a == b, "content of {name}");
                assert!((at - bt).abs() <= 1, "mtime of {name}: {at} {bt}");
            }
            (None, None) => {}
            _ => panic!("{name} changed its kind"),
        }
    }
}
