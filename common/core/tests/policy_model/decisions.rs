//! What the compiled policy decides, grants, explains and warns about.

use std::net::IpAddr;
use std::sync::Arc;

use adit_core::close::RefusalKind;
use adit_core::policy::{Access, Decision, Direction, Flow, Policy};
use adit_core::range::is_ordered;
use proptest::prelude::*;

use super::model::{Rule, START, alice, flow, identity, model, now, question};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_policy_decides_and_explains_as_the_oracle_does(
        model in model(),
        identity in identity(),
        now in now(),
        flows in proptest::collection::vec(flow(), 40),
    ) {
        let policy = Policy::parse(&model.text(), "policy.toml").unwrap();
        let access = policy.access(&identity, now);
        let named = |rule: &&Rule| rule.kind == "allow" && rule.who.iter().any(|who| model.names(who, &identity));
        let counting = model.rules.iter().filter(named).any(|rule| model.counts(rule, &identity, now));
        prop_assert_eq!(access.is_ok(), counting);
        if let Err(refusal) = &access {
            let never = !model.rules.iter().any(|rule| named(&rule));
            prop_assert!(refusal.kind == RefusalKind::NoAccess || !never, "{}", refusal);
        }
        for flow in &flows {
            let decision = match &access {
                Err(_) => Decision::Deny(None),
                Ok(access) => {
                    let decision = access.filter.decide(flow);
                    prop_assert_eq!(decision, model.decide(&identity, flow, now));
                    let advertised = access.filter.routes().iter().any(|route| route.contains(flow.inside));
                    prop_assert_eq!(advertised, model.routed(&identity, flow.inside, now));
                    prop_assert!(advertised || !matches!(decision, Decision::Allow(_)));
                    decision
                }
            };
            let explanation = policy.explain(&question(&identity, *flow, now));
            let (allowed, rule) = match decision {
                Decision::Allow(rule) => (true, Some(rule)),
                Decision::Deny(rule) => (false, rule),
            };
            prop_assert_eq!(explanation.allowed, allowed);
            let place = rule.map(|rule| format!("policy.toml:{}", rule.line));
            prop_assert_eq!(explanation.rule.map(|rule| rule.place), place);
            for miss in explanation.misses {
                prop_assert!(!miss.because.is_empty(), "{:?} would allow it", miss.rule);
            }
        }
        if let Ok(access) = access {
            prop_assert!(is_ordered(access.filter.routes()));
            let again = policy.access(&identity, now).unwrap();
            prop_assert!(Arc::ptr_eq(&access.filter, &again.filter), "the same rules, one filter");
            let same = Policy::parse(&model.text(), "other.toml").unwrap();
            prop_assert!(*same.access(&identity, now).unwrap().filter == *access.filter);
        }
    }

    #[test]
    fn an_access_stays_as_it_is_until_it_says_that_it_changes(
        model in model(),
        identity in identity(),
        now in now(),
    ) {
        let policy = Policy::parse(&model.text(), "policy.toml").unwrap();
        let Ok(access) = policy.access(&identity, now) else { return Ok(()) };
        let later = |at| policy.access(&identity, at).map(|access| rules(&access)).unwrap_or_default();
        let until = access.changes_at.unwrap_or(now + 60 * 86_400);
        prop_assert!(until > now);
        for at in (now..until).step_by(1800).chain([until - 1]) {
            prop_assert_eq!(later(at), rules(&access));
        }
        if access.changes_at.is_some() {
            prop_assert_ne!(later(until), rules(&access));
        }
    }

    #[test]
    fn a_rule_that_is_said_to_decide_nothing_decides_nothing(
        model in model(),
        identity in identity(),
        now in now(),
        flows in proptest::collection::vec(flow(), 40),
    ) {
        let policy = Policy::parse(&model.text(), "policy.toml").unwrap();
        let shadowed = policy.warnings().iter().map(ToString::to_string);
        let shadowed: Vec<String> = shadowed.filter(|text| text.contains("shadowed")).collect();
        let Ok(access) = policy.access(&identity, now) else { return Ok(()) };
        for flow in &flows {
            if let Decision::Allow(rule) | Decision::Deny(Some(rule)) = access.filter.decide(flow) {
                let place = format!("policy.toml:{}: ", rule.line);
                prop_assert!(!shadowed.iter().any(|text| text.starts_with(&place)), "{shadowed:?}");
            }
        }
    }
}

#[test]
fn an_empty_policy_lets_nobody_in() {
    let policy = Policy::parse("", "policy.toml").unwrap();
    let refusal = policy.access(&alice(), 0).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NoAccess);
}

#[test]
fn a_site_or_a_fixed_address_or_a_denial_without_a_rule_that_allows_gives_no_access() {
    let text = "[[site]]\nprincipal = \"alice@example.com\"\nnetworks = [\"10.20.0.0/16\"]\n\
                [[principal]]\nname = \"alice@example.com\"\naddresses = [\"10.9.0.9\"]\n";
    let policy = Policy::parse(text, "policy.toml").unwrap();
    assert!(policy.access(&alice(), 0).is_err());
    assert_eq!(policy.warnings().len(), 2);
    let deny = "[[deny]]\nwho = [\"alice@example.com\"]\nto = [\"10.0.0.0/8\"]\n";
    let policy = Policy::parse(deny, "policy.toml").unwrap();
    assert_eq!(
        policy.access(&alice(), 0).unwrap_err().kind,
        RefusalKind::NoAccess
    );
}

#[test]
fn outside_all_hours_nobody_gets_in_and_is_told_when() {
    let text = "timezone = \"Europe/Berlin\"\n[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n\
                hours = [\"mon-fri 08:00-18:00\"]\nuntil = 2026-01-09\n";
    let policy = Policy::parse(text, "policy.toml").unwrap();
    // Monday, 5 January 2026, 00:00 UTC.
    let refusal = policy.access(&alice(), START).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::OutsideHours);
    assert_eq!(
        refusal.detail,
        "alice@example.com; access begins Mon 2026-01-05 08:00 Europe/Berlin"
    );
    let opens = START + 7 * 3600;
    let access = policy.access(&alice(), opens).unwrap();
    assert_eq!(access.changes_at, Some(opens + 10 * 3600));
    let ended = START + 5 * 86_400;
    let refusal = policy.access(&alice(), ended).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::NoAccess);
    assert!(policy.ended_rules(START).is_empty());
    let warning = policy.ended_rules(ended)[0].to_string();
    assert!(
        warning.starts_with("policy.toml:2: allow: the rule has ended"),
        "{warning}"
    );
}

#[test]
fn a_rate_belongs_to_the_rule_that_allows() {
    let text = "[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp\"]\nrate = \"10 Mbit/s\"\n\
                [[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n";
    let policy = Policy::parse(text, "policy.toml").unwrap();
    let filter = policy.access(&alice(), 0).unwrap().filter;
    let rate = |protocol| {
        let inside = IpAddr::from([10, 0, 0, 1]);
        let flow = Flow {
            direction: Direction::FromClient,
            inside,
            protocol,
            port: Some(1),
        };
        match filter.decide(&flow) {
            Decision::Allow(rule) => filter.rate(rule).map(|rate| rate.bits_per_second()),
            Decision::Deny(_) => panic!("both allow"),
        }
    };
    assert_eq!((rate(6), rate(17)), (Some(10_000_000), None));
}

fn rules(access: &Access) -> Vec<u32> {
    access
        .filter
        .rules()
        .iter()
        .map(|rule| rule.id().index)
        .collect()
}
