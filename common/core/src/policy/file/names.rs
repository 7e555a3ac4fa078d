//! `[networks]` and `[groups]`: names for prefixes and for principals, which may nest.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;

use super::source::Source;
use crate::config::{ConfigError, Warning};
use crate::policy::groups::Groups;
use crate::policy::nesting::{cycle, index};
use crate::policy::networks::{Network, Networks};
use crate::policy::rule::{Destination, Rule};

/// A table of lists, as both sections are.
pub(super) type Lists = BTreeMap<Spanned<String>, Spanned<Vec<Spanned<String>>>>;

pub(super) fn networks(source: &Source<'_>, raw: &Lists) -> Result<Networks, ConfigError> {
    let mut networks = Networks::default();
    for (n, (name, _)) in raw.iter().enumerate() {
        let name: Arc<str> = source.name(name.get_ref(), name.span(), "networks")?.into();
        networks.by_name.insert(name, index(n));
    }
    for (name, entries) in raw {
        let mut network = Network {
            name: name.get_ref().as_str().into(),
            prefixes: Vec::new(),
            nested: Vec::new(),
        };
        for entry in source.filled(entries, "networks")? {
            match destination(source, &networks, entry, "networks")? {
                Destination::Prefix(prefix) => network.prefixes.push(prefix),
                Destination::Network(_, nested) => network.nested.push(nested),
            }
        }
        networks.list.push(network);
    }
    let nested: Vec<Vec<u32>> = networks.list.iter().map(|one| one.nested.clone()).collect();
    if let Some(chain) = cycle(&nested) {
        let names = chain.iter().map(|&n| &*networks.list[n as usize].name);
        return Err(cycle_error(
            source,
            raw,
            "networks",
            &names.collect::<Vec<_>>(),
        ));
    }
    Ok(networks)
}

/// A prefix or "net:NAME".
pub(super) fn destination(
    source: &Source<'_>,
    networks: &Networks,
    entry: &Spanned<String>,
    key: &str,
) -> Result<Destination, ConfigError> {
    let Some(name) = entry.get_ref().strip_prefix("net:") else {
        return source.prefix_of(entry, key).map(Destination::Prefix);
    };
    match networks.by_name.get_key_value(name) {
        Some((name, number)) => Ok(Destination::Network(Arc::clone(name), *number)),
        None => Err(source
            .error(entry.span(), key, format!("there is no network {name:?}"))
            .with_hint("name it in [networks]")),
    }
}

pub(super) fn groups(source: &Source<'_>, raw: &Lists) -> Result<Groups, ConfigError> {
    let mut groups = Groups::default();
    // Other groups that are in each.
    let mut inner: Vec<Vec<u32>> = Vec::new();
    for (name, members) in raw {
        let group = groups.intern(source.name(name.get_ref(), name.span(), "groups")?);
        for member in members.get_ref() {
            let line = source.line(&member.span());
            if let Some(nested) = member.get_ref().strip_prefix("group:") {
                let nested = groups.intern(source.name(nested, member.span(), "groups")?);
                inner.resize(groups.names.len(), Vec::new());
                inner[group as usize].push(nested);
                groups.of_group[nested as usize].push((group, line));
            } else {
                let principal = source.principal(member, "groups")?;
                groups
                    .of_principal
                    .entry(principal)
                    .or_default()
                    .push((group, line));
            }
        }
    }
    inner.resize(groups.names.len(), Vec::new());
    if let Some(chain) = cycle(&inner) {
        let names = chain.iter().map(|&n| &*groups.names[n as usize]);
        return Err(cycle_error(
            source,
            raw,
            "groups",
            &names.collect::<Vec<_>>(),
        ));
    }
    Ok(groups)
}

/// Warns of names of the file that nothing uses, directly or through others; `used_groups` are those that are used
/// directly.
pub(super) fn warn_unused<'a>(
    source: &Source<'_>,
    (raw_networks, networks): (&Lists, &Networks),
    (raw_groups, groups): (&Lists, &Groups),
    rules: &[Arc<Rule>],
    used_groups: impl Iterator<Item = &'a str>,
    warnings: &mut Vec<Warning>,
) {
    let named = rules.iter().flat_map(|rule| &rule.to);
    let named = named.filter_map(|to| match to {
        Destination::Prefix(_) => None,
        Destination::Network(_, number) => Some(*number),
    });
    let used = reached(networks.list.len(), named, |one, open| {
        open.extend(&networks.list[one as usize].nested);
    });
    warn(
        source,
        raw_networks,
        "network",
        "networks",
        |name| {
            networks
                .by_name
                .get(name)
                .is_some_and(|&one| used[one as usize])
        },
        warnings,
    );
    let mut inner: Vec<Vec<u32>> = vec![Vec::new(); groups.names.len()];
    for (number, outer) in groups.of_group.iter().enumerate() {
        for (group, _) in outer {
            inner[*group as usize].push(index(number));
        }
    }
    let named = used_groups.filter_map(|name| groups.by_name.get(name).copied());
    let used = reached(groups.names.len(), named, |one, open| {
        open.extend(&inner[one as usize]);
    });
    warn(
        source,
        raw_groups,
        "group",
        "groups",
        |name| {
            groups
                .by_name
                .get(name)
                .is_some_and(|&one| used[one as usize])
        },
        warnings,
    );
}

fn reached(
    count: usize,
    first: impl Iterator<Item = u32>,
    next: impl Fn(u32, &mut Vec<u32>),
) -> Vec<bool> {
    let mut reached = vec![false; count];
    let mut open: Vec<u32> = first.collect();
    while let Some(one) = open.pop() {
        if !std::mem::replace(&mut reached[one as usize], true) {
            next(one, &mut open);
        }
    }
    reached
}

fn warn(
    source: &Source<'_>,
    raw: &Lists,
    noun: &str,
    key: &str,
    is_used: impl Fn(&str) -> bool,
    warnings: &mut Vec<Warning>,
) {
    for name in raw.keys().filter(|name| !is_used(name.get_ref())) {
        let message = format!("no rule uses the {noun} {:?}", name.get_ref());
        warnings.push(source.warning(name.span(), key, message));
    }
}

fn cycle_error(source: &Source<'_>, raw: &Lists, key: &str, names: &[&str]) -> ConfigError {
    let first = names.first().copied().unwrap_or_default();
    let span: Range<usize> = raw
        .keys()
        .find(|name| name.get_ref() == first)
        .map_or(0..0, Spanned::span);
    let chain = match names {
        [begin @ .., _, last] if begin.len() > MAX_NAMED => {
            let left_out = begin.len() + 1 - MAX_NAMED;
            let begin = begin[..MAX_NAMED].join(" -> ");
            format!("{begin} -> {left_out} more -> {last}")
        }
        _ => names.join(" -> "),
    };
    let message = format!("{first:?} contains itself: {chain}");
    source
        .error(span, key, message)
        .with_hint("take one of these names out of the list of the one before it")
}

/// Names of a circle that an error tells.
const MAX_NAMED: usize = 8;
