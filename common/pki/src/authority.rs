//! An authority: a key, its certificate, and the index of what it issued and revoked.
//!
//! Guarantee: [`Authority::issue`] and [`Authority::sign`] of a folder's authority return a
//! certificate only after it was recorded in the index. Refused are names outside the rules of
//! [`crate::name`], a validity that is empty or outlives the authority, certificates that nobody
//! would accept from an intermediate, and folders that are not one whole authority.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rcgen::{Issuer, PublicKeyData};
use ring::digest::{SHA256, digest};
use time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::key::PrivateKey;
use crate::certificate::{self, Credential, Issued, KeyType, Purpose};
use crate::chain::Chain;
use crate::csr::{CertificateRequest, Wish};
use crate::description;
use crate::index::{Entry, Index};
use crate::name::{self, Name};
use crate::operator;
use crate::passphrase::Passphrase;
use crate::predecessor::Predecessor;
use crate::request::{IssueRequest, SKEW};
use crate::store;

mod error;
mod founding;

pub use error::AuthorityError;

/// What a new authority is to be like.
#[derive(Clone, Debug)]
pub struct AuthorityParams {
    /// The organisation, for people to read.
    pub name: String,
    /// First second of validity, Unix time.
    pub not_before: i64,
    /// Last second of validity, Unix time.
    pub not_after: i64,
    /// How many authorities may stand between it and a leaf.
    pub path_length: u8,
    /// Kind of key to make.
    pub key_type: KeyType,
    /// With what to encrypt the key in its folder, if it is to be.
    pub passphrase: Option<Passphrase>,
}

impl AuthorityParams {
    /// An authority that is valid for ten years from `now`, Unix time, and may sign intermediates.
    pub fn new(name: impl Into<String>, now: i64) -> Self {
        Self {
            name: name.into(),
            not_before: now - SKEW.whole_seconds(),
            not_after: now + VALIDITY.whole_seconds(),
            path_length: 1,
            key_type: KeyType::EcdsaP256,
            passphrase: None,
        }
    }
}

/// A certificate authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, PrivateKey>,
    certificate_pem: String,
    chain: Chain,
    facts: Facts,
    not_after: i64,
    /// Behind a lock, so that tests may share an authority between threads.
    index: Mutex<Index>,
    /// Where it lives, unless in memory.
    folder: Option<PathBuf>,
    operator: String,
    repairs: Vec<String>,
    /// Whose certificates it renews besides its own.
    predecessors: Vec<Predecessor>,
}

/// What an authority's own certificate says.
struct Facts {
    /// Its organisation, or else its common name.
    name: String,
    /// How many authorities may stand below it.
    path_length: Option<u32>,
    /// Whether what it issues to clients can be accepted.
    clients: bool,
    /// Whether what it issues to gateways can be.
    gateways: bool,
}

impl Authority {
    /// Opens the authority in `folder`, whose key is not encrypted.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        Self::unlock(folder, None)
    }

    /// Opens the authority in `folder`, with the passphrase if its key is encrypted. What a program that
    /// was ended left undone is put right, see [`Authority::repairs`]: a revocation list that was
    /// signed but not written is written now.
    pub fn unlock(folder: &Path, passphrase: Option<&Passphrase>) -> Result<Self, AuthorityError> {
        let certificate_path = folder.join(store::CERTIFICATE);
        if certificate_path
            .symlink_metadata()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        {
            return Err(AuthorityError::Missing {
                folder: folder.to_owned(),
            });
        }
        let mut certificates = store::read_chain(folder)?;
        let own = certificates.remove(0);
        let chain = Chain::new(own, certificates);
        let key = founding::read_key(folder, passphrase)?;
        let index = Index::open(&folder.join(store::INDEX))?;
        let mut authority = Self::assemble(key, chain, index, Some(folder))?;
        authority.repair(folder)?;
        Ok(authority)
    }

    /// Makes an authority that lives in memory only, with its index, valid from `now`, Unix time: for
    /// tests and trials.
    pub fn ephemeral(name: &str, now: i64) -> Result<Self, AuthorityError> {
        Self::ephemeral_with(&AuthorityParams::new(name, now))
    }

    /// Makes an authority in memory according to `params`.
    pub fn ephemeral_with(params: &AuthorityParams) -> Result<Self, AuthorityError> {
        let (key, certificate) = generate(params)?;
        let chain = Chain::new(certificate, Vec::new());
        Self::assemble(key, chain, Index::in_memory()?, None)
    }

    /// The same authority, which renews what these issued, too.
    #[must_use]
    pub fn following(self, predecessors: Vec<Predecessor>) -> Self {
        Self {
            predecessors,
            ..self
        }
    }

    /// Issues a certificate with a key of its own. `now`, Unix time, is when, for the records.
    pub fn issue(&self, request: &IssueRequest, now: i64) -> Result<Credential, AuthorityError> {
        let key = PrivateKey::generate(request.key_type)?;
        let (issued, entry) = self.certify_key(request, &key, now)?;
        self.index().record(&entry)?;
        Ok(Credential {
            issued,
            key_pem: key.to_pem(),
        })
    }

    /// Certifies the key of `csr` with what `request` says; nothing else of `csr` is taken, and a
    /// `csr` that asks for more is refused. `now`, Unix time, is when, for the records.
    pub fn sign(
        &self,
        csr: &CertificateRequest,
        request: &IssueRequest,
        now: i64,
    ) -> Result<Issued, AuthorityError> {
        let (issued, entry) = self.certify_request(csr, request, now)?;
        self.index().record(&entry)?;
        Ok(issued)
    }

    /// Certifies the key of `csr` as that of an authority below this one, which can issue client
    /// certificates only. Its path length is always 0, whatever `params` says; `now`, Unix time, is
    /// when, for the records.
    pub fn sign_authority(
        &self,
        csr: &CertificateRequest,
        params: &AuthorityParams,
        now: i64,
    ) -> Result<Issued, AuthorityError> {
        name::check_organisation(&params.name)?;
        if self.facts.path_length == Some(0) {
            return Err(AuthorityError::LeavesOnly);
        }
        self.check_validity(params.not_before, params.not_after)?;
        let common_name = certificate::intermediate_common_name(&params.name);
        csr.check(|wish| match wish {
            Wish::CommonName(text) => *text == common_name,
            Wish::Organisation(text) => *text == params.name,
            // keyCertSign and cRLSign.
            Wish::KeyUsage(bit) => [5, 6].contains(bit),
            Wish::Authority | Wish::ClientAuth => true,
            _ => false,
        })?;
        let (certificate_der, serial) = certificate::intermediate(params, csr.key(), &self.issuer)?;
        let issued = Issued {
            certificate_pem: self.with_intermediates(&certificate_der),
            authority_pem: self.root_pem(),
            serial,
            fingerprint: fingerprint(&certificate_der),
            purpose: Purpose::Authority,
            principal: params.name.clone(),
            not_before: params.not_before,
            not_after: params.not_after,
            certificate_der,
        };
        self.index()
            .record(&self.entry(&issued, &[], &[], None, now))?;
        Ok(issued)
    }

    /// The certificate of the authority.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate of the authority in DER.
    pub fn certificate_der(&self) -> &[u8] {
        self.chain.own()
    }

    /// The certificate of the root, in PEM: its own, unless it is an intermediate.
    pub fn root_pem(&self) -> String {
        certificate::pem(self.chain.root())
    }

    /// What a leaf of this authority is sent with, in DER: nothing, unless it is an intermediate.
    pub fn intermediates_der(&self) -> &[Vec<u8>] {
        self.chain.intermediates()
    }

    /// The organisation.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// What had to be put right when the authority was opened or made, in words.
    pub fn repairs(&self) -> &[String] {
        &self.repairs
    }

    /// Last second of the authority's validity and of those above it, Unix time.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// What the authority has issued.
    pub fn entries(&self) -> Result<Vec<Entry>, AuthorityError> {
        Ok(self.index().entries()?)
    }

    /// Who is at the keyboard, for the records.
    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    /// Whose certificates it renews besides its own.
    pub(crate) fn predecessors(&self) -> &[Predecessor] {
        &self.predecessors
    }

    /// Where it lives, unless in memory.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// What signs.
    pub(crate) fn issuer(&self) -> &Issuer<'static, PrivateKey> {
        &self.issuer
    }

    /// The index, for one step.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        // A thread that panicked left no transaction behind: dropping one rolls it back.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Certifies the key of `csr`; not recorded yet.
    pub(crate) fn certify_request(
        &self,
        csr: &CertificateRequest,
        request: &IssueRequest,
        now: i64,
    ) -> Result<(Issued, Entry), AuthorityError> {
        let names = self.check(request)?;
        csr.check(|wish| match wish {
            Wish::CommonName(text) => *text == request.principal,
            Wish::Unit(text) => request.groups.contains(text),
            Wish::EmailAddress(text) => names.contains(&Name::Email(text.clone())),
            Wish::Name(name) => names.contains(name),
            // digitalSignature.
            Wish::KeyUsage(bit) => *bit == 0,
            Wish::ClientAuth => request.purpose == Purpose::Client,
            Wish::ServerAuth => request.purpose == Purpose::Gateway,
            Wish::Organisation(_) | Wish::Authority | Wish::Other(_) => false,
        })?;
        self.certify(request, &names, csr.key(), now)
    }

    /// Certifies `key` as `request` says; not recorded yet.
    pub(crate) fn certify_key(
        &self,
        request: &IssueRequest,
        key: &PrivateKey,
        now: i64,
    ) -> Result<(Issued, Entry), AuthorityError> {
        let names = self.check(request)?;
        self.certify(request, &names, key, now)
    }

    /// What was issued as `entry`, again.
    pub(crate) fn issued(&self, entry: &Entry) -> Issued {
        Issued {
            certificate_pem: self.with_intermediates(&entry.certificate),
            certificate_der: entry.certificate.clone(),
            authority_pem: self.root_pem(),
            serial: entry.serial.clone(),
            fingerprint: entry.fingerprint.clone(),
            purpose: entry.purpose,
            principal: entry.principal.clone(),
            not_before: entry.not_before,
            not_after: entry.not_after,
        }
    }

    fn certify(
        &self,
        request: &IssueRequest,
        names: &[Name],
        key: &impl PublicKeyData,
        now: i64,
    ) -> Result<(Issued, Entry), AuthorityError> {
        let (certificate_der, serial) = certificate::leaf(request, names, key, &self.issuer)?;
        let (not_before, not_after) = (request.not_before, request.not_after);
        let in_profile = request.danger_extended_key_usages.is_none()
            && request.danger_subject_alt_names.is_none();
        // A root's own profile is enough; what stands above an intermediate may forbid anything.
        if in_profile && !self.chain.intermediates().is_empty() {
            self.chain
                .accepts(&certificate_der, request.purpose, not_after)
                .map_err(|error| match error {
                    webpki::Error::NameConstraintViolation => AuthorityError::ExcludedName,
                    other => AuthorityError::NotAccepted(other),
                })?;
        }
        let issued = Issued {
            certificate_pem: self.with_intermediates(&certificate_der),
            authority_pem: self.root_pem(),
            serial,
            fingerprint: fingerprint(&certificate_der),
            purpose: request.purpose,
            principal: request.principal.clone(),
            not_before,
            not_after,
            certificate_der,
        };
        let device = request.device.clone();
        let entry = self.entry(&issued, names, &request.groups, device, now);
        Ok((issued, entry))
    }

    /// `der` and what it is sent with, in PEM.
    pub(crate) fn with_intermediates(&self, der: &[u8]) -> String {
        certificate::pem(der) + &self.chain.intermediates_pem()
    }

    fn assemble(
        key: PrivateKey,
        chain: Chain,
        index: Index,
        folder: Option<&Path>,
    ) -> Result<Self, AuthorityError> {
        let facts = Facts::read(chain.own(), &key)?;
        let not_after = chain.not_after().ok_or(AuthorityError::Encoding)?;
        let issuer = Issuer::from_ca_cert_der(&chain.own().into(), key)?;
        Ok(Self {
            issuer,
            certificate_pem: certificate::pem(chain.own()),
            chain,
            facts,
            not_after,
            index: Mutex::new(index),
            folder: folder.map(Path::to_owned),
            operator: operator::current(),
            repairs: Vec::new(),
            predecessors: Vec::new(),
        })
    }

    fn check(&self, request: &IssueRequest) -> Result<Vec<Name>, AuthorityError> {
        name::check_groups(&request.groups)?;
        request
            .device
            .as_deref()
            .map_or(Ok(()), name::check_device)?;
        self.check_validity(request.not_before, request.not_after)?;
        let names = match request.purpose {
            Purpose::Authority => return Err(AuthorityError::LeafOnly),
            Purpose::Client if !self.facts.clients => {
                return Err(AuthorityError::Purpose(Purpose::Client));
            }
            Purpose::Gateway if !self.facts.gateways => {
                return Err(AuthorityError::Purpose(Purpose::Gateway));
            }
            Purpose::Client if !request.names.is_empty() => {
                return Err(AuthorityError::ClientNames);
            }
            Purpose::Client => vec![Name::principal(&request.principal)?],
            Purpose::Gateway if !request.groups.is_empty() => {
                return Err(AuthorityError::GatewayGroups);
            }
            Purpose::Gateway => {
                let mut names = vec![Name::host(&request.principal)?];
                for name in &request.names {
                    let name = Name::host(name)?;
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                names
            }
        };
        Ok(request.danger_subject_alt_names.clone().unwrap_or(names))
    }

    fn check_validity(&self, not_before: i64, not_after: i64) -> Result<(), AuthorityError> {
        if not_after <= not_before {
            return Err(AuthorityError::Validity);
        }
        if not_after > self.not_after {
            return Err(AuthorityError::OutlivesAuthority {
                not_after: description::date(self.not_after),
            });
        }
        Ok(())
    }

    fn entry(
        &self,
        issued: &Issued,
        names: &[Name],
        groups: &[String],
        device: Option<String>,
        created: i64,
    ) -> Entry {
        Entry {
            serial: issued.serial.clone(),
            principal: issued.principal.clone(),
            names: names.iter().map(Name::to_string).collect(),
            groups: groups.to_vec(),
            issued_by: self.operator.clone(),
            purpose: issued.purpose,
            not_before: issued.not_before,
            not_after: issued.not_after,
            created,
            fingerprint: issued.fingerprint.clone(),
            device,
            revoked: None,
            certificate: issued.certificate_der.clone(),
        }
    }
}

impl Facts {
    /// Reads the certificate of an authority, which must be that of `key`.
    fn read(certificate: &[u8], key: &PrivateKey) -> Result<Self, AuthorityError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| AuthorityError::Encoding)?;
        let usage = parsed.key_usage().ok().flatten();
        // RFC 5280 §4.2.1.3: absent, it allows everything.
        let signs = usage.is_none_or(|usage| usage.value.key_cert_sign());
        if !parsed.is_ca() || !signs {
            return Err(AuthorityError::NotAnAuthority);
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::KeyMismatch);
        }
        let subject = parsed.subject();
        let name = subject
            .iter_organization()
            .chain(subject.iter_common_name())
            .find_map(|attribute| attribute.as_str().ok())
            .map(description::printable)
            .unwrap_or_default();
        let purposes = parsed.extended_key_usage().ok().flatten();
        let constraints = parsed.basic_constraints().ok().flatten();
        // webpki wants it all along the chain, where it is present, and knows no wildcard.
        Ok(Self {
            name,
            path_length: constraints.and_then(|found| found.value.path_len_constraint),
            clients: purposes
                .as_ref()
                .is_none_or(|found| found.value.client_auth),
            gateways: purposes.is_none_or(|found| found.value.server_auth),
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn generate(params: &AuthorityParams) -> Result<(PrivateKey, Vec<u8>), AuthorityError> {
    name::check_organisation(&params.name)?;
    if params.path_length > 1 {
        return Err(AuthorityError::PathLength(params.path_length));
    }
    if params.not_after <= params.not_before {
        return Err(AuthorityError::Validity);
    }
    let key = PrivateKey::generate(params.key_type)?;
    let certificate = certificate::authority(params, &key)?;
    Ok((key, certificate.der().to_vec()))
}

fn fingerprint(der: &[u8]) -> String {
    certificate::hex(digest(&SHA256, der).as_ref())
}

/// Replacing an authority means touching every device, and its key can stay offline.
const VALIDITY: Duration = Duration::days(3652);
