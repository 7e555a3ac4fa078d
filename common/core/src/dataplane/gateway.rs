//! The gateway's verdicts, both directions.
//!
//! Every packet passes the filter of the session it comes from and of the session it goes to: a
//! client reaches another only where the policy lets each reach the other.
//!
//! A gateway may have several engines. Each knows whose every address is, and of its own sessions
//! alone what they may reach and what their paths carry. So the sender's engine asks the sender's
//! questions, the receiver's engine the receiver's ([`from_neighbour`]), and a packet that was passed
//! on once is never passed on again.

use std::net::IpAddr;

use super::{DropReason, Verdict, quoted};
use crate::policy::{Decision, Direction, Filter, Flow};
use crate::wire::icmp::IcmpError;
use crate::wire::ip::IpPacket;

/// What the verdicts need to know about the sessions.
pub trait Sessions {
    /// Names a session.
    type Key: Copy + Eq;
    /// Whose `address` is, by longest prefix.
    fn owner(&self, address: IpAddr) -> Option<Place<Self::Key>>;
    /// What the session may reach; `None` when it is gone.
    fn filter(&self, key: Self::Key) -> Option<&Filter>;
    /// The largest packet its path carries, in bytes.
    fn max_packet(&self, key: Self::Key) -> usize;
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
    sessions: &S,
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
    let Some(filter) = sessions.filter(from) else {
        return Verdict::Drop(DropReason::SessionGone);
    };
    if !allows(filter, Direction::FromClient, destination, packet) {
        return Verdict::Reply(IcmpError::AdminProhibited);
    }
    match sessions.owner(destination) {
        None => Verdict::Forward(Target::Inside),
        // A packet to itself would travel for ever.
        Some(Place::Here(peer)) if peer == from => Verdict::Reply(IcmpError::NoRoute),
        Some(_) if packet.hop_limit() <= 1 => Verdict::Reply(IcmpError::HopLimitExceeded),
        Some(Place::Here(peer)) => {
            deliver(sessions, peer, packet, packet.bytes().len()).map(Target::Peer)
        }
        Some(Place::There(engine)) => Verdict::Forward(Target::Neighbour(engine)),
    }
}

/// A packet between two clients that the sender's engine let pass, asked about the receiver.
pub fn from_neighbour<S: Sessions>(sessions: &S, packet: &IpPacket<'_>) -> Verdict<S::Key> {
    // The sender's engine asked the same; an address that changed hands meanwhile is nobody's
    // to speak with.
    if !matches!(sessions.owner(packet.source()), Some(Place::There(_))) {
        return Verdict::Drop(DropReason::SourceNotOwned);
    }
    match sessions.owner(packet.destination()) {
        Some(Place::Here(peer)) => deliver(sessions, peer, packet, packet.bytes().len()),
        // Moved while the packet was under way: following it could go on for ever.
        Some(Place::There(_)) => Verdict::Drop(DropReason::SessionGone),
        None => Verdict::Reply(IcmpError::NoRoute),
    }
}

/// A packet from the TUN device. The longest packet it becomes on its way, when it is cut into
/// segments, has `longest` bytes; otherwise that is its own length.
///
/// The queues of a TUN device know no sessions: a packet for another engine's is forwarded there,
/// which asks this again.
pub fn to_peer<S: Sessions>(
    sessions: &S,
    packet: &IpPacket<'_>,
    longest: usize,
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
        Some(Place::Here(peer)) => deliver(sessions, peer, packet, longest).map(Place::Here),
        Some(Place::There(engine)) => Verdict::Forward(Place::There(engine)),
        None => Verdict::Reply(IcmpError::NoRoute),
    }
}

/// The last questions on the way to a session.
fn deliver<S: Sessions>(
    sessions: &S,
    peer: S::Key,
    packet: &IpPacket<'_>,
    longest: usize,
) -> Verdict<S::Key> {
    let Some(filter) = sessions.filter(peer) else {
        return Verdict::Drop(DropReason::SessionGone);
    };
    if !allows(filter, Direction::ToClient, packet.source(), packet)
        && !answers_allowed(sessions, peer, filter, packet)
    {
        return Verdict::Reply(IcmpError::AdminProhibited);
    }
    let limit = sessions.max_packet(peer);
    if longest > limit {
        return Verdict::Reply(IcmpError::PacketTooBig {
            mtu: u32::try_from(limit).unwrap_or(u32::MAX),
        });
    }
    Verdict::Forward(peer)
}

/// Whether this is an ICMP error about a packet that the session sent and might send.
fn answers_allowed<S: Sessions>(
    sessions: &S,
    peer: S::Key,
    filter: &Filter,
    packet: &IpPacket<'_>,
) -> bool {
    quoted::addresses(packet).is_some_and(|(source, destination)| {
        sessions.owner(source) == Some(Place::Here(peer))
            && allows(filter, Direction::ToClient, destination, packet)
    })
}

fn allows(filter: &Filter, direction: Direction, inside: IpAddr, packet: &IpPacket<'_>) -> bool {
    let port = packet.ports().map(|(source, destination)| match direction {
        Direction::FromClient => destination,
        Direction::ToClient => source,
    });
    // Without memory of flows an answer is judged as the flow that it belongs to.
    let flow = Flow {
        direction: Direction::FromClient,
        inside,
        protocol: packet.protocol(),
        port,
    };
    matches!(filter.decide(&flow), Decision::Allow(_))
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
