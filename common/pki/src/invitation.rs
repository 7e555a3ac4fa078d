//! Invitations: a person gets a code, and the code gets one certificate for a key made on a device.
//!
//! Guarantee: a code is good once and until it expires, also if it is used twice at the same time or
//! the program is ended meanwhile, because it is used up in the transaction that records the certificate.
//! Kept is the SHA-256 of its secret alone: whoever reads the index learns no code. What the
//! certificate says was fixed when the invitation was made; a request that asks for more is refused
//! and leaves the code as it was. Whoever asks again with the same key, because the answer was
//! lost, gets the same certificate.
//!
//! To whoever guesses codes, [`RedeemError::Unknown`], [`RedeemError::Used`],
//! [`RedeemError::Withdrawn`] and [`RedeemError::Expired`] must look the same on the wire, or a guess
//! would tell which codes there were; the difference is for the operator's log.
//!
//! ```
//! use adit_pki::csr::{self, CertificateRequest};
//! use adit_pki::invitation::Invitation;
//! use adit_pki::{Authority, KeyType};
//! use time::Duration;
//!
//! let now = 1_800_000_000;
//! let authority = Authority::ephemeral("Example Corp", now)?;
//! let invitation = Invitation {
//!     principal: "alice@example.com".to_owned(),
//!     groups: vec!["eng".to_owned()],
//!     validity: Duration::days(90),
//!     expires: now + 86_400,
//! };
//! let code = authority.invite(&invitation, [7; 16], now)?.to_string();
//!
//! let code: adit_pki::invitation::Code = code.parse()?;
//! let request = csr::make(None, KeyType::EcdsaP256)?.request_pem;
//! let request = CertificateRequest::from_pem(&request)?;
//! let issued = authority.redeem(code.secret(), &request, Some("laptop"), now)?;
//! assert_eq!(issued.principal, "alice@example.com");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use thiserror::Error;
use time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, AuthorityError};
use crate::certificate::key::PrivateKey;
use crate::certificate::{Issued, KeyType, Purpose};
use crate::csr::{CertificateRequest, RequestError};
use crate::index::{Entry, IndexError, Standing, State};
use crate::name;
use crate::request::IssueRequest;

mod code;
mod renewal;

pub use code::{Code, CodeError};
pub use renewal::RenewError;

/// What somebody is invited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Whom the certificate will be for.
    pub principal: String,
    /// The groups it will have.
    pub groups: Vec<String>,
    /// How long it will be valid.
    pub validity: Duration,
    /// Until when the code can be used, Unix time.
    pub expires: i64,
}

/// An invitation that can still be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenInvitation {
    /// What to call it; says nothing about the code.
    pub number: i64,
    /// Whom the certificate will be for.
    pub principal: String,
    /// The groups it will have.
    pub groups: Vec<String>,
    /// How long it will be valid, seconds.
    pub validity: i64,
    /// Until when the code can be used, Unix time.
    pub expires: i64,
    /// When it was made, Unix time.
    pub created: i64,
    /// The operator who made it, `name@host`.
    pub invited_by: String,
}

impl Authority {
    /// Makes a code that is good for one certificate. `pin` travels in the code and tells the gateway
    /// from an impostor; it is not kept. `now` is Unix time.
    pub fn invite(
        &self,
        invitation: &Invitation,
        pin: [u8; 16],
        now: i64,
    ) -> Result<Code, AuthorityError> {
        if invitation.validity <= Duration::ZERO || invitation.expires <= now {
            return Err(AuthorityError::Validity);
        }
        // Whatever would be refused when the code is used is refused now.
        let trial = self.request_of(invitation, now);
        let key = PrivateKey::generate(KeyType::EcdsaP256)?;
        self.certify_key(&trial, &key, now)?;

        let mut secret = [0; 16];
        SystemRandom::new()
            .fill(&mut secret)
            .map_err(|_| AuthorityError::Randomness)?;
        let operator = self.operator();
        self.index()
            .invite(&fingerprint(&secret), invitation, now, operator)?;
        Ok(Code::new(secret, pin))
    }

    /// Certifies the key of `csr` as the invitation with the code's `secret` says, and uses the code
    /// up. `device` is what the device calls itself, `now` Unix time.
    pub fn redeem(
        &self,
        secret: &[u8; 16],
        csr: &CertificateRequest,
        device: Option<&str>,
        now: i64,
    ) -> Result<Issued, RedeemError> {
        self.index().redeem(&fingerprint(secret), |standing| {
            let (invitation, invited_by) = match standing {
                Standing::Unknown => return Err(RedeemError::Unknown),
                Standing::Withdrawn => return Err(RedeemError::Withdrawn),
                Standing::Used { expires, entry } => {
                    let again =
                        now <= expires && entry.state(now) == State::Valid && is_for(&entry, csr);
                    let issued = again.then(|| self.issued(&entry));
                    return issued.map(|issued| (issued, None)).ok_or(RedeemError::Used);
                }
                Standing::Open {
                    invitation,
                    invited_by,
                } => (invitation, invited_by),
            };
            if now > invitation.expires {
                return Err(RedeemError::Expired);
            }
            let mut request = self.request_of(&invitation, now);
            request.device = device.and_then(name::device_as_said);
            let (issued, mut entry) = self.certify_request(csr, &request, now)?;
            entry.issued_by = invited_by;
            Ok((issued, Some(entry)))
        })
    }

    /// The invitations that can be used at `now`, Unix time, oldest first.
    pub fn invitations(&self, now: i64) -> Result<Vec<OpenInvitation>, AuthorityError> {
        Ok(self.index().invitations(now)?)
    }

    /// Takes an open invitation back at `now`, Unix time; false if there is none of this number.
    pub fn withdraw(&self, number: i64, now: i64) -> Result<bool, AuthorityError> {
        Ok(self.index().withdraw(number, now, self.operator())?)
    }

    fn request_of(&self, invitation: &Invitation, now: i64) -> IssueRequest {
        let principal = invitation.principal.clone();
        let mut request = IssueRequest::new(Purpose::Client, principal, now)
            .with_groups(invitation.groups.iter().cloned());
        request.not_after = self.capped(now.saturating_add(invitation.validity.whole_seconds()));
        request
    }

    /// `end`, or the authority's own if that is sooner: nobody is locked out by its last year.
    fn capped(&self, end: i64) -> i64 {
        self.not_after().min(end)
    }
}

/// What a code says of the gateway with this certificate, in DER: the beginning of the SHA-256 of its
/// SubjectPublicKeyInfo, which stays when the certificate is renewed for the same key.
pub fn pin(certificate: &[u8]) -> Option<[u8; 16]> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let hash = digest(&SHA256, certificate.public_key().raw);
    hash.as_ref().get(..16)?.try_into().ok()
}

/// Why a code got no certificate.
#[derive(Debug, Error)]
pub enum RedeemError {
    /// There never was such a code.
    #[error("there is no invitation with this code")]
    Unknown,
    /// Somebody has its certificate.
    #[error("the code has been used")]
    Used,
    /// Too late.
    #[error("the code has expired")]
    Expired,
    /// The operator took it back.
    #[error("the invitation was withdrawn")]
    Withdrawn,
    /// The device asks for something it may not have.
    #[error(transparent)]
    Request(RequestError),
    /// The authority cannot.
    #[error(transparent)]
    Authority(AuthorityError),
}

impl From<AuthorityError> for RedeemError {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Request(error) => Self::Request(error),
            other => Self::Authority(other),
        }
    }
}

impl From<IndexError> for RedeemError {
    fn from(error: IndexError) -> Self {
        Self::Authority(error.into())
    }
}

/// What is kept of a secret: 128 random bits need no salt and no slow hash.
fn fingerprint(secret: &[u8; 16]) -> Vec<u8> {
    digest(&SHA256, secret).as_ref().to_vec()
}

/// Whether the certificate of `entry` has the key of `csr`.
fn is_for(entry: &Entry, csr: &CertificateRequest) -> bool {
    X509Certificate::from_der(&entry.certificate)
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == csr.public_key_der())
}
