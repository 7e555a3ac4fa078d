//! `[pool]`, `[[principal]]` and `[[site]]`: which addresses belong to whom.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use toml::Spanned;

use super::source::Source;
use crate::config::{ConfigError, Warning};
use crate::identity::Principal;
use crate::policy::naming::Naming;
use crate::table::leases::Pools;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPool {
    v4: Option<Spanned<Ipv4Net>>,
    v6: Option<Spanned<Ipv6Net>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrincipal {
    name: Spanned<String>,
    addresses: Vec<Spanned<IpAddr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSite {
    principal: Spanned<String>,
    networks: Spanned<Vec<Spanned<IpNet>>>,
}

/// Owners with what they own and where that is said.
pub(super) struct Addresses {
    pub(super) pools: Pools,
    sites: Owned<IpNet>,
    fixed: Owned<IpAddr>,
}

type Owned<T> = BTreeMap<Principal, (Range<usize>, Vec<T>)>;

impl Addresses {
    pub(super) fn parse(
        source: &Source<'_>,
        pool: Option<RawPool>,
        principals: Vec<RawPrincipal>,
        sites: Vec<RawSite>,
    ) -> Result<Self, ConfigError> {
        let pools = pools(source, pool)?;
        let (sites, owners) = self::sites(source, pools, sites)?;
        let fixed = fixed(source, pools, &owners, principals)?;
        Ok(Self {
            pools,
            sites,
            fixed,
        })
    }

    /// Warns of addresses and sites of principals that no rule can let in.
    pub(super) fn warn_unreachable(
        &self,
        source: &Source<'_>,
        naming: &Naming,
        warnings: &mut Vec<Warning>,
    ) {
        // A certificate may bring any group, so only a policy that names all by name is conclusive.
        if naming.is_open() {
            return;
        }
        let sites = self
            .sites
            .iter()
            .map(|(who, (span, _))| ("site", who, span));
        let fixed = self
            .fixed
            .iter()
            .map(|(who, (span, _))| ("principal", who, span));
        for (key, principal, span) in sites.chain(fixed) {
            if !naming.names(principal) {
                let message = format!("no rule lets {principal} in");
                warnings.push(source.warning(span.clone(), key, message));
            }
        }
    }

    pub(super) fn into_owned(
        self,
    ) -> (
        BTreeMap<Principal, Vec<IpNet>>,
        BTreeMap<Principal, Vec<IpAddr>>,
    ) {
        (without_spans(self.sites), without_spans(self.fixed))
    }
}

fn without_spans<T>(owned: Owned<T>) -> BTreeMap<Principal, Vec<T>> {
    let owned = owned.into_iter();
    owned.map(|(who, (_, what))| (who, what)).collect()
}

fn pools(source: &Source<'_>, raw: Option<RawPool>) -> Result<Pools, ConfigError> {
    let Some(raw) = raw else {
        return Ok(Pools::default());
    };
    if let Some(v4) = &raw.v4 {
        source.prefix(IpNet::V4(*v4.get_ref()), v4.span(), "pool.v4")?;
    }
    if let Some(v6) = &raw.v6 {
        source.prefix(IpNet::V6(*v6.get_ref()), v6.span(), "pool.v6")?;
    }
    Ok(Pools {
        v4: raw.v4.map(Spanned::into_inner),
        v6: raw.v6.map(Spanned::into_inner),
    })
}

/// The networks of sites by principal, and the principals by network.
fn sites(
    source: &Source<'_>,
    pools: Pools,
    raw: Vec<RawSite>,
) -> Result<(Owned<IpNet>, BTreeMap<IpNet, Principal>), ConfigError> {
    let pools: Vec<IpNet> = pools
        .v4
        .map(IpNet::V4)
        .into_iter()
        .chain(pools.v6.map(IpNet::V6))
        .collect();
    let mut sites = Owned::new();
    let mut owners: BTreeMap<IpNet, Principal> = BTreeMap::new();
    for site in raw {
        let principal = source.principal(&site.principal, "site.principal")?;
        if sites.contains_key(&principal) {
            let message = format!("a second site of {principal}");
            return Err(source
                .error(site.principal.span(), "site.principal", message)
                .with_hint("put all networks into one [[site]]"));
        }
        let mut networks = Vec::new();
        for network in source.filled(&site.networks, "site.networks")? {
            let prefix = source.prefix(*network.get_ref(), network.span(), "site.networks")?;
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
            networks.push(prefix);
        }
        sites.insert(principal, (site.networks.span(), networks));
    }
    Ok((sites, owners))
}

fn fixed(
    source: &Source<'_>,
    pools: Pools,
    sites: &BTreeMap<IpNet, Principal>,
    raw: Vec<RawPrincipal>,
) -> Result<Owned<IpAddr>, ConfigError> {
    let mut fixed = Owned::new();
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
            if let Some(owner) = sites
                .get(&IpNet::from(ip))
                .filter(|owner| **owner != principal)
            {
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
        fixed.insert(principal, (entry.name.span(), addresses));
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
