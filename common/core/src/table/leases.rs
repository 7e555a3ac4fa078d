//! Inner addresses from the pools, each held by one principal for as long as there is room.
//!
//! A lease is sticky: the principal gets the same addresses at every connection and after every
//! restart. Only when a pool has no free address is one taken from the principal that has been away
//! the longest. Never given out: the network and broadcast address of an IPv4 pool, the
//! subnet-router anycast address of an IPv6 pool, and addresses reserved for others.
//!
//! Sticky over a restart is only what was saved before it. So changes are numbered: whoever saves the
//! table says which [revision](Leases::revision) outlives the process now, and an address is told to
//! nobody before its lease [does](Leases::is_saved).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::identity::Principal;

/// Where leases come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// IPv4, if any.
    pub v4: Option<Ipv4Net>,
    /// IPv6, if any.
    pub v6: Option<Ipv6Net>,
}

/// The addresses of one principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// IPv4, when there is such a pool.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, when there is such a pool.
    pub v6: Option<Ipv6Addr>,
}

/// A lease as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEntry {
    /// The holder.
    pub principal: Principal,
    /// IPv4.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub v6: Option<Ipv6Addr>,
    /// When it was last granted or released, in seconds since 1970.
    pub last_used: i64,
}

impl LeaseEntry {
    /// Both addresses, as far as there are.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }
}

/// No address is free, and every holder is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every address of the pool {pool} is in use")]
pub struct PoolExhausted {
    /// The IPv4 pool; an IPv6 pool is larger than any number of holders.
    pub pool: Ipv4Net,
}

/// Who holds what.
#[derive(Clone, Debug)]
pub struct Leases {
    pools: Pools,
    reserved: BTreeSet<IpAddr>,
    holders: BTreeMap<Principal, Holder>,
    taken: BTreeMap<IpAddr, Principal>,
    /// Whose addresses are in use: a new connection of a principal may begin before the old one ends.
    connected: BTreeMap<Principal, u32>,
    /// Counts how often whose an address is has changed.
    revision: u64,
    /// The newest revision that outlives the process.
    saved: u64,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    lease: Lease,
    last_used: i64,
    /// The first revision that has this lease; 0 is that of an earlier run.
    since: u64,
}

impl Leases {
    /// Pools of which nothing is leased; `reserved` is never given out.
    #[must_use]
    pub fn new(pools: Pools, reserved: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            pools,
            reserved: reserved.into_iter().collect(),
            holders: BTreeMap::new(),
            taken: BTreeMap::new(),
            connected: BTreeMap::new(),
            revision: 0,
            saved: 0,
        }
    }

    /// Goes over to other pools and reservations. A lease that still fits stays, another ends, whether its
    /// holder is connected or not.
    pub fn change(&mut self, pools: Pools, reserved: impl IntoIterator<Item = IpAddr>) {
        self.pools = pools;
        self.reserved = reserved.into_iter().collect();
        self.taken.clear();
        let mut ended = false;
        for (principal, holder) in std::mem::take(&mut self.holders) {
            let lease = self.fitting(holder.lease);
            ended |= lease != holder.lease;
            self.keep(principal, Holder { lease, ..holder });
        }
        self.revision += u64::from(ended);
    }

    /// Takes over leases that an earlier run saved, as far as they still fit the pools and nobody holds the
    /// address.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = LeaseEntry>) {
        for entry in entries {
            if self.holders.contains_key(&entry.principal) {
                continue;
            }
            let (v4, v6) = (entry.v4, entry.v6);
            let holder = Holder {
                lease: self.fitting(Lease { v4, v6 }),
                last_used: entry.last_used,
                since: 0,
            };
            self.keep(entry.principal, holder);
        }
    }

    /// The addresses of `principal` of the families that are asked for: who has a fixed address of one
    /// family needs no lease of it. An address held from earlier is kept in any case.
    ///
    /// # Errors
    /// When IPv4 is asked for and its pool has no address left that is not in use.
    pub fn lease(
        &mut self,
        principal: &Principal,
        v4: bool,
        v6: bool,
        now: i64,
    ) -> Result<Lease, PoolExhausted> {
        let held = self.holders.get(principal);
        let held = held.map(|holder| holder.lease).unwrap_or_default();
        let v4 = match (held.v4, self.pools.v4.filter(|_| v4)) {
            (Some(v4), _) => Some(v4),
            (None, None) => None,
            (None, Some(pool)) => Some(self.free_v4(principal, pool)?),
        };
        let v6 = match (held.v6, self.pools.v6.filter(|_| v6)) {
            (Some(v6), _) => Some(v6),
            (None, None) => None,
            (None, Some(pool)) => self.free_v6(principal, pool),
        };
        let lease = Lease { v4, v6 };
        if lease != Lease::default() {
            self.hold(principal.clone(), lease, now);
        }
        Ok(lease)
    }

    /// One connection of `principal` begins: its addresses are in use until as many have ended.
    pub fn connect(&mut self, principal: &Principal) {
        let connections = self.connected.entry(principal.clone()).or_default();
        *connections = connections.saturating_add(1);
    }

    /// One connection of `principal` ended; it keeps its addresses until they are needed.
    pub fn release(&mut self, principal: &Principal, now: i64) {
        if let Some(connections) = self.connected.get_mut(principal) {
            *connections -= 1;
            if *connections == 0 {
                self.connected.remove(principal);
            }
        }
        if let Some(holder) = self.holders.get_mut(principal) {
            holder.last_used = now;
        }
    }

    /// Everything that is held, to be saved, at `now`. Who is connected uses its lease now: after a crash
    /// nobody who was away before takes its place.
    #[must_use]
    pub fn entries(&self, now: i64) -> Vec<LeaseEntry> {
        self.holders
            .iter()
            .map(|(principal, holder)| LeaseEntry {
                principal: principal.clone(),
                v4: holder.lease.v4,
                v6: holder.lease.v6,
                last_used: match self.connected.contains_key(principal) {
                    true => holder.last_used.max(now),
                    false => holder.last_used,
                },
            })
            .collect()
    }

    /// The number of what [`Self::entries`] gives; raised whenever an address is somebody else's, or nobody's.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What was held at `revision` outlives the process from now on.
    pub fn saved(&mut self, revision: u64) {
        self.saved = self.saved.max(revision);
    }

    /// Whether the lease of `principal` outlives the process, so that its addresses can be told. True of who
    /// has none.
    #[must_use]
    pub fn is_saved(&self, principal: &Principal) -> bool {
        let holder = self.holders.get(principal);
        holder.is_none_or(|holder| holder.since <= self.saved)
    }

    fn hold(&mut self, principal: Principal, lease: Lease, last_used: i64) {
        let held = self.holders.get(&principal);
        let since = match held.filter(|holder| holder.lease == lease) {
            Some(holder) => holder.since,
            None => {
                self.revision += 1;
                self.revision
            }
        };
        let holder = Holder {
            lease,
            last_used,
            since,
        };
        self.keep(principal, holder);
    }

    /// Enters somebody who holds anything at all.
    fn keep(&mut self, principal: Principal, holder: Holder) {
        for address in addresses(holder.lease) {
            self.taken.insert(address, principal.clone());
        }
        if holder.lease != Lease::default() {
            self.holders.insert(principal, holder);
        }
    }

    /// What of a lease may be held.
    fn fitting(&self, lease: Lease) -> Lease {
        Lease {
            v4: lease.v4.filter(|&v4| self.may_lease_v4(v4)),
            v6: lease.v6.filter(|&v6| self.may_lease_v6(v6)),
        }
    }

    /// A free address, where a principal always starts to look at the same place: if the lease
    /// table is lost, most get their old addresses back.
    fn free_v4(&mut self, principal: &Principal, pool: Ipv4Net) -> Result<Ipv4Addr, PoolExhausted> {
        let base = u32::from(pool.network());
        let span = u32::from(pool.broadcast()) - base;
        let first = spread(principal, 4) % (u64::from(span) + 1);
        let free = (0..=u64::from(span))
            .map(|step| (first + step) % (u64::from(span) + 1))
            .filter_map(|offset| u32::try_from(offset).ok())
            .map(|offset| Ipv4Addr::from(base + offset))
            .find(|&address| self.may_lease_v4(address));
        if let Some(address) = free {
            return Ok(address);
        }
        let longest_away = self
            .holders
            .iter()
            .filter(|(principal, holder)| {
                !self.connected.contains_key(*principal) && holder.lease.v4.is_some()
            })
            .min_by_key(|(_, holder)| holder.last_used)
            .map(|(principal, _)| principal.clone())
            .ok_or(PoolExhausted { pool })?;
        let lease = self.forget(&longest_away);
        lease.v4.ok_or(PoolExhausted { pool })
    }

    /// A free address of a pool too large to search: the first few places of the principal.
    fn free_v6(&self, principal: &Principal, pool: Ipv6Net) -> Option<Ipv6Addr> {
        let base = u128::from(pool.network());
        let span = u128::from(pool.broadcast()) - base;
        let first = u128::from(spread(principal, 6)) << 64 | u128::from(spread(principal, 7));
        // A pool as small as an IPv4 pool can be full; then there is no IPv6 for the latecomer.
        let tries = span.min(MAX_TRIES);
        (0..=tries)
            .map(|step| first.wrapping_add(step))
            .map(|offset| match span.checked_add(1) {
                Some(size) => offset % size,
                None => offset,
            })
            .map(|offset| Ipv6Addr::from(base + offset))
            .find(|&address| self.may_lease_v6(address))
    }

    fn forget(&mut self, principal: &Principal) -> Lease {
        let Some(holder) = self.holders.remove(principal) else {
            return Lease::default();
        };
        self.revision += 1;
        for address in addresses(holder.lease) {
            self.taken.remove(&address);
        }
        holder.lease
    }

    fn may_lease_v4(&self, address: Ipv4Addr) -> bool {
        let Some(pool) = self.pools.v4 else {
            return false;
        };
        // In a /31 or /32 every address is a host (RFC 3021).
        let is_host =
            pool.prefix_len() >= 31 || (address != pool.network() && address != pool.broadcast());
        pool.contains(&address) && is_host && self.is_free(address.into())
    }

    fn may_lease_v6(&self, address: Ipv6Addr) -> bool {
        let Some(pool) = self.pools.v6 else {
            return false;
        };
        // RFC 4291 §2.6.1: all zeroes in the host part is every router's address.
        let is_host = pool.prefix_len() >= 127 || address != pool.network();
        pool.contains(&address) && is_host && self.is_free(address.into())
    }

    fn is_free(&self, address: IpAddr) -> bool {
        !self.reserved.contains(&address) && !self.taken.contains_key(&address)
    }
}

fn addresses(lease: Lease) -> impl Iterator<Item = IpAddr> {
    let v4 = lease.v4.map(IpAddr::V4);
    let v6 = lease.v6.map(IpAddr::V6);
    v4.into_iter().chain(v6)
}

/// FNV-1a: spreads names over a pool. Not a secret, and not attackable: names are certified.
fn spread(principal: &Principal, salt: u8) -> u64 {
    principal
        .as_str()
        .bytes()
        .chain([salt])
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// Among a million leases in a /64 even the second try is improbable.
const MAX_TRIES: u128 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Principal {
        Principal::parse(name).unwrap()
    }

    /// A connection begins.
    fn come(leases: &mut Leases, who: &Principal, now: i64) -> Result<Lease, PoolExhausted> {
        let lease = leases.lease(who, true, true, now)?;
        leases.connect(who);
        Ok(lease)
    }

    fn pools(v4: &str) -> Pools {
        Pools {
            v4: Some(v4.parse().unwrap()),
            v6: Some("fd00::/64".parse().unwrap()),
        }
    }

    #[test]
    fn a_principal_keeps_its_addresses_over_reconnects_and_restarts() {
        let mut leases = Leases::new(pools("10.0.0.0/24"), []);
        let first = come(&mut leases, &who("alice@example.com"), 1).unwrap();
        leases.release(&who("alice@example.com"), 2);
        for n in 0..100 {
            come(&mut leases, &who(&format!("user{n}@example.com")), 3).unwrap();
        }
        assert_eq!(
            come(&mut leases, &who("alice@example.com"), 4).unwrap(),
            first
        );
        let mut restarted = Leases::new(pools("10.0.0.0/24"), []);
        restarted.restore(leases.entries(4));
        assert_eq!(
            come(&mut restarted, &who("alice@example.com"), 5).unwrap(),
            first
        );
    }

    #[test]
    fn network_broadcast_anycast_and_reserved_addresses_are_never_leased() {
        let reserved: IpAddr = "10.0.0.1".parse().unwrap();
        let mut leases = Leases::new(pools("10.0.0.0/29"), [reserved]);
        let mut given = BTreeSet::new();
        for n in 0..5 {
            given.insert(
                come(&mut leases, &who(&format!("u{n}@e.com")), 1)
                    .unwrap()
                    .v4
                    .unwrap(),
            );
        }
        let all: Vec<String> = given.iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
        );
        assert!(come(&mut leases, &who("late@e.com"), 2).is_err());
    }

    #[test]
    fn a_full_pool_takes_from_the_one_away_the_longest() {
        let mut leases = Leases::new(pools("10.0.0.0/30"), []);
        let a = come(&mut leases, &who("a@e.com"), 1).unwrap();
        come(&mut leases, &who("b@e.com"), 1).unwrap();
        leases.release(&who("b@e.com"), 20);
        leases.release(&who("a@e.com"), 10);
        assert_eq!(come(&mut leases, &who("c@e.com"), 30).unwrap().v4, a.v4);
        assert!(
            leases
                .entries(30)
                .iter()
                .all(|entry| entry.principal != who("a@e.com"))
        );
    }

    #[test]
    fn a_connection_that_replaces_another_keeps_the_lease_in_use() {
        let mut leases = Leases::new(pools("10.0.0.0/30"), []);
        come(&mut leases, &who("a@e.com"), 1).unwrap();
        come(&mut leases, &who("b@e.com"), 1).unwrap();
        come(&mut leases, &who("a@e.com"), 2).unwrap();
        leases.release(&who("a@e.com"), 2);
        assert!(
            come(&mut leases, &who("c@e.com"), 3).is_err(),
            "both are connected"
        );
    }

    #[test]
    fn saved_leases_that_do_not_fit_are_dropped() {
        let entry = |name: &str, v4: &str| LeaseEntry {
            principal: who(name),
            v4: Some(v4.parse().unwrap()),
            v6: None,
            last_used: 1,
        };
        let mut leases = Leases::new(pools("10.0.0.0/24"), []);
        leases.restore([
            entry("a@e.com", "10.0.0.5"),
            entry("b@e.com", "10.0.0.5"),
            entry("c@e.com", "192.168.0.1"),
            entry("d@e.com", "10.0.0.255"),
        ]);
        assert_eq!(leases.entries(2).len(), 1);
    }

    #[test]
    fn other_pools_end_the_leases_that_do_not_fit_and_no_others() {
        let mut leases = Leases::new(pools("10.0.0.0/24"), []);
        let a = come(&mut leases, &who("a@e.com"), 1).unwrap();
        let b = come(&mut leases, &who("b@e.com"), 1).unwrap();
        let fixed: IpAddr = a.v4.unwrap().into();
        leases.change(pools("10.0.0.0/16"), [fixed]);
        let again = leases.lease(&who("a@e.com"), true, true, 2).unwrap();
        assert_ne!(again.v4, a.v4, "it is somebody else's");
        assert_eq!(again.v6, a.v6);
        assert_eq!(leases.lease(&who("b@e.com"), true, true, 2).unwrap(), b);
        leases.change(Pools::default(), []);
        assert!(leases.entries(3).is_empty());
    }

    #[test]
    fn whoever_is_connected_stays_so_over_a_change_of_pools() {
        let mut leases = Leases::new(pools("10.0.0.0/29"), []);
        come(&mut leases, &who("a@e.com"), 1).unwrap();
        leases.change(pools("10.1.0.0/32"), []);
        leases.lease(&who("a@e.com"), true, true, 2).unwrap();
        assert!(come(&mut leases, &who("b@e.com"), 3).is_err());
        leases.release(&who("a@e.com"), 4);
        assert!(come(&mut leases, &who("b@e.com"), 5).is_ok());
    }

    #[test]
    fn a_lease_is_saved_with_the_first_table_that_has_it_and_no_earlier_one() {
        let [a, b] = ["a@e.com", "b@e.com"].map(who);
        let mut leases = Leases::new(pools("10.0.0.0/24"), []);
        come(&mut leases, &a, 1).unwrap();
        let first = leases.revision();
        come(&mut leases, &b, 1).unwrap();
        assert!(!leases.is_saved(&a) && !leases.is_saved(&b));
        leases.saved(first);
        assert!(leases.is_saved(&a) && !leases.is_saved(&b));
        // Who comes again gets nothing new.
        let second = leases.revision();
        come(&mut leases, &a, 2).unwrap();
        assert_eq!(leases.revision(), second);
        leases.saved(second);
        leases.saved(first);
        assert!(leases.is_saved(&b));
    }

    #[test]
    fn an_address_that_was_taken_from_another_is_not_saved_as_its_new_holders() {
        let mut leases = Leases::new(pools("10.0.0.0/30"), []);
        for name in ["a@e.com", "b@e.com"] {
            come(&mut leases, &who(name), 1).unwrap();
            leases.release(&who(name), 2);
        }
        leases.saved(leases.revision());
        come(&mut leases, &who("c@e.com"), 3).unwrap();
        assert!(!leases.is_saved(&who("c@e.com")));
        assert!(leases.is_saved(&who("b@e.com")), "its lease is as it was");
    }

    #[test]
    fn leases_of_an_earlier_run_are_saved_and_stay_so_where_the_pools_change_around_them() {
        let [a, b] = ["a@e.com", "b@e.com"].map(who);
        let mut before = Leases::new(pools("10.0.0.0/24"), []);
        come(&mut before, &a, 1).unwrap();
        let mut leases = Leases::new(pools("10.0.0.0/24"), []);
        leases.restore(before.entries(2));
        come(&mut leases, &a, 3).unwrap();
        come(&mut leases, &b, 3).unwrap();
        assert!(leases.is_saved(&a));
        let revision = leases.revision();
        leases.change(pools("10.0.0.0/16"), []);
        assert_eq!(leases.revision(), revision, "nothing ended");
        assert!(leases.is_saved(&a) && !leases.is_saved(&b));
        leases.change(pools("10.7.0.0/16"), []);
        assert!(leases.revision() > revision, "everybody's IPv4 ended");
        leases.lease(&a, true, true, 4).unwrap();
        assert!(!leases.is_saved(&a), "its IPv4 is another");
    }

    #[test]
    fn who_was_connected_at_a_crash_is_not_the_one_away_the_longest() {
        let [a, b] = ["a@e.com", "b@e.com"].map(who);
        let mut before = Leases::new(pools("10.0.0.0/30"), []);
        let of_a = come(&mut before, &a, 1).unwrap();
        come(&mut before, &b, 2).unwrap();
        before.release(&b, 500);
        let mut leases = Leases::new(pools("10.0.0.0/30"), []);
        leases.restore(before.entries(1000));
        let of_c = come(&mut leases, &who("c@e.com"), 1001).unwrap();
        assert_ne!(of_c.v4, of_a.v4);
        assert_eq!(come(&mut leases, &a, 1002).unwrap(), of_a);
    }
}
