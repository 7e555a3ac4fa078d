//! Clients without a certificate, where the operator lets them ask for one.
//!
//! A client that shows a certificate is judged as ever: showing a bad one is no way in. One that shows
//! none gets through the handshake and has no identity, so that no session can be its own.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::Authorities;
use rustls::client::danger::HandshakeSignatureValid;

/// [`Authorities`], asked only about certificates that are shown.
#[derive(Debug)]
pub(super) struct AnonymousToo {
    authorities: Arc<Authorities>,
}

impl AnonymousToo {
    pub(super) const fn new(authorities: Arc<Authorities>) -> Self {
        Self { authorities }
    }
}

impl ClientCertVerifier for AnonymousToo {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.authorities
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
