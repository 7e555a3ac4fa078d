//! Who signed what: by name and by key, whatever the time is and whatever it is good for.

use adit_core::identity::revocation::{Signed, Signer};
use aws_lc_rs::digest::{Context, SHA256};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::CertificateDer;

/// Whether a chain leads to one of `anchors` by its signatures. Dates and purposes are other questions: a chain that is
/// over still has its root, and another root of the same name has not signed it.
#[must_use]
pub fn leads_to(
    chain: &[CertificateDer<'_>],
    anchors: &[CertificateDer<'_>],
    provider: &CryptoProvider,
) -> bool {
    let algorithms = &provider.signature_verification_algorithms;
    let signers: Vec<Signer> = anchors.iter().filter_map(|der| Signer::read(der)).collect();
    let mut rest: Vec<&CertificateDer<'_>> = chain.iter().rev().collect();
    let mut reached: Vec<&CertificateDer<'_>> = rest.pop().into_iter().collect();
    // From each certificate to those of the others that signed it.
    while let Some(certificate) = reached.pop() {
        let Some(issuer) = Signer::read(certificate).map(|read| read.issuer) else {
            continue;
        };
        let signed = |signer: &Signer| is_signed_by(certificate, &issuer, signer, algorithms);
        if anchors.contains(certificate) || signers.iter().any(signed) {
            return true;
        }
        rest.retain(|candidate| {
            let signs = Signer::read(candidate)
                .is_some_and(|signer| signer.signs_certificates && signed(&signer));
            if signs {
                reached.push(*candidate);
            }
            !signs
        });
    }
    false
}

/// Who signs: a name together with a public key, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignerId([u8; 32]);

impl SignerId {
    pub(super) fn of(signer: &Signer) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(&signer.name);
        hash.update(&signer.key);
        let mut id = [0; 32];
        id.copy_from_slice(hash.finish().as_ref());
        Self(id)
    }

    pub(super) fn bytes(self) -> [u8; 32] {
        self.0
    }
}

/// Whether `signer` signed something in DER that names `issuer`.
pub(super) fn is_signed_by(
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
