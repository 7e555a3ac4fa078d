//! What each principal has used, and by which rules, over reconnects, reloads and restarts.
//!
//! Ended sessions count with their final counters, present ones with what they have so far. Both are saved every
//! minute, so that a gateway that is killed forgets a minute.

use adit_core::policy::Policy;
use adit_core::status::{GatewayStatus, RuleTexts, RulesTraffic, Traffic, Usage};
use adit_net::clock;
use adit_tunnel::SessionInfo;
use tracing::warn;

use crate::state::{State, StateError};

/// The accounts of all principals.
#[derive(Debug)]
pub struct Accounting {
    /// Without what the present sessions have used.
    usage: Usage,
    saved: Usage,
}

impl Accounting {
    /// Goes on where the last run stopped.
    ///
    /// # Errors
    /// When the saved accounts cannot be read.
    pub fn open(state: &State) -> Result<Self, StateError> {
        let usage = state.usage()?;
        let saved = usage.clone();
        Ok(Self { usage, saved })
    }

    /// A session opened.
    pub fn open_session(&mut self, session: &SessionInfo) {
        let principal = session.identity.principal.as_str();
        let remote = session.remote.to_string();
        self.usage.open(principal, &remote, clock::unix_seconds());
    }

    /// A session ended, which has used these rules.
    pub fn close_session(
        &mut self,
        session: &SessionInfo,
        traffic: &Traffic,
        rules: &RulesTraffic,
        texts: &RuleTexts,
    ) {
        let principal = session.identity.principal.as_str();
        let remote = session.remote.to_string();
        self.usage
            .close(principal, &remote, traffic, rules, clock::unix_seconds());
        self.usage.learn(texts);
    }

    /// Everything so far, with the present sessions.
    pub fn total(&self, status: &GatewayStatus) -> Usage {
        self.usage.with(status)
    }

    /// Saves everything so far, unless it is saved already, without rules that are of no policy any more.
    pub fn save(&mut self, state: &State, status: &GatewayStatus, policy: &Policy) {
        let mut total = self.usage.with(status);
        let outdated = total.outdated(clock::unix_seconds(), || policy.rule_names().collect());
        self.usage.forget(&outdated);
        total.forget(&outdated);
        if total == self.saved {
            return;
        }
        match state.save_usage(&total) {
            Ok(()) => self.saved = total,
            Err(error) => warn!(%error, "the accounts were not saved; a restart would forget some"),
        }
    }
}
