//! `adit-ca show` and `adit-ca list`: what there is. Needs the index only, never the key.

use std::path::Path;

use adit_pki::index::Index;
use adit_pki::inventory::{Filter, Format, Row};
use adit_pki::store::{self, StoreError};
use adit_pki::{AuthorityError, description};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::{Answer, Console, now};

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
        let row = Row::of_certificate(&der, now).map_err(|error| broken(&error))?;
        console.data(&row.describe(now))?;
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
    let texts: Result<Vec<_>, _> = entries
        .iter()
        .map(|entry| Row::of_entry(entry, now).map(|row| row.describe(now)))
        .collect();
    let texts = texts.map_err(|error| broken(&error))?;
    console.data(&texts.join("\n"))?;
    Ok(Answer::Yes)
}

pub(super) fn list(
    console: &Console,
    folder: &Path,
    format: Format,
    filter: &Filter,
) -> Result<Answer, Failure> {
    if filter.unused.is_some() {
        let error = "the authority does not see which certificates are used";
        let hint = "ask the gateway: `adit-server certs --unused DAYS`";
        return Err(Failure::input(error).with_hint(hint));
    }
    let now = now();
    let entries = open(folder)?.entries()?;
    let rows: Result<Vec<Row>, _> = entries
        .iter()
        .map(|entry| Row::of_entry(entry, now))
        .collect();
    let mut rows = rows.map_err(|error| broken(&error))?;
    rows.retain(|row| filter.takes(row, now));
    console.data(&format.render(&rows, now))?;
    Ok(Answer::Yes)
}

fn broken(error: &description::DescriptionError) -> Failure {
    Failure::input(error.to_string())
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
