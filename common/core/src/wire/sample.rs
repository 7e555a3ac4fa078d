//! Packets for the tests of this crate, built and checked without the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

/// A packet between two addresses of one family, the IPv4 header checksum in place.
///
/// # Panics
///
/// When the addresses are of different families.
pub(crate) fn packet(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            v4(source, destination, protocol, &[], payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => v6(source, destination, protocol, payload),
        _ => panic!("{source} and {destination} are of different families"),
    }
}

/// An IPv4 packet with `options`, whose length is a multiple of four.
pub(crate) fn v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    let sum = naive_checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet; `payload` may begin with extension headers.
pub(crate) fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A TCP segment with `options`, padded to a multiple of four; its checksum is zero.
pub(crate) fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let padded = options.len().next_multiple_of(4);
    let mut segment = vec![0xc0, 0x01, 0x01, 0xbb, 1, 2, 3, 4, 0, 0, 0, 0];
    segment.extend([
        ((20 + padded) / 4 * 16) as u8,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    segment.extend(options);
    segment.resize(20 + padded, 0);
    segment.extend(payload);
    segment
}

/// Writes the right TCP checksum into a packet whose segment begins at `transport`.
pub(crate) fn seal_tcp(packet: &mut [u8], transport: usize) {
    packet[transport + 16..transport + 18].fill(0);
    let sum = transport_checksum(packet, 6, transport);
    packet[transport + 16..transport + 18].copy_from_slice(&sum.to_be_bytes());
}

/// The checksum over pseudo header and everything from `transport` on; zero if it is right.
pub(crate) fn transport_checksum(packet: &[u8], protocol: u8, transport: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let mut bytes = packet[addresses].to_vec();
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(((packet.len() - transport) as u32).to_be_bytes());
    bytes.extend(&packet[transport..]);
    naive_checksum(&bytes)
}

/// The internet checksum word by word, as RFC 791 describes it.
pub(crate) fn naive_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

/// IPv4 and IPv6 packets whose lengths are right and whose upper layer is anything.
pub(crate) fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let protocol = prop_oneof![Just(1), Just(6), Just(17), Just(58), any::<u8>()];
    let payload = vec(any::<u8>(), 0..1500);
    prop_oneof![
        (
            any::<[u8; 8]>(),
            protocol.clone(),
            payload.clone(),
            any::<u16>()
        )
            .prop_map(|(addresses, protocol, payload, fragment)| {
                let [a, b, c, d, e, f, g, h] = addresses;
                let (source, destination) = ([a, b, c, d], [e, f, g, h]);
                let mut packet = v4(source.into(), destination.into(), protocol, &[], &payload);
                // Most packets are whole.
                if fragment & 0x4000 != 0 {
                    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
                }
                packet
            }),
        (
            any::<[u8; 16]>(),
            any::<[u8; 16]>(),
            extension_headers(protocol),
            payload
        )
            .prop_map(|(source, destination, (next, mut headers), payload)| {
                headers.extend(payload);
                v6(source.into(), destination.into(), next, &headers)
            }),
    ]
}

/// Packets with a few bytes replaced and perhaps the end cut off: most are refused, all are close.
pub(crate) fn nearly_packet() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (
        any_packet(),
        changes,
        prop::option::of(any::<prop::sample::Index>()),
    )
        .prop_map(|(mut packet, changes, end)| {
            for (at, value) in changes {
                // The headers are where a change matters.
                let at = at.index(packet.len().min(80));
                packet[at] = value;
            }
            if let Some(end) = end {
                packet.truncate(end.index(packet.len()));
            }
            packet
        })
}

/// A chain of up to four destination options headers and one authentication header.
fn extension_headers(protocol: impl Strategy<Value = u8>) -> impl Strategy<Value = (u8, Vec<u8>)> {
    let kinds = vec(prop_oneof![Just(60u8), Just(51u8)], 0..5);
    (kinds, protocol).prop_map(|(kinds, protocol)| {
        let mut chain = Vec::new();
        for (place, &kind) in kinds.iter().enumerate() {
            let next = kinds.get(place + 1).copied().unwrap_or(protocol);
            // Twelve bytes of authentication header break the alignment, which nothing checks.
            let (units, len) = if kind == 51 { (1, 12) } else { (1, 16) };
            let start = chain.len();
            chain.extend([next, units]);
            chain.resize(start + len, 0);
        }
        (kinds.first().copied().unwrap_or(protocol), chain)
    })
}
