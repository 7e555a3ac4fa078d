//! From the bytes of a leaf certificate to an identity (RFC 5280 §4).

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_KEY_USAGE;
use x509_parser::prelude::FromDer;

use super::{
    AuthorityRule, GroupSource, Identity, IdentityError, Principal, PrincipalSource, name,
};

/// What a certificate may be used for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// As a client.
    ClientAuth,
    /// As a gateway.
    ServerAuth,
}

/// Reads the identity by the authority's rule. The chain must have been verified before.
///
/// # Errors
/// When there is not exactly one well-formed principal, or a group is malformed.
pub fn extract(leaf: &[u8], rule: &AuthorityRule) -> Result<Identity, IdentityError> {
    let certificate = parse(leaf)?;
    let mut found: Option<String> = None;
    for candidate in candidates(&certificate, rule)? {
        match &found {
            None => found = Some(candidate),
            // The same name in two places is still one name.
            Some(first) if *first == candidate => {}
            Some(first) => return Err(IdentityError::Ambiguous(first.clone(), candidate)),
        }
    }
    let Some(principal) = found else {
        return Err(IdentityError::Missing(described(&rule.principal)));
    };
    let groups = match rule.groups {
        GroupSource::None => Vec::new(),
        GroupSource::Ou => groups(&certificate)?,
    };
    Ok(Identity {
        principal: Principal(principal),
        groups,
        authority: rule.name.clone(),
        serial: hexadecimal(certificate.raw_serial()),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

/// What a certificate says to whoever does not know how its authority's are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Every name in it, wherever it stands, in lower case; sorted, each once. To be compared, not believed.
    pub names: Vec<String>,
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// First second of validity, since 1970.
    pub not_before: i64,
    /// Last second of validity, since 1970.
    pub not_after: i64,
}

/// Reads a certificate without the rule of its authority.
///
/// # Errors
/// When it cannot be read.
pub fn card(certificate: &[u8]) -> Result<Card, IdentityError> {
    let certificate = parse(certificate)?;
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Unreadable)?;
    let alternatives = alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names);
    let alternatives = alternatives.filter_map(|general| match general {
        GeneralName::RFC822Name(name) | GeneralName::URI(name) | GeneralName::DNSName(name) => {
            Some(*name)
        }
        _ => None,
    });
    let common = certificate.subject().iter_common_name();
    let common = common.filter_map(|attribute| attribute.as_str().ok());
    let mut names: Vec<String> = alternatives.chain(common).map(str::to_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    Ok(Card {
        names,
        serial: hexadecimal(certificate.raw_serial()),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

/// The names a gateway can be reached by, as its certificate has them: DNS names, then addresses. Empty when it cannot be read.
#[must_use]
pub fn server_names(leaf: &[u8]) -> Vec<String> {
    let Ok(certificate) = parse(leaf) else {
        return Vec::new();
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice());
    let names = names.unwrap_or_default();
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) if !name.contains('*') => Some((*name).to_owned()),
        _ => None,
    });
    let addresses = names.iter().filter_map(|name| match name {
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    dns.chain(addresses).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Whether the extended key usage is present and names this very purpose. anyExtendedKeyUsage
/// does not count: it says nothing.
///
/// # Errors
/// When the certificate cannot be read.
pub fn has_purpose(leaf: &[u8], purpose: Purpose) -> Result<bool, IdentityError> {
    let certificate = parse(leaf)?;
    let usage = certificate
        .extended_key_usage()
        .map_err(|_| IdentityError::Unreadable)?;
    Ok(usage.is_some_and(|usage| match purpose {
        Purpose::ClientAuth => usage.value.client_auth,
        Purpose::ServerAuth => usage.value.server_auth,
    }))
}

/// Whether the holder may sign certificates (RFC 5280 §4.2.1.3): where keyUsage is absent, its key may be used for anything.
///
/// # Errors
/// When the certificate cannot be read.
pub fn may_issue(certificate: &[u8]) -> Result<bool, IdentityError> {
    let certificate = parse(certificate)?;
    let usage = certificate
        .get_extension_unique(&OID_X509_EXT_KEY_USAGE)
        .map_err(|_| IdentityError::Unreadable)?;
    Ok(match usage.map(|usage| usage.parsed_extension()) {
        None => true,
        Some(ParsedExtension::KeyUsage(usage)) => usage.key_cert_sign(),
        // One that cannot be read says nothing, least of all this.
        Some(_) => false,
    })
}

fn parse(leaf: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(leaf) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(IdentityError::Unreadable),
    }
}

/// Every name at the places the rule lists, in canonical form.
fn candidates(
    certificate: &X509Certificate<'_>,
    rule: &AuthorityRule,
) -> Result<Vec<String>, IdentityError> {
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Unreadable)?;
    let alternatives = alternatives
        .as_ref()
        .map_or(&[][..], |extension| &extension.value.general_names);
    let mut candidates = Vec::new();
    for source in &rule.principal {
        match source {
            PrincipalSource::Email => {
                for general in alternatives {
                    if let GeneralName::RFC822Name(text) = general {
                        candidates.push(name::email(text)?);
                    }
                }
            }
            PrincipalSource::Uri => {
                for general in alternatives {
                    if let GeneralName::URI(text) = general {
                        candidates.push(spiffe_id(text, rule)?);
                    }
                }
            }
            PrincipalSource::Dns => {
                for general in alternatives {
                    if let GeneralName::DNSName(text) = general {
                        candidates.push(name::dns(text)?);
                    }
                }
            }
            PrincipalSource::Cn => {
                for attribute in certificate.subject().iter_common_name() {
                    let text = attribute
                        .as_str()
                        .map_err(|_| name::malformed("common name", "", "is not a string"))?;
                    // A common name has any shape: read as an operator's spelling is, the two agree.
                    candidates.push(Principal::parse(text)?.0);
                }
            }
        }
    }
    Ok(candidates)
}

/// A SPIFFE id that this authority may vouch for.
fn spiffe_id(text: &str, rule: &AuthorityRule) -> Result<String, IdentityError> {
    let id = name::spiffe(text)?;
    match &rule.trust_domain {
        Some(domain) if !domain.has(&id) => Err(IdentityError::Foreign {
            name: id,
            domain: domain.to_string(),
        }),
        _ => Ok(id),
    }
}

fn groups(certificate: &X509Certificate<'_>) -> Result<Vec<String>, IdentityError> {
    let mut groups = Vec::new();
    for attribute in certificate.subject().iter_organizational_unit() {
        let text = attribute
            .as_str()
            .map_err(|_| name::malformed("group", "", "is not a string"))?;
        groups.push(name::group(text)?);
        if groups.len() > MAX_GROUPS {
            return Err(IdentityError::TooManyGroups(MAX_GROUPS));
        }
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

fn described(sources: &[PrincipalSource]) -> String {
    let names: Vec<&str> = sources
        .iter()
        .map(|source| match source {
            PrincipalSource::Email => "mail address (SAN rfc822Name)",
            PrincipalSource::Uri => "SPIFFE id (SAN URI)",
            PrincipalSource::Dns => "DNS name (SAN dNSName)",
            PrincipalSource::Cn => "common name",
        })
        .collect();
    names.join(" or ")
}

/// A serial number as everybody writes it.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    // A positive serial with its top bit set is encoded with a leading zero byte.
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// More than any organisation chart is deep.
const MAX_GROUPS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};

    fn rule(principal: &[PrincipalSource]) -> AuthorityRule {
        AuthorityRule {
            name: "test".to_owned(),
            principal: principal.to_vec(),
            groups: GroupSource::Ou,
            trust_domain: None,
        }
    }

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn email(text: &str) -> SanType {
        SanType::Rfc822Name(text.try_into().unwrap())
    }

    #[test]
    fn the_mail_address_is_the_principal_and_units_are_groups() {
        let der = certificate(|params| {
            params.subject_alt_names = vec![email("alice@Example.com")];
            params
                .distinguished_name
                .push(DnType::OrganizationalUnitName, "eng");
        });
        let identity = extract(&der, &rule(&[PrincipalSource::Email])).unwrap();
        assert_eq!(identity.principal.as_str(), "alice@example.com");
        assert_eq!(identity.groups, ["eng"]);
        assert!(identity.not_before < identity.not_after);
    }

    #[test]
    fn two_candidates_are_a_refusal_that_names_both() {
        let der = certificate(|params| {
            params.subject_alt_names = vec![email("a@example.com"), email("b@example.com")];
        });
        let error = extract(&der, &rule(&[PrincipalSource::Email])).unwrap_err();
        assert_eq!(
            error,
            IdentityError::Ambiguous("a@example.com".into(), "b@example.com".into())
        );
    }

    #[test]
    fn candidates_of_two_sources_are_ambiguous_too() {
        let der = certificate(|params| {
            params.subject_alt_names = vec![
                email("a@example.com"),
                SanType::DnsName("host.example.com".try_into().unwrap()),
            ];
        });
        let both = rule(&[PrincipalSource::Email, PrincipalSource::Dns]);
        assert!(matches!(
            extract(&der, &both),
            Err(IdentityError::Ambiguous(..))
        ));
        assert!(extract(&der, &rule(&[PrincipalSource::Dns])).is_ok());
    }

    #[test]
    fn a_common_name_is_read_as_an_operator_writes_it() {
        for (text, principal) in [
            ("Alice", "alice"),
            ("Alice Example", "Alice Example"),
            ("alice@Example.com", "alice@example.com"),
            ("VPN.Example.com", "vpn.example.com"),
        ] {
            let der = certificate(|params| {
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.distinguished_name.push(DnType::CommonName, text);
            });
            let identity = extract(&der, &rule(&[PrincipalSource::Cn])).unwrap();
            assert_eq!(identity.principal.as_str(), principal);
            assert_eq!(Principal::parse(text), Ok(identity.principal));
        }
    }

    #[test]
    fn no_candidate_says_where_one_was_expected() {
        let der = certificate(|_| {});
        let error = extract(&der, &rule(&[PrincipalSource::Uri])).unwrap_err();
        assert!(error.to_string().contains("SPIFFE"), "{error}");
    }

    #[test]
    fn an_authority_vouches_for_its_own_trust_domain_only() {
        use super::super::TrustDomain;
        let mut rule = rule(&[PrincipalSource::Uri]);
        rule.trust_domain = Some(TrustDomain::parse("example.org").unwrap());
        let named = |id: &str| certificate(|params| params.subject_alt_names = vec![uri(id)]);
        let own = named("spiffe://example.org/db");
        assert_eq!(
            extract(&own, &rule).unwrap().principal.as_str(),
            "spiffe://example.org/db"
        );
        for id in [
            "spiffe://example.organic/db",
            "spiffe://a.example.org/db",
            "spiffe://partner.example/example.org/db",
        ] {
            let error = extract(&named(id), &rule).unwrap_err();
            let expected = IdentityError::Foreign {
                name: id.to_owned(),
                domain: "example.org".to_owned(),
            };
            assert_eq!(error, expected);
        }
        for wrong in ["", "Example.org", "example.org/", "spiffe://example.org"] {
            assert!(TrustDomain::parse(wrong).is_err(), "{wrong}");
        }
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_malformed_name_is_a_refusal_even_beside_a_good_one() {
        let der = certificate(|params| {
            params.subject_alt_names = vec![email("a@example.com"), email("no-at-sign")];
        });
        let error = extract(&der, &rule(&[PrincipalSource::Email])).unwrap_err();
        assert!(matches!(error, IdentityError::Malformed { .. }));
    }

    #[test]
    fn a_purpose_must_be_present_and_the_right_one() {
        let with = |usages: Vec<ExtendedKeyUsagePurpose>| {
            certificate(|params| params.extended_key_usages = usages)
        };
        let client = |der: &[u8]| has_purpose(der, Purpose::ClientAuth).unwrap();
        assert!(client(&with(vec![ExtendedKeyUsagePurpose::ClientAuth])));
        assert!(!client(&with(vec![ExtendedKeyUsagePurpose::ServerAuth])));
        assert!(!client(&with(vec![ExtendedKeyUsagePurpose::Any])));
        assert!(!client(&with(vec![])));
    }

    #[test]
    fn whoever_has_a_key_usage_issues_only_if_it_says_so() {
        use rcgen::{CustomExtension, KeyUsagePurpose};
        let with = |usages: Vec<KeyUsagePurpose>| certificate(|params| params.key_usages = usages);
        assert_eq!(may_issue(&with(vec![])), Ok(true));
        assert_eq!(
            may_issue(&with(vec![KeyUsagePurpose::KeyCertSign])),
            Ok(true)
        );
        assert_eq!(may_issue(&with(vec![KeyUsagePurpose::CrlSign])), Ok(false));
        // A null where the bits should be, then the extension twice.
        let odd = |times: usize| {
            certificate(|params| {
                let usage = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![5, 0]);
                params.custom_extensions = vec![usage; times];
            })
        };
        assert_eq!(may_issue(&odd(1)), Ok(false));
        assert_eq!(may_issue(&odd(2)), Err(IdentityError::Unreadable));
    }

    #[test]
    fn a_card_has_every_name_whatever_it_is_worth() {
        let der = certificate(|params| {
            params.subject_alt_names = vec![
                email("Alice@example.com"),
                SanType::URI("https://example.com/alice".try_into().unwrap()),
            ];
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, "Alice");
        });
        let card = card(&der).unwrap();
        let expected = ["alice", "alice@example.com", "https://example.com/alice"];
        assert_eq!(card.names, expected);
        let identity = extract(&der, &rule(&[PrincipalSource::Email])).unwrap();
        assert_eq!(card.serial, identity.serial);
        assert_eq!(
            (card.not_before, card.not_after),
            (identity.not_before, identity.not_after)
        );
    }

    #[test]
    fn garbage_is_unreadable() {
        let rule = rule(&[PrincipalSource::Email]);
        assert_eq!(extract(b"", &rule), Err(IdentityError::Unreadable));
        assert_eq!(extract(&[0x30; 64], &rule), Err(IdentityError::Unreadable));
    }
}
