//! Policies that nobody would write who means well: huge ones, circles, and rules that contradict each other.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Decision, Direction, Flow, Policy, Question};

/// Nothing here is measured: a square of the length would take days.
#[test]
fn a_policy_of_a_million_lines_is_read_and_its_last_line_counts() {
    let mut text = String::with_capacity(64 << 20);
    for rules in 0..LINES / 5 {
        // All at once: the same again and again, the same group, the same network, and all different.
        let (who, to) = match rules % 4 {
            0 => ("*".to_owned(), "10.9.0.0/16".to_owned()),
            1 => ("group:staff".to_owned(), host(rules)),
            2 => (format!("user{rules}@example.com"), "10.0.0.0/8".to_owned()),
            _ => (format!("user{rules}@example.com"), host(rules)),
        };
        let kind = if rules % 3 == 0 { "deny" } else { "allow" };
        let _ = write!(
            text,
            "[[{kind}]]\nwho = [\"{who}\"]\nto = [\"{to}\"]\nports = [\"tcp/443\"]\n\n"
        );
    }
    text.push_str("[[allow]]\nwho = [\"alice@example.com\"]\nto = [\"192.0.2.1\"]\n");
    let lines = text.lines().count();
    assert!(lines > LINES, "{lines}");
    assert!(text.len() < 64 << 20, "a gateway reads no longer file");
    let start = Instant::now();
    let policy = Policy::parse(&text, "policy.toml").unwrap();
    let access = policy.access(&alice(), 0).unwrap();
    let decision = access.filter.decide(&flow("192.0.2.1", 443));
    let line = lines as u32 - 2;
    assert!(
        matches!(decision, Decision::Allow(rule) if rule.line == line),
        "{decision:?}"
    );
    let decision = access.filter.decide(&flow("10.9.0.1", 443));
    assert!(matches!(decision, Decision::Deny(Some(rule)) if rule.line == 1));
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // And one that is wrong at its very end is wrong.
    text.push_str("[[allow]]\nwho = []\nto = [\"10.0.0.0/8\"]\n");
    let error = Policy::parse(&text, "policy.toml").unwrap_err().to_string();
    let place = format!("policy.toml:{}", lines + 2);
    assert!(error.starts_with(&place), "{error}");
}

#[test]
fn a_circle_of_a_hundred_thousand_names_is_an_error_that_can_be_read() {
    for (section, prefix) in [("groups", "group"), ("networks", "net")] {
        let mut text = format!("[{section}]\n");
        for n in 0..100_000 {
            let _ = writeln!(text, "n{n} = [\"{prefix}:n{}\"]", (n + 1) % 100_000);
        }
        let start = Instant::now();
        let error = Policy::parse(&text, "policy.toml").unwrap_err().to_string();
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        assert!(error.contains("contains itself: "), "{error}");
        assert!(error.contains(" -> 99992 more -> "), "{error}");
        assert!(error.len() < 500, "{} bytes", error.len());
    }
}

#[test]
fn circles_are_found_wherever_they_hide() {
    for circle in [
        "a = [\"group:a\"]",
        "a = [\"group:b\"]\nb = [\"group:a\"]",
        "z = [\"group:a\"]\na = [\"u@e.com\", \"group:b\"]\nb = [\"group:c\", \"group:b\"]\nc = []",
        "a = [\"group:b\", \"group:c\"]\nb = [\"group:c\"]\nc = [\"u@e.com\", \"group:a\"]",
    ] {
        let text = format!("[groups]\n{circle}\n[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n");
        let error = Policy::parse(&text, "policy.toml").unwrap_err().to_string();
        assert!(error.contains("contains itself"), "{error}");
    }
    // The same group by two ways is no circle.
    let text = "[groups]\na = [\"group:b\", \"group:c\"]\nb = [\"group:d\"]\nc = [\"group:d\"]\n\
                d = [\"alice@example.com\"]\n[[allow]]\nwho = [\"group:a\"]\nto = [\"10.0.0.0/8\"]\n";
    let policy = Policy::parse(text, "policy.toml").unwrap();
    let access = policy.access(&alice(), 0).unwrap();
    assert_eq!(access.groups, ["a", "b", "c", "d"]);
}

#[test]
fn of_rules_that_contradict_each_other_the_denial_counts_in_whatever_order() {
    let allow = "[[allow]]\nname = \"yes\"\nwho = [\"alice@example.com\"]\nto = [\"10.0.0.0/8\"]\n";
    let denials = [
        "to = [\"10.0.0.0/8\"]\n",
        "to = [\"0.0.0.0/0\"]\n",
        "to = [\"10.0.0.7\"]\nports = [\"tcp/443\"]\n",
        "to = [\"10.0.0.0/8\"]\nports = [\"tcp/1-1000\"]\ndirection = \"both\"\n",
    ];
    for denial in denials {
        for who in ["alice@example.com", "*", "domain:example.com"] {
            let deny = format!("[[deny]]\nname = \"no\"\nwho = [\"{who}\"]\n{denial}");
            for text in [
                format!("{allow}{deny}"),
                format!("{deny}{allow}"),
                format!("{allow}{deny}{}", allow.replace("yes", "really")),
            ] {
                let policy = Policy::parse(&text, "policy.toml").unwrap();
                let told = explain(&policy, flow("10.0.0.7", 443));
                let rule = told.rule.map(|rule| rule.name);
                assert_eq!(
                    (told.allowed, rule.as_deref()),
                    (false, Some("no")),
                    "{text}"
                );
                let overruled = told.overruled.map(|rule| rule.name);
                assert_eq!(overruled.as_deref(), Some("yes"), "{text}");
                // Of two that say the same, the first does.
                let told = explain(&policy, flow("10.0.0.8", 2000));
                if told.allowed {
                    assert_eq!(told.rule.unwrap().name, "yes", "{text}");
                }
            }
        }
    }
}

#[test]
fn whoever_is_allowed_nothing_but_what_is_denied_is_let_in_and_reaches_nothing() {
    let text = "[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n\
                [[deny]]\nwho = [\"*\"]\nto = [\"10.0.0.0/9\", \"10.128.0.0/9\"]\ndirection = \"both\"\n";
    let policy = Policy::parse(text, "policy.toml").unwrap();
    let access = policy.access(&alice(), 0).unwrap();
    assert!(access.filter.routes().is_empty());
    for host in ["10.0.0.1", "10.127.255.255", "10.128.0.0", "10.255.255.255"] {
        assert!(matches!(
            access.filter.decide(&flow(host, 1)),
            Decision::Deny(Some(_))
        ));
    }
}

fn explain(policy: &Policy, flow: Flow) -> adit_core::policy::Explanation {
    policy.explain(&Question {
        principal: &alice().principal,
        authority: "corp",
        groups: &[],
        not_after: None,
        flow,
        now: 0,
    })
}

fn flow(inside: &str, port: u16) -> Flow {
    Flow {
        direction: Direction::FromClient,
        inside: inside.parse().unwrap(),
        protocol: 6,
        port: Some(port),
    }
}

fn alice() -> Identity {
    Identity {
        principal: Principal::parse("alice@example.com").unwrap(),
        groups: Vec::new(),
        authority: "corp".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

fn host(n: usize) -> String {
    format!("10.{}.{}.{}", n >> 16, n >> 8 & 0xff, n & 0xff)
}

const LINES: usize = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(60);
