//! What the gateway tells about itself.

use std::time::Instant;

use adit_core::dataplane::Counters;
use adit_core::range::shown_prefix;
use adit_core::status::{
    CertificateStatus, GatewayStatus, RuleTexts, SessionStatus, Traffic, rules_traffic,
};

use super::Gateway;
use super::session::Session;
use crate::links::Key;
use crate::path::Ipv6;
use crate::tls::HandshakeFacts;

/// How much of everything there is; all zero when nothing is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// QUIC connections in any state.
    pub connections: usize,
    /// Admitted sessions.
    pub sessions: usize,
    /// Connections in their handshake.
    pub handshakes: usize,
    /// Prefixes that belong to a session, of this engine or another.
    pub prefixes: usize,
}

impl Census {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Gateway {
    /// Counts what there is.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            connections: self.links.len(),
            sessions: self.by_id.len(),
            handshakes: 0,
            prefixes: self.owners.len(),
        }
    }

    /// Everything that passed since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut all = self.totals.clone();
        for session in self.sessions.iter().flatten() {
            all.add(&session.counters);
        }
        all
    }

    /// What `status` shows.
    #[must_use]
    pub fn status(&self, now: Instant) -> GatewayStatus {
        let mut rules = RuleTexts::new();
        let mut sessions: Vec<SessionStatus> = self
            .sessions
            .iter()
            .enumerate()
            .filter_map(|(key, session)| self.session_status(key, session.as_ref()?, &mut rules))
            .collect();
        sessions.sort_by_key(|session| session.id);
        GatewayStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: String::new(),
            now: self.epoch.unix(now),
            sessions,
            rules,
            connections: self.links.len(),
            total: Traffic::from(&self.counters()),
            refused_by_device: 0,
            warnings: Vec::new(),
        }
    }

    fn session_status(
        &self,
        key: Key,
        session: &Session,
        rules: &mut RuleTexts,
    ) -> Option<SessionStatus> {
        let link = self.links.get(key)?;
        let (cipher, key_exchange) = described(link.facts());
        Some(SessionStatus {
            id: session.id.0,
            principal: session.grant.principal.to_string(),
            groups: session.grant.groups.clone(),
            addresses: session.grant.addresses.iter().map(shown_prefix).collect(),
            ipv6: session.ipv6 == Ipv6::Fits,
            remote: link.connection.remote_address().to_string(),
            user_agent: session.user_agent.as_ref().map(ToString::to_string),
            since: session.since_unix,
            ends: session.term.ends(),
            certificate: CertificateStatus {
                serial: session.identity.serial.clone(),
                authority: session.identity.authority.clone(),
                not_after: session.identity.not_after,
            },
            cipher,
            key_exchange,
            rtt_ms: link.connection.rtt().as_secs_f64() * 1e3,
            mtu: session.mtu.largest_packet(),
            flows: session.flows.len(),
            traffic: Traffic::from(&session.counters),
            rules: rules_traffic(&session.accounts(), rules),
        })
    }
}

/// Cipher and group by their registered names.
pub(crate) fn described(facts: Option<HandshakeFacts>) -> (String, String) {
    let facts = facts.unwrap_or(HandshakeFacts {
        cipher: None,
        group: None,
    });
    let name = |known: Option<String>| known.unwrap_or_else(|| "unknown".to_owned());
    (
        name(facts.cipher.map(|cipher| format!("{cipher:?}"))),
        name(facts.group.map(|group| format!("{group:?}"))),
    )
}
