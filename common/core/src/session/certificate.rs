//! Certificates over HTTP/3: what a request for one carries, and what the answer says.
//!
//! | request | who may | what proves it |
//! | --- | --- | --- |
//! | `POST /.well-known/adit/enroll` | whoever was invited | the secret of the code, `authorization: Bearer` (RFC 6750) |
//! | `POST /.well-known/adit/renew` | who has the session on this connection | the certificate it was opened with |
//!
//! The body is a certificate request in DER (`application/pkcs10`, RFC 5967), at most
//! [`MAX_REQUEST`] bytes. The answer is [`Issued`] as JSON, or a problem (RFC 9457). Only the public
//! key of the request counts; who it is for, and for how long, the invitation or the old certificate
//! says.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::UserAgent;

/// Somebody asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAsk {
    /// What it is asked on.
    pub occasion: Occasion,
    /// The certificate request (PKCS#10), in DER; not looked at.
    pub request: Vec<u8>,
    /// What the client says of itself.
    pub user_agent: Option<UserAgent>,
}

/// What a certificate is asked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// An invitation, whose secret this is.
    Enrolment(Secret),
    /// The certificate of the open session, which is to be followed by this one.
    Renewal,
}

/// The secret of an invitation as it was sent: text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of the alphabet of bearer tokens (RFC 6750 §2.1); `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let possible = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let fits = (1..=MAX_SECRET).contains(&text.len()) && text.bytes().all(possible);
        fits.then(|| Self(text.to_owned()))
    }

    /// The text, to be compared or sent and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A certificate with what else belongs into a profile: the answer, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Issued {
    /// The client's certificate and the intermediates up to a root, PEM, leaf first.
    pub certificate: String,
    /// Whom to believe the gateway's certificate, PEM.
    pub authorities: String,
    /// `host:port` of each gateway, in the order to try them; empty to keep those that are known.
    #[serde(default)]
    pub gateways: Vec<String>,
}

impl Issued {
    /// The body of the answer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Strings and lists of strings have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the body of an answer; members that are not known are ignored. `None` when it is none.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// The two resources that give certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Enroll,
    Renew,
}

impl Resource {
    /// The resource of a request's `:path`.
    pub(super) fn at(path: &str) -> Option<Self> {
        [Self::Enroll, Self::Renew]
            .into_iter()
            .find(|resource| resource.path() == path)
    }

    /// Where an occasion is asked.
    pub(super) const fn of(occasion: &Occasion) -> Self {
        match occasion {
            Occasion::Enrolment(_) => Self::Enroll,
            Occasion::Renewal => Self::Renew,
        }
    }

    /// Its `:path`.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Enroll => "/.well-known/adit/enroll",
            Self::Renew => "/.well-known/adit/renew",
        }
    }
}

/// The media type of a certificate request (RFC 5967).
pub(super) const REQUEST_TYPE: &str = "application/pkcs10";
/// The media type of [`Issued`].
pub(super) const ANSWER_TYPE: &str = "application/json";
/// The longest certificate request that is taken, in bytes: one for an RSA key of 16384 bits with room to spare.
pub const MAX_REQUEST: usize = 16 * 1024;
/// The longest answer that is read: a chain of ten certificates with room to spare.
pub(super) const MAX_ANSWER: usize = 64 * 1024;
/// Far more than 128 bits in any notation.
const MAX_SECRET: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::parse("7K3M-SECRET").unwrap();
        let ask = CertificateAsk {
            occasion: Occasion::Enrolment(secret),
            request: Vec::new(),
            user_agent: None,
        };
        assert!(!format!("{ask:?}").contains("7K3M"));
    }

    #[test]
    fn what_cannot_be_a_token_is_no_secret() {
        for text in ["", "a b", "a\"", "ä", &"a".repeat(MAX_SECRET + 1)] {
            assert_eq!(Secret::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_answer_may_say_more_than_is_known_today() {
        let body = br#"{"certificate":"c","authorities":"a","more":[1]}"#;
        let issued = Issued::parse(body).unwrap();
        assert_eq!(issued.certificate, "c");
        assert!(issued.gateways.is_empty());
        assert_eq!(Issued::parse(b"{\"certificate\":\"c\"}"), None);
    }

    proptest! {
        #[test]
        fn an_answer_survives_the_trip(certificate: String, authorities: String, gateways: Vec<String>) {
            let issued = Issued { certificate, authorities, gateways };
            prop_assert_eq!(Issued::parse(&issued.encode()), Some(issued));
        }

        #[test]
        fn random_answers_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Issued::parse(&body);
        }
    }
}
