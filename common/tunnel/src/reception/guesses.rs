//! Wrong codes: a few a minute from one network, not many more from all.
//!
//! A code has 128 bits that are not guessed in any case; what is limited is the work that guessing makes, and
//! the noise. A try is counted when it is made and taken back when it was right, so that many tries at once are
//! no way around.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::strangers::network;

/// Who has tried how often.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    networks: BTreeMap<IpAddr, Window>,
    all: Option<Window>,
}

/// The tries since the first one that counts.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    tries: u32,
}

impl Guesses {
    /// Counts a try; says whether it may be made.
    pub(super) fn take(&mut self, now: Instant, address: IpAddr) -> bool {
        self.networks.retain(|_, window| !window.is_over(now));
        self.all = self.all.filter(|window| !window.is_over(now));
        let fresh = Window {
            began: now,
            tries: 0,
        };
        let all = self.all.get_or_insert(fresh);
        let network = network(address);
        let is_known = self.networks.contains_key(&network);
        if all.tries >= MAX_OF_ALL || (!is_known && self.networks.len() >= MAX_NETWORKS) {
            return false;
        }
        let mine = self.networks.entry(network).or_insert(fresh);
        if mine.tries >= MAX_OF_ONE_NETWORK {
            return false;
        }
        mine.tries += 1;
        all.tries += 1;
        true
    }

    /// The try was no wrong code.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        if let Some(mine) = self.networks.get_mut(&network(address)) {
            mine.tries = mine.tries.saturating_sub(1);
        }
        if let Some(all) = &mut self.all {
            all.tries = all.tries.saturating_sub(1);
        }
    }
}

impl Window {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= MINUTE
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// Somebody who types a code that a colleague reads aloud.
const MAX_OF_ONE_NETWORK: u32 = 5;
/// Five a second: what the authority looks up beside everything else without being felt.
const MAX_OF_ALL: u32 = 300;
/// As many networks as there may be tries.
const MAX_NETWORKS: usize = MAX_OF_ALL as usize;

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([198, 18, high, low])
    }

    #[test]
    fn a_network_guesses_five_times_a_minute_and_others_do_not_feel_it() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let tries = |guesses: &mut Guesses, at, who| {
            (0..100).filter(|_| guesses.take(at, host(who))).count()
        };
        assert_eq!(tries(&mut guesses, start, 1), 5);
        assert_eq!(tries(&mut guesses, start + MINUTE / 2, 1), 0);
        assert_eq!(tries(&mut guesses, start + MINUTE / 2, 2), 5);
        assert_eq!(tries(&mut guesses, start + MINUTE, 1), 5);
        assert_eq!(tries(&mut guesses, start + MINUTE, 2), 0);
    }

    #[test]
    fn all_together_guess_only_so_often() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let made = (0..5000).filter(|&who| guesses.take(start, host(who)));
        assert_eq!(made.count(), MAX_NETWORKS);
        assert_eq!(guesses.networks.len(), MAX_NETWORKS);
        assert!(guesses.take(start + MINUTE, host(9)));
    }

    #[test]
    fn a_right_code_does_not_count() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        for _ in 0..1000 {
            assert!(guesses.take(start, host(1)));
            guesses.give_back(host(1));
        }
    }
}
