//! What another policy means for the sessions that are open, in words and numbers.
//!
//! Like [`crate::status`]: plain data, made from the grants before and after, for people and for scripts. A dry
//! run shows it, a reload logs it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Grant;
use crate::close::Refusal;
use crate::period::Period;
use crate::policy::Filter;
use crate::range::{self, RouteRange};

mod flows;
mod rules;

pub use flows::FlowLoss;
pub use rules::{RuleChange, RuleList};

/// What becomes of all sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Sessions that end.
    pub ended: Vec<Ended>,
    /// Sessions that go on with other addresses, routes, groups or rules.
    pub changed: Vec<Changed>,
    /// How many go on as they are.
    pub unchanged: usize,
    /// Flows of all sessions, where the engines were asked.
    #[serde(default)]
    pub flows: Option<FlowLoss>,
}

/// A session that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Whose it is.
    pub principal: String,
    /// Why.
    pub reason: String,
    /// Its flows, where its engine was asked.
    #[serde(default)]
    pub flows: Option<FlowLoss>,
}

/// A session that goes on with something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Whose it is.
    pub principal: String,
    /// Inner addresses and networks of a site.
    pub addresses: Exchange,
    /// Groups of certificate and policy.
    pub groups: Exchange,
    /// What it may reach.
    pub routes: Exchange,
    /// How many addresses come within reach.
    pub gained: Reach,
    /// How many addresses get out of reach.
    pub lost: Reach,
    /// The rules that count for it.
    #[serde(default)]
    pub rules: RuleChange,
    /// How long it may go on before everything is checked anew, if that is another time.
    #[serde(default)]
    pub maximum: Option<MaximumChange>,
    /// Its flows, where its engine was asked.
    #[serde(default)]
    pub flows: Option<FlowLoss>,
}

/// Another session maximum, in seconds; `None` is as long as the certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaximumChange {
    /// What it was.
    pub before: Option<u64>,
    /// What it is.
    pub after: Option<u64>,
}

/// What comes and what goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// What comes.
    pub gained: Vec<String>,
    /// What goes.
    pub lost: Vec<String>,
}

/// So many addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Of IPv4.
    pub v4: u64,
    /// Of IPv6; the largest number means all of them.
    pub v6: u128,
}

/// Compares sessions one by one.
#[derive(Debug, Default)]
pub struct Comparison {
    difference: Difference,
    /// Many sessions share few filters. Those in here cannot make room for others at their place in memory.
    known: BTreeMap<(usize, usize), Known>,
}

#[derive(Debug)]
struct Known {
    _filters: [Arc<Filter>; 2],
    change: RuleChange,
}

impl Comparison {
    /// Adds one session: what it has, and the verdict about it. Returns whether it goes on as it is.
    pub fn add(&mut self, before: &Grant, after: Result<&Grant, &Refusal>) -> bool {
        match after {
            Err(refusal) => self.difference.ended.push(Ended {
                principal: before.principal.to_string(),
                reason: refusal.to_string(),
                flows: None,
            }),
            Ok(after) => {
                let rules = self.rules(&before.filter, &after.filter);
                match Changed::between(before, after, rules) {
                    Some(changed) => self.difference.changed.push(changed),
                    None => {
                        self.difference.unchanged += 1;
                        return true;
                    }
                }
            }
        }
        false
    }

    /// The sum.
    #[must_use]
    pub fn finish(self) -> Difference {
        self.difference
    }

    fn rules(&mut self, before: &Arc<Filter>, after: &Arc<Filter>) -> RuleChange {
        let place = |filter: &Arc<Filter>| Arc::as_ptr(filter).addr();
        let known = self.known.entry((place(before), place(after)));
        let known = known.or_insert_with(|| Known {
            _filters: [Arc::clone(before), Arc::clone(after)],
            change: RuleChange::between(before, after),
        });
        known.change.clone()
    }
}

impl Difference {
    /// Whether every session goes on as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.changed.is_empty()
    }

    /// Everything in words, a line for each fact.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("{self}\n");
        for ended in &self.ended {
            let _ = writeln!(text, "\n{} ends: {}", ended.principal, ended.reason);
            if let Some(flows) = ended.flows {
                let _ = writeln!(text, "  {:<18}{flows}", "flows");
            }
        }
        for changed in &self.changed {
            let _ = writeln!(text, "\n{} changes", changed.principal);
            let mut line = |what: &str, list: &[String], reach: Option<Reach>| {
                if !list.is_empty() {
                    let count = reach.map(|reach| format!(" ({reach})"));
                    let count = count.unwrap_or_default();
                    let _ = writeln!(text, "  {what:<18}{}{count}", list.join(", "));
                }
            };
            line("gets", &changed.addresses.gained, None);
            line("gives back", &changed.addresses.lost, None);
            line("joins", &changed.groups.gained, None);
            line("leaves", &changed.groups.lost, None);
            line("reaches", &changed.routes.gained, Some(changed.gained));
            let lost = &changed.routes.lost;
            line("no longer reaches", lost, Some(changed.lost));
            changed.rules.render(&mut text);
            if let Some(maximum) = changed.maximum {
                let _ = writeln!(text, "  {:<18}{maximum}", "session maximum");
            }
            if let Some(flows) = changed.flows {
                let _ = writeln!(text, "  {:<18}{flows}", "flows");
            }
        }
        text
    }
}

/// The counts, in one line.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 session {one}"),
            _ => format!("{count} sessions {many}"),
        };
        write!(
            f,
            "{}, {}, {}",
            sessions(self.ended.len(), "ends", "end"),
            sessions(self.changed.len(), "changes", "change"),
            sessions(self.unchanged, "stays as it is", "stay as they are"),
        )?;
        match self.flows {
            Some(flows) => write!(f, "; {flows}"),
            None => Ok(()),
        }
    }
}

impl Changed {
    /// `None` when nothing is different.
    fn between(before: &Grant, after: &Grant, rules: RuleChange) -> Option<Self> {
        let gained = range::difference(&after.routes, &before.routes);
        let lost = range::difference(&before.routes, &after.routes);
        let changed = Self {
            principal: after.principal.to_string(),
            addresses: Exchange::between(&before.addresses, &after.addresses, range::shown_prefix),
            groups: Exchange::between(&before.groups, &after.groups, Clone::clone),
            gained: Reach::of(&gained),
            lost: Reach::of(&lost),
            routes: Exchange {
                gained: gained.iter().map(shown_range).collect(),
                lost: lost.iter().map(shown_range).collect(),
            },
            rules,
            maximum: (before.maximum != after.maximum).then(|| MaximumChange {
                before: before.maximum.map(Period::seconds),
                after: after.maximum.map(Period::seconds),
            }),
            flows: None,
        };
        let same = [&changed.addresses, &changed.groups, &changed.routes]
            .iter()
            .all(|exchange| **exchange == Exchange::default());
        let same = same && changed.rules.is_empty() && changed.maximum.is_none();
        (!same).then_some(changed)
    }
}

impl Exchange {
    fn between<T: PartialEq>(before: &[T], after: &[T], shown: impl Fn(&T) -> String) -> Self {
        let missing = |from: &[T], other: &[T]| {
            let missing = from.iter().filter(|item| !other.contains(item));
            missing.map(&shown).collect()
        };
        Self {
            gained: missing(after, before),
            lost: missing(before, after),
        }
    }
}

impl fmt::Display for MaximumChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |seconds: Option<u64>| match seconds.and_then(Period::of_seconds) {
            Some(period) => period.to_string(),
            None => "none".to_owned(),
        };
        write!(f, "{} (was {})", told(self.after), told(self.before))
    }
}

impl Reach {
    fn of(ranges: &[RouteRange]) -> Self {
        let mut reach = Self::default();
        for range in ranges {
            let size = range::size(range);
            if range.start().is_ipv4() {
                reach.v4 = reach
                    .v4
                    .saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
            } else {
                reach.v6 = reach.v6.saturating_add(size);
            }
        }
        reach
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v4 = match self.v4 {
            0 => None,
            1 => Some("1 IPv4 address".to_owned()),
            count => Some(format!("{count} IPv4 addresses")),
        };
        let v6 = match self.v6 {
            0 => None,
            1 => Some("1 IPv6 address".to_owned()),
            count if count < READABLE => Some(format!("{count} IPv6 addresses")),
            // All of them are one more than can be counted.
            u128::MAX => Some("2^128 IPv6 addresses".to_owned()),
            count if count.is_power_of_two() => Some(format!("2^{} IPv6 addresses", count.ilog2())),
            count => Some(format!("more than 2^{} IPv6 addresses", count.ilog2())),
        };
        let both: Vec<String> = v4.into_iter().chain(v6).collect();
        f.write_str(&both.join(", "))
    }
}

/// A range that is one prefix as that, another by its ends.
fn shown_range(range: &RouteRange) -> String {
    let prefixes = range::to_prefixes(range);
    let addresses = match prefixes.as_slice() {
        [prefix] => range::shown_prefix(prefix),
        _ => range.to_string(),
    };
    match range.protocol() {
        0 => addresses,
        protocol => format!("{addresses} for protocol {protocol}"),
    }
}

/// Numbers above are better told as a power of two.
const READABLE: u128 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::close::RefusalKind;
    use crate::identity::{Identity, Principal};
    use crate::policy::Policy;

    fn grant(addresses: &[&str], to: &[&str]) -> Grant {
        let who = "alice@example.com";
        let policy = Policy::parse(
            &format!("[[allow]]\nwho = [\"*\"]\nto = {to:?}\n"),
            "p.toml",
        );
        let identity = Identity {
            principal: Principal::parse(who).unwrap(),
            groups: Vec::new(),
            authority: String::new(),
            serial: String::new(),
            not_before: 0,
            not_after: 0,
        };
        let access = policy.unwrap().access(&identity, 0).unwrap();
        Grant {
            principal: identity.principal,
            groups: vec!["staff".to_owned()],
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            routes: access.filter.routes().to_vec(),
            filter: Arc::clone(&access.filter),
            maximum: None,
            changes_at: None,
        }
    }

    fn difference<'a>(
        sessions: impl IntoIterator<Item = (&'a Grant, Result<&'a Grant, &'a Refusal>)>,
    ) -> Difference {
        let mut comparison = Comparison::default();
        for (before, after) in sessions {
            comparison.add(before, after);
        }
        comparison.finish()
    }

    #[test]
    fn a_session_that_keeps_everything_is_only_counted() {
        let before = grant(&["10.99.0.7/32"], &["10.0.0.0/16"]);
        let after = grant(&["10.99.0.7/32"], &["10.0.0.0/16"]);
        let difference = difference([(&before, Ok(&after))]);
        assert!(difference.is_empty());
        assert_eq!(
            difference.render(),
            "0 sessions end, 0 sessions change, 1 session stays as it is\n"
        );
    }

    #[test]
    fn a_rule_that_says_the_same_in_other_words_is_a_change_without_routes() {
        let before = grant(&[], &["10.0.0.0/17", "10.0.128.0/17"]);
        let after = grant(&[], &["10.0.0.0/16"]);
        let difference = difference([(&before, Ok(&after)), (&before, Ok(&after))]);
        assert_eq!(difference.changed[0], difference.changed[1]);
        let changed = &difference.changed[0];
        assert_eq!(changed.routes, Exchange::default());
        assert_eq!(changed.rules.may_use.rules.len(), 1);
        assert_eq!(changed.rules.may_no_longer_use.rules.len(), 1);
    }

    #[test]
    fn gains_and_losses_are_told_in_words_and_numbers() {
        let before = grant(&["10.99.0.7/32"], &["10.0.0.0/16", "fd00:1::/64"]);
        let mut after = grant(
            &["10.99.0.9/32", "10.20.0.0/16"],
            &[
                "10.0.0.0/24",
                "10.0.255.255/32",
                "fd00:1::/64",
                "fd00:2::/63",
            ],
        );
        after.groups = vec!["admins".to_owned()];
        after.maximum = Period::parse("8h");
        let refusal = Refusal::new(RefusalKind::AccessWithdrawn, "");
        let mut bob = before.clone();
        bob.principal = Principal::parse("bob@example.com").unwrap();
        let mut difference = difference([(&before, Ok(&after)), (&bob, Err(&refusal))]);
        let losses = [("alice@example.com", 1, 4), ("bob@example.com", 2, 2)];
        let losses = losses.map(|(who, ending, open)| (who.to_owned(), FlowLoss { ending, open }));
        difference.tell_flows(&losses.into(), 9);
        assert_eq!(
            difference.render(),
            "1 session ends, 1 session changes, 0 sessions stay as they are; 3 of 9 flows end\n\
             \n\
             bob@example.com ends: the policy no longer gives this identity access\n  \
               flows             2 of 2 flows end\n\
             \n\
             alice@example.com changes\n  \
               gets              10.99.0.9, 10.20.0.0/16\n  \
               gives back        10.99.0.7\n  \
               joins             admins\n  \
               leaves            staff\n  \
               reaches           fd00:2::/63 (2^65 IPv6 addresses)\n  \
               no longer reaches 10.0.1.0-10.0.255.254 (65279 IPv4 addresses)\n  \
               may use           allow at p.toml:1: allow * to 10.0.0.0/24, 10.0.255.255/32, \
             fd00:1::/64, fd00:2::/63\n  \
               may no longer use allow at p.toml:1: allow * to 10.0.0.0/16, fd00:1::/64\n  \
               session maximum   8h (was none)\n  \
               flows             1 of 4 flows ends\n"
        );
    }

    #[test]
    fn the_json_form_reads_back_whatever_the_numbers() {
        let mut difference = difference([(
            &grant(&[], &["10.0.0.1/32"]),
            Ok(&grant(&[], &["::/0", "0.0.0.0/0"])),
        )]);
        difference.tell_flows(&BTreeMap::new(), 0);
        let json = serde_json::to_string(&difference).unwrap();
        assert_eq!(
            serde_json::from_str::<Difference>(&json).unwrap(),
            difference
        );
        assert_eq!(difference.changed[0].gained.v4, (1 << 32) - 1);
        let text = difference.render();
        assert!(text.contains("2^128 IPv6 addresses"), "{text}");
    }
}
