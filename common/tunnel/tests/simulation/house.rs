//! A gateway as a whole: the front desk and the engines, which talk to each other without threads.
//!
//! The kernel's part is played by chance: a datagram arrives at any engine's socket, a packet from
//! inside at any queue. Messages wait in inboxes, as on the way between threads: each inbox keeps its
//! order, and whose turn is next is chance. The disk takes its time, and may fail.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use adit_core::admission::diff::{Difference, FlowLoss};
use adit_core::close::Refusal;
use adit_core::dataplane::Counters;
use adit_core::session::certificate::Issued;
use adit_core::status::RulesTraffic;
use adit_core::table::leases::LeaseEntry;
use adit_tunnel::{
    Census, Datagram, Findings, Gateway, GatewayConfig, GatewayEvent, Inquiry, LeaseTable, Offload,
    Reception, ReceptionConfig, Renewal, Ticket, ToEngine, ToNeighbour, ToReception, Transmit,
};
use bytes::{Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub struct House {
    reception: Reception,
    engines: Vec<Room>,
    for_reception: VecDeque<ToReception>,
    chance: StdRng,
    /// Where everything from the kernel arrives, unless it is left to chance.
    pub arrival: Option<usize>,
    pub disk: Disk,
}

/// Where leases are written down.
#[derive(Clone, Default)]
pub struct Disk {
    /// What is there whatever happens to the gateway.
    pub saved: Vec<LeaseEntry>,
    /// How long it takes to write.
    pub delay: Duration,
    /// Whether it refuses to be written to.
    pub fails: bool,
    /// How many tables were written.
    #[allow(dead_code)]
    pub writes: usize,
    /// What is being written, and until when.
    writing: Option<(Instant, LeaseTable)>,
}

/// An engine and what waits for it.
struct Room {
    engine: Gateway,
    inbox: VecDeque<Word>,
}

enum Word {
    Desk(ToEngine),
    Neighbour(ToNeighbour),
}

impl House {
    /// A gateway that finds the leases that are on the disk.
    pub fn new(
        mut reception: ReceptionConfig,
        engines: Vec<GatewayConfig>,
        mut disk: Disk,
        seed: u64,
    ) -> Self {
        disk.writing = None;
        reception.admission.restore(disk.saved.clone());
        let room = |config| Room {
            engine: Gateway::new(config),
            inbox: VecDeque::new(),
        };
        Self {
            reception: Reception::new(reception),
            engines: engines.into_iter().map(room).collect(),
            for_reception: VecDeque::new(),
            chance: StdRng::seed_from_u64(seed),
            arrival: None,
            disk,
        }
    }

    pub fn handle_udp(&mut self, now: Instant, datagram: Datagram) {
        let at = self.arrival();
        self.engines[at].engine.handle_udp(now, datagram);
        self.talk(now);
    }

    pub fn handle_inside(&mut self, now: Instant, buffer: BytesMut, offload: Offload) {
        let at = self.arrival();
        self.engines[at].engine.handle_inside(now, buffer, offload);
    }

    /// Several times, so that what one says in its turn is heard by the others in theirs.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..3 {
            for room in &mut self.engines {
                room.engine.handle_timeout(now);
            }
            self.talk(now);
            self.reception.handle_timeout(now);
            self.talk(now);
        }
    }

    // Asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn has_full_batch(&self) -> bool {
        self.engines.iter().any(|room| room.engine.has_full_batch())
    }

    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.reception.poll_transmit(now, buf).or_else(|| {
            let mut rooms = self.engines.iter_mut();
            rooms.find_map(|room| room.engine.poll_transmit(now, buf))
        })
    }

    pub fn poll_inside(&mut self) -> Option<Bytes> {
        let mut rooms = self.engines.iter_mut();
        rooms.find_map(|room| room.engine.poll_inside())
    }

    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.reception.poll_event().or_else(|| {
            let mut rooms = self.engines.iter_mut();
            rooms.find_map(|room| room.engine.poll_event())
        })
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let engines = self.engines.iter().map(|room| room.engine.poll_timeout());
        let written = self.disk.writing.as_ref().map(|(due, _)| *due);
        engines
            .chain([self.reception.poll_timeout(), written])
            .flatten()
            .min()
    }

    pub fn shutdown(&mut self, now: Instant) {
        self.reception.shutdown(now);
        for room in &mut self.engines {
            room.engine.shutdown(now);
        }
    }

    /// Goes over to something else; returns when everybody has heard of it.
    // Not asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn reload(&mut self, now: Instant, renewal: Renewal) -> Difference {
        let difference = self.reception.reload(now, renewal);
        self.talk(now);
        difference
    }

    #[allow(dead_code)]
    pub fn rehearse(&self, now: Instant, renewal: &Renewal) -> Difference {
        self.reception.rehearse(now, renewal).difference
    }

    /// What flows a renewal would cost, by principal.
    #[allow(dead_code)]
    pub fn flow_losses(&self, now: Instant, renewal: &Renewal) -> BTreeMap<String, FlowLoss> {
        let stakes = self.reception.rehearse(now, renewal).stakes;
        let rooms = self.engines.iter();
        rooms
            .flat_map(|room| room.engine.flow_losses(now, &stakes))
            .collect()
    }

    /// What there is of a principal's session.
    #[allow(dead_code)]
    pub fn inquire(&self, now: Instant, inquiry: &Inquiry) -> Option<Findings> {
        let mut rooms = self.engines.iter();
        rooms.find_map(|room| room.engine.inquire(now, inquiry))
    }

    /// The inner addresses of the principal's session, as its engine has them.
    #[allow(dead_code)]
    pub fn addresses_of(&self, now: Instant, principal: &str) -> Vec<String> {
        let rooms = self.engines.iter();
        let mut sessions = rooms.flat_map(|room| room.engine.status(now).sessions);
        let session = sessions.find(|session| session.principal == principal);
        session.map(|session| session.addresses).unwrap_or_default()
    }

    /// What the authority says of a request for a certificate.
    #[allow(dead_code)]
    pub fn answer(&mut self, ticket: Ticket, outcome: Result<Box<Issued>, Refusal>) {
        self.reception.answer(ticket, outcome);
    }

    /// What the gateway knows, saved or not.
    #[allow(dead_code)]
    pub fn leases(&self, now: Instant) -> Vec<LeaseEntry> {
        self.reception.leases(now)
    }

    pub fn counters(&self) -> Counters {
        let mut all = self.reception.counters().clone();
        for room in &self.engines {
            all.add(&room.engine.counters());
        }
        all
    }

    /// The engine that has the principal's session.
    pub fn engine_of(&self, now: Instant, principal: &str) -> Option<usize> {
        self.engines.iter().position(|room| {
            let sessions = room.engine.status(now).sessions;
            sessions
                .iter()
                .any(|session| session.principal == principal)
        })
    }

    /// How many flows the principal's session has.
    pub fn flows_of(&self, now: Instant, principal: &str) -> Option<usize> {
        self.engines.iter().find_map(|room| {
            let sessions = room.engine.status(now).sessions;
            let mut sessions = sessions.iter();
            let session = sessions.find(|session| session.principal == principal);
            session.map(|session| session.flows)
        })
    }

    /// When the principal's session ends, in seconds since 1970.
    #[allow(dead_code)]
    pub fn ends_of(&self, now: Instant, principal: &str) -> Option<i64> {
        self.engines.iter().find_map(|room| {
            let sessions = room.engine.status(now).sessions;
            let mut sessions = sessions.iter();
            let session = sessions.find(|session| session.principal == principal);
            session.map(|session| session.ends)
        })
    }

    /// What passed by each rule in the principal's session.
    #[allow(dead_code)]
    pub fn rules_of(&self, now: Instant, principal: &str) -> Option<RulesTraffic> {
        let mut rooms = self.engines.iter();
        rooms.find_map(|room| {
            let sessions = room.engine.status(now).sessions;
            let mut sessions = sessions.into_iter();
            let session = sessions.find(|session| session.principal == principal);
            session.map(|session| session.rules)
        })
    }

    pub fn census(&self) -> Census {
        let desk = self.reception.census();
        let mut all = Census {
            connections: desk.connections,
            handshakes: desk.handshakes,
            ..Census::default()
        };
        let prefixes = desk.prefixes;
        for room in &self.engines {
            let census = room.engine.census();
            assert_eq!(
                census.prefixes, prefixes,
                "desk and engines agree about whose the addresses are"
            );
            all.connections += census.connections;
            all.sessions += census.sessions;
            all.prefixes += census.prefixes;
        }
        assert_eq!(
            desk.sessions, all.sessions,
            "desk and engines agree about who is here"
        );
        all
    }

    fn arrival(&mut self) -> usize {
        self.arrival
            .unwrap_or_else(|| self.chance.random_range(0..self.engines.len()))
    }

    fn talk(&mut self, now: Instant) {
        loop {
            self.write(now);
            self.collect();
            let waiting: Vec<usize> = (0..self.engines.len())
                .filter(|&at| !self.engines[at].inbox.is_empty())
                .collect();
            let desk = usize::from(!self.for_reception.is_empty());
            let turns = waiting.len() + desk;
            if turns == 0 {
                return;
            }
            let turn = self.chance.random_range(0..turns);
            match waiting.get(turn) {
                Some(&at) => {
                    let room = &mut self.engines[at];
                    match room.inbox.pop_front().unwrap() {
                        Word::Desk(message) => room.engine.handle_message(now, message),
                        Word::Neighbour(message) => room.engine.handle_neighbour(now, message),
                    }
                }
                None => {
                    let message = self.for_reception.pop_front().unwrap();
                    self.reception.handle_message(now, message);
                }
            }
        }
    }

    /// The disk's part: one table after the other.
    fn write(&mut self, now: Instant) {
        loop {
            if self.disk.writing.is_none() {
                let table = self.reception.poll_leases(now);
                self.disk.writing = table.map(|table| (now + self.disk.delay, table));
            }
            let is_done = |&mut (due, _): &mut (Instant, LeaseTable)| due <= now;
            let Some((_, table)) = self.disk.writing.take_if(is_done) else {
                return;
            };
            if self.disk.fails {
                self.reception.leases_not_saved(now);
                continue;
            }
            self.disk.saved = table.entries;
            self.disk.writes += 1;
            self.reception.leases_saved(now, table.revision);
        }
    }

    /// Puts everything that was said into the inboxes.
    fn collect(&mut self) {
        while let Some((to, message)) = self.reception.poll_message() {
            self.engines[usize::from(to)]
                .inbox
                .push_back(Word::Desk(message));
        }
        for from in 0..self.engines.len() {
            while let Some(message) = self.engines[from].engine.poll_message() {
                self.for_reception.push_back(message);
            }
            while let Some((to, message)) = self.engines[from].engine.poll_neighbour() {
                assert_ne!(usize::from(to), from, "nobody is their own neighbour");
                self.engines[usize::from(to)]
                    .inbox
                    .push_back(Word::Neighbour(message));
            }
        }
    }
}
