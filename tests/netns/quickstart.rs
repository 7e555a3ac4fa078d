//! The quick start of README.md, its commands taken from the file and run as they stand there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use adit_tests::lab::{Internet, Layout, Snapshot, internet};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Programs, TemporaryDirectory};
use anyhow::{Context, Result, ensure};

use crate::bed::{note, unchanged};
use crate::page::{Machine, PATIENCE, commands};

pub(crate) fn the_readme_is_true(programs: &Programs) -> Result<()> {
    let blocks = commands("## Quick start on two machines");
    ensure!(
        blocks.len() == 3,
        "the quick start has {} blocks of commands: gateway, laptop and status were expected",
        blocks.len()
    );
    let internet = Internet::new(Layout::default())?;
    let directory = TemporaryDirectory::new()?;
    let before = Snapshot::of(internet.laptop())?;
    let gateway = Machine::new(&internet.gateway, &directory.path().join("g"), programs)?;
    let laptop = Machine::new(internet.laptop(), &directory.path().join("l"), programs)?;

    let (run, setup) = blocks[0]
        .split_last()
        .context("no command of the gateway")?;
    ensure!(
        run == "sudo adit-server run",
        "the gateway ends with `{run}`"
    );
    for command in setup {
        gateway.finish(command)?;
    }
    let mut server = gateway.start(run)?;
    gateway.is_up(&mut server, "sudo adit-server status")?;

    fs::copy(gateway.home.join(PROFILE), laptop.home.join(PROFILE))?;
    let (up, setup) = blocks[1].split_last().context("no command of the laptop")?;
    ensure!(
        up == "sudo adit up alice.toml",
        "the laptop ends with `{up}`"
    );
    for command in setup {
        laptop.finish(command)?;
    }
    let mut client = laptop.start(up)?;
    laptop.is_up(&mut client, "sudo adit status")?;
    for office in [internet::OFFICE_V4, internet::OFFICE_V6] {
        let answers = Ping::to(office).expect_all(internet.laptop())?;
        note(&format!("ping {office}: {}", answers.summary()));
    }

    for command in &blocks[2] {
        // The page says in a comment where each is typed.
        let machine = if command.contains("adit-server") {
            &gateway
        } else {
            &laptop
        };
        machine.finish(command)?;
    }
    let outcome = client.wait(PATIENCE)?;
    ensure!(
        outcome.code == Some(0),
        "adit ended badly:\n{}",
        outcome.stderr
    );
    unchanged(&before, internet.laptop())?;
    lost(&gateway, &laptop, up)?;
    colleague(&gateway, &laptop)?;
    server.terminate()?;
    let outcome = server.wait(PATIENCE)?;
    ensure!(
        outcome.code == Some(0),
        "adit-server ended badly:\n{}",
        outcome.stderr
    );
    Ok(())
}

/// Somebody new comes, by two commands; and goes, by one.
fn colleague(gateway: &Machine<'_>, laptop: &Machine<'_>) -> Result<()> {
    let blocks = commands("## A new colleague is on the network in two commands");
    let [invite, enroll, out] = &blocks[..] else {
        anyhow::bail!("gateway, laptop and the end were promised: {blocks:?}");
    };
    ensure!(
        [invite.len(), enroll.len(), out.len()] == [1; 3],
        "one command each was promised: {blocks:?}"
    );
    let invited = gateway.start(&invite[0])?.wait(PATIENCE)?;
    note(&invite[0]);
    let code = invited.stdout.lines().next().unwrap_or_default();
    ensure!(invited.code == Some(0) && !code.is_empty(), "{invited:?}");
    let command = enroll[0].replace("CODE", code);
    ensure!(
        invited.stdout.contains(command.trim_end_matches(" --up")),
        "the page and the program say the same:\n{command}\n{}",
        invited.stdout
    );
    note(&enroll[0]);
    let mut client = laptop.start(&command)?;
    laptop.is_up(&mut client, "sudo adit status")?;
    let answers = Ping::to(internet::OFFICE_V4).expect_all(laptop.namespace())?;
    note(&format!("ping: {}", answers.summary()));
    let profile = laptop.configuration("client.toml");
    let mode = fs::metadata(&profile)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    gateway.finish(&out[0])?;
    let outcome = client.wait(Duration::from_secs(3))?;
    ensure!(
        outcome.code == Some(1) && outcome.stderr.contains("the certificate was revoked"),
        "{outcome:?}"
    );
    Ok(())
}

/// The laptop is connected again, and lost.
fn lost(gateway: &Machine<'_>, laptop: &Machine<'_>, up: &str) -> Result<()> {
    let blocks = commands("## A lost laptop is out in one command");
    ensure!(
        blocks.len() == 1 && blocks[0].len() == 1,
        "one command was promised: {blocks:?}"
    );
    let mut client = laptop.start(up)?;
    laptop.is_up(&mut client, "sudo adit status")?;
    gateway.finish(&blocks[0][0])?;
    let outcome = client.wait(Duration::from_secs(3))?;
    ensure!(
        outcome.code == Some(1) && outcome.stderr.contains("the certificate was revoked"),
        "{outcome:?}"
    );
    Ok(())
}

/// What `adit-ca issue` writes on the page.
const PROFILE: &str = "alice.toml";
