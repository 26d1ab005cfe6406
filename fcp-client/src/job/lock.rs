//! One run of a job at a time, on this machine.

use std::path::{Path, PathBuf};

use fcp_common::private::{self, Fate, Held, PrivateError, Process};

/// The longest file name that a job's key may make, in bytes.
const MAX_NAME: usize = 180;

/// The right to run a job; given back when dropped, and when the process ends in any way, so that
/// no lock is ever stale.
#[derive(Debug)]
pub struct JobLock {
    _held: Held,
}

/// Why a job cannot be run now.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it: exit code 75.
    #[error("job {job}: {by} is running it already; wait for that one, or stop it")]
    Held {
        /// The job's key.
        job: String,
        /// `process PID on HOST since TIME`.
        by: String,
    },
    /// The lock file cannot be used.
    #[error("job {job}: its lock {error}")]
    Failed {
        /// The job's key.
        job: String,
        /// Why.
        error: PrivateError,
    },
}

/// Who runs a job.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its host.
    pub host: String,
    /// Since when, in seconds since the epoch.
    pub since: i64,
}

impl JobLock {
    /// Locks `job` in the state directory `state`; `now` in seconds since the epoch is noted for
    /// people. A job has one lock for all its years: they share folders around New Year.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(state: &Path, job: &str, now: i64) -> Result<JobLock, LockError> {
        let failed = |error| LockError::Failed { job: fcp_proto::escape_text(job), error };
        private::own_dirs(state).map_err(failed)?;
        match private::hold(&file(state, job), &note(&Process::own(), now)).map_err(failed)? {
            Ok(held) => Ok(JobLock { _held: held }),
            Err(note) => Err(LockError::Held {
                job: fcp_proto::escape_text(job),
                by: parse(&note).map_or_else(|| "another process".to_owned(), |(_, it)| it.text()),
            }),
        }
    }
}

impl Holder {
    fn text(&self) -> String {
        let since = jiff::Timestamp::from_second(self.since).map(|at| at.to_string());
        let host = fcp_proto::escape_text(&self.host);
        format!("process {} on {host} since {}", self.pid, since.unwrap_or_default())
    }
}

/// Who runs `job` now, by its lock in the state directory `state`. Nothing is locked for it, so
/// that nobody who asks keeps a run from starting.
pub fn holder(state: &Path, job: &str) -> Option<Holder> {
    let (process, holder) = parse(&private::holder(&file(state, job))?)?;
    // A killed run left its note.
    (process.fate(&Process::own()) != Fate::Dead).then_some(holder)
}

fn file(state: &Path, job: &str) -> PathBuf {
    state.join("locks").join(format!("{}.lock", file_name(job)))
}

/// A job's key as a part of a file name: letters, digits, `-`, `_` and inner dots stay; a long one
/// is cut and told from others by a digest.
pub(super) fn file_name(job: &str) -> String {
    let mut name = String::new();
    for (at, byte) in job.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if at > 0 => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > MAX_NAME {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(job.as_bytes());
        name.truncate(MAX_NAME - 17);
        name.push('~');
        digest.iter().take(8).for_each(|byte| name.push_str(&format!("{byte:02x}")));
    }
    name
}

/// `pid host start since world`, each but the last without blanks.
fn note(process: &Process, now: i64) -> String {
    let host = process.host.replace(char::is_whitespace, "_");
    format!("{} {host} {} {now} {}\n", process.pid, process.start, process.world)
}

fn parse(note: &str) -> Option<(Process, Holder)> {
    let mut words = note.trim().splitn(5, ' ');
    let pid = words.next()?.parse().ok()?;
    let host = words.next()?.to_owned();
    let start = words.next()?.parse().ok()?;
    let since = words.next()?.parse().ok()?;
    let world = words.next().unwrap_or_default().to_owned();
    let holder = Holder { pid, host: host.clone(), since };
    Some((Process { host, world, pid, start }, holder))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn s24_a_second_run_is_told_who_holds_the_job_and_others_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("fcp");
        let lock = JobLock::take(&state, "EPSILON", 1_790_000_000).unwrap();
        let refused = JobLock::take(&state, "EPSILON", 0).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {} on ", std::process::id())), "{refused}");
        assert!(refused.contains("since 2026-09-21"), "{refused}");
        JobLock::take(&state, "OTHER", 0).unwrap();
        assert_eq!(holder(&state, "EPSILON").unwrap().pid, std::process::id());
        drop(lock);
        assert_eq!(holder(&state, "EPSILON"), None);
        JobLock::take(&state, "EPSILON", 0).unwrap();
    }

    #[test]
    fn s24_the_note_of_a_killed_run_keeps_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("fcp");
        drop(JobLock::take(&state, "A", 0).unwrap());
        let own = Process::own();
        let earlier = Process { start: own.start - 1, ..own };
        fs::write(file(&state, "A"), note(&earlier, 0)).unwrap();
        assert_eq!(holder(&state, "A"), None);
        JobLock::take(&state, "A", 0).unwrap();
    }

    /// Not a test: what the next one starts and kills.
    #[test]
    #[ignore = "a part of another test"]
    fn child() {
        let Some(state) = std::env::var_os("FCP_TEST_STATE") else { return };
        let _lock = JobLock::take(Path::new(&state), "A", 0).unwrap();
        println!("\nlocked");
        std::thread::sleep(std::time::Duration::from_secs(60));
    }

    #[test]
    fn s24_kill_9_gives_the_lock_back() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("fcp");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "job::lock::tests::child", "--ignored", "--nocapture"])
            .env("FCP_TEST_STATE", &state)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map(Result::unwrap).any(|line| line == "locked"));
        let refused = JobLock::take(&state, "A", 0).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {} on ", child.id())), "{refused}");
        assert_eq!(holder(&state, "A").unwrap().pid, child.id());
        child.kill().unwrap();
        // Until its parent asks, a killed process is still listed; it holds nothing any more.
        while JobLock::take(&state, "A", 0).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert_eq!(holder(&state, "A"), None);
    }

    #[test]
    fn j10_a_key_makes_no_path() {
        assert_eq!(file_name("../../x"), "%2E.%2F..%2Fx");
        assert_eq!(file_name("a b\u{e9}"), "a%20b%C3%A9");
        let (long, other) = ("x".repeat(400), "x".repeat(401));
        assert!(file_name(&long).len() <= MAX_NAME);
        assert_ne!(file_name(&long), file_name(&other));
    }

    #[test]
    fn s24_a_link_in_place_of_the_lock_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("fcp");
        drop(JobLock::take(&state, "A", 0).unwrap());
        fs::remove_file(file(&state, "A")).unwrap();
        std::os::unix::fs::symlink("/dev/null", file(&state, "A")).unwrap();
        assert!(matches!(JobLock::take(&state, "A", 0), Err(LockError::Failed { .. })));
    }
}
