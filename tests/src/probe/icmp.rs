//! ICMP messages of both families as they come out of a raw socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a raw ICMP socket received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// An answer to an echo request.
    EchoReply {
        /// The identifier of the request.
        identifier: u16,
        /// Its sequence number.
        sequence: u16,
        /// Length of the payload after the ICMP header.
        payload: usize,
    },
    /// Somebody else's echo request, as a raw socket on the pinged host sees it.
    EchoRequest {
        /// Where it claims to come from.
        from: IpAddr,
        /// Its identifier.
        identifier: u16,
        /// Its sequence number.
        sequence: u16,
    },
    /// An error about one of our packets.
    Error(Report),
}

/// An ICMP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who sent it.
    pub from: IpAddr,
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The MTU of "packet too big" and "fragmentation needed".
    pub mtu: Option<u32>,
    /// Where the packet it is about was going.
    pub about: IpAddr,
    /// Upper-layer protocol of that packet.
    pub protocol: u8,
}

impl Report {
    /// Destination administratively prohibited: IPv4 3/13, IPv6 1/1.
    pub fn is_prohibited(&self) -> bool {
        (self.kind, self.code) == if self.from.is_ipv4() { (3, 13) } else { (1, 1) }
    }

    /// Nothing leads to the destination: IPv4 3/0, IPv6 1/0.
    pub fn is_no_route(&self) -> bool {
        (self.kind, self.code) == if self.from.is_ipv4() { (3, 0) } else { (1, 0) }
    }

    /// Packet too big or fragmentation needed.
    pub fn is_too_big(&self) -> bool {
        self.mtu.is_some()
    }

    /// Type and code, and what they mean.
    pub fn meaning(&self) -> String {
        let name = match (self.from.is_ipv4(), self.kind, self.code) {
            (true, 3, 13) | (false, 1, 1) => "administratively prohibited",
            (true, 3, 4) | (false, 2, _) => "packet too big",
            (true, 3, 0) | (false, 1, 0) => "no route",
            (true, 11, 0) | (false, 3, 0) => "hop limit exceeded",
            (false, 1, 5) => "source address failed policy",
            _ => "unreachable",
        };
        let family = if self.from.is_ipv4() {
            "ICMP"
        } else {
            "ICMPv6"
        };
        format!("{family} {}/{} {name}", self.kind, self.code)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.meaning(), self.from)?;
        self.mtu.map_or(Ok(()), |mtu| write!(f, ", MTU {mtu}"))
    }
}

/// Reads what a raw IPPROTO_ICMP socket gives: the packet with its IPv4 header.
pub fn parse_v4(packet: &[u8]) -> Option<Message> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let from = v4(packet.get(12..16)?)?;
    let icmp = packet.get(header..)?;
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    match kind {
        0 => echo_reply(icmp),
        8 => echo_seen(icmp, from),
        3 | 11 | 12 => {
            let quoted = icmp.get(8..)?;
            let mtu =
                (kind == 3 && code == 4).then(|| u32::from(u16::from_be_bytes([icmp[6], icmp[7]])));
            let about = v4(quoted.get(16..20)?)?;
            Some(Message::Error(Report {
                from,
                kind,
                code,
                mtu,
                about,
                protocol: *quoted.get(9)?,
            }))
        }
        _ => None,
    }
}

/// Reads what a raw IPPROTO_ICMPV6 socket gives: the message without its IPv6 header.
pub fn parse_v6(icmp: &[u8], from: IpAddr) -> Option<Message> {
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    match kind {
        128 => echo_seen(icmp, from),
        129 => echo_reply(icmp),
        1..=4 => {
            let quoted = icmp.get(8..)?;
            let mtu = (kind == 2).then(|| u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]));
            let about = IpAddr::V6(Ipv6Addr::from(
                <[u8; 16]>::try_from(quoted.get(24..40)?).ok()?,
            ));
            Some(Message::Error(Report {
                from,
                kind,
                code,
                mtu,
                about,
                protocol: *quoted.get(6)?,
            }))
        }
        _ => None,
    }
}

/// An echo request; the kernel fills in the checksum for IPv6, for IPv4 it is done here.
pub fn echo_request(to: IpAddr, identifier: u16, sequence: u16, payload: usize) -> Vec<u8> {
    let mut message = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    message.extend_from_slice(&identifier.to_be_bytes());
    message.extend_from_slice(&sequence.to_be_bytes());
    message.resize(8 + payload, 0xad);
    if to.is_ipv4() {
        let sum: u32 = message
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn echo_reply(icmp: &[u8]) -> Option<Message> {
    let payload = icmp.len().checked_sub(8)?;
    Some(Message::EchoReply {
        identifier: word(icmp, 4)?,
        sequence: word(icmp, 6)?,
        payload,
    })
}

fn echo_seen(icmp: &[u8], from: IpAddr) -> Option<Message> {
    Some(Message::EchoRequest {
        from,
        identifier: word(icmp, 4)?,
        sequence: word(icmp, 6)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn v4(bytes: &[u8]) -> Option<IpAddr> {
    Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)))
}
