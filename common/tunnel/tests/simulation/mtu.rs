//! Paths of every size: the tunnel comes up, tells the truth about what fits, and withholds IPv6
//! only where 1280 bytes do not fit.

use std::net::IpAddr;
use std::time::Duration;

use super::POLICY;
use super::link::Conditions;
use super::packets;
use super::world::World;

fn path(ip_mtu: usize) -> Conditions {
    Conditions {
        max_payload: ip_mtu - 28,
        ..Conditions::CLEAN
    }
}

fn office() -> IpAddr {
    "10.0.0.7".parse().unwrap()
}

fn an_ordinary_path_carries_the_tunnels_mtu_within_a_second(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let alice = world.add_client("alice@example.com", path(1500), 1);
    assert!(world.run_until(Duration::from_secs(1), |world| {
        world.clients[alice].v6().is_some()
            && world.clients[alice]
                .engine
                .largest_packet()
                .is_some_and(|largest| largest >= 1400)
    }));
}

fn a_path_of_1280_comes_up_without_ipv6_and_answers_with_the_true_mtu(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let alice = world.add_client("alice@example.com", path(1280), 1);
    assert!(world.run_until(Duration::from_secs(1), |world| {
        world.clients[alice].is_ready()
    }));
    let own = world.clients[alice].v4().unwrap();
    // During the search nobody is told a small number.
    world.send_from_client(alice, &packets::udp(own, office(), 1, 1300));
    assert!(world.clients[alice].received.is_empty());
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.clients[alice].v6(), None);
    let largest = world.clients[alice].engine.largest_packet().unwrap();
    assert!((1160..1280).contains(&largest), "{largest}");

    world.send_from_client(alice, &packets::udp(own, office(), 2, largest + 1));
    world.send_from_client(alice, &packets::udp(own, office(), 3, largest));
    world.run_for(Duration::from_millis(100));
    let answer = world.clients[alice].received.pop().unwrap();
    assert_eq!(packets::icmp(&answer), Some((3, 4)));
    assert_eq!(packets::icmp_mtu(&answer) as usize, largest);
    assert_eq!(packets::number(&world.office.pop().unwrap()), Some(3));

    // The other direction: the gateway answers the office.
    world.send_from_office(&packets::udp(office(), own, 4, 1400));
    world.run_for(Duration::from_millis(100));
    let answer = world.office.pop().unwrap();
    assert_eq!(packets::icmp(&answer), Some((3, 4)));
    assert!((1160..1280).contains(&(packets::icmp_mtu(&answer) as usize)));
}

fn a_path_of_1400_carries_ipv6(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let alice = world.add_client("alice@example.com", path(1400), 1);
    assert!(world.run_until(Duration::from_secs(5), |world| {
        world.clients[alice].v6().is_some()
    }));
}

fn a_path_that_shrinks_takes_ipv6_back_and_the_session_lives(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let alice = world.add_client("alice@example.com", path(1500), 1);
    assert!(world.run_until(Duration::from_secs(5), |world| {
        world.clients[alice].v6().is_some()
    }));
    world.run_for(Duration::from_secs(5));
    world.clients[alice].path.conditions = path(1280);
    let own = world.clients[alice].v4().unwrap();
    // Full-size packets both ways until the black hole is noticed.
    for number in 0..400 {
        world.send_from_client(alice, &packets::udp(own, office(), number, 1400));
        world.send_from_client(alice, &packets::udp(own, office(), 10_000 + number, 100));
        world.send_from_office(&packets::udp(office(), own, number, 1400));
        world.send_from_office(&packets::udp(office(), own, 10_000 + number, 100));
        world.run_for(Duration::from_millis(50));
    }
    assert_eq!(world.clients[alice].v6(), None);
    assert_eq!(world.clients[alice].v4(), Some(own));
    world.office.clear();
    world.send_from_client(alice, &packets::udp(own, office(), 77, 1100));
    world.run_for(Duration::from_secs(1));
    assert_eq!(packets::number(&world.office.pop().unwrap()), Some(77));
}

fn what_went_inside_for_an_address_that_was_withheld_goes_to_its_owner_when_it_is_given(
    engines: u8,
) {
    let mut world = World::new(POLICY, engines);
    let alice = world.add_client("alice@example.com", path(1500), 1);
    let bob = world.add_client("bob@example.com", path(1500), 2);
    let both = |world: &World| [alice, bob].map(|client| world.clients[client].v6().is_some());
    assert!(world.run_until(Duration::from_secs(5), |world| both(world) == [true; 2]));
    let [from, to] = [alice, bob].map(|client| world.clients[client].v6().unwrap());
    let now = world.now;
    world.clients[bob].engine.shutdown(now);
    world.run_for(Duration::from_secs(1));
    // It comes back where IPv6 does not fit: nobody has its address, and what is for it goes inside.
    let bob = world.add_client("bob@example.com", path(1280), 3);
    assert!(world.run_until(Duration::from_secs(5), |world| {
        world.clients[bob].v4().is_some()
    }));
    world.run_for(Duration::from_secs(10));
    world.clients[bob].path.conditions = path(1500);
    let mut withheld = 0;
    while world.clients[bob].v6().is_none() {
        withheld += 1;
        assert!(withheld < 100, "the path is measured again");
        world.send_from_client(alice, &packets::udp(from, to, withheld, 100));
        world.run_for(Duration::from_secs(10));
    }
    assert_eq!(world.clients[bob].v6(), Some(to));
    if engines == 1 {
        let inside = world.office.len() as u64;
        assert!(
            inside >= withheld - 1 && withheld > 1,
            "{inside} of {withheld}"
        );
    }
    world.office.clear();
    world.clients[bob].received.clear();
    for number in [5000, 5001] {
        world.send_from_client(alice, &packets::udp(from, to, number, 100));
        world.run_for(Duration::from_secs(2));
    }
    assert!(world.office.is_empty(), "it has an owner");
    assert_eq!(world.clients[bob].numbers(), [5000, 5001]);
}

with_one_engine_and_with_three!(
    an_ordinary_path_carries_the_tunnels_mtu_within_a_second,
    a_path_of_1280_comes_up_without_ipv6_and_answers_with_the_true_mtu,
    a_path_of_1400_carries_ipv6,
    a_path_that_shrinks_takes_ipv6_back_and_the_session_lives,
    what_went_inside_for_an_address_that_was_withheld_goes_to_its_owner_when_it_is_given,
);
