//! Revocation lists that an authority really signed.
//!
//! webpki asks a list at the handshake and checks its signature there; a wrong list would then
//! refuse everybody. So the same is checked when the list is loaded, where an operator sees it.

use adit_core::identity::revocation::{ListError, RevocationList, Signed, Signer};
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

/// A revocation list with a signature that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedList {
    der: CertificateRevocationListDer<'static>,
    facts: RevocationList,
    /// Which anchor signed it; `None` if an intermediate did.
    anchor: Option<usize>,
    /// The public key of that one.
    signer: Vec<u8>,
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
        Ok(Self {
            der,
            facts,
            anchor,
            signer: signer.key,
        })
    }

    /// What it says about itself.
    #[must_use]
    pub fn facts(&self) -> &RevocationList {
        &self.facts
    }

    pub(super) fn der(&self) -> &CertificateRevocationListDer<'static> {
        &self.der
    }

    /// Whether it may speak about chains that end at this anchor.
    pub(super) fn is_for(&self, anchor: usize) -> bool {
        self.anchor.is_none_or(|own| own == anchor)
    }

    /// Whether the same authority signed both, by name and key.
    #[must_use]
    pub fn has_signer_of(&self, other: &Self) -> bool {
        self.facts.issuer == other.facts.issuer && self.signer == other.signer
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
