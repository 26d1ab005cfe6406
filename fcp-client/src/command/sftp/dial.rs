//! Logging in for SFTP, by the system's ssh: what the user can reach with ssh is reached here.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::{io, mem};

use fcp_common::engine::Counters;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::host::{Host, Remote};
use crate::config::Resolved;
use crate::connect::ssh::Place;
use crate::connect::ssh::logins::{INIT, NoStream, SftpLogins, SftpStream};
use crate::connect::ssh_options;
use crate::error::CliError;
use crate::location::sftp::SftpOptions;
use crate::location::sftp::dial::{Connection, Future, Link, Output, Stream};
use crate::location::sftp::pool::{Pool, PoolOptions};
use crate::location::{LocationError, Op, Reason, Result};
use crate::target::{self, Server};
use crate::ui;

/// Logins at one host, where nobody says how many: each brings a window and a core.
const CONNECTIONS: u16 = 4;
/// On this machine there are no windows to wait for.
const ON_LOOPBACK: u16 = 2;

/// What sshd says where an account may not run commands.
const SFTP_ONLY: &[u8] = b"This service allows sftp connections only";

/// Logs in at a server.
///
/// # Errors
/// [`CliError::Connect`], with what to do about it.
pub(super) async fn login(
    server: &Server,
    config: &Resolved,
    (verbose, counters): (u8, &Arc<Counters>),
) -> std::result::Result<Host, CliError> {
    let Server::Ssh { user, host, port } = server else {
        return Err(CliError::Unsupported(format!("{server} is no SFTP server")));
    };
    let place = Place { user: user.clone(), host: host.clone(), port: *port };
    let options = ssh_options(config, verbose);
    let logins = off(move || SftpLogins::new(&place, &options)).await?;
    let commands = Arc::new(AtomicBool::new(true));
    let (logins, counters) = (Arc::new(logins), Arc::clone(counters));
    let dialer = Arc::new(Dialer { logins, counters, failed: Mutex::default(), commands });
    let near = target::loopback(dialer.logins.hostname(), 1).is_some();
    let usual = if near { ON_LOOPBACK } else { CONNECTIONS };
    let most = usize::from(config.connections.value.unwrap_or(usual));
    let name = dialer.name();
    let opener = {
        let dialer = Arc::clone(&dialer);
        move || -> Future<'static, Result<Connection>> {
            let dialer = Arc::clone(&dialer);
            Box::pin(async move { dialer.dial().await })
        }
    };
    // More where somebody says so, else once they are worth their logins.
    let first = config.connections.value.map_or(1, usize::from);
    let limits = PoolOptions { max_connections: first, max_channels: 1 };
    let pool = Pool::over(Box::new(opener), limits);
    // Now, while nothing else is said, as it may ask the user.
    pool.share().await.map_err(|error| dialer.why().unwrap_or(CliError::Place(error)))?;
    ui::way(verbose, format_args!("{server}: over SFTP, by ssh, with up to {most} connections"));
    let options = SftpOptions { pool: limits, lanes: most, make_base: false };
    Ok(Host::There(Remote { pool, name, options, most }))
}

/// Opens the streams of one host.
struct Dialer {
    logins: Arc<SftpLogins>,
    counters: Arc<Counters>,
    /// Why the first login failed: it is not tried again.
    failed: Mutex<Option<CliError>>,
    /// No command was refused so far.
    commands: Arc<AtomicBool>,
}

impl Dialer {
    fn why(&self) -> Option<CliError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn error(&self, reason: Reason, text: &str) -> LocationError {
        let name = self.name();
        LocationError::new(&name, Op::Connect, self.logins.name().as_bytes(), reason, text)
    }

    fn name(&self) -> String {
        format!("sftp {}", self.logins.name())
    }

    async fn dial(self: &Arc<Self>) -> Result<Connection> {
        let stream = Mutex::new(Some(self.stream().await?));
        let refused = self.error(Reason::Busy, "each connection has one session");
        let stopped = self.error(Reason::Unsupported, "it runs no commands for this account");
        let (logins, commands) = (Arc::clone(&self.logins), Arc::clone(&self.commands));
        Ok(Connection::new(&self.name(), One { logins, stream, refused, stopped, commands }))
    }

    async fn stream(&self) -> Result<Stream> {
        let logins = Arc::clone(&self.logins);
        let opened = off(move || logins.open()).await;
        match opened {
            Ok(Ok(stream)) => primed(stream, &self.counters)
                .map_err(|error| self.error(Reason::Lost, &error.to_string())),
            Ok(Err(NoStream::Further(error))) => {
                Err(self.error(Reason::Busy, &format!("no further connection: {error}")))
            }
            Ok(Err(NoStream::First(why))) | Err(why) => {
                let error = self.error(Reason::Login, &why.to_string());
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                Err(error)
            }
        }
    }
}

/// A connection that is one stream.
struct One {
    logins: Arc<SftpLogins>,
    commands: Arc<AtomicBool>,
    stream: Mutex<Option<Stream>>,
    refused: LocationError,
    stopped: LocationError,
}

impl Link for One {
    fn open_sftp(&self) -> Future<'_, Result<Stream>> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move { stream.ok_or_else(|| self.refused.clone()) })
    }

    fn exec<'a>(&'a self, command: &'a [u8], limit: usize) -> Future<'a, Result<Output>> {
        let (logins, command) = (Arc::clone(&self.logins), command.to_vec());
        Box::pin(async move {
            let ran = off(move || logins.exec(&command, limit)).await;
            match ran {
                Ok(Ok((status, stdout))) if !stdout.starts_with(SFTP_ONLY) => {
                    Ok(Output { status: status.and_then(|code| u32::try_from(code).ok()), stdout })
                }
                _ => {
                    self.commands.store(false, Ordering::Relaxed);
                    Err(self.stopped.clone())
                }
            }
        })
    }

    fn explain(&self, error: LocationError) -> Future<'_, LocationError> {
        Box::pin(async { error })
    }

    fn has_exec(&self) -> bool {
        self.commands.load(Ordering::Relaxed)
    }

    fn max_channels(&self) -> usize {
        1
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// A stream as it was before its first words: it repeats what was said, and keeps the words that
/// were said for it to itself.
fn primed(stream: SftpStream, counters: &Arc<Counters>) -> io::Result<Stream> {
    let SftpStream { ssh, reader, writer, begun } = stream;
    let counters = || Arc::clone(counters);
    let inner = Receiver::from_owned_fd(reader)?;
    let reader = io::Cursor::new(begun).chain(Counted { inner, counters: counters() });
    let inner = Sender::from_owned_fd(writer)?;
    let writer = Writer { inner, said: INIT.len(), counters: counters(), ssh };
    Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) })
}

/// Counts what is read.
struct Counted {
    inner: Receiver,
    counters: Arc<Counters>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(context, buf);
        let read = buf.filled().len() - before;
        self.counters.wire_in.fetch_add(read as u64, Ordering::Relaxed);
        done
    }
}

/// Leaves out the first bytes, which were said before. Holds the ssh.
struct Writer {
    inner: Sender,
    said: usize,
    counters: Arc<Counters>,
    ssh: Arc<dyn std::any::Any + Send + Sync>,
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.said > 0 {
            let skipped = self.said.min(buf.len());
            self.said -= skipped;
            return Poll::Ready(Ok(skipped));
        }
        let done = Pin::new(&mut self.inner).poll_write(context, buf);
        if let Poll::Ready(Ok(written)) = &done {
            self.counters.wire_out.fetch_add(*written as u64, Ordering::Relaxed);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // To end an ssh may take a second, for which no task is held up.
        let ssh = mem::replace(&mut self.ssh, Arc::new(()));
        std::thread::spawn(move || drop(ssh));
    }
}

/// Runs what blocks beside the tasks.
async fn off<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::result::Result<T, CliError> {
    let stopped = |_| CliError::Internal("an error inside fcp (a thread panicked)".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}
