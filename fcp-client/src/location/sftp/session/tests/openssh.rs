//! Against OpenSSH's own server over a socket pair.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::super::{DirReader, Listed, Session, SessionError, SessionOptions};
use super::{content, create, open, soon};
use crate::location::sftp::wire::{Attrs, OpenFlags, StatusCode, extension};

const SERVER: &str = "/usr/lib/openssh/sftp-server";

struct Server {
    session: Option<Session>,
    dir: TempDir,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    async fn start() -> Server {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stdin = OwnedFd::from(theirs.try_clone().unwrap());
        let child = Command::new(SERVER)
            .args(["-e", "-l", "FATAL"])
            .stdin(stdin)
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        ours.set_nonblocking(true).unwrap();
        let (reader, writer) = tokio::net::UnixStream::from_std(ours).unwrap().into_split();
        let session = soon(Session::start(reader, writer, SessionOptions::default())).await;
        Server { session: Some(session.unwrap()), dir: tempfile::tempdir().unwrap(), child }
    }

    fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    fn local(&self, name: &[u8]) -> PathBuf {
        self.dir.path().join(OsStr::from_bytes(name))
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        self.local(name).into_os_string().into_encoded_bytes()
    }
}

async fn all(mut reader: DirReader) -> Vec<(Vec<u8>, Attrs)> {
    let mut found = Vec::new();
    while let Some(page) = soon(reader.next_page()).await.unwrap() {
        for listed in page {
            match listed {
                Listed::Entry { name, attrs } => found.push((name.as_bytes().to_vec(), attrs)),
                other => panic!("{other:?}"),
            }
        }
    }
    found
}

#[tokio::test]
async fn it_shakes_hands_and_learns_what_there_is() {
    let server = Server::start().await;
    let session = server.session();
    for name in [extension::POSIX_RENAME, extension::FSYNC, extension::LIMITS, extension::STATVFS] {
        assert!(session.extensions().has(name), "{name}");
    }
    assert_eq!(session.limits().read, 255 * 1024);
    assert_eq!(session.limits().write, 255 * 1024);
    assert!(!session.is_closed());
}

#[tokio::test]
async fn every_request_does_what_it_says() {
    let server = Server::start().await;
    let session = server.session();
    let p = |name: &str| server.path(name.as_bytes());
    session
        .make_dir(&p("d"), Attrs { permissions: Some(0o750), ..Attrs::default() })
        .await
        .unwrap();
    assert_eq!(session.lstat(&p("d")).await.unwrap().is_dir(), Some(true));
    let file = create(session, &p("a")).await.unwrap();
    file.write(0, Bytes::from_static(b"hello world")).await.unwrap();
    file.fsync().await.unwrap();
    assert_eq!(file.stat().await.unwrap().size, Some(11));
    file.set_stat(Attrs { size: Some(5), ..Attrs::default() }).await.unwrap();
    assert_eq!(&file.read(1, 100).await.unwrap().unwrap()[..], b"ello");
    assert_eq!(file.read(5, 100).await.unwrap(), None);
    file.close().await.unwrap();
    let times = Some((1_000_000_000, 1_100_000_000));
    session.set_stat(&p("a"), Attrs { times, ..Attrs::default() }).await.unwrap();
    assert_eq!(session.stat(&p("a")).await.unwrap().mtime(), Some(1_100_000_000));
    session.symlink(b"a", &p("l")).await.unwrap();
    assert_eq!(&session.read_link(&p("l")).await.unwrap()[..], b"a");
    assert_eq!(std::fs::read_link(server.local(b"l")).unwrap().as_os_str(), "a");
    session.lset_stat(&p("l"), Attrs { times: Some((1, 2)), ..Attrs::default() }).await.unwrap();
    assert_eq!(session.lstat(&p("l")).await.unwrap().mtime(), Some(2));
    assert_eq!(session.stat(&p("l")).await.unwrap().mtime(), Some(1_100_000_000));
    session.hardlink(&p("a"), &p("b")).await.unwrap();
    assert_eq!(
        session.rename(&p("b"), &p("l")).await.unwrap_err().code(),
        Some(StatusCode::FAILURE)
    );
    session.posix_rename(&p("b"), &p("l")).await.unwrap();
    session.rename(&p("l"), &p("d/c")).await.unwrap();
    assert!(session.stat_vfs(&p("d")).await.unwrap().namemax >= 255);
    let real = session.real_path(&p("d/../d")).await.unwrap();
    assert_eq!(real, session.expand_path(&p("d")).await.unwrap());
    let (from, to) =
        (open(session, &p("a")).await.unwrap(), create(session, &p("e")).await.unwrap());
    from.copy_data((1, 3), &to, 0).await.unwrap();
    to.close().await.unwrap();
    assert_eq!(std::fs::read(server.local(b"e")).unwrap(), b"ell");
    let error = session.remove_dir(&p("d")).await.unwrap_err();
    assert_eq!(error.code(), Some(StatusCode::FAILURE));
    session.remove(&p("d/c")).await.unwrap();
    session.remove_dir(&p("d")).await.unwrap();
    let unknown = session.check_file(&p("a"), b"sha256", (0, 0), 0).await.unwrap_err();
    assert!(matches!(unknown, SessionError::Unsupported(_)));
}

#[tokio::test]
async fn refusals_say_what_and_of_which_file() {
    let server = Server::start().await;
    let session = server.session();
    let error = session.lstat(b"/nowhere/x\x1b[2J").await.unwrap_err();
    assert_eq!(error.code(), Some(StatusCode::NO_SUCH_FILE));
    let text = error.to_string();
    assert_eq!(text, "stat /nowhere/x\\033[2J: no such file");
    assert!(!error.is_fatal());
    let nul = session.remove(b"/tmp/a\0b").await.unwrap_err();
    assert!(matches!(nul, SessionError::Unsupported(_)), "{nul}");
    create(session, &server.path(b"x")).await.unwrap().close().await.unwrap();
    let again = create(session, &server.path(b"x")).await.unwrap_err();
    assert_eq!(again.code(), Some(StatusCode::FAILURE));
}

#[tokio::test]
async fn names_are_bytes() {
    let server = Server::start().await;
    let session = server.session();
    let names: BTreeSet<Vec<u8>> =
        [&b"caf\xe9.txt"[..], b"a\nb", b" lead", b"-rf", b"back\\slash", b"\xff\xfe", b"..."]
            .map(<[u8]>::to_vec)
            .into();
    for name in &names {
        let file = create(session, &server.path(name)).await.unwrap();
        file.finish_write(0, Bytes::copy_from_slice(name), None, false).await.unwrap();
    }
    let listed = all(session.list(&server.path(b"")).await.unwrap()).await;
    assert_eq!(listed.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), names);
    for name in &names {
        let path = server.path(name);
        let (read, _) = session.read_small(&path, name.len() as u64).await.unwrap();
        assert_eq!(&read[..], &name[..]);
        session.remove(&path).await.unwrap();
    }
}

#[tokio::test]
async fn handles_are_bytes_and_300_may_be_open() {
    let server = Server::start().await;
    let mut handles = Vec::new();
    for n in 0..300 {
        let handle =
            create(server.session(), &server.path(format!("f{n}").as_bytes())).await.unwrap();
        handle.write(0, format!("file {n}").into()).await.unwrap();
        handles.push(handle);
    }
    for (n, handle) in handles.into_iter().enumerate() {
        let read = handle.read(0, 100).await.unwrap().unwrap();
        assert_eq!(read, format!("file {n}"));
        handle.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_handle_is_closed_and_a_closed_one_of_no_use() {
    let server = Server::start().await;
    let session = server.session();
    for _ in 0..3 {
        let handle = create(session, &server.path(b"f")).await.unwrap();
        let other = handle.clone();
        handle.close().await.unwrap();
        assert!(matches!(other.stat().await, Err(SessionError::Unsupported(_))));
        drop(open(session, &server.path(b"f")).await.unwrap());
        session.remove(&server.path(b"f")).await.unwrap();
        let fds = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap();
        let files = fds
            .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
            .filter(|target| target.starts_with(server.dir.path()))
            .count();
        assert_eq!(files, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_arrives_whole_both_ways() {
    let server = Server::start().await;
    let whole = Bytes::from(content(64 * 1024 * 1024 + 12345));
    let file = create(server.session(), &server.path(b"big")).await.unwrap();
    let writer = file.write_range();
    let mut offset = 0;
    // Pieces that do not fit the requests.
    for piece in whole.chunks(1_000_003) {
        soon(writer.write_at(offset, whole.slice_ref(piece))).await.unwrap();
        offset += piece.len() as u64;
    }
    soon(writer.settle()).await.unwrap();
    let mut written = writer.take_written();
    written.sort_by_key(|range| range.start);
    assert_eq!(written.iter().map(|range| range.end - range.start).sum::<u64>(), offset);
    drop(writer);
    file.close().await.unwrap();
    assert!(std::fs::read(server.local(b"big")).unwrap() == whole);

    let file = open(server.session(), &server.path(b"big")).await.unwrap();
    let mut reader = file.read_range(5..offset);
    let mut back = vec![0; whole.len()];
    back[..5].copy_from_slice(&whole[..5]);
    while let Some(piece) = soon(reader.next()).await {
        let (at, data) = piece.unwrap();
        back[at as usize..][..data.len()].copy_from_slice(&data);
    }
    assert!(back == whole);
    let mut beyond = file.read_range(offset - 10..offset + 10);
    let mut last = None;
    while let Some(piece) = soon(beyond.next()).await {
        last = Some(piece);
    }
    assert!(matches!(last, Some(Err(SessionError::Size { .. }))), "{last:?}");
    assert!(!server.session().is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_small_files_arrive_whole_both_ways() {
    const FILES: usize = 5000;
    const AT_A_TIME: usize = 32;
    let server = Server::start().await;
    let name = |n: usize| server.path(format!("file{n}").as_bytes());
    let mut tasks = JoinSet::new();
    for n in 0..FILES {
        let (session, path) = (server.session().clone(), name(n));
        tasks.spawn(async move {
            let part = [&path[..], b".part"].concat();
            let file = create(&session, &part).await.unwrap();
            let attrs = Attrs { times: Some((1, n as u32)), ..Attrs::default() };
            let content = Bytes::from(content(n % 9000));
            let done = file.finish_write(0, content, Some(attrs), n % 100 == 0).await.unwrap();
            done.attrs.unwrap();
            session.posix_rename(&part, &path).await.unwrap();
        });
        while tasks.len() >= AT_A_TIME {
            soon(tasks.join_next()).await.unwrap().unwrap();
        }
    }
    soon(tasks.join_all()).await;
    let listed = all(server.session().list(&server.path(b"")).await.unwrap()).await;
    assert_eq!(listed.len(), FILES);
    let mut tasks = JoinSet::new();
    for (file, attrs) in listed {
        let (session, path) = (server.session().clone(), server.path(&file));
        tasks.spawn(async move {
            let n: usize = std::str::from_utf8(&file[4..]).unwrap().parse().unwrap();
            assert_eq!((attrs.size, attrs.mtime()), (Some((n % 9000) as u64), Some(n as u32)));
            let (read, now) = session.read_small(&path, attrs.size.unwrap()).await.unwrap();
            assert!(read == content(n % 9000));
            assert_eq!((now.size, now.mtime()), (attrs.size, attrs.mtime()));
        });
        while tasks.len() >= AT_A_TIME {
            soon(tasks.join_next()).await.unwrap().unwrap();
        }
    }
    soon(tasks.join_all()).await;
}

#[tokio::test]
async fn the_last_clone_ends_the_server_after_what_was_sent() {
    let mut server = Server::start().await;
    let session = server.session.take().unwrap();
    let file = create(&session, &server.path(b"f")).await.unwrap();
    let writer = file.write_range();
    for n in 0..10u64 {
        writer.write_at(n * 100_000, Bytes::from(vec![7; 100_000])).await.unwrap();
    }
    drop((writer, file, session));
    let mut waited = 0;
    while server.child.try_wait().unwrap().is_none() {
        assert!(waited < 1000, "the server stays");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        waited += 1;
    }
    assert_eq!(std::fs::metadata(server.local(b"f")).unwrap().len(), 1_000_000);
}

#[tokio::test]
async fn a_server_that_dies_is_lost() {
    let mut server = Server::start().await;
    server.child.kill().unwrap();
    let error = soon(server.session().closed()).await;
    assert!(matches!(error, SessionError::Lost(_)), "{error:?}");
    assert!(server.session().is_closed());
    let after = server.session().open(b"/x", OpenFlags::READ, Attrs::default()).await.unwrap_err();
    assert_eq!(after, error);
}
