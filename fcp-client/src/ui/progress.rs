//! A bar on a terminal's stderr: total, rate, time left.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use fcp_common::engine::Counters;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws a second; more is not seen and costs writes.
const REDRAWS: u8 = 8;
/// A transfer that is over sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// A running bar; hidden when stderr is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    pub(super) fn start(counters: Arc<Counters>, wanted: bool) -> Progress {
        let stop = Arc::new(AtomicBool::new(false));
        if !wanted || !std::io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden(), stop, thread: None };
        }
        let bar =
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(REDRAWS));
        let (drawn, stopped) = (bar.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("fcp-progress".to_owned())
            .spawn(move || draw(&drawn, &counters, &stopped))
            .ok();
        Progress { bar, stop, thread }
    }

    /// Runs `print` with the bar out of the way.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    pub(super) fn finish(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

fn draw(bar: &ProgressBar, counters: &Counters, stop: &AtomicBool) {
    let pattern = "{bar:24} {bytes}/{total_bytes} {bytes_per_sec} {msg} ETA {eta}";
    if let Ok(style) = ProgressStyle::with_template(pattern) {
        bar.set_style(style);
    }
    std::thread::park_timeout(PATIENCE);
    // Until something is known of the transfer, ssh may be asking the user on this terminal.
    while !stop.load(Relaxed) && counters.total_entries.load(Relaxed) == 0 {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    while !stop.load(Relaxed) {
        let (done, all) =
            (counters.done_entries.load(Relaxed), counters.total_entries.load(Relaxed));
        let more = if counters.walked.load(Relaxed) == 1 { "" } else { "+" };
        bar.set_length(counters.total_bytes.load(Relaxed));
        // Bytes on their way count before their file is finished.
        let moved = counters.moved_bytes.load(Relaxed) + counters.kept_bytes.load(Relaxed);
        bar.set_position(counters.done_bytes.load(Relaxed).max(moved));
        bar.set_message(format!("{done}/{all}{more} files"));
        std::thread::park_timeout(Duration::from_millis(1000 / u64::from(REDRAWS)));
    }
}
