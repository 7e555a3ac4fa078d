//! What a revocation list says about itself, before anything in it counts (RFC 5280 §5).
//!
//! Whether a certificate is in a list is asked of webpki; here stands what an operator wants to
//! know when the list is loaded: who signed it, whether it speaks for all of that issuer's
//! certificates, and when the next one is due. Refused are lists that tell a part only.

use std::fmt;

use serde::{Deserialize, Serialize};
use x509_parser::asn1_rs::Any;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_X509_EXT_DELTA_CRL_INDICATOR, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::extract::hexadecimal;

/// The facts of a revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// The issuer's name in DER, to compare.
    pub issuer: Vec<u8>,
    /// The issuer's name, for people.
    pub issuer_name: String,
    /// Grows with every list of an issuer.
    pub number: ListNumber,
    /// When it was signed, since 1970.
    pub this_update: i64,
    /// When the next one is due, since 1970.
    pub next_update: i64,
    /// How many certificates it revokes.
    pub entries: usize,
}

impl RevocationList {
    /// Reads the facts of a list in DER; the signature is somebody else's to check.
    ///
    /// # Errors
    /// When it cannot be read, or does not speak for all certificates of its issuer.
    pub fn read(der: &[u8]) -> Result<Self, ListError> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(ListError::Unreadable);
        };
        for extension in list.extensions() {
            if extension.oid == OID_X509_EXT_DELTA_CRL_INDICATOR {
                return Err(ListError::Delta);
            }
            if extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT {
                return Err(ListError::Partial);
            }
        }
        let number = list.crl_number().ok_or(ListError::NoNumber)?;
        let next_update = list.next_update().ok_or(ListError::NoNextUpdate)?;
        Ok(Self {
            issuer: list.issuer().as_raw().to_vec(),
            issuer_name: printable(&list.issuer().to_string()),
            number: ListNumber::from_bytes(&number.to_bytes_be()).ok_or(ListError::NoNumber)?,
            this_update: list.last_update().timestamp(),
            next_update: next_update.timestamp(),
            entries: list.iter_revoked_certificates().count(),
        })
    }

    /// How much of its life is over at `now`, since 1970.
    #[must_use]
    pub fn freshness(&self, now: i64) -> Freshness {
        let life = self.next_update.saturating_sub(self.this_update);
        if now > self.next_update {
            Freshness::Expired
        } else if now.saturating_sub(self.this_update) > life / 2 {
            Freshness::Ageing
        } else {
            Freshness::Fresh
        }
    }
}

/// A certificate that a list revokes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// When it was revoked, since 1970.
    pub at: i64,
    /// Why, by its name in RFC 5280 §5.3.1; `None` where the list does not say.
    pub reason: Option<&'static str>,
}

impl Revoked {
    /// Everything that a list in DER revokes; nothing if it cannot be read.
    #[must_use]
    pub fn all(der: &[u8]) -> Vec<Self> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Vec::new();
        };
        let revoked = list.iter_revoked_certificates();
        let revoked = revoked.map(|revoked| Self {
            serial: hexadecimal(revoked.raw_serial()),
            at: revoked.revocation_date.timestamp(),
            reason: revoked
                .reason_code()
                .and_then(|(_, code)| REASONS.get(usize::from(code.0)).copied()),
        });
        revoked.collect()
    }
}

/// How old a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// In the first half of its life.
    Fresh,
    /// In the second half: the next one should be there by now.
    Ageing,
    /// The next one is overdue.
    Expired,
}

/// A number of up to 20 octets (RFC 5280 §5.2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListNumber([u8; 20]);

impl ListNumber {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut number = [0; 20];
        let start = number.len().checked_sub(bytes.len())?;
        number[start..].copy_from_slice(bytes);
        Some(Self(number))
    }
}

impl fmt::Display for ListNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_last_chunk::<8>() {
            Some((high, low)) if high.iter().all(|&byte| byte == 0) => {
                u64::from_be_bytes(*low).fmt(f)
            }
            _ => {
                f.write_str("0x")?;
                let digits = self.0.iter().skip_while(|&&byte| byte == 0);
                digits
                    .into_iter()
                    .try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for ListNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The three parts of a certificate or a revocation list (RFC 5280 §4.1, §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// What is signed.
    pub message: &'a [u8],
    /// How, an `AlgorithmIdentifier` without its tag and length.
    pub algorithm: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Takes something signed in DER apart.
    #[must_use]
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let whole = element(der)?;
        let message = element(whole.content)?;
        let algorithm = element(message.rest)?;
        let signature = element(algorithm.rest)?;
        let end = whole.rest.is_empty() && signature.rest.is_empty();
        end.then_some(Self {
            message: message.whole,
            algorithm: algorithm.content,
            signature: bits(signature.content)?,
        })
    }
}

/// Who may have signed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Its name in DER.
    pub name: Vec<u8>,
    /// Who issued its own certificate, in DER.
    pub issuer: Vec<u8>,
    /// The kind of key, an `AlgorithmIdentifier` without its tag and length.
    pub algorithm: Vec<u8>,
    /// The public key.
    pub key: Vec<u8>,
    /// Whether its certificate is one of an authority.
    pub is_authority: bool,
    /// Whether its key may sign certificates.
    pub signs_certificates: bool,
    /// Whether its key may sign lists.
    pub signs_lists: bool,
}

impl Signer {
    /// Reads an authority's certificate.
    #[must_use]
    pub fn read(certificate: &[u8]) -> Option<Self> {
        let Ok(([], certificate)) = X509Certificate::from_der(certificate) else {
            return None;
        };
        let key_info = element(certificate.public_key().raw)?;
        let algorithm = element(key_info.content)?;
        let key = element(algorithm.rest)?;
        // RFC 5280 §4.2.1.3: where the extension is absent, the key may be used for anything.
        let usage = certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::KeyUsage(usage) => Some(usage),
                _ => None,
            }
        });
        Some(Self {
            name: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            algorithm: algorithm.content.to_vec(),
            key: bits(key.content)?.to_vec(),
            is_authority: certificate.is_ca(),
            signs_certificates: usage.is_none_or(|usage| usage.key_cert_sign()),
            signs_lists: usage.is_none_or(|usage| usage.crl_sign()),
        })
    }
}

/// Why a list cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not a list this parser understands.
    #[error("the revocation list cannot be read")]
    Unreadable,
    /// It has an issuing distribution point: other lists may say more (RFC 5280 §5.2.5).
    #[error("the revocation list is partial: it speaks for some of its issuer's certificates only")]
    Partial,
    /// It says what changed since another list (RFC 5280 §5.2.4).
    #[error("the revocation list is a delta: it says only what changed since another one")]
    Delta,
    /// RFC 5280 §5.2.3 demands it; without, an old list could take the place of a newer one.
    #[error("the revocation list has no number")]
    NoNumber,
    /// RFC 5280 §5.1.2.5 demands it; without, nobody knows when it is too old.
    #[error("the revocation list does not say when the next one is due")]
    NoNextUpdate,
}

/// One element of DER.
struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
    rest: &'a [u8],
}

fn element(der: &[u8]) -> Option<Element<'_>> {
    let (rest, any) = Any::from_der(der).ok()?;
    Some(Element {
        whole: der.get(..der.len() - rest.len())?,
        content: any.data,
        rest,
    })
}

/// The octets of a BIT STRING without unused bits.
fn bits(content: &[u8]) -> Option<&[u8]> {
    match content.split_first() {
        Some((0, bits)) => Some(bits),
        _ => None,
    }
}

/// The list may come from anywhere, and its issuer's name goes to a log.
fn printable(text: &str) -> String {
    let characters = text.chars().take(MAX_NAME);
    characters
        .map(|character| match character {
            character if character.is_control() => '?',
            character => character,
        })
        .collect()
}

/// By their numbers (RFC 5280 §5.3.1).
const REASONS: [&str; 11] = [
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "",
    "removeFromCRL",
    "privilegeWithdrawn",
    "aACompromise",
];
/// Characters of a name in a message.
const MAX_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
        CrlDistributionPoint, CrlIssuingDistributionPoint, DnType, IsCa, KeyIdMethod, KeyPair,
        SerialNumber, date_time_ymd,
    };

    use super::*;

    fn issuer() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Ex\nample");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn params(number: &[u8]) -> CertificateRevocationListParams {
        CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 1, 9),
            crl_number: SerialNumber::from_slice(number),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
    }

    fn list(number: &[u8]) -> RevocationList {
        let list = params(number).signed_by(&issuer()).unwrap();
        RevocationList::read(list.der()).unwrap()
    }

    #[test]
    fn what_a_list_revokes_is_read_with_its_moment_and_reason() {
        use rcgen::{RevocationReason, RevokedCertParams};
        let mut params = params(&[1]);
        let entry = |serial: &[u8], reason| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: date_time_ymd(1970, 1, 2),
            reason_code: reason,
            invalidity_date: None,
        };
        params.revoked_certs = vec![
            entry(&[0x0f, 0xa0], Some(RevocationReason::KeyCompromise)),
            entry(&[0xff], None),
        ];
        let list = params.signed_by(&issuer()).unwrap();
        let revoked = |serial: &str, reason| Revoked {
            serial: serial.to_owned(),
            at: 86_400,
            reason,
        };
        assert_eq!(
            Revoked::all(list.der()),
            [revoked("0fa0", Some("keyCompromise")), revoked("ff", None)]
        );
        assert!(Revoked::all(&list.der()[1..]).is_empty());
    }

    #[test]
    fn numbers_of_any_length_are_ordered_and_shown() {
        let numbers = [
            &[1][..],
            &[2],
            &[1, 0],
            &[0x7f; 8],
            &[1; 9],
            &[2; 9],
            &[0x7f; 20],
        ];
        let numbers = numbers.map(|bytes| list(bytes).number);
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(numbers[2].to_string(), "256");
        assert_eq!(numbers[4].to_string(), format!("0x{}", "01".repeat(9)));
    }

    #[test]
    fn a_list_ages_from_half_its_life_and_expires_after_its_last_second() {
        let list = list(&[1]);
        let day = 86_400;
        let freshness = |after| list.freshness(list.this_update + after);
        assert_eq!(freshness(-day), Freshness::Fresh);
        assert_eq!(freshness(4 * day), Freshness::Fresh);
        assert_eq!(freshness(4 * day + 1), Freshness::Ageing);
        assert_eq!(freshness(8 * day), Freshness::Ageing);
        assert_eq!(freshness(8 * day + 1), Freshness::Expired);
    }

    #[test]
    fn the_issuer_of_a_list_is_the_subject_of_its_signer() {
        let issuer = issuer();
        let signed = params(&[1]).signed_by(&issuer).unwrap();
        let list = RevocationList::read(signed.der()).unwrap();
        let signer = Signer::read(issuer.der()).unwrap();
        assert_eq!(list.issuer, signer.name);
        assert_eq!(list.issuer_name, "CN=Ex?ample");
        assert!(signer.is_authority && signer.signs_lists && signer.signs_certificates);
        let parts = Signed::read(signed.der()).unwrap();
        assert!(
            signed
                .der()
                .windows(parts.message.len())
                .any(|part| part == parts.message)
        );
    }

    #[test]
    fn a_delta_list_is_refused() {
        let delta = include_bytes!("../../../../fuzz/corpus/revocation_list/delta");
        assert_eq!(RevocationList::read(delta), Err(ListError::Delta));
        assert!(Signed::read(delta).is_some());
    }

    #[test]
    fn a_partial_a_cut_and_a_lengthened_list_are_refused() {
        let mut params = params(&[1]);
        let whole = params.signed_by(&issuer()).unwrap();
        params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: vec!["http://example.com/1.crl".to_owned()],
            },
            scope: None,
        });
        let partial = params.signed_by(&issuer()).unwrap();
        assert_eq!(RevocationList::read(partial.der()), Err(ListError::Partial));
        for end in 0..whole.der().len() {
            let cut = &whole.der()[..end];
            assert_eq!(RevocationList::read(cut), Err(ListError::Unreadable));
            assert_eq!(Signed::read(cut), None);
        }
        let longer = [whole.der().as_ref(), &[0]].concat();
        assert_eq!(RevocationList::read(&longer), Err(ListError::Unreadable));
        assert_eq!(Signed::read(&longer), None);
    }
}
