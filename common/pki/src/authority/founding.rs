//! How an authority's folder comes to be, and how it recovers from an interruption.
//!
//! Guarantee: one `init` at a time; a folder with `ca.pem` is a whole authority, one with `ca.csr` alone
//! waits for a certificate, and anything less was interrupted before it could issue anything, so
//! that the next attempt starts afresh.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, PublicKeyData};
use time::Duration;
use zeroize::Zeroizing;

use super::{Authority, AuthorityError, AuthorityParams, generate};
use crate::certificate::key::PrivateKey;
use crate::certificate::{self, KeyType, Purpose};
use crate::chain::{Chain, ChainError};
use crate::csr::{self, CertificateRequest};
use crate::index::Index;
use crate::name;
use crate::passphrase::{self, Passphrase};
use crate::request::{IssueRequest, SKEW};
use crate::revocation;
use crate::store::{self, Existing};

impl AuthorityParams {
    /// An intermediate of `root` that is valid for five years from `now`, Unix time, or as long as `root`.
    pub fn under(root: &Authority, name: impl Into<String>, now: i64) -> Self {
        Self {
            name: name.into(),
            not_before: now - SKEW.whole_seconds(),
            not_after: root
                .not_after()
                .min(now + INTERMEDIATE_VALIDITY.whole_seconds()),
            path_length: 0,
            key_type: KeyType::EcdsaP256,
            passphrase: None,
        }
    }
}

impl Authority {
    /// Makes a root in `folder`, which must not hold an authority; its first revocation list is of `now`,
    /// Unix time.
    pub fn create(
        folder: &Path,
        params: &AuthorityParams,
        now: i64,
    ) -> Result<Self, AuthorityError> {
        let (key, certificate) = generate(params)?;
        let ground = Ground::prepare(folder)?;
        ground.write_key(&key, params.passphrase.as_ref())?;
        ground.finish(key, Chain::new(certificate, Vec::new()), now)
    }

    /// Makes an intermediate of `root` in `folder`: it can issue client certificates only. It is recorded,
    /// and its first revocation list made, at `now`, Unix time.
    pub fn create_under(
        root: &Self,
        folder: &Path,
        params: &AuthorityParams,
        now: i64,
    ) -> Result<Self, AuthorityError> {
        let key = PrivateKey::generate(params.key_type)?;
        let request = CertificateRequest::from_pem(&request_for(params, &key)?)?;
        let ground = Ground::prepare(folder)?;
        ground.write_key(&key, params.passphrase.as_ref())?;
        let issued = root.sign_authority(&request, params, now)?;
        let above = [
            root.chain.intermediates().to_vec(),
            vec![root.chain.root().to_vec()],
        ];
        ground.finish(key, Chain::new(issued.certificate_der, above.concat()), now)
    }

    /// Makes the key of an authority in `folder`, and the request for its certificate, which is
    /// returned in PEM and written to the folder. [`Authority::complete`] takes the answer.
    pub fn request(folder: &Path, params: &AuthorityParams) -> Result<Request, AuthorityError> {
        name::check_organisation(&params.name)?;
        let key = PrivateKey::generate(params.key_type)?;
        let request_pem = request_for(params, &key)?;
        let ground = Ground::prepare(folder)?;
        ground.write_key(&key, params.passphrase.as_ref())?;
        let path = folder.join(store::REQUEST);
        store::write(&path, request_pem.as_bytes(), store::PUBLIC, Existing::Keep)?;
        Ok(Request {
            path,
            repairs: ground.repairs,
        })
    }

    /// Completes a folder that waits: `certificates`, in any order, hold the one for its key and all
    /// of those above it, valid at `now`, Unix time.
    pub fn complete(
        folder: &Path,
        certificates: &[Vec<u8>],
        passphrase: Option<&Passphrase>,
        now: i64,
    ) -> Result<Self, AuthorityError> {
        let lock = store::lock(folder).map_err(|_| AuthorityError::NotPending {
            folder: folder.to_owned(),
        })?;
        let [certificate, request] =
            [store::CERTIFICATE, store::REQUEST].map(|name| folder.join(name));
        if certificate.symlink_metadata().is_ok() {
            return Err(AuthorityError::Exists { path: certificate });
        }
        if request.symlink_metadata().is_err() {
            return Err(AuthorityError::NotPending {
                folder: folder.to_owned(),
            });
        }
        let key = read_key(folder, passphrase)?;
        let chain = Chain::build(certificates, &key.subject_public_key_info(), now)?;
        try_out(&chain, &key, now)?;
        let mut repairs = Vec::new();
        for path in store::leftovers(folder)? {
            let kept = [store::KEY, store::REQUEST].map(|name| folder.join(name));
            if !kept.contains(&path) {
                store::remove(&path)?;
                repairs.push(unfinished(&path));
            }
        }
        let ground = Ground {
            folder: folder.to_owned(),
            repairs,
            lock,
        };
        ground.finish(key, chain, now)
    }

    /// Whether the key in `folder` needs a passphrase.
    pub fn is_encrypted(folder: &Path) -> Result<bool, AuthorityError> {
        let text = store::read_key(&folder.join(store::KEY))?;
        Ok(passphrase::is_encrypted(&text))
    }

    /// Encrypts the key in `folder` with `new`, or leaves it open. One step: an interruption leaves the
    /// key as it was or as it is to be.
    pub fn change_passphrase(
        folder: &Path,
        old: Option<&Passphrase>,
        new: Option<&Passphrase>,
    ) -> Result<(), AuthorityError> {
        let lock = store::lock(folder)?;
        let key = read_key(folder, old)?;
        let path = folder.join(store::KEY);
        let text = key_text(&key, new, &path)?;
        store::write(&path, text.as_bytes(), store::PRIVATE, Existing::Replace)?;
        drop(lock);
        Ok(())
    }

    /// Puts right what an interruption left behind.
    pub(super) fn repair(&mut self, folder: &Path) -> Result<(), AuthorityError> {
        if self.publish_list()? {
            let list = folder.join(store::LIST);
            self.repairs.push(format!(
                "{} was not the newest revocation list and was written again",
                list.display()
            ));
        }
        // While somebody else changes the folder, what is unfinished is that one's.
        if let Some(lock) = store::try_lock(folder)? {
            for name in [store::KEY, store::CERTIFICATE, store::CHAIN] {
                for path in store::remove_temporary(folder, name)? {
                    self.repairs.push(unfinished(&path));
                }
            }
            drop(lock);
        }
        Ok(())
    }
}

/// A request for the certificate of an authority, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it is.
    pub path: PathBuf,
    /// What had to be put right before, in words.
    pub repairs: Vec<String>,
}

/// A folder that holds no authority, and that nobody else is making one in.
struct Ground {
    folder: PathBuf,
    repairs: Vec<String>,
    lock: fs::File,
}

impl Ground {
    /// Creates the folder, or clears one where an earlier attempt was interrupted.
    fn prepare(folder: &Path) -> Result<Self, AuthorityError> {
        store::create_folder(folder)?;
        let lock = store::lock(folder)?;
        let [certificate, request, index] =
            [store::CERTIFICATE, store::REQUEST, store::INDEX].map(|name| folder.join(name));
        if certificate.symlink_metadata().is_ok() {
            return Err(AuthorityError::Exists { path: certificate });
        }
        if request.symlink_metadata().is_ok() {
            return Err(AuthorityError::Pending { path: request });
        }
        let leftovers = store::leftovers(folder)?;
        // A certificate was there once, or nothing could have been issued: it was lost, not unfinished.
        if leftovers.contains(&index) && !Index::open(&index)?.entries()?.is_empty() {
            return Err(AuthorityError::Exists { path: index });
        }
        let mut repairs = Vec::new();
        for path in leftovers {
            store::remove(&path)?;
            repairs.push(unfinished(&path));
        }
        store::close_folder(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            repairs,
            lock,
        })
    }

    fn write_key(
        &self,
        key: &PrivateKey,
        passphrase: Option<&Passphrase>,
    ) -> Result<(), AuthorityError> {
        let path = self.folder.join(store::KEY);
        let text = key_text(key, passphrase, &path)?;
        Ok(store::write(
            &path,
            text.as_bytes(),
            store::PRIVATE,
            Existing::Keep,
        )?)
    }

    /// Writes everything else, the certificate last.
    fn finish(self, key: PrivateKey, chain: Chain, now: i64) -> Result<Authority, AuthorityError> {
        let [index, above, certificate] =
            [store::INDEX, store::CHAIN, store::CERTIFICATE].map(|name| self.folder.join(name));
        store::create_empty(&index)?;
        let index = Index::open(&index)?;
        let above_pem = chain.above_pem();
        let mut authority = Authority::assemble(key, chain, index, Some(&self.folder))?;
        authority.renew_list(revocation::LIST_LIFE, now)?;
        let write = |path: &Path, text: &str| {
            store::write(path, text.as_bytes(), store::PUBLIC, Existing::Keep)
        };
        if !above_pem.is_empty() {
            write(&above, &above_pem)?;
        }
        write(&certificate, &authority.certificate_pem)?;
        authority.repairs = self.repairs;
        drop(self.lock);
        Ok(authority)
    }
}

/// Reads the key in `folder`.
pub(super) fn read_key(
    folder: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<PrivateKey, AuthorityError> {
    let path = folder.join(store::KEY);
    let mut text = store::read_key(&path)?;
    if passphrase::is_encrypted(&text) {
        let Some(passphrase) = passphrase else {
            return Err(AuthorityError::Encrypted { path });
        };
        let Some(open) = passphrase.decrypt(&text) else {
            return Err(AuthorityError::Passphrase { path });
        };
        text = open;
    }
    PrivateKey::from_pem(&text).map_err(|_| AuthorityError::Key { path })
}

/// The key as it stands in its file.
fn key_text(
    key: &PrivateKey,
    passphrase: Option<&Passphrase>,
    path: &Path,
) -> Result<Zeroizing<String>, AuthorityError> {
    let Some(passphrase) = passphrase else {
        return Ok(key.to_pem());
    };
    let encrypted = passphrase.encrypt(key.to_der());
    encrypted
        .map(Zeroizing::new)
        .ok_or_else(|| AuthorityError::Key {
            path: path.to_owned(),
        })
}

/// The request for the certificate of an intermediate.
fn request_for(params: &AuthorityParams, key: &PrivateKey) -> Result<String, AuthorityError> {
    let mut certificate = CertificateParams::default();
    certificate::ask_for_intermediate(&mut certificate, &params.name);
    csr::serialize(&certificate, key)
}

/// Whether anybody would accept a certificate from this authority: a client's or a gateway's.
fn try_out(chain: &Chain, key: &PrivateKey, now: i64) -> Result<(), AuthorityError> {
    let key = PrivateKey::from_pem(&key.to_pem())?;
    let trial = Authority::assemble(key, chain.clone(), Index::in_memory()?, None)?;
    let mut verdict = ChainError::NoPurpose;
    for (purpose, principal) in [
        (Purpose::Client, "trial@adit.invalid"),
        (Purpose::Gateway, "adit.invalid"),
    ] {
        let request = IssueRequest::new(purpose, principal.to_owned(), now).valid(now, now + 1);
        match trial.issue(&request, now) {
            Ok(_) | Err(AuthorityError::ExcludedName) => return Ok(()),
            Err(AuthorityError::NotAccepted(error)) => verdict = ChainError::Unusable(error),
            Err(AuthorityError::Purpose(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Err(verdict.into())
}

fn unfinished(path: &Path) -> String {
    format!(
        "{} was left by a program that was ended while writing it, and was removed",
        path.display()
    )
}

/// It lives on a machine that is online; replacing it touches no device, because the root stays.
const INTERMEDIATE_VALIDITY: Duration = Duration::days(1826);
