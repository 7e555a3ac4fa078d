//! Runs the `[[test]]`s of a policy.

use std::collections::VecDeque;
use std::sync::Arc;

use super::filter::Filter;
use super::services;
use super::{Action, Decision, Direction, Flow, Policy};
use crate::config::ConfigError;
use crate::identity::Principal;

/// One `[[test]]`.
#[derive(Debug)]
pub(super) struct Assertion {
    pub(super) line: u32,
    pub(super) principal: Principal,
    /// Those of its certificate.
    pub(super) groups: Vec<String>,
    pub(super) authority: String,
    pub(super) flow: Flow,
    /// When; `None` is whenever the test is run.
    pub(super) at: Option<i64>,
    pub(super) expect: Action,
    /// The rule that must decide.
    pub(super) rule: Option<String>,
}

/// The tests that fail at `now`, in the order of the file.
pub(super) fn failed(policy: &Policy, now: i64) -> Vec<ConfigError> {
    // Tests of the same identity mostly follow one another; those kept are not compiled again.
    let mut recent: VecDeque<Arc<Filter>> = VecDeque::new();
    let mut failed = Vec::new();
    for test in &policy.tests {
        let at = test.at.unwrap_or(now);
        let access = policy.access_of(&test.principal, &test.authority, &test.groups, at);
        let (action, rule, said) = match &access {
            Err(refusal) => (Action::Deny, None, format!("denied: {refusal}")),
            Ok(access) => decided(&access.filter, &test.flow),
        };
        if let Ok(access) = access {
            recent.push_back(access.filter);
            if recent.len() > KEPT {
                recent.pop_front();
            }
        }
        let by_another = test.rule.is_some() && test.rule != rule;
        if action == test.expect && !by_another {
            continue;
        }
        let by = match &test.rule {
            Some(rule) => format!(" by {rule:?}"),
            None => String::new(),
        };
        let expected = match test.expect {
            Action::Allow => "allowed",
            Action::Deny => "denied",
        };
        let message = format!(
            "{} should be {expected}{by}, and is {said}",
            describe(policy, test, at)
        );
        failed.push(
            ConfigError::on_line(&policy.file, test.line as usize, "test", message)
                .with_hint("change the rules, or what the test expects"),
        );
    }
    failed
}

/// What a filter says, by which rule, and both in words.
fn decided(filter: &Filter, flow: &Flow) -> (Action, Option<String>, String) {
    let (action, rule) = match filter.decide(flow) {
        Decision::Allow(rule) => (Action::Allow, Some(rule)),
        Decision::Deny(rule) => (Action::Deny, rule),
    };
    match rule.and_then(|rule| filter.rule(rule)) {
        None => (action, None, "denied: no rule allows it".to_owned()),
        Some(rule) => {
            let verb = match action {
                Action::Allow => "allowed",
                Action::Deny => "denied",
            };
            let said = format!("{verb} by {:?} ({})", rule.name(), rule.place());
            (action, Some(rule.name()), said)
        }
    }
}

/// "alice@example.com to 10.0.0.1 on tcp/443, Mon 2026-11-23 08:00 UTC".
fn describe(policy: &Policy, test: &Assertion, at: i64) -> String {
    let preposition = match test.flow.direction {
        Direction::FromClient => "to",
        Direction::ToClient => "from",
    };
    let time = match test.at {
        Some(_) => format!(", {}", policy.clock.show(at)),
        None => String::new(),
    };
    format!(
        "{} {preposition} {} on {}{time}",
        test.principal,
        test.flow.inside,
        services::describe(test.flow.protocol, test.flow.port)
    )
}

/// Enough for the identities that a file's author has in mind at one time.
const KEPT: usize = 64;
