//! Intermediates: what a stolen one could do, as webpki and OpenSSL see it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use adit_pki::{
    Authority, AuthorityError, AuthorityParams, CertificateRequest, ChainError, IssueRequest,
    Issued, Name, Purpose, description, store,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

const WEEK: i64 = 7 * 86_400;

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// What webpki makes of a leaf with the intermediates that are sent along, under the root.
fn verify(issued: &Issued, usage: KeyUsage) -> Result<(), Error> {
    let root = description::first_certificate(issued.authority_pem.as_bytes()).unwrap();
    let root = CertificateDer::from(root);
    let sent = description::certificates(issued.certificate_pem.as_bytes()).unwrap();
    let (leaf, above) = sent.split_first().unwrap();
    let above: Vec<_> = above
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let leaf = CertificateDer::from(leaf.as_slice());
    EndEntityCert::try_from(&leaf)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor_from_trusted_cert(&root)?],
            &above,
            UnixTime::since_unix_epoch(Duration::from_secs(now().unsigned_abs())),
            usage,
            None,
            None,
        )
        .map(|_| ())
}

struct Both {
    folder: tempfile::TempDir,
    root: Authority,
    online: Authority,
}

fn both() -> Both {
    let folder = tempfile::tempdir().unwrap();
    let root = Authority::create(
        &folder.path().join("root"),
        &AuthorityParams::new("Example Corp", now()),
        now(),
    )
    .unwrap();
    let params = AuthorityParams::under(&root, root.name(), now());
    let online =
        Authority::create_under(&root, &folder.path().join("online"), &params, now()).unwrap();
    Both {
        folder,
        root,
        online,
    }
}

#[test]
fn a_client_of_an_intermediate_is_accepted_under_the_root() {
    let both = both();
    for principal in ["alice@example.com", "spiffe://example.com/site/berlin"] {
        let request = IssueRequest::client(principal, now()).with_groups(["eng"]);
        let issued = both.online.issue(&request, now()).unwrap();
        assert_eq!(verify(&issued, KeyUsage::client_auth()), Ok(()));
        assert_eq!(issued.authority_pem, both.root.certificate_pem());
        let sent = description::certificates(issued.certificate_pem.as_bytes()).unwrap();
        assert_eq!(
            sent,
            [
                issued.certificate_der.as_slice(),
                both.online.certificate_der()
            ]
        );
    }
    let recorded = both.root.entries().unwrap();
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0].purpose, Purpose::Authority);
    assert_eq!(recorded[0].certificate, both.online.certificate_der());
}

#[test]
fn an_intermediate_cannot_speak_for_a_gateway() {
    let both = both();
    let refused = both
        .online
        .issue(&IssueRequest::gateway("vpn.example.com", now()), now());
    assert!(matches!(
        refused,
        Err(AuthorityError::Purpose(Purpose::Gateway))
    ));
    let refused = both
        .online
        .issue(&IssueRequest::client("branch.example.com", now()), now());
    assert!(matches!(refused, Err(AuthorityError::ExcludedName)));

    // A thief signs what the program would not.
    for name in [
        Name::Dns("vpn.example.com".to_owned()),
        Name::Ip("192.0.2.1".parse().unwrap()),
        Name::Ip("2001:db8::1".parse().unwrap()),
    ] {
        let mut gateway = IssueRequest::client("alice@example.com", now());
        gateway.danger_extended_key_usages = Some(vec![adit_pki::ExtendedKeyUsage::ServerAuth]);
        gateway.danger_subject_alt_names = Some(vec![name.clone()]);
        let issued = both.online.issue(&gateway, now()).unwrap();
        let verdict = verify(&issued, KeyUsage::server_auth());
        assert!(
            matches!(verdict, Err(Error::RequiredEkuNotFoundContext(_))),
            "{verdict:?}"
        );
        // And if the extended key usage were right, the name would still be excluded.
        gateway.danger_extended_key_usages = Some(vec![adit_pki::ExtendedKeyUsage::ClientAuth]);
        let issued = both.online.issue(&gateway, now()).unwrap();
        assert_eq!(
            verify(&issued, KeyUsage::client_auth()),
            Err(Error::NameConstraintViolation),
            "{name}"
        );
    }
    // Without names, and with both usages.
    let mut gateway = IssueRequest::client("alice@example.com", now());
    gateway.danger_extended_key_usages = Some(vec![
        adit_pki::ExtendedKeyUsage::ServerAuth,
        adit_pki::ExtendedKeyUsage::ClientAuth,
    ]);
    let issued = both.online.issue(&gateway, now()).unwrap();
    assert!(verify(&issued, KeyUsage::server_auth()).is_err());
}

#[test]
fn there_is_nothing_below_an_intermediate() {
    let both = both();
    let params = AuthorityParams::under(&both.online, "Deeper", now());
    let folder = both.folder.path().join("deeper");
    let refused = Authority::create_under(&both.online, &folder, &params, now());
    assert!(
        matches!(refused, Err(AuthorityError::LeavesOnly)),
        "{refused:?}"
    );
}

#[test]
fn an_intermediate_opens_again_with_its_chain() {
    let both = both();
    drop(both.online);
    let online = Authority::open(&both.folder.path().join("online")).unwrap();
    assert!(online.repairs().is_empty(), "{:?}", online.repairs());
    assert_eq!(online.root_pem(), both.root.certificate_pem());
    assert_eq!(online.name(), "Example Corp");
    let issued = online
        .issue(&IssueRequest::client("alice@example.com", now()), now())
        .unwrap();
    assert_eq!(verify(&issued, KeyUsage::client_auth()), Ok(()));
    assert!(online.not_after() <= both.root.not_after());
}

fn pending(folder: &Path) -> CertificateRequest {
    let params = AuthorityParams::new("Example Corp", now());
    let request = Authority::request(folder, &params).unwrap();
    CertificateRequest::from_pem(&fs::read_to_string(request.path).unwrap()).unwrap()
}

#[test]
fn a_folder_waits_for_its_certificate_and_takes_no_other() {
    let root = Authority::ephemeral("Example Corp", now()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("online");
    let request = pending(&folder);
    let again = Authority::create(&folder, &AuthorityParams::new("Example Corp", now()), now());
    assert!(matches!(again, Err(AuthorityError::Pending { .. })));
    assert!(matches!(
        Authority::open(&folder),
        Err(AuthorityError::Missing { .. })
    ));

    let signed = root
        .sign_authority(
            &request,
            &AuthorityParams::under(&root, "Example Corp", now()),
            now(),
        )
        .unwrap();
    let own = signed.certificate_der;
    let above = root.certificate_der().to_vec();
    let stranger = Authority::ephemeral("Example Corp", now()).unwrap();
    for (certificates, error) in [
        (vec![above.clone()], "no certificate is for the key"),
        (vec![own.clone()], "is missing"),
        // Of the same name, but with another key.
        (
            vec![own.clone(), stranger.certificate_der().to_vec()],
            "is missing",
        ),
        (vec![vec![0x30, 0]], "not well-formed"),
    ] {
        let refused = Authority::complete(&folder, &certificates, None, now()).unwrap_err();
        assert!(refused.to_string().contains(error), "{refused}");
        assert!(!folder.join(store::CERTIFICATE).exists());
    }
    let online = Authority::complete(&folder, &[above, own], None, now()).unwrap();
    let issued = online
        .issue(&IssueRequest::client("alice@example.com", now()), now())
        .unwrap();
    assert_eq!(verify(&issued, KeyUsage::client_auth()), Ok(()));
    let again = Authority::complete(&folder, &[], None, now());
    assert!(matches!(again, Err(AuthorityError::Exists { .. })));
}

#[test]
fn a_request_for_an_authority_gets_no_other_name() {
    let root = Authority::ephemeral("Example Corp", now()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let request = pending(&folder.path().join("online"));
    let refused = root.sign_authority(
        &request,
        &AuthorityParams::under(&root, "Other Corp", now()),
        now(),
    );
    assert!(
        matches!(refused, Err(AuthorityError::Request(_))),
        "{refused:?}"
    );
    // Nor does it become a client.
    let refused = root.sign(
        &request,
        &IssueRequest::client("alice@example.com", now()),
        now(),
    );
    assert!(
        matches!(refused, Err(AuthorityError::Request(_))),
        "{refused:?}"
    );
    assert!(root.entries().unwrap().is_empty());
}

/// A corporate authority in the hands of OpenSSL: RSA, its own ideas of extensions.
struct Corporate {
    folder: tempfile::TempDir,
}

impl Corporate {
    fn new() -> Option<Self> {
        let corporate = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        corporate.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "root.key",
            "-out",
            "root.pem",
            "-days",
            "30",
            "-subj",
            "/DC=corp/DC=example/CN=Example Root",
        ])?;
        Some(corporate)
    }

    fn openssl(&self, arguments: &[&str]) -> Option<()> {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
        Some(())
    }

    /// The certificates that result from signing the request of `ca` with these extensions.
    fn sign(&self, extensions: &str) -> Vec<Vec<u8>> {
        let path = |name: &str| self.folder.path().join(name);
        fs::write(path("ext.cnf"), extensions).unwrap();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "ca/ca.csr",
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-days",
            "20",
            "-extfile",
            "ext.cnf",
            "-out",
            "signed.pem",
        ])
        .unwrap();
        let text = fs::read(path("signed.pem")).unwrap();
        let root = fs::read(path("root.pem")).unwrap();
        description::certificates(&[text, root].concat()).unwrap()
    }
}

#[test]
fn a_corporate_root_of_openssl_makes_an_intermediate_of_ours() {
    let Some(corporate) = Corporate::new() else {
        return;
    };
    let folder = corporate.folder.path().join("ca");
    pending(&folder);
    for (extensions, error) in [
        (
            "basicConstraints=critical,CA:FALSE",
            "no authority that may sign",
        ),
        (
            "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature",
            "no authority that may sign",
        ),
        (
            "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n\
             extendedKeyUsage=emailProtection",
            "neither for clients nor for gateways",
        ),
    ] {
        let refused = Authority::complete(&folder, &corporate.sign(extensions), None, now());
        let refused = refused.map(|_| ()).unwrap_err();
        assert!(
            refused.to_string().contains(error),
            "{extensions}: {refused}"
        );
        assert!(matches!(refused, AuthorityError::Chain(_)));
    }
    let signed = corporate.sign(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid",
    );
    let online = Authority::complete(&folder, &signed, None, now()).unwrap();
    let client = online
        .issue(&IssueRequest::client("alice@example.com", now()), now())
        .unwrap_err();
    assert!(matches!(client, AuthorityError::OutlivesAuthority { .. }));
    let (now, week) = (now(), now() + WEEK);
    for (request, usage) in [
        (
            IssueRequest::client("alice@example.com", now),
            KeyUsage::client_auth(),
        ),
        // Nobody restricted this one.
        (
            IssueRequest::gateway("vpn.example.com", now),
            KeyUsage::server_auth(),
        ),
    ] {
        let issued = online.issue(&request.valid(now, week), now).unwrap();
        assert_eq!(verify(&issued, usage), Ok(()));
    }
}

#[test]
fn names_that_a_corporate_root_constrains_are_refused_when_they_are_issued() {
    let Some(corporate) = Corporate::new() else {
        return;
    };
    let folder = corporate.folder.path().join("ca");
    pending(&folder);
    let signed = corporate.sign(
        "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n\
         nameConstraints=critical,permitted;email:example.com,permitted;DNS:example.com",
    );
    let online = Authority::complete(&folder, &signed, None, now()).unwrap();
    let issue = |request: IssueRequest| online.issue(&request.valid(now(), now() + WEEK), now());
    issue(IssueRequest::client("branch.example.com", now())).unwrap();
    issue(IssueRequest::client("spiffe://example.com/a", now())).unwrap();
    // webpki does not know constraints of the first kind, and refuses all under them.
    for principal in ["alice@example.com", "branch.example.net"] {
        let refused = issue(IssueRequest::client(principal, now()));
        assert!(
            matches!(refused, Err(AuthorityError::ExcludedName)),
            "{refused:?}"
        );
    }
    assert_eq!(online.entries().unwrap().len(), 2);
}

#[test]
fn a_corporate_path_length_is_respected() {
    let Some(corporate) = Corporate::new() else {
        return;
    };
    corporate.openssl(&[
        "req",
        "-x509",
        "-key",
        "root.key",
        "-out",
        "root.pem",
        "-days",
        "30",
        "-subj",
        "/CN=Short Root",
        "-addext",
        "basicConstraints=critical,CA:TRUE,pathlen:0",
        "-addext",
        "keyUsage=keyCertSign",
        "-config",
        "/dev/null",
    ]);
    let folder = corporate.folder.path().join("ca");
    pending(&folder);
    let signed = corporate.sign("basicConstraints=CA:TRUE\nkeyUsage=keyCertSign,cRLSign");
    let refused = Authority::complete(&folder, &signed, None, now()).map(|_| ());
    assert!(
        matches!(
            refused,
            Err(AuthorityError::Chain(ChainError::PathLength {
                allowed: 0,
                found: 1,
                ..
            }))
        ),
        "{refused:?}"
    );
}

#[test]
fn openssl_accepts_the_client_and_not_the_gateway_of_an_intermediate() {
    let both = both();
    let write = |name: &str, text: &str| fs::write(both.folder.path().join(name), text).unwrap();
    write("root.pem", both.root.certificate_pem());
    write("online.pem", both.online.certificate_pem());
    let client = both
        .online
        .issue(&IssueRequest::client("alice@example.com", now()), now())
        .unwrap();
    write("client.pem", &client.certificate_pem);
    let mut gateway = IssueRequest::client("alice@example.com", now());
    gateway.danger_extended_key_usages = Some(vec![adit_pki::ExtendedKeyUsage::ServerAuth]);
    gateway.danger_subject_alt_names = Some(vec![Name::Dns("vpn.example.com".to_owned())]);
    let gateway = both.online.issue(&gateway, now()).unwrap();
    write("gateway.pem", &gateway.certificate_pem);
    for (leaf, purpose, accepted) in [
        ("client.pem", "sslclient", true),
        ("client.pem", "sslserver", false),
        ("gateway.pem", "sslserver", false),
    ] {
        let output = Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-CAfile",
                "root.pem",
                "-untrusted",
                "online.pem",
            ])
            .args(["-purpose", purpose, leaf])
            .current_dir(both.folder.path())
            .output();
        let Ok(output) = output else {
            return;
        };
        assert_eq!(
            output.status.success(),
            accepted,
            "{leaf} {purpose}: {output:?}"
        );
    }
}
