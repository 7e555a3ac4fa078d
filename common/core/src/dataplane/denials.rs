//! What the policy has refused of a session, put together so that it can be told without a flood.
//!
//! The first packet is told at once, everything that follows once in [`PAUSE`]: kinds of packets with
//! their number, and when there are too many kinds, the rest as a number alone. The memory is bounded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::{Direction, Filter, Rule, RuleId};
use crate::wire::ip::IpPacket;

/// A kind of packet that the policy refuses.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Which way it went.
    pub direction: Direction,
    /// The address at the far end, seen from the session's owner.
    pub far: IpAddr,
    /// The upper-layer protocol.
    pub protocol: u8,
    /// The packet's destination port, where it carries one.
    pub port: Option<u16>,
    /// The rule that denies it; `None` if no rule allows it.
    pub rule: Option<Arc<Rule>>,
}

/// What is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// Kinds of packets, as they came, and how many packets of each.
    pub kinds: Vec<(Denial, u64)>,
    /// Packets of other kinds.
    pub others: u64,
}

/// What has not been told yet.
#[derive(Clone, Debug, Default)]
pub struct Denials {
    denied: Denied,
    /// When it is to be told; `None` while there is nothing.
    due: Option<Instant>,
    /// When something was told last.
    told: Option<Instant>,
}

impl Denial {
    /// What a packet is that `rule` of `filter` denies, or that no rule allows.
    #[must_use]
    pub fn of(
        packet: &IpPacket<'_>,
        direction: Direction,
        filter: &Filter,
        rule: Option<RuleId>,
    ) -> Self {
        Self {
            direction,
            far: match direction {
                Direction::FromClient => packet.destination(),
                Direction::ToClient => packet.source(),
            },
            protocol: packet.protocol(),
            port: packet.ports().map(|(_, destination)| destination),
            rule: rule.and_then(|rule| filter.rule(rule)).map(Arc::clone),
        }
    }
}

/// Rules of two policies are two, wherever they stand.
impl PartialEq for Denial {
    fn eq(&self, other: &Self) -> bool {
        let of = |denial: &Self| (denial.direction, denial.far, denial.protocol, denial.port);
        of(self) == of(other)
            && match (&self.rule, &other.rule) {
                (None, None) => true,
                (Some(one), Some(two)) => Arc::ptr_eq(one, two),
                _ => false,
            }
    }
}

impl Eq for Denial {}

impl Denied {
    /// All packets together.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.kinds.iter().map(|(_, packets)| packets).sum::<u64>() + self.others
    }

    fn add(&mut self, denial: Denial, packets: u64) {
        let mut kinds = self.kinds.iter_mut();
        if let Some((_, count)) = kinds.find(|(kind, _)| *kind == denial) {
            *count += packets;
        } else if self.kinds.len() < MAX_KINDS {
            self.kinds.push((denial, packets));
        } else {
            self.others += packets;
        }
    }
}

impl Denials {
    /// So many packets more were denied. Returns when they are to be told, if nothing was to be told
    /// before.
    pub fn add(&mut self, now: Instant, denial: Denial, packets: usize) -> Option<Instant> {
        self.denied.add(denial, packets as u64);
        if self.due.is_some() {
            return None;
        }
        self.due = Some(self.told.map_or(now, |told| now.max(told + PAUSE)));
        self.due
    }

    /// When [`Self::take`] is due; `None` while there is nothing.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is to be told now, whether or not it is due; `None` if there is nothing.
    pub fn take(&mut self, now: Instant) -> Option<Denied> {
        self.due.take()?;
        self.told = Some(now);
        Some(std::mem::take(&mut self.denied))
    }
}

/// Enough to tell an application that was forgotten in the policy from a search for open ports.
const MAX_KINDS: usize = 16;
/// Often enough for whoever looks for the reason, and a session that does its worst for a year writes half
/// a million lines.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(port: u16) -> Denial {
        Denial {
            direction: Direction::FromClient,
            far: "10.66.0.1".parse().unwrap(),
            protocol: 6,
            port: Some(port),
            rule: None,
        }
    }

    #[test]
    fn the_first_is_told_at_once_and_the_rest_a_minute_later_with_its_number() {
        let start = Instant::now();
        let mut denials = Denials::default();
        assert_eq!((denials.due(), denials.take(start)), (None, None));
        assert_eq!(denials.add(start, denial(22), 1), Some(start));
        let told = denials.take(start).unwrap();
        assert_eq!((told.kinds, told.others), (vec![(denial(22), 1)], 0));
        let soon = start + Duration::from_secs(1);
        assert_eq!(denials.add(soon, denial(22), 1), Some(start + PAUSE));
        assert_eq!(denials.add(soon, denial(22), 40), None, "it is known");
        assert_eq!(denials.due(), Some(start + PAUSE));
        let told = denials.take(start + PAUSE).unwrap();
        assert_eq!(told.kinds, [(denial(22), 41)]);
        assert_eq!(denials.due(), None);
        let late = start + PAUSE * 3;
        assert_eq!(denials.add(late, denial(22), 1), Some(late));
    }

    #[test]
    fn a_search_for_open_ports_fills_a_fixed_number_of_kinds_and_loses_no_packet() {
        let start = Instant::now();
        let mut denials = Denials::default();
        for port in 0..10_000 {
            denials.add(start, denial(port), 2);
        }
        let told = denials.take(start).unwrap();
        assert_eq!((told.kinds.len(), told.packets()), (MAX_KINDS, 20_000));
        assert_eq!(told.others, 20_000 - 2 * MAX_KINDS as u64);
    }
}
