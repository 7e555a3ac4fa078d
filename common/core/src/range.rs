//! Ranges of inner addresses, as ROUTE_ADVERTISEMENT tells them (RFC 9484 §4.7.3).
//!
//! Policy and kernel speak in prefixes, the wire in ranges: [`from_prefixes`] and [`to_prefixes`]
//! translate, [`is_ordered`] is the RFC's rule about the order in one capsule.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// An inclusive range of addresses of one family, for one IP protocol or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteRange {
    start: IpAddr,
    end: IpAddr,
    protocol: u8,
}

impl RouteRange {
    /// A range from `start` to `end` inclusive; `protocol` 0 means every protocol.
    ///
    /// `None` when the families differ or the end lies before the start.
    #[must_use]
    pub fn new(start: IpAddr, end: IpAddr, protocol: u8) -> Option<Self> {
        (start.is_ipv4() == end.is_ipv4() && start <= end).then_some(Self {
            start,
            end,
            protocol,
        })
    }

    /// The range of a prefix, for every protocol.
    #[must_use]
    pub fn of(prefix: IpNet) -> Self {
        Self {
            start: prefix.network(),
            end: prefix.broadcast(),
            protocol: 0,
        }
    }

    /// The first address.
    #[must_use]
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address.
    #[must_use]
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// The IP protocol, 0 for every one.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Whether `address` is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.start.is_ipv4() == address.is_ipv4() && self.start <= address && address <= self.end
    }

    /// The part of the range inside `prefix` and for `protocol` (`None` for every one).
    #[must_use]
    pub fn narrowed(&self, prefix: Option<IpNet>, protocol: Option<u8>) -> Option<Self> {
        let (mut start, mut end) = (self.start, self.end);
        if let Some(prefix) = prefix {
            if prefix.addr().is_ipv4() != start.is_ipv4() {
                return None;
            }
            start = start.max(prefix.network());
            end = end.min(prefix.broadcast());
        }
        let protocol = match (self.protocol, protocol) {
            (own, None) => own,
            (0, Some(asked)) => asked,
            (own, Some(asked)) if own == asked => own,
            _ => return None,
        };
        Self::new(start, end, protocol)
    }
}

/// Both ends, "10.0.0.0-10.0.255.255", without the protocol.
impl fmt::Display for RouteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// An address as such, a network with its length.
#[must_use]
pub fn shown_prefix(prefix: &IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

/// The fewest ranges that cover the prefixes, in the order the RFC demands.
#[must_use]
pub fn from_prefixes(prefixes: &[IpNet]) -> Vec<RouteRange> {
    merged(prefixes.iter().copied().map(RouteRange::of).collect())
}

/// The fewest ranges that cover these, which are for every protocol, in the order the RFC demands.
#[must_use]
pub fn merged(mut ranges: Vec<RouteRange>) -> Vec<RouteRange> {
    // IpAddr orders IPv4 before IPv6.
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<RouteRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if touches(last, &range) => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The fewest prefixes that cover exactly the range; at most 62 for IPv4, 254 for IPv6.
#[must_use]
pub fn to_prefixes(range: &RouteRange) -> Vec<IpNet> {
    match (range.start, range.end) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            if (start, end) == (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST) {
                return vec![IpNet::V4(Ipv4Net::default())];
            }
            Ipv4Subnets::new(start, end, 0).map(IpNet::V4).collect()
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            if (start, end) == (Ipv6Addr::UNSPECIFIED, Ipv6Addr::from(u128::MAX)) {
                return vec![IpNet::V6(Ipv6Net::default())];
            }
            Ipv6Subnets::new(start, end, 0).map(IpNet::V6).collect()
        }
        // The constructors never mix families.
        _ => Vec::new(),
    }
}

/// What of `ranges` is in none of `others`, in the same order. A range for one protocol is taken away by
/// ranges for that protocol and for every one; a range for every protocol by its like alone.
#[must_use]
pub fn difference(ranges: &[RouteRange], others: &[RouteRange]) -> Vec<RouteRange> {
    let mut sorted = others.to_vec();
    sorted.sort_by_key(|range| (range.start, range.end));
    ranges
        .iter()
        .flat_map(|range| {
            let covers = |hole: &&RouteRange| {
                hole.start.is_ipv4() == range.start.is_ipv4()
                    && (hole.protocol == 0 || hole.protocol == range.protocol)
            };
            without(range, sorted.iter().filter(covers))
        })
        .collect()
}

/// How many addresses a range has; of all IPv6 addresses one is not counted.
#[must_use]
pub fn size(range: &RouteRange) -> u128 {
    (number(range.end) - number(range.start)).saturating_add(1)
}

/// What is left of a range; the holes are sorted by their start.
fn without<'a>(range: &RouteRange, holes: impl Iterator<Item = &'a RouteRange>) -> Vec<RouteRange> {
    let mut left = Vec::new();
    let mut rest = Some(range.start);
    for hole in holes {
        let Some(start) = rest else { break };
        if hole.end < start {
            continue;
        }
        if hole.start > range.end {
            break;
        }
        if hole.start > start {
            let end = address(number(hole.start) - 1, start);
            left.extend(RouteRange::new(start, end, range.protocol));
        }
        rest = (hole.end < range.end).then(|| address(number(hole.end) + 1, start));
    }
    left.extend(rest.and_then(|start| RouteRange::new(start, range.end, range.protocol)));
    left
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The address of a number, of the same family as another.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match (like, u32::try_from(number)) {
        (IpAddr::V4(_), Ok(number)) => Ipv4Addr::from(number).into(),
        // Above what IPv4 has, the family is the other one.
        _ => Ipv6Addr::from(number).into(),
    }
}

/// Whether ranges may stand in one capsule in this order: by family, then protocol, then
/// ascending without overlap (RFC 9484 §4.7.3).
#[must_use]
pub fn is_ordered(ranges: &[RouteRange]) -> bool {
    ranges.windows(2).all(|pair| {
        let key = |range: &RouteRange| (range.start.is_ipv6(), range.protocol);
        match key(&pair[0]).cmp(&key(&pair[1])) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => pair[0].end < pair[1].start,
            std::cmp::Ordering::Greater => false,
        }
    })
}

/// Whether `next`, which does not start before `last`, overlaps it or follows without a gap.
fn touches(last: &RouteRange, next: &RouteRange) -> bool {
    match (last.end, next.start) {
        (IpAddr::V4(end), IpAddr::V4(start)) => {
            u32::from(start) <= u32::from(end).saturating_add(1)
        }
        (IpAddr::V6(end), IpAddr::V6(start)) => {
            u128::from(start) <= u128::from(end).saturating_add(1)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn adjacent_and_nested_prefixes_become_one_range_and_ipv4_comes_first() {
        let ranges = from_prefixes(&nets(&[
            "fd00::/64",
            "10.0.1.0/24",
            "10.0.0.0/24",
            "10.0.0.5/32",
            "10.2.0.0/16",
        ]));
        let shown: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "10.0.0.0-10.0.1.255",
                "10.2.0.0-10.2.255.255",
                "fd00::-fd00::ffff:ffff:ffff:ffff"
            ]
        );
        assert!(is_ordered(&ranges));
    }

    #[test]
    fn everything_is_one_prefix() {
        for prefix in nets(&["0.0.0.0/0", "::/0"]) {
            assert_eq!(to_prefixes(&RouteRange::of(prefix)), [prefix]);
        }
    }

    #[test]
    fn a_range_that_is_no_prefix_is_covered_exactly() {
        let range =
            RouteRange::new("10.0.0.1".parse().unwrap(), "10.0.0.6".parse().unwrap(), 0).unwrap();
        assert_eq!(
            to_prefixes(&range),
            nets(&["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"])
        );
    }

    #[test]
    fn narrowing_keeps_what_both_allow() {
        let range = RouteRange::of("10.0.0.0/8".parse().unwrap());
        let narrow = range.narrowed(Some("10.1.0.0/16".parse().unwrap()), Some(6));
        let narrow = narrow.unwrap();
        assert_eq!(narrow.start().to_string(), "10.1.0.0");
        assert_eq!(narrow.protocol(), 6);
        assert!(narrow.narrowed(None, Some(17)).is_none());
        assert!(
            range
                .narrowed(Some("fd00::/8".parse().unwrap()), None)
                .is_none()
        );
        assert!(
            range
                .narrowed(Some("11.0.0.0/8".parse().unwrap()), None)
                .is_none()
        );
    }

    #[test]
    fn a_protocols_range_is_covered_by_every_protocols_but_not_the_other_way() {
        let all = RouteRange::of("10.0.0.0/24".parse().unwrap());
        let tcp = all.narrowed(None, Some(6)).unwrap();
        assert!(difference(&[tcp], &[all]).is_empty());
        assert_eq!(difference(&[all], &[tcp]), [all]);
        assert_eq!(size(&all), 256);
        let v6 = RouteRange::of("::/0".parse().unwrap());
        assert_eq!(difference(&[v6], &[all]), [v6]);
        assert!(difference(&[v6], &[v6]).is_empty());
        assert_eq!(size(&v6), u128::MAX);
    }

    proptest! {
        #[test]
        fn a_difference_has_exactly_the_addresses_of_the_one_and_not_the_other(
            ones in proptest::collection::vec((0u8..=255, 0u8..=255), 0..6),
            others in proptest::collection::vec((0u8..=255, 0u8..=255), 0..6),
        ) {
            // The last of all addresses is among them: what comes after it must not be asked.
            let at = |last: u8| IpAddr::from(Ipv4Addr::new(255, 255, 255, last));
            let ranges = |pairs: &[(u8, u8)]| -> Vec<RouteRange> {
                pairs.iter().map(|&(a, b)| RouteRange::new(at(a.min(b)), at(a.max(b)), 0).unwrap()).collect()
            };
            let (ones, others) = (ranges(&ones), ranges(&others));
            let rest = difference(&ones, &others);
            let within = |ranges: &[RouteRange], ip| ranges.iter().any(|range| range.contains(ip));
            for last in 0..=255 {
                let expected = within(&ones, at(last)) && !within(&others, at(last));
                prop_assert_eq!(within(&rest, at(last)), expected, "{}", last);
            }
        }

        #[test]
        fn prefixes_of_a_range_cover_it_and_merge_back(a: u32, b: u32) {
            let (start, end) = (a.min(b), a.max(b));
            let range = RouteRange::new(
                Ipv4Addr::from(start).into(), Ipv4Addr::from(end).into(), 0).unwrap();
            let prefixes = to_prefixes(&range);
            prop_assert!(prefixes.len() <= 62);
            prop_assert_eq!(from_prefixes(&prefixes), vec![range]);
        }
    }
}
