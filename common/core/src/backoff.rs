//! When to try again: exponential back-off with full jitter, so that a thousand clients that lost
//! the same gateway do not come back at the same moment.

use std::time::Duration;

/// A retry schedule, random from its seed.
#[derive(Clone, Debug)]
pub struct Backoff {
    state: u64,
    failures: u32,
}

impl Backoff {
    /// A schedule that has seen no failure.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let mut state = 0xcbf2_9ce4_8422_2325;
        for byte in seed {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self { state, failures: 0 }
    }

    /// How long to wait after one more failure: anything up to twice the last ceiling.
    pub fn after_failure(&mut self) -> Duration {
        let ceiling = FIRST
            .saturating_mul(1 << self.failures.min(MAX_DOUBLINGS))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(self.fraction())
    }

    /// Forgets the failures: the connection worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// A number from 0 to 1, by the generator SplitMix64; jitter needs no secrecy.
    fn fraction(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The upper 53 bits are what a double holds exactly.
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A gateway that is being restarted is back within a second.
const FIRST: Duration = Duration::from_millis(500);
/// Long enough not to burden a gateway that is down, short enough that nobody restarts by hand.
const LONGEST: Duration = Duration::from_secs(60);
/// 500 ms doubled seven times is past the longest wait.
const MAX_DOUBLINGS: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_under_a_doubling_ceiling_and_never_exceed_a_minute() {
        for seed in 0..100 {
            let mut backoff = Backoff::new([seed; 32]);
            for failure in 0..20 {
                let ceiling = LONGEST.min(FIRST * (1 << failure.min(7)));
                assert!(backoff.after_failure() <= ceiling);
            }
            backoff.reset();
            assert!(backoff.after_failure() <= FIRST);
        }
    }

    #[test]
    fn jitter_is_full_different_seeds_wait_differently() {
        let waits: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| Backoff::new([seed; 32]).after_failure())
            .collect();
        assert!(waits.len() > 90);
        assert!(*waits.first().unwrap() < FIRST / 5);
        assert!(*waits.last().unwrap() > FIRST * 4 / 5);
    }
}
