//! One address family of a filter.
//!
//! The prefixes of all rules cut the addresses into ranges; each range knows the innermost prefix
//! around it, and each prefix the next one around itself. A prefix has, for each direction, the
//! services of its rules, cut into intervals that each know the first rule that allows and the
//! first that denies. So a lookup is a binary search among ranges, then one among intervals for
//! each prefix around the address; memory is linear in what the rules say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Direction;
use crate::policy::nesting::{NOBODY, index, parents};
use crate::policy::rule::{Action, Rule};
use crate::policy::services::EVERYTHING;

/// Addresses as numbers, `u32` or `u128`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table<A> {
    /// First addresses of the ranges, ascending; before the first there is nothing.
    starts: Vec<A>,
    /// The innermost prefix around each range, or [`NOBODY`].
    innermost: Vec<u32>,
    prefixes: Vec<Prefix>,
    /// First keys of the intervals of all prefixes.
    keys: Vec<u32>,
    hits: Vec<Hit>,
}

/// A prefix of a rule, as its first and last address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<A> {
    pub(super) first: A,
    pub(super) last: A,
    /// The rule's place in the filter.
    pub(super) rule: u32,
}

/// The first rules that allow and that deny, by their places in the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    allow: u32,
    deny: u32,
}

/// What is around a range.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Prefix {
    /// The next prefix around this one, or [`NOBODY`].
    parent: u32,
    /// For flows from the client and to it.
    ways: [Way; 2],
}

/// The services of a prefix in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Way {
    /// Its intervals in the table.
    first: u32,
    end: u32,
    /// Some rule allows something.
    allows: bool,
    /// One rule denies everything.
    closed: bool,
}

/// A number that has a next one, except the last.
pub(super) trait Address: Copy + Ord {
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
    const LAST: Self;
}

impl<A: Address> Table<A> {
    pub(super) fn new(rules: &[Arc<Rule>], mut entries: Vec<Entry<A>>) -> Self {
        // The longer prefix first, then the order of the file.
        entries.sort_unstable_by(|one, two| {
            (one.first, two.last, one.rule).cmp(&(two.first, one.last, two.rule))
        });
        entries.dedup_by(|next, last| {
            (next.first, next.last, next.rule) == (last.first, last.last, last.rule)
        });
        let mut table = Self {
            starts: Vec::new(),
            innermost: Vec::new(),
            prefixes: Vec::new(),
            keys: Vec::new(),
            hits: Vec::new(),
        };
        let mut spans = Vec::new();
        // Prefixes with the same rules share their intervals.
        let mut known: BTreeMap<Vec<u32>, [Way; 2]> = BTreeMap::new();
        for same in entries.chunk_by(|one, two| (one.first, one.last) == (two.first, two.last)) {
            let names: Vec<u32> = same.iter().map(|entry| entry.rule).collect();
            let ways = *known.entry(names).or_insert_with_key(|names| {
                [Direction::FromClient, Direction::ToClient]
                    .map(|direction| table.compile(rules, names, direction))
            });
            table.prefixes.push(Prefix {
                parent: NOBODY,
                ways,
            });
            spans.push((same[0].first, same[0].last));
        }
        for (prefix, parent) in table.prefixes.iter_mut().zip(parents(&spans)) {
            prefix.parent = parent;
        }
        table.cut(&spans);
        table
    }

    /// The first rules of a flow with `address` and the services' `key`.
    pub(super) fn find(&self, address: A, direction: Direction, key: u32) -> Hit {
        let range = self.starts.partition_point(|start| *start <= address);
        let mut hit = Hit::NONE;
        for prefix in self.around(range.checked_sub(1)) {
            let way = &prefix.ways[direction as usize];
            let keys = &self.keys[way.first as usize..way.end as usize];
            let interval = keys.partition_point(|start| *start <= key);
            if let Some(interval) = interval.checked_sub(1) {
                let found = self.hits[way.first as usize + interval];
                hit.allow = hit.allow.min(found.allow);
                hit.deny = hit.deny.min(found.deny);
            }
        }
        hit
    }

    /// Ranges, first and last address, where in some direction something is allowed and no rule
    /// denies everything; ascending.
    pub(super) fn open_ranges(&self) -> impl Iterator<Item = (A, A)> + '_ {
        (0..self.starts.len())
            .filter(|&range| {
                (0..2).any(|way| {
                    let mut ways = self.around(Some(range)).map(|prefix| &prefix.ways[way]);
                    ways.clone().any(|way| way.allows) && ways.all(|way| !way.closed)
                })
            })
            .map(|range| {
                let last = self.starts.get(range + 1).and_then(|next| next.previous());
                (self.starts[range], last.unwrap_or(A::LAST))
            })
    }

    /// The prefixes around a range, from the innermost.
    fn around(&self, range: Option<usize>) -> impl Iterator<Item = &Prefix> + Clone {
        let innermost = range.and_then(|range| self.innermost.get(range));
        let prefix = |number: u32| self.prefixes.get(number as usize);
        std::iter::successors(innermost.and_then(|&number| prefix(number)), move |inner| {
            prefix(inner.parent)
        })
    }

    /// Cuts the services of some rules into intervals.
    fn compile(&mut self, rules: &[Arc<Rule>], names: &[u32], direction: Direction) -> Way {
        let mut way = Way::default();
        let mut edges: Vec<(u32, bool, Action, u32)> = Vec::new();
        for &name in names {
            let rule = &rules[name as usize];
            if !rule.directions.contain(direction) {
                continue;
            }
            way.allows |= rule.action == Action::Allow;
            way.closed |= rule.action == Action::Deny && rule.services.are_everything();
            for keys in rule.services.intervals() {
                edges.push((keys.start, true, rule.action, name));
                edges.push((keys.end, false, rule.action, name));
            }
        }
        edges.sort_unstable();
        way.first = index(self.keys.len());
        let (mut allowing, mut denying) = (BTreeSet::new(), BTreeSet::new());
        let mut last = Hit::NONE;
        for at in edges.chunk_by(|one, two| one.0 == two.0) {
            for (_, begins, action, name) in at {
                let active = match action {
                    Action::Allow => &mut allowing,
                    Action::Deny => &mut denying,
                };
                if *begins {
                    active.insert(*name);
                } else {
                    active.remove(name);
                }
            }
            let hit = Hit {
                allow: allowing.first().copied().unwrap_or(NOBODY),
                deny: denying.first().copied().unwrap_or(NOBODY),
            };
            // The end of all keys begins nothing.
            if hit != last && at[0].0 < EVERYTHING.end {
                self.keys.push(at[0].0);
                self.hits.push(hit);
                last = hit;
            }
        }
        way.end = index(self.keys.len());
        way
    }

    /// Cuts the addresses at both ends of every prefix.
    fn cut(&mut self, spans: &[(A, A)]) {
        let mut open: Vec<u32> = Vec::new();
        for (n, (first, _)) in spans.iter().enumerate() {
            self.close(spans, &mut open, Some(*first));
            self.begin(*first, index(n));
            open.push(index(n));
        }
        self.close(spans, &mut open, None);
    }

    /// Ends the prefixes that end before `until`; what is around them goes on.
    fn close(&mut self, spans: &[(A, A)], open: &mut Vec<u32>, until: Option<A>) {
        while let Some(&inner) = open.last() {
            let last = spans[inner as usize].1;
            if until.is_some_and(|until| last >= until) {
                return;
            }
            open.pop();
            if let Some(next) = last.next() {
                self.begin(next, open.last().copied().unwrap_or(NOBODY));
            }
        }
    }

    fn begin(&mut self, start: A, innermost: u32) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.innermost.pop();
        }
        self.starts.push(start);
        self.innermost.push(innermost);
    }
}

impl Hit {
    const NONE: Self = Self {
        allow: NOBODY,
        deny: NOBODY,
    };

    pub(super) fn allow(self) -> Option<u32> {
        (self.allow != NOBODY).then_some(self.allow)
    }

    pub(super) fn deny(self) -> Option<u32> {
        (self.deny != NOBODY).then_some(self.deny)
    }
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }

    const LAST: Self = Self::MAX;
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }

    const LAST: Self = Self::MAX;
}
