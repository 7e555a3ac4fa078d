//! What makes packets one flow, and the keyed hash that finds it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::{Direction, Flow};
use crate::wire::icmp::{self, Message};
use crate::wire::ip::{self, IpPacket};
use crate::wire::tcp;

/// The name of a flow, the same for packets either way.
///
/// Two words of the client's address, two of the far end's, and one of everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u64; WORDS]);

/// Why a packet is of no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nameless {
    /// It ends before the ports or the identifier.
    Short,
    /// An ICMP error: it belongs to the flow of the packet that it quotes.
    Error,
    /// An ICMP message that nobody answers.
    Single,
}

impl Key {
    /// The flow of a packet that goes this way, and is no later fragment.
    pub(super) fn of(packet: &IpPacket<'_>, direction: Direction) -> Result<Self, Nameless> {
        let protocol = packet.protocol();
        let (ports, asker) = if ip::has_ports(protocol) {
            (packet.ports().ok_or(Nameless::Short)?, None)
        } else {
            let (identifier, asker) = match icmp::message(packet) {
                None if is_cut_off(packet) => return Err(Nameless::Short),
                // Not ICMP, or the other version's number.
                None => (0, None),
                Some(Message::Query(identifier)) => (identifier, Some(direction)),
                Some(Message::Answer(identifier)) => (identifier, Some(opposite(direction))),
                Some(Message::Error) => return Err(Nameless::Error),
                Some(Message::Other) => return Err(Nameless::Single),
            };
            // Not a port: both ends have the same.
            let ports = match direction {
                Direction::FromClient => (identifier, 0),
                Direction::ToClient => (0, identifier),
            };
            (ports, asker)
        };
        let source = (packet.source(), ports.0);
        let destination = (packet.destination(), ports.1);
        Ok(match direction {
            Direction::FromClient => Self::new(protocol, source, destination, asker),
            Direction::ToClient => Self::new(protocol, destination, source, asker),
        })
    }

    /// The flow between these ends; of ICMP queries the client's port is the identifier.
    pub(super) fn new(
        protocol: u8,
        client: (IpAddr, u16),
        far: (IpAddr, u16),
        asker: Option<Direction>,
    ) -> Self {
        let [client_high, client_low] = words(client.0);
        let [far_high, far_low] = words(far.0);
        let asker = match asker {
            None => 0,
            Some(Direction::FromClient) => 1,
            Some(Direction::ToClient) => 2,
        };
        let rest = u64::from(client.1) << 48
            | u64::from(far.1) << 32
            | u64::from(protocol) << 16
            | u64::from(client.0.is_ipv4()) << 8
            | asker;
        Self([client_high, client_low, far_high, far_low, rest])
    }

    /// What the policy is asked about the flow's first packet, when it goes this way.
    pub(super) fn first(&self, direction: Direction) -> Flow {
        let port = match direction {
            Direction::FromClient => self.far_port(),
            Direction::ToClient => self.client_port(),
        };
        Flow {
            direction,
            inside: self.far(),
            protocol: self.protocol(),
            port: ip::has_ports(self.protocol()).then_some(port),
        }
    }

    pub(super) fn protocol(&self) -> u8 {
        (self.0[4] >> 16) as u8
    }

    /// Whether this is a flow of queries and answers.
    pub(super) fn is_query(&self) -> bool {
        self.0[4] & 0xff != 0
    }

    pub(super) fn client(&self) -> IpAddr {
        self.address(self.0[0], self.0[1])
    }

    pub(super) fn far(&self) -> IpAddr {
        self.address(self.0[2], self.0[3])
    }

    pub(super) fn client_port(&self) -> u16 {
        (self.0[4] >> 48) as u16
    }

    pub(super) fn far_port(&self) -> u16 {
        (self.0[4] >> 32) as u16
    }

    fn address(&self, high: u64, low: u64) -> IpAddr {
        if self.0[4] >> 8 & 1 == 1 {
            Ipv4Addr::from_bits(low as u32).into()
        } else {
            Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
        }
    }
}

/// What a packet is in the life of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A TCP segment with these flags.
    Segment(u8),
    /// Anything that may begin a flow.
    Datagram,
    /// An answer to an ICMP query, which begins nothing.
    Answer,
}

impl Part {
    /// `None` when the fixed header of the protocol is not there in full: of a fragment, the rest
    /// could be written by another one (RFC 1858).
    pub(super) fn of(packet: &IpPacket<'_>) -> Option<Self> {
        let length = packet.transport().len();
        match packet.protocol() {
            ip::TCP if length < tcp::TCP_HEADER => None,
            ip::TCP => tcp::flags(packet).map(Self::Segment),
            protocol if ip::has_ports(protocol) => (length >= UDP_HEADER).then_some(Self::Datagram),
            _ => match icmp::message(packet) {
                Some(Message::Answer(_)) => Some(Self::Answer),
                _ => Some(Self::Datagram),
            },
        }
    }
}

/// The secret of a table's hash.
///
/// Clients choose what they send, so whoever knew the hash could send flows that collide. This one
/// is strongly universal (Lemire and Kaser, "Strongly universal string hashing is fast", 2013): as
/// long as the words are secret and random, no choice of flows collides more often than chance.
#[derive(Clone)]
pub struct HashKey([u128; WORDS + 1]);

impl HashKey {
    /// The key of `random` words, as many as a hash needs.
    #[must_use]
    pub fn new(random: [u128; WORDS + 1]) -> Self {
        Self(random)
    }

    pub(super) fn hash(&self, key: &Key) -> u64 {
        let products = key.0.iter().zip(&self.0[1..]);
        let sum = products.fold(self.0[0], |sum, (&word, &secret)| {
            sum.wrapping_add(secret.wrapping_mul(word.into()))
        });
        (sum >> 64) as u64
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HashKey")
    }
}

/// Whether an ICMP message ends before it has said what it is.
fn is_cut_off(packet: &IpPacket<'_>) -> bool {
    matches!(packet.protocol(), ip::ICMP | ip::ICMPV6) && packet.transport().len() < ICMP_HEADER
}

/// The other way.
pub(super) const fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::FromClient => Direction::ToClient,
        Direction::ToClient => Direction::FromClient,
    }
}

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [0, address.to_bits().into()],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    }
}

/// Words of a key.
const WORDS: usize = 5;
/// Up to the identifier and the number of an echo.
const ICMP_HEADER: usize = 8;
/// The shortest header that begins with ports; SCTP's is longer by its checksum.
const UDP_HEADER: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_key_gives_back_what_it_was_made_of() {
        for (client, far) in [("10.99.0.2", "10.0.0.1"), ("fd00:99::2", "2001:db8::1")] {
            let (client, far) = (
                (client.parse().unwrap(), 50_000),
                (far.parse().unwrap(), 443),
            );
            let key = Key::new(6, client, far, None);
            assert_eq!((key.client(), key.client_port()), client);
            assert_eq!((key.far(), key.far_port()), far);
            assert_eq!((key.protocol(), key.is_query()), (6, false));
            assert!(Key::new(1, client, far, Some(Direction::ToClient)).is_query());
        }
    }

    #[test]
    fn an_ipv4_address_is_not_the_ipv6_address_with_the_same_bits() {
        let v4 = ("10.99.0.2".parse().unwrap(), 1);
        let v6 = ("::10.99.0.2".parse().unwrap(), 1);
        assert_ne!(Key::new(17, v4, v4, None), Key::new(17, v6, v6, None));
    }

    #[test]
    fn every_word_and_every_secret_counts_in_every_bit_that_a_table_uses() {
        // No simple relation between the words of a secret, as between none of random ones.
        let secrets = |mut seed: u128| {
            HashKey::new(std::array::from_fn(|_| {
                seed = (seed ^ seed >> 61).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                seed ^= seed >> 67;
                seed
            }))
        };
        let mut places = BTreeSet::new();
        let mut tags = BTreeSet::new();
        for word in 0..WORDS {
            for value in 0..1000 {
                let mut words = [0; WORDS];
                words[word] = value + 1;
                let hash = secrets(1).hash(&Key(words));
                assert_ne!(hash, secrets(2).hash(&Key(words)));
                places.insert(hash & 0x7fff);
                tags.insert(hash >> 57);
            }
        }
        // Of 5000 balls in 32768 places, some 4640 lie alone or first.
        assert!(places.len() > 4500, "{}", places.len());
        assert_eq!(tags.len(), 128);
    }
}
