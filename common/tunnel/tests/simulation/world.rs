//! A gateway and its clients on a virtual clock, joined by bad paths.
//!
//! ```text
//!   client 0  198.18.0.1 ────┐
//!   client 1  198.18.0.2 ────┼── path (per client, both directions) ── gateway 203.0.113.1:443
//!   …                        ┘                                         inside: 10.0.0.0/16, fd00:1::/64
//! ```
//!
//! Nothing sleeps: time jumps to the next delivery or deadline.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::admission::Admission;
use adit_core::admission::diff::Difference;
use adit_core::policy::Policy;
use adit_core::session::UserAgent;
use adit_core::table::leases::LeaseEntry;
use adit_tunnel::tls::{
    self, Algorithms, Authorities, Authority, ClientAuth, Credentials, CrlPolicy, GatewayKey,
    GatewayVerifier, QuicClient,
};
use adit_tunnel::{
    Client, ClientConfig, ClientEvent, Datagram, EngineKeys, Epoch, GatewayConfig, GatewayEvent,
    HEADROOM, InsideAddresses, Limits, Offload, ReceptionConfig, Renewal, SecondConnection,
};
use bytes::BytesMut;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::time_provider::TimeProvider;

use super::house::{Disk, House};
use super::link::{Conditions, Path};
use super::newcomer::Newcomer;
use super::pki::Pki;

/// 2026-01-01T00:00:00Z, where every simulated calendar starts.
pub const START: i64 = 1_767_225_600;

pub struct World {
    pub now: Instant,
    pub epoch: Epoch,
    pub gateway: Option<House>,
    pub gateway_events: Vec<GatewayEvent>,
    /// Packets that left the gateway towards the office.
    pub office: Vec<Vec<u8>>,
    pub clients: Vec<Host>,
    /// Machines that have no certificate yet, each on a clean path.
    pub newcomers: Vec<Newcomer>,
    policy: Arc<Policy>,
    pki: Pki,
    /// Who vouches for clients.
    pub authorities: Vec<Pki>,
    /// Whether a client may come without a certificate.
    pub client_auth: ClientAuth,
    /// What the first of them revoked.
    pub revoked: Revoked,
    /// Who issued the gateway's certificate.
    pub issuer: Pki,
    second_connection: SecondConnection,
    engines: u8,
    deliveries: BinaryHeap<Reverse<Delivery>>,
    sequence: u64,
    incarnation: u8,
}

/// Revocation lists, each with the intermediates beside it.
#[derive(Clone, Default)]
pub struct Revoked {
    pub policy: CrlPolicy,
    pub lists: Vec<(
        CertificateRevocationListDer<'static>,
        Vec<CertificateDer<'static>>,
    )>,
}

/// A client machine.
pub struct Host {
    pub engine: Client,
    pub address: SocketAddr,
    pub path: Path,
    pub events: Vec<ClientEvent>,
    /// Packets that came out of the tunnel.
    pub received: Vec<Vec<u8>>,
    /// Whether the network carries anything at all.
    pub online: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delivery {
    at: Instant,
    sequence: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// The calendar of certificates, fixed: simulated sessions are short.
#[derive(Debug)]
pub struct Calendar;

impl TimeProvider for Calendar {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(
            START as u64,
        )))
    }
}

impl World {
    /// With so many engines.
    pub fn new(policy: &str, engines: u8) -> Self {
        Self::with(policy, SecondConnection::Replace, engines)
    }

    pub fn with(policy: &str, second_connection: SecondConnection, engines: u8) -> Self {
        let now = Instant::now();
        let mut world = Self {
            now,
            epoch: Epoch::new(now, START),
            gateway: None,
            gateway_events: Vec::new(),
            office: Vec::new(),
            clients: Vec::new(),
            policy: Arc::new(Policy::parse(policy, "policy.toml").unwrap()),
            pki: Pki::shared(),
            authorities: vec![Pki::shared()],
            client_auth: ClientAuth::Mandatory,
            revoked: Revoked::default(),
            newcomers: Vec::new(),
            issuer: Pki::shared(),
            second_connection,
            engines,
            deliveries: BinaryHeap::new(),
            sequence: 0,
            incarnation: 0,
        };
        world.start_gateway(Disk::default());
        world
    }

    fn start_gateway(&mut self, disk: Disk) {
        self.incarnation += 1;
        let Renewal {
            tls,
            authorities,
            policy,
            inside,
            limits,
            tunnel_mtu,
            second_connection,
        } = self.renewal();
        let admission = Admission::new(policy, &inside.all());
        let reception = ReceptionConfig {
            keys: keys(0, self.incarnation),
            limits,
            engines: self.engines,
            tls,
            authorities,
            admission,
            tunnel_mtu,
            second_connection,
            epoch: self.epoch,
        };
        let engine = |engine| GatewayConfig {
            engine,
            engines: self.engines,
            inside,
            epoch: self.epoch,
        };
        let engines = (0..self.engines).map(engine).collect();
        let seed = self.incarnation.into();
        self.gateway = Some(House::new(reception, engines, disk, seed));
    }

    /// What the gateway is made of at present.
    pub fn renewal(&self) -> Renewal {
        let algorithms = Algorithms::for_this_cpu();
        let provider = Arc::new(algorithms.provider());
        let authority =
            |pki: &Pki| Authority::new(pki.rule(), vec![pki.anchor()], &provider).unwrap();
        let mut authorities: Vec<Authority> = self.authorities.iter().map(authority).collect();
        if let Some(first) = authorities.first_mut() {
            let lists = self.revoked.lists.iter();
            let lists = lists.map(|(list, beside)| first.read_list(list.clone(), beside).unwrap());
            *first = first
                .revoking(self.revoked.policy, lists.collect())
                .unwrap();
        }
        let authorities = Arc::new(Authorities::new(authorities, self.client_auth));
        let credentials = self.issuer.gateway();
        let tls = tls::gateway_config(algorithms, credentials, &authorities, Arc::new(Calendar));
        Renewal {
            tls: tls.unwrap(),
            authorities,
            policy: Arc::clone(&self.policy),
            inside: InsideAddresses {
                v4: Some("10.99.0.1".parse().unwrap()),
                v6: Some("fd00:ad17::1".parse().unwrap()),
            },
            limits: limits(None),
            tunnel_mtu: 1400,
            second_connection: self.second_connection,
        }
    }

    /// The gateway goes over to another policy.
    // Not asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn reload(&mut self, policy: &str) -> Difference {
        self.policy = Arc::new(Policy::parse(policy, "policy.toml").unwrap());
        let (now, renewal) = (self.now, self.renewal());
        let rehearsed = self.gateway().rehearse(now, &renewal);
        let difference = self.gateway().reload(now, renewal);
        assert_eq!(rehearsed, difference, "a dry run tells the truth");
        difference
    }

    /// Adds a client with a certificate for `principal`; it starts to dial.
    pub fn add_client(&mut self, principal: &str, conditions: Conditions, seed: u64) -> usize {
        let credentials = self.pki.client(principal);
        self.add_client_with(credentials, conditions, seed)
    }

    /// Adds clients on clean paths and waits for the session of each; they connect one after the other.
    pub fn connect<const N: usize>(&mut self, principals: [&str; N]) -> [(usize, IpAddr); N] {
        principals.map(|principal| {
            let client = self.add_client(principal, Conditions::CLEAN, 1);
            let ready = |world: &Self| world.clients[client].is_ready();
            assert!(self.run_until(SESSION, ready), "{principal}");
            (client, self.clients[client].v4().unwrap())
        })
    }

    /// The same, and waits for IPv6 too.
    pub fn connect_in_both<const N: usize>(&mut self, principals: [&str; N]) -> [usize; N] {
        principals.map(|principal| {
            let client = self.add_client(principal, Conditions::CLEAN, 1);
            let ready = |world: &Self| {
                let host = &world.clients[client];
                host.v4().is_some() && host.v6().is_some()
            };
            assert!(
                self.run_until(SESSION, ready),
                "{principal} did not get both families: {:?}",
                self.clients[client].events
            );
            client
        })
    }

    pub fn add_client_with(
        &mut self,
        credentials: Credentials,
        conditions: Conditions,
        seed: u64,
    ) -> usize {
        self.add_client_trusting(self.pki, credentials, conditions, seed)
    }

    /// A client that believes another authority about the gateway.
    pub fn add_client_trusting(
        &mut self,
        trusted: Pki,
        credentials: Credentials,
        conditions: Conditions,
        seed: u64,
    ) -> usize {
        self.add_client_speaking(client_tls(trusted, credentials), conditions, seed)
    }

    /// TLS of a machine without a certificate that knows the gateway by its key.
    // Not asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn pinned_tls(&self) -> Arc<QuicClient> {
        let key = GatewayKey::of_certificate(&self.issuer.gateway().chain[0]).unwrap();
        tls::enrolment_config(Algorithms::for_this_cpu(), key, Arc::new(Calendar)).unwrap()
    }

    pub fn add_client_speaking(
        &mut self,
        tls: Arc<QuicClient>,
        conditions: Conditions,
        seed: u64,
    ) -> usize {
        let index = self.clients.len();
        let number = index as u16 + 1;
        let [high, low] = number.to_be_bytes();
        let engine = Client::new(
            self.now,
            ClientConfig {
                keys: keys(number, seed as u8),
                limits: limits(Some(Duration::from_secs(10))),
                tls,
                server_name: "vpn.example.com".to_owned(),
                authority: "vpn.example.com".to_owned(),
                user_agent: Some(UserAgent::of_host("0.1.0", "linux", "laptop")),
                tunnel_mtu: 1400,
            },
        );
        self.clients.push(Host {
            engine,
            address: SocketAddr::from(([198, 18, high, low], 40_000)),
            path: Path::new(conditions, seed),
            events: Vec::new(),
            received: Vec::new(),
            online: true,
        });
        index
    }

    /// The client finds a renewed certificate.
    // Not asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn renew(&mut self, client: usize, credentials: Credentials) {
        let tls = client_tls(self.pki, credentials);
        self.clients[client].engine.renew(self.now, tls);
    }

    /// kill -9 and a new start: what is on the disk survives, nothing else does.
    pub fn restart_gateway(&mut self) {
        let disk = self.gateway.take().unwrap().disk;
        self.start_gateway(disk);
    }

    /// The same, with another number of engines.
    pub fn restart_gateway_with(&mut self, engines: u8) {
        self.engines = engines;
        self.restart_gateway();
    }

    /// The client appears behind another outer address, as after a NAT rebinding.
    pub fn move_client(&mut self, client: usize, address: SocketAddr) {
        self.clients[client].address = address;
    }

    /// Who holds which address, as far as the gateway knows.
    // Not asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn leases(&self) -> Vec<LeaseEntry> {
        self.house().leases(self.now)
    }

    #[allow(dead_code)]
    pub fn house(&self) -> &House {
        self.gateway.as_ref().unwrap()
    }

    pub fn gateway(&mut self) -> &mut House {
        self.gateway.as_mut().unwrap()
    }

    /// A packet from a client's applications.
    pub fn send_from_client(&mut self, client: usize, packet: &[u8]) {
        let now = self.now;
        self.clients[client]
            .engine
            .handle_inside(now, with_headroom(packet), Offload::None);
    }

    /// A packet from the office.
    pub fn send_from_office(&mut self, packet: &[u8]) {
        let now = self.now;
        self.gateway()
            .handle_inside(now, with_headroom(packet), Offload::None);
    }

    /// Runs until `done` or until `limit` has passed; says which.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut idle = 0;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            match self.next_instant() {
                Some(next) if next <= end => {
                    idle = if next > self.now { 0 } else { idle + 1 };
                    assert!(idle < 10_000, "somebody wants a turn again and again");
                    self.now = next.max(self.now);
                }
                _ => {
                    self.now = end;
                    self.settle();
                    return done(self);
                }
            }
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn next_instant(&self) -> Option<Instant> {
        let delivery = self.deliveries.peek().map(|Reverse(next)| next.at);
        let gateway = self.gateway.as_ref().and_then(House::poll_timeout);
        let clients = self
            .clients
            .iter()
            .filter_map(|host| host.engine.poll_timeout());
        let newcomers = self.newcomers.iter().filter_map(Newcomer::poll_timeout);
        let gateway = gateway.into_iter().chain(newcomers);
        delivery.into_iter().chain(gateway).chain(clients).min()
    }

    /// Everything that is due at this instant.
    fn settle(&mut self) {
        let now = self.now;
        while let Some(Reverse(next)) = self.deliveries.peek() {
            if next.at > now {
                break;
            }
            let Reverse(Delivery {
                from, to, bytes, ..
            }) = self.deliveries.pop().unwrap();
            let datagram = Datagram {
                remote: from,
                local_ip: None,
                ecn: None,
                data: BytesMut::from(bytes.as_slice()),
            };
            if to == GATEWAY.parse().unwrap() {
                if let Some(gateway) = &mut self.gateway {
                    gateway.handle_udp(now, datagram);
                }
            } else if let Some(newcomer) = self.newcomers.iter_mut().find(|n| n.address == to) {
                newcomer.engine.handle_udp(now, datagram);
            } else if let Some(host) = self.clients.iter_mut().find(|host| host.address == to) {
                host.engine.handle_udp(now, datagram);
            }
        }
        let mut buf = Vec::new();
        let mut out = Vec::new();
        if let Some(gateway) = &mut self.gateway {
            gateway.handle_timeout(now);
            while let Some(transmit) = gateway.poll_transmit(now, &mut buf) {
                let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
                for datagram in buf[..transmit.size].chunks(segment) {
                    out.push((
                        GATEWAY.parse().unwrap(),
                        transmit.destination,
                        datagram.to_vec(),
                    ));
                }
            }
            while let Some(packet) = gateway.poll_inside() {
                self.office.push(packet.to_vec());
            }
            while let Some(event) = gateway.poll_event() {
                self.gateway_events.push(event);
            }
        }
        for host in &mut self.clients {
            host.engine.handle_timeout(now);
            let mut dial = false;
            while let Some(event) = host.engine.poll_event() {
                dial |= matches!(event, ClientEvent::NeedAddresses);
                host.events.push(event);
            }
            if dial {
                host.engine
                    .set_gateways(now, vec![GATEWAY.parse().unwrap()]);
                while let Some(event) = host.engine.poll_event() {
                    host.events.push(event);
                }
            }
            while let Some(transmit) = host.engine.poll_transmit(now, &mut buf) {
                let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
                for datagram in buf[..transmit.size].chunks(segment) {
                    out.push((host.address, transmit.destination, datagram.to_vec()));
                }
            }
            while let Some(packet) = host.engine.poll_inside() {
                host.received.push(packet.to_vec());
            }
        }
        for newcomer in &mut self.newcomers {
            for (to, bytes) in newcomer.turn(now) {
                out.push((newcomer.address, to, bytes));
            }
        }
        for (from, to, bytes) in out {
            if let Some(newcomer) = self
                .newcomers
                .iter()
                .find(|newcomer| newcomer.address == from || newcomer.address == to)
            {
                if newcomer.online {
                    self.sequence += 1;
                    self.deliveries.push(Reverse(Delivery {
                        at: now + Conditions::CLEAN.delay,
                        sequence: self.sequence,
                        from,
                        to,
                        bytes,
                    }));
                }
                continue;
            }
            let host = self
                .clients
                .iter_mut()
                .find(|host| host.address == from || host.address == to);
            let Some(host) = host.filter(|host| host.online) else {
                continue;
            };
            for delay in host.path.carry(bytes.len()) {
                self.sequence += 1;
                self.deliveries.push(Reverse(Delivery {
                    at: now + delay,
                    sequence: self.sequence,
                    from,
                    to,
                    bytes: bytes.clone(),
                }));
            }
        }
    }
}

impl Host {
    /// The addresses assigned last.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.engine
            .assignment()
            .map(|assignment| assignment.addresses.iter().map(|net| net.addr()).collect())
            .unwrap_or_default()
    }

    /// The numbers of the packets that came out of the tunnel.
    pub fn numbers(&self) -> Vec<u64> {
        let packets = self.received.iter();
        packets
            .filter_map(|packet| super::packets::number(packet))
            .collect()
    }

    pub fn v4(&self) -> Option<IpAddr> {
        self.addresses().into_iter().find(IpAddr::is_ipv4)
    }

    pub fn v6(&self) -> Option<IpAddr> {
        self.addresses().into_iter().find(IpAddr::is_ipv6)
    }

    pub fn is_ready(&self) -> bool {
        self.v4().is_some()
    }
}

fn client_tls(trusted: Pki, credentials: Credentials) -> Arc<QuicClient> {
    let algorithms = Algorithms::for_this_cpu();
    let provider = Arc::new(algorithms.provider());
    let verifier = GatewayVerifier::new(vec![trusted.anchor()], &provider).unwrap();
    tls::client_config(algorithms, credentials, verifier, Arc::new(Calendar)).unwrap()
}

fn with_headroom(packet: &[u8]) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(HEADROOM + packet.len());
    buffer.resize(HEADROOM, 0);
    buffer.extend_from_slice(packet);
    buffer
}

pub fn keys(host: u16, incarnation: u8) -> EngineKeys {
    let [high, low] = host.to_be_bytes();
    let mut seed = [0; 32];
    seed[..3].copy_from_slice(&[low, incarnation, high]);
    EngineKeys {
        cid_key: [low; 32],
        reset_key: [low; 32],
        seed,
    }
}

pub fn limits(keep_alive: Option<Duration>) -> Limits {
    Limits {
        max_udp_payload: 1472,
        idle_timeout: Duration::from_secs(30),
        keep_alive,
    }
}

pub const GATEWAY: &str = "203.0.113.1:443";

/// More than a client on a clean path takes to get what it is given.
const SESSION: Duration = Duration::from_secs(5);
