//! Renewals: whoever holds a certificate gets the next one without an operator.
//!
//! Guarantee: the new certificate says what the old one said, for as long, and the old one was this
//! authority's or a [predecessor](crate::predecessor)'s, usable at that time, and its holder was not stopped; the question and the record are
//! one transaction, so that a revocation at the same time leaves no renewed certificate behind.

use thiserror::Error;

use crate::authority::{Authority, AuthorityError};
use crate::certificate::Issued;
use crate::csr::{CertificateRequest, RequestError};
use crate::description;
use crate::index::{Holder, IndexError, State};
use crate::name;
use crate::request::IssueRequest;

impl Authority {
    /// Certifies the key of `csr` with what the certificate `old`, in DER, says. That the caller holds
    /// the key of `old` must be known: from the handshake. `device` replaces what the device was
    /// called so far, `now` is Unix time.
    pub fn renew(
        &self,
        old: &[u8],
        csr: &CertificateRequest,
        device: Option<&str>,
        now: i64,
    ) -> Result<Issued, RenewError> {
        // The same to the last bit is the same certificate, and what is recorded was issued here.
        let fingerprint = description::fingerprint(old);
        let elsewhere = || {
            let mut predecessors = self.predecessors().iter();
            predecessors
                .find_map(|predecessor| predecessor.holder(old).transpose())
                .transpose()
        };
        self.index().renew(&fingerprint, elsewhere, |found| {
            let Holder {
                entry: old,
                stopped,
                life,
            } = found.ok_or(RenewError::Unknown)?;
            match old.state(now) {
                State::Valid => {}
                State::Revoked => return Err(RenewError::Revoked),
                State::Expired | State::NotYetValid => return Err(RenewError::Expired),
            }
            if stopped {
                return Err(RenewError::Stopped);
            }
            let mut request = IssueRequest::new(old.purpose, old.principal.clone(), now)
                .with_groups(old.groups)
                .with_names(old.names.into_iter().filter(|name| *name != old.principal));
            request.not_after = self.capped(request.not_before + life);
            if request.not_after <= old.not_after {
                return Err(RenewError::NothingGained);
            }
            request.device = device.and_then(name::device_as_said).or(old.device);
            let (issued, mut entry) = self.certify_request(csr, &request, now)?;
            entry.issued_by = old.issued_by;
            Ok((issued, entry))
        })
    }
}

/// Why a certificate was not renewed.
#[derive(Debug, Error)]
pub enum RenewError {
    /// Another authority issued it, or nobody did.
    #[error("the certificate is not of this authority")]
    Unknown,
    /// It was taken back.
    #[error("the certificate was revoked")]
    Revoked,
    /// Every certificate of the principal was taken back, and none was issued since.
    #[error("everything of this principal was revoked")]
    Stopped,
    /// Its time is over, or has not come.
    #[error("the certificate is not valid now")]
    Expired,
    /// The authority ends before the new certificate would outlive the old one, or the old one was
    /// just issued.
    #[error("a new certificate would end no later than this one")]
    NothingGained,
    /// The device asks for something it may not have.
    #[error(transparent)]
    Request(RequestError),
    /// The authority cannot.
    #[error(transparent)]
    Authority(AuthorityError),
}

impl From<AuthorityError> for RenewError {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Request(error) => Self::Request(error),
            other => Self::Authority(other),
        }
    }
}

impl From<IndexError> for RenewError {
    fn from(error: IndexError) -> Self {
        Self::Authority(error.into())
    }
}
