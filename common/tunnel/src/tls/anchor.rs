//! One trust anchor: the path from a client's certificate up to it, and what the revocation lists say of each step.
//!
//! webpki finds a list by its issuer's name and takes the first one of that name. An intermediate that is replaced
//! keeps its name and gets another key: the list of the one would be asked about what the other issued, its signature
//! would not fit, and everybody would be refused. So webpki finds and verifies the path, and the lists are asked here:
//! one speaks for what was issued by its signer's name *and* key (RFC 5280 §6.3.3), and for nothing else.

use std::sync::Arc;

use adit_core::identity::revocation::Signer;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::{CertificateError, DistinguishedName, Error, OtherError};
use webpki::{Cert, EndEntityCert, KeyUsage, VerifiedPath};

use super::TlsError;
use super::revocation::{CrlPolicy, SignedList};
use super::signature::SignerId;
use super::verify::root_store;

/// A trust anchor for clients.
#[derive(Clone, Debug)]
pub(super) struct Anchor {
    trust: TrustAnchor<'static>,
    name: DistinguishedName,
    /// As whose its own lists are known; `None` when nobody could tell, and no list is its own.
    signer: Option<SignerId>,
}

/// What is asked about revocations.
#[derive(Clone, Copy)]
pub(super) struct Lists<'a> {
    pub(super) lists: &'a [SignedList],
    /// What the want of a fresh list means.
    pub(super) policy: CrlPolicy,
}

impl Anchor {
    /// Makes a certificate a trust anchor of `authority`.
    ///
    /// # Errors
    /// When it cannot be used as one.
    pub(super) fn new(authority: &str, der: &CertificateDer<'static>) -> Result<Self, TlsError> {
        let mut roots = root_store(authority, vec![der.clone()])?;
        let name = roots.subjects().into_iter().next();
        let (Some(trust), Some(name)) = (roots.roots.pop(), name) else {
            return Err(TlsError::NoAnchor {
                authority: authority.to_owned(),
            });
        };
        Ok(Self {
            trust,
            name,
            signer: Signer::read(der).as_ref().map(SignerId::of),
        })
    }

    /// Its subject, by which a client may choose its certificate.
    pub(super) fn name(&self) -> &DistinguishedName {
        &self.name
    }

    /// Whether a client's certificate leads here at `now`, by a path of which nothing is revoked.
    ///
    /// # Errors
    /// What is wrong with the path that came closest.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        lists: Lists<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let ask = |path: &VerifiedPath<'_>| self.ask(path, now, lists);
        let leaf = EndEntityCert::try_from(leaf).map_err(refusal)?;
        leaf.verify_for_usage(
            algorithms.all,
            std::slice::from_ref(&self.trust),
            intermediates,
            now,
            KeyUsage::client_auth(),
            None,
            Some(&ask),
        )
        .map(|_| ())
        .map_err(refusal)
    }

    /// Asks about the leaf and each intermediate of a path the list of whoever issued it.
    fn ask(
        &self,
        path: &VerifiedPath<'_>,
        now: UnixTime,
        lists: Lists<'_>,
    ) -> Result<(), webpki::Error> {
        if lists.lists.is_empty() && lists.policy == CrlPolicy::Soft {
            return Ok(());
        }
        let leaf: &Cert<'_> = path.end_entity();
        let certificates = std::iter::once(leaf).chain(path.intermediate_certificates());
        let mut issuers = path.intermediate_certificates();
        let mut want = None;
        for certificate in certificates {
            let issuer = match issuers.next() {
                Some(issuer) => Signer::read(&issuer.der()).as_ref().map(SignerId::of),
                None => self.signer,
            };
            match lists.ask(certificate.serial(), issuer, now) {
                Ok(()) => {}
                Err(webpki::Error::CertRevoked) => return Err(webpki::Error::CertRevoked),
                // Further up there may be a better reason.
                Err(error) => want = Some(error),
            }
        }
        want.map_or(Ok(()), Err)
    }
}

impl Lists<'_> {
    /// What the list of `issuer` says of a serial number.
    fn ask(
        self,
        serial: &[u8],
        issuer: Option<SignerId>,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let mut lists = self.lists.iter();
        let list = lists.find(|list| Some(list.signer_id()) == issuer);
        match (list, self.policy) {
            (Some(list), _) if list.revokes(serial) => Err(webpki::Error::CertRevoked),
            (Some(list), CrlPolicy::Hard) => match list.next_update() {
                next_update if now < next_update => Ok(()),
                next_update => Err(webpki::Error::CrlExpired {
                    time: now,
                    next_update,
                }),
            },
            (None, CrlPolicy::Hard) => Err(webpki::Error::UnknownRevocationStatus),
            (_, CrlPolicy::Soft) => Ok(()),
        }
    }
}

/// What webpki says, in the words of rustls, which makes an alert of it.
fn refusal(error: webpki::Error) -> Error {
    use webpki::Error as Cause;
    Error::InvalidCertificate(match error {
        Cause::BadDer | Cause::BadDerTime | Cause::TrailingData(_) => CertificateError::BadEncoding,
        Cause::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Cause::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        Cause::InvalidCertValidity => CertificateError::Expired,
        Cause::UnknownIssuer => CertificateError::UnknownIssuer,
        Cause::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Cause::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        Cause::CertRevoked => CertificateError::Revoked,
        Cause::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        Cause::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}
