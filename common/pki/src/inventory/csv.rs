//! Rows as RFC 4180 writes them, for spreadsheets.
//!
//! All columns, always, in one order; lists are joined by semicolons. A cell that a spreadsheet
//! would take for a formula, because a certificate or a client chose its first character, begins
//! with an apostrophe; so does one that began with an apostrophe before, so that taking one away gives
//! every text back.

use csv::{Terminator, WriterBuilder};

use super::Row;
use super::moment::rfc3339;

pub(super) fn render(rows: &[Row]) -> String {
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(Vec::new());
    let header = COLUMNS.map(|(name, _)| name);
    // Writing to memory cannot fail, and all records have the same length.
    let _ = writer.write_record(header);
    for row in rows {
        let _ = writer.write_record(COLUMNS.map(|(_, cell)| cell(row)));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text that others have chosen.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

fn text(text: Option<&String>) -> String {
    text.map(|text| harmless(text)).unwrap_or_default()
}

fn list(items: &[String]) -> String {
    harmless(&items.join(";"))
}

fn moment(unix: Option<i64>) -> String {
    unix.map(rfc3339).unwrap_or_default()
}

type Column = (&'static str, fn(&Row) -> String);

const COLUMNS: [Column; 30] = [
    ("principal", |row| harmless(&row.principal)),
    ("state", |row| row.state.name().to_owned()),
    ("serial", |row| harmless(&row.serial)),
    ("fingerprint", |row| harmless(&row.fingerprint)),
    ("purpose", |row| harmless(&row.purpose)),
    ("groups", |row| list(&row.groups)),
    ("names", |row| list(&row.names)),
    ("subject", |row| harmless(&row.subject)),
    ("issuer", |row| harmless(&row.issuer)),
    ("authority", |row| text(row.authority.as_ref())),
    ("issued_by", |row| text(row.issued_by.as_ref())),
    ("issued", |row| moment(row.issued)),
    ("valid_from", |row| rfc3339(row.valid_from)),
    ("expires", |row| rfc3339(row.expires)),
    ("days_left", |row| row.days_left.to_string()),
    ("revoked", |row| {
        moment(row.revoked.as_ref().and_then(|revoked| revoked.at))
    }),
    ("revoked_reason", |row| {
        text(
            row.revoked
                .as_ref()
                .and_then(|revoked| revoked.reason.as_ref()),
        )
    }),
    ("revoked_by", |row| {
        text(row.revoked.as_ref().and_then(|revoked| revoked.by.as_ref()))
    }),
    ("revoked_with", |row| {
        text(
            row.revoked
                .as_ref()
                .and_then(|revoked| revoked.with.as_ref()),
        )
    }),
    ("key", |row| harmless(&row.key)),
    ("key_sha256", |row| harmless(&row.key_sha256)),
    ("device", |row| text(row.device.as_ref())),
    ("user_agent", |row| text(row.user_agent.as_ref())),
    ("first_seen", |row| moment(row.first_seen)),
    ("last_used", |row| moment(row.last_used)),
    ("in_use", |row| {
        row.in_use.map(|is| is.to_string()).unwrap_or_default()
    }),
    ("last_source", |row| text(row.last_source.as_ref())),
    ("sessions", |row| {
        row.sessions
            .map(|count| count.to_string())
            .unwrap_or_default()
    }),
    ("refused", |row| {
        let Some(refused) = &row.refused else {
            return String::new();
        };
        let at = rfc3339(refused.at);
        format!("{at} from {}: {}", refused.source, refused.reason)
    }),
    ("access", |row| {
        let rules = row
            .access
            .iter()
            .flatten()
            .map(|access| access.rule.clone());
        list(&rules.collect::<Vec<_>>())
    }),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::row;
    use super::*;

    fn read(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let line = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect();
        let header = line(reader.headers().unwrap());
        let lines = reader.records().map(|record| line(&record.unwrap()));
        (header, lines.collect())
    }

    #[test]
    fn a_list_of_nothing_has_its_header() {
        let text = render(&[]);
        assert!(text.starts_with("principal,state,serial,"), "{text}");
        assert!(text.ends_with(",access\r\n"), "{text}");
    }

    proptest! {
        #[test]
        fn every_cell_is_read_back_and_none_is_a_formula(
            rows in proptest::collection::vec(row(), 0..4),
        ) {
            let (header, lines) = read(&render(&rows));
            prop_assert_eq!(header.len(), COLUMNS.len());
            prop_assert_eq!(lines.len(), rows.len());
            for (row, line) in rows.iter().zip(&lines) {
                let at = |name: &str| {
                    let column = header.iter().position(|known| known == name);
                    line[column.unwrap()].clone()
                };
                // The one number that may be negative is ours.
                for (name, cell) in header.iter().zip(line) {
                    let first = cell.chars().next();
                    let is_formula = first.is_some_and(|c| "=+-@\t\r".contains(c));
                    prop_assert!(!is_formula || name == "days_left", "{} {}", name, cell);
                }
                let plain = |name| {
                    let cell = at(name);
                    cell.strip_prefix('\'').map(str::to_owned).unwrap_or(cell)
                };
                prop_assert_eq!(plain("principal"), row.principal.clone());
                prop_assert_eq!(plain("names"), row.names.join(";"));
                prop_assert_eq!(plain("device"), row.device.clone().unwrap_or_default());
                prop_assert_eq!(at("days_left").parse(), Ok(row.days_left));
                let sessions = at("sessions").parse().ok();
                prop_assert_eq!(sessions, row.sessions);
            }
        }
    }
}
