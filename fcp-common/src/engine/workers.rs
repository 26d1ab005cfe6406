//! Threads for what takes long: hashing. They start at the first job and end with the session.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::session::{Role, Session, spawn};

/// Hashing is bound by the disk or by one core each; two keep both busy.
const THREADS: usize = 2;
/// How long the end of a session waits for jobs that are under way.
const REST: Duration = Duration::from_secs(1);

type Job<R> = Box<dyn FnOnce(&Session<R>) + Send>;

/// A queue of jobs. Its length is bounded by the entries that may be unfinished.
pub(super) struct Workers<R: Role> {
    state: Arc<(Mutex<State<R>>, Condvar)>,
}

struct State<R: Role> {
    jobs: VecDeque<Job<R>>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
}

impl<R: Role> Default for Workers<R> {
    fn default() -> Self {
        let state = State { jobs: VecDeque::new(), threads: Vec::new(), idle: 0 };
        Workers { state: Arc::new((Mutex::new(state), Condvar::new())) }
    }
}

impl<R: Role> Workers<R> {
    /// Runs `job` soon, on a worker, or here when no thread can be had.
    pub(super) fn run(&self, session: &Session<R>, job: impl FnOnce(&Session<R>) + Send + 'static) {
        let (lock, ready) = &*self.state;
        let mut state = locked(lock);
        if state.idle == 0 && state.threads.len() < THREADS {
            match session.shared().and_then(|shared| self.start(shared)) {
                Some(thread) => state.threads.push(thread),
                None if state.threads.is_empty() => {
                    drop(state);
                    return job(session);
                }
                None => {}
            }
        }
        state.jobs.push_back(Box::new(job));
        ready.notify_one();
    }

    /// The session is over: sends the threads home, so that what they hold of it, the journal's
    /// lock above all, is let go before its end is told. Whoever hashes for long is not waited for.
    pub(super) fn end(&self) {
        let (lock, ready) = &*self.state;
        let threads = std::mem::take(&mut locked(lock).threads);
        ready.notify_all();
        let deadline = Instant::now() + REST;
        while Instant::now() < deadline && !threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A thread that panicked has told so itself.
        threads.into_iter().filter(JoinHandle::is_finished).for_each(|t| drop(t.join()));
    }

    fn start(&self, session: Arc<Session<R>>) -> Option<JoinHandle<()>> {
        let state = Arc::clone(&self.state);
        spawn("fcp-work", move || work(&session, &state)).ok()
    }
}

fn work<R: Role>(session: &Session<R>, (lock, ready): &(Mutex<State<R>>, Condvar)) {
    loop {
        let mut state = locked(lock);
        while state.jobs.is_empty() && !session.is_over() {
            state.idle += 1;
            let woken = ready.wait_timeout(state, Duration::from_millis(500));
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
        }
        let Some(job) = state.jobs.pop_front() else { return };
        drop(state);
        if !session.is_over() {
            job(session);
        }
    }
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // No job runs while this is held.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
