//! `ports`: which protocols and ports a rule names.
//!
//! Protocol and port together are one number, a [`key`], so that what a rule names is a few
//! intervals of numbers. Each protocol has one key more than ports: that of packets which carry
//! none, as fragments.

use std::fmt;
use std::ops::Range;

use super::rule::Action;
use crate::wire::ip::{ICMP, ICMPV6, TCP, UDP};

/// What a rule names; everything when it has no `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Services {
    written: Vec<Service>,
    /// Keys, ascending, disjoint and not adjacent.
    intervals: Box<[Range<u32>]>,
}

/// One entry: a protocol, and of it some ports or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) protocol: Protocol,
    pub(super) ports: Option<(u16, u16)>,
}

/// A protocol as a rule names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Sctp,
    /// ICMP and ICMPv6.
    Icmp,
    Number(u8),
}

/// The key of a flow.
pub(super) fn key(protocol: u8, port: Option<u16>) -> u32 {
    u32::from(protocol) * PER_PROTOCOL + port.map_or(NO_PORT, u32::from)
}

/// "tcp/443", "icmp", "proto/47": a flow for people.
pub(super) fn describe(protocol: u8, port: Option<u16>) -> String {
    let name = match protocol {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        SCTP => "sctp".to_owned(),
        ICMP | ICMPV6 => "icmp".to_owned(),
        number => format!("proto/{number}"),
    };
    match port {
        Some(port) => format!("{name}/{port}"),
        None => name,
    }
}

impl Services {
    /// No entry means everything. A deny that names ports of a protocol also names its packets
    /// without ports, an allow does not: what cannot be seen is not allowed.
    pub(super) fn new(written: Vec<Service>, action: Action) -> Self {
        let mut intervals: Vec<Range<u32>> = Vec::new();
        for service in &written {
            for &number in service.protocol.numbers() {
                let base = u32::from(number) * PER_PROTOCOL;
                match service.ports {
                    None => intervals.push(base..base + PER_PROTOCOL),
                    Some((first, last)) => {
                        intervals.push(base + u32::from(first)..base + u32::from(last) + 1);
                        if action == Action::Deny {
                            intervals.push(base + NO_PORT..base + PER_PROTOCOL);
                        }
                    }
                }
            }
        }
        if written.is_empty() {
            intervals.push(EVERYTHING);
        }
        Self {
            written,
            intervals: merged(intervals),
        }
    }

    pub(super) fn intervals(&self) -> &[Range<u32>] {
        &self.intervals
    }

    pub(super) fn are_everything(&self) -> bool {
        *self.intervals == [EVERYTHING]
    }

    pub(super) fn contain(&self, key: u32) -> bool {
        let at = self.intervals.partition_point(|range| range.end <= key);
        self.intervals
            .get(at)
            .is_some_and(|range| range.contains(&key))
    }

    /// Whether whatever `other` names is named here too.
    pub(super) fn cover(&self, other: &Self) -> bool {
        other.intervals.iter().all(|range| {
            let at = self.intervals.partition_point(|own| own.end < range.end);
            self.intervals
                .get(at)
                .is_some_and(|own| own.start <= range.start)
        })
    }
}

/// With what leads from the destinations to them: ", tcp/443, udp"; nothing for everything.
impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, service) in self.written.iter().enumerate() {
            write!(f, "{}{service}", if n == 0 { " on " } else { ", " })?;
        }
        Ok(())
    }
}

impl Service {
    /// Reads one entry.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub(super) fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let wrong = |message: String| (message, FORMS);
        let (name, rest) = match text.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let protocol = match (name, rest) {
            ("tcp", _) => Protocol::Tcp,
            ("udp", _) => Protocol::Udp,
            ("sctp", _) => Protocol::Sctp,
            ("icmp", None) => Protocol::Icmp,
            ("icmp", Some(_)) => {
                return Err((
                    format!("{text:?} names ports, and ICMP has none"),
                    "write \"icmp\"; types of ICMP cannot be told apart",
                ));
            }
            ("proto", Some(number)) => {
                let number = self::number(number).ok_or_else(|| {
                    wrong(format!("{text:?} is no protocol number from 0 to 255"))
                })?;
                return Ok(Self {
                    protocol: Protocol::Number(number),
                    ports: None,
                });
            }
            _ => return Err(wrong(format!("{text:?} is no protocol or port"))),
        };
        let ports = match rest {
            None => None,
            Some(ports) => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let port = |text: &str| {
                    number::<u16>(text)
                        .ok_or_else(|| wrong(format!("{text:?} is no port from 0 to 65535")))
                };
                let (first, last) = (port(first)?, port(last)?);
                if first > last {
                    return Err((
                        format!("the ports {ports} end before they begin"),
                        "write the smaller port first",
                    ));
                }
                Some((first, last))
            }
        };
        Ok(Self { protocol, ports })
    }

    /// Reads the entry of a single flow: one port where the protocol has ports.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub(super) fn of_a_flow(text: &str) -> Result<Self, (String, &'static str)> {
        let service = Self::parse(text)?;
        match (service.protocol, service.ports) {
            (_, Some((first, last))) if first != last => Err((
                format!("{text:?} is more than one port"),
                "a flow has one port: name that",
            )),
            (Protocol::Tcp | Protocol::Udp | Protocol::Sctp, None) => Err((
                format!("{text:?} is no port"),
                "a flow has a port: name it, such as \"tcp/443\"",
            )),
            _ => Ok(service),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => f.write_str("tcp")?,
            Protocol::Udp => f.write_str("udp")?,
            Protocol::Sctp => f.write_str("sctp")?,
            Protocol::Icmp => f.write_str("icmp")?,
            Protocol::Number(number) => write!(f, "proto/{number}")?,
        }
        match self.ports {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, "/{first}"),
            Some((first, last)) => write!(f, "/{first}-{last}"),
        }
    }
}

impl Protocol {
    /// Its numbers, one for each family where they differ.
    pub(super) fn numbers(&self) -> &[u8] {
        match self {
            Self::Tcp => &[TCP],
            Self::Udp => &[UDP],
            Self::Sctp => &[SCTP],
            Self::Icmp => &[ICMP, ICMPV6],
            Self::Number(number) => std::slice::from_ref(number),
        }
    }
}

/// Digits only: Rust would also read "+1".
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn merged(mut intervals: Vec<Range<u32>>) -> Box<[Range<u32>]> {
    intervals.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u32>> = Vec::with_capacity(intervals.len());
    for range in intervals {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged.into()
}

/// The ports, and one key for packets without.
const PER_PROTOCOL: u32 = NO_PORT + 1;
const NO_PORT: u32 = 65_536;
/// Every key.
pub(super) const EVERYTHING: Range<u32> = 0..256 * PER_PROTOCOL;
/// RFC 9260 §15.
const SCTP: u8 = 132;
const FORMS: &str = "forms are \"tcp/443\", \"tcp/8000-8100\", \"tcp\", \"udp\", \"sctp\", \"icmp\" and \"proto/47\"";

#[cfg(test)]
mod tests {
    use super::*;

    fn services(texts: &[&str], action: Action) -> Services {
        let written = texts.iter().map(|text| Service::parse(text).unwrap());
        Services::new(written.collect(), action)
    }

    #[test]
    fn a_packet_without_port_is_denied_by_its_protocol_and_not_allowed_by_ports() {
        let ports = ["tcp/443", "tcp/8000-8100"];
        for (port, allowed, denied) in [
            (Some(443), true, true),
            (Some(444), false, false),
            (Some(8100), true, true),
            (None, false, true),
        ] {
            let key = key(TCP, port);
            assert_eq!(
                services(&ports, Action::Allow).contain(key),
                allowed,
                "{port:?}"
            );
            assert_eq!(
                services(&ports, Action::Deny).contain(key),
                denied,
                "{port:?}"
            );
        }
        assert!(services(&["tcp"], Action::Allow).contain(key(TCP, None)));
    }

    #[test]
    fn icmp_is_both_and_everything_is_one_interval() {
        let icmp = services(&["icmp"], Action::Allow);
        assert!(icmp.contain(key(ICMP, None)) && icmp.contain(key(ICMPV6, None)));
        assert!(!icmp.contain(key(TCP, None)));
        let everything = services(&[], Action::Allow);
        assert!(everything.are_everything());
        assert!(everything.cover(&icmp) && !icmp.cover(&everything));
        assert!(
            services(&["tcp/1-9"], Action::Allow).cover(&services(&["tcp/2-3"], Action::Allow))
        );
        assert!(
            !services(&["tcp/1-9"], Action::Allow).cover(&services(&["tcp/9-10"], Action::Allow))
        );
        assert!(!services(&["udp"], Action::Allow).cover(&services(&["tcp"], Action::Allow)));
    }

    #[test]
    fn an_entry_is_shown_as_it_is_written() {
        for text in ["tcp", "udp/53", "sctp/1-2", "icmp", "proto/47"] {
            assert_eq!(Service::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "tcp/",
            "tcp/1-",
            "tcp/65536",
            "proto",
            "proto/256",
            "http",
            "tcp/+1",
            "icmp/8",
        ] {
            assert!(Service::parse(text).is_err(), "{text}");
        }
    }
}
