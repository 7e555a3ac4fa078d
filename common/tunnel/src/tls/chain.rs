//! What a chain must be before anybody checks a signature in it.
//!
//! webpki tries every certificate that is shown as an issuer of every other: 180 intermediates of one name kept it busy for
//! 5.6 s, on the thread of all handshakes. It also leaves unread what an issuer's keyUsage says
//! (RFC 5280 §4.2.1.3), so that whoever holds a certificate of an authority that may only sign lists could issue.

use std::fmt;
use std::sync::Arc;

use adit_core::identity;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error, OtherError};

/// Why a chain is not looked at any further.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainRefusal {
    /// More certificates than are looked at.
    #[error("the chain has {0} certificates, and at most {MAX_CERTIFICATES} are looked at")]
    Long(usize),
    /// More bytes than are looked at.
    #[error("the chain has {0} bytes, and at most {MAX_BYTES} are looked at")]
    Large(usize),
    /// One that is no leaf is not for issuing.
    #[error("an intermediate certificate may not issue: its keyUsage lacks keyCertSign")]
    Usage,
}

/// The same words: rustls tells the other side of errors that are not its own by this.
impl fmt::Debug for ChainRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ChainRefusal> for Error {
    fn from(refusal: ChainRefusal) -> Self {
        let error = CertificateError::Other(OtherError(Arc::new(refusal)));
        Self::InvalidCertificate(error)
    }
}

/// Counts a chain; what it says is not looked at.
pub(super) fn measured(chain: &[CertificateDer<'_>]) -> Result<(), ChainRefusal> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Ok(());
    };
    measure(leaf, intermediates)
}

/// Counts a chain, and asks whether every issuer in it may be one.
///
/// # Errors
/// [`ChainRefusal`], or that of a certificate that cannot be read.
pub(super) fn examined(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Error> {
    measure(leaf, intermediates)?;
    for intermediate in intermediates {
        match identity::may_issue(intermediate) {
            Ok(true) => {}
            Ok(false) => return Err(ChainRefusal::Usage.into()),
            Err(_) => return Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }
    Ok(())
}

fn measure(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), ChainRefusal> {
    let count = 1 + intermediates.len();
    if count > MAX_CERTIFICATES {
        return Err(ChainRefusal::Long(count));
    }
    let all = std::iter::once(leaf).chain(intermediates);
    let bytes = all.map(|certificate| certificate.len()).sum();
    if bytes > MAX_BYTES {
        return Err(ChainRefusal::Large(bytes));
    }
    Ok(())
}

/// A leaf and as many authorities as webpki follows (its depth is six).
const MAX_CERTIFICATES: usize = 7;
/// Seven of seven kilobytes each: a certificate with RSA 4096 keys has two. TLS itself allows 64 KiB.
const MAX_BYTES: usize = 50 * 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use adit_core::identity::{AuthorityRule, GroupSource, PrincipalSource};
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension,
        ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
    };
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::server::danger::ClientCertVerifier;

    use super::*;
    use crate::tls::{Algorithms, Authorities, Authority, ClientAuth, GatewayVerifier};

    type Der = CertificateDer<'static>;

    /// An authority with so many others below it, one below the other, and what the last of them issued.
    struct Company {
        root: Der,
        chain: Vec<Der>,
    }

    impl Company {
        fn new(depth: usize, usages: &[KeyUsagePurpose], padding: usize) -> Self {
            let mut issuer =
                CertifiedIssuer::self_signed(authority("Root", MAY_ISSUE), key()).unwrap();
            let (root, mut chain) = (issuer.der().clone(), Vec::new());
            for number in 0..depth {
                let params = authority(&format!("Issuing {number}"), usages);
                issuer = CertifiedIssuer::signed_by(params, key(), &issuer).unwrap();
                chain.insert(0, issuer.der().clone());
            }
            chain.insert(0, leaf(&issuer, padding));
            Self { root, chain }
        }

        /// What a gateway and a client make of it.
        fn verdicts(&self) -> [Result<(), Error>; 2] {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = UnixTime::since_unix_epoch(now.unwrap_or(Duration::ZERO));
            let provider = Arc::new(Algorithms::for_this_cpu().provider());
            let rule = AuthorityRule {
                name: "company".to_owned(),
                principal: vec![PrincipalSource::Dns],
                groups: GroupSource::None,
                trust_domain: None,
            };
            let anchors = vec![self.root.clone()];
            let authority = Authority::new(rule, anchors.clone(), &provider).unwrap();
            let authorities = Authorities::new(vec![authority], ClientAuth::Mandatory);
            let gateways = GatewayVerifier::new(anchors, &provider).unwrap();
            let name = ServerName::try_from("vpn.example.com").unwrap();
            let (leaf, others) = self.chain.split_first().unwrap();
            let gateway = gateways.verify_server_cert(leaf, others, &name, &[], now);
            assert_eq!(
                authorities.vouch(&self.chain, now).is_ok(),
                authorities.recognise(&self.chain, now).is_some()
            );
            [
                authorities
                    .verify_client_cert(leaf, others, now)
                    .map(|_| ()),
                gateway.map(|_| ()),
            ]
        }

        fn refused(&self, words: &str) {
            for verdict in self.verdicts() {
                let error = verdict.unwrap_err().to_string();
                assert!(error.contains(words), "{error}");
            }
        }
    }

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ED25519).unwrap()
    }

    fn authority(name: &str, usages: &[KeyUsagePurpose]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = usages.to_vec();
        params
    }

    fn leaf(issuer: &Issuer<'_, KeyPair>, padding: usize) -> Der {
        let mut params = CertificateParams::new(vec!["vpn.example.com".to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        if padding > 0 {
            let bytes = vec![0; padding];
            params.custom_extensions =
                vec![CustomExtension::from_oid_content(&[1, 3, 6, 1], bytes)];
        }
        params.signed_by(&key(), issuer).unwrap().der().clone()
    }

    #[test]
    fn a_chain_of_seven_is_accepted_and_a_longer_one_is_not_looked_at() {
        for verdict in Company::new(6, MAY_ISSUE, 0).verdicts() {
            assert_eq!(verdict, Ok(()));
        }
        Company::new(7, MAY_ISSUE, 0).refused("8 certificates, and at most 7");
        // Nobody checks a signature: those are all of one name, and webpki would try each under each.
        let mut company = Company::new(1, MAY_ISSUE, 0);
        company.chain.resize(181, company.chain[1].clone());
        company.refused("181 certificates, and at most 7");
    }

    #[test]
    fn a_chain_of_fifty_kilobytes_is_accepted_and_a_larger_one_is_not_looked_at() {
        for verdict in Company::new(1, MAY_ISSUE, 49 * 1024).verdicts() {
            assert_eq!(verdict, Ok(()));
        }
        Company::new(1, MAY_ISSUE, 50 * 1024).refused("bytes, and at most 51200");
    }

    #[test]
    fn an_issuer_with_a_key_usage_must_be_one_by_it() {
        for verdict in Company::new(1, &[], 0).verdicts() {
            assert_eq!(verdict, Ok(()));
        }
        for usage in [KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature] {
            Company::new(1, &[usage], 0).refused("its keyUsage lacks keyCertSign");
        }
    }

    #[test]
    fn an_own_chain_that_nobody_would_look_at_is_refused_where_it_is_read() {
        let company = Company::new(7, MAY_ISSUE, 0);
        assert_eq!(measured(&company.chain), Err(ChainRefusal::Long(8)));
        assert_eq!(measured(&company.chain[..7]), Ok(()));
        assert_eq!(measured(&[]), Ok(()));
    }

    const MAY_ISSUE: &[KeyUsagePurpose] = &[KeyUsagePurpose::KeyCertSign];
}
