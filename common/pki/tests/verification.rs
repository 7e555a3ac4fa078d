//! Certificates as others see them: webpki, which decides on both ends of the tunnel, and OpenSSL.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use adit_core::identity::{AuthorityRule, GroupSource, Principal, PrincipalSource, extract};
use adit_pki::{
    Authority, AuthorityParams, ExtendedKeyUsage, IssueRequest, Issued, KeyType, Name, Purpose,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The moment at which everything here happens, Unix time.
const NOW: i64 = 1_800_000_000;

fn authority() -> Authority {
    Authority::ephemeral("Example Corp", NOW).unwrap()
}

/// What webpki makes of `issued` at `time`.
fn verify(authority: &Authority, issued: &Issued, usage: Purpose, time: i64) -> Result<(), Error> {
    let anchor = CertificateDer::from(authority.certificate_der());
    let anchors = [anchor_from_trusted_cert(&anchor)?];
    let leaf = CertificateDer::from(issued.certificate_der.as_slice());
    let usage = match usage {
        Purpose::Client => KeyUsage::client_auth(),
        _ => KeyUsage::server_auth(),
    };
    let time = UnixTime::since_unix_epoch(Duration::from_secs(time.unsigned_abs()));
    EndEntityCert::try_from(&leaf)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &[],
            time,
            usage,
            None,
            None,
        )
        .map(|_| ())
}

fn is_valid_for(issued: &Issued, name: &str) -> bool {
    let leaf = CertificateDer::from(issued.certificate_der.as_slice());
    let name = ServerName::try_from(name).unwrap();
    EndEntityCert::try_from(&leaf)
        .unwrap()
        .verify_is_valid_for_subject_name(&name)
        .is_ok()
}

fn parsed(issued: &Issued) -> X509Certificate<'_> {
    X509Certificate::from_der(&issued.certificate_der)
        .unwrap()
        .1
}

#[test]
fn each_certificate_serves_its_purpose_and_no_other() {
    let authority = authority();
    let client = authority
        .issue(
            &IssueRequest::client("alice@example.com", NOW).with_groups(["eng", "ops"]),
            NOW,
        )
        .unwrap();
    let gateway = authority
        .issue(&IssueRequest::gateway("vpn.example.com", NOW), NOW)
        .unwrap();
    assert_eq!(verify(&authority, &client, Purpose::Client, NOW), Ok(()));
    assert_eq!(verify(&authority, &gateway, Purpose::Gateway, NOW), Ok(()));
    assert!(matches!(
        verify(&authority, &client, Purpose::Gateway, NOW),
        Err(Error::RequiredEkuNotFoundContext(_))
    ));
    assert!(matches!(
        verify(&authority, &gateway, Purpose::Client, NOW),
        Err(Error::RequiredEkuNotFoundContext(_))
    ));
}

#[test]
fn a_foreign_authority_is_not_trusted_whatever_it_is_called() {
    let client = authority()
        .issue(&IssueRequest::client("alice@example.com", NOW), NOW)
        .unwrap();
    let verdict = verify(&authority(), &client, Purpose::Client, NOW);
    assert!(verdict.is_err());
}

#[test]
fn both_key_types_and_many_groups_keep_the_signature_whole() {
    let groups: Vec<_> = (0..32)
        .map(|number| format!("group-{number:058}"))
        .collect();
    for authority_key in [KeyType::EcdsaP256, KeyType::Ed25519] {
        let mut params = AuthorityParams::new("Example Corp", NOW);
        params.key_type = authority_key;
        let authority = Authority::ephemeral_with(&params).unwrap();
        for key_type in [KeyType::EcdsaP256, KeyType::Ed25519] {
            let mut request =
                IssueRequest::client("alice@example.com", NOW).with_groups(groups.clone());
            request.key_type = key_type;
            let issued = authority.issue(&request, NOW).unwrap();
            assert_eq!(verify(&authority, &issued, Purpose::Client, NOW), Ok(()));
            let certificate = parsed(&issued);
            let units: Vec<_> = certificate
                .subject()
                .iter_organizational_unit()
                .map(|unit| unit.as_str().unwrap())
                .collect();
            assert_eq!(units, groups);
            assert_eq!(
                certificate
                    .subject()
                    .iter_common_name()
                    .next()
                    .unwrap()
                    .as_str(),
                Ok("alice@example.com")
            );
        }
    }
}

#[test]
fn validity_is_as_asked_and_back_dated_by_default() {
    let authority = authority();
    let (from, to) = (NOW - 7200, NOW - 3600);
    let expired = authority
        .issue(
            &IssueRequest::client("alice@example.com", NOW).valid(from, to),
            NOW,
        )
        .unwrap();
    assert!(matches!(
        verify(&authority, &expired, Purpose::Client, NOW),
        Err(Error::CertExpired { .. })
    ));
    let (from, to) = (NOW + 3600, NOW + 7200);
    let early = authority
        .issue(
            &IssueRequest::client("alice@example.com", NOW).valid(from, to),
            NOW,
        )
        .unwrap();
    assert!(matches!(
        verify(&authority, &early, Purpose::Client, NOW),
        Err(Error::CertNotValidYet { .. })
    ));
    assert_eq!(early.not_before, from);
    let fresh = authority
        .issue(&IssueRequest::client("alice@example.com", NOW), NOW)
        .unwrap();
    assert_eq!(
        verify(&authority, &fresh, Purpose::Client, NOW - 240),
        Ok(())
    );
}

#[test]
fn a_gateway_is_valid_for_its_names_only() {
    let names = ["vpn.example.com", "10.0.0.1", "fd00::1"];
    let issued = authority()
        .issue(
            &IssueRequest::gateway("vpn.example.com", NOW).with_names(names),
            NOW,
        )
        .unwrap();
    assert!(names.iter().all(|name| is_valid_for(&issued, name)));
    for name in ["example.com", "a.vpn.example.com", "10.0.0.2"] {
        assert!(!is_valid_for(&issued, name), "{name}");
    }
}

#[test]
fn the_extensions_follow_the_profile() {
    let authority = authority();
    let (_, root) = X509Certificate::from_der(authority.certificate_der()).unwrap();
    let constraints = root.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(1));
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 0b110_0000);
    assert!(root.extended_key_usage().unwrap().is_none());

    let client = authority
        .issue(
            &IssueRequest::client("spiffe://example.com/site/berlin", NOW),
            NOW,
        )
        .unwrap();
    let certificate = parsed(&client);
    assert!(!certificate.is_ca());
    assert_eq!(certificate.key_usage().unwrap().unwrap().value.flags, 1);
    assert_eq!(certificate.issuer().as_raw(), root.subject().as_raw());
    assert_eq!(certificate.raw_serial().len(), 16);
    assert!(certificate.raw_serial()[0] < 0x80);
    let identifiers: Vec<_> = certificate
        .extensions()
        .iter()
        .map(|extension| extension.oid.to_id_string())
        .collect();
    for oid in ["2.5.29.14", "2.5.29.35", "2.5.29.17"] {
        assert_eq!(
            identifiers
                .iter()
                .filter(|identifier| *identifier == oid)
                .count(),
            1,
            "{oid}"
        );
    }
    let again = authority
        .issue(
            &IssueRequest::client("spiffe://example.com/site/berlin", NOW),
            NOW,
        )
        .unwrap();
    assert_ne!(client.serial, again.serial);
}

#[test]
fn dangerous_overrides_leave_the_profile_as_asked() {
    let authority = authority();
    for usages in [
        vec![],
        vec![ExtendedKeyUsage::CodeSigning],
        vec![ExtendedKeyUsage::ServerAuth],
    ] {
        let mut request = IssueRequest::client("alice@example.com", NOW);
        request.danger_extended_key_usages = Some(usages.clone());
        let issued = authority.issue(&request, NOW).unwrap();
        assert_eq!(
            parsed(&issued).extended_key_usage().unwrap().is_none(),
            usages.is_empty()
        );
        // webpki takes an absent extension for "any": the gateway must look itself.
        assert_eq!(
            verify(&authority, &issued, Purpose::Client, NOW).is_ok(),
            usages.is_empty()
        );
    }
    let mut request = IssueRequest::client("alice@example.com", NOW);
    let names = ["alice@example.com", "bob@example.com"].map(|name| Name::Email(name.to_owned()));
    request.danger_subject_alt_names = Some(names.to_vec());
    let issued = authority.issue(&request, NOW).unwrap();
    let certificate = parsed(&issued);
    assert_eq!(
        certificate
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names
            .len(),
        2
    );
}

#[test]
fn requests_against_the_rules_are_refused() {
    let mut params = AuthorityParams::new("Example Corp", NOW);
    params.path_length = 2;
    assert!(Authority::ephemeral_with(&params).is_err());

    let authority = authority();
    for request in [
        IssueRequest::client("alice@example.com", NOW).valid(NOW, NOW),
        IssueRequest::client("alice@example.com", NOW).valid(NOW, NOW + 4000 * 86_400),
        IssueRequest::client("alice@example.com", NOW).with_names(["vpn.example.com"]),
        IssueRequest::client("not a name", NOW),
        IssueRequest::client("alice@example.com", NOW).with_groups(vec!["eng"; 33]),
        IssueRequest::gateway("alice@example.com", NOW),
        IssueRequest::gateway("vpn.example.com", NOW).with_groups(["eng"]),
    ] {
        assert!(authority.issue(&request, NOW).is_err(), "{request:?}");
    }
}

#[test]
fn a_gateway_reads_every_principal_and_group_as_they_were_asked_for() {
    let authority = authority();
    let rule = AuthorityRule {
        name: "example".to_owned(),
        principal: vec![
            PrincipalSource::Email,
            PrincipalSource::Uri,
            PrincipalSource::Dns,
        ],
        groups: GroupSource::Ou,
        trust_domain: None,
    };
    let longest = format!("{}@{}", "a".repeat(64), vec!["b"; 95].join("."));
    assert_eq!(longest.len(), 254);
    for principal in [
        "alice@example.com",
        "a.b+c_d=e-f@example.com",
        "branch1.example.com",
        "localhost",
        "spiffe://example.com/site/berlin",
        "spiffe://a_b/C.d_e-f",
        longest.as_str(),
    ] {
        let groups = ["A.b_c-1", "eng"];
        let issued = authority
            .issue(
                &IssueRequest::client(principal, NOW).with_groups(groups),
                NOW,
            )
            .unwrap();
        let identity = extract(&issued.certificate_der, &rule).unwrap();
        assert_eq!(identity.principal.as_str(), principal);
        assert_eq!(identity.groups, groups);
        assert_eq!(identity.serial, issued.serial);
        assert_eq!(
            (identity.not_before, identity.not_after),
            (issued.not_before, issued.not_after)
        );
        // As an operator would write it in a policy.
        assert_eq!(Principal::parse(principal).unwrap(), identity.principal);
    }
    assert!(
        authority
            .issue(&IssueRequest::client(format!("{longest}b"), NOW), NOW)
            .is_err()
    );
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let authority = authority();
    let issued = authority
        .issue(&IssueRequest::client("alice@example.com", NOW), NOW)
        .unwrap();
    assert!(!format!("{authority:?} {issued:?}").contains("PRIVATE"));
    assert!(issued.key_pem.contains("PRIVATE KEY"));
}

#[test]
fn openssl_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        Command::new("openssl")
            .args(arguments)
            .current_dir(folder.path())
            .output()
    };
    if openssl(&["version"]).is_err() {
        // Another view, where there is one; webpki is the one that decides.
        return;
    }
    let authority = authority();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.pem", authority.certificate_pem());
    let requests = [
        (
            "client",
            IssueRequest::client("alice@example.com", NOW).with_groups(["eng", "ops"]),
        ),
        (
            "gateway",
            IssueRequest::gateway("vpn.example.com", NOW)
                .with_names(["vpn.example.com", "10.0.0.1"]),
        ),
    ];
    for (name, request) in requests {
        let issued = authority.issue(&request, NOW).unwrap();
        write(name, &issued.certificate_pem);
        write("key", &issued.key_pem);
        assert!(
            openssl(&["pkey", "-in", "key", "-noout", "-check"])
                .unwrap()
                .status
                .success()
        );
    }
    for (name, purpose, expected) in [
        ("client", "sslclient", true),
        ("client", "sslserver", false),
        ("gateway", "sslserver", true),
        ("gateway", "sslclient", false),
    ] {
        let output = openssl(&[
            "verify",
            "-x509_strict",
            "-attime",
            &NOW.to_string(),
            "-CAfile",
            "ca.pem",
            "-purpose",
            purpose,
            name,
        ])
        .unwrap();
        assert_eq!(
            output.status.success(),
            expected,
            "{name} as {purpose}: {output:?}"
        );
    }
}
