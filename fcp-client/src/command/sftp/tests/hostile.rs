//! A server that lists what nobody should: threat T5.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::*;
use super::Told;
use crate::location::LocationError;
use crate::location::sftp::SftpOptions;
use crate::location::sftp::dial::{Connection, Future, Link, Output, Stream};
use crate::location::sftp::pool::{Pool, PoolOptions};
use crate::location::sftp::wire::{
    Attrs, Extensions, NameEntry, Reply, Request, StatusCode, frame,
};

/// Says of every directory that it has these names, one of them a directory and one a link.
const NAMES: [&[u8]; 9] =
    [b"..", b".", b"../up", b"/etc/abs", b"a/b", b"nul\0", b"", b"fine", b"link"];

struct Evil;

impl Link for Evil {
    fn open_sftp(&self) -> Future<'_, crate::location::Result<Stream>> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(theirs));
        let (reader, writer) = tokio::io::split(ours);
        Box::pin(async { Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) }) })
    }
    fn exec<'a>(&'a self, _: &'a [u8], _: usize) -> Future<'a, crate::location::Result<Output>> {
        Box::pin(async { Ok(Output { status: Some(1), stdout: Vec::new() }) })
    }
    fn explain(&self, error: LocationError) -> Future<'_, LocationError> {
        Box::pin(async { error })
    }
    fn has_exec(&self) -> bool {
        false
    }
    fn max_channels(&self) -> usize {
        1
    }
    fn is_closed(&self) -> bool {
        false
    }
}

async fn serve(mut stream: DuplexStream) {
    let (mut buffer, mut listed) = (BytesMut::new(), false);
    loop {
        while let Some(packet) = frame::take(&mut buffer).unwrap() {
            let (id, request) = Request::decode(&packet).unwrap();
            let mut out = BytesMut::new();
            answer(request, &mut listed).encode(id, &mut out);
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
        if matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
            return;
        }
    }
}

fn attrs_of(path: &[u8]) -> Attrs {
    let kind = match path.rsplit(|b| *b == b'/').next() {
        Some(b"fine") => 0o100_644,
        Some(b"link") => 0o120_777,
        _ => 0o040_755,
    };
    Attrs {
        size: Some(4),
        permissions: Some(kind),
        times: Some((1_000, 1_000)),
        ..Attrs::default()
    }
}

fn answer(request: Request<'_>, listed: &mut bool) -> Reply {
    let status = |code| Reply::Status { code, message: Bytes::from_static(b"so it is") };
    let name =
        |name: &[u8]| NameEntry { name: Bytes::copy_from_slice(name), attrs: attrs_of(name) };
    match request {
        Request::Init { .. } => Reply::Version { version: 3, extensions: Extensions::default() },
        Request::Realpath { .. } => Reply::Name(vec![name(b"/srv/dir")]),
        Request::Stat { path } | Request::Lstat { path } => Reply::Attrs(attrs_of(path)),
        Request::Fstat { .. } => Reply::Attrs(attrs_of(b"fine")),
        Request::Opendir { .. } => {
            *listed = false;
            Reply::Handle(Bytes::from_static(b"dir"))
        }
        Request::Open { .. } => Reply::Handle(Bytes::from_static(b"file")),
        Request::Readdir { .. } if !*listed => {
            *listed = true;
            Reply::Name(NAMES.iter().map(|bytes| name(bytes)).collect())
        }
        Request::Read { offset: 0, .. } => Reply::Data(Bytes::from_static(b"good")),
        Request::Readdir { .. } | Request::Read { .. } => status(StatusCode::EOF),
        Request::Readlink { .. } => Reply::Name(vec![name(b"../../../outside")]),
        Request::Close { .. } => status(StatusCode::OK),
        _ => status(StatusCode::FAILURE),
    }
}

/// Pulls from the evil server.
async fn pull(sources: &[&str], destination: &std::path::Path, tell: Tell) -> Summary {
    use std::os::unix::ffi::OsStrExt;
    let limits = PoolOptions { max_connections: 1, max_channels: 1 };
    let opener = || -> Future<'static, crate::location::Result<Connection>> {
        Box::pin(async { Ok(Connection::new("sftp evil", Evil)) })
    };
    let remote = host::Remote {
        pool: Pool::over(Box::new(opener), limits),
        name: "sftp evil".to_owned(),
        options: SftpOptions { pool: limits, lanes: 1, make_base: false },
        most: 1,
    };
    let copy = Copy {
        options: &TransferOptions::default(),
        filters: RuleSet::default(),
        from: Host::There(remote),
        sources: sources.iter().map(|source| source.as_bytes().to_vec()).collect(),
        to: Host::Here,
        destination: destination.as_os_str().as_bytes(),
    };
    copy.run(tell).await.unwrap()
}

#[test]
fn t5_names_that_lead_elsewhere_are_refused_and_told() {
    let temp = tempfile::tempdir().unwrap();
    let dst = temp.path().join("a/dst");
    std::fs::create_dir_all(&dst).unwrap();
    let told = Arc::new(Told::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let counters = Arc::default();
    let summary = runtime.block_on(pull(&["dir/"], &dst, Tell::new(told.clone(), counters)));
    let mut found: Vec<_> =
        std::fs::read_dir(&dst).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, ["fine", "link"], "{:?}", told.lines());
    assert_eq!(std::fs::read(dst.join("fine")).unwrap(), b"good");
    assert_eq!((summary.changed, summary.failed), (2, 0), "{:?}", told.lines());
    let refused = told.lines().iter().filter(|line| line.contains("cannot be used")).count();
    assert_eq!(refused, 5, "{:?}", told.lines());
    let above: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
    assert_eq!(above.len(), 1);
}

#[test]
fn t5_a_link_of_the_server_is_not_followed_by_what_comes_after() {
    let temp = tempfile::tempdir().unwrap();
    let (dst, outside) = (temp.path().join("dst"), temp.path().join("outside"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::create_dir_all(&dst).unwrap();
    let told = Arc::new(Told::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The destination has a link where the server then has a file: it is replaced.
    std::os::unix::fs::symlink("../outside/file", dst.join("fine")).unwrap();
    let tell = Tell::new(told.clone(), Arc::default());
    runtime.block_on(pull(&["dir/fine"], &dst, tell));
    assert!(std::fs::symlink_metadata(dst.join("fine")).unwrap().is_file(), "{:?}", told.lines());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}
