//! How long a session may go on before everything about it is checked anew: `[[session]]`.

use super::naming::Naming;
use super::rule::Who;
use crate::identity::Principal;
use crate::period::Period;

/// The `[[session]]`s of the file, in its order.
#[derive(Debug, Default)]
pub(super) struct Limits {
    limits: Vec<Limit>,
    naming: Naming,
}

/// One `[[session]]`.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) who: Vec<Who>,
    pub(super) maximum: Period,
    pub(super) line: u32,
}

impl Limits {
    pub(super) fn new(limits: Vec<Limit>) -> Self {
        let naming = Naming::of(limits.iter().map(|limit| &limit.who[..]));
        Self { limits, naming }
    }

    /// The shortest that names somebody; of equal ones the first of the file.
    pub(super) fn shortest<'a>(
        &self,
        principal: &Principal,
        authority: &str,
        groups: impl Iterator<Item = &'a std::sync::Arc<str>>,
    ) -> Option<&Limit> {
        let named = self.naming.named(principal, authority, groups);
        let named = named.into_iter().map(|n| &self.limits[n as usize]);
        named.min_by_key(|limit| limit.maximum)
    }

    /// Groups that are named here.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.naming.groups()
    }
}

#[cfg(test)]
mod tests {
    use crate::identity::{Identity, Principal};
    use crate::policy::Policy;

    const POLICY: &str = "[groups]\nstaff = [\"alice@example.com\", \"group:night\"]\n\
        [[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n\
        [[session]]\nwho = [\"*\"]\nmaximum = \"7d\"\n\
        [[session]]\nwho = [\"group:staff\", \"domain:*.branch.example.com\"]\nmaximum = \"8h\"\n\
        [[session]]\nwho = [\"authority:partners\", \"bob@example.com\"]\nmaximum = \"30m\"\n";

    fn maximum(policy: &str, who: &str, authority: &str, groups: &[&str]) -> Option<String> {
        let identity = Identity {
            principal: Principal::parse(who).unwrap(),
            groups: groups.iter().map(ToString::to_string).collect(),
            authority: authority.to_owned(),
            serial: String::new(),
            not_before: 0,
            not_after: 0,
        };
        let policy = Policy::parse(policy, "policy.toml").unwrap();
        let access = policy.access(&identity, 0).unwrap();
        access.maximum.map(|maximum| maximum.to_string())
    }

    #[test]
    fn the_shortest_maximum_that_names_somebody_counts() {
        for (who, authority, groups, expected) in [
            ("eve@example.com", "corp", &[][..], "7d"),
            ("alice@example.com", "corp", &[], "8h"),
            ("eve@example.com", "corp", &["night"], "8h"),
            ("r1.branch.example.com", "corp", &[], "8h"),
            ("bob@example.com", "corp", &["staff"], "30m"),
            ("eve@example.com", "partners", &[], "30m"),
        ] {
            let found = maximum(POLICY, who, authority, groups);
            assert_eq!(found.as_deref(), Some(expected), "{who} {authority}");
        }
        let without = "[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n";
        assert_eq!(maximum(without, "eve@example.com", "corp", &[]), None);
    }

    #[test]
    fn a_maximum_alone_lets_nobody_in() {
        let policy = "[[session]]\nwho = [\"*\"]\nmaximum = \"8h\"\n";
        let policy = Policy::parse(policy, "policy.toml").unwrap();
        let principal = Principal::parse("eve@example.com").unwrap();
        assert_eq!(policy.standing(&principal, "", &[], 0).rules, []);
    }
}
