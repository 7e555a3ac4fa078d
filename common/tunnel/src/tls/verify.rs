//! Who is believed: the gateway's trust anchors for clients, the client's for its gateway.
//!
//! Both verifiers add to webpki's checks. Before: a chain may be so long and so large, and each issuer in it must be one
//! ([`chain`]). After: the extended key usage must be *present* and name the right purpose. webpki accepts a certificate
//! without the extension for any purpose, which would let a corporate web-server or mail certificate open the tunnel.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::{self, AuthorityRule, Identity, Purpose};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::TlsError;
use super::anchor::{Anchor, Lists};
use super::chain;
use super::revocation::{CrlPolicy, KeyHash, ListRefusal, SignedList};

/// One certificate authority a gateway accepts clients from, how to read its certificates, and
/// which of them it revoked.
#[derive(Clone)]
pub struct Authority {
    rule: AuthorityRule,
    anchors: Vec<CertificateDer<'static>>,
    policy: CrlPolicy,
    lists: Vec<SignedList>,
    /// No certificate with one of these keys is accepted, nor one below it.
    revoked_keys: BTreeSet<KeyHash>,
    /// The anchors, to be asked.
    trusted: Vec<Anchor>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("rule", &self.rule)
            .field("policy", &self.policy)
            .field("lists", &self.lists)
            .field("revoked_keys", &self.revoked_keys)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// An authority that vouches by any of `anchors` and revokes nothing.
    ///
    /// # Errors
    /// When there is no anchor or one cannot be used.
    pub fn new(
        rule: AuthorityRule,
        anchors: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        if anchors.is_empty() {
            let authority = rule.name;
            return Err(TlsError::NoAnchor { authority });
        }
        let trusted = anchors.iter().map(|der| Anchor::new(&rule.name, der));
        Ok(Self {
            trusted: trusted.collect::<Result<_, _>>()?,
            rule,
            anchors,
            policy: CrlPolicy::Soft,
            lists: Vec::new(),
            revoked_keys: BTreeSet::new(),
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// Checks that a list is one of this authority: that one of its anchors signed it, or one of
    /// the intermediates in `beside`, of which each was issued by an anchor or by one before it.
    ///
    /// # Errors
    /// When it is not, or does not speak for the whole of its issuer.
    pub fn read_list(
        &self,
        list: CertificateRevocationListDer<'static>,
        beside: &[CertificateDer<'_>],
    ) -> Result<SignedList, ListRefusal> {
        SignedList::read(list, &self.anchors, beside, &self.algorithms)
    }

    /// The same authority with these lists instead of those it had.
    ///
    /// # Errors
    /// When two lists are of one signer, or there is none and the policy is hard.
    pub fn revoking(&self, policy: CrlPolicy, lists: Vec<SignedList>) -> Result<Self, TlsError> {
        let authority = || self.rule.name.clone();
        if policy == CrlPolicy::Hard && lists.is_empty() {
            return Err(TlsError::NoList {
                authority: authority(),
            });
        }
        for (index, list) in lists.iter().enumerate() {
            if lists[..index]
                .iter()
                .any(|other| other.signer() == list.signer())
            {
                return Err(TlsError::SecondList {
                    authority: authority(),
                    issuer: list.facts().issuer_name.clone(),
                });
            }
        }
        Ok(Self {
            policy,
            lists,
            ..self.clone()
        })
    }

    /// The same authority, which accepts no chain with one of these keys in it: that of a leaf, or of an
    /// intermediate, in whatever certificates that has.
    #[must_use]
    pub fn refusing_keys(self, keys: BTreeSet<KeyHash>) -> Self {
        Self {
            revoked_keys: keys,
            ..self
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.rule.name
    }

    /// Its own certificates.
    #[must_use]
    pub fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.anchors
    }

    /// What the want of a fresh list means.
    #[must_use]
    pub fn policy(&self) -> CrlPolicy {
        self.policy
    }

    /// Its revocation lists.
    #[must_use]
    pub fn lists(&self) -> &[SignedList] {
        &self.lists
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        newcomer: bool,
    ) -> Result<(), Error> {
        let lists = Lists {
            lists: &self.lists,
            // No want of a fresh list ends what is open.
            policy: if newcomer {
                self.policy
            } else {
                CrlPolicy::Soft
            },
        };
        self.lead(leaf, intermediates, now, lists)?;
        if self.revoked_keys.is_empty() {
            return Ok(());
        }
        // Another path might do without an intermediate that is shown; but who shows it, trusts it.
        for certificate in std::iter::once(leaf).chain(intermediates) {
            let error = match KeyHash::of(certificate) {
                Some(key) if !self.revoked_keys.contains(&key) => continue,
                Some(_) => CertificateError::Revoked,
                None => CertificateError::BadEncoding,
            };
            return Err(Error::InvalidCertificate(error));
        }
        Ok(())
    }

    /// Whether it revoked anything: then it is asked about chains that others vouch for, too.
    fn revokes(&self) -> bool {
        !self.lists.is_empty() || !self.revoked_keys.is_empty()
    }

    /// The identity in a chain that the authority signed, whether or not its time is over or it was revoked.
    fn recognise(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Identity> {
        chain::examined(leaf, intermediates).ok()?;
        let identity = identity::extract(leaf, &self.rule).ok()?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        // Not `clamp`, which panics where a certificate begins after its end.
        let then = now.min(identity.not_after).max(identity.not_before);
        let then = u64::try_from(then).unwrap_or_default();
        let then = UnixTime::since_unix_epoch(Duration::from_secs(then));
        let no_lists = Lists {
            lists: &[],
            policy: CrlPolicy::Soft,
        };
        let led = self.lead(leaf, intermediates, then, no_lists);
        led.is_ok().then_some(identity)
    }

    /// Whether the chain leads to an anchor.
    fn lead(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        lists: Lists<'_>,
    ) -> Result<(), Error> {
        let anchors = self.trusted.iter();
        joined(
            anchors.map(|anchor| anchor.verify(leaf, intermediates, now, lists, &self.algorithms)),
        )
    }
}

/// Whether a client may come without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It may not: the handshake fails.
    Mandatory,
    /// It may, to ask for one: it has no identity, so that no session can be its own. Showing a bad one is no way in.
    Optional,
}

/// All authorities of a gateway, asked in the order of the configuration.
#[derive(Debug)]
pub struct Authorities {
    authorities: Vec<Authority>,
    clients: ClientAuth,
    hints: Vec<DistinguishedName>,
    /// The chain that was refused last, which rustls does not keep. The thread of that handshake takes it.
    refused: Mutex<Vec<CertificateDer<'static>>>,
}

impl Authorities {
    /// Joins authorities into one verifier.
    #[must_use]
    pub fn new(authorities: Vec<Authority>, clients: ClientAuth) -> Self {
        let hints = authorities
            .iter()
            .flat_map(|authority| &authority.trusted)
            .map(|anchor| anchor.name().clone())
            .collect();
        Self {
            authorities,
            clients,
            hints,
            refused: Mutex::default(),
        }
    }

    /// Each of them, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> &[Authority] {
        &self.authorities
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
                .voucher(leaf, intermediates, now, true)
                .map_err(|_| identity::IdentityError::Unreadable)?,
        };
        identity::extract(leaf, &authority.rule)
    }

    /// The identity behind a newcomer's chain that other authorities accepted: nothing of that counts here.
    ///
    /// # Errors
    /// When no authority vouches for the chain, or the names in the certificate are not usable.
    pub fn vouch(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Identity, Refusal> {
        self.vouch_for(chain, now, true)
    }

    /// The same for a session that is open. It ends when its certificate was revoked, but not because
    /// a list is missing or too old to tell.
    ///
    /// # Errors
    /// When no authority vouches for the chain, or the names in the certificate are not usable.
    pub fn vouch_still(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Identity, Refusal> {
        self.vouch_for(chain, now, false)
    }

    /// When a session must end whose chain is accepted now: with the first certificate without which it would not
    /// be, in seconds since 1970. `not_after` is the leaf's; authorities seldom outlive by less.
    #[must_use]
    pub fn ends(&self, chain: &[CertificateDer<'_>], now: UnixTime, not_after: i64) -> i64 {
        let present = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let ends = chain.iter().skip(1).filter_map(|certificate| {
            let end = identity::card(certificate).ok()?.not_after;
            (present..not_after).contains(&end).then_some(end)
        });
        let mut ends: Vec<i64> = ends.collect();
        ends.sort_unstable();
        // A certificate that the chain can do without ends nothing.
        let is_over = |end: &i64| {
            let after = u64::try_from(end.saturating_add(1)).unwrap_or_default();
            let after = UnixTime::since_unix_epoch(Duration::from_secs(after));
            self.vouch_still(chain, after).is_err()
        };
        ends.into_iter().find(is_over).unwrap_or(not_after)
    }

    fn vouch_for(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        newcomer: bool,
    ) -> Result<Identity, Refusal> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Refusal::new(RefusalKind::CertificateRequired, ""));
        };
        let authority = self.voucher(leaf, intermediates, now, newcomer);
        let authority = authority.map_err(refusal)?;
        Ok(identity::extract(leaf, &authority.rule)?)
    }

    /// Whose certificate was refused: one that an authority signed, whatever speaks against it now. That
    /// somebody shows it proves nothing.
    #[must_use]
    pub fn recognise(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Identity> {
        let (leaf, intermediates) = chain.split_first()?;
        let mut authorities = self.authorities.iter();
        authorities.find_map(|authority| authority.recognise(leaf, intermediates, now))
    }

    /// The chain that the last handshake was refused for. One thread makes all handshakes.
    pub(super) fn take_refused(&self) -> Vec<CertificateDer<'static>> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *refused)
    }

    /// Whether these are the same authorities, read by the same rules and with the same revocations:
    /// then all they said stands.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(one, other): (&Authority, &Authority)| {
            one.rule == other.rule
                && one.anchors == other.anchors
                && one.policy == other.policy
                && one.lists == other.lists
                && one.revoked_keys == other.revoked_keys
        };
        let pairs = self.authorities.iter().zip(&other.authorities);
        self.authorities.len() == other.authorities.len() && pairs.into_iter().all(same)
    }

    /// The first authority that accepts the chain, unless another one revoked it.
    fn voucher(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        newcomer: bool,
    ) -> Result<&Authority, Error> {
        chain::examined(leaf, intermediates)?;
        let mut voucher = None;
        let verdicts = self.authorities.iter().filter_map(|authority| {
            if voucher.is_some() && !authority.revokes() {
                return None;
            }
            let verdict = authority.verify(leaf, intermediates, now, newcomer);
            if verdict.is_ok() && voucher.is_none() {
                voucher = Some(authority);
            }
            Some(verdict)
        });
        joined(verdicts)?;
        voucher.ok_or(UNKNOWN_ISSUER)
    }

    /// The algorithms, which are those of all authorities.
    fn algorithms(&self) -> Option<&WebPkiSupportedAlgorithms> {
        Some(&self.authorities.first()?.algorithms)
    }
}

/// One verdict of several: revoked by any is revoked, accepted by any is accepted.
fn joined(verdicts: impl Iterator<Item = Result<(), Error>>) -> Result<(), Error> {
    let (mut accepted, mut refusal) = (false, None);
    for verdict in verdicts {
        match verdict {
            Ok(()) => accepted = true,
            Err(error @ Error::InvalidCertificate(CertificateError::Revoked)) => return Err(error),
            // "Unknown issuer" only says that this one does not know the certificate: any other
            // reason comes from one that does.
            Err(error) if refusal.is_none() || !is_unknown_issuer(&error) => refusal = Some(error),
            Err(_) => {}
        }
    }
    match (accepted, refusal) {
        (true, _) => Ok(()),
        (false, refusal) => Err(refusal.unwrap_or(UNKNOWN_ISSUER)),
    }
}

impl ClientCertVerifier for Authorities {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientAuth::Mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let voucher = self.voucher(end_entity, intermediates, now, true);
        let verdict = voucher.and_then(|_| require_purpose(end_entity, Purpose::ClientAuth));
        if let Err(error) = verdict {
            let chain = std::iter::once(end_entity).chain(intermediates);
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            *refused = chain.map(|der| der.clone().into_owned()).collect();
            return Err(error);
        }
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
        match self.algorithms() {
            Some(algorithms) => verify_tls13_signature(message, cert, dss, algorithms),
            None => Err(UNKNOWN_ISSUER),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms()
            .map(WebPkiSupportedAlgorithms::supported_schemes)
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
        chain::examined(end_entity, intermediates)?;
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

pub(super) fn root_store(
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
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => {
                RefusalKind::RevocationUnknown
            }
            _ => RefusalKind::BadCertificate,
        },
        _ => RefusalKind::BadCertificate,
    };
    // The sentence of that row says everything there is to say.
    if kind == RefusalKind::CertificateRevoked {
        return Refusal::new(kind, "");
    }
    Refusal::new(kind, error.to_string())
}

fn is_unknown_issuer(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
    )
}

pub(super) fn tls12() -> Error {
    Error::General("QUIC knows no TLS 1.2".to_owned())
}

/// What nobody knows.
const UNKNOWN_ISSUER: Error = Error::InvalidCertificate(CertificateError::UnknownIssuer);
