//! What the engines of one gateway hand to each other.
//!
//! ```text
//! socket ─ datagram of another engine's link ─────────────► Datagram ─► its link
//! TUN queue ─ packet for another engine's session ────────► Inside   ─► judged and sent there
//! session ─ packet for another engine's session, let out ─► Relayed  ─► judged and sent there
//!                     the sender is told why not ◄─ Returned ─┘
//! ```
//!
//! The kernel steers most datagrams and packets to the right engine; what it does not know ends up
//! here. What was handed over is never handed on: it is delivered, answered or dropped where it came.
//! It is counted once in each direction, where its fate is decided.

use std::time::Instant;

use adit_core::dataplane::gateway::{self as verdicts, Place, Sessions as _};
use adit_core::dataplane::{DropReason, Verdict};
use adit_core::offload::Offload;
use adit_core::wire::icmp::IcmpError;
use adit_core::wire::ip::IpPacket;
use bytes::BytesMut;

use super::Gateway;
use super::data::parse_inside;
use crate::HEADROOM;
use crate::links::Datagram;
use crate::reception::ToReception;

/// What an engine hands to a neighbour. Packets stand behind [`HEADROOM`] spare bytes.
pub enum ToNeighbour {
    /// A datagram whose connection id names that engine.
    Datagram(Datagram),
    /// A packet from the TUN device, and what is left to be done on it.
    Inside(BytesMut, Offload),
    /// From one client to another: let out by the sender's filter, with the hop counted.
    Relayed(BytesMut),
    /// A relayed packet that the receiver does not get.
    Returned(BytesMut, IcmpError),
}

impl ToNeighbour {
    /// How many bytes wait as long as this waits.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Datagram(datagram) => datagram.data.len(),
            Self::Inside(packet, _) | Self::Relayed(packet) | Self::Returned(packet, _) => {
                packet.len()
            }
        }
    }
}

impl Gateway {
    /// The next thing for a neighbour, and which.
    pub fn poll_neighbour(&mut self) -> Option<(u8, ToNeighbour)> {
        self.neighbours.pop_front()
    }

    /// What a neighbour handed over.
    pub fn handle_neighbour(&mut self, now: Instant, message: ToNeighbour) {
        match message {
            ToNeighbour::Datagram(datagram) => {
                // Of a link that is not here yet, or not any more: the front desk knows.
                if let Err(datagram) = self.links.handle_udp(now, datagram) {
                    self.messages.push_back(ToReception::Datagram(datagram));
                }
            }
            ToNeighbour::Inside(packet, offload) => {
                // Moved while the packet was under way: following it could go on for ever.
                if let Some((_, message)) = self.take_inside(now, packet, offload) {
                    self.drop_message(&message, DropReason::SessionGone);
                }
            }
            ToNeighbour::Relayed(buffer) => self.take_relayed(now, buffer),
            ToNeighbour::Returned(buffer, error) => self.take_returned(now, &buffer, error),
        }
    }

    /// Counts what a neighbour had no room for.
    pub fn handle_undelivered(&mut self, message: &ToNeighbour) {
        self.drop_message(message, DropReason::QueueFull);
    }

    /// Whether there is another engine of this number.
    pub(super) fn is_neighbour(&self, engine: u8) -> bool {
        engine != self.number && engine < self.engines
    }

    fn take_relayed(&mut self, now: Instant, buffer: BytesMut) {
        let Ok(packet) = IpPacket::parse(buffer.get(HEADROOM..).unwrap_or_default()) else {
            return self.totals.to_client.drop(DropReason::Malformed);
        };
        self.keep_sweeping(now);
        match verdicts::from_neighbour(&mut self.view(), now, &packet) {
            Verdict::Forward(key) => {
                // Counted where it is sent.
                let _ = self.relay(now, key, buffer);
            }
            Verdict::Reply(error) if self.holds_back(now, error, &packet) => {
                self.counters_to(&packet).drop(error.reason());
            }
            // The sender's engine has the sender's session: it knows whether to answer, and counts.
            Verdict::Reply(error) => match self.view().owner(packet.source()) {
                Some(Place::There(engine)) => {
                    let message = ToNeighbour::Returned(buffer, error);
                    self.neighbours.push_back((engine, message));
                }
                Some(Place::Here(_)) | None => self.counters_to(&packet).drop(error.reason()),
            },
            Verdict::Drop(reason) => self.counters_to(&packet).drop(reason),
        }
    }

    fn take_returned(&mut self, now: Instant, buffer: &[u8], error: IcmpError) {
        let bytes = buffer.get(HEADROOM..).unwrap_or_default();
        let sender = IpPacket::parse(bytes)
            .ok()
            .and_then(|packet| self.here(packet.source()));
        if sender.is_some_and(|key| self.tell_peer(now, key, error, bytes)) {
            self.totals.to_client.reply();
        } else {
            self.totals.to_client.drop(error.reason());
        }
    }

    /// Datagrams are not counted: they may get lost as on any other part of their way.
    fn drop_message(&mut self, message: &ToNeighbour, reason: DropReason) {
        let packets = match message {
            ToNeighbour::Datagram(_) => 0,
            ToNeighbour::Relayed(_) | ToNeighbour::Returned(..) => 1,
            ToNeighbour::Inside(packet, offload) => parse_inside(packet, *offload)
                .and_then(|(_, segments)| segments)
                .map_or(1, |segments| segments.count()),
        };
        self.totals.to_client.drop_many(reason, packets);
    }
}
