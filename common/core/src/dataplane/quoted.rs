//! The packet that an ICMP error is about.
//!
//! Routers inside report errors with their own addresses, which no rule names. Such an error
//! belongs to the flow of the packet that it quotes (RFC 5508 §4, RFC 9484 §10): without it, path
//! MTU discovery through the tunnel ends in a black hole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::ip::{ICMP, ICMPV6, IpPacket, IpVersion};

/// Source and destination of the packet that `packet` reports an error about; `None` when
/// `packet` is no such error or quotes too little. Redirects are not errors.
pub(super) fn addresses(packet: &IpPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    if !packet.is_first_fragment_or_whole() {
        return None;
    }
    let (kind, quoted) = (
        packet.transport().first()?,
        packet.transport().get(HEADER..)?,
    );
    let version = quoted.first()? >> 4;
    match (packet.version(), packet.protocol()) {
        // Destination unreachable, time exceeded, parameter problem (RFC 792).
        (IpVersion::V4, ICMP) if matches!(kind, 3 | 11 | 12) && version == 4 => {
            let source: [u8; 4] = quoted.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = quoted.get(16..20)?.try_into().ok()?;
            Some((
                Ipv4Addr::from(source).into(),
                Ipv4Addr::from(destination).into(),
            ))
        }
        // The same and packet too big (RFC 4443 §3).
        (IpVersion::V6, ICMPV6) if matches!(kind, 1..=4) && version == 6 => {
            let source: [u8; 16] = quoted.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = quoted.get(24..40)?.try_into().ok()?;
            Some((
                Ipv6Addr::from(source).into(),
                Ipv6Addr::from(destination).into(),
            ))
        }
        _ => None,
    }
}

/// Type, code, checksum and the four bytes that depend on the type, in both versions.
const HEADER: usize = 8;
