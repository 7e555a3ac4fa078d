//! Another configuration for a gateway that carries packets.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_tests::lab::{Layout, Namespace, Snapshot, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Client, POLICY, Programs, Setup, table};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, failed, masquerading, note, reachable, steadily};

/// One more line lets alice reach payroll.
const WIDER: &str =
    "\n[[allow]]\nwho = [\"alice@example.com\"]\nto = [\"10.66.0.0/24\", \"fd00:66::/64\"]\n";

fn with_two_laptops(programs: &Programs) -> Result<Bed> {
    let layout = Layout {
        laptops: 2,
        ..Layout::default()
    };
    Bed::new(programs, layout)
}

fn bob(bed: &Bed) -> Result<Client> {
    let profile = bed.setup.profile("bob@example.com", &["staff"])?;
    bed.setup.connect(&bed.internet.laptops[1], &profile)
}

/// A reload that must succeed, and what it printed.
fn reloaded(bed: &Bed, options: &[&str]) -> Result<String> {
    let outcome = bed.gateway.reload(options)?;
    ensure!(outcome.code == Some(0), "reload: {}", outcome.stderr);
    Ok(outcome.stdout)
}

fn unreachable(from: &Namespace, to: IpAddr) -> Result<()> {
    let answers = Ping::to(to)
        .patience(Duration::from_millis(300))
        .run(from)?;
    ensure!(answers.received == 0, "{to}: {}", answers.summary());
    Ok(())
}

pub(crate) fn a_grant_and_a_withdrawal(programs: &Programs) -> Result<()> {
    let bed = with_two_laptops(programs)?;
    let _alice = bed.alice(0)?;
    let bob = bob(&bed)?;
    let laptop = bed.internet.laptop();
    let steady = steadily(internet::OFFICE_V4, bob.namespace())?;
    unreachable(laptop, internet::PAYROLL_V4)?;
    for round in 0..3 {
        bed.setup.policy(&format!("{POLICY}{WIDER}"))?;
        let start = Instant::now();
        let said = reloaded(&bed, &[])?;
        ensure!(said.contains("reaches           10.66.0.0/24"), "{said}");
        for to in [internet::PAYROLL_V4, internet::PAYROLL_V6] {
            reachable(laptop, to, Duration::from_secs(1))?;
        }
        let granted = start.elapsed();
        let used = steadily(internet::PAYROLL_V4, laptop)?;
        reachable(laptop, internet::PAYROLL_V4, Duration::from_secs(1))?;
        bed.setup.policy(POLICY)?;
        let start = Instant::now();
        reloaded(&bed, &[])?;
        let withdrawn = start.elapsed();
        for to in [internet::PAYROLL_V4, internet::PAYROLL_V6] {
            unreachable(laptop, to)?;
        }
        let used = used.stop()?;
        ensure!(used.received > 0 && !used.lost.is_empty());
        note(&format!(
            "round {round}: granted and reached after {granted:.0?}, withdrawn after {withdrawn:.0?}"
        ));
        ensure!(withdrawn < Duration::from_secs(1), "took {withdrawn:?}");
    }
    let steady = steady.stop()?;
    note(&format!("bob meanwhile: {}", steady.summary()));
    ensure!(steady.lost.is_empty(), "bob lost {:?}", steady.lost);
    ensure!(steady.received > 100);
    Ok(())
}

pub(crate) fn a_wrong_file_changes_nothing(programs: &Programs) -> Result<()> {
    let bed = with_two_laptops(programs)?;
    let _alice = bed.alice(0)?;
    let laptop = bed.internet.laptop();
    let host = Snapshot::of(&bed.internet.gateway)?;
    let steady = steadily(internet::OFFICE_V4, laptop)?;
    let good = fs::read_to_string(bed.setup.server_toml())?;
    let (policy, server) = (
        bed.setup.gateway_directory().join("policy.toml"),
        bed.setup.server_toml(),
    );
    let refused = |words: &[&str]| -> Result<()> {
        for options in [&[][..], &["--dry-run"]] {
            failed(&bed.gateway.reload(options)?, 2, words)?;
        }
        Ok(())
    };
    fs::write(
        &policy,
        "[[allow]]\nwho = [\"*\"]\nto = [\"10.66.0.0/33\"]\n",
    )?;
    refused(&["policy.toml:3"])?;
    fs::write(&policy, format!("{POLICY}{WIDER}"))?;
    for (from, to, words) in [
        (
            "[::]:443",
            "[::]:444",
            "needs a restart: listen is [::]:443",
        ),
        ("gateway.pem", "missing.pem", "missing.pem"),
        ("ca/ca.pem", "policy.toml", "policy.toml"),
    ] {
        ensure!(good.contains(from), "{from} is not in {good}");
        fs::write(&server, good.replace(from, to))?;
        refused(&[words])?;
    }
    // A host that refuses: another interface has the route.
    fs::write(&server, &good)?;
    let site = format!(
        "{POLICY}\n[[site]]\nprincipal = \"x.example.com\"\nnetworks = [\"10.66.0.0/24\"]\n"
    );
    fs::write(&policy, site)?;
    failed(&bed.gateway.reload(&[])?, 3, &["10.66.0.0/24"])?;

    // What runs is what ran before, for those who are here and for those who come.
    unreachable(laptop, internet::PAYROLL_V4)?;
    let bob = bob(&bed)?;
    Ping::to(internet::OFFICE_V4).expect_all(bob.namespace())?;
    crate::bed::unchanged(&host, &bed.internet.gateway)?;
    let steady = steady.stop()?;
    ensure!(steady.lost.is_empty(), "alice lost {:?}", steady.lost);
    fs::write(&policy, POLICY)?;
    let said = reloaded(&bed, &[])?;
    ensure!(said.contains("2 sessions stay as they are"), "{said}");
    Ok(())
}

pub(crate) fn sighup_reads_everything_again(programs: &Programs) -> Result<()> {
    let mut bed = Bed::new(programs, Layout::default())?;
    let _alice = bed.alice(0)?;
    let told = |bed: &mut Bed, words: &str| {
        let process = bed.gateway.process();
        process.hang_up()?;
        until(Duration::from_secs(5), || {
            Ok(process.stderr().contains(words).then_some(()))
        })
        .with_context(|| format!("no {words:?} in\n{}", process.stderr()))
    };
    bed.setup
        .policy("[[allow]]\nwho = [\"*\"]\nto = [\"x\"]\n")?;
    told(&mut bed, "not reloaded, nothing has changed")?;
    let words = bed.gateway.process().stderr();
    ensure!(words.contains("policy.toml:3"), "{words}");
    Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;
    bed.setup.policy(&format!("{POLICY}{WIDER}"))?;
    told(&mut bed, "0 sessions end, 1 session changes")?;
    let second = Duration::from_secs(1);
    reachable(bed.internet.laptop(), internet::PAYROLL_V4, second)
}

pub(crate) fn the_certificate_is_replaced(programs: &Programs) -> Result<()> {
    let bed = with_two_laptops(programs)?;
    let _alice = bed.alice(0)?;
    let steady = steadily(internet::OFFICE_V4, bed.internet.laptop())?;
    bed.setup.replace_certificate("other.example.com")?;
    let said = reloaded(&bed, &[])?;
    ensure!(said.contains("1 session stays as it is"), "{said}");
    let profile = bed.setup.profile("bob@example.com", &["staff"])?;
    let mut old = bed.setup.client(&bed.internet.laptops[1], &profile)?;
    old.start()?;
    failed(&old.end()?, 1, &["another name"])?;
    bed.setup.edit_profile(&profile, |profile| {
        profile.insert("server_name".to_owned(), "other.example.com".into());
    })?;
    let bob = bed.setup.connect(&bed.internet.laptops[1], &profile)?;
    Ping::to(internet::OFFICE_V4).expect_all(bob.namespace())?;
    let steady = steady.stop()?;
    ensure!(steady.lost.is_empty(), "alice lost {:?}", steady.lost);
    Ok(())
}

pub(crate) fn an_authority_is_removed(programs: &Programs) -> Result<()> {
    let partner = Setup::new(programs)?;
    let certificates = partner.authority().join("ca.pem").display().to_string();
    let list = partner.authority().join("crl.pem").display().to_string();
    let layout = Layout {
        laptops: 2,
        ..Layout::default()
    };
    let bed = Bed::with(programs, layout, |setup| {
        setup.configure(|server| {
            let authorities = server["authority"].as_array_mut();
            let authorities = authorities.expect("init writes one authority");
            let mut second = authorities[0].clone();
            let entry = second.as_table_mut().expect("an authority is a table");
            entry.insert("name".to_owned(), "partner".into());
            entry.insert("certificates".to_owned(), certificates.into());
            entry.insert("crls".to_owned(), vec![toml::Value::from(list)].into());
            authorities.push(second);
        })
    })?;
    let _alice = bed.alice(0)?;
    let own: toml::Table =
        fs::read_to_string(bed.setup.profile("x@example.com", &["staff"])?)?.parse()?;
    let profile = partner.profile("bob@example.com", &["staff"])?;
    partner.edit_profile(&profile, |profile| {
        profile.insert("ca".to_owned(), own["ca"].clone());
    })?;
    let mut bob = bed.setup.connect(&bed.internet.laptops[1], &profile)?;
    let steady = steadily(internet::OFFICE_V4, bed.internet.laptop())?;
    bed.setup.configure(|server| {
        let authorities = server["authority"].as_array_mut();
        authorities.expect("there are two").pop();
    })?;
    let start = Instant::now();
    let said = reloaded(&bed, &[])?;
    ensure!(
        said.contains("bob@example.com ends: the certificate's authority is not trusted"),
        "{said}"
    );
    until(Duration::from_secs(1), || {
        Ok((bed.gateway.principals()? == ["alice@example.com"]).then_some(()))
    })?;
    failed(&bob.end()?, 1, &["authority is not trusted"])?;
    note(&format!(
        "the client has ended {:.0?} after the reload began",
        start.elapsed()
    ));
    let steady = steady.stop()?;
    ensure!(steady.lost.is_empty(), "alice lost {:?}", steady.lost);
    Ok(())
}

pub(crate) fn addresses_move_and_the_host_follows(programs: &Programs) -> Result<()> {
    let bed = Bed::with(programs, Layout::default(), masquerading)?;
    let alice = bed.alice(0)?;
    let laptop = bed.internet.laptop();
    let before = alice.address(true)?;
    let moved = |inside: &str, pool: &str| -> Result<()> {
        bed.setup.configure(|server| {
            let addresses = vec![inside.into(), "fd00:ad17::1/64".into()];
            table(server, "inside").insert("addresses".to_owned(), toml::Value::Array(addresses));
        })?;
        bed.setup.policy(&POLICY.replace("10.99.0.0/24", pool))?;
        let said = reloaded(&bed, &[])?;
        note(said.lines().next().unwrap_or_default());
        for to in [internet::OFFICE_V4, internet::OFFICE_V6] {
            reachable(laptop, to, Duration::from_secs(2))?;
        }
        // By the address it has now, into the tunnel and out of it.
        let own = until(Duration::from_secs(2), || {
            let own = alice.address(true)?;
            let pool: ipnet::IpNet = pool.parse()?;
            Ok(pool.contains(&own).then_some(own))
        })?;
        Ping::to(own).expect_all(&bed.internet.office)?;
        Ok(())
    };
    // A neighbour in the same subnet, another subnet, a pool beside the gateway's own network, and back.
    moved("10.99.0.2/24", "10.99.0.0/24")?;
    ensure!(alice.address(true)? == before, "it had no reason to move");
    moved("10.97.0.1/24", "10.97.0.0/24")?;
    moved("10.97.0.1/24", "10.96.0.0/24")?;
    moved("10.99.0.1/24", "10.99.0.0/24")?;
    let routes = format!("{:?}", Snapshot::of(&bed.internet.gateway)?);
    ensure!(
        !routes.contains("10.96.") && !routes.contains("10.97."),
        "{routes}"
    );
    Ok(())
}

pub(crate) fn a_dry_run_changes_nothing(programs: &Programs) -> Result<()> {
    let bed = with_two_laptops(programs)?;
    let _alice = bed.alice(0)?;
    let _bob = bob(&bed)?;
    let status = || -> Result<Vec<Value>> {
        let sessions = bed.gateway.status()?["sessions"].as_array().cloned();
        let sessions = sessions.context("no sessions")?;
        Ok(sessions
            .iter()
            .map(|session| session["addresses"].clone())
            .collect())
    };
    let before = status()?;
    let policy = "[pool]\nv4 = \"10.98.0.0/24\"\nv6 = \"fd00:ad17::/64\"\n\
         [[allow]]\nwho = [\"alice@example.com\"]\nto = [\"10.0.0.0/17\", \"fd00:1::/64\", \"10.66.0.0/24\"]\n\
         [[allow]]\nwho = [\"group:nobody\"]\nto = [\"10.0.0.0/8\"]\n";
    bed.setup.policy(policy)?;
    let said = reloaded(&bed, &["--dry-run"])?;
    for words in [
        "dry run, nothing has changed: 1 session ends, 1 session changes, 0 sessions stay as they are",
        "bob@example.com ends: the policy no longer gives this identity access",
        "alice@example.com changes",
        "gives back        10.99.0.",
        "gets              10.98.0.",
        "reaches           10.66.0.0/24 (256 IPv4 addresses)",
        "no longer reaches 10.0.128.0/17 (32768 IPv4 addresses)",
    ] {
        ensure!(said.contains(words), "no {words:?} in\n{said}");
    }
    let json: Value = serde_json::from_str(&reloaded(&bed, &["--dry-run", "--json"])?)?;
    ensure!(json["dry_run"] == true, "{json}");
    ensure!(
        json["sessions"]["ended"][0]["principal"] == "bob@example.com",
        "{json}"
    );
    ensure!(
        json["sessions"]["changed"][0]["lost"]["v4"] == 32768,
        "{json}"
    );
    ensure!(status()? == before, "a dry run moved somebody");
    for number in 0..2 {
        Ping::to(internet::OFFICE_V4).expect_all(&bed.internet.laptops[number])?;
    }
    // The truth: the same in the other tense.
    let said = reloaded(&bed, &["--dry-run"])?;
    ensure!(said.contains(" flows end"), "{said}");
    let done = reloaded(&bed, &[])?;
    let facts = |text: &str| text.split_once(": ").map(|(_, facts)| facts.to_owned());
    ensure!(
        facts(&done).is_some() && facts(&done) == facts(&said),
        "{done}\n{said}"
    );
    Ok(())
}
