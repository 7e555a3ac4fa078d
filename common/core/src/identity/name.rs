//! The shapes of names. Each function returns the canonical form or says what is wrong.

use super::IdentityError;

/// A mail address (RFC 5280 §4.2.1.6: local part @ domain), its domain in lower case.
pub(super) fn email(name: &str) -> Result<String, IdentityError> {
    let wrong = |problem| malformed("mail address", name, problem);
    plain("mail address", name)?;
    let (local, domain) = name.split_once('@').ok_or_else(|| wrong("has no @"))?;
    if local.is_empty() || local.len() > MAX_LOCAL {
        return Err(wrong("has no usable part before the @"));
    }
    if domain.contains('@') {
        return Err(wrong("has two @"));
    }
    let special = |byte: u8| b"\"(),:;<>[]\\".contains(&byte);
    if local.bytes().any(special) {
        return Err(wrong("has a special character before the @"));
    }
    Ok(format!(
        "{local}@{}",
        dns(domain).map_err(|_| wrong("has a malformed domain"))?
    ))
}

/// A DNS name of letters, digits and hyphens, in lower case, without wildcard or trailing dot.
pub(super) fn dns(name: &str) -> Result<String, IdentityError> {
    plain("DNS name", name)?;
    let label_is_fine = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if name.len() > MAX_DNS || !name.split('.').all(label_is_fine) {
        return Err(malformed("DNS name", name, "is not a host name"));
    }
    Ok(name.to_ascii_lowercase())
}

/// A SPIFFE id: scheme, trust domain and path, nothing else (SPIFFE-ID §2).
pub(super) fn spiffe(name: &str) -> Result<String, IdentityError> {
    let wrong = |problem| malformed("URI", name, problem);
    plain("URI", name)?;
    let rest = name
        .strip_prefix("spiffe://")
        .ok_or_else(|| wrong("is not a SPIFFE id"))?;
    let (domain, path) = rest.split_once('/').ok_or_else(|| wrong("has no path"))?;
    trust_domain(domain).map_err(|_| wrong("has a malformed trust domain"))?;
    let segment_is_fine = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    if !path.split('/').all(segment_is_fine) {
        return Err(wrong("has a malformed path"));
    }
    Ok(name.to_owned())
}

/// The name of a trust domain (SPIFFE-ID §2.1).
pub(super) fn trust_domain(name: &str) -> Result<String, IdentityError> {
    let possible =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    plain("trust domain", name)?;
    if !name.bytes().all(possible) {
        let problem = "is not of lower-case letters, digits, dots, dashes and underscores";
        return Err(malformed("trust domain", name, problem));
    }
    Ok(name.to_owned())
}

/// A common name: printable ASCII without spaces at its ends, and no shape of the other kinds.
pub(super) fn common(name: &str) -> Result<String, IdentityError> {
    let wrong = |problem| malformed("common name", name, problem);
    if name.is_empty() || name.len() > MAX_CN {
        return Err(wrong("is empty or too long"));
    }
    if name.trim() != name || !name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(wrong("has characters that are not printable ASCII"));
    }
    // These mean something else in a policy.
    let kinds = ["group:", "domain:", "authority:"];
    if kinds.iter().any(|kind| name.starts_with(kind)) || name.contains('*') {
        return Err(wrong("could be taken for a group or a wildcard"));
    }
    Ok(name.to_owned())
}

/// A group: like a common name, but a single word.
pub(super) fn group(name: &str) -> Result<String, IdentityError> {
    if name.len() > MAX_GROUP {
        return Err(malformed("group", name, "is too long"));
    }
    plain("group", name)?;
    if name.contains('*') || name.contains(':') {
        return Err(malformed("group", name, "has a special character"));
    }
    Ok(name.to_owned())
}

pub(super) fn malformed(what: &'static str, name: &str, problem: &'static str) -> IdentityError {
    // A certificate may carry kilobytes here; a log line should not.
    let name = name.chars().take(SHOWN).collect();
    IdentityError::Malformed {
        what,
        name,
        problem,
    }
}

/// Visible ASCII without spaces, neither empty nor endless.
fn plain(what: &'static str, name: &str) -> Result<(), IdentityError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(malformed(what, name, "is empty or too long"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed(
            what,
            name,
            "has characters that are not visible ASCII",
        ));
    }
    Ok(())
}

/// RFC 5321 §4.5.3.1.3 limits a path to 256 bytes with its brackets; the others are shorter.
const MAX_NAME: usize = 254;
/// RFC 5321 §4.5.3.1.1.
const MAX_LOCAL: usize = 64;
/// RFC 1035 §2.3.4, as text.
const MAX_DNS: usize = 253;
/// ub-common-name (RFC 5280 appendix A.1).
const MAX_CN: usize = 64;
/// ub-organizational-unit-name (RFC 5280 appendix A.1).
const MAX_GROUP: usize = 64;
const SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_compared_in_lower_case_and_local_parts_as_they_are() {
        assert_eq!(email("Alice@EXAMPLE.com").unwrap(), "Alice@example.com");
        assert_eq!(dns("VPN.Example.COM").unwrap(), "vpn.example.com");
    }

    #[test]
    fn malformed_names_are_refused() {
        let long = "a".repeat(300);
        for name in [
            "",
            "@",
            "a@",
            "@b",
            "a@b@c",
            "a b@c.d",
            "a\0@c.d",
            "a@b..c",
            "\"a\"@b.c",
            long.as_str(),
        ] {
            assert!(email(name).is_err(), "{name:?}");
        }
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "*.a",
            "a_b",
            "-a",
            "a-",
            "ä.de",
            "a..b",
            long.as_str(),
        ] {
            assert!(dns(name).is_err(), "{name:?}");
        }
        for name in [
            "spiffe://",
            "spiffe://a",
            "spiffe://a/",
            "spiffe://A/b",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/../b",
            "https://a/b",
        ] {
            assert!(spiffe(name).is_err(), "{name:?}");
        }
        assert!(spiffe("spiffe://example.org/ns/a/sa/b").is_ok());
        for name in [
            "",
            " a",
            "a\n",
            "*",
            "group:eng",
            "domain:a",
            "authority:a",
            "ü",
        ] {
            assert!(common(name).is_err(), "{name:?}");
        }
        assert!(common("Alice Example").is_ok());
        for name in ["", "a b", "a:b", "*"] {
            assert!(group(name).is_err(), "{name:?}");
        }
    }
}
