//! From an identity to what its session is made of: policy and leases together.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::close::{Refusal, RefusalKind};
use crate::identity::{Identity, Principal};
use crate::period::Period;
use crate::policy::{Filter, Policy};
use crate::range::RouteRange;
use crate::table::leases::{LeaseEntry, Leases};

pub mod diff;

/// Decides who gets a session, and with what.
#[derive(Clone, Debug)]
pub struct Admission {
    policy: Arc<Policy>,
    leases: Leases,
}

/// What an admitted session is made of.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whose session it is.
    pub principal: Principal,
    /// Groups of the certificate and of the policy.
    pub groups: Vec<String>,
    /// Own addresses (as host prefixes) first, then the networks of a site.
    pub addresses: Vec<IpNet>,
    /// What the client is told to route into the tunnel.
    pub routes: Vec<RouteRange>,
    /// What it may reach.
    pub filter: Arc<Filter>,
    /// How long the session may go on before everything about it is checked anew; `None` is as long as the
    /// certificate counts.
    pub maximum: Option<Period>,
    /// When the policy next changes by itself what this identity gets, in seconds since 1970;
    /// `None` is never.
    pub changes_at: Option<i64>,
}

impl Admission {
    /// Admission by `policy`; `inside` are the gateway's own addresses, which nobody is given.
    #[must_use]
    pub fn new(policy: Arc<Policy>, inside: &[IpAddr]) -> Self {
        let reserved = policy.reserved().chain(inside.iter().copied());
        let leases = Leases::new(policy.pools(), reserved);
        Self { policy, leases }
    }

    /// Goes over to another policy. Leases that fit it stay; everybody who is connected should be
    /// [judged](Self::judge) again.
    pub fn change(&mut self, policy: Arc<Policy>, inside: &[IpAddr]) {
        let reserved = policy.reserved().chain(inside.iter().copied());
        self.leases.change(policy.pools(), reserved);
        self.policy = policy;
    }

    /// Takes over the leases of an earlier run.
    pub fn restore(&mut self, leases: impl IntoIterator<Item = LeaseEntry>) {
        self.leases.restore(leases);
    }

    /// Who holds what.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The leases as they were at `revision` outlive the process from now on.
    pub fn leases_saved(&mut self, revision: u64) {
        self.leases.saved(revision);
    }

    /// A session of `principal` begins, or a request for one waits: what it was [given](Self::judge) is in use
    /// until it is [released](Self::release).
    pub fn connect(&mut self, principal: &Principal) {
        self.leases.connect(principal);
    }

    /// What `identity` gets, at `now` in seconds since 1970; whether it is connected stays as it is. Its addresses
    /// can be told as soon as its lease [is saved](Leases::is_saved).
    ///
    /// # Errors
    /// When the policy gives nothing, or no address is left.
    pub fn judge(&mut self, identity: &Identity, now: i64) -> Result<Grant, Refusal> {
        let access = self.policy.access(identity, now)?;
        let fixed = |v4: bool| access.fixed.iter().find(|ip| ip.is_ipv4() == v4).copied();
        let (mut v4, mut v6) = (fixed(true), fixed(false));
        if v4.is_none() || v6.is_none() {
            let lease = self
                .leases
                .lease(&identity.principal, v4.is_none(), v6.is_none(), now)
                .map_err(|error| Refusal::new(RefusalKind::PoolExhausted, error.to_string()))?;
            v4 = v4.or_else(|| lease.v4.map(IpAddr::V4));
            v6 = v6.or_else(|| lease.v6.map(IpAddr::V6));
        }
        let addresses: Vec<IpNet> = v4
            .into_iter()
            .chain(v6)
            .map(IpNet::from)
            .chain(access.networks)
            .collect();
        if addresses.is_empty() {
            return Err(Refusal::new(
                RefusalKind::PoolExhausted,
                "the policy has neither a pool nor a fixed address for this identity",
            ));
        }
        Ok(Grant {
            principal: identity.principal.clone(),
            groups: access.groups,
            addresses,
            routes: access.filter.routes().to_vec(),
            filter: access.filter,
            maximum: access.maximum,
            changes_at: access.changes_at,
        })
    }

    /// The session of `principal` is over, or its request given up; it keeps its lease.
    pub fn release(&mut self, principal: &Principal, now: i64) {
        self.leases.release(principal, now);
    }
}
