//! The session maximum with the real programs: who can moves before it, who cannot is closed at it.

use std::time::Duration;

use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{POLICY, Programs};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bed::{Bed, audit, failed, milliseconds, note, steadily};

/// Everybody's session has this long.
const MAXIMUM: i64 = 20;
const REASON: &str = "the session maximum was reached";

fn bed(programs: &Programs) -> Result<Bed> {
    Bed::with(programs, Layout::default(), |setup| {
        setup.policy(&format!(
            "{POLICY}\n[[session]]\nwho = [\"*\"]\nmaximum = \"{MAXIMUM}s\"\n"
        ))
    })
}

fn events(bed: &Bed, name: &str) -> Result<Vec<Value>> {
    let events = audit(bed)?.into_iter();
    Ok(events.filter(|line| line["event"] == name).collect())
}

pub(crate) fn a_session_moves_before_it(programs: &Programs) -> Result<()> {
    let mut bed = bed(programs)?;
    let mut alice = bed.alice(0)?;
    let before = alice.status()?;
    let pings = [internet::OFFICE_V4, internet::OFFICE_V6];
    Ping::to(internet::OFFICE_V6).expect_all(bed.internet.laptop())?;
    let pings = pings.map(|to| steadily(to, bed.internet.laptop()));
    let said = bed
        .gateway
        .explain(&["alice@example.com", "10.0.0.2", "tcp/443"])?;
    let maximum = format!("maximum       {MAXIMUM}s for a session");
    ensure!(said.stdout.contains(&maximum), "{}", said.stdout);
    ensure!(said.stdout.contains("\nends          "), "{}", said.stdout);
    let handovers = until(Duration::from_secs(90), || {
        let handovers = events(&bed, "handover")?;
        Ok((handovers.len() >= 3).then_some(handovers))
    })?;
    for ping in pings {
        let answers = ping?.stop()?;
        note(&answers.summary());
        ensure!(
            answers.lost.is_empty() && answers.unsent.is_empty() && answers.received > 1000,
            "lost {:?}, could not send {:?}",
            answers.lost,
            answers.unsent
        );
    }
    let times: Vec<i64> = handovers.iter().map(milliseconds).collect::<Result<_>>()?;
    for pair in times.windows(2) {
        let took = pair[1] - pair[0];
        // Not before half of it, and not later than it.
        ensure!((9_000..MAXIMUM * 1000).contains(&took), "{took} ms");
    }
    for handover in &handovers {
        ensure!(
            handover["serial"] == handover["serial_before"],
            "{handover}"
        );
    }
    ensure!(events(&bed, "connect")?.len() == 1 && events(&bed, "disconnect")?.is_empty());
    let after = alice.status()?;
    ensure!(after["addresses"] == before["addresses"], "{after}");
    ensure!(after["renewed_certificate"].is_null(), "{after}");
    let log = alice.process()?.stderr();
    ensure!(
        log.contains("the session goes on over a new connection"),
        "{log}"
    );
    alice.down()?;
    bed.gateway.process().still_runs()
}

pub(crate) fn who_cannot_move_is_closed_at_it(programs: &Programs) -> Result<()> {
    let bed = bed(programs)?;
    let mut alice = bed.alice(0)?;
    // From now on the gateway has a name that alice's profile does not expect: an open session does not ask.
    bed.setup.replace_certificate("other.example.com")?;
    let reloaded = bed.gateway.reload(&[])?;
    ensure!(
        reloaded.stdout.contains("1 session stays as it is"),
        "{}{}",
        reloaded.stdout,
        reloaded.stderr
    );
    let status = until(Duration::from_secs(30), || {
        let status = alice.status()?;
        let error = status["renewal_error"].as_str().unwrap_or_default();
        Ok(error.contains("another name").then_some(status))
    })
    .with_context(|| format!("{:?}", alice.status()))?;
    ensure!(status["state"] == "up", "{status}");
    Ping::to(internet::OFFICE_V4).expect_all(bed.internet.laptop())?;
    let log = {
        let outcome = alice.end()?;
        failed(&outcome, 1, &["another name"])?;
        outcome.stderr
    };
    ensure!(log.contains(REASON), "{log}");
    let connected = milliseconds(events(&bed, "connect")?.first().context("no connect")?)?;
    let ended = events(&bed, "disconnect")?;
    ensure!(
        ended.len() == 1 && ended[0]["reason"] == REASON,
        "{ended:?}"
    );
    let took = milliseconds(&ended[0])? - connected;
    note(&format!("closed after {took} ms"));
    ensure!(
        (MAXIMUM * 1000 - 1000..MAXIMUM * 1000 + 2000).contains(&took),
        "{took} ms"
    );
    Ok(())
}
