//! Certificate requests as devices make them, and what authorities make of them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use adit_pki::csr::{self, RequestError};
use adit_pki::{Authority, AuthorityError, CertificateRequest, IssueRequest, KeyType};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The moment at which everything here happens, Unix time.
const NOW: i64 = 1_800_000_000;

fn authority() -> Authority {
    Authority::ephemeral("Example Corp", NOW).unwrap()
}

fn alice() -> IssueRequest {
    IssueRequest::client("alice@example.com", NOW).with_groups(["eng", "ops"])
}

/// A request that OpenSSL makes with these arguments; `None` without OpenSSL.
fn openssl(key: &[&str], arguments: &[&str]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(folder.path())
            .output();
        output.ok().map(|output| {
            assert!(
                output.status.success(),
                "{arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        })
    };
    fs::write(
        folder.path().join("empty.cnf"),
        "[req]\ndistinguished_name=dn\n[dn]\n",
    )
    .unwrap();
    run(&[&["genpkey", "-out", "key"], key].concat())?;
    let request = [
        "req",
        "-new",
        "-key",
        "key",
        "-out",
        "csr",
        "-config",
        "empty.cnf",
    ];
    run(&[&request, arguments].concat())?;
    Some(fs::read_to_string(folder.path().join("csr")).unwrap())
}

const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const P521: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"];

#[test]
fn a_signed_request_gets_its_key_and_the_vetted_names() {
    let authority = authority();
    for key_type in [KeyType::EcdsaP256, KeyType::Ed25519] {
        for principal in [None, Some("alice@example.com")] {
            let device = csr::make(principal, key_type).unwrap();
            let request = CertificateRequest::from_pem(&device.request_pem).unwrap();
            let mut wanted = alice();
            wanted.device = Some("alice's laptop".to_owned());
            let issued = authority.sign(&request, &wanted, NOW).unwrap();
            let (_, certificate) = X509Certificate::from_der(&issued.certificate_der).unwrap();
            assert_eq!(certificate.public_key().raw, request.public_key_der());
            let units = certificate.subject().iter_organizational_unit();
            assert_eq!(units.count(), 2);
            let entries = authority.entries().unwrap();
            let entry = entries.last().unwrap();
            assert_eq!(entry.serial, issued.serial);
            assert_eq!(entry.device.as_deref(), Some("alice's laptop"));
            // The key that stays on the device fits the certificate.
            let key = rcgen::KeyPair::from_pem(&device.key_pem).unwrap();
            let public = rcgen::PublicKeyData::subject_public_key_info(&key);
            assert_eq!(public, certificate.public_key().raw);
        }
    }
}

#[test]
fn a_request_of_openssl_is_taken_if_it_asks_for_no_more_than_was_vetted() {
    let ed25519 = ["-algorithm", "ED25519"];
    let authority = authority();
    for (key, arguments) in [
        (&P256[..], &["-subj", "/"][..]),
        (&P384, &["-subj", "/CN=alice@example.com"]),
        (&P384, &["-subj", "/CN=alice@example.com", "-sha384"]),
        (&ed25519, &["-subj", "/CN=alice@example.com/OU=ops"]),
        (&P256, &["-subj", "/emailAddress=alice@example.com"]),
        (
            &P256,
            &[
                "-subj",
                "/",
                "-addext",
                "subjectAltName=email:alice@example.com",
                "-addext",
                "basicConstraints=CA:FALSE",
                "-addext",
                "keyUsage=digitalSignature",
                "-addext",
                "extendedKeyUsage=clientAuth",
            ],
        ),
    ] {
        let Some(text) = openssl(key, arguments) else {
            return;
        };
        let request = CertificateRequest::from_pem(&text).unwrap();
        authority.sign(&request, &alice(), NOW).unwrap();
    }
    assert_eq!(authority.entries().unwrap().len(), 6);
}

#[test]
fn a_request_that_asks_for_more_is_refused_with_what_it_asks_for() {
    let authority = authority();
    for (subject, extension, more) in [
        (
            "/CN=bob@example.com",
            "",
            "the common name `bob@example.com`",
        ),
        ("/OU=admins", "", "the group `admins`"),
        ("/O=Example", "", "the organisation `Example`"),
        ("/C=DE", "", "the subject attribute 2.5.4.6"),
        (
            "/emailAddress=bob@example.com",
            "",
            "the email address `bob@example.com`",
        ),
        (
            "/",
            "subjectAltName=email:bob@example.com",
            "the email name `bob@example.com`",
        ),
        (
            "/",
            "subjectAltName=email:alice@example.com,DNS:vpn.example.com",
            "the dns name `vpn.example.com`",
        ),
        ("/", "subjectAltName=IP:10.0.0.1", "the ip name `10.0.0.1`"),
        (
            "/",
            "subjectAltName=URI:spiffe://example.com/a",
            "the uri name `spiffe://example.com/a`",
        ),
        ("/", "basicConstraints=CA:TRUE", "being an authority"),
        (
            "/",
            "extendedKeyUsage=clientAuth,serverAuth",
            "being a gateway",
        ),
        (
            "/",
            "extendedKeyUsage=codeSigning",
            "the extended key usage codeSigning",
        ),
        (
            "/",
            "extendedKeyUsage=1.2.3.4",
            "the extended key usage 1.2.3.4",
        ),
        (
            "/",
            "keyUsage=digitalSignature,keyCertSign",
            "the key usage keyCertSign",
        ),
        ("/", "1.2.3.4=ASN1:UTF8String:x", "the extension 1.2.3.4"),
        (
            "/",
            "nameConstraints=permitted;email:example.com",
            "the extension 2.5.29.30",
        ),
    ] {
        let mut arguments = vec!["-subj", subject];
        if !extension.is_empty() {
            arguments.extend(["-addext", extension]);
        }
        let Some(text) = openssl(&P256, &arguments) else {
            return;
        };
        let request = CertificateRequest::from_pem(&text).unwrap();
        match authority.sign(&request, &alice(), NOW) {
            Err(AuthorityError::Request(RequestError::AsksForMore(found))) => {
                assert_eq!(found, more, "{subject} {extension}");
            }
            other => panic!("{subject} {extension}: {other:?}"),
        }
    }
    assert!(authority.entries().unwrap().is_empty());
}

#[test]
fn keys_of_other_kinds_are_refused() {
    for key in [
        &P521[..],
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    ] {
        let Some(text) = openssl(key, &["-subj", "/"]) else {
            return;
        };
        let refused = CertificateRequest::from_pem(&text).map(|_| ());
        assert_eq!(refused, Err(RequestError::Key));
    }
}

#[test]
fn whoever_has_not_the_key_has_no_request() {
    let device = csr::make(Some("alice@example.com"), KeyType::Ed25519).unwrap();
    let der = pem::parse(&device.request_pem).unwrap().into_contents();
    assert!(CertificateRequest::from_der(&der).is_ok());
    let stranger = csr::make(None, KeyType::Ed25519).unwrap();
    let stranger = CertificateRequest::from_pem(&stranger.request_pem).unwrap();
    // The public key of somebody else in place of the own one.
    let own = CertificateRequest::from_der(&der).unwrap().public_key_der();
    let at = der.windows(own.len()).position(|part| part == own).unwrap();
    let mut forged = der.clone();
    forged[at..at + own.len()].copy_from_slice(&stranger.public_key_der());
    let refused = CertificateRequest::from_der(&forged).map(|_| ());
    assert_eq!(refused, Err(RequestError::Signature));
    // No byte can be changed of what is signed, nor of the signature; the algorithm between them is
    // ten bytes.
    let signature = der.len() - 64;
    for position in (0..signature - 10).chain(signature..der.len()) {
        let mut changed = der.clone();
        changed[position] ^= 1;
        assert!(
            CertificateRequest::from_der(&changed).is_err(),
            "{position}"
        );
    }
}

#[test]
fn what_is_no_request_or_too_long_is_refused() {
    let device = csr::make(None, KeyType::EcdsaP256).unwrap();
    let refused = |text: &str| CertificateRequest::from_pem(text).map(|_| ()).unwrap_err();
    assert_eq!(refused(""), RequestError::Encoding);
    assert_eq!(refused(&device.key_pem), RequestError::Encoding);
    assert_eq!(
        refused(authority().certificate_pem()),
        RequestError::Encoding
    );
    assert_eq!(refused(&" ".repeat(40_000)), RequestError::TooLarge(40_000));
    let long = CertificateRequest::from_der(&[0x30; 16 * 1024 + 1]).map(|_| ());
    assert_eq!(long, Err(RequestError::TooLarge(16 * 1024 + 1)));
    let old = device
        .request_pem
        .replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
    assert!(CertificateRequest::from_pem(&old).is_ok());
    assert!(!format!("{device:?}").contains("PRIVATE"));
}
