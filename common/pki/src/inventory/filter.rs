//! Which certificates are asked for.

use serde::{Deserialize, Serialize};

use super::Row;
use crate::index::State;

/// Options of `adit-ca list` and of `adit-server certs`; whoever meets all that are given is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only what could be used and ends within so many days
    #[arg(long, value_name = "DAYS")]
    pub expiring: Option<u32>,
    /// Only what could be used and was not for so many days; what never was counts from when it was
    /// seen first or issued
    #[arg(long, value_name = "DAYS")]
    pub unused: Option<u32>,
    /// Only what was revoked
    #[arg(long)]
    pub revoked: bool,
    /// Only of this group (repeatable: of any of them)
    #[arg(long = "group", value_name = "GROUP")]
    #[serde(default)]
    pub groups: Vec<String>,
    /// Only of principals of this name; * stands for any characters: '*@example.com'
    #[arg(long, value_name = "GLOB")]
    pub principal: Option<String>,
}

impl Filter {
    /// Whether a row is asked for at `now`, Unix time.
    pub fn takes(&self, row: &Row, now: i64) -> bool {
        self.expiring.is_none_or(|days| row.is_expiring(days, now))
            && self.unused.is_none_or(|days| row.is_unused(days, now))
            && (!self.revoked || row.state == State::Revoked)
            && (self.groups.is_empty()
                || self.groups.iter().any(|group| row.groups.contains(group)))
            && self
                .principal
                .as_ref()
                .is_none_or(|glob| matches(glob, &row.principal))
    }
}

/// Whether `*` of the pattern can stand for some characters each, so that it is the name.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let (middle, last) = match rest.rsplit_once('*') {
        Some((middle, last)) => (middle, last),
        None => ("", rest),
    };
    let Some(inner) = name.strip_prefix(first) else {
        return false;
    };
    let Some(mut inner) = inner.strip_suffix(last) else {
        return false;
    };
    // The first place of each part leaves the most for those behind it.
    middle.split('*').all(|part| match inner.split_once(part) {
        _ if part.is_empty() => true,
        Some((_, behind)) => {
            inner = behind;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{NOW, row};
    use super::*;

    /// A glob as it is defined, with all the time in the world.
    fn oracle(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|taken| oracle(rest, &name[taken..])),
            Some((byte, rest)) => name.first() == Some(byte) && oracle(rest, &name[1..]),
        }
    }

    /// What the options promise, in the words of their help.
    fn promised(filter: &Filter, row: &Row) -> bool {
        let day = 86_400;
        let ends_in = row.expires - NOW;
        let could_be_used = row.revoked.is_none() && ends_in >= 0;
        let started = row.valid_from <= NOW;
        let used = [
            row.last_used,
            row.first_seen,
            row.issued,
            Some(row.valid_from),
        ];
        let idle = NOW - used.into_iter().flatten().next().unwrap();
        let mut all = true;
        if let Some(days) = filter.expiring {
            all &= could_be_used && ends_in <= i64::from(days) * day;
        }
        if let Some(days) = filter.unused {
            let long = idle >= i64::from(days) * day;
            all &= could_be_used && started && row.in_use == Some(false) && long;
        }
        if filter.revoked {
            all &= row.revoked.is_some();
        }
        if !filter.groups.is_empty() {
            let both = filter.groups.iter();
            all &= both.filter(|group| row.groups.contains(group)).count() > 0;
        }
        if let Some(glob) = &filter.principal {
            all &= oracle(glob.as_bytes(), row.principal.as_bytes());
        }
        all
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let option = || proptest::option::weighted(0.3, 0..500_u32);
        (
            option(),
            option(),
            proptest::bool::weighted(0.2),
            proptest::collection::vec("[abc]", 0..2),
            proptest::option::weighted(0.3, "[a-z*]{0,3}"),
        )
            .prop_map(|(expiring, unused, revoked, groups, principal)| Filter {
                expiring,
                unused,
                revoked,
                groups,
                principal,
            })
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (glob, name, expected) in [
            ("*@example.com", "alice@example.com", true),
            ("alice*", "alice@example.com", true),
            ("alice", "alice@example.com", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("*.example.com", "x.example.com.evil.org", false),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }

    proptest! {
        #[test]
        fn globs_mean_what_they_are_defined_as(glob in "[ab*]{0,6}", name in "[ab]{0,8}") {
            prop_assert_eq!(matches(&glob, &name), oracle(glob.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn filters_take_what_their_help_promises(filter in filter(), row in row()) {
            prop_assert_eq!(filter.takes(&row, NOW), promised(&filter, &row));
        }
    }
}
