//! Several engines are one gateway: wherever a session lives and wherever the kernel delivers.

use std::net::IpAddr;
use std::time::Duration;

use adit_core::close::RefusalKind;
use adit_core::dataplane::DropReason;
use adit_tunnel::{
    ClientEvent, Epoch, Gateway, GatewayConfig, HEADROOM, InsideAddresses, Offload, ToEngine,
    ToNeighbour,
};
use bytes::BytesMut;

use super::POLICY;
use super::link::Conditions;
use super::packets;
use super::world::{START, World};

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";

fn office() -> IpAddr {
    "10.0.0.7".parse().unwrap()
}

fn engine_of(world: &mut World, principal: &str) -> usize {
    let now = world.now;
    world.gateway().engine_of(now, principal).unwrap()
}

fn addresses<const N: usize>(world: &World, clients: [usize; N], v4: bool) -> [IpAddr; N] {
    clients.map(|client| {
        let host = &world.clients[client];
        if v4 { host.v4() } else { host.v6() }.unwrap()
    })
}

#[test]
fn sessions_are_spread_and_a_place_that_is_left_is_taken_again() {
    let mut world = World::new(POLICY, 3);
    let [_, bob, _] = world.connect_in_both([ALICE, BOB, CAROL]);
    let places = [ALICE, BOB, CAROL].map(|principal| engine_of(&mut world, principal));
    assert_eq!(places, [0, 1, 2]);
    let now = world.now;
    world.clients[bob].engine.shutdown(now);
    world.run_for(5 * SECOND);
    world.connect_in_both([BOB]);
    assert_eq!(engine_of(&mut world, BOB), 1);
}

#[test]
fn clients_of_different_engines_reach_each_other_in_both_directions() {
    let mut world = World::new(POLICY, 3);
    let [alice, bob] = world.connect_in_both([ALICE, BOB]);
    assert_ne!(engine_of(&mut world, ALICE), engine_of(&mut world, BOB));
    for v4 in [true, false] {
        let [a, b] = addresses(&world, [alice, bob], v4);
        world.send_from_client(alice, &packets::udp(a, b, 1, 1280));
        world.send_from_client(bob, &packets::udp(b, a, 2, 1280));
        world.run_for(SECOND);
        assert_eq!(world.clients[bob].numbers(), [1]);
        assert_eq!(world.clients[alice].numbers(), [2]);
        let hops = world.clients[bob].received.pop().unwrap()[if v4 { 8 } else { 7 }];
        assert_eq!(hops, 63, "the gateway is one hop");
        world.clients[alice].received.clear();
    }
    assert!(world.office.is_empty());
    let counters = world.gateway().counters();
    assert_eq!(counters.from_client.packets_in(), 4);
    assert_eq!(counters.to_client.packets_in(), 4, "each is counted once");
    assert_eq!(counters.to_client.forwarded(), 4);
}

#[test]
fn what_the_receivers_engine_refuses_is_answered_by_the_senders() {
    let mut world = World::new(POLICY, 3);
    let [alice, _, carol] = world.connect_in_both([ALICE, BOB, CAROL]);
    for (v4, prohibited) in [(true, (3, 13)), (false, (1, 1))] {
        let [a, c] = addresses(&world, [alice, carol], v4);
        world.send_from_client(alice, &packets::udp(a, c, 1, 100));
        world.run_for(SECOND);
        let answer = world.clients[alice].received.pop().unwrap();
        assert_eq!(packets::icmp(&answer), Some(prohibited));
        // Carol may not even send to alice: her own engine says so.
        world.send_from_client(carol, &packets::udp(c, a, 2, 100));
        world.run_for(SECOND);
        let answer = world.clients[carol].received.pop().unwrap();
        assert!(packets::icmp(&answer).is_some());
    }
    assert!(world.clients[carol].received.is_empty());
    let counters = world.gateway().counters();
    assert!(counters.from_client.balances() && counters.to_client.balances());
    assert_eq!(counters.to_client.packets_in(), 2);
    assert_eq!(counters.to_client.replied(), 2);
}

#[test]
fn a_packet_that_does_not_fit_the_receivers_path_is_answered_across_engines() {
    let mut world = World::new(POLICY, 3);
    let [alice] = world.connect_in_both([ALICE]);
    let narrow = Conditions {
        max_payload: 1280 - 28,
        ..Conditions::CLEAN
    };
    let bob = world.add_client(BOB, narrow, 1);
    assert!(world.run_until(5 * SECOND, |world| world.clients[bob].is_ready()));
    let [a, b] = addresses(&world, [alice, bob], true);
    // Nobody is told a number while the search goes on.
    world.send_from_client(alice, &packets::udp(a, b, 1, 1300));
    world.run_for(Duration::from_millis(100));
    assert!(world.clients[alice].received.is_empty());
    world.run_for(10 * SECOND);
    world.send_from_client(alice, &packets::udp(a, b, 2, 1300));
    world.run_for(SECOND);
    let answer = world.clients[alice].received.pop().unwrap();
    assert_eq!(packets::icmp(&answer), Some((3, 4)));
    let largest = packets::icmp_mtu(&answer) as usize;
    world.send_from_client(alice, &packets::udp(a, b, 3, largest));
    world.run_for(SECOND);
    assert_eq!(world.clients[bob].numbers(), [3]);
}

#[test]
fn everything_may_arrive_at_the_wrong_engine() {
    for wrong in 0..3 {
        let mut world = World::new(POLICY, 3);
        world.gateway().arrival = Some(wrong);
        let clients = world.connect_in_both([ALICE, BOB, CAROL]);
        let own = addresses(&world, clients, true);
        for (client, own) in clients.into_iter().zip(own) {
            for number in 0..10 {
                world.send_from_client(client, &packets::udp(own, office(), number, 1000));
                world.send_from_office(&packets::udp(office(), own, number, 1000));
            }
        }
        world.run_for(SECOND);
        assert_eq!(world.office.len(), 30);
        for client in clients {
            assert_eq!(world.clients[client].numbers().len(), 10);
        }
        let counters = world.gateway().counters();
        assert_eq!(counters.to_client.packets_in(), 30, "each is counted once");
        assert_eq!(counters.to_client.forwarded(), 30);
        assert_eq!(counters.from_client.packets_in(), 30);
        // What cannot be delivered is answered at the right engine, and counted once as well.
        world.office.clear();
        world.send_from_office(&packets::udp("172.16.0.1".parse().unwrap(), own[2], 1, 100));
        world.run_for(SECOND);
        let answer = world.office.pop().unwrap();
        assert_eq!(packets::icmp(&answer), Some((3, 13)));
        assert_eq!(world.gateway().counters().to_client.replied(), 1);
    }
}

#[test]
fn nobody_inside_speaks_with_the_address_of_any_engines_session() {
    for queue in 0..3 {
        let mut world = World::new(POLICY, 3);
        let clients = world.connect_in_both([ALICE, BOB, CAROL]);
        world.gateway().arrival = Some(queue);
        let [a, b, _] = addresses(&world, clients, true);
        world.send_from_office(&packets::udp(a, b, 1, 100));
        world.send_from_office(&packets::udp(b, a, 2, 100));
        world.run_for(SECOND);
        for client in clients {
            assert!(world.clients[client].received.is_empty());
        }
        let counters = world.gateway().counters();
        let dropped = counters.to_client.dropped(DropReason::SourceNotOwned);
        assert_eq!(dropped, 2);
    }
}

#[test]
fn a_second_connection_on_another_engine_takes_the_addresses_with_it() {
    let mut world = World::new(POLICY, 3);
    let [old, bob] = world.connect_in_both([ALICE, BOB]);
    let [own, b] = addresses(&world, [old, bob], true);
    assert_eq!(engine_of(&mut world, ALICE), 0);
    // The fewest sessions are on the engine that the one before has left.
    let mut current = old;
    for engine in [2, 0, 2, 0] {
        let [new] = world.connect_in_both([ALICE]);
        world.run_for(SECOND);
        let stopped = world.clients[current].events.iter().any(|event| {
            matches!(event, ClientEvent::Stopped(refusal) if refusal.kind == RefusalKind::Replaced)
        });
        assert!(stopped, "the old one is told");
        assert_eq!(world.clients[new].v4(), Some(own));
        assert_eq!(engine_of(&mut world, ALICE), engine);
        world.office.clear();
        world.send_from_office(&packets::udp(office(), own, 1, 100));
        world.send_from_client(bob, &packets::udp(b, own, 2, 100));
        world.send_from_client(new, &packets::udp(own, office(), 3, 100));
        world.send_from_client(new, &packets::udp(own, b, 4, 100));
        world.run_for(SECOND);
        let mut numbers = world.clients[new].numbers();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(packets::number(&world.office.pop().unwrap()), Some(3));
        assert_eq!(world.clients[bob].numbers().last(), Some(&4));
        assert_eq!(world.gateway().census().sessions, 2);
        current = new;
    }
    let now = world.now;
    for host in &mut world.clients {
        host.engine.shutdown(now);
    }
    world.run_for(60 * SECOND);
    let census = world.gateway().census();
    assert!(census.is_empty(), "{census:?}");
}

#[test]
fn a_second_connection_on_the_same_engine_is_known_to_all_others() {
    let mut world = World::new(POLICY, 3);
    let [old, bob, _] = world.connect_in_both([ALICE, BOB, CAROL]);
    let [own, b] = addresses(&world, [old, bob], true);
    let [new] = world.connect_in_both([ALICE]);
    assert_eq!(engine_of(&mut world, ALICE), 0);
    // Long after the end of the old session has been reported.
    world.run_for(60 * SECOND);
    world.send_from_client(bob, &packets::udp(b, own, 1, 100));
    for queue in 0..3 {
        world.gateway().arrival = Some(queue);
        world.send_from_office(&packets::udp(office(), own, 2, 100));
        world.run_for(SECOND);
    }
    let mut numbers = world.clients[new].numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 2, 2]);
    assert_eq!(world.gateway().census().sessions, 3);
}

#[test]
fn a_gateway_restarted_with_fewer_or_more_engines_gets_its_clients_back() {
    let mut world = World::new(POLICY, 3);
    let clients = world.connect_in_both([ALICE, BOB, CAROL]);
    let before = addresses(&world, clients, true);
    for engines in [1, 2, 3] {
        world.run_for(10 * SECOND);
        world.restart_gateway_with(engines);
        assert!(world.run_until(60 * SECOND, |world| {
            world.gateway.as_ref().unwrap().census().sessions == 3
                && clients
                    .iter()
                    .all(|&client| world.clients[client].is_ready())
        }));
        assert_eq!(addresses(&world, clients, true), before);
    }
}

#[test]
fn what_was_handed_over_once_is_never_handed_over_again() {
    let now = std::time::Instant::now();
    let mut engine = Gateway::new(GatewayConfig {
        engine: 0,
        engines: 3,
        inside: InsideAddresses::default(),
        epoch: Epoch::new(now, START),
    });
    let [one, two] = ["10.99.0.1", "10.99.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
    for (address, neighbour) in [(one, 1), (two, 2)] {
        let prefixes = vec![address.into()];
        let message = ToEngine::Neighbour {
            prefixes,
            engine: neighbour,
        };
        engine.handle_message(now, message);
    }
    let packet = |from, to| {
        let mut buffer = BytesMut::zeroed(HEADROOM);
        buffer.extend_from_slice(&packets::udp(from, to, 1, 100));
        buffer
    };
    engine.handle_inside(now, packet(office(), one), Offload::None);
    let (to, message) = engine.poll_neighbour().unwrap();
    assert_eq!(to, 1);
    engine.handle_neighbour(now, message);
    engine.handle_neighbour(now, ToNeighbour::Relayed(packet(two, one)));
    assert!(engine.poll_neighbour().is_none());
    let gone = |engine: &Gateway| engine.counters().to_client.dropped(DropReason::SessionGone);
    assert_eq!(gone(&engine), 2);
    // A full inbox drops, and says so.
    engine.handle_undelivered(&ToNeighbour::Relayed(packet(two, one)));
    let counters = engine.counters().to_client;
    assert_eq!(counters.dropped(DropReason::QueueFull), 1);
    assert!(counters.balances());
    assert_eq!(counters.packets_in(), 3);
}
