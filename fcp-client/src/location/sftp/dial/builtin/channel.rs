//! What runs over a login of the built-in client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg};
use tokio::time::timeout;

use super::{Client, Server};
use crate::location::sftp::dial::connection::{Future, Held, Link, Output, SFTP_ONLY, Stream};
use crate::location::{LocationError, PATIENCE, Reason, Result};

/// How long to wait before a command asks for a session again.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// A login; its streams keep it.
pub(super) struct Builtin {
    shared: Arc<Shared>,
    has_exec: AtomicBool,
}

struct Shared {
    handle: Handle<Client>,
    server: Server,
}

impl Builtin {
    pub(super) fn new(handle: Handle<Client>, server: Server) -> Builtin {
        let shared = Arc::new(Shared { handle, server });
        Builtin { shared, has_exec: AtomicBool::new(true) }
    }

    async fn sftp(&self) -> Result<Stream> {
        let mut channel = self.shared.open().await?;
        let asked = channel.request_subsystem(true, "sftp").await;
        asked.map_err(|error| self.shared.lost(&error))?;
        if !self.shared.is_granted(&mut channel).await? {
            return Err(self.shared.failed(
                Reason::Unsupported,
                "its sshd has no sftp subsystem (see Subsystem in sshd_config)",
            ));
        }
        let (reader, writer) = tokio::io::split(channel.into_stream());
        Ok(Stream {
            reader: Box::new(Held::new(reader, &self.shared)),
            writer: Box::new(Held::new(writer, &self.shared)),
        })
    }

    async fn run(&self, command: &[u8], limit: usize) -> Result<Output> {
        let mut channel = self.shared.open_patiently().await?;
        channel.exec(true, command).await.map_err(|error| self.shared.lost(&error))?;
        // A server that forces another command, such as sftp's, must not wait for us.
        let _ = channel.eof().await;
        let (mut output, mut granted) = (Output { status: None, stdout: Vec::new() }, false);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Success => granted = true,
                ChannelMsg::Failure if !granted => return Err(self.no_commands()),
                ChannelMsg::Data { data } => {
                    if output.stdout.len().saturating_add(data.len()) > limit {
                        return Err(self.shared.failed(Reason::Protocol, "it printed too much"));
                    }
                    output.stdout.extend_from_slice(&data);
                }
                ChannelMsg::ExitStatus { exit_status } => output.status = Some(exit_status),
                _ => {}
            }
        }
        match granted {
            true if output.stdout.starts_with(SFTP_ONLY) => Err(self.no_commands()),
            true => Ok(output),
            false => Err(self.shared.failed(Reason::Lost, "it hung up")),
        }
    }
}

impl Builtin {
    fn no_commands(&self) -> LocationError {
        self.has_exec.store(false, Ordering::Relaxed);
        self.shared.failed(Reason::Unsupported, "it runs no commands for this account")
    }
}

impl Link for Builtin {
    fn open_sftp(&self) -> Future<'_, Result<Stream>> {
        Box::pin(self.sftp())
    }

    fn exec<'a>(&'a self, command: &'a [u8], limit: usize) -> Future<'a, Result<Output>> {
        Box::pin(self.run(command, limit))
    }

    fn explain(&self, error: LocationError) -> Future<'_, LocationError> {
        Box::pin(std::future::ready(error))
    }

    fn has_exec(&self) -> bool {
        self.has_exec.load(Ordering::Relaxed)
    }

    fn max_channels(&self) -> usize {
        usize::MAX
    }

    fn is_closed(&self) -> bool {
        self.shared.handle.is_closed()
    }
}

impl Shared {
    async fn open(&self) -> Result<Channel<Msg>> {
        match timeout(PATIENCE, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(why))) => Err(self.failed(
                Reason::Busy,
                format!("it allows no further session on this login (MaxSessions): {why:?}"),
            )),
            Ok(Err(error)) => Err(self.lost(&error)),
            Err(_) => Err(self.failed(Reason::Timeout, "it does not open a session")),
        }
    }

    /// A server counts a session that has just ended for a moment still.
    async fn open_patiently(&self) -> Result<Channel<Msg>> {
        for pause in PAUSES {
            match self.open().await {
                Err(error) if error.reason == Reason::Busy => tokio::time::sleep(pause).await,
                opened => return opened,
            }
        }
        self.open().await
    }

    /// Whether what was asked of the channel is granted.
    async fn is_granted(&self, channel: &mut Channel<Msg>) -> Result<bool> {
        let answer = async {
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Success => return Some(true),
                    ChannelMsg::Failure => return Some(false),
                    _ => {}
                }
            }
            None
        };
        match timeout(PATIENCE, answer).await {
            Ok(Some(granted)) => Ok(granted),
            Ok(None) => Err(self.failed(Reason::Lost, "it hung up")),
            Err(_) => Err(self.failed(Reason::Timeout, "it does not begin to speak SFTP")),
        }
    }

    fn failed(&self, reason: Reason, text: impl Into<String>) -> LocationError {
        self.server.failed(reason, text)
    }

    fn lost(&self, error: &russh::Error) -> LocationError {
        super::lost(&self.server, error, &super::Farewell::default())
    }
}
