//! A gateway that is known by its key alone, while a machine has no authority to believe yet.
//!
//! The key is the first sixteen bytes of SHA-256 over the SubjectPublicKeyInfo of the gateway's
//! certificate (as RFC 7469 §2.4 pins keys, cut: a second key of the same pin is 2^128 tries away).
//! Name and time are checked as well, though nothing hangs on them yet: a profile for another name, or on
//! a machine whose clock is wrong, would not work, and the code would be spent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adit_core::close::WRONG_KEY;
use adit_core::identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::revocation::KeyHash;

/// What a gateway is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayKey([u8; PIN]);

impl GatewayKey {
    /// The key that a code names.
    #[must_use]
    pub const fn new(pin: [u8; PIN]) -> Self {
        Self(pin)
    }

    /// The key of a gateway's certificate; `None` when it cannot be read.
    #[must_use]
    pub fn of_certificate(certificate: &[u8]) -> Option<Self> {
        let KeyHash(hash) = KeyHash::of(certificate)?;
        hash.first_chunk().copied().map(Self)
    }

    pub(super) fn verifier(self, provider: &Arc<CryptoProvider>) -> PinnedVerifier {
        PinnedVerifier {
            key: self,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

/// Accepts whoever proves to have the key.
#[derive(Debug)]
pub(super) struct PinnedVerifier {
    key: GatewayKey,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if GatewayKey::of_certificate(end_entity) != Some(self.key) {
            let error = CertificateError::Other(OtherError(Arc::new(WrongKey)));
            return Err(Error::InvalidCertificate(error));
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let card = identity::card(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let unix = |seconds: i64| {
            let seconds = u64::try_from(seconds).unwrap_or_default();
            UnixTime::since_unix_epoch(Duration::from_secs(seconds))
        };
        let (not_before, not_after) = (unix(card.not_before), unix(card.not_after));
        if now < not_before {
            let error = CertificateError::NotValidYetContext {
                time: now,
                not_before,
            };
            return Err(Error::InvalidCertificate(error));
        }
        if now > not_after {
            let error = CertificateError::ExpiredContext {
                time: now,
                not_after,
            };
            return Err(Error::InvalidCertificate(error));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(super::verify::tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

struct WrongKey;

/// rustls shows the cause of a refusal by this.
impl fmt::Debug for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WRONG_KEY)
    }
}

impl fmt::Display for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WRONG_KEY)
    }
}

impl std::error::Error for WrongKey {}

/// Bytes of a pin.
pub const PIN: usize = 16;
