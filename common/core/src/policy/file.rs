//! `policy.toml`: what the operator wrote, checked completely before any of it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Mutex;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use toml::Spanned;

use super::{Policy, Rule, RuleId, Who};
use crate::config::{ConfigError, Warning, line_of};
use crate::identity::Principal;
use crate::table::leases::Pools;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    pool: Option<RawPool>,
    #[serde(default)]
    groups: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    #[serde(default)]
    allow: Vec<Spanned<RawAllow>>,
    #[serde(default)]
    principal: Vec<RawPrincipal>,
    #[serde(default)]
    site: Vec<RawSite>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPool {
    v4: Option<Spanned<Ipv4Net>>,
    v6: Option<Spanned<Ipv6Net>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAllow {
    who: Spanned<Vec<Spanned<String>>>,
    to: Spanned<Vec<Spanned<IpNet>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrincipal {
    name: Spanned<String>,
    addresses: Vec<Spanned<IpAddr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSite {
    principal: Spanned<String>,
    networks: Spanned<Vec<Spanned<IpNet>>>,
}

/// The text with its name, for messages.
struct Source<'a> {
    text: &'a str,
    file: &'a str,
}

pub(super) fn parse(text: &str, file: &str) -> Result<Policy, ConfigError> {
    let raw: Raw =
        toml::from_str(text).map_err(|error| ConfigError::from_toml(file, text, &error))?;
    let source = Source { text, file };
    let mut warnings = Vec::new();
    let pools = pools(&source, raw.pool)?;
    let sites = sites(&source, pools, raw.site)?;
    let fixed = fixed(&source, pools, &sites, raw.principal)?;
    let rules = rules(&source, raw.allow, &mut warnings)?;
    let groups = groups(&source, raw.groups, &rules, &mut warnings)?;
    warn_unreachable(&source, &rules, &fixed, &sites, &mut warnings);
    Ok(Policy {
        pools,
        groups,
        rules,
        fixed,
        sites: sites
            .into_iter()
            .map(|(principal, networks)| {
                (
                    principal,
                    networks.into_iter().map(|(net, _)| net).collect(),
                )
            })
            .collect(),
        warnings,
        filters: Mutex::default(),
    })
}

impl Source<'_> {
    fn error(&self, span: Range<usize>, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::at(self.file, self.text, span.start, key, message)
    }

    fn warning(&self, span: Range<usize>, key: &str, message: impl Into<String>) -> Warning {
        Warning::at(self.file, self.text, span.start, key, message)
    }

    fn principal(&self, name: &Spanned<String>, key: &str) -> Result<Principal, ConfigError> {
        Principal::parse(name.get_ref())
            .map_err(|error| self.error(name.span(), key, error.to_string()))
    }

    /// A prefix whose host bits are zero: anything else is a typing error or a misunderstanding.
    fn prefix(&self, prefix: &Spanned<IpNet>, key: &str) -> Result<IpNet, ConfigError> {
        let given = *prefix.get_ref();
        if given == given.trunc() {
            Ok(given)
        } else {
            Err(self
                .error(prefix.span(), key, format!("{given} has host bits set"))
                .with_hint(format!("the network is {}", given.trunc())))
        }
    }
}

fn pools(source: &Source<'_>, raw: Option<RawPool>) -> Result<Pools, ConfigError> {
    let Some(raw) = raw else {
        return Ok(Pools::default());
    };
    let checked =
        |net: IpNet, span: Range<usize>, key: &str| source.prefix(&Spanned::new(span, net), key);
    if let Some(v4) = &raw.v4 {
        checked(IpNet::V4(*v4.get_ref()), v4.span(), "pool.v4")?;
    }
    if let Some(v6) = &raw.v6 {
        checked(IpNet::V6(*v6.get_ref()), v6.span(), "pool.v6")?;
    }
    Ok(Pools {
        v4: raw.v4.map(Spanned::into_inner),
        v6: raw.v6.map(Spanned::into_inner),
    })
}

type Sites = BTreeMap<Principal, Vec<(IpNet, Range<usize>)>>;

fn sites(source: &Source<'_>, pools: Pools, raw: Vec<RawSite>) -> Result<Sites, ConfigError> {
    let pools: Vec<IpNet> = pools
        .v4
        .map(IpNet::V4)
        .into_iter()
        .chain(pools.v6.map(IpNet::V6))
        .collect();
    let mut sites = Sites::new();
    let mut owners: BTreeMap<IpNet, Principal> = BTreeMap::new();
    for site in raw {
        let principal = source.principal(&site.principal, "site.principal")?;
        if sites.contains_key(&principal) {
            let message = format!("a second site of {principal}");
            return Err(source
                .error(site.principal.span(), "site.principal", message)
                .with_hint("put all networks into one [[site]]"));
        }
        if site.networks.get_ref().is_empty() {
            return Err(source.error(site.networks.span(), "site.networks", "no network"));
        }
        let mut networks = Vec::new();
        for network in site.networks.get_ref() {
            let prefix = source.prefix(network, "site.networks")?;
            let error = |message: String| source.error(network.span(), "site.networks", message);
            if let Some(owner) = owners.get(&prefix) {
                return Err(error(format!("{prefix} belongs to {owner} already")));
            }
            if let Some(pool) = pools
                .iter()
                .find(|pool| pool.contains(&prefix) || prefix.contains(*pool))
            {
                return Err(error(format!("{prefix} overlaps the pool {pool}")));
            }
            owners.insert(prefix, principal.clone());
            networks.push((prefix, network.span()));
        }
        sites.insert(principal, networks);
    }
    Ok(sites)
}

fn fixed(
    source: &Source<'_>,
    pools: Pools,
    sites: &Sites,
    raw: Vec<RawPrincipal>,
) -> Result<BTreeMap<Principal, Vec<IpAddr>>, ConfigError> {
    let mut fixed: BTreeMap<Principal, Vec<IpAddr>> = BTreeMap::new();
    let mut owners: BTreeMap<IpAddr, Principal> = BTreeMap::new();
    for entry in raw {
        let principal = source.principal(&entry.name, "principal.name")?;
        if fixed.contains_key(&principal) {
            let message = format!("a second entry for {principal}");
            return Err(source.error(entry.name.span(), "principal.name", message));
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in &entry.addresses {
            let ip = *address.get_ref();
            let error =
                |message: String| source.error(address.span(), "principal.addresses", message);
            if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
                return Err(error(format!("{ip} cannot be the address of a client")));
            }
            if is_reserved(pools, ip) {
                return Err(error(format!("{ip} is no host address of its pool")));
            }
            // A single address can be somebody's network; the exact prefix has one owner.
            let host = IpNet::from(ip);
            let site = sites.iter().find(|(owner, networks)| {
                **owner != principal && networks.iter().any(|(network, _)| *network == host)
            });
            if let Some((owner, _)) = site {
                return Err(error(format!("{ip} belongs to the site {owner} already")));
            }
            if let Some(owner) = owners.get(&ip) {
                return Err(error(format!("{ip} belongs to {owner} already")));
            }
            if addresses
                .iter()
                .any(|known| known.is_ipv4() == ip.is_ipv4())
            {
                return Err(error(format!("{ip} is the second address of its family")));
            }
            owners.insert(ip, principal.clone());
            addresses.push(ip);
        }
        fixed.insert(principal, addresses);
    }
    Ok(fixed)
}

/// The addresses of a pool that no host may have: network and broadcast of IPv4, and the
/// subnet-router anycast address of IPv6 (RFC 4291 §2.6.1). Pairs and single addresses have none.
fn is_reserved(pools: Pools, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => pools.v4.is_some_and(|pool| {
            pool.prefix_len() < 31 && (ip == pool.network() || ip == pool.broadcast())
        }),
        IpAddr::V6(ip) => pools
            .v6
            .is_some_and(|pool| pool.prefix_len() < 127 && ip == pool.network()),
    }
}

fn rules(
    source: &Source<'_>,
    raw: Vec<Spanned<RawAllow>>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Rule>, ConfigError> {
    let mut rules = Vec::new();
    for (index, allow) in raw.into_iter().enumerate() {
        let line = line_of(source.text, allow.span().start);
        let allow = allow.into_inner();
        if allow.who.get_ref().is_empty() {
            warnings.push(source.warning(allow.who.span(), "allow.who", "the rule names nobody"));
        }
        if allow.to.get_ref().is_empty() {
            warnings.push(source.warning(allow.to.span(), "allow.to", "the rule allows nothing"));
        }
        let mut who = Vec::new();
        for entry in allow.who.get_ref() {
            who.push(match entry.get_ref().as_str() {
                "*" => Who::Everybody,
                text => match text.strip_prefix("group:") {
                    Some(group) if !group.is_empty() => Who::Group(group.to_owned()),
                    Some(_) => {
                        return Err(source.error(
                            entry.span(),
                            "allow.who",
                            "a group without name",
                        ));
                    }
                    None => Who::Principal(source.principal(entry, "allow.who")?),
                },
            });
        }
        let mut to = Vec::new();
        for prefix in allow.to.get_ref() {
            to.push(source.prefix(prefix, "allow.to")?);
        }
        rules.push(Rule {
            id: RuleId {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                line: u32::try_from(line).unwrap_or(u32::MAX),
            },
            who,
            to,
        });
    }
    Ok(rules)
}

fn groups(
    source: &Source<'_>,
    raw: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    rules: &[Rule],
    warnings: &mut Vec<Warning>,
) -> Result<BTreeMap<Principal, BTreeSet<String>>, ConfigError> {
    let used: BTreeSet<&str> = rules
        .iter()
        .flat_map(|rule| &rule.who)
        .filter_map(|who| match who {
            Who::Group(group) => Some(group.as_str()),
            Who::Everybody | Who::Principal(_) => None,
        })
        .collect();
    let mut groups: BTreeMap<Principal, BTreeSet<String>> = BTreeMap::new();
    for (name, members) in raw {
        if !used.contains(name.get_ref().as_str()) {
            let message = format!("no rule uses the group {:?}", name.get_ref());
            warnings.push(source.warning(name.span(), "groups", message));
        }
        for member in &members {
            let principal = source.principal(member, "groups")?;
            groups
                .entry(principal)
                .or_default()
                .insert(name.get_ref().clone());
        }
    }
    Ok(groups)
}

/// Warns of addresses and sites of principals that only a group or nobody could let in.
fn warn_unreachable(
    source: &Source<'_>,
    rules: &[Rule],
    fixed: &BTreeMap<Principal, Vec<IpAddr>>,
    sites: &Sites,
    warnings: &mut Vec<Warning>,
) {
    // A certificate may bring any group, so only a policy without group rules is conclusive.
    let open = rules
        .iter()
        .flat_map(|rule| &rule.who)
        .any(|who| !matches!(who, Who::Principal(_)));
    if open {
        return;
    }
    let named = |principal: &Principal| {
        rules
            .iter()
            .any(|rule| rule.who.contains(&Who::Principal(principal.clone())))
    };
    for (principal, networks) in sites {
        if !named(principal)
            && let Some((_, span)) = networks.first()
        {
            let message = format!("no rule lets {principal} in");
            warnings.push(source.warning(span.clone(), "site", message));
        }
    }
    for principal in fixed.keys() {
        if !named(principal) {
            let message = format!("no rule lets {principal} in");
            warnings.push(source.warning(0..0, "principal", message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "p.toml").unwrap_err().to_string()
    }

    #[test]
    fn the_annotated_example_is_valid_and_raises_no_warning() {
        let text = include_str!("../../../../config/policy.toml");
        let policy = parse(text, "policy.toml").unwrap();
        assert_eq!(policy.warnings, []);
    }

    #[test]
    fn every_error_has_its_line() {
        for (text, expected) in [
            (
                "[pool]\nv4 = \"10.0.0.1/24\"",
                "p.toml:2: pool.v4: 10.0.0.1/24 has host bits set",
            ),
            ("[pool]\nv5 = 1", "p.toml:2: unknown field `v5`"),
            (
                "\n[[allow]]\nwho = [\"a@b\"]\nto = [\"10.0.0.0/33\"]",
                "p.toml:4: ",
            ),
            (
                "[[allow]]\nwho = [\"a@\"]\nto = []",
                "p.toml:2: allow.who: mail address",
            ),
            (
                "[[allow]]\nwho = [\"group:\"]\nto = []",
                "p.toml:2: allow.who: a group without name",
            ),
            (
                "[[principal]]\nname = \"a@b.c\"\naddresses = [\"10.0.0.1\"]\n\
                 [[principal]]\nname = \"d@e.f\"\naddresses = [\"10.0.0.1\"]",
                "p.toml:6: principal.addresses: 10.0.0.1 belongs to a@b.c already",
            ),
            (
                "[[site]]\nprincipal = \"a.b\"\nnetworks = [\"10.1.0.0/16\"]\n\
                 [[site]]\nprincipal = \"c.d\"\nnetworks = [\"10.1.0.0/16\"]",
                "p.toml:6: site.networks: 10.1.0.0/16 belongs to a.b already",
            ),
            (
                "[pool]\nv4 = \"10.1.0.0/24\"\n[[site]]\nprincipal = \"a.b\"\nnetworks = [\"10.0.0.0/8\"]",
                "p.toml:5: site.networks: 10.0.0.0/8 overlaps the pool 10.1.0.0/24",
            ),
            (
                "[pool]\nv4 = \"10.1.0.0/24\"\n[[principal]]\nname = \"a.b\"\naddresses = [\"10.1.0.255\"]",
                "p.toml:5: principal.addresses: 10.1.0.255 is no host address of its pool",
            ),
            (
                "[[site]]\nprincipal = \"a.b\"\nnetworks = [\"10.2.0.9/32\"]\n\
                 [[principal]]\nname = \"c.d\"\naddresses = [\"10.2.0.9\"]",
                "p.toml:6: principal.addresses: 10.2.0.9 belongs to the site a.b already",
            ),
        ] {
            let message = error(text);
            assert!(
                message.starts_with(expected),
                "{message}\nexpected {expected}"
            );
        }
    }

    #[test]
    fn a_group_that_no_rule_uses_is_a_warning() {
        let policy = parse("[groups]\neng = [\"a@b.c\"]", "p.toml").unwrap();
        assert_eq!(policy.warnings.len(), 1);
    }
}
