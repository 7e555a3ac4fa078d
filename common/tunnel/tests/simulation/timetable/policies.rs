//! Random policies whose rules have their times: every half minute something may begin or end.

use std::fmt::Write as _;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

pub const PRINCIPALS: [&str; 4] = [
    "alice@example.com",
    "bob@example.com",
    "carol@night.example.com",
    "dave@night.example.com",
];

/// Seconds between moments at which a rule may begin or end.
pub const STEP: u64 = 30;

/// The text of a policy. `minutes` is how long the life lasts in which it counts.
pub fn policy(rng: &mut StdRng, minutes: u32) -> String {
    // The same moments, said in the time of two places.
    let (zone, hour) = *[("UTC", 0), ("Europe/Berlin", 1)].choose(rng).unwrap();
    let clock = Clock { hour, minutes };
    let pool = ["10.99.0.0/24", "10.98.0.0/24"].choose(rng).unwrap();
    let mut text = format!("timezone = \"{zone}\"\n[pool]\nv4 = \"{pool}\"\n");
    let staff: Vec<&str> = some(rng, &PRINCIPALS);
    let _ = write!(
        text,
        "[groups]\nstaff = {staff:?}\nnight = [\"group:staff\", \"dave@night.example.com\"]\n\
         [networks]\nlab = [\"10.0.0.7\", \"net:pools\"]\npools = [\"10.98.0.0/15\"]\n"
    );
    for _ in 0..rng.random_range(2..9) {
        let kind = if rng.random_bool(0.7) {
            "allow"
        } else {
            "deny"
        };
        rule(&mut text, rng, kind, clock);
    }
    // So that most of the time somebody may do something.
    for (to, share) in [("10.0.0.0/16", 0.8), ("net:pools", 0.5)] {
        if rng.random_bool(share) {
            let _ = writeln!(
                text,
                "[[allow]]\nwho = [\"*\"]\nto = [\"{to}\"]\ndirection = \"both\""
            );
            if rng.random_bool(0.5) {
                hours(&mut text, rng, clock);
            }
        }
    }
    // Addresses that change hands, and some of no pool.
    let mut fixed = ["10.99.0.5", "10.98.0.5", "10.97.0.5"];
    let turn = rng.random_range(0..fixed.len());
    fixed.rotate_left(turn);
    for (who, address) in PRINCIPALS.iter().zip(fixed) {
        if rng.random_bool(0.3) {
            let _ = write!(
                text,
                "[[principal]]\nname = \"{who}\"\naddresses = [\"{address}\"]\n"
            );
        }
    }
    text
}

#[derive(Clone, Copy)]
struct Clock {
    /// What the clock shows when the world begins.
    hour: u32,
    minutes: u32,
}

fn rule(text: &mut String, rng: &mut StdRng, kind: &str, clock: Clock) {
    let (who, to) = (some(rng, &WHO), some(rng, &TO));
    let _ = writeln!(text, "[[{kind}]]\nwho = {who:?}\nto = {to:?}");
    if rng.random_bool(0.5) {
        let _ = writeln!(text, "ports = {:?}", some(rng, &PORTS));
    }
    let direction = ["out", "in", "both"].choose(rng).unwrap();
    let _ = writeln!(text, "direction = \"{direction}\"");
    if rng.random_bool(0.5) {
        hours(text, rng, clock);
    }
    let Clock { hour, minutes } = clock;
    let moment = |half_minutes: u32| {
        let (minute, second) = (half_minutes / 2, half_minutes % 2 * 30);
        format!("2026-01-01T{hour:02}:{minute:02}:{second:02}")
    };
    let from = rng.random_range(0..2 * minutes);
    if rng.random_bool(0.25) {
        let _ = writeln!(text, "from = {}", moment(from));
    }
    if rng.random_bool(0.25) {
        let until = from + rng.random_range(1..minutes);
        let _ = writeln!(text, "until = {}", moment(until));
    }
}

fn hours(text: &mut String, rng: &mut StdRng, clock: Clock) {
    let Clock { hour, minutes } = clock;
    let mut spans = Vec::new();
    for _ in 0..rng.random_range(1..3) {
        let from = rng.random_range(0..minutes);
        let to = (from + rng.random_range(1..minutes)).min(59);
        // The world begins on a Thursday.
        spans.push(format!("thu {hour:02}:{from:02}-{hour:02}:{to:02}"));
    }
    let _ = writeln!(text, "hours = {spans:?}");
}

/// One or two of these.
fn some(rng: &mut StdRng, all: &[&'static str]) -> Vec<&'static str> {
    let count = rng.random_range(1..=2);
    all.sample(rng, count).copied().collect()
}

const WHO: [&str; 8] = [
    "*",
    "alice@example.com",
    "bob@example.com",
    "dave@night.example.com",
    "group:staff",
    "group:night",
    "domain:*.example.com",
    "authority:example",
];
const TO: [&str; 6] = [
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.7",
    "10.1.0.0/16",
    "net:pools",
    "net:lab",
];
const PORTS: [&str; 7] = [
    "udp",
    "udp/53",
    "udp/1-1023",
    "tcp",
    "tcp/443",
    "tcp/22-443",
    "icmp",
];
