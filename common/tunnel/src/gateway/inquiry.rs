//! What an operator asks about sessions and their flows.

use std::collections::BTreeMap;
use std::time::Instant;

use adit_core::admission::diff::FlowLoss;
use adit_core::flow::FlowReport;
use adit_core::identity::Principal;
use adit_core::policy::{Decision, Flow};
use adit_core::session::Assignment;

use super::{Gateway, SessionInfo};
use crate::reception::Stake;

/// The question.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// Whose session.
    pub principal: Principal,
    /// The first packet of the flow.
    pub flow: Flow,
}

/// What the session's engine knows.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The session.
    pub session: SessionInfo,
    /// When it ends at the latest, in seconds since 1970.
    pub ends: i64,
    /// The addresses and routes its client was told.
    pub told: Assignment,
    /// Whether the session may begin such a flow now.
    pub allowed: bool,
    /// Live flows that began as the one asked about, from whichever port: the most recently used first, a
    /// handful.
    pub flows: Vec<FlowReport>,
    /// How many more of them there are.
    pub more: usize,
}

impl Gateway {
    /// Answers an inquiry; `None` when the session is not here. Of several the youngest answers.
    #[must_use]
    pub fn inquire(&self, now: Instant, inquiry: &Inquiry) -> Option<Findings> {
        let sessions = self.sessions.iter().enumerate();
        let of_principal = sessions.filter_map(|(key, session)| {
            let session = session.as_ref()?;
            (session.grant.principal == inquiry.principal).then_some((key, session))
        });
        let (key, session) = of_principal.max_by_key(|(_, session)| session.id)?;
        let live = session.flows.iter(now);
        let mut flows: Vec<FlowReport> = live.filter(|flow| flow.first() == inquiry.flow).collect();
        flows.sort_by_key(|flow| (flow.idle, flow.client, flow.far));
        let more = flows.len().saturating_sub(SHOWN);
        flows.truncate(SHOWN);
        Some(Findings {
            session: session.info(self.links.get(key)?.connection.remote_address()),
            ends: session.term.ends(),
            told: session.assignment(),
            allowed: matches!(
                session.grant.filter.decide(&inquiry.flow),
                Decision::Allow(_)
            ),
            flows,
            more,
        })
    }

    /// What flows it would cost if the sessions of this engine had what is at stake, by principal.
    #[must_use]
    pub fn flow_losses(&self, now: Instant, stakes: &[Stake]) -> BTreeMap<String, FlowLoss> {
        let loss = |stake: &Stake| {
            let session = self.session(*self.by_id.get(&stake.session)?)?;
            let open = session.flows.iter(now).count();
            let ending = match &stake.grant {
                None => open,
                Some(grant) => session.flows.denied_by(now, &*grant.filter, |address| {
                    grant
                        .addresses
                        .iter()
                        .any(|prefix| prefix.contains(&address))
                }),
            };
            let principal = session.grant.principal.to_string();
            Some((principal, FlowLoss { ending, open }))
        };
        stakes.iter().filter_map(loss).collect()
    }
}

/// Enough for somebody to recognise the connection that is meant.
const SHOWN: usize = 5;
