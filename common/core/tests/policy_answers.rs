//! What a policy tells its operator: explanations, failed tests, and how long it takes to be read.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use adit_core::identity::Principal;
use adit_core::policy::{Direction, Explanation, Flow, Policy, Question, render};

#[test]
fn an_explanation_names_the_rule_and_what_will_change() {
    let said = explain(
        "erin@example.com",
        &["contractors"],
        "10.0.7.1",
        Some(443),
        MONDAY_NOON,
    );
    assert!(said.allowed);
    let rule = said.rule.clone().unwrap();
    assert_eq!(
        (rule.name.as_str(), rule.place.as_str()),
        ("office", "policy.toml:14")
    );
    assert_eq!(
        rule.text,
        "allow group:staff to 10.0.0.0/16 on tcp/443, hours mon-fri 08:00-18:00 until 2026-01-31"
    );
    assert_eq!(
        render(&said),
        "verdict       allowed: office allows it\n\
         who           erin@example.com\n\
         flow          to 10.0.7.1 on tcp/443\n\
         time          Mon 2026-01-05 12:00 Europe/Berlin\n\
         rule          office (policy.toml:14): allow group:staff to 10.0.0.0/16 on tcp/443, hours mon-fri 08:00-18:00 until 2026-01-31\n\
         group         contractors (certificate)\n\
         group         staff (policy.toml:6, as a member of contractors)\n\
         address       10.99.0.50\n\
         route         10.0.3.0-10.0.255.255\n\
         maximum       8h for a session, then everything is checked anew (policy.toml:33)\n\
         upcoming      Mon 2026-01-05 18:00 Europe/Berlin: what this identity may do changes: office ceases to count\n\
         upcoming      Sun 2026-02-01 00:00 Europe/Berlin: office ends for good\n\
         upcoming      Sat 2026-02-14 00:00 Europe/Berlin: the certificate expires\n"
    );
}

#[test]
fn an_explanation_of_a_denial_names_the_rule_and_the_one_that_it_beats() {
    let said = explain(
        "erin@example.com",
        &["contractors"],
        "10.0.2.1",
        Some(443),
        MONDAY_NOON,
    );
    assert!(!said.allowed && said.misses.is_empty());
    assert_eq!(said.reason, "customer data denies it");
    assert_eq!(said.rule.unwrap().place, "policy.toml:22");
    assert_eq!(said.overruled.unwrap().name, "office");
    assert_eq!(said.route, None);
}

#[test]
fn without_a_rule_the_nearest_are_named_with_what_is_missing() {
    let said = explain(
        "erin@example.com",
        &["contractors"],
        "10.0.7.1",
        Some(22),
        MONDAY_NOON,
    );
    assert_eq!(said.reason, "no rule allows it");
    let misses: Vec<(&str, &[String])> = said
        .misses
        .iter()
        .map(|miss| (miss.rule.name.as_str(), miss.because.as_slice()))
        .collect();
    assert_eq!(
        misses,
        [
            (
                "office",
                &["allows on tcp/443, and not tcp/22".to_owned()][..]
            ),
            (
                "monitoring",
                &[
                    "names group:night, authority:partner, and not erin@example.com".to_owned(),
                    "is for flows that start inside".to_owned(),
                ]
            ),
        ]
    );
    // On Sunday there is no session at all.
    let said = explain(
        "erin@example.com",
        &["contractors"],
        "10.0.7.1",
        Some(443),
        MONDAY_NOON - 86_400,
    );
    assert!(!said.allowed);
    assert!(
        said.reason
            .contains("access begins Mon 2026-01-05 08:00 Europe/Berlin"),
        "{}",
        said.reason
    );
    assert_eq!(
        said.misses[0].because,
        [
            "counts again from Mon 2026-01-05 08:00 Europe/Berlin (hours mon-fri 08:00-18:00 until 2026-01-31)"
        ]
    );
    // A stranger is told which group it is not in.
    let said = explain(
        "mallory@example.com",
        &[],
        "10.0.7.1",
        Some(443),
        MONDAY_NOON,
    );
    assert!(
        said.reason.starts_with("there is no session"),
        "{}",
        said.reason
    );
    assert_eq!(
        said.misses[0].because,
        ["names group:staff, and not mallory@example.com"]
    );
    assert!(
        render(&said).contains("\n                but it names group:staff"),
        "{}",
        render(&said)
    );
    assert!(render(&said).contains("route         none leads there"));
}

#[test]
fn an_explanation_survives_json() {
    let said = explain(
        "erin@example.com",
        &["contractors"],
        "10.0.7.1",
        Some(22),
        MONDAY_NOON,
    );
    let json = serde_json::to_string(&said).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), said);
}

#[test]
fn a_test_that_fails_says_where_what_was_expected_and_what_came_out() {
    let test = |more: &str| {
        format!("\n[[test]]\nwho = \"erin@example.com\"\ngroups = [\"contractors\"]\n{more}")
    };
    let text = String::from(POLICY)
        + &test("to = \"10.0.7.1\"\nport = \"tcp/443\"\nexpect = \"allow\"\nrule = \"office\"")
        + &test(
            "to = \"10.0.7.1\"\nport = \"tcp/443\"\nat = 2026-01-04T12:00:00\nexpect = \"deny\"",
        )
        + &test(
            "to = \"10.0.2.1\"\nport = \"tcp/443\"\nexpect = \"deny\"\nrule = \"customer data\"",
        );
    assert_eq!(failed(&text), [""; 0]);
    let head = POLICY.lines().count();
    let wrong = String::from(POLICY)
        + &test("to = \"10.0.2.1\"\nport = \"tcp/443\"\nexpect = \"allow\"")
        + &test("to = \"10.0.7.1\"\nport = \"icmp\"\nexpect = \"allow\"")
        + &test("to = \"10.0.7.1\"\nport = \"tcp/443\"\nexpect = \"allow\"\nrule = \"monitoring\"")
        + &test(
            "to = \"10.0.7.1\"\nport = \"tcp/443\"\nat = 2026-01-04T12:00:00\nexpect = \"allow\"",
        );
    assert_eq!(
        failed(&wrong),
        [
            format!(
                "policy.toml:{}: test: erin@example.com to 10.0.2.1 on tcp/443 should be allowed, \
                 and is denied by \"customer data\" (policy.toml:22)",
                head + 2
            ),
            format!(
                "policy.toml:{}: test: erin@example.com to 10.0.7.1 on icmp should be allowed, \
                 and is denied: no rule allows it",
                head + 8
            ),
            format!(
                "policy.toml:{}: test: erin@example.com to 10.0.7.1 on tcp/443 should be allowed \
                 by \"monitoring\", and is allowed by \"office\" (policy.toml:14)",
                head + 14
            ),
            format!(
                "policy.toml:{}: test: erin@example.com to 10.0.7.1 on tcp/443, Sun 2026-01-04 12:00 \
                 Europe/Berlin should be allowed, and is denied: the policy gives this identity no \
                 access at this time (erin@example.com; access begins Mon 2026-01-05 08:00 Europe/Berlin)",
                head + 21
            ),
        ]
    );
}

#[test]
fn tests_of_ipv6_of_authorities_and_from_inside_ask_what_they_say() {
    let text = "[[allow]]\nwho = [\"authority:partner\"]\nto = [\"fd00::/16\"]\nports = [\"icmp\"]\ndirection = \"in\"\n\
                [[test]]\nwho = \"a@b.c\"\nauthority = \"partner\"\nto = \"fd00::1\"\nport = \"icmp\"\ndirection = \"in\"\nexpect = \"allow\"\n\
                [[test]]\nwho = \"a@b.c\"\nauthority = \"partner\"\nto = \"fd00::1\"\nport = \"icmp\"\nexpect = \"deny\"\n\
                [[test]]\nwho = \"a@b.c\"\nto = \"fd00::1\"\nport = \"icmp\"\ndirection = \"in\"\nexpect = \"deny\"\n";
    assert_eq!(failed(text), [""; 0]);
}

/// Nothing here is measured: a square of the length would take hours.
#[test]
fn a_policy_of_a_hundred_thousand_lines_is_read_in_seconds() {
    let rules = 20_000;
    let shapes: [(&str, Shape); 4] = [
        ("all different", |n| {
            (
                format!("user{n}@example.com"),
                format!("10.{}.{}.0/24", n / 256, n % 256),
            )
        }),
        ("one network", |n| {
            (format!("user{n}@example.com"), "10.0.0.0/8".into())
        }),
        ("one group", |n| {
            (
                "group:staff".into(),
                format!("10.{}.{}.0/24", n / 256, n % 256),
            )
        }),
        ("one rule", |_| ("group:staff".into(), "10.0.0.0/8".into())),
    ];
    for (name, shape) in shapes {
        let mut text = String::new();
        for n in 0..rules {
            let (who, to) = shape(n);
            let _ = write!(
                text,
                "[[allow]]\nwho = [{who:?}]\nto = [{to:?}]\nports = [\"tcp/{n}\"]\n\n"
            );
        }
        let start = Instant::now();
        let policy = Policy::parse(&text, "policy.toml").unwrap();
        let erin = Principal::parse("erin@example.com").unwrap();
        let flow = flow("10.0.7.1", Some(7));
        let groups = ["staff".to_owned()];
        let said = policy.explain(&question(&erin, &groups, flow, 0));
        assert_eq!(
            said.allowed,
            ["one group", "one rule"].contains(&name),
            "{name}: {}",
            said.reason
        );
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{name}: {:?}",
            start.elapsed()
        );
    }
}

/// Who and to of the n-th rule.
type Shape = fn(usize) -> (String, String);

fn failed(text: &str) -> Vec<String> {
    let policy = Policy::parse(text, "policy.toml").unwrap();
    let failed = policy.failed_tests(MONDAY_NOON);
    failed.iter().map(ToString::to_string).collect()
}

fn explain(who: &str, groups: &[&str], inside: &str, port: Option<u16>, now: i64) -> Explanation {
    let policy = Policy::parse(POLICY, "policy.toml").unwrap();
    let principal = Principal::parse(who).unwrap();
    let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
    policy.explain(&question(&principal, &groups, flow(inside, port), now))
}

fn flow(inside: &str, port: Option<u16>) -> Flow {
    Flow {
        direction: Direction::FromClient,
        inside: inside.parse().unwrap(),
        protocol: 6,
        port,
    }
}

fn question<'a>(
    principal: &'a Principal,
    groups: &'a [String],
    flow: Flow,
    now: i64,
) -> Question<'a> {
    Question {
        principal,
        authority: "corp",
        groups,
        // Saturday, 14 February 2026, 00:00 in Berlin.
        not_after: Some(MONDAY_NOON + 39 * 86_400 + 12 * 3600),
        flow,
        now,
    }
}

/// 5 January 2026, 12:00 in Berlin.
const MONDAY_NOON: i64 = 1_767_610_800;
const POLICY: &str = r#"timezone = "Europe/Berlin"

[groups]
staff = [
  "bob@example.com",
  "group:contractors",
]

[[principal]]
name = "erin@example.com"
addresses = ["10.99.0.50"]

# The office.
[[allow]]
name = "office"
who = ["group:staff"]
to = ["10.0.0.0/16"]
ports = ["tcp/443"]
hours = ["mon-fri 08:00-18:00"]
until = 2026-01-31

[[deny]]
name = "customer data"
who = ["*"]
to = ["10.0.2.0/24"]

[[allow]]
name = "monitoring"
who = ["group:night", "authority:partner"]
to = ["10.0.0.0/16"]
direction = "in"

[[session]]
who = ["group:staff"]
maximum = "8h"
"#;
