//! Finds what names somebody, such as rules, without reading all of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::glob::{self, Glob};
use super::nesting::index;
use super::rule::Who;
use crate::identity::Principal;

/// Rules, or what else has a `who`, by what stands in it, each list ascending.
#[derive(Debug, Default)]
pub(super) struct Naming {
    everybody: Vec<u32>,
    groups: BTreeMap<String, Vec<u32>>,
    principals: BTreeMap<Principal, Vec<u32>>,
    authorities: BTreeMap<String, Vec<u32>>,
    /// By the end that every matching name has.
    globs: BTreeMap<String, BTreeMap<Glob, Vec<u32>>>,
}

impl Naming {
    pub(super) fn of<'a>(rules: impl Iterator<Item = &'a [Who]>) -> Self {
        let mut naming = Self::default();
        for (n, rule) in rules.enumerate() {
            for who in rule {
                naming.list(who).push(index(n));
            }
        }
        naming
    }

    /// Those that name this principal, ascending, each once.
    pub(super) fn named<'a>(
        &self,
        principal: &Principal,
        authority: &str,
        groups: impl Iterator<Item = &'a Arc<str>>,
    ) -> Vec<u32> {
        let mut rules = self.everybody.clone();
        rules.extend(self.principals.get(principal).into_iter().flatten());
        rules.extend(self.authorities.get(authority).into_iter().flatten());
        for group in groups {
            rules.extend(self.groups.get(&**group).into_iter().flatten());
        }
        for ending in glob::endings(principal) {
            for (glob, named) in self.globs.get(ending).into_iter().flatten() {
                if glob.matches(principal) {
                    rules.extend(named);
                }
            }
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Whether some rule names somebody in another way than by name, so that strangers may get in.
    pub(super) fn is_open(&self) -> bool {
        !(self.everybody.is_empty()
            && self.groups.is_empty()
            && self.authorities.is_empty()
            && self.globs.is_empty())
    }

    /// Groups that rules name.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    pub(super) fn names(&self, principal: &Principal) -> bool {
        self.principals.contains_key(principal)
    }

    fn list(&mut self, who: &Who) -> &mut Vec<u32> {
        match who {
            Who::Everybody => &mut self.everybody,
            Who::Group(name) => self.groups.entry(name.clone()).or_default(),
            Who::Principal(principal) => self.principals.entry(principal.clone()).or_default(),
            Who::Authority(name) => self.authorities.entry(name.clone()).or_default(),
            Who::Domain(glob) => {
                let same_end = self.globs.entry(glob.ending().to_owned()).or_default();
                same_end.entry(glob.clone()).or_default()
            }
        }
    }
}
