//! Every byte printed. Names are escaped, progress goes to a terminal's stderr only.

pub mod exit;
#[cfg(feature = "job")]
pub mod job;
mod json;
mod progress;
mod report;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use exit::ExitStatus;
pub use report::Reporter;

/// Prints a line on stderr; nobody is told when that cannot be done.
pub fn error(text: &str) {
    let _ = writeln!(io::stderr(), "fcp: {text}");
}

/// Tells with `-v` which way is taken, and why.
pub(crate) fn way(verbose: u8, text: std::fmt::Arguments<'_>) {
    if verbose > 0 {
        error(&text.to_string());
    }
}

/// Whether stdout took less than it was given, though its reader had not gone away.
static OUTPUT_FAILED: AtomicBool = AtomicBool::new(false);

/// Prints a line on stdout. A reader that went away is no failure of the transfer.
pub(crate) fn line(text: &str) {
    if let Err(why) = writeln!(io::stdout().lock(), "{text}")
        && why.kind() != io::ErrorKind::BrokenPipe
        && !OUTPUT_FAILED.swap(true, Relaxed)
    {
        error(&format!("cannot write to the standard output: {why}"));
    }
}

fn output_failed() -> bool {
    OUTPUT_FAILED.load(Relaxed)
}

/// Help and version as they are; a usage error as one line that says what to type.
pub fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitStatus::Success.into();
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    if first.ends_with(crate::cli::SEE_JOB_HELP) {
        self::error(first);
        return ExitStatus::Usage.into();
    }
    // The one command that takes something else names it in its errors.
    if text.contains("<show|path>") {
        let first = first.trim_end_matches(':');
        self::error(&format!("{first}; type: fcp config show [HOST] or fcp config path"));
        return ExitStatus::Usage.into();
    }
    let what = match error.kind() {
        ErrorKind::MissingRequiredArgument
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "a source and a destination are needed"
        }
        ErrorKind::UnknownArgument | ErrorKind::ValueValidation => match hint(&text) {
            Some(hint) => hint,
            None => first,
        },
        _ => first,
    };
    self::error(&format!("{what}; type: fcp [OPTIONS] SRC... DST (see fcp --help)"));
    ExitStatus::Usage.into()
}

/// What to do about options that people have in their fingers.
fn hint(text: &str) -> Option<&'static str> {
    const HINTS: [(&str, &str); 9] = [
        ("'--progress'", "--progress is on by default on a terminal"),
        ("'--partial'", "--partial is always on: the next run goes on where this one ended"),
        ("'--rsync-path'", "--rsync-path is --remote-fcpd here"),
        ("'--delete", "--delete is not there yet"),
        ("'--bwlimit'", "--bwlimit is not there yet"),
        ("'-u'", "-u is not there yet"),
        ("'-L'", "-L is not there yet: links are kept as links"),
        ("'-H'", "-H is not there yet: hard links become files of their own"),
        ("for '-P <PORT>'", "-P is ssh's port, as in scp; what rsync's -P stands for is always on"),
    ];
    HINTS.into_iter().find(|(option, _)| text.contains(option)).map(|(_, hint)| hint)
}

/// Logs to stderr: warnings, and more with each `-v` beyond the first.
pub fn init_logging(verbose: u8) {
    let level = match verbose {
        0 | 1 => tracing::Level::WARN,
        2 => tracing::Level::INFO,
        3 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let logger = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false)
        .without_time()
        .with_ansi(false);
    // Set once; in tests a second call finds the first.
    let _ = logger.try_init();
}
