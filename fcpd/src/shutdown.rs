//! Ending: first nothing new, then nothing at all.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// "File size limit exceeded", on every Linux but MIPS.
const SIGXFSZ: i32 = 25;

/// Tells a server to end; clones tell the same server.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    cancelling: CancellationToken,
}

impl Shutdown {
    /// Nobody has been told to end.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Accept nothing more; running sessions go on for a while.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// End running sessions too.
    pub fn cancel(&self) {
        self.draining.cancel();
        self.cancelling.cancel();
    }

    /// Completes once nothing more is to be accepted.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Completes once running sessions are to end.
    pub async fn cancelling(&self) {
        self.cancelling.cancelled().await;
    }

    /// From now on SIGHUP, SIGTERM and SIGINT cancel: who serves one session has nothing to drain.
    /// To be called within a runtime.
    ///
    /// # Errors
    /// The system gives no signal handler.
    pub fn cancel_on_signals(&self) -> io::Result<()> {
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        let shutdown = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = hang_up.recv() => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            shutdown.cancel();
        });
        Ok(())
    }

    /// From now on SIGTERM and SIGINT drain, and a second one cancels; SIGHUP means nothing if
    /// `ignore_hang_up`. To be called within a runtime.
    ///
    /// # Errors
    /// The system gives no signal handler.
    pub fn on_signals(&self, ignore_hang_up: bool) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Past a size limit a write is to fail, not to end the server with all its sessions.
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        if ignore_hang_up {
            // A handler that nobody listens to replaces the default action, for good.
            drop(signal(SignalKind::hangup())?);
        }
        let shutdown = self.clone();
        tokio::spawn(async move {
            for end in [Shutdown::drain, Shutdown::cancel] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                end(&shutdown);
            }
        });
        Ok(())
    }
}
