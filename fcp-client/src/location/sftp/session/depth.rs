//! How many requests of a range should be on their way: pure.
//!
//! Too few leave a long path idle; too many only make the server's buffers grow (four connections
//! with 16 MiB each on their way made a local download twice as slow). By Little's law, what is on
//! its way is rate times round trip; what is needed is rate times the *shortest* round trip, and
//! the rest waits in queues. So it grows while what is needed is nearly what there is.

use std::time::Duration;

/// Requests to begin with: 4 MiB.
pub(super) const START: usize = 16;
/// Requests at most: 16 MiB.
pub(super) const MAX: usize = 64;

/// The policy. `now` is any clock that goes forward.
#[derive(Debug)]
pub(super) struct Depth {
    limit: usize,
    cap: usize,
    shortest: Duration,
    began: Duration,
    replies: usize,
}

impl Depth {
    pub(super) fn new() -> Self {
        Depth { limit: START, cap: MAX, shortest: Duration::MAX, began: Duration::ZERO, replies: 0 }
    }

    /// Requests that may be on their way.
    pub(super) fn limit(&self) -> usize {
        self.limit.min(self.cap)
    }

    /// Sets the most that may be on their way.
    pub(super) fn cap(&mut self, cap: usize) {
        self.cap = cap.clamp(1, MAX);
    }

    /// The first request after none were on their way: the time before says nothing.
    pub(super) fn handle_start(&mut self, now: Duration) {
        self.began = now;
        self.replies = 0;
    }

    /// A reply came, `took` after its request.
    pub(super) fn handle_reply(&mut self, now: Duration, took: Duration) {
        self.shortest = self.shortest.min(took);
        self.replies += 1;
        if self.replies >= self.limit() {
            self.handle_round(now.saturating_sub(self.began));
            self.handle_start(now);
        }
    }

    fn handle_round(&mut self, elapsed: Duration) {
        let needed = self.shortest.as_secs_f64() * self.replies as f64 / elapsed.as_secs_f64();
        let limit = self.limit() as f64;
        if needed >= 0.75 * limit {
            self.limit = (self.limit() * 3 / 2).clamp(2, MAX);
        } else if needed < limit / 3.0 {
            self.limit = (self.limit * 2 / 3).max(START);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that gives each of 255 KiB `rate` bytes a second, `rtt` after it was asked for.
    fn run(depth: &mut Depth, rtt: f64, rate: f64, replies: usize) -> f64 {
        let each = 255.0 * 1024.0 / rate;
        let mut now = 0.0;
        let mut free_at = 0.0_f64;
        let mut queue = std::collections::VecDeque::new();
        depth.handle_start(Duration::ZERO);
        let send = |now: f64, free_at: &mut f64| {
            *free_at = free_at.max(now + rtt) + each;
            (now, *free_at)
        };
        for _ in 0..replies {
            while queue.len() < depth.limit() {
                queue.push_back(send(now, &mut free_at));
            }
            let (sent, at) = queue.pop_front().unwrap();
            now = at;
            depth.handle_reply(Duration::from_secs_f64(now), Duration::from_secs_f64(now - sent));
        }
        replies as f64 * 255.0 * 1024.0 / now
    }

    #[test]
    fn near_servers_are_not_flooded() {
        let mut depth = Depth::new();
        run(&mut depth, 0.0002, 700e6, 4000);
        assert_eq!(depth.limit(), START);
    }

    #[test]
    fn far_and_fast_servers_get_all() {
        let mut depth = Depth::new();
        let rate = run(&mut depth, 0.05, 1e9, 2000);
        assert_eq!(depth.limit(), MAX);
        assert!(rate > 250e6, "{rate}");
    }

    #[test]
    fn far_and_slow_servers_are_not_flooded() {
        // 12.5 MB/s over 50 ms: 2.5 requests are enough.
        let mut depth = Depth::new();
        let rate = run(&mut depth, 0.05, 12.5e6, 1000);
        assert_eq!(depth.limit(), START);
        assert!(rate > 12e6, "{rate}");
    }

    #[test]
    fn it_takes_back_what_is_no_longer_needed() {
        let mut depth = Depth::new();
        run(&mut depth, 0.05, 1e9, 2000);
        run(&mut depth, 0.05, 12.5e6, 2000);
        assert_eq!(depth.limit(), START);
    }

    #[test]
    fn a_cap_holds() {
        let mut depth = Depth::new();
        depth.cap(4);
        run(&mut depth, 0.05, 1e9, 2000);
        assert_eq!(depth.limit(), 4);
        depth.cap(0);
        assert_eq!(depth.limit(), 1);
    }

    #[test]
    fn odd_clocks_do_no_harm() {
        let mut depth = Depth::new();
        for _ in 0..1000 {
            depth.handle_reply(Duration::ZERO, Duration::ZERO);
            depth.handle_reply(Duration::MAX, Duration::MAX);
        }
        assert!((1..=MAX).contains(&depth.limit()));
    }
}
