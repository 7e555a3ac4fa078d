//! A throw-away authority. Ed25519, so that handshakes have the same size in every run.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

use adit_core::identity::{AuthorityRule, GroupSource, PrincipalSource};
use adit_tunnel::tls::Credentials;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use time::{Duration, OffsetDateTime};

use super::world::START;

/// An authority, shared by all worlds of the process.
#[derive(Clone, Copy)]
pub struct Pki {
    name: &'static str,
    issuer: &'static CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// The company's authority.
    pub fn shared() -> Self {
        static ISSUER: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
        Self {
            name: "example",
            issuer: ISSUER.get_or_init(|| authority("Example")),
        }
    }

    /// Another company's authority.
    pub fn stranger() -> Self {
        static ISSUER: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
        Self {
            name: "stranger",
            issuer: ISSUER.get_or_init(|| authority("Stranger")),
        }
    }

    pub fn anchor(self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub fn rule(self) -> AuthorityRule {
        AuthorityRule {
            name: self.name.to_owned(),
            principal: vec![PrincipalSource::Email, PrincipalSource::Dns],
            groups: GroupSource::Ou,
            trust_domain: None,
        }
    }

    /// Signs a revocation list.
    // Not asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn list(
        self,
        params: &CertificateRevocationListParams,
    ) -> CertificateRevocationListDer<'static> {
        params.signed_by(self.issuer).unwrap().into()
    }

    /// The gateway's certificate: always the same one, so that a code may name its key.
    pub fn gateway(self) -> Credentials {
        static ISSUED: Mutex<BTreeMap<&'static str, Credentials>> = Mutex::new(BTreeMap::new());
        let mut issued = ISSUED.lock().unwrap();
        let purpose = ExtendedKeyUsagePurpose::ServerAuth;
        let leaf = || self.leaf("vpn.example.com", purpose, -1, 365);
        issued.entry(self.name).or_insert_with(leaf).clone()
    }

    pub fn client(self, principal: &str) -> Credentials {
        self.client_valid(principal, -1, 365)
    }

    /// A client certificate valid between these days, counted from the start of the world.
    pub fn client_valid(self, principal: &str, from: i64, to: i64) -> Credentials {
        self.leaf(principal, ExtendedKeyUsagePurpose::ClientAuth, from, to)
    }

    /// A client certificate that ends so many seconds after the start of the world.
    // Not asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn client_ending(self, principal: &str, seconds: i64) -> Credentials {
        let mut params = params(principal, -1, 365);
        let start = OffsetDateTime::from_unix_timestamp(START).unwrap();
        params.not_after = start + Duration::seconds(seconds);
        self.sign(principal, ExtendedKeyUsagePurpose::ClientAuth, params)
    }

    /// A client certificate for a year, under an intermediate that ends so many seconds after the start of the world.
    // Not asked by the test that counts allocations, which shares this file.
    #[allow(dead_code)]
    pub fn client_under_ending(self, principal: &str, seconds: i64) -> Credentials {
        let mut between = authority_params("Between", -1, 365);
        let start = OffsetDateTime::from_unix_timestamp(START).unwrap();
        between.not_after = start + Duration::seconds(seconds);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let between = CertifiedIssuer::signed_by(between, key, self.issuer).unwrap();
        let mut params = params(principal, -1, 365);
        params.subject_alt_names = vec![SanType::Rfc822Name(principal.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let leaf = params.signed_by(&key, &between).unwrap();
        Credentials {
            chain: vec![leaf.der().clone(), between.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }

    fn leaf(self, name: &str, purpose: ExtendedKeyUsagePurpose, from: i64, to: i64) -> Credentials {
        self.sign(name, purpose, params(name, from, to))
    }

    fn sign(
        self,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
        mut params: CertificateParams,
    ) -> Credentials {
        params.subject_alt_names = vec![if name.contains('@') {
            SanType::Rfc822Name(name.try_into().unwrap())
        } else {
            SanType::DnsName(name.try_into().unwrap())
        }];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, self.issuer).unwrap();
        Credentials {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let params = authority_params(name, -1, 3650);
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    CertifiedIssuer::self_signed(params, key).unwrap()
}

fn authority_params(name: &str, from: i64, to: i64) -> CertificateParams {
    let mut params = params(name, from, to);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str, from: i64, to: i64) -> CertificateParams {
    let start = OffsetDateTime::from_unix_timestamp(START).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = start + Duration::days(from);
    params.not_after = start + Duration::days(to);
    params
}
