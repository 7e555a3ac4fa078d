//! What rules have let pass, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::flow::{RuleAccounts, Totals};

/// What one rule has let pass, seen from the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTraffic {
    /// Flows that it let begin.
    pub flows: u64,
    /// Packets from the client.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets to the client.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

/// Names of rules with what each says.
pub type RuleTexts = BTreeMap<String, String>;

/// Names of rules with what each has let pass.
pub type RulesTraffic = BTreeMap<String, RuleTraffic>;

impl RuleTraffic {
    /// Adds what passed elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.sent_packets += other.sent_packets;
        self.sent_bytes += other.sent_bytes;
        self.received_packets += other.received_packets;
        self.received_bytes += other.received_bytes;
    }
}

impl From<&Totals> for RuleTraffic {
    fn from(totals: &Totals) -> Self {
        Self {
            flows: totals.flows,
            sent_packets: totals.from_client.packets,
            sent_bytes: totals.from_client.bytes,
            received_packets: totals.to_client.packets,
            received_bytes: totals.to_client.bytes,
        }
    }
}

/// The accounts of a session as plain data. What the rules say is added to `texts`, where many sessions
/// with the same rules have it once.
#[must_use]
pub fn rules_traffic(accounts: &RuleAccounts, texts: &mut RuleTexts) -> RulesTraffic {
    let mut traffic = RulesTraffic::new();
    for (name, account) in accounts.iter() {
        if !texts.contains_key(name) {
            texts.insert(name.to_owned(), account.rule.to_string());
        }
        traffic.insert(name.to_owned(), RuleTraffic::from(&account.totals));
    }
    traffic
}
