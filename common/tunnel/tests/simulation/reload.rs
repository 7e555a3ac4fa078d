//! Another policy, other authorities, another certificate, while sessions go on.

use std::net::IpAddr;
use std::time::Duration;

use adit_core::close::RefusalKind;
use adit_tunnel::ClientEvent;

use super::POLICY;
use super::link::Conditions;
use super::packets;
use super::pki::Pki;
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn stopped(world: &World, client: usize) -> Option<RefusalKind> {
    let mut events = world.clients[client].events.iter();
    events.find_map(|event| match event {
        ClientEvent::Stopped(refusal) => Some(refusal.kind),
        _ => None,
    })
}

fn was_interrupted(world: &World, client: usize) -> bool {
    let mut events = world.clients[client].events.iter();
    events.any(|event| matches!(event, ClientEvent::Lost { .. } | ClientEvent::Stopped(_)))
}

/// The policy with fixed addresses for these.
fn fixed(addresses: &[(&str, &str)]) -> String {
    let entries = addresses.iter().map(|(principal, address)| {
        format!("[[principal]]\nname = \"{principal}\"\naddresses = [\"{address}\"]\n")
    });
    format!("{POLICY}\n{}", entries.collect::<String>())
}

fn what_is_granted_is_reached_at_once_and_what_is_withdrawn_no_more(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both([ALICE]);
    let own = world.clients[alice].v4().unwrap();
    let wider = format!("{POLICY}\n[[allow]]\nwho = [\"{ALICE}\"]\nto = [\"10.1.0.0/16\"]\n");
    let difference = world.reload(&wider);
    assert_eq!(difference.changed.len(), 1, "{}", difference.render());
    assert_eq!(difference.changed[0].routes.gained, ["10.1.0.0/16"]);
    assert_eq!(difference.changed[0].gained.v4, 65536);
    world.run_for(SECOND);
    world.send_from_client(alice, &packets::udp(own, ip("10.1.0.1"), 1, 100));
    world.run_for(SECOND);
    assert_eq!(packets::number(&world.office.pop().unwrap()), Some(1));
    // The flow that passed a moment ago is judged again, though its client has not heard yet.
    world.send_from_client(alice, &packets::udp(own, ip("10.1.0.1"), 2, 100));
    world.reload(POLICY);
    world.send_from_client(alice, &packets::udp(own, ip("10.1.0.1"), 3, 100));
    world.send_from_client(alice, &packets::udp(own, ip("10.0.0.7"), 4, 100));
    world.run_for(SECOND);
    let office: Vec<_> = world
        .office
        .iter()
        .map(|packet| packets::number(packet))
        .collect();
    assert_eq!(office, [Some(4)]);
    assert!(!was_interrupted(&world, alice));
}

fn a_session_without_access_ends_with_the_reason_and_the_others_go_on(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice, bob, carol] = world.connect_in_both([ALICE, BOB, CAROL]);
    let without = POLICY.replace(
        "\"bob@example.com\", \"carol@example.com\"]",
        "\"carol@example.com\"]",
    );
    let without = without.replace(", \"bob@example.com\"]", "]");
    let difference = world.reload(&without);
    assert_eq!(difference.ended.len(), 1, "{}", difference.render());
    assert_eq!(difference.unchanged, 2);
    world.run_for(SECOND);
    assert_eq!(stopped(&world, bob), Some(RefusalKind::AccessWithdrawn));
    assert!(!was_interrupted(&world, alice) && !was_interrupted(&world, carol));
    assert_eq!(world.gateway().census().sessions, 2);
    let again = world.add_client(BOB, Conditions::CLEAN, 7);
    world.run_for(5 * SECOND);
    assert_eq!(stopped(&world, again), Some(RefusalKind::NoAccess));
}

fn addresses_move_without_an_end_of_the_session(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice, bob] = world.connect_in_both([ALICE, BOB]);
    let before = [alice, bob].map(|client| world.clients[client].v4().unwrap());
    // Each gets what the other had: whoever comes first must not lose it by the other's leave.
    let (a, b) = (before[0].to_string(), before[1].to_string());
    world.reload(&fixed(&[(ALICE, &b), (BOB, &a)]));
    world.run_for(SECOND);
    let after = [alice, bob].map(|client| world.clients[client].v4().unwrap());
    assert_eq!(after, [before[1], before[0]]);
    world.send_from_office(&packets::udp(ip("10.0.0.7"), after[0], 1, 100));
    world.send_from_office(&packets::udp(ip("10.0.0.7"), after[1], 2, 100));
    world.send_from_client(alice, &packets::udp(after[0], after[1], 3, 100));
    world.send_from_client(bob, &packets::udp(after[1], ip("10.0.0.7"), 4, 100));
    world.run_for(SECOND);
    assert_eq!(world.clients[alice].numbers(), [1]);
    let mut numbers = world.clients[bob].numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
    assert_eq!(packets::number(&world.office.pop().unwrap()), Some(4));
    // Another pool for everybody: the engines agree whose the new addresses are.
    let difference = world.reload(&POLICY.replace("10.99.0.", "10.98.0."));
    assert_eq!(difference.changed.len(), 2, "{}", difference.render());
    world.run_for(SECOND);
    for client in [alice, bob] {
        let address = world.clients[client].v4().unwrap();
        assert!(address.to_string().starts_with("10.98.0."), "{address}");
        assert!(!was_interrupted(&world, client));
    }
    let census = world.gateway().census();
    assert_eq!((census.sessions, census.connections), (2, 2));
}

fn an_address_that_becomes_anothers_is_not_taken_away_by_the_end_of_the_first(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice, bob] = world.connect_in_both([ALICE, BOB]);
    let address = world.clients[alice].v4().unwrap();
    let without = fixed(&[(BOB, &address.to_string())]).replace("\"alice@example.com\", ", "");
    world.reload(&without);
    world.run_for(SECOND);
    assert_eq!(stopped(&world, alice), Some(RefusalKind::AccessWithdrawn));
    assert_eq!(world.clients[bob].v4(), Some(address));
    for number in 0..10 {
        world.send_from_office(&packets::udp(ip("10.0.0.7"), address, number, 100));
    }
    world.run_for(SECOND);
    assert_eq!(world.clients[bob].numbers().len(), 10);
    assert_eq!(world.gateway().census().sessions, 1);
}

fn sessions_of_an_authority_that_is_gone_end_and_say_so(engines: u8) {
    let mut world = World::new(POLICY, engines);
    world.authorities.push(Pki::stranger());
    world.reload(POLICY);
    let [alice] = world.connect_in_both([ALICE]);
    let credentials = Pki::stranger().client(BOB);
    let bob = world.add_client_with(credentials.clone(), Conditions::CLEAN, 2);
    assert!(world.run_until(5 * SECOND, |world| world.clients[bob].is_ready()));
    // A handshake that the authorities of its beginning accept is asked about again at its end.
    let eve = world.add_client_with(Pki::stranger().client(CAROL), Conditions::CLEAN, 3);
    world.run_until(SECOND, |world| {
        world.gateway.as_ref().unwrap().census().handshakes > 0
    });
    let in_time = world.run_until(SECOND, |world| {
        let census = world.gateway.as_ref().unwrap().census();
        census.handshakes == 0 && census.connections == 3
    });
    assert!(
        in_time,
        "the handshake is over and the request has not come"
    );
    assert_eq!(world.gateway().census().sessions, 2);
    world.authorities.pop();
    let difference = world.reload(POLICY);
    assert_eq!((difference.ended.len(), difference.unchanged), (1, 1));
    world.run_for(SECOND);
    assert_eq!(stopped(&world, bob), Some(RefusalKind::UnknownAuthority));
    assert_eq!(stopped(&world, eve), Some(RefusalKind::UnknownAuthority));
    assert!(!was_interrupted(&world, alice));
    let again = world.add_client_with(credentials, Conditions::CLEAN, 4);
    world.run_for(5 * SECOND);
    assert_eq!(stopped(&world, again), Some(RefusalKind::UnknownAuthority));
}

fn new_handshakes_see_the_new_certificate_and_old_sessions_go_on(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both([ALICE]);
    world.issuer = Pki::stranger();
    assert!(world.reload(POLICY).is_empty());
    let mine = Pki::shared();
    let bob = world.add_client_trusting(Pki::stranger(), mine.client(BOB), Conditions::CLEAN, 2);
    let carol = world.add_client(CAROL, Conditions::CLEAN, 3);
    world.run_for(5 * SECOND);
    assert!(
        world.clients[bob].is_ready(),
        "{:?}",
        world.clients[bob].events
    );
    assert_eq!(stopped(&world, carol), Some(RefusalKind::UnknownAuthority));
    let own = world.clients[alice].v4().unwrap();
    world.send_from_client(alice, &packets::udp(own, ip("10.0.0.7"), 1, 100));
    world.run_for(SECOND);
    assert_eq!(world.office.len(), 1);
    assert!(!was_interrupted(&world, alice));
}

fn a_hundred_reloads_leave_everything_as_it_was(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let clients = world.connect_in_both([ALICE, BOB, CAROL]);
    let own = clients.map(|client| world.clients[client].v4().unwrap());
    let (census, leases) = (world.gateway().census(), world.leases());
    let before = leases
        .iter()
        .map(|lease| (lease.principal.clone(), lease.v4, lease.v6));
    let before: Vec<_> = before.collect();
    let other = POLICY.replace(
        "to = [\"10.0.0.0/16\"",
        "to = [\"10.0.0.0/16\", \"10.7.0.0/24\"",
    );
    for number in 0..100 {
        let policy = if number % 2 == 0 { &other } else { POLICY };
        assert_eq!(world.reload(policy).changed.len(), 3);
        for (client, own) in clients.into_iter().zip(own) {
            world.send_from_client(client, &packets::udp(own, ip("10.0.0.7"), number, 900));
            world.send_from_office(&packets::udp(ip("10.0.0.7"), own, number, 900));
        }
        world.run_for(Duration::from_millis(50));
    }
    world.run_for(SECOND);
    assert_eq!(world.office.len(), 300);
    for client in clients {
        assert_eq!(world.clients[client].numbers().len(), 100);
        assert!(!was_interrupted(&world, client));
    }
    assert_eq!(world.gateway().census(), census);
    let after = world.leases();
    let after = after
        .iter()
        .map(|lease| (lease.principal.clone(), lease.v4, lease.v6));
    assert_eq!(after.collect::<Vec<_>>(), before);
    let counters = world.gateway().counters();
    assert!(counters.from_client.balances() && counters.to_client.balances());
    let now = world.now;
    for client in clients {
        world.clients[client].engine.shutdown(now);
    }
    world.run_for(60 * SECOND);
    let census = world.gateway().census();
    assert!(census.is_empty(), "{census:?}");
    assert_eq!(world.gateway().poll_timeout(), None);
}

fn a_lease_is_free_again_when_a_replaced_and_then_the_last_session_has_ended(engines: u8) {
    let mut world = World::new(
        &POLICY.replace("v4 = \"10.99.0.0/24\"", "v4 = \"10.98.0.0/30\""),
        engines,
    );
    let [_, bob] = world.connect_in_both([ALICE, BOB]);
    let address = world.clients[bob].v4();
    let [again] = world.connect_in_both([BOB]);
    let now = world.now;
    world.clients[again].engine.shutdown(now);
    world.run_for(5 * SECOND);
    let [carol] = world.connect_in_both([CAROL]);
    assert_eq!(world.clients[carol].v4(), address);
}

with_one_engine_and_with_three!(
    what_is_granted_is_reached_at_once_and_what_is_withdrawn_no_more,
    a_session_without_access_ends_with_the_reason_and_the_others_go_on,
    addresses_move_without_an_end_of_the_session,
    an_address_that_becomes_anothers_is_not_taken_away_by_the_end_of_the_first,
    sessions_of_an_authority_that_is_gone_end_and_say_so,
    new_handshakes_see_the_new_certificate_and_old_sessions_go_on,
    a_hundred_reloads_leave_everything_as_it_was,
    a_lease_is_free_again_when_a_replaced_and_then_the_last_session_has_ended,
);
