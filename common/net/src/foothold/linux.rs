//! `sched_setaffinity` of the calling thread.

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// The calling thread runs on one core only, until this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    /// Where it may run otherwise.
    before: CpuSet,
    here: CpuSet,
}

impl Hold {
    /// Where the thread is at this moment. `None` when it may not run anywhere else anyway, or the system refuses.
    pub(super) fn take() -> Option<Self> {
        let before = sched_getaffinity(None).ok()?;
        if before.count() < 2 {
            return None;
        }
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here).ok()?;
        Some(Self { before, here })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // What somebody else decided meanwhile (taskset, a core that went away) stays.
        if sched_getaffinity(None).is_ok_and(|now| now == self.here) {
            let _ = sched_setaffinity(None, &self.before);
        }
    }
}

/// How long the calling thread has run since it began.
pub(super) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A hold, if there is a choice of cores.
    fn taken(before: &CpuSet) -> Option<Hold> {
        let hold = Hold::take();
        assert_eq!(hold.is_some(), before.count() > 1, "the system refuses");
        hold
    }

    #[test]
    fn a_hold_is_on_one_core_and_ends_with_its_value() -> io::Result<()> {
        let before = sched_getaffinity(None)?;
        let Some(hold) = taken(&before) else {
            return Ok(());
        };
        let held = sched_getaffinity(None)?;
        assert_eq!(held.count(), 1);
        assert!(held.is_set(sched_getcpu()) && before.is_set(sched_getcpu()));
        drop(hold);
        assert_eq!(sched_getaffinity(None)?, before);
        Ok(())
    }

    #[test]
    fn what_the_operator_sets_meanwhile_stays() -> io::Result<()> {
        let before = sched_getaffinity(None)?;
        let Some(hold) = taken(&before) else {
            return Ok(());
        };
        let mut chosen = before;
        chosen.unset(sched_getcpu());
        sched_setaffinity(None, &chosen)?;
        drop(hold);
        assert_eq!(sched_getaffinity(None)?, chosen);
        Ok(())
    }
}
