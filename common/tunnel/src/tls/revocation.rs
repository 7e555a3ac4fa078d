//! Revocation lists that an authority really signed.
//!
//! The signature is checked when a list is loaded, where an operator sees what is wrong with it: at a
//! handshake a wrong list would refuse everybody.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use adit_core::identity;
use adit_core::identity::revocation::{ListError, RevocationList, Revoked, Signer};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use webpki::BorrowedCertRevocationList;

use super::signature::{SignerId, is_signed_by};

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
    /// The serial numbers, as they stand in certificates.
    serials: Arc<BTreeSet<Vec<u8>>>,
    signer: SignerId,
    /// The certificate of the intermediate that signed it; `None` if an anchor did.
    intermediate: Option<CertificateDer<'static>>,
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
        let serials = serials(&der)?;
        // What an operator made an anchor is an authority, whatever its certificate says.
        let anchors = anchors.iter().filter_map(|der| Signer::read(der));
        let mut known: Vec<(Signer, Option<&CertificateDer<'_>>)> =
            anchors.map(|anchor| (anchor, None)).collect();
        for certificate in beside {
            let signer = Signer::read(certificate).ok_or(ListRefusal::Beside)?;
            let mut issuers = known.iter().filter(|(known, _)| known.signs_certificates);
            let issued = issuers
                .any(|(known, _)| is_signed_by(certificate, &signer.issuer, known, algorithms));
            if !issued || !signer.is_authority {
                return Err(ListRefusal::Beside);
            }
            known.push((signer, Some(certificate)));
        }
        let issuer = || facts.issuer_name.clone();
        if !known.iter().any(|(known, _)| known.name == facts.issuer) {
            return Err(ListRefusal::Foreign { issuer: issuer() });
        }
        let mut signers = known.iter().filter(|(known, _)| known.signs_lists);
        let signer =
            signers.find(|(known, _)| is_signed_by(&der, &facts.issuer, known, algorithms));
        let Some((signer, intermediate)) = signer else {
            return Err(ListRefusal::Signature { issuer: issuer() });
        };
        Ok(Self {
            signer: SignerId::of(signer),
            intermediate: intermediate.map(|der| der.clone().into_owned()),
            serials: Arc::new(serials),
            facts,
            der,
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

    /// The certificate of the intermediate that signed it; `None` if an anchor did.
    #[must_use]
    pub fn intermediate(&self) -> Option<&CertificateDer<'static>> {
        self.intermediate.as_ref()
    }

    /// Whether it revokes the certificate of its signer with this serial number, as that stands in there.
    pub(super) fn revokes(&self, serial: &[u8]) -> bool {
        self.serials.contains(serial)
    }

    /// When it is too old.
    pub(super) fn next_update(&self) -> UnixTime {
        let seconds = u64::try_from(self.facts.next_update).unwrap_or_default();
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    pub(super) fn signer_id(&self) -> SignerId {
        self.signer
    }

    /// Who signed it, by name and key: the SHA-256 of both.
    #[must_use]
    pub fn signer(&self) -> [u8; 32] {
        self.signer.bytes()
    }
}

/// Why a list is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListRefusal {
    /// It is not a whole list.
    #[error(transparent)]
    List(#[from] ListError),
    /// It has something critical in it that nobody here understands (RFC 5280 §5.2).
    #[error("the revocation list cannot be used: {0}")]
    Unsupported(webpki::Error),
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

/// The serial numbers in a list.
fn serials(der: &[u8]) -> Result<BTreeSet<Vec<u8>>, ListRefusal> {
    let list = BorrowedCertRevocationList::from_der(der).map_err(ListRefusal::Unsupported)?;
    let serials = list
        .into_iter()
        .map(|revoked| revoked.map(|revoked| revoked.serial_number.to_vec()));
    let serials: Result<_, _> = serials.collect();
    serials.map_err(ListRefusal::Unsupported)
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
