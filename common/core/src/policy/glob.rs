//! `domain:` globs on the names of principals.
//!
//! `*` stands for any number of characters, dots included; nothing else is special. A glob with an
//! `@` is matched with a whole mail address, one without with its domain; other names are matched whole.

use std::fmt;

use crate::identity::Principal;

/// A pattern with any number of `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Glob(String);

impl Glob {
    /// Reads a pattern; what stands behind an `@`, or all of it, is in lower case as domains are.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("a domain without name");
        }
        if text.len() > MAX_LEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a domain is a name of visible ASCII characters with * in it");
        }
        Ok(Self(match text.rsplit_once('@') {
            Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()),
            None if text.contains('/') => text.to_owned(),
            None => text.to_ascii_lowercase(),
        }))
    }

    pub(super) fn matches(&self, principal: &Principal) -> bool {
        let name = principal.as_str();
        let subject = if self.0.contains('@') {
            name
        } else {
            domain(name)
        };
        matches(self.0.as_bytes(), subject.as_bytes())
    }

    /// The end of every name that matches, from a separator on; empty when there is no such end.
    pub(super) fn ending(&self) -> &str {
        let Some((_, literal)) = self.0.rsplit_once('*') else {
            return &self.0;
        };
        literal.find(SEPARATORS).map_or("", |at| &literal[at + 1..])
    }
}

/// Every ending under which a glob that matches `principal` can be filed.
pub(super) fn endings(principal: &Principal) -> impl Iterator<Item = &str> {
    let name = principal.as_str();
    let inner = name
        .char_indices()
        .filter(|(_, c)| SEPARATORS.contains(c))
        .map(|(at, _)| &name[at + 1..]);
    [name, ""].into_iter().chain(inner)
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn domain(name: &str) -> &str {
    name.rsplit_once('@').map_or(name, |(_, domain)| domain)
}

/// Walks both once, and goes back only to the last `*`: at most the product of the lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    p = after;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Between the parts of mail addresses, DNS names and URIs.
const SEPARATORS: [char; 3] = ['@', '.', '/'];
/// As long as the longest name (`identity/name.rs`).
const MAX_LEN: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn principal(name: &str) -> Principal {
        Principal::parse(name).unwrap()
    }

    #[test]
    fn a_glob_is_matched_with_the_domain_or_with_the_whole_when_it_has_an_at() {
        for (glob, name, expected) in [
            ("*.branch.example.com", "r1.branch.example.com", true),
            ("*.branch.example.com", "a.b.branch.example.com", true),
            ("*.branch.example.com", "branch.example.com", false),
            ("*.branch.example.com", "evilbranch.example.com", false),
            (
                "*.branch.example.com",
                "r1.branch.example.com.evil.org",
                false,
            ),
            ("Example.COM", "alice@example.com", true),
            ("example.com", "alice@example.com.evil.org", false),
            ("example.com", "example.com@evil.org", false),
            ("*@example.com", "alice@example.com", true),
            ("*@example.com", "example.com", false),
            ("a*@example.com", "bob@example.com", false),
            (
                "spiffe://example.org/ns/*",
                "spiffe://example.org/ns/a/sa/b",
                true,
            ),
            ("*", "anything", true),
            ("r*-*.example.com", "r1-2.example.com", true),
        ] {
            let glob = Glob::parse(glob).unwrap();
            assert_eq!(glob.matches(&principal(name)), expected, "{glob} {name}");
        }
        assert!(Glob::parse("").is_err());
        assert!(Glob::parse("a b").is_err());
    }

    proptest! {
        #[test]
        fn a_glob_is_found_under_an_ending_of_what_it_matches(
            glob in "[ab*]{1,3}([.@][ab*]{1,3}){0,3}",
            name in "[ab]{1,3}(@[ab]{1,2}|)([.][ab]{1,2}){0,3}",
        ) {
            let (glob, name) = (Glob::parse(&glob).unwrap(), principal(&name));
            if glob.matches(&name) {
                prop_assert!(endings(&name).any(|ending| ending == glob.ending()));
            }
        }
    }
}
