//! How many connections a session has, as its round trip and its rate call for. Pure: no clock.
//!
//! A connection moves at most a window per round trip, so a long path needs several, and each one
//! that a short path has beyond the first costs a core something. Nobody knows the window in
//! advance. Hence: begin with a few, double while that helps, and stop at the first step that does
//! not. [`grow`](super::grow) is the thread around it.

use std::time::Duration;

use fcp_common::transfer::Help;

/// A path shorter than this is bound by cores; measured on loopback, where one connection moves
/// 1.5 GB/s and a third one gains nothing.
const SHORT: Duration = Duration::from_millis(2);
/// What a short path gets: a core for each direction at either end.
const ON_SHORT: u16 = 2;
/// What a longer path begins with: together they fill it sooner than one in slow start.
const AT_FIRST: u16 = 4;
/// Where slow start takes longer than a second to fill 1 Gbit/s with one connection.
const FAR: Duration = Duration::from_millis(20);
/// What such a path begins with: each brings an initial window of its own, and together they must
/// not overrun the path's queue. Measured over 100 ms and 1 Gbit/s: more lost segments, fewer windows.
const AT_FIRST_FAR: u16 = 6;
/// The most that nobody asked for.
const MOST: u16 = 16;
/// The same over ssh, where each is a login, of which a host takes ten at once (MaxStartups).
const MOST_LOGINS: u16 = 4;
/// Logins under way at once: a host that counts them shall not count us as an attack.
const LOGINS_AT_ONCE: u16 = 2;
/// How long a step is measured; at least [`STEP_ROUND_TRIPS`].
const STEP: Duration = Duration::from_millis(500);
/// New connections need some round trips to come up to speed.
const STEP_ROUND_TRIPS: u32 = 4;
/// The second half of a step moves this many percent of the first where connections are still in
/// slow start, which more of them would only overrun.
const GROWS_PERCENT: u128 = 150;
/// A step has helped when the rate is this many percent of the one before.
const HELPED_PERCENT: u128 = 110;
/// Bytes in flight per connection below which connections are not what is missing: four segments,
/// the least with which TCP recovers from a loss without waiting for a timeout.
const BUSY: u128 = 4 * 1460;

/// What connections run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// This machine.
    Loopback,
    /// TCP to the other one, with TLS.
    Direct,
    /// Logins of ssh.
    Ssh {
        /// Whether a further login asks nobody anything.
        free_logins: bool,
    },
}

/// What to do after a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Open this many more, at once.
    Open(u16),
}

/// Decides how many connections of one kind a session has.
#[derive(Clone, Debug)]
pub struct Ramp {
    kind: PathKind,
    rtt: Duration,
    /// The most there may ever be.
    most: u16,
    /// Whether `most` is what the user asked for, and the rate is not.
    typed: bool,
    /// Asked for so far, alive or not.
    wanted: u16,
    /// The rate of the last step, in bytes per second.
    rate: Option<u128>,
    window: Option<Window>,
    is_over: bool,
}

/// When the measured step began, and with how many bytes.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Duration,
    bytes: u64,
    /// The same for its second half.
    middle: Option<(Duration, u64)>,
}

/// Bytes per second from one moment, and number of bytes, to another.
fn rate(from: (Duration, u64), to: (Duration, u64)) -> u128 {
    let lasted = to.0.saturating_sub(from.0).as_micros().max(1);
    u128::from(to.1.saturating_sub(from.1)) * 1_000_000 / lasted
}

impl Ramp {
    /// A ramp for connections of `kind`, `rtt` away. There may be `limit` of them (`-j`, or what
    /// was agreed); `typed` says that the user wants exactly those.
    pub fn new(kind: PathKind, rtt: Duration, limit: u16, typed: bool) -> Ramp {
        let most = limit.max(1).min(most_of(kind, rtt, typed));
        let wanted = most.min(first_of(kind, rtt, typed));
        Ramp { kind, rtt, most, typed, wanted, rate: None, window: None, is_over: false }
    }

    /// How many to begin with, in all: the session's first connection counts when it is of this
    /// kind.
    pub fn initial(&self) -> u16 {
        self.most.min(first_of(self.kind, self.rtt, self.typed))
    }

    /// Whether there is nothing more to decide.
    pub fn is_over(&self) -> bool {
        self.is_over || self.wanted >= self.most
    }

    /// Takes in that `bytes_total` have been moved until `now`, which may begin anywhere, and that
    /// `alive` connections are there. Call it several times per second.
    pub fn handle_sample(&mut self, now: Duration, bytes_total: u64, alive: u16) -> Step {
        let under_way = self.wanted.saturating_sub(alive);
        if self.is_over() {
            return Step::Stay;
        }
        if self.typed {
            // Only logins come here: the others are all wanted at first.
            return self.open(LOGINS_AT_ONCE.saturating_sub(under_way));
        }
        if under_way > 0 {
            // Those that are lost are not replaced, so that a path which kills connections does not
            // get ever more of them.
            self.window = None;
            return Step::Stay;
        }
        let Some(rate) = self.measure(now, bytes_total) else { return Step::Stay };
        if rate * self.rtt.as_micros() / 1_000_000 < BUSY * u128::from(alive) {
            return Step::Stay;
        }
        if self.rate.is_some_and(|last| rate * 100 < last * HELPED_PERCENT) {
            self.is_over = true;
            return Step::Stay;
        }
        self.rate = Some(rate);
        self.open(self.wanted)
    }

    /// Takes in that a connection could not be opened: the last word, as whoever refuses one has
    /// no use for more.
    pub fn handle_refused(&mut self) {
        self.is_over = true;
    }

    /// The rate since the step began, once it has lasted long enough and grows no more.
    fn measure(&mut self, now: Duration, bytes: u64) -> Option<u128> {
        let fresh = Window { since: now, bytes, middle: None };
        let window = self.window.get_or_insert(fresh);
        let (begin, lasted) = ((window.since, window.bytes), now.saturating_sub(window.since));
        let enough = STEP.max(self.rtt * STEP_ROUND_TRIPS);
        if lasted < enough {
            if lasted >= enough / 2 {
                window.middle.get_or_insert((now, bytes));
            }
            return None;
        }
        let middle = window.middle;
        self.window = Some(fresh);
        let grows = middle.is_some_and(|middle| {
            rate(middle, (now, bytes)) * 100 >= rate(begin, middle) * GROWS_PERCENT
        });
        (!grows).then(|| rate(begin, (now, bytes)))
    }

    fn open(&mut self, more: u16) -> Step {
        let more = match self.kind {
            PathKind::Ssh { .. } => more.min(LOGINS_AT_ONCE),
            _ => more,
        };
        let more = more.min(self.most.saturating_sub(self.wanted));
        self.wanted += more;
        self.window = None;
        if more == 0 { Step::Stay } else { Step::Open(more) }
    }
}

/// Whether a connection over ssh helps direct ones that have come, on a path with this round trip.
pub fn help(rtt: Duration) -> Help {
    if rtt < FAR { Help::Alone } else { Help::BesideYoung }
}

fn most_of(kind: PathKind, rtt: Duration, typed: bool) -> u16 {
    match kind {
        // Where a login may ask, it is not made for the sake of speed.
        PathKind::Ssh { free_logins: false } => 1,
        _ if typed => u16::MAX,
        PathKind::Ssh { .. } if rtt < SHORT => 1,
        PathKind::Ssh { .. } => MOST_LOGINS,
        PathKind::Loopback => ON_SHORT,
        PathKind::Direct if rtt < SHORT => ON_SHORT,
        PathKind::Direct => MOST,
    }
}

fn first_of(kind: PathKind, rtt: Duration, typed: bool) -> u16 {
    match kind {
        PathKind::Ssh { .. } if typed => 1 + LOGINS_AT_ONCE,
        PathKind::Ssh { .. } => 2,
        _ if typed => u16::MAX,
        PathKind::Loopback => ON_SHORT,
        PathKind::Direct if rtt < SHORT => ON_SHORT,
        PathKind::Direct if rtt < FAR => AT_FIRST,
        PathKind::Direct => AT_FIRST_FAR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSH: PathKind = PathKind::Ssh { free_logins: true };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A path in bytes per second: `link` in all, and a window per connection and round trip.
    struct Path {
        link: u64,
        window: u64,
        rtt: Duration,
    }

    impl Path {
        fn rate(&self, connections: u16) -> u64 {
            let each = self.window as u128 * 1_000_000 / self.rtt.as_micros();
            self.link.min(each as u64 * u64::from(connections))
        }

        /// Runs a session of `seconds`; connections take two round trips. Answers how many it ends
        /// with, and how many were ever under way at once.
        fn run(&self, mut ramp: Ramp, seconds: u64) -> (u16, u16) {
            let (mut alive, mut bytes, mut most_at_once) = (1, 0, 0);
            let mut due = vec![(self.rtt * 2, ramp.initial() - 1)];
            for tick in 0..seconds * 4 {
                let now = ms(tick * 250);
                bytes += self.rate(alive) / 4;
                let (up, rest): (Vec<_>, Vec<_>) = due.into_iter().partition(|(at, _)| *at <= now);
                alive += up.iter().map(|(_, n)| n).sum::<u16>();
                due = rest;
                if let Step::Open(n) = ramp.handle_sample(now, bytes, alive) {
                    due.push((now + self.rtt * 2, n));
                }
                most_at_once = most_at_once.max(due.iter().map(|(_, n)| n).sum());
            }
            (alive, most_at_once)
        }
    }

    #[test]
    fn how_many_there_are_on_which_path() {
        let gigabit = 125_000_000;
        let path = |link, window, rtt| Path { link, window, rtt: ms(rtt) };
        for (name, path, kind, ends_with) in [
            // Four windows of 256 KiB per 100 ms are 10 MB/s: far from the link.
            ("long and thin windows", path(gigabit, 256 << 10, 100), PathKind::Direct, 16),
            // Six fill it, which only the step to twelve can tell.
            ("long and wide windows", path(gigabit, 8 << 20, 100), PathKind::Direct, 12),
            ("a thin link", path(2_000_000, 1 << 20, 19), PathKind::Direct, 8),
            ("hardly anything to send", path(100_000, 1 << 20, 19), PathKind::Direct, 4),
            ("a satellite", path(gigabit, 256 << 10, 600), PathKind::Direct, 16),
            ("next door", path(gigabit * 10, 1 << 20, 1), PathKind::Direct, 2),
            ("ssh next door", path(gigabit, 2 << 20, 1), SSH, 1),
            ("ssh far away", path(gigabit, 2 << 20, 100), SSH, 4),
            ("ssh that would ask", path(gigabit, 2 << 20, 100), no_free_logins(), 1),
        ] {
            let ramp = Ramp::new(kind, path.rtt, 128, false);
            assert_eq!(path.run(ramp, 20).0, ends_with, "{name}");
        }
    }

    fn no_free_logins() -> PathKind {
        PathKind::Ssh { free_logins: false }
    }

    #[test]
    fn what_was_typed_is_opened_at_once_but_for_logins() {
        let far = ms(100);
        assert_eq!(Ramp::new(PathKind::Loopback, ms(0), 7, true).initial(), 7);
        assert_eq!(Ramp::new(PathKind::Direct, far, 128, true).initial(), 128);
        assert_eq!(Ramp::new(PathKind::Direct, far, 1, true).initial(), 1);
        let path = Path { link: 1, window: 1, rtt: far };
        let (ends_with, at_once) = path.run(Ramp::new(SSH, far, 9, true), 20);
        assert_eq!((ends_with, at_once), (9, LOGINS_AT_ONCE));
        assert_eq!(Ramp::new(no_free_logins(), far, 9, true).initial(), 1);
    }

    #[test]
    fn what_was_agreed_is_the_limit() {
        let path = Path { link: 1 << 30, window: 256 << 10, rtt: ms(50) };
        for limit in [0, 1, 3, 5, 11] {
            let ramp = Ramp::new(PathKind::Direct, path.rtt, limit, false);
            assert!(ramp.initial() >= 1);
            assert_eq!(path.run(ramp, 20).0, limit.max(1), "{limit}");
        }
    }

    #[test]
    fn a_refused_connection_is_the_last() {
        let mut ramp = Ramp::new(SSH, ms(100), 9, true);
        ramp.handle_refused();
        assert!(ramp.is_over());
        assert_eq!(ramp.handle_sample(ms(0), 0, 3), Step::Stay);
    }

    #[test]
    fn nothing_is_measured_while_connections_come_up() {
        let mut ramp = Ramp::new(PathKind::Direct, ms(10), 128, false);
        for tick in 0..100 {
            assert_eq!(ramp.handle_sample(ms(tick * 250), tick << 30, 3), Step::Stay);
        }
        assert_eq!(ramp.handle_sample(ms(25_000), 100 << 30, 4), Step::Stay);
        assert_eq!(ramp.handle_sample(ms(25_250), 101 << 30, 4), Step::Stay);
        assert_eq!(ramp.handle_sample(ms(25_500), 102 << 30, 4), Step::Open(4));
    }

    #[test]
    fn none_are_opened_while_those_there_are_in_slow_start() {
        let (rtt, link) = (ms(100), 125_000_000);
        let mut ramp = Ramp::new(PathKind::Direct, rtt, 128, false);
        let (mut rate, mut bytes) = (6 * 10 * 1460 * 10, 0);
        for tick in 0..40 {
            let step = ramp.handle_sample(ms(tick * 250), bytes, 6);
            if rate < link {
                assert_eq!(step, Step::Stay, "at {rate} bytes per second");
            }
            if step != Step::Stay {
                return assert_eq!(step, Step::Open(6));
            }
            bytes += rate / 4;
            // It doubles each round trip.
            rate = (rate * 5).min(link);
        }
        panic!("it never opened more");
    }

    #[test]
    fn a_clock_that_stands_and_a_counter_that_wraps_do_no_harm() {
        let mut ramp = Ramp::new(PathKind::Direct, Duration::MAX / 8, u16::MAX, false);
        assert_eq!(ramp.handle_sample(Duration::MAX, u64::MAX, u16::MAX), Step::Stay);
        assert_eq!(ramp.handle_sample(ms(0), 0, u16::MAX), Step::Stay);
        let mut ramp = Ramp::new(PathKind::Direct, ms(50), u16::MAX, false);
        assert_eq!(ramp.handle_sample(ms(0), 0, 4), Step::Stay);
        assert_eq!(ramp.handle_sample(Duration::MAX, u64::MAX, 4), Step::Stay);
    }
}
