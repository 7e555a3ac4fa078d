//! The rules of the present filter by which packets of a session have passed: what each has let pass,
//! and how fast it may. A flow holds the place of its rule, so that no packet searches.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Decide;
use super::limit::Bucket;
use crate::policy::{Direction, RuleId};

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Packets of the wire: what a device hands over in one piece counts as what it becomes.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

/// What a rule has let pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Flows that it let begin.
    pub flows: u64,
    /// From the client.
    pub from_client: Volume,
    /// To the client.
    pub to_client: Volume,
}

/// The rules in use, each at a place of its own.
#[derive(Debug)]
pub(super) struct Rules {
    start: Instant,
    used: Vec<Used>,
    places: BTreeMap<RuleId, u32>,
}

#[derive(Debug)]
struct Used {
    rule: RuleId,
    totals: Totals,
    /// Of a rule with a rate, for both directions.
    limit: Option<Box<[Bucket; 2]>>,
}

impl Rules {
    /// None is in use in a session that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            used: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    /// The place of a rule of this filter.
    pub(super) fn place(&mut self, filter: &impl Decide, rule: RuleId) -> u32 {
        *self.places.entry(rule).or_insert_with(|| {
            let full = |rate| Bucket::new(self.start, rate);
            let limit = filter.rate(rule);
            self.used.push(Used {
                rule,
                totals: Totals::default(),
                limit: limit.map(|rate| Box::new([full(rate), full(rate)])),
            });
            self.used.len() as u32 - 1
        })
    }

    /// The place of a rule that has one.
    pub(super) fn known(&self, rule: RuleId) -> Option<u32> {
        self.places.get(&rule).copied()
    }

    /// The rule at a place.
    pub(super) fn rule(&self, at: u32) -> Option<RuleId> {
        self.used.get(at as usize).map(|used| used.rule)
    }

    /// Whether the rule's rate lets so many bytes more pass; if so, they count against it.
    pub(super) fn take(
        &mut self,
        at: u32,
        now: Instant,
        direction: Direction,
        bytes: usize,
    ) -> bool {
        match self.used.get_mut(at as usize) {
            Some(Used {
                limit: Some(buckets),
                ..
            }) => buckets[direction as usize].take(now, bytes),
            _ => true,
        }
    }

    /// The rule let a flow begin.
    pub(super) fn begin_flow(&mut self, at: u32) {
        if let Some(used) = self.used.get_mut(at as usize) {
            used.totals.flows += 1;
        }
    }

    /// The rule let this pass.
    pub(super) fn count(&mut self, at: u32, direction: Direction, packets: u64, bytes: u64) {
        if let Some(used) = self.used.get_mut(at as usize) {
            used.totals.volume(direction).add(packets, bytes);
        }
    }

    /// What each has let pass; those that have let nothing are left out.
    pub(super) fn totals(&self) -> BTreeMap<RuleId, Totals> {
        let used = self.used.iter().map(|used| (used.rule, used.totals));
        used.filter(|(_, totals)| *totals != Totals::default())
            .collect()
    }

    /// Forgets all rules, their places and what they have let pass.
    pub(super) fn clear(&mut self) {
        self.used.clear();
        self.places.clear();
    }
}

impl Volume {
    pub(super) fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }
}

impl Totals {
    /// Adds what was let pass elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        for direction in [Direction::FromClient, Direction::ToClient] {
            let Volume { packets, bytes } = match direction {
                Direction::FromClient => other.from_client,
                Direction::ToClient => other.to_client,
            };
            self.volume(direction).add(packets, bytes);
        }
    }

    fn volume(&mut self, direction: Direction) -> &mut Volume {
        match direction {
            Direction::FromClient => &mut self.from_client,
            Direction::ToClient => &mut self.to_client,
        }
    }
}
