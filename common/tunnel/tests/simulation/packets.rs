//! Inner packets that can be told apart: UDP with a number in the payload, and TCP segments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A UDP packet of exactly `len` bytes (at least 40) carrying `number`.
pub fn udp(source: IpAddr, destination: IpAddr, number: u64, len: usize) -> Vec<u8> {
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => v4(source, destination, 17, len),
        (IpAddr::V6(source), IpAddr::V6(destination)) => v6(source, destination, 17, len),
        _ => panic!("mixed families"),
    };
    let header = header_len(&packet);
    let udp_len = (len - header) as u16;
    packet[header..header + 2].copy_from_slice(&5000u16.to_be_bytes());
    packet[header + 2..header + 4].copy_from_slice(&6000u16.to_be_bytes());
    packet[header + 4..header + 6].copy_from_slice(&udp_len.to_be_bytes());
    packet[header + 8..header + 16].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The number in a packet made by [`udp`], if it is one.
pub fn number(packet: &[u8]) -> Option<u64> {
    let header = header_len(packet);
    let protocol = if header == 20 { packet[9] } else { packet[6] };
    if protocol != 17 {
        return None;
    }
    packet
        .get(header + 8..header + 16)?
        .try_into()
        .ok()
        .map(u64::from_be_bytes)
}

/// A TCP segment without payload; its sequence number is 7, and it acknowledges 9.
pub fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> Vec<u8> {
    let mut packet = match (source.0, destination.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => v4(source, destination, 6, 40),
        (IpAddr::V6(source), IpAddr::V6(destination)) => v6(source, destination, 6, 60),
        _ => panic!("mixed families"),
    };
    let header = header_len(&packet);
    packet[header..header + 2].copy_from_slice(&source.1.to_be_bytes());
    packet[header + 2..header + 4].copy_from_slice(&destination.1.to_be_bytes());
    (packet[header + 7], packet[header + 11]) = (7, 9);
    (packet[header + 12], packet[header + 13]) = (5 << 4, flags);
    packet
}

/// Flags and sequence number, if the packet is TCP.
pub fn tcp_flags(packet: &[u8]) -> Option<(u8, u8)> {
    let header = header_len(packet);
    let protocol = if header == 20 { packet[9] } else { packet[6] };
    (protocol == 6).then(|| (packet[header + 13], packet[header + 7]))
}

/// ICMP type and code, if the packet is ICMP.
pub fn icmp(packet: &[u8]) -> Option<(u8, u8)> {
    let header = header_len(packet);
    let protocol = if header == 20 { packet[9] } else { packet[6] };
    matches!((header, protocol), (20, 1) | (40, 58)).then(|| (packet[header], packet[header + 1]))
}

/// The MTU in a Packet Too Big or fragmentation-needed message.
pub fn icmp_mtu(packet: &[u8]) -> u32 {
    let header = header_len(packet);
    let field: [u8; 4] = packet[header + 4..header + 8].try_into().unwrap();
    u32::from_be_bytes(field)
}

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

fn v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[6] = 0x40; // do not fragment
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    packet[6] = protocol;
    packet[7] = 64;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    packet
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
