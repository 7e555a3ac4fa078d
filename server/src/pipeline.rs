//! The gateway's packet path, as its thread runs it.
//!
//! ```text
//! inside → outside   TUN ─ parse ─ who owns the destination? ─ policy ─ fits? ─ prefix ─ datagram
//! outside → inside   datagram ─ prefix ─ parse ─ is the source theirs? ─ policy ─ TUN or other session
//! ```
//!
//! The questions are answered in `adit_core::dataplane::gateway`, asked by
//! `adit_tunnel::gateway`; `adit_net::data_loop` moves the buffers. This file joins the three, and
//! carries commands in and events out without ever making the packets wait.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use adit_core::fair::{Lane, SessionAddress, lane_of};
use adit_core::offload::Offload;
use adit_core::status::GatewayStatus;
use adit_net::data_loop::{Engine, Outgoing};
use adit_net::udp::{EcnCodepoint, Udp};
use adit_tunnel::{Datagram, Gateway, GatewayEvent, HEADROOM, ToEngine};
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::desk::Desk;

/// What the control plane asks of the packet thread.
pub enum Command {
    /// Everything `status` shows.
    Status(oneshot::Sender<GatewayStatus>),
    /// What the front desk has to say.
    Desk(ToEngine),
    /// End every session, then the loop.
    Shutdown,
}

/// The engine with its ends of the command and event channels.
pub struct Pipeline {
    engine: Gateway,
    commands: Receiver<Command>,
    events: UnboundedSender<GatewayEvent>,
    desk: Desk,
    /// Packets the TUN device refused.
    refused: u64,
}

impl Pipeline {
    /// Joins an engine with its control plane.
    pub fn new(
        engine: Gateway,
        commands: Receiver<Command>,
        events: UnboundedSender<GatewayEvent>,
        desk: Desk,
    ) -> Self {
        Self {
            engine,
            commands,
            events,
            desk,
            refused: 0,
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

    fn handle_wake(&mut self, now: Instant, _udp: &Udp) -> ControlFlow<()> {
        loop {
            match self.commands.try_recv() {
                // Who asked may have gone away meanwhile; then nobody misses the answer.
                Ok(Command::Status(reply)) => {
                    let mut status = self.engine.status(now);
                    status.refused_by_device = self.refused;
                    let _ = reply.send(status);
                }
                Ok(Command::Desk(message)) => self.engine.handle_message(now, message),
                Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => {
                    self.engine.shutdown(now);
                    return ControlFlow::Break(());
                }
                Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
            }
        }
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
