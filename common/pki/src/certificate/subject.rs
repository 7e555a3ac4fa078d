//! Organisational units in the subject of a certificate.
//!
//! rcgen keeps one value for each type of attribute, but every group is an organisational unit of
//! its own. So the units are put into the finished certificate, which is then signed again.

use rcgen::SigningKey;
use x509_parser::der_parser::asn1_rs::{Any, FromDer};
use x509_parser::prelude::X509Certificate;

use crate::authority::AuthorityError;

/// The certificate `der` with one organisational unit for each of `units`, signed by `key`.
pub(crate) fn with_units(
    der: &[u8],
    units: &[String],
    key: &impl SigningKey,
) -> Result<Vec<u8>, AuthorityError> {
    if units.is_empty() {
        return Ok(der.to_vec());
    }
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| AuthorityError::Encoding)?;
    let subject = certificate.tbs_certificate.subject().as_raw();
    let tbs = certificate.tbs_certificate.as_ref();

    let mut names = content(subject)?.to_vec();
    for unit in units {
        let attribute = [OID_UNIT, &element(UTF8_STRING, unit.as_bytes())].concat();
        names.extend(element(SET, &element(SEQUENCE, &attribute)));
    }
    let position = offset(tbs, subject).ok_or(AuthorityError::Encoding)?;
    let start = offset(tbs, content(tbs)?).ok_or(AuthorityError::Encoding)?;
    let tbs = element(
        SEQUENCE,
        &[
            &tbs[start..position],
            &element(SEQUENCE, &names),
            &tbs[position + subject.len()..],
        ]
        .concat(),
    );

    // The algorithm stands between the signed part and the signature; it stays as it is.
    let whole = content(der)?;
    let (rest, _) = Any::from_der(whole).map_err(|_| AuthorityError::Encoding)?;
    let (after, _) = Any::from_der(rest).map_err(|_| AuthorityError::Encoding)?;
    let algorithm = &rest[..rest.len() - after.len()];
    // A bit string starts with its number of unused bits.
    let signature = [&[0], key.sign(&tbs)?.as_slice()].concat();
    Ok(element(
        SEQUENCE,
        &[&tbs, algorithm, &element(BIT_STRING, &signature)].concat(),
    ))
}

/// The content of the one element that `der` consists of.
fn content(der: &[u8]) -> Result<&[u8], AuthorityError> {
    let (_, any) = Any::from_der(der).map_err(|_| AuthorityError::Encoding)?;
    Ok(any.data)
}

/// Where in `outer` the slice `inner` of it begins.
fn offset(outer: &[u8], inner: &[u8]) -> Option<usize> {
    let offset = (inner.as_ptr() as usize).checked_sub(outer.as_ptr() as usize)?;
    (offset + inner.len() <= outer.len()).then_some(offset)
}

/// An element in DER, ITU-T X.690 §8.1 and §10.1.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if content.len() < 0x80 {
        out.push(content.len() as u8);
    } else {
        let length = content.len().to_be_bytes();
        let zeros = length.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (length.len() - zeros) as u8);
        out.extend(&length[zeros..]);
    }
    out.extend(content);
    out
}

const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// 2.5.4.11, organizationalUnitName.
const OID_UNIT: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x0b];
