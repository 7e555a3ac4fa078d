//! Seeded lives with reloads at any moment: the policy of the moment is kept, and who keeps access loses nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Decision, Direction, Flow, Policy};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::link::Conditions;
use super::packets;
use super::world::World;

/// The first is in every policy with the same address and the same destination.
const PRINCIPALS: [&str; 3] = ["alice@example.com", "bob@example.com", "carol@example.com"];
const HOSTS: [&str; 4] = ["10.0.0.7", "10.1.0.7", "10.2.0.7", "10.3.0.7"];

/// Any policy in which the first principal reaches the first host.
fn policy(rng: &mut StdRng) -> String {
    let pool = ["10.99.0.0/24", "10.99.0.0/28", "10.98.0.0/16"][rng.random_range(0..3)];
    let mut text = format!(
        "[pool]\nv4 = \"{pool}\"\nv6 = \"fd00:ad17::/64\"\n\
         [[allow]]\nwho = [\"alice@example.com\"]\nto = [\"10.0.0.0/16\"]\ndirection = \"both\"\n\
         [[principal]]\nname = \"alice@example.com\"\naddresses = [\"10.99.0.9\"]\n"
    );
    for who in PRINCIPALS {
        for prefix in ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/15", "10.96.0.0/13"] {
            if rng.random_bool(0.4) {
                text += &format!("[[allow]]\nwho = [\"{who}\"]\nto = [\"{prefix}\"]\n");
            }
        }
    }
    // Fixed addresses that change hands.
    let mut fixed = ["10.99.0.5", "10.98.0.5"];
    if rng.random_bool(0.5) {
        fixed.swap(0, 1);
    }
    for (who, address) in PRINCIPALS[1..].iter().zip(fixed) {
        if rng.random_bool(0.4) {
            text += &format!("[[principal]]\nname = \"{who}\"\naddresses = [\"{address}\"]\n");
        }
    }
    text
}

/// The oracle: whether the policy lets the principal and the address reach each other.
fn allows(policy: &Policy, principal: &str, inside: IpAddr) -> bool {
    let identity = Identity {
        principal: Principal::parse(principal).unwrap(),
        groups: Vec::new(),
        authority: "example".to_owned(),
        serial: String::new(),
        not_before: 0,
        not_after: i64::MAX,
    };
    let flow = Flow {
        direction: Direction::FromClient,
        inside,
        protocol: 17,
        port: None,
    };
    policy
        .access(&identity, 0)
        .is_ok_and(|access| matches!(access.filter.decide(&flow), Decision::Allow(_)))
}

/// Who sent what: numbers of packets that the policy forbade when they were sent.
struct Life {
    world: World,
    policy: Policy,
    clients: Vec<usize>,
    number: u64,
    forbidden: BTreeMap<u64, String>,
    /// What the office sent since the engines had a turn, by number with both addresses.
    unjudged: Vec<(u64, IpAddr, IpAddr)>,
    /// Sent by and to the first client.
    up: Vec<u64>,
    down: Vec<u64>,
    seed: u64,
}

impl Life {
    fn new(seed: u64, engines: u8, clean: bool) -> (Self, StdRng) {
        let mut rng = StdRng::seed_from_u64(seed);
        let text = policy(&mut rng);
        let mut world = World::new(&text, engines);
        let clients = PRINCIPALS.map(|principal| {
            let conditions = if clean {
                Conditions::CLEAN
            } else {
                Conditions::random(&mut rng)
            };
            world.add_client(principal, conditions, rng.random())
        });
        let policy = Policy::parse(&text, "policy.toml").unwrap();
        let ready = |world: &World| world.clients[0].is_ready();
        assert!(
            world.run_until(Duration::from_secs(300), ready),
            "seed {seed}"
        );
        let life = Self {
            world,
            policy,
            clients: clients.to_vec(),
            number: 0,
            forbidden: BTreeMap::new(),
            unjudged: Vec::new(),
            up: Vec::new(),
            down: Vec::new(),
            seed,
        };
        (life, rng)
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn talk(&mut self, rng: &mut StdRng) {
        for client in self.clients.clone() {
            let Some(own) = self.world.clients[client].v4() else {
                continue;
            };
            for (at, host) in HOSTS.iter().enumerate() {
                let host: IpAddr = host.parse().unwrap();
                let length = rng.random_range(40..1200);
                let number = self.next();
                self.world
                    .send_from_client(client, &packets::udp(own, host, number, length));
                if (client, at) == (0, 0) {
                    self.up.push(number);
                }
                let number = self.next();
                if (client, at) == (0, 0) {
                    self.down.push(number);
                }
                if !self.may_reach(host, own) {
                    self.forbidden.insert(number, format!("{host} to {own}"));
                }
                self.unjudged.push((number, host, own));
                self.world
                    .send_from_office(&packets::udp(host, own, number, length));
            }
        }
    }

    fn run(&mut self, milliseconds: u64) {
        self.world.run_for(Duration::from_millis(milliseconds));
        self.unjudged.clear();
    }

    /// Whether the policy lets a host inside reach whoever has the other address.
    fn may_reach(&mut self, host: IpAddr, own: IpAddr) -> bool {
        let holder = self.holder(own);
        holder.is_some_and(|who| allows(&self.policy, who, host))
    }

    /// Whose the gateway says an address is.
    fn holder(&mut self, address: IpAddr) -> Option<&'static str> {
        let now = self.world.now;
        let address = address.to_string();
        let gateway = self.world.gateway();
        PRINCIPALS
            .into_iter()
            .find(|principal| gateway.addresses_of(now, principal).contains(&address))
    }

    /// What left for the office since the last look left under the present policy.
    fn check_office(&mut self) -> Vec<u64> {
        let packets = std::mem::take(&mut self.world.office);
        let mut numbers = Vec::new();
        for packet in &packets {
            let Some(number) = packets::number(packet) else {
                continue;
            };
            let address =
                |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
            let (from, to) = (address(12), address(16));
            let allowed = PRINCIPALS.iter().any(|who| allows(&self.policy, who, to));
            assert!(allowed, "seed {}: {number} from {from} to {to}", self.seed);
            if let Some(holder) = self.holder(from) {
                let allowed = allows(&self.policy, holder, to);
                assert!(allowed, "seed {}: {number} of {holder} to {to}", self.seed);
            }
            numbers.push(number);
        }
        numbers
    }

    fn check_clients(&self) {
        for &client in &self.clients {
            for number in self.world.clients[client].numbers() {
                let forbidden = self.forbidden.get(&number);
                assert!(
                    forbidden.is_none(),
                    "seed {}: {number}: {forbidden:?}",
                    self.seed
                );
            }
        }
    }

    fn reload(&mut self, rng: &mut StdRng) {
        let text = policy(rng);
        self.policy = Policy::parse(&text, "policy.toml").unwrap();
        self.world.reload(&text);
        // What is still on its way between two engines is judged where it arrives.
        for (number, host, own) in self.unjudged.clone() {
            if self.may_reach(host, own) {
                self.forbidden.remove(&number);
            }
        }
    }

    fn end(mut self) {
        let census = self.world.gateway().census();
        assert!(census.sessions <= 3, "seed {}: {census:?}", self.seed);
        let counters = self.world.gateway().counters();
        assert!(counters.from_client.balances(), "seed {}", self.seed);
        assert!(counters.to_client.balances(), "seed {}", self.seed);
        let now = self.world.now;
        for &client in &self.clients {
            self.world.clients[client].engine.shutdown(now);
        }
        self.world.run_for(Duration::from_secs(300));
        let census = self.world.gateway().census();
        assert!(census.is_empty(), "seed {}: {census:?}", self.seed);
        assert_eq!(
            self.world.gateway().poll_timeout(),
            None,
            "seed {}",
            self.seed
        );
        assert!(self.world.leases().len() <= 3);
    }
}

fn no_packet_passes_that_the_policy_of_the_moment_denies(engines: u8) {
    for seed in 0..LIVES {
        let (mut life, mut rng) = Life::new(seed, engines, false);
        for _ in 0..12 {
            life.talk(&mut rng);
            life.run(rng.random_range(0..300));
            life.check_office();
            life.reload(&mut rng);
            life.talk(&mut rng);
            life.run(rng.random_range(0..300));
            life.check_office();
        }
        life.run(2000);
        life.check_office();
        life.check_clients();
        life.end();
    }
}

fn whoever_keeps_access_loses_no_packet_by_reloads(engines: u8) {
    for seed in 0..LIVES {
        let (mut life, mut rng) = Life::new(seed, engines, true);
        let mut arrived = Vec::new();
        for _ in 0..12 {
            life.talk(&mut rng);
            life.run(rng.random_range(0..30));
            arrived.extend(life.check_office());
            // In the middle of what is under way.
            life.talk(&mut rng);
            life.reload(&mut rng);
            life.talk(&mut rng);
        }
        life.run(2000);
        arrived.extend(life.check_office());
        for number in &life.up {
            assert!(
                arrived.contains(number),
                "seed {seed}: {number} was lost on its way up"
            );
        }
        let received = life.world.clients[0].numbers();
        for number in &life.down {
            assert!(
                received.contains(number),
                "seed {seed}: {number} was lost on its way down"
            );
        }
        life.check_clients();
        life.end();
    }
}

with_one_engine_and_with_three!(
    no_packet_passes_that_the_policy_of_the_moment_denies,
    whoever_keeps_access_loses_no_packet_by_reloads,
);

const LIVES: u64 = 150;
