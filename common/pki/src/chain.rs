//! The certificates above a leaf: the authority that issued it, up to the root.
//!
//! Guarantee: a chain that [`Chain::build`] accepted leads by valid signatures from an authority's own
//! certificate to a self-signed one, each of them an authority with room for those below it. What
//! [`Chain::accepts`] accepts is accepted by the other end of the tunnel, because both ask webpki.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::certificate::{self, Purpose};
use crate::description;

/// An authority's certificate and those above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The authority's own first, the root last; a root has one.
    certificates: Vec<Vec<u8>>,
}

impl Chain {
    /// The chain of an authority whose own certificate is `own`; `above` leads from the next one to
    /// the root and is empty for a root.
    pub(crate) fn new(own: Vec<u8>, above: Vec<Vec<u8>>) -> Self {
        let mut certificates = vec![own];
        certificates.extend(above);
        Self { certificates }
    }

    /// Finds the chain of the authority with the public key `key` among `given`, in any order, and
    /// checks it for use at `now`, Unix time.
    pub(crate) fn build(given: &[Vec<u8>], key: &[u8], now: i64) -> Result<Self, ChainError> {
        let parsed: Vec<X509Certificate<'_>> = given
            .iter()
            .map(|der| X509Certificate::from_der(der).map(|(_, parsed)| parsed))
            .collect::<Result<_, _>>()
            .map_err(|_| ChainError::Encoding)?;
        let own = parsed
            .iter()
            .find(|certificate| certificate.public_key().raw == key)
            .ok_or(ChainError::NotOurs)?;
        let mut path = vec![own];
        let mut last = own;
        // RFC 5280 §6.1: from issuer to issuer, until one is its own.
        while last.subject().as_raw() != last.issuer().as_raw() {
            let issuer = parsed
                .iter()
                .find(|candidate| description::is_issued_by(last, candidate));
            last = issuer.ok_or_else(|| ChainError::Incomplete {
                issuer: description::printable(&last.issuer().to_string()),
            })?;
            if path.len() == MAX_LENGTH {
                return Err(ChainError::TooLong);
            }
            path.push(last);
        }
        last.verify_signature(None)
            .map_err(|_| ChainError::Signature)?;
        for (below, certificate) in path.iter().enumerate() {
            check(certificate, below, now)?;
        }
        if path.len() == 1 {
            return Err(ChainError::Root);
        }
        let der = |certificate: &&X509Certificate<'_>| certificate.as_raw().to_vec();
        Ok(Self {
            certificates: path.iter().map(der).collect(),
        })
    }

    /// The authority's own certificate.
    pub(crate) fn own(&self) -> &[u8] {
        self.certificates.first().map_or(&[], Vec::as_slice)
    }

    /// The certificate that the other end must know.
    pub(crate) fn root(&self) -> &[u8] {
        self.certificates.last().map_or(&[], Vec::as_slice)
    }

    /// What is sent along with a leaf.
    pub(crate) fn intermediates(&self) -> &[Vec<u8>] {
        let count = self.certificates.len().saturating_sub(1);
        &self.certificates[..count]
    }

    /// What stands above the authority's own certificate, the root last.
    pub(crate) fn above(&self) -> &[Vec<u8>] {
        self.certificates.get(1..).unwrap_or_default()
    }

    /// The last second at which all of it is valid, Unix time.
    pub(crate) fn not_after(&self) -> Option<i64> {
        let ends = self.certificates.iter().map(|der| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            Some(certificate.validity().not_after.timestamp())
        });
        ends.min()?
    }

    /// Whether the other end accepts `leaf` for `purpose` at `time`, Unix time.
    pub(crate) fn accepts(
        &self,
        leaf: &[u8],
        purpose: Purpose,
        time: i64,
    ) -> Result<(), webpki::Error> {
        let root = CertificateDer::from(self.root());
        let anchors = [anchor_from_trusted_cert(&root)?];
        let intermediates: Vec<_> = self
            .intermediates()
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let leaf = CertificateDer::from(leaf);
        let usage = match purpose {
            Purpose::Client => KeyUsage::client_auth(),
            Purpose::Gateway | Purpose::Authority => KeyUsage::server_auth(),
        };
        let time = Duration::from_secs(u64::try_from(time).unwrap_or_default());
        EndEntityCert::try_from(&leaf)?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &intermediates,
                UnixTime::since_unix_epoch(time),
                usage,
                None,
                None,
            )
            .map(|_| ())
    }

    /// The certificates that are sent along with a leaf, in PEM.
    pub(crate) fn intermediates_pem(&self) -> String {
        pem(self.intermediates())
    }

    /// The certificates above the authority's own, in PEM.
    pub(crate) fn above_pem(&self) -> String {
        pem(self.above())
    }
}

/// Why certificates are not the chain of an authority.
#[derive(Debug, Error)]
pub enum ChainError {
    /// One cannot be parsed.
    #[error("a certificate is not well-formed")]
    Encoding,
    /// None has the key of the request.
    #[error("no certificate is for the key of this folder")]
    NotOurs,
    /// A certificate in between, or the root, is missing.
    #[error("the certificate of the issuer `{issuer}` is missing")]
    Incomplete {
        /// Its subject.
        issuer: String,
    },
    /// More certificates than both ends would look at.
    #[error("the chain has more than {MAX_LENGTH} certificates")]
    TooLong,
    /// The root did not sign itself.
    #[error("the signature of the root is wrong")]
    Signature,
    /// Nobody but the folder's own key signed it.
    #[error("the certificate is signed with its own key: it is no intermediate")]
    Root,
    /// A leaf, or an authority that may not sign.
    #[error("`{subject}` is no authority that may sign certificates and revocation lists")]
    NotAnAuthority {
        /// Its subject.
        subject: String,
    },
    /// RFC 5280 §4.2.1.9.
    #[error("`{subject}` allows {allowed} authorities below it, not {found}")]
    PathLength {
        /// Its subject.
        subject: String,
        /// How many it allows.
        allowed: u32,
        /// How many there are.
        found: usize,
    },
    /// Now is outside its validity.
    #[error("`{subject}` is not valid now")]
    Validity {
        /// Its subject.
        subject: String,
    },
    /// Its extended key usage.
    #[error("the certificate of the authority is good neither for clients nor for gateways")]
    NoPurpose,
    /// Neither end of the tunnel would accept what it issues.
    #[error("no gateway and no client would accept what this authority issues")]
    Unusable(#[source] webpki::Error),
}

/// Whether `certificate` is an authority with `below` others below it, RFC 5280 §6.1.4.
fn check(certificate: &X509Certificate<'_>, below: usize, now: i64) -> Result<(), ChainError> {
    let subject = || description::printable(&certificate.subject().to_string());
    let usage = certificate.key_usage().ok().flatten();
    // RFC 5280 §4.2.1.3: absent, it allows everything.
    let signs = usage
        .is_none_or(|usage| usage.value.key_cert_sign() && (below > 0 || usage.value.crl_sign()));
    let constraints = certificate.basic_constraints().ok().flatten();
    let Some(constraints) = constraints.filter(|constraints| constraints.value.ca && signs) else {
        return Err(ChainError::NotAnAuthority { subject: subject() });
    };
    if let Some(allowed) = constraints.value.path_len_constraint
        && usize::try_from(allowed).is_ok_and(|allowed| allowed < below)
    {
        return Err(ChainError::PathLength {
            subject: subject(),
            allowed,
            found: below,
        });
    }
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return Err(ChainError::Validity { subject: subject() });
    }
    Ok(())
}

fn pem(certificates: &[Vec<u8>]) -> String {
    certificates
        .iter()
        .map(|der| certificate::pem(der))
        .collect()
}

/// Leaf and six intermediates are what webpki follows; the root makes seven.
const MAX_LENGTH: usize = 7;
