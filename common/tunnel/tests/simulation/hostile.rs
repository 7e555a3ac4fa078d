//! Clients that mean it ill, beside others: what one session does to its flows, no other feels.

use std::net::IpAddr;
use std::time::Duration;

use adit_core::dataplane::DropReason;

use super::POLICY;
use super::packets;
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A policy by which nobody is begun with from inside: what arrives there answers something.
fn outgoing() -> String {
    POLICY.replace("direction = \"both\"", "")
}

fn office() -> (IpAddr, u16) {
    ("10.0.0.7".parse().unwrap(), 443)
}

fn flows_of(world: &mut World, principal: &str) -> usize {
    let now = world.now;
    world.gateway().flows_of(now, principal).unwrap()
}

fn open(world: &mut World, client: usize, own: (IpAddr, u16)) {
    world.send_from_client(client, &packets::tcp(own, office(), SYN));
    world.run_for(SECOND);
    world.send_from_office(&packets::tcp(office(), own, SYN | ACK));
    world.run_for(SECOND);
    world.send_from_client(client, &packets::tcp(own, office(), ACK));
    world.run_for(SECOND);
    world.office.clear();
    world.clients[client].received.clear();
}

fn a_session_that_exhausts_its_flows_harms_no_other_and_not_its_own_connections(engines: u8) {
    let mut world = World::new(&outgoing(), engines);
    let [(eve, e)] = world.connect([ALICE]);
    let [(bob, b)] = world.connect([BOB]);
    let [(carol, c)] = world.connect([CAROL]);
    let sessions = [(eve, (e, 50_000)), (bob, (b, 50_000)), (carol, (c, 50_000))];
    for (client, own) in sessions {
        open(&mut world, client, own);
    }
    // A scan of every port of many hosts, several tables long; the others work on.
    let mut scanned = 0;
    for host in 0..80u8 {
        let target = IpAddr::from([10, 0, 9, host]);
        for port in 0..500 {
            world.send_from_client(eve, &packets::tcp((e, 1024 + port), (target, 22), SYN));
            scanned += 1;
        }
        world.run_for(Duration::from_millis(50));
        for (client, own) in sessions {
            world.send_from_office(&packets::tcp(office(), own, ACK));
            world.run_for(Duration::from_millis(5));
            let received = std::mem::take(&mut world.clients[client].received);
            assert_eq!(received.len(), 1, "host {host}, client {client}");
        }
        world.office.clear();
    }
    assert!(scanned > 2 * MAX_FLOWS);
    assert_eq!(flows_of(&mut world, ALICE), MAX_FLOWS, "and not one more");
    assert_eq!(flows_of(&mut world, BOB), 1);
    assert_eq!(flows_of(&mut world, CAROL), 1);
    // Whoever has done nothing begins something new as ever.
    open(&mut world, bob, (b, 50_001));
    assert_eq!(flows_of(&mut world, BOB), 2);
    // And what it took is given back.
    world.run_for(300 * SECOND);
    assert_eq!(flows_of(&mut world, ALICE), 1);
    let counters = world.gateway().counters();
    assert!(counters.from_client.balances() && counters.to_client.balances());
}

/// "Host unreachable" about what `quote` begins.
fn unreachable(source: IpAddr, destination: IpAddr, quote: &[u8]) -> Vec<u8> {
    let mut packet = packets::udp(source, destination, 0, 28 + quote.len());
    (packet[9], packet[20], packet[21]) = (1, 3, 1);
    packet[22..28].fill(0);
    packet[28..].copy_from_slice(quote);
    packet
}

fn an_error_about_somebody_elses_packets_reaches_nobody(engines: u8) {
    let mut world = World::new(&outgoing(), engines);
    let [(eve, e)] = world.connect([ALICE]);
    let [(bob, b)] = world.connect([CAROL]);
    open(&mut world, bob, (b, 50_000));
    let (of_bob, to_bob) = (
        packets::tcp((b, 50_000), office(), ACK),
        packets::tcp(office(), (b, 50_000), ACK),
    );
    // Eve tells the office that bob cannot be reached, by its own address and by bob's.
    for source in [e, b] {
        world.send_from_client(eve, &unreachable(source, office().0, &to_bob));
        world.run_for(SECOND);
    }
    assert!(world.office.is_empty(), "{:?}", world.office);
    // From inside, an error about bob's packet comes to eve, and one about a flow that bob has not comes to bob.
    let router = "10.0.0.1".parse().unwrap();
    let other = packets::tcp((b, 50_001), office(), ACK);
    for (to, quote) in [(e, &of_bob), (b, &other), (b, &to_bob)] {
        world.send_from_office(&unreachable(router, to, quote));
        world.run_for(SECOND);
    }
    for client in [eve, bob] {
        assert!(world.clients[client].received.is_empty());
    }
    let counters = world.gateway().counters();
    assert_eq!(counters.to_client.dropped(DropReason::UnrelatedError), 3);
    assert_eq!(counters.from_client.dropped(DropReason::UnrelatedError), 1);
    // Bob's own errors come.
    world.send_from_office(&unreachable(router, b, &of_bob));
    world.run_for(SECOND);
    assert_eq!(packets::icmp(&world.clients[bob].received[0]), Some((3, 1)));
}

with_one_engine_and_with_three!(
    a_session_that_exhausts_its_flows_harms_no_other_and_not_its_own_connections,
    an_error_about_somebody_elses_packets_reaches_nobody,
);

/// Flows of a session, as `common/core/src/flow.rs` says.
const MAX_FLOWS: usize = 16_384;
