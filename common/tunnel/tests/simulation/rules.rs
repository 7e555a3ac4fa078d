//! What rules limit, deny and count, through whole gateways.

use std::net::IpAddr;
use std::time::Duration;

use adit_core::dataplane::{Denied, DropReason};
use adit_core::status::{RuleTexts, RuleTraffic, RulesTraffic, rules_traffic};
use adit_tunnel::GatewayEvent;

use super::packets;
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";

const POOL: &str = r#"
[pool]
v4 = "10.99.0.0/24"
"#;

/// To the office by this rule, the client's flows and the office's.
fn rule(name: &str, to: &str, more: &str) -> String {
    format!(
        "[[allow]]\nname = \"{name}\"\nwho = [\"{ALICE}\"]\nto = [\"{to}\"]\ndirection = \"both\"\n{more}\n"
    )
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn a_rate_is_kept_both_ways_and_used_up(engines: u8) {
    let slow = rule("slow", "10.0.0.0/24", "rate = \"1 Mbit/s\"");
    let fast = rule("fast", "10.0.1.0/24", "");
    let mut world = World::new(&format!("{POOL}{slow}{fast}"), engines);
    let [(alice, own)] = world.connect([ALICE]);
    let (limited, free) = (ip("10.0.0.7"), ip("10.0.1.7"));
    // Two megabits a second each way, and as much by the other rule.
    for number in 0..PACKETS {
        for far in [limited, free] {
            world.send_from_client(alice, &packets::udp(own, far, number, LENGTH));
            world.send_from_office(&packets::udp(far, own, number, LENGTH));
        }
        world.run_for(4 * SECOND / 1000);
    }
    world.run_for(SECOND);
    let counted = |packets: &[Vec<u8>], far: &[u8]| {
        let of = |packet: &&Vec<u8>| packet[12..16] == *far || packet[16..20] == *far;
        packets.iter().filter(of).count() as u64
    };
    let seconds = PACKETS as f64 * 0.004;
    let (office, received) = (&world.office, &world.clients[alice].received);
    let passed = [office, received].map(|packets| counted(packets, &[10, 0, 0, 7]));
    for passed in passed {
        let rate = passed as f64 * LENGTH as f64 * 8.0 / seconds;
        let burst = (64.0 * 1024.0 + LENGTH as f64) * 8.0 / seconds;
        assert!((0.95e6..1e6 + burst).contains(&rate), "{rate} bit/s");
    }
    for packets in [office, received] {
        assert_eq!(counted(packets, &[10, 0, 1, 7]), PACKETS, "unhindered");
    }
    let counters = world.gateway().counters();
    for (direction, passed) in [&counters.from_client, &counters.to_client]
        .iter()
        .zip(passed)
    {
        assert!(direction.balances());
        assert_eq!(direction.dropped(DropReason::RateLimited), PACKETS - passed);
    }
    // Another policy, another rate: none.
    let before = world.office.len();
    world.reload(&format!("{POOL}{}{fast}", rule("slow", "10.0.0.0/24", "")));
    for number in 0..200 {
        world.send_from_client(alice, &packets::udp(own, limited, number, LENGTH));
    }
    world.run_for(SECOND);
    assert_eq!(world.office.len() - before, 200);
}

fn a_flood_of_denied_packets_is_told_in_few_words_that_add_up(engines: u8) {
    let open = rule("office", "10.0.0.0/24", "");
    let closed = "[[deny]]\nname = \"closed\"\nwho = [\"*\"]\nto = [\"10.0.0.0/24\"]\n\
                  ports = [\"udp/7000-7999\"]\ndirection = \"both\"\n";
    let mut world = World::new(&format!("{POOL}{open}{closed}"), engines);
    let [(alice, own)] = world.connect([ALICE]);
    let office = ip("10.0.0.7");
    let to_port = |mut packet: Vec<u8>, port: u16| {
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet
    };
    let told = |world: &World| -> Vec<Denied> {
        let events = world.gateway_events.iter();
        let denied = events.filter_map(|event| match event {
            GatewayEvent::Denied { session, denied } => {
                assert_eq!(session.identity.principal.as_str(), ALICE);
                Some(denied.clone())
            }
            _ => None,
        });
        denied.collect()
    };
    let mut seconds = Vec::new();
    for second in 0..150u16 {
        for number in 0..20 {
            let port = 7000 + (second * 20 + number) % 40;
            let packet = packets::udp(own, office, 1, 100);
            world.send_from_client(alice, &to_port(packet, port));
            let packet = packets::udp(office, own, 1, 100);
            world.send_from_office(&to_port(packet, port));
        }
        world.run_for(SECOND);
        while seconds.len() < told(&world).len() {
            seconds.push(second);
        }
    }
    let expected = [0, 59, 119];
    assert_eq!(seconds, expected, "the first at once, then one a minute");
    let sessions = |world: &mut World| world.gateway().census().sessions;
    let now = world.now;
    world.clients[alice].engine.shutdown(now);
    world.run_for(SECOND);
    assert_eq!(sessions(&mut world), 0);
    let told = told(&world);
    assert_eq!(told.len(), 4, "what is left is told at the end");
    let last = world.gateway_events.iter().rev().take(2);
    let last: Vec<_> = last.map(std::mem::discriminant).collect();
    assert_ne!(last[0], last[1]);
    for denied in &told {
        assert!(denied.kinds.len() <= 16, "{denied:?}");
        for (denial, _) in &denied.kinds {
            assert_eq!(denial.far, office);
            let rule = denial.rule.as_ref().unwrap();
            assert_eq!(rule.name(), "closed");
        }
    }
    assert!(told[1].others > 0);
    let counters = world.gateway().counters();
    let refused = [&counters.from_client, &counters.to_client]
        .map(|way| way.replied() + way.dropped(DropReason::DeniedByPolicy));
    assert_eq!(refused, [3000, 3000]);
    assert_eq!(told.iter().map(Denied::packets).sum::<u64>(), 6000);
    assert!(
        world
            .office
            .iter()
            .all(|packet| packets::icmp(packet).is_some())
    );
}

fn what_passes_is_counted_by_the_names_of_rules_over_reloads(engines: u8) {
    let web = rule("web", "10.0.0.0/24", "");
    let mut world = World::new(&format!("{POOL}{web}"), engines);
    let [(alice, own)] = world.connect([ALICE]);
    let exchange = |world: &mut World, far: IpAddr, up, down| {
        for number in 0..up {
            world.send_from_client(alice, &packets::udp(own, far, number, 100));
        }
        world.run_for(SECOND);
        for number in 0..down {
            world.send_from_office(&packets::udp(far, own, number, 200));
        }
        world.run_for(SECOND);
    };
    exchange(&mut world, ip("10.0.0.7"), 10, 5);
    // The rule has another place now, and one stands before it.
    let mail = rule("mail", "10.0.7.0/24", "");
    world.reload(&format!("{POOL}{mail}\n\n{web}"));
    world.run_for(SECOND);
    exchange(&mut world, ip("10.0.0.7"), 20, 1);
    exchange(&mut world, ip("10.0.7.7"), 3, 0);
    let traffic = |flows, up, down| RuleTraffic {
        flows,
        sent_packets: up,
        sent_bytes: up * 100,
        received_packets: down,
        received_bytes: down * 200,
    };
    let expected = RulesTraffic::from([
        ("mail".to_owned(), traffic(1, 3, 0)),
        // What the office sends from here is not the answer: it is a flow of its own.
        ("web".to_owned(), traffic(2, 30, 6)),
    ]);
    let now = world.now;
    assert_eq!(world.gateway().rules_of(now, ALICE), Some(expected.clone()));
    world.clients[alice].engine.shutdown(now);
    world.run_for(SECOND);
    let mut closed = world.gateway_events.iter().filter_map(|event| match event {
        GatewayEvent::Closed { rules, .. } => Some(rules),
        _ => None,
    });
    let mut texts = RuleTexts::new();
    assert_eq!(rules_traffic(closed.next().unwrap(), &mut texts), expected);
    assert_eq!(
        texts["mail"],
        "allow alice@example.com to and from 10.0.7.0/24"
    );
}

with_one_engine_and_with_three!(
    a_rate_is_kept_both_ways_and_used_up,
    a_flood_of_denied_packets_is_told_in_few_words_that_add_up,
    what_passes_is_counted_by_the_names_of_rules_over_reloads,
);

/// Sent each way, one every four milliseconds.
const PACKETS: u64 = 1250;
const LENGTH: usize = 1000;
