//! "Keep the root offline" of README.md, its commands taken from the file and run as they stand there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use adit_tests::lab::{Internet, Layout, Namespace, internet};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Programs, SERVER_NAME, TemporaryDirectory};
use anyhow::{Context, Result, bail, ensure};

use crate::bed::{note, said};
use crate::page::{Machine, PATIENCE, commands};

pub(crate) fn the_root_stays_in_its_drawer(programs: &Programs) -> Result<()> {
    let blocks = commands("## Keep the root offline");
    let [drawer, gateway, corporate, device] = &blocks[..] else {
        bail!("four blocks of commands were expected: {blocks:?}");
    };
    let internet = Internet::new(Layout::default())?;
    let directory = TemporaryDirectory::new()?;
    let root = |name: &str| directory.path().join(name);
    let sticks = root("sticks");
    fs::create_dir(&sticks)?;
    let alone = Namespace::new("drawer")?;
    let mut offline = Machine::new(&alone, &root("o"), programs)?;
    offline.install()?;
    offline.plug_in(&sticks)?;
    offline.knows("correct horse battery staple\n")?;
    for command in drawer {
        offline.finish(command)?;
    }
    // One stick goes into the gateway; the drawer is shut, and nothing of it may be missed from here on.
    let (carried, key) = (root("carried"), root("sticks/root/ca/ca.key"));
    fs::create_dir(&carried)?;
    fs::rename(sticks.join("gateway"), carried.join("gateway"))?;
    let text = fs::read_to_string(&key)?;
    ensure!(text.contains("ENCRYPTED PRIVATE KEY"), "{text}");
    fs::remove_dir_all(sticks.join("root"))?;

    runs_with_the_intermediate(gateway, &internet, &carried, &root(""), programs)?;
    a_corporate_root_signs(corporate, &offline)?;
    a_key_stays_on_its_device(device, &offline)
}

/// The gateway with what it was brought, and somebody who comes and goes.
fn runs_with_the_intermediate(
    commands: &[String],
    internet: &Internet,
    sticks: &Path,
    root: &Path,
    programs: &Programs,
) -> Result<()> {
    let mut gateway = Machine::new(&internet.gateway, &root.join("g"), programs)?;
    gateway.install()?;
    gateway.plug_in(sticks)?;
    let (run, setup) = commands.split_last().context("no command of the gateway")?;
    ensure!(run == "sudo adit-server run", "it ends with `{run}`");
    for command in setup {
        gateway.finish(command)?;
    }
    ensure!(!gateway.configuration("ca/ca.key").exists());
    let mut server = gateway.start(run)?;
    gateway.is_up(&mut server, "sudo adit-server status")?;

    let laptop = Machine::new(internet.laptop(), &root.join("l"), programs)?;
    laptop.install()?;
    let invited = gateway
        .start("sudo adit-server invite bob@example.com --group staff")?
        .wait(PATIENCE)?;
    said(&invited, 0, &["sudo adit enroll"])?;
    let code = invited.stdout.lines().next().unwrap_or_default();
    let mut client = laptop.start(&format!("sudo adit enroll {SERVER_NAME} {code} --up"))?;
    laptop.is_up(&mut client, "sudo adit status")?;
    let answers = Ping::to(internet::OFFICE_V4).expect_all(laptop.namespace())?;
    note(&format!("ping: {}", answers.summary()));

    // What the root issued is known here, too.
    let certs = gateway.start("sudo adit-server certs")?.wait(PATIENCE)?;
    said(&certs, 0, &["Example Corp", "bob@example.com", SERVER_NAME])?;
    ensure!(certs.stderr.is_empty(), "{}", certs.stderr);
    gateway.finish("sudo adit-ca revoke bob@example.com --dir /etc/adit/issuing")?;
    let outcome = client.wait(Duration::from_secs(3))?;
    ensure!(
        outcome.code == Some(1) && outcome.stderr.contains("the certificate was revoked"),
        "{outcome:?}"
    );
    server.terminate()?;
    let outcome = server.wait(PATIENCE)?;
    ensure!(outcome.code == Some(0), "{}", outcome.stderr);
    Ok(())
}

/// The intermediate of a root elsewhere: the page says what is done here, and the test is the root.
fn a_corporate_root_signs(commands: &[String], here: &Machine<'_>) -> Result<()> {
    let [request, complete] = commands else {
        bail!("a request and its answer were promised: {commands:?}");
    };
    here.finish(request)?;
    here.finish("adit-ca init corporate --name Corporate")?;
    let sign = "adit-ca sign issuing/ca.csr --authority --principal \"Example Corp\"";
    here.finish(&format!("{sign} --dir corporate -o signed.pem"))?;
    here.finish("cp corporate/ca.pem corporate-root.pem")?;
    here.finish(complete)
}

/// The intermediate certifies a key that it never sees.
fn a_key_stays_on_its_device(commands: &[String], here: &Machine<'_>) -> Result<()> {
    for command in commands {
        here.finish(command)?;
    }
    ensure!(here.home.join("alice@example.com.key").exists());
    let shown = here.start("adit-ca show alice.pem")?.wait(PATIENCE)?;
    said(&shown, 0, &["alice@example.com", "staff", "Example Corp"])
}
