//! Rows for people: a table with a summary, and one certificate in full.

use std::fmt::{self, Write as _};

use super::{Access, Row};
use crate::description::{date, distance, instant};
use crate::index::State;

/// A line for each row below the names of the columns, and the summary at the end. Columns of which
/// nothing is known are left out.
pub(super) fn table(rows: &[Row], now: i64) -> String {
    let summary = Summary::of(rows, now);
    if rows.is_empty() {
        return format!("{summary}\n");
    }
    let mut columns = Vec::new();
    for (name, cell) in COLUMNS {
        let cells: Vec<String> = rows.iter().map(cell).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let width = cells.iter().map(|cell| cell.chars().count());
            let width = width.max().unwrap_or(0).max(name.len());
            columns.push((name, cells, width));
        }
    }
    let mut text = String::new();
    for line in 0..=rows.len() {
        let cells = columns.iter().map(|(name, cells, width)| {
            let cell = match line.checked_sub(1) {
                None => name,
                Some(row) => cells[row].as_str(),
            };
            format!("{cell:<width$}")
        });
        let cells: Vec<String> = cells.collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    let _ = writeln!(text, "\n{summary}");
    text
}

impl Row {
    /// All of it, a line for each fact, at `now`, Unix time.
    pub fn describe(&self, now: i64) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: &str| {
            if !value.is_empty() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{label:<12} {}", printable(value));
            }
        };
        let shown = |text: &Option<String>| text.clone().unwrap_or_default();
        line("principal", &self.principal);
        line("state", &self.state_in_full(now));
        line("purpose", &self.purpose);
        line("names", &self.names.join(", "));
        line("groups", &self.groups.join(", "));
        line("subject", &self.subject);
        line("issuer", &self.issuer);
        line("authority", &shown(&self.authority));
        line("issued by", &shown(&self.issued_by));
        line("issued", &self.issued.map(instant).unwrap_or_default());
        line("serial", &self.serial);
        line("fingerprint", &self.fingerprint);
        line("valid from", &instant(self.valid_from));
        line("expires", &instant(self.expires));
        line("key", &self.key);
        line("key sha256", &self.key_sha256);
        line("device", &shown(&self.device));
        if self.user_agent != self.device {
            line("user agent", &shown(&self.user_agent));
        }
        line(
            "first seen",
            &self.first_seen.map(instant).unwrap_or_default(),
        );
        let source = self.last_source.as_ref();
        let source = source.map(|source| format!(", from {source}"));
        let used = self.used(instant);
        line(
            "last used",
            &format!("{used}{}", source.unwrap_or_default()),
        );
        let sessions = self.sessions.map(|count| count.to_string());
        line("sessions", &sessions.unwrap_or_default());
        if let Some(refused) = &self.refused {
            let at = instant(refused.at);
            line(
                "refused",
                &format!("{at}, from {}: {}", refused.source, refused.reason),
            );
        }
        match self.access.as_deref() {
            None => {}
            Some([]) => line("access", "none"),
            Some(rules) => {
                for (number, rule) in rules.iter().enumerate() {
                    line(if number == 0 { "access" } else { "" }, &rule.to_string());
                }
            }
        }
        text
    }

    fn state_in_full(&self, now: i64) -> String {
        match self.state {
            State::Valid => format!("valid, ends {}", distance(self.expires - now)),
            State::NotYetValid => {
                format!("NOT YET VALID, begins {}", distance(self.valid_from - now))
            }
            State::Expired => format!("EXPIRED {}", distance(self.expires - now)),
            State::Revoked => {
                let mut text = "REVOKED".to_owned();
                if let Some(revoked) = &self.revoked {
                    let at = revoked.at.map(|at| format!(" {}", instant(at)));
                    let by = revoked.by.as_ref().map(|by| format!(" by {by}"));
                    let reason = revoked.reason.as_ref();
                    let reason = reason.map(|reason| format!(" ({reason})"));
                    let with = revoked.with.as_ref();
                    let with = with.map(|with| format!(" with its issuer {}", printable(with)));
                    text.extend([at, by, reason, with].into_iter().flatten());
                }
                text
            }
        }
    }

    /// When it was used last; empty where nobody looked.
    fn used(&self, shown: impl Fn(i64) -> String) -> String {
        match (self.in_use, self.last_used) {
            (Some(true), _) => "now".to_owned(),
            (_, Some(at)) => shown(at),
            (Some(false), None) => "never".to_owned(),
            (None, None) => String::new(),
        }
    }
}

/// "intranet (policy.toml:12): allow …", "allow at policy.toml:12: allow …".
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rule.ends_with(&self.place) {
            write!(f, "{}: {}", self.rule, self.text)
        } else {
            write!(f, "{} ({}): {}", self.rule, self.place, self.text)
        }
    }
}

/// How many certificates there are, and how many want to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All of them.
    pub all: usize,
    /// Those that can be used.
    pub valid: usize,
    /// Those that can be used, now or later, and end within `SOON` days.
    pub expiring: usize,
    /// Those that were revoked.
    pub revoked: usize,
    /// Those that could be used and were not for `LONG` days; `None` where nobody looked.
    pub unused: Option<usize>,
}

impl Summary {
    /// Counts rows as they are at `now`, Unix time.
    pub fn of(rows: &[Row], now: i64) -> Self {
        let count = |is: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| is(row)).count();
        let looked = rows.iter().any(|row| row.in_use.is_some());
        Self {
            all: rows.len(),
            valid: count(&|row| row.state == State::Valid),
            expiring: count(&|row| row.is_expiring(SOON, now)),
            revoked: count(&|row| row.state == State::Revoked),
            unused: looked.then(|| count(&|row| row.is_unused(LONG, now))),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            all,
            valid,
            expiring,
            revoked,
            unused,
        } = self;
        let noun = if *all == 1 {
            "certificate"
        } else {
            "certificates"
        };
        let verb = if *expiring == 1 { "expires" } else { "expire" };
        write!(
            f,
            "{all} {noun}: {valid} valid, {expiring} {verb} within {SOON} days, {revoked} revoked"
        )?;
        match unused {
            Some(unused) => write!(f, ", {unused} unused for {LONG} days"),
            None => Ok(()),
        }
    }
}

fn optional(text: Option<&String>) -> String {
    text.map(|text| printable(text)).unwrap_or_default()
}

/// What a certificate or a client says goes to a terminal.
fn printable(text: &str) -> String {
    let characters = text.chars();
    characters
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// The rules by name, or by file and line: a few of them.
fn access(row: &Row) -> String {
    let Some(rules) = &row.access else {
        return String::new();
    };
    let names = rules.iter().map(|access| {
        // A rule without a name is found by its line; which folder the file is in would fill the table.
        let is_named = !access.rule.ends_with(&access.place);
        let file = access.place.rsplit('/').next();
        printable(if is_named {
            &access.rule
        } else {
            file.unwrap_or_default()
        })
    });
    let mut names: Vec<String> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    if names.len() > NAMED {
        let more = names.len() - NAMED;
        names.truncate(NAMED);
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

type Column = (&'static str, fn(&Row) -> String);

const COLUMNS: [Column; 12] = [
    ("PRINCIPAL", |row| printable(&row.principal)),
    ("STATE", |row| {
        let reason = row.revoked.as_ref();
        match reason.and_then(|revoked| revoked.reason.as_ref()) {
            Some(reason) => format!("{} ({})", row.state.name(), printable(reason)),
            None => row.state.name().to_owned(),
        }
    }),
    ("EXPIRES", |row| {
        let days = match row.days_left {
            0 => "today".to_owned(),
            1.. => format!("in {} d", row.days_left),
            _ => format!("{} d ago", -row.days_left),
        };
        format!("{} ({days})", date(row.expires))
    }),
    ("PURPOSE", |row| printable(&row.purpose)),
    ("GROUPS", |row| printable(&row.groups.join(","))),
    ("AUTHORITY", |row| optional(row.authority.as_ref())),
    ("ISSUED BY", |row| {
        optional(Some(row.issued_by.as_ref().unwrap_or(&row.issuer)))
    }),
    ("DEVICE", |row| optional(row.device.as_ref())),
    ("LAST SOURCE", |row| optional(row.last_source.as_ref())),
    ("LAST USED", |row| row.used(minute)),
    ("ACCESS", access),
    ("SERIAL", |row| printable(&row.serial)),
];

fn minute(unix: i64) -> String {
    instant(unix).chars().take(16).collect()
}

/// Days in which a certificate should be renewed, in the summary.
const SOON: u32 = 30;
/// Days after which somebody should ask whether a certificate is needed, in the summary.
const LONG: u32 = 90;
/// Rules that a line of the table names.
const NAMED: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::tests::{NOW, row};
    use super::super::{Filter, Revoked};
    use super::*;

    fn alice() -> Row {
        let authority = crate::Authority::ephemeral("Example Corp", 1_800_000_000).unwrap();
        let request = crate::IssueRequest::client("alice@example.com", 1_800_000_000)
            .with_groups(["eng", "ops"]);
        let issued = authority.issue(&request, 1_800_000_000).unwrap();
        Row::of_certificate(&issued.certificate_der, issued.not_before + 86_400).unwrap()
    }

    #[test]
    fn columns_that_nobody_fills_are_left_out_and_the_rest_lines_up() {
        let mut row = alice();
        let text = table(std::slice::from_ref(&row), row.valid_from);
        assert!(
            !text.contains("LAST USED") && !text.contains("ACCESS"),
            "{text}"
        );
        row.in_use = Some(false);
        row.sessions = Some(0);
        row.access = Some(Vec::new());
        let text = table(&[row.clone()], row.valid_from);
        let lines: Vec<&str> = text.lines().collect();
        for (name, cell) in [
            ("LAST USED", "never"),
            ("ACCESS", "none"),
            ("GROUPS", "eng,ops"),
        ] {
            assert_eq!(lines[0].find(name), lines[1].find(cell), "{text}");
        }
        let summary =
            "1 certificate: 1 valid, 0 expire within 30 days, 0 revoked, 0 unused for 90 days";
        assert_eq!(lines.last(), Some(&summary));
    }

    #[test]
    fn the_table_names_a_few_rules_and_finds_those_without_a_name_by_their_line() {
        let mut row = alice();
        let rule = |rule: &str, line| Access {
            rule: rule.replace('@', &format!("allow at /etc/adit/policy.toml:{line}")),
            place: format!("/etc/adit/policy.toml:{line}"),
            text: "allow * to 10.0.0.0/8".to_owned(),
        };
        row.access = Some(vec![rule("intranet", 7), rule("@", 12), rule("@", 20)]);
        assert_eq!(access(&row), "intranet, policy.toml:12, and 1 more");
    }

    #[test]
    fn one_certificate_is_shown_with_every_rule_and_its_place() {
        let mut row = alice();
        row.access = Some(vec![
            Access {
                rule: "intranet".into(),
                place: "policy.toml:7".into(),
                text: "allow group:eng to 10.0.0.0/16".into(),
            },
            Access {
                rule: "allow at policy.toml:12".into(),
                place: "policy.toml:12".into(),
                text: "allow * to 10.1.0.0/16".into(),
            },
        ]);
        row.state = State::Revoked;
        row.revoked = Some(Revoked {
            at: Some(0),
            reason: Some("keyCompromise".into()),
            by: Some("olga@host".into()),
            with: Some("CN=Online".into()),
        });
        let text = row.describe(NOW);
        for line in [
            "state        REVOKED 1970-01-01 00:00:00 UTC by olga@host (keyCompromise) with its issuer CN=Online\n",
            "groups       eng, ops\n",
            "access       intranet (policy.toml:7): allow group:eng to 10.0.0.0/16\n",
            "             allow at policy.toml:12: allow * to 10.1.0.0/16\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    proptest! {
        #[test]
        fn the_summary_counts_what_the_filters_take(rows in vec(row(), 0..8)) {
            let count = |filter: Filter| rows.iter().filter(|row| filter.takes(row, NOW)).count();
            let summary = Summary::of(&rows, NOW);
            prop_assert_eq!(summary.all, rows.len());
            prop_assert_eq!(summary.expiring, count(Filter { expiring: Some(30), ..Filter::default() }));
            prop_assert_eq!(summary.revoked, count(Filter { revoked: true, ..Filter::default() }));
            if let Some(unused) = summary.unused {
                prop_assert_eq!(unused, count(Filter { unused: Some(90), ..Filter::default() }));
            }
        }

        #[test]
        fn no_row_breaks_its_line_or_the_terminal(rows in vec(row(), 1..4)) {
            let text = table(&rows, NOW);
            prop_assert_eq!(text.lines().count(), rows.len() + 3);
            let control = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
            prop_assert!(!control(&text));
            prop_assert!(!rows.iter().any(|row| control(&row.describe(NOW))));
        }
    }
}
