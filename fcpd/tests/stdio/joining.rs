//! Further connections: channels of ssh, and direct ones.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fcp_common::engine::Duplex;
use fcp_common::tls;
use fcp_common::transfer::Help;
use fcp_proto::SessionId;
use fcp_proto::version::Hello;
use rustix::process::Signal;

use crate::host::*;
use crate::support::*;

fn attach_to(host: &Host, args: &[&str], sid: SessionId) -> Program {
    let mut program = host.start(args);
    program.peer.send(&attach(sid));
    program
}

#[test]
fn further_channels_join_the_session() {
    let host = Host::new();
    let mut first = host.start(&[]);
    let reply = first.hello(Hello::ours(3));
    // A forced command in authorized_keys is the same for every channel.
    let root = host.path("home");
    let others = [
        attach_to(&host, &["--attach"], reply.sid),
        attach_to(&host, &["--restrict", root.to_str().unwrap()], reply.sid),
    ];
    let conns = std::iter::once(&first).chain(&others).map(Program::duplex).collect();
    push(&host, &reply, "there", conns).unwrap();
    host.check_pushed("home/there");
    for program in others.into_iter().chain([first]) {
        assert_eq!(program.end(), (Some(0), String::new()));
    }
}

#[test]
fn a17_a19_channels_that_may_not_join_leave_the_session_alone() {
    let host = Host::new();
    let mut first = host.start(&[]);
    let reply = first.hello(Hello::ours(2));
    for sid in [SessionId([0; 16]), SessionId([7; 16])] {
        let mut wrong = attach_to(&host, &["--attach"], sid);
        assert_eq!(wrong.peer.frame(), None);
        assert_eq!(wrong.end(), (Some(1), String::new()));
    }
    let second = attach_to(&host, &["--attach"], reply.sid);
    std::thread::sleep(Duration::from_millis(300));
    let mut third = attach_to(&host, &["--attach"], reply.sid);
    assert_eq!(third.peer.frame(), None);
    assert_eq!(third.end().0, Some(1));
    push(&host, &reply, "there", vec![first.duplex(), second.duplex()]).unwrap();
    assert_eq!(first.end().0, Some(0));
    assert_eq!(second.end().0, Some(0));
    let late = attach_to(&host, &["--attach"], reply.sid);
    assert_eq!(late.end().0, Some(1), "the session is over");
}

#[test]
fn the_session_goes_on_when_a_further_channel_is_killed() {
    let host = Host::new();
    let mut first = host.start(&[]);
    let reply = first.hello(Hello::ours(2));
    let mut second = attach_to(&host, &["--attach"], reply.sid);
    std::thread::sleep(Duration::from_millis(200));
    second.signal(Signal::KILL);
    wait(&mut second.child);
    let conns = vec![first.duplex(), second.duplex()];
    // sshd would close the channel.
    second.peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
    push(&host, &reply, "there", conns).unwrap();
    host.check_pushed("home/there");
    assert_eq!(first.end().0, Some(0));
}

#[test]
fn direct_connections_carry_the_content() {
    let host = Host::new();
    let key = tls::Identity::fresh().unwrap();
    let mut command = host.command(&[]);
    command.env("SSH_CONNECTION", "127.0.0.1 50000 127.0.0.1 22");
    let mut program = Program::start(&mut command);
    let hello = Hello { direct: Some(key.fingerprint()), ..Hello::ours(3) };
    let reply = program.hello(hello);
    let offer = reply.extra.direct.expect("an offer");
    let pin = tls::ServerPin::Exactly(offer.fingerprint);
    let config = tls::client_config(&key, pin).unwrap();
    let mut conns = vec![program.duplex().spare(Duration::from_millis(200), Help::Alone)];
    for _ in 0..2 {
        let tcp = TcpStream::connect(("127.0.0.1", offer.port)).unwrap();
        let (tcp, mut conn) =
            tls::connect(tcp, Arc::clone(&config), Instant::now() + SOON).unwrap();
        conn.writer().write_all(&attach(reply.sid)).unwrap();
        conns.push(Duplex::tls(tcp, conn, IDLE).unwrap());
    }
    push(&host, &reply, "there", conns).unwrap();
    host.check_pushed("home/there");
    assert_eq!(program.end(), (Some(0), String::new()));
    assert!(TcpStream::connect(("127.0.0.1", offer.port)).is_err());
}

#[test]
fn a_direct_port_is_offered_only_if_all_want_it() {
    let host = Host::new();
    let key = tls::Identity::fresh().unwrap().fingerprint();
    let local = "127.0.0.1 50000 127.0.0.1 22";
    for (args, connection, direct, offered) in [
        (&[][..], Some(local), Some(key), true),
        (&["--no-direct"], Some(local), Some(key), false),
        (&[], Some(local), None, false),
        (&[], None, Some(key), false),
        (&[], Some("127.0.0.1 1 192.0.2.1 22"), Some(key), false),
        (&[], Some("; rm -rf /"), Some(key), false),
    ] {
        let mut command = host.command(args);
        if let Some(connection) = connection {
            command.env("SSH_CONNECTION", connection);
        }
        let mut program = Program::start(&mut command);
        let reply = program.hello(Hello { direct, ..Hello::ours(2) });
        assert_eq!(reply.extra.direct.is_some(), offered, "{args:?} {connection:?}");
        // Without direct connections ssh carries the data, offered or not.
        push(&host, &reply, "there", vec![program.duplex()]).unwrap();
        assert_eq!(program.end(), (Some(0), String::new()));
    }
}
