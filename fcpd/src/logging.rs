//! The log: where it goes, and how refusals are kept from flooding it.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fcp_common::private;
use tracing::level_filters::LevelFilter;

use crate::cli::LogLevel;
use crate::config::Settings;

/// A log longer than this is put aside at the next start.
const MAX_LOG: u64 = 10 << 20;
/// At most one line per kind of refusal in this time.
const QUIET: Duration = Duration::from_secs(1);

/// Starts logging: to stderr in the foreground, to the log file in the background.
///
/// # Errors
/// The log file cannot be used; the text names it.
pub(crate) fn init(settings: &Settings) -> Result<(), String> {
    let format = tracing_subscriber::fmt()
        .with_max_level(level(settings.log_level))
        .with_target(false)
        .with_ansi(false);
    if !settings.detached {
        format.with_writer(|| Lossy).init();
        return Ok(());
    }
    let candidate = settings.log_file.clone().or_else(system_log);
    let Some(path) = candidate else {
        eprintln!("fcpd: nothing is logged: set HOME or XDG_STATE_HOME to have a log");
        return Ok(());
    };
    let file = private::open_log(&path, MAX_LOG).map_err(|e| format!("cannot log to {e}"))?;
    format.with_writer(Mutex::new(file)).init();
    // There is no terminal that a panic could be seen on.
    std::panic::set_hook(Box::new(|panic| tracing::error!("an error inside fcpd: {panic}")));
    Ok(())
}

/// Stderr, which may be gone with the terminal or the ssh connection: that is no error.
struct Lossy;

impl Write for Lossy {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Without HOME, root still has a directory that only root can write to.
fn system_log() -> Option<PathBuf> {
    rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/log/fcpd.log"))
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// The log of what is refused: at most one line a second of each kind.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<&'static str, Kind>>);

#[derive(Debug)]
struct Kind {
    last: Instant,
    suppressed: u64,
}

impl Refusals {
    /// Logs `text`, already escaped, as a warning, or counts it when its kind was logged just now.
    pub(crate) fn log(&self, kind: &'static str, text: impl Display) {
        match self.admit(kind, Instant::now()) {
            Some(0) => tracing::warn!("{text}"),
            Some(n) => tracing::warn!("{text} (and {n} more of the kind since the last line)"),
            None => {}
        }
    }

    /// How many lines of this kind were suppressed before this one; `None` when this one is, too.
    fn admit(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = kinds.get_mut(kind) else {
            kinds.insert(kind, Kind { last: now, suppressed: 0 });
            return Some(0);
        };
        if now.duration_since(seen.last) < QUIET {
            seen.suppressed += 1;
            return None;
        }
        seen.last = now;
        Some(std::mem::take(&mut seen.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a24_one_line_a_second_of_each_kind_and_none_is_lost_silently() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.admit("a", start), Some(0));
        assert_eq!(refusals.admit("a", start), None);
        assert_eq!(refusals.admit("b", start), Some(0));
        assert_eq!(refusals.admit("a", start + Duration::from_millis(999)), None);
        assert_eq!(refusals.admit("a", start + QUIET), Some(2));
        assert_eq!(refusals.admit("a", start + 2 * QUIET), Some(0));
    }
}
