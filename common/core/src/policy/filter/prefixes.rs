//! Between prefixes, which rules and routes are made of, and the numbers of the tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::table::{Entry, Table};
use crate::policy::nesting::index;
use crate::policy::networks::Networks;
use crate::policy::rule::Rule;
use crate::range::RouteRange;

/// Every prefix of every rule.
pub(super) fn by_family(
    rules: &[Arc<Rule>],
    networks: &Networks,
) -> (Vec<Entry<u32>>, Vec<Entry<u128>>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (position, rule) in rules.iter().enumerate() {
        let prefixes = networks.prefixes(&rule.to);
        let rule = index(position);
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push(Entry {
                    first: net.network().into(),
                    last: net.broadcast().into(),
                    rule,
                }),
                IpNet::V6(net) => v6.push(Entry {
                    first: net.network().into(),
                    last: net.broadcast().into(),
                    rule,
                }),
            }
        }
    }
    (v4, v6)
}

pub(super) fn routed_v4(table: &Table<u32>, routes: &mut Vec<RouteRange>) {
    routes.extend(table.open_ranges().filter_map(|(first, last)| {
        let address = |number| IpAddr::from(Ipv4Addr::from(number));
        RouteRange::new(address(first), address(last), 0)
    }));
}

pub(super) fn routed_v6(table: &Table<u128>, routes: &mut Vec<RouteRange>) {
    routes.extend(table.open_ranges().filter_map(|(first, last)| {
        let address = |number| IpAddr::from(Ipv6Addr::from(number));
        RouteRange::new(address(first), address(last), 0)
    }));
}
