//! docs/authorities.md, done as it stands there: a gateway and its clients that know only what OpenSSL made.

use std::time::{Duration, Instant};

use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Client, Programs};
use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, audit, failed, note, steadily};
use crate::certificates::{connect, eventually, listed, one};
use crate::corporate::{Corporate, Step};
use crate::openssl::{ECDSA, RSA};
use crate::renewal::{moved, serial};

const ALICE: &str = "alice@corp.example";
const BOB: &str = "bob@corp.example";

pub(crate) fn with_ecdsa_keys(programs: &Programs) -> Result<()> {
    a_whole_life(programs, ECDSA)
}

pub(crate) fn with_rsa_keys(programs: &Programs) -> Result<()> {
    a_whole_life(programs, RSA)
}

fn a_whole_life(programs: &Programs, keys: &'static str) -> Result<()> {
    let layout = Layout {
        laptops: 3,
        ..Layout::default()
    };
    let mut company = None;
    let mut bed = Bed::with(programs, layout, |setup| {
        let made = Corporate::new(&setup.gateway_directory().join("company"), keys)?;
        made.step(Step::GatewayAndClient)?;
        made.step(Step::Lists)?;
        let section = Corporate::server()?;
        setup.configure(|server| {
            // Nothing is left of what `init` made.
            server.remove("enrolment");
            server.extend(section);
        })?;
        company = Some(made);
        setup.policy(POLICY)
    })?;
    let company = company.context("it was just made")?;
    company.issue("bob", "", BOB, 90)?;
    company.issue("carol", "", "carol@corp.example", 90)?;
    let profiles = ["alice", "bob", "carol"].map(|name| company.profile(&bed.setup, name));
    let [alice, bob, carol] = profiles;
    let (alice, bob) = (alice?, bob?);

    let mut first = connect(&bed, 0, &alice, "laptop-7")?;
    let mut second = connect(&bed, 1, &bob, "laptop-8")?;
    let mut nobody = bed.setup.client(&bed.internet.laptops[2], &carol?)?;
    nobody.start()?;
    failed(&nobody.end()?, 1, &["no access", "carol@corp.example"])?;
    Ping::to(internet::OFFICE_V4).expect_all(first.namespace())?;
    Ping::to(internet::OFFICE_V6).expect_all(first.namespace())?;
    Ping::to(internet::OFFICE_V4).expect_all(second.namespace())?;

    everybody_is_known(&bed)?;
    lists_of_every_level_count(&mut bed)?;
    let other = steadily(internet::OFFICE_V4, second.namespace())?;
    a_renewal_is_taken(&bed, &company, &mut first)?;
    company.step(Step::Revocation)?;
    is_out(&mut bed, &company, &mut first, ALICE)?;
    let row = eventually(&bed, ALICE, |row| row["revoked"].is_object())?;
    ensure!(row["revoked"]["reason"] == "keyCompromise", "{row:#}");
    let other = other.stop()?;
    note(&format!("bob meanwhile: {}", other.summary()));
    ensure!(other.lost.is_empty(), "bob lost {:?}", other.lost);

    // Nobody revoked Bob: who issued to him is revoked, by whom is above that.
    company.run("AUTHORITY=policy openssl ca -revoke issuing.pem")?;
    is_out(&mut bed, &company, &mut second, BOB)?;
    for (laptop, profile) in [(0, alice), (1, bob)] {
        let mut again = bed.setup.client(&bed.internet.laptops[laptop], &profile)?;
        again.start()?;
        failed(&again.end()?, 1, &["the certificate was revoked"])?;
    }
    bed.gateway.process().still_runs()
}

fn everybody_is_known(bed: &Bed) -> Result<()> {
    let rows = listed(bed, &[])?;
    for (name, device, source, groups, line) in [
        (
            ALICE,
            "laptop-7",
            "100.64.0.2",
            vec!["staff"],
            "policy.toml:6",
        ),
        (BOB, "laptop-8", "100.64.1.2", vec![], "policy.toml:10"),
    ] {
        let row = one(&rows, name, "company")?;
        for (key, value) in [
            ("issuer", "O=Example Corp, CN=Issuing"),
            ("state", "valid"),
            ("purpose", "client"),
            ("device", device),
            ("last_source", source),
        ] {
            ensure!(row[key] == value, "{key}: {row:#}");
        }
        ensure!(row["in_use"] == true && row["groups"] == serde_json::json!(groups));
        let access = row["access"][0]["place"].as_str().unwrap_or_default();
        ensure!(access.ends_with(line), "{row:#}");
        let end = row["expires"].as_str().context("no end")?;
        let end: jiff::Timestamp = end.parse()?;
        let days = end.duration_since(jiff::Timestamp::now()).as_hours() / 24;
        ensure!((0..=90).contains(&days), "{row:#}");
    }
    Ok(())
}

fn lists_of_every_level_count(bed: &mut Bed) -> Result<()> {
    let log = bed.gateway.process().stderr();
    for authority in ["Root", "Policy", "Issuing"] {
        let words = format!("revocation list 1 of O=Example Corp, CN={authority} revokes 0");
        ensure!(log.contains(&words), "no {words:?} in\n{log}");
    }
    Ok(())
}

/// The new certificate has the old key: one file changes in one step, and the session goes over to it.
fn a_renewal_is_taken(bed: &Bed, company: &Corporate, client: &mut Client) -> Result<()> {
    let steady = steadily(internet::OFFICE_V4, client.namespace())?;
    let before = serial(&client.status()?)?;
    company.step(Step::Renewal)?;
    let now = moved(client, &before)?;
    let steady = steady.stop()?;
    note(&format!("renewed meanwhile: {}", steady.summary()));
    ensure!(steady.lost.is_empty(), "lost {:?}", steady.lost);
    let events = audit(bed)?;
    let handover = events.iter().find(|line| line["event"] == "handover");
    let handover = handover.context("no handover")?;
    ensure!(
        handover["serial"] == now.as_str() && handover["serial_before"] == before.as_str(),
        "{handover}"
    );
    Ok(())
}

/// Publishes the lists of the page: this session is over at once, for that reason. (`revocation.rs` measures the second.)
fn is_out(bed: &mut Bed, company: &Corporate, client: &mut Client, name: &str) -> Result<()> {
    company.step(Step::Lists)?;
    let start = Instant::now();
    until(Duration::from_secs(5), || {
        let here = bed.gateway.principals()?;
        Ok((!here.iter().any(|here| here == name)).then_some(()))
    })?;
    let took = start.elapsed();
    failed(&client.end()?, 1, &["the certificate was revoked"])?;
    note(&format!(
        "{name} is out {took:.0?} after the list was there"
    ));
    let events = audit(bed)?;
    let end = events.iter().rfind(|line| line["event"] == "disconnect");
    let end = end.context("no end in the audit log")?;
    ensure!(
        end["principal"] == name && end["reason"] == "the certificate was revoked",
        "{end}"
    );
    Ok(())
}

/// One by a group that stands in the certificate, one by name.
const POLICY: &str = r#"
[pool]
v4 = "10.99.0.0/24"
v6 = "fd00:ad17::/64"

[[allow]]
who = ["group:staff"]
to = ["10.0.0.0/16", "fd00:1::/64"]

[[allow]]
who = ["bob@corp.example"]
to = ["10.0.0.0/16"]
"#;
