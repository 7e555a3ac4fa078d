//! The gateway's front desk: from somebody's first datagram to a session, or to a refusal.
//!
//! ```text
//! engine ─ datagram of nobody's ─► Reception ─ handshake ─ certificate ─ request ─ policy, lease ─┐
//! engine ◄─ Arrival: link and session ───────────────────────────────────────────────────────────┘
//! ```
//!
//! All that is slow about a connection happens here, on a thread of its own: key exchange, the
//! verification of chains, the reading of certificates, policy. The packet path sees a link for the
//! first time when it is admitted. Address validation (Retry) above a threshold, a bound on
//! handshakes, stateless resets and version negotiation are here as well.
//!
//! Contract: after any number of `handle_*` calls, call [`Reception::handle_timeout`] once and then
//! drain `poll_transmit`, `poll_message`, `poll_event` and `poll_leases`; sleep until `poll_timeout` or input.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_core::admission::{Admission, Grant};
use adit_core::close::{Refusal, RefusalKind};
use adit_core::dataplane::{Counters, DropReason};
use adit_core::identity::{Identity, Principal};
use adit_core::session::certificate::{CertificateAsk, Issued};
use adit_core::session::gateway::{Control, GatewayControlConfig, GatewayEvent as Report};
use adit_core::table::leases::LeaseEntry;
use adit_core::wire::datagram;
use ipnet::IpNet;
use quinn_proto::{ConnectionId, DatagramEvent, Endpoint, ServerConfig, Transmit};

use crate::cid;
use crate::endpoints::Endpoints;
use crate::epoch::Epoch;
use crate::gateway::{Census, GatewayEvent, InsideAddresses, Session, SessionId};
use crate::linger::Lingering;
use crate::link::{Link, Notice};
use crate::links::{Datagram, Key, Links};
use crate::tls::{Authorities, QuicServer};
use crate::transport::{EngineKeys, Limits, transport_config};

mod admit;
mod awaited;
mod certificates;
mod departed;
mod guesses;
mod promises;
mod renewal;
mod seated;
mod seats;
mod strangers;
mod timetable;

use awaited::{Awaited, Request};
pub use certificates::{CertificateQuestion, Standing, Ticket};
use departed::Departed;
use guesses::Guesses;
pub use promises::LeaseTable;
use promises::Promises;
pub use renewal::{Rehearsal, Renewal, Stake};
use seated::Seated;
use seats::Seats;
use strangers::Strangers;
use timetable::Timetable;

/// What to do when a principal that has a session opens another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondConnection {
    /// The new one wins: right for a laptop whose old connection died unnoticed.
    #[default]
    Replace,
    /// The old one wins: right where a copied certificate should be noticed.
    Refuse,
}

/// Everything the front desk is made of.
pub struct ReceptionConfig {
    /// Keys and a seed.
    pub keys: EngineKeys,
    /// Limits of this machine.
    pub limits: Limits,
    /// How many engines carry packets: one or more.
    pub engines: u8,
    /// TLS; without mandatory client certificates, who has none may ask for one and nothing else.
    pub tls: Arc<QuicServer>,
    /// The authorities behind the TLS configuration, asked again for the identity.
    pub authorities: Arc<Authorities>,
    /// Policy and leases.
    pub admission: Admission,
    /// MTU of the TUN device.
    pub tunnel_mtu: u16,
    /// Replace or refuse.
    pub second_connection: SecondConnection,
    /// The calendar.
    pub epoch: Epoch,
}

/// What the front desk tells an engine that carries packets, in this order.
pub enum ToEngine {
    /// A session that was admitted.
    Arrival(Box<Arrival>),
    /// A session is to end.
    Dismissal {
        /// Which.
        session: SessionId,
        /// Why.
        kind: RefusalKind,
    },
    /// A session goes on with something else.
    Regrant(Box<Regrant>),
    /// What became of a request for a certificate.
    Certificate {
        /// Whose.
        session: SessionId,
        /// On which stream of its connection.
        stream: u64,
        /// What to answer.
        outcome: Result<Box<Issued>, Refusal>,
    },
    /// The inside is another one.
    Inside {
        /// The gateway's own inner addresses.
        addresses: InsideAddresses,
        /// The MTU of the TUN device.
        tunnel_mtu: u16,
    },
    /// A datagram of a link that has arrived meanwhile.
    Datagram(Datagram),
    /// Another engine has a session with these prefixes.
    Neighbour {
        /// The session's addresses and networks.
        prefixes: Vec<IpNet>,
        /// Which engine.
        engine: u8,
    },
    /// That session is over.
    NeighbourGone {
        /// What it had.
        prefixes: Vec<IpNet>,
        /// Which engine had it.
        engine: u8,
    },
}

/// What an engine tells the front desk.
pub enum ToReception {
    /// A datagram that belongs to no link of the engine.
    Datagram(Datagram),
    /// A session asks for a certificate to follow its own.
    CertificateAsked {
        /// Which.
        session: SessionId,
        /// Whose it is.
        principal: Principal,
        /// Where it is.
        remote: SocketAddr,
        /// On which stream of its connection.
        stream: u64,
        /// What it asks.
        ask: CertificateAsk,
    },
    /// A session is over.
    Ended {
        /// Whose session.
        engine: u8,
        /// Which.
        session: SessionId,
        /// Whose it was.
        principal: Principal,
    },
}

/// What a session has from now on.
pub struct Regrant {
    pub(crate) session: SessionId,
    pub(crate) identity: Identity,
    pub(crate) grant: Grant,
}

/// An admitted session with its link.
pub struct Arrival {
    pub(crate) link: Link<Control>,
    pub(crate) session: Session,
    /// The session that goes on as this one.
    pub(crate) predecessor: Option<SessionId>,
}

/// The front desk.
pub struct Reception {
    links: Links<Control>,
    endpoints: Endpoints,
    server: Arc<ServerConfig>,
    /// Answers what belongs to no connection: stateless resets, version negotiation.
    door: Endpoint,
    control: GatewayControlConfig,
    admission: Admission,
    authorities: Arc<Authorities>,
    second_connection: SecondConnection,
    tunnel_mtu: u16,
    epoch: Epoch,
    next_id: u64,
    sessions: BTreeMap<Principal, Seated>,
    /// Whose session has a prefix, as the engines were told last.
    prefixes: BTreeMap<IpNet, SessionId>,
    /// When which session must be judged again without a reload.
    timetable: Timetable,
    /// Links whose certificate was accepted by authorities that have been replaced since.
    unproven: BTreeSet<Key>,
    seats: Seats,
    /// Links still in their handshake, to be counted against a flood.
    handshakes: BTreeSet<Key>,
    /// Links without a certificate, which can become no session.
    strangers: Strangers,
    /// Wrong codes.
    guesses: Guesses,
    lingering: Lingering,
    /// Requests that wait until it is known what their path carries.
    awaited: Awaited,
    /// Requests that wait until their lease is saved.
    promises: Promises,
    departed: Departed,
    messages: VecDeque<(u8, ToEngine)>,
    events: VecDeque<GatewayEvent>,
    /// Packets of whoever has no session yet.
    counters: Counters,
}

impl Reception {
    /// A front desk that has seen nobody yet.
    #[must_use]
    pub fn new(config: ReceptionConfig) -> Self {
        let server = server_config(config.tls, &config.limits);
        let mut endpoints = Endpoints::new(&config.keys, &config.limits);
        let (door, _) = endpoints.endpoint(0, Some(Arc::clone(&server)));
        Self {
            links: Links::new(),
            endpoints,
            server,
            door,
            control: GatewayControlConfig::default(),
            admission: config.admission,
            authorities: config.authorities,
            second_connection: config.second_connection,
            tunnel_mtu: config.tunnel_mtu,
            epoch: config.epoch,
            next_id: 1,
            sessions: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            timetable: Timetable::default(),
            unproven: BTreeSet::new(),
            seats: Seats::new(config.engines),
            handshakes: BTreeSet::new(),
            strangers: Strangers::default(),
            guesses: Guesses::default(),
            lingering: Lingering::default(),
            awaited: Awaited::default(),
            promises: Promises::default(),
            departed: Departed::default(),
            messages: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// What an engine has to say.
    pub fn handle_message(&mut self, now: Instant, message: ToReception) {
        match message {
            ToReception::Datagram(datagram) => self.handle_datagram(now, datagram),
            ToReception::CertificateAsked {
                session,
                principal,
                remote,
                stream,
                ask,
            } => self.ask_renewal(session, &principal, remote, stream, ask),
            ToReception::Ended {
                engine,
                session,
                principal,
            } => {
                self.seats.leave(engine);
                // A newer session of the same principal has the lease now.
                let is_current = |seated: &Seated| seated.id == session;
                if self.sessions.get(&principal).is_some_and(is_current) {
                    self.unseat(&principal);
                    self.admission.release(&principal, self.epoch.unix(now));
                    self.leases_changed(now);
                }
            }
        }
    }

    /// Fires what is due and looks at every link that something happened to.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.links.handle_timeout(now);
        // Whoever is here has no session.
        self.lingering
            .handle_timeout(now, &mut self.links, |_| false);
        self.departed.forget(now);
        self.regrant(now);
        self.answer_awaited(now);
        let mut notices = Vec::new();
        while let Some(key) = self.links.poll_service(now, &self.control, &mut notices) {
            for notice in notices.drain(..) {
                self.handle_notice(now, key, notice);
            }
            self.drop_packets(now, key);
            self.follow_path(now, key);
            if self.links.get(key).is_none() {
                self.handshakes.remove(&key);
                self.strangers.remove(key);
                self.unproven.remove(&key);
                self.forget_request(now, key);
                self.seats.give_up(key);
            }
        }
    }

    /// The next bytes to send: `buf` holds datagrams of `segment_size` bytes, the last may be shorter.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.links.poll_transmit(now, buf)
    }

    /// The next word to an engine, and to which. Each must hear its own in this order. There is none while one
    /// [waits for the disk](Self::is_holding).
    pub fn poll_message(&mut self) -> Option<(u8, ToEngine)> {
        match self.is_holding() {
            true => None,
            false => self.messages.pop_front(),
        }
    }

    /// The next report for the control plane.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.links.poll_timeout(),
            self.lingering.poll_timeout(),
            self.awaited.poll_timeout(),
            self.promises.poll_timeout(),
            self.departed.poll_timeout(),
            self.timetable.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Refuses whoever is still here: the last thing before the process ends.
    pub fn shutdown(&mut self, now: Instant) {
        let keys: Vec<Key> = self.links.keys().collect();
        let kind = RefusalKind::GatewayShutdown;
        for key in keys {
            self.links.close(now, key, kind.code(), kind.text());
        }
    }

    /// Who holds which address at present, whether it is saved or not.
    #[must_use]
    pub fn leases(&self, now: Instant) -> Vec<LeaseEntry> {
        self.admission.leases().entries(self.epoch.unix(now))
    }

    /// Counts what there is; sessions are counted until the engine reports their end.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            connections: self.links.len(),
            sessions: self.sessions.len(),
            handshakes: self.handshakes.len(),
            prefixes: self.prefixes.len(),
        }
    }

    /// What came from clients without a session, and was dropped for it.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// No packet before identity: what arrives before the admission is not kept for after it.
    fn drop_packets(&mut self, now: Instant, key: Key) {
        while let Some(bytes) = self.links.recv_datagram(key) {
            match datagram::parse(&bytes) {
                Err(error) if error.closes_the_connection() => {
                    let code = adit_core::h3::ErrorCode::Datagram.code();
                    return self.links.close(now, key, code, &error.to_string());
                }
                Ok(_) | Err(_) => self.counters.from_client.drop(DropReason::NotReady),
            }
        }
    }

    fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        let Err(datagram) = self.links.handle_udp(now, datagram) else {
            return;
        };
        let id = cid::destination(&datagram.data);
        if let Some(engine) = id.and_then(|id| self.departed.engine(&id)) {
            let message = ToEngine::Datagram(datagram);
            self.messages.push_back((engine, message));
        } else if is_initial(&datagram.data) {
            self.welcome(now, datagram, id);
        } else {
            let mut buf = Vec::new();
            let Datagram {
                remote,
                local_ip,
                ecn,
                data,
            } = datagram;
            match self.door.handle(now, remote, local_ip, ecn, data, &mut buf) {
                Some(DatagramEvent::Response(transmit)) => self.links.respond(transmit, buf),
                Some(DatagramEvent::NewConnection(incoming)) => self.door.ignore(incoming),
                Some(DatagramEvent::ConnectionEvent(..)) | None => {}
            }
        }
    }

    /// The first packet of somebody who wants to connect.
    fn welcome(&mut self, now: Instant, datagram: Datagram, id: Option<ConnectionId>) {
        let server = Some(Arc::clone(&self.server));
        // The successor of a session takes its engine, where its flows are.
        let placed = id.and_then(|id| self.endpoints.placed(&id));
        let placed = placed.filter(|&engine| self.seats.has(engine));
        let engine = placed.unwrap_or_else(|| self.seats.next());
        let (mut endpoint, issued) = self.endpoints.endpoint(engine, server);
        let mut buf = Vec::new();
        let Datagram {
            remote,
            local_ip,
            ecn,
            data,
        } = datagram;
        let incoming = match endpoint.handle(now, remote, local_ip, ecn, data, &mut buf) {
            Some(DatagramEvent::NewConnection(incoming)) => incoming,
            Some(DatagramEvent::Response(transmit)) => return self.links.respond(transmit, buf),
            Some(DatagramEvent::ConnectionEvent(..)) | None => return,
        };
        let response =
            if self.handshakes.len() >= RETRY_ABOVE && !incoming.remote_address_validated() {
                match endpoint.retry(incoming, &mut buf) {
                    Ok(transmit) => Some(transmit),
                    Err(error) => {
                        endpoint.ignore(error.into_incoming());
                        None
                    }
                }
            } else if self.handshakes.len() >= MAX_HANDSHAKES {
                Some(endpoint.refuse(incoming, &mut buf))
            } else {
                match endpoint.accept(incoming, now, &mut buf, None) {
                    Ok(connection) => {
                        let link = self.endpoints.link(now, endpoint, connection, issued, id);
                        let key = self.links.insert(link);
                        self.handshakes.insert(key);
                        self.seats.reserve(key, engine);
                        None
                    }
                    Err(error) => error.response,
                }
            };
        if let Some(transmit) = response {
            self.links.respond(transmit, buf);
        }
    }

    /// Whatever a link has asked for needs no answer any more.
    fn forget_request(&mut self, now: Instant, key: Key) {
        self.awaited.remove(key);
        self.give_up_waiting(now, key);
    }

    fn handle_notice(&mut self, now: Instant, key: Key, notice: Notice<Report>) {
        match notice {
            Notice::Connected => {
                self.handshakes.remove(&key);
                self.look_at(now, key);
            }
            Notice::Lost(error) => {
                self.forget_request(now, key);
                self.handle_lost(now, key, &error);
            }
            Notice::Report(Report::Requested {
                stream,
                scope,
                handover,
                user_agent,
                ..
            }) => {
                let request = Request {
                    stream,
                    scope,
                    handover,
                    user_agent,
                };
                self.consider(now, key, request);
            }
            Notice::Report(Report::CertificateAsked { stream, ask }) => {
                self.ask_enrolment(now, key, stream, ask);
            }
            Notice::Report(Report::Ended { .. }) => {
                self.forget_request(now, key);
                let kind = RefusalKind::RequestTimeout;
                self.lingering.add(now, &self.links, key, kind);
            }
            // Nothing of a client counts before it is admitted.
            Notice::Report(Report::Packet(_) | Report::PeerAssigned(_) | Report::PeerRoutes(_)) => {
            }
        }
    }
}

fn server_config(tls: Arc<QuicServer>, limits: &Limits) -> Arc<ServerConfig> {
    let mut server = ServerConfig::with_crypto(tls);
    server.transport_config(transport_config(limits));
    Arc::new(server)
}

/// Whether a datagram begins with an Initial packet of QUIC version 1 (RFC 9000 §17.2.2).
fn is_initial(datagram: &[u8]) -> bool {
    matches!(datagram, [first, 0, 0, 0, 1, ..] if first & 0xb0 == 0x80)
}

/// Handshakes in progress above which a client must first prove its address (RFC 9000 §8.1.2).
const RETRY_ABOVE: usize = 64;
/// Handshakes in progress above which new ones are refused: some 20 MiB of state.
const MAX_HANDSHAKES: usize = 1024;
