//! Who has which certificate, on which device, used when and from where: known to the gateway over everything.

use std::fs;
use std::path::Path;
use std::time::Duration;

use adit_tests::lab::namespace::Sight;
use adit_tests::lab::process::Outcome;
use adit_tests::lab::{Layout, Namespace, until};
use adit_tests::programs::{Client, Programs, Setup};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, failed, note, said};
use crate::corporate::corporate;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@corporate.example";
const DAVE: &str = "dave@example.com";
const ERIN: &str = "erin@example.com";

pub(crate) fn are_known_over_restarts(programs: &Programs) -> Result<()> {
    let layout = Layout {
        laptops: 3,
        ..Layout::default()
    };
    let mut company = None;
    let mut bed = Bed::with(programs, layout, |setup| {
        let made = corporate(setup)?;
        let mut joined = Ok(());
        setup.configure(|server| joined = made.join(server))?;
        company = Some(made);
        joined
    })?;
    let company = company.context("it was just made")?;
    let alice = bed.setup.profile(ALICE, &["staff"])?;
    let bob = bed.setup.profile(BOB, &["staff"])?;
    // Dave's profile goes to Carol, and his certificate to nobody.
    let carol = bed.setup.profile(DAVE, &["staff"])?;
    company.take_over(&bed.setup, &carol, CAROL, "staff")?;
    let erin = bed.setup.path("erin.toml");
    let (at, to) = (erin.display().to_string(), "203.0.113.1:443");
    bed.setup.ca(&[
        "issue",
        ERIN,
        "--group",
        "staff",
        "--days",
        "5",
        "--gateway",
        to,
        "--server-name",
        "vpn.example.com",
        "-o",
        &at,
    ])?;

    let _alice = connect(&bed, 0, &alice, "laptop-7")?;
    let second = connect(&bed, 1, &bob, "laptop-8")?;
    let _carol = connect(&bed, 2, &carol, "corp-1")?;
    // The gateway's own, that of the intermediate, those of three who are here and of two who never were.
    let rows = listed(&bed, &[])?;
    ensure!(rows.len() == 7, "{rows:#?}");
    let row = one(&rows, ALICE, "adit")?;
    for (key, value) in [
        ("state", Value::from("valid")),
        ("in_use", true.into()),
        ("sessions", 1.into()),
        ("device", "laptop-7".into()),
        ("last_source", "100.64.0.2".into()),
        ("purpose", "client".into()),
        ("groups", vec!["staff"].into()),
    ] {
        ensure!(row[key] == value, "{key}: {row:#}");
    }
    ensure!(row["issued_by"].is_string() && row["first_seen"].is_string());
    let access = &row["access"][0];
    ensure!(
        access["place"]
            .as_str()
            .is_some_and(|place| place.ends_with("policy.toml:6"))
    );
    let row = one(&rows, CAROL, "corporate")?;
    ensure!(
        row["issuer"]
            .as_str()
            .is_some_and(|issuer| issuer.contains("CN=Issuing"))
    );
    ensure!(
        row["issued_by"].is_null() && row["device"] == "corp-1",
        "{row:#}"
    );
    ensure!(row["last_source"] == "100.64.2.2" && row["access"][0].is_object());
    let row = one(&rows, DAVE, "adit")?;
    ensure!(row["in_use"] == false && row["last_used"].is_null() && row["sessions"] == 0);
    let row = one(&rows, "vpn.example.com", "adit")?;
    ensure!(row["purpose"] == "gateway" && row["in_use"].is_null() && row["access"].is_null());

    // One leaves, comes back and leaves.
    second.stop()?;
    let row = eventually(&bed, BOB, |row| row["in_use"] == false)?;
    ensure!(
        row["last_used"].is_string() && row["sessions"] == 1,
        "{row:#}"
    );
    let second = connect(&bed, 1, &bob, "laptop-9")?;
    second.stop()?;
    let row = eventually(&bed, BOB, |row| row["in_use"] == false)?;
    ensure!(
        row["device"] == "laptop-9" && row["sessions"] == 2,
        "{row:#}"
    );

    // Killed, the gateway forgets nothing of it; the files answer alone, then the next gateway.
    bed.gateway.process().crash()?;
    let outcome = bed.gateway.certs(&["--json"])?;
    ensure!(
        outcome.stderr.contains("no gateway runs"),
        "{}",
        outcome.stderr
    );
    let rows = rows_of(&outcome)?;
    ensure!(rows.len() == 7, "{rows:#?}");
    let row = one(&rows, ALICE, "adit")?;
    ensure!(row["in_use"] == false && row["sessions"] == 1 && row["device"] == "laptop-7");
    ensure!(
        row["last_used"].is_string() && row["access"][0].is_object(),
        "{row:#}"
    );
    bed.gateway = bed.setup.start_gateway(&bed.internet.gateway)?;
    for name in [ALICE, CAROL] {
        let row = eventually(&bed, name, |row| row["in_use"] == true)?;
        ensure!(row["sessions"] == 2, "{row:#}");
    }
    let row = eventually(&bed, BOB, |row| row["in_use"] == false)?;
    ensure!(
        row["device"] == "laptop-9" && row["sessions"] == 2,
        "{row:#}"
    );

    filters_answer(&bed)?;
    one_is_shown_in_full(&bed)?;
    a_revoked_one_is_known(&bed, &bob)?;
    strangers_have_no_row(&bed, programs, &alice)?;

    // In use and about to end: said where an operator looks.
    let _erin = connect(&bed, 1, &erin, "laptop-8")?;
    let status = bed.gateway.status()?;
    let warnings = status["warnings"].to_string();
    ensure!(
        warnings.contains("erin@example.com on laptop-8 uses ends in 4 days"),
        "{warnings}"
    );
    let table = bed.gateway.certs(&[])?.stdout;
    note(&table.replace('\n', "\n    "));
    Ok(())
}

fn filters_answer(bed: &Bed) -> Result<()> {
    for (options, expected) in [
        (&["--expiring", "30"][..], vec![CAROL, ERIN]),
        (
            &[
                "--expiring",
                "30",
                "--group",
                "staff",
                "--principal",
                "*@example.com",
            ],
            vec![ERIN],
        ),
        (&["--unused", "0"], vec![BOB, DAVE, ERIN]),
        (&["--unused", "1"], vec![]),
        (&["--revoked"], vec![]),
        (&["--group", "nobody"], vec![]),
    ] {
        let rows = listed(bed, options)?;
        let names = principals(&rows);
        ensure!(names == expected, "{options:?}: {names:?}");
        let code = i32::from(!expected.is_empty());
        said(
            &bed.gateway.certs(&[options, &["--check"]].concat())?,
            code,
            &[],
        )?;
    }
    let csv = bed.gateway.certs(&["--csv"])?.stdout;
    ensure!(
        csv.starts_with("principal,state,serial,") && csv.lines().count() == 8,
        "{csv}"
    );
    let table = [
        "PRINCIPAL",
        "7 certificates: 7 valid, 2 expire within 30 days, 0 revoked, 0 unused",
    ];
    said(&bed.gateway.certs(&[])?, 0, &table)
}

fn one_is_shown_in_full(bed: &Bed) -> Result<()> {
    let rows = listed(bed, &[])?;
    let serial = one(&rows, ALICE, "adit")?["serial"].clone();
    for what in [ALICE, serial.as_str().context("a serial number is text")?] {
        let words = [
            "state        valid, ends in 36",
            "device       laptop-7",
            "user agent   adit/0.1.0 (linux; laptop-7)",
            "last used    now, from 100.64.0.2",
            "sessions     2",
            "issuer       ",
            "issued by    ",
            "policy.toml:6: allow group:staff, branch1.example.com to and from 10.0.0.0/16",
        ];
        said(&bed.gateway.certs(&[what])?, 0, &words)?;
    }
    failed(
        &bed.gateway.certs(&["nobody@example.com"])?,
        1,
        &["no certificate of"],
    )
}

fn a_revoked_one_is_known(bed: &Bed, profile: &Path) -> Result<()> {
    bed.setup
        .ca(&["revoke", BOB, "--reason", "keyCompromise"])?;
    until(PATIENCE, || {
        let notes = bed.gateway.certs(&[])?.stderr;
        Ok(notes.is_empty().then_some(()))
    })?;
    let rows = listed(bed, &["--revoked"])?;
    ensure!(principals(&rows) == [BOB]);
    ensure!(
        rows[0]["revoked"]["reason"] == "keyCompromise" && rows[0]["revoked"]["by"].is_string()
    );
    ensure!(
        rows[0]["access"] == Value::Array(Vec::new()),
        "{:#}",
        rows[0]
    );
    let mut client = bed.setup.client(&bed.internet.laptops[1], profile)?;
    client.start()?;
    failed(&client.end()?, 1, &["the certificate was revoked"])?;
    let row = eventually(bed, BOB, |row| row["refused"].is_object())?;
    ensure!(row["refused"]["reason"] == "the certificate was revoked");
    ensure!(
        row["refused"]["source"] == "100.64.1.2" && row["sessions"] == 2,
        "{row:#}"
    );
    Ok(())
}

fn strangers_have_no_row(bed: &Bed, programs: &Programs, own: &Path) -> Result<()> {
    let stranger = Setup::new(programs)?;
    let profile = stranger.profile("mallory@example.com", &["staff"])?;
    let own: toml::Table = fs::read_to_string(own)?.parse()?;
    stranger.edit_profile(&profile, |profile| {
        profile.insert("ca".to_owned(), own["ca"].clone());
    })?;
    let mut client = bed.setup.client(&bed.internet.laptops[1], &profile)?;
    client.start()?;
    failed(&client.end()?, 1, &["authority is not trusted"])?;
    failed(
        &bed.gateway.certs(&["mallory@example.com"])?,
        1,
        &["no certificate of"],
    )
}

pub(crate) fn a_damaged_inventory_is_set_aside(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let alice = bed.alice(0)?;
    eventually(&bed, ALICE, |row| row["in_use"] == true)?;
    alice.stop()?;
    let Bed {
        gateway,
        setup,
        internet,
    } = bed;
    gateway.stop()?;
    let path = setup.path("state").join("certificates.db");
    let rubbish = vec![b'x'; 10_000];
    fs::write(&path, &rubbish)?;
    let mut gateway = setup.start_gateway(&internet.gateway)?;
    let log = gateway.process().stderr();
    ensure!(
        log.contains("is set aside") && log.contains("certificates.db.damaged"),
        "{log}"
    );
    ensure!(fs::read(setup.path("state").join("certificates.db.damaged"))? == rubbish);
    let bed = Bed {
        gateway,
        setup,
        internet,
    };
    // What was issued is known from the authority; what happens from now on is learned anew.
    let row = eventually(&bed, ALICE, |row| row["in_use"] == false)?;
    ensure!(
        row["sessions"] == 0 && row["first_seen"].is_null(),
        "{row:#}"
    );
    let _alice = bed.alice(0)?;
    let rows = listed(&bed, &["--principal", ALICE])?;
    ensure!(
        rows.len() == 2 && rows.iter().any(|row| row["sessions"] == 1),
        "{rows:#?}"
    );
    Ok(())
}

pub(crate) fn connect(
    bed: &Bed,
    laptop: usize,
    profile: &Path,
    name: &'static str,
) -> Result<Client> {
    let laptop: &Namespace = &bed.internet.laptops[laptop];
    let mut client = bed.setup.client(laptop, profile)?;
    client.start_seeing(Sight::Named(name))?;
    client.connected(PATIENCE)?;
    Ok(client)
}

pub(crate) fn listed(bed: &Bed, options: &[&str]) -> Result<Vec<Value>> {
    rows_of(&bed.gateway.certs(&[options, &["--json"]].concat())?)
}

fn rows_of(outcome: &Outcome) -> Result<Vec<Value>> {
    ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).with_context(|| outcome.stdout.clone())
}

pub(crate) fn principals(rows: &[Value]) -> Vec<&str> {
    let rows = rows.iter();
    rows.filter_map(|row| row["principal"].as_str()).collect()
}

pub(crate) fn one<'a>(rows: &'a [Value], principal: &str, authority: &str) -> Result<&'a Value> {
    let is = |row: &&Value| row["principal"] == principal && row["authority"] == authority;
    let mut found = rows.iter().filter(is);
    let row = found
        .next()
        .with_context(|| format!("no {principal} in {rows:#?}"))?;
    ensure!(found.next().is_none(), "{principal} is there twice");
    Ok(row)
}

/// The row of a principal that was seen, as soon as it is so.
pub(crate) fn eventually(bed: &Bed, principal: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Vec::new();
    let found = until(PATIENCE, || {
        last = listed(bed, &["--principal", principal])?;
        Ok(last.iter().find(|row| so(row)).cloned())
    });
    found.with_context(|| format!("{last:#?}"))
}

/// A client that was cut off comes back within its back-off.
const PATIENCE: Duration = Duration::from_secs(60);
