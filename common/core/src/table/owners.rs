//! Which session an inner address belongs to, by longest prefix.
//!
//! A prefix has one owner. Prefixes may nest: an address belongs to the owner of the longest prefix
//! around it, so a site never speaks for a neighbour that lives inside its network.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Prefixes and their owners.
#[derive(Clone, Debug)]
pub struct Owners<K> {
    v4: PrefixMap<Ipv4Net, K>,
    v6: PrefixMap<Ipv6Net, K>,
    generation: u64,
}

impl<K: Copy + Eq> Owners<K> {
    /// Nobody owns anything.
    #[must_use]
    pub fn new() -> Self {
        Self {
            v4: PrefixMap::new(),
            v6: PrefixMap::new(),
            generation: 0,
        }
    }

    /// Gives `prefix` to `owner`; returns who had it before.
    pub fn insert(&mut self, prefix: IpNet, owner: K) -> Option<K> {
        self.generation += 1;
        match prefix.trunc() {
            IpNet::V4(prefix) => self.v4.insert(prefix, owner),
            IpNet::V6(prefix) => self.v6.insert(prefix, owner),
        }
    }

    /// Takes `prefix` from `owner`; somebody else's stays.
    pub fn remove(&mut self, prefix: &IpNet, owner: K) {
        self.generation += 1;
        match prefix.trunc() {
            IpNet::V4(prefix) if self.v4.get(&prefix) == Some(&owner) => {
                self.v4.remove(&prefix);
            }
            IpNet::V6(prefix) if self.v6.get(&prefix) == Some(&owner) => {
                self.v6.remove(&prefix);
            }
            IpNet::V4(_) | IpNet::V6(_) => {}
        }
    }

    /// Whose `address` is.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<K> {
        match address {
            IpAddr::V4(address) => self
                .v4
                .get_lpm(&Ipv4Net::from(address))
                .map(|(_, owner)| *owner),
            IpAddr::V6(address) => self
                .v6
                .get_lpm(&Ipv6Net::from(address))
                .map(|(_, owner)| *owner),
        }
    }

    /// Another number after every change: an answer is good as long as this stays the same.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes every answer given so far one of the past: what an owner may do has changed.
    pub fn invalidate(&mut self) {
        self.generation += 1;
    }

    /// How many prefixes have an owner.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether nobody owns anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Copy + Eq> Default for Owners<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_decides_and_removal_uncovers_the_shorter() {
        let mut owners = Owners::new();
        owners.insert(net("10.20.0.0/16"), 1);
        owners.insert(net("10.20.5.5/32"), 2);
        assert_eq!(owners.owner(ip("10.20.5.5")), Some(2));
        assert_eq!(owners.owner(ip("10.20.5.6")), Some(1));
        assert_eq!(owners.owner(ip("10.21.0.0")), None);
        owners.remove(&net("10.20.5.5/32"), 1);
        assert_eq!(
            owners.owner(ip("10.20.5.5")),
            Some(2),
            "not theirs to remove"
        );
        owners.remove(&net("10.20.5.5/32"), 2);
        assert_eq!(owners.owner(ip("10.20.5.5")), Some(1));
    }

    #[test]
    fn families_do_not_mix() {
        let mut owners = Owners::new();
        owners.insert(net("0.0.0.0/0"), 4);
        owners.insert(net("fd00::/8"), 6);
        assert_eq!(owners.owner(ip("fd00::1")), Some(6));
        assert_eq!(owners.owner(ip("::ffff:10.0.0.1")), None);
        assert_eq!(owners.len(), 2);
    }
}
