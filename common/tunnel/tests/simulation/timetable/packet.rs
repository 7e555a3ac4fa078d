//! Inner packets of IPv4 with a number in their payload, of whatever protocol.

use std::net::{IpAddr, Ipv4Addr};

/// An address and a port, or the identifier of an echo.
pub type End = (IpAddr, u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub number: u64,
    pub source: End,
    pub destination: End,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp,
    /// With these flags.
    Tcp(u8),
    Echo {
        request: bool,
    },
}

impl Packet {
    pub fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Udp => 17,
            Kind::Tcp(_) => 6,
            Kind::Echo { .. } => 1,
        }
    }

    /// Whether these are flags of a segment, and which are set.
    pub fn flags(&self) -> Option<u8> {
        match self.kind {
            Kind::Tcp(flags) => Some(flags),
            Kind::Udp | Kind::Echo { .. } => None,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ports = [
            self.source.1.to_be_bytes(),
            self.destination.1.to_be_bytes(),
        ]
        .concat();
        let header = match self.kind {
            Kind::Udp => [&ports[..], &[0, 16, 0, 0]].concat(),
            Kind::Tcp(flags) => {
                let rest = [0, 0, 0, 7, 0, 0, 0, 9, 5 << 4, flags, 0, 0, 0, 0, 0, 0];
                [&ports[..], &rest].concat()
            }
            Kind::Echo { request } => {
                let [high, low] = self.source.1.to_be_bytes();
                vec![if request { 8 } else { 0 }, 0, 0, 0, high, low, 0, 1]
            }
        };
        let length = 20 + header.len() + 8;
        let mut packet = vec![
            0x45,
            0,
            0,
            length as u8,
            0,
            0,
            0x40,
            0,
            64,
            self.protocol(),
            0,
            0,
        ];
        for end in [self.source.0, self.destination.0] {
            let IpAddr::V4(address) = end else {
                panic!("{end} is not of IPv4")
            };
            packet.extend(Ipv4Addr::octets(&address));
        }
        packet.extend(header);
        packet.extend(self.number.to_be_bytes());
        packet
    }
}

/// The number in the bytes of a [`Packet`]; `None` for what others have made.
pub fn number(bytes: &[u8]) -> Option<u64> {
    let header = match (bytes.get(9)?, bytes.get(20)?) {
        (17, _) => 8,
        (6, _) => 20,
        (1, 0 | 8) => 8,
        _ => return None,
    };
    let number = bytes.get(20 + header..)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}
