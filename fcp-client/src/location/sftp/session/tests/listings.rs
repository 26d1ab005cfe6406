//! S06, S09: names that are none, and listings without an end.

use fcp_proto::path::PathRefused;

use super::super::{Listed, SessionError};
use super::evil::{Act, names, scripted, status};
use super::soon;
use crate::location::sftp::wire::{Request, StatusCode};

#[tokio::test]
async fn s06_names_that_are_none_are_told_with_the_reason() {
    let mut pages = vec![
        names(&[
            b".",
            b"..",
            b"good",
            b"../../etc/passwd",
            b"a/b",
            b"nul\0byte",
            b"",
            &[b'x'; 256],
        ]),
        names(&[b"CR\r\nLF", b"DELE x\r\n", b" lead", b"good"]),
    ]
    .into_iter();
    let session = scripted(move |_, request| match request {
        Request::Opendir { .. } => super::evil::handle(b"d"),
        Request::Readdir { .. } => pages.next().unwrap_or_else(|| status(StatusCode::EOF)),
        _ => status(StatusCode::OK),
    })
    .await;
    let mut reader = session.list(b"/dir").await.unwrap();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    while let Some(page) = soon(reader.next_page()).await.unwrap() {
        for listed in page {
            match listed {
                Listed::Entry { name, .. } => good.push(name.as_bytes().to_vec()),
                Listed::Refused { name, why } => bad.push((name.to_vec(), why)),
            }
        }
    }
    assert_eq!(good, [&b"good"[..], b"CR\r\nLF", b"DELE x\r\n", b" lead", b"good"]);
    let expected = [
        (b"../../etc/passwd".to_vec(), PathRefused::Slash),
        (b"a/b".to_vec(), PathRefused::Slash),
        (b"nul\0byte".to_vec(), PathRefused::Nul),
        (vec![], PathRefused::Empty),
        (vec![b'x'; 256], PathRefused::TooLong),
    ];
    assert_eq!(bad, expected);
    assert_eq!(soon(reader.next_page()).await, Ok(None));
}

#[tokio::test]
async fn s06_a_listing_without_an_end_is_cut_off() {
    let session = scripted(move |_, request| match request {
        Request::Opendir { .. } => super::evil::handle(b"d"),
        Request::Readdir { .. } => names(&[&b"again"[..]; 1000]),
        _ => status(StatusCode::OK),
    })
    .await;
    let mut reader = session.list(b"/dir").await.unwrap();
    reader.max_entries = 5500;
    for _ in 0..5 {
        assert_eq!(soon(reader.next_page()).await.unwrap().unwrap().len(), 1000);
    }
    for _ in 0..2 {
        let error = soon(reader.next_page()).await.unwrap_err();
        assert!(matches!(error, SessionError::Listing { .. }), "{error}");
    }
    assert!(!session.is_closed());
}

#[tokio::test]
async fn s06_pages_without_names_are_cut_off() {
    let session = scripted(move |_, request| match request {
        Request::Opendir { .. } => super::evil::handle(b"d"),
        _ => names(&[]),
    })
    .await;
    let mut reader = session.list(b"/dir").await.unwrap();
    let error = soon(reader.next_page()).await.unwrap_err();
    assert!(matches!(error, SessionError::Listing { .. }), "{error}");
}

#[tokio::test]
async fn half_a_listing_is_an_error() {
    let mut pages =
        vec![names(&[b"a"]), status(StatusCode::FAILURE), status(StatusCode::EOF)].into_iter();
    let session = scripted(move |_, request| match request {
        Request::Opendir { .. } => super::evil::handle(b"d"),
        Request::Readdir { .. } => pages.next().unwrap_or_else(|| status(StatusCode::EOF)),
        _ => Act::Nothing,
    })
    .await;
    let mut reader = session.list(b"/dir").await.unwrap();
    assert_eq!(soon(reader.next_page()).await.unwrap().unwrap().len(), 1);
    assert!(soon(reader.next_page()).await.is_err());
    assert!(soon(reader.next_page()).await.is_err());
}

#[tokio::test]
async fn pages_after_an_early_end_are_not_lost() {
    let mut pages = vec![status(StatusCode::EOF), names(&[b"late"])].into_iter();
    let session = scripted(move |_, request| match request {
        Request::Opendir { .. } => super::evil::handle(b"d"),
        Request::Readdir { .. } => pages.next().unwrap_or_else(|| status(StatusCode::EOF)),
        _ => Act::Nothing,
    })
    .await;
    let mut reader = session.list(b"/dir").await.unwrap();
    assert_eq!(soon(reader.next_page()).await.unwrap().unwrap().len(), 1);
    assert_eq!(soon(reader.next_page()).await, Ok(None));
}

#[tokio::test]
async fn one_name_is_asked_for_and_one_must_come() {
    for many in [&[][..], &[&b"a"[..], b"b"]] {
        let reply = many.to_vec();
        let session = scripted(move |_, _| names(&reply)).await;
        let error = soon(session.real_path(b".")).await.unwrap_err();
        assert!(matches!(error, SessionError::Protocol(_)), "{error}");
        assert!(session.is_closed());
    }
}
