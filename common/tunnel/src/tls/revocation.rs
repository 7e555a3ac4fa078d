//! Revocation lists that an authority really signed.
//!
//! webpki asks a list at the handshake and checks its signature there; a wrong list would then
//! refuse everybody. So the same is checked when the list is loaded, where an operator sees it.

use std::fmt;
use std::str::FromStr;

use adit_core::identity;
use adit_core::identity::revocation::{ListError, RevocationList, Revoked, Signed, Signer};
use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

/// What it means that there is no fresh revocation list for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrlPolicy {
    /// Nothing: a list counts for what it revokes, however old it is.
    #[default]
    Soft,
    /// That newcomers are refused. Open sessions stay.
    Hard,
}

/// The SHA-256 of a subjectPublicKeyInfo: a key, in whatever certificates it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash(pub(super) [u8; 32]);

impl KeyHash {
    /// That of the key in a certificate; `None` when the certificate cannot be read.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let hash = digest(&SHA256, identity::public_key(certificate)?);
        hash.as_ref().try_into().ok().map(Self)
    }
}

impl FromStr for KeyHash {
    type Err = NotAKeyHash;

    fn from_str(text: &str) -> Result<Self, NotAKeyHash> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|&character| character != ':')
            .map(|character| character.to_digit(16)?.try_into().ok())
            .collect();
        let digits = digits.ok_or(NotAKeyHash)?;
        if digits.len() != 64 {
            return Err(NotAKeyHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that names no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the SHA-256 of a public key: 64 hexadecimal digits, with or without colons")]
pub struct NotAKeyHash;

/// A revocation list with a signature that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedList {
    der: CertificateRevocationListDer<'static>,
    facts: RevocationList,
    /// Which anchor signed it; `None` if an intermediate did.
    anchor: Option<usize>,
    /// That one's name and public key, hashed.
    signer: [u8; 32],
}

impl SignedList {
    /// Checks who signed a list: one of `anchors`, or an intermediate in `beside`.
    pub(super) fn read(
        der: CertificateRevocationListDer<'static>,
        anchors: &[CertificateDer<'_>],
        beside: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<Self, ListRefusal> {
        let facts = RevocationList::read(&der)?;
        // What an operator made an anchor is an authority, whatever its certificate says.
        let anchors = anchors.iter().enumerate();
        let mut known: Vec<(Option<usize>, Signer)> = anchors
            .filter_map(|(index, der)| Some((Some(index), Signer::read(der)?)))
            .collect();
        for certificate in beside {
            let signer = Signer::read(certificate).ok_or(ListRefusal::Beside)?;
            let mut issuers = known.iter().filter(|(_, known)| known.signs_certificates);
            let issued = issuers
                .any(|(_, known)| is_signed_by(certificate, &signer.issuer, known, algorithms));
            if !issued || !signer.is_authority {
                return Err(ListRefusal::Beside);
            }
            known.push((None, signer));
        }
        let issuer = || facts.issuer_name.clone();
        if !known.iter().any(|(_, known)| known.name == facts.issuer) {
            return Err(ListRefusal::Foreign { issuer: issuer() });
        }
        let mut signers = known.into_iter().filter(|(_, known)| known.signs_lists);
        let signer =
            signers.find(|(_, known)| is_signed_by(&der, &facts.issuer, known, algorithms));
        let Some((anchor, signer)) = signer else {
            return Err(ListRefusal::Signature { issuer: issuer() });
        };
        let mut hash = Context::new(&SHA256);
        hash.update(&signer.name);
        hash.update(&signer.key);
        let mut signer = [0; 32];
        signer.copy_from_slice(hash.finish().as_ref());
        Ok(Self {
            der,
            facts,
            anchor,
            signer,
        })
    }

    /// What it says about itself.
    #[must_use]
    pub fn facts(&self) -> &RevocationList {
        &self.facts
    }

    /// What it revokes.
    #[must_use]
    pub fn revoked(&self) -> Vec<Revoked> {
        Revoked::all(&self.der)
    }

    pub(super) fn der(&self) -> &CertificateRevocationListDer<'static> {
        &self.der
    }

    /// Whether it may speak about chains that end at this anchor.
    pub(super) fn is_for(&self, anchor: usize) -> bool {
        self.anchor.is_none_or(|own| own == anchor)
    }

    /// Who signed it, by name and key: the SHA-256 of both.
    #[must_use]
    pub fn signer(&self) -> [u8; 32] {
        self.signer
    }
}

/// Why a list is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListRefusal {
    /// It is not a whole list.
    #[error(transparent)]
    List(#[from] ListError),
    /// Nobody of that name is known.
    #[error("the revocation list is of {issuer}, which is not this authority")]
    Foreign {
        /// Who says to have signed it.
        issuer: String,
    },
    /// It was changed, or signed by another one of the same name, or by one that may not.
    #[error(
        "the signature of the revocation list is not of this authority, though it names {issuer}"
    )]
    Signature {
        /// Who says to have signed it.
        issuer: String,
    },
    /// The file may hold intermediates of this authority, and holds something else.
    #[error("a certificate beside the revocation list was not issued by this authority")]
    Beside,
}

fn is_signed_by(
    der: &[u8],
    issuer: &[u8],
    signer: &Signer,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Some(signed) = Signed::read(der) else {
        return false;
    };
    let mut fitting = algorithms.all.iter().filter(|algorithm| {
        algorithm.signature_alg_id().as_ref() == signed.algorithm
            && algorithm.public_key_alg_id().as_ref() == signer.algorithm
    });
    signer.name == issuer
        && fitting.any(|algorithm| {
            algorithm
                .verify_signature(&signer.key, signed.message, signed.signature)
                .is_ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_hash_is_read_back_with_colons_and_in_any_case() {
        let text = "00ff".repeat(16);
        let hash: KeyHash = text.parse().unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!("00:FF:".repeat(16).parse(), Ok(hash));
    }

    #[test]
    fn what_is_no_key_hash_is_refused() {
        for text in [
            "",
            "00",
            &"0".repeat(63),
            &"0".repeat(66),
            &"g".repeat(64),
            &"\u{ff10}".repeat(64),
        ] {
            assert_eq!(text.parse::<KeyHash>(), Err(NotAKeyHash), "{text}");
        }
    }
}
