//! What `status` shows, as plain data and as text for people.
//!
//! Core types are not serialised; these are made from them, so that the JSON an operator's scripts
//! read does not change with the inside of the program.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod rules;
mod text;
mod usage;

pub use rules::{RuleTexts, RuleTraffic, RulesTraffic, rules_traffic};
pub use text::{render_client, render_gateway};
pub use usage::{Account, RuleUsage, Usage, render_rules};

/// The gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Version of the program.
    pub version: String,
    /// Where it listens.
    pub listen: String,
    /// Seconds since 1970 when this was true.
    pub now: i64,
    /// Sessions in the order they were opened.
    pub sessions: Vec<SessionStatus>,
    /// What the rules say that sessions have used, by name.
    #[serde(default)]
    pub rules: RuleTexts,
    /// QUIC connections in any state, those still in their handshake included.
    pub connections: usize,
    /// Packets that had passed, and that the TUN device then refused.
    #[serde(default)]
    pub refused_by_device: u64,
    /// Everything since the start, ended sessions and packets without a session included.
    pub total: Traffic,
    /// What an operator should do something about.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its number.
    pub id: u64,
    /// Whose it is.
    pub principal: String,
    /// Groups of certificate and policy.
    pub groups: Vec<String>,
    /// Inner addresses, then site networks.
    pub addresses: Vec<String>,
    /// Whether IPv6 is given; `false` while the path carries less than 1280 bytes.
    pub ipv6: bool,
    /// The client's outer address.
    pub remote: String,
    /// What the client says about itself.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// Seconds since 1970 when it opened.
    pub since: i64,
    /// Seconds since 1970 when it ends at the latest: with the first certificate of its chain, or by the session
    /// maximum if it does not move to another connection before.
    #[serde(default)]
    pub ends: i64,
    /// The client's certificate.
    pub certificate: CertificateStatus,
    /// The record cipher.
    pub cipher: String,
    /// The key-exchange group.
    pub key_exchange: String,
    /// Smoothed round-trip time in milliseconds.
    pub rtt_ms: f64,
    /// The largest inner packet, in bytes.
    pub mtu: usize,
    /// Flows that are open.
    #[serde(default)]
    pub flows: usize,
    /// What passed.
    pub traffic: Traffic,
    /// What passed by each rule.
    #[serde(default)]
    pub rules: RulesTraffic,
}

/// A client's certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Which authority vouches.
    pub authority: String,
    /// Last second of validity, since 1970.
    pub not_after: i64,
}

/// A client's own certificate, as it is told without knowing its authority's rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Last second of its chain's validity, since 1970: the session's deadline.
    pub not_after: i64,
}

/// Packets and bytes, seen from the client.
///
/// Nothing gets lost between the fields: `packets_from_client` + `packets_for_client` =
/// `sent_packets` + `received_packets` + `answered_packets` + the sum of `drops`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets that came from the client, whatever became of them.
    pub packets_from_client: u64,
    /// Packets that came for the client, whatever became of them.
    pub packets_for_client: u64,
    /// Packets from the client that went on.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets that went on to the client.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets answered with ICMP.
    pub answered_packets: u64,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// The client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Version of the program.
    pub version: String,
    /// `resolving`, `dialing`, `up`, `waiting` or `stopped`.
    pub state: String,
    /// The gateway's outer address, while there is one.
    pub gateway: Option<String>,
    /// Why the last attempt or session ended.
    pub last_error: Option<String>,
    /// The TUN device.
    pub interface: String,
    /// Assigned addresses.
    pub addresses: Vec<String>,
    /// Routes through the tunnel.
    pub routes: Vec<String>,
    /// The record cipher.
    pub cipher: Option<String>,
    /// The key-exchange group.
    pub key_exchange: Option<String>,
    /// Smoothed round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The largest inner packet, in bytes.
    pub mtu: Option<usize>,
    /// Packets that had passed, and that the TUN device then refused.
    #[serde(default)]
    pub refused_by_device: u64,
    /// The certificate of the present session, or of the next one while there is none.
    #[serde(default)]
    pub certificate: Option<ClientCertificate>,
    /// A renewed certificate that the session has not moved to yet.
    #[serde(default)]
    pub renewed_certificate: Option<ClientCertificate>,
    /// Why it has not.
    #[serde(default)]
    pub renewal_error: Option<String>,
    /// Seconds since 1970.
    #[serde(default)]
    pub now: i64,
    /// What passed since the start.
    pub traffic: Traffic,
}

impl GatewayStatus {
    /// Adds what another engine of the same gateway tells.
    pub fn add(&mut self, other: Self) {
        self.sessions.extend(other.sessions);
        self.sessions.sort_by_key(|session| session.id);
        self.rules.extend(other.rules);
        self.connections += other.connections;
        self.refused_by_device += other.refused_by_device;
        self.total.add(&other.total);
    }
}

impl Traffic {
    /// Adds what passed elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.packets_from_client += other.packets_from_client;
        self.packets_for_client += other.packets_for_client;
        self.sent_packets += other.sent_packets;
        self.sent_bytes += other.sent_bytes;
        self.received_packets += other.received_packets;
        self.received_bytes += other.received_bytes;
        self.answered_packets += other.answered_packets;
        for (reason, count) in &other.drops {
            *self.drops.entry(reason.clone()).or_default() += count;
        }
    }
}

impl From<&crate::dataplane::Counters> for Traffic {
    fn from(counters: &crate::dataplane::Counters) -> Self {
        Self {
            packets_from_client: counters.from_client.packets_in(),
            packets_for_client: counters.to_client.packets_in(),
            sent_packets: counters.from_client.forwarded(),
            sent_bytes: counters.from_client.forwarded_bytes(),
            received_packets: counters.to_client.forwarded(),
            received_bytes: counters.to_client.forwarded_bytes(),
            answered_packets: counters.from_client.replied() + counters.to_client.replied(),
            drops: counters.drops(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{Counters, DropReason};

    #[test]
    fn the_engines_together_list_every_session_once_in_its_order() {
        let engine = |ids: &[u64], connections| GatewayStatus {
            sessions: ids
                .iter()
                .map(|&id| SessionStatus {
                    id,
                    ..SessionStatus::default()
                })
                .collect(),
            connections,
            refused_by_device: 1,
            total: Traffic {
                sent_packets: 10,
                ..Traffic::default()
            },
            ..GatewayStatus::default()
        };
        let mut status = engine(&[1, 4], 3);
        status.add(engine(&[], 0));
        status.add(engine(&[2, 3], 2));
        let ids: Vec<u64> = status.sessions.iter().map(|session| session.id).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        assert_eq!((status.connections, status.refused_by_device), (5, 3));
        assert_eq!(status.total.sent_packets, 30);
    }

    #[test]
    fn what_came_in_is_what_went_on_was_answered_or_was_dropped() {
        let mut counters = Counters::default();
        counters.from_client.forward(100);
        counters.from_client.reply();
        counters.from_client.drop(DropReason::Malformed);
        counters.to_client.forward(60);
        counters.to_client.drop(DropReason::NoRoute);
        let traffic = Traffic::from(&counters);
        assert_eq!(
            (traffic.packets_from_client, traffic.packets_for_client),
            (3, 2)
        );
        let gone = traffic.sent_packets + traffic.received_packets + traffic.answered_packets;
        assert_eq!(gone + traffic.drops.values().sum::<u64>(), 5);
    }
}
