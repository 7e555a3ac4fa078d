//! The gateway's engine: one UDP socket, one TUN queue, any number of sessions.
//!
//! Contract: after any number of `handle_*` calls, call [`Gateway::handle_timeout`] once and then
//! drain `poll_transmit`, `poll_inside` and `poll_event`; sleep until `poll_timeout` or input.
//! Time comes in as an argument and never runs backwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::admission::Admission;
use adit_core::close::{Refusal, RefusalKind};
use adit_core::dataplane::{Counters, TokenBucket};
use adit_core::identity::Principal;
use adit_core::session::gateway::{Control, GatewayControlConfig};
use adit_core::table::leases::LeaseEntry;
use adit_core::table::owners::Owners;
use bytes::{Bytes, BytesMut};
use quinn_proto::{EcnCodepoint, ServerConfig, Transmit};

use crate::chunks::Chunks;
use crate::epoch::Epoch;
use crate::link::Notice;
use crate::links::{Key, Links, Routed};
use crate::tls::{Authorities, QuicServer};
use crate::transport::{EngineKeys, Limits, endpoint_config, transport_config};

mod admit;
mod data;
mod machine;
mod report;
mod session;

pub use report::Census;
pub(crate) use report::{described, shown};
use session::Session;
pub use session::{SessionId, SessionInfo};

/// What to do when a principal that has a session opens another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondConnection {
    /// The new one wins: right for a laptop whose old connection died unnoticed.
    #[default]
    Replace,
    /// The old one wins: right where a copied certificate should be noticed.
    Refuse,
}

/// The gateway's own addresses inside, the source of ICMP answers to clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct InsideAddresses {
    /// IPv4, if the tunnel carries it.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, if the tunnel carries it.
    pub v6: Option<Ipv6Addr>,
}

/// Everything a gateway engine is made of.
pub struct GatewayConfig {
    /// Keys and the engine's number.
    pub keys: EngineKeys,
    /// Limits of this machine.
    pub limits: Limits,
    /// TLS with mandatory client certificates.
    pub tls: Arc<QuicServer>,
    /// The authorities behind the TLS configuration, asked again for the identity.
    pub authorities: Arc<Authorities>,
    /// Policy and leases.
    pub admission: Admission,
    /// The gateway's inner addresses.
    pub inside: InsideAddresses,
    /// MTU of the TUN device.
    pub tunnel_mtu: u16,
    /// Replace or refuse.
    pub second_connection: SecondConnection,
    /// The calendar.
    pub epoch: Epoch,
}

/// What the gateway reports to its control plane.
#[derive(Debug)]
pub enum GatewayEvent {
    /// A session carries packets.
    Opened(SessionInfo),
    /// Somebody was refused.
    Refused {
        /// Where from.
        remote: SocketAddr,
        /// Whose certificate it was, as far as it could be read.
        principal: Option<Principal>,
        /// Why.
        refusal: Refusal,
    },
    /// A session ended; its counters are final.
    Closed {
        /// Which.
        session: SessionInfo,
        /// Why, in words.
        reason: String,
    },
    /// The lease table changed and should be saved.
    LeasesChanged,
}

/// The gateway's engine.
pub struct Gateway {
    links: Links<Control>,
    control: GatewayControlConfig,
    /// By link key; `None` for links without an admitted session.
    sessions: Vec<Option<Session>>,
    by_principal: BTreeMap<Principal, Key>,
    owners: Owners<Key>,
    admission: Admission,
    authorities: Arc<Authorities>,
    inside_addresses: InsideAddresses,
    second_connection: SecondConnection,
    tunnel_mtu: u16,
    epoch: Epoch,
    next_id: u64,
    /// Links still in their handshake, to be counted against a flood.
    handshakes: BTreeSet<Key>,
    /// Refused links that are closed when their time to read the refusal is over.
    lingering: BTreeMap<(Instant, Key), Lingering>,
    timers: BTreeSet<(Instant, Key)>,
    inside: VecDeque<Bytes>,
    /// Where packets from inside are cut.
    chunks: Chunks,
    events: VecDeque<GatewayEvent>,
    /// Packets of sessions that ended, and packets that belong to no session.
    totals: Counters,
    /// Limits the answers to packets from inside that lead to no session.
    answers: TokenBucket,
}

/// A link that is closed soon, unless another took its place.
struct Lingering {
    serial: u64,
    kind: RefusalKind,
}

impl Gateway {
    /// A gateway without sessions.
    #[must_use]
    pub fn new(config: GatewayConfig) -> Self {
        let mut server = ServerConfig::with_crypto(config.tls);
        server
            .transport_config(transport_config(&config.limits))
            .max_incoming(MAX_HANDSHAKES);
        let endpoint = endpoint_config(&config.keys, &config.limits);
        Self {
            links: Links::new(endpoint, Some(Arc::new(server))),
            control: GatewayControlConfig::default(),
            sessions: Vec::new(),
            by_principal: BTreeMap::new(),
            owners: Owners::new(),
            admission: config.admission,
            authorities: config.authorities,
            inside_addresses: config.inside,
            second_connection: config.second_connection,
            tunnel_mtu: config.tunnel_mtu,
            epoch: config.epoch,
            next_id: 1,
            handshakes: BTreeSet::new(),
            lingering: BTreeMap::new(),
            timers: BTreeSet::new(),
            inside: VecDeque::new(),
            chunks: Chunks::default(),
            events: VecDeque::new(),
            totals: Counters::default(),
            answers: session::answer_limit(config.epoch.instant()),
        }
    }

    /// One UDP datagram from outside.
    pub fn handle_udp(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        datagram: BytesMut,
    ) {
        let incoming = match self.links.handle_udp(now, remote, local_ip, ecn, datagram) {
            Routed::New(incoming) => *incoming,
            Routed::Known | Routed::Done => return,
        };
        if self.handshakes.len() >= RETRY_ABOVE && !incoming.remote_address_validated() {
            self.links.retry(incoming);
        } else if self.handshakes.len() >= MAX_HANDSHAKES {
            self.links.refuse(incoming);
        } else if let Some(key) = self.links.accept(now, incoming) {
            self.handshakes.insert(key);
        }
    }

    /// Fires what is due and looks at every link that something happened to.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.links.handle_timeout(now);
        self.close_lingering(now);
        while let Some(&(due, key)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            self.handle_session_timeout(now, key);
        }
        let mut notices = Vec::new();
        while let Some(key) = self.links.poll_service(now, &self.control, &mut notices) {
            for notice in notices.drain(..) {
                self.handle_notice(now, key, notice);
            }
            self.receive_datagrams(now, key);
            self.follow_path(now, key);
            if self.links.get(key).is_none() {
                self.handshakes.remove(&key);
            }
        }
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
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.links.poll_timeout(),
            self.timers.first().map(|(due, _)| *due),
            self.lingering.keys().next().map(|(due, _)| *due),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends every session and refuses new ones: the last thing before the process ends.
    pub fn shutdown(&mut self, now: Instant) {
        let keys: Vec<Key> = self.links.keys().collect();
        // RFC 9114 §5.2: GOAWAY first, so that a client of any make knows it did nothing wrong.
        for &key in &keys {
            if let Some(machine) = self.links.touch(key).and_then(|link| link.machine.as_mut()) {
                machine.shutdown();
            }
        }
        self.handle_timeout(now);
        self.links.set_aside_transmits(now);
        for key in keys {
            self.end(now, key, RefusalKind::GatewayShutdown);
        }
    }

    /// The lease table, to be saved.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseEntry> {
        self.admission.leases()
    }

    fn handle_notice(
        &mut self,
        now: Instant,
        key: Key,
        notice: Notice<adit_core::session::gateway::GatewayEvent>,
    ) {
        use adit_core::session::gateway::GatewayEvent as Report;
        match notice {
            Notice::Connected => {
                self.handshakes.remove(&key);
            }
            Notice::Lost(error) => self.handle_lost(now, key, &error),
            Notice::Report(Report::Requested { stream, scope, .. }) => {
                self.admit(now, key, stream, scope);
            }
            Notice::Report(Report::Ended { reason }) => {
                self.forget_session(now, key, &reason);
                self.linger(now, key, RefusalKind::RequestTimeout);
            }
            Notice::Report(Report::Packet(packet)) => self.receive_packet(now, key, packet),
            // A client may tell what lies behind it; what it may use is the policy's to say.
            Notice::Report(Report::PeerAssigned(_) | Report::PeerRoutes(_)) => {}
        }
    }

    /// Gives a link without a session a little time, then closes it for `kind`.
    fn linger(&mut self, now: Instant, key: Key, kind: RefusalKind) {
        if let Some(link) = self.links.get(key) {
            let serial = link.serial;
            self.lingering
                .insert((now + REFUSAL_LINGER, key), Lingering { serial, kind });
        }
    }

    fn session(&self, key: Key) -> Option<&Session> {
        self.sessions.get(key)?.as_ref()
    }
}

/// How long a refused client has to read the refusal before the connection is closed.
const REFUSAL_LINGER: Duration = Duration::from_secs(2);
/// Handshakes in progress above which a client must first prove its address (RFC 9000 §8.1.2).
const RETRY_ABOVE: usize = 64;
/// Handshakes in progress above which new ones are refused: some 20 MiB of state.
const MAX_HANDSHAKES: usize = 1024;
