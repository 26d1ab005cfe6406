//! HELLO that the command line tells before it comes.

use fcp_proto::auth::AuthOffer;
use fcp_proto::packet::{HELLO_VARIABLE, Opening};
use fcp_proto::version::Hello;
use fcp_proto::{ErrorCode, Flag};

use crate::host::*;
use crate::support::*;

fn start(host: &Host, args: &[&str], variable: &str) -> Program {
    Program::start(host.command(args).env(HELLO_VARIABLE, variable))
}

fn frame(opening: &Opening) -> Vec<u8> {
    let mut out = Vec::new();
    opening.encode(&mut out).unwrap();
    out
}

#[test]
fn it_is_answered_at_once_and_comes_all_the_same() {
    let host = Host::new();
    let hello = Hello::ours(3);
    let mut program = start(&host, &[], &hello.to_hex());
    // Nothing was sent yet.
    let reply = program.peer.reply(Flag::ACCEPT);
    assert_eq!(reply.agreed.as_ref().unwrap().connections, 3);
    program.peer.send(&frame(&Opening::Hello(hello)));
    let summary = push(&host, &reply, "there", vec![program.duplex()]).unwrap();
    assert_eq!((summary.failed, summary.received), (0, 5_000_005));
    assert_eq!(program.end(), (Some(0), String::new()));
    host.check_pushed("home/there");
}

#[test]
fn what_comes_must_be_what_was_told() {
    let host = Host::new();
    for other in [
        frame(&Opening::Hello(Hello::ours(4))),
        request(fcp_proto::packet::Direction::Push, "in", Default::default()),
        b"GET / HTTP/1.0\r\n".to_vec(),
    ] {
        let mut program = start(&host, &[], &Hello::ours(3).to_hex());
        program.peer.reply(Flag::ACCEPT);
        program.peer.send(&other);
        assert_eq!(program.peer.expect_error().code, ErrorCode::PROTOCOL);
        assert_eq!(program.end().0, Some(1));
        assert!(!host.path("home/in").exists());
    }
}

#[test]
fn what_is_no_plain_hello_counts_for_nothing() {
    let host = Host::new();
    let proof = Hello { auth: Some(AuthOffer::new("", [1; 32]).unwrap()), ..Hello::ours(3) };
    let cut = Hello::ours(3).to_hex()[2..].to_owned();
    for variable in ["", "1", "hello", &cut, &proof.to_hex(), &"00".repeat(5000)] {
        let mut program = start(&host, &[], variable);
        let reply = program.hello(Hello::ours(2));
        assert_eq!(reply.agreed.unwrap().connections, 2, "{variable}");
        program.end();
    }
    let mut program = start(&host, &["--attach"], &Hello::ours(3).to_hex());
    program.peer.send(&frame(&Opening::Hello(Hello::ours(3))));
    assert_eq!(program.peer.expect_error().code, ErrorCode::PROTOCOL);
}

#[test]
fn hanging_up_instead_leaves_nothing() {
    let host = Host::new();
    let mut program = start(&host, &[], &Hello::ours(3).to_hex());
    program.peer.reply(Flag::ACCEPT);
    assert_eq!(program.end().0, Some(1));
    assert_eq!(std::fs::read_dir(host.path("run/fcp")).unwrap().count(), 0);
}
