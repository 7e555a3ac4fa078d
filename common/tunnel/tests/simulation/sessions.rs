//! Sessions: who gets in, with what, how they end, and what is left of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_core::close::RefusalKind;
use adit_tunnel::{ClientEvent, ClientState, GatewayEvent, SecondConnection};

use super::POLICY;
use super::link::Conditions;
use super::packets;
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn stopped(world: &World, client: usize) -> Option<RefusalKind> {
    world.clients[client]
        .events
        .iter()
        .find_map(|event| match event {
            ClientEvent::Stopped(refusal) => Some(refusal.kind),
            _ => None,
        })
}

fn a_client_gets_both_families_and_exchanges_packets(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    for family in [(ip("10.0.0.7"), true), (ip("fd00:1::7"), false)] {
        let host = &world.clients[alice];
        let own = if family.1 { host.v4() } else { host.v6() }.unwrap();
        let up = packets::udp(own, family.0, 1, 1280);
        let down = packets::udp(family.0, own, 2, 1280);
        world.send_from_client(alice, &up);
        world.send_from_office(&down);
        world.run_for(SECOND);
        assert_eq!(world.office.pop().unwrap(), up);
        assert_eq!(world.clients[alice].received.pop().unwrap(), down);
    }
}

fn a_denied_destination_is_answered_with_icmp_and_never_reaches_the_office(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    let own = world.clients[alice].v4().unwrap();
    // Carol is not among friends: even a client that ignores its routes gets an answer.
    world.send_from_client(alice, &packets::udp(own, ip("10.1.0.1"), 1, 100));
    world.run_for(SECOND);
    assert!(world.office.is_empty());
    let answer = world.clients[alice].received.pop().unwrap();
    assert!(packets::icmp(&answer).is_some());
}

fn the_office_is_told_at_once_that_nobody_has_an_address(engines: u8) {
    let mut world = World::new(POLICY, engines);
    world.send_from_office(&packets::udp(ip("10.0.0.7"), ip("10.99.0.77"), 1, 100));
    world.run_for(SECOND);
    assert_eq!(packets::icmp(&world.office.pop().unwrap()), Some((3, 0)));
}

fn a_source_that_is_not_the_clients_own_never_reaches_the_office(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    world.send_from_client(
        alice,
        &packets::udp(ip("10.99.0.77"), ip("10.0.0.7"), 1, 100),
    );
    world.run_for(SECOND);
    assert!(world.office.is_empty());
}

fn friends_reach_each_other_and_others_do_not(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    let [bob] = world.connect_in_both(["bob@example.com"]);
    let [carol] = world.connect_in_both(["carol@example.com"]);
    let address = |world: &World, client: usize| world.clients[client].v4().unwrap();
    let (a, b, c) = (
        address(&world, alice),
        address(&world, bob),
        address(&world, carol),
    );
    world.send_from_client(alice, &packets::udp(a, b, 1, 100));
    world.send_from_client(carol, &packets::udp(c, b, 2, 100));
    world.send_from_client(alice, &packets::udp(a, c, 3, 100));
    world.run_for(SECOND);
    let arrived: Vec<_> = world.clients[bob]
        .received
        .iter()
        .filter_map(|packet| packets::number(packet))
        .collect();
    assert_eq!(arrived, [1]);
    assert!(
        world.clients[carol]
            .received
            .iter()
            .all(|packet| packets::number(packet).is_none())
    );
    assert!(world.office.is_empty());
}

fn a_site_speaks_for_its_network_but_not_for_a_neighbour_inside_it(engines: u8) {
    let mut world = World::new(
        &format!(
            "{POLICY}\n[[principal]]\nname = \"dave@example.com\"\naddresses = [\"10.20.5.5\"]\n\
         [[allow]]\nwho = [\"dave@example.com\"]\nto = [\"10.0.0.0/16\"]\ndirection = \"both\"\n"
        ),
        engines,
    );
    let branch = world.add_client("branch1.example.com", Conditions::CLEAN, 1);
    let dave = world.add_client("dave@example.com", Conditions::CLEAN, 2);
    assert!(world.run_until(5 * SECOND, |world| {
        world.clients[branch].is_ready() && world.clients[dave].is_ready()
    }));
    world.send_from_client(
        branch,
        &packets::udp(ip("10.20.1.1"), ip("10.0.0.7"), 1, 100),
    );
    world.send_from_client(
        branch,
        &packets::udp(ip("10.20.5.5"), ip("10.0.0.7"), 2, 100),
    );
    world.send_from_client(dave, &packets::udp(ip("10.20.5.5"), ip("10.0.0.7"), 3, 100));
    world.send_from_office(&packets::udp(ip("10.0.0.7"), ip("10.20.1.1"), 4, 100));
    world.send_from_office(&packets::udp(ip("10.0.0.7"), ip("10.20.5.5"), 5, 100));
    world.run_for(SECOND);
    let mut office: Vec<_> = world
        .office
        .iter()
        .filter_map(|packet| packets::number(packet))
        .collect();
    office.sort_unstable();
    assert_eq!(office, [1, 3]);
    let numbers = |client: usize| -> Vec<u64> {
        world.clients[client]
            .received
            .iter()
            .filter_map(|packet| packets::number(packet))
            .collect()
    };
    assert_eq!(numbers(branch), [4]);
    assert_eq!(numbers(dave), [5]);
}

fn a_principal_without_access_is_told_so_and_stops_at_once(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let mallory = world.add_client("mallory@example.com", Conditions::CLEAN, 1);
    assert!(world.run_until(5 * SECOND, |world| stopped(world, mallory).is_some()));
    assert_eq!(stopped(&world, mallory), Some(RefusalKind::NoAccess));
    assert!(world.gateway_events.iter().any(|event| matches!(
        event,
        GatewayEvent::Refused { refusal, .. } if refusal.kind == RefusalKind::NoAccess
    )));
}

fn a_certificate_of_an_unknown_authority_is_refused_as_such(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let credentials = super::pki::Pki::stranger().client("alice@example.com");
    let eve = world.add_client_with(credentials, Conditions::CLEAN, 1);
    assert!(world.run_until(5 * SECOND, |world| stopped(world, eve).is_some()));
    assert_eq!(stopped(&world, eve), Some(RefusalKind::UnknownAuthority));
    // Whatever name it carries: nobody vouches for it.
    assert!(matches!(refused_holders(&world)[..], [None]));
}

fn a_certificate_that_strangers_signed_is_not_told_of_whatever_else_is_wrong_with_it(engines: u8) {
    // webpki looks at the dates first, and says no more than that.
    let mut world = World::new(POLICY, engines);
    let credentials = super::pki::Pki::stranger().client_valid("alice@example.com", -100, -1);
    let eve = world.add_client_with(credentials, Conditions::CLEAN, 1);
    assert!(world.run_until(5 * SECOND, |world| stopped(world, eve).is_some()));
    assert_eq!(stopped(&world, eve), Some(RefusalKind::CertificateExpired));
    assert!(matches!(refused_holders(&world)[..], [None]));
}

fn whoever_is_refused_with_a_certificate_of_an_authority_is_told_of_with_it(engines: u8) {
    use super::pki::Pki;
    for (credentials, device) in [
        (
            Pki::shared().client_valid("alice@example.com", -100, -1),
            None,
        ),
        (
            Pki::shared().client_valid("alice@example.com", 1, 100),
            None,
        ),
        (Pki::shared().client("mallory@example.com"), Some("laptop")),
    ] {
        let mut world = World::new(POLICY, engines);
        let leaf = credentials.chain[0].to_vec();
        let identity = adit_core::identity::extract(&leaf, &Pki::shared().rule()).unwrap();
        let client = world.add_client_with(credentials, Conditions::CLEAN, 1);
        assert!(world.run_until(5 * SECOND, |world| stopped(world, client).is_some()));
        let holders = refused_holders(&world);
        let [Some(holder)] = &holders[..] else {
            panic!("{holders:?}");
        };
        assert_eq!(holder.identity, identity);
        assert_eq!(*holder.certificate, leaf);
        // The handshake comes before the request, in which it says what it is.
        let said = holder.user_agent.as_ref();
        assert_eq!(said.map(adit_core::session::UserAgent::device), device);
    }
}

/// For each refusal, whose certificate it was.
fn refused_holders(world: &World) -> Vec<Option<adit_tunnel::Holder>> {
    let events = world.gateway_events.iter();
    let refused = events.filter_map(|event| match event {
        GatewayEvent::Refused { holder, .. } => Some(holder.as_deref().cloned()),
        _ => None,
    });
    refused.collect()
}

fn a_session_is_told_of_with_its_certificate_and_device(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let credentials = super::pki::Pki::shared().client("alice@example.com");
    let leaf = credentials.chain[0].to_vec();
    let alice = world.add_client_with(credentials, Conditions::CLEAN, 1);
    assert!(world.run_until(5 * SECOND, |world| world.clients[alice].is_ready()));
    let opened = world.gateway_events.iter().find_map(|event| match event {
        GatewayEvent::Opened(session) => Some(session),
        _ => None,
    });
    let session = opened.unwrap();
    assert_eq!(*session.certificate, leaf);
    let said = session.user_agent.as_ref().unwrap();
    assert_eq!(said.as_str(), "adit/0.1.0 (linux; laptop)");
}

fn expired_and_not_yet_valid_certificates_are_told_apart(engines: u8) {
    let pki = super::pki::Pki::shared();
    for (from, to, expected) in [
        (-100, -1, RefusalKind::CertificateExpired),
        (1, 100, RefusalKind::CertificateNotYetValid),
    ] {
        let mut world = World::new(POLICY, engines);
        let credentials = pki.client_valid("alice@example.com", from, to);
        let client = world.add_client_with(credentials, Conditions::CLEAN, 1);
        assert!(world.run_until(5 * SECOND, |world| stopped(world, client).is_some()));
        assert_eq!(stopped(&world, client), Some(expected));
    }
}

fn the_gateways_own_certificate_opens_no_tunnel(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let credentials = super::pki::Pki::shared().gateway();
    let client = world.add_client_with(credentials, Conditions::CLEAN, 1);
    assert!(world.run_until(5 * SECOND, |world| stopped(world, client).is_some()));
    assert_eq!(stopped(&world, client), Some(RefusalKind::WrongPurpose));
}

fn a_second_connection_replaces_the_first_and_keeps_its_addresses(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [old] = world.connect_in_both(["alice@example.com"]);
    let address = world.clients[old].v4();
    let new = world.add_client("alice@example.com", Conditions::CLEAN, 2);
    assert!(world.run_until(5 * SECOND, |world| world.clients[new].is_ready()));
    assert_eq!(world.clients[new].v4(), address);
    assert_ne!(
        world.clients[old].engine.state(),
        ClientState::Up(super::world::GATEWAY.parse().unwrap())
    );
}

fn a_second_connection_is_refused_where_the_operator_wants_it_so(engines: u8) {
    let mut world = World::with(POLICY, SecondConnection::Refuse, engines);
    let [first] = world.connect_in_both(["alice@example.com"]);
    let second = world.add_client("alice@example.com", Conditions::CLEAN, 2);
    world.run_for(3 * SECOND);
    assert!(!world.clients[second].is_ready());
    assert!(world.clients[first].is_ready());
    assert!(world.gateway_events.iter().any(|event| matches!(
        event,
        GatewayEvent::Refused { refusal, .. } if refusal.kind == RefusalKind::AlreadyConnected
    )));
}

fn a_restarted_gateway_gets_its_clients_back_with_the_same_addresses(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    let [bob] = world.connect_in_both(["bob@example.com"]);
    let before = [world.clients[alice].v4(), world.clients[bob].v4()];
    world.run_for(10 * SECOND);
    world.restart_gateway();
    // The next packet or keep-alive draws a stateless reset.
    let restarted = world.now;
    assert!(world.run_until(60 * SECOND, |world| {
        world.gateway.as_ref().unwrap().census().sessions == 2
            && world.clients[alice].is_ready()
            && world.clients[bob].is_ready()
    }));
    let took = world.now - restarted;
    assert!(took < 15 * SECOND, "took {took:?}");
    assert_eq!([world.clients[alice].v4(), world.clients[bob].v4()], before);
}

fn a_client_that_moves_to_another_address_loses_nothing_for_it(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    let own = world.clients[alice].v4().unwrap();
    world.move_client(alice, SocketAddr::from(([198, 51, 100, 99], 50_000)));
    for number in 0..10 {
        world.send_from_client(alice, &packets::udp(own, ip("10.0.0.7"), number, 1000));
        world.run_for(Duration::from_millis(100));
    }
    world.send_from_office(&packets::udp(ip("10.0.0.7"), own, 99, 1000));
    world.run_for(SECOND);
    assert_eq!(world.office.len(), 10);
    assert_eq!(
        packets::number(world.clients[alice].received.last().unwrap()),
        Some(99)
    );
    assert_eq!(world.gateway().census().sessions, 1);
}

fn a_client_that_disappears_is_forgotten_and_its_lease_is_kept(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    let address = world.clients[alice].v4();
    world.clients[alice].online = false;
    world.run_for(Duration::from_secs(120));
    let census = world.gateway().census();
    assert_eq!(census.sessions, 0, "{census:?}");
    assert_eq!(census.connections, 0, "{census:?}");
    world.clients[alice].online = true;
    assert!(world.run_until(120 * SECOND, |world| {
        world.clients[alice].is_ready() && world.gateway.as_ref().unwrap().census().sessions == 1
    }));
    assert_eq!(world.clients[alice].v4(), address);
}

fn shutting_down_leaves_nothing_behind_on_either_side(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    let now = world.now;
    world.clients[alice].engine.shutdown(now);
    world.run_for(30 * SECOND);
    let census = world.gateway().census();
    assert!(census.is_empty(), "{census:?}");
    assert!(world.gateway().poll_timeout().is_none());
    assert!(world.clients[alice].engine.poll_timeout().is_none());
}

fn a_gateway_that_shuts_down_tells_its_clients_and_they_come_back(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    let now = world.now;
    world.gateway().shutdown(now);
    world.run_for(Duration::from_millis(100));
    let going_away = |event: &ClientEvent| matches!(event, ClientEvent::GoingAway);
    assert!(world.clients[alice].events.iter().any(going_away));
    assert!(world.clients[alice].events.iter().any(|event| matches!(
        event,
        ClientEvent::Lost { refusal, .. } if refusal.kind == RefusalKind::GatewayShutdown
    )));
    world.restart_gateway();
    assert!(world.run_until(120 * SECOND, |world| world.clients[alice].is_ready()));
}

fn a_flow_that_went_inside_follows_its_address_to_a_new_owner(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice] = world.connect_in_both(["alice@example.com"]);
    let [bob] = world.connect_in_both(["bob@example.com"]);
    let [from, to] = [alice, bob].map(|client| world.clients[client].v4().unwrap());
    let now = world.now;
    world.clients[bob].engine.shutdown(now);
    world.run_for(SECOND);
    for number in 0..3 {
        world.send_from_client(alice, &packets::udp(from, to, number, 100));
        world.run_for(SECOND);
        assert!(
            world.office.pop().is_some(),
            "nobody has it: packet {number}"
        );
    }
    let [bob] = world.connect_in_both(["bob@example.com"]);
    assert_eq!(world.clients[bob].v4(), Some(to), "a lease is sticky");
    world.send_from_client(alice, &packets::udp(from, to, 3, 100));
    world.run_for(SECOND);
    assert!(world.office.is_empty());
    assert_eq!(world.clients[bob].received.len(), 1);
}

with_one_engine_and_with_three!(
    a_client_gets_both_families_and_exchanges_packets,
    a_denied_destination_is_answered_with_icmp_and_never_reaches_the_office,
    the_office_is_told_at_once_that_nobody_has_an_address,
    a_source_that_is_not_the_clients_own_never_reaches_the_office,
    friends_reach_each_other_and_others_do_not,
    a_site_speaks_for_its_network_but_not_for_a_neighbour_inside_it,
    a_principal_without_access_is_told_so_and_stops_at_once,
    a_certificate_that_strangers_signed_is_not_told_of_whatever_else_is_wrong_with_it,
    whoever_is_refused_with_a_certificate_of_an_authority_is_told_of_with_it,
    a_session_is_told_of_with_its_certificate_and_device,
    a_certificate_of_an_unknown_authority_is_refused_as_such,
    expired_and_not_yet_valid_certificates_are_told_apart,
    the_gateways_own_certificate_opens_no_tunnel,
    a_second_connection_replaces_the_first_and_keeps_its_addresses,
    a_second_connection_is_refused_where_the_operator_wants_it_so,
    a_restarted_gateway_gets_its_clients_back_with_the_same_addresses,
    a_client_that_moves_to_another_address_loses_nothing_for_it,
    a_client_that_disappears_is_forgotten_and_its_lease_is_kept,
    a_flow_that_went_inside_follows_its_address_to_a_new_owner,
    shutting_down_leaves_nothing_behind_on_either_side,
    a_gateway_that_shuts_down_tells_its_clients_and_they_come_back,
);
