//! How much a policy says: what `check` shows, so that a file that is right but empty is noticed.

use std::collections::BTreeSet;
use std::fmt;

use super::Policy;
use super::rule::Who;

/// The size of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rules.
    pub rules: usize,
    /// Principals that are named anywhere.
    pub principals: usize,
    /// Different prefixes that rules are about.
    pub prefixes: usize,
}

impl Policy {
    /// Counts what there is.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let in_rules = self.rules.iter().flat_map(|rule| &rule.who);
        let in_rules = in_rules.filter_map(|who| match who {
            Who::Principal(principal) => Some(principal),
            Who::Everybody | Who::Group(_) | Who::Domain(_) | Who::Authority(_) => None,
        });
        let principals: BTreeSet<_> = in_rules
            .chain(self.groups.of_principal.keys())
            .chain(self.fixed.keys())
            .chain(self.sites.keys())
            .collect();
        let prefixes: BTreeSet<_> = self
            .rules
            .iter()
            .flat_map(|rule| self.networks.prefixes(&rule.to))
            .collect();
        Summary {
            rules: self.rules.len(),
            principals: principals.len(),
            prefixes: prefixes.len(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {many}"),
        };
        write!(
            f,
            "{}, {} named, {}",
            counted(self.rules, "rule", "rules"),
            counted(self.principals, "principal", "principals"),
            counted(self.prefixes, "prefix", "prefixes"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_is_named_counts_once() {
        let policy = Policy::parse(
            "[groups]\nstaff = [\"a@e.com\", \"b@e.com\"]\n\
             [[allow]]\nwho = [\"group:staff\", \"a@e.com\"]\nto = [\"10.0.0.0/8\", \"fd00::/8\"]\n\
             [[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n\
             [[site]]\nprincipal = \"s.example.com\"\nnetworks = [\"10.20.0.0/16\"]\n",
            "policy.toml",
        );
        let summary = policy.unwrap().summary();
        assert_eq!(
            summary.to_string(),
            "2 rules, 3 principals named, 2 prefixes"
        );
        let empty = Policy::parse("", "policy.toml").unwrap().summary();
        assert_eq!(empty.to_string(), "0 rules, 0 principals named, 0 prefixes");
    }
}
