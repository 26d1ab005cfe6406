//! A running ssh: started with pipes, watched until it ends, ended and reaped when dropped.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{self, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::pipes::Pipes;

/// How long a program may take to end once it was told to.
const TERMINATE: Duration = Duration::from_secs(1);

/// The programs that may still run; none once no more may start.
static STARTED: Mutex<Option<Vec<Weak<Process>>>> = Mutex::new(Some(Vec::new()));

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
pub(super) struct Child(Arc<Process>);

/// Starts a program with a pipe to its standard input and one from its standard output. It stays
/// in our process group, so that it may read the terminal and Ctrl-C reaches it.
///
/// # Errors
/// `NotFound` where there is no such program; others once all were ended.
pub(super) fn start(args: &[OsString], errors: Errors) -> io::Result<(Arc<Child>, Pipes)> {
    let stderr = if errors == Errors::Shown { Stdio::inherit() } else { Stdio::null() };
    start_into(args, stderr)
}

/// As [`start`], with somewhere else to complain.
pub(super) fn start_into(args: &[OsString], stderr: Stdio) -> io::Result<(Arc<Child>, Pipes)> {
    let (program, rest) = args.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(rest).stderr(stderr);
    launch(command)
}

/// As [`start`], for a command whose standard error and environment are set already.
pub(super) fn launch(mut command: Command) -> io::Result<(Arc<Child>, Pipes)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let (child, stdin, stdout) = spawn(&mut command)?;
    // From here on dropping the child ends it, also when something below fails.
    let child = Arc::new(child);
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(io::Error::other("a pipe that was asked for is missing"));
    };
    let pipes = Pipes::new(OwnedFd::from(stdout), OwnedFd::from(stdin))?;
    Ok((child, pipes))
}

/// Ends every program that was started and not let go, and allows no more: for a process that is
/// about to exit while something waits for them.
pub fn end_all() {
    let Some(started) = started().take() else { return };
    let running = started.iter().filter_map(Weak::upgrade).filter(|p| !p.is_let_go());
    // Further ones first: a master would wait for them.
    let running: Vec<_> = running.rev().collect();
    for signal in [Signal::TERM, Signal::KILL] {
        running.iter().for_each(|process| process.signal(signal));
        let end = Instant::now() + TERMINATE;
        if running.iter().all(|process| process.wait_until(end).is_some()) {
            return;
        }
    }
}

/// Starts a program under the lock, so that none is missed by who ends them all.
fn spawn(command: &mut Command) -> io::Result<(Child, Option<ChildStdin>, Option<ChildStdout>)> {
    let mut started = started();
    let list = started.as_mut().ok_or_else(|| io::Error::other("fcp is about to end"))?;
    let mut process = command.spawn()?;
    let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
    let child = Child::watch(process)?;
    list.retain(|process| process.strong_count() > 0);
    list.push(Arc::downgrade(&child.0));
    Ok((child, stdin, stdout))
}

/// Nothing that runs under the lock leaves the list half changed.
fn started() -> MutexGuard<'static, Option<Vec<Weak<Process>>>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Child {
    /// Waits until it ends or the moment comes.
    pub(super) fn wait_until(&self, end: Instant) -> Option<ExitStatus> {
        self.0.wait_until(end)
    }

    /// How it ended, if it did.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        self.0.lock().status
    }

    /// Calls `then` once it ends, on the thread that watches it, or at once if it has.
    pub(super) fn on_exit(&self, then: impl FnOnce(ExitStatus) + Send + 'static) {
        let mut state = self.0.lock();
        let Some(status) = state.status else {
            return state.then.push(Box::new(then));
        };
        drop(state);
        then(status);
    }

    /// From now on dropping it leaves it running. It ends by itself when its pipes are closed, or
    /// later, when others use its connection, too.
    pub(super) fn let_go(&self) {
        self.0.let_go.store(true, Ordering::Relaxed);
    }

    /// Tells it to end, unless it was let go or ends by itself until then.
    pub(super) fn terminate(&self, end: Instant) {
        if !self.0.is_let_go() && self.wait_until(end).is_none() {
            self.0.signal(Signal::TERM);
        }
    }

    /// Ends it now, unless it was let go.
    pub(super) fn end(&self) {
        if self.0.is_let_go() {
            return;
        }
        for signal in [Signal::TERM, Signal::KILL] {
            self.0.signal(signal);
            if self.wait_until(Instant::now() + TERMINATE).is_some() {
                return;
            }
        }
    }

    fn watch(process: process::Child) -> io::Result<Child> {
        // A process id is never 0 or above what fits.
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a program without a process id"))?;
        let (let_go, state, changed) = Default::default();
        let child = Child(Arc::new(Process { pid, let_go, state, changed }));
        let watcher = Arc::clone(&child.0);
        let name = thread::Builder::new().name("ssh-watch".to_owned());
        name.spawn(move || watcher.watch(process))?;
        Ok(child)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

type Then = Box<dyn FnOnce(ExitStatus) + Send>;

/// A program until it ends, how it ended, and who wants to know. The thread that watches it holds
/// it until then, whoever else has dropped it.
struct Process {
    pid: Pid,
    let_go: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    status: Option<ExitStatus>,
    then: Vec<Then>,
}

impl Process {
    /// Nothing that runs under the lock leaves the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }

    fn watch(&self, mut process: process::Child) {
        // Not reaped before the lock is held, so that nobody signals a process id that is free.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(self.pid), options).is_err_and(|error| error == Errno::INTR) {}
        let mut state = self.lock();
        let Ok(status) = process.wait() else { return };
        state.status = Some(status);
        let then = std::mem::take(&mut state.then);
        drop(state);
        self.changed.notify_all();
        then.into_iter().for_each(|then| then(status));
    }

    fn signal(&self, signal: Signal) {
        let state = self.lock();
        if state.status.is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    fn wait_until(&self, end: Instant) -> Option<ExitStatus> {
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, |s| s.status.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.status
    }
}

impl std::fmt::Debug for Process {
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
            let pid = child.0.pid;
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
        let process = Arc::clone(&child.0);
        drop(child);
        assert!(process.lock().status.is_none());
        drop(pipes);
        assert!(process.wait_until(Instant::now() + Duration::from_secs(10)).is_some());
    }
}
