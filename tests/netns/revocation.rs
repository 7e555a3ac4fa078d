//! A lost laptop, with the real programs: out by one command, and nobody else notices.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_core::close::RefusalKind;
use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{PORT, Programs, Setup};
use adit_tests::swarm::{Roster, Swarm};
use anyhow::{Context, Result, ensure};
use toml::Value;

use crate::bed::{Bed, audit, failed, milliseconds, note, steadily};

const ALICE: &str = "alice@example.com";

fn bed(programs: &Programs) -> Result<Bed> {
    let layout = Layout {
        laptops: 2,
        ..Layout::default()
    };
    Bed::new(programs, layout)
}

/// How the gateway hears of the new list.
#[derive(Clone, Copy, Debug)]
enum Told {
    Signal,
    Reload,
    Nobody,
}

pub(crate) fn a_revoked_certificate_is_out(programs: &Programs) -> Result<()> {
    let mut bed = bed(programs)?;
    let profile = bed.setup.profile("bob@example.com", &["staff"])?;
    let bob = bed.setup.connect(&bed.internet.laptops[1], &profile)?;
    let steady = steadily(internet::OFFICE_V4, bob.namespace())?;
    let (mut slowest, mut total) = (Duration::ZERO, Duration::ZERO);
    let ways = [Told::Signal, Told::Reload].into_iter();
    for told in ways.chain([Told::Nobody; ROUNDS]) {
        let profile = bed.setup.profile(ALICE, &["staff"])?;
        let alice = bed.setup.connect(bed.internet.laptop(), &profile)?;
        Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;
        let start = Instant::now();
        bed.setup
            .ca(&["revoke", ALICE, "--reason", "keyCompromise"])?;
        match told {
            Told::Signal => bed.gateway.process().hang_up()?,
            Told::Reload => drop(bed.gateway.reload(&[])?),
            Told::Nobody => {}
        }
        until(Duration::from_secs(5), || {
            let here = bed.gateway.principals()?;
            Ok((here == ["bob@example.com"]).then_some(()))
        })?;
        let took = start.elapsed();
        let mut alice = alice;
        failed(&alice.end()?, 1, &["the certificate was revoked"])?;
        note(&format!(
            "{told:?}: the session is over {took:.0?} after `adit-ca revoke` began, the client {:.0?}",
            start.elapsed()
        ));
        ensure!(took < Duration::from_secs(1), "took {took:?}");
        slowest = slowest.max(took);
        total += took;
        // It has the file still, and that is worth nothing.
        let mut again = bed.setup.client(bed.internet.laptop(), &profile)?;
        again.start()?;
        failed(&again.end()?, 1, &["the certificate was revoked"])?;
    }
    let rounds = u32::try_from(ROUNDS + 2)?;
    note(&format!(
        "mean {:.0?}, slowest {slowest:.0?}",
        total / rounds
    ));
    let steady = steady.stop()?;
    note(&format!("bob meanwhile: {}", steady.summary()));
    ensure!(steady.lost.is_empty(), "bob lost {:?}", steady.lost);
    ensure!(steady.received > 100);

    let audit = audit(&bed)?;
    let of = |event: &str, key: &str, value: &str| {
        let found = audit.iter();
        let found = found.filter(|line| line["event"] == event && line[key] == value);
        found.count()
    };
    let reason = "the certificate was revoked";
    ensure!(
        of("disconnect", "reason", reason) == ROUNDS + 2,
        "{audit:?}"
    );
    ensure!(of("refuse", "kind", "certificate-revoked") >= ROUNDS + 2);
    ensure!(of("reload", "by", "revocation-list") >= ROUNDS, "{audit:?}");
    // One for each list that was seen, and the last says how many are revoked.
    let mut lists = audit.iter().filter(|line| line["event"] == "revoke");
    let last = lists.next_back().context("no list is written down")?;
    ensure!(last["certificates"] == ROUNDS + 2, "{last}");
    Ok(())
}

pub(crate) fn a_wrong_list_changes_nothing(programs: &Programs) -> Result<()> {
    let mut bed = bed(programs)?;
    let lost = bed.setup.profile("lost@example.com", &["staff"])?;
    let _alice = bed.alice(0)?;
    let steady = steadily(internet::OFFICE_V4, bed.internet.laptop())?;
    let path = bed.setup.authority().join("crl.pem");
    let before = fs::read(&path)?;
    bed.setup.ca(&["revoke", "lost@example.com"])?;
    let told = |bed: &mut Bed, words: &str| {
        let process = bed.gateway.process();
        until(Duration::from_secs(5), || {
            Ok(process.stderr().contains(words).then_some(()))
        })
        .with_context(|| format!("no {words:?} in\n{}", process.stderr()))
    };
    told(&mut bed, "revocation list 2 of")?;
    let good = fs::read(&path)?;
    let namesake = Setup::new(programs)?;
    let foreign = fs::read(namesake.authority().join("crl.pem"))?;
    let cut = good[..good.len() / 2].to_vec();
    for (wrong, words) in [
        (&before, "is older than list 2, which has counted here"),
        (&foreign, "is not of this authority"),
        (&cut, "no revocation list (X509 CRL) found"),
    ] {
        fs::write(&path, wrong)?;
        told(&mut bed, words)?;
        for options in [&[][..], &["--dry-run"]] {
            failed(&bed.gateway.reload(options)?, 2, &[words])?;
        }
        // The list that counted counts.
        let mut client = bed.setup.client(&bed.internet.laptops[1], &lost)?;
        client.start()?;
        failed(&client.end()?, 1, &["the certificate was revoked"])?;
    }
    fs::remove_file(&path)?;
    failed(&bed.gateway.reload(&[])?, 2, &["crl.pem"])?;
    fs::write(&path, &good)?;
    let outcome = bed.gateway.reload(&[])?;
    ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    let steady = steady.stop()?;
    ensure!(steady.lost.is_empty(), "alice lost {:?}", steady.lost);

    // A restart knows better than the file, too.
    fs::write(&path, &before)?;
    bed.gateway.stop()?;
    let refused = bed.setup.start_gateway(&bed.internet.gateway);
    let words = format!(
        "{:#}",
        refused.err().context("it started with an old list")?
    );
    for part in [
        "is older than list 2",
        "adit-ca crl",
        "revocation-lists.json",
    ] {
        ensure!(words.contains(part), "no {part:?} in {words}");
    }
    bed.setup.ca(&["crl"])?;
    bed.gateway = bed.setup.start_gateway(&bed.internet.gateway)?;
    Ok(())
}

pub(crate) fn a_revoked_key_is_out(programs: &Programs) -> Result<()> {
    let bed = bed(programs)?;
    let profile = bed.setup.profile(ALICE, &["staff"])?;
    let mut alice = bed.setup.connect(bed.internet.laptop(), &profile)?;
    let profile = bed.setup.profile("bob@example.com", &["staff"])?;
    let bob = bed.setup.connect(&bed.internet.laptops[1], &profile)?;
    let shown = bed.setup.ca(&["show", ALICE])?;
    let hash = shown
        .lines()
        .find_map(|line| line.strip_prefix("key sha256"))
        .context(shown.clone())?;
    bed.setup.configure(|config| {
        let authorities = config.get_mut("authority").and_then(Value::as_array_mut);
        let first = authorities.and_then(|authorities| authorities[0].as_table_mut());
        if let Some(first) = first {
            let keys = vec![Value::String(hash.trim().to_owned())];
            first.insert("revoked_keys".to_owned(), Value::Array(keys));
        }
    })?;
    let outcome = bed.gateway.reload(&["--dry-run"])?;
    ensure!(
        outcome.stdout.contains("the certificate was revoked"),
        "{}",
        outcome.stdout
    );
    bed.gateway.reload(&[])?;
    failed(&alice.end()?, 1, &["the certificate was revoked"])?;
    Ping::to(internet::OFFICE_V4).expect_all(bob.namespace())?;
    ensure!(bed.gateway.principals()? == ["bob@example.com"]);
    Ok(())
}

/// Many clients at once, none of them told apart by the gateway: the time of each is that from the moment `adit-ca
/// revoke` is called to the line in the audit log.
pub(crate) fn a_hundred_revocations(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let names: Vec<String> = (0..MANY).map(|n| format!("lost{n}@example.com")).collect();
    let year = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 365 * 86_400;
    let until_year: Vec<(&str, i64)> = names
        .iter()
        .map(|name| (name.as_str(), year.cast_signed()))
        .collect();
    let issued = bed.setup.issue_until(&until_year, &["staff"])?;
    let roster = Roster::of(&bed.setup, issued)?;
    let gateway = SocketAddr::new(internet::GATEWAY_V4, PORT);
    let swarm = Swarm::start(bed.internet.laptop(), &roster, MANY, gateway, 10)?;
    swarm.wait(Duration::from_secs(60))?;
    let mut called = BTreeMap::new();
    for name in &names {
        called.insert(name.clone(), SystemTime::now().duration_since(UNIX_EPOCH)?);
        bed.setup.ca(&["revoke", name])?;
    }
    let ended = until(Duration::from_secs(20), || {
        let audit = audit(&bed)?;
        let ended = audit.iter().filter(|line| line["event"] == "disconnect");
        let ended: Vec<(String, i64)> = ended
            .map(|line| {
                ensure!(line["reason"] == "the certificate was revoked", "{line}");
                let principal = line["principal"].as_str().context("no principal")?;
                Ok((principal.to_owned(), milliseconds(line)?))
            })
            .collect::<Result<_>>()?;
        Ok((ended.len() == MANY).then_some(ended))
    })?;
    let mut took = Vec::new();
    for (principal, at) in ended {
        let called = called.get(&principal).context("a stranger")?;
        took.push(at - i64::try_from(called.as_millis())?);
    }
    let outcome = swarm.stop()?;
    ensure!(outcome.stopped.len() == MANY, "{outcome:?}");
    let revoked = |kind: &RefusalKind| *kind == RefusalKind::CertificateRevoked;
    ensure!(outcome.stopped.iter().all(revoked), "{outcome:?}");
    told_of("from `adit-ca revoke` to the session's end", took)
}

/// Tells what a hundred runs took, in milliseconds, and fails unless the slowest was below a second.
pub(crate) fn told_of(what: &str, mut took: Vec<i64>) -> Result<()> {
    took.sort_unstable();
    let (count, slowest) = (took.len(), took.last().copied().context("no run")?);
    let (median, mean) = (
        took[count / 2],
        took.iter().sum::<i64>() / i64::try_from(count)?,
    );
    note(&format!(
        "{what}, {count} runs: fastest {} ms, median {median} ms, mean {mean} ms, slowest {slowest} ms",
        took[0]
    ));
    ensure!(count >= 100, "only {count} runs");
    ensure!(slowest < 1000, "{took:?}");
    Ok(())
}

/// Clients whose certificate is taken back.
const MANY: usize = 100;
/// Runs without anybody telling the gateway; each is a client's whole life.
const ROUNDS: usize = 10;
