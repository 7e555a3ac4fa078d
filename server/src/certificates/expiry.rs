//! Certificates that end soon: those that clients use now, the gateway's own, and the authorities'.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use adit_pki::description::date;
use adit_pki::inventory::Row;
use tracing::warn;

use super::Certificates;
use crate::load::Loaded;

/// That a certificate ends soon, or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which certificate, by its fingerprint.
    pub about: String,
    /// In words.
    pub text: String,
}

/// A warning for the gateway's own certificate, those it sends with it, and those of the authorities, as far
/// as they end within `OWN_DAYS` days of `now`, since 1970.
pub fn warnings(loaded: &Loaded, now: i64) -> Vec<Warning> {
    let own = loaded.credentials.chain.iter().enumerate();
    let own = own.map(|(place, der)| match place {
        0 => ("the gateway's own certificate".to_owned(), der),
        _ => ("a certificate above the gateway's own".to_owned(), der),
    });
    let anchors = loaded.authorities.all().iter().flat_map(|authority| {
        let anchors = authority.anchors().iter();
        anchors.map(|der| {
            (
                format!("the certificate of authority {}", authority.name()),
                der,
            )
        })
    });
    own.chain(anchors)
        .filter_map(|(what, der)| {
            let row = Row::of_certificate(der, now).ok()?;
            ends_within(OWN_DAYS, row.expires, now).then(|| Warning {
                text: format!("{what} ({}) {}", row.subject, ending(row.expires, now)),
                about: row.fingerprint,
            })
        })
        .collect()
}

impl Certificates {
    /// A warning for each certificate with which a session is open and which ends within `CLIENT_DAYS` days
    /// of `now`, since 1970.
    pub fn ending(&self, now: i64) -> Vec<Warning> {
        let live = self.live().into_values();
        let soon = live.filter(|live| ends_within(CLIENT_DAYS, live.identity.not_after, now));
        let warnings = soon.map(|live| {
            let identity = &live.identity;
            let device = live.user_agent.as_ref();
            let device = device.map(|agent| format!(" on {}", agent.device()));
            Warning {
                about: live.fingerprint.clone(),
                text: format!(
                    "the certificate {} that {}{} uses {}",
                    identity.serial,
                    identity.principal,
                    device.unwrap_or_default(),
                    ending(identity.not_after, now)
                ),
            }
        });
        warnings.collect()
    }
}

/// When which warning was told last.
#[derive(Debug, Default)]
pub struct Reminders {
    told: BTreeMap<String, i64>,
}

impl Reminders {
    /// Tells each warning in the log, once a day.
    pub fn tell(&mut self, warnings: Vec<Warning>, now: i64) {
        for text in self.due(warnings, now) {
            warn!("{text}");
        }
    }

    fn due(&mut self, warnings: Vec<Warning>, now: i64) -> Vec<String> {
        self.told.retain(|_, at| now - *at < DAY);
        let mut due = Vec::new();
        for Warning { about, text } in warnings {
            if let Entry::Vacant(untold) = self.told.entry(about) {
                untold.insert(now);
                due.push(text);
            }
        }
        due
    }
}

fn ends_within(days: i64, expires: i64, now: i64) -> bool {
    expires.saturating_sub(now) <= days * DAY
}

fn ending(expires: i64, now: i64) -> String {
    let date = date(expires);
    match expires.saturating_sub(now).div_euclid(DAY) {
        ..0 => format!("has ended on {date}"),
        0 => format!("ends today, {date}"),
        1 => format!("ends in 1 day, on {date}"),
        days => format!("ends in {days} days, on {date}"),
    }
}

/// Seconds.
const DAY: i64 = 86_400;
/// A client's certificate is renewed by hand, or by itself at two thirds of its life.
const CLIENT_DAYS: i64 = 14;
/// These concern everybody, and may need another department.
const OWN_DAYS: i64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(about: &str, text: &str) -> Vec<Warning> {
        let (about, text) = (about.to_owned(), text.to_owned());
        vec![Warning { about, text }]
    }

    #[test]
    fn a_certificate_is_warned_of_once_a_day_whatever_the_words() {
        let mut reminders = Reminders::default();
        assert_eq!(reminders.due(warning("a", "2 days"), 0), ["2 days"]);
        assert!(reminders.due(warning("a", "1 day"), DAY - 1).is_empty());
        assert_eq!(reminders.due(warning("b", "other"), DAY - 1), ["other"]);
        assert_eq!(reminders.due(warning("a", "1 day"), DAY), ["1 day"]);
        // A storm of reconnects does not repeat it, and what is told no more is forgotten.
        assert!(reminders.due(Vec::new(), 3 * DAY).is_empty());
        assert!(reminders.told.is_empty());
    }

    #[test]
    fn days_are_whole_and_the_end_itself_is_over() {
        let said = [14 * DAY, DAY, DAY - 1, 0, -1].map(|left| {
            let text = ending(1_800_000_000 + left, 1_800_000_000);
            text.split(',')
                .next()
                .map(str::to_owned)
                .unwrap_or_default()
        });
        assert_eq!(
            said,
            [
                "ends in 14 days",
                "ends in 1 day",
                "ends today",
                "ends today",
                "has ended on 2027-01-15"
            ]
        );
        assert!(ends_within(14, 14 * DAY, 0) && !ends_within(14, 14 * DAY + 1, 0));
    }
}
