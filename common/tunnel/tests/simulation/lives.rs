//! Thousands of seeded lives: whatever the path does, nothing leaks and no packet is invented.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::POLICY;
use super::link::Conditions;
use super::packets;
use super::world::World;

const PRINCIPALS: [&str; 3] = ["alice@example.com", "bob@example.com", "carol@example.com"];

/// One life: connect, talk, perhaps move, perhaps survive a gateway's restart, leave.
fn live(seed: u64, engines: u8) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(POLICY, engines);
    let clients: Vec<usize> = PRINCIPALS[..rng.random_range(1..=2)]
        .iter()
        .map(|principal| world.add_client(principal, Conditions::random(&mut rng), rng.random()))
        .collect();
    let ready = |world: &World| clients.iter().all(|&c| world.clients[c].is_ready());
    assert!(
        world.run_until(Duration::from_secs(300), ready),
        "seed {seed}: not connected: {:?}",
        world.clients[0].events
    );
    let office: IpAddr = "10.0.0.7".parse().unwrap();
    let mut sent_up = BTreeSet::new();
    let mut sent_down = BTreeSet::new();
    let mut sent_across = BTreeSet::new();
    let mut number = 0;
    for round in 0..10 {
        for &client in &clients {
            let Some(own) = world.clients[client].v4() else {
                continue;
            };
            number += 1;
            let len = rng.random_range(40..1500);
            world.send_from_client(client, &packets::udp(own, office, number, len));
            sent_up.insert(number);
            number += 1;
            let len = rng.random_range(40..1500);
            world.send_from_office(&packets::udp(office, own, number, len));
            sent_down.insert(number);
        }
        if let [one, other] = clients[..]
            && let Some((a, b)) = world.clients[one].v4().zip(world.clients[other].v4())
        {
            for (client, from, to) in [(one, a, b), (other, b, a)] {
                number += 1;
                let len = rng.random_range(40..1500);
                world.send_from_client(client, &packets::udp(from, to, number, len));
                sent_across.insert(number);
            }
        }
        world.run_for(Duration::from_millis(rng.random_range(0..500)));
        if round == 5 && rng.random_bool(0.3) {
            let address = SocketAddr::from(([198, 51, 100, 200], rng.random_range(1024..60_000)));
            world.move_client(clients[0], address);
        }
        if round == 7 && rng.random_bool(0.2) {
            world.restart_gateway();
        }
    }
    world.run_for(Duration::from_secs(2));

    // No packet is invented, altered into another, or delivered twice.
    let mut arrived = BTreeSet::new();
    for packet in &world.office {
        if let Some(number) = packets::number(packet) {
            assert!(
                // While its receiver is away, a packet for another client goes inside.
                sent_up.contains(&number) || sent_across.contains(&number),
                "seed {seed}: {number} was never sent"
            );
            assert!(arrived.insert(number), "seed {seed}: {number} came twice");
        }
    }
    for &client in &clients {
        for packet in &world.clients[client].received {
            if let Some(number) = packets::number(packet) {
                assert!(
                    sent_down.contains(&number) || sent_across.contains(&number),
                    "seed {seed}: {number} was never sent"
                );
                assert!(arrived.insert(number), "seed {seed}: {number} came twice");
            }
        }
    }

    // Everything that went in is accounted for on each side.
    for &client in &clients {
        let counters = world.clients[client].engine.counters();
        assert!(counters.from_client.balances(), "seed {seed}");
        assert!(counters.to_client.balances(), "seed {seed}");
    }
    let totals = world.gateway().counters();
    assert!(totals.from_client.balances(), "seed {seed}");
    assert!(totals.to_client.balances(), "seed {seed}");

    // Nothing is left when everybody has gone.
    let now = world.now;
    for &client in &clients {
        world.clients[client].engine.shutdown(now);
    }
    world.run_for(Duration::from_secs(300));
    let census = world.gateway().census();
    assert!(census.is_empty(), "seed {seed}: {census:?}");
    assert_eq!(world.gateway().poll_timeout(), None, "seed {seed}");
    let leases = world.leases();
    assert!(leases.len() <= clients.len(), "seed {seed}: {leases:?}");
}

/// A quarter of the lives per test, so that they use every core.
fn live_many(quarter: u64, engines: u8) {
    for seed in 0..LIVES / 4 {
        live(seed * 4 + quarter, engines);
    }
}

fn nothing_leaks_and_no_packet_is_invented_in_the_first_quarter_of_lives(engines: u8) {
    live_many(0, engines);
}

fn nothing_leaks_and_no_packet_is_invented_in_the_second_quarter_of_lives(engines: u8) {
    live_many(1, engines);
}

fn nothing_leaks_and_no_packet_is_invented_in_the_third_quarter_of_lives(engines: u8) {
    live_many(2, engines);
}

fn nothing_leaks_and_no_packet_is_invented_in_the_fourth_quarter_of_lives(engines: u8) {
    live_many(3, engines);
}

with_one_engine_and_with_three!(
    nothing_leaks_and_no_packet_is_invented_in_the_first_quarter_of_lives,
    nothing_leaks_and_no_packet_is_invented_in_the_second_quarter_of_lives,
    nothing_leaks_and_no_packet_is_invented_in_the_third_quarter_of_lives,
    nothing_leaks_and_no_packet_is_invented_in_the_fourth_quarter_of_lives,
);

const LIVES: u64 = 2000;
