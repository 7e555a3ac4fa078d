//! `[[test]]`: what an operator expects of the policy.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::rules::directions;
use super::source::Source;
use crate::config::ConfigError;
use crate::policy::assertion::Assertion;
use crate::policy::clock::Clock;
use crate::policy::rule::{Directions, Rule};
use crate::policy::{Action, Direction, Flow};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTest {
    who: Spanned<String>,
    #[serde(default)]
    groups: Vec<String>,
    authority: Option<String>,
    to: Spanned<IpAddr>,
    port: Spanned<String>,
    direction: Option<Spanned<String>>,
    at: Option<Spanned<Datetime>>,
    expect: Spanned<String>,
    rule: Option<Spanned<String>>,
}

pub(super) fn parse(
    source: &Source<'_>,
    clock: &Clock,
    rules: &[Arc<Rule>],
    raw: Vec<Spanned<RawTest>>,
) -> Result<Vec<Assertion>, ConfigError> {
    // Only when a test names a rule.
    let names: std::cell::OnceCell<std::collections::BTreeSet<String>> = std::cell::OnceCell::new();
    let mut tests = Vec::new();
    for test in raw {
        let line = source.line(&test.span());
        let test = test.into_inner();
        let expect = match test.expect.get_ref().as_str() {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            other => {
                let message = format!("{other:?} is no answer");
                let error = source.error(test.expect.span(), "test.expect", message);
                return Err(error.with_hint("\"allow\" or \"deny\""));
            }
        };
        let rule = match test.rule {
            None => None,
            Some(rule) => {
                let names = names.get_or_init(|| rules.iter().map(|rule| rule.name()).collect());
                if !names.contains(rule.get_ref()) {
                    let message = format!("there is no rule {:?}", rule.get_ref());
                    let error = source.error(rule.span(), "test.rule", message);
                    return Err(error.with_hint("give the rule that must decide a name"));
                }
                Some(rule.into_inner())
            }
        };
        let inside = *test.to.get_ref();
        let direction = direction(source, test.direction.as_ref())?;
        let flow =
            Flow::parse(direction, inside, test.port.get_ref()).map_err(|(message, hint)| {
                let error = source.error(test.port.span(), "test.port", message);
                error.with_hint(hint)
            })?;
        tests.push(Assertion {
            line,
            principal: source.principal(&test.who, "test.who")?,
            groups: test.groups,
            authority: test.authority.unwrap_or_default(),
            flow,
            at: match &test.at {
                None => None,
                Some(at) => Some(moment(source, clock, at)?),
            },
            expect,
            rule,
        });
    }
    Ok(tests)
}

fn direction(
    source: &Source<'_>,
    direction: Option<&Spanned<String>>,
) -> Result<Direction, ConfigError> {
    match (directions(source, direction, "test.direction")?, direction) {
        (Directions::Out, _) => Ok(Direction::FromClient),
        (Directions::In, _) => Ok(Direction::ToClient),
        (Directions::Both, written) => {
            let span = written.map_or(0..0, Spanned::span);
            let error = source.error(span, "test.direction", "a flow has one direction");
            Err(error.with_hint("write a test for \"out\" and one for \"in\""))
        }
    }
}

fn moment(source: &Source<'_>, clock: &Clock, at: &Spanned<Datetime>) -> Result<i64, ConfigError> {
    clock.second(at.get_ref()).map_err(|(message, hint)| {
        let error = source.error(at.span(), "test.at", message);
        error.with_hint(hint)
    })
}
