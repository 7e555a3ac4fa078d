//! "Give somebody access" of README.md, done as it stands there while everybody works.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_tests::lab::process::Outcome;
use adit_tests::lab::{Internet, Layout, internet, until};
use adit_tests::probe::dialogue::{self, Dialogue};
use adit_tests::probe::tcp;
use adit_tests::programs::{Programs, TemporaryDirectory};
use anyhow::{Context, Result, ensure};

use crate::bed::{note, said, steadily};
use crate::page::{Machine, PATIENCE, blocks, commands};

pub(crate) fn somebody_gets_access_and_loses_it(programs: &Programs) -> Result<()> {
    let page = Page::read()?;
    let internet = Internet::new(Layout {
        laptops: 2,
        ..Layout::default()
    })?;
    // A host of the office beside the one that is there always.
    let office = &internet.office;
    office.add_address("lo", "10.0.2.3/32".parse()?)?;
    let prefix = "10.0.2.0/28".parse()?;
    internet.gateway.add_route(prefix, internet::OFFICE_V4)?;
    dialogue::answering(office, DATABASE)?;
    dialogue::answering(office, INTRANET)?;

    let directory = TemporaryDirectory::new()?;
    let machine = |namespace, name: &str| -> Result<Machine<'_>> {
        let machine = Machine::new(namespace, &directory.path().join(name), programs)?;
        machine.install()?;
        Ok(machine)
    };
    let gateway = machine(&internet.gateway, "g")?;
    gateway.finish("sudo adit-server init --dir /etc/adit --name vpn.example.com")?;
    let policy = |text: &str| -> Result<()> {
        let pool = "[pool]\nv4 = \"10.99.0.0/24\"\n";
        fs::write(
            gateway.configuration("policy.toml"),
            format!("{pool}{text}"),
        )?;
        Ok(())
    };
    policy(page.before)?;
    let mut server = gateway.start("sudo adit-server run")?;
    gateway.is_up(&mut server, "sudo adit-server status")?;
    let [erin, sam] = [("erin", "hr", 0), ("sam", "sales", 1)].map(|(name, group, laptop)| {
        let namespace = &internet.laptops[laptop];
        connect(&gateway, machine(namespace, name)?, name, group).map(|up| (namespace, up))
    });
    let ((erin, _erins), (sam, _sams)) = (erin?, sam?);

    // Everybody works; nothing of this may be disturbed by what follows.
    let second = Duration::from_secs(1);
    let steady = |from| steadily(internet::OFFICE_V4, from);
    let pings = [("erin", steady(erin)?), ("sam", steady(sam)?)];
    let others = [
        (
            "erin to the intranet",
            Dialogue::start(erin, INTRANET, second)?,
        ),
        (
            "sam to the database",
            Dialogue::start(sam, DATABASE, second)?,
        ),
    ];

    let refused = Instant::now();
    ensure!(tcp::connect(erin, DATABASE, second).is_err(), "erin is in");
    note(&format!("refused after {:.0?}", refused.elapsed()));
    said(
        &ask(&gateway, &page.explain)?,
        1,
        &[
            "verdict       denied: no rule allows it",
            "nearly        customer database",
            "names group:sales, and not erin@example.com",
            "group         hr (certificate)",
            "answered by   the running gateway",
            "(of the open session)",
            "live          no such flow",
        ],
    )?;
    policy(&page.after)?;
    let rehearsed = ask(&gateway, &page.dry_run)?;
    let gained = "may use           customer database (";
    let effect = [
        "1 session changes",
        "1 session stays",
        "erin@example.com changes",
        gained,
    ];
    said(&rehearsed, 0, &effect)?;
    ensure!(rehearsed.stdout.contains("; 0 of "), "{}", rehearsed.stdout);
    ensure!(
        tcp::connect(erin, DATABASE, second).is_err(),
        "by a dry run"
    );

    let start = Instant::now();
    said(&ask(&gateway, &page.reload)?, 0, &effect)?;
    let database = Dialogue::start(erin, DATABASE, second)?;
    until(second, || Ok((database.answered() > 0).then_some(())))?;
    note(&format!("granted and used after {:.0?}", start.elapsed()));
    said(
        &ask(&gateway, &page.explain)?,
        0,
        &[
            "verdict       allowed: customer database allows it",
            "live          established, from port",
        ],
    )?;
    until(second, || Ok((database.answered() > 20).then_some(())))?;

    policy(page.before)?;
    let lost = "may no longer use customer database (";
    let effect = ["; 1 of ", lost];
    said(&ask(&gateway, &page.dry_run)?, 0, &effect)?;
    ensure!(database.goes_on(), "a dry run ended it");
    let start = Instant::now();
    said(&ask(&gateway, &page.reload)?, 0, &effect)?;
    until(second, || Ok((!database.goes_on()).then_some(())))?;
    let database = database.stop();
    let (at, error) = database.broken.context("it was stopped by nobody")?;
    ensure!(
        error.kind() == std::io::ErrorKind::ConnectionReset,
        "{error}"
    );
    note(&format!("withdrawn and reset after {:.0?}", at - start));
    ensure!(at - start < second, "{:?}", at - start);
    said(&ask(&gateway, &page.explain)?, 1, &["no such flow"])?;

    for (who, dialogue) in others {
        let before = dialogue.answered();
        until(second, || {
            Ok((dialogue.answered() > before + 20).then_some(()))
        })
        .with_context(|| format!("{who} broke"))?;
        let ended = dialogue.stop();
        note(&format!(
            "{who}: {} answers, slowest {:.0?}",
            ended.answered, ended.slowest
        ));
        ensure!(ended.broken.is_none(), "{who}: {ended:?}");
    }
    for (who, ping) in pings {
        let answers = ping.stop()?;
        note(&format!("{who} meanwhile: {}", answers.summary()));
        ensure!(answers.lost.is_empty(), "{who} lost {:?}", answers.lost);
        ensure!(answers.received > 50, "{who}: {}", answers.summary());
    }
    Ok(())
}

/// What the section of the page says.
struct Page {
    before: &'static str,
    after: String,
    explain: String,
    dry_run: String,
    reload: String,
}

impl Page {
    fn read() -> Result<Self> {
        let [before] = blocks(HEADING, "toml")[..] else {
            anyhow::bail!("{HEADING} has one policy");
        };
        let [change] = blocks(HEADING, "diff")[..] else {
            anyhow::bail!("{HEADING} has one change");
        };
        let line = |sign| {
            let mut lines = change.lines().filter_map(|line| line.strip_prefix(sign));
            (lines.next().filter(|_| lines.next().is_none())).context("one line changes")
        };
        let (old, new) = (line("-")?, line("+")?);
        ensure!(before.matches(&format!("{old}\n")).count() == 1, "{old}");
        let commands: Vec<String> = commands(HEADING).into_iter().flatten().collect();
        let [explain, dry_run, reload, again] = &commands[..] else {
            anyhow::bail!("{HEADING} has other commands: {commands:?}");
        };
        ensure!(explain == again && explain.starts_with("sudo adit-server explain erin@"));
        Ok(Self {
            before,
            after: before.replace(&format!("{old}\n"), &format!("{new}\n")),
            explain: explain.clone(),
            dry_run: dry_run.clone(),
            reload: reload.clone(),
        })
    }
}

/// Connects somebody of a group from a laptop; the client ends with what is returned.
fn connect<'a>(
    gateway: &Machine<'_>,
    laptop: Machine<'a>,
    name: &str,
    group: &str,
) -> Result<(Machine<'a>, adit_tests::lab::Process)> {
    let profile = format!("{name}.toml");
    gateway.finish(&format!(
        "sudo adit-ca issue {name}@example.com --dir /etc/adit/ca --group {group} \
         --gateway vpn.example.com:443 -o {profile}"
    ))?;
    fs::copy(gateway.home.join(&profile), laptop.home.join(&profile))?;
    let mut client = laptop.start(&format!("sudo adit up {profile}"))?;
    until(PATIENCE, || {
        client.still_runs()?;
        let status = laptop.start("sudo adit status")?.wait(PATIENCE)?;
        Ok((status.code == Some(0) && status.stdout.contains("10.99.0.")).then_some(()))
    })
    .with_context(|| format!("{name} is not connected:\n{}", client.last_words()))?;
    Ok((laptop, client))
}

fn ask(gateway: &Machine<'_>, command: &str) -> Result<Outcome> {
    note(command);
    gateway.start(command)?.wait(PATIENCE)
}

const HEADING: &str = "## Give somebody access";
/// In the prefix of the page.
const DATABASE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3)), 5432);
const INTRANET: SocketAddr = SocketAddr::new(internet::OFFICE_V4, 443);
