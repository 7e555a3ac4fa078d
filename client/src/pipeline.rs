//! The client's packet path, as its thread runs it.
//!
//! ```text
//! inside → outside   TUN ─ parse ─ is the source mine? ─ routed here? ─ fits? ─ prefix ─ datagram
//! outside → inside   datagram ─ prefix ─ parse ─ from a route? ─ to me? ─ TUN
//! ```
//!
//! The questions are answered in `adit_core::dataplane::client`, asked by `adit_tunnel::client`;
//! `adit_net::data_loop` moves the buffers. This file joins the three, and carries commands in and
//! events out without ever making the packets wait.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use adit_core::fair::{Lane, SessionAddress, lane_of};
use adit_core::offload::Offload;
use adit_core::status::ClientStatus;
use adit_net::data_loop::{Commands, Engine, Outgoing};
use adit_net::udp::EcnCodepoint;
use adit_tunnel::tls::QuicClient;
use adit_tunnel::{Client, ClientEvent, Datagram, HEADROOM};
use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

/// What the control plane asks of the packet thread.
#[derive(Debug)]
pub enum Command {
    /// The gateway's addresses, in the order to try them.
    Gateways(Vec<SocketAddr>),
    /// Ask the gateway for a certificate, with this request; answered with whether that is done.
    AskCertificate {
        /// PKCS#10, in DER.
        request: Vec<u8>,
        /// Where to say whether there was a session to ask in.
        reply: oneshot::Sender<bool>,
    },
    /// Show this certificate from now on, and move the session to it.
    Renew(Arc<QuicClient>),
    /// Everything `status` shows.
    Status(oneshot::Sender<ClientStatus>),
    /// End the session, then the loop.
    Shutdown,
}

/// The engine with its ends of the command and event channels.
pub struct Pipeline {
    engine: Client,
    commands: Receiver<Command>,
    events: UnboundedSender<ClientEvent>,
    /// Packets the TUN device refused.
    refused: u64,
}

impl Pipeline {
    /// Joins an engine with its control plane.
    pub fn new(
        engine: Client,
        commands: Receiver<Command>,
        events: UnboundedSender<ClientEvent>,
    ) -> Self {
        Self {
            engine,
            commands,
            events,
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
        lane_of(packet, SessionAddress::Either, seed)
    }

    fn handle_overflow(&mut self, packets: usize) {
        self.engine.handle_overflow(packets);
    }

    fn has_full_batch(&self) -> bool {
        self.engine.has_full_batch()
    }

    fn handle_wake(&mut self, now: Instant) -> ControlFlow<(), Commands> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Gateways(gateways)) => self.engine.set_gateways(now, gateways),
                Ok(Command::AskCertificate { request, reply }) => {
                    let _ = reply.send(self.engine.ask_certificate(now, request));
                }
                Ok(Command::Renew(tls)) => self.engine.renew(now, tls),
                // Who asked may have gone away meanwhile; then nobody misses the answer.
                Ok(Command::Status(reply)) => {
                    let mut status = self.engine.status(now);
                    status.refused_by_device = self.refused;
                    let _ = reply.send(status);
                }
                Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => {
                    self.engine.shutdown(now);
                    return ControlFlow::Break(());
                }
                Err(TryRecvError::Empty) => return ControlFlow::Continue(Commands::Served),
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
        while let Some(event) = self.engine.poll_event() {
            // The control plane is gone only while the process ends.
            let _ = self.events.send(event);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.engine.poll_timeout()
    }
}
