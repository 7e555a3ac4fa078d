//! Revocation as an operator does it, as webpki reads it, and as it survives interruptions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use adit_pki::index::List;
use adit_pki::{Authority, AuthorityParams, IssueRequest, Issued, Reason};
use rustls_pki_types::{CertificateDer, UnixTime};
use tempfile::TempDir;
use time::OffsetDateTime;
use webpki::{
    CertRevocationList, EndEntityCert, Error, KeyUsage, OwnedCertRevocationList,
    RevocationOptionsBuilder, anchor_from_trusted_cert,
};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

const WEEK: time::Duration = time::Duration::days(7);

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// A folder with an authority in `ca`.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Authority::create(
            &folder.path().join("ca"),
            &AuthorityParams::new("Example", now()),
            now(),
        )
        .unwrap();
        Self { folder }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca")
    }

    fn authority(&self) -> Authority {
        Authority::open(&self.ca()).unwrap()
    }

    fn issue(&self, principal: &str) -> String {
        let issued = self
            .authority()
            .issue(&IssueRequest::client(principal, now()), now());
        issued.unwrap().issued.serial
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit-ca"));
        command
            .args(arguments)
            .env("ADIT_CA_DIR", self.ca())
            .env("SUDO_USER", "olga")
            .stdin(Stdio::null());
        command
    }

    /// Standard output of a command that must end with `code`, and standard error.
    #[track_caller]
    fn run(&self, arguments: &[&str], code: i32) -> (String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let (stdout, stderr) = (
            String::from_utf8(stdout).unwrap(),
            String::from_utf8(stderr).unwrap(),
        );
        assert_eq!(status.code(), Some(code), "{stdout}{stderr}");
        (stdout, stderr)
    }

    fn listed(&self, options: &[&str]) -> Vec<serde_json::Value> {
        let (json, _) = self.run(&[&["list", "--json"], options].concat(), 0);
        serde_json::from_str(&json).unwrap()
    }

    /// Number of the list in the folder, and the serial numbers in it.
    fn list(&self) -> (u64, BTreeSet<String>) {
        read_list(&self.ca().join("crl.pem"))
    }
}

fn read_list(path: &Path) -> (u64, BTreeSet<String>) {
    let pem = pem::parse(fs::read(path).unwrap()).unwrap();
    assert_eq!(pem.tag(), "X509 CRL");
    let (rest, list) = CertificateRevocationList::from_der(pem.contents()).unwrap();
    assert_eq!(rest, [0; 0]);
    let number = list.crl_number().unwrap().to_string().parse().unwrap();
    let serials = list.iter_revoked_certificates();
    let serials = serials.map(|entry| entry.raw_serial_as_string().replace(':', ""));
    (number, serials.collect())
}

/// What webpki makes of a client certificate with this list.
fn verify(authority: &Authority, issued: &Issued, list: &List) -> Result<(), Error> {
    let anchor = CertificateDer::from(authority.certificate_der());
    let anchors = [anchor_from_trusted_cert(&anchor)?];
    let leaf = CertificateDer::from(issued.certificate_der.as_slice());
    let list: CertRevocationList<'_> = OwnedCertRevocationList::from_der(&list.der)?.into();
    let lists = [&list];
    let Ok(revocation) = RevocationOptionsBuilder::new(&lists) else {
        panic!("there is one list");
    };
    let revocation = revocation.build();
    EndEntityCert::try_from(&leaf)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(now().unsigned_abs())),
            KeyUsage::client_auth(),
            Some(revocation),
            None,
        )
        .map(|_| ())
}

#[test]
fn webpki_refuses_what_is_listed_and_nothing_else() {
    let authority = Authority::ephemeral("Example Corp", now()).unwrap();
    let issue = |name: &str| {
        authority
            .issue(&IssueRequest::client(name, now()), now())
            .unwrap()
    };
    let (alice, bob) = (issue("alice@example.com"), issue("bob@example.com"));
    let empty = authority.renew_list(WEEK, now()).unwrap();
    assert_eq!(verify(&authority, &alice, &empty), Ok(()));
    for reason in Reason::ALL {
        let carol = issue("carol@example.com");
        let serials = [carol.serial.clone(), alice.serial.clone()];
        let list = authority.revoke(&serials, reason, WEEK, now()).unwrap();
        for revoked in [&alice, &carol] {
            let verdict = verify(&authority, revoked, &list);
            assert_eq!(verdict, Err(Error::CertRevoked), "{reason}");
        }
        assert_eq!(verify(&authority, &bob, &list), Ok(()));
    }
    let stranger = Authority::ephemeral("Example Corp", now()).unwrap();
    let list = stranger.renew_list(WEEK, now()).unwrap();
    assert_eq!(
        verify(&authority, &bob, &list),
        Err(Error::InvalidCrlSignatureForPublicKey),
        "the same name is not the same authority"
    );
}

#[test]
fn the_list_names_each_reason_of_the_rfc_and_its_moment() {
    let authority = Authority::ephemeral("Example Corp", now()).unwrap();
    for reason in Reason::ALL {
        let issued = authority.issue(&IssueRequest::client("a.example.com", now()), now());
        let serial = issued.unwrap().issued.serial;
        let before = now();
        let list = authority
            .revoke(std::slice::from_ref(&serial), reason, WEEK, now())
            .unwrap();
        assert_eq!(list.next_update - list.this_update, 7 * 86_400);
        let (_, list) = CertificateRevocationList::from_der(&list.der).unwrap();
        let mut entries = list.iter_revoked_certificates();
        let entry = entries
            .find(|entry| entry.raw_serial_as_string().replace(':', "") == serial)
            .unwrap();
        assert!((before..before + 60).contains(&entry.revocation_date.timestamp()));
        let code = entry.reason_code().map(|(_, code)| code.0);
        let expected = match reason {
            // RFC 5280 §5.3.1: absent instead of zero.
            Reason::Unspecified => None,
            Reason::KeyCompromise => Some(1),
            Reason::CaCompromise => Some(2),
            Reason::AffiliationChanged => Some(3),
            Reason::Superseded => Some(4),
            Reason::CessationOfOperation => Some(5),
            Reason::PrivilegeWithdrawn => Some(9),
        };
        assert_eq!(code, expected, "{reason}");
    }
}

#[test]
fn a_principal_loses_every_valid_certificate_and_keeps_none() {
    let desk = Desk::new();
    let (first, second) = (
        desk.issue("alice@example.com"),
        desk.issue("alice@example.com"),
    );
    let bob = desk.issue("bob@example.com");
    assert_eq!(desk.list(), (1, BTreeSet::new()));
    let arguments = ["revoke", "alice@example.com", "--reason", "keycompromise"];
    let (said, _) = desk.run(&arguments, 0);
    for words in [
        &format!("revoked {first} of alice@example.com (client, valid until "),
        &format!("revoked {second} of alice@example.com (client, valid until "),
        "crl.pem: number 2, 2 revoked, signed at ",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert_eq!(desk.list(), (2, BTreeSet::from([first.clone(), second])));
    let states: Vec<_> = desk
        .listed(&[])
        .iter()
        .map(|entry| entry["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(states, ["revoked", "revoked", "valid"]);
    let revoked = desk.listed(&["--revoked"]);
    assert_eq!(revoked.len(), 2);
    assert_eq!(revoked[0]["revoked"]["reason"], "keyCompromise");
    assert!(
        revoked[0]["revoked"]["by"]
            .as_str()
            .unwrap()
            .starts_with("olga@")
    );
    let (shown, _) = desk.run(&["show", &first], 0);
    assert!(
        shown.contains("REVOKED") && shown.contains("(keyCompromise)"),
        "{shown}"
    );

    // By its number, however it is written; the second time there is nothing left to do.
    let colons: Vec<_> = bob
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair))
        .collect();
    desk.run(&["revoke", &colons.join(":").to_uppercase()], 0);
    assert_eq!(desk.list().1.len(), 3);
    let (said, note) = desk.run(&["revoke", "bob@example.com"], 0);
    assert!(
        said.is_empty() && note.contains("revoked already"),
        "{said}{note}"
    );
    assert_eq!(desk.list().0, 3);
}

#[test]
fn what_nobody_has_cannot_be_revoked() {
    let desk = Desk::new();
    desk.issue("alice@example.com");
    for what in [
        "mallory@example.com",
        "00",
        "",
        "alice",
        "ALICE@example.com",
    ] {
        let (said, note) = desk.run(&["revoke", what], 1);
        assert!(
            said.is_empty() && note.contains("nothing was revoked"),
            "{note}"
        );
    }
    desk.run(
        &["revoke", "alice@example.com", "--reason", "certificateHold"],
        2,
    );
    desk.run(&["revoke", "alice@example.com", "--days", "0"], 2);
    assert_eq!(desk.list(), (1, BTreeSet::new()));
}

#[test]
fn a_fresh_list_has_a_larger_number_and_the_same_entries() {
    let desk = Desk::new();
    let alice = desk.issue("alice@example.com");
    desk.run(&["revoke", &alice], 0);
    for number in 3..6 {
        let (said, _) = desk.run(&["crl", "--days", "30"], 0);
        assert!(
            said.contains(&format!("number {number}, 1 revoked")),
            "{said}"
        );
        assert_eq!(desk.list(), (number, BTreeSet::from([alice.clone()])));
    }
}

#[test]
fn what_ends_soon_is_listed_apart() {
    let desk = Desk::new();
    let authority = desk.authority();
    let mut soon = IssueRequest::client("soon@example.com", now());
    soon.not_after = now() + 5 * 86_400;
    authority.issue(&soon, now()).unwrap();
    desk.issue("late@example.com");
    let ending = |days: &str| desk.listed(&["--expiring", days]).len();
    assert_eq!([ending("4"), ending("6"), ending("400")], [0, 1, 2]);
    desk.run(&["revoke", "soon@example.com"], 0);
    assert_eq!(ending("6"), 0);
}

#[test]
fn a_list_that_was_signed_and_not_written_is_written_at_the_next_start() {
    let desk = Desk::new();
    let path = desk.ca().join("crl.pem");
    let old = fs::read(&path).unwrap();
    let alice = desk.issue("alice@example.com");
    desk.run(&["revoke", &alice], 0);
    // As after a power cut between the two.
    for interrupted in [Some(&old[..]), Some(&old[..40]), Some(b""), None] {
        match interrupted {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        drop(desk.authority());
        assert_eq!(desk.list(), (2, BTreeSet::from([alice.clone()])));
    }
}

#[test]
fn a_list_is_kept_young_from_half_its_life_on_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (path, begin) = (folder.path().join("ca"), 1_800_000_000);
    let authority =
        Authority::create(&path, &AuthorityParams::new("Example", begin), begin).unwrap();
    let request = IssueRequest::client("alice@example.com", begin);
    let lost = authority.issue(&request, begin).unwrap().serial.clone();
    let day = time::Duration::days(1);
    let revoked = authority.revoke(&[lost], Reason::KeyCompromise, day, begin);
    let first = revoked.unwrap();
    let keep = |after| authority.keep_list_young(begin + after).unwrap();
    let half = day.whole_seconds() / 2;
    assert_eq!(keep(0), (first.clone(), false));
    assert_eq!(keep(half - 1), (first.clone(), false));
    let (second, written) = keep(half);
    assert!(written && second.number == first.number + 1);
    assert_eq!(second.this_update, begin + half);
    assert_eq!(second.next_update, begin + half + day.whole_seconds());
    let (number, serials) = read_list(&path.join("crl.pem"));
    assert_eq!((number, serials.len()), (second.number.unsigned_abs(), 1));
    assert_eq!(keep(half + 1), (second, false));
}

#[test]
fn a_list_that_was_signed_and_not_written_is_written_when_it_is_looked_after() {
    let desk = Desk::new();
    let path = desk.ca().join("crl.pem");
    let (authority, before) = (desk.authority(), fs::read(&path).unwrap());
    let newest = authority.renew_list(WEEK, now()).unwrap();
    let after = fs::read(&path).unwrap();
    for lost in [Some(before), None] {
        match lost {
            Some(old) => fs::write(&path, old).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        assert_eq!(
            authority.keep_list_young(now()).unwrap(),
            (newest.clone(), true)
        );
        assert_eq!(fs::read(&path).unwrap(), after);
    }
    assert_eq!(authority.keep_list_young(now()).unwrap(), (newest, false));
}

#[test]
fn what_an_operator_revokes_while_the_list_is_kept_young_stays_revoked() {
    let desk = Desk::new();
    let serials: Vec<String> = (0..8)
        .map(|number| desk.issue(&format!("user{number}@example.com")))
        .collect();
    let gateway = desk.authority();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each is past half its life when it is looked at next.
            for days in 1..=8 {
                let late = now() + days * 4 * 86_400;
                gateway.keep_list_young(late).unwrap();
            }
        });
        for serial in &serials {
            let revoke = ["revoke", serial.as_str()];
            desk.run(&revoke, 0);
        }
    });
    gateway.keep_list_young(now() + 365 * 86_400 / 2).unwrap();
    let (_, listed) = desk.list();
    assert_eq!(listed, serials.into_iter().collect());
}

#[test]
fn of_many_operators_at_once_none_loses_a_revocation() {
    let desk = Desk::new();
    let serials: Vec<_> = (0..8)
        .map(|n| desk.issue(&format!("u{n}@example.com")))
        .collect();
    let children: Vec<_> = serials
        .iter()
        .map(|serial| {
            let mut command = desk.command(&["revoke", serial]);
            command.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(desk.list(), (9, serials.into_iter().collect()));
}

#[test]
fn a_program_killed_at_any_moment_leaves_a_whole_list_and_forgets_nothing_it_said() {
    let desk = Desk::new();
    let mut acknowledged = BTreeSet::new();
    let (mut number, mut killed) = (1, 0);
    for round in 0..24_u64 {
        let serial = desk.issue(&format!("u{round}@example.com"));
        let mut command = desk.command(&["revoke", &serial]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * 700));
        child.kill().unwrap();
        if child.wait_with_output().unwrap().stdout.is_empty() {
            killed += 1;
        } else {
            acknowledged.insert(serial);
        }
        let (found, entries) = desk.list();
        assert!(found >= number, "{found} after {number}");
        assert!(entries.is_superset(&acknowledged));
        number = found;
        drop(desk.authority());
        let index: BTreeSet<String> = desk
            .listed(&["--revoked"])
            .iter()
            .map(|entry| entry["serial"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(desk.list().1, index);
    }
    assert!(killed > 0);
}
