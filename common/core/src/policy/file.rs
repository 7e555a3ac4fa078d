//! `policy.toml`: what the operator wrote, checked completely before any of it counts.

use serde::Deserialize;
use toml::Spanned;

use self::addresses::{Addresses, RawPool, RawPrincipal, RawSite};
use self::assertions::RawTest;
use self::names::Lists;
use self::rules::{RawRule, Reader};
use self::sessions::RawSession;
use self::source::Source;
use super::Policy;
use super::clock::Clock;
use super::limit::Limits;
use super::naming::Naming;
use super::shadow;
use super::shared::SharedFilters;
use crate::config::ConfigError;

mod addresses;
mod assertions;
mod names;
mod rules;
mod sessions;
mod source;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    timezone: Option<Spanned<String>>,
    pool: Option<RawPool>,
    #[serde(default)]
    networks: Lists,
    #[serde(default)]
    groups: Lists,
    #[serde(default)]
    allow: Vec<Spanned<RawRule>>,
    #[serde(default)]
    deny: Vec<Spanned<RawRule>>,
    #[serde(default)]
    principal: Vec<RawPrincipal>,
    #[serde(default)]
    site: Vec<RawSite>,
    #[serde(default)]
    session: Vec<Spanned<RawSession>>,
    #[serde(default)]
    test: Vec<Spanned<RawTest>>,
}

pub(super) fn parse(text: &str, file: &str) -> Result<Policy, ConfigError> {
    let source = Source::new(file, text);
    let raw: Raw = toml::from_str(text).map_err(|error| source.syntax(&error))?;
    let clock = clock(&source, raw.timezone.as_ref())?;
    let addresses = Addresses::parse(&source, raw.pool, raw.principal, raw.site)?;
    let networks = names::networks(&source, &raw.networks)?;
    let groups = names::groups(&source, &raw.groups)?;
    let rules = Reader::new(&source, &networks, &clock).rules(raw.allow, raw.deny)?;
    let tests = assertions::parse(&source, &clock, &rules, raw.test)?;
    let naming = Naming::of(rules.iter().map(|rule| &rule.who[..]));
    let limits = Limits::new(sessions::parse(&source, raw.session)?);
    let mut warnings = Vec::new();
    let (named_networks, named_groups) = ((&raw.networks, &networks), (&raw.groups, &groups));
    names::warn_unused(
        &source,
        named_networks,
        named_groups,
        &rules,
        naming.groups().chain(limits.groups()),
        &mut warnings,
    );
    addresses.warn_unreachable(&source, &naming, &mut warnings);
    warnings.extend(shadow::warnings(&rules, &networks, &groups));
    let pools = addresses.pools;
    let (sites, fixed) = addresses.into_owned();
    Ok(Policy {
        file: file.into(),
        clock,
        pools,
        networks,
        groups,
        rules,
        naming,
        limits,
        fixed,
        sites,
        tests,
        warnings,
        filters: SharedFilters::default(),
    })
}

fn clock(source: &Source<'_>, zone: Option<&Spanned<String>>) -> Result<Clock, ConfigError> {
    let Some(zone) = zone else {
        return Ok(Clock::default());
    };
    Clock::of(zone.get_ref()).ok_or_else(|| {
        let message = format!("there is no time zone {:?}", zone.get_ref());
        let error = source.error(zone.span(), "timezone", message);
        error.with_hint("write a name of the IANA database, such as \"Europe/Berlin\" or \"UTC\"")
    })
}

#[cfg(test)]
mod tests;
