//! What the policy says of somebody as a whole, without asking for a flow.

use super::{Policy, RuleText};
use crate::identity::Principal;

/// The groups of an identity, and the rules that name it and count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Groups of the certificate and of the file, sorted.
    pub groups: Vec<String>,
    /// In the order of the file; empty when nothing is allowed, so that there would be no session.
    pub rules: Vec<RuleText>,
}

impl Policy {
    /// What somebody has at `now`, in seconds since 1970, with a certificate of this authority and these
    /// groups. The rules are those that [`Policy::access`] and [`Policy::explain`] go by.
    #[must_use]
    pub fn standing(
        &self,
        principal: &Principal,
        authority: &str,
        certified: &[String],
        now: i64,
    ) -> Standing {
        let named = self.named(principal, authority, certified);
        let counting = self.counting(&named.rules, now).rules;
        let is_let_in = counting.iter().any(|&rule| self.allows(rule));
        let rules = counting.iter().map(|&rule| RuleText::of(self.rule(rule)));
        Standing {
            groups: named.groups.keys().map(ToString::to_string).collect(),
            rules: if is_let_in {
                rules.collect()
            } else {
                Vec::new()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "[groups]\nstaff = [\"alice@example.com\"]\n\
        [[allow]]\nname = \"intranet\"\nwho = [\"group:staff\"]\nto = [\"10.0.0.0/16\"]\n\
        [[deny]]\nwho = [\"*\"]\nto = [\"10.0.2.0/28\"]\n\
        [[allow]]\nwho = [\"authority:corp\"]\nto = [\"10.1.0.0/16\"]\nuntil = 2020-01-01\n";

    #[test]
    fn somebody_has_the_rules_that_name_and_count_or_none() {
        let policy = Policy::parse(POLICY, "policy.toml").unwrap();
        let of = |name: &str, authority: &str, now| {
            let principal = Principal::parse(name).unwrap();
            let standing = policy.standing(&principal, authority, &["dev".to_owned()], now);
            let rules = standing.rules.iter().map(|rule| rule.name.clone());
            (
                standing.groups.join(" "),
                rules.collect::<Vec<_>>().join(" | "),
            )
        };
        let denied = "deny at policy.toml:7";
        assert_eq!(
            of("alice@example.com", "adit", 1_800_000_000),
            ("dev staff".to_owned(), format!("intranet | {denied}"))
        );
        // Denied is more than nothing only to those who are let in.
        let (_, rules) = of("bob@example.com", "corp", 1_800_000_000);
        assert_eq!(rules, "");
        let (_, rules) = of("bob@example.com", "corp", 1_500_000_000);
        assert_eq!(rules, format!("{denied} | allow at policy.toml:10"));
    }
}
