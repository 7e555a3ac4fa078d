//! What was begun goes on, what may not goes no further: flows through whole gateways.

use std::net::IpAddr;
use std::time::Duration;

use adit_core::dataplane::DropReason;

use super::POLICY;
use super::packets;
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn office() -> (IpAddr, u16) {
    ("10.0.0.7".parse().unwrap(), 443)
}

/// Takes what [`office`] is away, and nothing else.
fn withdraw(world: &mut World) {
    let policy = format!(
        "{POLICY}\n[[deny]]\nwho = [\"*\"]\nto = [\"10.0.0.0/16\"]\nports = [\"tcp/443\"]\n"
    );
    world.reload(&policy);
    world.run_for(SECOND);
}

fn from_client(world: &mut World, client: usize, packet: &[u8]) {
    world.send_from_client(client, packet);
    world.run_for(SECOND);
}

fn from_office(world: &mut World, packet: &[u8]) {
    world.send_from_office(packet);
    world.run_for(SECOND);
}

/// The segments that open a connection from the client.
fn open(world: &mut World, client: usize, own: (IpAddr, u16)) {
    from_client(world, client, &packets::tcp(own, office(), SYN));
    from_office(world, &packets::tcp(office(), own, SYN | ACK));
    // The second takes the short way of a flow that went inside.
    from_client(world, client, &packets::tcp(own, office(), ACK));
    from_client(world, client, &packets::tcp(own, office(), ACK));
    assert_eq!(world.office.len(), 3);
    assert_eq!(world.clients[client].received.len(), 1);
    world.office.clear();
    world.clients[client].received.clear();
}

fn a_connection_whose_grant_is_withdrawn_is_reset_at_the_client_that_speaks(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    let own = (address, 50_000);
    open(&mut world, alice, own);
    withdraw(&mut world);
    from_client(&mut world, alice, &packets::tcp(own, office(), ACK));
    assert!(world.office.is_empty());
    let reset = world.clients[alice].received.pop().unwrap();
    let expected = Some((RST, 9));
    assert_eq!(packets::tcp_flags(&reset), expected, "where it is expected");
    // What only begins is told by ICMP.
    from_client(
        &mut world,
        alice,
        &packets::tcp((address, 1), office(), SYN),
    );
    let answer = world.clients[alice].received.pop().unwrap();
    assert_eq!(packets::icmp(&answer), Some((3, 13)));
    let counters = world.gateway().counters();
    assert!(counters.from_client.balances() && counters.to_client.balances());
    assert_eq!(counters.from_client.replied(), 2);
    // Given back, it can begin again.
    world.reload(POLICY);
    world.run_for(SECOND);
    open(&mut world, alice, own);
}

fn a_connection_whose_grant_is_withdrawn_is_reset_inside_where_the_office_speaks(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    let own = (address, 50_000);
    open(&mut world, alice, own);
    withdraw(&mut world);
    from_office(&mut world, &packets::tcp(office(), own, ACK));
    assert!(world.clients[alice].received.is_empty());
    let reset = world.office.pop().unwrap();
    assert_eq!(packets::tcp_flags(&reset), Some((RST, 9)));
    assert_eq!(world.gateway().counters().to_client.replied(), 1);
}

fn a_download_goes_on_after_the_gateway_was_restarted(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    let own = (address, 50_000);
    open(&mut world, alice, own);
    world.restart_gateway();
    assert!(world.run_until(60 * SECOND, |world| {
        world.gateway.as_ref().unwrap().census().sessions == 1 && world.clients[alice].is_ready()
    }));
    // The client has nothing to say: the server repeats what was lost.
    from_office(&mut world, &packets::tcp(office(), own, ACK));
    assert_eq!(world.clients[alice].received.len(), 1);
}

fn the_middle_of_a_connection_that_nobody_knows_is_dropped_until_the_client_goes_on(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    let own = (address, 50_000);
    world.run_for(200 * SECOND);
    from_office(&mut world, &packets::tcp(office(), own, ACK));
    assert!(world.clients[alice].received.is_empty());
    assert!(world.office.is_empty(), "nobody is reset");
    let counters = world.gateway().counters();
    assert_eq!(counters.to_client.dropped(DropReason::NoFlow), 1);
    from_client(&mut world, alice, &packets::tcp(own, office(), ACK));
    from_office(&mut world, &packets::tcp(office(), own, ACK));
    assert_eq!(world.clients[alice].received.len(), 1);
}

fn flows_are_forgotten_though_no_packet_comes(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    from_client(
        &mut world,
        alice,
        &packets::udp(address, office().0, 1, 100),
    );
    let flows = |world: &mut World| {
        let now = world.now;
        world.gateway().flows_of(now, ALICE)
    };
    assert_eq!(flows(&mut world), Some(1));
    world.run_for(50 * SECOND);
    assert_eq!(flows(&mut world), Some(1));
    world.run_for(50 * SECOND);
    assert_eq!(flows(&mut world), Some(0));
}

fn what_is_for_another_client_never_takes_the_short_way_inside(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, a)] = world.connect([ALICE]);
    let [(bob, b)] = world.connect([BOB]);
    from_client(&mut world, alice, &packets::udp(a, b, 1, 100));
    // A message of no flow goes inside between two packets of the flow to bob.
    let mut redirect = packets::udp(a, office().0, 0, 100);
    (redirect[9], redirect[20]) = (1, 5);
    from_client(&mut world, alice, &redirect);
    assert_eq!(world.office.len(), 1);
    for number in 2..5 {
        from_client(&mut world, alice, &packets::udp(a, b, number, 100));
    }
    assert_eq!(world.clients[bob].numbers(), [1, 2, 3, 4]);
    assert_eq!(world.office.len(), 1);
}

with_one_engine_and_with_three!(
    a_connection_whose_grant_is_withdrawn_is_reset_at_the_client_that_speaks,
    a_connection_whose_grant_is_withdrawn_is_reset_inside_where_the_office_speaks,
    a_download_goes_on_after_the_gateway_was_restarted,
    the_middle_of_a_connection_that_nobody_knows_is_dropped_until_the_client_goes_on,
    flows_are_forgotten_though_no_packet_comes,
    what_is_for_another_client_never_takes_the_short_way_inside,
);
