//! Requests, intermediates, renewals, codes and exports on the command line.

use adit_pki::invitation::Code;
use adit_pki::{Authority, CertificateRequest, description};

use crate::desk::Desk;

fn certificates(text: &str) -> usize {
    description::certificates(text.as_bytes()).unwrap().len()
}

/// What openssl makes of `leaf.pem` under `root.pem`, with `above.pem` sent along.
fn verified(desk: &Desk, purpose: &str) -> bool {
    let arguments = [
        "verify",
        "-x509_strict",
        "-CAfile",
        "root.pem",
        "-untrusted",
        "above.pem",
        "-purpose",
        purpose,
        "leaf.pem",
    ];
    let output = desk.openssl(&arguments);
    output.is_none_or(|output| output.status.success() == (purpose == "sslclient"))
}

#[test]
fn a_device_makes_its_key_and_the_authority_signs_the_request() {
    let desk = Desk::with_authority();
    let request = desk.run(&["request", "alice@example.com"]).expect(0);
    assert!(
        request
            .stdout
            .starts_with("-----BEGIN CERTIFICATE REQUEST-----\n")
    );
    assert!(
        request
            .stderr
            .contains("alice@example.com.key; it stays here")
    );
    assert_eq!(desk.mode("alice@example.com.key"), 0o600);
    desk.write("alice.csr", &request.stdout);
    let key = desk.read("alice@example.com.key");
    desk.run(&["request", "alice@example.com"]).refused(
        2,
        "alice@example.com.key exists already",
        "another file",
    );
    assert_eq!(desk.read("alice@example.com.key"), key);

    let sign = ["sign", "alice.csr", "--principal", "alice@example.com"];
    let more = ["--group", "eng", "--device", "laptop", "-o", "leaf.pem"];
    let signed = desk.run(&[&sign[..], &more].concat()).expect(0);
    assert_eq!(signed.stdout, "leaf.pem\n");
    assert_eq!(certificates(&desk.read("leaf.pem")), 1);
    let shown = desk.run(&["show", "alice@example.com"]).expect(0).stdout;
    for fact in ["eng", "laptop", "email:alice@example.com"] {
        assert!(shown.contains(fact), "{shown}");
    }
    desk.run(&[&sign[..], &more].concat())
        .refused(2, "leaf.pem exists already", "--force");
    // A request that names alice is not bob's.
    desk.run(&["sign", "alice.csr", "--principal", "bob@example.com"])
        .refused(
            2,
            "asks for more than it may have: the common name `alice@example.com`",
            "made anew",
        );
    desk.run(&["sign", "ca/ca.pem", "--principal", "bob@example.com"])
        .refused(
            2,
            "ca/ca.pem: the certificate request is not well-formed",
            "adit-ca request",
        );
    desk.run(&["show", "bob@example.com"]).expect(1);
}

#[test]
fn an_intermediate_is_made_in_one_step_under_a_root() {
    let desk = Desk::new();
    desk.run(&["init", "root", "--name", "Example Corp"])
        .expect(0);
    let made = desk.run(&["init", "--under", "root", "ca"]).expect(0);
    assert_eq!(
        (made.stdout.as_str(), made.stderr.as_str()),
        ("ca/ca.pem\n", "")
    );
    assert_eq!(
        desk.files("ca"),
        ["ca.key", "ca.pem", "chain.pem", "crl.pem", "index.db"]
    );
    assert_eq!(desk.read("ca/chain.pem"), desk.read("root/ca.pem"));
    desk.run(&["issue", "alice@example.com", "--gateway", "vpn.example.com"])
        .expect(0);
    let profile: toml::Table = desk.read("alice@example.com.toml").parse().unwrap();
    assert_eq!(profile["ca"].as_str().unwrap(), desk.read("root/ca.pem"));
    assert_eq!(certificates(profile["certificate"].as_str().unwrap()), 2);

    let exported = desk.run(&["export", "alice@example.com"]).expect(0).stdout;
    assert_eq!(
        exported.trim(),
        profile["certificate"].as_str().unwrap().trim()
    );
    let whole = desk
        .run(&["export", "alice@example.com", "--root"])
        .expect(0)
        .stdout;
    assert_eq!(certificates(&whole), 3);
    desk.run(&["export", "bob@example.com"]).expect(1);
    desk.write("root.pem", &desk.read("root/ca.pem"));
    desk.write("above.pem", &desk.read("ca/ca.pem"));
    desk.write("leaf.pem", &exported);
    assert!(verified(&desk, "sslclient"));
    assert!(verified(&desk, "sslserver"));

    desk.run(&["issue", "vpn.example.com", "--purpose", "gateway"])
        .refused(
            2,
            "allows it to issue none for a gateway",
            "the authority above",
        );
    desk.run(&[
        "issue",
        "branch.example.com",
        "--gateway",
        "vpn.example.com",
    ])
    .refused(2, "excludes this name", "the authority above");
    desk.run(&["init", "--under", "ca", "deeper"]).refused(
        2,
        "allows no authority below it",
        "the authority above",
    );
    // The root knows it, and can revoke it as a whole.
    let shown = desk
        .run(&["show", "Example Corp", "--dir", "root"])
        .expect(0);
    assert!(shown.stdout.contains("purpose      authority"), "{shown:?}");
    let revoked = desk
        .run(&["revoke", "Example Corp", "--dir", "root"])
        .expect(0);
    assert!(revoked.stdout.contains("1 revoked"), "{revoked:?}");
}

#[test]
fn an_intermediate_waits_for_the_root_elsewhere() {
    let desk = Desk::new();
    desk.run(&["init", "root", "--name", "Example Corp"])
        .expect(0);
    let request = ["init", "--request", "--name", "Example Corp"];
    let waiting = desk.run(&request).expect(0);
    assert_eq!(waiting.stdout, "ca/ca.csr\n");
    assert!(
        waiting.stderr.contains("init --certificate FILE --dir ca"),
        "{waiting:?}"
    );
    assert_eq!(desk.files("ca"), ["ca.csr", "ca.key"]);
    desk.run(&request)
        .refused(2, "ca/ca.csr waits", "init --certificate");
    desk.run(&["issue", "alice@example.com", "--gateway", "vpn.example.com"])
        .refused(2, "no authority", "init");

    desk.run(&[
        "sign",
        "--authority",
        "ca/ca.csr",
        "--principal",
        "Other",
        "--dir",
        "root",
    ])
    .refused(2, "the organisation `Example Corp`", "made anew");
    desk.run(&[
        "sign",
        "--authority",
        "ca/ca.csr",
        "--dir",
        "root",
        "-o",
        "signed.pem",
    ])
    .expect(0);
    desk.run(&["init", "--certificate", "root/ca.pem"]).refused(
        2,
        "no certificate is for the key",
        "ca.csr again",
    );
    desk.run(&["init", "--certificate", "ca/ca.csr"])
        .refused(2, "contains no certificate", "PEM");
    desk.run(&["init", "--certificate", "signed.pem"]).expect(0);
    desk.run(&["init", "--certificate", "signed.pem"])
        .refused(2, "ca/ca.pem exists", "--dir");
    desk.run(&["init", "--certificate", "signed.pem", "empty"])
        .refused(2, "no request", "--request");
    desk.run(&["issue", "alice@example.com", "--gateway", "vpn.example.com"])
        .expect(0);
}

#[test]
fn a_certificate_is_renewed_with_what_it_said() {
    let desk = Desk::with_authority();
    let gateway = ["--gateway", "vpn.example.com"];
    let issue = [
        "issue",
        "alice@example.com",
        "--group",
        "eng",
        "--days",
        "30",
    ];
    desk.run(&[&issue[..], &gateway].concat()).expect(0);
    let renew = ["renew", "alice@example.com"];
    desk.run(&[&renew[..], &gateway].concat()).refused(
        2,
        "alice@example.com.toml exists already",
        "--force",
    );
    desk.run(&[&renew[..], &gateway, &["--force"]].concat())
        .expect(0);
    desk.run(&["request", "-o", "device.csr"]).expect(0);
    let with_key = [&renew[..], &["--csr", "device.csr", "-o", "new.pem"]].concat();
    desk.run(&with_key).expect(0);
    assert_eq!(certificates(&desk.read("new.pem")), 1);
    let authority = Authority::open(&desk.path("ca")).unwrap();
    let entries = authority.entries().unwrap();
    assert_eq!(entries.len(), 3);
    for entry in &entries {
        assert_eq!(entry.groups, ["eng"]);
        assert_eq!(entry.not_after - entry.not_before, 30 * 86_400 + 300);
    }
    desk.run(&["renew", "bob@example.com"]).expect(1);
    desk.run(&["revoke", "alice@example.com"]).expect(0);
    desk.run(&[&renew[..], &gateway, &["--force"]].concat())
        .expect(1);
}

#[test]
fn a_principal_with_two_devices_is_renewed_by_serial() {
    let desk = Desk::with_authority();
    for (device, file) in [("laptop", "a.toml"), ("phone", "b.toml")] {
        let issue = ["issue", "alice@example.com", "--device", device, "-o", file];
        desk.run(&[&issue[..], &["--gateway", "vpn.example.com"]].concat())
            .expect(0);
    }
    let entries = Authority::open(&desk.path("ca"))
        .unwrap()
        .entries()
        .unwrap();
    let gateway = ["--gateway", "vpn.example.com"];
    desk.run(&[&["renew", "alice@example.com"][..], &gateway].concat())
        .refused(2, "has 2 devices", &entries[1].serial);
    desk.run(&[&["renew", &entries[1].serial][..], &gateway].concat())
        .expect(0);
    let entries = Authority::open(&desk.path("ca"))
        .unwrap()
        .entries()
        .unwrap();
    assert_eq!(entries[2].device.as_deref(), Some("phone"));
}

#[test]
fn an_operator_invites_lists_and_withdraws() {
    let desk = Desk::with_authority();
    desk.run(&["issue", "vpn.example.com", "--purpose", "gateway"])
        .expect(0);
    let invite = ["invite", "alice@example.com", "--group", "eng"];
    let pin = ["--gateway-certificate", "vpn.example.com.pem"];
    let invited = desk.run(&[&invite[..], &pin].concat()).expect(0);
    let code: Code = invited.stdout.trim().parse().unwrap();
    assert!(invited.stderr.contains("good once"), "{invited:?}");
    let gateway = description::first_certificate(desk.read("vpn.example.com.pem").as_bytes());
    assert_eq!(
        Some(*code.pin()),
        adit_pki::invitation::pin(&gateway.unwrap())
    );

    let listed = desk.run(&["invitations"]).expect(0).stdout;
    assert!(listed.contains("alice@example.com  eng"), "{listed}");
    assert!(!listed.contains(invited.stdout.trim()));
    let json = desk.run(&["invitations", "--json"]).expect(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["principal"], "alice@example.com");
    assert!(json[0]["invited_by"].as_str().unwrap().starts_with("olga@"));
    let number = json[0]["number"].to_string();

    desk.run(&["request", "-o", "device.csr"]).expect(0);
    let request = CertificateRequest::from_pem(&desk.read("device.csr")).unwrap();
    let authority = Authority::open(&desk.path("ca")).unwrap();
    desk.run(&["withdraw", &number]).expect(0);
    desk.run(&["withdraw", &number]).expect(1);
    assert!(
        authority
            .redeem(code.secret(), &request, None, 2_000_000_000)
            .is_err()
    );
    assert_eq!(desk.run(&["invitations"]).expect(0).stdout, "");

    // Revoking somebody takes the codes back, too.
    desk.run(&[&invite[..], &pin].concat()).expect(0);
    let revoked = desk.run(&["revoke", "alice@example.com"]).expect(0).stdout;
    assert!(
        revoked.contains("open invitations of alice@example.com withdrawn: 1"),
        "{revoked}"
    );
    desk.run(&[
        "invite",
        "alice@example.com",
        "--gateway-certificate",
        "device.csr",
    ])
    .expect(2);
}
