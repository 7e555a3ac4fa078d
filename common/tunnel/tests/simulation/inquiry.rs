//! What an operator may ask engines: of one flow, and what flows another policy would cost.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_core::admission::diff::FlowLoss;
use adit_core::flow::Phase;
use adit_core::identity::Principal;
use adit_core::policy::{Direction, Flow, Policy};
use adit_tunnel::{Findings, Inquiry, Renewal};

use super::POLICY;
use super::packets;
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const SYN: u8 = 2;
const ACK: u8 = 16;

fn office() -> IpAddr {
    "10.0.0.7".parse().unwrap()
}

/// A connection from the client to this port of the office.
fn open(world: &mut World, client: usize, own: (IpAddr, u16), port: u16) {
    let there = (office(), port);
    world.send_from_client(client, &packets::tcp(own, there, SYN));
    world.run_for(SECOND);
    world.send_from_office(&packets::tcp(there, own, SYN | ACK));
    world.run_for(SECOND);
    world.send_from_client(client, &packets::tcp(own, there, ACK));
    world.run_for(SECOND);
}

fn ask(
    world: &mut World,
    principal: &str,
    direction: Direction,
    service: &str,
) -> Option<Findings> {
    let inquiry = Inquiry {
        principal: Principal::parse(principal).unwrap(),
        flow: Flow::parse(direction, office(), service).unwrap(),
    };
    let now = world.now;
    world.gateway().inquire(now, &inquiry)
}

fn a_flow_is_found_by_how_it_began_from_whichever_port(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    let [(bob, other)] = world.connect([BOB]);
    open(&mut world, alice, (address, 50_000), 443);
    open(&mut world, alice, (address, 50_001), 443);
    open(&mut world, alice, (address, 50_002), 444);
    open(&mut world, bob, (other, 50_003), 443);
    let found = ask(&mut world, ALICE, Direction::FromClient, "tcp/443").unwrap();
    // The most recently used first.
    let ports: Vec<u16> = found.flows.iter().map(|flow| flow.client.1).collect();
    assert_eq!(ports, [50_001, 50_000]);
    assert!(
        found
            .flows
            .iter()
            .all(|flow| flow.phase == Phase::Established)
    );
    let packets = found.flows[0].from_client.packets + found.flows[0].to_client.packets;
    assert_eq!((packets, found.more, found.allowed), (3, 0, true));
    assert_eq!(found.session.identity.principal.as_str(), ALICE);
    assert!(
        found
            .told
            .addresses
            .iter()
            .any(|prefix| prefix.contains(&address))
    );
    assert!(
        found
            .told
            .routes
            .iter()
            .any(|route| route.contains(office()))
    );

    // Not what the office would start, nor what nobody did.
    for (direction, service) in [
        (Direction::ToClient, "tcp/50000"),
        (Direction::FromClient, "udp/443"),
        (Direction::FromClient, "tcp/445"),
    ] {
        let found = ask(&mut world, ALICE, direction, service).unwrap();
        assert!(found.flows.is_empty() && found.allowed, "{service}");
    }
    assert!(
        ask(
            &mut world,
            "carol@example.com",
            Direction::FromClient,
            "tcp/443"
        )
        .is_none()
    );
    for port in 1..8 {
        open(&mut world, alice, (address, port), 443);
    }
    let found = ask(&mut world, ALICE, Direction::FromClient, "tcp/443").unwrap();
    assert_eq!((found.flows.len(), found.more), (5, 4));
}

fn what_flows_another_policy_costs_is_known_before_and_is_true_afterwards(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    let [(bob, other)] = world.connect([BOB]);
    open(&mut world, alice, (address, 50_000), 443);
    open(&mut world, alice, (address, 50_001), 444);
    open(&mut world, bob, (other, 50_000), 443);
    let losses = |world: &mut World, policy: &str| {
        let policy = Arc::new(Policy::parse(policy, "policy.toml").unwrap());
        let renewal = Renewal {
            policy,
            ..world.renewal()
        };
        let now = world.now;
        let losses = world.gateway().flow_losses(now, &renewal);
        [ALICE, BOB].map(|who| losses.get(who).map(|loss| (loss.ending, loss.open)))
    };
    assert_eq!(losses(&mut world, POLICY), [None, None]);
    let denied = format!(
        "{POLICY}\n[[deny]]\nwho = [\"{ALICE}\"]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp/443\"]\n"
    );
    assert_eq!(losses(&mut world, &denied), [Some((1, 2)), None]);
    // Other addresses, and nothing of what came from the old ones; and no session any more.
    let moved = POLICY.replace("10.99.0.", "10.98.0.");
    assert_eq!(losses(&mut world, &moved), [Some((2, 2)), Some((1, 1))]);
    let without = POLICY
        .replace("\"bob@example.com\", ", "")
        .replace(", \"bob@example.com\"", "");
    assert_eq!(losses(&mut world, &without)[1], Some((1, 1)));

    world.reload(&denied);
    for port in [443, 444] {
        let own = (address, 50_000 + port - 443);
        world.send_from_client(alice, &packets::tcp(own, (office(), port), ACK));
    }
    world.run_for(SECOND);
    let now = world.now;
    assert_eq!(world.gateway().flows_of(now, ALICE), Some(1));
    let found = ask(&mut world, ALICE, Direction::FromClient, "tcp/443").unwrap();
    assert!(!found.allowed && found.flows.is_empty());
    assert_eq!(
        FlowLoss { ending: 1, open: 2 }.to_string(),
        "1 of 2 flows ends"
    );
}

with_one_engine_and_with_three!(
    a_flow_is_found_by_how_it_began_from_whichever_port,
    what_flows_another_policy_costs_is_known_before_and_is_true_afterwards,
);
