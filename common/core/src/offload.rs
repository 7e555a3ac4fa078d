//! Segmentation and checksums that the kernel leaves to its devices, done and undone.
//!
//! A TUN device with offloads hands over a TCP stream in packets of up to 64 KiB, far more than the
//! tunnel carries, and takes such packets back. One system call, one policy decision and one route
//! lookup then serve some forty packets of the wire.
//!
//! ```text
//! device ─ packet + Offload ─► split::Segments ─► packets that fit the tunnel, checksums complete
//! device ◄─ packet + Offload ─ coalesce::Coalescer ◄─ packets out of the tunnel, checksums verified
//! ```
//!
//! Guarantee: what is split is what a network card would have sent. What is coalesced splits again
//! into the packets it was made of, in their order within each flow; a packet whose checksum is
//! wrong is never made part of one that is declared right.

use crate::wire::checksum::Sum;

pub mod coalesce;
pub mod split;

/// What is still to be done to a packet before it may go on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    #[default]
    None,
    /// The checksum of the transport header.
    Checksum(PartialChecksum),
    /// The packet is to be cut into segments; each needs its checksum.
    Segments(Segmentation),
}

/// A checksum field that holds the sum of the pseudo header only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the checksummed bytes begin, in bytes from the start of the IP header.
    pub start: u16,
    /// Where the field lies, in bytes from `start`.
    pub offset: u16,
}

/// How a packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// The transport protocol.
    pub kind: SegmentKind,
    /// Payload bytes of each segment; the last may have fewer.
    pub size: u16,
}

/// The protocols whose packets are cut and joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Segments of one byte stream.
    Tcp,
    /// Datagrams of one flow.
    Udp,
}

impl SegmentKind {
    /// Where the checksum field lies in the transport header.
    #[must_use]
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Completes a checksum that was left to the device. Returns false when the field lies outside of
/// the packet; nothing is changed then.
pub fn complete_checksum(packet: &mut [u8], partial: PartialChecksum) -> bool {
    let start = usize::from(partial.start);
    let field = start + usize::from(partial.offset);
    if field + 2 > packet.len() {
        return false;
    }
    // The field holds the pseudo header's sum and is part of what is summed.
    let sum = Sum::new().bytes(&packet[start..]).checksum();
    packet[field..field + 2].copy_from_slice(&on_the_wire(sum).to_be_bytes());
    true
}

/// A computed zero is sent as its other representation: in UDP, zero means no checksum (RFC 768).
const fn on_the_wire(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Writes a 16-bit field of a header.
fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Offsets in the TCP header, RFC 9293 §3.1.
const TCP_SEQUENCE: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
/// The fixed TCP header, without options.
const TCP_HEADER: usize = 20;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// The UDP header, and where its length stands.
const UDP_HEADER: usize = 8;
const UDP_LENGTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sample;

    #[test]
    fn a_partial_checksum_is_completed() {
        let mut packet = sample::packet(
            "10.0.0.1",
            "10.0.0.2",
            6,
            &sample::tcp(ACK, &[], b"payload"),
        );
        let pseudo = Sum::pseudo_header(
            [10, 0, 0, 1].into(),
            [10, 0, 0, 2].into(),
            6,
            packet.len() - 20,
        );
        packet[36..38].copy_from_slice(&pseudo.fold().to_be_bytes());
        let partial = PartialChecksum {
            start: 20,
            offset: 16,
        };
        assert!(complete_checksum(&mut packet, partial));
        assert_eq!(sample::transport_checksum(&packet, 6, 20), 0);
    }

    #[test]
    fn a_checksum_field_outside_of_the_packet_is_refused() {
        let mut packet = [1, 2, 3, 4];
        for (start, offset) in [(0, 3), (4, 0), (u16::MAX, u16::MAX)] {
            assert!(!complete_checksum(
                &mut packet,
                PartialChecksum { start, offset }
            ));
        }
        assert_eq!(packet, [1, 2, 3, 4]);
    }
}
