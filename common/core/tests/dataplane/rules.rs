//! What rules deny and limit, and who hears of it.

use std::time::Duration;

use adit_core::dataplane::gateway::{OnWire, Place, Target, from_peer, to_peer};
use adit_core::dataplane::{Denial, DropReason, Verdict};
use adit_core::policy::Direction;
use adit_core::wire::ip::IpPacket;

use super::{ALICE, ALICE_V4, BOB, BOB_V4, MAX_PACKET, OFFICE_V4, SITE, UDP, World, ip, packet};

#[test]
fn what_is_denied_is_reported_for_the_session_whose_rules_deny_it() {
    let mut world = World::new();
    world.from(ALICE, ALICE_V4, "8.8.8.8");
    // Alice may begin with bob, but nobody may begin with bob.
    world.from(ALICE, ALICE_V4, BOB_V4);
    world.to(OFFICE_V4, ALICE_V4);
    let segments = packet("192.0.2.1", ALICE_V4, UDP, &[0, 7, 0, 9, 0, 8, 0, 0]);
    let parsed = IpPacket::parse(&segments).unwrap();
    let on_wire = OnWire {
        packets: 40,
        bytes: 50_000,
        longest: 1300,
    };
    let now = world.now;
    to_peer(&mut world, now, &parsed, on_wire);
    // What no policy is asked about is no denial.
    world.from(ALICE, BOB_V4, OFFICE_V4);
    world.from(ALICE, ALICE_V4, "224.0.0.1");
    let denied = |key, direction, far, port, packets| {
        let denial = Denial {
            direction,
            far: ip(far),
            protocol: UDP,
            port: Some(port),
            rule: None,
        };
        (key, denial, packets)
    };
    assert_eq!(
        world.denied,
        [
            denied(ALICE, Direction::FromClient, "8.8.8.8", 0, 1),
            denied(BOB, Direction::ToClient, ALICE_V4, 0, 1),
            denied(ALICE, Direction::ToClient, "192.0.2.1", 9, 40),
        ]
    );
    world.denied.clear();
    world.from(ALICE, ALICE_V4, "10.30.9.9");
    let rule = world.denied[0].1.rule.as_ref().unwrap();
    assert_eq!(rule.name(), "closed");
}

#[test]
fn a_rule_with_a_rate_lets_its_rate_pass_each_way_and_hinders_no_other() {
    let mut world = World::new();
    let begun = world.from(ALICE, ALICE_V4, "10.30.0.1");
    assert_eq!(begun, Verdict::Forward(Target::Inside));
    let answer = packet("10.30.0.1", ALICE_V4, UDP, &[0; 8]);
    let answer = IpPacket::parse(&answer).unwrap();
    let on_wire = OnWire {
        packets: 50,
        bytes: 64_000,
        longest: MAX_PACKET,
    };
    let too_big = OnWire {
        longest: MAX_PACKET + 1,
        ..on_wire
    };
    let limited = Verdict::Drop(DropReason::RateLimited);
    let passed = |world: &mut World, seconds| {
        world.now += Duration::from_secs(seconds);
        let now = world.now;
        // What does not fit takes nothing of the rate.
        let verdict = to_peer(world, now, &answer, too_big);
        assert!(matches!(verdict, Verdict::Reply(_)), "{verdict:?}");
        let verdicts: Vec<_> = (0..100)
            .map(|_| to_peer(world, now, &answer, on_wire))
            .collect();
        let forwarded = verdicts.iter().filter(|verdict| **verdict != limited);
        forwarded.count()
    };
    // 800 kbit/s: the burst of 64 KiB and the one that leaves a debt, which the rate then pays.
    assert_eq!(passed(&mut world, 0), 2);
    assert_eq!(passed(&mut world, 0), 0);
    assert_eq!(passed(&mut world, 1), 1);
    assert_eq!(passed(&mut world, 100), 2);
    // The other way has a burst of its own, and other rules know nothing of it.
    let there = world.from(ALICE, ALICE_V4, "10.30.0.1");
    assert_eq!(there, Verdict::Forward(Target::Inside));
    let office = packet(OFFICE_V4, ALICE_V4, UDP, &[0; 8]);
    let office = IpPacket::parse(&office).unwrap();
    for _ in 0..100 {
        let now = world.now;
        let verdict = to_peer(&mut world, now, &office, on_wire);
        assert_eq!(verdict, Verdict::Forward(Place::Here(ALICE)));
    }
    let totals = world.flows[ALICE].totals_by_rule();
    let to_client: Vec<u64> = totals
        .values()
        .map(|totals| totals.to_client.packets)
        .collect();
    assert_eq!(to_client, [5000, 5 * 50], "what is dropped is not counted");
}

#[test]
fn a_sender_over_its_rate_does_not_use_the_receivers() {
    let mut world = World::new();
    let payload = vec![0; 1200];
    let bytes = packet(ALICE_V4, "10.40.7.7", UDP, &payload);
    let (now, mut forwarded) = (world.now, 0);
    for _ in 0..1000 {
        match from_peer(&mut world, now, ALICE, &IpPacket::parse(&bytes).unwrap()) {
            Verdict::Forward(target) => {
                assert_eq!(target, Target::Peer(SITE));
                forwarded += 1;
            }
            verdict => assert_eq!(verdict, Verdict::Drop(DropReason::RateLimited)),
        }
    }
    assert_eq!(forwarded, 64 * 1024 / 1220 + 1);
    let packets = |session: usize| -> Vec<u64> {
        let totals = world.flows[session].totals_by_rule();
        totals
            .values()
            .map(|totals| totals.from_client.packets + totals.to_client.packets)
            .collect()
    };
    assert_eq!(
        (packets(ALICE), packets(SITE)),
        (vec![forwarded], vec![forwarded])
    );
}
