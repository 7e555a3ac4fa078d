//! The gateway's packet path, as each of its threads runs it.
//!
//! ```text
//! inside → outside   TUN ─ parse ─ who owns the destination? ─ policy ─ fits? ─ prefix ─ datagram
//! outside → inside   datagram ─ prefix ─ parse ─ is the source theirs? ─ policy ─ TUN or other session
//! ```
//!
//! The questions are answered in `adit_core::dataplane::gateway`, asked by
//! `adit_tunnel::gateway`; `adit_net::data_loop` moves the buffers. This file joins the three, and
//! carries commands in and events out without ever making the packets wait.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use adit_core::admission::diff::FlowLoss;
use adit_core::fair::{Lane, SessionAddress, lane_of};
use adit_core::offload::Offload;
use adit_core::status::GatewayStatus;
use adit_net::data_loop::{Commands, Engine, Outgoing};
use adit_net::udp::EcnCodepoint;
use adit_tunnel::{
    Datagram, Findings, Gateway, GatewayEvent, HEADROOM, Inquiry, Stake, ToEngine, ToNeighbour,
};
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::desk::Desk;
use crate::engines::{Engines, Inbox};

/// What others ask of a packet thread.
pub enum Command {
    /// Everything `status` shows.
    Status(oneshot::Sender<GatewayStatus>),
    /// What there is of a principal's session.
    Inquire(Arc<Inquiry>, oneshot::Sender<Option<Findings>>),
    /// What flows it would cost if sessions had something else.
    Losses(Arc<[Stake]>, oneshot::Sender<BTreeMap<String, FlowLoss>>),
    /// What the front desk has to say.
    Desk(ToEngine),
    /// What another engine hands over.
    Neighbour(ToNeighbour),
    /// End every session, then the loop.
    Shutdown,
}

/// The engine with its ends of the command and event channels.
pub struct Pipeline {
    engine: Gateway,
    inbox: Inbox,
    neighbours: Engines,
    /// Which neighbours got something in this turn.
    handed: Vec<bool>,
    events: UnboundedSender<GatewayEvent>,
    desk: Desk,
    /// Packets the TUN device refused.
    refused: u64,
}

impl Pipeline {
    /// Joins an engine with its neighbours and its control plane.
    pub fn new(
        engine: Gateway,
        inbox: Inbox,
        neighbours: Engines,
        events: UnboundedSender<GatewayEvent>,
        desk: Desk,
    ) -> Self {
        Self {
            engine,
            inbox,
            handed: vec![false; neighbours.count()],
            neighbours,
            events,
            desk,
            refused: 0,
        }
    }

    /// Gives the neighbours what is theirs, and wakes each of them once.
    fn hand_over(&mut self) {
        while let Some((engine, message)) = self.engine.poll_neighbour() {
            match self.neighbours.hand_over(engine, message) {
                Ok(()) => self.handed[usize::from(engine)] = true,
                Err(message) => self.engine.handle_undelivered(&message),
            }
        }
        for (engine, handed) in self.handed.iter_mut().enumerate() {
            if std::mem::take(handed) {
                self.neighbours.wake(engine);
            }
        }
    }
}

impl Engine for Pipeline {
    const HEADROOM: usize = HEADROOM;

    fn handle_udp(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        datagram: BytesMut,
    ) {
        let datagram = Datagram {
            remote,
            local_ip,
            ecn: ecn.and_then(|mark| adit_tunnel::EcnCodepoint::from_bits(mark as u8)),
            data: datagram,
        };
        self.engine.handle_udp(now, datagram);
    }

    fn handle_inside(&mut self, now: Instant, packet: BytesMut, offload: Offload) {
        self.engine.handle_inside(now, packet, offload);
    }

    fn lane(&self, packet: &[u8], seed: u64) -> Lane {
        lane_of(packet, SessionAddress::Destination, seed)
    }

    fn handle_overflow(&mut self, packets: usize) {
        self.engine.handle_overflow(packets);
    }

    fn has_full_batch(&self) -> bool {
        self.engine.has_full_batch()
    }

    fn handle_wake(&mut self, now: Instant) -> ControlFlow<(), Commands> {
        let mut heard = 0;
        while let Some(command) = self.inbox.next() {
            match command {
                // Who asked may have gone away meanwhile; then nobody misses the answer.
                Command::Status(reply) => {
                    let mut status = self.engine.status(now);
                    status.refused_by_device = self.refused;
                    let _ = reply.send(status);
                }
                Command::Inquire(inquiry, reply) => {
                    drop(reply.send(self.engine.inquire(now, &inquiry)));
                }
                Command::Losses(stakes, reply) => {
                    drop(reply.send(self.engine.flow_losses(now, &stakes)));
                }
                Command::Desk(message) => {
                    self.engine.handle_message(now, message);
                    heard += 1;
                    if heard == HEARD_AT_ONCE {
                        return ControlFlow::Continue(Commands::More);
                    }
                }
                Command::Neighbour(message) => self.engine.handle_neighbour(now, message),
                Command::Shutdown => {
                    self.engine.shutdown(now);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(Commands::Served)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.engine.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Outgoing> {
        let transmit = self.engine.poll_transmit(now, buf)?;
        Some(Outgoing {
            destination: transmit.destination,
            src_ip: transmit.src_ip,
            segment_size: transmit.segment_size,
        })
    }

    fn poll_inside(&mut self) -> Option<Bytes> {
        self.engine.poll_inside()
    }

    fn handle_refused(&mut self, packets: usize) {
        self.refused += packets as u64;
    }

    fn report(&mut self, _now: Instant) {
        self.hand_over();
        while let Some(message) = self.engine.poll_message() {
            self.desk.tell(message);
        }
        while let Some(event) = self.engine.poll_event() {
            // The control plane is gone only while the process ends.
            let _ = self.events.send(event);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.engine.poll_timeout()
    }
}

/// Words of the front desk in a turn: those who wait for the disk come in by hundreds at once, and a new session is a
/// tenth of a millisecond of work.
const HEARD_AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use adit_tunnel::{Epoch, GatewayConfig, InsideAddresses};

    use super::*;
    use crate::{desk, engines};

    #[test]
    fn a_crowd_that_comes_in_at_once_leaves_the_packets_their_turns() {
        let now = Instant::now();
        let (commands, inbox) = engines::inbox();
        let mut pipeline = Pipeline::new(
            Gateway::new(GatewayConfig {
                engine: 0,
                engines: 1,
                inside: InsideAddresses::default(),
                epoch: Epoch::new(now, 0),
            }),
            inbox,
            Engines::default(),
            tokio::sync::mpsc::unbounded_channel().0,
            desk::desk().0,
        );
        for _ in 0..2 * HEARD_AT_ONCE {
            let gone = ToEngine::NeighbourGone {
                prefixes: Vec::new(),
                engine: 1,
            };
            commands
                .send(Command::Desk(gone))
                .expect("the inbox is there");
        }
        let turns = [(); 3].map(|()| pipeline.handle_wake(now));
        let [more, served] = [Commands::More, Commands::Served].map(ControlFlow::Continue);
        assert_eq!(turns, [more, more, served]);
    }
}
