//! What a client says about itself in the `user-agent` field of its request (RFC 9110 §10.1.5).
//!
//! A note for people, such as which laptop uses a certificate: the client chooses it, so nothing is
//! decided by it. Values that a terminal, a log or a table could stumble over are not taken.

use std::fmt;

/// The value of a `user-agent` field: visible ASCII and spaces, not empty, of limited length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAgent(String);

impl UserAgent {
    /// Our own client's, on a host of this name: "adit/0.1.0 (linux; laptop-7)". Characters that
    /// have a meaning in a comment (RFC 9110 §5.6.5), or are none of a host's name, become `-`.
    #[must_use]
    pub fn of_host(version: &str, system: &str, host: &str) -> Self {
        let host = host.chars().take(MAX_HOST).map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => c,
            _ => '-',
        });
        let host: String = host.collect();
        Self(format!("{PRODUCT}{version} ({system}; {host})"))
    }

    /// Takes the value of a field, unless it is not one.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?.trim();
        let is_printable = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let is_taken = is_printable && (1..=MAX_LENGTH).contains(&value.len());
        is_taken.then(|| Self(value.to_owned()))
    }

    /// The whole value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device: the host of our own client, and all there is of others.
    #[must_use]
    pub fn device(&self) -> &str {
        let own = self.0.strip_prefix(PRODUCT);
        let comment = own.and_then(|own| own.split_once(" (")?.1.strip_suffix(')'));
        let host = comment.and_then(|comment| comment.split_once("; "));
        match host {
            Some((_, host)) if !host.is_empty() => host,
            Some(_) | None => &self.0,
        }
    }
}

impl fmt::Display for UserAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Begins the value of our own client.
const PRODUCT: &str = "adit/";
/// Linux allows a host's name no more.
const MAX_HOST: usize = 64;
/// Longer than the names of browsers; a line in a table.
const MAX_LENGTH: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_own_client_names_its_host() {
        let own = UserAgent::of_host("0.1.0", "linux", "laptop-7");
        assert_eq!(own.as_str(), "adit/0.1.0 (linux; laptop-7)");
        assert_eq!(own.device(), "laptop-7");
        assert_eq!(UserAgent::read(own.as_str().as_bytes()), Some(own));
    }

    #[test]
    fn of_other_clients_all_is_shown() {
        for other in [
            "masque-go/1.2",
            "adit/0.1.0",
            "adit/0.1.0 (linux; )",
            "adit/0.1.0 (linux)",
        ] {
            assert_eq!(UserAgent::read(other.as_bytes()).unwrap().device(), other);
        }
    }

    #[test]
    fn what_a_terminal_could_stumble_over_is_not_taken() {
        let long = vec![b'a'; MAX_LENGTH + 1];
        for wrong in [
            &b""[..],
            b"  ",
            b"a\x1b[31m",
            b"a\tb",
            "läptop".as_bytes(),
            &long,
        ] {
            assert_eq!(UserAgent::read(wrong), None, "{wrong:?}");
        }
        assert!(UserAgent::read(&long[1..]).is_some());
    }

    proptest! {
        #[test]
        fn whatever_the_host_is_called_its_value_is_read_back(host in "\\PC{0,100}") {
            let own = UserAgent::of_host("1.2.3", "linux", &host);
            prop_assert_eq!(UserAgent::read(own.as_str().as_bytes()), Some(own));
        }
    }
}
