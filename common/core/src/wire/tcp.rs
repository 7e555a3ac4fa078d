//! TCP's maximum segment size, lowered on its way through the tunnel so that connections fit
//! without waiting for a Packet Too Big to find its way back: RFC 9293 §3.7.1, RFC 6691.
//!
//! Guarantee: a clamped packet has the checksum a full computation would give it, if it had the
//! right one before; nothing but the value of the option and the checksum changes. Refused, by
//! leaving them alone, are fragments, packets that are no SYN and options that do not parse. An
//! option is never added: without one, senders keep to 536 or 1220 bytes, which fit.

use crate::wire::checksum;
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
    packet.protocol() == TCP
        && packet.is_first_fragment_or_whole()
        && packet
            .transport()
            .get(FLAGS)
            .is_some_and(|flags| flags & SYN != 0)
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
const TCP_HEADER: usize = 20;

/// Offsets in the TCP header, RFC 9293 §3.1.
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;

const SYN: u8 = 0x02;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

#[cfg(test)]
mod tests;
