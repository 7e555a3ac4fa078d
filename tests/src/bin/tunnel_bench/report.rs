//! The figures of all rounds, as a Markdown table of medians and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::link::Scenario;
use crate::load::Load;
use crate::machine;
use crate::measure::Measure;
use crate::options::Options;
use crate::subject::Subject;
use crate::target::{Target, best};

/// Everything measured so far.
#[derive(Debug)]
pub(crate) struct Report {
    /// Of the machine, before the first measurement.
    load_average: f64,
    failures: Vec<String>,
    /// Names and versions, in the order of measurement.
    subjects: Vec<(&'static str, String)>,
    rows: BTreeMap<(Scenario, Measure), BTreeMap<&'static str, Vec<f64>>>,
}

impl Report {
    /// An empty one.
    pub(crate) fn new(load_average: f64) -> Self {
        Self {
            load_average,
            failures: Vec::new(),
            subjects: Vec::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Says what could not be measured, and keeps it: a missing figure has a reason.
    pub(crate) fn failure(&mut self, text: String) {
        eprintln!("{text}");
        self.failures.push(text);
    }

    /// Takes note of a subject.
    pub(crate) fn subject(&mut self, subject: &dyn Subject) {
        let name = subject.name();
        if self.subjects.iter().all(|(known, _)| *known != name) {
            self.subjects.push((name, subject.version()));
        }
    }

    /// Takes the figures of one round.
    pub(crate) fn add(
        &mut self,
        scenario: Scenario,
        subject: &'static str,
        values: &[(Measure, f64)],
    ) {
        for &(measure, value) in values {
            let row = self.rows.entry((scenario, measure)).or_default();
            row.entry(subject).or_default().push(value);
        }
    }

    /// The table for people.
    pub(crate) fn markdown(&self, options: &Options, load: &Load) -> String {
        let mut text = format!(
            "{}, {} CPUs, Linux {}, load average {:.2} before; medians of {} interleaved rounds of {} s; load: {}\n\n",
            machine::processor(),
            machine::cpus(),
            machine::kernel(),
            self.load_average,
            options.rounds,
            options.seconds,
            load.name(),
        );
        for (name, version) in &self.subjects {
            let _ = writeln!(text, "- {name}: {version}");
        }
        text.push_str("\n| link | measure |");
        for (name, _) in &self.subjects {
            let _ = write!(text, " {name} |");
        }
        text.push_str(" Adit / best peer | / wireguard-go | / quincy | must | reached |\n");
        text.push_str("| --- | --- |");
        text.push_str(&" ---: |".repeat(self.subjects.len() + 3));
        text.push_str(" --- | --- |\n");
        for (&(scenario, measure), row) in &self.rows {
            let medians = medians(row);
            let _ = write!(text, "| {scenario} | {} |", measure.label());
            for (name, _) in &self.subjects {
                let cell = medians.get(name).map(|value| figure(*value));
                let _ = write!(text, " {} |", or_dash(cell));
            }
            let comparison = Comparison::of(scenario, measure, &medians);
            for ratio in comparison.ratios() {
                let _ = write!(text, " {} |", or_dash(ratio.1.map(figure)));
            }
            let target = Target::of(scenario, measure).map(|target| target.to_string());
            let _ = writeln!(
                text,
                " {} | {} |",
                or_dash(target),
                or_dash(comparison.verdict)
            );
        }
        if !self.failures.is_empty() {
            text.push_str("\nNot measured:\n\n");
            for failure in &self.failures {
                let _ = writeln!(text, "- {failure}");
            }
        }
        text
    }

    /// Every round, for programs.
    pub(crate) fn json(&self, options: &Options, load: &Load) -> Result<Value> {
        let rows = self.rows.iter().map(|(&(scenario, measure), row)| {
            let medians = medians(row);
            let comparison = Comparison::of(scenario, measure, &medians);
            let subjects: Map<String, Value> = row
                .iter()
                .map(|(name, rounds)| {
                    let value = json!({ "median": medians[name], "rounds": rounds });
                    ((*name).to_owned(), value)
                })
                .collect();
            let ratios: Map<String, Value> = comparison
                .ratios()
                .into_iter()
                .map(|(name, ratio)| (name.to_owned(), json!(ratio)))
                .collect();
            json!({
                "scenario": scenario.to_string(),
                "measure": measure.key(),
                "more_is_better": measure.more_is_better(),
                "subjects": subjects,
                "adit_to": ratios,
                "reached": comparison.verdict.map(|text| text.replace('*', "")),
            })
        });
        let versions: Map<String, Value> = self
            .subjects
            .iter()
            .map(|(name, version)| ((*name).to_owned(), json!(version)))
            .collect();
        Ok(json!({
            "unix_time": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            "processor": machine::processor(),
            "cpus": machine::cpus(),
            "kernel": machine::kernel(),
            "load_average_before": self.load_average,
            "rounds": options.rounds,
            "seconds_per_measurement": options.seconds,
            "load": load.name(),
            "versions": versions,
            "failures": self.failures,
            "rows": rows.collect::<Vec<Value>>(),
        }))
    }
}

/// Adit beside its peers in one row.
struct Comparison {
    best: Option<f64>,
    wireguard_go: Option<f64>,
    quincy: Option<f64>,
    verdict: Option<String>,
}

impl Comparison {
    fn of(scenario: Scenario, measure: Measure, medians: &BTreeMap<&str, f64>) -> Self {
        let mut peers = medians.clone();
        // No peer: it does not encrypt.
        peers.remove("plain");
        let adit = peers.remove("adit");
        let ratio = |peer: Option<f64>| Some(adit? / peer?).filter(|ratio| ratio.is_finite());
        let verdict = adit.and_then(|adit| {
            let target = Target::of(scenario, measure)?;
            Some(target.verdict(measure, adit, &peers)?.to_string())
        });
        Self {
            best: ratio(best(measure, &peers)),
            wireguard_go: ratio(peers.get("wireguard-go").copied()),
            quincy: ratio(peers.get("quincy").copied()),
            verdict,
        }
    }

    fn ratios(&self) -> [(&'static str, Option<f64>); 3] {
        [
            ("best_peer", self.best),
            ("wireguard-go", self.wireguard_go),
            ("quincy", self.quincy),
        ]
    }
}

fn medians<'a>(row: &BTreeMap<&'a str, Vec<f64>>) -> BTreeMap<&'a str, f64> {
    row.iter()
        .map(|(name, rounds)| (*name, median(rounds.clone())))
        .collect()
}

/// The middle value, of an even number the mean of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
    f64::midpoint(values[low], values[high])
}

/// Three digits that mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}
