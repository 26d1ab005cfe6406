//! When to try again, and when not. Pure: time and chance are given.

use std::time::{Duration, Instant};

/// Consecutive failures after which a host is left alone.
const FAILURES: u32 = 3;
/// How long at first; each time it fails again, twice as long.
const ALONE: Duration = Duration::from_secs(30);
const MAX_ALONE: Duration = Duration::from_secs(300);
/// How long after a refusal one more is asked for; each time it is refused again, twice as long.
const REFUSED: Duration = Duration::from_secs(15);
const MAX_REFUSED: Duration = Duration::from_secs(300);
/// The first pause of a retry, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How often a server that takes no more connections is asked for its first one.
pub(super) const ATTEMPTS: u32 = 8;

/// How long to wait before attempt `attempt + 1`: twice as long each time, and by chance up to half
/// of that less, so that many do not come at once again.
pub(super) fn pause(attempt: u32, chance: u32) -> Duration {
    let whole = PAUSE.saturating_mul(1 << attempt.min(16)).min(MAX_PAUSE);
    whole - whole.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

/// Keeps everybody from a host that fails again and again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// How long nobody may try; `None` when somebody may.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        // Once open, each single failure opens it again.
        let Some(times) = self.failures.checked_sub(FAILURES) else { return };
        self.until = Some(now + ALONE.saturating_mul(1 << times.min(8)).min(MAX_ALONE));
    }

    pub(super) fn succeeded(&mut self) {
        *self = Breaker::default();
    }
}

/// How many connections a server takes: what we may ask for, less once it refuses, and carefully
/// more after a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cap {
    max: usize,
    now: usize,
    retry: Option<Instant>,
    pause: Duration,
}

impl Cap {
    pub(super) fn new(max: usize) -> Cap {
        Cap { max: max.max(1), now: max.max(1), retry: None, pause: REFUSED }
    }

    /// How many there may be.
    pub(super) fn get(&self, now: Instant) -> usize {
        match self.retry {
            Some(retry) if retry <= now => (self.now + 1).min(self.max),
            _ => self.now,
        }
    }

    /// We may ask for up to `max` from now on.
    pub(super) fn raise(&mut self, max: usize) {
        self.max = self.max.max(max);
        if self.retry.is_none() {
            self.now = self.max;
        }
    }

    /// The server refused one more than `used`.
    pub(super) fn refused(&mut self, used: usize, now: Instant) {
        self.now = used.clamp(1, self.max);
        self.retry = Some(now + self.pause);
        self.pause = self.pause.saturating_mul(2).min(MAX_REFUSED);
    }

    /// There are as many as `used` now.
    pub(super) fn granted(&mut self, used: usize) {
        if used > self.now {
            self.now = used.min(self.max);
            self.pause = REFUSED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_and_differ() {
        assert_eq!(pause(0, 0), Duration::from_millis(200));
        assert_eq!(pause(0, u32::MAX), Duration::from_millis(100));
        assert_eq!(pause(3, 0), Duration::from_millis(1600));
        assert_eq!(pause(u32::MAX, 0), MAX_PAUSE);
    }

    #[test]
    fn s26_a_dead_host_is_left_alone_longer_and_longer() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..2 {
            breaker.failed(now);
            assert_eq!(breaker.left(now), None);
        }
        breaker.failed(now);
        assert_eq!(breaker.left(now + 10 * SECOND), Some(20 * SECOND));
        now += 30 * SECOND;
        assert_eq!(breaker.left(now), None, "somebody may try");
        breaker.failed(now);
        assert_eq!(breaker.left(now), Some(60 * SECOND));
        for _ in 0..100 {
            breaker.failed(now);
        }
        assert_eq!(breaker.left(now), Some(MAX_ALONE));
        breaker.succeeded();
        breaker.failed(now);
        assert_eq!(breaker.left(now), None);
    }

    #[test]
    fn s25_a_cap_falls_at_once_and_rises_one_by_one() {
        let (mut cap, now) = (Cap::new(5), Instant::now());
        assert_eq!(cap.get(now), 5);
        cap.refused(2, now);
        assert_eq!((cap.get(now), cap.get(now + 14 * SECOND)), (2, 2));
        let later = now + 15 * SECOND;
        assert_eq!(cap.get(later), 3);
        cap.refused(2, later);
        assert_eq!(cap.get(later + 15 * SECOND), 2, "twice as long");
        assert_eq!(cap.get(later + 30 * SECOND), 3);
        cap.granted(3);
        assert_eq!(cap.get(later + 30 * SECOND), 4);
        cap.refused(0, later);
        assert_eq!(cap.get(later), 1);
        cap.raise(9);
        assert_eq!(cap.get(later), 1, "what the server refused it still refuses");
        let mut cap = Cap::new(1);
        cap.raise(4);
        assert_eq!(cap.get(now), 4);
    }
}
