//! What is left when `adit-ca` is killed at each of its calls that change the disk, one after another.
//!
//! strace sends the signal when the call begins: the call does not happen any more. Without strace, or
//! where the kernel forbids it, there is nothing to test.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use adit_pki::csr;
use adit_pki::index::State;
use adit_pki::invitation::Code;
use adit_pki::{Authority, AuthorityError, CertificateRequest, KeyType};
use time::OffsetDateTime;

use crate::desk::{Desk, Outcome, PROGRAM};

/// The calls by which anything on the disk changes; strace leaves out those that a machine lacks. A file
/// that was opened and not yet written is what the first write finds.
const CALLS: &str = "?write,?pwrite64,?fsync,?fdatasync,?rename,?renameat,?renameat2,?unlink,\
    ?unlinkat,?ftruncate,?mkdir,?mkdirat,?chmod,?fchmod,?fchmodat,?link,?linkat";

/// A program, what it is told, and which of its calls are followed.
struct Run<'a> {
    program: &'a str,
    arguments: &'a [&'a str],
    calls: &'a str,
}

/// The calls that the program makes when nobody stops it, in their order; `None` without strace.
fn calls(desk: &Desk, run: &Run<'_>) -> Option<Vec<String>> {
    let trace = format!("trace={}", run.calls);
    let mut all = vec![
        "-f",
        "-qq",
        "-o",
        "trace",
        "-e",
        &trace,
        "-e",
        "signal=none",
        run.program,
    ];
    all.extend(run.arguments);
    let output = desk.command("strace", &all).output().ok()?;
    let text = fs::read_to_string(desk.path("trace")).ok()?;
    if text.is_empty() {
        return None;
    }
    assert!(output.status.success(), "{output:?}");
    // A line is: number of the process, name of the call, its arguments.
    let name = |line: &str| {
        Some(
            line.split_once(' ')?
                .1
                .trim_start()
                .split_once('(')?
                .0
                .to_owned(),
        )
    };
    text.lines().map(name).collect()
}

/// Runs `adit-ca` in folders that `prepare` makes, each time killed at another one of its calls.
/// `check` gets the desk, and what the command had said until then. Gives the number of kills.
fn at_every_call(
    prepare: impl Fn() -> Desk,
    arguments: &[&str],
    check: impl Fn(&Desk, &Outcome),
) -> usize {
    let run = Run {
        program: PROGRAM,
        arguments,
        calls: CALLS,
    };
    kill_at_every_call(prepare, &run, check)
}

fn kill_at_every_call(
    prepare: impl Fn() -> Desk,
    run: &Run<'_>,
    check: impl Fn(&Desk, &Outcome),
) -> usize {
    let Some(calls) = calls(&prepare(), run) else {
        return 0;
    };
    for (place, call) in calls.iter().enumerate() {
        let desk = prepare();
        // strace counts each call by itself.
        let which = calls[..=place]
            .iter()
            .filter(|other| *other == call)
            .count();
        let trace = format!("trace={call}");
        let inject = format!("inject={call}:signal=KILL:when={which}");
        let mut all = vec![
            "-f",
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
            run.program,
        ];
        all.extend(run.arguments);
        let output = desk.command("strace", &all).output().unwrap();
        let killed = output.status.signal() == Some(9) || output.status.code() == Some(137);
        assert!(killed, "{call} {which}: {output:?}");
        check(&desk, &Outcome::of(&output));
    }
    calls.len()
}

/// The folder as its next user finds it: it opens, nothing half-written is left, and the list that
/// everybody reads is the newest one.
fn opened(folder: &Path) -> Authority {
    let authority = Authority::open(folder).unwrap();
    for file in fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        // SQLite removes a journal of its own when it writes next, if there is nothing in it to undo.
        let known = [
            "ca.csr",
            "ca.key",
            "ca.pem",
            "chain.pem",
            "crl.pem",
            "index.db",
        ];
        assert!(
            known.contains(&name.as_str()) || name == "index.db-journal",
            "{name} was left"
        );
    }
    let published = fs::read_to_string(folder.join("crl.pem")).unwrap();
    let list = authority.list().unwrap().unwrap();
    assert_eq!(pem::parse(published).unwrap().contents(), list.der);
    let entries = authority.entries().unwrap();
    let revoked = entries
        .iter()
        .filter(|entry| entry.revoked.is_some())
        .count();
    assert_eq!(list.entries, revoked);
    authority
}

/// Whether the folder is whole, or else can be begun anew with a word about what was there.
fn whole_or_begun_anew(desk: &Desk, outcome: &Outcome, again: &[&str]) -> bool {
    let folder = desk.path("ca");
    let found = if folder.exists() {
        desk.files("ca")
    } else {
        Vec::new()
    };
    match Authority::open(&folder) {
        Ok(_) => {
            opened(&folder);
            true
        }
        Err(AuthorityError::Missing { .. }) => {
            assert_eq!(outcome.stdout, "", "what was acknowledged is there");
            let begun = desk.run(again).expect(0);
            for name in found {
                let note = format!("note: ca/{name} was left by a program");
                assert!(begun.stderr.contains(&note), "{name}: {begun:?}");
            }
            opened(&folder);
            false
        }
        Err(other) => panic!("{other}: {found:?}"),
    }
}

#[test]
fn init_is_whole_or_begun_anew() {
    let kills = at_every_call(Desk::new, &["init"], |desk, outcome| {
        whole_or_begun_anew(desk, outcome, &["init"]);
    });
    assert!(kills == 0 || kills > 25, "{kills}");
}

#[test]
fn init_under_a_root_is_whole_or_begun_anew() {
    let prepare = || {
        let desk = Desk::new();
        desk.run(&["init", "root"]).expect(0);
        desk
    };
    let init = ["init", "ca", "--under", "root"];
    at_every_call(prepare, &init, |desk, outcome| {
        let whole = whole_or_begun_anew(desk, outcome, &init);
        // Whatever works is known to the root.
        let root = opened(&desk.path("root"));
        let own = Authority::open(&desk.path("ca")).unwrap();
        let known = root.entries().unwrap();
        assert!(
            known
                .iter()
                .any(|entry| entry.certificate == own.certificate_der())
        );
        assert!(known.len() <= if whole { 1 } else { 2 });
    });
}

#[test]
fn what_the_root_answered_is_taken_whole_or_again() {
    let prepare = || {
        let desk = Desk::new();
        desk.run(&["init", "root"]).expect(0);
        desk.run(&["init", "--request"]).expect(0);
        let sign = ["sign", "--authority", "ca/ca.csr", "--dir", "root"];
        desk.run(&[&sign[..], &["-o", "signed.pem"]].concat())
            .expect(0);
        desk
    };
    let complete = ["init", "--certificate", "signed.pem"];
    let kills = at_every_call(prepare, &complete, |desk, outcome| {
        let key = desk.read("ca/ca.key");
        if let Err(AuthorityError::Missing { .. }) = Authority::open(&desk.path("ca")) {
            assert_eq!(outcome.stdout, "", "what was acknowledged is there");
            desk.run(&complete).expect(0);
        }
        opened(&desk.path("ca"));
        assert_eq!(desk.read("ca/ca.key"), key);
    });
    assert!(kills == 0 || kills > 20, "{kills}");
}

const ISSUE: [&str; 6] = [
    "issue",
    "alice@example.com",
    "--gateway",
    "vpn.example.com",
    "-o",
    "alice.toml",
];

#[test]
fn what_was_issued_is_recorded() {
    let kills = at_every_call(Desk::with_authority, &ISSUE, |desk, outcome| {
        let authority = opened(&desk.path("ca"));
        let entries = authority.entries().unwrap();
        let profile = fs::read_to_string(desk.path("alice.toml")).ok();
        let der = profile.as_ref().map(|text| {
            assert!(
                text.ends_with("-----END CERTIFICATE-----\n\"\"\"\n"),
                "half of it"
            );
            adit_pki::description::first_certificate(text.as_bytes()).unwrap()
        });
        assert!(entries.len() <= 1);
        if let Some(der) = der {
            assert_eq!(
                entries[0].certificate, der,
                "nobody has what is not recorded"
            );
        }
        if !outcome.stdout.is_empty() {
            assert!(profile.is_some(), "what was acknowledged is there");
        }
        desk.run(&[&ISSUE[..], &["--force"]].concat()).expect(0);
        let files = desk.files(".");
        assert_eq!(files, ["alice.toml", "ca"], "nothing is left of a key");
    });
    assert!(kills == 0 || kills > 10, "{kills}");
}

#[test]
fn what_was_signed_is_recorded() {
    let prepare = || {
        let desk = Desk::with_authority();
        desk.run(&["request", "-o", "device.csr"]).expect(0);
        desk
    };
    let sign = ["sign", "device.csr", "--principal", "alice@example.com"];
    at_every_call(prepare, &sign, |desk, outcome| {
        let authority = opened(&desk.path("ca"));
        let entries = authority.entries().unwrap();
        if !outcome.stdout.is_empty() {
            let der = adit_pki::description::first_certificate(outcome.stdout.as_bytes());
            assert_eq!(Some(&entries[0].certificate), der.as_ref());
        }
        desk.run(&sign).expect(0);
    });
}

#[test]
fn what_was_revoked_stays_revoked_and_listed() {
    let prepare = || {
        let desk = Desk::with_authority();
        desk.run(&ISSUE).expect(0);
        desk
    };
    let revoke = ["revoke", "alice@example.com"];
    let kills = at_every_call(prepare, &revoke, |desk, outcome| {
        let authority = opened(&desk.path("ca"));
        let entry = authority.entries().unwrap().remove(0);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        if !outcome.stdout.is_empty() {
            assert_eq!(
                entry.state(now),
                State::Revoked,
                "what was acknowledged is there"
            );
        }
        desk.run(&revoke).expect(0);
        let again = opened(&desk.path("ca"));
        assert_eq!(again.entries().unwrap()[0].state(now), State::Revoked);
    });
    assert!(kills == 0 || kills > 10, "{kills}");
}

#[test]
fn a_code_that_was_printed_is_good_and_good_once() {
    let prepare = || {
        let desk = Desk::with_authority();
        desk.run(&["issue", "vpn.example.com", "--purpose", "gateway"])
            .expect(0);
        desk
    };
    let invite = [
        "invite",
        "alice@example.com",
        "--gateway-certificate",
        "vpn.example.com.pem",
    ];
    at_every_call(prepare, &invite, |desk, outcome| {
        let authority = opened(&desk.path("ca"));
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let open = authority.invitations(now).unwrap();
        assert!(open.len() <= 1);
        if let Ok(code) = outcome.stdout.trim().parse::<Code>() {
            let request = csr::make(None, KeyType::Ed25519).unwrap().request_pem;
            let request = CertificateRequest::from_pem(&request).unwrap();
            authority
                .redeem(code.secret(), &request, None, now)
                .unwrap();
            assert!(authority.invitations(now).unwrap().is_empty());
        }
    });
}

#[test]
fn a_key_is_encrypted_or_as_it_was() {
    let prepare = || {
        let desk = Desk::with_authority();
        desk.write("phrase", "correct horse");
        desk
    };
    let change = ["passphrase", "--new-passphrase-file", "phrase"];
    at_every_call(prepare, &change, |desk, outcome| {
        let encrypted = Authority::is_encrypted(&desk.path("ca")).unwrap();
        assert!(
            encrypted || outcome.stdout.is_empty(),
            "what was acknowledged is there"
        );
        desk.run(&["crl", "--passphrase-file", "phrase"]).expect(0);
        let files = ["ca.key", "ca.pem", "crl.pem", "index.db"];
        assert_eq!(desk.files("ca"), files, "nothing is left of a key");
    });
}

/// What the gateway does with a code, in a process of its own: this very program, told to run this test
/// alone in a folder where a code waits. Otherwise there is nothing to do.
#[test]
fn a_code_is_used_in_a_process_of_its_own() {
    let Ok(code) = fs::read_to_string("code") else {
        return;
    };
    let code: Code = code.parse().unwrap();
    let request = CertificateRequest::from_pem(&fs::read_to_string("device.csr").unwrap()).unwrap();
    let authority = Authority::open(Path::new("ca")).unwrap();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    authority
        .redeem(code.secret(), &request, None, now)
        .unwrap();
}

#[test]
fn a_code_is_used_together_with_the_record_of_its_certificate() {
    let prepare = || {
        let desk = Desk::with_authority();
        desk.run(&["issue", "vpn.example.com", "--purpose", "gateway"])
            .expect(0);
        desk.run(&["request", "-o", "device.csr"]).expect(0);
        let invite = ["invite", "alice@example.com", "--gateway-certificate"];
        let code = desk.run(&[&invite[..], &["vpn.example.com.pem"]].concat());
        desk.write("code", code.expect(0).stdout.trim());
        desk
    };
    let program = std::env::current_exe().unwrap();
    let run = Run {
        program: program.to_str().unwrap(),
        arguments: &["--exact", "crashes::a_code_is_used_in_a_process_of_its_own"],
        // Those of the index; what the test says on the terminal is not followed.
        calls: "?pwrite64,?fsync,?fdatasync,?unlink,?unlinkat,?ftruncate",
    };
    let kills = kill_at_every_call(prepare, &run, |desk, _| {
        let authority = opened(&desk.path("ca"));
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let recorded = authority.entries().unwrap().len() == 2;
        assert_eq!(recorded, authority.invitations(now).unwrap().is_empty());
        // Whichever it was, the device that asks again gets its one certificate.
        let code: Code = desk.read("code").parse().unwrap();
        let request = CertificateRequest::from_pem(&desk.read("device.csr")).unwrap();
        authority
            .redeem(code.secret(), &request, None, now)
            .unwrap();
        assert_eq!(authority.entries().unwrap().len(), 2);
    });
    assert!(kills == 0 || kills > 5, "{kills}");
}
