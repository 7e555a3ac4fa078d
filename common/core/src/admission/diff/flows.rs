//! How many flows a difference costs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Difference;

/// Flows that end, of those that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLoss {
    /// Those that end, each when its next packet comes.
    pub ending: usize,
    /// All.
    pub open: usize,
}

impl Difference {
    /// Adds what the engines say: for each principal whose session ends or changes, and how many flows there
    /// are in all sessions.
    pub fn tell_flows(&mut self, by_principal: &BTreeMap<String, FlowLoss>, open: usize) {
        let mut ending = 0;
        let mut loss = |principal: &str| {
            let loss = by_principal.get(principal).copied()?;
            ending += loss.ending;
            Some(loss)
        };
        for ended in &mut self.ended {
            ended.flows = loss(&ended.principal);
        }
        for changed in &mut self.changed {
            changed.flows = loss(&changed.principal);
        }
        self.flows = Some(FlowLoss { ending, open });
    }
}

impl fmt::Display for FlowLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ending, open } = self;
        let flows = if *open == 1 { "flow" } else { "flows" };
        let end = if *ending == 1 { "ends" } else { "end" };
        write!(f, "{ending} of {open} {flows} {end}")
    }
}
