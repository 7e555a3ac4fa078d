//! What a certificate says, in words for people: also one that another authority issued.
//!
//! Reads the first certificate of a PEM file, whatever else the file contains (a profile, for
//! example). Nothing is verified here.

use ring::digest::{SHA256, digest};
use thiserror::Error;
use time::OffsetDateTime;
use time::macros::format_description;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::hex;

/// The first certificate in `text`, in DER.
pub fn first_certificate(text: &[u8]) -> Option<Vec<u8>> {
    // Blocks of other kinds may be broken or secret; they are not looked at.
    let begin = text
        .windows(BEGIN.len())
        .position(|window| window == BEGIN)?;
    let (pem, _) = Pem::read(std::io::Cursor::new(&text[begin..])).ok()?;
    (pem.label == "CERTIFICATE").then_some(pem.contents)
}

/// Every certificate in `text`, in DER; nothing of it if one of them is broken.
pub fn certificates(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.windows(BEGIN.len()).position(|window| window == BEGIN) {
        rest = &rest[begin..];
        found.push(first_certificate(rest)?);
        rest = &rest[BEGIN.len()..];
    }
    Some(found)
}

/// Whether the holder of `issuer` signed `certificate`, both in DER: by the names in them and by the signature. What
/// either may be used for is not looked at.
pub fn is_signed_by(certificate: &[u8], issuer: &[u8]) -> bool {
    let both = (
        X509Certificate::from_der(certificate),
        X509Certificate::from_der(issuer),
    );
    let (Ok((_, certificate)), Ok((_, issuer))) = both else {
        return false;
    };
    is_issued_by(&certificate, &issuer)
}

/// The same of certificates that have been read.
pub(crate) fn is_issued_by(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
}

/// The facts of a certificate.
pub(crate) struct Facts {
    /// The first alternative name, or the common name where there is none.
    pub(crate) principal: String,
    /// The whole name of the holder.
    pub(crate) subject: String,
    /// The whole name of the authority that signed it.
    pub(crate) issuer: String,
    pub(crate) purpose: String,
    /// The alternative names, each with its kind.
    pub(crate) names: Vec<String>,
    /// The organisational units.
    pub(crate) groups: Vec<String>,
    /// Hexadecimal digits.
    pub(crate) serial: String,
    /// First second of validity, Unix time.
    pub(crate) valid_from: i64,
    /// Last second of validity, Unix time.
    pub(crate) expires: i64,
    /// Kind and size of the key.
    pub(crate) key: String,
    /// SHA-256 of the public key, in hexadecimal digits.
    pub(crate) key_sha256: String,
}

impl Facts {
    /// Reads the certificate `der`.
    pub(crate) fn read(der: &[u8]) -> Result<Self, DescriptionError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| DescriptionError)?;
        let names = names(&certificate);
        let mut common = certificate.subject().iter_common_name();
        let common = common.next().and_then(|name| name.as_str().ok());
        let first = names.first().and_then(|name| name.split_once(':'));
        Ok(Self {
            principal: match (first, common) {
                (Some((_, name)), _) => name.to_owned(),
                (None, common) => printable(common.unwrap_or_default()),
            },
            subject: printable(&certificate.subject().to_string()),
            issuer: printable(&certificate.issuer().to_string()),
            purpose: purpose(&certificate),
            groups: groups(&certificate),
            serial: hex(certificate.serial.to_bytes_be().as_slice()),
            valid_from: certificate.validity().not_before.timestamp(),
            expires: certificate.validity().not_after.timestamp(),
            key: key(&certificate),
            key_sha256: fingerprint(certificate.public_key().raw),
            names,
        })
    }
}

/// SHA-256 in hexadecimal digits: of a certificate in DER, the one name that every tool gives it.
pub fn fingerprint(der: &[u8]) -> String {
    hex(digest(&SHA256, der).as_ref())
}

/// A moment of Unix time, in UTC, to the second.
pub fn instant(unix: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    OffsetDateTime::from_unix_timestamp(unix)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| format!("{unix} s"))
}

/// The day of a moment of Unix time, in UTC.
pub fn date(unix: i64) -> String {
    instant(unix).chars().take(10).collect()
}

/// What is described is not a certificate.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the certificate is not well-formed")]
pub struct DescriptionError;

/// How far away a moment is, "in 3 days" or "3 days ago".
pub(crate) fn distance(seconds: i64) -> String {
    let (value, unit) = match seconds.unsigned_abs() {
        seconds if seconds >= 2 * DAY => (seconds / DAY, "days"),
        seconds if seconds >= 2 * HOUR => (seconds / HOUR, "hours"),
        seconds => (seconds / 60, "minutes"),
    };
    if seconds < 0 {
        format!("{value} {unit} ago")
    } else {
        format!("in {value} {unit}")
    }
}

fn purpose(certificate: &X509Certificate<'_>) -> String {
    if certificate.is_ca() {
        return "authority".to_owned();
    }
    let usage = certificate
        .extended_key_usage()
        .ok()
        .flatten()
        .map(|usage| usage.value);
    match usage.map(|usage| (usage.client_auth, usage.server_auth)) {
        Some((true, false)) => "client",
        Some((false, true)) => "gateway",
        Some((true, true)) => "client and gateway",
        Some((false, false)) => "neither client nor gateway",
        None => "not stated",
    }
    .to_owned()
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Some(extension) = certificate.subject_alternative_name().ok().flatten() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    let names = names.filter_map(|name| match name {
        GeneralName::RFC822Name(text) => Some(format!("email:{text}")),
        GeneralName::URI(text) => Some(format!("uri:{text}")),
        GeneralName::DNSName(text) => Some(format!("dns:{text}")),
        GeneralName::IPAddress(bytes) => Some(format!("ip:{}", address(bytes))),
        // Nothing here reads names of other kinds.
        _ => None,
    });
    names.map(|name| printable(&name)).collect()
}

fn groups(certificate: &X509Certificate<'_>) -> Vec<String> {
    let units = certificate.subject().iter_organizational_unit();
    units
        .map(|unit| printable(unit.as_str().unwrap_or("?")))
        .collect()
}

fn key(certificate: &X509Certificate<'_>) -> String {
    use x509_parser::public_key::PublicKey;
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => format!("ECDSA, {} bits", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("RSA, {} bits", key.key_size()),
        _ if certificate.public_key().algorithm.algorithm.to_id_string() == ED25519 => {
            "Ed25519".to_owned()
        }
        _ => "of another kind".to_owned(),
    }
}

fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| std::net::IpAddr::from(octets).to_string());
    let v6 = <[u8; 16]>::try_from(bytes).map(|octets| std::net::IpAddr::from(octets).to_string());
    v4.or(v6).unwrap_or_else(|_| hex(bytes))
}

/// The certificate may come from anywhere, and the text goes to a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect()
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// RFC 8410 §3.
const ED25519: &str = "1.3.101.112";
