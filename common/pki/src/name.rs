//! Names of certificate holders: what may become a principal, a gateway's name or a group.
//!
//! Guarantee: a [`Name`] made by [`Name::principal`] or [`Name::host`] has one spelling only
//! (lower-case host parts, no control characters, no white space) and one place in the certificate
//! (RFC 5280 §4.2.1.6). Refused is everything that would need quoting in a policy or a log.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// rfc822Name: a mailbox.
    Email(String),
    /// uniformResourceIdentifier: a SPIFFE identity.
    Uri(String),
    /// dNSName: a host.
    Dns(String),
    /// iPAddress: a host without a name.
    Ip(IpAddr),
}

impl Name {
    /// The name under which a principal stands in its certificate: a mailbox if it contains `@`, a
    /// URI if it starts with `spiffe://`, otherwise a DNS name.
    pub fn principal(text: &str) -> Result<Self, NameError> {
        if text.starts_with(SPIFFE) {
            check_spiffe(text)?;
            Ok(Self::Uri(text.to_owned()))
        } else if text.contains('@') {
            check_email(text)?;
            Ok(Self::Email(text.to_owned()))
        } else {
            check_dns(text)?;
            Ok(Self::Dns(text.to_owned()))
        }
    }

    /// The name under which a gateway is reached: an IP address or a DNS name.
    pub fn host(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(address) => Ok(Self::Ip(address)),
            Err(_) => check_dns(text).map(|()| Self::Dns(text.to_owned())),
        }
    }

    /// What kind of name it is, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Uri(_) => "uri",
            Self::Dns(_) => "dns",
            Self::Ip(_) => "ip",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email(text) | Self::Uri(text) | Self::Dns(text) => f.write_str(text),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// Checks the groups of a client, and that a gateway would read all of them.
pub fn check_groups(groups: &[String]) -> Result<(), NameError> {
    if groups.len() > MAX_GROUPS {
        return Err(NameError::TooManyGroups(groups.len()));
    }
    groups.iter().try_for_each(|group| check_group(group))
}

/// Checks the name of a group: letters, digits, `.`, `_` and `-`.
pub fn check_group(text: &str) -> Result<(), NameError> {
    let fits = (1..=MAX_ATTRIBUTE).contains(&text.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if fits && text.bytes().all(plain) {
        Ok(())
    } else {
        Err(NameError::Group(text.to_owned()))
    }
}

/// Checks an organisation's name for use in the subject of an authority.
pub fn check_organisation(text: &str) -> Result<(), NameError> {
    let fits = (1..=MAX_ATTRIBUTE).contains(&text.chars().count());
    if fits && text.trim() == text && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(NameError::Organisation(text.to_owned()))
    }
}

/// Checks the name of a device, which is for people to read and decides nothing.
pub fn check_device(text: &str) -> Result<(), NameError> {
    check_organisation(text).map_err(|_| NameError::Device(text.to_owned()))
}

/// What a device calls itself, as far as it fits: nobody is refused a certificate for a long name.
pub(crate) fn device_as_said(text: &str) -> Option<String> {
    let shown = text.trim().chars().filter(|c| !c.is_control());
    let fitting: String = shown.take(MAX_ATTRIBUTE).collect();
    let fitting = fitting.trim();
    (!fitting.is_empty()).then(|| fitting.to_owned())
}

/// Why a name was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// No mailbox.
    #[error("`{0}` is not an email address of the form user@example.com in lower case")]
    Email(String),
    /// No SPIFFE identity.
    #[error("`{0}` is not a SPIFFE identity of the form spiffe://example.com/path")]
    Spiffe(String),
    /// No DNS name.
    #[error("`{0}` is not a DNS name in lower case")]
    Dns(String),
    /// No group.
    #[error("`{0}` is not a group name: 1 to 64 letters, digits, dots, underscores and dashes")]
    Group(String),
    /// More groups than a gateway reads.
    #[error("{0} groups are more than the {MAX_GROUPS} that a gateway reads")]
    TooManyGroups(usize),
    /// No name for a device.
    #[error("`{0}` is not a name for a device: 1 to 64 characters without control characters")]
    Device(String),
    /// No name for an authority.
    #[error("`{0}` is not a name for an authority: 1 to 64 characters without control characters")]
    Organisation(String),
}

fn check_email(text: &str) -> Result<(), NameError> {
    let error = || NameError::Email(text.to_owned());
    let (local, domain) = text.split_once('@').ok_or_else(error)?;
    // The dot-atom of RFC 5322 §3.2.3 without its upper-case letters, and without `/`, `` ` `` and
    // other characters that mean something to a shell or to a policy.
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-+=".contains(&byte);
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    // RFC 5321 §4.5.3.1.1 and §4.5.3.1.3.
    if text.len() > MAX_EMAIL
        || local.is_empty()
        || local.len() > 64
        || dots
        || !local.bytes().all(plain)
    {
        return Err(error());
    }
    check_dns(domain).map_err(|_| error())
}

fn check_spiffe(text: &str) -> Result<(), NameError> {
    let error = || NameError::Spiffe(text.to_owned());
    let rest = text.strip_prefix(SPIFFE).ok_or_else(error)?;
    // The SPIFFE ID specification, §2: trust domain, then path segments without empty, `.` or `..`.
    let (domain, path) = rest.split_once('/').ok_or_else(error)?;
    let in_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_path);
    let valid = text.len() <= MAX_NAME
        && !domain.is_empty()
        && domain.bytes().all(in_domain)
        && path.split('/').all(segment);
    valid.then_some(()).ok_or_else(error)
}

fn check_dns(text: &str) -> Result<(), NameError> {
    // RFC 1123 §2.1; no wildcard, because a certificate here names one holder.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    // A last label of digits only would be taken for an IPv4 address.
    let numeric = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if text.len() <= MAX_NAME && !numeric && text.split('.').all(label) {
        Ok(())
    } else {
        Err(NameError::Dns(text.to_owned()))
    }
}

const SPIFFE: &str = "spiffe://";

/// A path of 256 octets without its angle brackets.
const MAX_EMAIL: usize = 254;

/// RFC 1035 §2.3.4, less the root's dot; plenty for a SPIFFE identity, too.
const MAX_NAME: usize = 253;

/// What the gateway reads at most: it refuses a certificate with more.
const MAX_GROUPS: usize = 32;

/// The upper bound of common names and organisational units, RFC 5280 appendix A.1.
pub(crate) const MAX_ATTRIBUTE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_principal_decides_its_place_in_the_certificate() {
        let kind = |text: &str| Name::principal(text).map(|name| name.kind());
        assert_eq!(kind("alice@example.com"), Ok("email"));
        assert_eq!(kind("spiffe://example.com/site/berlin"), Ok("uri"));
        assert_eq!(kind("branch1.example.com"), Ok("dns"));
    }

    #[test]
    fn names_with_a_second_spelling_or_a_need_for_quotes_are_refused() {
        for text in [
            "",
            " ",
            "Alice@example.com",
            "alice@",
            "@example.com",
            "a@b@c.example",
            "a b@c.example",
            "a\n@c.example",
            "a\0@c.example",
            "../a",
            "a/b",
            ".a",
            "a..b",
            "-a",
            "a-",
            "*.example.com",
            "10.0.0.1",
            "a@example.com.",
            "spiffe://",
            "spiffe://a",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/..",
            "spiffe://A/b",
            "spiffe://a/b?c",
            "ünïcode",
            "a\"b",
            "group:eng",
            "*",
        ] {
            assert!(Name::principal(text).is_err(), "{text:?}");
        }
        assert!(Name::principal(&"a".repeat(64)).is_err());
        assert!(Name::principal(&["a"; 130].join(".")).is_err());
    }

    #[test]
    fn a_host_is_an_address_or_a_dns_name() {
        assert_eq!(Name::host("10.0.0.1").unwrap().kind(), "ip");
        assert_eq!(Name::host("fd00::1").unwrap().kind(), "ip");
        assert_eq!(Name::host("vpn.example.com").unwrap().kind(), "dns");
        assert!(Name::host("10.0.0.256").is_err());
        assert!(Name::host("alice@example.com").is_err());
    }

    #[test]
    fn what_a_device_calls_itself_is_cut_to_what_an_operator_may_write() {
        for (said, taken) in [
            ("laptop-7", Some("laptop-7")),
            (" lap\x1btop\n", Some("laptop")),
            (" \t", None),
        ] {
            assert_eq!(device_as_said(said).as_deref(), taken, "{said:?}");
        }
        let long = format!("{} {}", "a".repeat(MAX_ATTRIBUTE - 1), "b".repeat(200));
        let taken = device_as_said(&long).unwrap();
        assert_eq!(taken.len(), MAX_ATTRIBUTE - 1);
        assert_eq!(check_device(&taken), Ok(()));
    }

    #[test]
    fn groups_are_plain_words() {
        assert!(check_group("eng").is_ok());
        for text in ["", "a b", "group:eng", "a,b", "ü", &"a".repeat(65)] {
            assert!(check_group(text).is_err(), "{text:?}");
        }
    }
}
