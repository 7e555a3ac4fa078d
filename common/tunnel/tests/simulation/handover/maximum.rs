//! The session maximum: a client moves to a new connection before it, and who does not is closed at it.

use super::*;
use crate::world::START;

/// The usual policy with a maximum for everybody.
fn policy(maximum: &str) -> String {
    format!("{POLICY}\n[[session]]\nwho = [\"*\"]\nmaximum = \"{maximum}\"\n")
}

/// Why sessions were closed, as the operator is told.
fn reasons(world: &World) -> Vec<&str> {
    let reasons = world.gateway_events.iter().filter_map(|event| match event {
        GatewayEvent::Closed { reason, .. } => Some(&reason[..]),
        _ => None,
    });
    reasons.collect()
}

fn lost(world: &World, client: usize, kind: RefusalKind) -> usize {
    let events = world.clients[client].events.iter();
    let lost = |event: &&ClientEvent| matches!(event, ClientEvent::Lost { refusal, .. } if refusal.kind == kind);
    events.filter(lost).count()
}

/// When the session of a client ends, in seconds from the start of the world.
fn ends(world: &World, principal: &str) -> i64 {
    let gateway = world.gateway.as_ref().unwrap();
    gateway.ends_of(world.now, principal).unwrap() - START
}

fn a_session_moves_before_its_maximum_without_losing_or_turning_a_packet(engines: u8) {
    for delay in [MILLISECOND, 50 * MILLISECOND] {
        let mut world = World::new(&policy("20s"), engines);
        let conditions = Conditions {
            delay,
            ..Conditions::CLEAN
        };
        let alice = world.add_client(ALICE, conditions, 1);
        let ready = |world: &World| world.clients[alice].v6().is_some();
        assert!(world.run_until(10 * SECOND, ready));
        let before = (serial(&world, alice), world.clients[alice].v4());
        let first = ends(&world, ALICE);
        assert!((20..=21).contains(&first), "{first}");
        let mut talk = Talk::of(1400);
        // The first session of a gateway is told five seconds before, or a bit more.
        let start = world.epoch.instant_of(START + 13).unwrap();
        world.run_for(start - world.now);
        talk.on(&mut world, alice, 4 * SECOND);
        assert_eq!(moves(&world, alice), 1);
        let second = ends(&world, ALICE);
        assert!((33..=37).contains(&second), "{second}");
        world.run_for(60 * SECOND);
        assert!(moves(&world, alice) >= 4, "{}", moves(&world, alice));
        world.run_for(5 * SECOND);
        talk.came_whole(&world, alice);
        assert_eq!(dropped(&world.gateway().counters()), 0);
        assert_eq!(dropped(world.clients[alice].engine.counters()), 0);
        let [opened, handed_over, closed] = told(&world);
        assert_eq!((opened, closed), (1, 0));
        assert_eq!(handed_over, moves(&world, alice));
        let after = (serial(&world, alice), world.clients[alice].v4());
        assert_eq!(after, before);
        let status = world.clients[alice].engine.status(world.now);
        assert_eq!(status.renewed_certificate, None, "it is the same");
    }
}

fn who_cannot_follow_is_closed_at_the_maximum_and_both_ends_know_why(engines: u8) {
    let mut world = World::new(&policy("20s"), engines);
    let [alice] = world.connect_in_both([ALICE]);
    // The client does not believe the gateway's next certificate: it stays where it is, as long as it may.
    world.issuer = Pki::stranger();
    world.reload(&policy("20s"));
    let end = ends(&world, ALICE);
    let until = world.epoch.instant_of(START + end).unwrap();
    world.run_for(until - world.now - 3 * SECOND);
    let stays = world.clients[alice].events.iter().filter(|event| {
        matches!(event, ClientEvent::Stayed { refusal, .. } if refusal.kind == RefusalKind::UnknownAuthority)
    });
    assert!(stays.count() >= 1);
    assert!(is_up(&world, alice));
    assert_eq!(told(&world), [1, 0, 0]);
    world.run_for(4 * SECOND);
    assert_eq!(told(&world), [1, 0, 1]);
    assert_eq!(reasons(&world), ["the session maximum was reached"]);
    assert_eq!(lost(&world, alice, RefusalKind::SessionMaximum), 1);
    world.run_for(SECOND);
    // The handshake that nothing shortened says the last word.
    assert_eq!(stopped(&world, alice), Some(RefusalKind::UnknownAuthority));
}

fn another_maximum_counts_for_sessions_that_are_open(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [alice, bob] = world.connect_in_both([ALICE, BOB]);
    world.run_for(100 * SECOND);
    assert_eq!(moves(&world, alice), 0);
    let only_alice = policy("20s").replace("[\"*\"]\nmaximum", "[\"alice@example.com\"]\nmaximum");
    let difference = world.reload(&only_alice);
    let changed: Vec<_> = difference
        .changed
        .iter()
        .map(|one| &one.principal[..])
        .collect();
    assert_eq!((changed, difference.unchanged), (vec![ALICE], 1));
    assert!(
        difference
            .render()
            .contains("session maximum   20s (was none)")
    );
    // It is over already, and ends when the client could have moved.
    let end = ends(&world, ALICE) - (world.epoch.unix(world.now) - START);
    assert!((4..=5).contains(&end), "{end}");
    let mut talk = Talk::of(1400);
    talk.on(&mut world, alice, SECOND);
    assert_eq!(moves(&world, alice), 1);
    world.run_for(60 * SECOND);
    assert!(moves(&world, alice) >= 3);
    world.reload(POLICY);
    let so_far = moves(&world, alice);
    world.run_for(100 * SECOND);
    // One may have been on its way.
    assert!(moves(&world, alice) <= so_far + 1);
    talk.came_whole(&world, alice);
    assert_eq!(moves(&world, bob), 0);
    assert_eq!(told(&world)[2], 0);
}

fn over_bad_paths_sessions_move_in_time_and_none_is_closed_by_its_maximum(engines: u8) {
    for seed in 0..10 {
        let mut world = World::new(&policy("1m"), engines);
        let conditions = Conditions {
            loss: 0.08,
            delay: Duration::from_millis(60),
            jitter: Duration::from_millis(30),
            ..Conditions::CLEAN
        };
        let alice = world.add_client(ALICE, conditions, seed);
        let ready = |world: &World| world.clients[alice].is_ready();
        assert!(world.run_until(60 * SECOND, ready));
        world.run_for(300 * SECOND);
        assert!(
            moves(&world, alice) >= 5,
            "seed {seed}: {}",
            moves(&world, alice)
        );
        let by_maximum = reasons(&world);
        assert!(
            by_maximum.iter().all(|reason| !reason.contains("maximum")),
            "seed {seed}"
        );
        let census = world.gateway().census();
        assert!(
            census.sessions == 1 && census.connections <= 2,
            "seed {seed}"
        );
    }
}

with_one_engine_and_with_three!(
    a_session_moves_before_its_maximum_without_losing_or_turning_a_packet,
    who_cannot_follow_is_closed_at_the_maximum_and_both_ends_know_why,
    another_maximum_counts_for_sessions_that_are_open,
    over_bad_paths_sessions_move_in_time_and_none_is_closed_by_its_maximum,
);
