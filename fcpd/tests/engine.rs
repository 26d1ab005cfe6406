//! Whole transfers by the engine's own client side, over several connections.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fcp_common::engine::{
    Destination, DestinationOptions, Duplex, Inlet, NoReport, ReceiveOptions, RequestBy,
    SendOptions, receive, send,
};
use fcp_common::fs::DirPool;
use fcp_common::transfer::Config;
use fcp_common::walk::{SourceRoot, WalkOptions};
use fcp_proto::packet::{Direction, Durability, Options, Request};
use fcp_proto::version::Agreed;
use support::*;

const CONNECTIONS: usize = 4;

fn connections(daemon: &Daemon) -> (Agreed, Vec<Duplex>) {
    let mut first = daemon.connect();
    let (sid, agreed) = first.greet();
    let mut all = vec![first];
    all.extend((1..CONNECTIONS).map(|_| {
        let mut peer = daemon.connect();
        peer.send(&attach(sid));
        peer
    }));
    let idle = Duration::from_secs(20);
    (agreed, all.into_iter().map(|p| Duplex::tcp(p.stream, idle).unwrap()).collect())
}

fn ask(direction: Direction, path: &str) -> RequestBy {
    RequestBy::Us(Request {
        direction,
        options: Options::RECURSIVE.with(Options::PERMS, true).with(Options::TIMES, true),
        durability: Durability::None,
        paths: vec![path.into()],
        rules: Vec::new(),
    })
}

fn make_tree(root: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let files = vec![
        ("large", (0..5_000_000u32).map(|i| (i % 251) as u8).collect()),
        ("empty", Vec::new()),
        ("sub/small", b"small".to_vec()),
    ];
    std::fs::create_dir(root.join("sub")).unwrap();
    for (name, content) in &files {
        std::fs::write(root.join(name), content).unwrap();
    }
    files
}

#[test]
fn a_tree_goes_there_and_comes_back_over_four_connections() {
    let (home, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = make_tree(here.path());
    let daemon = Daemon::start(home.path());

    let (agreed, conns) = connections(&daemon);
    let source = [here.path().as_os_str().as_encoded_bytes(), b"/"].concat();
    let options = SendOptions {
        agreed,
        request: ask(Direction::Push, "there"),
        roots: vec![SourceRoot::open(&source, &DirPool::new(8)).unwrap()],
        walk: WalkOptions { recursive: true, ..WalkOptions::default() },
        problems: Vec::new(),
        report: Arc::new(NoReport),
        counters: Arc::default(),
    };
    let summary = send(options, conns, Inlet::new()).unwrap();
    assert_eq!((summary.failed, summary.received), (0, 5_000_005));

    let back = here.path().join("back");
    let to = back.clone();
    let (agreed, conns) = connections(&daemon);
    let options = ReceiveOptions {
        agreed,
        request: ask(Direction::Pull, "there/"),
        open_now: false,
        destination: Box::new(move |_| {
            let options = DestinationOptions::default();
            Destination::open(to.as_os_str().as_encoded_bytes(), options)
        }),
        config: Config {
            checksum: false,
            dry_run: false,
            perms: true,
            times: true,
            links: false,
            umask: 0o022,
            one_thing: false,
            report: false,
            admits: None,
            root_meta: fcp_common::transfer::RootMetaRule::Take,
        },
        durability: Durability::None,
        report: Arc::new(NoReport),
        counters: Arc::default(),
    };
    let summary = receive(options, conns, Inlet::new()).unwrap();
    assert_eq!((summary.failed, summary.received), (0, 5_000_005));
    for (name, content) in files {
        assert!(std::fs::read(home.path().join("there").join(name)).unwrap() == content, "{name}");
        assert!(std::fs::read(back.join(name)).unwrap() == content, "{name}");
    }
}
