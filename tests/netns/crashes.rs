//! The gateway is killed at each call by which its state gets on the disk, and started again.
//!
//! strace sends the signal when the call begins: it does not happen any more. What was told to clients must be on
//! the disk by then; what the next start finds half-written it takes away, and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_core::table::leases::LeaseEntry;
use adit_tests::lab::{Internet, Layout, Process, Snapshot, internet, until};
use adit_tests::programs::{Gateway, PORT, Programs, Setup};
use adit_tests::swarm::{Roster, Swarm};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::bed::{masquerading, note, reachable, unchanged};

/// A call, and which one of its thread.
#[derive(Clone, Copy, Debug)]
struct Point {
    call: &'static str,
    number: usize,
}

impl Point {
    fn first(count: usize, call: &'static str) -> impl Iterator<Item = Self> {
        (1..=count).map(move |number| Self { call, number })
    }

    /// What strace is told, but for what it shall look at.
    fn arguments(self) -> [String; 4] {
        let Self { call, number } = self;
        [
            "-e".to_owned(),
            format!("trace={call}"),
            "-e".to_owned(),
            format!("inject={call}:signal=KILL:when={number}"),
        ]
    }
}

/// The thread of the gateway with this name.
fn thread(gateway: &mut Gateway, name: &str) -> Result<u32> {
    let tasks = PathBuf::from(format!("/proc/{}/task", gateway.process().pid()));
    for task in fs::read_dir(&tasks)? {
        let task = task?;
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if comm.trim() == name {
            return Ok(task.file_name().to_string_lossy().parse()?);
        }
    }
    bail!("the gateway has no thread {name}")
}

/// Lets strace look at one thread of the gateway, which is killed when it reaches the point.
fn lie_in_wait(internet: &Internet, thread: u32, point: Point) -> Result<Process> {
    let mut strace = Command::new("strace");
    strace
        .args(["-o", "/dev/null", "-p", &thread.to_string()])
        .args(point.arguments());
    let mut strace = internet.gateway.spawn(strace)?;
    until(PATIENCE, || {
        // It can be over by then: the gateway writes when it will.
        if strace.stderr().contains("attached") {
            return Ok(Some(()));
        }
        strace.still_runs()?;
        Ok(None)
    })
    .context("strace does not attach")?;
    Ok(strace)
}

/// Whether the gateway ends before `done` says that the point will not be reached.
fn is_killed(
    gateway: &mut Gateway,
    mut done: impl FnMut(&mut Gateway) -> Result<bool>,
) -> Result<bool> {
    until(PATIENCE, || {
        if !gateway.process().is_running() {
            return Ok(Some(true));
        }
        Ok(done(gateway)?.then_some(false))
    })
}

/// Names of a gateway's state directory: those of half-written files, and all others.
fn state(setup: &Setup) -> Result<(Vec<String>, Vec<String>)> {
    let directory = setup.path("state");
    if !directory.exists() {
        return Ok((Vec::new(), Vec::new()));
    }
    let names =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    Ok(names.into_iter().partition(|name| name.starts_with('.')))
}

/// Starts the gateway, which must find everything whole, and say what it takes away.
fn start_again(setup: &Setup, internet: &Internet) -> Result<Gateway> {
    let (half_written, _) = state(setup)?;
    let mut gateway = setup.start_gateway(&internet.gateway)?;
    let said = gateway.process().stderr();
    for name in &half_written {
        ensure!(said.contains(name), "nothing is said of {name}:\n{said}");
    }
    ensure!(
        !said.contains("damaged"),
        "something was half-written:\n{said}"
    );
    let (half_written, names) = state(setup)?;
    ensure!(half_written.is_empty(), "{half_written:?} stay");
    for name in &names {
        ensure!(KNOWN.contains(&name.as_str()), "{name} was left");
    }
    Ok(gateway)
}

/// Clients that came one after the other, and what they were told.
struct Crowd {
    swarms: Vec<(Vec<String>, Swarm)>,
}

impl Crowd {
    fn newcomers(&mut self, setup: &Setup, internet: &Internet) -> Result<()> {
        let number = self.swarms.len();
        let names = ["a", "b"].map(|name| format!("{name}{number}@example.com"));
        let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 86_400;
        let until = names
            .each_ref()
            .map(|name| (name.as_str(), tomorrow.cast_signed()));
        let roster = Roster::of(setup, setup.issue_until(&until, &["staff"])?)?;
        let gateway = SocketAddr::new(internet::GATEWAY_V4, PORT);
        let swarm = Swarm::start(
            internet.laptop(),
            &roster,
            names.len(),
            gateway,
            names.len(),
        )?;
        self.swarms.push((names.to_vec(), swarm));
        Ok(())
    }

    /// Everybody, with all addresses they were ever told.
    fn told(&self) -> impl Iterator<Item = (&str, BTreeSet<IpAddr>)> {
        self.swarms.iter().flat_map(|(names, swarm)| {
            let names = names.iter().map(String::as_str);
            names.zip(swarm.told())
        })
    }

    /// Fails if two were told the same, or somebody two of a family; gives whose each address is.
    fn promises(&self) -> Result<BTreeMap<IpAddr, &str>> {
        let mut promises = BTreeMap::new();
        for (name, told) in self.told() {
            let v4 = told.iter().filter(|address| address.is_ipv4()).count();
            ensure!(v4 <= 1 && told.len() - v4 <= 1, "{name} was told {told:?}");
            for address in told {
                let other = promises.insert(address, name);
                ensure!(other.is_none(), "{address} is {name}'s and {other:?}'s");
            }
        }
        Ok(promises)
    }

    /// Fails unless all that was told is in the file.
    fn is_written(&self, setup: &Setup) -> Result<()> {
        let record = fs::read(setup.path("state/leases.json"))?;
        let mut record: Value = serde_json::from_slice(&record)?;
        let leases: Vec<LeaseEntry> = serde_json::from_value(record["contents"].take())?;
        for (address, name) in self.promises()? {
            let lease = leases.iter().find(|lease| lease.principal.as_str() == name);
            let mut held = lease.into_iter().flat_map(LeaseEntry::addresses);
            ensure!(
                held.any(|held| held == address),
                "{name} was told {address}, and the disk says {lease:?}"
            );
        }
        Ok(())
    }
}

pub(crate) fn nobody_loses_an_address(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    let mut crowd = Crowd { swarms: Vec::new() };
    let (mut kills, mut missed) = (0, Vec::new());
    let profile = setup.profile("alice@example.com", &["staff"])?;
    let mut gateway = start_again(&setup, &internet)?;
    let mut alice = setup.connect(internet.laptop(), &profile)?;
    let promised = (alice.address(true)?, alice.address(false)?);
    // Two tables: one for whom somebody waits, and who was here when a second later.
    let leases = Point::first(2, "write")
        .chain(Point::first(4, "openat"))
        .chain(Point::first(4, "fsync"))
        .chain(Point::first(2, "rename"));
    for point in leases {
        let _strace = lie_in_wait(&internet, thread(&mut gateway, "leases")?, point)?;
        crowd.newcomers(&setup, &internet)?;
        match is_killed(&mut gateway, |_| Ok(false)) {
            Ok(_) => kills += 1,
            Err(_) => {
                missed.push(point);
                gateway.process().crash()?;
            }
        }
        crowd
            .is_written(&setup)
            .with_context(|| format!("{point:?}"))?;
        gateway = start_again(&setup, &internet).with_context(|| format!("{point:?}"))?;
    }
    // The accounts are written when the gateway ends, by its first thread.
    for point in Point::first(1, "fsync").chain(Point::first(1, "rename")) {
        everybody_is_back(&crowd, &gateway, &setup)?;
        let before = fs::read(setup.path("state/usage.json")).ok();
        let _strace = lie_in_wait(&internet, gateway.process().pid(), point)?;
        gateway.process().terminate()?;
        let code = gateway.end()?.code;
        ensure!(code.is_none(), "{point:?}: exit status {code:?}");
        kills += 1;
        let after = fs::read(setup.path("state/usage.json")).ok();
        ensure!(
            before == after,
            "{point:?}: the accounts were replaced before they were written"
        );
        crowd
            .is_written(&setup)
            .with_context(|| format!("{point:?}"))?;
        gateway = start_again(&setup, &internet).with_context(|| format!("{point:?}"))?;
    }
    everybody_is_back(&crowd, &gateway, &setup)?;
    alice.connected(PATIENCE)?;
    ensure!((alice.address(true)?, alice.address(false)?) == promised);
    reachable(internet.laptop(), internet::OFFICE_V4, PATIENCE)?;
    crowd.is_written(&setup)?;
    note(&format!(
        "{kills} kills, {} addresses kept; not reached: {missed:?}",
        crowd.promises()?.len()
    ));
    ensure!(kills >= 12, "only {kills} kills; not reached: {missed:?}");
    Ok(())
}

/// Waits until everybody has a session again.
fn everybody_is_back(crowd: &Crowd, gateway: &Gateway, setup: &Setup) -> Result<()> {
    let names = crowd.told().map(|(name, _)| name);
    let expected: BTreeSet<&str> = names.chain(["alice@example.com"]).collect();
    let mut missing = Vec::new();
    until(4 * PATIENCE, || {
        let present = gateway.principals()?;
        missing = expected
            .iter()
            .filter(|name| !present.iter().any(|one| one == *name))
            .collect();
        let told = crowd.told().all(|(_, told)| !told.is_empty());
        Ok((missing.is_empty() && told).then_some(()))
    })
    .with_context(|| format!("not back: {missing:?}"))?;
    crowd.is_written(setup)
}

pub(crate) fn a_first_start_is_whole_or_begun_anew(programs: &Programs) -> Result<()> {
    let internet = Internet::new(Layout::default())?;
    let setup = Setup::new(programs)?;
    masquerading(&setup)?;
    let before = Snapshot::of(&internet.gateway)?;
    let (mut kills, mut missed) = (0, Vec::new());
    for point in ["fsync", "rename", "unlink"]
        .into_iter()
        .flat_map(|call| Point::first(MOST, call))
    {
        if missed.iter().any(|other: &Point| other.call == point.call) {
            continue;
        }
        if setup.path("state").exists() {
            fs::remove_dir_all(setup.path("state"))?;
        }
        let mut above: Vec<String> = ["strace", "-D", "-qq", "-o", "/dev/null"]
            .map(str::to_owned)
            .to_vec();
        above.extend(point.arguments());
        let mut gateway = setup.start_gateway_under(&internet.gateway, &above)?;
        // Ready and asked to stop, it takes back what it changed: those calls count as well.
        let mut asked = false;
        let killed = is_killed(&mut gateway, |gateway| {
            if !asked && gateway.status().is_ok() {
                asked = true;
                gateway.process().terminate()?;
            }
            Ok(false)
        });
        killed.with_context(|| format!("{point:?}"))?;
        let outcome = gateway.end()?;
        if outcome.code == Some(0) {
            missed.push(point);
            continue;
        }
        ensure!(outcome.code.is_none(), "{point:?}: {outcome:?}");
        kills += 1;
        let keys = fs::read(setup.path("state/keys.json")).ok();
        let gateway = start_again(&setup, &internet).with_context(|| format!("{point:?}"))?;
        ensure!(keys.is_none() || keys == fs::read(setup.path("state/keys.json")).ok());
        let outcome = gateway.stop()?;
        ensure!(outcome.code == Some(0), "{point:?}: {outcome:?}");
        unchanged(&before, &internet.gateway).with_context(|| format!("{point:?}"))?;
    }
    note(&format!(
        "{kills} kills; the last of each kind that there is not: {missed:?}"
    ));
    ensure!(kills >= 12, "only {kills} kills; {missed:?}");
    Ok(())
}

/// What may be in the state directory of a gateway that runs.
const KNOWN: [&str; 10] = [
    "adit0.journal",
    "audit.jsonl",
    "certificates.db",
    "certificates.db-journal",
    "certificates.db-shm",
    "certificates.db-wal",
    "keys.json",
    "leases.json",
    "revocation-lists.json",
    "usage.json",
];
/// For what takes a second on a machine that has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than the gateway makes calls of a kind.
const MOST: usize = 40;
