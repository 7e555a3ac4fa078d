//! The compiled policy against an oracle that reads the rules one by one.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use adit_core::close::RefusalKind;
use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Decision, Direction, Flow, Policy};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

#[derive(Clone, Debug)]
struct Rule {
    who: Vec<&'static str>,
    to: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Model {
    rules: Vec<Rule>,
    /// Members of the file's group `eng`.
    eng: Vec<&'static str>,
}

/// The oracle: who is let in by which rules, and which of them decides about an address.
impl Model {
    fn matching(&self, name: &str, groups: &[String]) -> Vec<usize> {
        let in_group = |group: &str| {
            groups.iter().any(|own| own == group) || group == "eng" && self.eng.contains(&name)
        };
        let names = |who: &str| match who.strip_prefix("group:") {
            Some(group) => in_group(group),
            None => who == "*" || who == name,
        };
        (0..self.rules.len())
            .filter(|&rule| self.rules[rule].who.iter().any(|who| names(who)))
            .collect()
    }

    /// The longest prefix decides; of two rules with the same prefix, the first.
    fn deciding(&self, matching: &[usize], address: IpAddr) -> Option<usize> {
        let mut best: Option<(u8, usize)> = None;
        for &rule in matching {
            for prefix in &self.rules[rule].to {
                let prefix: IpNet = prefix.parse().unwrap();
                let longer = best.is_none_or(|(length, _)| prefix.prefix_len() > length);
                if prefix.contains(&address) && longer {
                    best = Some((prefix.prefix_len(), rule));
                }
            }
        }
        best.map(|(_, rule)| rule)
    }

    fn text(&self) -> String {
        let mut text = format!("[groups]\neng = {:?}\n", self.eng);
        for rule in &self.rules {
            let _ = write!(
                text,
                "\n[[allow]]\nwho = {:?}\nto = {:?}\n",
                rule.who, rule.to
            );
        }
        text
    }
}

proptest! {
    #[test]
    fn the_policy_decides_as_the_oracle_does(
        model in model(),
        name in select(NAMES),
        groups in subsequence(GROUPS, 0..=GROUPS.len()),
        hosts in proptest::collection::vec(address(), 40),
    ) {
        let policy = Policy::parse(&model.text(), "policy.toml").unwrap();
        let identity = identity(name, groups);
        let matching = model.matching(name, &identity.groups);
        let access = match policy.access(&identity) {
            Ok(access) => access,
            Err(refusal) => {
                prop_assert_eq!(refusal.kind, RefusalKind::NoAccess);
                prop_assert!(matching.is_empty());
                return Ok(());
            }
        };
        prop_assert!(!matching.is_empty(), "let in by no rule");
        for host in hosts {
            let expected = model.deciding(&matching, host);
            for direction in [Direction::FromClient, Direction::ToClient] {
                let flow = Flow { direction, inside: host, protocol: 6, port: Some(443) };
                match access.filter.decide(&flow) {
                    Decision::Allow(rule) => {
                        prop_assert_eq!(Some(rule.index as usize), expected);
                        let text = model.text();
                        let line = text.lines().nth(rule.line as usize - 1);
                        prop_assert_eq!(line, Some("[[allow]]"));
                    }
                    Decision::Deny(rule) => {
                        prop_assert_eq!(rule, None);
                        prop_assert_eq!(expected, None);
                    }
                }
            }
            // What is advertised is what is allowed.
            let advertised = access.filter.routes().iter().any(|route| route.contains(host));
            prop_assert_eq!(advertised, expected.is_some());
        }
        let again = policy.access(&identity).unwrap();
        prop_assert!(Arc::ptr_eq(&access.filter, &again.filter), "the same rules, one filter");
    }
}

#[test]
fn an_empty_policy_lets_nobody_in() {
    let policy = Policy::parse("", "policy.toml").unwrap();
    let refusal = policy
        .access(&identity(NAMES[0], GROUPS.to_vec()))
        .unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NoAccess);
}

#[test]
fn a_site_or_a_fixed_address_without_a_rule_gives_no_access() {
    let text = "[[site]]\nprincipal = \"alice@example.com\"\nnetworks = [\"10.20.0.0/16\"]\n\
                [[principal]]\nname = \"alice@example.com\"\naddresses = [\"10.9.0.9\"]\n";
    let policy = Policy::parse(text, "policy.toml").unwrap();
    assert!(
        policy
            .access(&identity("alice@example.com", Vec::new()))
            .is_err()
    );
    assert_eq!(policy.warnings().len(), 2);
}

fn model() -> impl Strategy<Value = Model> {
    let rule = (subsequence(WHO, 0..=2), subsequence(PREFIXES, 0..=3))
        .prop_map(|(who, to)| Rule { who, to });
    (
        proptest::collection::vec(rule, 0..6),
        subsequence(NAMES, 0..=NAMES.len()),
    )
        .prop_map(|(rules, eng)| Model { rules, eng })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4u8, 0..3u8).prop_map(|(net, host)| IpAddr::from([10, net, 0, host])),
        (0..4u16, 0..3u16).prop_map(|(net, host)| IpAddr::from([0xfd00, net, 0, 0, 0, 0, 0, host])),
        any::<[u8; 4]>().prop_map(IpAddr::from),
    ]
}

fn identity(name: &str, groups: Vec<&str>) -> Identity {
    Identity {
        principal: Principal::parse(name).unwrap(),
        groups: groups.into_iter().map(str::to_owned).collect(),
        authority: "test".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

const NAMES: &[&str] = &["alice@example.com", "bob@example.com", "branch.example.com"];
const GROUPS: &[&str] = &["eng", "ops"];
const WHO: &[&str] = &[
    "*",
    "group:eng",
    "group:ops",
    "alice@example.com",
    "branch.example.com",
];
/// Nested, equal in two rules, adjacent, and everything.
const PREFIXES: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.2/32",
    "10.2.0.0/15",
    "::/0",
    "fd00:1::/32",
    "fd00:1::1/128",
];
