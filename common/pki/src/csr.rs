//! Certificate requests (PKCS #10, RFC 2986): what a device sends instead of a key.
//!
//! Guarantee: of a [`CertificateRequest`] only the public key gets into a certificate, and whoever sent
//! it holds the private key, because the request is signed with that. What the request asks for
//! besides is compared with what was vetted: a request that asks for more is refused, not trimmed.
//! Refused are requests of more than 16 KiB and keys of kinds that an authority does not certify.
//!
//! ```
//! use adit_pki::csr::{self, CertificateRequest};
//! use adit_pki::{Authority, IssueRequest, KeyType};
//!
//! let device = csr::make(None, KeyType::EcdsaP256)?;
//! let request = CertificateRequest::from_pem(&device.request_pem)?;
//! let now = 1_800_000_000;
//! let authority = Authority::ephemeral("Example Corp", now)?;
//! let issued = authority.sign(&request, &IssueRequest::client("alice@example.com", now), now)?;
//! assert_eq!(issued.principal, "alice@example.com");
//! # Ok::<(), adit_pki::AuthorityError>(())
//! ```

use std::fmt;
use std::net::IpAddr;

use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData, SubjectPublicKeyInfo};
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::authority::AuthorityError;
use crate::certificate::key::PrivateKey;
use crate::certificate::{self, KeyType, alternative_name};
use crate::name::{MAX_ATTRIBUTE, Name};

/// A request whose signature was verified.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    key: SubjectPublicKeyInfo,
    wishes: Vec<Wish>,
}

/// One thing that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A common name.
    CommonName(String),
    /// An organisation.
    Organisation(String),
    /// An organisational unit: a group.
    Unit(String),
    /// A mailbox in the subject.
    EmailAddress(String),
    /// An alternative name.
    Name(Name),
    /// To be an authority.
    Authority,
    /// A use of the key, by its place in RFC 5280 §4.2.1.3.
    KeyUsage(u8),
    /// To be a client.
    ClientAuth,
    /// To be a gateway.
    ServerAuth,
    /// Something that no certificate of ours has, in words.
    Other(String),
}

/// A request and the key it was made for.
pub struct Prepared {
    /// The request, for the authority.
    pub request_pem: String,
    /// The private key in PKCS #8, for the device alone.
    pub key_pem: Zeroizing<String>,
}

/// Makes a key and a request for it. With a principal the request names it, so that a request that
/// is signed for somebody else by mistake is refused.
pub fn make(principal: Option<&str>, key_type: KeyType) -> Result<Prepared, AuthorityError> {
    let key = PrivateKey::generate(key_type)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(principal) = principal {
        let name = Name::principal(principal)?;
        params.subject_alt_names = vec![alternative_name(&name)?];
        if principal.chars().count() <= MAX_ATTRIBUTE {
            params
                .distinguished_name
                .push(DnType::CommonName, principal);
        }
    }
    Ok(Prepared {
        request_pem: serialize(&params, &key)?,
        key_pem: key.to_pem(),
    })
}

/// The request of `params` for `key`, in PEM.
pub(crate) fn serialize(
    params: &CertificateParams,
    key: &PrivateKey,
) -> Result<String, AuthorityError> {
    let request = params.serialize_request(key)?;
    Ok(certificate::armoured(LABEL, request.der()))
}

impl CertificateRequest {
    /// Reads the request in `text`, a PEM block (RFC 7468 §7).
    pub fn from_pem(text: &str) -> Result<Self, RequestError> {
        if text.len() > 2 * MAX_BYTES {
            return Err(RequestError::TooLarge(text.len()));
        }
        let block = pem::parse(text).map_err(|_| RequestError::Encoding)?;
        if ![LABEL, OLD_LABEL].contains(&block.tag()) {
            return Err(RequestError::Encoding);
        }
        Self::from_der(block.contents())
    }

    /// Reads a request and verifies its signature.
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_BYTES {
            return Err(RequestError::TooLarge(der.len()));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| RequestError::Encoding)?;
        if !rest.is_empty() {
            return Err(RequestError::Encoding);
        }
        let info = &request.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .ok()
            .filter(|key| KEYS.contains(&key.algorithm()))
            .ok_or(RequestError::Key)?;
        let wishes = wishes(&request)?;
        request
            .verify_signature()
            .map_err(|_| RequestError::Signature)?;
        Ok(Self { key, wishes })
    }

    /// The public key, SubjectPublicKeyInfo in DER.
    pub fn public_key_der(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// What the request asks for, in words fit for a terminal.
    pub fn asks_for(&self) -> Vec<String> {
        self.wishes.iter().map(Wish::to_string).collect()
    }

    /// What gets into the certificate.
    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }

    /// Refuses the request if it has a wish that `grants` does not fulfil.
    pub(crate) fn check(&self, grants: impl Fn(&Wish) -> bool) -> Result<(), RequestError> {
        match self.wishes.iter().find(|wish| !grants(wish)) {
            Some(wish) => Err(RequestError::AsksForMore(wish.to_string())),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("request_pem", &self.request_pem)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match self {
            Self::CommonName(text) => ("the common name", text.as_str()),
            Self::Organisation(text) => ("the organisation", text.as_str()),
            Self::Unit(text) => ("the group", text.as_str()),
            Self::EmailAddress(text) => ("the email address", text.as_str()),
            Self::Name(name) => {
                return write!(f, "the {} name `{}`", name.kind(), plain(&name.to_string()));
            }
            Self::Authority => return f.write_str("being an authority"),
            Self::KeyUsage(bit) => {
                let name = KEY_USAGES
                    .get(usize::from(*bit))
                    .unwrap_or(&"of another kind");
                return write!(f, "the key usage {name}");
            }
            Self::ClientAuth => return f.write_str("being a client"),
            Self::ServerAuth => return f.write_str("being a gateway"),
            Self::Other(text) => return f.write_str(&plain(text)),
        };
        write!(f, "{kind} `{}`", plain(text))
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// Longer than any honest one.
    #[error("a certificate request of {0} bytes is too long: at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// No request in DER, or in PEM.
    #[error("the certificate request is not well-formed")]
    Encoding,
    /// Of another kind, or broken.
    #[error("the certificate request has a key that is neither ECDSA P-256 or P-384 nor Ed25519")]
    Key,
    /// Made by somebody without the private key, or changed on the way.
    #[error("the certificate request is not signed with the key it is for")]
    Signature,
    /// More than was vetted.
    #[error("the certificate request asks for more than it may have: {0}")]
    AsksForMore(String),
}

/// Everything a request asks for, RFC 2986 §4.1 and RFC 2985 §5.4.2.
fn wishes(request: &X509CertificationRequest<'_>) -> Result<Vec<Wish>, RequestError> {
    let info = &request.certification_request_info;
    let mut wishes = Vec::new();
    for attribute in info.subject.iter_attributes() {
        let oid = attribute.attr_type().to_id_string();
        let text = attribute.as_str().map(str::to_owned);
        wishes.push(match (oid.as_str(), text) {
            (COMMON_NAME, Ok(text)) => Wish::CommonName(text),
            (ORGANISATION, Ok(text)) => Wish::Organisation(text),
            (UNIT, Ok(text)) => Wish::Unit(text),
            (EMAIL_ADDRESS, Ok(text)) => Wish::EmailAddress(text),
            (oid, _) => Wish::Other(format!("the subject attribute {oid}")),
        });
    }
    for attribute in info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => {
                for extension in &requested.extensions {
                    wish_of(
                        extension.oid.to_id_string(),
                        extension.parsed_extension(),
                        &mut wishes,
                    )?;
                }
            }
            // Others, such as those that tell the operating system, ask for nothing.
            _ if attribute.oid.to_id_string() == OLD_EXTENSIONS => {
                wishes.push(Wish::Other("extensions in an obsolete form".to_owned()));
            }
            _ => {}
        }
    }
    Ok(wishes)
}

fn wish_of(
    oid: String,
    extension: &ParsedExtension<'_>,
    wishes: &mut Vec<Wish>,
) -> Result<(), RequestError> {
    match extension {
        ParsedExtension::ParseError { .. } => return Err(RequestError::Encoding),
        // Follows from the key.
        ParsedExtension::SubjectKeyIdentifier(_) => {}
        ParsedExtension::BasicConstraints(constraints) => {
            wishes.extend(constraints.ca.then_some(Wish::Authority));
        }
        ParsedExtension::KeyUsage(usage) => {
            let asked = (0..16).filter(|bit| usage.flags >> bit & 1 == 1);
            wishes.extend(asked.map(Wish::KeyUsage));
        }
        ParsedExtension::ExtendedKeyUsage(usage) => {
            wishes.extend(usage.client_auth.then_some(Wish::ClientAuth));
            wishes.extend(usage.server_auth.then_some(Wish::ServerAuth));
            let others = [
                (usage.any, "any"),
                (usage.code_signing, "codeSigning"),
                (usage.email_protection, "emailProtection"),
                (usage.time_stamping, "timeStamping"),
                (usage.ocsp_signing, "OCSPSigning"),
            ];
            let named = others.into_iter().filter(|(asked, _)| *asked);
            wishes.extend(named.map(|(_, name)| purpose(name)));
            wishes.extend(usage.other.iter().map(|oid| purpose(&oid.to_id_string())));
        }
        ParsedExtension::SubjectAlternativeName(names) => {
            wishes.extend(names.general_names.iter().map(alternative));
        }
        _ => wishes.push(Wish::Other(format!("the extension {oid}"))),
    }
    Ok(())
}

fn purpose(name: &str) -> Wish {
    Wish::Other(format!("the extended key usage {name}"))
}

fn alternative(name: &GeneralName<'_>) -> Wish {
    let address = |bytes: &[u8]| {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
    };
    match name {
        GeneralName::RFC822Name(text) => Wish::Name(Name::Email((*text).to_owned())),
        GeneralName::DNSName(text) => Wish::Name(Name::Dns((*text).to_owned())),
        GeneralName::URI(text) => Wish::Name(Name::Uri((*text).to_owned())),
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Ok(address) => Wish::Name(Name::Ip(address)),
            Err(_) => Wish::Other("a broken IP address".to_owned()),
        },
        _ => Wish::Other("an alternative name of another kind".to_owned()),
    }
}

/// Outside text for a line on a terminal.
fn plain(text: &str) -> String {
    let printable = |character: char| {
        if character.is_control() {
            '?'
        } else {
            character
        }
    };
    text.chars().take(MAX_SHOWN).map(printable).collect()
}

const LABEL: &str = "CERTIFICATE REQUEST";
/// What Windows and old programs write, RFC 7468 §7.
const OLD_LABEL: &str = "NEW CERTIFICATE REQUEST";

/// A request with a P-384 key and 32 groups has less than 4 KiB.
const MAX_BYTES: usize = 16 * 1024;

/// As long as the longest principal.
const MAX_SHOWN: usize = 254;

/// Kinds of key in requests: those that [`KeyType`] makes, and P-384 because hardware does.
const KEYS: [&rcgen::SignatureAlgorithm; 3] = [
    &rcgen::PKCS_ECDSA_P256_SHA256,
    &rcgen::PKCS_ECDSA_P384_SHA384,
    &rcgen::PKCS_ED25519,
];

/// RFC 5280 §4.2.1.3, in the order of the bits.
const KEY_USAGES: [&str; 9] = [
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
];

/// RFC 5280 appendix A.1.
const COMMON_NAME: &str = "2.5.4.3";
const ORGANISATION: &str = "2.5.4.10";
const UNIT: &str = "2.5.4.11";
const EMAIL_ADDRESS: &str = "1.2.840.113549.1.9.1";

/// Microsoft's extension request before PKCS #9 had one.
const OLD_EXTENSIONS: &str = "1.3.6.1.4.1.311.2.1.14";
