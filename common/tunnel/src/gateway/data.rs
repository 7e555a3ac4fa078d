//! The gateway's packet path.
//!
//! ```text
//! inside → outside   TUN ─ parse ─ who owns the destination? ─ flows ─ fits? ─ prefix ─ datagram
//! outside → inside   datagram ─ prefix ─ parse ─ is the source theirs? ─ flows ─ TUN or other session
//! ```
//!
//! What is for a session of another engine goes to that engine, see [`super::neighbours`].
//!
//! Every question mark is answered in `adit_core::dataplane::gateway`; this file moves buffers and
//! counts. Packets in = forwarded + answered + dropped, on each side.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use adit_core::dataplane::gateway::{self as verdicts, Gate, OnWire, Place, Sessions, Target};
use adit_core::dataplane::{Denial, DirectionCounters, DropReason, Verdict};
use adit_core::offload::split::Segments;
use adit_core::offload::{self, Offload};
use adit_core::table::owners::Owners;
use adit_core::wire::icmp::IcmpError;
use adit_core::wire::ip::{self, IpPacket};
use adit_core::wire::{datagram, tcp};
use bytes::{Buf, Bytes, BytesMut};

use super::neighbours::ToNeighbour;
use super::session::Session;
use super::{Gateway, InsideAddresses};
use crate::HEADROOM;
use crate::chunks::Chunks;
use crate::links::{Key, Links};
use crate::path::Ipv6;

/// What the verdicts may ask about the sessions.
pub(super) struct View<'a> {
    owners: &'a Owners<Place<Key>>,
    sessions: &'a mut [Option<Session>],
    /// Whose denied packets are to be told, and when.
    denials: &'a mut BTreeSet<(Instant, Key)>,
}

impl Sessions for View<'_> {
    type Key = Key;

    fn owner(&self, address: IpAddr) -> Option<Place<Key>> {
        let place = self.owners.owner(address)?;
        let Place::Here(key) = place else {
            return Some(place);
        };
        let session = self.sessions.get(key)?.as_ref()?;
        // An IPv6 address the path cannot carry is not assigned, hence nobody's.
        (address.is_ipv4() || session.ipv6 == Ipv6::Fits).then_some(place)
    }

    fn gate(&mut self, key: Key) -> Option<Gate<'_>> {
        let session = self.sessions.get_mut(key)?.as_mut()?;
        Some(Gate {
            filter: &session.grant.filter,
            flows: &mut session.flows,
            max_packet: session.mtu.largest_packet(),
        })
    }

    fn denied(&mut self, key: Key, now: Instant, denial: Denial, packets: usize) {
        let session = self.sessions.get_mut(key).and_then(Option::as_mut);
        let due = session.and_then(|session| session.denials.add(now, denial, packets));
        self.denials.extend(due.map(|due| (due, key)));
    }
}

impl Gateway {
    /// One IP packet from the TUN device, with [`HEADROOM`] spare bytes in front of it, and what the
    /// device left to be done on it.
    pub fn handle_inside(&mut self, now: Instant, buffer: BytesMut, offload: Offload) {
        if let Some(elsewhere) = self.take_inside(now, buffer, offload) {
            self.neighbours.push_back(elsewhere);
        }
    }

    /// Takes a packet from inside, or gives it back with the engine whose session's it is.
    pub(super) fn take_inside(
        &mut self,
        now: Instant,
        mut buffer: BytesMut,
        mut offload: Offload,
    ) -> Option<(u8, ToNeighbour)> {
        if let Offload::Checksum(partial) = offload {
            // What cannot be completed stays wrong, and its receiver drops it.
            offload::complete_checksum(buffer.get_mut(HEADROOM..).unwrap_or_default(), partial);
            offload = Offload::None;
        }
        let Some((packet, segments)) = parse_inside(&buffer, offload) else {
            self.totals.to_client.drop(DropReason::Malformed);
            return None;
        };
        let on_wire = segments
            .as_ref()
            .map_or_else(|| OnWire::single(&packet), OnWire::from);
        self.keep_sweeping(now);
        let verdict = verdicts::to_peer(&mut self.view(), now, &packet, on_wire);
        match (verdict, segments) {
            (Verdict::Forward(Place::There(engine)), _) => {
                return Some((engine, ToNeighbour::Inside(buffer, offload)));
            }
            (Verdict::Forward(Place::Here(key)), Some(segments)) => {
                self.send_segments(key, &segments);
            }
            (Verdict::Forward(Place::Here(key)), None) => {
                if let Some(session) = self.session(key) {
                    tcp::clamp_mss(&mut buffer[HEADROOM..], session.mtu.clamp_to(now));
                }
                // Counted where it is sent.
                let _ = send_to_peer(&mut self.links, &mut self.sessions, key, buffer);
            }
            (Verdict::Reply(error), None) => {
                self.answer_inside(now, &packet, Some(error), error.reason());
            }
            (Verdict::Reply(error), Some(segments)) => {
                // The answer quotes a packet that could have been on the wire, and stands for all.
                let mut first = BytesMut::with_capacity(segments.longest());
                segments.append(0, &mut first);
                let Ok(first) = IpPacket::parse(&first) else {
                    self.totals.to_client.drop(DropReason::Malformed);
                    return None;
                };
                self.answer_inside(now, &first, Some(error), error.reason());
                self.counters_to(&packet)
                    .drop_many(error.reason(), segments.count() - 1);
            }
            (Verdict::Drop(reason), segments) => {
                let count = segments.map_or(1, |segments| segments.count());
                self.counters_to(&packet).drop_many(reason, count);
            }
        }
        None
    }

    /// So many packets from the TUN device were dropped before they got here.
    pub fn handle_overflow(&mut self, packets: usize) {
        self.totals
            .to_client
            .drop_many(DropReason::QueueFull, packets);
    }

    /// Cuts a packet into datagrams of the session's.
    fn send_segments(&mut self, key: Key, segments: &Segments<'_>) {
        let Some(stream) = self.session(key).map(|session| session.stream) else {
            return self
                .totals
                .to_client
                .drop_many(DropReason::SessionGone, segments.count());
        };
        for (datagram, length) in self.chunks.datagrams(stream, segments) {
            let _ = send_datagram(&mut self.links, &mut self.sessions, key, datagram, length);
        }
    }

    /// Answers a packet from inside, if an answer is due, into the TUN device.
    fn answer_inside(
        &mut self,
        now: Instant,
        packet: &IpPacket<'_>,
        answer: Option<IcmpError>,
        reason: DropReason,
    ) {
        let held_back = answer.is_some_and(|error| self.holds_back(now, error, packet));
        let reply = match answer {
            // The gateway's own address would be a martian on its own TUN device: the destination
            // speaks for itself.
            Some(error) if !held_back => verdicts::answer(error, packet, packet.destination()),
            _ => None,
        };
        let session = self
            .here(packet.destination())
            .and_then(|key| self.sessions.get_mut(key)?.as_mut());
        let (counters, answers) = match session {
            Some(session) => (&mut session.counters, &mut session.answers),
            None => (&mut self.totals, &mut self.answers),
        };
        match reply.filter(|_| answers.take(now)) {
            Some(reply) => {
                counters.to_client.reply();
                self.inside.push_back(reply.into());
            }
            None => counters.to_client.drop(reason),
        }
    }

    /// Where a packet for a client is counted: at the session it is for, if there is one.
    pub(super) fn counters_to(&mut self, packet: &IpPacket<'_>) -> &mut DirectionCounters {
        let session = self
            .here(packet.destination())
            .and_then(|key| self.sessions.get_mut(key)?.as_mut());
        match session {
            Some(session) => &mut session.counters.to_client,
            None => &mut self.totals.to_client,
        }
    }

    /// Takes every datagram that arrived on a link.
    pub(super) fn receive_datagrams(&mut self, now: Instant, key: Key) {
        while let Some(datagram) = self.links.recv_datagram(key) {
            self.receive(now, key, datagram);
        }
    }

    fn receive(&mut self, now: Instant, key: Key, mut bytes: Bytes) {
        let prefix = match datagram::parse(&bytes) {
            Ok(prefix) => prefix,
            Err(error) if error.closes_the_connection() => {
                let code = adit_core::h3::ErrorCode::Datagram.code();
                let reason = error.to_string();
                self.forget_tail(key);
                self.forget_session(now, key, &reason);
                self.links.close(now, key, code, &reason);
                return;
            }
            Err(_) => return self.drop_from(key, DropReason::Malformed),
        };
        // What comes on the link that a session had before is the session's too.
        let Some((key, stream)) = self.carried(key) else {
            self.totals.from_client.drop(DropReason::NotReady);
            return;
        };
        let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) else {
            self.totals.from_client.drop(DropReason::NotReady);
            return;
        };
        if prefix.stream_id != stream {
            session.counters.from_client.drop(DropReason::NotReady);
            return;
        }
        if prefix.context != 0 {
            session
                .counters
                .from_client
                .drop(DropReason::UnknownContext);
            return;
        }
        bytes.advance(prefix.len);
        self.receive_packet(now, key, bytes);
    }

    /// One IP packet of a session, from a datagram or, from peers that prefer it, a capsule.
    pub(super) fn receive_packet(&mut self, now: Instant, key: Key, bytes: Bytes) {
        let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) else {
            self.totals.from_client.drop(DropReason::NotReady);
            return;
        };
        let Ok(packet) = IpPacket::parse(&bytes) else {
            return session.counters.from_client.drop(DropReason::Malformed);
        };
        let length = bytes.len();
        let tables = self.owners.generation();
        if session.follows(now, &packet, tables) {
            session.counters.from_client.forward(length);
            return self.inside.push_back(bytes);
        }
        self.keep_sweeping(now);
        match verdicts::from_peer(&mut self.view(), now, key, &packet) {
            Verdict::Forward(Target::Inside) => {
                let packet = if tcp::is_tcp_syn(&packet) {
                    self.clamped(now, key, bytes)
                } else {
                    bytes
                };
                self.inside.push_back(packet);
                self.count_from(key, length, Ok(()));
                if let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) {
                    session.went_inside(tables);
                }
            }
            Verdict::Forward(Target::Peer(peer)) => {
                let hop = next_hop(&mut self.chunks, &bytes);
                let sent = self.relay(now, peer, hop);
                self.count_from(key, length, sent);
            }
            Verdict::Forward(Target::Neighbour(engine)) => {
                let message = ToNeighbour::Relayed(next_hop(&mut self.chunks, &bytes));
                self.neighbours.push_back((engine, message));
                self.count_from(key, length, Ok(()));
            }
            Verdict::Reply(error) => self.answer_peer(now, key, error, &bytes),
            Verdict::Drop(reason) => self.count_from(key, length, Err(reason)),
        }
    }

    /// A packet of another session, behind [`HEADROOM`] spare bytes.
    pub(super) fn relay(
        &mut self,
        now: Instant,
        peer: Key,
        mut buffer: BytesMut,
    ) -> Result<(), DropReason> {
        if let Some(session) = self.session(peer) {
            tcp::clamp_mss(&mut buffer[HEADROOM..], session.mtu.clamp_to(now));
        }
        send_to_peer(&mut self.links, &mut self.sessions, peer, buffer)
    }

    /// Lowers the MSS of a SYN, in a copy: received packets are slices of a shared buffer.
    fn clamped(&self, now: Instant, key: Key, packet: Bytes) -> Bytes {
        let Some(session) = self.session(key) else {
            return packet;
        };
        let mut copy = packet.to_vec();
        if tcp::clamp_mss(&mut copy, session.mtu.clamp_to(now)) {
            copy.into()
        } else {
            packet
        }
    }

    /// Answers a client's packet through the tunnel.
    fn answer_peer(&mut self, now: Instant, key: Key, error: IcmpError, bytes: &[u8]) {
        let held_back =
            IpPacket::parse(bytes).is_ok_and(|packet| self.holds_back(now, error, &packet));
        let answered = !held_back && self.tell_peer(now, key, error, bytes);
        if let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) {
            if answered {
                session.counters.from_client.reply();
            } else {
                session.counters.from_client.drop(error.reason());
            }
        }
    }

    /// Tells a client what became of its packet, if that fits and the client may be told so much.
    pub(super) fn tell_peer(
        &mut self,
        now: Instant,
        key: Key,
        error: IcmpError,
        bytes: &[u8],
    ) -> bool {
        let reply = IpPacket::parse(bytes).ok().and_then(|packet| {
            let source = own_address(self.inside_addresses, &packet);
            verdicts::answer(error, &packet, source)
        });
        let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) else {
            return false;
        };
        let fits = session.mtu.largest_packet();
        let Some(reply) = reply.filter(|reply| reply.len() <= fits && session.answers.take(now))
        else {
            return false;
        };
        let stream = session.stream;
        let _ = self.links.send_packet(key, framed(stream, &reply));
        true
    }

    /// Whether nobody is told yet that a packet does not fit: the search for what does goes on.
    pub(super) fn holds_back(&self, now: Instant, error: IcmpError, packet: &IpPacket<'_>) -> bool {
        matches!(error, IcmpError::PacketTooBig { .. })
            && self
                .here(packet.destination())
                .and_then(|key| self.session(key))
                .is_some_and(|session| !session.mtu.settled(now))
    }

    /// The session an address belongs to, if it lives on this engine.
    pub(super) fn here(&self, address: IpAddr) -> Option<Key> {
        match self.owners.owner(address)? {
            Place::Here(key) => Some(key),
            Place::There(_) => None,
        }
    }

    pub(super) fn view(&mut self) -> View<'_> {
        View {
            owners: &self.owners,
            sessions: &mut self.sessions,
            denials: &mut self.denials,
        }
    }

    /// Counts a datagram that says nothing, whether or not its link has a session.
    fn drop_from(&mut self, key: Key, reason: DropReason) {
        let session = self.sessions.get_mut(key).and_then(Option::as_mut);
        let counters = session.map_or(&mut self.totals, |session| &mut session.counters);
        counters.from_client.drop(reason);
    }

    fn count_from(&mut self, key: Key, length: usize, outcome: Result<(), DropReason>) {
        if let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) {
            match outcome {
                Ok(()) => session.counters.from_client.forward(length),
                Err(reason) => session.counters.from_client.drop(reason),
            }
        }
    }
}

/// A packet from the TUN device, and how it is cut; `None` when it contradicts itself.
pub(super) fn parse_inside(
    buffer: &[u8],
    offload: Offload,
) -> Option<(IpPacket<'_>, Option<Segments<'_>>)> {
    let packet = IpPacket::parse(buffer.get(HEADROOM..)?).ok()?;
    let segments = match offload {
        Offload::Segments(segmentation) => Some(Segments::new(&packet, segmentation).ok()?),
        Offload::None | Offload::Checksum(_) => None,
    };
    Some((packet, segments))
}

/// A copy of a client's packet for another client, with headroom: the gateway is a router hop between
/// the two.
fn next_hop(chunks: &mut Chunks, packet: &[u8]) -> BytesMut {
    let room = chunks.room(HEADROOM + packet.len());
    room.resize(HEADROOM, 0);
    room.extend_from_slice(packet);
    let mut buffer = room.split();
    ip::decrement_hop_limit(&mut buffer[HEADROOM..]);
    buffer
}

/// Writes the HTTP datagram prefix into the headroom and queues the datagram.
fn send_to_peer(
    links: &mut Links<adit_core::session::gateway::Control>,
    sessions: &mut [Option<Session>],
    key: Key,
    mut buffer: BytesMut,
) -> Result<(), DropReason> {
    let session = sessions
        .get(key)
        .and_then(Option::as_ref)
        .ok_or(DropReason::SessionGone)?;
    let length = buffer.len() - HEADROOM;
    let prefix = datagram::prefix_len(session.stream);
    datagram::write_prefix(session.stream, &mut buffer[HEADROOM - prefix..HEADROOM]);
    buffer.advance(HEADROOM - prefix);
    send_datagram(links, sessions, key, buffer.freeze(), length)
}

/// Queues a datagram that holds a packet of `length` bytes, and counts it.
fn send_datagram(
    links: &mut Links<adit_core::session::gateway::Control>,
    sessions: &mut [Option<Session>],
    key: Key,
    datagram: Bytes,
    length: usize,
) -> Result<(), DropReason> {
    let session = sessions
        .get_mut(key)
        .and_then(Option::as_mut)
        .ok_or(DropReason::SessionGone)?;
    let outcome = links.send_packet(key, datagram);
    match outcome {
        Ok(()) => session.counters.to_client.forward(length),
        Err(reason) => session.counters.to_client.drop(reason),
    }
    outcome
}

fn framed(stream: u64, packet: &[u8]) -> Bytes {
    let prefix = datagram::prefix_len(stream);
    let mut buffer = BytesMut::with_capacity(prefix + packet.len());
    buffer.resize(prefix, 0);
    datagram::write_prefix(stream, &mut buffer);
    buffer.extend_from_slice(packet);
    buffer.freeze()
}

/// The gateway's address in the packet's family; without one the packet's own destination
/// answers, as it would from behind a router that has none either.
fn own_address(own: InsideAddresses, packet: &IpPacket<'_>) -> IpAddr {
    let address = match packet.destination() {
        IpAddr::V4(_) => own.v4.map(IpAddr::V4),
        IpAddr::V6(_) => own.v6.map(IpAddr::V6),
    };
    address.unwrap_or_else(|| packet.destination())
}
