//! Who is believed: the gateway's trust anchors for clients, the client's for its gateway.
//!
//! Both verifiers add one check to webpki's: the extended key usage must be *present* and name the
//! right purpose. webpki accepts a certificate without the extension for any purpose, which would
//! let a corporate web-server or mail certificate open the tunnel.

use std::fmt;
use std::sync::Arc;

use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::{self, AuthorityRule, Identity, Purpose};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::TlsError;

/// One certificate authority a gateway accepts clients from, and how to read its certificates.
#[derive(Clone)]
pub struct Authority {
    rule: AuthorityRule,
    anchors: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// An authority that vouches by any of `anchors`.
    ///
    /// # Errors
    /// When there is no anchor or one cannot be used.
    pub fn new(
        rule: AuthorityRule,
        anchors: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let roots = root_store(&rule.name, anchors.clone())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| TlsError::Verifier(error.to_string()))?;
        Ok(Self {
            rule,
            anchors,
            verifier,
        })
    }
}

/// All authorities of a gateway, asked in the order of the configuration.
#[derive(Debug)]
pub struct Authorities {
    authorities: Vec<Authority>,
    hints: Vec<DistinguishedName>,
}

impl Authorities {
    /// Joins authorities into one verifier.
    #[must_use]
    pub fn new(authorities: Vec<Authority>) -> Self {
        let hints = authorities
            .iter()
            .flat_map(|authority| authority.verifier.root_hint_subjects().iter().cloned())
            .collect();
        Self { authorities, hints }
    }

    /// The identity behind a chain that the handshake accepted.
    ///
    /// The authority is found by verifying again, because subject names of anchors may coincide.
    /// With one authority there is nothing to find.
    ///
    /// # Errors
    /// [`identity::IdentityError`] when the names in the certificate are not usable.
    pub fn identify(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Identity, identity::IdentityError> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(identity::IdentityError::Unreadable);
        };
        let authority = match self.authorities.as_slice() {
            [only] => only,
            _ => self
                .voucher(leaf, intermediates, now)
                .map_err(|_| identity::IdentityError::Unreadable)?,
        };
        identity::extract(leaf, &authority.rule)
    }

    /// The identity behind a chain that other authorities accepted: nothing of that counts here.
    ///
    /// # Errors
    /// When no authority vouches for the chain, or the names in the certificate are not usable.
    pub fn vouch(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Identity, Refusal> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Refusal::new(RefusalKind::CertificateRequired, ""));
        };
        let authority = self.voucher(leaf, intermediates, now).map_err(refusal)?;
        Ok(identity::extract(leaf, &authority.rule)?)
    }

    /// Whether these are the same authorities, read by the same rules: then all they said stands.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let parts = |authority: &Authority| (authority.rule.clone(), authority.anchors.clone());
        self.authorities
            .iter()
            .map(parts)
            .eq(other.authorities.iter().map(parts))
    }

    /// The first authority that accepts the chain.
    fn voucher(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<&Authority, Error> {
        let mut refusal = None;
        for authority in &self.authorities {
            match authority
                .verifier
                .verify_client_cert(leaf, intermediates, now)
            {
                Ok(_) => return Ok(authority),
                // "Unknown issuer" only says that this authority is not the one: any other
                // reason comes from the authority that knows the certificate.
                Err(error) if refusal.is_none() || !is_unknown_issuer(&error) => {
                    refusal = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
    }
}

impl ClientCertVerifier for Authorities {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.voucher(end_entity, intermediates, now)?;
        require_purpose(end_entity, Purpose::ClientAuth)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.authorities.first() {
            Some(authority) => authority
                .verifier
                .verify_tls13_signature(message, cert, dss),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities
            .first()
            .map(|authority| authority.verifier.supported_verify_schemes())
            .unwrap_or_default()
    }
}

/// What a client believes: one of its anchors, the gateway's name, and the purpose serverAuth.
#[derive(Debug)]
pub struct GatewayVerifier {
    inner: Arc<WebPkiServerVerifier>,
}

impl GatewayVerifier {
    /// A verifier that trusts `anchors`.
    ///
    /// # Errors
    /// When there is no anchor or one cannot be used.
    pub fn new(
        anchors: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, TlsError> {
        let roots = root_store("gateway", anchors)?;
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| TlsError::Verifier(error.to_string()))?;
        Ok(Arc::new(Self { inner }))
    }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        require_purpose(end_entity, Purpose::ServerAuth)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn root_store(
    authority: &str,
    anchors: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, TlsError> {
    if anchors.is_empty() {
        return Err(TlsError::NoAnchor {
            authority: authority.to_owned(),
        });
    }
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots.add(anchor).map_err(|source| TlsError::Anchor {
            authority: authority.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

fn require_purpose(leaf: &CertificateDer<'_>, purpose: Purpose) -> Result<(), Error> {
    match identity::has_purpose(leaf, purpose) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::InvalidCertificate(CertificateError::InvalidPurpose)),
        Err(_) => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
    }
}

/// The row of the table of refusals for a chain that nobody vouches for.
fn refusal(error: Error) -> Refusal {
    let kind = match &error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                RefusalKind::UnknownAuthority
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                RefusalKind::CertificateExpired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                RefusalKind::CertificateNotYetValid
            }
            CertificateError::Revoked => RefusalKind::CertificateRevoked,
            _ => RefusalKind::BadCertificate,
        },
        _ => RefusalKind::BadCertificate,
    };
    Refusal::new(kind, error.to_string())
}

fn is_unknown_issuer(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
    )
}

fn tls12() -> Error {
    Error::General("QUIC knows no TLS 1.2".to_owned())
}
