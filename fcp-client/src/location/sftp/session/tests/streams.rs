//! What streams are given to write.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncWrite, WriteHalf};

use super::super::Session;
use super::evil::{honest, serve};
use super::{create, soon};
use crate::location::sftp::wire::{Extensions, Request};

/// A stream without vectored writes, which takes odd amounts and notes what it was offered.
struct Plain {
    to: WriteHalf<tokio::io::DuplexStream>,
    offered: Arc<Mutex<Vec<usize>>>,
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.offered.lock().unwrap().push(buf.len());
        let some = &buf[..buf.len().min(40_009)];
        Pin::new(&mut self.to).poll_write(cx, some)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn content_arrives_whole_and_heads_do_not_go_alone() {
    let whole = super::content(3_000_000);
    let file = Arc::new(Mutex::new(vec![0; whole.len()]));
    let to = file.clone();
    let stream = serve(
        Extensions::default(),
        Box::new(move |_, request| {
            if let Request::Write { offset, data, .. } = request {
                to.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
            }
            honest(&Bytes::new(), request)
        }),
    );
    let (reader, to) = tokio::io::split(stream);
    let offered = Arc::new(Mutex::new(Vec::new()));
    let writer = Plain { to, offered: offered.clone() };
    let session = soon(Session::start(reader, writer, Default::default())).await.unwrap();
    let handle = create(&session, b"f").await.unwrap();
    offered.lock().unwrap().clear();
    let writer = handle.write_range();
    soon(writer.write_at(0, Bytes::from(whole.clone()))).await.unwrap();
    soon(writer.settle()).await.unwrap();
    assert!(*file.lock().unwrap() == whole);
    let offered = offered.lock().unwrap();
    let heads = offered.iter().filter(|&&len| len < 64).count();
    assert!(heads <= 2, "{heads} of {} writes were heads alone", offered.len());
}
