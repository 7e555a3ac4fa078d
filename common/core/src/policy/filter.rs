//! The compiled rules of one identity: which flows may begin, and by which rule.

use std::net::IpAddr;
use std::sync::Arc;

use super::networks::Networks;
use super::rate::Rate;
use super::rule::{Action, Rule};
use super::services::{self, Service};
use crate::range::{self, RouteRange};

mod prefixes;
mod table;

use table::{Hit, Table};

/// A rule, by its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    /// Position among all rules, those that allow and those that deny, from 0.
    pub index: u32,
    /// Line of the file, from 1.
    pub line: u32,
}

/// What the first packet of a flow is to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who starts it.
    pub direction: Direction,
    /// The address at the far end, seen from the session's owner.
    pub inside: IpAddr,
    /// The upper-layer protocol.
    pub protocol: u8,
    /// The packet's destination port, where it carries one: the far end's if the client starts,
    /// else the client's. Without one, a rule that names ports denies, and does not allow.
    pub port: Option<u16>,
}

impl Flow {
    /// A flow as people write it: `service` is "tcp/443", "icmp" or "proto/47".
    ///
    /// # Errors
    /// What is wrong with `service`, and what to do.
    pub fn parse(
        direction: Direction,
        inside: IpAddr,
        service: &str,
    ) -> Result<Self, (String, &'static str)> {
        let service = Service::of_a_flow(service)?;
        Ok(Self {
            direction,
            inside,
            protocol: match (service.protocol.numbers(), inside) {
                ([_, v6, ..], IpAddr::V6(_)) => *v6,
                ([number, ..], _) => *number,
                ([], _) => 0,
            },
            port: service.ports.map(|(port, _)| port),
        })
    }
}

/// Which way a packet goes through a session; of a flow, its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    FromClient,
    /// To the client.
    ToClient,
}

/// The policy's answer, with the rule that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The flow may begin.
    Allow(RuleId),
    /// It may not: by a rule, or because no rule allows it.
    Deny(Option<RuleId>),
}

/// What one identity may reach, and who may reach it, at one time.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Those that count, in the order of the file. The tables name them by their place here.
    rules: Vec<Arc<Rule>>,
    v4: Table<u32>,
    v6: Table<u128>,
    routes: Vec<RouteRange>,
}

impl Filter {
    /// Compiles rules, which stand in the order of the file.
    pub(super) fn new(rules: Vec<Arc<Rule>>, networks: &Networks) -> Self {
        let (v4, v6) = prefixes::by_family(&rules, networks);
        let (v4, v6) = (Table::new(&rules, v4), Table::new(&rules, v6));
        let mut routed = Vec::new();
        prefixes::routed_v4(&v4, &mut routed);
        prefixes::routed_v6(&v6, &mut routed);
        Self {
            rules,
            v4,
            v6,
            routes: range::merged(routed),
        }
    }

    /// Whether a flow may begin. A rule that denies beats all that allow; of several that do the
    /// same the first in the file gives its name.
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Decision {
        let hit = self.hit(flow);
        match (hit.deny(), hit.allow()) {
            (Some(rule), _) => Decision::Deny(self.id(rule)),
            (None, Some(rule)) => self.id(rule).map_or(Decision::Deny(None), Decision::Allow),
            (None, None) => Decision::Deny(None),
        }
    }

    /// How fast a session may use a rule, in each direction; `None` without a limit.
    #[must_use]
    pub fn rate(&self, rule: RuleId) -> Option<Rate> {
        self.rule(rule)?.rate()
    }

    /// What is routed to the gateway, in the order of RFC 9484 §4.7.3: the prefixes of rules that
    /// allow in some direction, without those where a rule denies everything in it.
    #[must_use]
    pub fn routes(&self) -> &[RouteRange] {
        &self.routes
    }

    /// The rules that count, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule of an answer.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&Arc<Rule>> {
        let at = self
            .rules
            .binary_search_by_key(&id.index, |rule| rule.id().index);
        at.ok().map(|at| &self.rules[at])
    }

    /// The rule that would allow a flow that a rule denies.
    pub(super) fn overruled(&self, flow: &Flow) -> Option<&Rule> {
        let hit = self.hit(flow);
        hit.deny()?;
        self.rules.get(hit.allow()? as usize).map(|rule| &**rule)
    }

    fn hit(&self, flow: &Flow) -> Hit {
        let key = services::key(flow.protocol, flow.port);
        match flow.inside {
            IpAddr::V4(address) => self.v4.find(address.into(), flow.direction, key),
            IpAddr::V6(address) => self.v6.find(address.into(), flow.direction, key),
        }
    }

    fn id(&self, position: u32) -> Option<RuleId> {
        self.rules.get(position as usize).map(|rule| rule.id())
    }
}

/// Whether both decide the same, by rules of the same names and rates, and advertise the same.
/// Lines may differ.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        let said = |rule: &Rule| {
            (
                rule.action() == Action::Allow,
                rule.name.clone(),
                rule.rate(),
            )
        };
        self.rules.len() == other.rules.len()
            && self.v4 == other.v4
            && self.v6 == other.v6
            && self
                .rules
                .iter()
                .zip(&other.rules)
                .all(|(one, two)| said(one) == said(two))
    }
}
