//! The public key of a certificate, whatever kind of certificate it is.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// The subjectPublicKeyInfo of a certificate in DER (RFC 5280 §4.1.2.7).
#[must_use]
pub fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Some(certificate.tbs_certificate.subject_pki.raw),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn the_public_key_is_that_of_the_certificate() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let info = key.subject_public_key_info();
        assert_eq!(public_key(certificate.der()), Some(info.as_slice()));
        assert_eq!(public_key(&certificate.der()[1..]), None);
    }
}
