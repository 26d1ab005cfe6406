//! A hostile server at either side of a relay, and one that is too old for it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use fcp_proto::packet::{Message, WireError};
use fcp_proto::version::Agreed;
use fcp_proto::{ErrorCode, Flag};
use fcp_tests::process::Finished;
use fcp_tests::sentinel::Sentinel;

use crate::common::*;
use crate::script::*;

/// `fcp -j 1 OPTIONS fcp://source/OPERAND fcp://sink/DST`.
fn relay(source: u16, operand: &str, sink: u16, dst: &Path, options: &[&str]) -> Finished {
    let mut command = fcp();
    command.args(["-j", "1"]).args(options);
    command.arg(format!("fcp://127.0.0.1:{source}/{operand}"));
    command.arg(format!("fcp://127.0.0.1:{sink}{}", dst.display()));
    ended(&mut command)
}

/// Relays from a scripted source to a real destination.
fn from_script(
    operand: &str,
    dst: &Path,
    options: &[&str],
    talk: impl FnOnce(&mut Peer) + Send + 'static,
) -> (Finished, u16) {
    let (source, sink) = (serve(|agreed| agreed, talk), fcpd());
    (relay(source, operand, sink.port(), dst, options), source)
}

#[test]
fn t5_p11_what_was_not_asked_for_never_reaches_the_destination() {
    type Talk = fn(&mut Peer);
    let cases: [(&str, &str, &[&str], Talk); 7] = [
        ("another name", "wanted", &[], |p| {
            announce_and_send(p, &[file(0, ROOT, b".bashrc", 4)], &[]);
        }),
        ("another name beside", "wanted", &[], |p| {
            announce_and_send(p, &[file(0, ROOT, b"wanted", 4), file(1, ROOT, b"evil", 4)], &[]);
        }),
        ("what a glob does not match", "*.txt", &[], |p| {
            announce_and_send(p, &[file(0, ROOT, b"evil.sh", 4)], &[]);
        }),
        ("what was excluded", "wanted", &["--exclude", "evil"], |p| {
            announce_and_send(p, &[dir(0, ROOT, b"wanted"), file(1, 0, b"evil", 4)], &[0]);
        }),
        ("a link that was not asked for", "wanted", &["--no-links"], |p| {
            announce_and_send(p, &[link(0, ROOT, b"wanted", b"evil")], &[]);
        }),
        ("another message under the same number", "wanted/", &[], |p| {
            p.entry(&dir(0, ROOT, b"a"));
            p.again(Flag::ENTRIES, 0, &file(0, ROOT, b"evil", 4));
            while p.hear().is_some() {}
        }),
        ("a file that moves as it is replaced", "wanted/", &[], |p| {
            p.entry(&dir(0, ROOT, b"a"));
            p.entry(&file(1, 0, b"b", 4));
            p.numbered(Flag::REPLACED, &[&[0, 0, 0, 1], &file(2, ROOT, b"evil", 4)[..]].concat());
            while p.hear().is_some() {}
        }),
    ];
    for (name, operand, options, talk) in cases {
        let dir = scratch();
        let dst = dir.path().join("dst");
        fs::create_dir(&dst).unwrap();
        let sentinel = Sentinel::plant(&dir.path().join("sentinel"));
        let (finished, source) = from_script(operand, &dst, options, talk);
        assert_eq!(finished.code(), Some(2), "{name}: {finished:?}");
        let text = finished.stderr_text();
        assert!(
            text.contains(&format!("source 127.0.0.1:{source}: the peer sent")),
            "{name}: {text}"
        );
        std::thread::sleep(Duration::from_millis(50));
        let evil: Vec<_> = paths_below(&dst)
            .into_iter()
            .filter(|p| {
                !is_ours(p) && [".bashrc", "evil", "evil.sh"].iter().any(|n| p.ends_with(n))
            })
            .collect();
        assert!(evil.is_empty(), "{name}: {evil:?}");
        sentinel.assert_untouched();
    }
}

#[test]
fn t5_content_that_nobody_asked_for_is_the_source_s_fault() {
    let dir = scratch();
    let (finished, source) = from_script("wanted", dir.path(), &[], |p| {
        p.frame(Flag::WHOLE.0, &whole(0, b"evil"));
        while p.hear().is_some() {}
    });
    assert_eq!(finished.code(), Some(2), "{finished:?}");
    assert!(finished.stderr_text().contains(&format!("source 127.0.0.1:{source}: ")));
}

#[test]
fn an_honest_script_is_served() {
    let dir = scratch();
    let (finished, _) = from_script("wanted", &dir.path().join("new"), &[], |p| {
        announce_and_send(p, &[file(0, ROOT, b"wanted", 4)], &[]);
    });
    finished.assert_success();
    assert_eq!(fs::read(dir.path().join("new")).unwrap(), b"evil");
}

#[test]
fn an_error_of_either_server_is_told_with_its_name() {
    let dir = scratch();
    let full = |p: &mut Peer| {
        let error = WireError::new(ErrorCode::INTERNAL, "on \x1b[31mfire");
        p.frame(Flag::ERROR.0, &error_body(&error));
    };
    let (finished, source) = from_script("wanted", dir.path(), &[], full);
    let text = finished.stderr_text();
    assert!(text.contains(&format!("source 127.0.0.1:{source}: the peer ended")), "{text}");
    assert!(text.contains("fire") && !text.contains('\x1b'), "{text}");

    let src = dir.path().join("src");
    fs::write(&src, "x").unwrap();
    let (sink, source) = (serve(|agreed| agreed, full), fcpd());
    let operand = src.display().to_string();
    let finished =
        relay(source.port(), operand.trim_start_matches('/'), sink, Path::new("/x"), &[]);
    assert_ne!(finished.code(), Some(0));
    let text = finished.stderr_text();
    assert!(!text.contains(&format!("source 127.0.0.1:{}", source.port())), "{text}");
    let _ = source;
}

#[test]
fn a_hostile_destination_is_named() {
    let dir = scratch();
    fs::write(dir.path().join("src"), "x").unwrap();
    type Talk = fn(&mut Peer);
    let cases: [(&str, Talk); 4] = [
        ("CLOSE before the end", |p| p.say(Message::Close(Default::default()))),
        ("a result for nothing", |p| p.numbered(Flag::RESULTS, &[0, 0, 0, 9, 1])),
        ("entries", |p| p.entry(&file(0, ROOT, b"x", 4))),
        ("content", |p| p.frame(Flag::WHOLE.0, &whole(0, b"evil"))),
    ];
    let source = fcpd();
    for (name, talk) in cases {
        let sink = serve(|agreed| agreed, talk);
        let operand = dir.path().join("src/").display().to_string();
        let operand = operand.trim_start_matches('/').trim_end_matches('/').to_owned();
        let finished = relay(source.port(), &operand, sink, Path::new("/x"), &[]);
        assert_eq!(finished.code(), Some(2), "{name}: {finished:?}");
        let text = finished.stderr_text();
        assert!(text.contains(&format!("destination 127.0.0.1:{sink}: ")), "{name}: {text}");
    }
}

#[test]
fn a_destination_that_can_do_less_sets_the_terms_for_both() {
    let dir = scratch();
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    (0..300).for_each(|n| fs::write(src.join(format!("{n:0200}")), "x").unwrap());
    let (tell, told) = mpsc::channel();
    let less = |agreed: Agreed| Agreed { max_frame: 9000, ..agreed };
    let (source, sink) = (
        fcpd(),
        serve(less, move |p| {
            while let Some((flag, payload)) = p.read() {
                tell.send((flag, payload.len())).unwrap();
                if flag == Flag::FINISH {
                    return p.hang_up();
                }
            }
        }),
    );
    let operand = src.display().to_string();
    let finished =
        relay(source.port(), operand.trim_start_matches('/'), sink, Path::new("/x"), &[]);
    assert_eq!(finished.code(), Some(12), "{finished:?}");
    let frames: Vec<_> = told.try_iter().collect();
    assert!(frames.iter().any(|(flag, _)| *flag == Flag::PART), "{frames:?}");
    assert!(frames.iter().all(|(_, len)| *len <= 9000), "{frames:?}");
}

#[test]
fn a_version_1_server_is_refused_with_what_to_do() {
    for old_is_source in [true, false] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let old = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buf = [0; 4096];
            let _ = stream.read(&mut buf);
            let mut sid = Vec::new();
            fcp_proto::frame::encode(Flag::SID, &[7; 16], &mut sid);
            let _ = stream.write_all(&sid);
            while stream.read(&mut buf).is_ok_and(|n| n > 0) {}
        });
        let new = fcpd();
        let (source, sink) = if old_is_source { (old, new.port()) } else { (new.port(), old) };
        let finished = relay(source, "x", sink, Path::new("/nowhere"), &[]);
        assert_eq!(finished.code(), Some(4), "{finished:?}");
        let text = finished.stderr_text();
        assert!(
            text.contains(&format!("127.0.0.1:{old}")) && text.contains("copy to here first"),
            "{text}"
        );
    }
}
