//! TLS 1.3 for QUIC: which algorithms, who is believed, and nothing that resumes.
//!
//! Session tickets and early data are off on both sides: on resumption rustls copies the stored
//! client chain and verifies nothing again, so a revoked certificate would get back in.

use std::fmt;
use std::sync::Arc;

use adit_core::identity;
use adit_core::status::ClientCertificate;
use rustls::client::WantsClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ConfigBuilder, ServerConfig, SupportedCipherSuite};

mod anchor;
mod chain;
mod pinned;
mod retry;
mod revocation;
mod session;
mod signature;
mod verify;

pub use chain::ChainRefusal;
pub use pinned::{GatewayKey, PIN};
pub use revocation::{CrlPolicy, KeyHash, ListRefusal, NotAKeyHash, SignedList};
pub(crate) use session::Shown;
pub use session::{HandshakeFacts, QuicClient, QuicServer};
pub use signature::leads_to;
pub use verify::{Authorities, Authority, ClientAuth, GatewayVerifier};

/// A certificate chain (leaf first) and its private key.
#[derive(Debug)]
pub struct Credentials {
    /// Leaf first, then the intermediates that lead to a trust anchor of the peer.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// Why a TLS configuration cannot be built from what the operator gave.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate and the key do not fit together, or the key type is unsupported.
    #[error("the certificate chain and private key cannot be used")]
    Credentials(#[source] rustls::Error),
    /// The other side would not look at the chain.
    #[error("the certificate chain cannot be used")]
    Chain(#[from] ChainRefusal),
    /// A certificate of a trust anchor is not usable as one.
    #[error("trust anchor of authority `{authority}` cannot be used")]
    Anchor {
        /// The authority's name in the configuration.
        authority: String,
        /// What rustls or webpki said.
        #[source]
        source: rustls::Error,
    },
    /// An authority without a single certificate would refuse everybody.
    #[error("authority `{authority}` has no certificate")]
    NoAnchor {
        /// The authority's name in the configuration.
        authority: String,
    },
    /// Every client would be refused.
    #[error("authority `{authority}` has the policy \"hard\" and no revocation list")]
    NoList {
        /// The authority's name in the configuration.
        authority: String,
    },
    /// One of them would not be read.
    #[error("authority `{authority}` has two revocation lists of {issuer}")]
    SecondList {
        /// The authority's name in the configuration.
        authority: String,
        /// Who signed both.
        issuer: String,
    },
    /// The verifier could not be built.
    #[error("the certificate verifier cannot be built: {0}")]
    Verifier(String),
    /// No cipher suite of the provider can protect QUIC Initial packets.
    #[error("the TLS provider lacks TLS_AES_128_GCM_SHA256, which QUIC needs")]
    NoInitialSuite,
}

/// The library whose AEAD seals the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordBackend {
    /// AWS-LC: vectorised AES-GCM where the CPU has AVX-512.
    AwsLc,
    /// ring: vectorised AES-GCM already with AVX2.
    Ring,
}

/// What decides the choice of algorithms: a property of this machine's CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms {
    /// Where the record cipher comes from.
    pub backend: RecordBackend,
    /// AES-GCM first; without AES instructions ChaCha20-Poly1305 is the faster cipher.
    pub aes_first: bool,
}

impl fmt::Display for Algorithms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cipher = if self.aes_first {
            "AES-128-GCM"
        } else {
            "ChaCha20-Poly1305"
        };
        let backend = match self.backend {
            RecordBackend::AwsLc => "AWS-LC",
            RecordBackend::Ring => "ring",
        };
        write!(f, "{cipher} first, by {backend}")
    }
}

impl Algorithms {
    /// Chooses by CPU features: aws-lc has VAES code only for AVX-512, ring has it for AVX2.
    #[must_use]
    pub fn for_this_cpu() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl");
            let vaes = std::arch::is_x86_feature_detected!("vaes")
                && std::arch::is_x86_feature_detected!("vpclmulqdq")
                && std::arch::is_x86_feature_detected!("avx2");
            Self {
                backend: if vaes && !avx512 {
                    RecordBackend::Ring
                } else {
                    RecordBackend::AwsLc
                },
                aes_first: std::arch::is_x86_feature_detected!("aes"),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self {
            backend: RecordBackend::AwsLc,
            aes_first: true,
        }
    }

    /// The provider: record ciphers of the chosen backend; key exchange, signatures and
    /// randomness always of AWS-LC, which has the post-quantum hybrid X25519MLKEM768.
    #[must_use]
    pub fn provider(self) -> CryptoProvider {
        let mut provider = aws_lc_rs::default_provider();
        let (aes128, aes256, chacha): (
            SupportedCipherSuite,
            SupportedCipherSuite,
            SupportedCipherSuite,
        ) = match self.backend {
            RecordBackend::AwsLc => (
                aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
                aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ),
            RecordBackend::Ring => (
                ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
                ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
                ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ),
        };
        provider.cipher_suites = if self.aes_first {
            vec![aes128, aes256, chacha]
        } else {
            vec![chacha, aes128, aes256]
        };
        provider
    }
}

/// The gateway's TLS configuration.
///
/// # Errors
/// When the gateway's own certificate and key cannot be used.
pub fn gateway_config(
    algorithms: Algorithms,
    credentials: Credentials,
    authorities: &Arc<Authorities>,
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<QuicServer>, TlsError> {
    chain::measured(&credentials.chain)?;
    let provider = Arc::new(algorithms.provider());
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Credentials)?
        .with_client_cert_verifier(Arc::clone(authorities) as _)
        .with_single_cert(credentials.chain, credentials.key)
        .map_err(TlsError::Credentials)?;
    config.alpn_protocols = vec![ALPN_H3.to_vec()];
    // A client that puts ChaCha20 first has no AES instructions; any other gets our first choice.
    config.ignore_client_order = false;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServer::new(Arc::new(config), Arc::clone(authorities)).map(Arc::new)
}

/// The client's TLS configuration: the gateway is verified by name, chain and purpose.
///
/// # Errors
/// When the client's own certificate and key cannot be used.
pub fn client_config(
    algorithms: Algorithms,
    credentials: Credentials,
    verifier: Arc<GatewayVerifier>,
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<QuicClient>, TlsError> {
    chain::measured(&credentials.chain)?;
    let provider = Arc::new(algorithms.provider());
    let certificate = certificate(&credentials.chain);
    let config = verifying(provider, verifier, time)?
        .with_client_auth_cert(credentials.chain, credentials.key)
        .map_err(TlsError::Credentials)?;
    quic_client(config, certificate)
}

/// What there is to tell of a client's chain: it ends with the first of its certificates. One that cannot be read is
/// the gateway's to refuse.
fn certificate(chain: &[CertificateDer<'_>]) -> ClientCertificate {
    let card = |certificate: &CertificateDer<'_>| identity::card(certificate).ok();
    let leaf = chain.first().and_then(card);
    ClientCertificate {
        serial: leaf.map(|leaf| leaf.serial).unwrap_or_default(),
        not_after: chain
            .iter()
            .filter_map(card)
            .map(|card| card.not_after)
            .min()
            .unwrap_or_default(),
    }
}

/// The TLS configuration of a machine without a certificate: the gateway is known by its key alone.
///
/// # Errors
/// When the library refuses its own algorithms.
pub fn enrolment_config(
    algorithms: Algorithms,
    key: GatewayKey,
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<QuicClient>, TlsError> {
    let provider = Arc::new(algorithms.provider());
    let verifier = Arc::new(key.verifier(&provider));
    let config = verifying(provider, verifier, time)?.with_no_client_auth();
    quic_client(config, certificate(&[]))
}

/// What a client believes of its gateway; what it shows itself is still to be said.
fn verifying(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    time: Arc<dyn TimeProvider>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Credentials)?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

/// What every client has in common: HTTP/3, and nothing that resumes.
fn quic_client(
    mut config: ClientConfig,
    certificate: ClientCertificate,
) -> Result<Arc<QuicClient>, TlsError> {
    config.alpn_protocols = vec![ALPN_H3.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    QuicClient::new(Arc::new(config), certificate).map(Arc::new)
}

/// ALPN protocol id of HTTP/3 (RFC 9114 §3.1).
pub const ALPN_H3: &[u8] = b"h3";
