//! The header that a TUN device with offloads puts in front of every packet: `struct virtio_net_hdr`
//! (VIRTIO 1.3 §5.1.6) in the machine's byte order.

use adit_core::offload::coalesce::Joined;
use adit_core::offload::{Offload, PartialChecksum, SegmentKind, Segmentation};

/// The header's length in bytes, without the number of buffers.
pub(super) const HEADER: usize = 10;

/// What the kernel left to be done; `None` for a kind of segmentation that was not asked for.
pub(super) fn decode(header: &[u8; HEADER]) -> Option<Offload> {
    let [flags, kind, rest @ ..] = header;
    let field = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
    let (size, start, offset) = (field(2), field(4), field(6));
    match kind & !GSO_ECN {
        GSO_NONE if flags & NEEDS_CSUM != 0 => {
            Some(Offload::Checksum(PartialChecksum { start, offset }))
        }
        GSO_NONE => Some(Offload::None),
        GSO_TCPV4 | GSO_TCPV6 => Some(Offload::Segments(Segmentation {
            kind: SegmentKind::Tcp,
            size,
        })),
        GSO_UDP_L4 => Some(Offload::Segments(Segmentation {
            kind: SegmentKind::Udp,
            size,
        })),
        _ => None,
    }
}

/// The header of a packet that is complete.
pub(super) const PLAIN: [u8; HEADER] = [0; HEADER];

/// The header of a joined packet, whose IP version is 4 or not.
pub(super) fn encode(joined: &Joined, v4: bool) -> [u8; HEADER] {
    let kind = match (joined.segmentation.kind, v4) {
        (SegmentKind::Tcp, true) => GSO_TCPV4,
        (SegmentKind::Tcp, false) => GSO_TCPV6,
        (SegmentKind::Udp, _) => GSO_UDP_L4,
    };
    let mut header = [0; HEADER];
    header[0] = NEEDS_CSUM;
    header[1] = kind;
    header[2..4].copy_from_slice(&(joined.header as u16).to_ne_bytes());
    header[4..6].copy_from_slice(&joined.segmentation.size.to_ne_bytes());
    header[6..8].copy_from_slice(&joined.checksum.start.to_ne_bytes());
    header[8..10].copy_from_slice(&joined.checksum.offset.to_ne_bytes());
    header
}

/// The checksum field holds the pseudo header's sum.
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// The first segment carries CWR; splitting knows that from the packet itself.
const GSO_ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_the_same_segmentation() {
        for (kind, v4) in [
            (SegmentKind::Tcp, true),
            (SegmentKind::Tcp, false),
            (SegmentKind::Udp, true),
            (SegmentKind::Udp, false),
        ] {
            let segmentation = Segmentation { kind, size: 1348 };
            let joined = Joined {
                segmentation,
                checksum: PartialChecksum {
                    start: 20,
                    offset: 16,
                },
                header: 52,
            };
            let header = encode(&joined, v4);
            assert_eq!(decode(&header), Some(Offload::Segments(segmentation)));
        }
    }

    #[test]
    fn a_lone_checksum_and_an_unknown_kind_are_told_apart() {
        let mut header = PLAIN;
        assert_eq!(decode(&header), Some(Offload::None));
        header[0] = NEEDS_CSUM;
        header[6..8].copy_from_slice(&40u16.to_ne_bytes());
        header[8..10].copy_from_slice(&6u16.to_ne_bytes());
        let partial = PartialChecksum {
            start: 40,
            offset: 6,
        };
        assert_eq!(decode(&header), Some(Offload::Checksum(partial)));
        // UFO, which Linux has not produced since 4.14.
        header[1] = 3;
        assert_eq!(decode(&header), None);
    }
}
