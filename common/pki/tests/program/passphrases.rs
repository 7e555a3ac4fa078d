//! An authority's key behind a passphrase, whoever asks for it.

use std::process::Command;

use crate::desk::{Desk, Outcome, PROGRAM};

const ISSUE: [&str; 6] = [
    "issue",
    "alice@example.com",
    "--gateway",
    "vpn.example.com",
    "-o",
    "a.toml",
];

fn encrypted() -> Desk {
    let desk = Desk::new();
    desk.write("phrase", "correct horse battery staple\n");
    desk.run(&["init", "--encrypt", "--passphrase-file", "phrase"])
        .expect(0);
    desk
}

#[test]
fn an_encrypted_key_signs_with_its_passphrase_only() {
    let desk = encrypted();
    assert!(
        desk.read("ca/ca.key")
            .starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    );
    assert_eq!(desk.mode("ca/ca.key"), 0o600);
    desk.write("wrong", "incorrect horse\n");
    let with = |file: &str| {
        let arguments = [&ISSUE[..], &["--passphrase-file", file]].concat();
        desk.run(&arguments)
    };
    with("wrong").refused(2, "the passphrase of ca/ca.key is wrong", "try again");
    with("phrase").expect(0);
    // The first line counts, and nobody else may read the file.
    desk.write("phrase", "correct horse battery staple\r\nand a note");
    desk.run(&["crl", "--passphrase-file", "phrase"]).expect(0);
    desk.write("phrase", "\n");
    desk.run(&["crl", "--passphrase-file", "phrase"]).expect(2);
    // What does not sign does not ask.
    for arguments in [
        &["list"][..],
        &["show", "alice@example.com"],
        &["export", "alice@example.com"],
    ] {
        desk.run(arguments).expect(0);
    }
}

#[test]
fn openssl_reads_the_encrypted_key() {
    let desk = encrypted();
    let read = |pass: &str| desk.openssl(&["pkey", "-in", "ca/ca.key", "-passin", pass, "-pubout"]);
    let (Some(right), Some(wrong)) = (read("pass:correct horse battery staple"), read("pass:no"))
    else {
        return;
    };
    assert!(right.status.success(), "{right:?}");
    assert!(!wrong.status.success());
    let certificate = desk
        .openssl(&["x509", "-in", "ca/ca.pem", "-pubkey", "-noout"])
        .unwrap();
    assert_eq!(right.stdout, certificate.stdout);
}

#[test]
fn a_systemd_credential_is_taken_by_itself() {
    let desk = encrypted();
    std::fs::create_dir(desk.path("credentials")).unwrap();
    desk.write(
        "credentials/adit-ca-passphrase",
        "correct horse battery staple",
    );
    let crl = || desk.command(PROGRAM, &["crl"]);
    let run = |command: &mut Command| Outcome::of(&command.output().unwrap());
    run(crl().env("CREDENTIALS_DIRECTORY", "credentials")).expect(0);
    run(crl().env("CREDENTIALS_DIRECTORY", "elsewhere")).expect(3);
}

#[test]
fn a_passphrase_is_changed_and_removed() {
    let desk = encrypted();
    desk.write("new", "another one");
    let change = ["passphrase", "--passphrase-file", "phrase"];
    desk.run(&[&change[..], &["--new-passphrase-file", "new"]].concat())
        .expect(0);
    desk.run(&["crl", "--passphrase-file", "phrase"]).expect(2);
    desk.run(&["crl", "--passphrase-file", "new"]).expect(0);
    let removed = desk
        .run(&["passphrase", "--passphrase-file", "new", "--remove"])
        .expect(0);
    assert_eq!(removed.stdout, "ca/ca.key is not encrypted now\n");
    desk.run(&["crl"]).expect(0);
    desk.run(&["passphrase", "--new-passphrase-file", "new"])
        .expect(0);
    desk.run(&["crl", "--passphrase-file", "new"]).expect(0);
    assert_eq!(desk.mode("ca/ca.key"), 0o600);
    assert_eq!(
        desk.files("ca"),
        ["ca.key", "ca.pem", "crl.pem", "index.db"]
    );
}

#[test]
fn root_and_intermediate_have_passphrases_of_their_own() {
    let desk = Desk::new();
    desk.write("offline", "kept in the safe");
    desk.write("online", "known to systemd");
    desk.run(&["init", "root", "--encrypt", "--passphrase-file", "offline"])
        .expect(0);
    let under = [
        "init",
        "ca",
        "--under",
        "root",
        "--encrypt",
        "--passphrase-file",
        "online",
    ];
    desk.run(&[&under[..], &["--under-passphrase-file", "online"]].concat())
        .refused(2, "the passphrase of root/ca.key is wrong", "try again");
    desk.run(&[&under[..], &["--under-passphrase-file", "offline"]].concat())
        .expect(0);
    desk.run(&[&ISSUE[..], &["--passphrase-file", "online"]].concat())
        .expect(0);

    let request = [
        "init",
        "waiting",
        "--request",
        "--encrypt",
        "--passphrase-file",
        "online",
    ];
    desk.run(&[&request[..], &["--name", "Private Network"]].concat())
        .expect(0);
    let sign = [
        "sign",
        "--authority",
        "waiting/ca.csr",
        "--dir",
        "root",
        "-o",
        "signed.pem",
    ];
    desk.run(&[&sign[..], &["--passphrase-file", "offline"]].concat())
        .expect(0);
    let complete = [
        "init",
        "waiting",
        "--certificate",
        "signed.pem",
        "--passphrase-file",
    ];
    desk.run(&[&complete[..], &["offline"]].concat()).expect(2);
    desk.run(&[&complete[..], &["online"]].concat()).expect(0);
}

#[test]
fn the_terminal_asks_twice_for_a_new_passphrase_and_shows_none() {
    // util-linux gives the program a terminal of its own, in which it is typed.
    let desk = Desk::new();
    let typed = |input: &str, arguments: &str| {
        use std::io::Write;
        let line = format!("{PROGRAM} {arguments}");
        let mut child = desk
            .command("script", &["-qec", &line, "/dev/null"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        let mut stdin = child.stdin.take().unwrap();
        for text in input.split_inclusive('\n') {
            // The echo is off once the question has been asked.
            std::thread::sleep(std::time::Duration::from_millis(700));
            stdin.write_all(text.as_bytes()).unwrap();
        }
        Some(child.wait_with_output().unwrap())
    };
    let Some(differ) = typed("one\ntwo\n", "init --encrypt") else {
        return;
    };
    let text = String::from_utf8_lossy(&differ.stdout).into_owned();
    assert!(text.contains("the two passphrases differ"), "{text}");
    assert!(!text.contains("one") && !text.contains("two\r"), "{text}");
    assert!(!desk.path("ca/ca.key").exists());
    let made = typed("hush hush\nhush hush\n", "init --encrypt").unwrap();
    let text = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(text.contains("New passphrase of ca/ca.key: "), "{text}");
    assert!(!text.contains("hush"), "{text}");
    desk.write("phrase", "hush hush");
    desk.run(&["crl", "--passphrase-file", "phrase"]).expect(0);
    let asked = typed("hush hush\n", "crl").unwrap();
    assert!(asked.status.success(), "{asked:?}");
}
