//! What the first ssh says on standard error: all of it is shown, but for a shell's words that
//! there is no fcpd, as a transfer may go on without.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// So long the rest of a line is waited for: a prompt has none.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long what a program said before it ended may take to come through.
const ENDING: Duration = Duration::from_millis(200);
/// The longest line that may be held back, in bytes.
const LONGEST: usize = 400;
/// The most lines that are held back.
const MOST: usize = 20;

/// Shows what comes out of a pipe, on a thread of its own. Dropped, it shows everything.
pub(super) struct Sieve(Arc<Shared>);

/// Where it is shown.
type Show = Box<dyn Fn(&[u8]) + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    ended: Condvar,
    show: Show,
}

#[derive(Debug, Default)]
struct State {
    held: Vec<Vec<u8>>,
    /// Nothing more is held back.
    open: bool,
    ended: bool,
}

impl Sieve {
    /// Shows what comes, but for lines which may say that `command` was not found.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start(errors: OwnedFd, command: &str) -> io::Result<Sieve> {
        // Nobody is left to tell where that fails.
        let show = |bytes: &[u8]| drop(io::stderr().lock().write_all(bytes));
        Sieve::start_to(errors, command, Box::new(show))
    }

    fn start_to(errors: OwnedFd, command: &str, show: Show) -> io::Result<Sieve> {
        let (state, ended) = Default::default();
        let shared = Arc::new(Shared { state, ended, show });
        let (other, name) = (Arc::clone(&shared), program(command).to_owned());
        let thread = thread::Builder::new().name("ssh-errors".to_owned());
        thread.spawn(move || {
            pass(&errors, &other, &name);
            other.lock().ended = true;
            other.ended.notify_all();
        })?;
        Ok(Sieve(shared))
    }

    /// Shows what was held back, and all that comes.
    pub(super) fn open(&self) {
        let mut state = self.0.lock();
        state.open = true;
        state.held.drain(..).for_each(|line| (self.0.show)(&line));
    }

    /// The program has ended so: shows what was held back unless no fcpd was all it was about.
    pub(super) fn finish(&self, status: Option<ExitStatus>) {
        self.settle();
        // What shells say of a command that they do not find, or may not run.
        if matches!(status.and_then(|status| status.code()), Some(126 | 127)) {
            for line in self.0.lock().held.drain(..) {
                tracing::info!("ssh said: {}", fcp_proto::escape(line.trim_ascii()));
            }
        }
        self.open();
    }

    /// Waits a moment for what a program that has ended said last.
    pub(super) fn settle(&self) {
        let end = Instant::now() + ENDING;
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.0.ended.wait_timeout_while(self.0.lock(), left, |state| !state.ended);
        drop(waited);
    }
}

impl Drop for Sieve {
    fn drop(&mut self) {
        self.open();
    }
}

impl std::fmt::Debug for Sieve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.lock().fmt(f)
    }
}

impl Shared {
    /// Nothing that runs under the lock leaves the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a line, or holds it back.
    fn line(&self, line: &[u8], name: &str) {
        let mut state = self.lock();
        if !state.open && state.held.len() < MOST && may_miss(line, name) {
            state.held.push(line.to_vec());
        } else {
            (self.show)(line);
        }
    }
}

/// Passes lines on until nobody writes any more, and what is no line once nothing follows.
fn pass(errors: &OwnedFd, shared: &Shared, name: &str) {
    let (mut buf, mut line, mut begun) = ([0; 4096], Vec::new(), false);
    loop {
        if !line.is_empty() && !follows(errors) {
            // A prompt: it and the rest of its line are shown as they come.
            (shared.show)(&line);
            line.clear();
            begun = true;
        }
        let got = match rustix::io::read(errors, &mut buf) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Ok(got) if got > 0 => got,
            _ => return shared.line(&line, name),
        };
        for part in buf.get(..got).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
            let ends = part.ends_with(b"\n");
            if begun {
                (shared.show)(part);
                begun = !ends;
                continue;
            }
            line.extend_from_slice(part);
            if ends || line.len() > LONGEST {
                shared.line(&line, name);
                line.clear();
                begun = !ends;
            }
        }
    }
}

/// Whether more comes soon, if only the end.
fn follows(errors: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(errors.as_fd(), PollFlags::IN)];
    !matches!(poll(&mut fds, Some(&REST)), Ok(0))
}

/// Whether this may be a shell's or env's word that there is no such program, in any language.
fn may_miss(line: &[u8], name: &str) -> bool {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    text.len() <= LONGEST
        && ((text.starts_with("env: ") && text.contains(name))
            || text.starts_with(&format!("{name}: "))
            || text.contains(&format!("/{name}: "))
            || text.contains(&format!(": {name}: "))
            || text.ends_with(&format!(": {name}")))
}

/// The name of the program that a command line runs.
fn program(command: &str) -> &str {
    let words = command.split_whitespace().next().unwrap_or("fcpd");
    words.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("fcpd")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn words_of_shells_are_known_in_any_language() {
        for line in [
            "env: 'fcpd': No such file or directory\n",
            "env: \u{201e}fcpd\u{201c}: Datei oder Verzeichnis nicht gefunden\r\n",
            "env: can't execute 'fcpd': No such file or directory",
            "bash: line 1: fcpd: command not found",
            "sh: 1: fcpd: not found",
            "fcpd: Command not found.",
            "zsh:1: command not found: fcpd",
            "bash: line 1: ./bin/fcpd: Permission denied",
        ] {
            assert!(may_miss(line.as_bytes(), "fcpd"), "{line}");
        }
        for line in [
            "me@fcpd.example.org: Permission denied (publickey).",
            "ssh: Could not resolve hostname fcpdhost: Name or service not known",
            "Warning: Permanently added 'fcpd' (ED25519) to the list of known hosts.",
            "me@host's password: ",
            "env: 'python': No such file or directory",
        ] {
            assert!(!may_miss(line.as_bytes(), "fcpd"), "{line}");
        }
        assert_eq!(program("~/bin/fcpd --quiet"), "fcpd");
        assert_eq!(program(""), "fcpd");
    }

    /// What is shown of what is written, and what after it ended.
    fn shown(said: &[&str], until: &str, end: impl FnOnce(&Sieve)) -> (String, String) {
        let (errors, complain) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let text = |seen: &Mutex<Vec<u8>>| String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        let out = Arc::clone(&seen);
        let show = move |bytes: &[u8]| out.lock().unwrap().extend_from_slice(bytes);
        let sieve = Sieve::start_to(errors, "fcpd", Box::new(show)).unwrap();
        for part in said {
            rustix::io::write(&complain, part.as_bytes()).unwrap();
        }
        let limit = Instant::now() + Duration::from_secs(10);
        while !text(&seen).ends_with(until) {
            assert!(Instant::now() < limit, "{:?}", text(&seen));
            thread::sleep(Duration::from_millis(2));
        }
        let before = text(&seen);
        drop(complain);
        end(&sieve);
        (before, text(&seen))
    }

    #[test]
    fn what_is_held_back_goes_only_where_no_program_was_found() {
        let said = ["sh: 1: fcpd: not found\n", "banner\n"];
        let end =
            |code: i32| move |sieve: &Sieve| sieve.finish(Some(ExitStatus::from_raw(code << 8)));
        let (before, after) = shown(&said, "banner\n", end(127));
        assert_eq!((&*before, &*after), ("banner\n", "banner\n"));
        let (_, after) = shown(&said, "banner\n", end(255));
        assert_eq!(after, "banner\nsh: 1: fcpd: not found\n");
        let (_, after) = shown(&said, "banner\n", Sieve::open);
        assert_eq!(after, "banner\nsh: 1: fcpd: not found\n");
    }

    #[test]
    fn a_prompt_is_shown_before_its_line_ends() {
        let (before, after) = shown(&["host's word: "], "host's word: ", Sieve::settle);
        assert_eq!(before, after);
    }
}
