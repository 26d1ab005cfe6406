//! Lines on their way to a file: a thread writes what has gathered with one write, so that a file's
//! work waits for no log.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::daily::Daily;
use super::log::Complain;

/// A line is written after this time at the latest; what is killed loses no more.
const GATHER: Duration = Duration::from_millis(50);

/// Bytes that may wait. A disk that takes nothing then keeps the job waiting, as it did without us.
const MOST: usize = 1 << 20;

/// The lines of some daily files. What waits when it is dropped is written first.
pub(super) struct Outbox {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    files: Daily,
    /// Hears, once, why nothing can be written.
    complain: Complain,
    /// How the complaint begins.
    what: &'static str,
    waiting: Mutex<Waiting>,
    /// For the thread: there is something to do.
    work: Condvar,
    /// For those who wait for room, or for all to be written.
    done: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<(Timestamp, String)>,
    bytes: usize,
    /// Not to be gathered any longer.
    now: bool,
    /// Being written at this moment.
    writing: bool,
    closed: bool,
}

impl Outbox {
    /// For these files; complaints begin with `what`.
    pub(super) fn new(files: Daily, what: &'static str, complain: Complain) -> Outbox {
        let (waiting, work, done) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { files, complain, what, waiting, work, done });
        let of = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without a thread each line is written at once.
        let thread = thread.spawn(move || of.run()).ok();
        Outbox { shared, thread }
    }

    pub(super) fn files(&self) -> &Daily {
        &self.shared.files
    }

    /// Adds a line of `at`; with `urgent` it does not wait for others.
    pub(super) fn push(&self, at: Timestamp, line: String, urgent: bool) {
        if self.thread.is_none() {
            return self.shared.write(&[(at, line)]);
        }
        let mut waiting = self.shared.lock();
        while waiting.bytes > MOST {
            waiting = self.shared.wait(waiting);
        }
        waiting.bytes += line.len();
        waiting.lines.push((at, line));
        // The thread sleeps a while after the first one whatever comes; it need not hear of others.
        let wake = waiting.lines.len() == 1 || (urgent && !waiting.now) || waiting.bytes > MOST;
        waiting.now |= urgent;
        drop(waiting);
        if wake {
            self.shared.work.notify_one();
        }
    }

    /// Returns when all that was added is written, or could not be.
    pub(super) fn flush(&self) {
        let mut waiting = self.shared.lock();
        while !waiting.lines.is_empty() || waiting.writing {
            waiting.now = true;
            self.shared.work.notify_one();
            waiting = self.shared.wait(waiting);
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some(lines) = self.take() {
            self.write(&lines);
            self.lock().writing = false;
            self.done.notify_all();
        }
    }

    /// What has gathered; `None` at the end.
    fn take(&self) -> Option<Vec<(Timestamp, String)>> {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.work.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + GATHER;
        while !waiting.now && !waiting.closed && waiting.bytes <= MOST {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let woken = self.work.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.now = false;
        waiting.bytes = 0;
        waiting.writing = true;
        Some(std::mem::take(&mut waiting.lines))
    }

    fn write(&self, lines: &[(Timestamp, String)]) {
        if let Some(error) = self.files.lines(lines) {
            (self.complain)(&format!("{}: {error}; the job goes on", self.what));
        }
    }

    fn wait<'a>(&self, waiting: MutexGuard<'a, Waiting>) -> MutexGuard<'a, Waiting> {
        self.done.wait(waiting).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("files", &self.shared.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use jiff::tz::TimeZone;

    use super::*;

    fn outbox(dir: &Path) -> Outbox {
        let files = Daily::new(dir, "A", 2026, ".log", TimeZone::UTC);
        Outbox::new(files, "nothing is logged", Box::new(|text| panic!("{text}")))
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join("logs/fcp_job_A_2026.log")).unwrap_or_default()
    }

    fn wait_for(what: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn j16_lines_keep_their_order_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = outbox(dir.path());
        let numbers = |n: std::ops::Range<u32>| n.map(|n| format!("{n}\n")).collect::<String>();
        let add = |n: std::ops::Range<u32>| {
            n.for_each(|n| outbox.push(Timestamp::now(), n.to_string(), n % 1000 == 7));
        };
        add(0..5000);
        outbox.flush();
        assert_eq!(text(dir.path()), numbers(0..5000));
        add(5000..6000);
        drop(outbox);
        assert_eq!(text(dir.path()), numbers(0..6000));
    }

    #[test]
    fn j16_a_line_is_written_soon_though_nothing_follows() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = outbox(dir.path());
        outbox.push(Timestamp::now(), "one".to_owned(), false);
        wait_for(|| text(dir.path()) == "one\n");
        outbox.push(Timestamp::now(), "two".to_owned(), true);
        wait_for(|| text(dir.path()) == "one\ntwo\n");
        outbox.flush();
    }

    #[test]
    fn j11_lines_around_midnight_go_to_their_days() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = outbox(dir.path());
        for (at, line) in [("2026-11-19T23:59:59Z", "late"), ("2026-11-20T00:00:00Z", "early")] {
            outbox.push(at.parse().unwrap(), line.to_owned(), false);
        }
        outbox.flush();
        assert_eq!(text(dir.path()), "early\n");
        let old = dir.path().join("logs/fcp_job_A_2026.log.2026-11-19");
        assert_eq!(fs::read_to_string(old).unwrap(), "late\n");
    }
}
