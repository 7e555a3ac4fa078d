//! What the client tells about itself.

use std::time::Instant;

use adit_core::range::shown_prefix;
use adit_core::status::{ClientStatus, Traffic};

use super::{Client, ClientState};
use crate::gateway::described;

impl Client {
    /// What `status` shows, as far as the engine knows it.
    #[must_use]
    pub fn status(&self, _now: Instant) -> ClientStatus {
        let (state, gateway) = match self.state() {
            ClientState::Resolving => ("resolving", None),
            ClientState::Dialing(gateway) => ("dialing", Some(gateway)),
            ClientState::Up(gateway) => ("up", Some(gateway)),
            ClientState::Waiting => ("waiting", None),
            ClientState::Stopped => ("stopped", None),
        };
        let facts = self.facts().map(|facts| described(Some(facts)));
        let (cipher, key_exchange) = facts.unzip();
        let assignment = self.assignment();
        let (shown, renewed) = self.certificates();
        ClientStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: state.to_owned(),
            gateway: gateway.map(|gateway| gateway.to_string()),
            addresses: assignment
                .map(|assignment| assignment.addresses.iter().map(shown_prefix).collect())
                .unwrap_or_default(),
            cipher,
            key_exchange,
            rtt_ms: self.rtt().map(|rtt| rtt.as_secs_f64() * 1e3),
            mtu: self.largest_packet(),
            certificate: Some(shown.clone()),
            renewed_certificate: renewed.cloned(),
            traffic: Traffic::from(self.counters()),
            ..ClientStatus::default()
        }
    }
}
