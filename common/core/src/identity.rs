//! Who a certificate says its holder is.
//!
//! A certificate is read only after webpki accepted its chain; what it says is then policy input.
//! Every name is validated here, whatever the authority let through. One candidate for the
//! principal or a refusal: there is never a choice.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::close::{Refusal, RefusalKind};

mod extract;
mod name;
mod public_key;
pub mod revocation;

pub use extract::{Card, Purpose, card, extract, has_purpose, may_issue, server_names};
pub use public_key::public_key;

/// An identity's one canonical name: a mail address, a SPIFFE id, a DNS name or a common name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Principal(String);

impl Principal {
    /// Validates a name as an operator writes it: by its shape a mail address, a SPIFFE id, or
    /// else a plain name.
    ///
    /// # Errors
    /// When it is not a well-formed name of its kind.
    pub fn parse(name: &str) -> Result<Self, IdentityError> {
        if name.contains('@') {
            name::email(name)
        } else if name.contains("://") {
            name::spiffe(name)
        } else {
            name::dns(name).or_else(|_| name::common(name))
        }
        .map(Self)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Principal {
    type Error = IdentityError;

    fn try_from(name: String) -> Result<Self, IdentityError> {
        Self::parse(&name)
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.0
    }
}

/// What a verified certificate says about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The canonical name.
    pub principal: Principal,
    /// Groups, sorted, each once.
    pub groups: Vec<String>,
    /// The authority that vouches, by its name in the configuration.
    pub authority: String,
    /// The certificate's serial number, lower-case hexadecimal.
    pub serial: String,
    /// First second of validity, since 1970.
    pub not_before: i64,
    /// Last second of validity, since 1970.
    pub not_after: i64,
}

/// How one authority's certificates are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRule {
    /// The authority's name in configuration, status and logs.
    pub name: String,
    /// Where the principal may stand. Over all of these together, exactly one candidate is found.
    pub principal: Vec<PrincipalSource>,
    /// Where the groups stand.
    pub groups: GroupSource,
    /// The trust domain whose SPIFFE ids it may vouch for; `None` is any.
    pub trust_domain: Option<TrustDomain>,
}

/// The name of a SPIFFE trust domain (SPIFFE-ID §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Validates a name, as `example.org`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(name: &str) -> Result<Self, IdentityError> {
        name::trust_domain(name).map(Self)
    }

    /// Whether a well-formed SPIFFE id is one of it.
    fn has(&self, id: &str) -> bool {
        let rest = id.strip_prefix("spiffe://");
        let rest = rest.and_then(|rest| rest.strip_prefix(&self.0));
        rest.is_some_and(|path| path.starts_with('/'))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place for the principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalSource {
    /// Subject alternative name rfc822Name.
    Email,
    /// Subject alternative name URI; SPIFFE ids only.
    Uri,
    /// Subject alternative name dNSName.
    Dns,
    /// The subject's common name.
    Cn,
}

/// A place for the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupSource {
    /// The certificate names none.
    None,
    /// The subject's organizational units.
    Ou,
}

/// Why a certificate that webpki accepted gives no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate this parser understands.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No name where the rule looks.
    #[error("no {0} in the certificate")]
    Missing(String),
    /// More than one name where the rule looks.
    #[error("{0:?} and {1:?} both name a principal")]
    Ambiguous(String, String),
    /// A name that is not what it should be.
    #[error("{what} {name:?} {problem}")]
    Malformed {
        /// The kind of name.
        what: &'static str,
        /// The name, shortened.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A SPIFFE id that its authority may not vouch for (X.509-SVID §5.2).
    #[error("{name:?} is not of the trust domain {domain}, for which alone its authority vouches")]
    Foreign {
        /// The id.
        name: String,
        /// The authority's trust domain.
        domain: String,
    },
    /// More groups than any policy uses.
    #[error("the certificate names more than {0} groups")]
    TooManyGroups(usize),
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        let kind = match &error {
            IdentityError::Missing(_) => RefusalKind::IdentityMissing,
            IdentityError::Ambiguous(..) => RefusalKind::IdentityAmbiguous,
            IdentityError::Unreadable
            | IdentityError::Malformed { .. }
            | IdentityError::Foreign { .. }
            | IdentityError::TooManyGroups(_) => RefusalKind::IdentityMalformed,
        };
        Self::new(kind, error.to_string())
    }
}
