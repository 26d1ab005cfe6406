//! A running ssh: started with pipes, watched until it ends, ended and reaped when dropped.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::pipes::Pipes;

/// How long a program may take to end once it was told to.
const TERMINATE: Duration = Duration::from_secs(1);

/// Where a program complains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errors {
    /// On our standard error, as it may also ask there.
    Shown,
    /// Nowhere.
    Nowhere,
}

/// A running program. Dropping it ends and reaps it, unless it was let go.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    ended: Arc<Ended>,
    let_go: AtomicBool,
}

/// Starts a program with a pipe to its standard input and one from its standard output. It stays
/// in our process group, so that it may read the terminal and Ctrl-C reaches it.
///
/// # Errors
/// `NotFound` where there is no such program.
pub(super) fn start(args: &[OsString], errors: Errors) -> io::Result<(Arc<Child>, Pipes)> {
    let (program, rest) = args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let stderr = if errors == Errors::Shown { Stdio::inherit() } else { Stdio::null() };
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
    let mut process = command.spawn()?;
    let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
    // From here on dropping the child ends it, also when something below fails.
    let child = Arc::new(Child::watch(process)?);
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(io::Error::other("a pipe that was asked for is missing"));
    };
    let pipes = Pipes::new(OwnedFd::from(stdout), OwnedFd::from(stdin))?;
    Ok((child, pipes))
}

impl Child {
    /// Waits until it ends or the moment comes.
    pub(super) fn wait_until(&self, end: Instant) -> Option<ExitStatus> {
        self.ended.wait_until(end)
    }

    /// How it ended, if it did.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.ended.lock().status
    }

    /// Calls `then` once it ends, on the thread that watches it, or at once if it has.
    pub(super) fn on_exit(&self, then: impl FnOnce(ExitStatus) + Send + 'static) {
        let mut state = self.ended.lock();
        let Some(status) = state.status else {
            return state.then.push(Box::new(then));
        };
        drop(state);
        then(status);
    }

    /// From now on dropping it leaves it running. It ends by itself when its pipes are closed, or
    /// later, when others use its connection, too.
    pub(super) fn let_go(&self) {
        self.let_go.store(true, Ordering::Relaxed);
    }

    /// Tells it to end, unless it was let go or ends by itself until then.
    pub(super) fn terminate(&self, end: Instant) {
        if !self.is_let_go() && self.wait_until(end).is_none() {
            self.ended.signal(self.pid, Signal::TERM);
        }
    }

    /// Ends it now, unless it was let go.
    pub(super) fn end(&self) {
        if self.is_let_go() {
            return;
        }
        for signal in [Signal::TERM, Signal::KILL] {
            self.ended.signal(self.pid, signal);
            if self.wait_until(Instant::now() + TERMINATE).is_some() {
                return;
            }
        }
    }

    fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }

    fn watch(process: process::Child) -> io::Result<Child> {
        // A process id is never 0 or above what fits.
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a program without a process id"))?;
        let ended = Arc::new(Ended::default());
        let watcher = Arc::clone(&ended);
        let name = thread::Builder::new().name("ssh-watch".to_owned());
        let child = Child { pid, ended, let_go: AtomicBool::new(false) };
        name.spawn(move || watcher.watch(pid, process))?;
        Ok(child)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

type Then = Box<dyn FnOnce(ExitStatus) + Send>;

/// How a program ended, and who wants to know.
#[derive(Default)]
struct Ended {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    status: Option<ExitStatus>,
    then: Vec<Then>,
}

impl Ended {
    /// Nothing that runs under the lock leaves the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, pid: Pid, mut process: process::Child) {
        // Not reaped before the lock is held, so that nobody signals a process id that is free.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), options).is_err_and(|error| error == Errno::INTR) {}
        let mut state = self.lock();
        let Ok(status) = process.wait() else { return };
        state.status = Some(status);
        let then = std::mem::take(&mut state.then);
        drop(state);
        self.changed.notify_all();
        then.into_iter().for_each(|then| then(status));
    }

    fn signal(&self, pid: Pid, signal: Signal) {
        let state = self.lock();
        if state.status.is_none() {
            let _ = kill_process(pid, signal);
        }
    }

    fn wait_until(&self, end: Instant) -> Option<ExitStatus> {
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, |s| s.status.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.status
    }
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lock().status.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::sync::mpsc;

    fn shell(script: &str) -> (Arc<Child>, Pipes) {
        start(&["sh".into(), "-c".into(), script.into()], Errors::Nowhere).unwrap()
    }

    fn is_gone(pid: Pid) -> bool {
        kill_process(pid, Signal::CONT).is_err()
    }

    #[test]
    fn a_dropped_child_is_ended_and_reaped_even_if_it_does_not_want_to() {
        for script in ["exec sleep 100", "trap '' TERM; echo x; while :; do sleep 1; done"] {
            let (child, mut pipes) = shell(script);
            if script.starts_with("trap") {
                pipes.read_exact(&mut [0; 2]).unwrap();
            }
            let pid = child.pid;
            drop(child);
            assert!(is_gone(pid), "{script}");
        }
    }

    #[test]
    fn whoever_asks_is_told_how_it_ended() {
        let (child, mut pipes) = shell("read x; exit 7");
        let (tell, told) = mpsc::channel();
        let second = tell.clone();
        child.on_exit(move |status| tell.send(status.code()).unwrap());
        assert_eq!(child.ended(), None);
        pipes.write_all(b"\n").unwrap();
        assert_eq!(told.recv().unwrap(), Some(7));
        child.on_exit(move |status| second.send(status.code()).unwrap());
        assert_eq!(told.recv().unwrap(), Some(7));
    }

    #[test]
    fn one_that_was_let_go_ends_by_itself() {
        let (child, pipes) = shell("cat");
        child.let_go();
        let ended = Arc::clone(&child.ended);
        drop(child);
        assert!(ended.lock().status.is_none());
        drop(pipes);
        assert!(ended.wait_until(Instant::now() + Duration::from_secs(10)).is_some());
    }
}
