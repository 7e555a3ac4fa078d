//! One gateway and many clients: a thousand idle ones, two thousand that connect at once, and one that
//! floods the path of another.
//!
//! ```text
//!  client namespace ═══ gateway namespace ═══ neighbour namespace
//!  the measured client                        the swarm, or the flood's client
//! ```
//!
//! Every round has a gateway of its own: memory that was used once is not given back, and would hide what the
//! next thousand sessions take. Everything shares one machine, so the swarm's thread has a lower priority than
//! the gateway; its arithmetic still delays what is measured, which counts against Adit.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use adit_tests::lab::internet::OFFICE_V4;
use adit_tests::probe::ping::Ping;
use adit_tests::probe::throughput::Direction;
use adit_tests::probe::{cpu, memory};
use adit_tests::programs::{Client, Gateway, PORT, Programs, Setup};
use adit_tests::swarm::{Roster, Swarm};
use anyhow::{Context, Result, ensure};

use crate::link::{Link, NEIGHBOURS_GATEWAY, Scenario};
use crate::load::Load;
use crate::measure::{Group, Measure, milliseconds, quantile};
use crate::one_line;
use crate::options::Options;
use crate::report::Report;

/// All rounds of the groups that are about many clients.
pub(crate) fn run(
    programs: &Programs,
    options: &Options,
    load: &Load,
    scenario: Scenario,
    groups: &[Group],
    report: &mut Report,
) {
    for round in 1..=options.rounds {
        for &group in groups {
            eprintln!("{scenario}: {group}, round {round} of {}", options.rounds);
            let values = Bed::start(programs, scenario, group)
                .and_then(|mut bed| bed.measure(group, load, options.seconds));
            match values {
                Ok(values) => {
                    for (measure, value) in &values {
                        eprintln!("    {}: {value:.3}", measure.label());
                    }
                    report.add(scenario, "adit", &values);
                }
                Err(error) => report.failure(format!(
                    "{scenario}: {group} of adit, round {round}: {}",
                    one_line(&error)
                )),
            }
        }
    }
}

/// A gateway with room for many, one client that is connected, and a link for the others.
struct Bed {
    // Processes before the directory they work in: fields are dropped in this order.
    _client: Client,
    gateway: Gateway,
    link: Link,
    neighbour: Link,
    roster: Roster,
    setup: Setup,
}

impl Bed {
    fn start(programs: &Programs, scenario: Scenario, group: Group) -> Result<Self> {
        let setup = Setup::new(programs)?;
        Roster::enlarge(&setup, POLICY)?;
        let size = match group {
            Group::Swarm => IDLE,
            Group::Storm => STORM,
            _ => 0,
        };
        let roster = Roster::new(&setup, size, "staff")?;
        let link = Link::new(scenario)?;
        let neighbour = link.neighbour()?;
        link.gateway.add_address("lo", OFFICE_V4.into())?;
        let gateway = setup.start_gateway(&link.gateway)?;
        let profile = setup.profile("alice@example.com", &["staff"])?;
        let client = setup.connect(&link.client, &profile)?;
        let bed = Self {
            _client: client,
            gateway,
            link,
            neighbour,
            roster,
            setup,
        };
        // Path MTU discovery ends before the first measurement.
        Ping::to(OFFICE_V4)
            .count(50)
            .every(PACE)
            .run(&bed.link.client)?;
        Ok(bed)
    }

    fn measure(&mut self, group: Group, load: &Load, seconds: u64) -> Result<Vec<(Measure, f64)>> {
        let values = match group {
            Group::Swarm => self.idle(load, seconds),
            Group::Storm => self.storm(),
            _ => self.fair(load, seconds),
        };
        // That the gateway is gone says more than what the load makes of it.
        self.gateway.process().still_runs()?;
        values
    }

    fn idle(&mut self, load: &Load, seconds: u64) -> Result<Vec<(Measure, f64)>> {
        // Long ones: two of two seconds differ by more than is looked for.
        let tcp = |link: &Link| load.tcp(link, OFFICE_V4, Direction::Up, 1, 3 * seconds);
        // What a single session at full speed needs is not the thousand's.
        tcp(&self.link)?;
        let before = tcp(&self.link)?.gbit_per_second;
        let memory = self.memory()?;
        let swarm = self.swarm(IDLE, GENTLE)?;
        swarm.wait(PATIENCE)?;
        // Path MTU discovery, and what of IPv6 waits for it, are over then.
        thread::sleep(SETTLE);
        let more = self.memory()? - memory;
        let beside = tcp(&self.link)?.gbit_per_second;
        let outcome = swarm.stop()?;
        ensure!(outcome.lost == 0, "{} sessions were lost", outcome.lost);
        thread::sleep(SETTLE);
        let after = tcp(&self.link)?.gbit_per_second;
        eprintln!("    {before:.2}, {beside:.2} with the idle sessions, {after:.2} Gbit/s");
        Ok(vec![
            (Measure::SwarmMemory, more / 1e6),
            (Measure::SwarmTcp, beside / f64::midpoint(before, after)),
        ])
    }

    fn storm(&mut self) -> Result<Vec<(Measure, f64)>> {
        let ping = Ping::to(OFFICE_V4).every(PACE);
        let quiet = ping.clone().count(QUIET).run(&self.link.client)?;
        let quiet = milliseconds(quiet.round_trips);
        let pid = self.gateway.process().pid();
        let before = cpu::used(pid);
        let running = ping.start(&self.link.client)?;
        let swarm = self.swarm(STORM, STORM)?;
        let arrived = swarm.wait(PATIENCE);
        let used = cpu::used(pid).saturating_sub(before);
        let stormy = milliseconds(running.stop()?.round_trips);
        let (arrived, outcome) = (arrived?, swarm.stop()?);
        ensure!(
            !quiet.is_empty() && !stormy.is_empty(),
            "no ping was answered"
        );
        let tails = [&quiet, &stormy].map(|times| [0.5, 0.99].map(|part| quantile(times, part)));
        eprintln!(
            "    {STORM} handshakes in {:.2?} with {:.2?} of the gateway's CPU time and {} failed attempts; \
             RTT p50/p99 {:.2}/{:.2} before, {:.2}/{:.2} ms meanwhile",
            arrived.all, used, outcome.lost, tails[0][0], tails[0][1], tails[1][0], tails[1][1],
        );
        let connect = milliseconds(arrived.each);
        Ok(vec![
            (Measure::StormRate, STORM as f64 / used.as_secs_f64()),
            (Measure::StormConnect, quantile(&connect, 0.99)),
            (Measure::StormTail, tails[1][1] - tails[0][1]),
        ])
    }

    fn fair(&mut self, load: &Load, seconds: u64) -> Result<Vec<(Measure, f64)>> {
        let there = [SocketAddr::new(NEIGHBOURS_GATEWAY, PORT)];
        let profile = self
            .setup
            .profile_towards("bob@example.com", &["staff"], &there)?;
        let neighbour = self.setup.connect(&self.neighbour.client, &profile)?;
        let mut values = Vec::new();
        for (direction, kept, share, tail) in [
            (
                Direction::Up,
                Measure::FairUp,
                Measure::FairShareUp,
                Measure::FairTailUp,
            ),
            (
                Direction::Down,
                Measure::FairDown,
                Measure::FairShareDown,
                Measure::FairTailDown,
            ),
        ] {
            let tcp = |seconds| load.tcp(&self.link, OFFICE_V4, direction, 1, seconds);
            let before = tcp(seconds)?.gbit_per_second;
            let (beside, flood, pings) = thread::scope(|scope| {
                // Begins before and ends after the stream.
                let flood =
                    scope.spawn(|| load.flood(&self.neighbour, OFFICE_V4, direction, seconds + 3));
                thread::sleep(Duration::from_secs(1));
                let running = Ping::to(OFFICE_V4).every(PACE).start(&self.link.client)?;
                let beside = tcp(seconds);
                let pings = running.stop();
                let flood = flood.join().expect("a load does not panic");
                // The path of whoever floods can shrink below what it sends; then its status says so.
                let flood = flood.with_context(|| format!("{:?}", neighbour.status()));
                Ok::<_, anyhow::Error>((beside?.gbit_per_second, flood?, pings?))
            })?;
            let after = tcp(seconds)?.gbit_per_second;
            let pings = milliseconds(pings.round_trips);
            ensure!(!pings.is_empty(), "no ping was answered");
            eprintln!(
                "    {before:.2}, {beside:.2} beside a flood of which {flood:.2} arrive, {after:.2} Gbit/s"
            );
            values.extend([
                (kept, beside / f64::midpoint(before, after)),
                (share, beside / (beside + flood)),
                (tail, quantile(&pings, 0.99)),
            ]);
        }
        neighbour.stop()?;
        Ok(values)
    }

    fn swarm(&self, size: usize, at_once: usize) -> Result<Swarm> {
        let gateway = SocketAddr::new(NEIGHBOURS_GATEWAY, PORT);
        Swarm::start(&self.neighbour.client, &self.roster, size, gateway, at_once)
    }

    /// Of the gateway, in bytes.
    fn memory(&mut self) -> Result<f64> {
        let pid = self.gateway.process().pid();
        let bytes = memory::resident(pid).context("the gateway is gone")?;
        Ok(bytes as f64)
    }
}

/// As [`adit_tests::programs::POLICY`], with a larger pool.
const POLICY: &str = r#"
[pool]
v4 = "10.99.0.0/16"
v6 = "fd00:ad17::/64"

[[allow]]
who = ["group:staff"]
to = ["10.0.0.0/16", "fd00:1::/64"]
"#;

/// Sessions that do nothing.
const IDLE: usize = 1000;
/// So many of them connect at once: below what makes the gateway ask for proof of an address.
const GENTLE: usize = 32;
/// Handshakes at once.
const STORM: usize = 2000;

/// Between pings: often enough that two seconds give a worst per cent.
const PACE: Duration = Duration::from_millis(5);
/// As many pings as a storm lasts, about.
const QUIET: u16 = 500;

/// A search for the path MTU takes a few round trips, its last probe some timeouts.
const SETTLE: Duration = Duration::from_secs(3);
/// Two thousand handshakes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
