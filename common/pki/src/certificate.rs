//! The profile of the certificates (RFC 5280): what an authority and its leaves look like.
//!
//! | | root | intermediate | gateway | client |
//! | --- | --- | --- | --- | --- |
//! | basicConstraints | CA, path length 0 or 1 | CA, path length 0 | no CA | no CA |
//! | keyUsage | keyCertSign, cRLSign | keyCertSign, cRLSign | digitalSignature | digitalSignature |
//! | extendedKeyUsage | absent | clientAuth | serverAuth | clientAuth |
//! | nameConstraints | absent | no dNSName, no iPAddress | absent | absent |
//! | subjectAltName | absent | absent | the principal, other names and addresses | the principal, once |
//! | subject | O, CN = name | O, CN = name | CN = principal | CN = principal, OU = each group |
//!
//! All have a random serial number and key identifiers; keys are ECDSA P-256, or Ed25519 on request.
//! No leaf serves both purposes, so that a stolen client key cannot pose as a gateway. Nor can
//! whoever steals the key of an intermediate, which lives on a machine that is online: webpki wants
//! the extended key usage all along the chain, and a gateway's names are excluded. rfc822Name
//! is not constrained, because webpki refuses every certificate under a constraint of that kind.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints,
    PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::authority::{AuthorityError, AuthorityParams};
use crate::certificate::key::PrivateKey;
use crate::name::{MAX_ATTRIBUTE, Name};
use crate::request::IssueRequest;

pub(crate) mod key;
mod subject;

/// Which end of the tunnel a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// A laptop or a site router.
    Client,
    /// The server.
    Gateway,
    /// Neither: an authority below this one.
    Authority,
}

impl Purpose {
    /// The word for it in the index and in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Authority => "authority",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Purpose {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Client, Self::Gateway, Self::Authority]
            .into_iter()
            .find(|purpose| purpose.name() == text)
            .ok_or(())
    }
}

/// The kinds of key that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on P-256: every TLS stack and every hardware token knows it.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

/// An entry of the extended key usage, RFC 5280 §4.2.1.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendedKeyUsage {
    /// TLS client.
    ClientAuth,
    /// TLS server.
    ServerAuth,
    /// Signing of code: of no use here.
    CodeSigning,
    /// The wildcard.
    Any,
}

/// A certificate that was issued; whose key it is for is elsewhere.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, then the intermediates between it and the root, as an end of the tunnel sends
    /// them.
    pub certificate_pem: String,
    /// The certificate alone, in DER.
    pub certificate_der: Vec<u8>,
    /// The certificate of the root.
    pub authority_pem: String,
    /// 32 hexadecimal digits.
    pub serial: String,
    /// SHA-256 of the certificate in hexadecimal digits.
    pub fingerprint: String,
    /// Which end of the tunnel it is for.
    pub purpose: Purpose,
    /// The holder.
    pub principal: String,
    /// First second of validity, Unix time.
    pub not_before: i64,
    /// Last second of validity, Unix time.
    pub not_after: i64,
}

/// A certificate together with its key, made in one step.
pub struct Credential {
    /// The certificate.
    pub issued: Issued,
    /// The private key in PKCS #8.
    pub key_pem: Zeroizing<String>,
}

impl Deref for Credential {
    type Target = Issued;

    fn deref(&self) -> &Issued {
        &self.issued
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("issued", &self.issued)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("principal", &self.principal)
            .field("purpose", &self.purpose)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// The self-signed certificate of an authority.
pub(crate) fn authority(
    params: &AuthorityParams,
    key: &PrivateKey,
) -> Result<Certificate, AuthorityError> {
    let mut certificate = base(params.not_before, params.not_after)?;
    certificate.distinguished_name = authority_subject(&params.name, ROOT_SUFFIX);
    certificate.is_ca = IsCa::Ca(BasicConstraints::Constrained(params.path_length));
    certificate.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(certificate.self_signed(key)?)
}

/// The certificate of an authority below `issuer` that issues client certificates only.
pub(crate) fn intermediate(
    params: &AuthorityParams,
    key: &impl PublicKeyData,
    issuer: &Issuer<'_, PrivateKey>,
) -> Result<(Vec<u8>, String), AuthorityError> {
    let mut certificate = base(params.not_before, params.not_after)?;
    ask_for_intermediate(&mut certificate, &params.name);
    certificate.name_constraints = Some(NameConstraints {
        permitted_subtrees: Vec::new(),
        // An empty name is above all names, a mask of no bits above all addresses.
        excluded_subtrees: vec![
            GeneralSubtree::DnsName(String::new()),
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    });
    let serial = serial_of(&certificate);
    Ok((certificate.signed_by(key, issuer)?.der().to_vec(), serial))
}

/// What an intermediate has, as far as a request can ask for it.
pub(crate) fn ask_for_intermediate(certificate: &mut CertificateParams, name: &str) {
    certificate.distinguished_name = authority_subject(name, INTERMEDIATE_SUFFIX);
    certificate.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    certificate.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    certificate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

/// The common name of an intermediate.
pub(crate) fn intermediate_common_name(name: &str) -> String {
    common_name(name, INTERMEDIATE_SUFFIX)
}

/// The certificate that `request` asks for, with `names` as its alternative names.
pub(crate) fn leaf(
    request: &IssueRequest,
    names: &[Name],
    key: &impl PublicKeyData,
    issuer: &Issuer<'_, PrivateKey>,
) -> Result<(Vec<u8>, String), AuthorityError> {
    let mut certificate = base(request.not_before, request.not_after)?;
    // What does not fit a common name stands in the alternative names alone.
    if request.principal.chars().count() <= MAX_ATTRIBUTE {
        certificate
            .distinguished_name
            .push(DnType::CommonName, request.principal.as_str());
    }
    certificate.subject_alt_names = names
        .iter()
        .map(alternative_name)
        .collect::<Result<_, _>>()?;
    certificate.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    certificate.extended_key_usages = match &request.danger_extended_key_usages {
        Some(usages) => usages
            .iter()
            .map(|usage| match usage {
                ExtendedKeyUsage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsage::CodeSigning => ExtendedKeyUsagePurpose::CodeSigning,
                ExtendedKeyUsage::Any => ExtendedKeyUsagePurpose::Any,
            })
            .collect(),
        None => match request.purpose {
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Gateway => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Authority => return Err(AuthorityError::LeafOnly),
        },
    };
    // An explicit "not a CA" makes rcgen write the subject key identifier, too.
    certificate.is_ca = IsCa::ExplicitNoCa;
    let serial = serial_of(&certificate);
    let signed = certificate.signed_by(key, issuer)?;
    let der = subject::with_units(signed.der(), &request.groups, issuer.key())?;
    Ok((der, serial))
}

/// The certificate `der` in PEM, RFC 7468 §5.
pub fn pem(der: &[u8]) -> String {
    armoured("CERTIFICATE", der)
}

/// `der` in PEM under a label of RFC 7468.
pub(crate) fn armoured(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn authority_subject(name: &str, suffix: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, name);
    subject.push(DnType::CommonName, common_name(name, suffix));
    subject
}

fn common_name(name: &str, suffix: &str) -> String {
    let room = MAX_ATTRIBUTE - suffix.len();
    // Cut rather than without the suffix: root and intermediate of one organisation must differ.
    let name: String = name.chars().take(room).collect();
    format!("{}{suffix}", name.trim_end())
}

fn serial_of(certificate: &CertificateParams) -> String {
    let serial = certificate.serial_number.as_ref();
    hex(&serial.map(SerialNumber::to_bytes).unwrap_or_default())
}

fn base(not_before: i64, not_after: i64) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.not_before = moment(not_before)?;
    params.not_after = moment(not_after)?;
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 128 bits, of which 126 are random: RFC 5280 §4.1.2.2 wants a positive number and the fixed two
/// bits keep every serial at 16 octets, so that all tools write it with the same 32 digits.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| AuthorityError::Randomness)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

/// `unix`, a second of Unix time, as rcgen takes it.
pub(crate) fn moment(unix: i64) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(unix).map_err(|_| AuthorityError::Validity)
}

/// `name` as it stands in a certificate.
pub(crate) fn alternative_name(name: &Name) -> Result<SanType, rcgen::Error> {
    Ok(match name {
        Name::Email(text) => SanType::Rfc822Name(text.as_str().try_into()?),
        Name::Uri(text) => SanType::URI(text.as_str().try_into()?),
        Name::Dns(text) => SanType::DnsName(text.as_str().try_into()?),
        Name::Ip(address) => SanType::IpAddress(*address),
    })
}

/// Tells the authority from a gateway or a person of the same name in lists of certificates.
const ROOT_SUFFIX: &str = " Adit CA";
/// And an intermediate from its root.
const INTERMEDIATE_SUFFIX: &str = " Adit Client CA";
