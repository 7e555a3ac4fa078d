//! The tie between the monotonic clock that drives the engine and the calendar that dates leases
//! and certificates.

use std::time::{Duration, Instant};

use rustls::pki_types::UnixTime;

/// One moment, told by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    instant: Instant,
    unix: i64,
}

impl Epoch {
    /// `instant` is `unix` seconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn new(instant: Instant, unix: i64) -> Self {
        Self { instant, unix }
    }

    /// The moment itself, by the monotonic clock.
    pub(crate) fn instant(&self) -> Instant {
        self.instant
    }

    /// Seconds since 1970 at `now`.
    #[must_use]
    pub fn unix(&self, now: Instant) -> i64 {
        match now.checked_duration_since(self.instant) {
            Some(since) => self
                .unix
                .saturating_add(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
            None => self.unix,
        }
    }

    /// The same as a certificate verifier wants it.
    #[must_use]
    pub fn unix_time(&self, now: Instant) -> UnixTime {
        let seconds = u64::try_from(self.unix(now)).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// When the calendar reaches `unix`; `None` when that is too far to matter.
    #[must_use]
    pub fn instant_of(&self, unix: i64) -> Option<Instant> {
        let ahead = u64::try_from(unix.saturating_sub(self.unix)).unwrap_or(0);
        self.instant.checked_add(Duration::from_secs(ahead))
    }
}
