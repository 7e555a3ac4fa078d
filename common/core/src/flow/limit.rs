//! How fast a session may use a rule, in one direction.
//!
//! A bucket fills with the rate of the rule. A packet passes, whatever its size, unless the bucket is in
//! debt, and takes its bytes: so large packets have the chance of small ones. In any time `t` no more
//! passes than `rate × t`, a [`burst`] and one packet.

use std::time::{Duration, Instant};

use crate::policy::Rate;

/// What may still be sent.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// In billionths of a bit, so that every rate fills it exactly; below zero is debt.
    level: i128,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(now: Instant, rate: Rate) -> Self {
        Self {
            rate,
            level: burst(rate),
            filled: now,
        }
    }

    /// Takes so many bytes, unless there is debt.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let passed = now.saturating_duration_since(self.filled);
        let filled = self.level.saturating_add(gained(self.rate, passed));
        self.level = filled.min(burst(self.rate));
        self.filled = self.filled.max(now);
        if self.level < 0 {
            return false;
        }
        self.level -= bytes as i128 * PER_BYTE;
        true
    }
}

/// What passes at once after a silence, in billionths of a bit.
fn burst(rate: Rate) -> i128 {
    gained(rate, BURST).max(SMALLEST_BURST * PER_BYTE)
}

/// What a rate brings in a time: bits per second times nanoseconds are billionths of a bit.
fn gained(rate: Rate, time: Duration) -> i128 {
    let time = i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
    i128::from(rate.bits_per_second()).saturating_mul(time)
}

const PER_BYTE: i128 = 8 * 1_000_000_000;
/// A TCP sender that lost the end of its window waits for its timer, 200 ms on Linux, and what the rate
/// brings meanwhile must not be lost. One stream at 20 Mbit/s with a round trip below a millisecond gets
/// 10 Mbit/s of payload with 100 ms, 17 to 19 with 250 ms, and no more with a second.
const BURST: Duration = Duration::from_millis(250);
/// What a device hands over in one piece, in bytes, so that a stream of slow rate can begin.
const SMALLEST_BURST: i128 = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn rate(bits: u64) -> Rate {
        Rate::parse(&format!("{bits} bit/s")).unwrap()
    }

    /// In bytes.
    fn burst_of(bits: u64) -> f64 {
        burst(rate(bits)) as f64 / PER_BYTE as f64
    }

    fn rates() -> impl Strategy<Value = u64> {
        prop_oneof![
            8..100_000u64,
            100_000..1_000_000_000u64,
            Just(100_000_000_000)
        ]
    }

    proptest! {
        /// Packets of any size at any time; the microseconds before each, and its bytes.
        #[test]
        fn never_more_passes_than_the_rate_and_one_burst(
            bits in rates(),
            packets in vec((prop_oneof![0..10u64, 0..100_000u64], 20..65_536usize), 1..500),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(start, rate(bits));
            let (mut now, mut passed) = (start, Vec::new());
            for (wait, bytes) in packets {
                now += Duration::from_micros(wait);
                if bucket.take(now, bytes) {
                    passed.push((now, bytes));
                }
            }
            // Over every stretch of time, not only from the beginning.
            for (first, (since, _)) in passed.iter().enumerate() {
                let mut sum = 0.0;
                for (at, bytes) in &passed[first..] {
                    sum += *bytes as f64;
                    let seconds = at.duration_since(*since).as_secs_f64();
                    let most = bits as f64 / 8.0 * seconds + burst_of(bits) + 65_535.0;
                    prop_assert!(sum <= most * (1.0 + 1e-9), "{sum} of {most}");
                }
            }
        }

        /// The demand is at least the rate, in packets of one size or of two.
        #[test]
        fn constant_demand_gets_the_rate(
            bits in 64_000..10_000_000_000u64,
            sizes in (20..65_536usize, 20..1500usize),
            excess in 1.0..20.0f64,
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(start, rate(bits));
            let (mut seconds, mut passed, mut offered) = (0.0, [0.0; 2], [0.0; 2]);
            for number in 0..4000 {
                let kind = number % 2;
                let bytes = if kind == 0 { sizes.0 } else { sizes.1 };
                offered[kind] += bytes as f64;
                if bucket.take(start + Duration::from_secs_f64(seconds), bytes) {
                    passed[kind] += bytes as f64;
                }
                seconds += bytes as f64 * 8.0 / bits as f64 / excess;
            }
            let all: f64 = passed.iter().sum();
            prop_assert!(all >= 0.95 * bits as f64 / 8.0 * seconds, "{all} in {seconds} s");
        }
    }

    #[test]
    fn a_large_packet_passes_beside_a_stream_of_small_ones_that_never_lets_the_bucket_fill() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, rate(1_000_000));
        let (mut small, mut large) = (0, 0);
        for microseconds in 0..10_000_000u64 / 50 {
            let now = start + Duration::from_micros(microseconds * 50);
            if microseconds % 97 == 0 {
                large += usize::from(bucket.take(now, 60_000));
            }
            small += usize::from(bucket.take(now, 100));
        }
        assert!(large >= 10 && small >= 1000, "{large} large, {small} small");
    }

    #[test]
    fn time_that_stands_still_or_runs_back_fills_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(start, rate(8000));
        assert!(bucket.take(start, 200_000));
        for back in [0, 1, 9] {
            assert!(!bucket.take(start.checked_sub(Duration::from_secs(back)).unwrap(), 1));
        }
        // 135 kB of debt at a kilobyte a second.
        assert!(!bucket.take(start + Duration::from_secs(134), 1));
        assert!(bucket.take(start + Duration::from_secs(135), 1));
    }

    #[test]
    fn the_fastest_rate_and_the_longest_silence_are_no_more_than_a_burst() {
        let start = Instant::now();
        let fastest = rate(u64::MAX / 1000);
        let mut bucket = Bucket::new(start, fastest);
        assert!(bucket.take(start, usize::MAX));
        let later = start + Duration::from_secs(u32::MAX.into());
        assert!(bucket.take(later, 1));
        assert!(bucket.level <= burst(fastest));
    }
}
