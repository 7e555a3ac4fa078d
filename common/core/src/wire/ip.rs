//! One IP packet, validated once.
//!
//! [`IpPacket::parse`] checks everything the accessors rely on, so they cannot fail: the version,
//! the header and total lengths against the bytes given, IPv4 options, and the chain of IPv6
//! extension headers (RFC 8200 §4), which is walked up to the first upper-layer header.
//!
//! Refused are packets whose length is not that of the bytes, header chains that run out of the
//! packet (RFC 7112), repeat themselves or never end, jumbograms, and packets with a source route
//! still to travel (RFC 5095, RFC 7126 §4.3): their destination address is not where they go, so no
//! verdict on it means anything. The IPv4 header checksum is not verified; the kernel does that.
//!
//! ```
//! use adit_core::wire::ip::IpPacket;
//!
//! let mut bytes = [0; 28];
//! bytes[..20].copy_from_slice(&[
//!     0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
//! ]);
//! bytes[20..24].copy_from_slice(&[0x30, 0x39, 0, 53]);
//! let packet = IpPacket::parse(&bytes)?;
//! assert_eq!(packet.destination().to_string(), "10.0.0.2");
//! assert_eq!(packet.ports(), Some((12345, 53)));
//! # Ok::<(), adit_core::wire::ip::IpError>(())
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::checksum;

/// The two versions of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpVersion {
    /// IPv4, RFC 791.
    V4,
    /// IPv6, RFC 8200.
    V6,
}

/// A view of a packet that passed [`IpPacket::parse`].
#[derive(Clone, Copy, Debug)]
pub struct IpPacket<'a> {
    bytes: &'a [u8],
    version: IpVersion,
    /// The protocol of what begins at `transport`.
    protocol: u8,
    fragment: Fragment,
    /// Where the part begins that fragmentation cuts: behind the IPv4 header, behind the IPv6
    /// fragment header.
    fragmentable: usize,
    /// Where the upper-layer header begins; at most the length of the packet.
    transport: usize,
}

/// A packet's place in the packet that it is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPlace {
    /// What all parts have in common, besides their addresses and, in IPv4, the protocol.
    pub identification: u32,
    /// Where the part begins, in bytes behind the header that all parts repeat.
    pub start: usize,
    /// Where it ends, in the same bytes.
    pub end: usize,
}

impl<'a> IpPacket<'a> {
    /// Validates `bytes` as exactly one IP packet.
    ///
    /// # Errors
    ///
    /// The first reason found why `bytes` are not one packet that can be judged by its addresses.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IpError> {
        match bytes.first().map(|first| first >> 4) {
            None => Err(IpError::Truncated { length: 0 }),
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            Some(version) => Err(IpError::Version { version }),
        }
    }

    /// Validates `bytes` as the beginning of a packet, as an ICMP error quotes it (RFC 792, RFC 4443
    /// §3): what the packet says about its length is not compared with the bytes.
    ///
    /// # Errors
    ///
    /// The first reason found why `bytes` are not a beginning whose headers can be read.
    pub fn parse_beginning(bytes: &'a [u8]) -> Result<Self, IpError> {
        match bytes.first().map(|first| first >> 4) {
            None => Err(IpError::Truncated { length: 0 }),
            Some(4) => Self::headers_v4(bytes),
            Some(6) => Self::headers_v6(bytes),
            Some(version) => Err(IpError::Version { version }),
        }
    }

    /// The whole packet.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The version of IP.
    pub fn version(&self) -> IpVersion {
        self.version
    }

    /// The source address.
    pub fn source(&self) -> IpAddr {
        match self.version {
            IpVersion::V4 => Ipv4Addr::from(array::<4>(self.bytes, 12)).into(),
            IpVersion::V6 => Ipv6Addr::from(array::<16>(self.bytes, 8)).into(),
        }
    }

    /// The destination address.
    pub fn destination(&self) -> IpAddr {
        match self.version {
            IpVersion::V4 => Ipv4Addr::from(array::<4>(self.bytes, 16)).into(),
            IpVersion::V6 => Ipv6Addr::from(array::<16>(self.bytes, 24)).into(),
        }
    }

    /// The upper-layer protocol: of IPv6 the first header that is no extension header.
    ///
    /// A fragment other than the first has only the word of its fragment header for it.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Source and destination port, if the protocol has ports and this packet carries them.
    pub fn ports(&self) -> Option<(u16, u16)> {
        if !has_ports(self.protocol) || !self.is_first_fragment_or_whole() {
            return None;
        }
        let &[a, b, c, d] = self.transport().first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// True if this is a part of a packet. An IPv6 atomic fragment is whole (RFC 6946).
    pub fn is_fragment(&self) -> bool {
        self.fragment != Fragment::Whole
    }

    /// Which part of a packet this is, if it is one.
    pub fn fragment_place(&self) -> Option<FragmentPlace> {
        if !self.is_fragment() {
            return None;
        }
        // RFC 791 §3.1 and RFC 8200 §4.5: offsets count eight bytes.
        let (identification, start) = match self.version {
            IpVersion::V4 => {
                let field = u16::from_be_bytes(array(self.bytes, 6));
                let identification = u16::from_be_bytes(array(self.bytes, 4));
                (identification.into(), usize::from(field & 0x1fff) * 8)
            }
            IpVersion::V6 => {
                let header = self.fragmentable - FRAGMENT_HEADER;
                let field = u16::from_be_bytes(array(self.bytes, header + 2));
                let identification = u32::from_be_bytes(array(self.bytes, header + 4));
                (identification, usize::from(field >> 3) * 8)
            }
        };
        Some(FragmentPlace {
            identification,
            start,
            end: start + self.bytes.len() - self.fragmentable,
        })
    }

    /// True if the upper-layer header, ports included, can be expected at [`Self::transport`].
    pub fn is_first_fragment_or_whole(&self) -> bool {
        self.fragment != Fragment::Later
    }

    /// Time to live or hop limit.
    pub fn hop_limit(&self) -> u8 {
        match self.version {
            IpVersion::V4 => self.bytes[8],
            IpVersion::V6 => self.bytes[7],
        }
    }

    /// True if nobody on the way may fragment the packet: the IPv4 flag, and always in IPv6.
    pub fn dont_fragment(&self) -> bool {
        match self.version {
            IpVersion::V4 => self.bytes[6] & 0x40 != 0,
            IpVersion::V6 => true,
        }
    }

    /// The bytes from the upper-layer header on; of a later fragment, its part of the payload.
    pub fn transport(&self) -> &'a [u8] {
        &self.bytes[self.transport..]
    }

    /// Where [`Self::transport`] begins in [`Self::bytes`].
    pub fn transport_offset(&self) -> usize {
        self.transport
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, IpError> {
        let packet = Self::headers_v4(bytes)?;
        let length = bytes.len();
        match usize::from(u16::from_be_bytes(array(bytes, 2))) {
            declared if declared != length => Err(IpError::Length { declared, length }),
            _ => Ok(packet),
        }
    }

    fn headers_v4(bytes: &'a [u8]) -> Result<Self, IpError> {
        let length = bytes.len();
        if length < IPV4_HEADER {
            return Err(IpError::Truncated { length });
        }
        let header = usize::from(bytes[0] & 0x0f) * 4;
        if header < IPV4_HEADER || header > length {
            return Err(IpError::HeaderLength { header, length });
        }
        if header > IPV4_HEADER {
            check_v4_options(&bytes[IPV4_HEADER..header])?;
        }
        let flags_and_offset = u16::from_be_bytes(array(bytes, 6));
        Ok(Self {
            bytes,
            version: IpVersion::V4,
            protocol: bytes[9],
            fragment: Fragment::new(flags_and_offset & 0x1fff, flags_and_offset & 0x2000 != 0),
            fragmentable: header,
            transport: header,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, IpError> {
        let length = bytes.len();
        if length < IPV6_HEADER {
            return Err(IpError::Truncated { length });
        }
        // A jumbogram (RFC 2675) declares zero, and does not fit a tunnel.
        let declared = IPV6_HEADER + usize::from(u16::from_be_bytes(array(bytes, 4)));
        if declared != length {
            return Err(IpError::Length { declared, length });
        }
        Self::headers_v6(bytes)
    }

    fn headers_v6(bytes: &'a [u8]) -> Result<Self, IpError> {
        let length = bytes.len();
        if length < IPV6_HEADER {
            return Err(IpError::Truncated { length });
        }
        let chain = HeaderChain::walk(bytes)?;
        Ok(Self {
            bytes,
            version: IpVersion::V6,
            protocol: chain.protocol,
            fragment: chain.fragment,
            fragmentable: chain.fragmentable,
            transport: chain.end,
        })
    }
}

/// Whether the headers of `protocol` begin with two ports of two bytes each.
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | UDP_LITE | SCTP)
}

/// Takes one off the hop limit of a packet that [`IpPacket::parse`] accepted, IPv4 checksum included.
///
/// The caller has checked that the packet may travel on: that its hop limit is above one.
pub fn decrement_hop_limit(packet: &mut [u8]) {
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER => {
            let old = u16::from_be_bytes(array(packet, 8));
            packet[8] = packet[8].saturating_sub(1);
            let new = u16::from_be_bytes(array(packet, 8));
            let sum = checksum::adjust(u16::from_be_bytes(array(packet, 10)), old, new);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Some(6) if packet.len() >= IPV6_HEADER => packet[7] = packet[7].saturating_sub(1),
        _ => {}
    }
}

/// Why bytes are not an IP packet that can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// Too short for the fixed header.
    #[error("{length} bytes are too few for an IP header")]
    Truncated {
        /// How many bytes there are.
        length: usize,
    },
    /// Neither version 4 nor version 6.
    #[error("IP version {version} is neither 4 nor 6")]
    Version {
        /// The version field.
        version: u8,
    },
    /// The IPv4 header length is below its minimum or beyond the packet.
    #[error("IPv4 header of {header} bytes in a packet of {length}")]
    HeaderLength {
        /// The header length declared.
        header: usize,
        /// How many bytes there are.
        length: usize,
    },
    /// The packet is not as long as it says.
    #[error("packet declares {declared} bytes and has {length}")]
    Length {
        /// The total length declared.
        declared: usize,
        /// How many bytes there are.
        length: usize,
    },
    /// An IPv4 option runs out of the header.
    #[error("IPv4 option {kind} does not fit the header")]
    Option {
        /// The option's type.
        kind: u8,
    },
    /// An IPv6 extension header runs out of the packet, or stands where RFC 8200 §4.1 forbids it.
    #[error("IPv6 extension header {header} is cut off or misplaced")]
    ExtensionHeader {
        /// The extension header's number.
        header: u8,
    },
    /// More IPv6 extension headers than any packet needs.
    #[error("more than {MAX_EXTENSION_HEADERS} IPv6 extension headers")]
    TooManyHeaders,
    /// The packet is to travel on from its destination address to others that nobody checked.
    #[error("packet is source routed")]
    SourceRouted,
}

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// The fixed IPv4 header, without options.
pub const IPV4_HEADER: usize = 20;
/// The fixed IPv6 header, without extension headers.
pub const IPV6_HEADER: usize = 40;

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fragment {
    Whole,
    First,
    Later,
}

impl Fragment {
    fn new(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First,
            _ => Self::Later,
        }
    }
}

/// The end of an IPv6 header chain.
struct HeaderChain {
    protocol: u8,
    fragment: Fragment,
    fragmentable: usize,
    end: usize,
}

impl HeaderChain {
    /// Walks the extension headers of `packet`, which has at least the fixed header.
    fn walk(packet: &[u8]) -> Result<Self, IpError> {
        let mut chain = Self {
            protocol: packet[6],
            fragment: Fragment::Whole,
            fragmentable: IPV6_HEADER,
            end: IPV6_HEADER,
        };
        let mut fragmented = false;
        for _ in 0..=MAX_EXTENSION_HEADERS {
            let header = chain.protocol;
            let is_extension = matches!(
                header,
                HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION
            );
            if !is_extension {
                return Ok(chain);
            }
            let misfit = IpError::ExtensionHeader { header };
            let rest = &packet[chain.end..];
            // Every extension header has at least eight bytes.
            let start: &[u8; 8] = rest.first_chunk().ok_or(misfit)?;
            let length = match header {
                // RFC 8200 §4.1: only directly behind the fixed header.
                HOP_BY_HOP if chain.end != IPV6_HEADER => return Err(misfit),
                FRAGMENT if fragmented => return Err(misfit),
                FRAGMENT => FRAGMENT_HEADER,
                AUTHENTICATION => (usize::from(start[1]) + 2) * 4,
                _ => (usize::from(start[1]) + 1) * 8,
            };
            if length > rest.len() {
                return Err(misfit);
            }
            // "Segments left", at the same place in every type of routing header.
            if header == ROUTING && start[3] != 0 {
                return Err(IpError::SourceRouted);
            }
            chain.protocol = start[0];
            chain.end += length;
            if header == FRAGMENT {
                fragmented = true;
                chain.fragmentable = chain.end;
                let field = u16::from_be_bytes([start[2], start[3]]);
                chain.fragment = Fragment::new(field >> 3, field & 1 != 0);
                if chain.fragment == Fragment::Later {
                    return Ok(chain);
                }
            }
        }
        Err(IpError::TooManyHeaders)
    }
}

fn check_v4_options(mut options: &[u8]) -> Result<(), IpError> {
    while let Some((&kind, rest)) = options.split_first() {
        options = match kind {
            OPTION_END => return Ok(()),
            OPTION_NOP => rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(IpError::SourceRouted),
            _ => {
                let length = rest.first().map_or(0, |&length| usize::from(length));
                match options.get(length..) {
                    Some(next) if length >= 2 => next,
                    _ => return Err(IpError::Option { kind }),
                }
            }
        };
    }
    Ok(())
}

/// The `N` bytes at `at`, which the caller knows to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("parse checked the length of the header")
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// The IPv6 fragment header, RFC 8200 §4.5.
const FRAGMENT_HEADER: usize = 8;

/// RFC 8200 §4.1 knows seven in its recommended order, one of them twice; ESP ends the walk.
const MAX_EXTENSION_HEADERS: usize = 8;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

#[cfg(test)]
mod tests;
