//! What the programs change on a host, they change back.

use std::time::Duration;

use adit_tests::lab::{Internet, Layout, Snapshot, internet};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Programs, Setup};
use anyhow::{Result, ensure};

use crate::bed::{Bed, masquerading, note, unchanged};

pub(crate) fn nothing_is_left_afterwards(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    masquerading(&setup)?;
    let laptop_before = Snapshot::of(internet.laptop())?;
    let gateway_before = Snapshot::of(&internet.gateway)?;

    let gateway = setup.start_gateway(&internet.gateway)?;
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let alice = setup.connect(internet.laptop(), &profile)?;
    Ping::to(internet::OFFICE_V4).expect_all(internet.laptop())?;
    Ping::to(internet::OFFICE_V6).expect_all(internet.laptop())?;
    let changed = laptop_before.difference(&Snapshot::of(internet.laptop())?);
    ensure!(!changed.is_empty(), "the snapshot is blind");
    note(&format!(
        "{} lines of the laptop's network state changed",
        changed.lines().count()
    ));

    let outcome = alice.stop()?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    unchanged(&laptop_before, internet.laptop())?;
    let outcome = gateway.stop()?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    unchanged(&gateway_before, &internet.gateway)
}

pub(crate) fn kill_9_leftovers_are_undone(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    masquerading(&setup)?;
    let laptop_before = Snapshot::of(internet.laptop())?;
    let gateway_before = Snapshot::of(&internet.gateway)?;

    let mut gateway = setup.start_gateway(&internet.gateway)?;
    let profile = setup.profile("alice@example.com", &["staff"])?;
    setup.edit_profile(&profile, |profile| {
        profile.insert("full_tunnel".to_owned(), true.into());
    })?;
    let mut alice = setup.connect(internet.laptop(), &profile)?;
    alice.process()?.crash()?;
    gateway.process().crash()?;
    let left = laptop_before.difference(&Snapshot::of(internet.laptop())?);
    note(&format!(
        "kill -9 left {} lines of network state on the laptop",
        left.lines().count()
    ));

    let gateway = setup.start_gateway(&internet.gateway)?;
    alice.start()?;
    alice.connected(Duration::from_secs(20))?;
    ensure!(alice.stop()?.code == Some(0));
    unchanged(&laptop_before, internet.laptop())?;
    ensure!(gateway.stop()?.code == Some(0));
    unchanged(&gateway_before, &internet.gateway)
}

pub(crate) fn adit_down_restores_the_host(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let before = Snapshot::of(bed.internet.laptop())?;
    let alice = bed.alice(0)?;
    let outcome = alice.down()?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    unchanged(&before, bed.internet.laptop())?;
    // The gateway was told, so the session is not left to a timeout.
    let gateway = &bed.gateway;
    adit_tests::lab::until(Duration::from_secs(5), || {
        Ok(gateway.principals()?.is_empty().then_some(()))
    })
}
