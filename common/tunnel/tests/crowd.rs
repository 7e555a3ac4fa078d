//! A thousand sessions at work while the gateway is reloaded a hundred times: nothing is lost that stays permitted,
//! and the memory is what it was.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[allow(dead_code)]
#[path = "simulation/house.rs"]
mod house;
#[allow(dead_code)]
#[path = "simulation/link.rs"]
mod link;
#[allow(dead_code)]
#[path = "simulation/newcomer.rs"]
mod newcomer;
#[allow(dead_code)]
#[path = "simulation/packets.rs"]
mod packets;
#[allow(dead_code)]
#[path = "simulation/pki.rs"]
mod pki;
#[allow(dead_code)]
#[path = "simulation/world.rs"]
mod world;

use std::net::IpAddr;
use std::time::Duration;

use link::Conditions;
use world::World;

#[test]
fn a_thousand_sessions_lose_nothing_by_a_hundred_reloads_and_leave_no_memory_behind() {
    let mut crowd = Crowd::gather();
    let census = crowd.world.gateway().census();
    assert_eq!((census.sessions, census.connections), (SESSIONS, SESSIONS));
    // What grows to its size grows now: both policies, every flow, every queue.
    for round in 1..WARM_UP {
        crowd.round(round);
    }
    crowd.rest();
    let memory = allocation_counter::measure(|| {
        for round in WARM_UP..WARM_UP + RELOADS {
            crowd.round(round);
        }
        crowd.rest();
    });
    let grown = memory.bytes_current;
    assert!(grown.abs() < MAX_GROWTH, "{grown} bytes more than before");
    assert_eq!(crowd.world.gateway().census(), census);
    assert_eq!(crowd.world.leases().len(), SESSIONS);
    crowd.leave();
}

struct Crowd {
    world: World,
    own: Vec<IpAddr>,
}

impl Crowd {
    fn gather() -> Self {
        let mut world = World::new(&policy(0), ENGINES);
        for number in 0..SESSIONS {
            world.add_client(&name(number), Conditions::CLEAN, number as u64);
            // In groups, so that nobody is asked to come again.
            if number % 50 == 49 {
                let ready = |world: &World| world.clients.iter().all(|host| host.is_ready());
                assert!(world.run_until(Duration::from_secs(10), ready));
            }
        }
        let own = world.clients.iter().map(|host| host.v4().unwrap());
        let own = own.collect();
        let mut crowd = Self { world, own };
        crowd.rest();
        crowd
    }

    /// Everybody sends and gets a packet before a reload and one behind it, while the first are on their way.
    fn round(&mut self, round: u64) {
        self.talk(0);
        let difference = self.world.reload(&policy(round));
        assert_eq!(difference.ended.len(), 0);
        // The rules of all, and the routes of the even.
        assert_eq!(difference.changed.len(), SESSIONS);
        self.talk(1);
        self.world.run_for(Duration::from_millis(20));
        // By now every client knows its routes.
        let granted = round % 2 == 1;
        for client in 0..SESSIONS {
            let packet = packets::udp(self.own[client], LAB.parse().unwrap(), 2, 100);
            self.world.send_from_client(client, &packet);
        }
        self.world.run_for(Duration::from_millis(20));
        let mut arrived = [0; 3];
        for packet in self.world.office.drain(..) {
            arrived[packets::number(&packet).unwrap() as usize] += 1;
        }
        let in_the_lab = if granted { SESSIONS.div_ceil(2) } else { 0 };
        assert_eq!(arrived, [SESSIONS, SESSIONS, in_the_lab], "round {round}");
        for (client, host) in self.world.clients.iter_mut().enumerate() {
            let mut numbers = host.numbers();
            numbers.sort_unstable();
            assert_eq!(numbers, [0, 1], "round {round}, client {client}");
            host.received.clear();
            host.events.clear();
        }
        self.world.gateway_events.clear();
    }

    fn talk(&mut self, number: u64) {
        let office: IpAddr = "10.0.0.7".parse().unwrap();
        for (client, own) in self.own.iter().enumerate() {
            let up = packets::udp(*own, office, number, 400);
            self.world.send_from_client(client, &up);
            self.world
                .send_from_office(&packets::udp(office, *own, number, 400));
        }
    }

    /// Until nothing is on its way and nobody waits for an acknowledgement.
    fn rest(&mut self) {
        self.world.run_for(Duration::from_secs(5));
        self.world.gateway_events.clear();
        for host in &mut self.world.clients {
            host.received.clear();
            host.events.clear();
        }
    }

    fn leave(mut self) {
        let now = self.world.now;
        for host in &mut self.world.clients {
            host.engine.shutdown(now);
        }
        self.world.run_for(Duration::from_secs(60));
        let census = self.world.gateway().census();
        assert!(census.is_empty(), "{census:?}");
        let counters = self.world.gateway().counters();
        assert!(counters.from_client.balances() && counters.to_client.balances());
    }
}

/// The policy of a round. Every second is another for everybody, and half of them get another route.
fn policy(round: u64) -> String {
    let mut text = String::from(
        "[pool]\nv4 = \"10.96.0.0/20\"\n\
         [[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/16\"]\ndirection = \"both\"\n",
    );
    text += if round % 2 == 1 {
        "[[allow]]\nwho = [\"domain:even.example.com\"]\nto = [\"10.7.0.0/24\"]\n"
    } else {
        "[[deny]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp/22\"]\n"
    };
    text
}

fn name(number: usize) -> String {
    let half = if number.is_multiple_of(2) {
        "even"
    } else {
        "odd"
    };
    format!("user{number}@{half}.example.com")
}

/// Where the even may go in every second round.
const LAB: &str = "10.7.0.1";
const SESSIONS: usize = 1000;
const ENGINES: u8 = 3;
const RELOADS: u64 = 100;
const WARM_UP: u64 = 10;
/// Bytes. A machine word kept by each reload for each session would be three times as much. Connections grow by some
/// 180 bytes each until they have seen everything, which takes hundreds of reloads, and then no more.
const MAX_GROWTH: i64 = 256 * 1024;
