//! Cuts a packet of up to 64 KiB into the packets a network card would have sent.
//!
//! Each segment gets its own lengths, IPv4 identification and checksum, TCP sequence number and
//! flags (FIN and PSH on the last only, CWR on the first only) and a complete transport checksum.
//! The payload is copied once, and summed while it is in the cache.
//!
//! Refused are fragments, packets of another protocol than the device named, and sizes of zero.

use bytes::BytesMut;

use super::{
    CWR, FIN, PSH, SegmentKind, Segmentation, TCP_DATA_OFFSET, TCP_FLAGS, TCP_HEADER, TCP_SEQUENCE,
    UDP_HEADER, UDP_LENGTH, on_the_wire, put,
};
use crate::wire::checksum::{self, Sum};
use crate::wire::ip::{IPV6_HEADER, IpPacket, IpVersion, TCP, UDP};

/// The segments of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    version: IpVersion,
    kind: SegmentKind,
    /// Where the transport header begins.
    transport: usize,
    /// Where the payload begins.
    header: usize,
    /// Payload bytes of each segment but the last.
    size: usize,
    /// The sum of the pseudo header, but for the length.
    pseudo: Sum,
}

impl<'a> Segments<'a> {
    /// Cuts `packet` as its device says.
    ///
    /// # Errors
    /// When the packet cannot be cut that way.
    pub fn new(packet: &IpPacket<'a>, segmentation: Segmentation) -> Result<Self, SplitError> {
        let bytes = packet.bytes();
        let transport = packet.transport_offset();
        let (protocol, fixed) = match segmentation.kind {
            SegmentKind::Tcp => (TCP, TCP_HEADER),
            SegmentKind::Udp => (UDP, UDP_HEADER),
        };
        if packet.protocol() != protocol || packet.is_fragment() {
            return Err(SplitError::Protocol {
                kind: segmentation.kind,
                protocol: packet.protocol(),
            });
        }
        let segment = packet.transport();
        let length = match segmentation.kind {
            SegmentKind::Tcp => segment
                .get(TCP_DATA_OFFSET)
                .map_or(0, |offset| usize::from(offset >> 4) * 4),
            SegmentKind::Udp => fixed,
        };
        if length < fixed || length > segment.len() {
            return Err(SplitError::Header);
        }
        if segmentation.size == 0 {
            return Err(SplitError::Size);
        }
        Ok(Self {
            packet: bytes,
            version: packet.version(),
            kind: segmentation.kind,
            transport,
            header: transport + length,
            size: segmentation.size.into(),
            pseudo: Sum::pseudo_header(packet.source(), packet.destination(), protocol, 0),
        })
    }

    /// How many there are; a packet without payload is one segment.
    #[must_use]
    pub fn count(&self) -> usize {
        self.payload().div_ceil(self.size).max(1)
    }

    /// The length of the longest, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.header + self.size.min(self.payload())
    }

    /// The length of all of them together, in bytes.
    #[must_use]
    pub fn total(&self) -> usize {
        self.header * self.count() + self.payload()
    }

    /// Appends segment number `index` to `out` and returns its length.
    ///
    /// # Panics
    /// When there is no such segment.
    pub fn append(&self, index: usize, out: &mut BytesMut) -> usize {
        let from = self.header + index * self.size;
        let to = (from + self.size).min(self.packet.len());
        let payload = &self.packet[from..to];
        let start = out.len();
        out.extend_from_slice(&self.packet[..self.header]);
        self.number(index, payload.len(), &mut out[start..]);
        out.extend_from_slice(payload);
        let segment = &mut out[start + self.transport..];
        let field = self.kind.checksum_offset();
        segment[field..field + 2].fill(0);
        let (header, _) = segment.split_at(self.header - self.transport);
        // Headers have an even length, so the two sums may be added; no segment is longer than its packet.
        let sum = self
            .pseudo
            .word(segment.len() as u16)
            .bytes(header)
            .bytes(payload)
            .checksum();
        segment[field..field + 2].copy_from_slice(&on_the_wire(sum).to_be_bytes());
        out.len() - start
    }

    fn payload(&self) -> usize {
        self.packet.len() - self.header
    }

    /// Writes what differs from segment to segment into the copied `header`, the transport
    /// checksum apart.
    fn number(&self, index: usize, payload: usize, header: &mut [u8]) {
        let length = self.header + payload;
        match self.version {
            IpVersion::V4 => {
                put(header, 2, length as u16);
                let identification = u16::from_be_bytes([header[4], header[5]]);
                put(header, 4, identification.wrapping_add(index as u16));
                put(header, 10, 0);
                let sum = checksum::of(&header[..self.transport]);
                put(header, 10, sum);
            }
            IpVersion::V6 => put(header, 4, (length - IPV6_HEADER) as u16),
        }
        let transport = &mut header[self.transport..];
        match self.kind {
            SegmentKind::Udp => put(transport, UDP_LENGTH, (length - self.transport) as u16),
            SegmentKind::Tcp => {
                let at = TCP_SEQUENCE..TCP_SEQUENCE + 4;
                let first =
                    u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
                let sequence = first.wrapping_add((index * self.size) as u32);
                transport[at].copy_from_slice(&sequence.to_be_bytes());
                if index > 0 {
                    transport[TCP_FLAGS] &= !CWR;
                }
                if index + 1 < self.count() {
                    transport[TCP_FLAGS] &= !(FIN | PSH);
                }
            }
        }
    }
}

/// Why a packet cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// It is a fragment, or of another protocol.
    #[error("a packet of protocol {protocol} cannot be cut as {kind:?}")]
    Protocol {
        /// What the device named.
        kind: SegmentKind,
        /// What the packet is.
        protocol: u8,
    },
    /// Its transport header does not fit it.
    #[error("the transport header does not fit the packet")]
    Header,
    /// Segments of no bytes never end.
    #[error("segments of no bytes")]
    Size,
}
