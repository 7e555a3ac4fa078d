//! What the gateway writes down: the audit log and the accounts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{POLICY, Programs};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, note};

/// The events of an audit log in their order.
fn lines(path: &std::path::Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

fn event(lines: &[Value], name: &str) -> Result<Value> {
    let found = lines.iter().find(|line| line["event"] == name);
    found
        .cloned()
        .with_context(|| format!("no {name} in {lines:?}"))
}

pub(crate) fn the_audit_log(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let log = bed.setup.path("state").join("audit.jsonl");
    let alice = bed.alice(0)?;
    let address = alice.address(true)?;
    Ping::to(internet::OFFICE_V4)
        .count(5)
        .expect_all(bed.internet.laptop())?;
    alice.down()?;
    let stranger = bed.setup.profile("stranger@example.com", &[])?;
    let mut stranger = bed.setup.client(bed.internet.laptop(), &stranger)?;
    stranger.start()?;
    stranger.end()?;
    bed.setup.policy("nonsense")?;
    bed.gateway.reload(&[])?;
    let first = until(Duration::from_secs(5), || {
        let lines = lines(&log)?;
        Ok(lines
            .iter()
            .any(|line| line["event"] == "disconnect")
            .then_some(lines))
    })?;
    let mode = fs::metadata(&log)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "the mode is {mode:o}");
    for line in &first {
        let time = line["time"].as_str().unwrap_or_default();
        ensure!(
            time.len() == 24 && time.starts_with("20") && time.ends_with('Z'),
            "{line}"
        );
    }
    ensure!(first[0]["event"] == "start", "{first:?}");
    let connect = event(&first, "connect")?;
    ensure!(connect["principal"] == "alice@example.com" && connect["authority"] == "adit");
    ensure!(
        connect["groups"][0] == "staff" && connect["remote"].is_string(),
        "{connect}"
    );
    ensure!(
        connect["serial"]
            .as_str()
            .is_some_and(|serial| !serial.is_empty())
    );
    let addresses = connect["addresses"].to_string();
    ensure!(addresses.contains(&address.to_string()), "{connect}");
    let lease = event(&first, "lease")?;
    ensure!(lease["addresses"][0] == address.to_string(), "{lease}");
    let disconnect = event(&first, "disconnect")?;
    let traffic = &disconnect["traffic"];
    ensure!(disconnect["session"] == connect["session"], "{disconnect}");
    ensure!(traffic["sent_packets"].as_u64() >= Some(5), "{disconnect}");
    ensure!(traffic["received_bytes"].as_u64() > Some(0), "{disconnect}");
    ensure!(disconnect["seconds"].is_u64() && disconnect["reason"].is_string());
    let refuse = event(&first, "refuse")?;
    ensure!(refuse["kind"] == "no-access", "{refuse}");
    ensure!(refuse["principal"] == "stranger@example.com", "{refuse}");
    let reload = event(&first, "reload")?;
    let error = reload["error"].as_str().unwrap_or_default();
    ensure!(
        error.contains("policy.toml:1") && reload["by"] == "admin",
        "{reload}"
    );

    // Moved away to be archived: the next lines are in a new file.
    let old = log.with_extension("1");
    fs::rename(&log, &old)?;
    bed.setup.policy(POLICY)?;
    let outcome = bed.gateway.reload(&[])?;
    ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    let second = lines(&log)?;
    ensure!(
        second.len() == 1 && second[0]["event"] == "reload",
        "{second:?}"
    );
    ensure!(second[0]["error"].is_null() && second[0]["sessions"]["unchanged"] == 0);
    bed.gateway.stop()?;
    ensure!(
        lines(&log)?
            .last()
            .is_some_and(|line| line["event"] == "stop")
    );
    let both = fs::read_to_string(&old)? + &fs::read_to_string(&log)?;
    ensure!(!both.contains("PRIVATE"), "a secret");
    note(&format!("{} lines", both.lines().count()));
    Ok(())
}

pub(crate) fn the_accounts(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let Bed {
        mut gateway,
        setup,
        internet,
    } = bed;
    let usage = |gateway: &adit_tests::programs::Gateway| -> Result<Value> {
        let outcome = gateway.usage(&["--json"])?;
        ensure!(outcome.code == Some(0), "{}", outcome.stderr);
        let usage: Value = serde_json::from_str(&outcome.stdout)?;
        Ok(usage["accounts"]["alice@example.com"].clone())
    };
    let bytes = |account: &Value| account["traffic"]["sent_bytes"].as_u64().unwrap_or(0);
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let mut before = 0;
    for session in 1..=3 {
        let alice = setup.connect(internet.laptop(), &profile)?;
        let ping = Ping::to(internet::OFFICE_V4).count(10).packet_length(1000);
        ping.expect_all(internet.laptop())?;
        // Of a session that is open.
        let account = usage(&gateway)?;
        ensure!(account["sessions"] == session, "{account}");
        ensure!(bytes(&account) >= before + 10_000, "{before}: {account}");
        let open = bytes(&account);
        let left = if session == 1 {
            alice.down()?;
            until(Duration::from_secs(5), || {
                Ok(gateway.principals()?.is_empty().then_some(()))
            })?;
            None
        } else {
            Some(alice)
        };
        // Over an orderly restart, from the second round on with the session still open.
        gateway.stop()?;
        drop(left);
        gateway = setup.start_gateway(&internet.gateway)?;
        let account = usage(&gateway)?;
        ensure!(bytes(&account) >= open, "{open}: {account}");
        ensure!(
            account["last_remote"]
                .as_str()
                .is_some_and(|remote| remote.contains("100.64."))
        );
        before = bytes(&account);
    }
    let text = gateway.usage(&[])?.stdout;
    ensure!(
        text.contains("alice@example.com") && text.contains("KiB"),
        "{text}"
    );
    note(text.lines().nth(1).unwrap_or_default());
    Ok(())
}
