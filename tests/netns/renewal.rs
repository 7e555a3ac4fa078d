//! Certificates that are renewed, or are not, under a tunnel of the real programs.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_core::close::RefusalKind;
use adit_tests::lab::{Layout, internet, until};
use adit_tests::programs::{Client, PORT, Programs};
use adit_tests::swarm::{Roster, Swarm};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, audit, milliseconds, note, steadily};
use crate::load::Load;
use crate::revocation::told_of;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";

pub(crate) fn serial(status: &Value) -> Result<String> {
    let serial = status["certificate"]["serial"].as_str();
    Ok(serial.context("no serial number")?.to_owned())
}

/// Waits until the session has another certificate than `before`, and none to move to.
pub(crate) fn moved(client: &Client, before: &str) -> Result<String> {
    until(Duration::from_secs(20), || {
        let status = client.status()?;
        let now = serial(&status)?;
        Ok((now != before && status["renewed_certificate"].is_null()).then_some(now))
    })
    .with_context(|| format!("not moved: {:?}", client.status()))
}

pub(crate) fn a_renewed_certificate_is_taken(programs: &Programs) -> Result<()> {
    let mut bed = Bed::new(programs, Layout::default())?;
    let profile = bed.setup.profile(ALICE, &["staff"])?;
    let mut alice = bed.setup.connect(bed.internet.laptop(), &profile)?;
    let addresses = alice.status()?["addresses"].clone();
    let load = Load::start(alice.namespace(), &bed.internet.office)?;
    let mut now = serial(&alice.status()?)?;
    for round in 0..ROUNDS {
        bed.setup.renew(&profile, ALICE, &["staff"])?;
        if round == 0 {
            alice.process()?.hang_up()?;
        }
        now = moved(&alice, &now)?;
    }
    // Over the last of them the old links are closed.
    std::thread::sleep(Duration::from_secs(3));
    let longest = load.stop("alice")?;
    ensure!(
        longest < Duration::from_millis(200),
        "the stream paused for {longest:?}"
    );
    ensure!(alice.status()?["addresses"] == addresses);
    let status = bed.gateway.status()?;
    let session = &status["sessions"][0];
    ensure!(session["certificate"]["serial"] == now.as_str(), "{status}");
    ensure!(status["connections"] == 1, "{status}");
    let drops = session["traffic"]["drops"].as_object();
    note(&format!(
        "{ROUNDS} renewals; dropped by the gateway: {drops:?}"
    ));

    let events = audit(&bed)?;
    let count = |name: &str| events.iter().filter(|line| line["event"] == name).count();
    ensure!(
        count("connect") == 1 && count("disconnect") == 0,
        "{events:?}"
    );
    ensure!(count("handover") == ROUNDS, "{events:?}");
    let last = events.iter().rfind(|line| line["event"] == "handover");
    let last = last.context("no handover")?;
    ensure!(
        last["serial"] == now.as_str() && last["principal"] == ALICE,
        "{last}"
    );
    ensure!(
        last["before"].is_u64() && last["serial_before"] != last["serial"],
        "{last}"
    );
    alice.down()?;
    bed.gateway.process().still_runs()
}

pub(crate) fn a_wrong_renewal_changes_nothing(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let profile = bed.setup.profile(ALICE, &["staff"])?;
    let mut alice = bed.setup.connect(bed.internet.laptop(), &profile)?;
    let before = serial(&alice.status()?)?;
    let good = fs::read_to_string(&profile)?;
    let steady = steadily(internet::OFFICE_V4, bed.internet.laptop())?;
    let of = |principal: &str| -> Result<String> {
        Ok(fs::read_to_string(
            bed.setup.profile(principal, &["staff"])?,
        )?)
    };
    let (bob, another) = (of(BOB)?, of(ALICE)?);
    // The certificate of one profile with the key of another.
    let key = |text: &str| -> Result<String> {
        let table: toml::Table = text.parse()?;
        Ok(table["key"].as_str().context("no key")?.to_owned())
    };
    let mixed = another.replace(key(&another)?.trim(), key(&good)?.trim());
    ensure!(mixed != another);
    for (wrong, words) in [
        (
            bob.as_str(),
            "the certificate is for bob@example.com, and this tunnel",
        ),
        (
            mixed.as_str(),
            "certificate chain and private key cannot be used",
        ),
        ("nonsense", "alice@example.com-0.toml:1"),
        ("", "gateways"),
    ] {
        fs::write(&profile, wrong)?;
        let status = until(Duration::from_secs(10), || {
            let status = alice.status()?;
            let error = status["renewal_error"].as_str().unwrap_or_default();
            Ok(error.contains(words).then_some(status))
        });
        let status = status.with_context(|| format!("{words}: {:?}", alice.status()))?;
        ensure!(
            status["state"] == "up" && serial(&status)? == before,
            "{status}"
        );
        ensure!(alice.status_text()?.contains("renewal       not used: "));
        ensure!(
            alice
                .process()?
                .stderr()
                .contains("the changed profile is not used")
        );
    }
    // The one that counts is back: nothing is left to tell.
    fs::write(&profile, &good)?;
    until(Duration::from_secs(10), || {
        let status = alice.status()?;
        Ok(status["renewal_error"].is_null().then_some(()))
    })?;
    // One whose authority the gateway does not know is found out by trying, and the session goes on.
    let stranger = adit_tests::programs::Setup::new(programs)?;
    let theirs = fs::read_to_string(stranger.profile(ALICE, &["staff"])?)?;
    let (ours, mut unknown): (toml::Table, toml::Table) = (good.parse()?, theirs.parse()?);
    unknown.insert("ca".to_owned(), ours["ca"].clone());
    fs::write(&profile, unknown.to_string())?;
    until(Duration::from_secs(10), || {
        let status = alice.status()?;
        let error = status["renewal_error"].as_str().unwrap_or_default();
        let tried = error.contains("authority is not trusted");
        Ok((tried && status["renewed_certificate"].is_object()).then_some(()))
    })
    .with_context(|| format!("{:?}", alice.status()))?;
    ensure!(serial(&alice.status()?)? == before);
    let steady = steady.stop()?;
    note(&format!("meanwhile: {}", steady.summary()));
    ensure!(
        steady.lost.is_empty() && steady.received > 100,
        "lost {:?}",
        steady.lost
    );
    Ok(())
}

/// Many clients at once, a few for each second of the calendar: the time of each is that from the end of its
/// certificate's last second but one, when webpki's own calendar says so, to the line in the audit log.
pub(crate) fn a_hundred_sessions_end_with_their_certificates(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let names: Vec<String> = (0..MANY).map(|n| format!("late{n}@example.com")).collect();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)?
        .as_secs()
        .cast_signed();
    let end = |number: usize| now + CONNECTING + i64::try_from(number / AT_ONCE).unwrap_or(0);
    let until_end: Vec<(&str, i64)> = names
        .iter()
        .enumerate()
        .map(|(number, name)| (name.as_str(), end(number)))
        .collect();
    let issued = bed.setup.issue_until(&until_end, &["staff"])?;
    let roster = Roster::of(&bed.setup, issued)?;
    let gateway = SocketAddr::new(internet::GATEWAY_V4, PORT);
    let swarm = Swarm::start(bed.internet.laptop(), &roster, MANY, gateway, 10)?;
    swarm.wait(Duration::from_secs(CONNECTING.unsigned_abs()))?;
    let ended = until(Duration::from_secs(60), || {
        let audit = audit(&bed)?;
        let ended = audit
            .into_iter()
            .filter(|line| line["event"] == "disconnect");
        let ended: Vec<Value> = ended.collect();
        Ok((ended.len() == MANY).then_some(ended))
    })?;
    let outcome = swarm.stop()?;
    ensure!(outcome.stopped.len() == MANY, "{outcome:?}");
    let expired = |kind: &RefusalKind| *kind == RefusalKind::SessionExpired;
    ensure!(outcome.stopped.iter().all(expired), "{outcome:?}");
    let mut took = Vec::new();
    for line in &ended {
        ensure!(
            line["reason"] == "the session ended with its certificate",
            "{line}"
        );
        let number = names
            .iter()
            .position(|name| line["principal"] == name.as_str());
        let end = end(number.context("a stranger")?);
        took.push(milliseconds(line)? - end * 1000);
    }
    ensure!(took.iter().all(|&took| took >= 0), "too early: {took:?}");
    told_of("from the certificate's end to the session's", took)
}

const ROUNDS: usize = 5;
const MANY: usize = 100;
/// Clients whose certificates end in the same second.
const AT_ONCE: usize = 10;
/// Seconds in which everybody has connected, also with debug builds on a busy machine.
const CONNECTING: i64 = 30;
