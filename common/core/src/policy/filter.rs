//! The compiled rules of one identity: which inside addresses, and by which rule.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::range::{self, RouteRange};

/// A rule, by its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    /// Position among the rules, from 0.
    pub index: u32,
    /// Line of the file, from 1.
    pub line: u32,
}

/// What a packet is to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which way it goes.
    pub direction: Direction,
    /// The address at the far end, seen from the session's owner.
    pub inside: IpAddr,
    /// The upper-layer protocol.
    pub protocol: u8,
    /// The port of the far end, where the packet carries one.
    pub port: Option<u16>,
}

/// Which way a packet goes through a session.
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
    /// The packet may pass.
    Allow(RuleId),
    /// It may not: by a rule, or because no rule allows it.
    Deny(Option<RuleId>),
}

/// What one identity may reach.
#[derive(Clone, Debug)]
pub struct Filter {
    v4: PrefixMap<Ipv4Net, RuleId>,
    v6: PrefixMap<Ipv6Net, RuleId>,
    routes: Vec<RouteRange>,
}

impl Filter {
    /// A filter of these prefixes; of two rules with the same prefix the first decides.
    pub(super) fn new(prefixes: impl IntoIterator<Item = (IpNet, RuleId)>) -> Self {
        let mut filter = Self {
            v4: PrefixMap::new(),
            v6: PrefixMap::new(),
            routes: Vec::new(),
        };
        let mut all = Vec::new();
        for (prefix, rule) in prefixes {
            all.push(prefix);
            match prefix {
                IpNet::V4(prefix) => {
                    filter.v4.entry(prefix).or_insert(rule);
                }
                IpNet::V6(prefix) => {
                    filter.v6.entry(prefix).or_insert(rule);
                }
            }
        }
        filter.routes = range::from_prefixes(&all);
        filter
    }

    /// Whether a packet may pass. Protocol, port and direction do not matter to prefix rules.
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Decision {
        let rule = match flow.inside {
            IpAddr::V4(address) => self
                .v4
                .get_lpm(&Ipv4Net::from(address))
                .map(|(_, rule)| *rule),
            IpAddr::V6(address) => self
                .v6
                .get_lpm(&Ipv6Net::from(address))
                .map(|(_, rule)| *rule),
        };
        rule.map_or(Decision::Deny(None), Decision::Allow)
    }

    /// The same as routes, in the order of RFC 9484 §4.7.3.
    #[must_use]
    pub fn routes(&self) -> &[RouteRange] {
        &self.routes
    }
}
