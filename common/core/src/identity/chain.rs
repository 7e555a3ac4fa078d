//! What a chain says as a whole, after webpki accepted it.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// The subjectPublicKeyInfo of a certificate in DER (RFC 5280 §4.1.2.7).
#[must_use]
pub fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    Some(parse(certificate)?.tbs_certificate.subject_pki.raw)
}

/// The last second, since 1970, in which a chain can be valid: the first end of the certificates that lead
/// from the leaf upwards. Intermediates of other paths do not count; of two with one name, the later end does.
///
/// `None` when the leaf cannot be read.
#[must_use]
pub fn not_after<C: AsRef<[u8]>>(leaf: &[u8], intermediates: &[C]) -> Option<i64> {
    let leaf = parse(leaf)?;
    let mut others: Vec<X509Certificate<'_>> = intermediates
        .iter()
        .filter_map(|certificate| parse(certificate.as_ref()))
        .collect();
    let mut end = leaf.validity().not_after.timestamp();
    let mut issuer = leaf.issuer().as_raw().to_vec();
    // Each certificate is passed once, so that a circle of names ends.
    loop {
        let (above, rest): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|certificate| certificate.subject().as_raw() == issuer);
        let latest = above
            .iter()
            .max_by_key(|certificate| certificate.validity().not_after.timestamp());
        let Some(latest) = latest else {
            return Some(end);
        };
        end = end.min(latest.validity().not_after.timestamp());
        issuer = latest.issuer().as_raw().to_vec();
        others = rest;
    }
}

fn parse(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
    };

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn params(name: &str, end: i32) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(end, 1, 1);
        params
    }

    fn root() -> Issuer {
        CertifiedIssuer::self_signed(params("root", 2040), KeyPair::generate().unwrap()).unwrap()
    }

    fn below(issuer: &Issuer, name: &str, end: i32) -> Issuer {
        CertifiedIssuer::signed_by(params(name, end), KeyPair::generate().unwrap(), issuer).unwrap()
    }

    fn end(leaf: &Issuer, intermediates: &[&Issuer]) -> i64 {
        let intermediates: Vec<_> = intermediates.iter().map(|one| one.der().clone()).collect();
        not_after(leaf.der(), &intermediates).unwrap()
    }

    fn year(year: i32) -> i64 {
        date_time_ymd(year, 1, 1).unix_timestamp()
    }

    #[test]
    fn a_chain_ends_with_the_first_of_its_certificates() {
        let upper = below(&root(), "upper", 2031);
        let lower = below(&upper, "lower", 2035);
        let leaf = below(&lower, "leaf", 2033);
        assert_eq!(end(&leaf, &[]), year(2033));
        assert_eq!(end(&leaf, &[&lower]), year(2033));
        assert_eq!(end(&leaf, &[&lower, &upper]), year(2031));
        assert_eq!(end(&leaf, &[&upper, &lower]), year(2031));
    }

    #[test]
    fn certificates_of_other_paths_do_not_count() {
        let root = root();
        let (middle, stranger) = (below(&root, "middle", 2035), below(&root, "other", 2027));
        let older = below(&root, "middle", 2028);
        let leaf = below(&middle, "leaf", 2033);
        assert_eq!(end(&leaf, &[&stranger, &older, &middle]), year(2033));
    }

    #[test]
    fn a_circle_of_names_ends() {
        let one = below(&root(), "one", 2035);
        let two = below(&one, "two", 2034);
        let again = below(&two, "one", 2033);
        assert_eq!(end(&two, &[&one, &two, &again]), year(2034));
    }

    #[test]
    fn the_public_key_is_that_of_the_certificate() {
        use rcgen::PublicKeyData;
        let root = root();
        let key = root.key().subject_public_key_info();
        assert_eq!(public_key(root.der()), Some(key.as_slice()));
        assert_eq!(public_key(&root.der()[1..]), None);
    }
}
