//! `cargo tunnel-bench`: Adit and every userspace VPN found on PATH, side by side on this machine.
//!
//! ```text
//!  client namespace ══ one veth pair ══ gateway namespace        a pair for each subject
//!   load · tunnel                        tunnel · load
//! ```
//!
//! Both ends, the load and every subject share one machine, so figures compare subjects of one run and
//! nothing else. Each round measures every subject once, one after the other; what is printed are
//! medians over the rounds, what is written as JSON is every round. The link comes in three scenarios
//! ([`link::Scenario`]); rows that hardly depend on it are measured in the first one asked for.
//!
//! ```text
//! cargo tunnel-bench -- [--rounds 5] [--seconds 3] [--json FILE] [--scenario gso,wire,nic]
//!     [--subject plain,adit,wireguard-go,…] [--measure tcp,bidir,udp,rtt,connect,rss,swarm,storm,fair]
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod link;
mod load;
mod machine;
mod many;
mod measure;
mod options;
mod report;
mod subject;
mod target;

use std::fs;
use std::process::ExitCode;

use adit_tests::lab;
use adit_tests::lab::enter::tun_obstacle;
use adit_tests::programs::{self, Programs};
use anyhow::{Context, Result, bail};

use link::Scenario;
use load::Load;
use measure::{Bed, Group};
use options::Options;
use report::Report;

fn main() -> ExitCode {
    match Options::read().and_then(|options| bench(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    if let Some(reason) = tun_obstacle() {
        bail!(reason);
    }
    let programs = programs::build()?;
    lab::enter()?;
    let load = Load::find();
    let mut report = Report::new(machine::load_average());
    for (number, &scenario) in options.scenarios.iter().enumerate() {
        let groups: Vec<Group> = options
            .groups
            .iter()
            .copied()
            .filter(|group| number == 0 || group.depends_on_link())
            .collect();
        let (of_adit, of_all): (Vec<Group>, Vec<Group>) = groups
            .iter()
            .partition(|group| Group::OF_ADIT.contains(group));
        if !of_all.is_empty() {
            run(&programs, options, &load, scenario, &of_all, &mut report)?;
        }
        if options.subjects.contains(&"adit") {
            many::run(&programs, options, &load, scenario, &of_adit, &mut report);
        }
    }
    println!("{}", report.markdown(options, &load));
    let text = serde_json::to_string_pretty(&report.json(options, &load)?)?;
    fs::write(&options.json, text + "\n")
        .with_context(|| format!("cannot write {}", options.json.display()))?;
    println!("Every round is in {}", options.json.display());
    Ok(())
}

/// All rounds of one scenario, with every subject started anew for it.
fn run(
    programs: &Programs,
    options: &Options,
    load: &Load,
    scenario: Scenario,
    groups: &[Group],
    report: &mut Report,
) -> Result<()> {
    let mut beds = Vec::new();
    for name in &options.subjects {
        match start(name, programs, scenario) {
            Ok(bed) => {
                report.subject(bed.subject());
                beds.push(bed);
            }
            Err(error) => report.failure(format!(
                "{scenario}: {name} is left out: {}",
                one_line(&error)
            )),
        }
    }
    // What takes the client down comes after what wants it to have lived for long.
    for phase in [Group::BEFORE_MEMORY, &[Group::Rss], &[Group::Connect]] {
        let phase: Vec<Group> = phase
            .iter()
            .copied()
            .filter(|group| groups.contains(group))
            .collect();
        let rounds = if phase == [Group::Rss] {
            1
        } else {
            options.rounds
        };
        for round in 1..=rounds {
            for &group in &phase {
                eprintln!("{scenario}: {group}, round {round} of {rounds}");
                for bed in &mut beds {
                    let name = bed.subject().name();
                    match bed.measure(group, load, options.seconds) {
                        Ok(values) => report.add(scenario, name, &values),
                        Err(error) => {
                            report.failure(format!(
                                "{scenario}: {group} of {name}, round {round}: {}",
                                one_line(&error)
                            ));
                            // The next round shall not suffer for what ended in this one.
                            if bed.alive().is_err()
                                && let Ok(another) = start(name, programs, scenario)
                            {
                                *bed = another;
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// A subject that runs and answers.
fn start(name: &str, programs: &Programs, scenario: Scenario) -> Result<Bed> {
    match subject::find(name, programs)? {
        Some(subject) => Bed::start(scenario, subject),
        None => bail!("not on PATH"),
    }
}

/// The whole chain without line breaks: a peer's failure is a remark, no disaster.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}
