//! Make before break: a session that moves to a renewed certificate loses nothing, and nobody else can take it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_core::close::RefusalKind;
use adit_core::dataplane::{Counters, DropReason};
use adit_tunnel::{ClientEvent, ClientState, GatewayEvent, SecondConnection};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::POLICY;
use super::link::Conditions;
use super::packets;
use super::pki::Pki;
use super::world::{GATEWAY, World};

mod maximum;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";

fn office(v4: bool) -> IpAddr {
    if v4 { "10.0.0.7" } else { "fd00:1::7" }.parse().unwrap()
}

/// A conversation in both families and both directions, a packet of each every millisecond.
#[derive(Default)]
struct Talk {
    next: u64,
    length: usize,
}

impl Talk {
    /// With packets of this length.
    fn of(length: usize) -> Self {
        Self { next: 0, length }
    }

    /// Talks for so long.
    fn on(&mut self, world: &mut World, client: usize, time: Duration) {
        let end = world.now + time;
        while world.now < end {
            for v4 in [true, false] {
                let host = &world.clients[client];
                let own = if v4 { host.v4() } else { host.v6() };
                let own = own.expect("the client has both families all the time");
                let up = packets::udp(own, office(v4), self.next, self.length);
                let down = packets::udp(office(v4), own, self.next, self.length);
                world.send_from_client(client, &up);
                world.send_from_office(&down);
                self.next += 1;
            }
            world.run_for(MILLISECOND);
        }
    }

    /// Everything came, once, and each flow in its order. What the kernel gives to two queues in one instant, as
    /// IPv4 and IPv6, has none.
    fn came_whole(&self, world: &World, client: usize) {
        let (up, down) = (of_office(world), world.clients[client].numbers());
        for (way, came) in [("to the office", up), ("from the office", down)] {
            for family in 0..2 {
                let came = came.iter().filter(|number| *number % 2 == family);
                let expected = (0..self.next).filter(|number| number % 2 == family);
                let mut places = expected.clone().zip(came.clone());
                let wrong = places.find(|(expected, came)| expected != *came);
                assert_eq!(wrong, None, "{way}, the first that is not in its place");
                assert_eq!(came.count(), expected.count(), "{way}");
            }
        }
    }
}

/// The numbers of the packets that came to the office.
fn of_office(world: &World) -> Vec<u64> {
    let packets = world.office.iter();
    packets
        .filter_map(|packet| packets::number(packet))
        .collect()
}

fn serial(world: &World, client: usize) -> String {
    let status = world.clients[client].engine.status(world.now);
    status.certificate.unwrap().serial
}

fn moves(world: &World, client: usize) -> usize {
    let events = world.clients[client].events.iter();
    let moved = |event: &&ClientEvent| matches!(event, ClientEvent::MovedOver { .. });
    events.filter(moved).count()
}

fn stopped(world: &World, client: usize) -> Option<RefusalKind> {
    let mut events = world.clients[client].events.iter();
    events.find_map(|event| match event {
        ClientEvent::Stopped(refusal) => Some(refusal.kind),
        _ => None,
    })
}

/// Sessions opened, handed over and closed, as the operator is told.
fn told(world: &World) -> [usize; 3] {
    let count = |is: fn(&GatewayEvent) -> bool| {
        let events = world.gateway_events.iter();
        events.filter(|event| is(event)).count()
    };
    [
        count(|event| matches!(event, GatewayEvent::Opened(_))),
        count(|event| matches!(event, GatewayEvent::HandedOver { .. })),
        count(|event| matches!(event, GatewayEvent::Closed { .. })),
    ]
}

fn is_up(world: &World, client: usize) -> bool {
    world.clients[client].engine.state() == ClientState::Up(GATEWAY.parse().unwrap())
}

fn dropped(counters: &Counters) -> u64 {
    [&counters.from_client, &counters.to_client]
        .map(|direction| direction.packets_in() - direction.forwarded())
        .iter()
        .sum()
}

fn a_session_moves_to_a_renewed_certificate_without_losing_or_turning_a_packet(engines: u8) {
    for delay in [MILLISECOND, 50 * MILLISECOND] {
        let mut world = World::new(POLICY, engines);
        world.connect([BOB]);
        let conditions = Conditions {
            delay,
            ..Conditions::CLEAN
        };
        let alice = world.add_client(ALICE, conditions, 1);
        let ready = |world: &World| world.clients[alice].v6().is_some();
        assert!(world.run_until(10 * SECOND, ready));
        world.run_for(5 * SECOND);
        let before = serial(&world, alice);
        let mut talk = Talk::of(1400);
        talk.on(&mut world, alice, 300 * MILLISECOND);
        let renewed = Pki::shared().client_valid(ALICE, -1, 700);
        world.renew(alice, renewed);
        talk.on(&mut world, alice, 4 * SECOND);
        assert_eq!(moves(&world, alice), 1);
        assert_ne!(serial(&world, alice), before);
        world.run_for(5 * SECOND);
        talk.came_whole(&world, alice);
        assert_eq!(dropped(&world.gateway().counters()), 0);
        assert_eq!(dropped(world.clients[alice].engine.counters()), 0);
        assert_eq!(told(&world), [2, 1, 0]);
        let census = world.gateway().census();
        assert_eq!(
            (census.sessions, census.connections),
            (2, 2),
            "the old link is closed"
        );
        let assigned = |event: &&ClientEvent| matches!(event, ClientEvent::Assigned(_));
        let assigned = world.clients[alice].events.iter().filter(assigned).count();
        assert!(
            assigned <= 2,
            "the host is not told what it has: {assigned}"
        );
    }
}

fn flows_counters_and_rules_go_on_after_a_move(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both([ALICE]);
    let mut talk = Talk::of(100);
    talk.on(&mut world, alice, 50 * MILLISECOND);
    let now = world.now;
    assert_eq!(world.gateway().flows_of(now, ALICE), Some(4));
    let credentials = Pki::shared().client(ALICE);
    world.renew(alice, credentials);
    world.run_for(10 * SECOND);
    assert_eq!(moves(&world, alice), 1);
    let now = world.now;
    assert_eq!(world.gateway().flows_of(now, ALICE), Some(4));
    talk.on(&mut world, alice, 50 * MILLISECOND);
    world.run_for(SECOND);
    let now = world.now;
    assert_eq!(world.gateway().flows_of(now, ALICE), Some(4));
    let rules = world.gateway().rules_of(now, ALICE).unwrap();
    let packets: u64 = rules.values().map(|rule| rule.sent_packets).sum();
    assert_eq!(packets, talk.next, "{rules:?}");
    world.clients[alice].engine.shutdown(now);
    world.run_for(SECOND);
    let closed = world.gateway_events.iter().find_map(|event| match event {
        GatewayEvent::Closed { counters, .. } => Some(counters.from_client.forwarded()),
        _ => None,
    });
    assert_eq!(closed, Some(talk.next), "one account for both connections");
}

fn a_session_moves_again_and_again_also_faster_than_old_links_are_closed(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both([ALICE]);
    world.run_for(5 * SECOND);
    let mut talk = Talk::of(1400);
    for round in 1..=8 {
        let credentials = Pki::shared().client(ALICE);
        world.renew(alice, credentials);
        talk.on(&mut world, alice, 200 * MILLISECOND);
        assert_eq!(moves(&world, alice), round);
    }
    // A certificate that is replaced while the session moves to it.
    for _ in 0..3 {
        let credentials = Pki::shared().client(ALICE);
        world.renew(alice, credentials);
        talk.on(&mut world, alice, 3 * MILLISECOND);
    }
    talk.on(&mut world, alice, SECOND);
    world.run_for(5 * SECOND);
    talk.came_whole(&world, alice);
    let census = world.gateway().census();
    assert_eq!((census.sessions, census.connections), (1, 1));
    let now = world.now;
    world.clients[alice].engine.shutdown(now);
    world.run_for(60 * SECOND);
    assert!(world.gateway().census().is_empty());
    assert_eq!(world.gateway().poll_timeout(), None);
    assert_eq!(world.clients[alice].engine.poll_timeout(), None);
}

/// One move over a bad path, perhaps from another address, perhaps with a restart in its middle.
fn move_badly(seed: u64, engines: u8) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(POLICY, engines);
    let conditions = Conditions {
        loss: rng.random_range(0.0..0.15),
        duplication: rng.random_range(0.0..0.1),
        delay: Duration::from_millis(rng.random_range(0..150)),
        jitter: Duration::from_millis(rng.random_range(0..50)),
        max_payload: rng.random_range(1252..=1472),
    };
    let alice = world.add_client(ALICE, conditions, rng.random());
    let ready = |world: &World| world.clients[alice].is_ready();
    assert!(world.run_until(120 * SECOND, ready), "seed {seed}");
    let before = serial(&world, alice);
    let roams = rng.random_bool(0.4);
    let restarts = rng.random_bool(0.2);
    let turn = rng.random_range(0..600);
    let own = world.clients[alice].v4().unwrap();
    let mut sent = 0;
    let credentials = Pki::shared().client(ALICE);
    world.renew(alice, credentials);
    for step in 0..1500 {
        if step == turn && roams {
            let address = SocketAddr::from(([198, 51, 100, 200], 1024 + step));
            world.move_client(alice, address);
        }
        if step == turn && restarts {
            world.restart_gateway();
        }
        if is_up(&world, alice) && world.clients[alice].is_ready() {
            world.send_from_client(alice, &packets::udp(own, office(true), sent, 1000));
            world.send_from_office(&packets::udp(office(true), own, sent, 1000));
            sent += 1;
        }
        world.run_for(5 * MILLISECOND);
    }
    let moved = |world: &World| {
        serial(world, alice) != before && is_up(world, alice) && world.clients[alice].is_ready()
    };
    assert!(world.run_until(120 * SECOND, moved), "seed {seed}");
    // What the path lost is not counted here; what either end had and did not pass on is.
    let counters = world.clients[alice].engine.counters().clone();
    assert!(counters.from_client.balances() && counters.to_client.balances());
    let gateway = world.gateway().counters();
    assert!(gateway.from_client.balances() && gateway.to_client.balances());
    if !restarts && told(&world) == [1, 1, 0] {
        for (name, counters) in [("client", &counters), ("gateway", &gateway)] {
            for reason in [
                DropReason::NotReady,
                DropReason::SessionGone,
                DropReason::QueueFull,
                DropReason::NoRoute,
            ] {
                let dropped =
                    counters.from_client.dropped(reason) + counters.to_client.dropped(reason);
                assert_eq!(dropped, 0, "seed {seed}: {name}: {reason:?}");
            }
        }
    }
    for numbers in [world.clients[alice].numbers(), of_office(&world)] {
        let mut once = numbers.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(
            once.len(),
            numbers.len(),
            "seed {seed}: something came twice"
        );
    }
    let now = world.now;
    world.clients[alice].engine.shutdown(now);
    world.run_for(300 * SECOND);
    assert!(world.gateway().census().is_empty(), "seed {seed}");
}

fn a_move_over_a_bad_path_or_from_another_address_or_through_a_restart_ends_well(engines: u8) {
    for seed in 0..60 {
        move_badly(seed, engines);
    }
}

fn most_moves_over_bad_paths_are_moves_and_make_no_packet_too_large(engines: u8) {
    let (mut moved, mut too_big) = (0, 0);
    for seed in 0..20 {
        let mut world = World::new(POLICY, engines);
        let conditions = Conditions {
            loss: 0.05,
            delay: Duration::from_millis(30),
            jitter: Duration::from_millis(10),
            ..Conditions::CLEAN
        };
        let alice = world.add_client(ALICE, conditions, seed);
        let ready = |world: &World| world.clients[alice].is_ready();
        assert!(world.run_until(60 * SECOND, ready));
        world.run_for(10 * SECOND);
        let credentials = Pki::shared().client(ALICE);
        world.renew(alice, credentials);
        let own = world.clients[alice].v4().unwrap();
        for number in 0..3000 {
            world.send_from_client(alice, &packets::udp(own, office(true), number, 1400));
            world.run_for(5 * MILLISECOND);
        }
        let counters = world.clients[alice].engine.counters();
        too_big += counters.from_client.dropped(DropReason::TooBig);
        moved += usize::from(told(&world) == [1, 1, 0]);
    }
    assert!(moved >= 19, "{moved} of 20");
    assert_eq!(
        too_big, 0,
        "the old link carries what the new one does not yet"
    );
}

fn a_restart_of_the_gateway_at_any_moment_of_a_move_costs_a_reconnect_and_no_more(engines: u8) {
    for moment in (0..40).step_by(3) {
        let mut world = World::new(POLICY, engines);
        let [alice] = world.connect_in_both([ALICE]);
        world.run_for(6 * SECOND);
        let (address, before) = (world.clients[alice].v4(), serial(&world, alice));
        let credentials = Pki::shared().client(ALICE);
        world.renew(alice, credentials);
        world.run_for(moment * MILLISECOND);
        world.restart_gateway();
        let back = |world: &World| {
            let census = world.gateway.as_ref().unwrap().census();
            census.sessions == 1 && is_up(world, alice) && world.clients[alice].is_ready()
        };
        world.run_for(20 * SECOND);
        assert!(world.run_until(60 * SECOND, back), "{moment} ms");
        assert_ne!(serial(&world, alice), before, "{moment} ms");
        assert_eq!(world.clients[alice].v4(), address);
    }
}

fn a_second_device_with_the_same_certificate_is_no_move(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let credentials = Pki::shared().client(ALICE);
    let first = world.add_client_with(credentials.clone(), Conditions::CLEAN, 1);
    assert!(world.run_until(5 * SECOND, |world| world.clients[first].is_ready()));
    let second = world.add_client_with(credentials, Conditions::CLEAN, 2);
    assert!(world.run_until(5 * SECOND, |world| world.clients[second].is_ready()));
    world.run_for(SECOND);
    assert_eq!(stopped(&world, first), Some(RefusalKind::Replaced));
    assert_eq!(told(&world), [2, 0, 1]);
    // Not even one that is about to move comes back.
    let third = Pki::shared().client(ALICE);
    let third = world.add_client_with(third, Conditions::CLEAN, 3);
    world.run_until(5 * SECOND, |world| world.clients[third].is_ready());
    let credentials = Pki::shared().client(ALICE);
    world.renew(second, credentials);
    world.run_for(20 * SECOND);
    assert_eq!(stopped(&world, second), Some(RefusalKind::Replaced));
    assert!(is_up(&world, third));
}

fn a_move_is_no_second_connection_where_those_are_refused(engines: u8) {
    let mut world = World::with(POLICY, SecondConnection::Refuse, engines);
    let [alice] = world.connect_in_both([ALICE]);
    let credentials = Pki::shared().client(ALICE);
    world.renew(alice, credentials);
    world.run_for(5 * SECOND);
    assert_eq!(told(&world), [1, 1, 0]);
    let credentials = Pki::shared().client(ALICE);
    let second = world.add_client_with(credentials, Conditions::CLEAN, 2);
    world.run_for(3 * SECOND);
    assert!(!world.clients[second].is_ready());
    assert_eq!(told(&world), [1, 1, 0]);
}

fn nobody_takes_the_session_of_another_by_a_proof_of_their_own(engines: u8) {
    // Bob has a copy of alice's certificate and key, and a session of his own to prove something with.
    for second_connection in [SecondConnection::Refuse, SecondConnection::Replace] {
        let mut world = World::with(POLICY, second_connection, engines);
        let [alice, bob] = world.connect_in_both([ALICE, BOB]);
        let copied = Pki::shared().client(ALICE);
        world.renew(bob, copied);
        world.run_for(10 * SECOND);
        let [_, moves, _] = told(&world);
        assert_eq!(moves, 0, "{second_connection:?}");
        match second_connection {
            SecondConnection::Refuse => {
                assert!(is_up(&world, alice) && is_up(&world, bob));
                let own = world.clients[bob].v4().unwrap();
                world.send_from_office(&packets::udp(office(true), own, 7, 100));
                world.run_for(SECOND);
                assert_eq!(world.clients[bob].numbers(), [7]);
            }
            // As any copy: alice's client stops, and its user asks why.
            SecondConnection::Replace => {
                assert_eq!(stopped(&world, alice), Some(RefusalKind::Replaced));
            }
        }
    }
}

fn a_certificate_that_is_refused_costs_nothing_and_is_tried_again(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both([ALICE]);
    world.run_for(5 * SECOND);
    let before = serial(&world, alice);
    let mut talk = Talk::of(1400);
    let unknown = Pki::stranger().client(ALICE);
    world.renew(alice, unknown);
    talk.on(&mut world, alice, 3 * SECOND);
    let status = world.clients[alice].engine.status(world.now);
    assert_eq!(serial(&world, alice), before);
    assert!(status.renewed_certificate.is_some());
    let stays = world.clients[alice].events.iter().filter(|event| {
        matches!(event, ClientEvent::Stayed { refusal, .. } if refusal.kind == RefusalKind::UnknownAuthority)
    });
    assert!(stays.count() >= 2);
    // A session that is lost for another reason comes back with the certificate that was good.
    world.restart_gateway();
    world.run_for(20 * SECOND);
    assert!(world.run_until(60 * SECOND, |world| is_up(world, alice)));
    assert_eq!(serial(&world, alice), before);
    // The gateway learns of the authority; the client needs no word.
    world.authorities.push(Pki::stranger());
    world.reload(POLICY);
    assert!(world.run_until(120 * SECOND, |world| serial(world, alice) != before));
    assert_eq!(stopped(&world, alice), None);
    assert_eq!(moves(&world, alice), 1);
    assert_eq!(of_office(&world).len() as u64, talk.next);
}

fn a_session_ends_at_its_deadline_to_the_second_and_both_ends_know_why(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let start = world.now;
    let credentials = Pki::shared().client_ending(ALICE, 100);
    let alice = world.add_client_with(credentials, Conditions::CLEAN, 1);
    assert!(world.run_until(5 * SECOND, |world| world.clients[alice].is_ready()));
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let until = |world: &mut World, moment: Instant| world.run_for(moment - world.now);
    until(&mut world, at(100) - MILLISECOND);
    assert_eq!(told(&world), [1, 0, 0]);
    until(&mut world, at(100));
    assert_eq!(told(&world), [1, 0, 1]);
    let reason = world.gateway_events.iter().find_map(|event| match event {
        GatewayEvent::Closed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let reason = reason.unwrap();
    assert!(reason.contains("ended with its certificate"), "{reason}");
    world.run_for(2 * MILLISECOND);
    assert_eq!(stopped(&world, alice), Some(RefusalKind::SessionExpired));
}

fn a_session_ends_with_the_first_certificate_that_its_chain_needs(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let start = world.now;
    let short = Pki::shared().client_under_ending(ALICE, 100);
    // Another intermediate that ends sooner, and that nobody needs.
    let mut longer = Pki::shared().client(BOB);
    let needless = Pki::shared().client_under_ending(BOB, 50).chain.remove(1);
    longer.chain.push(needless);
    for credentials in [short, longer] {
        let client = world.add_client_with(credentials, Conditions::CLEAN, 1);
        let ready = |world: &World| world.clients[client].is_ready();
        assert!(world.run_until(5 * SECOND, ready));
    }
    world.run_for(start + 100 * SECOND - MILLISECOND - world.now);
    assert_eq!(told(&world), [2, 0, 0]);
    world.run_for(MILLISECOND);
    assert_eq!(told(&world), [2, 0, 1]);
    world.run_for(SECOND);
    assert_eq!(stopped(&world, 0), Some(RefusalKind::SessionExpired));
    assert_eq!(stopped(&world, 1), None);
}

fn a_session_that_moved_ends_with_the_certificate_it_moved_to(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let start = world.now;
    let credentials = Pki::shared().client_ending(ALICE, 100);
    let alice = world.add_client_with(credentials, Conditions::CLEAN, 1);
    assert!(world.run_until(5 * SECOND, |world| world.clients[alice].is_ready()));
    world.run_for(90 * SECOND);
    let credentials = Pki::shared().client_ending(ALICE, 200);
    world.renew(alice, credentials);
    world.run_for(start + 200 * SECOND - MILLISECOND - world.now);
    assert_eq!(told(&world), [1, 1, 0]);
    world.run_for(MILLISECOND);
    assert_eq!(told(&world), [1, 1, 1]);
    world.run_for(SECOND);
    assert_eq!(stopped(&world, alice), Some(RefusalKind::SessionExpired));
}

fn a_deadline_in_the_middle_of_a_move_does_not_stop_the_client(engines: u8) {
    for moment in (0..30).step_by(2) {
        let mut world = World::new(POLICY, engines);
        let start = world.now;
        let credentials = Pki::shared().client_ending(ALICE, 100);
        let alice = world.add_client_with(credentials, Conditions::CLEAN, 1);
        assert!(world.run_until(5 * SECOND, |world| world.clients[alice].is_ready()));
        let before = serial(&world, alice);
        world.run_for(start + 100 * SECOND - moment * MILLISECOND - world.now);
        let credentials = Pki::shared().client(ALICE);
        world.renew(alice, credentials);
        let renewed = |world: &World| {
            let host = &world.clients[alice];
            serial(world, alice) != before && is_up(world, alice) && host.is_ready()
        };
        assert!(world.run_until(SECOND, renewed), "{moment} ms before");
        world.run_for(10 * SECOND);
        assert!(
            renewed(&world) && stopped(&world, alice).is_none(),
            "{moment} ms before"
        );
        assert_eq!(world.gateway().census().sessions, 1);
    }
}

fn a_principal_that_may_no_more_cannot_move(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both([ALICE]);
    let credentials = Pki::shared().client(ALICE);
    world.renew(alice, credentials);
    world.run_for(2 * MILLISECOND);
    world.reload(&POLICY.replace("\"alice@example.com\", ", ""));
    world.run_for(10 * SECOND);
    assert!(
        stopped(&world, alice).is_some(),
        "{:?}",
        world.clients[alice].events
    );
    let census = world.gateway().census();
    assert_eq!((census.sessions, census.connections), (0, 0));
}

#[test]
fn a_session_stays_on_its_engine_when_it_moves_and_has_one_seat_there() {
    let mut world = World::new(POLICY, 3);
    let [alice, _, _] = world.connect_in_both([ALICE, BOB, CAROL]);
    let engine_of = |world: &mut World, principal| {
        let now = world.now;
        world.gateway().engine_of(now, principal)
    };
    for _ in 0..3 {
        let credentials = Pki::shared().client(ALICE);
        world.renew(alice, credentials);
        world.run_for(5 * SECOND);
        assert_eq!(engine_of(&mut world, ALICE), Some(0));
    }
    assert_eq!(moves(&world, alice), 3);
    let now = world.now;
    world.clients[alice].engine.shutdown(now);
    world.run_for(SECOND);
    world.connect_in_both([ALICE]);
    assert_eq!(engine_of(&mut world, ALICE), Some(0), "the emptiest");
}

with_one_engine_and_with_three!(
    a_session_moves_to_a_renewed_certificate_without_losing_or_turning_a_packet,
    flows_counters_and_rules_go_on_after_a_move,
    a_session_moves_again_and_again_also_faster_than_old_links_are_closed,
    a_move_over_a_bad_path_or_from_another_address_or_through_a_restart_ends_well,
    most_moves_over_bad_paths_are_moves_and_make_no_packet_too_large,
    a_restart_of_the_gateway_at_any_moment_of_a_move_costs_a_reconnect_and_no_more,
    a_second_device_with_the_same_certificate_is_no_move,
    a_move_is_no_second_connection_where_those_are_refused,
    nobody_takes_the_session_of_another_by_a_proof_of_their_own,
    a_certificate_that_is_refused_costs_nothing_and_is_tried_again,
    a_session_ends_at_its_deadline_to_the_second_and_both_ends_know_why,
    a_session_ends_with_the_first_certificate_that_its_chain_needs,
    a_session_that_moved_ends_with_the_certificate_it_moved_to,
    a_deadline_in_the_middle_of_a_move_does_not_stop_the_client,
    a_principal_that_may_no_more_cannot_move,
);
