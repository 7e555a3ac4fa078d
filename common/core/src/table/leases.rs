//! Inner addresses from the pools, each held by one principal for as long as there is room.
//!
//! A lease is sticky: the principal gets the same addresses at every connection and after every
//! restart. Only when a pool has no free address is one taken from the principal that has been away
//! the longest. Never given out: the network and broadcast address of an IPv4 pool, the
//! subnet-router anycast address of an IPv6 pool, and addresses reserved for others.

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
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    lease: Lease,
    last_used: i64,
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
        }
    }

    /// Goes over to other pools and reservations. A lease that still fits stays, another ends, whether its
    /// holder is connected or not.
    pub fn change(&mut self, pools: Pools, reserved: impl IntoIterator<Item = IpAddr>) {
        let held = self.entries();
        self.pools = pools;
        self.reserved = reserved.into_iter().collect();
        self.holders.clear();
        self.taken.clear();
        self.restore(held);
    }

    /// Takes over saved leases, as far as they still fit the pools and nobody holds the address.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = LeaseEntry>) {
        for entry in entries {
            let lease = Lease {
                v4: entry.v4.filter(|&v4| self.may_lease_v4(v4)),
                v6: entry.v6.filter(|&v6| self.may_lease_v6(v6)),
            };
            if lease != Lease::default() && !self.holders.contains_key(&entry.principal) {
                self.hold(entry.principal, lease, entry.last_used);
            }
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

    /// Everything that is held, to be saved.
    #[must_use]
    pub fn entries(&self) -> Vec<LeaseEntry> {
        self.holders
            .iter()
            .map(|(principal, holder)| LeaseEntry {
                principal: principal.clone(),
                v4: holder.lease.v4,
                v6: holder.lease.v6,
                last_used: holder.last_used,
            })
            .collect()
    }

    fn hold(&mut self, principal: Principal, lease: Lease, last_used: i64) {
        for address in addresses(lease) {
            self.taken.insert(address, principal.clone());
        }
        self.holders.insert(principal, Holder { lease, last_used });
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
        restarted.restore(leases.entries());
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
                .entries()
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
        assert_eq!(leases.entries().len(), 1);
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
        assert!(leases.entries().is_empty());
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
}
