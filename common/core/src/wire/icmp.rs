//! ICMP errors that answer a packet the tunnel does not carry: RFC 792, RFC 1191, RFC 1812 §4.3
//! for IPv4 and RFC 4443 for IPv6, as RFC 9484 §7.2.1 and §10.1 ask of a CONNECT-IP endpoint.
//!
//! Guarantee: an answer is a complete, checksummed IP packet that quotes the beginning of the
//! offending one. Refused, by `None`, is every case in which RFC 1122 §3.2.2 and RFC 4443 §2.4(e)
//! forbid an answer, so that answers never beget answers and never reach more than one host.
//! How often to answer is the caller's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::checksum::{self, Sum};
use crate::wire::ip::{ICMP, ICMPV6, IPV4_HEADER, IPV6_HEADER, IpPacket, IpVersion};

/// What to tell the sender of a packet that goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Nothing leads to the destination: IPv4 3/0, IPv6 1/0.
    NoRoute,
    /// Policy forbids it: IPv4 3/13, IPv6 1/1.
    AdminProhibited,
    /// The sender may not use this source address: IPv4 3/13, IPv6 1/5.
    SourcePolicy,
    /// Too large for the tunnel: IPv4 3/4, IPv6 2/0.
    ///
    /// A sender of IPv6 ignores less than 1280 (RFC 8201 §4).
    PacketTooBig {
        /// The largest packet that passes.
        mtu: u32,
    },
    /// The hop limit ran out: IPv4 11/0, IPv6 3/0.
    HopLimitExceeded,
}

/// What an ICMP message is to whoever keeps track of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks for an answer with the same identifier: echo, IPv4 timestamp.
    Query(u16),
    /// The answer.
    Answer(u16),
    /// Quotes a packet that did not arrive: unreachable, too big, time exceeded, parameter problem.
    Error,
    /// Anything else; redirects among them.
    Other,
}

/// What `packet` is, if it is ICMP of its own version and is long enough to say so.
pub fn message(packet: &IpPacket<'_>) -> Option<Message> {
    let v4 = match (packet.version(), packet.protocol()) {
        (IpVersion::V4, ICMP) => true,
        (IpVersion::V6, ICMPV6) => false,
        _ => return None,
    };
    if !packet.is_first_fragment_or_whole() {
        return None;
    }
    let message = packet.transport();
    let identifier = || Some(u16::from_be_bytes(*message.get(4..)?.first_chunk()?));
    Some(match (v4, *message.first()?) {
        (true, 8 | 13) | (false, 128) => Message::Query(identifier()?),
        (true, 0 | 14) | (false, 129) => Message::Answer(identifier()?),
        (true, 3 | 11 | 12) | (false, 1..=4) => Message::Error,
        _ => Message::Other,
    })
}

/// The beginning of the packet that an ICMP error is about (RFC 792, RFC 4443 §3); `None` when
/// `packet` is no such error, or quotes no packet of its own version.
pub fn quoted<'a>(packet: &IpPacket<'a>) -> Option<IpPacket<'a>> {
    if message(packet)? != Message::Error {
        return None;
    }
    let quoted = IpPacket::parse_beginning(packet.transport().get(ICMP_HEADER..)?).ok()?;
    (quoted.version() == packet.version()).then_some(quoted)
}

/// The packet from `source` that tells the sender of `offending` about `error`.
///
/// `None` if no answer is allowed, or if `source` is of the other family.
pub fn error_packet(error: IcmpError, offending: &IpPacket<'_>, source: IpAddr) -> Option<Vec<u8>> {
    if !may_be_answered(offending) {
        return None;
    }
    match (source, offending.source()) {
        (IpAddr::V4(source), IpAddr::V4(sender)) => {
            Some(v4_packet(error, offending, source, sender))
        }
        (IpAddr::V6(source), IpAddr::V6(sender)) => {
            Some(v6_packet(error, offending, source, sender))
        }
        _ => None,
    }
}

/// RFC 1122 §3.2.2 and RFC 4443 §2.4(e), without the latter's two exceptions for multicast.
fn may_be_answered(offending: &IpPacket<'_>) -> bool {
    offending.is_first_fragment_or_whole()
        && !is_icmp_error(offending)
        && is_one_host(offending.source())
        && is_one_host(offending.destination())
}

fn is_icmp_error(packet: &IpPacket<'_>) -> bool {
    // A message too short to have a type is taken for an error: silence does no harm.
    let kind = packet.transport().first();
    match (packet.version(), packet.protocol()) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (IpVersion::V4, ICMP) => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // RFC 4443 §2.1: errors have the high bit clear; §2.4(e.2) adds redirects.
        (IpVersion::V6, ICMPV6) => kind.is_none_or(|&kind| kind < 128 || kind == 137),
        _ => false,
    }
}

/// False for what RFC 1122 §3.2.2 calls an address that does not define a single host.
fn is_one_host(address: IpAddr) -> bool {
    let reserved = match address {
        // 240.0.0.0/4: class E and the limited broadcast address.
        IpAddr::V4(address) => address.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    !(reserved || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

fn v4_packet(
    error: IcmpError,
    offending: &IpPacket<'_>,
    source: Ipv4Addr,
    sender: Ipv4Addr,
) -> Vec<u8> {
    let (kind, code, mtu) = match error {
        IcmpError::NoRoute => (3, 0, 0),
        IcmpError::AdminProhibited | IcmpError::SourcePolicy => (3, 13, 0),
        // RFC 1191 §4 has 16 bits for it.
        IcmpError::PacketTooBig { mtu } => (3, 4, u16::try_from(mtu).unwrap_or(u16::MAX)),
        IcmpError::HopLimitExceeded => (11, 0, 0),
    };
    let quote = beginning(offending, MAX_IPV4_ERROR - IPV4_HEADER);
    let total = IPV4_HEADER + ICMP_HEADER + quote.len();

    let mut packet = Vec::with_capacity(total);
    // RFC 1812 §4.3.2.5: errors travel with the precedence of internetwork control.
    packet.extend([0x45, 0xc0]);
    packet.extend((total as u16).to_be_bytes());
    // No identification is needed where fragmentation is forbidden (RFC 6864 §4).
    packet.extend([0, 0, 0x40, 0]);
    packet.extend([HOP_LIMIT, ICMP, 0, 0]);
    packet.extend(source.octets());
    packet.extend(sender.octets());
    let header = checksum::of(&packet);
    packet[10..12].copy_from_slice(&header.to_be_bytes());

    packet.extend([kind, code, 0, 0, 0, 0]);
    packet.extend(mtu.to_be_bytes());
    packet.extend(quote);
    let message = checksum::of(&packet[IPV4_HEADER..]);
    packet[IPV4_HEADER + 2..IPV4_HEADER + 4].copy_from_slice(&message.to_be_bytes());
    packet
}

fn v6_packet(
    error: IcmpError,
    offending: &IpPacket<'_>,
    source: Ipv6Addr,
    sender: Ipv6Addr,
) -> Vec<u8> {
    let (kind, code, mtu) = match error {
        IcmpError::NoRoute => (1, 0, 0),
        IcmpError::AdminProhibited => (1, 1, 0),
        IcmpError::SourcePolicy => (1, 5, 0),
        IcmpError::PacketTooBig { mtu } => (2, 0, mtu),
        IcmpError::HopLimitExceeded => (3, 0, 0),
    };
    let quote = beginning(offending, MAX_IPV6_ERROR - IPV6_HEADER);
    let length = ICMP_HEADER + quote.len();

    let mut packet = Vec::with_capacity(IPV6_HEADER + length);
    packet.extend([0x60, 0, 0, 0]);
    packet.extend((length as u16).to_be_bytes());
    packet.extend([ICMPV6, HOP_LIMIT]);
    packet.extend(source.octets());
    packet.extend(sender.octets());

    packet.extend([kind, code, 0, 0]);
    packet.extend(mtu.to_be_bytes());
    packet.extend(quote);
    let message = Sum::pseudo_header(source.into(), sender.into(), ICMPV6, length)
        .bytes(&packet[IPV6_HEADER..])
        .checksum();
    packet[IPV6_HEADER + 2..IPV6_HEADER + 4].copy_from_slice(&message.to_be_bytes());
    packet
}

/// As much of the offending packet as an error of `max` bytes behind its IP header has room for.
fn beginning<'a>(offending: &IpPacket<'a>, max: usize) -> &'a [u8] {
    let bytes = offending.bytes();
    &bytes[..bytes.len().min(max - ICMP_HEADER)]
}

const ICMP_HEADER: usize = 8;

/// RFC 1812 §4.3.2.3: what every IPv4 host can receive.
const MAX_IPV4_ERROR: usize = 576;

/// RFC 4443 §2.4(c): what every IPv6 link carries.
const MAX_IPV6_ERROR: usize = 1280;

/// The usual initial value; the sender is rarely more than a few hops behind the tunnel.
const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests;
