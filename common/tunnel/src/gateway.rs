//! The gateway's engine: one UDP socket, one TUN queue, any number of admitted sessions.
//!
//! Sessions come from the [`Reception`](crate::Reception), complete with their links. Datagrams that
//! belong to none of them go there. A gateway may have several engines, [`neighbours`] to each other.
//!
//! Contract: after any number of `handle_*` calls, call [`Gateway::handle_timeout`] once and then
//! drain `poll_transmit`, `poll_inside`, `poll_message`, `poll_neighbour` and `poll_event`; sleep
//! until `poll_timeout` or input.
//! Time comes in as an argument and never runs backwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use adit_core::admission::diff::Difference;
use adit_core::close::{Refusal, RefusalKind};
use adit_core::dataplane::gateway::Place;
use adit_core::dataplane::{Counters, Denied, TokenBucket};
use adit_core::flow::RuleAccounts;
use adit_core::session::gateway::{Control, GatewayControlConfig};
use adit_core::table::owners::Owners;
use bytes::Bytes;
use quinn_proto::Transmit;

use crate::chunks::Chunks;
use crate::cid;
use crate::epoch::Epoch;
use crate::holder::Holder;
use crate::linger::Lingering;
use crate::link::Notice;
use crate::links::{Datagram, Key, Links};
use crate::reception::{Arrival, CertificateQuestion, ToEngine, ToReception};

mod certificates;
mod data;
mod denials;
mod handover;
mod inquiry;
mod lifetime;
mod machine;
mod neighbours;
mod report;
mod session;
mod term;

use handover::Tail;
pub use inquiry::{Findings, Inquiry};
pub use neighbours::ToNeighbour;
pub use report::Census;
pub(crate) use report::described;
pub(crate) use session::Session;
pub use session::{SessionId, SessionInfo};

/// The gateway's own addresses inside, the source of ICMP answers to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsideAddresses {
    /// IPv4, if the tunnel carries it.
    pub v4: Option<Ipv4Addr>,
    /// IPv6, if the tunnel carries it.
    pub v6: Option<Ipv6Addr>,
}

impl InsideAddresses {
    /// Both, as far as there are.
    #[must_use]
    pub fn all(&self) -> Vec<IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        let v6 = self.v6.map(IpAddr::V6);
        v4.into_iter().chain(v6).collect()
    }
}

/// Everything a gateway engine is made of.
pub struct GatewayConfig {
    /// The engine's number, which its connection ids begin with: below `engines`.
    pub engine: u8,
    /// How many engines the gateway has.
    pub engines: u8,
    /// The gateway's inner addresses.
    pub inside: InsideAddresses,
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
        /// Whose certificate it was, if one of the authorities signed it. A handshake that is refused is not
        /// proof of having its key.
        holder: Option<Box<Holder>>,
        /// Why.
        refusal: Refusal,
    },
    /// A session goes on over another link of its client, with all it has passed so far.
    HandedOver {
        /// As it is now.
        session: SessionInfo,
        /// Its number before.
        before: SessionId,
        /// The serial number of the certificate it had before.
        serial: String,
    },
    /// A session ended.
    Closed {
        /// Which.
        session: SessionInfo,
        /// What passed in all its time.
        counters: Box<Counters>,
        /// What passed by each rule.
        rules: RuleAccounts,
        /// Why, in words.
        reason: String,
    },
    /// The policy has refused packets of a session, or for it. The first time at once, then at most once a
    /// minute and session.
    Denied {
        /// Which.
        session: SessionInfo,
        /// What packets, and how many.
        denied: Denied,
    },
    /// Somebody asks for a certificate: answer with [`Reception::answer`](crate::Reception::answer).
    CertificateAsked(Box<CertificateQuestion>),
    /// Somebody was not even asked about: too many wrong codes came before.
    GuessRefused {
        /// Where from.
        remote: SocketAddr,
    },
    /// The time has come when the policy says something else.
    Regranted(Box<Difference>),
    /// Whose an inner address is has changed.
    LeasesChanged,
}

/// The gateway's engine.
pub struct Gateway {
    number: u8,
    engines: u8,
    links: Links<Control>,
    control: GatewayControlConfig,
    /// By link key; `None` for links whose session is over.
    sessions: Vec<Option<Session>>,
    by_id: BTreeMap<SessionId, Key>,
    /// Links that sessions have left for others not long ago.
    tails: BTreeMap<Key, Tail>,
    /// Whose every inner address is, on all engines.
    owners: Owners<Place<Key>>,
    inside_addresses: InsideAddresses,
    epoch: Epoch,
    /// Links whose client ended the request: closed when their time to hear of it is over.
    lingering: Lingering,
    timers: BTreeSet<(Instant, Key)>,
    /// Sessions with denied packets to be told, and when.
    denials: BTreeSet<(Instant, Key)>,
    /// When expired flows are looked for; `None` while nothing has passed.
    sweep: Option<Instant>,
    inside: VecDeque<Bytes>,
    /// Where packets from inside are cut, and packets between sessions copied.
    chunks: Chunks,
    messages: VecDeque<ToReception>,
    neighbours: VecDeque<(u8, ToNeighbour)>,
    events: VecDeque<GatewayEvent>,
    /// Packets of sessions that ended, and packets that belong to no session.
    totals: Counters,
    /// Limits the answers to packets from inside that lead to no session.
    answers: TokenBucket,
}

impl Gateway {
    /// A gateway without sessions.
    #[must_use]
    pub fn new(config: GatewayConfig) -> Self {
        Self {
            number: config.engine,
            engines: config.engines,
            links: Links::new(),
            control: GatewayControlConfig::default(),
            sessions: Vec::new(),
            by_id: BTreeMap::new(),
            tails: BTreeMap::new(),
            owners: Owners::new(),
            inside_addresses: config.inside,
            epoch: config.epoch,
            lingering: Lingering::default(),
            timers: BTreeSet::new(),
            denials: BTreeSet::new(),
            sweep: None,
            inside: VecDeque::new(),
            chunks: Chunks::default(),
            messages: VecDeque::new(),
            neighbours: VecDeque::new(),
            events: VecDeque::new(),
            totals: Counters::default(),
            answers: session::answer_limit(config.epoch.instant()),
        }
    }

    /// One UDP datagram from outside.
    pub fn handle_udp(&mut self, now: Instant, datagram: Datagram) {
        if let Err(datagram) = self.links.handle_udp(now, datagram) {
            match cid::engine(&datagram.data).filter(|&engine| self.is_neighbour(engine)) {
                Some(engine) => {
                    let message = ToNeighbour::Datagram(datagram);
                    self.neighbours.push_back((engine, message));
                }
                None => self.messages.push_back(ToReception::Datagram(datagram)),
            }
        }
    }

    /// What the front desk has to say.
    pub fn handle_message(&mut self, now: Instant, message: ToEngine) {
        match message {
            ToEngine::Arrival(arrival) => {
                let Arrival {
                    link,
                    session,
                    predecessor,
                } = *arrival;
                match predecessor {
                    Some(id) => self.hand_over(now, id, link, session),
                    None => self.open(link, session),
                }
            }
            ToEngine::Dismissal { session, kind } => {
                if let Some(&key) = self.by_id.get(&session) {
                    self.end(now, key, kind);
                }
            }
            ToEngine::Regrant(regrant) => {
                self.regrant(now, *regrant);
            }
            ToEngine::Certificate {
                session,
                stream,
                outcome,
            } => self.answer_certificate(session, stream, outcome),
            ToEngine::Inside {
                addresses,
                tunnel_mtu,
            } => {
                self.inside_addresses = addresses;
                for session in self.sessions.iter_mut().flatten() {
                    session.mtu.set_tunnel_mtu(now, tunnel_mtu);
                }
            }
            // It came too late for a link that has come and gone.
            ToEngine::Datagram(datagram) => drop(self.links.handle_udp(now, datagram)),
            ToEngine::Neighbour { prefixes, engine } => {
                for prefix in prefixes {
                    self.owners.insert(prefix, Place::There(engine));
                }
            }
            ToEngine::NeighbourGone { prefixes, engine } => {
                for prefix in prefixes {
                    self.owners.remove(&prefix, Place::There(engine));
                }
            }
        }
    }

    /// Fires what is due and looks at every link that something happened to.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.links.handle_timeout(now);
        self.lingering.handle_timeout(now, &mut self.links, |key| {
            self.sessions.get(key).is_some_and(Option::is_some)
        });
        while let Some(&(due, key)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            self.handle_session_timeout(now, key);
            self.handle_tail_timeout(now, key);
        }
        self.tell_denials(now);
        self.sweep(now);
        let mut notices = Vec::new();
        while let Some(key) = self.links.poll_service(now, &self.control, &mut notices) {
            for notice in notices.drain(..) {
                self.handle_notice(now, key, notice);
            }
            self.receive_datagrams(now, key);
            self.follow_path(now, key);
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

    /// The next word to the front desk.
    pub fn poll_message(&mut self) -> Option<ToReception> {
        self.messages.pop_front()
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
            self.lingering.poll_timeout(),
            self.denials.first().map(|(due, _)| *due),
            self.sweep,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends every session: the last thing before the process ends.
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

    fn handle_notice(
        &mut self,
        now: Instant,
        key: Key,
        notice: Notice<adit_core::session::gateway::GatewayEvent>,
    ) {
        use adit_core::session::gateway::GatewayEvent as Report;
        match notice {
            // Links arrive connected.
            Notice::Connected => {}
            Notice::Lost(error) => {
                self.forget_tail(key);
                self.forget_session(now, key, &error.to_string());
            }
            // One tunnel per connection; the next one is another connection's.
            Notice::Report(Report::Requested { .. }) => {
                let refusal = Refusal::new(RefusalKind::SecondRequest, "");
                if let Some(machine) = self.links.touch(key).and_then(|link| link.machine.as_mut())
                {
                    machine.refuse(&refusal);
                }
            }
            Notice::Report(Report::Ended { reason }) => {
                self.forget_session(now, key, &reason);
                let kind = RefusalKind::RequestTimeout;
                self.lingering.add(now, &self.links, key, kind);
            }
            Notice::Report(Report::CertificateAsked { stream, ask }) => {
                self.ask_certificate(key, stream, ask);
            }
            Notice::Report(Report::Packet(packet)) => {
                let key = self.carried(key).map_or(key, |(session, _)| session);
                self.receive_packet(now, key, packet);
            }
            // A client may tell what lies behind it; what it may use is the policy's to say.
            Notice::Report(Report::PeerAssigned(_) | Report::PeerRoutes(_)) => {}
        }
    }

    fn session(&self, key: Key) -> Option<&Session> {
        self.sessions.get(key)?.as_ref()
    }
}
