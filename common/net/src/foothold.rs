//! Keeps a busy thread on the core where it is.
//!
//! The kernel likes to wake a thread where its packet came from: on the core of the interrupt, or of the program that
//! sent it. While that core is busy, the thread waits there for the end of somebody else's time slice, though another
//! core may be idle, and finds nothing of what it worked on in the cache. A thread that uses most of a core has nothing
//! to gain from moving, so it holds on to it; whoever shares the core can go elsewhere. It lets go as soon as it gets
//! less than half of the core, be it that others have the rest or that there is nothing to do, and for a moment every
//! second, so that the kernel can choose anew: a faster core, or one that became idle.

use std::time::{Duration, Instant};

#[cfg_attr(target_os = "linux", path = "foothold/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "foothold/unsupported.rs")]
mod os;

/// The hold of the thread that made it on its core.
#[derive(Debug)]
pub struct Foothold {
    use_of_core: UseOfCore,
    hold: Option<os::Hold>,
}

impl Foothold {
    /// One that holds nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            use_of_core: UseOfCore {
                since: now,
                ran: os::thread_time(),
                periods: 0,
            },
            hold: None,
        }
    }

    /// Takes hold or lets go, once a period; to be called by the same thread in each of its turns.
    pub fn review(&mut self, now: Instant) {
        if !self.use_of_core.is_due(now) {
            return;
        }
        if !self.use_of_core.deserves_hold(now, os::thread_time()) {
            self.hold = None;
        } else if self.hold.is_none() {
            self.hold = os::Hold::take();
        }
    }
}

/// How much of a core the thread gets.
#[derive(Debug)]
struct UseOfCore {
    /// When the present period began, and how long the thread had run by then.
    since: Instant,
    ran: Duration,
    /// Busy periods since the thread had no hold.
    periods: u32,
}

impl UseOfCore {
    /// Whether the period is over.
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PERIOD
    }

    /// Whether the thread should stay where it is in the period that begins now; `ran` is how long it has run in all.
    fn deserves_hold(&mut self, now: Instant, ran: Duration) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let is_busy = ran.saturating_sub(self.ran) * 2 > elapsed;
        self.since = now;
        self.ran = ran;
        self.periods = match self.periods {
            HELD => 0,
            periods if is_busy => periods + 1,
            _ => 0,
        };
        self.periods > 0
    }
}

/// Long enough that a wait for the other end is not taken for idling, short enough that a transfer of a second gains.
const PERIOD: Duration = Duration::from_millis(50);
/// Periods of holding on before the kernel chooses anew: it has one period for it.
const HELD: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a thread run so many milliseconds of each period; gives in which it has a hold.
    fn lives(ran: impl IntoIterator<Item = u64>) -> Vec<bool> {
        let mut now = Instant::now();
        let mut total = Duration::from_secs(7);
        let mut thread = UseOfCore {
            since: now,
            ran: total,
            periods: 0,
        };
        ran.into_iter()
            .map(|ran| {
                now += PERIOD;
                total += Duration::from_millis(ran);
                assert!(thread.is_due(now));
                thread.deserves_hold(now, total)
            })
            .collect()
    }

    #[test]
    fn who_gets_most_of_a_core_holds_on_and_who_gets_less_lets_go() {
        assert_eq!(
            lives([0, 10, 50, 26, 25, 40]),
            [false, false, true, true, false, true]
        );
    }

    #[test]
    fn every_second_the_kernel_may_choose_for_one_period() {
        let held = lives([50; 64]);
        let free: Vec<_> = (0..64).filter(|&period| !held[period]).collect();
        assert_eq!(free, [20, 41, 62]);
    }

    #[test]
    fn nothing_is_asked_of_the_kernel_within_a_period() {
        let now = Instant::now();
        let foothold = Foothold::new(now);
        assert!(!foothold.use_of_core.is_due(now + PERIOD / 2));
    }
}
