//! The command line.

use std::env;
use std::fmt::Display;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::link::Scenario;
use crate::measure::Group;
use crate::subject;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    /// How often every subject is measured.
    pub(crate) rounds: usize,
    /// The length of one transfer; whole seconds, because iperf3 knows no others.
    pub(crate) seconds: u64,
    /// Where every round goes.
    pub(crate) json: PathBuf,
    /// Links, in the order of measurement.
    pub(crate) scenarios: Vec<Scenario>,
    /// Names, in the order of measurement.
    pub(crate) subjects: Vec<&'static str>,
    /// What is measured.
    pub(crate) groups: Vec<Group>,
}

impl Options {
    /// Reads the arguments of the process.
    pub(crate) fn read() -> Result<Self> {
        let this = env::current_exe().context("cannot find the running program")?;
        let mut options = Self {
            rounds: 5,
            // Long enough for TCP's window to settle.
            seconds: 3,
            json: this.with_file_name("tunnel-bench.json"),
            scenarios: Scenario::ALL.to_vec(),
            subjects: subject::NAMES.to_vec(),
            groups: Group::ALL.to_vec(),
        };
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse::<usize>().context(name)?.max(1),
                "--seconds" => options.seconds = value.parse::<u64>().context(name)?.max(1),
                "--json" => options.json = value.into(),
                "--scenario" => options.scenarios = several(&name, &value, &Scenario::ALL)?,
                "--subject" => options.subjects = several(&name, &value, &subject::NAMES)?,
                "--measure" => options.groups = several(&name, &value, &Group::ALL)?,
                _ => bail!(
                    "{name} is unknown; there are --rounds, --seconds, --json, --scenario, --subject and --measure"
                ),
            }
        }
        Ok(options)
    }
}

/// Those of `all` that the comma-separated `value` names.
fn several<T: Copy + Display>(option: &str, value: &str, all: &[T]) -> Result<Vec<T>> {
    let one = |word: &str| {
        let found = all.iter().copied().find(|item| item.to_string() == word);
        found.with_context(|| {
            let names: Vec<String> = all.iter().map(ToString::to_string).collect();
            format!("{option} knows no {word}; there are {}", names.join(", "))
        })
    };
    value.split(',').map(one).collect()
}
