//! `on_success` and `on_failure`: a command of the shell that is told the summary.

use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::job::report::JobSummary;
use crate::job::spec::{CredentialSpec, End, JobSpec, SecretSource};

/// How long a hook may take.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How often we look whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long its output is waited for once it ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Lines of its output that are kept, and bytes of one.
const LINES: usize = 256;
const LINE: u64 = 4096;

/// What a hook came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// What it wrote to its standard output and standard error, as far as it is kept: 256 lines.
    pub lines: Vec<String>,
    /// In words: it cannot be started, fails, or takes too long. What the job did stays done.
    pub failure: Option<String>,
}

/// Runs the hook for this end of a job, if it has one, with the summary as JSON on its standard
/// input. Blocks until it ends, five minutes at most.
pub fn run(spec: &JobSpec, summary: &JobSummary) -> Heard {
    let (key, command) = match summary.exit_code {
        0 => ("on_success", &spec.on_success),
        _ => ("on_failure", &spec.on_failure),
    };
    let Some(command) = command else { return Heard::default() };
    let json = serde_json::to_string(summary).unwrap_or_default();
    let (lines, ended) = run_within(command, &json, &secret_names(spec), PATIENCE);
    Heard { lines, failure: ended.err().map(|why| format!("{key}: {why}")) }
}

/// The variables that hold the job's secrets: a hook has no use for them, and may log what it has.
fn secret_names(spec: &JobSpec) -> Vec<String> {
    let logins = [&spec.source, &spec.destination].into_iter().filter_map(|end| match end {
        End::Local { .. } => None,
        End::Sftp { login, .. } => Some(login),
    });
    let sources = logins.flat_map(|login| &login.credentials).filter_map(|one| match one {
        CredentialSpec::Password(source) => Some(source),
        CredentialSpec::KeyFile { passphrase, .. } => passphrase.as_ref(),
        CredentialSpec::Agent => None,
    });
    sources
        .filter_map(|source| match source {
            SecretSource::Env(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn run_within(
    command: &str,
    input: &str,
    without: &[String],
    patience: Duration,
) -> (Vec<String>, Result<(), String>) {
    let (mut child, output) = match start(command, without) {
        Ok(started) => started,
        Err(why) => return (Vec::new(), Err(format!("the command cannot be started: {why}"))),
    };
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // It may read nothing, and a pipe holds only so much. The thread ends with the pipe.
        let _ = std::thread::Builder::new().name("hook".to_owned()).spawn(move || {
            let _ = writeln!(stdin, "{input}");
        });
    }
    let (told, heard) = mpsc::sync_channel(LINES);
    let reading = std::thread::Builder::new().name("hook output".to_owned());
    let reading = reading.spawn(move || listen(output, &told));
    let ended = wait(&mut child, patience).and_then(|status| match status.success() {
        true => Ok(()),
        false => Err(format!("the command failed ({status})")),
    });
    // What it started and left behind may hold the pipe for ever.
    let until = Instant::now() + LAST_WORDS;
    while reading.as_ref().is_ok_and(|thread| !thread.is_finished()) && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
    (heard.try_iter().collect(), ended)
}

/// The command, `without` these variables, and the end of the pipe that it writes both outputs to.
fn start(command: &str, without: &[String]) -> std::io::Result<(Child, PipeReader)> {
    let (output, theirs) = std::io::pipe()?;
    let mut shell = Command::new("/bin/sh");
    for name in without {
        shell.env_remove(name);
    }
    let child = shell
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(theirs.try_clone()?)
        .stderr(theirs)
        // A group of its own, so that what it starts ends with it.
        .process_group(0)
        .spawn()?;
    Ok((child, output))
}

/// Reads to the end, so that the command is never held up; what there is no room for is dropped.
fn listen(output: PipeReader, told: &mpsc::SyncSender<String>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while let Ok(1..) = output.by_ref().take(LINE).read_until(b'\n', &mut line) {
        let _ = told.try_send(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus, String> {
    let until = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
            Ok(None) => {
                end(child);
                return Err(format!("it took longer than {} s and was ended", patience.as_secs()));
            }
            Err(why) => return Err(format!("nothing is known of the command: {why}")),
        }
    }
}

fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_reads_the_summary() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("told");
        let command = format!("cat > {}", file.display());
        let large = "x".repeat(1 << 20);
        run_within(&command, &large, &[], PATIENCE).1.unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap().trim_end(), large);
    }

    #[test]
    fn a_hook_has_none_of_the_secrets() {
        // It stands for a secret: tests cannot set variables.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let command = "test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\"";
        run_within(command, "{}", &["CARGO_MANIFEST_DIR".to_owned()], PATIENCE).1.unwrap();
    }

    #[test]
    fn a_hook_that_fails_or_stays_is_told() {
        let (lines, ended) = run_within("echo out; echo err >&2; exit 3", "{}", &[], PATIENCE);
        assert!(ended.unwrap_err().contains('3'));
        assert_eq!(lines, ["out", "err"]);
        let (lines, ended) = run_within("yes | head -c 1000000", "{}", &[], PATIENCE);
        assert_eq!((lines.len(), ended), (LINES, Ok(())));
        let began = Instant::now();
        let error = run_within("sleep 100 & sleep 100", "{}", &[], Duration::from_millis(50));
        assert!(error.1.unwrap_err().contains("was ended"));
        assert!(began.elapsed() < Duration::from_secs(10));
        // One that reads nothing does not hold us up.
        run_within("true", &"x".repeat(1 << 20), &[], PATIENCE).1.unwrap();
    }
}
