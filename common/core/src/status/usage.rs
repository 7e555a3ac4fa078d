//! What each principal has used so far, over all its sessions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text::{bytes, duration, table};
use super::{GatewayStatus, Traffic};

/// All principals that ever had a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// By principal.
    pub accounts: BTreeMap<String, Account>,
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
    pub fn close(&mut self, principal: &str, remote: &str, traffic: &Traffic, now: i64) {
        let account = self.accounts.entry(principal.to_owned()).or_default();
        account.traffic.add(traffic);
        account.see(remote, now);
    }

    /// The same with what the present sessions have used up to now.
    #[must_use]
    pub fn with(&self, status: &GatewayStatus) -> Self {
        let mut all = self.clone();
        for session in &status.sessions {
            let (principal, remote) = (&session.principal, &session.remote);
            all.close(principal, remote, &session.traffic, status.now);
        }
        all
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

impl Account {
    fn see(&mut self, remote: &str, now: i64) {
        self.last_seen = self.last_seen.max(now);
        remote.clone_into(&mut self.last_remote);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::SessionStatus;

    fn traffic(sent_bytes: u64, received_bytes: u64) -> Traffic {
        Traffic {
            sent_bytes,
            received_bytes,
            drops: BTreeMap::from([("no-route".to_owned(), 1)]),
            ..Traffic::default()
        }
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
                ..SessionStatus::default()
            }],
            ..GatewayStatus::default()
        };
        let account = |usage: &Usage| usage.accounts["alice@example.com"].clone();
        assert_eq!(account(&usage.with(&status)).traffic, traffic(70, 700));
        assert_eq!(account(&usage).traffic, Traffic::default());
        usage.close(
            "alice@example.com",
            "192.0.2.1:1001",
            &traffic(100, 1000),
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
    }

    #[test]
    fn whoever_used_most_stands_first() {
        let mut usage = Usage::default();
        usage.open("a.example.com", "192.0.2.1:1", 0);
        usage.open("b.example.com", "192.0.2.2:1", 0);
        usage.close("b.example.com", "192.0.2.2:1", &traffic(2048, 0), 3600);
        assert_eq!(
            usage.render(7200),
            "PRINCIPAL      SINCE      LAST SEEN  FROM         SESSIONS  IN       OUT  DROPPED\n\
             b.example.com  2h 0m ago  1h 0m ago  192.0.2.2:1  1         2.0 KiB  0 B  1\n\
             a.example.com  2h 0m ago  2h 0m ago  192.0.2.1:1  1         0 B      0 B  0\n"
        );
    }
}
