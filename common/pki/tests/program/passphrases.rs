//! An authority's key behind a passphrase, whoever asks for it.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::process::Signal;

use crate::desk::{Desk, Outcome, PROGRAM};
use crate::terminal::Terminal;

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
    let desk = Desk::new();
    let typed = |lines: [&str; 2]| {
        let mut terminal = Terminal::running(&desk, &["init", "--encrypt"]);
        terminal.expect("New passphrase of ca/ca.key: ");
        terminal.kind(lines[0]);
        terminal.expect("The same again: ");
        terminal.kind(lines[1]);
        let status = terminal.wait();
        assert!(terminal.echoes());
        (status.code(), terminal.text())
    };
    let (code, text) = typed(["one\n", "two\n"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("the two passphrases differ"), "{text}");
    assert!(!text.contains("one") && !text.contains("two\r"), "{text}");
    assert!(!desk.path("ca/ca.key").exists());
    let (code, text) = typed(["hush hush\n", "hush hush\n"]);
    assert_eq!(code, Some(0));
    assert!(!text.contains("hush"), "{text}");
    desk.write("phrase", "hush hush");
    desk.run(&["crl", "--passphrase-file", "phrase"]).expect(0);
    let mut terminal = Terminal::running(&desk, &["crl"]);
    terminal.expect("Passphrase of ca/ca.key: ");
    terminal.kind("hush hush\n");
    assert!(terminal.wait().success(), "{}", terminal.text());
}

#[test]
fn whatever_ends_a_question_leaves_a_terminal_that_shows_what_is_typed() {
    let desk = Desk::new();
    let asked = |questions: usize| {
        let mut terminal = Terminal::running(&desk, &["init", "--encrypt"]);
        terminal.expect("New passphrase of ca/ca.key: ");
        assert!(!terminal.echoes());
        if questions == 2 {
            terminal.kind("hush\n");
            terminal.expect("The same again: ");
            assert!(!terminal.echoes());
        }
        terminal
    };
    // Whoever waits for the program learns that it was interrupted, as a shell wants it.
    let ended = |mut terminal: Terminal, signal: Signal| {
        assert_eq!(terminal.wait().signal(), Some(signal.as_raw()));
        assert!(terminal.echoes(), "{signal:?}");
        assert!(!desk.path("ca/ca.key").exists());
    };
    for questions in [1, 2] {
        for (key, signal) in [("\x03", Signal::INT), ("\x1c", Signal::QUIT)] {
            let mut terminal = asked(questions);
            terminal.kind(key);
            ended(terminal, signal);
        }
        for signal in [Signal::TERM, Signal::HUP] {
            let terminal = asked(questions);
            terminal.signal(signal);
            ended(terminal, signal);
        }
    }
}
