//! What the data path promises, one sentence per test.
//!
//! The world: alice and bob have an address each; a site router has one, and a network in which bob's
//! second address lies, and the network of a session of another engine. Alice and the site may reach the office and each other; bob the office alone.

#![allow(clippy::unwrap_used)]

mod rules;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_core::dataplane::client::{self, ClientView};
use adit_core::dataplane::gateway::{
    Gate, OnWire, Place, Sessions, Target, answer, from_neighbour, from_peer, to_peer,
};
use adit_core::dataplane::{Counters, Denial, DropReason, Verdict};
use adit_core::flow::{FlowTable, HashKey};
use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Direction, Filter, Policy};
use adit_core::range::{RouteRange, from_prefixes};
use adit_core::table::owners::Owners;
use adit_core::wire::icmp::{IcmpError, error_packet};
use adit_core::wire::ip::IpPacket;
use proptest::prelude::*;

const ALICE: usize = 0;
const BOB: usize = 1;
const SITE: usize = 2;
const GONE: usize = 3;
/// The engine of the session at [`ELSEWHERE`].
const NEIGHBOUR: u8 = 7;

#[test]
fn a_permitted_packet_goes_inside_and_its_reply_comes_back() {
    let mut world = World::new();
    for (alice, office) in [(ALICE_V4, OFFICE_V4), (ALICE_V6, OFFICE_V6)] {
        assert_eq!(
            world.from(ALICE, alice, office),
            Verdict::Forward(Target::Inside)
        );
        assert_eq!(
            world.to(office, alice),
            Verdict::Forward(Place::Here(ALICE))
        );
    }
}

#[test]
fn a_denied_packet_is_answered_with_icmp_prohibited_in_both_directions() {
    let mut world = World::new();
    let prohibited = IcmpError::AdminProhibited;
    assert_eq!(
        world.from(ALICE, ALICE_V4, "8.8.8.8"),
        Verdict::Reply(prohibited)
    );
    assert_eq!(world.to("8.8.8.8", ALICE_V4), Verdict::Reply(prohibited));
}

#[test]
fn nobody_inside_speaks_with_the_address_of_a_session() {
    let mut world = World::new();
    for source in [BOB_V4, ALICE_V4] {
        let verdict = world.to(source, ALICE_V4);
        assert_eq!(
            verdict,
            Verdict::Drop(DropReason::SourceNotOwned),
            "{source}"
        );
    }
}

#[test]
fn a_source_that_is_not_the_sessions_own_is_refused() {
    let mut world = World::new();
    for source in [BOB_V4, OFFICE_V4, "10.99.0.77"] {
        let verdict = world.from(ALICE, source, OFFICE_V4);
        assert_eq!(verdict, Verdict::Reply(IcmpError::SourcePolicy), "{source}");
    }
}

#[test]
fn a_site_speaks_for_its_network_but_not_for_a_neighbour_inside_it() {
    let mut world = World::new();
    assert_eq!(
        world.from(SITE, "10.20.7.7", OFFICE_V4),
        Verdict::Forward(Target::Inside)
    );
    let verdict = world.from(SITE, BOB_AT_SITE, OFFICE_V4);
    assert_eq!(verdict, Verdict::Reply(IcmpError::SourcePolicy));
    assert_eq!(
        world.from(BOB, BOB_AT_SITE, OFFICE_V4),
        Verdict::Forward(Target::Inside)
    );
    assert_eq!(
        world.to(OFFICE_V4, BOB_AT_SITE),
        Verdict::Forward(Place::Here(BOB))
    );
}

#[test]
fn two_sessions_reach_each_other_only_when_each_may_reach_the_other() {
    let mut world = World::new();
    let there = world.from(ALICE, ALICE_V4, "10.20.7.7");
    assert_eq!(there, Verdict::Forward(Target::Peer(SITE)));
    let back = world.from(SITE, "10.20.7.7", ALICE_V4);
    assert_eq!(back, Verdict::Forward(Target::Peer(ALICE)));
    // Alice may reach bob's address, but bob may not reach hers.
    let verdict = world.from(ALICE, ALICE_V4, BOB_V4);
    assert_eq!(verdict, Verdict::Reply(IcmpError::AdminProhibited));
}

#[test]
fn between_two_sessions_the_gateway_is_a_hop() {
    let mut world = World::new();
    let mut last_hop = packet(ALICE_V4, "10.20.7.7", UDP, &[0; 8]);
    last_hop[8] = 1;
    let parsed = IpPacket::parse(&last_hop).unwrap();
    let now = world.now;
    let verdict = from_peer(&mut world, now, ALICE, &parsed);
    assert_eq!(verdict, Verdict::Reply(IcmpError::HopLimitExceeded));
}

#[test]
fn a_packet_to_oneself_does_not_circle() {
    let mut world = World::new();
    let verdict = world.from(SITE, "10.20.7.7", "10.20.8.8");
    assert_eq!(verdict, Verdict::Reply(IcmpError::NoRoute));
}

#[test]
fn what_is_for_another_engine_goes_there_after_the_senders_own_questions() {
    let mut world = World::new();
    let there = world.from(ALICE, ALICE_V4, ELSEWHERE);
    assert_eq!(there, Verdict::Forward(Target::Neighbour(NEIGHBOUR)));
    let inside = world.to(OFFICE_V4, ELSEWHERE);
    assert_eq!(inside, Verdict::Forward(Place::There(NEIGHBOUR)));
    // Bob may not reach it, whoever has it.
    let denied = world.from(BOB, BOB_V4, ELSEWHERE);
    assert_eq!(denied, Verdict::Reply(IcmpError::AdminProhibited));
    let mut last_hop = packet(ALICE_V4, ELSEWHERE, UDP, &[0; 8]);
    last_hop[8] = 1;
    let now = world.now;
    let verdict = from_peer(&mut world, now, ALICE, &IpPacket::parse(&last_hop).unwrap());
    assert_eq!(verdict, Verdict::Reply(IcmpError::HopLimitExceeded));
}

#[test]
fn nobody_speaks_with_the_address_of_another_engines_session() {
    let mut world = World::new();
    let verdict = world.to(ELSEWHERE, ALICE_V4);
    assert_eq!(verdict, Verdict::Drop(DropReason::SourceNotOwned));
    // It lies inside the site's own network.
    let verdict = world.from(SITE, ELSEWHERE, OFFICE_V4);
    assert_eq!(verdict, Verdict::Reply(IcmpError::SourcePolicy));
    for source in [ALICE_V4, OFFICE_V4] {
        let verdict = world.relayed(source, BOB_V4);
        assert_eq!(
            verdict,
            Verdict::Drop(DropReason::SourceNotOwned),
            "{source}"
        );
    }
}

#[test]
fn the_receivers_engine_has_the_last_word_and_passes_nothing_on_again() {
    let mut world = World::new();
    let mut verdict = |destination| world.relayed(ELSEWHERE, destination);
    assert_eq!(verdict("10.20.7.7"), Verdict::Forward(SITE));
    let prohibited = Verdict::Reply(IcmpError::AdminProhibited);
    assert_eq!(verdict(BOB_V4), prohibited, "bob does not speak with it");
    assert_eq!(verdict("10.99.0.77"), Verdict::Reply(IcmpError::NoRoute));
    let gone = Verdict::Drop(DropReason::SessionGone);
    assert_eq!(verdict("10.20.6.2"), gone, "that is another engine's");
    let bytes = packet(ELSEWHERE, "10.20.7.7", UDP, &[0; MAX_PACKET]);
    let too_big = IcmpError::PacketTooBig {
        mtu: MAX_PACKET as u32,
    };
    let now = world.now;
    let verdict = from_neighbour(&mut world, now, &IpPacket::parse(&bytes).unwrap());
    assert_eq!(verdict, Verdict::Reply(too_big));
}

#[test]
fn a_packet_for_nobody_has_no_route() {
    assert_eq!(
        World::new().to(OFFICE_V4, "10.99.0.77"),
        Verdict::Reply(IcmpError::NoRoute)
    );
}

#[test]
fn what_does_not_fit_is_told_the_largest_size() {
    let mut world = World::new();
    let mut verdict = |size: usize| {
        let bytes = packet(OFFICE_V4, ALICE_V4, UDP, &vec![0; size - 20]);
        world.inside(&bytes)
    };
    assert_eq!(verdict(MAX_PACKET), Verdict::Forward(Place::Here(ALICE)));
    let too_big = IcmpError::PacketTooBig {
        mtu: MAX_PACKET as u32,
    };
    assert_eq!(verdict(MAX_PACKET + 1), Verdict::Reply(too_big));
}

#[test]
fn what_is_not_unicast_is_dropped_without_an_answer() {
    let mut world = World::new();
    let dropped = Verdict::Drop(DropReason::NotUnicast);
    for bad in [
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "127.0.0.1",
        "169.254.1.1",
    ] {
        assert_eq!(
            world.from(ALICE, ALICE_V4, bad),
            dropped.map(|()| Target::Inside),
            "{bad}"
        );
        assert_eq!(
            world.from(ALICE, bad, OFFICE_V4),
            dropped.map(|()| Target::Inside),
            "{bad}"
        );
        assert_eq!(
            world.to(bad, ALICE_V4),
            dropped.map(|()| Place::Here(ALICE)),
            "{bad}"
        );
        assert_eq!(to_gateway(ALICE_V4, bad), dropped, "{bad}");
    }
    for bad in ["ff02::1", "::", "::1", "fe80::1"] {
        assert_eq!(
            world.from(ALICE, ALICE_V6, bad),
            dropped.map(|()| Target::Inside),
            "{bad}"
        );
        assert_eq!(
            world.to(bad, ALICE_V6),
            dropped.map(|()| Place::Here(ALICE)),
            "{bad}"
        );
        assert_eq!(from_gateway(bad, ALICE_V6), dropped, "{bad}");
    }
}

#[test]
fn a_session_that_ended_gets_nothing() {
    let mut world = World::new();
    let gone = DropReason::SessionGone;
    assert_eq!(world.to(OFFICE_V4, "10.99.0.9"), Verdict::Drop(gone));
    assert_eq!(
        world.from(GONE, "10.99.0.9", OFFICE_V4),
        Verdict::Drop(gone)
    );
}

#[test]
fn a_routers_icmp_error_reaches_the_one_whose_packet_it_quotes() {
    let mut world = World::new();
    for (alice, office, router) in [
        (ALICE_V4, OFFICE_V4, "192.0.2.1"),
        (ALICE_V6, OFFICE_V6, "2001:db8::1"),
    ] {
        // She has sent it, and may.
        let sent = world.from(ALICE, alice, office);
        assert_eq!(sent, Verdict::Forward(Target::Inside));
        let mut error = |source: &str, destination: &str| {
            let quoted = packet(source, destination, UDP, &[0; 8]);
            let quoted = IpPacket::parse(&quoted).unwrap();
            let too_big = IcmpError::PacketTooBig { mtu: 1280 };
            let bytes = error_packet(too_big, &quoted, router.parse().unwrap()).unwrap();
            world.inside(&bytes)
        };
        assert_eq!(error(alice, office), Verdict::Forward(Place::Here(ALICE)));
        let elsewhere = if alice.contains(':') {
            "2001:db8::8"
        } else {
            "8.8.8.8"
        };
        let unrelated = Verdict::Drop(DropReason::UnrelatedError);
        assert_eq!(
            error(alice, elsewhere),
            unrelated,
            "she has not sent anything there"
        );
        // An error that is addressed to her, but about a packet that is not hers.
        let not_hers = if alice.contains(':') {
            OFFICE_V6
        } else {
            BOB_V4
        };
        let quoted = packet(not_hers, office, UDP, &[0; 8]);
        let mut payload = if alice.contains(':') {
            vec![2, 0]
        } else {
            vec![3, 4]
        };
        payload.resize(8, 0);
        payload.extend(quoted);
        let icmp = if alice.contains(':') { 58 } else { 1 };
        let bytes = packet(router, alice, icmp, &payload);
        assert_eq!(world.inside(&bytes), unrelated);
    }
}

#[test]
fn an_icmp_message_that_is_no_error_follows_the_rules_and_one_that_quotes_too_little_is_dropped() {
    let mut world = World::new();
    let quoted = packet(ALICE_V4, OFFICE_V4, UDP, &[0; 8]);
    for (kind, length) in [(5u8, 28), (8, 28), (3, 19), (3, 0)] {
        let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        payload.extend(&quoted[..length]);
        let bytes = packet("192.0.2.1", ALICE_V4, 1, &payload);
        let expected = if kind == 3 {
            Verdict::Drop(DropReason::UnrelatedError)
        } else {
            Verdict::Reply(IcmpError::AdminProhibited)
        };
        assert_eq!(world.inside(&bytes), expected, "type {kind}, {length}");
    }
}

#[test]
fn a_connection_that_is_not_allowed_is_refused_by_icmp_at_first_and_by_a_reset_later() {
    let router = ip("10.99.0.1");
    for (flags, reset) in [(0x02, false), (0x10, true), (0x12, true), (0x11, true)] {
        let mut segment = [0; 20];
        (segment[12], segment[13]) = (0x50, flags);
        let bytes = packet(ALICE_V4, "8.8.8.8", TCP, &segment);
        let offending = IpPacket::parse(&bytes).unwrap();
        let answered = answer(IcmpError::AdminProhibited, &offending, router).unwrap();
        let answered = IpPacket::parse(&answered).unwrap();
        assert_eq!(answered.destination(), ip(ALICE_V4));
        let expected = if reset {
            (TCP, ip("8.8.8.8"))
        } else {
            (1, router)
        };
        assert_eq!((answered.protocol(), answered.source()), expected);
        // Whatever else is wrong is no reason to end a connection.
        let answered = answer(IcmpError::NoRoute, &offending, router).unwrap();
        assert_eq!(IpPacket::parse(&answered).unwrap().protocol(), 1);
    }
}

#[test]
fn what_one_client_begins_with_another_is_a_flow_of_both() {
    let mut world = World::new();
    let there = world.from(ALICE, ALICE_V4, "10.20.7.7");
    assert_eq!(there, Verdict::Forward(Target::Peer(SITE)));
    let started_by = |world: &World, session: usize| {
        let flow = world.flows[session].iter(world.now).next().unwrap();
        (
            flow.started_by,
            flow.from_client.packets,
            flow.to_client.packets,
        )
    };
    assert_eq!(started_by(&world, ALICE), (Direction::FromClient, 1, 0));
    assert_eq!(started_by(&world, SITE), (Direction::ToClient, 0, 1));
}

#[test]
fn what_does_not_arrive_is_not_counted() {
    let mut world = World::new();
    let bytes = packet(OFFICE_V4, ALICE_V4, UDP, &[0; MAX_PACKET]);
    assert!(matches!(world.inside(&bytes), Verdict::Reply(_)));
    let flow = world.flows[ALICE].iter(world.now).next().unwrap();
    assert_eq!(flow.to_client.packets, 0);
}

#[test]
fn a_client_sends_only_from_its_addresses_and_only_where_routes_lead() {
    assert_eq!(to_gateway(ALICE_V4, OFFICE_V4), Verdict::Forward(()));
    assert_eq!(
        to_gateway("192.168.1.5", OFFICE_V4),
        Verdict::Reply(IcmpError::SourcePolicy)
    );
    assert_eq!(
        to_gateway(ALICE_V4, "8.8.8.8"),
        Verdict::Reply(IcmpError::NoRoute)
    );
}

#[test]
fn a_client_takes_only_what_is_for_it_and_comes_from_a_route() {
    assert_eq!(from_gateway(OFFICE_V4, ALICE_V4), Verdict::Forward(()));
    let no_route = Verdict::Drop(DropReason::NoRoute);
    assert_eq!(from_gateway(OFFICE_V4, "192.168.1.5"), no_route);
    let not_owned = Verdict::Drop(DropReason::SourceNotOwned);
    assert_eq!(from_gateway("8.8.8.8", ALICE_V4), not_owned);
}

#[test]
fn a_route_for_one_protocol_carries_that_one_and_icmp() {
    let tcp_only = RouteRange::new(ip("10.0.0.0"), ip("10.0.255.255"), TCP).unwrap();
    let view = ClientView::new(vec!["10.99.0.2/32".parse().unwrap()], vec![tcp_only]);
    let verdict = |protocol, payload: &[u8]| {
        let bytes = packet(ALICE_V4, OFFICE_V4, protocol, payload);
        client::to_gateway(
            &view,
            MAX_PACKET,
            &IpPacket::parse(&bytes).unwrap(),
            bytes.len(),
        )
    };
    assert_eq!(verdict(TCP, &[0; 20]), Verdict::Forward(()));
    assert_eq!(verdict(1, &[8, 0, 0, 0, 0, 0, 0, 0]), Verdict::Forward(()));
    assert_eq!(verdict(UDP, &[0; 8]), Verdict::Reply(IcmpError::NoRoute));
}

#[test]
fn before_anything_is_assigned_nothing_passes() {
    let bytes = packet(ALICE_V4, OFFICE_V4, UDP, &[0; 8]);
    let packet = IpPacket::parse(&bytes).unwrap();
    let view = ClientView::default();
    let refused = Verdict::Reply(IcmpError::SourcePolicy);
    assert_eq!(
        client::to_gateway(&view, MAX_PACKET, &packet, packet.bytes().len()),
        refused
    );
    assert_eq!(
        client::from_gateway(&view, &packet),
        Verdict::Drop(DropReason::NoRoute)
    );
}

#[test]
fn names_of_drop_reasons_are_unique() {
    let names: BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), DropReason::ALL.len());
}

proptest! {
    #[test]
    fn every_packet_that_came_in_was_forwarded_answered_or_dropped(
        packets in proptest::collection::vec((0..4usize, any_address(), any_address(), 0..1400usize), 50),
    ) {
        let mut world = World::new();
        let mut counters = Counters::default();
        let mut expected = 0;
        for (session, source, destination, size) in packets {
            if source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            expected += 1;
            let payload = vec![0; size];
            let bytes = packet(&source.to_string(), &destination.to_string(), 253, &payload);
            let parsed = IpPacket::parse(&bytes).unwrap();
            let now = world.now;
            let verdict = from_peer(&mut world, now, session, &parsed);
            if let Verdict::Forward(target) = verdict {
                prop_assert_eq!(world.owner(source), Some(Place::Here(session)), "spoofed");
                prop_assert_ne!(target, Target::Peer(session));
            }
            match verdict {
                Verdict::Forward(_) => counters.from_client.forward(bytes.len()),
                Verdict::Reply(_) => counters.from_client.reply(),
                Verdict::Drop(reason) => counters.from_client.drop(reason),
            }
            match to_peer(&mut world, now, &parsed, OnWire::single(&parsed)) {
                Verdict::Forward(peer) => {
                    prop_assert_eq!(world.owner(destination), Some(peer));
                    counters.to_client.forward(bytes.len());
                }
                Verdict::Reply(_) => counters.to_client.reply(),
                Verdict::Drop(reason) => counters.to_client.drop(reason),
            }
        }
        for direction in [&counters.from_client, &counters.to_client] {
            prop_assert!(direction.balances());
            prop_assert_eq!(direction.packets_in(), expected);
        }
    }
}

struct World {
    owners: Owners<Place<usize>>,
    filters: Vec<Arc<Filter>>,
    flows: Vec<FlowTable>,
    /// What was denied to whom, and how many packets.
    denied: Vec<(usize, Denial, usize)>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let policy = Policy::parse(POLICY, "policy.toml").unwrap();
        let mut owners = Owners::new();
        for (prefix, owner) in [
            ("10.99.0.2/32", Place::Here(ALICE)),
            ("fd00:99::2/128", Place::Here(ALICE)),
            ("10.99.0.3/32", Place::Here(BOB)),
            ("10.20.5.5/32", Place::Here(BOB)),
            ("10.99.0.4/32", Place::Here(SITE)),
            ("10.20.0.0/16", Place::Here(SITE)),
            ("10.99.0.9/32", Place::Here(GONE)),
            ("10.20.6.0/24", Place::There(NEIGHBOUR)),
            ("10.40.0.0/16", Place::Here(SITE)),
        ] {
            owners.insert(prefix.parse().unwrap(), owner);
        }
        let filters = ["alice@example.com", "bob@example.com", "site.example.com"]
            .map(|name| policy.access(&identity(name), 0).unwrap().filter)
            .to_vec();
        let now = Instant::now();
        let flows = (0..3)
            .map(|n| FlowTable::new(now, HashKey::new([n + 1; 6])))
            .collect();
        Self {
            owners,
            filters,
            flows,
            denied: Vec::new(),
            now,
        }
    }

    fn from(&mut self, session: usize, source: &str, destination: &str) -> Verdict<Target<usize>> {
        let bytes = packet(source, destination, UDP, &[0; 8]);
        let now = self.now;
        from_peer(self, now, session, &IpPacket::parse(&bytes).unwrap())
    }

    fn relayed(&mut self, source: &str, destination: &str) -> Verdict<usize> {
        let bytes = packet(source, destination, UDP, &[0; 8]);
        let now = self.now;
        from_neighbour(self, now, &IpPacket::parse(&bytes).unwrap())
    }

    fn to(&mut self, source: &str, destination: &str) -> Verdict<Place<usize>> {
        self.inside(&packet(source, destination, UDP, &[0; 8]))
    }

    /// A packet from inside.
    fn inside(&mut self, bytes: &[u8]) -> Verdict<Place<usize>> {
        let parsed = IpPacket::parse(bytes).unwrap();
        let now = self.now;
        to_peer(self, now, &parsed, OnWire::single(&parsed))
    }
}

impl Sessions for World {
    type Key = usize;

    fn owner(&self, address: IpAddr) -> Option<Place<usize>> {
        self.owners.owner(address)
    }

    fn gate(&mut self, key: usize) -> Option<Gate<'_>> {
        Some(Gate {
            filter: self.filters.get(key)?,
            flows: self.flows.get_mut(key)?,
            max_packet: MAX_PACKET,
        })
    }

    fn denied(&mut self, key: usize, _: Instant, denial: Denial, packets: usize) {
        self.denied.push((key, denial, packets));
    }
}

fn to_gateway(source: &str, destination: &str) -> Verdict<()> {
    let bytes = packet(source, destination, UDP, &[0; 8]);
    client::to_gateway(
        &view(),
        MAX_PACKET,
        &IpPacket::parse(&bytes).unwrap(),
        bytes.len(),
    )
}

fn from_gateway(source: &str, destination: &str) -> Verdict<()> {
    let bytes = packet(source, destination, UDP, &[0; 8]);
    client::from_gateway(&view(), &IpPacket::parse(&bytes).unwrap())
}

fn view() -> ClientView {
    let nets = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.parse().unwrap())
            .collect::<Vec<_>>()
    };
    ClientView::new(
        nets(&["10.99.0.2/32", "fd00:99::2/128"]),
        from_prefixes(&nets(&["10.0.0.0/16", "fd00:1::/64"])),
    )
}

fn identity(name: &str) -> Identity {
    Identity {
        principal: Principal::parse(name).unwrap(),
        groups: Vec::new(),
        authority: "test".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

/// Mostly addresses that mean something here.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let known = [
        ALICE_V4,
        BOB_V4,
        BOB_AT_SITE,
        ELSEWHERE,
        "10.20.7.7",
        "10.99.0.4",
        "10.99.0.9",
        OFFICE_V4,
        ALICE_V6,
        OFFICE_V6,
        "224.0.0.1",
        "8.8.8.8",
    ];
    prop_oneof![
        9 => proptest::sample::select(known.map(ip).to_vec()),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
    ]
}

fn packet(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = (20 + payload.len()) as u16;
            let mut packet = vec![0x45, 0];
            packet.extend(length.to_be_bytes());
            // Don't fragment; the checksum is the kernel's business.
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        _ => panic!("{source} and {destination} are of different families"),
    };
    packet.extend(payload);
    packet
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const ALICE_V4: &str = "10.99.0.2";
const ALICE_V6: &str = "fd00:99::2";
const BOB_V4: &str = "10.99.0.3";
const BOB_AT_SITE: &str = "10.20.5.5";
const ELSEWHERE: &str = "10.20.6.1";
const OFFICE_V4: &str = "10.0.0.10";
const OFFICE_V6: &str = "fd00:1::10";
const MAX_PACKET: usize = 1300;
const TCP: u8 = 6;
const UDP: u8 = 17;

const POLICY: &str = r#"
[[allow]]
who = ["*"]
to = ["10.0.0.0/16", "fd00:1::/64"]
direction = "both"

[[allow]]
who = ["alice@example.com"]
to = ["10.20.0.0/16", "10.99.0.3/32"]
direction = "both"

[[allow]]
who = ["alice@example.com"]
to = ["10.30.0.0/16", "10.40.0.0/16"]
rate = "800 kbit/s"

[[deny]]
name = "closed"
who = ["*"]
to = ["10.30.9.0/24"]

[[allow]]
who = ["site.example.com"]
to = ["10.99.0.0/24", "10.20.0.0/16"]
direction = "both"
"#;
