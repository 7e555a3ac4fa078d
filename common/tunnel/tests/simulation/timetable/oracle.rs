//! What a policy means to packets, as naively as it can be said: every flow in a list, every answer
//! asked for anew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::close::Refusal;
use adit_core::flow::Phase;
use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Access, Decision, Direction, Filter, Flow, Policy};
use adit_tunnel::Epoch;

use super::packet::{End, Kind, Packet};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Inside,
    To(&'static str),
    Nowhere,
}

pub struct Oracle {
    pub policy: Arc<Policy>,
    pub epoch: Epoch,
    /// By principal.
    pub sessions: BTreeMap<&'static str, Session>,
}

pub struct Session {
    pub id: u64,
    since: Instant,
    flows: Vec<Known>,
}

/// A flow, by its two ends and who asks where one asks and the other answers.
struct Known {
    name: (u8, End, End, Option<Direction>),
    started_by: Direction,
    answered: bool,
    finished: [bool; 2],
    phase: Phase,
    used: u64,
}

impl Oracle {
    pub fn access(&self, principal: &str, now: Instant) -> Result<Access, Refusal> {
        access(&self.policy, &self.epoch, principal, now)
    }

    /// What becomes of a client's packet that the gateway has now.
    pub fn hears_client(
        &mut self,
        now: Instant,
        sender: &'static str,
        packet: &Packet,
        holders: &BTreeMap<IpAddr, &'static str>,
    ) -> Fate {
        let receiver = holders.get(&packet.destination.0).copied();
        if holders.get(&packet.source.0) != Some(&sender)
            || receiver == Some(sender)
            || !self.passes(now, sender, Direction::FromClient, packet)
        {
            return Fate::Nowhere;
        }
        match receiver {
            None => Fate::Inside,
            Some(receiver) if self.passes(now, receiver, Direction::ToClient, packet) => {
                Fate::To(receiver)
            }
            Some(_) => Fate::Nowhere,
        }
    }

    /// What becomes of a packet from inside.
    pub fn hears_inside(
        &mut self,
        now: Instant,
        packet: &Packet,
        holders: &BTreeMap<IpAddr, &'static str>,
    ) -> Fate {
        match holders.get(&packet.destination.0) {
            Some(receiver) if self.passes(now, receiver, Direction::ToClient, packet) => {
                Fate::To(receiver)
            }
            _ => Fate::Nowhere,
        }
    }

    pub fn opens(&mut self, principal: &'static str, id: u64, now: Instant) {
        let flows = Vec::new();
        let since = now;
        self.sessions
            .insert(principal, Session { id, since, flows });
    }

    fn passes(
        &mut self,
        now: Instant,
        principal: &str,
        direction: Direction,
        packet: &Packet,
    ) -> bool {
        let access = self.access(principal, now);
        match (self.sessions.get_mut(principal), access) {
            (Some(session), Ok(access)) => session.passes(now, &access.filter, direction, packet),
            _ => false,
        }
    }
}

impl Session {
    fn passes(
        &mut self,
        now: Instant,
        filter: &Filter,
        direction: Direction,
        packet: &Packet,
    ) -> bool {
        let now = now.duration_since(self.since).as_secs();
        self.flows
            .retain(|flow| now < flow.used + flow.phase.timeout().as_secs());
        let name = name(direction, packet);
        let known = self.flows.iter().position(|flow| flow.name == name);
        if let Some(at) = known {
            if !allows(filter, self.flows[at].started_by, direction, packet) {
                self.flows.remove(at);
                return false;
            }
            if !self.flows[at].is_begun_anew(direction, packet) {
                self.flows[at].advance(now, direction, packet);
                return true;
            }
        }
        let Some(started_by) = begins(now, filter, direction, packet) else {
            return false;
        };
        if let Some(at) = known {
            self.flows.remove(at);
        }
        let phase = match packet.kind {
            Kind::Tcp(_) => Phase::Opening,
            Kind::Udp | Kind::Echo { .. } => Phase::Unanswered,
        };
        let (answered, finished) = (false, [false; 2]);
        let mut flow = Known {
            name,
            started_by,
            answered,
            finished,
            phase,
            used: now,
        };
        flow.advance(now, direction, packet);
        self.flows.push(flow);
        true
    }
}

impl Known {
    fn advance(&mut self, now: u64, direction: Direction, packet: &Packet) {
        let answers = direction != self.started_by;
        self.used = now;
        self.answered |= answers;
        match packet.kind {
            Kind::Udp if self.answered => self.phase = Phase::Answered,
            Kind::Echo { .. } if self.answered => self.phase = Phase::Query,
            Kind::Udp | Kind::Echo { .. } => {}
            Kind::Tcp(flags) => {
                self.finished[direction as usize] |= flags & FIN != 0;
                if flags & RST != 0 || self.finished == [true; 2] {
                    self.phase = Phase::Closing;
                } else if self.phase == Phase::Opening
                    && self.answered
                    && !answers
                    && flags & ACK != 0
                {
                    self.phase = Phase::Established;
                }
            }
        }
    }

    fn is_begun_anew(&self, direction: Direction, packet: &Packet) -> bool {
        let answers = direction != self.started_by && self.phase != Phase::Opening;
        let opens = packet
            .flags()
            .is_some_and(|flags| flags & (SYN | ACK | RST) == SYN);
        opens && (answers || self.phase == Phase::Closing)
    }
}

/// Who begins a flow with this packet, if it may begin one.
fn begins(now: u64, filter: &Filter, direction: Direction, packet: &Packet) -> Option<Direction> {
    let started_by = match packet.kind {
        Kind::Echo { request: false } => return None,
        Kind::Tcp(flags) if flags & RST != 0 => return None,
        // In a session's first two minutes the far end goes on with what the client began before it.
        Kind::Tcp(flags) if direction == Direction::ToClient && flags & (SYN | ACK) != SYN => {
            (now < 120).then_some(Direction::FromClient)?
        }
        _ => direction,
    };
    allows(filter, started_by, direction, packet).then_some(started_by)
}

/// Whether the policy lets `started_by` begin the flow of this packet, which goes in `direction`.
pub fn allows(
    filter: &Filter,
    started_by: Direction,
    direction: Direction,
    packet: &Packet,
) -> bool {
    let (client, far) = ends(direction, packet);
    let port = match started_by {
        Direction::FromClient => far.1,
        Direction::ToClient => client.1,
    };
    let has_ports = !matches!(packet.kind, Kind::Echo { .. });
    let flow = Flow {
        direction: started_by,
        inside: far.0,
        protocol: packet.protocol(),
        port: has_ports.then_some(port),
    };
    matches!(filter.decide(&flow), Decision::Allow(_))
}

pub fn access(
    policy: &Policy,
    epoch: &Epoch,
    principal: &str,
    now: Instant,
) -> Result<Access, Refusal> {
    let identity = identity(principal);
    policy.access(&identity, epoch.unix(now))
}

fn identity(principal: &str) -> Identity {
    Identity {
        principal: Principal::parse(principal).unwrap(),
        groups: Vec::new(),
        authority: "example".to_owned(),
        serial: String::new(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

fn name(direction: Direction, packet: &Packet) -> (u8, End, End, Option<Direction>) {
    let (client, far) = ends(direction, packet);
    let asker = match packet.kind {
        Kind::Echo { request } if request == (direction == Direction::FromClient) => {
            Some(Direction::FromClient)
        }
        Kind::Echo { .. } => Some(Direction::ToClient),
        Kind::Udp | Kind::Tcp(_) => None,
    };
    (packet.protocol(), client, far, asker)
}

/// The client's end, and the other.
pub fn ends(direction: Direction, packet: &Packet) -> (End, End) {
    match direction {
        Direction::FromClient => (packet.source, packet.destination),
        Direction::ToClient => (packet.destination, packet.source),
    }
}

/// How long after a grant was changed a client on a clean path knows of it.
pub const HEARD: Duration = Duration::from_millis(5);
