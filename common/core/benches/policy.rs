//! A large policy beside one of a single rule: what a new flow, a new session and the reading of
//! the file cost.
//!
//! [`RULES`] rules for [`PRINCIPALS`] principals, in two forms: *own*, where each principal is
//! named by ten rules of its own, and *all*, where every rule names everybody and so is in
//! everybody's filter. Run with `cargo bench -p adit-core --bench policy`.
#![allow(missing_docs)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Decision, Direction, Filter, Flow, Policy};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(WARM_UP).measurement_time(MEASUREMENT);
    targets = decide, access, compile, parse
}
criterion_main!(benches);

/// May this flow begin? One element is one flow, each of another principal and to another host.
fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(PRINCIPALS as u64));
    for (name, text) in policies() {
        let policy = Policy::parse(&text, "policy.toml").expect("a policy");
        let filters: Vec<Arc<Filter>> = identities()
            .map(|identity| policy.access(&identity, 0).expect("an access").filter)
            .collect();
        let flows: Vec<Flow> = (0..PRINCIPALS).map(flow).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for (flow, filter) in flows.iter().zip(&filters) {
                    let decision = filter.decide(black_box(flow));
                    assert!(matches!(decision, Decision::Allow(_)));
                }
            });
        });
    }
}

/// What does a new session get, while others hold the same filter? One element is one session.
fn access(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("access");
    group.throughput(Throughput::Elements(PRINCIPALS as u64));
    let identities: Vec<Identity> = identities().collect();
    for (name, text) in policies() {
        let policy = Policy::parse(&text, "policy.toml").expect("a policy");
        let get = |identity| policy.access(identity, 0).expect("an access");
        let held: Vec<_> = identities.iter().map(get).collect();
        group.sample_size(10).bench_function(name, |bencher| {
            bencher.iter(|| {
                for identity in &identities {
                    black_box(get(black_box(identity)));
                }
            });
        });
        drop(held);
    }
}

/// The same for the first session with a filter.
fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    let identity = identities().next().expect("an identity");
    for (name, text) in policies() {
        let policy = Policy::parse(&text, "policy.toml").expect("a policy");
        group.sample_size(10).bench_function(name, |bencher| {
            bencher.iter(|| black_box(policy.access(&identity, 0).expect("an access")));
        });
    }
}

/// A file of a million lines, whose rules are alike in what makes the search for shadowed rules
/// hard: the same hosts, the same people, and both.
fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse a million lines");
    let rule = |text: &mut String, who: String, to: String| {
        let _ = write!(
            text,
            "[[allow]]\nwho = [\"{who}\"]\nto = [\"{to}\"]\nports = [\"tcp/443\"]\n\n"
        );
    };
    let make = |rule: &dyn Fn(&mut String, usize)| {
        let mut text = String::new();
        (0..LINES / 5).for_each(|n| rule(&mut text, n));
        text
    };
    let host = |n: usize| Ipv4Addr::from(0x0a00_0000 + n as u32).to_string();
    for (name, text) in [
        (
            "all different",
            make(&|text, n| rule(text, format!("user{n}@example.com"), host(n))),
        ),
        (
            "one network",
            make(&|text, n| rule(text, format!("user{n}@example.com"), "10.0.0.0/8".into())),
        ),
        (
            "one group",
            make(&|text, n| rule(text, "group:staff".into(), host(n))),
        ),
        (
            "one rule again and again",
            make(&|text, _| rule(text, "*".into(), "10.0.0.0/8".into())),
        ),
    ] {
        group.sample_size(10).bench_function(name, |bencher| {
            bencher.iter(|| {
                black_box(Policy::parse(black_box(&text), "policy.toml").expect("a policy"))
            });
        });
    }
}

fn policies() -> [(&'static str, String); 3] {
    let ports = "ports = [\"tcp/443\", \"udp/53\"]\n";
    let one = format!("[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n{ports}");
    let (mut own, mut all) = (String::new(), String::new());
    for n in 0..RULES {
        let to = network(n);
        let principal = n % PRINCIPALS;
        let _ = write!(
            own,
            "[[allow]]\nwho = [\"user{principal}@example.com\"]\nto = [\"{to}\"]\n{ports}"
        );
        let _ = write!(all, "[[allow]]\nwho = [\"*\"]\nto = [\"{to}\"]\n{ports}");
    }
    [
        ("one rule", one),
        ("10,000 rules, own", own),
        ("10,000 rules, all", all),
    ]
}

/// The network of the n-th rule.
fn network(n: usize) -> String {
    format!("10.{}.{}.0/24", n / 250, n % 250)
}

/// A flow that the n-th principal's first rule allows.
fn flow(n: usize) -> Flow {
    Flow {
        direction: Direction::FromClient,
        inside: IpAddr::from([10, (n / 250) as u8, (n % 250) as u8, 7]),
        protocol: 6,
        port: Some(443),
    }
}

fn identities() -> impl Iterator<Item = Identity> {
    (0..PRINCIPALS).map(|n| Identity {
        principal: Principal::parse(&format!("user{n}@example.com")).expect("a name"),
        groups: vec!["staff".to_owned()],
        authority: "bench".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    })
}

const WARM_UP: Duration = Duration::from_millis(300);
const MEASUREMENT: Duration = Duration::from_secs(1);
const RULES: usize = 10_000;
const PRINCIPALS: usize = 1000;
const LINES: usize = 1_000_000;
