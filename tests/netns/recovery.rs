//! Crashes and long silences: who notices, how fast, and with which address afterwards.

use std::time::{Duration, Instant};

use adit_tests::lab::{Layout, internet};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::Programs;
use anyhow::{Result, ensure};

use crate::bed::{Bed, note, reachable};

pub(crate) fn a_killed_gateway(programs: &Programs) -> Result<()> {
    let mut bed = Bed::new(programs, Layout::default())?;
    let alice = bed.alice(0)?;
    let before = (alice.address(true)?, alice.address(false)?);
    reachable(
        bed.internet.laptop(),
        internet::OFFICE_V4,
        Duration::from_secs(5),
    )?;
    bed.gateway.process().crash()?;
    let start = Instant::now();
    bed.gateway = bed.setup.start_gateway(&bed.internet.gateway)?;
    let up = start.elapsed();
    reachable(
        bed.internet.laptop(),
        internet::OFFICE_V4,
        Duration::from_secs(60),
    )?;
    note(&format!(
        "gateway killed: it was back after {up:.1?}, the office after {:.1?}",
        start.elapsed()
    ));
    ensure!(
        (alice.address(true)?, alice.address(false)?) == before,
        "the lease did not survive the restart"
    );
    reachable(
        bed.internet.laptop(),
        internet::OFFICE_V6,
        Duration::from_secs(5),
    )
}

pub(crate) fn a_stopped_gateway(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let alice = bed.alice(0)?;
    let before = alice.address(true)?;
    let Bed {
        gateway,
        setup,
        internet,
    } = bed;
    let outcome = gateway.stop()?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    let start = Instant::now();
    let _gateway = setup.start_gateway(&internet.gateway)?;
    reachable(
        internet.laptop(),
        internet::OFFICE_V4,
        Duration::from_secs(60),
    )?;
    note(&format!(
        "gateway restarted politely: the office was back after {:.1?}",
        start.elapsed()
    ));
    ensure!(
        alice.address(true)? == before,
        "the lease did not survive the restart"
    );
    Ok(())
}

pub(crate) fn a_killed_client(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let mut alice = bed.alice(0)?;
    let before = (alice.address(true)?, alice.address(false)?);
    alice.process()?.crash()?;
    let start = Instant::now();
    alice.start()?;
    alice.connected(Duration::from_secs(20))?;
    reachable(
        bed.internet.laptop(),
        internet::OFFICE_V4,
        Duration::from_secs(10),
    )?;
    note(&format!(
        "client killed and started again: the office was back after {:.1?}",
        start.elapsed()
    ));
    ensure!(
        (alice.address(true)?, alice.address(false)?) == before,
        "another address after the crash"
    );
    Ok(())
}

pub(crate) fn a_long_interruption(programs: &Programs) -> Result<()> {
    let bed = Bed::with(programs, Layout::default(), |setup| {
        setup.configure(|server| {
            adit_tests::programs::table(server, "session")
                .insert("idle_timeout_s".to_owned(), 5.into());
        })
    })?;
    let alice = bed.alice(0)?;
    let before = alice.address(true)?;
    bed.internet.far.down("gateway")?;
    let gateway = &bed.gateway;
    adit_tests::lab::until(Duration::from_secs(30), || {
        Ok(gateway.principals()?.is_empty().then_some(()))
    })?;
    bed.internet.far.up("gateway")?;
    // Taking a link down forgets its IPv6 routes and addresses; this test is about IPv4 only.
    let start = Instant::now();
    reachable(
        bed.internet.laptop(),
        internet::OFFICE_V4,
        Duration::from_secs(90),
    )?;
    note(&format!(
        "after an interruption that ended the session: the office was back after {:.1?}",
        start.elapsed()
    ));
    ensure!(alice.address(true)? == before, "another address afterwards");
    Ping::to(internet::OFFICE_V6).expect_all(bed.internet.laptop())?;
    Ok(())
}
