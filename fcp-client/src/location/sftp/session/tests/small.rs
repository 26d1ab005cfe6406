//! Small files: what is sent together, and what an error among it does.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::super::{Session, SessionError};
use super::evil::{self, honest, status};
use super::{create, soon};
use crate::location::sftp::wire::{Attrs, Extension, Extensions, Request, StatusCode, extension};

type Log = Arc<Mutex<Vec<String>>>;

/// A server that writes down what came and refuses what `refused` names.
async fn logging(refused: &'static str) -> (Session, Log) {
    let log = Log::default();
    let to = log.clone();
    let extensions = Extensions::new([(extension::FSYNC, "1")]);
    let content = Bytes::from_static(b"0123456789");
    let session = evil::session(Default::default(), extensions, move |_, request| {
        let name = match request {
            Request::Write { offset, data, .. } => format!("write {offset} {}", data.len()),
            Request::Extended(Extension::Fsync { .. }) => "fsync".to_owned(),
            Request::Read { offset, len, .. } => format!("read {offset} {len}"),
            Request::Fsetstat { .. } => "fsetstat".to_owned(),
            Request::Fstat { .. } => "fstat".to_owned(),
            Request::Close { .. } => "close".to_owned(),
            _ => "open".to_owned(),
        };
        to.lock().unwrap().push(name.clone());
        match name.starts_with(refused) {
            true => status(StatusCode::PERMISSION_DENIED),
            false => honest(&content, request),
        }
    })
    .await;
    (session, log)
}

#[tokio::test]
async fn reading_is_two_round_trips() {
    let (session, log) = logging("nothing").await;
    let (read, attrs) = soon(session.read_small(b"f", 10)).await.unwrap();
    assert_eq!((&read[..], attrs.size), (&b"0123456789"[..], Some(10)));
    assert_eq!(*log.lock().unwrap(), ["open", "read 0 11", "fstat", "close"]);
}

#[tokio::test]
async fn writing_goes_out_at_once_and_in_order() {
    let (session, log) = logging("nothing").await;
    let file = create(&session, b"f").await.unwrap();
    let attrs = Some(Attrs { permissions: Some(0o644), ..Attrs::default() });
    let done = soon(file.finish_write(7, vec![1; 40_000].into(), attrs, true)).await.unwrap();
    assert_eq!(done.attrs, Ok(()));
    let expected =
        ["open", "write 7 32768", "write 32775 7232", "fsetstat", "fsync", "fstat", "close"];
    assert_eq!(*log.lock().unwrap(), expected);
}

#[tokio::test]
async fn an_empty_file_needs_no_write() {
    let (session, log) = logging("nothing").await;
    let file = create(&session, b"f").await.unwrap();
    soon(file.finish_write(0, Bytes::new(), None, false)).await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["open", "fstat", "close"]);
}

#[tokio::test]
async fn any_refusal_of_writing_is_an_error() {
    for refused in ["write 0", "write 32768", "fsync", "close"] {
        let (session, log) = logging(refused).await;
        let file = create(&session, b"name").await.unwrap();
        let error =
            soon(file.finish_write(0, vec![1; 40_000].into(), None, true)).await.unwrap_err();
        assert_eq!(error.code(), Some(StatusCode::PERMISSION_DENIED), "{refused}");
        assert!(error.to_string().contains("name"), "{error}");
        assert_eq!(log.lock().unwrap().last().unwrap(), "close");
    }
}

#[tokio::test]
async fn refused_attributes_are_told_apart() {
    let (session, _) = logging("fsetstat").await;
    let file = create(&session, b"f").await.unwrap();
    let attrs = Some(Attrs::default());
    let done = soon(file.finish_write(0, Bytes::from_static(b"x"), attrs, false)).await.unwrap();
    assert!(matches!(done.attrs, Err(SessionError::Status(_))));
}

#[tokio::test]
async fn a_refused_range_write_stays_refused() {
    let (session, log) = logging("write 0").await;
    let file = create(&session, b"f").await.unwrap();
    let writer = file.write_range();
    writer.write_at(0, vec![1; 10_000].into()).await.unwrap();
    let error = soon(writer.settle()).await.unwrap_err();
    assert_eq!(error.code(), Some(StatusCode::PERMISSION_DENIED));
    assert_eq!(writer.write_at(10_000, vec![1; 10].into()).await, Err(error));
    assert!(writer.take_written().is_empty());
    assert_eq!(log.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn no_durability_is_promised_that_the_server_does_not_have() {
    let session = evil::scripted(|_, request| honest(&Bytes::new(), request)).await;
    let file = create(&session, b"f").await.unwrap();
    let error = soon(file.finish_write(0, Bytes::from_static(b"x"), None, true)).await.unwrap_err();
    assert!(matches!(error, SessionError::Unsupported(_)));
}
