//! What Adit is to reach, in ratios to its peers or in absolute numbers.

use std::collections::BTreeMap;
use std::fmt;

use crate::link::Scenario;
use crate::measure::Measure;

/// How far a row came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not even the must.
    Missed,
    /// The must.
    Must,
    /// The goal too.
    Goal,
}

/// A row's must and goal; each may compare with several peers, and all that are there count.
#[derive(Debug)]
pub(crate) struct Target {
    must: Vec<Bar>,
    goal: Vec<Bar>,
}

#[derive(Clone, Copy, Debug)]
enum Bar {
    /// So many times what this peer has.
    Peer(&'static str, f64),
    /// So many times what the best peer has.
    Best(f64),
    /// A number of the row's unit.
    Value(f64),
}

impl Target {
    /// The target of a row; not every row has one.
    pub(crate) fn of(scenario: Scenario, measure: Measure) -> Option<Self> {
        use Bar::{Best, Peer, Value};
        let (must, goal) = match (measure, scenario) {
            (Measure::TcpUp | Measure::TcpDown | Measure::TcpBoth, Scenario::Gso) => (
                vec![Peer("wireguard-go", 1.5), Peer("quincy", 2.2)],
                vec![Peer("wireguard-go", 2.5), Peer("quincy", 3.5)],
            ),
            (Measure::TcpUp | Measure::TcpDown | Measure::TcpBoth, Scenario::Wire) => {
                (vec![Best(1.6)], vec![Best(2.5)])
            }
            (Measure::TcpUp | Measure::TcpDown | Measure::TcpBoth, Scenario::Nic) => {
                (vec![Peer("wireguard-go", 1.5)], vec![Best(2.5)])
            }
            (Measure::CpuUp, _) => (vec![Best(0.65)], vec![Best(0.45)]),
            (Measure::UdpLoss, _) => (vec![Value(0.1)], vec![Value(0.1)]),
            (Measure::UdpRate, _) => (vec![Peer("quincy", 1.3)], vec![Value(200.0)]),
            (Measure::RttIdle, _) => (vec![Value(0.20)], vec![Value(0.14)]),
            (Measure::RttLoadedMedian, Scenario::Gso) => (vec![Value(6.0)], vec![Value(1.5)]),
            (Measure::RttLoadedTail, Scenario::Gso) => (vec![Value(15.0)], vec![Value(4.0)]),
            (Measure::RttLoadedMedian | Measure::RttLoadedTail, _) => return None,
            (Measure::Connect, _) => (vec![Value(60.0)], vec![Value(25.0)]),
            (Measure::Memory, _) => (vec![Value(40.0)], vec![Value(15.0)]),
            (Measure::SwarmMemory, _) => (vec![Value(60.0)], vec![Value(20.0)]),
            // "No slowdown" within what two runs of the same differ by.
            (Measure::SwarmTcp, _) => (vec![Value(0.95)], vec![Value(0.95)]),
            (Measure::StormRate, _) => (vec![Value(600.0)], vec![Value(1200.0)]),
            (Measure::StormTail, _) => (vec![Value(5.0)], vec![Value(5.0)]),
            // Half of what arrives, within what two runs differ by.
            (Measure::FairShareUp | Measure::FairShareDown, _) => {
                (vec![Value(0.45)], vec![Value(0.5)])
            }
            // Most of it is the way out of the processor's idle state.
            (Measure::RttSlept, _) => return None,
            // What the flood's programs take of the processors is missing here, however fair the gateway is.
            (
                Measure::StormConnect
                | Measure::FairUp
                | Measure::FairDown
                | Measure::FairTailUp
                | Measure::FairTailDown,
                _,
            ) => return None,
        };
        Some(Self { must, goal })
    }

    /// Judges Adit's median beside the peers'; `None` where none of the peers it speaks of is there.
    pub(crate) fn verdict(
        &self,
        measure: Measure,
        adit: f64,
        peers: &BTreeMap<&str, f64>,
    ) -> Option<Verdict> {
        let reached = |bars: &[Bar]| {
            let limits = bars.iter().filter_map(|bar| bar.limit(measure, peers));
            let each: Vec<bool> = limits
                .map(|limit| {
                    if measure.more_is_better() {
                        adit >= limit
                    } else {
                        adit <= limit
                    }
                })
                .collect();
            (!each.is_empty()).then(|| each.into_iter().all(|reached| reached))
        };
        Some(match (reached(&self.must)?, reached(&self.goal)) {
            (false, _) => Verdict::Missed,
            (true, Some(true)) => Verdict::Goal,
            (true, _) => Verdict::Must,
        })
    }
}

impl Bar {
    fn limit(self, measure: Measure, peers: &BTreeMap<&str, f64>) -> Option<f64> {
        match self {
            Self::Peer(name, times) => peers.get(name).map(|value| value * times),
            Self::Best(times) => best(measure, peers).map(|value| value * times),
            Self::Value(value) => Some(value),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.must.iter().map(ToString::to_string).collect();
        f.write_str(&words.join(", "))
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(name, times) => write!(f, "{times} × {name}"),
            Self::Best(times) => write!(f, "{times} × best"),
            Self::Value(value) => write!(f, "{value}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missed => "**missed**",
            Self::Must => "must",
            Self::Goal => "goal",
        })
    }
}

/// What the best of the peers has.
pub(crate) fn best(measure: Measure, peers: &BTreeMap<&str, f64>) -> Option<f64> {
    let values = peers.values().copied();
    if measure.more_is_better() {
        values.max_by(f64::total_cmp)
    } else {
        values.min_by(f64::total_cmp)
    }
}
