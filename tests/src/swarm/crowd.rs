//! The swarm's thread: engines, sockets, and one loop over all of them.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use adit_core::close::RefusalKind;
use adit_tunnel::tls::QuicClient;
use adit_tunnel::{Client, ClientConfig, ClientEvent, Datagram, EngineKeys, Limits};
use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use ipnet::IpNet;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Arrival, Told};
use crate::lab::Namespace;
use crate::programs::SERVER_NAME;

/// What happened besides success.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Attempts that failed, and sessions that were lost; the clients tried again.
    pub lost: usize,
    /// Why clients that were up stopped for good.
    pub stopped: Vec<RefusalKind>,
}

/// All clients of a swarm.
pub(super) struct Crowd {
    members: Vec<Member>,
    gateway: SocketAddr,
    at_once: usize,
    told: Told,
    epoll: OwnedFd,
    /// When each member needs a look.
    timers: BTreeSet<(Instant, usize)>,
    /// How many have been told to connect.
    called: usize,
    up: usize,
    outcome: Outcome,
    batch: Vec<u8>,
}

struct Member {
    engine: Client,
    socket: UdpSocket,
    timeout: Option<Instant>,
    dialled: Option<Instant>,
    up: bool,
}

impl Crowd {
    /// Everybody, with sockets in `namespace`; nobody connects yet.
    pub(super) fn new(
        namespace: &Namespace,
        members: &[Arc<QuicClient>],
        gateway: SocketAddr,
        at_once: usize,
        told: Told,
    ) -> Result<Self> {
        // A descriptor each; what a shell allows by default is less than a thousand clients need.
        let limit = getrlimit(Resource::Nofile);
        let current = limit.maximum;
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
        let sockets = namespace
            .run(|| {
                let sockets = members.iter().map(|_| socket(gateway));
                sockets.collect::<io::Result<Vec<_>>>()
            })
            .with_context(|| format!("no sockets for {} clients", members.len()))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now = Instant::now();
        let nothing = vec![BTreeSet::new(); members.len()];
        *told.lock().unwrap_or_else(PoisonError::into_inner) = nothing;
        let mut crowd = Self {
            members: Vec::with_capacity(members.len()),
            gateway,
            at_once,
            told,
            epoll,
            timers: BTreeSet::new(),
            called: 0,
            up: 0,
            outcome: Outcome::default(),
            batch: Vec::new(),
        };
        for (number, (tls, socket)) in members.iter().zip(sockets).enumerate() {
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&crowd.epoll, &socket, data, epoll::EventFlags::IN)?;
            crowd.members.push(Member {
                engine: Client::new(now, config(Arc::clone(tls))),
                socket,
                timeout: None,
                dialled: None,
                up: false,
            });
        }
        Ok(crowd)
    }

    /// Connects everybody and keeps them until `stop`; `arrivals` hears of whoever is up for the first time.
    pub(super) fn run(&mut self, stop: &AtomicBool, arrivals: &Sender<Arrival>) -> Result<Outcome> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut datagram = vec![0; DATAGRAM];
        while !stop.load(Ordering::Relaxed) {
            if self.called < self.members.len() && self.called - self.up < self.at_once {
                let number = self.called;
                self.called += 1;
                self.look_after(Instant::now(), number, arrivals)?;
            }
            let now = Instant::now();
            while let Some(&(due, number)) = self.timers.first() {
                if due > now {
                    break;
                }
                self.timers.pop_first();
                self.members[number].timeout = None;
                self.look_after(now, number, arrivals)?;
            }
            events.clear();
            let wait = Timespec::try_from(self.wait(Instant::now()))?;
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&wait),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let number = event.data.u64() as usize;
                self.receive(number, &mut datagram);
                self.look_after(Instant::now(), number, arrivals)?;
            }
        }
        let now = Instant::now();
        for member in &mut self.members {
            member.engine.shutdown(now);
            send(member, now, &mut self.batch);
        }
        Ok(std::mem::take(&mut self.outcome))
    }

    /// Until the next deadline; not at all while somebody may still dial.
    fn wait(&self, now: Instant) -> Duration {
        if self.called < self.members.len() && self.called - self.up < self.at_once {
            return Duration::ZERO;
        }
        let next = self.timers.first();
        next.map_or(SLICE, |(due, _)| {
            due.saturating_duration_since(now).min(SLICE)
        })
    }

    fn receive(&mut self, number: usize, buffer: &mut [u8]) {
        let member = &mut self.members[number];
        // An error here is an empty socket, or an ICMP message about an earlier datagram: QUIC has timers.
        while let Ok(length) = member.socket.recv(buffer) {
            let datagram = Datagram {
                remote: self.gateway,
                local_ip: None,
                ecn: None,
                data: BytesMut::from(&buffer[..length]),
            };
            member.engine.handle_udp(Instant::now(), datagram);
        }
    }

    /// What has to follow after anything happened to a member, in the engine's order.
    fn look_after(
        &mut self,
        now: Instant,
        number: usize,
        arrivals: &Sender<Arrival>,
    ) -> Result<()> {
        let member = &mut self.members[number];
        member.engine.handle_timeout(now);
        while let Some(event) = member.engine.poll_event() {
            if let ClientEvent::Assigned(assignment) = &event {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                told[number].extend(assignment.addresses.iter().map(IpNet::addr));
            }
            match event {
                ClientEvent::NeedAddresses => {
                    member.dialled.get_or_insert(now);
                    member.engine.set_gateways(now, vec![self.gateway]);
                }
                ClientEvent::Assigned(_) if !member.up => {
                    member.up = true;
                    self.up += 1;
                    let took = now - member.dialled.unwrap_or(now);
                    // Nobody waits any more when the swarm is being dropped.
                    let _ = arrivals.send(Arrival { took });
                }
                ClientEvent::Lost { .. } => self.outcome.lost += 1,
                ClientEvent::Stopped(refusal) if member.up => {
                    self.outcome.stopped.push(refusal.kind);
                }
                ClientEvent::Stopped(refusal) => bail!("member {number}: {refusal}"),
                ClientEvent::Assigned(_)
                | ClientEvent::Dialing(_)
                | ClientEvent::Connected(_)
                | ClientEvent::MovedOver { .. }
                | ClientEvent::Stayed { .. }
                | ClientEvent::Certificate(_)
                | ClientEvent::GoingAway => {}
            }
        }
        while member.engine.poll_inside().is_some() {}
        send(member, now, &mut self.batch);
        let timeout = member.engine.poll_timeout();
        if timeout != member.timeout {
            if let Some(due) = member.timeout {
                self.timers.remove(&(due, number));
            }
            if let Some(due) = timeout {
                self.timers.insert((due, number));
            }
            member.timeout = timeout;
        }
        Ok(())
    }
}

/// A lost datagram is QUIC's business, whoever lost it.
fn send(member: &mut Member, now: Instant, batch: &mut Vec<u8>) {
    while let Some(transmit) = member.engine.poll_transmit(now, batch) {
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for datagram in batch[..transmit.size].chunks(segment) {
            let _ = member.socket.send(datagram);
        }
    }
}

fn socket(gateway: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(gateway)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What `adit up` gives its engine on an Ethernet link.
fn config(tls: Arc<QuicClient>) -> ClientConfig {
    // Never twice in a process: connection ids made from it must not meet those of an earlier swarm.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    ClientConfig {
        keys: EngineKeys {
            cid_key: seed,
            reset_key: seed,
            seed,
        },
        limits: Limits {
            max_udp_payload: 1472,
            idle_timeout: Duration::from_secs(30),
            keep_alive: Some(Duration::from_secs(10)),
        },
        tls,
        server_name: SERVER_NAME.to_owned(),
        authority: SERVER_NAME.to_owned(),
        user_agent: None,
        tunnel_mtu: 1400,
    }
}

/// Sockets looked at in one turn.
const EVENTS: usize = 256;
/// More than the largest payload the engines agree to.
const DATAGRAM: usize = 2048;
/// How soon the thread notices that it is to end.
const SLICE: Duration = Duration::from_millis(20);
