//! rustls as the cryptographic session of quinn-proto.
//!
//! quinn-proto brings such a binding; this one differs in what it tells: the negotiated cipher
//! suite and key-exchange group, which an operator wants to see in `status`. QUIC version 1 only.

use std::any::Any;
use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use adit_core::status::ClientCertificate;
use quinn_proto::crypto::{self, ExportKeyingMaterialError, KeyPair, Keys, UnsupportedVersion};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::quic::{Connection, KeyChange, Secrets, Suite, Version};
use rustls::{AlertDescription, CipherSuite, NamedGroup};

use super::{Authorities, TlsError, retry};
use crate::handover;

/// What the handshake negotiated; quinn-proto hands it out as `handshake_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeFacts {
    /// The record cipher.
    pub cipher: Option<CipherSuite>,
    /// The key-exchange group.
    pub group: Option<NamedGroup>,
}

/// The certificates a peer has shown, leaf first; quinn-proto hands it out as `peer_identity`.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// They were accepted, and the peer has proved that it has the key.
    Proven(Vec<CertificateDer<'static>>),
    /// They were not, which ended the handshake before any proof.
    Refused(Vec<CertificateDer<'static>>),
}

/// The gateway's side.
pub struct QuicServer {
    config: Arc<rustls::ServerConfig>,
    authorities: Arc<Authorities>,
    initial: Suite,
}

/// The client's side.
pub struct QuicClient {
    config: Arc<rustls::ClientConfig>,
    certificate: ClientCertificate,
    initial: Suite,
}

impl QuicServer {
    /// The verifier in `config` must be these `authorities`.
    pub(super) fn new(
        config: Arc<rustls::ServerConfig>,
        authorities: Arc<Authorities>,
    ) -> Result<Self, TlsError> {
        let initial = initial_suite(config.crypto_provider())?;
        Ok(Self {
            config,
            authorities,
            initial,
        })
    }
}

impl fmt::Debug for QuicClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicClient")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl QuicClient {
    /// `certificate` is of the chain in `config`.
    pub(super) fn new(
        config: Arc<rustls::ClientConfig>,
        certificate: ClientCertificate,
    ) -> Result<Self, TlsError> {
        let initial = initial_suite(config.crypto_provider())?;
        Ok(Self {
            config,
            certificate,
            initial,
        })
    }

    /// What there is to tell of the certificate it shows.
    #[must_use]
    pub fn certificate(&self) -> &ClientCertificate {
        &self.certificate
    }
}

impl crypto::ServerConfig for QuicServer {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        if version != QUIC_V1 {
            return Err(UnsupportedVersion);
        }
        Ok(initial_keys(&self.initial, dst_cid, Side::Server))
    }

    fn retry_tag(&self, _version: u32, original: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        retry::tag(original, packet)
    }

    fn start_session(
        self: Arc<Self>,
        _version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        let connection = rustls::quic::ServerConnection::new(
            Arc::clone(&self.config),
            Version::V1,
            encoded(params),
        )
        .expect("TLS 1.3 is enabled and early data off, the only conditions");
        let mut session = TlsSession::new(connection.into(), self.initial);
        session.authorities = Some(Arc::clone(&self.authorities));
        Box::new(session)
    }
}

impl crypto::ClientConfig for QuicClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        if version != QUIC_V1 {
            return Err(ConnectError::UnsupportedVersion);
        }
        let name = ServerName::try_from(server_name)
            .map_err(|_| ConnectError::InvalidServerName(server_name.into()))?
            .to_owned();
        let connection = rustls::quic::ClientConnection::new(
            Arc::clone(&self.config),
            Version::V1,
            name,
            encoded(params),
        )
        .map_err(|_| ConnectError::EndpointStopping)?;
        Ok(Box::new(TlsSession::new(connection.into(), self.initial)))
    }
}

struct TlsSession {
    /// `None` at a gateway whose handshake is over: see [`TlsSession::let_go`].
    connection: Option<Connection>,
    side: Side,
    initial: Suite,
    next: Option<Secrets>,
    /// Known when the handshake is over.
    facts: Option<HandshakeFacts>,
    /// The peer's certificates, when the connection is gone that had them.
    chain: Vec<CertificateDer<'static>>,
    /// What is exported for a handover, when that connection is gone.
    secret: Option<[u8; handover::SECRET]>,
    /// Who judges the peer's certificates, at a gateway whose handshake is not over.
    authorities: Option<Arc<Authorities>>,
    /// What they refused.
    refused: Vec<CertificateDer<'static>>,
}

impl TlsSession {
    fn new(connection: Connection, initial: Suite) -> Self {
        Self {
            side: match connection {
                Connection::Client(_) => Side::Client,
                Connection::Server(_) => Side::Server,
            },
            connection: Some(connection),
            initial,
            next: None,
            facts: None,
            chain: Vec::new(),
            secret: None,
            authorities: None,
            refused: Vec::new(),
        }
    }

    /// Frees what rustls keeps of a handshake that is over: some six kilobytes of buffers, record keys that
    /// QUIC has no use for, and the transcript, for as long as the session lasts.
    ///
    /// A gateway's part is over when the client's Finished has been read and there is nothing to say to it:
    /// it sends no tickets, and QUIC allows a client no further message (RFC 9001 §4.4, §6).
    fn let_go(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.chain = chain(&connection);
            let secret = [0; handover::SECRET];
            let secret = connection.export_keying_material(secret, handover::LABEL, Some(&[]));
            self.secret = secret.ok();
            self.authorities = None;
        }
    }
}

impl crypto::Session for TlsSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(&self.initial, dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.facts?))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        if !self.refused.is_empty() {
            return Some(Box::new(Shown::Refused(self.refused.clone())));
        }
        let chain = match &self.connection {
            Some(connection) => chain(connection),
            None => self.chain.clone(),
        };
        (!chain.is_empty()).then(|| Box::new(Shown::Proven(chain)) as Box<dyn Any>)
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn crypto::PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.side.is_client().then_some(false)
    }

    fn is_handshaking(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.is_handshaking())
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let Some(connection) = &mut self.connection else {
            return Err(TransportError {
                code: TransportErrorCode::crypto(AlertDescription::UnexpectedMessage.into()),
                frame: None,
                reason: "a message after the handshake".to_owned(),
            });
        };
        if let Err(error) = connection.read_hs(buf) {
            if let Some(authorities) = &self.authorities {
                self.refused = authorities.take_refused();
            }
            return Err(match connection.alert() {
                Some(alert) => TransportError {
                    code: TransportErrorCode::crypto(alert.into()),
                    frame: None,
                    reason: shortened(error.to_string()),
                },
                None => TransportError {
                    code: TransportErrorCode::PROTOCOL_VIOLATION,
                    frame: None,
                    reason: shortened(format!("TLS error: {error}")),
                },
            });
        }
        if self.facts.is_some() || connection.is_handshaking() {
            return Ok(false);
        }
        self.facts = Some(HandshakeFacts {
            cipher: connection
                .negotiated_cipher_suite()
                .map(|suite| suite.suite()),
            group: connection
                .negotiated_key_exchange_group()
                .map(|group| group.name()),
        });
        Ok(true)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let connection = self.connection.as_ref();
        match connection.and_then(|connection| connection.quic_transport_parameters()) {
            None => Ok(None),
            Some(bytes) => TransportParameters::read(self.side, &mut Cursor::new(bytes))
                .map(Some)
                .map_err(Into::into),
        }
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let before = buf.len();
        let Some(change) = self.connection.as_mut()?.write_hs(buf) else {
            if self.side.is_server() && self.facts.is_some() && buf.len() == before {
                self.let_go();
            }
            return None;
        };
        let keys = match change {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                self.next = Some(next);
                keys
            }
        };
        Some(boxed(keys))
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn crypto::PacketKey>>> {
        let keys = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair {
            local: Box::new(keys.local),
            remote: Box::new(keys.remote),
        })
    }

    fn is_valid_retry(&self, original: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        retry::is_valid(original, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        if let Some(connection) = &self.connection {
            return connection
                .export_keying_material(output, label, Some(context))
                .map(|_| ())
                .map_err(|_| ExportKeyingMaterialError);
        }
        // Nothing else is asked of a connection that was let go.
        match &self.secret {
            Some(secret) if label == handover::LABEL && output.len() == secret.len() => {
                output.copy_from_slice(secret);
                Ok(())
            }
            Some(_) | None => Err(ExportKeyingMaterialError),
        }
    }
}

/// What the peer has shown, leaf first.
fn chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect()
}

/// Initial packets are always protected with AES-128-GCM (RFC 9001 §5.2).
fn initial_suite(provider: &rustls::crypto::CryptoProvider) -> Result<Suite, TlsError> {
    provider
        .cipher_suites
        .iter()
        .filter(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
        .find_map(|suite| suite.tls13().and_then(|tls13| tls13.quic_suite()))
        .ok_or(TlsError::NoInitialSuite)
}

fn initial_keys(suite: &Suite, dst_cid: &ConnectionId, side: Side) -> Keys {
    let side = match side {
        Side::Client => rustls::Side::Client,
        Side::Server => rustls::Side::Server,
    };
    boxed(suite.keys(dst_cid, side, Version::V1))
}

fn boxed(keys: rustls::quic::Keys) -> Keys {
    Keys {
        header: KeyPair {
            local: Box::new(keys.local.header),
            remote: Box::new(keys.remote.header),
        },
        packet: KeyPair {
            local: Box::new(keys.local.packet),
            remote: Box::new(keys.remote.packet),
        },
    }
}

fn encoded(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    bytes
}

/// RFC 9000 §15.
const QUIC_V1: u32 = 1;

/// The reason for a close as it goes into its frame. quinn-proto 0.11 says farewell once per packet number space, and when
/// the first fills a datagram it begins again without end: what a peer shows must not make the reason that long.
fn shortened(mut reason: String) -> String {
    let fits = (0..=reason.len().min(MAX_REASON)).rfind(|&end| reason.is_char_boundary(end));
    reason.truncate(fits.unwrap_or_default());
    reason
}

/// Bytes: a sentence or two, of which two fit the smallest datagram.
const MAX_REASON: usize = 256;
