//! A [`Network`] as a list of single changes, in the order in which they are made.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::super::{Family, Network, Routing};

/// One thing that is made, and unmade by the same value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub(super) enum Change {
    /// A kernel setting; `path` is below `/proc/sys`.
    Sysctl { path: String, value: String },
    /// The device's MTU, and that it is up.
    Link { mtu: u16 },
    /// An address of the device.
    Address { prefix: IpNet },
    /// A route into the device.
    Route { table: u32, prefix: IpNet },
    /// A route to nowhere for all of a family.
    Unreachable { table: u32, family: Family },
    /// A policy rule.
    Rule(Rule),
    /// A table of the packet filter which masquerades these sources.
    Masquerade { table: String, sources: Vec<IpNet> },
}

/// `[not fwmark MARK] lookup TABLE [suppress_prefixlength N]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rule {
    pub(super) family: Family,
    pub(super) priority: u32,
    pub(super) table: u32,
    pub(super) not_mark: Option<u32>,
    pub(super) suppress: Option<u8>,
}

impl Change {
    /// Whether it stays when the TUN device is gone, and so belongs into the journal.
    pub(super) fn outlives_device(&self) -> bool {
        match self {
            Self::Sysctl { .. }
            | Self::Unreachable { .. }
            | Self::Rule(_)
            | Self::Masquerade { .. } => true,
            Self::Link { .. } | Self::Address { .. } | Self::Route { .. } => false,
        }
    }
}

/// Lists what makes the host look like `network`. `index` is the device's, `interface` its name.
///
/// Rules come after the routes they lead to: traffic moves when everything is in place.
pub(super) fn changes(network: &Network, interface: &str, index: u32) -> Vec<Change> {
    let mut list = vec![Change::Link { mtu: network.mtu }];
    for &prefix in &network.addresses {
        push(&mut list, Change::Address { prefix });
    }
    match network.routing {
        Routing::All => {
            for prefix in network.routes.iter().map(IpNet::trunc) {
                // The kernel made this one with the address.
                let connected = network
                    .addresses
                    .iter()
                    .any(|address| address.trunc() == prefix);
                if !connected {
                    push(
                        &mut list,
                        Change::Route {
                            table: MAIN,
                            prefix,
                        },
                    );
                }
            }
        }
        Routing::Unmarked { mark } => rules(network, mark, index, &mut list),
    }
    if !network.masquerade.is_empty() {
        list.push(Change::Masquerade {
            table: format!("adit_{interface}"),
            sources: IpNet::aggregate(&network.masquerade),
        });
    }
    list
}

fn rules(network: &Network, mark: u32, index: u32, list: &mut Vec<Change>) {
    let tables = TABLES + (index & 0xffff) * TABLES_EACH;
    let mut lengths = Vec::new();
    for prefix in network.routes.iter().map(IpNet::trunc) {
        let table = tables + u32::from(prefix.prefix_len());
        push(list, Change::Route { table, prefix });
        lengths.push((Family::of(&prefix), prefix.prefix_len()));
    }
    for &family in &network.unreachable {
        if !lengths.contains(&(family, 0)) {
            lengths.push((family, 0));
            push(
                list,
                Change::Unreachable {
                    table: tables,
                    family,
                },
            );
        }
    }
    lengths.sort_unstable();
    lengths.dedup();
    for (family, length) in lengths.into_iter().rev() {
        let priority = PRIORITIES + 2 * (128 - u32::from(length));
        list.push(Change::Rule(Rule {
            family,
            priority,
            table: MAIN,
            not_mark: None,
            suppress: Some(length),
        }));
        list.push(Change::Rule(Rule {
            family,
            priority: priority + 1,
            table: tables + u32::from(length),
            not_mark: Some(mark),
            suppress: None,
        }));
    }
}

fn push(list: &mut Vec<Change>, change: Change) {
    if !list.contains(&change) {
        list.push(change);
    }
}

/// All addresses of a family.
pub(super) fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
        Family::V6 => Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The host's main routing table.
pub(super) const MAIN: u32 = 254;

/// The first of our routing tables, far from what people and other programs number by hand.
const TABLES: u32 = 0xAD00_0000;

/// One table per prefix length, for each device.
const TABLES_EACH: u32 = 256;

/// Our rules have the priorities 20000 to 20257: after `local` and what an administrator puts first, and before
/// `main` (32766).
const PRIORITIES: u32 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts
            .iter()
            .map(|text| text.parse().expect("a prefix"))
            .collect()
    }

    #[test]
    fn rules_go_from_the_longest_prefix_to_the_shortest() {
        let network = Network {
            mtu: 1400,
            routes: nets(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"]),
            routing: Routing::Unmarked { mark: 7 },
            ..Network::default()
        };
        let rules: Vec<_> = changes(&network, "adit0", 3)
            .into_iter()
            .filter_map(|change| match change {
                Change::Rule(rule) => Some((rule.priority, rule.suppress, rule.table & 0xff)),
                _ => None,
            })
            .collect();
        assert_eq!(
            rules,
            [
                (20_224, Some(16), 254),
                (20_225, None, 16),
                (20_240, Some(8), 254),
                (20_241, None, 8),
                (20_256, Some(0), 254),
                (20_257, None, 0),
            ]
        );
    }

    #[test]
    fn a_family_with_a_default_route_needs_no_unreachable_one() {
        let network = Network {
            routes: nets(&["0.0.0.0/0"]),
            routing: Routing::Unmarked { mark: 7 },
            unreachable: vec![Family::V4, Family::V6],
            ..Network::default()
        };
        let unreachable: Vec<_> = changes(&network, "adit0", 3)
            .into_iter()
            .filter(|change| matches!(change, Change::Unreachable { .. }))
            .collect();
        assert!(
            matches!(
                unreachable[..],
                [Change::Unreachable {
                    family: Family::V6,
                    ..
                }]
            ),
            "{unreachable:?}"
        );
    }

    #[test]
    fn the_connected_route_of_an_address_is_left_to_the_kernel() {
        let network = Network {
            addresses: nets(&["10.99.0.1/24"]),
            routes: nets(&["10.99.0.0/24", "10.20.0.0/16"]),
            ..Network::default()
        };
        let routes: Vec<_> = changes(&network, "adit0", 3)
            .into_iter()
            .filter_map(|change| match change {
                Change::Route { prefix, .. } => Some(prefix),
                _ => None,
            })
            .collect();
        assert_eq!(routes, nets(&["10.20.0.0/16"]));
    }
}
