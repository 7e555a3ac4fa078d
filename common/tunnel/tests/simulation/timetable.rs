//! Seeded lives under policies with hours, dates, denials, ports and directions: clients come and go, policies are
//! replaced, and rules begin and end at their seconds.
//!
//! On clean paths the oracle foretells the fate of every packet: nothing that is allowed is lost. On bad paths it
//! does not know which packets arrive; of those that do, none may be one that is denied.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::policy::Policy;
use adit_tunnel::{ClientState, GatewayEvent};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::link::Conditions;
use super::world::World;

mod onlooker;
mod oracle;
mod packet;
mod policies;

use oracle::{Fate, HEARD, Oracle};
use packet::{End, Kind, Packet};
use policies::{PRINCIPALS, STEP};

struct Life {
    world: World,
    rng: StdRng,
    seed: u64,
    oracle: Oracle,
    /// Policies by when they began to count.
    history: Vec<(Instant, Arc<Policy>)>,
    /// The client that was started last for a principal.
    clients: BTreeMap<&'static str, usize>,
    /// Who is to end by its own will.
    leaving: Vec<&'static str>,
    heard: usize,
    sent: BTreeMap<u64, Sent>,
    /// Clients' packets on their way to the gateway, the first to arrive first.
    on_the_way: Vec<u64>,
    fates: BTreeMap<u64, Fate>,
    number: u64,
    tally: Tally,
}

/// What has happened, so that nobody proves something about nothing.
#[derive(Debug, Default)]
struct Tally {
    went_inside: u32,
    came_from_inside: u32,
    between_clients: u32,
    nowhere: u32,
    /// By time, not by a reload.
    changed: u32,
    ended: u32,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    /// Nobody: the office.
    by: Option<&'static str>,
    packet: Packet,
}

impl Life {
    fn new(seed: u64, engines: u8) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let text = policies::policy(&mut rng, MINUTES);
        let world = World::new(&text, engines);
        let policy = Arc::new(Policy::parse(&text, "policy.toml").unwrap());
        let (epoch, sessions) = (world.epoch, BTreeMap::new());
        let history = vec![(world.now, Arc::clone(&policy))];
        let oracle = Oracle {
            policy,
            epoch,
            sessions,
        };
        Self {
            world,
            rng,
            seed,
            oracle,
            history,
            clients: BTreeMap::new(),
            leaving: Vec::new(),
            heard: 0,
            sent: BTreeMap::new(),
            on_the_way: Vec::new(),
            fates: BTreeMap::new(),
            number: 0,
            tally: Tally::default(),
        }
    }

    /// Something happens to the sessions.
    fn turn(&mut self, clean: bool) {
        match self.rng.random_range(0..10) {
            0..2 => self.reload(),
            2..5 => self.come_or_go(clean),
            _ => {}
        }
    }

    fn reload(&mut self) {
        let text = policies::policy(&mut self.rng, MINUTES);
        self.oracle.policy = Arc::new(Policy::parse(&text, "policy.toml").unwrap());
        let entry = (self.world.now, Arc::clone(&self.oracle.policy));
        self.history.push(entry);
        self.world.reload(&text);
        self.run_to(self.world.now);
    }

    fn come_or_go(&mut self, clean: bool) {
        let principal = *PRINCIPALS.choose(&mut self.rng).unwrap();
        let here = self.clients.get(principal).copied();
        if let Some(client) = here.filter(|&client| !self.has_stopped(client)) {
            // What was sent before is not lost by the end of the connection.
            self.pass(HEARD);
            let now = self.world.now;
            self.leaving.push(principal);
            self.world.clients[client].engine.shutdown(now);
            self.pass(HEARD);
        } else {
            let conditions = if clean {
                Conditions::CLEAN
            } else {
                Conditions::random(&mut self.rng)
            };
            let seed = self.rng.random();
            let client = self.world.add_client(principal, conditions, seed);
            self.clients.insert(principal, client);
            self.pass(Duration::from_millis(40));
        }
    }

    fn has_stopped(&self, client: usize) -> bool {
        matches!(
            self.world.clients[client].engine.state(),
            ClientState::Stopped
        )
    }

    /// Time passes, a little or across several boundaries; often it stops just before one.
    fn pass_some(&mut self) {
        let odd = self.rng.random_range(1..900);
        let time = match self.rng.random_range(0..5) {
            0 => Duration::from_micros(odd),
            1 => Duration::from_millis(self.rng.random_range(1..100)),
            2 | 3 => {
                // Packets sent now arrive before it, at it or behind it.
                let early = Duration::from_micros(odd + 500);
                self.until_boundary().saturating_sub(early)
            }
            _ => Duration::from_secs(self.rng.random_range(1..100)),
        };
        // Nothing else happens at quite the same moments.
        let crooked = Duration::from_nanos(self.rng.random_range(1..1000));
        self.pass(time + crooked);
    }

    fn until_boundary(&self) -> Duration {
        let passed = self.world.now - self.history[0].0;
        let step = Duration::from_secs(STEP);
        let whole = passed.as_nanos() / step.as_nanos();
        step * (whole as u32 + 1) - passed
    }

    fn pass(&mut self, time: Duration) {
        self.run_to(self.world.now + time);
    }

    /// Runs the world, and the oracle beside it, packet by packet.
    fn run_to(&mut self, end: Instant) {
        while let Some(&number) = self.on_the_way.first() {
            let sent = self.sent[&number];
            let arrives = sent.at + Conditions::CLEAN.delay;
            if arrives > end {
                break;
            }
            self.on_the_way.remove(0);
            self.run_world_to(arrives);
            let holders = self.holders();
            let by = sent.by.unwrap();
            let fate = self
                .oracle
                .hears_client(self.world.now, by, &sent.packet, &holders);
            self.foretell(number, fate);
        }
        self.run_world_to(end);
    }

    fn run_world_to(&mut self, end: Instant) {
        loop {
            let heard = self.heard;
            let left = end.saturating_duration_since(self.world.now);
            let more = |world: &World| world.gateway_events.len() > heard;
            if !self.world.run_until(left, more) {
                return;
            }
            self.hear();
        }
    }

    /// What the gateway says about its sessions.
    fn hear(&mut self) {
        let now = self.world.now;
        let news = &self.world.gateway_events[self.heard..];
        for event in news {
            if let GatewayEvent::Regranted(difference) = event {
                self.tally.changed += difference.changed.len() as u32;
                self.tally.ended += difference.ended.len() as u32;
            }
        }
        let events: Vec<_> = news
            .iter()
            .filter_map(|event| match event {
                GatewayEvent::Opened(session) => Some((session.clone(), None)),
                GatewayEvent::Closed {
                    session, reason, ..
                } => Some((session.clone(), Some(reason.clone()))),
                _ => None,
            })
            .collect();
        self.heard = self.world.gateway_events.len();
        for (session, ended) in events {
            let name = session.identity.principal.as_str();
            let principal = PRINCIPALS.into_iter().find(|&known| known == name).unwrap();
            let Some(reason) = ended else {
                self.oracle.opens(principal, session.id.0, now);
                continue;
            };
            let current = self.oracle.sessions.get(principal);
            if current.is_some_and(|current| current.id == session.id.0) {
                self.oracle.sessions.remove(principal);
            }
            let left = self.leaving.iter().position(|&who| who == principal);
            if let Some(at) = left {
                self.leaving.remove(at);
            } else if self.clients_path_is_clean(principal) {
                let refused = self.oracle.access(principal, now).is_err();
                assert!(refused, "{}: {principal} ended: {reason}", self.moment());
            }
        }
    }

    fn clients_path_is_clean(&self, principal: &str) -> bool {
        let client = self.clients[principal];
        self.world.clients[client].path.conditions.loss == 0.0
    }

    /// Whose the gateway says the addresses are.
    fn holders(&mut self) -> BTreeMap<IpAddr, &'static str> {
        let now = self.world.now;
        let mut holders = BTreeMap::new();
        for principal in PRINCIPALS {
            for address in self.world.gateway().addresses_of(now, principal) {
                let before = holders.insert(address.parse().unwrap(), principal);
                assert_eq!(before, None, "{}: {address} twice", self.moment());
            }
        }
        holders
    }

    /// Everybody says something, and the office too.
    fn talk(&mut self) {
        for principal in PRINCIPALS {
            for _ in 0..self.rng.random_range(0..4) {
                self.say(principal);
                self.answer(principal);
            }
        }
    }

    fn say(&mut self, principal: &'static str) {
        let Some(&client) = self.clients.get(principal) else {
            return;
        };
        let Some(own) = self.world.clients[client].v4() else {
            return;
        };
        let to = self.somebody();
        if to == own {
            return;
        }
        let (near, far, kind) = self.service();
        let packet = self.packet((own, near), (to, far), kind);
        let knows = self.knows(client, own, to);
        self.note(Some(principal), packet);
        self.world.send_from_client(client, &packet.bytes());
        if knows {
            self.on_the_way.push(packet.number);
        } else {
            self.foretell(packet.number, Fate::Nowhere);
        }
    }

    /// Something from inside, which may be an answer.
    fn answer(&mut self, principal: &'static str) {
        let holders = self.holders();
        let mut addresses = holders.iter().filter(|(_, who)| **who == principal);
        let Some((&own, _)) = addresses.next() else {
            return;
        };
        let from = HOSTS.choose(&mut self.rng).unwrap().parse().unwrap();
        let (near, far, kind) = self.service();
        let packet = self.packet((from, far), (own, near), kind);
        self.note(None, packet);
        let now = self.world.now;
        let fate = self.oracle.hears_inside(now, &packet, &holders);
        self.foretell(packet.number, fate);
        self.world.send_from_office(&packet.bytes());
        // What is still on its way between two engines is judged where it arrives.
        self.run_to(now);
    }

    /// A host inside, or a client that is here or was.
    fn somebody(&mut self) -> IpAddr {
        if self.rng.random_bool(0.6) {
            return HOSTS.choose(&mut self.rng).unwrap().parse().unwrap();
        }
        let other = *PRINCIPALS.choose(&mut self.rng).unwrap();
        let client = self.clients.get(other);
        let address = client.and_then(|&client| self.world.clients[client].v4());
        address.unwrap_or_else(|| "10.99.0.5".parse().unwrap())
    }

    /// The client's port, the other's, and a kind of packet. Few, so that many are of one flow.
    fn service(&mut self) -> (u16, u16, Kind) {
        let near = *[22, 443, 50_000].choose(&mut self.rng).unwrap();
        let far = *[53, 443, 50_000].choose(&mut self.rng).unwrap();
        match self.rng.random_range(0..5) {
            0 | 1 => (near, far, Kind::Udp),
            2 | 3 => {
                // SYN, SYN and ACK, ACK, FIN and ACK, RST.
                let flags = *[2, 2, 18, 16, 16, 17, 4].choose(&mut self.rng).unwrap();
                (near, far, Kind::Tcp(flags))
            }
            _ => {
                let request = self.rng.random();
                (7, 7, Kind::Echo { request })
            }
        }
    }

    fn packet(&mut self, source: End, destination: End, kind: Kind) -> Packet {
        self.number += 1;
        let number = self.number;
        Packet {
            number,
            source,
            destination,
            kind,
        }
    }

    fn note(&mut self, by: Option<&'static str>, packet: Packet) {
        let at = self.world.now;
        self.sent.insert(packet.number, Sent { at, by, packet });
    }

    fn foretell(&mut self, number: u64, fate: Fate) {
        self.fates.insert(number, fate);
    }

    /// Whether a client has been told that this address is its own, and that a route leads there.
    fn knows(&self, client: usize, own: IpAddr, other: IpAddr) -> bool {
        let assignment = self.world.clients[client].engine.assignment();
        assignment.is_some_and(|told| {
            told.addresses.iter().any(|prefix| prefix.contains(&own))
                && told.routes.iter().any(|route| route.contains(other))
        })
    }

    /// Everything went where the oracle said; what a client did not know to be its own may be missing.
    fn compare(&mut self) {
        let mut unknowing = self.unknowing();
        self.pass(HEARD);
        unknowing.extend(self.unknowing());
        let mut arrived = BTreeMap::new();
        for bytes in std::mem::take(&mut self.world.office) {
            if let Some(number) = packet::number(&bytes) {
                arrived.insert(number, Fate::Inside);
            }
        }
        for (&principal, &client) in &self.clients {
            for bytes in std::mem::take(&mut self.world.clients[client].received) {
                if let Some(number) = packet::number(&bytes) {
                    arrived.insert(number, Fate::To(principal));
                }
            }
        }
        for (number, expected) in std::mem::take(&mut self.fates) {
            let came = arrived.remove(&number).unwrap_or(Fate::Nowhere);
            let excused = came == Fate::Nowhere && unknowing.contains(&number);
            let sent = self.sent[&number];
            match (came, sent.by) {
                (Fate::Inside, _) => self.tally.went_inside += 1,
                (Fate::To(_), None) => self.tally.came_from_inside += 1,
                (Fate::To(_), Some(_)) => self.tally.between_clients += 1,
                (Fate::Nowhere, _) => self.tally.nowhere += 1,
            }
            assert!(
                came == expected || excused,
                "{}: {expected:?} and not {came:?} was the fate of {sent:?}",
                self.moment()
            );
        }
        assert!(arrived.is_empty(), "{}: {arrived:?}", self.moment());
        self.sent.clear();
    }

    /// What goes to clients that do not know, or know no more, that it is for them.
    fn unknowing(&self) -> Vec<u64> {
        let fates = self.fates.iter().filter(|(number, fate)| {
            let Fate::To(receiver) = fate else {
                return false;
            };
            let Packet {
                source,
                destination,
                ..
            } = self.sent[number].packet;
            !self.knows(self.clients[receiver], destination.0, source.0)
        });
        fates.map(|(number, _)| *number).collect()
    }

    /// Whoever is here may be, and its client knows what it may.
    fn check_sessions(&mut self) {
        let now = self.world.now;
        for &principal in self.oracle.sessions.keys() {
            let access = self.oracle.access(principal, now);
            let Ok(access) = access else {
                panic!("{}: {principal} is still here", self.moment());
            };
            let engine = &self.world.clients[self.clients[principal]].engine;
            let Some(told) = engine.assignment() else {
                continue;
            };
            let routes = access.filter.routes();
            assert_eq!(told.routes, routes, "{}: {principal}", self.moment());
        }
    }

    /// When something went wrong.
    fn moment(&self) -> String {
        let passed = self.world.now - self.history[0].0;
        format!("seed {}, after {passed:?}", self.seed)
    }

    /// A policy that lets everybody in brings back everybody whose client has not given up.
    fn end(mut self) -> Tally {
        let text =
            "[pool]\nv4 = \"10.99.0.0/24\"\n[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n";
        self.oracle.policy = Arc::new(Policy::parse(text, "policy.toml").unwrap());
        self.world.reload(text);
        self.pass(Duration::from_secs(65));
        for (&principal, &client) in &self.clients {
            if !self.has_stopped(client) {
                let is_here = self.oracle.sessions.contains_key(principal);
                assert!(is_here, "{}: {principal} has not come back", self.moment());
            }
        }
        let counters = self.world.gateway().counters();
        assert!(counters.from_client.balances(), "seed {}", self.seed);
        assert!(counters.to_client.balances(), "seed {}", self.seed);
        let now = self.world.now;
        for (&principal, &client) in &self.clients {
            self.leaving.push(principal);
            self.world.clients[client].engine.shutdown(now);
        }
        self.pass(Duration::from_secs(400));
        let census = self.world.gateway().census();
        assert!(census.is_empty(), "seed {}: {census:?}", self.seed);
        let timeout = self.world.gateway().poll_timeout();
        assert_eq!(timeout, None, "seed {}: an appointment is left", self.seed);
        self.tally
    }
}

fn every_packet_meets_the_fate_that_the_policy_of_its_moment_gives_it(engines: u8) {
    let mut tallies = Vec::new();
    for seed in 0..LIVES {
        let mut life = Life::new(seed, engines);
        for _ in 0..TURNS {
            life.pass_some();
            life.talk();
            life.turn(true);
            life.talk();
            life.compare();
            if life.until_boundary() < Duration::from_secs(STEP) - HEARD {
                life.check_sessions();
            }
        }
        tallies.push(life.end());
    }
    let least = |of: fn(&Tally) -> u32, least: u32| {
        let sum: u32 = tallies.iter().map(of).sum();
        assert!(sum >= least, "{sum} of {least}: {tallies:?}");
    };
    least(|tally| tally.went_inside, 1000);
    least(|tally| tally.came_from_inside, 1000);
    least(|tally| tally.between_clients, 100);
    least(|tally| tally.nowhere, 1000);
    least(|tally| tally.changed, 100);
    least(|tally| tally.ended, 10);
}

fn on_bad_paths_no_packet_passes_that_the_policy_of_its_moment_denies(engines: u8) {
    for seed in 0..LIVES {
        let mut life = Life::new(seed, engines);
        for _ in 0..TURNS {
            let time = Duration::from_millis(life.rng.random_range(1..20_000));
            life.pass_looking(time);
            life.talk();
            life.on_the_way.clear();
            // What was sent under one policy was not sent under the next.
            life.pass_looking(Duration::from_nanos(1));
            let now = life.world.now;
            life.turn(false);
            life.look(now);
            life.talk();
            life.on_the_way.clear();
        }
        life.pass_looking(Duration::from_secs(2));
    }
}

with_one_engine_and_with_three!(
    every_packet_meets_the_fate_that_the_policy_of_its_moment_gives_it,
    on_bad_paths_no_packet_passes_that_the_policy_of_its_moment_denies,
);

/// Outside, and beyond what any rule names.
const HOSTS: [&str; 4] = ["10.0.0.7", "10.0.3.3", "10.1.0.7", "10.2.0.9"];

const LIVES: u64 = 60;
/// Of a life, in which some thirty boundaries come.
const TURNS: usize = 40;
/// In which the rules of a policy begin and end.
const MINUTES: u32 = 14;
