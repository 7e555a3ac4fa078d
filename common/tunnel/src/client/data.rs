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
use adit_core::wire::icmp::{self, IcmpError};
use adit_core::wire::ip::IpPacket;
use adit_core::wire::{datagram, tcp};
use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::SendDatagramError;

use super::{Client, Phase};
use crate::HEADROOM;
use crate::links::Key;

impl Client {
    /// One IP packet from the TUN device, with [`HEADROOM`] spare bytes in front of it.
    pub fn handle_inside(&mut self, now: Instant, mut buffer: BytesMut) {
        let Phase::Up(tunnel) = &self.phase else {
            self.counters.from_client.drop(DropReason::NotReady);
            return;
        };
        let length = buffer.len().saturating_sub(HEADROOM);
        let Ok(packet) = IpPacket::parse(buffer.get(HEADROOM..).unwrap_or_default()) else {
            self.counters.from_client.drop(DropReason::Malformed);
            return;
        };
        match verdicts::to_gateway(&tunnel.view, tunnel.mtu.largest_packet(), &packet) {
            Verdict::Forward(()) => {
                tcp::clamp_mss(&mut buffer[HEADROOM..], tunnel.mtu.clamp_to(now));
                let prefix = datagram::prefix_len(tunnel.stream);
                datagram::write_prefix(tunnel.stream, &mut buffer[HEADROOM - prefix..HEADROOM]);
                buffer.advance(HEADROOM - prefix);
                let outcome = self.links.send_datagram(tunnel.key, buffer.freeze());
                let reason = match outcome {
                    Some(Ok(())) => return self.counters.from_client.forward(length),
                    Some(Err(SendDatagramError::Blocked(_))) => DropReason::QueueFull,
                    Some(Err(SendDatagramError::TooLarge)) => DropReason::TooBig,
                    Some(Err(
                        SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled,
                    ))
                    | None => DropReason::SessionGone,
                };
                self.counters.from_client.drop(reason);
            }
            Verdict::Reply(error) => {
                let held_back =
                    matches!(error, IcmpError::PacketTooBig { .. }) && !tunnel.mtu.settled(now);
                // This host's own address would be a martian on its own TUN device: the
                // destination speaks for itself.
                let reply = if held_back {
                    None
                } else {
                    icmp::error_packet(error, &packet, packet.destination())
                };
                match reply.filter(|_| self.answers.take(now)) {
                    Some(reply) => {
                        self.counters.from_client.reply();
                        self.inside.push_back(reply.into());
                    }
                    None => self.counters.from_client.drop(error.reason()),
                }
            }
            Verdict::Drop(reason) => self.counters.from_client.drop(reason),
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
                self.links.close(now, key, code, &error.to_string());
                return;
            }
            Err(_) => return self.counters.to_client.drop(DropReason::Malformed),
        };
        match &self.phase {
            Phase::Up(tunnel) if tunnel.key == key && tunnel.stream == prefix.stream_id => {}
            _ => return self.counters.to_client.drop(DropReason::NotReady),
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
            Phase::Up(tunnel) if tunnel.key == key => tunnel,
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
