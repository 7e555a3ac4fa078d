//! Clients without a certificate. They can become no session, and there are never many of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::links::Key;

/// Who is here without a certificate, and from where.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    networks: BTreeMap<Key, IpAddr>,
}

impl Strangers {
    /// Takes one in, unless there are too many of them already, or from where it comes.
    pub(super) fn admit(&mut self, key: Key, address: IpAddr) -> bool {
        let network = network(address);
        let neighbours = self.networks.values().filter(|other| **other == network);
        let has_room =
            self.networks.len() < MAX_STRANGERS && neighbours.count() < MAX_OF_ONE_NETWORK;
        if has_room {
            self.networks.insert(key, network);
        }
        has_room
    }

    /// Whether it was taken in.
    pub(super) fn contains(&self, key: Key) -> bool {
        self.networks.contains_key(&key)
    }

    /// The link is gone.
    pub(super) fn remove(&mut self, key: Key) {
        self.networks.remove(&key);
    }
}

/// What one household or host has: an IPv4 address, or an IPv6 network of 64 bits.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

/// Each is here for ten seconds at most and costs some twenty kilobytes.
const MAX_STRANGERS: usize = 256;
/// New colleagues behind one address who enrol in the same ten seconds.
const MAX_OF_ONE_NETWORK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_network_has_only_so_many_and_all_together_have_only_so_many() {
        let mut strangers = Strangers::default();
        for key in 0..MAX_OF_ONE_NETWORK {
            let mine = address(&format!("2001:db8::{key:x}"));
            assert!(strangers.admit(key, mine));
        }
        assert!(!strangers.admit(99, address("2001:db8::ffff")));
        let mut admitted = MAX_OF_ONE_NETWORK;
        for key in 100..1000_u16 {
            let [high, low] = key.to_be_bytes();
            let other = IpAddr::from([198, 18, high, low]);
            admitted += usize::from(strangers.admit(key.into(), other));
        }
        assert_eq!(admitted, MAX_STRANGERS);
        strangers.remove(0);
        assert!(strangers.admit(99, address("2001:db8::ffff")));
    }

    #[test]
    fn an_address_has_one_network_in_each_of_its_forms() {
        assert_eq!(network(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_eq!(
            network(address("2001:db8:0:1:2::3")),
            address("2001:db8:0:1::")
        );
    }
}
