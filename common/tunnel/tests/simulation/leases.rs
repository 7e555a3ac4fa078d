//! An address is promised when the disk has the lease: whenever the gateway is killed, and however slow the disk is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use adit_core::close::RefusalKind;
use adit_tunnel::{ClientEvent, GatewayEvent};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::POLICY;
use super::link::Conditions;
use super::world::World;

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";

/// Whom the disk has the address for, if anybody.
fn holder_on_disk(world: &World, address: IpAddr) -> Option<String> {
    let saved = world.house().disk.saved.iter();
    let mut holders = saved.filter(|entry| entry.addresses().any(|held| held == address));
    let holder = holders.next();
    assert!(holders.next().is_none(), "two hold {address} on the disk");
    holder.map(|entry| entry.principal.to_string())
}

/// Fails if the client was told an address that a crash at this moment would let the gateway forget.
fn is_promised(world: &World, client: usize, principal: &str) {
    for address in world.clients[client].addresses() {
        let holder = holder_on_disk(world, address);
        assert_eq!(holder.as_deref(), Some(principal), "{address} was told");
    }
}

fn was_refused(world: &World, client: usize, kind: RefusalKind) -> bool {
    let mut events = world.clients[client].events.iter();
    events.any(|event| matches!(event, ClientEvent::Lost { refusal, .. } if refusal.kind == kind))
}

fn an_address_is_told_when_the_disk_has_it_and_not_before(engines: u8) {
    let mut world = World::new(POLICY, engines);
    world.gateway().disk.delay = SECOND / 2;
    let start = world.now;
    let alice = world.add_client(ALICE, Conditions::CLEAN, 1);
    let ready = |world: &World| {
        is_promised(world, alice, ALICE);
        world.clients[alice].is_ready()
    };
    assert!(world.run_until(5 * SECOND, ready));
    let waited = world.now - start;
    assert!((SECOND / 2..SECOND).contains(&waited), "{waited:?}");
    assert_eq!(world.house().disk.writes, 1, "one write is enough");
}

fn who_comes_back_to_a_lease_waits_for_no_disk(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    world.restart_gateway();
    world.gateway().disk.delay = Duration::from_secs(3600);
    let connected = |world: &World| {
        let events = world.clients[alice].events.iter();
        let connected = events.filter(|event| matches!(event, ClientEvent::Connected(_)));
        connected.count() == 2
    };
    assert!(world.run_until(60 * SECOND, connected));
    assert_eq!(world.clients[alice].v4(), Some(address));
    // The disk is as slow as that.
    let bob = world.add_client(BOB, Conditions::CLEAN, 1);
    world.run_for(5 * SECOND);
    assert!(!world.clients[bob].is_ready());
}

fn many_who_come_at_once_share_a_write(engines: u8) {
    const NEWCOMERS: usize = 150;
    let policy = POLICY.replace("\"group:staff\"", "\"domain:example.com\"");
    let mut world = World::new(&policy, engines);
    world.gateway().disk.delay = SECOND / 20;
    let start = world.now;
    let clients: Vec<usize> = (0..NEWCOMERS)
        .map(|n| world.add_client(&format!("user{n}@example.com"), Conditions::CLEAN, 1))
        .collect();
    let all = |world: &World| clients.iter().all(|&c| world.clients[c].is_ready());
    assert!(world.run_until(60 * SECOND, all));
    let (writes, took) = (world.house().disk.writes, world.now - start);
    assert!(writes <= 5, "{writes} writes for {NEWCOMERS} clients");
    assert!(took < SECOND, "{took:?}");
    let addresses: BTreeSet<_> = clients.iter().map(|&c| world.clients[c].v4()).collect();
    assert_eq!(addresses.len(), NEWCOMERS);
}

fn a_disk_that_fails_refuses_newcomers_with_the_reason_and_nobody_else(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, address)] = world.connect([ALICE]);
    world.gateway().disk.fails = true;
    world.restart_gateway();
    let bob = world.add_client(BOB, Conditions::CLEAN, 1);
    let refused = |world: &World| was_refused(world, bob, RefusalKind::LeaseNotSaved);
    assert!(world.run_until(5 * SECOND, refused));
    assert!(world.gateway_events.iter().any(|event| matches!(
        event,
        GatewayEvent::Refused { holder: Some(holder), refusal, .. }
            if refusal.kind == RefusalKind::LeaseNotSaved
                && holder.identity.principal.as_str() == BOB
    )));
    assert!(world.run_until(60 * SECOND, |world| world.clients[alice].is_ready()));
    assert_eq!(world.clients[alice].v4(), Some(address));
    assert!(!world.clients[bob].is_ready());
    // It is repaired: bob comes again by himself.
    world.gateway().disk.fails = false;
    assert!(world.run_until(120 * SECOND, |world| world.clients[bob].is_ready()));
    is_promised(&world, bob, BOB);
}

fn who_leaves_while_the_disk_writes_leaves_nothing_behind(engines: u8) {
    let tiny = POLICY
        .replace("10.99.0.0/24\"\nv6 = \"fd00:ad17::/64\"", "10.99.0.0/30\"")
        .replace(
            "addresses = [\"10.99.0.200\"]",
            "addresses = [\"10.98.0.200\"]",
        );
    let mut world = World::new(&tiny, engines);
    world.gateway().disk.delay = SECOND;
    let alice = world.add_client(ALICE, Conditions::CLEAN, 1);
    world.run_for(SECOND / 2);
    assert_eq!(world.leases().len(), 1, "she waits for the disk");
    let now = world.now;
    world.clients[alice].engine.shutdown(now);
    world.run_for(SECOND / 10);
    // The only address that is free is not in use.
    let bob = world.add_client(BOB, Conditions::CLEAN, 1);
    assert!(world.run_until(10 * SECOND, |world| world.clients[bob].is_ready()));
    is_promised(&world, bob, BOB);
    let now = world.now;
    world.clients[bob].engine.shutdown(now);
    world.run_for(300 * SECOND);
    let census = world.gateway().census();
    assert!(census.is_empty(), "{census:?}");
    assert_eq!(world.house().poll_timeout(), None);
}

fn what_a_reload_gives_is_told_when_the_disk_has_it(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let clients = [ALICE, BOB].map(|who| (world.connect([who])[0].0, who));
    world.gateway().disk.delay = SECOND / 2;
    let old = clients.map(|(client, _)| world.clients[client].v4());
    world.reload(&POLICY.replace("10.99.0", "10.98.0"));
    let start = world.now;
    let moved = |world: &World| {
        let mut moved = true;
        for ((client, who), old) in clients.into_iter().zip(old) {
            let now = world.clients[client].v4();
            if now != old {
                is_promised(world, client, who);
            }
            moved &= now != old && now.is_some();
        }
        moved
    };
    assert!(world.run_until(5 * SECOND, moved));
    assert!(world.now - start >= SECOND / 2);
}

fn a_disk_that_fails_does_not_keep_a_policy_from_counting(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let [(alice, old), (bob, _)] = world.connect([ALICE, BOB]);
    world.gateway().disk.fails = true;
    let without_bob = POLICY.replace(", \"bob@example.com\"", "");
    world.reload(&without_bob.replace("10.99.0", "10.98.0"));
    world.run_for(SECOND);
    assert_ne!(world.clients[alice].v4(), Some(old));
    let mut events = world.clients[bob].events.iter();
    assert!(
        events.any(|event| matches!(event, ClientEvent::Stopped(refusal)
        if refusal.kind == RefusalKind::AccessWithdrawn))
    );
}

/// Clients come over bad paths, and the gateway is killed again and again, whatever the disk is doing.
fn crash(seed: u64, engines: u8) {
    let mut rng = StdRng::seed_from_u64(seed);
    let policy = POLICY.replace("\"group:staff\"", "\"domain:example.com\"");
    let mut world = World::new(&policy, engines);
    let mut clients = Vec::new();
    let mut promised: BTreeMap<IpAddr, String> = BTreeMap::new();
    for _ in 0..8 {
        for _ in 0..rng.random_range(0..3) {
            let principal = format!("user{}@example.com", clients.len());
            let conditions = match rng.random_bool(0.5) {
                true => Conditions::CLEAN,
                false => Conditions::random(&mut rng),
            };
            let client = world.add_client(&principal, conditions, rng.random());
            clients.push((client, principal));
        }
        world.gateway().disk.delay = Duration::from_millis(rng.random_range(0..800));
        world.gateway().disk.fails = rng.random_bool(0.1);
        let until_the_crash = Duration::from_millis(rng.random_range(0..3000));
        world.run_until(until_the_crash, |world| {
            for (client, principal) in &clients {
                for address in world.clients[*client].addresses() {
                    let holder = promised.entry(address).or_insert_with(|| principal.clone());
                    assert_eq!(holder, principal, "seed {seed}: {address} is promised");
                    is_promised(world, *client, principal);
                }
            }
            false
        });
        world.restart_gateway();
    }
    world.gateway().disk.fails = false;
    let all = |world: &World| clients.iter().all(|(c, _)| world.clients[*c].is_ready());
    assert!(world.run_until(400 * SECOND, all), "seed {seed}");
    for (client, principal) in &clients {
        for address in world.clients[*client].addresses() {
            let holder = promised.get(&address).unwrap_or(principal);
            assert_eq!(holder, principal, "seed {seed}: {address} was another's");
            let had = promised.iter().filter(|(_, holder)| *holder == principal);
            let mut had = had.filter(|(had, _)| had.is_ipv4() == address.is_ipv4());
            assert!(
                had.all(|(had, _)| *had == address),
                "seed {seed}: {principal}"
            );
        }
    }
}

fn whenever_the_gateway_is_killed_everybody_keeps_the_address_they_were_told(engines: u8) {
    for seed in 0..CRASHED_LIVES {
        crash(seed, engines);
    }
}

with_one_engine_and_with_three!(
    an_address_is_told_when_the_disk_has_it_and_not_before,
    who_comes_back_to_a_lease_waits_for_no_disk,
    many_who_come_at_once_share_a_write,
    a_disk_that_fails_refuses_newcomers_with_the_reason_and_nobody_else,
    who_leaves_while_the_disk_writes_leaves_nothing_behind,
    what_a_reload_gives_is_told_when_the_disk_has_it,
    a_disk_that_fails_does_not_keep_a_policy_from_counting,
    whenever_the_gateway_is_killed_everybody_keeps_the_address_they_were_told,
);

/// Each with eight crashes.
const CRASHED_LIVES: u64 = 100;
