//! The policy: the one object that gives addresses, routes and the packet filter.
//!
//! Immutable once parsed. Default deny: an identity without a rule has no access at all, and an
//! empty policy lets nobody in. The routes a client is told and the packets it may send come from
//! the same [`Filter`], so they cannot disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use crate::close::{Refusal, RefusalKind};
use crate::config::{ConfigError, Warning};
use crate::identity::{Identity, Principal};
use crate::table::leases::Pools;

mod file;
mod filter;

pub use filter::{Decision, Direction, Filter, Flow, RuleId};

/// Who gets which addresses and may reach what.
#[derive(Debug)]
pub struct Policy {
    pools: Pools,
    /// Groups of the file, by member.
    groups: BTreeMap<Principal, BTreeSet<String>>,
    rules: Vec<Rule>,
    fixed: BTreeMap<Principal, Vec<IpAddr>>,
    sites: BTreeMap<Principal, Vec<IpNet>>,
    warnings: Vec<Warning>,
    /// Identities with the same rules share one filter.
    filters: Mutex<BTreeMap<Vec<RuleId>, Arc<Filter>>>,
}

/// One `[[allow]]`.
#[derive(Debug)]
struct Rule {
    id: RuleId,
    who: Vec<Who>,
    to: Vec<IpNet>,
}

/// An entry of a rule's `who`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Everybody,
    Group(String),
    Principal(Principal),
}

/// What the policy gives one identity.
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
}

impl Policy {
    /// Reads a policy file; `file` names it in messages.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line. Nothing is used of a wrong policy.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        file::parse(text, file)
    }

    /// What is odd but usable.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What an identity gets.
    ///
    /// # Errors
    /// [`RefusalKind::NoAccess`] when no rule names it.
    pub fn access(&self, identity: &Identity) -> Result<Access, Refusal> {
        let mut groups: BTreeSet<String> = identity.groups.iter().cloned().collect();
        if let Some(more) = self.groups.get(&identity.principal) {
            groups.extend(more.iter().cloned());
        }
        let matching: Vec<&Rule> = self
            .rules
            .iter()
            .filter(|rule| rule.names(&identity.principal, &groups))
            .collect();
        if matching.is_empty() {
            return Err(Refusal::new(
                RefusalKind::NoAccess,
                identity.principal.to_string(),
            ));
        }
        Ok(Access {
            groups: groups.into_iter().collect(),
            fixed: self
                .fixed
                .get(&identity.principal)
                .cloned()
                .unwrap_or_default(),
            networks: self
                .sites
                .get(&identity.principal)
                .cloned()
                .unwrap_or_default(),
            filter: self.filter(&matching),
        })
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
            if !prefixes.iter().any(|prefix| prefix.contains(&address)) {
                prefixes.insert(IpNet::from(address));
            }
        }
        prefixes.into_iter().collect()
    }

    fn filter(&self, rules: &[&Rule]) -> Arc<Filter> {
        let key: Vec<RuleId> = rules.iter().map(|rule| rule.id).collect();
        // A filter is inserted whole or not at all: a poisoned lock still guards a sound map.
        let mut filters = self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = filters.entry(key).or_insert_with(|| {
            let prefixes = rules
                .iter()
                .flat_map(|rule| rule.to.iter().map(|prefix| (*prefix, rule.id)));
            Arc::new(Filter::new(prefixes))
        });
        Arc::clone(filter)
    }
}

impl Rule {
    fn names(&self, principal: &Principal, groups: &BTreeSet<String>) -> bool {
        self.who.iter().any(|who| match who {
            Who::Everybody => true,
            Who::Group(group) => groups.contains(group),
            Who::Principal(named) => named == principal,
        })
    }
}
