//! What each principal has used so far, over all its sessions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::text::{bytes, duration, table};
use super::{GatewayStatus, RuleTexts, RuleTraffic, RulesTraffic, SessionStatus, Traffic};
use crate::policy::Rule;

/// All principals that ever had a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// By principal.
    pub accounts: BTreeMap<String, Account>,
    /// What the rules in the accounts said last, by name.
    #[serde(default)]
    pub rules: RuleTexts,
    /// When rules without a name of their own have let something pass last, in seconds since 1970.
    #[serde(default)]
    pub last_used: BTreeMap<String, i64>,
}

/// One principal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// When its first session opened, in seconds since 1970.
    pub first_seen: i64,
    /// When it was connected last.
    pub last_seen: i64,
    /// The outer address of its last session.
    pub last_remote: String,
    /// How many sessions it has opened.
    pub sessions: u64,
    /// What passed in all of them.
    pub traffic: Traffic,
    /// What passed by each rule.
    #[serde(default)]
    pub rules: RulesTraffic,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleUsage {
    /// Its name.
    pub rule: String,
    /// What it said last.
    pub text: String,
    /// Who has used it, and how much.
    pub principals: BTreeMap<String, RuleTraffic>,
    /// All of them together.
    pub total: RuleTraffic,
}

impl Usage {
    /// A session opens.
    pub fn open(&mut self, principal: &str, remote: &str, now: i64) {
        let account = self.accounts.entry(principal.to_owned()).or_default();
        if account.sessions == 0 {
            account.first_seen = now;
        }
        account.sessions += 1;
        account.see(remote, now);
    }

    /// A session has ended.
    pub fn close(
        &mut self,
        principal: &str,
        remote: &str,
        traffic: &Traffic,
        rules: &RulesTraffic,
        now: i64,
    ) {
        let account = self.accounts.entry(principal.to_owned()).or_default();
        account.traffic.add(traffic);
        for (rule, traffic) in rules {
            account.rules.entry(rule.clone()).or_default().add(traffic);
            if Rule::is_place(rule) && *traffic != RuleTraffic::default() {
                let last = self.last_used.entry(rule.clone()).or_insert(now);
                *last = now.max(*last);
            }
        }
        account.see(remote, now);
    }

    /// What rules say from now on.
    pub fn learn(&mut self, rules: &RuleTexts) {
        for (rule, text) in rules {
            if self.rules.get(rule) != Some(text) {
                self.rules.insert(rule.clone(), text.clone());
            }
        }
    }

    /// What is called by the place where it stood, stands there no more, and has let nothing pass for a month.
    /// `present` are the names of all rules that there are; they are asked for when one is that old.
    #[must_use]
    pub fn outdated(&self, now: i64, present: impl FnOnce() -> BTreeSet<String>) -> Vec<String> {
        let is_old = |last: &i64| now.saturating_sub(*last) >= OUTDATED_AFTER;
        let old = self.last_used.iter().filter(|(_, last)| is_old(last));
        let mut old: Vec<String> = old.map(|(name, _)| name.clone()).collect();
        if !old.is_empty() {
            let present = present();
            old.retain(|name| !present.contains(name));
        }
        old
    }

    /// Forgets rules, and nothing of what their principals have used in sum.
    pub fn forget(&mut self, rules: &[String]) {
        for rule in rules {
            self.last_used.remove(rule);
            self.rules.remove(rule);
            for account in self.accounts.values_mut() {
                account.rules.remove(rule);
            }
        }
    }

    /// The same with what the present sessions have used up to now.
    #[must_use]
    pub fn with(&self, status: &GatewayStatus) -> Self {
        let mut all = self.clone();
        for session in &status.sessions {
            let (principal, remote) = (&session.principal, &session.remote);
            let SessionStatus { traffic, rules, .. } = session;
            all.close(principal, remote, traffic, rules, status.now);
        }
        all.learn(&status.rules);
        all
    }

    /// The same by rule; whichever let most pass comes first.
    #[must_use]
    pub fn by_rule(&self) -> Vec<RuleUsage> {
        let mut rules: BTreeMap<&str, RuleUsage> = BTreeMap::new();
        for (principal, account) in &self.accounts {
            for (name, traffic) in &account.rules {
                let rule = rules.entry(name).or_insert_with(|| RuleUsage {
                    rule: name.clone(),
                    text: self.rules.get(name).cloned().unwrap_or_default(),
                    ..RuleUsage::default()
                });
                rule.total.add(traffic);
                rule.principals.insert(principal.clone(), *traffic);
            }
        }
        let mut rules: Vec<RuleUsage> = rules.into_values().collect();
        rules.sort_by_key(|rule| {
            let RuleTraffic {
                sent_bytes,
                received_bytes,
                ..
            } = rule.total;
            std::cmp::Reverse(sent_bytes.saturating_add(received_bytes))
        });
        rules
    }

    /// A table for people; whoever used most comes first.
    #[must_use]
    pub fn render(&self, now: i64) -> String {
        let heads = [
            "PRINCIPAL",
            "SINCE",
            "LAST SEEN",
            "FROM",
            "SESSIONS",
            "IN",
            "OUT",
            "DROPPED",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        let mut accounts: Vec<_> = self.accounts.iter().collect();
        accounts.sort_by_key(|(_, account)| {
            let traffic = &account.traffic;
            std::cmp::Reverse(traffic.sent_bytes.saturating_add(traffic.received_bytes))
        });
        for (principal, account) in accounts {
            let traffic = &account.traffic;
            let ago = |time: i64| format!("{} ago", duration(now - time));
            rows.push(vec![
                principal.clone(),
                ago(account.first_seen),
                ago(account.last_seen),
                account.last_remote.clone(),
                account.sessions.to_string(),
                bytes(traffic.sent_bytes),
                bytes(traffic.received_bytes),
                traffic.drops.values().sum::<u64>().to_string(),
            ]);
        }
        table(&rows)
    }
}

/// A table of rules for people; what a rule says stands behind it.
#[must_use]
pub fn render_rules(rules: &[RuleUsage]) -> String {
    let heads = ["RULE", "PRINCIPALS", "FLOWS", "IN", "OUT", "WHAT IT SAYS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(rules.iter().map(|rule| {
        vec![
            rule.rule.clone(),
            rule.principals.len().to_string(),
            rule.total.flows.to_string(),
            bytes(rule.total.sent_bytes),
            bytes(rule.total.received_bytes),
            rule.text.clone(),
        ]
    }));
    table(&rows)
}

impl Account {
    fn see(&mut self, remote: &str, now: i64) {
        self.last_seen = self.last_seen.max(now);
        remote.clone_into(&mut self.last_remote);
    }
}

/// Thirty days, in seconds: whoever settles accounts by the month has read them. Each edit above a rule gives it
/// another line, so that names would gather without end.
const OUTDATED_AFTER: i64 = 30 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_named_by_a_line_are_forgotten_a_month_after_they_went() {
        const OLD: [&str; 3] = [
            "allow at policy.toml:3",
            "deny at policy.toml:9",
            "mail at home:1",
        ];
        let mut usage = Usage::default();
        let used = RuleTraffic {
            flows: 1,
            ..RuleTraffic::default()
        };
        let rules: RulesTraffic = OLD.map(|name| (name.to_owned(), used)).into();
        let mut close =
            |now| usage.close("a.example.com", "192.0.2.1:1", &traffic(1, 1), &rules, now);
        close(1000);
        close(500);
        let month = 30 * 86_400;
        let present = || BTreeSet::from([OLD[1].to_owned()]);
        assert_eq!(usage.outdated(1000 + month - 1, present), [""; 0]);
        let outdated = usage.outdated(1000 + month, present);
        assert_eq!(outdated, [OLD[0]]);
        usage.learn(&OLD.map(|name| (name.to_owned(), String::new())).into());
        usage.forget(&outdated);
        let left: Vec<String> = usage.by_rule().into_iter().map(|rule| rule.rule).collect();
        assert_eq!(left, OLD[1..]);
        assert!(usage.rules.len() == 2 && usage.last_used.len() == 1);
        assert_eq!(usage.accounts["a.example.com"].traffic.sent_bytes, 2);
    }

    fn traffic(sent_bytes: u64, received_bytes: u64) -> Traffic {
        Traffic {
            sent_bytes,
            received_bytes,
            drops: BTreeMap::from([("no-route".to_owned(), 1)]),
            ..Traffic::default()
        }
    }

    fn rules(sent_bytes: u64, received_bytes: u64) -> RulesTraffic {
        let web = RuleTraffic {
            flows: 1,
            sent_bytes,
            received_bytes,
            ..RuleTraffic::default()
        };
        RulesTraffic::from([("web".to_owned(), web)])
    }

    #[test]
    fn sessions_add_up_and_the_present_ones_count_without_being_kept() {
        let mut usage = Usage::default();
        usage.open("alice@example.com", "192.0.2.1:1000", 100);
        let status = GatewayStatus {
            now: 150,
            sessions: vec![SessionStatus {
                principal: "alice@example.com".to_owned(),
                remote: "192.0.2.1:1001".to_owned(),
                traffic: traffic(70, 700),
                rules: rules(70, 700),
                ..SessionStatus::default()
            }],
            rules: RuleTexts::from([("web".to_owned(), "allow * to 10.0.0.0/8".to_owned())]),
            ..GatewayStatus::default()
        };
        let account = |usage: &Usage| usage.accounts["alice@example.com"].clone();
        assert_eq!(account(&usage.with(&status)).traffic, traffic(70, 700));
        assert_eq!(account(&usage).traffic, Traffic::default());
        usage.close(
            "alice@example.com",
            "192.0.2.1:1001",
            &traffic(100, 1000),
            &rules(100, 1000),
            200,
        );
        usage.open("alice@example.com", "192.0.2.2:5", 300);
        let all = account(&usage.with(&status));
        assert_eq!(
            (all.traffic.sent_bytes, all.traffic.received_bytes),
            (170, 1700)
        );
        assert_eq!(all.traffic.drops["no-route"], 2);
        assert_eq!((all.sessions, all.first_seen, all.last_seen), (2, 100, 300));
        assert_eq!(all.rules["web"].flows, 2);
        assert_eq!(
            (all.rules["web"].sent_bytes, all.rules["web"].received_bytes),
            (170, 1700)
        );
        assert_eq!(usage.with(&status).rules["web"], "allow * to 10.0.0.0/8");
    }

    #[test]
    fn rules_add_up_over_principals_and_the_one_that_let_most_pass_stands_first() {
        let mut usage = Usage::default();
        let both = |mail| {
            RulesTraffic::from([("mail".to_owned(), mail)])
                .into_iter()
                .chain(rules(1, 1))
        };
        let mail = |sent_bytes| RuleTraffic {
            flows: 3,
            sent_bytes,
            ..RuleTraffic::default()
        };
        for (principal, rules) in [
            ("a.example.com", both(mail(2048)).collect()),
            ("b.example.com", rules(1, 1)),
        ] {
            usage.close(principal, "192.0.2.1:1", &Traffic::default(), &rules, 0);
        }
        usage.learn(&RuleTexts::from([(
            "mail".to_owned(),
            "allow * to 10.0.0.25".to_owned(),
        )]));
        let by_rule = usage.by_rule();
        assert_eq!(by_rule[1].principals.len(), 2);
        assert_eq!(
            render_rules(&by_rule),
            "RULE  PRINCIPALS  FLOWS  IN       OUT  WHAT IT SAYS\n\
             mail  1           3      2.0 KiB  0 B  allow * to 10.0.0.25\n\
             web   2           2      2 B      2 B\n"
        );
    }

    #[test]
    fn accounts_from_before_rules_were_counted_are_read() {
        let text = r#"{"accounts": {"a.example.com": {"first_seen": 1, "last_seen": 2, "last_remote": "",
            "sessions": 3, "traffic": {"packets_from_client": 0, "packets_for_client": 0, "sent_packets": 0,
            "sent_bytes": 7, "received_packets": 0, "received_bytes": 0, "answered_packets": 0, "drops": {}}}}}"#;
        let usage: Usage = serde_json::from_str(text).unwrap();
        assert_eq!(usage.accounts["a.example.com"].traffic.sent_bytes, 7);
        assert!(usage.by_rule().is_empty());
    }

    #[test]
    fn whoever_used_most_stands_first() {
        let mut usage = Usage::default();
        usage.open("a.example.com", "192.0.2.1:1", 0);
        usage.open("b.example.com", "192.0.2.2:1", 0);
        let none = RulesTraffic::new();
        usage.close(
            "b.example.com",
            "192.0.2.2:1",
            &traffic(2048, 0),
            &none,
            3600,
        );
        assert_eq!(
            usage.render(7200),
            "PRINCIPAL      SINCE      LAST SEEN  FROM         SESSIONS  IN       OUT  DROPPED\n\
             b.example.com  2h 0m ago  1h 0m ago  192.0.2.2:1  1         2.0 KiB  0 B  1\n\
             a.example.com  2h 0m ago  2h 0m ago  192.0.2.1:1  1         0 B      0 B  0\n"
        );
    }
}
