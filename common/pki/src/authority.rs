//! An authority: a key, its certificate, and the index of what it issued and revoked.
//!
//! Guarantee: [`Authority::issue`] of a folder's authority returns a certificate only after it was
//! recorded in the index, and a folder has a revocation list from the beginning. Refused are names outside the rules of [`crate::name`], a validity that
//! is empty or outlives the authority, and folders that are not one whole authority.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rcgen::{Issuer, PublicKeyData};
use ring::digest::{SHA256, digest};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::key::PrivateKey;
use crate::certificate::{self, Issued, KeyType, Purpose};
use crate::description;
use crate::index::{Entry, Index, IndexError};
use crate::name::{self, Name, NameError};
use crate::operator;
use crate::request::{IssueRequest, SKEW};
use crate::revocation;
use crate::store::{self, Existing, StoreError};

/// What a new authority is to be like.
#[derive(Clone, Debug)]
pub struct AuthorityParams {
    /// The organisation, for people to read.
    pub name: String,
    /// First moment of validity.
    pub not_before: OffsetDateTime,
    /// Last moment of validity.
    pub not_after: OffsetDateTime,
    /// How many authorities may stand between it and a leaf.
    pub path_length: u8,
    /// Kind of key to make.
    pub key_type: KeyType,
}

impl AuthorityParams {
    /// An authority that is valid for ten years from now and issues leaves only.
    pub fn new(name: impl Into<String>) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            name: name.into(),
            not_before: now - SKEW,
            not_after: now + VALIDITY,
            path_length: 0,
            key_type: KeyType::EcdsaP256,
        }
    }
}

/// A certificate authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, PrivateKey>,
    certificate_pem: String,
    certificate_der: Vec<u8>,
    not_after: i64,
    /// Behind a lock, so that tests may share an authority between threads.
    index: Mutex<Index>,
    /// Where it lives, unless in memory.
    folder: Option<PathBuf>,
    operator: String,
}

impl Authority {
    /// Makes an authority in `folder`, which must not hold one.
    pub fn create(folder: &Path, params: &AuthorityParams) -> Result<Self, AuthorityError> {
        let (key, certificate_pem) = generate(params)?;
        let existing = [store::CERTIFICATE, store::KEY, store::INDEX, store::LIST]
            .map(|name| folder.join(name))
            .into_iter()
            .find(|path| path.symlink_metadata().is_ok());
        if let Some(path) = existing {
            return Err(AuthorityError::Exists { path });
        }
        store::create_folder(folder)?;
        let [key_path, index_path, certificate_path] =
            [store::KEY, store::INDEX, store::CERTIFICATE].map(|name| folder.join(name));
        // Whoever writes the key has the folder: another `init` at the same time ends here.
        store::write(
            &key_path,
            key.to_pem().as_bytes(),
            store::PRIVATE,
            Existing::Keep,
        )
        .map_err(|error| match error {
            StoreError::Exists { path } => AuthorityError::Exists { path },
            other => other.into(),
        })?;
        store::create_empty(&index_path)?;
        let index = Index::open(&index_path)?;
        let authority = Self::assemble(key, certificate_pem, index, Some(folder))?;
        authority.renew_list(revocation::LIST_LIFE)?;
        store::write(
            &certificate_path,
            authority.certificate_pem.as_bytes(),
            store::PUBLIC,
            Existing::Keep,
        )?;
        Ok(authority)
    }

    /// Opens the authority in `folder`. A revocation list that was signed but not written, because the
    /// program was ended in between, is written now.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let certificate_path = folder.join(store::CERTIFICATE);
        if certificate_path
            .symlink_metadata()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        {
            return Err(AuthorityError::Missing {
                folder: folder.to_owned(),
            });
        }
        let certificate_pem = store::read(&certificate_path)?;
        let key_path = folder.join(store::KEY);
        let key = PrivateKey::from_pem(&store::read_key(&key_path)?)
            .map_err(|_| AuthorityError::Key { path: key_path })?;
        let index = Index::open(&folder.join(store::INDEX))?;
        let authority = Self::assemble(key, certificate_pem, index, Some(folder))?;
        authority.publish_list()?;
        Ok(authority)
    }

    /// Makes an authority that lives in memory only, with its index: for tests and trials.
    pub fn ephemeral(name: &str) -> Result<Self, AuthorityError> {
        Self::ephemeral_with(&AuthorityParams::new(name))
    }

    /// Makes an authority in memory according to `params`.
    pub fn ephemeral_with(params: &AuthorityParams) -> Result<Self, AuthorityError> {
        let (key, certificate_pem) = generate(params)?;
        Self::assemble(key, certificate_pem, Index::in_memory()?, None)
    }

    /// Issues a certificate with a key of its own.
    pub fn issue(&self, request: &IssueRequest) -> Result<Issued, AuthorityError> {
        let names = self.check(request)?;
        let key = PrivateKey::generate(request.key_type)?;
        let (certificate_der, serial) = certificate::leaf(request, &names, &key, &self.issuer)?;
        let issued = Issued {
            certificate_pem: certificate::pem(&certificate_der),
            key_pem: key.to_pem(),
            authority_pem: self.certificate_pem.clone(),
            serial,
            fingerprint: certificate::hex(digest(&SHA256, &certificate_der).as_ref()),
            purpose: request.purpose,
            principal: request.principal.clone(),
            not_before: request.not_before.unix_timestamp(),
            not_after: request.not_after.unix_timestamp(),
            certificate_der,
        };
        let entry = self.entry(&issued, &names, &request.groups);
        self.index().record(&entry)?;
        Ok(issued)
    }

    /// The certificate of the authority.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate of the authority in DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// Last second of the authority's validity, Unix time.
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

    /// Where it lives, unless in memory.
    pub(crate) fn folder(&self) -> Option<&Path> {
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

    fn assemble(
        key: PrivateKey,
        certificate_pem: String,
        index: Index,
        folder: Option<&Path>,
    ) -> Result<Self, AuthorityError> {
        let certificate_der = description::first_certificate(certificate_pem.as_bytes())
            .ok_or(AuthorityError::Encoding)?;
        let not_after = {
            let (_, parsed) = X509Certificate::from_der(&certificate_der)
                .map_err(|_| AuthorityError::Encoding)?;
            let signs = parsed
                .key_usage()
                .ok()
                .flatten()
                .is_some_and(|usage| usage.value.key_cert_sign());
            if !parsed.is_ca() || !signs {
                return Err(AuthorityError::NotAnAuthority);
            }
            if parsed.public_key().raw != key.subject_public_key_info() {
                return Err(AuthorityError::KeyMismatch);
            }
            parsed.validity().not_after.timestamp()
        };
        let issuer = Issuer::from_ca_cert_der(&certificate_der.as_slice().into(), key)?;
        Ok(Self {
            issuer,
            certificate_pem,
            certificate_der,
            not_after,
            index: Mutex::new(index),
            folder: folder.map(Path::to_owned),
            operator: operator::current(),
        })
    }

    fn check(&self, request: &IssueRequest) -> Result<Vec<Name>, AuthorityError> {
        name::check_groups(&request.groups)?;
        if request.not_after <= request.not_before {
            return Err(AuthorityError::Validity);
        }
        if request.not_after.unix_timestamp() > self.not_after {
            return Err(AuthorityError::OutlivesAuthority {
                not_after: description::date(self.not_after),
            });
        }
        let names = match request.purpose {
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

    fn entry(&self, issued: &Issued, names: &[Name], groups: &[String]) -> Entry {
        Entry {
            serial: issued.serial.clone(),
            principal: issued.principal.clone(),
            names: names.iter().map(Name::to_string).collect(),
            groups: groups.to_vec(),
            issued_by: self.operator.clone(),
            purpose: issued.purpose,
            not_before: issued.not_before,
            not_after: issued.not_after,
            created: OffsetDateTime::now_utc().unix_timestamp(),
            fingerprint: issued.fingerprint.clone(),
            device: None,
            revoked: None,
            certificate: issued.certificate_der.clone(),
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why an authority could not be made, opened or used.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A name against the rules.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder holds an authority, or part of one.
    #[error("there is an authority already: {} exists", path.display())]
    Exists {
        /// The file that was found.
        path: PathBuf,
    },
    /// The folder holds none.
    #[error("there is no authority in {}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// The file of the key holds none.
    #[error("{} holds no private key that can be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate are not a pair.
    #[error("the key of the authority does not belong to its certificate")]
    KeyMismatch,
    /// The certificate may not sign others.
    #[error("the certificate of the authority is not one of an authority")]
    NotAnAuthority,
    /// The end is not after the beginning.
    #[error("the validity ends before it begins")]
    Validity,
    /// The path length is neither 0 nor 1.
    #[error("the path length of an authority is 0 or 1, not {0}")]
    PathLength(u8),
    /// It would be worthless in its last days, and nobody would see why.
    #[error("the certificate would be valid beyond its authority, which ends on {not_after}")]
    OutlivesAuthority {
        /// The authority's last day.
        not_after: String,
    },
    /// Other names belong to gateways.
    #[error("a client certificate has no names besides its principal")]
    ClientNames,
    /// Groups belong to clients.
    #[error("a gateway certificate has no groups")]
    GatewayGroups,
    /// A certificate that cannot be parsed.
    #[error("the certificate is not well-formed")]
    Encoding,
    /// The cryptographic library refused.
    #[error("making the certificate failed")]
    Signing(#[from] rcgen::Error),
    /// The operating system has none to give.
    #[error("the system gives no random numbers")]
    Randomness,
}

fn generate(params: &AuthorityParams) -> Result<(PrivateKey, String), AuthorityError> {
    name::check_organisation(&params.name)?;
    if params.path_length > 1 {
        return Err(AuthorityError::PathLength(params.path_length));
    }
    if params.not_after <= params.not_before {
        return Err(AuthorityError::Validity);
    }
    let key = PrivateKey::generate(params.key_type)?;
    let certificate = certificate::authority(params, &key)?;
    Ok((key, certificate::pem(certificate.der())))
}

/// Replacing an authority means touching every device, and its key can stay offline.
const VALIDITY: Duration = Duration::days(3652);
