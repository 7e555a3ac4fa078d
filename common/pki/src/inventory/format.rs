//! How rows are written.

use super::{Row, csv, text};

/// Options that choose how certificates are listed; a table for people unless something is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Format {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print CSV (RFC 4180), a line for each certificate below a line of names
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

impl Format {
    /// Writes rows as they are at `now`, Unix time.
    pub fn render(self, rows: &[Row], now: i64) -> String {
        if self.json {
            // Rows have no maps and no numbers that JSON does not know.
            serde_json::to_string_pretty(rows).unwrap_or_default() + "\n"
        } else if self.csv {
            csv::render(rows)
        } else {
            text::table(rows, now)
        }
    }
}
