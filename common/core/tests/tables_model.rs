//! The tables under random transitions, against the simplest models of them.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use adit_core::identity::Principal;
use adit_core::table::leases::{Lease, LeaseEntry, Leases, Pools};
use adit_core::table::owners::Owners;
use ipnet::IpNet;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Connect(u8),
    Disconnect(u8),
    /// The table is on the disk.
    Save,
    /// The process is killed and begins with what is on the disk.
    Crash,
}

proptest! {
    #[test]
    fn no_address_is_held_twice_none_is_leaked_and_everybody_keeps_theirs(
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut leases = empty();
        let mut connected: BTreeMap<u8, (Lease, u32)> = BTreeMap::new();
        let mut last: BTreeMap<u8, Lease> = BTreeMap::new();
        let mut disk = Vec::new();
        for (now, step) in (1i64..).zip(steps) {
            match step {
                Step::Connect(user) => match leases.lease(&principal(user), true, true, now) {
                    Ok(lease) => {
                        leases.connect(&principal(user));
                        if let Some((held, _)) = connected.get(&user) {
                            prop_assert_eq!(*held, lease, "moved while connected");
                        }
                        if let Some(held) = last.get(&user) {
                            prop_assert_eq!(*held, lease, "not sticky");
                        }
                        // Who had the address and was away has lost it.
                        last.retain(|&other, held| other == user || held.v4 != lease.v4);
                        last.insert(user, lease);
                        connected.entry(user).or_insert((lease, 0)).1 += 1;
                    }
                    Err(_) => {
                        prop_assert_eq!(connected.len(), HOSTS, "refused with room left");
                        prop_assert!(!connected.contains_key(&user));
                    }
                },
                Step::Disconnect(user) => {
                    if let Some((_, count)) = connected.get_mut(&user) {
                        leases.release(&principal(user), now);
                        *count -= 1;
                        if *count == 0 {
                            connected.remove(&user);
                        }
                    }
                }
                Step::Save => {
                    disk = leases.entries(now);
                    leases.saved(leases.revision());
                    prop_assert!(disk.iter().all(|entry| leases.is_saved(&entry.principal)));
                }
                Step::Crash => {
                    leases = empty();
                    leases.restore(disk.clone());
                    connected.clear();
                    last = disk.iter().map(|entry| (user(entry), lease(entry))).collect();
                }
            }
            let entries = leases.entries(now);
            for entry in &entries {
                let saved = disk.iter().find(|saved| saved.principal == entry.principal);
                prop_assert!(
                    !leases.is_saved(&entry.principal) || saved.map(lease) == Some(lease(entry)),
                    "it would be told, and a crash would forget it: {entry:?}"
                );
            }
            let v4: Vec<_> = entries.iter().filter_map(|entry| entry.v4).collect();
            let v6: Vec<_> = entries.iter().filter_map(|entry| entry.v6).collect();
            prop_assert_eq!(v4.iter().collect::<BTreeSet<_>>().len(), v4.len());
            prop_assert_eq!(v6.iter().collect::<BTreeSet<_>>().len(), v6.len());
            prop_assert!(v4.len() <= HOSTS);
            for address in v4 {
                prop_assert!(![0, 1, 15].contains(&address.octets()[3]), "{address} is not to lease");
            }
            let in_use: BTreeSet<_> = connected.values().map(|(lease, _)| lease.v4).collect();
            prop_assert_eq!(in_use.len(), connected.len());
        }
    }

    #[test]
    fn the_owner_is_that_of_the_longest_prefix(
        steps in proptest::collection::vec((any::<bool>(), prefix(), 0..4u8), 1..60),
        asked in proptest::collection::vec(address(), 20),
    ) {
        let mut owners = Owners::new();
        let mut model: BTreeMap<IpNet, u8> = BTreeMap::new();
        for (insert, prefix, owner) in steps {
            if insert {
                prop_assert_eq!(owners.insert(prefix, owner), model.insert(prefix, owner));
            } else {
                owners.remove(&prefix, owner);
                if model.get(&prefix) == Some(&owner) {
                    model.remove(&prefix);
                }
            }
            prop_assert_eq!(owners.len(), model.len());
        }
        for address in asked {
            let longest = model
                .iter()
                .filter(|(prefix, _)| prefix.contains(&address))
                .max_by_key(|(prefix, _)| prefix.prefix_len());
            prop_assert_eq!(owners.owner(address), longest.map(|(_, owner)| *owner));
        }
        for (prefix, owner) in model {
            owners.remove(&prefix, owner);
        }
        prop_assert!(owners.is_empty(), "something was leaked");
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..USERS).prop_map(Step::Connect),
        4 => (0..USERS).prop_map(Step::Disconnect),
        2 => Just(Step::Save),
        1 => Just(Step::Crash),
    ]
}

/// Few addresses and few lengths, so that prefixes meet and nest.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (address_v4(), prop_oneof![Just(0), Just(8), 29..=32u8]);
    let v6 = (address_v6(), prop_oneof![Just(0), Just(64), 125..=128u8]);
    prop_oneof![v4, v6].prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![address_v4(), address_v6()]
}

fn address_v4() -> BoxedStrategy<IpAddr> {
    (0..16u8)
        .prop_map(|host| IpAddr::from([10, 0, 0, host]))
        .boxed()
}

fn address_v6() -> BoxedStrategy<IpAddr> {
    (0..16u16)
        .prop_map(|host| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]))
        .boxed()
}

fn empty() -> Leases {
    let pools = Pools {
        v4: Some("10.0.0.0/28".parse().unwrap()),
        v6: Some("fd00::/64".parse().unwrap()),
    };
    Leases::new(pools, ["10.0.0.1".parse().unwrap()])
}

fn principal(user: u8) -> Principal {
    Principal::parse(&format!("user{user}@example.com")).unwrap()
}

fn user(entry: &LeaseEntry) -> u8 {
    let users = (0..USERS).find(|&user| principal(user) == entry.principal);
    users.unwrap()
}

fn lease(entry: &LeaseEntry) -> Lease {
    Lease {
        v4: entry.v4,
        v6: entry.v6,
    }
}

/// More than [`HOSTS`], so that addresses run out.
const USERS: u8 = 20;
/// A /28 without its network, broadcast and gateway address.
const HOSTS: usize = 13;
