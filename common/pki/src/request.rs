//! What an authority is asked to certify.
//!
//! [`IssueRequest::client`] and [`IssueRequest::gateway`] give the ordinary certificates; every
//! field may be changed before [`Authority::issue`](crate::Authority::issue) or
//! [`Authority::sign`](crate::Authority::sign) is called. The fields that start with `danger_` produce certificates outside the profile, so that the refusal of such
//! certificates can be tested.

use time::Duration;

use crate::certificate::{ExtendedKeyUsage, KeyType, Purpose};
use crate::name::Name;

/// A request for one certificate.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    /// Which end of the tunnel the certificate is for.
    pub purpose: Purpose,
    /// The holder's name: common name of both kinds, and the only alternative name of a client.
    pub principal: String,
    /// DNS names and IP addresses of a gateway besides its principal. Empty for a client.
    pub names: Vec<String>,
    /// One organisational unit each.
    pub groups: Vec<String>,
    /// First second of validity, Unix time.
    pub not_before: i64,
    /// Last second of validity, Unix time.
    pub not_after: i64,
    /// Kind of key to make; without meaning where the key is there already.
    pub key_type: KeyType,
    /// The device that holds the key, for people to read.
    pub device: Option<String>,
    /// Replaces the extended key usage that follows from the purpose; an empty list leaves the
    /// extension out.
    pub danger_extended_key_usages: Option<Vec<ExtendedKeyUsage>>,
    /// Replaces the alternative names that follow from the principal and the names; an empty list
    /// leaves the extension out. Not validated beyond what the encoding needs.
    pub danger_subject_alt_names: Option<Vec<Name>>,
}

impl IssueRequest {
    /// A client certificate for `principal`, valid for a year from `now`, Unix time.
    pub fn client(principal: impl Into<String>, now: i64) -> Self {
        Self::new(Purpose::Client, principal.into(), now)
    }

    /// A gateway certificate for `name`, a DNS name or an IP address, valid for a year from `now`,
    /// Unix time.
    pub fn gateway(name: impl Into<String>, now: i64) -> Self {
        Self::new(Purpose::Gateway, name.into(), now)
    }

    /// A request for `principal` that is valid for a year from `now`, Unix time.
    pub fn new(purpose: Purpose, principal: String, now: i64) -> Self {
        Self {
            purpose,
            principal,
            names: Vec::new(),
            groups: Vec::new(),
            not_before: now - SKEW.whole_seconds(),
            not_after: now + DEFAULT_VALIDITY.whole_seconds(),
            key_type: KeyType::EcdsaP256,
            device: None,
            danger_extended_key_usages: None,
            danger_subject_alt_names: None,
        }
    }

    /// Sets the groups.
    pub fn with_groups<S: Into<String>>(mut self, groups: impl IntoIterator<Item = S>) -> Self {
        self.groups = groups.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the names of a gateway besides its principal.
    pub fn with_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the exact validity: first and last second, Unix time.
    pub fn valid(mut self, not_before: i64, not_after: i64) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }
}

/// How far a certificate's validity begins in the past: clocks of laptops and gateways that are
/// kept by NTP agree far better, those kept by hand are commonly a few minutes off, and a fresh
/// certificate that is "not yet valid" is the first thing a new user would meet.
pub const SKEW: Duration = Duration::minutes(5);

/// A year: long enough that renewing by hand is bearable, short enough that forgotten devices drop
/// off by themselves.
pub const DEFAULT_VALIDITY: Duration = Duration::days(365);
