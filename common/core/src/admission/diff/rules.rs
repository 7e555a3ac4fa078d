//! Which rules come to count for a session, and which no more.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::policy::{Action, Filter, RuleText};

/// What is different between two filters, by their rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleChange {
    /// Rules that allow, and come to count.
    pub may_use: RuleList,
    /// Rules that allow, and count no more.
    pub may_no_longer_use: RuleList,
    /// Rules that deny, and come to count.
    pub denied: RuleList,
    /// Rules that deny, and count no more.
    pub no_longer_denied: RuleList,
    /// The rules read as before, but decide otherwise: their networks are others, or their order.
    pub decide_otherwise: bool,
}

/// The first of some rules, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleList {
    /// Name, place and text.
    pub rules: Vec<RuleText>,
    /// How many more there are.
    pub more: usize,
}

impl RuleChange {
    /// Nothing, where both filters decide the same.
    pub(super) fn between(before: &Filter, after: &Filter) -> Self {
        if std::ptr::eq(before, after) || before == after {
            return Self::default();
        }
        let meanings = |filter: &Filter| -> BTreeSet<Meaning> {
            let rules = filter.rules().iter();
            rules
                .map(|rule| {
                    let (action, name, effect) = rule.meaning();
                    (action, name.map(str::to_owned), effect)
                })
                .collect()
        };
        let (old, new) = (meanings(before), meanings(after));
        let [may_use, denied] = only(after, &new, &old);
        let [may_no_longer_use, no_longer_denied] = only(before, &old, &new);
        Self {
            decide_otherwise: old == new,
            may_use,
            may_no_longer_use,
            denied,
            no_longer_denied,
        }
    }

    /// Whether both filters decide the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A line for each rule.
    pub(super) fn render(&self, text: &mut String) {
        for (what, list) in [
            ("may use", &self.may_use),
            ("may no longer use", &self.may_no_longer_use),
            ("denied", &self.denied),
            ("no longer denied", &self.no_longer_denied),
        ] {
            for rule in &list.rules {
                let _ = writeln!(text, "  {what:<18}{rule}");
            }
            if list.more > 0 {
                let _ = writeln!(text, "  {:<18}and {} more", "", list.more);
            }
        }
        if self.decide_otherwise {
            let _ = writeln!(
                text,
                "  {:<18}by the same rules: their networks are others, or their order",
                "decided otherwise"
            );
        }
    }
}

/// What a rule does, its name and what it says: a rule that only moved in the file is the same.
type Meaning = (Action, Option<String>, String);

/// The rules of a filter that the other has not: those that allow and those that deny.
fn only(filter: &Filter, own: &BTreeSet<Meaning>, other: &BTreeSet<Meaning>) -> [RuleList; 2] {
    let mut lists = [RuleList::default(), RuleList::default()];
    let mut untold: BTreeSet<&Meaning> = own.difference(other).collect();
    for rule in filter.rules() {
        let (action, name, effect) = rule.meaning();
        if !untold.remove(&(action, name.map(str::to_owned), effect)) {
            continue;
        }
        let list = match action {
            Action::Allow => &mut lists[0],
            Action::Deny => &mut lists[1],
        };
        if list.rules.len() < SHOWN {
            list.rules.push(RuleText::of(rule));
        } else {
            list.more += 1;
        }
    }
    lists
}

/// Rules that one session shows; a thousand sessions of ten thousand rules each would fill the memory.
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::Principal;
    use crate::policy::{Direction, Flow, Policy, Question};

    /// What decides for erin of group hr.
    fn filter(policy: &str) -> Arc<Filter> {
        let policy = Policy::parse(policy, "policy.toml").unwrap();
        let identity = crate::identity::Identity {
            principal: Principal::parse("erin@example.com").unwrap(),
            groups: vec!["hr".to_owned()],
            authority: String::new(),
            serial: String::new(),
            not_before: 0,
            not_after: 0,
        };
        policy.access(&identity, 0).unwrap().filter
    }

    fn change(before: &str, after: &str) -> String {
        let mut text = String::new();
        RuleChange::between(&filter(before), &filter(after)).render(&mut text);
        text
    }

    const WEB: &str =
        "[[allow]]\nwho = [\"group:hr\"]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp/443\"]\n";

    #[test]
    fn a_rule_that_moved_or_names_others_too_is_the_same() {
        assert_eq!(change(WEB, &format!("# moved\n\n{WEB}")), "");
        assert_eq!(
            change(WEB, &WEB.replace("[\"group:hr", "[\"x@e.com\", \"group:hr")),
            ""
        );
        let denies = "[[deny]]\nwho = [\"*\"]\nto = [\"10.9.0.0/16\"]\n";
        assert_eq!(
            change(WEB, &format!("# moved\n{WEB}{denies}")),
            "  denied            deny at policy.toml:6: deny * to 10.9.0.0/16\n"
        );
    }

    #[test]
    fn other_ports_directions_hours_and_rates_are_told_though_the_routes_stay() {
        let was =
            "  may no longer use allow at policy.toml:1: allow group:hr to 10.0.0.0/8 on tcp/443\n";
        for (more, text) in [
            (
                "direction = \"both\"\n",
                "to and from 10.0.0.0/8 on tcp/443",
            ),
            (
                "rate = \"10 Mbit/s\"\n",
                "to 10.0.0.0/8 on tcp/443, at most 10 Mbit/s",
            ),
        ] {
            let is = format!("  may use           allow at policy.toml:1: allow group:hr {text}\n");
            assert_eq!(change(WEB, &format!("{WEB}{more}")), format!("{is}{was}"));
        }
        let ports = change(WEB, &WEB.replace("tcp/443", "tcp/443-444"));
        assert!(ports.contains("may use           allow at policy.toml:1: allow group:hr to 10.0.0.0/8 on tcp/443-444"), "{ports}");
        // The epoch was a Thursday, 00:00.
        let closed = format!(
            "{WEB}[[allow]]\nname = \"night\"\nwho = [\"*\"]\nto = [\"10.1.0.0/16\"]\nhours = [\"thu 01:00-02:00\"]\n"
        );
        let open = change(&closed, &closed.replace("01:00", "00:00"));
        assert_eq!(
            open,
            "  may use           night (policy.toml:5): allow * to 10.1.0.0/16, hours thu 00:00-02:00\n"
        );
    }

    #[test]
    fn the_same_rules_with_other_networks_are_not_called_the_same() {
        let named = "[networks]\ndb = [\"10.1.0.0/24\"]\n[[deny]]\nwho = [\"*\"]\nto = [\"net:db\"]\nports = [\"tcp/22\"]\n";
        let before = format!("{named}{WEB}");
        let text = change(&before, &before.replace("10.1.0.0/24", "10.2.0.0/24"));
        assert!(
            text.starts_with("  decided otherwise by the same rules"),
            "{text}"
        );
    }

    #[test]
    fn many_rules_are_counted_and_the_first_are_told() {
        let many: String = (0..100)
            .map(|n| {
                format!("[[allow]]\nname = \"r{n}\"\nwho = [\"*\"]\nto = [\"10.1.{n}.0/24\"]\n")
            })
            .collect();
        let after = filter(&format!("{WEB}{many}"));
        let change = RuleChange::between(&filter(WEB), &after);
        assert_eq!(
            (change.may_use.rules.len(), change.may_use.more),
            (SHOWN, 100 - SHOWN)
        );
        assert_eq!(change.may_use.rules[0].name, "r0");
    }

    #[test]
    fn a_rule_is_called_in_a_difference_as_in_an_explanation() {
        let policy = Policy::parse(WEB, "policy.toml").unwrap();
        let flow = Flow::parse(
            Direction::FromClient,
            "10.0.0.1".parse().unwrap(),
            "tcp/443",
        );
        let explanation = policy.explain(&Question {
            principal: &Principal::parse("erin@example.com").unwrap(),
            authority: "",
            groups: &["hr".to_owned()],
            not_after: None,
            flow: flow.unwrap(),
            now: 0,
        });
        let nothing = filter(&WEB.replace("tcp/443", "tcp/1"));
        let change = RuleChange::between(&nothing, &filter(WEB));
        assert_eq!(Some(&change.may_use.rules[0]), explanation.rule.as_ref());
    }
}
