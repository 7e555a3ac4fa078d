//! Joins consecutive packets of a flow into one that the device takes in a single call.
//!
//! ```text
//! push ─ same flow, next in line? ─ yes: verify both checksums, join
//!                                 ─ no:  what was joined becomes ready, a new bundle begins
//! flush ─ everything becomes ready;  pop ─ what is ready, in order within each flow
//! ```
//!
//! Packets are joined only if the kernel would have joined them (its GRO is the model): TCP
//! segments with payload that follow one another and agree in every header field but those which
//! count, UDP datagrams of one size. The last may be shorter, and PSH ends a bundle. SYN, RST, URG,
//! FIN and CWR, IP options, IPv6 extension headers, fragments and UDP without a checksum pass alone
//! and overtake nothing of their flow. Nothing is copied: a bundle is the packets it was made of.
//!
//! Checksums are verified when a second packet joins. A packet that stays alone is passed as it
//! came, and the kernel verifies it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    ACK, ECE, PSH, PartialChecksum, SegmentKind, Segmentation, TCP_DATA_OFFSET, TCP_FLAGS,
    TCP_HEADER, TCP_SEQUENCE, UDP_HEADER, UDP_LENGTH, put,
};
use crate::wire::checksum::{self, Sum};
use crate::wire::ip::{IPV4_HEADER, IPV6_HEADER, IpPacket, IpVersion, TCP, UDP};

/// Joins packets; one per device queue.
#[derive(Debug, Default)]
pub struct Coalescer {
    /// Bundles that may grow, at most [`MAX_OPEN`].
    open: Vec<Bundle>,
    ready: VecDeque<Bundle>,
    /// Emptied lists of packets, so that a bundle costs no allocation.
    spare: Vec<Vec<Bytes>>,
    join: Join,
}

/// What a device takes joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Join {
    /// Every packet goes alone.
    #[default]
    Nothing,
    /// TCP segments.
    Tcp,
    /// TCP segments and UDP datagrams.
    TcpAndUdp,
}

/// Packets of one flow that follow one another, or a single packet.
#[derive(Debug)]
pub struct Bundle {
    packets: Vec<Bytes>,
    /// How the packets look; `None` for one that must stay alone.
    shape: Option<Shape>,
    /// Payload bytes of all packets.
    payload: usize,
    /// The checksums of the first packet were found right.
    verified: bool,
}

/// The headers of what goes in place of a bundle's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// How it is cut again.
    pub segmentation: Segmentation,
    /// The checksum that is left to the device.
    pub checksum: PartialChecksum,
    /// Length of the headers.
    pub header: usize,
}

impl Coalescer {
    /// Joins what the device takes joined.
    #[must_use]
    pub fn new(join: Join) -> Self {
        Self {
            join,
            ..Self::default()
        }
    }

    /// Joins from now on what `join` says.
    pub fn join(&mut self, join: Join) {
        self.join = join;
    }

    /// Takes the next packet.
    pub fn push(&mut self, packet: Bytes) {
        let shape = match Shape::of(&packet) {
            Ok(shape) if self.join >= shape.kind.needs() => shape,
            Ok(shape) => return self.pass(packet, Some(shape.key)),
            Err(key) => return self.pass(packet, key),
        };
        let place = self
            .open
            .iter()
            .rposition(|bundle| bundle.is_flow(&packet, &shape));
        match place {
            Some(place) if self.open[place].join(&packet, &shape) => {
                if self.open[place].is_complete(&shape) {
                    self.close(place);
                }
            }
            Some(place) => {
                self.close(place);
                self.begin(packet, shape);
            }
            None => {
                if self.open.len() == MAX_OPEN {
                    self.close(0);
                }
                self.begin(packet, shape);
            }
        }
    }

    /// Ends a batch: whatever was joined so far becomes ready.
    pub fn flush(&mut self) {
        self.ready.extend(self.open.drain(..));
    }

    /// The next bundle to write, to be given back by [`Self::recycle`].
    pub fn pop(&mut self) -> Option<Bundle> {
        self.ready.pop_front()
    }

    /// Takes back what was written.
    pub fn recycle(&mut self, bundle: Bundle) {
        if self.spare.len() < MAX_SPARE {
            let mut packets = bundle.packets;
            packets.clear();
            self.spare.push(packets);
        }
    }

    /// A packet that cannot be joined, behind everything of its flow.
    fn pass(&mut self, packet: Bytes, key: Option<u64>) {
        // Without ports it may belong to any flow between its two hosts; a key can be shared by
        // two flows, which then costs one of them a system call.
        let same = |bundle: &Bundle| match (key, &bundle.shape) {
            (Some(key), Some(shape)) => shape.key == key,
            _ => true,
        };
        while let Some(place) = self.open.iter().position(same) {
            self.close(place);
        }
        let bundle = self.bundle(packet, None, 0);
        self.ready.push_back(bundle);
    }

    fn begin(&mut self, packet: Bytes, shape: Shape) {
        let payload = shape.payload;
        let ends = shape.ends;
        let bundle = self.bundle(packet, Some(shape), payload);
        if ends {
            self.ready.push_back(bundle);
        } else {
            self.open.push(bundle);
        }
    }

    fn bundle(&mut self, packet: Bytes, shape: Option<Shape>, payload: usize) -> Bundle {
        let mut packets = self.spare.pop().unwrap_or_default();
        packets.push(packet);
        Bundle {
            packets,
            shape,
            payload,
            verified: false,
        }
    }

    fn close(&mut self, place: usize) {
        let bundle = self.open.remove(place);
        self.ready.push_back(bundle);
    }
}

impl SegmentKind {
    const fn needs(self) -> Join {
        match self {
            Self::Tcp => Join::Tcp,
            Self::Udp => Join::TcpAndUdp,
        }
    }
}

impl Bundle {
    /// The packets it was made of.
    #[must_use]
    pub fn packets(&self) -> &[Bytes] {
        &self.packets
    }

    /// Writes the headers that stand for all of them to the front of `out`, which is followed by
    /// each packet's bytes from [`Joined::header`] on. `None` for a single packet, which goes as it is.
    pub fn headers(&self, out: &mut [u8; MAX_HEADERS]) -> Option<Joined> {
        let shape = self.shape.as_ref()?;
        let [first, .., last] = &self.packets[..] else {
            return None;
        };
        let header = &mut out[..shape.header];
        header.copy_from_slice(&first[..shape.header]);
        let length = shape.header + self.payload;
        match shape.version {
            IpVersion::V4 => {
                put(header, 2, length as u16);
                put(header, 10, 0);
                let sum = checksum::of(&header[..IPV4_HEADER]);
                put(header, 10, sum);
            }
            IpVersion::V6 => put(header, 4, (length - IPV6_HEADER) as u16),
        }
        let transport = length - shape.transport;
        match shape.kind {
            SegmentKind::Udp => put(header, shape.transport + UDP_LENGTH, transport as u16),
            SegmentKind::Tcp => {
                let at = shape.transport + TCP_FLAGS;
                header[at] |= last[at] & PSH;
            }
        }
        let offset = shape.kind.checksum_offset();
        let pseudo = shape.pseudo_header(first, transport).fold();
        put(header, shape.transport + offset, pseudo);
        Some(Joined {
            segmentation: Segmentation {
                kind: shape.kind,
                size: shape.payload as u16,
            },
            checksum: PartialChecksum {
                start: shape.transport as u16,
                offset: offset as u16,
            },
            header: shape.header,
        })
    }

    fn is_flow(&self, packet: &[u8], shape: &Shape) -> bool {
        self.shape.as_ref().is_some_and(|mine| {
            mine.key == shape.key
                && mine.version == shape.version
                && mine.kind == shape.kind
                && mine.flow(&self.packets[0]) == shape.flow(packet)
        })
    }

    /// Appends `packet`, which is of this flow, if it continues it.
    fn join(&mut self, packet: &Bytes, shape: &Shape) -> bool {
        let Some(mine) = &self.shape else {
            return false;
        };
        let most = match mine.kind {
            SegmentKind::Tcp => MAX_PACKETS,
            SegmentKind::Udp => MAX_DATAGRAMS,
        };
        let first = &self.packets[0];
        let fits = self.packets.len() < most
            && shape.payload <= mine.payload
            && mine.header + self.payload + shape.payload <= MAX_LENGTH;
        if !fits
            || !mine.agrees(first, packet, shape)
            || !mine.follows(first, self, packet)
            || !(self.verified || mine.is_right(first))
            || !shape.is_right(packet)
        {
            return false;
        }
        self.verified = true;
        self.payload += shape.payload;
        self.packets.push(packet.clone());
        true
    }

    /// Whether nothing may follow the packet of this shape, the last one joined.
    fn is_complete(&self, last: &Shape) -> bool {
        let size = self.shape.as_ref().map_or(0, |shape| shape.payload);
        last.ends || last.payload < size
    }
}

/// What a packet that may be joined looks like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    version: IpVersion,
    kind: SegmentKind,
    transport: usize,
    header: usize,
    payload: usize,
    /// Mixes addresses and ports: different for most flows.
    key: u64,
    /// PSH: the sender wants it delivered.
    ends: bool,
}

impl Shape {
    /// The shape of a packet that may be joined, or the key of its flow if it has ports.
    fn of(bytes: &[u8]) -> Result<Self, Option<u64>> {
        let packet = IpPacket::parse(bytes).map_err(|_| None)?;
        let transport = packet.transport_offset();
        let (kind, fixed) = match packet.protocol() {
            TCP => (SegmentKind::Tcp, TCP_HEADER),
            UDP => (SegmentKind::Udp, UDP_HEADER),
            _ => return Err(None),
        };
        let segment = packet.transport();
        if packet.is_fragment() || segment.len() < fixed {
            return Err(None);
        }
        let version = packet.version();
        let key = key(version, bytes, segment);
        let plain = match version {
            IpVersion::V4 => IPV4_HEADER,
            IpVersion::V6 => IPV6_HEADER,
        };
        let (length, ends) = match kind {
            SegmentKind::Tcp => {
                let flags = segment[TCP_FLAGS];
                if flags & !(PSH | ECE) != ACK {
                    return Err(Some(key));
                }
                (
                    usize::from(segment[TCP_DATA_OFFSET] >> 4) * 4,
                    flags & PSH != 0,
                )
            }
            SegmentKind::Udp => {
                let declared = u16::from_be_bytes([segment[4], segment[5]]);
                if usize::from(declared) != segment.len() || segment[6..8] == [0, 0] {
                    return Err(Some(key));
                }
                (UDP_HEADER, false)
            }
        };
        if transport != plain || length < fixed || length >= segment.len() {
            return Err(Some(key));
        }
        Ok(Self {
            version,
            kind,
            transport,
            header: transport + length,
            payload: segment.len() - length,
            key,
            ends,
        })
    }

    /// Addresses and ports.
    fn flow<'a>(&self, packet: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let addresses = match self.version {
            IpVersion::V4 => &packet[12..20],
            IpVersion::V6 => &packet[8..40],
        };
        (addresses, &packet[self.transport..self.transport + 4])
    }

    /// Whether everything in the headers agrees that must, between packets of one flow.
    fn agrees(&self, first: &[u8], packet: &[u8], shape: &Self) -> bool {
        if self.header != shape.header {
            return false;
        }
        let same = |at: std::ops::Range<usize>| first[at.clone()] == packet[at];
        let ip = match self.version {
            // Version, traffic class and ECN; flags; time to live. The offset is zero in both.
            IpVersion::V4 => same(1..2) && same(6..9),
            // Version, traffic class, ECN and flow label; hop limit.
            IpVersion::V6 => same(0..4) && same(7..8),
        };
        let at = self.transport;
        ip && match self.kind {
            SegmentKind::Udp => true,
            SegmentKind::Tcp => {
                // Acknowledgement and data offset; flags but PSH; window; urgent pointer, options.
                same(at + 8..at + 13)
                    && (first[at + TCP_FLAGS] ^ packet[at + TCP_FLAGS]) & !PSH == 0
                    && same(at + 14..at + 16)
                    && same(at + 18..self.header)
            }
        }
    }

    /// Whether `packet` is the next one behind what `bundle` has.
    fn follows(&self, first: &[u8], bundle: &Bundle, packet: &[u8]) -> bool {
        let number = |bytes: &[u8]| u16::from_be_bytes([bytes[4], bytes[5]]);
        // What may be fragmented on its way needs the number it was given. What may not (RFC 6864
        // §4.1) has a number without a meaning.
        let may_be_fragmented = self.version == IpVersion::V4 && first[6] & 0x40 == 0;
        if may_be_fragmented
            && number(packet) != number(first).wrapping_add(bundle.packets.len() as u16)
        {
            return false;
        }
        match self.kind {
            SegmentKind::Udp => true,
            SegmentKind::Tcp => {
                let at = self.transport + TCP_SEQUENCE;
                let sequence = |bytes: &[u8]| {
                    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
                };
                sequence(packet) == sequence(first).wrapping_add(bundle.payload as u32)
            }
        }
    }

    /// Whether the packet's checksums are right.
    fn is_right(&self, packet: &[u8]) -> bool {
        let ip = self.version == IpVersion::V6 || checksum::of(&packet[..IPV4_HEADER]) == 0;
        ip && self
            .pseudo_header(packet, packet.len() - self.transport)
            .bytes(&packet[self.transport..])
            .checksum()
            == 0
    }

    fn pseudo_header(&self, packet: &[u8], length: usize) -> Sum {
        let (addresses, _) = self.flow(packet);
        let protocol = match self.kind {
            SegmentKind::Tcp => TCP,
            SegmentKind::Udp => UDP,
        };
        // 16 bits for the length are enough: packets are no longer.
        Sum::new()
            .bytes(addresses)
            .word(protocol.into())
            .word(length as u16)
    }
}

/// Mixes the addresses and ports of a packet.
fn key(version: IpVersion, packet: &[u8], segment: &[u8]) -> u64 {
    let addresses = match version {
        IpVersion::V4 => &packet[12..20],
        IpVersion::V6 => &packet[8..40],
    };
    let (words, _) = addresses.as_chunks::<8>();
    let ports = u32::from_ne_bytes([segment[0], segment[1], segment[2], segment[3]]);
    words.iter().fold(u64::from(ports) << 16, |key, word| {
        (key ^ u64::from_ne_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// The longest headers of a bundle: IPv6 and TCP with all its options.
pub const MAX_HEADERS: usize = IPV6_HEADER + 60;
/// Packets of one bundle: 64 KiB of the smallest segments TCP uses by default (536 bytes).
pub const MAX_PACKETS: usize = 128;
/// UDP_MAX_SEGMENTS of kernels before 6.9; newer ones take twice as many.
const MAX_DATAGRAMS: usize = 64;
/// What the length field of either version of IP can say, less the header of IPv6.
const MAX_LENGTH: usize = 65_535;
/// Flows that are joined side by side. One batch from the outside socket seldom has more.
const MAX_OPEN: usize = 16;
/// Lists kept for reuse.
const MAX_SPARE: usize = 64;
