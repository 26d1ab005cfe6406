//! The tasks: one reads packets, one writes what is queued.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::core::{Finisher, Inner, Segment, Shared};
use super::input::Input;
use super::waiter::Expect;
use super::window::Window;
use super::{DataLimits, Result, Session, SessionError, SessionOptions, SftpOp, watchdog};
use crate::location::sftp::wire::frame::{self, FrameError};
use crate::location::sftp::wire::{
    DEFAULT_DATA, Extension, Extensions, Limits, MAX_DATA, Reply, Request, VERSION, extension,
};

/// Bytes within a packet that count as something that moves; fewer are a trickle.
const MOVES: usize = 4096;
/// Bytes that a stream without vectored writes is given at a time when heads stand before content:
/// a head alone would become an SSH packet of its own.
const JOIN: usize = 32 * 1024;
/// Slices for one vectored write.
const SLICES: usize = 32;
/// How long an end in order may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// Bytes of a READ or WRITE that every server can do; one that announces fewer is not believed.
const MIN_DATA: u64 = 1024;

/// See [`Session::start`].
pub(super) async fn start(
    reader: impl AsyncRead + Send + Unpin + 'static,
    mut writer: impl AsyncWrite + Send + Unpin + 'static,
    options: SessionOptions,
) -> Result<Session> {
    let mut input = Input::new(reader);
    let hello = timeout(options.watchdog, hello(&mut input, &mut writer)).await;
    let extensions = hello.unwrap_or(Err(SessionError::Stalled(options.watchdog)))?;
    let shared = Finisher(Arc::new(Shared::new(options)));
    spawn(&shared, input, writer);
    let limits = data_limits(&shared, &extensions).await?;
    let (reads, writes) = (Window::new(), Window::new());
    Ok(Session { inner: Arc::new(Inner { shared, extensions, limits, reads, writes }) })
}

async fn hello<R: AsyncRead + Unpin>(
    input: &mut Input<R>,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<Extensions> {
    let mut init = BytesMut::new();
    Request::Init { version: VERSION }.encode(0, &mut init);
    writer.write_all(&init).await.map_err(lost)?;
    writer.flush().await.map_err(lost)?;
    let packet = loop {
        match frame::take(&mut input.buffer) {
            Ok(Some(packet)) => break packet,
            Ok(None) if input.fill().await.map_err(lost)? == 0 => return Err(no_hello(input)),
            Ok(None) => {}
            Err(error) => return Err(greeting(error, &input.buffer)),
        }
    };
    match Reply::decode(&packet) {
        Ok((_, Reply::Version { version, extensions })) if version == VERSION => Ok(extensions),
        Ok((_, Reply::Version { version, .. })) => Err(SessionError::Protocol(format!(
            "it speaks SFTP version {version}; version {VERSION} is needed"
        ))),
        Ok((_, other)) => {
            Err(SessionError::Protocol(format!("it answered INIT with {}", other.name())))
        }
        Err(error) => Err(SessionError::Protocol(format!("it answered INIT with {error}"))),
    }
}

fn no_hello<R>(input: &Input<R>) -> SessionError {
    let what = match &input.buffer[..] {
        [] => "the server ended the session at once; is its SFTP subsystem on?".to_owned(),
        text => format!("the server ended the session after {}", shown(text)),
    };
    SessionError::Lost(what)
}

/// A login shell that prints something is the usual cause.
fn greeting(error: FrameError, bytes: &[u8]) -> SessionError {
    SessionError::Protocol(format!(
        "it began with {error}: {}; if that is text, a start-up file of the login shell prints it \
         and must not do so when no terminal is there",
        shown(bytes)
    ))
}

fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", fcp_proto::path::escape(bytes.get(..64).unwrap_or(bytes)))
}

async fn data_limits(shared: &Arc<Shared>, extensions: &Extensions) -> Result<DataLimits> {
    if !extensions.has(extension::LIMITS) {
        return Ok(DataLimits { read: DEFAULT_DATA, write: DEFAULT_DATA });
    }
    let request = Request::Extended(Extension::Limits);
    let pending = shared.ask((SftpOp::Limits, Expect::Extended), request, None, None)?;
    let limits = match pending.reply(b"").await {
        Ok(Reply::Extended(body)) => Limits::decode(&body)
            .map_err(|error| shared.protocol(format!("it answered limits with {error}")))?,
        // Announced and refused: as if it had not been announced.
        Ok(_) | Err(SessionError::Status(_)) => Limits::default(),
        Err(error) => return Err(error),
    };
    let length = |announced: u64| match announced {
        0 => DEFAULT_DATA,
        n => u32::try_from(n.clamp(MIN_DATA, MAX_DATA.into())).unwrap_or(DEFAULT_DATA),
    };
    Ok(DataLimits { read: length(limits.read), write: length(limits.write) })
}

fn spawn<R, W>(shared: &Arc<Shared>, input: Input<R>, writer: W)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let of = shared.clone();
    until_end(shared, async move { read(&of, input).await });
    let of = shared.clone();
    until_end(shared, async move { write(&of, writer).await });
    let of = shared.clone();
    until_end(shared, async move { watchdog::watch(&of).await });
}

/// Runs one of the tasks; its end is the end of all.
fn until_end(shared: &Arc<Shared>, work: impl Future<Output = SessionError> + Send + 'static) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let end = tokio::select! {
            end = shared.ended() => end,
            end = work => end,
        };
        shared.fail(end);
    });
}

async fn read<R: AsyncRead + Unpin>(shared: &Arc<Shared>, mut input: Input<R>) -> SessionError {
    let mut unnoted = 0;
    loop {
        match frame::take(&mut input.buffer) {
            Ok(Some(packet)) => {
                input.handle_size(packet.len());
                if let Err(error) = shared.handle_packet(&packet) {
                    return error;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return error.into(),
        }
        match input.fill().await {
            Ok(0) => return ended(shared, &input.buffer),
            Ok(n) => unnoted += n,
            Err(error) => return lost(error),
        }
        if unnoted >= MOVES {
            unnoted = 0;
            shared.note_move(Instant::now());
        }
    }
}

fn ended(shared: &Shared, rest: &[u8]) -> SessionError {
    match rest {
        [] if shared.is_finishing() => SessionError::Closed,
        [] => SessionError::Lost("the server ended the session".to_owned()),
        _ => SessionError::Lost("it ended inside a packet".to_owned()),
    }
}

async fn write<W: AsyncWrite + Unpin>(shared: &Arc<Shared>, mut writer: W) -> SessionError {
    while let Some(mut batch) = shared.batch().await {
        while !batch.is_empty() {
            match write_some(&mut writer, &mut batch).await {
                Ok(_) => shared.note_move(Instant::now()),
                Err(error) => return lost(error),
            }
        }
        if let Err(error) = writer.flush().await {
            return lost(error);
        }
    }
    // A stream that is stuck must not keep us: the end is in order either way.
    let _ = timeout(GOODBYE, writer.shutdown()).await;
    // A pipe ends only when it is dropped.
    drop(writer);
    sleep(GOODBYE).await;
    SessionError::Closed
}

/// One write of as much as possible.
async fn write_some<W: AsyncWrite + Unpin>(
    writer: &mut W,
    batch: &mut VecDeque<Segment>,
) -> io::Result<()> {
    let written = match batch.front() {
        Some(first)
            if writer.is_write_vectored() || batch.len() == 1 || first.bytes.len() >= JOIN =>
        {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, segment) in slices.iter_mut().zip(batch.iter()) {
                *slice = IoSlice::new(&segment.bytes);
                used += 1;
            }
            writer.write_vectored(slices.get(..used).unwrap_or_default()).await?
        }
        Some(_) => {
            let joined = joined(batch);
            writer.write_all(&joined).await?;
            joined.len()
        }
        None => return Ok(()),
    };
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    advance(batch, written);
    Ok(())
}

/// The first bytes of several segments, copied.
fn joined(batch: &VecDeque<Segment>) -> Bytes {
    let mut joined = BytesMut::with_capacity(JOIN);
    for segment in batch {
        let room = JOIN - joined.len();
        joined.extend_from_slice(segment.bytes.get(..room).unwrap_or(&segment.bytes));
        if joined.len() == JOIN {
            break;
        }
    }
    joined.freeze()
}

fn advance(batch: &mut VecDeque<Segment>, mut written: usize) {
    while let Some(first) = batch.front_mut() {
        if first.bytes.len() > written {
            first.bytes.advance(written);
            return;
        }
        written -= first.bytes.len();
        batch.pop_front();
    }
}

fn lost(error: io::Error) -> SessionError {
    SessionError::Lost(error.to_string())
}
