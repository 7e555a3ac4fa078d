//! What a packet costs on its way through the tunnel, from the outside IP header to the inside one.
//!
//! ```text
//! path MTU  = IP header + UDP header + UDP payload
//! payload   = QUIC short header + frame header + datagram + AEAD tag
//! datagram  = quarter stream id + context id + inside packet
//! ```
//!
//! The functions are plain arithmetic that saturates at zero and refuses nothing. The constants are
//! those of the QUIC engine, which reckons with the largest packet number and frame header; what a
//! live connection carries is what the engine says, and [`inner_mtu`] takes that as its argument.

use crate::wire::datagram;
use crate::wire::ip::{IPV4_HEADER, IPV6_HEADER};

/// The largest inside packet in a datagram of at most `max_datagram` bytes on request stream
/// `stream_id`.
pub const fn inner_mtu(max_datagram: usize, stream_id: u64) -> usize {
    max_datagram.saturating_sub(datagram::prefix_len(stream_id))
}

/// The largest UDP payload on a path of `ip_mtu` bytes, IP options not reckoned with.
pub const fn max_udp_payload(ip_mtu: usize, is_v6: bool) -> usize {
    let ip_header = if is_v6 { IPV6_HEADER } else { IPV4_HEADER };
    ip_mtu.saturating_sub(ip_header + UDP_HEADER)
}

/// The largest QUIC datagram in a UDP payload of `udp_payload` bytes.
pub const fn max_datagram(udp_payload: usize) -> usize {
    udp_payload.saturating_sub(QUIC_PACKET_OVERHEAD + QUIC_DATAGRAM_FRAME_BOUND)
}

/// The smallest UDP payload that carries inside packets of `inner` bytes on request stream
/// `stream_id`.
pub const fn udp_payload_for(inner: usize, stream_id: u64) -> usize {
    inner + datagram::prefix_len(stream_id) + QUIC_DATAGRAM_FRAME_BOUND + QUIC_PACKET_OVERHEAD
}

/// The MTU of the TUN device for a link with this MTU: what fits over IPv4 with room for an
/// acknowledgement beside a full packet, 1400 for Ethernet, and never less than IPv6 needs.
pub const fn tunnel_mtu(link_mtu: u16) -> u16 {
    let fits = link_mtu.saturating_sub(TUNNEL_OVERHEAD);
    if fits < 1280 { 1280 } else { fits }
}

/// IP and UDP headers, QUIC and HTTP overhead (66 bytes over IPv4, 86 over IPv6), and what is left
/// of a round number for frames beside the datagram.
const TUNNEL_OVERHEAD: u16 = 100;

/// Every link that carries IPv6 carries packets of this size, RFC 8200 §5. So must the tunnel.
pub const MIN_IPV6_MTU: usize = 1280;

/// The smallest UDP payload QUIC works with, RFC 9000 §14.
pub const MIN_UDP_PAYLOAD: usize = 1200;

/// The UDP header.
pub const UDP_HEADER: usize = 8;

/// A QUIC short header packet around its frames: flags, connection id, packet number, AEAD tag.
pub const QUIC_PACKET_OVERHEAD: usize = 1 + QUIC_CONNECTION_ID + 4 + 16;

/// The length of the connection ids both ends issue.
pub const QUIC_CONNECTION_ID: usize = 8;

/// The engine's bound on the header of a DATAGRAM frame: a type of one byte, a length of eight.
pub const QUIC_DATAGRAM_FRAME_BOUND: usize = 9;

/// The first request stream; each tunnel has a connection of its own, so it is the usual one.
const FIRST_REQUEST: u64 = 0;

const _: () = {
    const fn inner(udp_payload: usize) -> usize {
        inner_mtu(max_datagram(udp_payload), FIRST_REQUEST)
    }

    // Ethernet outside.
    assert!(max_udp_payload(1500, false) == 1472 && inner(1472) == 1432);
    assert!(max_udp_payload(1500, true) == 1452 && inner(1452) == 1412);
    // The smallest path QUIC accepts carries IPv4 inside, and IPv6 inside does not fit it.
    assert!(inner(MIN_UDP_PAYLOAD) == 1160);
    assert!(udp_payload_for(MIN_IPV6_MTU, FIRST_REQUEST) == 1320);
    assert!(inner(1320) == MIN_IPV6_MTU && inner(1319) < MIN_IPV6_MTU);
    // A path of the smallest IPv6 MTU has room for QUIC in both families.
    assert!(max_udp_payload(MIN_IPV6_MTU, true) >= MIN_UDP_PAYLOAD);
    assert!(max_udp_payload(MIN_IPV6_MTU, false) >= MIN_UDP_PAYLOAD);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_needed_for_a_packet_carries_exactly_it(
            inner in 0..65_536usize,
            quarter in 0..1u64 << 60,
        ) {
            let stream_id = quarter * 4;
            let payload = udp_payload_for(inner, stream_id);
            prop_assert_eq!(inner_mtu(max_datagram(payload), stream_id), inner);
        }

        #[test]
        fn no_size_is_too_small_to_ask_about(any: usize, stream_id in 0..1u64 << 62) {
            prop_assert!(inner_mtu(max_datagram(max_udp_payload(any, true)), stream_id) <= any);
            prop_assert!(max_udp_payload(any, true) <= max_udp_payload(any, false));
        }
    }
}
