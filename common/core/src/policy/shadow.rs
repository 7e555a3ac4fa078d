//! Finds rules that can decide nothing, because one other rule always decides before them.
//!
//! What is found: a rule that a single other one covers whole, in who, to, ports, direction and
//! time. What is not: rules that only several others cover together; and, so that a file of a
//! million lines loads in seconds, whatever lies beyond the limits at the end of this file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::glob::{self, Glob};
use super::groups::Groups;
use super::nesting::{index, parents};
use super::networks::Networks;
use super::rule::{Action, Rule, Who};
use crate::config::Warning;

/// A warning for each rule that is found to decide nothing.
pub(super) fn warnings(rules: &[Arc<Rule>], networks: &Networks, groups: &Groups) -> Vec<Warning> {
    let search = Search::new(rules, networks, groups);
    let shadowed = (0..rules.len()).filter_map(|n| Some((&rules[n], &rules[search.cover_of(n)?])));
    let warnings = shadowed.map(|(rule, by)| {
        let kind = rule.action.to_string();
        let message = match &rule.name {
            Some(name) => format!("{name:?} decides nothing, shadowed by "),
            None => "the rule decides nothing, shadowed by ".to_owned(),
        };
        let by = match &by.name {
            Some(name) => format!("{name:?} ({})", by.place()),
            None => by.name(),
        };
        Warning::on_line(&rule.file, rule.id.line as usize, &kind, message + &by)
    });
    warnings.collect()
}

struct Search<'a> {
    rules: &'a [Arc<Rule>],
    groups: &'a Groups,
    /// The numbers of each rule's prefixes, ascending; none of a rule with too many.
    to: Vec<Vec<u32>>,
    /// Of prefixes, by number.
    parents: Vec<u32>,
    /// The numbers of each rule's `who`, ascending.
    who: Vec<Vec<u32>>,
    numbers: BTreeMap<String, u32>,
    globs: BTreeMap<String, Vec<(Glob, u32)>>,
    /// Ascending: a prefix, an action, a who, and a rule that has all of them.
    pairs: Vec<(u32, Action, u32, u32)>,
}

/// An address with its family, so that the families stay apart.
type Place = (bool, u128);

impl<'a> Search<'a> {
    fn new(rules: &'a [Arc<Rule>], networks: &'a Networks, groups: &'a Groups) -> Self {
        let mut spans: Vec<Vec<(Place, Place)>> = Vec::with_capacity(rules.len());
        for rule in rules {
            let prefixes = networks.prefixes(&rule.to).take(MAX_PREFIXES + 1);
            let found: Vec<_> = prefixes.map(span).collect();
            spans.push(if found.len() > MAX_PREFIXES || rule.who.len() > MAX_WHO {
                Vec::new()
            } else {
                found
            });
        }
        let mut distinct: Vec<(Place, Place)> = spans.iter().flatten().copied().collect();
        distinct.sort_unstable_by(|one, two| (one.0, two.1).cmp(&(two.0, one.1)));
        distinct.dedup();
        let number = |span: &(Place, Place)| {
            let found = distinct.binary_search_by(|one| (one.0, span.1).cmp(&(span.0, one.1)));
            found.ok().map(index)
        };
        let to = spans.iter().map(|spans| {
            let mut to: Vec<u32> = spans.iter().filter_map(number).collect();
            to.sort_unstable();
            to.dedup();
            to
        });
        let mut search = Self {
            rules,
            groups,
            to: to.collect(),
            parents: parents(&distinct),
            who: Vec::with_capacity(rules.len()),
            numbers: BTreeMap::new(),
            globs: BTreeMap::new(),
            pairs: Vec::new(),
        };
        search.index();
        search
    }

    fn index(&mut self) {
        for (n, rule) in self.rules.iter().enumerate() {
            let mut who: Vec<u32> = rule.who.iter().map(|who| self.number(who)).collect();
            who.sort_unstable();
            who.dedup();
            let new = self.to[n].len() * who.len();
            if new <= MAX_PAIRS_OF_RULE && self.pairs.len() + new <= MAX_PAIRS {
                for &to in &self.to[n] {
                    let pairs = who.iter().map(|&who| (to, rule.action, who, index(n)));
                    self.pairs.extend(pairs);
                }
            }
            self.who.push(who);
        }
        self.pairs.sort_unstable();
    }

    fn number(&mut self, who: &Who) -> u32 {
        let text = who.to_string();
        if let Some(&known) = self.numbers.get(&text) {
            return known;
        }
        let number = index(self.numbers.len());
        self.numbers.insert(text, number);
        if let Who::Domain(glob) = who {
            let same_end = self.globs.entry(glob.ending().to_owned()).or_default();
            same_end.push((glob.clone(), number));
        }
        number
    }

    /// The rule that always decides before the n-th.
    fn cover_of(&self, n: usize) -> Option<usize> {
        let (rule, first) = (&self.rules[n], *self.to[n].first()?);
        let around: Vec<Vec<u32>> = rule.who.iter().map(|who| self.around(who)).collect();
        let mut tried = BTreeSet::new();
        for prefix in self.ancestors(first) {
            for &who in around.first()? {
                for action in [Action::Deny, Action::Allow] {
                    let from = self
                        .pairs
                        .partition_point(|pair| (pair.0, pair.1, pair.2) < (prefix, action, who));
                    let same = self.pairs[from..].iter().take(MAX_OF_PAIR);
                    let same =
                        same.take_while(|pair| (pair.0, pair.1, pair.2) == (prefix, action, who));
                    for &(.., other) in same {
                        if tried.len() >= MAX_TRIED {
                            return None;
                        }
                        let other = other as usize;
                        if tried.insert(other) && self.covers(other, n, &around) {
                            return Some(other);
                        }
                    }
                }
            }
        }
        None
    }

    fn covers(&self, other: usize, n: usize, around: &[Vec<u32>]) -> bool {
        let (by, rule) = (&self.rules[other], &self.rules[n]);
        let before = match (by.action, rule.action) {
            (Action::Deny, Action::Allow) => other != n,
            (Action::Allow, Action::Deny) => false,
            (Action::Allow, Action::Allow) | (Action::Deny, Action::Deny) => other < n,
        };
        let time = match (&by.schedule, &rule.schedule) {
            (None, _) => true,
            (Some(by), None) => by.is_always(),
            (Some(by), Some(rule)) => by.covers(rule),
        };
        let has = |list: &[u32], one: u32| list.binary_search(&one).is_ok();
        before
            && time
            && by.directions.cover(rule.directions)
            && by.services.cover(&rule.services)
            && around
                .iter()
                .all(|around| around.iter().any(|&who| has(&self.who[other], who)))
            && self.to[n]
                .iter()
                .all(|&to| self.ancestors(to).any(|to| has(&self.to[other], to)))
    }

    /// A prefix and those around it.
    fn ancestors(&self, prefix: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(prefix), |&inner| {
            let outer = self.parents[inner as usize];
            (outer as usize).lt(&self.parents.len()).then_some(outer)
        })
    }

    /// Everything that names whoever `who` names, as far as rules name it.
    fn around(&self, who: &Who) -> Vec<u32> {
        let number = |text: &str| self.numbers.get(text).copied();
        let mut around: Vec<u32> = number(&who.to_string()).into_iter().collect();
        around.extend(number("*"));
        let outer = match who {
            Who::Principal(principal) => self.groups.of(principal, &[]),
            Who::Group(group) => self.groups.around(group),
            Who::Everybody | Who::Domain(_) | Who::Authority(_) => BTreeMap::new(),
        };
        let outer = outer.keys().take(MAX_OUTER);
        around.extend(outer.filter_map(|group| number(&format!("group:{group}"))));
        if let Who::Principal(principal) = who {
            let globs = glob::endings(principal).filter_map(|end| self.globs.get(end));
            let globs = globs.flatten().take(MAX_OUTER);
            let globs = globs.filter(|(glob, _)| glob.matches(principal));
            around.extend(globs.map(|(_, number)| *number));
        }
        around
    }
}

fn span(prefix: IpNet) -> (Place, Place) {
    let place = |address: IpAddr| match address {
        IpAddr::V4(v4) => (false, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (true, u128::from(v6)),
    };
    (place(prefix.network()), place(prefix.broadcast()))
}

/// Rules with more prefixes, networks followed, are neither found nor found to cover others.
const MAX_PREFIXES: usize = 256;
/// The same for entries of `who`.
const MAX_WHO: usize = 256;
/// Rules with more combinations of prefix and who are not found to cover others.
const MAX_PAIRS_OF_RULE: usize = 1024;
/// All rules together: some hundred megabytes and a second.
const MAX_PAIRS: usize = 4_000_000;
/// Rules that share a prefix and a who are asked from the first on, this many.
const MAX_OF_PAIR: usize = 8;
/// Candidates for one rule.
const MAX_TRIED: usize = 64;
/// Groups and globs around one entry of `who`.
const MAX_OUTER: usize = 16;
