//! `[networks]`: names for prefixes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::rule::Destination;

/// Every named network of the file; without cycles.
#[derive(Debug, Default)]
pub(super) struct Networks {
    pub(super) list: Vec<Network>,
    pub(super) by_name: BTreeMap<Arc<str>, u32>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) name: Arc<str>,
    pub(super) prefixes: Vec<IpNet>,
    /// Others that are part of it.
    pub(super) nested: Vec<u32>,
}

impl Networks {
    /// Every prefix of a rule's `to`, each network's once.
    pub(super) fn prefixes<'a>(
        &'a self,
        to: &'a [Destination],
    ) -> impl Iterator<Item = IpNet> + 'a {
        let own = to.iter().filter_map(|destination| match destination {
            Destination::Prefix(prefix) => Some(*prefix),
            Destination::Network(..) => None,
        });
        let mut open: Vec<u32> = to
            .iter()
            .filter_map(|destination| match destination {
                Destination::Prefix(_) => None,
                Destination::Network(_, network) => Some(*network),
            })
            .rev()
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        let named = std::iter::from_fn(move || {
            loop {
                let network = open.pop()?;
                if seen.insert(network) {
                    let network = self.list.get(network as usize)?;
                    open.extend(network.nested.iter().rev());
                    return Some(network.prefixes.iter().copied());
                }
            }
        });
        own.chain(named.flatten())
    }

    /// Whether an address is in a rule's `to`.
    pub(super) fn contain(&self, to: &[Destination], address: IpAddr) -> bool {
        self.prefixes(to).any(|prefix| prefix.contains(&address))
    }
}
