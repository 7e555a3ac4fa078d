//! Certificate and key in files of their own, replaced as a pair.
//!
//! Two files cannot be replaced in one step. Both new ones are whole on the disk before the first of the old ones
//! goes, and whoever reads the pair finishes first what a kill has interrupted:
//!
//! ```text
//! write .KEY.next ── write .CERT.next ── rename to KEY ── rename to CERT
//!   key alone: undone     both: done        certificate alone: done
//! ```
//!
//! What somebody else has put there meanwhile is never replaced by something older, nor by half a pair.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use adit_core::identity;
use adit_net::files::{self, FileError};
use adit_tunnel::tls::Algorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

/// Where certificate and key are; it may be one file with both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

/// What became of a pair that a kill had interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The new one is in its place.
    Finished,
    /// The one before stays.
    TakenBack,
}

impl Pair {
    /// Of these files.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key }
    }

    /// Finishes what a kill has interrupted, or takes it back; `None` if there was nothing.
    ///
    /// # Errors
    /// When a file cannot be replaced or removed.
    pub fn settle(&self) -> Result<Option<Settled>, FileError> {
        let Self { certificate, key } = self.resolved();
        let (next_certificate, next_key) = (next(&certificate), next(&key));
        for path in [&next_certificate, &next_key] {
            files::remove_leftovers(path)?;
        }
        let (has_certificate, has_key) = (next_certificate.exists(), next_key.exists());
        if !has_certificate && !has_key {
            return Ok(None);
        }
        let its_key = if has_key { &next_key } else { &key };
        // The certificate was written last: when it is there, the key is.
        if has_certificate && is_successor(&next_certificate, its_key, &certificate) {
            if has_key {
                files::rename(&next_key, &key)?;
            }
            files::rename(&next_certificate, &certificate)?;
            return Ok(Some(Settled::Finished));
        }
        files::remove(&next_certificate)?;
        files::remove(&next_key)?;
        Ok(Some(Settled::TakenBack))
    }

    /// Finds out whether both can be replaced; nothing is.
    ///
    /// # Errors
    /// When one cannot, and why.
    pub fn probe(&self) -> Result<(), FileError> {
        let Self { certificate, key } = self.resolved();
        files::probe(&key)?;
        files::probe(&certificate)
    }

    /// Replaces both by PEM that [fits together](fits); owners and permissions stay.
    ///
    /// # Errors
    /// When a file cannot be written. Then the pair is as before, or [`Self::settle`] finishes it.
    pub fn replace(&self, certificate_pem: &str, key_pem: &str) -> Result<(), FileError> {
        let Self { certificate, key } = self.resolved();
        if certificate == key {
            let both = [certificate_pem.trim_end(), "\n", key_pem];
            // In one piece: a growing string would leave copies of the key behind.
            let both = Zeroizing::new(both.concat());
            return files::write_like(&key, &key, both.as_bytes());
        }
        let (next_certificate, next_key) = (next(&certificate), next(&key));
        let written = files::write_like(&next_key, &key, key_pem.as_bytes()).and_then(|()| {
            files::write_like(&next_certificate, &certificate, certificate_pem.as_bytes())
        });
        if let Err(error) = written.and_then(|()| files::rename(&next_key, &key)) {
            // The error that matters is the first.
            let _ = files::remove(&next_certificate);
            let _ = files::remove(&next_key);
            return Err(error);
        }
        files::rename(&next_certificate, &certificate)
    }

    fn resolved(&self) -> Self {
        Self::new(
            files::resolved(&self.certificate),
            files::resolved(&self.key),
        )
    }
}

/// Whether this is a chain and the key of its first certificate.
#[must_use]
pub fn fits(certificate_pem: &[u8], key_pem: &[u8]) -> bool {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem).collect();
    let (Ok(chain), Ok(key)) = (chain, PrivateKeyDer::from_pem_slice(key_pem)) else {
        return false;
    };
    let provider = Algorithms::for_this_cpu().provider();
    !chain.is_empty() && CertifiedKey::from_der(chain, key, &provider).is_ok()
}

/// Whether the first is a certificate of this key, and not older than the present one.
fn is_successor(certificate: &Path, key: &Path, present: &Path) -> bool {
    let (Ok(certificate), Ok(key)) = (fs::read(certificate), files::read_private(key)) else {
        return false;
    };
    let key = Zeroizing::new(key);
    let begins = |pem: &[u8]| {
        let leaf = CertificateDer::from_pem_slice(pem).ok()?;
        Some(identity::card(&leaf).ok()?.not_before)
    };
    let present = fs::read(present).ok().and_then(|pem| begins(&pem));
    fits(&certificate, &key) && begins(&certificate) >= present
}

/// What is to take the place of a file.
fn next(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".next");
    path.with_file_name(name)
}

#[cfg(all(test, unix))]
mod tests;
