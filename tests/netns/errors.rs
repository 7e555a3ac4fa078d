//! What goes wrong on the first day: one sentence, a hint, a meaningful exit status, nothing changed.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use adit_tests::lab::namespace::Sight;
use adit_tests::lab::process::Outcome;
use adit_tests::lab::{Internet, Layout, Snapshot};
use adit_tests::programs::{PORT, Programs, Setup};
use anyhow::{Result, ensure};

use crate::bed::{Bed, failed, note, unchanged};

/// `adit-server run` that is expected to end by itself.
fn run(setup: &Setup, internet: &Internet, sight: Sight) -> Result<Outcome> {
    let mut run = Command::new(&setup.programs().server);
    run.args(["run", "--config"]).arg(setup.server_toml());
    internet
        .gateway
        .spawn_seeing(run, sight)?
        .wait(Duration::from_secs(15))
}

/// `adit up` that is expected to end by itself.
fn up(
    setup: &Setup,
    internet: &Internet,
    profile: &std::path::Path,
    sight: Sight,
) -> Result<Outcome> {
    let mut client = setup.client(internet.laptop(), profile)?;
    client.start_seeing(sight)?;
    client.end()
}

pub(crate) fn incurable_refusals(programs: &Programs) -> Result<()> {
    let bed = Bed::new(programs, Layout::default())?;
    let other = Setup::new(programs)?;
    let stranger = bed.setup.profile("stranger@example.com", &[])?;
    let foreign = other.profile("alice@example.com", &["staff"])?;
    let before = Snapshot::of(bed.internet.laptop())?;
    // A foreign authority: the client does not believe the gateway. No access: the policy has no rule.
    for (profile, words) in [(stranger, "access"), (foreign, "certificate")] {
        let start = Instant::now();
        failed(
            &up(&bed.setup, &bed.internet, &profile, Sight::Whole)?,
            1,
            &[words],
        )?;
        ensure!(
            start.elapsed() < Duration::from_secs(10),
            "gave up only after {:?}",
            start.elapsed()
        );
        unchanged(&before, bed.internet.laptop())?;
    }
    // The foreign client that does believe our gateway: the gateway does not know its authority.
    let ours: toml::Table =
        fs::read_to_string(bed.setup.profile("bob@example.com", &["staff"])?)?.parse()?;
    let mixed = other.profile("alice@example.com", &["staff"])?;
    other.edit_profile(&mixed, |profile| {
        profile.insert("ca".to_owned(), ours["ca"].clone());
    })?;
    failed(
        &up(&bed.setup, &bed.internet, &mixed, Sight::Whole)?,
        1,
        &["authority"],
    )?;
    // The right authority, the wrong name.
    let wrong_name = bed.setup.profile("alice@example.com", &["staff"])?;
    bed.setup.edit_profile(&wrong_name, |profile| {
        profile.insert("server_name".to_owned(), "other.example.com".into());
    })?;
    failed(
        &up(&bed.setup, &bed.internet, &wrong_name, Sight::Whole)?,
        1,
        &["other.example.com"],
    )?;
    unchanged(&before, bed.internet.laptop())
}

pub(crate) fn without_rights(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let (laptop, gateway) = (
        Snapshot::of(internet.laptop())?,
        Snapshot::of(&internet.gateway)?,
    );
    failed(&run(&setup, &internet, Sight::WithoutRights)?, 3, &[])?;
    failed(
        &up(&setup, &internet, &profile, Sight::WithoutRights)?,
        3,
        &["CAP_NET_ADMIN"],
    )?;
    unchanged(&laptop, internet.laptop())?;
    unchanged(&gateway, &internet.gateway)
}

pub(crate) fn a_port_in_use(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    let before = Snapshot::of(&internet.gateway)?;
    let _taken = internet.gateway.run(|| UdpSocket::bind(("::", PORT)))?;
    failed(
        &run(&setup, &internet, Sight::Whole)?,
        3,
        &["443", "in use"],
    )?;
    unchanged(&before, &internet.gateway)
}

pub(crate) fn a_missing_tun_device(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let (laptop, gateway) = (
        Snapshot::of(internet.laptop())?,
        Snapshot::of(&internet.gateway)?,
    );
    failed(
        &run(&setup, &internet, Sight::WithoutTun)?,
        3,
        &["/dev/net/tun"],
    )?;
    failed(
        &up(&setup, &internet, &profile, Sight::WithoutTun)?,
        3,
        &["/dev/net/tun"],
    )?;
    unchanged(&laptop, internet.laptop())?;
    unchanged(&gateway, &internet.gateway)
}

pub(crate) fn a_key_others_can_read(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    let profile = setup.profile("alice@example.com", &["staff"])?;
    ensure!(
        fs::metadata(&profile)?.permissions().mode() & 0o077 == 0,
        "adit-ca wrote a readable profile"
    );
    fs::set_permissions(&profile, fs::Permissions::from_mode(0o644))?;
    failed(
        &up(&setup, &internet, &profile, Sight::Whole)?,
        2,
        &[&profile.display().to_string()],
    )?;
    let key = setup.gateway_directory().join("gateway.key");
    ensure!(
        fs::metadata(&key)?.permissions().mode() & 0o077 == 0,
        "init wrote a readable key"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640))?;
    failed(&run(&setup, &internet, Sight::Whole)?, 2, &["gateway.key"])
}

pub(crate) fn a_half_written_file(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    let before = Snapshot::of(&internet.gateway)?;
    let good = fs::read_to_string(setup.server_toml())?;
    let check = || -> Result<Outcome> {
        let mut check = Command::new(&setup.programs().server);
        check.args(["check", "--config"]).arg(setup.server_toml());
        internet.gateway.spawn(check)?.wait(Duration::from_secs(10))
    };
    ensure!(
        check()?.code == Some(0),
        "the configuration of init does not pass its own check"
    );
    for (text, words) in [
        (&good[..good.len() / 2 + 3], "server.toml:"),
        (&format!("lisen = \"[::]:443\"\n{good}"), "lisen"),
        ("", "server.toml"),
    ] {
        fs::write(setup.server_toml(), text)?;
        failed(&check()?, 2, &[words])?;
        failed(&run(&setup, &internet, Sight::Whole)?, 2, &[words])?;
    }
    fs::write(setup.server_toml(), &good)?;
    setup.policy("[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/33\"]\n")?;
    failed(&check()?, 2, &["policy.toml:3"])?;
    setup.policy("")?;
    let outcome = check()?;
    ensure!(
        outcome.code == Some(0),
        "an empty policy is allowed, it lets nobody in: {}",
        outcome.stderr
    );
    note(&format!(
        "{}{}",
        outcome.stdout.trim(),
        outcome.stderr.trim()
    ));
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let whole = fs::read_to_string(&profile)?;
    fs::write(&profile, &whole[..whole.len() / 2])?;
    failed(
        &up(&setup, &internet, &profile, Sight::Whole)?,
        2,
        &[&profile.display().to_string()],
    )?;
    unchanged(&before, &internet.gateway)
}
