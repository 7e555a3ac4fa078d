//! Packets made by hand. Checksums are not the table's business.

use std::net::IpAddr;

pub type End = (IpAddr, u16);

pub fn end(address: &str, port: u16) -> End {
    (address.parse().unwrap(), port)
}

/// One packet of IP; `payload` may begin with IPv6 extension headers.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0];
            packet.extend((20 + payload.len() as u16).to_be_bytes());
            packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        _ => panic!("two families"),
    };
    packet.extend(payload);
    packet
}

/// A segment without payload.
pub fn tcp(source: End, destination: End, flags: u8) -> Vec<u8> {
    ip(
        source.0,
        destination.0,
        TCP,
        &segment(source.1, destination.1, flags),
    )
}

pub fn segment(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    segment.extend([0; 8]);
    segment.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    segment
}

pub fn udp(source: End, destination: End) -> Vec<u8> {
    ip(
        source.0,
        destination.0,
        UDP,
        &datagram(source.1, destination.1, 0),
    )
}

/// A datagram with `length` bytes of payload.
pub fn datagram(source: u16, destination: u16, length: usize) -> Vec<u8> {
    let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    datagram.extend((8 + length as u16).to_be_bytes());
    datagram.resize(8 + length, 0);
    datagram
}

/// An echo request, or the reply to one.
pub fn echo(source: IpAddr, destination: IpAddr, request: bool, identifier: u16) -> Vec<u8> {
    let kind = match (source.is_ipv4(), request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    let [high, low] = identifier.to_be_bytes();
    ip(
        source,
        destination,
        icmp(source),
        &[kind, 0, 0, 0, high, low, 0, 1],
    )
}

/// "Destination unreachable" about the packet that `quote` begins.
pub fn unreachable(source: IpAddr, destination: IpAddr, quote: &[u8]) -> Vec<u8> {
    let mut message = vec![if source.is_ipv4() { 3 } else { 1 }, 1, 0, 0, 0, 0, 0, 0];
    message.extend(quote);
    ip(source, destination, icmp(source), &message)
}

/// A part of a packet that begins `start` bytes (a multiple of eight) after its header.
pub fn fragment(
    ends: (IpAddr, IpAddr),
    protocol: u8,
    identification: u16,
    start: usize,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    let [high, low] = identification.to_be_bytes();
    if ends.0.is_ipv4() {
        let mut packet = ip(ends.0, ends.1, protocol, payload);
        packet[4..6].copy_from_slice(&[high, low]);
        let field = (start / 8) as u16 | u16::from(more) << 13;
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        packet
    } else {
        let field = ((start as u16) | u16::from(more)).to_be_bytes();
        let mut whole = vec![protocol, 0, field[0], field[1], 0, 0, high, low];
        whole.extend(payload);
        ip(ends.0, ends.1, 44, &whole)
    }
}

fn icmp(address: IpAddr) -> u8 {
    if address.is_ipv4() { 1 } else { 58 }
}

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
