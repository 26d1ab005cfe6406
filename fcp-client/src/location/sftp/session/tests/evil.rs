//! A server within the process that does what a script says.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::super::{Session, SessionOptions};
use super::soon;
use crate::location::sftp::wire::{
    Attrs, Extensions, NameEntry, Reply, Request, StatusCode, VERSION, frame,
};

/// What a script does after a request.
pub(super) enum Act {
    Answer(Reply),
    /// These bytes, as they are.
    Raw(Vec<u8>),
    Nothing,
    Close,
}

pub(super) fn status(code: StatusCode) -> Act {
    Act::Answer(Reply::Status { code, message: Bytes::from_static(b"so it is") })
}

pub(super) fn handle(id: &'static [u8]) -> Act {
    Act::Answer(Reply::Handle(id.into()))
}

pub(super) fn names(all: &[&[u8]]) -> Act {
    let entry = |name: &&[u8]| NameEntry { name: name.to_vec().into(), attrs: Attrs::default() };
    Act::Answer(Reply::Name(all.iter().map(entry).collect()))
}

/// Answers everything as a patient server would, with one file of `size` bytes of `content`.
pub(super) fn honest(content: &Bytes, request: Request<'_>) -> Act {
    match request {
        Request::Open { .. } | Request::Opendir { .. } => handle(b"h"),
        Request::Read { offset, len, .. } => read(content, offset, len),
        Request::Fstat { .. } | Request::Lstat { .. } | Request::Stat { .. } => {
            let size = Some(content.len() as u64);
            Act::Answer(Reply::Attrs(Attrs { size, ..Attrs::default() }))
        }
        _ => status(StatusCode::OK),
    }
}

pub(super) fn read(content: &Bytes, offset: u64, len: u32) -> Act {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let to = from.saturating_add(len as usize).min(content.len());
    if from == to {
        status(StatusCode::EOF)
    } else {
        Act::Answer(Reply::Data(content.slice(from..to)))
    }
}

pub(super) type Script = Box<dyn FnMut(u32, Request<'_>) -> Act + Send>;

/// A session with a server that follows `script` from the first request on.
pub(super) async fn session(
    options: SessionOptions,
    extensions: Extensions,
    script: impl FnMut(u32, Request<'_>) -> Act + Send + 'static,
) -> Session {
    let stream = serve(extensions, Box::new(script));
    let (reader, writer) = tokio::io::split(stream);
    soon(Session::start(reader, writer, options)).await.unwrap()
}

/// With a script only.
pub(super) async fn scripted(
    script: impl FnMut(u32, Request<'_>) -> Act + Send + 'static,
) -> Session {
    session(SessionOptions::default(), Extensions::default(), script).await
}

pub(super) fn serve(extensions: Extensions, mut script: Script) -> DuplexStream {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        let mut extensions = Some(extensions);
        while let Some(packet) = packet(&mut theirs, &mut buffer).await {
            let (id, request) = Request::decode(&packet).unwrap();
            let act = match (request, extensions.take()) {
                (Request::Init { .. }, Some(extensions)) => {
                    Act::Answer(Reply::Version { version: VERSION, extensions })
                }
                (request, _) => script(id, request),
            };
            let mut out = BytesMut::new();
            match act {
                Act::Answer(reply) => reply.encode(id, &mut out),
                Act::Raw(bytes) => out.extend_from_slice(&bytes),
                Act::Nothing => {}
                Act::Close => return,
            }
            if theirs.write_all(&out).await.is_err() {
                return;
            }
        }
    });
    ours
}

/// The next packet; `None` at the end.
pub(super) async fn packet(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Option<Bytes> {
    loop {
        if let Some(packet) = frame::take(buffer).unwrap() {
            return Some(packet);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
