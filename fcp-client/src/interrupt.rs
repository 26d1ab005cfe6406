//! Signals that end a session instead of the process, so that what was received is kept; and those
//! that end the process, but with an exit code and without leaving programs behind.

use std::sync::atomic::{AtomicBool, Ordering};

use fcp_common::engine::Inlet;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;
use crate::ui::exit::ExitStatus;

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
    let cancel = inlet.cancel();
    run_with_signals(|| run(inlet), || cancel.cancel())
}

/// Runs what nothing can cancel, such as a login. On the first signal `last` tidies up and says how
/// the process ends, which it then does at once.
///
/// # Errors
/// As [`interruptible`].
pub fn during<T: Send>(
    work: impl FnOnce() -> T + Send,
    last: impl FnOnce() -> ExitStatus,
) -> Result<T, CliError> {
    run_with_signals(work, || std::process::exit(last() as i32))
}

/// Works on a thread of its own, and waits for its end; meanwhile SIGINT, SIGTERM and SIGHUP are
/// answered.
fn run_with_signals<T: Send>(
    work: impl FnOnce() -> T + Send,
    on_signal: impl FnOnce(),
) -> Result<T, CliError> {
    let runtime = runtime()?;
    let _context = runtime.enter();
    // Past a size limit a write is to fail as one file's error. A handler that nobody listens to
    // replaces the default action, for good.
    let _ = signal(SignalKind::from_raw(SIGXFSZ));
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    // Before anything is started that a signal would leave behind.
    let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    Ok(std::thread::scope(|scope| {
        let (done, ended) = tokio::sync::oneshot::channel();
        let working = scope.spawn(move || {
            let result = work();
            let _ = done.send(());
            result
        });
        runtime.block_on(async {
            tokio::select! {
                // A signal first, as nobody else will see it. One that comes between two calls of
                // this is seen by the next.
                biased;
                () = any(&mut signals) => {
                    INTERRUPTED.store(true, Ordering::Relaxed);
                    on_signal();
                }
                _ = ended => {}
            }
        });
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }))
}

async fn any(signals: &mut [Signal]) {
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
