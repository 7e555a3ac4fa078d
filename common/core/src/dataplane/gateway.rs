//! The gateway's verdicts, both directions.
//!
//! Every packet passes the flows of the session it comes from and of the session it goes to: a
//! client reaches another only where the policy lets the one begin and lets the other be begun with.
//!
//! A gateway may have several engines. Each knows whose every address is, and of its own sessions
//! alone what they may reach and what their paths carry. So the sender's engine asks the sender's
//! questions, the receiver's engine the receiver's ([`from_neighbour`]), and a packet that was passed
//! on once is never passed on again.

use std::net::IpAddr;
use std::time::Instant;

use super::{Denial, DropReason, Verdict};
use crate::flow::{FlowTable, Passage, Refused};
use crate::offload::split::Segments;
use crate::policy::{Direction, Filter};
use crate::wire::icmp::{self, IcmpError};
use crate::wire::ip::IpPacket;
use crate::wire::tcp;

/// What the verdicts need to know about the sessions.
pub trait Sessions {
    /// Names a session.
    type Key: Copy + Eq;
    /// Whose `address` is, by longest prefix.
    fn owner(&self, address: IpAddr) -> Option<Place<Self::Key>>;
    /// What judges the packets of a session; `None` when it is gone.
    fn gate(&mut self, key: Self::Key) -> Option<Gate<'_>>;
    /// The policy denies a session so many packets of the wire, or denies them to it.
    fn denied(&mut self, key: Self::Key, now: Instant, denial: Denial, packets: usize);
}

/// What judges the packets of a session.
#[derive(Debug)]
pub struct Gate<'a> {
    /// What the session may reach.
    pub filter: &'a Filter,
    /// Its flows.
    pub flows: &'a mut FlowTable,
    /// The largest packet its path carries, in bytes.
    pub max_packet: usize,
}

/// What a packet is on the wire, where a device may hand over many in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnWire {
    /// How many packets.
    pub packets: usize,
    /// Their bytes together.
    pub bytes: usize,
    /// The bytes of the longest.
    pub longest: usize,
}

impl OnWire {
    /// A packet that stays one.
    #[must_use]
    pub fn single(packet: &IpPacket<'_>) -> Self {
        let bytes = packet.bytes().len();
        Self {
            packets: 1,
            bytes,
            longest: bytes,
        }
    }
}

impl From<&Segments<'_>> for OnWire {
    fn from(segments: &Segments<'_>) -> Self {
        Self {
            packets: segments.count(),
            bytes: segments.total(),
            longest: segments.longest(),
        }
    }
}

/// Where a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<K> {
    /// On this engine.
    Here(K),
    /// On the engine of this number.
    There(u8),
}

/// Where a client's packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<K> {
    /// To the TUN device.
    Inside,
    /// To another session; the gateway is the router between them.
    Peer(K),
    /// To a session of another engine, which has the last word.
    Neighbour(u8),
}

/// A packet that came out of the tunnel from the session `from`.
pub fn from_peer<S: Sessions>(
    sessions: &mut S,
    now: Instant,
    from: S::Key,
    packet: &IpPacket<'_>,
) -> Verdict<Target<S::Key>> {
    let (source, destination) = (packet.source(), packet.destination());
    if !is_unicast(destination) || !is_unicast(source) {
        return Verdict::Drop(DropReason::NotUnicast);
    }
    // BCP 38: the owner by longest prefix excludes neighbours inside a site's network.
    if sessions.owner(source) != Some(Place::Here(from)) {
        return Verdict::Reply(IcmpError::SourcePolicy);
    }
    let receiver = sessions.owner(destination);
    let direction = Direction::FromClient;
    let passage = match judge(sessions, now, from, direction, packet, 1) {
        Ok(passage) => passage,
        Err(verdict) => return verdict,
    };
    match receiver {
        // A packet to itself would travel for ever.
        Some(Place::Here(peer)) if peer == from => return Verdict::Reply(IcmpError::NoRoute),
        Some(_) if packet.hop_limit() <= 1 => return Verdict::Reply(IcmpError::HopLimitExceeded),
        _ => {}
    }
    let bytes = packet.bytes().len();
    if let Some(gate) = sessions.gate(from)
        && let Err(reason) = gate.flows.limit(now, passage, direction, bytes)
    {
        return Verdict::Drop(reason);
    }
    let verdict = match receiver {
        None => Verdict::Forward(Target::Inside),
        Some(Place::Here(peer)) => {
            deliver(sessions, now, peer, packet, OnWire::single(packet)).map(Target::Peer)
        }
        Some(Place::There(engine)) => Verdict::Forward(Target::Neighbour(engine)),
    };
    if matches!(verdict, Verdict::Forward(_))
        && let Some(gate) = sessions.gate(from)
    {
        gate.flows.count(passage, direction, 1, bytes);
    }
    verdict
}

/// A packet between two clients that the sender's engine let pass, asked about the receiver.
pub fn from_neighbour<S: Sessions>(
    sessions: &mut S,
    now: Instant,
    packet: &IpPacket<'_>,
) -> Verdict<S::Key> {
    // The sender's engine asked the same; an address that changed hands meanwhile is nobody's
    // to speak with.
    if !matches!(sessions.owner(packet.source()), Some(Place::There(_))) {
        return Verdict::Drop(DropReason::SourceNotOwned);
    }
    match sessions.owner(packet.destination()) {
        Some(Place::Here(peer)) => deliver(sessions, now, peer, packet, OnWire::single(packet)),
        // Moved while the packet was under way: following it could go on for ever.
        Some(Place::There(_)) => Verdict::Drop(DropReason::SessionGone),
        None => Verdict::Reply(IcmpError::NoRoute),
    }
}

/// A packet from the TUN device, which is this on the wire.
///
/// The queues of a TUN device know no sessions: a packet for another engine's is forwarded there,
/// which asks this again.
pub fn to_peer<S: Sessions>(
    sessions: &mut S,
    now: Instant,
    packet: &IpPacket<'_>,
    on_wire: OnWire,
) -> Verdict<Place<S::Key>> {
    if !is_unicast(packet.destination()) || !is_unicast(packet.source()) {
        return Verdict::Drop(DropReason::NotUnicast);
    }
    // Whoever is inside cannot have the address of somebody outside. No answer: it would go to
    // the one whose address was taken.
    if sessions.owner(packet.source()).is_some() {
        return Verdict::Drop(DropReason::SourceNotOwned);
    }
    match sessions.owner(packet.destination()) {
        Some(Place::Here(peer)) => deliver(sessions, now, peer, packet, on_wire).map(Place::Here),
        Some(Place::There(engine)) => Verdict::Forward(Place::There(engine)),
        None => Verdict::Reply(IcmpError::NoRoute),
    }
}

/// The packet that answers `offending`; `router` is the address a router speaks from.
///
/// A TCP connection that the policy forbids is not told so by ICMP, which ends none (RFC 5927 §4.1),
/// but reset, unless it is only about to begin.
#[must_use]
pub fn answer(error: IcmpError, offending: &IpPacket<'_>, router: IpAddr) -> Option<Vec<u8>> {
    let begins =
        tcp::flags(offending).is_none_or(|flags| flags & (tcp::SYN | tcp::ACK) == tcp::SYN);
    if error == IcmpError::AdminProhibited && !begins {
        return tcp::reset_packet(offending);
    }
    icmp::error_packet(error, offending, router)
}

/// The last questions on the way to a session.
fn deliver<S: Sessions>(
    sessions: &mut S,
    now: Instant,
    peer: S::Key,
    packet: &IpPacket<'_>,
    on_wire: OnWire,
) -> Verdict<S::Key> {
    let direction = Direction::ToClient;
    let passage = match judge(sessions, now, peer, direction, packet, on_wire.packets) {
        Ok(passage) => passage,
        Err(verdict) => return verdict,
    };
    let Some(gate) = sessions.gate(peer) else {
        return Verdict::Drop(DropReason::SessionGone);
    };
    if on_wire.longest > gate.max_packet {
        return Verdict::Reply(IcmpError::PacketTooBig {
            mtu: u32::try_from(gate.max_packet).unwrap_or(u32::MAX),
        });
    }
    if let Err(reason) = gate.flows.limit(now, passage, direction, on_wire.bytes) {
        return Verdict::Drop(reason);
    }
    gate.flows
        .count(passage, direction, on_wire.packets, on_wire.bytes);
    Verdict::Forward(peer)
}

/// Asks the flows of a session about a packet that is so many on the wire, and reports what the policy denies.
fn judge<S: Sessions, T>(
    sessions: &mut S,
    now: Instant,
    key: S::Key,
    direction: Direction,
    packet: &IpPacket<'_>,
    packets: usize,
) -> Result<Passage, Verdict<T>> {
    let Some(gate) = sessions.gate(key) else {
        return Err(Verdict::Drop(DropReason::SessionGone));
    };
    let judged = gate.flows.judge(now, gate.filter, direction, packet);
    if let Err(Refused::Denied(rule)) = judged {
        let denial = Denial::of(packet, direction, gate.filter, rule);
        sessions.denied(key, now, denial, packets);
    }
    judged.map_err(Refused::verdict)
}

/// Whether an address may stand in a forwarded packet (RFC 1812 §5.3.7, RFC 4291 §2.5.6).
pub(super) fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_link_local())
        }
        IpAddr::V6(v6) => {
            !(v6.is_multicast()
                || v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local())
        }
    }
}
