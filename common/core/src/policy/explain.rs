//! Says why a flow may begin or may not.
//!
//! The verdict is that of the filter which also judges packets; what is said around it is read
//! from the rules.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::groups::Origin;
use super::rule::Rule;
use super::services;
use super::{Decision, Direction, Flow, Named, Policy};
use crate::close::Refusal;
use crate::identity::Principal;

mod misses;
mod text;

pub use text::render;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Whose flow.
    pub principal: &'a Principal,
    /// The authority of its certificate; empty when unknown.
    pub authority: &'a str,
    /// The groups of its certificate.
    pub groups: &'a [String],
    /// Last second of its certificate, since 1970, where it is known.
    pub not_after: Option<i64>,
    /// The flow.
    pub flow: Flow,
    /// When, in seconds since 1970.
    pub now: i64,
}

/// The answer, as plain data for people and scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whose flow.
    pub principal: String,
    /// The flow in words, "to 10.0.0.1 on tcp/443".
    pub flow: String,
    /// When, in local time of the policy.
    pub time: String,
    /// Whether it may begin.
    pub allowed: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// The rule that decided, if one did.
    pub rule: Option<RuleText>,
    /// The rule that would allow the flow if `rule` did not deny it.
    pub overruled: Option<RuleText>,
    /// Where no rule decided: rules that nearly allow the flow, the nearest first.
    pub misses: Vec<Miss>,
    /// Groups, and where each comes from.
    pub groups: Vec<GroupOrigin>,
    /// Fixed inner addresses.
    pub fixed_addresses: Vec<String>,
    /// The route that leads there, "10.0.0.0-10.0.255.255"; `None` when the client is not told any.
    pub route: Option<String>,
    /// How long a session may go on before everything about it is checked anew, if that is limited.
    #[serde(default)]
    pub maximum: Option<Maximum>,
    /// What will change by itself, the next first.
    pub upcoming: Vec<Upcoming>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// Its name, or "allow at policy.toml:12".
    pub name: String,
    /// File and line.
    pub place: String,
    /// What it says, in one line.
    pub text: String,
}

/// A rule that does not allow the flow, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    /// The rule.
    pub rule: RuleText,
    /// What of it does not fit.
    pub because: Vec<String>,
}

/// The session maximum, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maximum {
    /// In seconds.
    pub seconds: u64,
    /// The same as it could be written, "8h".
    pub text: String,
    /// File and line.
    pub place: String,
}

/// A group, and why somebody is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOrigin {
    /// Its name.
    pub name: String,
    /// "certificate", or file and line.
    pub from: String,
    /// The group of which it is a consequence.
    pub through: Option<String>,
}

/// A change that comes with time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upcoming {
    /// When, in seconds since 1970.
    pub at: i64,
    /// The same in local time of the policy.
    pub time: String,
    /// What.
    pub what: String,
}

pub(super) fn explain(policy: &Policy, question: &Question<'_>) -> Explanation {
    let Question {
        principal,
        authority,
        groups,
        flow,
        now,
        ..
    } = question;
    let named = policy.named(principal, authority, groups);
    let access = policy.access_of(principal, authority, groups, *now);
    let mut explanation = Explanation {
        principal: principal.to_string(),
        flow: describe(flow),
        time: policy.clock.show(*now),
        groups: origins(policy, &named),
        fixed_addresses: shown(policy.fixed.get(*principal)),
        maximum: policy
            .limit(principal, authority, &named)
            .map(|limit| Maximum {
                seconds: limit.maximum.seconds(),
                text: limit.maximum.to_string(),
                place: format!("{}:{}", policy.file, limit.line),
            }),
        ..Explanation::default()
    };
    let mut deciding = None;
    match &access {
        Err(refusal) => explanation.reason = refused(refusal),
        Ok(access) => {
            let decision = access.filter.decide(flow);
            let (allowed, id) = match decision {
                Decision::Allow(id) => (true, Some(id)),
                Decision::Deny(id) => (false, id),
            };
            deciding = id.and_then(|id| access.filter.rule(id)).map(|rule| &**rule);
            explanation.allowed = allowed;
            explanation.reason = match deciding {
                Some(rule) => format!(
                    "{} {} it",
                    rule.name(),
                    if allowed { "allows" } else { "denies" }
                ),
                None => "no rule allows it".to_owned(),
            };
            explanation.rule = deciding.map(RuleText::of);
            explanation.overruled = access.filter.overruled(flow).map(RuleText::of);
            let routes = access.filter.routes().iter();
            let mut routes = routes.filter(|route| route.contains(flow.inside));
            explanation.route = routes.next().map(ToString::to_string);
        }
    }
    if !explanation.allowed && deciding.is_none() {
        explanation.misses = misses::nearest(policy, question, &named);
    }
    explanation.upcoming = upcoming(policy, question, &named, deciding);
    explanation
}

impl RuleText {
    pub(crate) fn of(rule: &Rule) -> Self {
        Self {
            name: rule.name(),
            place: rule.place(),
            text: rule.to_string(),
        }
    }
}

/// "allow at policy.toml:12: allow …", "databases (policy.toml:12): allow …".
impl fmt::Display for RuleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.ends_with(&self.place) {
            write!(f, "{}: {}", self.name, self.text)
        } else {
            write!(f, "{} ({}): {}", self.name, self.place, self.text)
        }
    }
}

/// "to 10.0.0.1 on tcp/443".
fn describe(flow: &Flow) -> String {
    let preposition = match flow.direction {
        Direction::FromClient => "to",
        Direction::ToClient => "from",
    };
    let service = services::describe(flow.protocol, flow.port);
    format!("{preposition} {} on {service}", flow.inside)
}

fn refused(refusal: &Refusal) -> String {
    format!("there is no session: {refusal}")
}

fn origins(policy: &Policy, named: &Named) -> Vec<GroupOrigin> {
    let origins = named.groups.iter().map(|(name, origin)| {
        let (from, through) = match origin {
            Origin::Certificate => ("certificate".to_owned(), None),
            Origin::Line(line, through) => (
                format!("{}:{line}", policy.file),
                through.as_ref().map(ToString::to_string),
            ),
        };
        GroupOrigin {
            name: name.to_string(),
            from,
            through,
        }
    });
    origins.collect()
}

fn shown(addresses: Option<&Vec<IpAddr>>) -> Vec<String> {
    let addresses = addresses.into_iter().flatten();
    addresses.map(ToString::to_string).collect()
}

fn upcoming(
    policy: &Policy,
    question: &Question<'_>,
    named: &Named,
    deciding: Option<&Rule>,
) -> Vec<Upcoming> {
    let mut found: Vec<(i64, String)> = Vec::new();
    if let Some(at) = policy.counting(&named.rules, question.now).changes_at {
        let mut change = flips(policy, named, question.now, at);
        change.insert_str(0, "what this identity may do changes: ");
        found.push((at, change));
    }
    if let Some(rule) = deciding
        && let Some(schedule) = &rule.schedule
        && let Some(until) = schedule.until
    {
        found.push((until, format!("{} ends for good", rule.name())));
    }
    if let Some(not_after) = question.not_after {
        found.push((not_after, "the certificate expires".to_owned()));
    }
    found.sort();
    let found = found.into_iter().map(|(at, what)| Upcoming {
        at,
        time: policy.clock.show(at),
        what,
    });
    found.collect()
}

/// Which rules begin and cease to count at `at`: a few by name.
fn flips(policy: &Policy, named: &Named, now: i64, at: i64) -> String {
    let (before, after) = (
        policy.counting(&named.rules, now).rules,
        policy.counting(&named.rules, at).rules,
    );
    let only = |these: &[u32], those: &[u32], verb: &str| {
        let missing = these
            .iter()
            .filter(|&rule| those.binary_search(rule).is_err());
        let rules: Vec<u32> = missing.copied().collect();
        let mut words: Vec<String> = rules
            .iter()
            .take(MAX_NAMED)
            .map(|&rule| format!("{} {verb}", policy.rule(rule).name()))
            .collect();
        if rules.len() > MAX_NAMED {
            words.push(format!("{} more {verb}", rules.len() - MAX_NAMED));
        }
        words
    };
    let mut words = only(&after, &before, "begins to count");
    words.extend(only(&before, &after, "ceases to count"));
    words.join(", ")
}

/// Rules that a sentence names.
const MAX_NAMED: usize = 3;
