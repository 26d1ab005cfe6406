//! Our clock against that of a place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fcp_proto::meta::Timestamp;

use super::Clock;

/// Our own clock in milliseconds since the epoch.
pub(super) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Clock {
    /// From a stamp that a place made between two moments of our clock (milliseconds since the
    /// epoch), when it counts in steps of `grain`.
    pub fn between(before: i64, after: i64, stamp: Timestamp, grain: Duration) -> Clock {
        let stamp =
            stamp.secs.saturating_mul(1000).saturating_add(i64::from(stamp.nanos / 1_000_000));
        let trip = after.saturating_sub(before).max(0);
        // A stamp is cut off, so its middle lies half a step later.
        let half = i64::try_from(grain.as_millis() / 2).unwrap_or(0);
        let ours = before.saturating_add(trip / 2);
        let trip = Duration::from_millis(trip.unsigned_abs());
        Clock::Skew {
            millis: stamp.saturating_add(half).saturating_sub(ours),
            error: trip / 2 + grain / 2 + Duration::from_millis(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s15_a_skew_is_known_as_well_as_round_trip_and_grain_allow() {
        let stamp = Timestamp { secs: 1000 + 26 * 3600, nanos: 0 };
        let skew = Clock::between(1_000_400, 1_000_600, stamp, Duration::from_secs(1));
        // The server's clock stood between 93,600,000 and 93,601,000 ms after our 1,000,000.
        let Clock::Skew { millis, error } = skew else { panic!("{skew:?}") };
        assert_eq!((millis, error), (93_600_000, Duration::from_millis(601)));
    }
}
