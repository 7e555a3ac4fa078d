//! The two clocks: one that only moves forward, for durations, and the calendar's, for certificates and leases.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time for deadlines and durations.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970 in UTC; 0 on a host whose clock is set before that.
pub fn unix_milliseconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Seconds since 1970 in UTC; 0 on a host whose clock is set before that.
pub fn unix_seconds() -> i64 {
    unix_milliseconds() / 1000
}
