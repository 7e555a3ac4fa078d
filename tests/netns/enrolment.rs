//! Codes and certificates over the wire, with the real programs: what works, and above all what does not.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use adit_tests::lab::process::Outcome;
use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Programs, SERVER_NAME, TemporaryDirectory};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, failed, note, said};
use crate::page::{Machine, PATIENCE};

const BOB: &str = "bob@example.com";

/// A gateway, and a laptop that has nothing but the program.
struct Scene {
    bed: Bed,
    directory: TemporaryDirectory,
    programs: Programs,
}

impl Scene {
    fn new(programs: &Programs) -> Result<Self> {
        Ok(Self {
            bed: Bed::new(programs, Layout::default())?,
            directory: TemporaryDirectory::new()?,
            programs: programs.clone(),
        })
    }

    fn laptop(&self) -> Result<Machine<'_>> {
        let root = self.directory.path().join("laptop");
        let laptop = Machine::new(self.bed.internet.laptop(), &root, &self.programs)?;
        laptop.install()?;
        Ok(laptop)
    }

    fn invite(&self, more: &[&str]) -> Result<Value> {
        let arguments = [&[BOB, "--group", "staff", "--json"], more].concat();
        let outcome = self.bed.gateway.invite(&arguments)?;
        said(&outcome, 0, &[])?;
        Ok(serde_json::from_str(&outcome.stdout)?)
    }

    fn code(&self, more: &[&str]) -> Result<String> {
        let code = self.invite(more)?["code"].as_str().map(str::to_owned);
        code.context("no code")
    }

    /// The lines of an event in the audit log.
    fn audit(&self, event: &str) -> Result<Vec<Value>> {
        let path = self.bed.setup.path("state").join("audit.jsonl");
        let mut lines = Vec::new();
        for line in fs::read_to_string(path)?.lines() {
            let line: Value = serde_json::from_str(line)?;
            if line["event"] == event {
                lines.push(line);
            }
        }
        Ok(lines)
    }

    /// Waits until as many refusals of this kind are written down.
    fn refusals(&self, kind: &str, count: usize) -> Result<()> {
        let mut seen = 0;
        until(Duration::from_secs(5), || {
            let lines = self.audit("enrol-refused")?;
            seen = lines.iter().filter(|line| line["kind"] == kind).count();
            Ok((seen == count).then_some(()))
        })
        .with_context(|| format!("{kind}: {seen} instead of {count}"))
    }
}

fn enroll(laptop: &Machine<'_>, code: &str, more: &str) -> Result<Outcome> {
    let command = format!("sudo adit enroll {SERVER_NAME} {code} {more}");
    laptop.start(&command)?.wait(PATIENCE)
}

/// Everything in the laptop's `/etc/adit`.
fn left(laptop: &Machine<'_>) -> Vec<PathBuf> {
    let directory = laptop.configuration("");
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

pub(crate) fn codes_are_good_once(programs: &Programs) -> Result<()> {
    let scene = Scene::new(programs)?;
    let laptop = scene.laptop()?;
    let answer = scene.invite(&[])?;
    ensure!(answer["warning"].is_null(), "{answer}");
    let code = answer["code"].as_str().context("no code")?;
    let command = format!("adit enroll {SERVER_NAME} {code}");
    ensure!(answer["command"] == command.as_str(), "{answer}");
    let open = scene.bed.gateway.invitations(&[])?;
    said(&open, 0, &[BOB, "staff", "in 3 days"])?;
    ensure!(!open.stdout.contains(code), "the list shows the code");

    // A typing mistake is one, and costs nothing.
    let last = code.chars().last().context("an empty code")?;
    let other = if last == '0' { '1' } else { '0' };
    let mistyped = format!("{}{other}", &code[..code.len() - 1]);
    failed(&enroll(&laptop, &mistyped, "")?, 2, &["typing mistake"])?;
    ensure!(left(&laptop).is_empty());

    let enrolled = enroll(&laptop, &code.to_lowercase(), "")?;
    said(&enrolled, 0, &[BOB, "sudo adit up"])?;
    let profile = laptop.configuration("client.toml");
    let text = fs::read_to_string(&profile)?;
    let lines = scene.audit("enrol")?;
    ensure!(lines.len() == 1, "{lines:?}");
    let device = lines[0]["device"].as_str().unwrap_or_default();
    ensure!(
        lines[0]["principal"] == BOB && device.starts_with("adit/"),
        "{lines:?}"
    );
    let open = scene.bed.gateway.invitations(&[])?;
    said(&open, 0, &["no invitation is open"])?;

    // Not again, neither over the profile nor with the same code.
    failed(&enroll(&laptop, code, "")?, 1, &["exists already"])?;
    let again = enroll(&laptop, code, "--replace")?;
    failed(&again, 1, &["the code is unknown, used or expired"])?;
    scene.refusals("used", 1)?;
    ensure!(fs::read_to_string(&profile)? == text, "the profile changed");

    // Guesses: what is taken back is not told from what never was, and the sixth is not looked at.
    for number in 2..6 {
        let code = scene.code(&[])?;
        let number = number.to_string();
        let gone = scene.bed.gateway.invitations(&["--withdraw", &number])?;
        said(&gone, 0, &["invited no more"])?;
        let guess = enroll(&laptop, &code, "--replace")?;
        failed(&guess, 1, &["the code is unknown, used or expired"])?;
    }
    scene.refusals("withdrawn", 4)?;
    let good = scene.code(&[])?;
    let sixth = enroll(&laptop, &good, "--replace")?;
    failed(&sixth, 1, &["too many wrong codes"])?;
    scene.refusals("too-many-guesses", 1)?;
    ensure!(scene.audit("withdraw")?.len() == 4);
    ensure!(fs::read_to_string(&profile)? == text, "the profile changed");
    let none = scene.bed.gateway.invitations(&["--withdraw", "99"])?;
    failed(&none, 1, &["no invitation that is open"])?;

    // The profile is as good as one of `adit-ca`.
    let mut client = laptop.start("sudo adit up")?;
    until(PATIENCE, || {
        client.still_runs()?;
        let here = scene.bed.gateway.principals()?;
        Ok((here == [BOB]).then_some(()))
    })
    .with_context(|| client.last_words())?;
    Ping::to(internet::OFFICE_V4).expect_all(laptop.namespace())?;
    let audit = scene.bed.setup.path("state").join("audit.jsonl");
    let written = fs::read_to_string(audit)?;
    ensure!(!written.contains(code), "the audit log shows the code");
    Ok(())
}

pub(crate) fn what_cannot_work_is_noticed(programs: &Programs) -> Result<()> {
    let scene = Scene::new(programs)?;
    let laptop = scene.laptop()?;
    // Somebody whom the policy gives nothing.
    let useless = scene.bed.gateway.invite(&["eve@example.com"])?;
    said(&useless, 0, &["warning: ", "eve@example.com"])?;
    let refused = scene.bed.gateway.invite(&["not a name"])?;
    ensure!(refused.code == Some(2), "{refused:?}");

    let code = scene.code(&[])?;
    // Nobody answers there.
    let elsewhere = format!("sudo adit enroll {SERVER_NAME}:4433 {code}");
    let silent = laptop.start(&elsewhere)?.wait(PATIENCE)?;
    failed(&silent, 1, &["cannot be reached", "udp to port 4433"])?;
    // Another name than the certificate's.
    let address = format!("sudo adit enroll {} {code}", internet::GATEWAY_V4);
    let misnamed = laptop.start(&address)?.wait(PATIENCE)?;
    failed(&misnamed, 1, &["for another name"])?;
    // A place that cannot be written.
    let nowhere = enroll(&laptop, &code, "--profile /proc/adit/client.toml")?;
    failed(&nowhere, 3, &["/proc/adit"])?;
    // Somebody else's gateway: the code names the key it must have.
    let other = Bed::new(programs, Layout::default())?;
    let foreign = other.gateway.invite(&[BOB, "--json"])?;
    let foreign: Value = serde_json::from_str(&foreign.stdout)?;
    let foreign = foreign["code"].as_str().context("no code")?;
    let impostor = enroll(&laptop, foreign, "")?;
    failed(&impostor, 1, &["not the one that the code names"])?;
    ensure!(left(&laptop).is_empty(), "{:?}", left(&laptop));
    ensure!(scene.audit("enrol-refused")?.is_empty());

    // The gateway stops issuing: what it offers in TLS follows the reload.
    let setup = &scene.bed.setup;
    let mut section = None;
    setup.configure(|server| section = server.remove("enrolment"))?;
    said(&scene.bed.gateway.reload(&[])?, 0, &["reloaded"])?;
    failed(
        &enroll(&laptop, &code, "")?,
        1,
        &["the gateway issues no certificates"],
    )?;
    let off = scene.bed.gateway.invite(&[BOB])?;
    failed(&off, 1, &["issues no certificates"])?;
    setup.configure(|server| {
        if let Some(section) = section.take() {
            server.insert("enrolment".to_owned(), section);
        }
    })?;
    said(&scene.bed.gateway.reload(&[])?, 0, &["reloaded"])?;
    // And the code is as good as ever.
    said(&enroll(&laptop, &code, "")?, 0, &[BOB])?;
    Ok(())
}

pub(crate) fn a_certificate_renews_itself(programs: &Programs) -> Result<()> {
    let scene = Scene::new(programs)?;
    let laptop = scene.laptop()?;
    // It began five minutes ago, as all do: two thirds of its life are over at once.
    let code = scene.code(&["--validity", "90s"])?;
    said(&enroll(&laptop, &code, "")?, 0, &[BOB])?;
    let profile = laptop.configuration("client.toml");
    let first = fs::read_to_string(&profile)?;
    fs::write(&profile, format!("# my own words\n{first}"))?;
    let mut client = laptop.start("sudo adit up")?;
    until(PATIENCE, || {
        client.still_runs()?;
        Ok((!scene.audit("renew")?.is_empty()).then_some(()))
    })
    .with_context(|| client.last_words())?;
    let renewed = &scene.audit("renew")?[0];
    note(&format!("renewed: {renewed}"));
    let enrolled = &scene.audit("enrol")?[0];
    ensure!(renewed["serial_before"] == enrolled["serial"]);
    ensure!(renewed["not_after"].as_i64() > enrolled["not_after"].as_i64());
    let second = until(Duration::from_secs(5), || {
        let text = fs::read_to_string(&profile)?;
        Ok((!text.ends_with(&first)).then_some(text))
    })?;
    ensure!(second.starts_with("# my own words\n# Adit profile of bob"));
    let secret = |text: &str| text.split("PRIVATE KEY").nth(1).map(str::to_owned);
    ensure!(secret(&second) != secret(&first), "a new key was promised");
    Ping::to(internet::OFFICE_V4).expect_all(laptop.namespace())?;

    // The next connection shows it: it is the one that is revoked.
    client.terminate()?;
    client.wait(PATIENCE)?;
    let mut client = laptop.start("sudo adit up")?;
    let connected = |scene: &Scene| -> Result<Option<String>> {
        let status = scene.bed.gateway.status()?;
        let serial = status["sessions"][0]["certificate"]["serial"].as_str();
        Ok(serial.map(str::to_owned))
    };
    let serial = until(PATIENCE, || {
        client.still_runs()?;
        connected(&scene)
    })
    .with_context(|| client.last_words())?;
    ensure!(renewed["serial"] == serial.as_str(), "{serial}");
    let issuing = scene.bed.setup.issuing();
    let revoke = format!("adit-ca revoke {BOB} --dir {}", issuing.display());
    laptop.finish(&revoke)?;
    let outcome = client.wait(Duration::from_secs(5))?;
    failed(&outcome, 1, &["the certificate was revoked"])?;
    ensure!(scene.audit("renew")?.len() == 1, "the revoked one renewed");
    Ok(())
}
