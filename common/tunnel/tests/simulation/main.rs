//! The tunnel, both ends, on a virtual clock over bad paths.
//!
//! Every test is a promise about the whole: handshake, addresses, packets in both directions,
//! loss, restarts, moves. No test sleeps; thousands of seeded lives pass in seconds.

#![allow(clippy::unwrap_used, unreachable_pub)]

/// Makes two tests of each function, which takes the number of engines.
macro_rules! with_one_engine_and_with_three {
    ($($name:ident,)*) => {
        mod one_engine {
            $(#[test] fn $name() { super::$name(1) })*
        }
        mod three_engines {
            $(#[test] fn $name() { super::$name(3) })*
        }
    };
}

mod engines;
mod enrolment;
mod flows;
mod handover;
mod hostile;
mod house;
mod inquiry;
mod leases;
mod link;
mod lives;
mod mtu;
mod newcomer;
mod packets;
mod pki;
mod reload;
mod reloads;
mod revocation;
mod rules;
mod sessions;
mod timetable;
mod world;

/// A small company: staff reach the office, two of them each other.
pub const POLICY: &str = r#"
[pool]
v4 = "10.99.0.0/24"
v6 = "fd00:ad17::/64"

[groups]
staff = ["alice@example.com", "bob@example.com", "carol@example.com"]
friends = ["alice@example.com", "bob@example.com"]

[[allow]]
who = ["group:staff"]
to = ["10.0.0.0/16", "fd00:1::/64"]
direction = "both"

[[allow]]
who = ["group:friends"]
to = ["10.99.0.0/24", "fd00:ad17::/64"]
direction = "both"

[[principal]]
name = "branch1.example.com"
addresses = ["10.99.0.200"]

[[site]]
principal = "branch1.example.com"
networks = ["10.20.0.0/16"]

[[allow]]
who = ["branch1.example.com"]
to = ["10.0.0.0/16"]
direction = "both"
"#;
