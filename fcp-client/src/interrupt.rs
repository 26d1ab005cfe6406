//! Signals that end a session instead of the process, so that what was received is kept.

use std::sync::atomic::{AtomicBool, Ordering};

use fcp_common::engine::Inlet;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::CliError;

/// "File size limit exceeded", on every Linux but MIPS.
const SIGXFSZ: i32 = 25;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether a signal has ended a session of this process.
pub fn was_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs what an inlet can cancel; the first signal does.
///
/// # Errors
/// The system gives no event queue.
pub fn interruptible<T: Send>(run: impl FnOnce(Inlet) -> T + Send) -> Result<T, CliError> {
    interruptible_with(Inlet::new(), run)
}

/// As [`interruptible`], with an inlet that is known elsewhere, too.
///
/// # Errors
/// As [`interruptible`].
pub fn interruptible_with<T: Send>(
    inlet: Inlet,
    run: impl FnOnce(Inlet) -> T + Send,
) -> Result<T, CliError> {
    Ok(run_with_signals(&runtime()?, inlet, run))
}

/// Runs a session on a thread of its own; SIGINT, SIGTERM and SIGHUP end it.
fn run_with_signals<T: Send>(
    runtime: &tokio::runtime::Runtime,
    inlet: Inlet,
    run: impl FnOnce(Inlet) -> T + Send,
) -> T {
    let cancel = inlet.cancel();
    std::thread::scope(|scope| {
        let (done, ended) = tokio::sync::oneshot::channel();
        let session = scope.spawn(move || {
            let result = run(inlet);
            let _ = done.send(());
            result
        });
        runtime.block_on(async {
            // Past a size limit a write is to fail as one file's error. A handler that nobody
            // listens to replaces the default action, for good.
            let _ = signal(SignalKind::from_raw(SIGXFSZ));
            tokio::select! {
                _ = ended => {}
                () = interrupted() => {
                    INTERRUPTED.store(true, Ordering::Relaxed);
                    cancel.cancel();
                }
            }
        });
        session.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    std::future::poll_fn(|cx| {
        let any = signals.iter_mut().any(|s| s.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Internal(format!("cannot start: {error}")))
}
