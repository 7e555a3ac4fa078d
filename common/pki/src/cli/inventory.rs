//! `adit-ca show` and `adit-ca list`: what there is. Needs the index only, never the key.

use std::path::Path;

use adit_pki::index::{Entry, Index, State};
use adit_pki::store::{self, StoreError};
use adit_pki::{AuthorityError, description};
use serde::Serialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::failure::Failure;
use super::{Answer, Console};

pub(super) fn show(console: &Console, folder: &Path, what: &str) -> Result<Answer, Failure> {
    let now = now();
    let path = Path::new(what);
    if path.is_file() {
        // It may be a profile, with a key in it.
        let content = std::fs::read(path).map(Zeroizing::new);
        let content = content.map_err(|source| StoreError::Read {
            path: path.to_owned(),
            source,
        })?;
        let der = description::first_certificate(&content)
            .ok_or_else(|| Failure::input(format!("{} contains no certificate", path.display())))?;
        console.data(&words(&der, now)?)?;
        return Ok(Answer::Yes);
    }
    let index = open(folder)?;
    let serial = what.replace(':', "").to_ascii_lowercase();
    let entries = match index.by_serial(&serial)? {
        Some(entry) => vec![entry],
        None => index.by_principal(what)?,
    };
    if entries.is_empty() {
        console.note(&format!(
            "`{what}` is no file, and no serial number or principal in {}",
            folder.display()
        ));
        return Ok(Answer::No);
    }
    let texts: Vec<_> = entries
        .iter()
        .map(|entry| described(entry, now))
        .collect::<Result<_, _>>()?;
    console.data(&texts.join("\n"))?;
    Ok(Answer::Yes)
}

/// Which certificates are listed.
pub(super) struct Filter {
    /// Only revoked ones.
    pub(super) revoked: bool,
    /// Only valid ones that end within so many days.
    pub(super) expiring: Option<u32>,
}

impl Filter {
    fn takes(&self, entry: &Entry, now: i64) -> bool {
        let state = entry.state(now);
        if self.revoked {
            return state == State::Revoked;
        }
        self.expiring.is_none_or(|days| {
            state == State::Valid && entry.not_after - now <= i64::from(days) * DAY
        })
    }
}

pub(super) fn list(
    console: &Console,
    folder: &Path,
    json: bool,
    filter: &Filter,
) -> Result<Answer, Failure> {
    let now = now();
    let mut entries = open(folder)?.entries()?;
    entries.retain(|entry| filter.takes(entry, now));
    let text = if json {
        as_json(&entries, now)?
    } else {
        as_table(&entries, now)
    };
    console.data(&text)?;
    Ok(Answer::Yes)
}

/// A row of `list --json`.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    state: State,
}

fn as_json(entries: &[Entry], now: i64) -> Result<String, Failure> {
    let listed: Vec<_> = entries
        .iter()
        .map(|entry| Listed {
            entry,
            state: entry.state(now),
        })
        .collect();
    serde_json::to_string_pretty(&listed)
        .map(|text| text + "\n")
        .map_err(|error| Failure::environment(error, "cannot write the list"))
}

fn as_table(entries: &[Entry], now: i64) -> String {
    let header = [
        "SERIAL",
        "PRINCIPAL",
        "GROUPS",
        "PURPOSE",
        "NOT AFTER",
        "ISSUED BY",
        "STATE",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(entries.iter().map(|entry| {
        [
            entry.serial.clone(),
            entry.principal.clone(),
            if entry.groups.is_empty() {
                "-".to_owned()
            } else {
                entry.groups.join(",")
            },
            entry.purpose.to_string(),
            description::date(entry.not_after),
            entry.issued_by.clone(),
            entry.state(now).name().to_owned(),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn described(entry: &Entry, now: i64) -> Result<String, Failure> {
    let mut text = words(&entry.certificate, now)?;
    text.push_str(&format!("{:<12} {}\n", "issued by", entry.issued_by));
    text.push_str(&format!(
        "{:<12} {}\n",
        "issued at",
        description::instant(entry.created)
    ));
    if let Some(revocation) = &entry.revoked {
        text.push_str(&format!(
            "{:<12} {} by {} ({})\n",
            "REVOKED",
            description::instant(revocation.at),
            revocation.by,
            revocation.reason,
        ));
    }
    if let Some(device) = &entry.device {
        text.push_str(&format!("{:<12} {device}\n", "device"));
    }
    Ok(text)
}

fn words(der: &[u8], now: i64) -> Result<String, Failure> {
    description::describe(der, now).map_err(|error| Failure::input(error.to_string()))
}

pub(super) fn open(folder: &Path) -> Result<Index, Failure> {
    let path = folder.join(store::INDEX);
    match path.try_exists() {
        Ok(true) => Ok(Index::open(&path)?),
        Ok(false) => Err(AuthorityError::Missing {
            folder: folder.to_owned(),
        }
        .into()),
        Err(source) => Err(StoreError::Read { path, source }.into()),
    }
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Seconds.
const DAY: i64 = 86_400;
