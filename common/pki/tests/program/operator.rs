//! `adit-ca` as an operator meets it: the real program in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::desk::{Desk, PROGRAM};

#[test]
fn init_makes_a_closed_folder_and_names_the_certificate() {
    let desk = Desk::new();
    let outcome = desk.run(&["init", "--name", "Example Corp"]).expect(0);
    assert_eq!(outcome.stdout, "ca/ca.pem\n");
    assert_eq!(outcome.stderr, "");
    assert_eq!(
        [
            desk.mode("ca"),
            desk.mode("ca/ca.key"),
            desk.mode("ca/index.db")
        ],
        [0o700, 0o600, 0o600]
    );
    assert!(
        desk.read("ca/ca.pem")
            .starts_with("-----BEGIN CERTIFICATE-----\n")
    );
    let mut files: Vec<_> = fs::read_dir(desk.path("ca"))
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["ca.key", "ca.pem", "crl.pem", "index.db"]);
}

#[test]
fn a_second_init_is_refused_and_changes_nothing() {
    let desk = Desk::with_authority();
    let before = [desk.read("ca/ca.pem"), desk.read("ca/ca.key")];
    desk.run(&["init"]).refused(2, "ca/ca.pem exists", "--dir");
    assert_eq!([desk.read("ca/ca.pem"), desk.read("ca/ca.key")], before);
}

#[test]
fn an_interrupted_init_is_begun_again_unless_something_was_issued() {
    let desk = Desk::with_authority();
    let before = desk.read("ca/ca.key");
    fs::remove_file(desk.path("ca/ca.pem")).unwrap();
    fs::write(desk.path("ca/.ca.pem.4711-0.tmp"), "half").unwrap();
    let issue = ["issue", "alice@example.com", "--gateway", "vpn.example.com"];
    desk.run(&issue).refused(2, "no authority", "init");
    let outcome = desk.run(&["init"]).expect(0);
    for file in ["ca.key", "index.db", "crl.pem", ".ca.pem.4711-0.tmp"] {
        let note = format!("note: ca/{file} was left by a program that was ended");
        assert!(outcome.stderr.contains(&note), "{file}: {outcome:?}");
    }
    assert_ne!(desk.read("ca/ca.key"), before);

    desk.run(&issue).expect(0);
    fs::remove_file(desk.path("ca/ca.pem")).unwrap();
    desk.run(&["init"])
        .refused(2, "ca/index.db exists", "ca/ca.pem was lost");
}

#[test]
fn a_folder_in_use_for_something_else_is_left_alone() {
    let desk = Desk::new();
    fs::write(desk.path("notes"), "").unwrap();
    let before = desk.mode("");
    fs::set_permissions(desk.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    desk.run(&["init", "--dir", "."])
        .refused(2, "not empty", "--dir");
    assert_eq!(desk.mode(""), 0o755);
    fs::set_permissions(desk.path(""), fs::Permissions::from_mode(before)).unwrap();
}

#[test]
fn of_several_inits_at_once_one_succeeds() {
    let desk = Desk::new();
    let children: Vec<_> = (0..6)
        .map(|_| {
            desk.command(PROGRAM, &["init"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let codes: Vec<_> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().status.code())
        .collect();
    assert_eq!(
        codes.iter().filter(|code| **code == Some(0)).count(),
        1,
        "{codes:?}"
    );
    assert_eq!(
        codes.iter().filter(|code| **code == Some(2)).count(),
        5,
        "{codes:?}"
    );
    desk.run(&["issue", "alice@example.com", "--gateway", "vpn.example.com"])
        .expect(0);
}

#[test]
fn a_client_gets_one_profile_that_nobody_else_can_read() {
    let desk = Desk::with_authority();
    let outcome = desk
        .run(&[
            "issue",
            "alice@example.com",
            "--group",
            "eng",
            "--group",
            "ops",
            "--gateway",
            "vpn.example.com:8443",
            "--gateway",
            "192.0.2.1",
        ])
        .expect(0);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("alice@example.com.toml\n", "")
    );
    assert_eq!(desk.mode("alice@example.com.toml"), 0o600);
    let profile: toml::Table = desk.read("alice@example.com.toml").parse().unwrap();
    let keys: Vec<_> = profile.keys().map(String::as_str).collect();
    assert!(
        ["gateways", "certificate", "key", "ca"]
            .iter()
            .all(|key| keys.contains(key))
            && keys.len() == 4,
        "{keys:?}"
    );
    let gateways: Vec<_> = profile["gateways"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    assert_eq!(gateways, ["vpn.example.com:8443", "192.0.2.1:443"]);
    assert_eq!(profile["ca"].as_str().unwrap(), desk.read("ca/ca.pem"));
    assert!(
        profile["key"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN PRIVATE KEY-----\n")
    );
}

#[test]
fn a_gateway_gets_a_certificate_and_a_key() {
    let desk = Desk::with_authority();
    let arguments = [
        "issue",
        "vpn.example.com",
        "--purpose",
        "gateway",
        "--name",
        "10.0.0.1",
        "--name",
        "vpn.example.com",
    ];
    let outcome = desk.run(&arguments).expect(0);
    assert_eq!(outcome.stdout, "vpn.example.com.pem\nvpn.example.com.key\n");
    assert_eq!(desk.mode("vpn.example.com.key"), 0o600);
    assert_eq!(
        desk.listed()[0]["names"],
        serde_json::json!(["dns:vpn.example.com", "ip:10.0.0.1"])
    );

    desk.run(&[
        "issue",
        "b.example.com",
        "--purpose",
        "gateway",
        "-o",
        "server.crt",
    ])
    .expect(0);
    assert_eq!(desk.mode("server.key"), 0o600);
}

#[test]
fn a_profile_defaults_to_the_one_gateway_of_the_index() {
    let desk = Desk::with_authority();
    desk.run(&["issue", "alice@example.com"])
        .refused(2, "needs a gateway", "--gateway");
    desk.run(&["issue", "vpn.example.com", "--purpose", "gateway"])
        .expect(0);
    let outcome = desk.run(&["issue", "alice@example.com"]).expect(0);
    assert!(
        outcome
            .stderr
            .starts_with("note: the profile connects to vpn.example.com:443"),
        "{outcome:?}"
    );
    assert!(
        desk.read("alice@example.com.toml")
            .contains("gateways = [\"vpn.example.com:443\"]")
    );
    desk.run(&["issue", "b.example.com", "--purpose", "gateway"])
        .expect(0);
    desk.run(&["issue", "bob@example.com"])
        .refused(2, "several", "b.example.com, vpn.example.com");
}

#[test]
fn an_existing_file_is_replaced_only_by_force_and_nothing_is_issued_before() {
    let desk = Desk::with_authority();
    let arguments = [
        "issue",
        "alice@example.com",
        "--gateway",
        "vpn.example.com",
        "-o",
        "a.toml",
    ];
    desk.run(&arguments).expect(0);
    let before = desk.read("a.toml");
    desk.run(&arguments)
        .refused(2, "a.toml exists already", "--force");
    assert_eq!(desk.read("a.toml"), before);
    assert_eq!(desk.listed().len(), 1);
    desk.run(&[&arguments[..], &["--force"]].concat()).expect(0);
    assert_ne!(desk.read("a.toml"), before);
    assert_eq!(desk.mode("a.toml"), 0o600);
    assert_eq!(desk.listed().len(), 2);
}

#[test]
fn bad_input_is_refused_before_anything_is_issued() {
    let desk = Desk::with_authority();
    let gateway = ["--gateway", "vpn.example.com"];
    for arguments in [
        &["issue", "Alice Smith"][..],
        &["issue", "../alice"],
        &["issue", ""],
        &["issue", "alice@example.com", "--group", "a b"],
        &["issue", "alice@example.com", "--days", "0"],
        &["issue", "alice@example.com", "--days", "3650000"],
        &["issue", "alice@example.com", "--name", "vpn.example.com"],
        &["issue", "alice@example.com", "--purpose", "both"],
        &["issue", "alice@example.com", "--server-name", "a b"],
        &[
            "issue",
            "alice@example.com",
            "--gateway",
            "https://vpn.example.com",
        ],
        &["issue", "alice@example.com", "-o", "missing/alice.toml"],
        &["issue", "alice@example.com", "-o", "ca"],
        &["issue", "vpn.example.com", "--purpose", "gateway"],
    ] {
        let outcome = desk.run(&[arguments, &gateway].concat()).expect(2);
        assert!(outcome.stderr.starts_with("error: "), "{outcome:?}");
    }
    assert!(desk.listed().is_empty());
    desk.run(&[
        "issue",
        "alice@example.com",
        "--gateway",
        "vpn.example.com",
        "--days",
        "3650",
    ])
    .expect(0);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_a_hint() {
    let desk = Desk::with_authority();
    fs::set_permissions(desk.path("ca/ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = desk.run(&["issue", "alice@example.com", "--gateway", "vpn.example.com"]);
    outcome.refused(3, "mode 0644", "chmod 600 ca/ca.key");
    // The index needs no key.
    desk.run(&["list"]).expect(0);
}

#[test]
fn a_foreign_key_beside_the_certificate_is_refused() {
    let desk = Desk::with_authority();
    desk.run(&["init", "--dir", "other"]).expect(0);
    fs::copy(desk.path("other/ca.key"), desk.path("ca/ca.key")).unwrap();
    let outcome = desk.run(&["issue", "alice@example.com", "--gateway", "vpn.example.com"]);
    outcome.refused(3, "does not belong to its certificate", "backup");
}

#[test]
fn a_missing_index_is_a_fault_and_not_a_fresh_start() {
    let desk = Desk::with_authority();
    fs::remove_file(desk.path("ca/index.db")).unwrap();
    let outcome = desk
        .run(&["issue", "alice@example.com", "--gateway", "vpn.example.com"])
        .expect(3);
    assert!(
        outcome
            .stderr
            .starts_with("error: the index of issued certificates cannot be used: "),
        "{outcome:?}"
    );
    assert!(!desk.path("alice@example.com.toml").exists());
    assert!(!desk.path("ca/index.db").exists());
}

#[test]
fn list_shows_who_has_what_from_whom_until_when() {
    let desk = Desk::with_authority();
    desk.run(&[
        "issue",
        "alice@example.com",
        "--group",
        "eng",
        "--gateway",
        "vpn.example.com",
    ])
    .expect(0);
    let listed = desk.listed();
    let entry = &listed[0];
    assert_eq!(entry["principal"], "alice@example.com");
    assert_eq!(entry["groups"], serde_json::json!(["eng"]));
    assert_eq!(
        (&entry["purpose"], &entry["state"]),
        (&"client".into(), &"valid".into())
    );
    assert!(entry["issued_by"].as_str().unwrap().starts_with("olga@"));
    assert_eq!(entry["device"], serde_json::Value::Null);
    let days = entry["days_left"].as_i64().unwrap();
    assert!((364..=365).contains(&days), "{days}");
    let expires = entry["expires"].as_str().unwrap();
    assert!(expires.ends_with('Z') && expires.contains('T'), "{expires}");

    let table = desk.run(&["list"]).expect(0).stdout;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[0].starts_with("PRINCIPAL") && lines[0].ends_with("SERIAL"),
        "{table}"
    );
    assert_eq!(
        lines[3],
        "1 certificate: 1 valid, 0 expire within 30 days, 0 revoked"
    );
    for word in [
        entry["serial"].as_str().unwrap(),
        "alice@example.com",
        "eng",
        "client",
        "olga@",
        "valid",
    ] {
        assert!(lines[1].contains(word), "{table}");
    }
    let csv = desk.run(&["list", "--csv"]).expect(0).stdout;
    let lines: Vec<_> = csv.split("\r\n").collect();
    assert!(lines[0].starts_with("principal,state,serial,"), "{csv}");
    assert!(lines[1].starts_with("alice@example.com,valid,"), "{csv}");
}

#[test]
fn filters_of_the_list_go_together() {
    let desk = Desk::with_authority();
    for (principal, group, days) in [
        ("alice@example.com", "eng", "10"),
        ("bob@example.com", "eng", "100"),
        ("carol@example.org", "ops", "10"),
    ] {
        let gateway = "vpn.example.com";
        desk.run(&[
            "issue",
            principal,
            "--group",
            group,
            "--days",
            days,
            "--gateway",
            gateway,
        ])
        .expect(0);
    }
    desk.run(&["revoke", "carol@example.org"]).expect(0);
    let named = |options: &[&str]| {
        let text = desk.run(&[&["list", "--json"], options].concat());
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text.expect(0).stdout).unwrap();
        let names = rows
            .iter()
            .map(|row| row["principal"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    let (alice, bob, carol) = ("alice@example.com", "bob@example.com", "carol@example.org");
    assert_eq!(named(&["--expiring", "30"]), alice);
    assert_eq!(named(&["--revoked"]), carol);
    assert_eq!(named(&["--group", "eng"]), format!("{alice} {bob}"));
    assert_eq!(named(&["--principal", "*@example.org"]), carol);
    assert_eq!(named(&["--group", "eng", "--expiring", "9"]), "");
    assert_eq!(
        named(&["--group", "eng", "--group", "ops", "--revoked"]),
        carol
    );
    desk.run(&["list", "--unused", "9"])
        .refused(2, "does not see", "adit-server certs");
    desk.run(&["list", "--json", "--csv"]).expect(2);
}

#[test]
fn show_finds_a_certificate_by_file_serial_and_principal() {
    let desk = Desk::with_authority();
    desk.run(&[
        "issue",
        "alice@example.com",
        "--group",
        "eng",
        "--group",
        "ops",
        "--gateway",
        "vpn.example.com",
    ])
    .expect(0);
    let serial = desk.listed()[0]["serial"].as_str().unwrap().to_owned();
    assert_eq!(serial.len(), 32);
    let colons = serial
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).into_owned())
        .collect::<Vec<_>>()
        .join(":");
    for what in [
        "alice@example.com.toml",
        &serial,
        &colons,
        "alice@example.com",
    ] {
        let text = desk.run(&["show", what]).expect(0).stdout;
        for fact in [
            serial.as_str(),
            "email:alice@example.com",
            "eng, ops",
            "client",
            "Example Corp",
            "ECDSA, 256 bits",
            "valid, ends in 36",
        ] {
            assert!(text.contains(fact), "{what}: no `{fact}` in {text}");
        }
        assert_eq!(
            text.contains("issued by    olga@"),
            !what.ends_with(".toml"),
            "{text}"
        );
    }
    let text = desk.run(&["show", "ca/ca.pem"]).expect(0).stdout;
    assert!(text.contains("purpose      authority"), "{text}");

    assert_eq!(desk.run(&["show", "bob@example.com"]).expect(1).stdout, "");
    fs::write(desk.path("empty"), "nothing").unwrap();
    desk.run(&["show", "empty"]).expect(2);
    fs::write(
        desk.path("broken"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    desk.run(&["show", "broken"]).expect(2);
}

#[test]
fn verbose_tells_the_serial_and_stdout_stays_data() {
    let desk = Desk::with_authority();
    let outcome = desk
        .run(&[
            "-v",
            "issue",
            "alice@example.com",
            "--gateway",
            "vpn.example.com",
        ])
        .expect(0);
    assert_eq!(outcome.stdout, "alice@example.com.toml\n");
    assert!(
        outcome
            .stderr
            .contains(desk.listed()[0]["serial"].as_str().unwrap()),
        "{outcome:?}"
    );
}

#[test]
fn eight_operators_at_once_lose_nothing() {
    const OPERATORS: usize = 8;
    const EACH: usize = 5;
    let desk = Desk::with_authority();
    desk.at_once(OPERATORS, |operator| {
        for number in 0..EACH {
            let principal = format!("user{number}.operator{operator}@example.com");
            desk.run(&["issue", &principal, "--gateway", "vpn.example.com"])
                .expect(0);
        }
    });
    let listed = desk.listed();
    assert_eq!(listed.len(), OPERATORS * EACH);
    for entry in listed {
        let shown = desk
            .run(&[
                "show",
                &format!("{}.toml", entry["principal"].as_str().unwrap()),
            ])
            .expect(0);
        assert!(shown.stdout.contains(entry["serial"].as_str().unwrap()));
    }
}
