//! The client's packet path.
//!
//! ```text
//! inside → outside   TUN ─ parse ─ is the source mine? ─ routed here? ─ fits? ─ prefix ─ datagram
//! outside → inside   datagram ─ prefix ─ parse ─ from a route? ─ to me? ─ TUN
//! ```
//!
//! Every question mark is answered in `adit_core::dataplane::client`; this file moves buffers and
//! counts. Packets in = forwarded + answered + dropped, on each side.

use std::time::Instant;

use adit_core::dataplane::client as verdicts;
use adit_core::dataplane::{DropReason, Verdict};
use adit_core::offload::split::Segments;
use adit_core::offload::{self, Offload};
use adit_core::wire::icmp::{self, IcmpError};
use adit_core::wire::ip::IpPacket;
use adit_core::wire::{datagram, tcp};
use bytes::{Buf, Bytes, BytesMut};

use super::{Client, Phase};
use crate::HEADROOM;
use crate::links::Key;

impl Client {
    /// One IP packet from the TUN device, with [`HEADROOM`] spare bytes in front of it, and what the
    /// device left to be done on it.
    pub fn handle_inside(&mut self, now: Instant, mut buffer: BytesMut, offload: Offload) {
        let Phase::Up(tunnel) = &self.phase else {
            self.counters.from_client.drop(DropReason::NotReady);
            return;
        };
        let segmentation = match offload {
            Offload::Segments(segmentation) => Some(segmentation),
            Offload::None => None,
            Offload::Checksum(partial) => {
                // What cannot be completed stays wrong, and its receiver drops it.
                offload::complete_checksum(buffer.get_mut(HEADROOM..).unwrap_or_default(), partial);
                None
            }
        };
        let length = buffer.len().saturating_sub(HEADROOM);
        let Ok(packet) = IpPacket::parse(buffer.get(HEADROOM..).unwrap_or_default()) else {
            self.counters.from_client.drop(DropReason::Malformed);
            return;
        };
        let Ok(segments) = segmentation
            .map(|segmentation| Segments::new(&packet, segmentation))
            .transpose()
        else {
            self.counters.from_client.drop(DropReason::Malformed);
            return;
        };
        let longest = segments.map_or(length, |segments| segments.longest());
        let largest = tunnel.mtu.largest_packet();
        let (key, stream) = (tunnel.key, tunnel.stream);
        match (
            verdicts::to_gateway(&tunnel.view, largest, &packet, longest),
            segments,
        ) {
            (Verdict::Forward(()), Some(segments)) => {
                for (datagram, length) in self.chunks.datagrams(stream, &segments) {
                    match self.links.send_packet(key, datagram) {
                        Ok(()) => self.counters.from_client.forward(length),
                        Err(reason) => self.counters.from_client.drop(reason),
                    }
                }
            }
            (Verdict::Forward(()), None) => {
                tcp::clamp_mss(&mut buffer[HEADROOM..], tunnel.mtu.clamp_to(now));
                let prefix = datagram::prefix_len(stream);
                datagram::write_prefix(stream, &mut buffer[HEADROOM - prefix..HEADROOM]);
                buffer.advance(HEADROOM - prefix);
                match self.links.send_packet(key, buffer.freeze()) {
                    Ok(()) => self.counters.from_client.forward(length),
                    Err(reason) => self.counters.from_client.drop(reason),
                }
            }
            (Verdict::Reply(error), segments) => {
                let held_back =
                    matches!(error, IcmpError::PacketTooBig { .. }) && !tunnel.mtu.settled(now);
                // The answer quotes a packet that could have been on the wire, and stands for all.
                let mut first = BytesMut::new();
                let offending = match segments {
                    None => Ok(packet),
                    Some(segments) => {
                        segments.append(0, &mut first);
                        IpPacket::parse(&first)
                    }
                };
                // This host's own address would be a martian on its own TUN device: the
                // destination speaks for itself.
                let reply = offending.ok().filter(|_| !held_back).and_then(|offending| {
                    icmp::error_packet(error, &offending, offending.destination())
                });
                match reply.filter(|_| self.answers.take(now)) {
                    Some(reply) => {
                        self.counters.from_client.reply();
                        self.inside.push_back(reply.into());
                    }
                    None => self.counters.from_client.drop(error.reason()),
                }
                let others = segments.map_or(0, |segments| segments.count() - 1);
                self.counters.from_client.drop_many(error.reason(), others);
            }
            (Verdict::Drop(reason), segments) => {
                let count = segments.map_or(1, |segments| segments.count());
                self.counters.from_client.drop_many(reason, count);
            }
        }
    }

    /// So many packets from the TUN device were dropped before they got here.
    pub fn handle_overflow(&mut self, packets: usize) {
        self.counters
            .from_client
            .drop_many(DropReason::QueueFull, packets);
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
                self.links.close(now, key, code, &error.to_string());
                return;
            }
            Err(_) => return self.counters.to_client.drop(DropReason::Malformed),
        };
        if !self.carries(key, Some(prefix.stream_id)) {
            return self.counters.to_client.drop(DropReason::NotReady);
        }
        if prefix.context != 0 {
            return self.counters.to_client.drop(DropReason::UnknownContext);
        }
        bytes.advance(prefix.len);
        self.receive_packet(now, key, bytes);
    }

    /// One IP packet out of the tunnel, from a datagram or, from peers that prefer it, a capsule.
    pub(super) fn receive_packet(&mut self, now: Instant, key: Key, bytes: Bytes) {
        let tunnel = match &self.phase {
            Phase::Up(tunnel) if self.carries(key, None) => tunnel,
            _ => return self.counters.to_client.drop(DropReason::NotReady),
        };
        let verdict = match IpPacket::parse(&bytes) {
            Ok(packet) => {
                verdicts::from_gateway(&tunnel.view, &packet).map(|()| tcp::is_tcp_syn(&packet))
            }
            Err(_) => Verdict::Drop(DropReason::Malformed),
        };
        match verdict {
            Verdict::Forward(is_syn) => {
                self.counters.to_client.forward(bytes.len());
                let mut packet = bytes;
                if is_syn {
                    let mut copy = packet.to_vec();
                    if tcp::clamp_mss(&mut copy, tunnel.mtu.clamp_to(now)) {
                        packet = copy.into();
                    }
                }
                self.inside.push_back(packet);
            }
            // What the gateway should not have sent is not worth an answer to it.
            Verdict::Reply(error) => self.counters.to_client.drop(error.reason()),
            Verdict::Drop(reason) => self.counters.to_client.drop(reason),
        }
    }
}
