//! The policy: the one object that gives addresses, routes and the packet filter.
//!
//! Immutable once parsed. Default deny: an identity without a rule has no access at all, and an
//! empty policy lets nobody in. The routes a client is told and the flows it may begin come from
//! the same [`Filter`], so they cannot disagree. `docs/policy.md` describes the language.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::assertion::Assertion;
use self::clock::Clock;
use self::groups::{Groups, Origin};
use self::limit::{Limit, Limits};
use self::naming::Naming;
use self::networks::Networks;
use self::shared::SharedFilters;
use crate::close::{Refusal, RefusalKind};
use crate::config::{ConfigError, Warning};
use crate::identity::{Identity, Principal};
use crate::period::Period;
use crate::table::leases::Pools;

mod assertion;
mod clock;
mod explain;
mod file;
mod filter;
mod glob;
mod groups;
mod limit;
mod naming;
mod nesting;
mod networks;
mod rate;
mod rule;
mod schedule;
mod services;
mod shadow;
mod shared;
mod standing;
mod summary;

pub use explain::{Explanation, GroupOrigin, Maximum, Miss, Question, RuleText, Upcoming, render};
pub use filter::{Decision, Direction, Filter, Flow, RuleId};
pub use rate::Rate;
pub use rule::{Action, Rule};
pub use standing::Standing;
pub use summary::Summary;

/// Who gets which addresses and may reach what.
#[derive(Debug)]
pub struct Policy {
    /// The file's name, for messages.
    file: Arc<str>,
    clock: Clock,
    pools: Pools,
    networks: Networks,
    groups: Groups,
    /// In the order of the file.
    rules: Vec<Arc<Rule>>,
    naming: Naming,
    limits: Limits,
    fixed: BTreeMap<Principal, Vec<IpAddr>>,
    sites: BTreeMap<Principal, Vec<IpNet>>,
    tests: Vec<Assertion>,
    warnings: Vec<Warning>,
    filters: SharedFilters,
}

/// What the policy gives one identity, at one time.
#[derive(Clone, Debug)]
pub struct Access {
    /// Groups of the certificate and of the file, sorted.
    pub groups: Vec<String>,
    /// Fixed addresses, at most one of each family.
    pub fixed: Vec<IpAddr>,
    /// Networks behind a site.
    pub networks: Vec<IpNet>,
    /// What may be reached.
    pub filter: Arc<Filter>,
    /// How long a session may go on before everything about it is checked anew; `None` is as long as its
    /// certificate counts.
    pub maximum: Option<Period>,
    /// When hours or the validity of rules next change what this identity gets, in seconds since
    /// 1970: ask again then. `None` is never.
    pub changes_at: Option<i64>,
}

impl Policy {
    /// Reads a policy file; `file` names it in messages. The file's own tests are not run: see
    /// [`Policy::failed_tests`].
    ///
    /// # Errors
    /// The first thing that is wrong, with its line. Nothing is used of a wrong policy.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        file::parse(text, file)
    }

    /// What is odd but usable, whatever the time.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What all rules are called, those without a name by their place.
    pub fn rule_names(&self) -> impl Iterator<Item = String> + '_ {
        self.rules.iter().map(|rule| rule.name())
    }

    /// A warning for each rule whose validity has ended at `now`, in seconds since 1970.
    #[must_use]
    pub fn ended_rules(&self, now: i64) -> Vec<Warning> {
        let ended = self.rules.iter().filter_map(|rule| {
            let schedule = rule
                .schedule
                .as_ref()
                .filter(|schedule| schedule.has_ended(now))?;
            let message = format!("the rule has ended, and decides nothing any more ({schedule})");
            let kind = rule.action.to_string();
            Some(Warning::on_line(
                &self.file,
                rule.id.line as usize,
                &kind,
                message,
            ))
        });
        ended.collect()
    }

    /// Runs the `[[test]]`s of the file and gives those that fail, each with its line, what it
    /// expects, what came out and by which rule. `now`, in seconds since 1970, is for tests
    /// without a time of their own.
    #[must_use]
    pub fn failed_tests(&self, now: i64) -> Vec<ConfigError> {
        assertion::failed(self, now)
    }

    /// How many `[[test]]`s there are.
    #[must_use]
    pub fn test_count(&self) -> usize {
        self.tests.len()
    }

    /// The seconds since 1970 of a date and time, in local time of the policy unless an offset is written.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn moment(&self, written: &str) -> Result<i64, (String, &'static str)> {
        self.clock.read(written)
    }

    /// Seconds since 1970 in local time of the policy, "Mon 2026-11-23 08:00 Europe/Berlin".
    #[must_use]
    pub fn local_time(&self, at: i64) -> String {
        self.clock.show(at)
    }

    /// What an identity gets at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`RefusalKind::NoAccess`] when no rule that allows names it, or none ever will again;
    /// [`RefusalKind::OutsideHours`] when those that do have their time later.
    pub fn access(&self, identity: &Identity, now: i64) -> Result<Access, Refusal> {
        let Identity {
            principal,
            authority,
            groups,
            ..
        } = identity;
        self.access_of(principal, authority, groups, now)
    }

    /// Why a flow may begin or may not; the answer is that of [`Policy::access`] and
    /// [`Filter::decide`].
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        explain::explain(self, question)
    }

    /// Where leases come from.
    #[must_use]
    pub fn pools(&self) -> Pools {
        self.pools
    }

    /// Addresses fixed for somebody, which are never leased to others.
    pub fn reserved(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.fixed.values().flatten().copied()
    }

    /// Everything the gateway's kernel must route into the TUN device: pools, fixed addresses
    /// outside of them, and the networks of sites.
    #[must_use]
    pub fn routed_prefixes(&self) -> Vec<IpNet> {
        let pools: Vec<IpNet> = self
            .pools
            .v4
            .map(IpNet::V4)
            .into_iter()
            .chain(self.pools.v6.map(IpNet::V6))
            .collect();
        let mut prefixes: BTreeSet<IpNet> = pools.iter().copied().collect();
        prefixes.extend(self.sites.values().flatten());
        for address in self.reserved() {
            let host = IpNet::from(address);
            let around = std::iter::successors(Some(host), IpNet::supernet);
            if !around.into_iter().any(|around| prefixes.contains(&around)) {
                prefixes.insert(host);
            }
        }
        prefixes.into_iter().collect()
    }

    fn access_of(
        &self,
        principal: &Principal,
        authority: &str,
        certified: &[String],
        now: i64,
    ) -> Result<Access, Refusal> {
        let named = self.named(principal, authority, certified);
        let counting = self.counting(&named.rules, now);
        if !counting.rules.iter().any(|&rule| self.allows(rule)) {
            let begins = self.counting(&named.allowing(self), now).changes_at;
            return Err(match begins {
                Some(at) => Refusal::new(
                    RefusalKind::OutsideHours,
                    format!("{principal}; access begins {}", self.clock.show(at)),
                ),
                None => Refusal::new(RefusalKind::NoAccess, principal.to_string()),
            });
        }
        let filter = self.filters.get(&counting.rules, || {
            let rules = counting.rules.iter().map(|&rule| self.rule(rule));
            Filter::new(rules.map(Arc::clone).collect(), &self.networks)
        });
        Ok(Access {
            groups: named.groups.keys().map(ToString::to_string).collect(),
            fixed: self.fixed.get(principal).cloned().unwrap_or_default(),
            networks: self.sites.get(principal).cloned().unwrap_or_default(),
            filter,
            maximum: self
                .limit(principal, authority, &named)
                .map(|limit| limit.maximum),
            changes_at: counting.changes_at,
        })
    }

    fn named(&self, principal: &Principal, authority: &str, certified: &[String]) -> Named {
        let groups = self.groups.of(principal, certified);
        let rules = self.naming.named(principal, authority, groups.keys());
        Named { groups, rules }
    }

    /// What limits the sessions of somebody.
    fn limit(&self, principal: &Principal, authority: &str, named: &Named) -> Option<&Limit> {
        self.limits
            .shortest(principal, authority, named.groups.keys())
    }

    /// Those of `rules` that count at `now`, and when that changes.
    fn counting(&self, rules: &[u32], now: i64) -> Counting {
        // Many rules share few schedules.
        let mut active: BTreeMap<u32, bool> = BTreeMap::new();
        let mut changes_at: Option<i64> = None;
        let counting = rules.iter().copied().filter(|&rule| {
            let Some(schedule) = &self.rule(rule).schedule else {
                return true;
            };
            *active.entry(schedule.number).or_insert_with(|| {
                if let Some(change) = schedule.next_change(now, &self.clock) {
                    changes_at = Some(changes_at.map_or(change, |at| at.min(change)));
                }
                schedule.is_active(now, &self.clock)
            })
        });
        Counting {
            rules: counting.collect(),
            changes_at,
        }
    }

    fn allows(&self, rule: u32) -> bool {
        self.rule(rule).action == Action::Allow
    }

    fn rule(&self, number: u32) -> &Arc<Rule> {
        &self.rules[number as usize]
    }
}

/// What names an identity, whatever the time.
struct Named {
    groups: BTreeMap<Arc<str>, Origin>,
    rules: Vec<u32>,
}

/// What counts at one time.
struct Counting {
    rules: Vec<u32>,
    changes_at: Option<i64>,
}

impl Named {
    fn allowing(&self, policy: &Policy) -> Vec<u32> {
        let rules = self.rules.iter().copied();
        rules.filter(|&rule| policy.allows(rule)).collect()
    }
}
