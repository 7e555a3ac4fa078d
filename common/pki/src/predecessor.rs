//! Authorities that went before: another one issues now, and renews their certificates.
//!
//! Guarantee: a certificate is one of a predecessor only if that one's key signed it. Where the predecessor's
//! folder is at hand, its index must have the certificate, too, and what it revoked or stopped is not
//! renewed; where there is only its certificate, whether something was revoked is the caller's to know,
//! who verified the chain.

use std::path::{Path, PathBuf};

use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::Purpose;
use crate::description::{self, Facts};
use crate::index::{Entry, Holder, Index, IndexError};
use crate::store::{self, StoreError};

/// An authority whose certificates are renewed by the one that follows it.
#[derive(Clone, Debug)]
pub struct Predecessor {
    certificate: Vec<u8>,
    /// Its index, if that is here.
    index: Option<PathBuf>,
}

impl Predecessor {
    /// Reads the predecessor's certificate, the first one of a PEM file. If that is the `ca.pem` of a folder,
    /// the index in there is asked about every renewal.
    pub fn read(path: &Path) -> Result<Self, PredecessorError> {
        let text = store::read(path)?;
        let certificate = description::first_certificate(text.as_bytes());
        let certificate = certificate.ok_or(PredecessorError::NoCertificate)?;
        let is_authority = X509Certificate::from_der(&certificate)
            .is_ok_and(|(_, certificate)| certificate.is_ca());
        if !is_authority {
            return Err(PredecessorError::NotAnAuthority);
        }
        let index = path.with_file_name(store::INDEX);
        let in_folder = path.file_name() == Some(store::CERTIFICATE.as_ref()) && index.exists();
        Ok(Self {
            certificate,
            index: in_folder.then_some(index),
        })
    }

    /// What is known of a certificate in DER; `None` if it is not one of this authority for a client.
    pub(crate) fn holder(&self, der: &[u8]) -> Result<Option<Holder>, IndexError> {
        if !description::is_signed_by(der, &self.certificate) {
            return Ok(None);
        }
        let Some(path) = &self.index else {
            return Ok(entry(der).map(Holder::of));
        };
        let index = Index::open_read_only(path)?;
        let mut found = index.holder(&description::fingerprint(der))?;
        // Its end cut short what it issued last. What follows is to be as long as it would have been.
        if let Some(holder) = &mut found
            && self
                .not_after()
                .is_some_and(|end| holder.entry.not_after >= end)
        {
            let longest = index.longest_life(&holder.entry.principal)?;
            holder.life = holder.life.max(longest);
        }
        Ok(found)
    }

    /// Last second of its own validity, Unix time.
    fn not_after(&self) -> Option<i64> {
        let (_, own) = X509Certificate::from_der(&self.certificate).ok()?;
        Some(own.validity().not_after.timestamp())
    }
}

/// Why there is no predecessor.
#[derive(Debug, Error)]
pub enum PredecessorError {
    /// The file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It holds none.
    #[error("there is no certificate in PEM in it")]
    NoCertificate,
    /// It is a leaf, or no certificate at all.
    #[error("the certificate in it is not one of an authority")]
    NotAnAuthority,
}

/// What a client's certificate says of itself.
fn entry(der: &[u8]) -> Option<Entry> {
    let facts = Facts::read(der).ok()?;
    (facts.purpose == Purpose::Client.name()).then(|| Entry {
        serial: facts.serial,
        names: vec![facts.principal.clone()],
        principal: facts.principal,
        groups: facts.groups,
        issued_by: facts.issuer,
        purpose: Purpose::Client,
        not_before: facts.valid_from,
        not_after: facts.expires,
        created: facts.valid_from,
        fingerprint: description::fingerprint(der),
        device: None,
        revoked: None,
        certificate: der.to_vec(),
    })
}
