//! A bad path between two hosts: loses, delays, reorders and duplicates, from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What the path does to a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Probability of loss, 0 to 1.
    pub loss: f64,
    /// Probability of a second copy.
    pub duplication: f64,
    /// Shortest one-way delay.
    pub delay: Duration,
    /// Added at random to the delay: what reorders.
    pub jitter: Duration,
    /// Largest UDP payload that passes, in bytes.
    pub max_payload: usize,
}

impl Conditions {
    /// A path in the office: 1 ms, nothing lost, an IP MTU of 1500.
    pub const CLEAN: Self = Self {
        loss: 0.0,
        duplication: 0.0,
        delay: Duration::from_millis(1),
        jitter: Duration::ZERO,
        max_payload: 1472,
    };

    /// Anything between a clean path and a satellite behind a broken radio.
    pub fn random(rng: &mut StdRng) -> Self {
        Self {
            loss: rng.random_range(0.0..0.3),
            duplication: rng.random_range(0.0..0.1),
            delay: Duration::from_millis(rng.random_range(0..300)),
            jitter: Duration::from_millis(rng.random_range(0..300)),
            max_payload: rng.random_range(1252..1472),
        }
    }
}

/// The path with its luck.
pub struct Path {
    pub conditions: Conditions,
    rng: StdRng,
}

impl Path {
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The delays after which copies of a datagram of `len` bytes arrive; empty when it is lost.
    pub fn carry(&mut self, len: usize) -> Vec<Duration> {
        let c = self.conditions;
        if len > c.max_payload || self.rng.random_bool(c.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.rng.random_bool(c.duplication));
        (0..copies)
            .map(|_| c.delay + c.jitter.mul_f64(self.rng.random_range(0.0..=1.0)))
            .collect()
    }
}
