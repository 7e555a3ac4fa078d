//! What a session has let pass, by the names of its rules: a rule that keeps its name over a change of
//! the policy keeps its account.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Totals;
use crate::policy::{Filter, Rule, RuleId};

/// Accounts of rules, by [`Rule::name`].
#[derive(Clone, Debug, Default)]
pub struct RuleAccounts(BTreeMap<String, RuleAccount>);

/// What one rule has let pass.
#[derive(Clone, Debug)]
pub struct RuleAccount {
    /// The rule as it was last.
    pub rule: Arc<Rule>,
    /// What passed.
    pub totals: Totals,
}

impl RuleAccounts {
    /// Adds what rules of `filter` have let pass.
    pub fn add(&mut self, filter: &Filter, totals: &BTreeMap<RuleId, Totals>) {
        for (id, totals) in totals {
            let Some(rule) = filter.rule(*id) else {
                continue;
            };
            let account = self.0.entry(rule.name()).or_insert_with(|| RuleAccount {
                rule: Arc::clone(rule),
                totals: Totals::default(),
            });
            account.rule = Arc::clone(rule);
            account.totals.add(totals);
        }
    }

    /// Every account with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RuleAccount)> {
        self.0.iter().map(|(name, account)| (&**name, account))
    }
}
