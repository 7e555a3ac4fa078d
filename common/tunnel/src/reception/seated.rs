//! The sessions that engines have, and whose every prefix is.

use adit_core::admission::Grant;
use adit_core::identity::{Identity, Principal};
use adit_core::session::gateway::Scope;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;

use super::{Reception, ToEngine};
use crate::gateway::SessionId;
use crate::handover::Secret;

/// A session that an engine has, with what it takes to judge it again.
pub(super) struct Seated {
    pub(super) id: SessionId,
    pub(super) engine: u8,
    pub(super) identity: Identity,
    /// The client's certificates, leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// What the client limited its request to.
    pub(super) scope: Scope,
    pub(super) grant: Grant,
    /// What only the two ends of its link know.
    pub(super) secret: Option<Secret>,
    /// Whether its engine was told to end it.
    pub(super) dismissed: bool,
}

impl Reception {
    /// Tells everybody that a session is on its engine with its prefixes, but for that engine itself.
    pub(super) fn seat(&mut self, principal: Principal, seated: Seated) {
        self.claim(seated.id, seated.engine, &seated.grant.addresses);
        self.schedule(&principal, &seated.grant);
        self.sessions.insert(principal, seated);
    }

    /// The session of a principal goes on as this one: whatever both have is never nobody's.
    pub(super) fn reseat(&mut self, principal: Principal, seated: Seated) {
        let before = self.sessions.remove(&principal);
        self.seat(principal, seated);
        if let Some(before) = before {
            self.renounce(before.id, before.engine, &before.grant.addresses);
        }
    }

    /// Takes back what [`Self::seat`] told. A session that replaces another is told of only afterwards, so
    /// that the end of the old one never takes what belongs to the new.
    pub(super) fn unseat(&mut self, principal: &Principal) -> Option<Seated> {
        let seated = self.sessions.remove(principal)?;
        self.timetable.remove(principal);
        self.renounce(seated.id, seated.engine, &seated.grant.addresses);
        Some(seated)
    }

    /// These prefixes are the session's from now on, whosever they were.
    pub(super) fn claim(&mut self, session: SessionId, engine: u8, prefixes: &[IpNet]) {
        for prefix in prefixes {
            self.prefixes.insert(*prefix, session);
        }
        for neighbour in self.seats.engines().filter(|&other| other != engine) {
            let prefixes = prefixes.to_vec();
            let message = ToEngine::Neighbour { prefixes, engine };
            self.messages.push_back((neighbour, message));
        }
    }

    /// These prefixes are the session's no more; what is another's meanwhile stays that one's.
    pub(super) fn renounce(&mut self, session: SessionId, engine: u8, prefixes: &[IpNet]) {
        let mut own = prefixes.to_vec();
        own.retain(|prefix| self.prefixes.get(prefix) == Some(&session));
        if own.is_empty() {
            return;
        }
        for prefix in &own {
            self.prefixes.remove(prefix);
        }
        for neighbour in self.seats.engines().filter(|&other| other != engine) {
            let prefixes = own.clone();
            let message = ToEngine::NeighbourGone { prefixes, engine };
            self.messages.push_back((neighbour, message));
        }
    }
}
