//! Capsules on the request stream: RFC 9297 §3.2 and the CONNECT-IP ones of RFC 9484 §4.7.
//!
//! A [`CapsuleReader`] takes the stream in arbitrary pieces. It refuses what RFC 9484 calls
//! malformed (a wrong IP version, a prefix that is too long or has host bits, a range that ends
//! before it starts, ranges out of order, trailing or missing bytes, an empty ADDRESS_REQUEST, a
//! request id of 0) and known capsules of more than [`MAX_CAPSULE`] bytes. Unknown capsules are
//! skipped without being held (RFC 9297 §3.2). It never holds more than one capsule and the last
//! piece pushed.
//!
//! ```
//! use adit_core::wire::capsule::{AssignedAddress, Capsule, CapsuleReader};
//!
//! let prefix = "10.99.0.7/32".parse().unwrap();
//! let capsule = Capsule::AddressAssign(vec![AssignedAddress { request_id: 0, prefix }]);
//! let mut bytes = Vec::new();
//! capsule.encode(&mut bytes);
//!
//! let mut reader = CapsuleReader::default();
//! reader.push(&bytes[..3]);
//! assert_eq!(reader.next(), Ok(None));
//! reader.push(&bytes[3..]);
//! assert_eq!(reader.next(), Ok(Some(capsule)));
//! assert_eq!(reader.finish(), Ok(()));
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, Bytes, BytesMut};
use ipnet::IpNet;
use thiserror::Error;

use super::varint;
use crate::range::{self, RouteRange};

/// One capsule that CONNECT-IP knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capsule {
    /// DATAGRAM (RFC 9297 §3.5): an HTTP datagram's payload, from its context id on.
    Datagram(Bytes),
    /// ADDRESS_ASSIGN (RFC 9484 §4.7.1): all addresses that the receiver may use.
    AddressAssign(Vec<AssignedAddress>),
    /// ADDRESS_REQUEST (RFC 9484 §4.7.2): addresses that the sender asks for, at least one.
    AddressRequest(Vec<RequestedAddress>),
    /// ROUTE_ADVERTISEMENT (RFC 9484 §4.7.3): all destinations that the receiver may reach.
    RouteAdvertisement(Vec<RouteRange>),
}

/// An address or network that the receiver may send from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedAddress {
    /// The request this answers; 0 if none.
    pub request_id: u64,
    /// The network; its host bits are zero.
    pub prefix: IpNet,
}

impl AssignedAddress {
    /// The answer to a request that gets no address (RFC 9484 §4.7.2): all zeros, full length.
    pub fn rejection(request: &RequestedAddress) -> Self {
        Self {
            request_id: request.request_id,
            prefix: no_address(request.prefix.addr().is_ipv6()),
        }
    }

    /// Says whether this assigns nothing.
    pub fn is_rejection(&self) -> bool {
        self.prefix == no_address(self.prefix.addr().is_ipv6())
    }
}

/// An address or network that the sender would like to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedAddress {
    /// The number that the answer repeats; never 0.
    pub request_id: u64,
    /// The wish: an all-zero address means any, and then only the length is a wish.
    pub prefix: IpNet,
}

impl RequestedAddress {
    /// Asks for any single address of a family.
    pub fn any(request_id: u64, v6: bool) -> Self {
        Self {
            request_id,
            prefix: no_address(v6),
        }
    }
}

impl Capsule {
    /// Appends the capsule.
    ///
    /// Host bits are cleared and ranges are brought into the order of RFC 9484 §4.7.3; that they do
    /// not overlap is up to the caller.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut value = Vec::new();
        let kind = match self {
            Self::Datagram(payload) => {
                value.extend_from_slice(payload);
                DATAGRAM
            }
            Self::AddressAssign(entries) => {
                for entry in entries {
                    put_address(entry.request_id, entry.prefix, &mut value);
                }
                ADDRESS_ASSIGN
            }
            Self::AddressRequest(entries) => {
                for entry in entries {
                    put_address(entry.request_id, entry.prefix, &mut value);
                }
                ADDRESS_REQUEST
            }
            Self::RouteAdvertisement(ranges) => {
                let mut ranges: Vec<_> = ranges.iter().collect();
                ranges.sort_by_key(|range| {
                    (range.start().is_ipv6(), range.protocol(), range.start())
                });
                for range in ranges {
                    put_version(range.start(), &mut value);
                    put_ip(range.start(), &mut value);
                    put_ip(range.end(), &mut value);
                    value.push(range.protocol());
                }
                ROUTE_ADVERTISEMENT
            }
        };
        varint::encode(kind, out);
        varint::encode(value.len() as u64, out);
        out.extend_from_slice(&value);
    }
}

/// Why a capsule is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CapsuleError {
    /// A capsule, or the stream, ends inside a field.
    #[error("a capsule is truncated")]
    Truncated,
    /// An IP version other than 4 and 6.
    #[error("a capsule has IP version {0}")]
    Version(u8),
    /// A prefix longer than its address.
    #[error("a capsule has a prefix length of {0}")]
    PrefixLength(u8),
    /// Bits behind the prefix that are not zero.
    #[error("a capsule has host bits behind a prefix")]
    HostBits,
    /// A range that ends before it starts.
    #[error("a capsule has a range that ends before it starts")]
    Range,
    /// Ranges that overlap or are out of order.
    #[error("a capsule has ranges out of order")]
    Order,
    /// A request for no address at all.
    #[error("an ADDRESS_REQUEST is empty")]
    EmptyRequest,
    /// The request id 0.
    #[error("an ADDRESS_REQUEST has request id 0")]
    RequestId,
    /// A known capsule that we are not willing to hold.
    #[error("a capsule of {0} bytes is larger than {MAX_CAPSULE}")]
    TooLong(u64),
}

/// Cuts a stream into capsules.
#[derive(Debug, Default)]
pub struct CapsuleReader {
    buffer: BytesMut,
    /// Bytes of an unknown capsule that are still to come.
    skip: u64,
}

impl CapsuleReader {
    /// Takes the next piece of the stream; call [`Self::next`] until it has nothing.
    pub fn push(&mut self, mut data: &[u8]) {
        let skipped = usize::try_from(self.skip).map_or(data.len(), |skip| skip.min(data.len()));
        self.skip -= skipped as u64;
        data = &data[skipped..];
        self.buffer.extend_from_slice(data);
    }

    /// The next complete capsule; after an error the stream cannot be read on.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Capsule>, CapsuleError> {
        loop {
            let Some((kind, kind_len)) = varint::decode(&self.buffer) else {
                return Ok(None);
            };
            let Some((len, len_len)) = varint::decode(&self.buffer[kind_len..]) else {
                return Ok(None);
            };
            let head = kind_len + len_len;
            let known = matches!(
                kind,
                DATAGRAM | ADDRESS_ASSIGN | ADDRESS_REQUEST | ROUTE_ADVERTISEMENT
            );
            // No IP packet is that large, and a datagram may be dropped; the others may not.
            if !known || kind == DATAGRAM && len > MAX_CAPSULE as u64 {
                self.buffer.advance(head);
                let held = usize::try_from(len)
                    .map_or(self.buffer.len(), |len| len.min(self.buffer.len()));
                self.buffer.advance(held);
                self.skip = len - held as u64;
                continue;
            }
            if len > MAX_CAPSULE as u64 {
                return Err(CapsuleError::TooLong(len));
            }
            let len = len as usize;
            if self.buffer.len() < head + len {
                return Ok(None);
            }
            self.buffer.advance(head);
            let value = self.buffer.split_to(len).freeze();
            if self.buffer.is_empty() {
                // Lets go of what a large piece allocated.
                self.buffer = BytesMut::new();
            }
            return parse(kind, value).map(Some);
        }
    }

    /// Says whether the stream may end here (RFC 9297 §3.3).
    pub fn finish(&self) -> Result<(), CapsuleError> {
        if self.buffer.is_empty() && self.skip == 0 {
            Ok(())
        } else {
            Err(CapsuleError::Truncated)
        }
    }
}

fn parse(kind: u64, value: Bytes) -> Result<Capsule, CapsuleError> {
    let mut input = &value[..];
    Ok(match kind {
        DATAGRAM => Capsule::Datagram(value),
        ADDRESS_ASSIGN => {
            let mut entries = Vec::new();
            while !input.is_empty() {
                let (request_id, prefix) = take_address(&mut input)?;
                entries.push(AssignedAddress { request_id, prefix });
            }
            Capsule::AddressAssign(entries)
        }
        ADDRESS_REQUEST => {
            let mut entries = Vec::new();
            while !input.is_empty() {
                let (request_id, prefix) = take_address(&mut input)?;
                if request_id == 0 {
                    return Err(CapsuleError::RequestId);
                }
                entries.push(RequestedAddress { request_id, prefix });
            }
            if entries.is_empty() {
                return Err(CapsuleError::EmptyRequest);
            }
            Capsule::AddressRequest(entries)
        }
        // `next` lets no other kind through.
        _ => {
            let mut ranges = Vec::new();
            while !input.is_empty() {
                ranges.push(take_range(&mut input)?);
            }
            if !range::is_ordered(&ranges) {
                return Err(CapsuleError::Order);
            }
            Capsule::RouteAdvertisement(ranges)
        }
    })
}

fn take_range(input: &mut &[u8]) -> Result<RouteRange, CapsuleError> {
    let version = take_byte(input)?;
    let start = take_ip(input, version)?;
    let end = take_ip(input, version)?;
    let protocol = take_byte(input)?;
    RouteRange::new(start, end, protocol).ok_or(CapsuleError::Range)
}

fn take_address(input: &mut &[u8]) -> Result<(u64, IpNet), CapsuleError> {
    let (request_id, len) = varint::decode(input).ok_or(CapsuleError::Truncated)?;
    *input = &input[len..];
    let version = take_byte(input)?;
    let address = take_ip(input, version)?;
    let length = take_byte(input)?;
    let prefix = IpNet::new(address, length).map_err(|_| CapsuleError::PrefixLength(length))?;
    if prefix.network() != address {
        return Err(CapsuleError::HostBits);
    }
    Ok((request_id, prefix))
}

fn take_ip(input: &mut &[u8], version: u8) -> Result<IpAddr, CapsuleError> {
    match version {
        4 => take_array(input).map(|octets: [u8; 4]| octets.into()),
        6 => take_array(input).map(|octets: [u8; 16]| octets.into()),
        _ => Err(CapsuleError::Version(version)),
    }
}

fn take_byte(input: &mut &[u8]) -> Result<u8, CapsuleError> {
    take_array::<1>(input).map(|[byte]| byte)
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], CapsuleError> {
    let (taken, rest) = input.split_first_chunk().ok_or(CapsuleError::Truncated)?;
    *input = rest;
    Ok(*taken)
}

fn put_address(request_id: u64, prefix: IpNet, out: &mut Vec<u8>) {
    varint::encode(request_id, out);
    put_version(prefix.addr(), out);
    put_ip(prefix.network(), out);
    out.push(prefix.prefix_len());
}

fn put_version(address: IpAddr, out: &mut Vec<u8>) {
    out.push(if address.is_ipv6() { 6 } else { 4 });
}

fn put_ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}

fn no_address(v6: bool) -> IpNet {
    if v6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED).into()
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()
    }
}

/// The largest capsule that is held: room for two thousand IPv6 routes, and for any IP packet.
pub const MAX_CAPSULE: usize = 65_536;

const DATAGRAM: u64 = 0x00;
const ADDRESS_ASSIGN: u64 = 0x01;
const ADDRESS_REQUEST: u64 = 0x02;
const ROUTE_ADVERTISEMENT: u64 = 0x03;

#[cfg(test)]
mod tests;
