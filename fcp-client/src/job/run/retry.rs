//! When a file is tried again, and when a host is given up.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::location::{LocationError, Op};

/// No wait is longer, however many tries there were.
const LONGEST: Duration = Duration::from_secs(300);

/// How many files have to run out of tries, with no success anywhere since their first one, before
/// their host is dead. A connection that cannot be made counts at once.
const DEAD_AFTER: u32 = 3;

/// The wait before try `attempt` + 1: `base`, doubled for each further one, of which `random` (all
/// of `u32`) takes away up to a half, so that what failed together does not come back together.
pub(super) fn delay(base: Duration, attempt: u32, random: u32) -> Duration {
    let doubled = base.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    let taken = doubled.as_secs_f64() / 2.0 * f64::from(random) / f64::from(u32::MAX);
    doubled.saturating_sub(Duration::from_secs_f64(taken))
}

/// Random bits, for names and waits.
pub(super) fn random() -> u32 {
    let mut bytes = [0; 4];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty()).unwrap_or(0);
    // Without a random source the time does: nothing here is a secret.
    if filled < bytes.len() {
        return std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.subsec_nanos());
    }
    u32::from_ne_bytes(bytes)
}

/// Knows when a host is dead, so that not every file has to find out for itself.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_success: Option<Instant>,
    exhausted: u32,
}

impl Breaker {
    /// Something worked.
    pub(super) fn succeeded(&self, now: Instant) {
        let mut state = self.lock();
        state.last_success = Some(now);
        state.exhausted = 0;
    }

    /// A file ran out of tries for this transient error, the first of which was at `since`; whether
    /// the host is dead now.
    pub(super) fn exhausted(&self, since: Instant, error: &LocationError) -> bool {
        let mut state = self.lock();
        if state.last_success.is_some_and(|last| last >= since) {
            return false;
        }
        state.exhausted += 1;
        error.op == Op::Connect || state.exhausted >= DEAD_AFTER
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Reason;

    fn lost(op: Op) -> LocationError {
        LocationError {
            place: "there".to_owned(),
            op,
            path: "a".to_owned(),
            reason: Reason::Lost,
            text: "gone".to_owned(),
        }
    }

    #[test]
    fn s25_waits_double_and_spread() {
        let base = Duration::from_secs(10);
        assert_eq!(delay(base, 1, 0), base);
        assert_eq!(delay(base, 3, 0), base * 4);
        assert_eq!(delay(base, 1, u32::MAX), base / 2);
        assert_eq!(delay(base, u32::MAX, 0), LONGEST);
        assert_eq!(delay(Duration::ZERO, 5, 7), Duration::ZERO);
    }

    #[test]
    fn s26_a_host_is_dead_when_nothing_worked_since() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert!(!breaker.exhausted(start, &lost(Op::Read)));
        assert!(!breaker.exhausted(start, &lost(Op::Read)));
        breaker.succeeded(start + Duration::from_secs(1));
        assert!(!breaker.exhausted(start, &lost(Op::Connect)), "another file was well meanwhile");
        let later = start + Duration::from_secs(2);
        assert!(!breaker.exhausted(later, &lost(Op::Read)));
        assert!(breaker.exhausted(later, &lost(Op::Connect)));
    }
}
