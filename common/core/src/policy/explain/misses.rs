//! Rules that nearly allow a flow: what an operator would change.

use std::sync::Arc;

use super::{Miss, Question, RuleText};
use crate::policy::rule::{Action, Directions, Rule, Who};
use crate::policy::{Named, Policy, services};

/// The rules with the fewest reasons not to allow the flow, at most [`MAX_MISSES`]. All of them
/// name its address, or else it would be any rule of the file.
pub(super) fn nearest(policy: &Policy, question: &Question<'_>, named: &Named) -> Vec<Miss> {
    let inside = question.flow.inside;
    let mut near: Vec<(usize, u32)> = Vec::new();
    for (n, rule) in (0..).zip(&policy.rules) {
        if rule.action == Action::Allow && policy.networks.contain(&rule.to, inside) {
            near.push((because(policy, question, named, n, rule).len(), n));
        }
    }
    near.sort_unstable();
    let near = near.into_iter().take(MAX_MISSES).map(|(_, n)| {
        let rule = policy.rule(n);
        Miss {
            rule: RuleText::of(rule),
            because: because(policy, question, named, n, rule),
        }
    });
    near.collect()
}

/// Everything of a rule that does not fit; what can be had without a new rule stands first.
fn because(
    policy: &Policy,
    question: &Question<'_>,
    named: &Named,
    number: u32,
    rule: &Arc<Rule>,
) -> Vec<String> {
    let flow = &question.flow;
    let mut because = Vec::new();
    if let Some(schedule) = &rule.schedule
        && !schedule.is_active(question.now, &policy.clock)
    {
        because.push(match schedule.next_change(question.now, &policy.clock) {
            Some(at) => format!("counts again from {} ({schedule})", policy.clock.show(at)),
            None => format!("has ended ({schedule})"),
        });
    }
    if named.rules.binary_search(&number).is_err() {
        let who: Vec<String> = rule
            .who
            .iter()
            .take(MAX_NAMED)
            .map(Who::to_string)
            .collect();
        let more = match rule.who.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let who = who.join(", ");
        because.push(format!("names {who}{more}, and not {}", question.principal));
    }
    if !rule
        .services
        .contain(services::key(flow.protocol, flow.port))
    {
        let asked = services::describe(flow.protocol, flow.port);
        because.push(format!("allows{}, and not {asked}", rule.services));
    }
    if !rule.directions.contain(flow.direction) {
        because.push(match rule.directions {
            Directions::In => "is for flows that start inside".to_owned(),
            Directions::Out | Directions::Both => "is for flows that the client starts".to_owned(),
        });
    }
    because
}

/// A handful.
const MAX_MISSES: usize = 5;
/// Entries of `who` that a sentence names.
const MAX_NAMED: usize = 3;
