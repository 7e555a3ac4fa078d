//! The client's engine: one session at a time, dialled again whenever it is lost.
//!
//! Contract: after any number of `handle_*` calls, call [`Client::handle_timeout`] once and then
//! drain `poll_transmit`, `poll_inside` and `poll_event`; sleep until `poll_timeout` or input.
//! Time comes in as an argument and never runs backwards.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::backoff::Backoff;
use adit_core::close::Refusal;
use adit_core::dataplane::client::ClientView;
use adit_core::dataplane::{Counters, TokenBucket};
use adit_core::session::Place;
use adit_core::session::certificate::Issued;
use adit_core::session::client::{ClientControlConfig, Control};
use adit_core::session::{Assignment, UserAgent};
use bytes::Bytes;
use quinn_proto::{Transmit, TransportConfig};

use crate::chunks::Chunks;
use crate::endpoints::Endpoints;
use crate::link::Notice;
use crate::links::{Datagram, Key, Links};
use crate::path::InnerMtu;
use crate::tls::{HandshakeFacts, QuicClient};
use crate::transport::{EngineKeys, Limits, transport_config};

mod certificate;
mod data;
mod dial;
mod handover;
mod machine;
mod report;

use handover::{Renewal, Retired};
use machine::Opening;

/// Everything a client engine is made of.
pub struct ClientConfig {
    /// Keys and seeds.
    pub keys: EngineKeys,
    /// Limits of this machine.
    pub limits: Limits,
    /// TLS with the client's certificate.
    pub tls: Arc<QuicClient>,
    /// The name the gateway's certificate must carry.
    pub server_name: String,
    /// `:authority` of the request: host and port of the gateway.
    pub authority: String,
    /// What is said to gateways about this client and its host.
    pub user_agent: Option<UserAgent>,
    /// MTU of the TUN device.
    pub tunnel_mtu: u16,
}

/// What the client reports to its control plane.
#[derive(Debug)]
pub enum ClientEvent {
    /// The gateway's names should be resolved and given to [`Client::set_gateways`].
    NeedAddresses,
    /// A gateway address is being tried.
    Dialing(SocketAddr),
    /// The tunnel is up with this gateway.
    Connected(SocketAddr),
    /// The gateway assigned addresses and routes; replaces what it assigned before.
    Assigned(Assignment),
    /// The session, or the attempt to get one, failed; another follows.
    Lost {
        /// Why.
        refusal: Refusal,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// The session goes on over a new connection.
    MovedOver {
        /// The gateway's address.
        gateway: SocketAddr,
        /// The serial number of the certificate, if it is a renewed one.
        serial: Option<String>,
    },
    /// The session could not be moved to a new connection; it goes on as it was, and another attempt follows.
    Stayed {
        /// Why.
        refusal: Refusal,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// What became of [`Client::ask_certificate`].
    Certificate(Result<Issued, Refusal>),
    /// The gateway announced the end of the connection (RFC 9114 §5.2): its own, or that the session must move to
    /// another.
    GoingAway,
    /// Retrying cannot cure it: the client does nothing more.
    Stopped(Refusal),
}

/// Where the client is in its life, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Waits for gateway addresses.
    Resolving,
    /// Tries an address.
    Dialing(SocketAddr),
    /// Carries packets.
    Up(SocketAddr),
    /// Waits before the next attempt.
    Waiting,
    /// Gave up, or was shut down.
    Stopped,
}

/// The client's engine.
pub struct Client {
    links: Links<Control>,
    endpoints: Endpoints,
    opening: Opening,
    /// With the certificate for the next session.
    tls: Arc<QuicClient>,
    /// The present session's way to another connection.
    renewal: Option<Renewal>,
    /// Links that the session has left; what is still under way on them is taken.
    retired: Vec<Retired>,
    transport: Arc<TransportConfig>,
    server_name: String,
    tunnel_mtu: u16,
    gateways: Vec<SocketAddr>,
    phase: Phase,
    backoff: Backoff,
    renewal_backoff: Backoff,
    inside: VecDeque<Bytes>,
    /// Where packets from inside are cut.
    chunks: Chunks,
    events: VecDeque<ClientEvent>,
    counters: Counters,
    answers: TokenBucket,
}

enum Phase {
    Resolving,
    Dialing {
        key: Key,
        candidate: usize,
        /// With the certificate it shows.
        tls: Arc<QuicClient>,
        gives_up_at: Instant,
    },
    Up(Tunnel),
    Waiting {
        until: Instant,
    },
    Stopped,
}

/// The session that carries packets.
struct Tunnel {
    key: Key,
    candidate: usize,
    /// With the certificate it began with.
    tls: Arc<QuicClient>,
    since: Instant,
    stream: u64,
    /// Where the next connection should begin, if the gateway lets sessions move.
    place: Option<Place>,
    mtu: InnerMtu,
    view: ClientView,
    assignment: Assignment,
    /// Which of the two lists have come at all, and whether one came since the last report.
    told: Told,
}

/// Addresses and routes come in capsules of their own; the host follows when both are there.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    addresses: bool,
    routes: bool,
    changed: bool,
}

impl Client {
    /// A client that asks for gateway addresses first.
    #[must_use]
    pub fn new(now: Instant, config: ClientConfig) -> Self {
        Self {
            links: Links::new(),
            endpoints: Endpoints::new(&config.keys, &config.limits),
            opening: Opening {
                control: ClientControlConfig {
                    user_agent: config.user_agent,
                    ..ClientControlConfig::new(config.authority)
                },
                predecessor: None,
            },
            tls: config.tls,
            renewal: None,
            retired: Vec::new(),
            transport: transport_config(&config.limits),
            server_name: config.server_name,
            tunnel_mtu: config.tunnel_mtu,
            gateways: Vec::new(),
            phase: Phase::Resolving,
            backoff: Backoff::new(config.keys.seed),
            renewal_backoff: Backoff::new(config.keys.seed),
            inside: VecDeque::new(),
            chunks: Chunks::default(),
            events: VecDeque::from([ClientEvent::NeedAddresses]),
            counters: Counters::default(),
            answers: TokenBucket::new(now, ANSWERS_PER_SECOND, ANSWER_BURST),
        }
    }

    /// One UDP datagram from outside.
    pub fn handle_udp(&mut self, now: Instant, datagram: Datagram) {
        let Err(datagram) = self.links.handle_udp(now, datagram) else {
            return;
        };
        // A stateless reset (RFC 9000 §10.3) names nobody; the link it is for knows its token.
        let keys: Vec<Key> = self.links.keys().collect();
        for key in keys {
            let link = self.links.get(key);
            if link.is_some_and(|link| link.connection.remote_address() == datagram.remote) {
                self.links.handle_udp_of(now, key, datagram.clone());
            }
        }
    }

    /// Fires what is due and looks at every link that something happened to.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.links.handle_timeout(now);
        self.handle_phase_timeout(now);
        self.handle_renewal_timeout(now);
        let mut notices = Vec::new();
        while let Some(key) = self.links.poll_service(now, &self.opening, &mut notices) {
            for notice in notices.drain(..) {
                self.handle_notice(now, key, notice);
            }
            self.receive_datagrams(now, key);
            self.follow_path(now, key);
        }
        self.move_when_ready(now);
        self.report_assignment();
    }

    /// The next bytes to send: `buf` holds datagrams of `segment_size` bytes, the last may be
    /// shorter.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.links.poll_transmit(now, buf)
    }

    /// Whether enough datagrams wait for a transmit to be worth its system call: the moment to
    /// drain [`Self::poll_transmit`] before more is handed in.
    #[must_use]
    pub fn has_full_batch(&self) -> bool {
        self.links.has_full_batch()
    }

    /// The next IP packet for the TUN device.
    pub fn poll_inside(&mut self) -> Option<Bytes> {
        self.inside.pop_front()
    }

    /// The next report for the control plane.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Dialing { gives_up_at, .. } => Some(*gives_up_at),
            Phase::Waiting { until } => Some(*until),
            Phase::Resolving | Phase::Up(_) | Phase::Stopped => None,
        };
        [self.links.poll_timeout(), phase, self.renewal_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Where the client is.
    #[must_use]
    pub fn state(&self) -> ClientState {
        match &self.phase {
            Phase::Resolving => ClientState::Resolving,
            Phase::Dialing { candidate, .. } => self
                .gateways
                .get(*candidate)
                .map_or(ClientState::Resolving, |gateway| {
                    ClientState::Dialing(*gateway)
                }),
            Phase::Up(tunnel) => self
                .links
                .get(tunnel.key)
                .map_or(ClientState::Waiting, |link| {
                    ClientState::Up(link.connection.remote_address())
                }),
            Phase::Waiting { .. } => ClientState::Waiting,
            Phase::Stopped => ClientState::Stopped,
        }
    }

    /// Packets and bytes since the start; `to_client` is what came through the tunnel.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the handshake of the present session negotiated.
    #[must_use]
    pub fn facts(&self) -> Option<HandshakeFacts> {
        match &self.phase {
            Phase::Up(tunnel) => self.links.get(tunnel.key)?.facts(),
            _ => None,
        }
    }

    /// Round-trip time of the present session.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Up(tunnel) => Some(self.links.get(tunnel.key)?.connection.rtt()),
            _ => None,
        }
    }

    /// The largest inner packet the present session carries, in bytes.
    #[must_use]
    pub fn largest_packet(&self) -> Option<usize> {
        match &self.phase {
            Phase::Up(tunnel) => Some(tunnel.mtu.largest_packet()),
            _ => None,
        }
    }

    /// What the gateway assigned last.
    #[must_use]
    pub fn assignment(&self) -> Option<&Assignment> {
        match &self.phase {
            Phase::Up(tunnel) => Some(&tunnel.assignment),
            _ => None,
        }
    }

    fn handle_notice(
        &mut self,
        now: Instant,
        key: Key,
        notice: Notice<adit_core::session::client::ClientEvent>,
    ) {
        use adit_core::session::client::ClientEvent as Report;
        match notice {
            Notice::Connected => {}
            Notice::Lost(error) => {
                self.fail(now, key, crate::refusal::of_connection_error(&error));
            }
            Notice::Report(Report::Established) => self.establish(now, key),
            Notice::Report(Report::Assigned(addresses)) => {
                self.reassign(key, |assignment, told| {
                    assignment.addresses = addresses;
                    told.addresses = true;
                });
            }
            Notice::Report(Report::Routes(routes)) => {
                self.reassign(key, |assignment, told| {
                    assignment.routes = routes;
                    told.routes = true;
                });
            }
            Notice::Report(Report::Refused(refusal)) => self.hang_up(now, key, refusal),
            Notice::Report(Report::Ended { reason }) => {
                let kind = adit_core::close::RefusalKind::Unreachable;
                self.hang_up(now, key, Refusal::new(kind, reason));
            }
            Notice::Report(Report::Packet(packet)) => self.receive_packet(now, key, packet),
            Notice::Report(Report::Certificate(outcome)) => {
                self.events.push_back(ClientEvent::Certificate(outcome));
            }
            Notice::Report(Report::GoingAway) => {
                self.events.push_back(ClientEvent::GoingAway);
                self.leave(now, key);
            }
        }
    }
}

/// ICMP errors per second: every local application fails at once, a scan is not amplified.
const ANSWERS_PER_SECOND: u32 = 100;
const ANSWER_BURST: u32 = 50;
