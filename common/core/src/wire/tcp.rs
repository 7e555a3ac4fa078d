//! What the tunnel does to TCP and reads of it.
//!
//! The maximum segment size is lowered on its way, so that connections fit without waiting for a
//! Packet Too Big to find its way back (RFC 9293 §3.7.1, RFC 6691); a connection that is not allowed
//! any more is ended by a reset in the name of its other end (RFC 9293 §3.10.7.1).
//!
//! Guarantee: a clamped packet has the checksum a full computation would give it, if it had the
//! right one before; nothing but the value of the option and the checksum changes. Refused, by
//! leaving them alone, are fragments, packets that are no SYN and options that do not parse. An
//! option is never added: without one, senders keep to 536 or 1220 bytes, which fit.

use std::net::IpAddr;

use crate::wire::checksum::{self, Sum};
use crate::wire::ip::{IPV4_HEADER, IPV6_HEADER, IpPacket, IpVersion, TCP};

/// Lowers the maximum segment size a SYN announces so that its segments fit `max_packet` bytes.
///
/// The size is that of segments without IP and TCP options, as RFC 6691 defines it. Returns
/// whether the packet changed. The TCP checksum must be complete: not left to an offload.
pub fn clamp_mss(packet: &mut [u8], max_packet: usize) -> bool {
    let Ok(parsed) = IpPacket::parse(packet) else {
        return false;
    };
    if !is_tcp_syn(&parsed) || parsed.is_fragment() {
        return false;
    }
    let ip_header = match parsed.version() {
        IpVersion::V4 => IPV4_HEADER,
        IpVersion::V6 => IPV6_HEADER,
    };
    let limit = match max_packet.saturating_sub(ip_header + TCP_HEADER) {
        // No segment fits at all: there is no size to announce.
        0 => return false,
        limit => u16::try_from(limit).unwrap_or(u16::MAX),
    };
    let start = parsed.transport_offset();
    clamp_segment(&mut packet[start..], limit)
}

/// True for the packets that open a TCP connection, the answer included: SYN and SYN-ACK.
pub fn is_tcp_syn(packet: &IpPacket<'_>) -> bool {
    flags(packet).is_some_and(|flags| flags & SYN != 0)
}

/// The flags of a segment, if this is one and begins here.
pub fn flags(packet: &IpPacket<'_>) -> Option<u8> {
    if packet.protocol() != TCP || !packet.is_first_fragment_or_whole() {
        return None;
    }
    packet.transport().get(FLAGS).copied()
}

/// The segment that ends the connection of `offending` at its sender, as if the other end had
/// sent it: RFC 9293 §3.10.7.1.
///
/// `None` for what is no whole segment, and for segments that end a connection themselves.
pub fn reset_packet(offending: &IpPacket<'_>) -> Option<Vec<u8>> {
    let flags = flags(offending)?;
    let segment = offending.transport();
    let header = usize::from(segment.get(DATA_OFFSET)? >> 4) * 4;
    if offending.is_fragment() || flags & RST != 0 || header < TCP_HEADER || header > segment.len()
    {
        return None;
    }
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_be_bytes(*segment.get(at..)?.first_chunk()?)) };
    // SYN and FIN take a place in the sequence each (RFC 9293 §3.4).
    let length =
        segment.len() - header + usize::from(flags & SYN != 0) + usize::from(flags & FIN != 0);
    let (sequence, acknowledgment, flags) = if flags & ACK == 0 {
        (0, word(SEQUENCE)?.wrapping_add(length as u32), RST | ACK)
    } else {
        (word(ACKNOWLEDGMENT)?, 0, RST)
    };
    let mut reset = [0; TCP_HEADER];
    reset[..2].copy_from_slice(&segment[2..4]);
    reset[2..4].copy_from_slice(&segment[..2]);
    reset[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
    reset[ACKNOWLEDGMENT..ACKNOWLEDGMENT + 4].copy_from_slice(&acknowledgment.to_be_bytes());
    reset[DATA_OFFSET] = (TCP_HEADER / 4 * 16) as u8;
    reset[FLAGS] = flags;
    let (source, destination) = (offending.destination(), offending.source());
    let sum = Sum::pseudo_header(source, destination, TCP, TCP_HEADER)
        .bytes(&reset)
        .checksum();
    reset[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    in_ip(source, destination, &reset)
}

/// Puts a segment into a packet; `None` when the addresses are of two families.
fn in_ip(source: IpAddr, destination: IpAddr, segment: &[u8]) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(IPV6_HEADER + segment.len());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend(((IPV4_HEADER + segment.len()) as u16).to_be_bytes());
            // No identification is needed where fragmentation is forbidden (RFC 6864 §4).
            packet.extend([0, 0, 0x40, 0, HOP_LIMIT, TCP, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let sum = checksum::of(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((segment.len() as u16).to_be_bytes());
            packet.extend([TCP, HOP_LIMIT]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => return None,
    }
    packet.extend(segment);
    Some(packet)
}

/// Lowers every maximum segment size in the options of `segment`; honest ones have one.
fn clamp_segment(segment: &mut [u8], limit: u16) -> bool {
    let header = segment
        .get(DATA_OFFSET)
        .map_or(0, |offset| usize::from(offset >> 4) * 4);
    if header < TCP_HEADER || header > segment.len() {
        return false;
    }
    let mut changed = false;
    let mut at = TCP_HEADER;
    while at < header {
        let length = match segment[at] {
            OPTION_END => break,
            OPTION_NOP => 1,
            kind => match segment[at + 1..header].first() {
                Some(&length) if length >= 2 && at + usize::from(length) <= header => {
                    if kind == OPTION_MSS && length == 4 {
                        changed |= lower(segment, at + 2, limit);
                    }
                    usize::from(length)
                }
                _ => break,
            },
        };
        at += length;
    }
    changed
}

/// Lowers the 16-bit value at `at` to `limit` and adjusts the checksum of the segment.
fn lower(segment: &mut [u8], at: usize, limit: u16) -> bool {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= limit {
        return false;
    }
    segment[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    let before = u16::from_be_bytes([segment[CHECKSUM], segment[CHECKSUM + 1]]);
    // Options are not aligned: at an odd offset the value straddles two words of the sum.
    let after = match at % 2 {
        0 => checksum::adjust(before, old, limit),
        _ => checksum::adjust(before, old.swap_bytes(), limit.swap_bytes()),
    };
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&after.to_be_bytes());
    true
}

/// The fixed TCP header, without options.
pub const TCP_HEADER: usize = 20;

/// The sender is finished, RFC 9293 §3.1.
pub const FIN: u8 = 0x01;
/// The sender opens a connection.
pub const SYN: u8 = 0x02;
/// The connection is over.
pub const RST: u8 = 0x04;
/// The acknowledgment number counts: in every segment of a connection but the first.
pub const ACK: u8 = 0x10;

/// Offsets in the TCP header, RFC 9293 §3.1.
const SEQUENCE: usize = 4;
const ACKNOWLEDGMENT: usize = 8;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

/// The usual initial value, as of ICMP errors.
const HOP_LIMIT: u8 = 64;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

#[cfg(test)]
mod tests;
