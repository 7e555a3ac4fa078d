//! What nearly every test begins with: an internet, a gateway that runs, somebody connected.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use adit_tests::lab::process::Outcome;
use adit_tests::lab::{Internet, Layout, Namespace, Snapshot, until};
use adit_tests::probe::ping::{Ping, Running};
use adit_tests::programs::{Client, Gateway, Programs, Setup, table};
use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

/// A running gateway and all around it.
pub(crate) struct Bed {
    // Dropped in this order: programs before the files and namespaces they use.
    pub(crate) gateway: Gateway,
    pub(crate) setup: Setup,
    pub(crate) internet: Internet,
}

impl Bed {
    /// With the default policy.
    pub(crate) fn new(programs: &Programs, layout: Layout) -> Result<Self> {
        Self::with(programs, layout, |_| Ok(()))
    }

    /// With changes made before the gateway starts.
    pub(crate) fn with(
        programs: &Programs,
        layout: Layout,
        change: impl FnOnce(&Setup) -> Result<()>,
    ) -> Result<Self> {
        let internet = Internet::new(layout)?;
        let setup = Setup::new(programs)?;
        change(&setup)?;
        let gateway = setup.start_gateway(&internet.gateway)?;
        Ok(Self {
            gateway,
            setup,
            internet,
        })
    }

    /// Alice of staff, connected from laptop `number`.
    pub(crate) fn alice(&self, number: usize) -> Result<Client> {
        let profile = self.setup.profile("alice@example.com", &["staff"])?;
        self.setup.connect(&self.internet.laptops[number], &profile)
    }
}

/// The events of the gateway's audit log, in their order.
pub(crate) fn audit(bed: &Bed) -> Result<Vec<Value>> {
    let text = fs::read_to_string(bed.setup.path("state").join("audit.jsonl"))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// When an event was written down, in milliseconds since 1970.
pub(crate) fn milliseconds(event: &Value) -> Result<i64> {
    let time = event["time"].as_str().context("an event without a time")?;
    let moment: Timestamp = time.parse()?;
    Ok(moment.as_millisecond())
}

/// Fails unless the host is as it was; gives the kernel a moment to forget a device.
pub(crate) fn unchanged(before: &Snapshot, host: &Namespace) -> Result<()> {
    let mut difference = String::new();
    let same = until(Duration::from_secs(5), || {
        difference = before.difference(&Snapshot::of(host)?);
        Ok(difference.is_empty().then_some(()))
    });
    same.with_context(|| format!("{} is not as before:\n{difference}", host.name()))
}

/// An answer with this exit status and all of these words.
pub(crate) fn said(outcome: &Outcome, code: i32, words: &[&str]) -> Result<()> {
    let Outcome { stdout, stderr, .. } = outcome;
    ensure!(
        outcome.code == Some(code),
        "{:?}: {stdout}{stderr}",
        outcome.code
    );
    for word in words {
        ensure!(stdout.contains(word), "no {word:?} in\n{stdout}");
    }
    Ok(())
}

/// A program that had to fail: its exit status, one `error:` line, a `hint:`, and these words.
pub(crate) fn failed(outcome: &Outcome, code: i32, words: &[&str]) -> Result<()> {
    let stderr = &outcome.stderr;
    if outcome.code != Some(code) {
        bail!(
            "exit status {:?} instead of {code}:\n{stderr}",
            outcome.code
        );
    }
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    ensure!(errors.len() == 1, "not one sentence:\n{stderr}");
    ensure!(
        stderr.lines().any(|line| line.starts_with("hint: ")),
        "no hint:\n{stderr}"
    );
    ensure!(!stderr.contains("panicked"), "a panic:\n{stderr}");
    ensure!(!stderr.contains("PRIVATE KEY"), "a secret:\n{stderr}");
    for word in words {
        ensure!(
            stderr.to_lowercase().contains(&word.to_lowercase()),
            "`{word}` is not mentioned:\n{stderr}"
        );
    }
    note(errors[0]);
    Ok(())
}

/// Waits until `to` answers a ping from `from`.
pub(crate) fn reachable(from: &Namespace, to: IpAddr, patience: Duration) -> Result<()> {
    until(patience, || {
        let answers = Ping::to(to)
            .count(1)
            .patience(Duration::from_millis(300))
            .run(from)?;
        Ok((answers.received == 1).then_some(()))
    })
    .with_context(|| format!("{} does not reach {to}", from.name()))
}

/// A line in the test's log.
#[allow(clippy::print_stdout)]
pub(crate) fn note(line: &str) {
    println!("    {line}");
}

/// Lets the gateway masquerade.
pub(crate) fn masquerading(setup: &Setup) -> Result<()> {
    setup.configure(|server| {
        table(server, "inside").insert("masquerade".to_owned(), true.into());
    })
}

/// A ping that nothing may disturb: a hundred times a second until it is stopped.
pub(crate) fn steadily(to: IpAddr, from: &Namespace) -> Result<Running> {
    Ping::to(to).every(Duration::from_millis(10)).start(from)
}
