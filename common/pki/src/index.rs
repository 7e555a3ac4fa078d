//! The index: one row for every certificate that a folder's authority issued, its invitations, and
//! the newest revocation list.
//!
//! Guarantee: a row is on the disk before [`Index::record`] returns, a revocation together with the
//! list that says so before [`Index::issue_list`] does, and several processes may write at once.
//! Refused is an index of a schema that this version does not know, rather than guessing what its
//! columns mean.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::certificate::Purpose;
use crate::revocation::Revocation;

mod invitations;
mod lists;
mod reader;

pub(crate) use invitations::{Holder, Standing};
pub use lists::{List, Stopped};

/// An open index.
pub struct Index {
    connection: Connection,
}

/// What the index knows of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// 32 hexadecimal digits.
    pub serial: String,
    /// The holder.
    pub principal: String,
    /// The alternative names, as text.
    pub names: Vec<String>,
    /// The organisational units.
    pub groups: Vec<String>,
    /// The operator who had it issued, `name@host`.
    pub issued_by: String,
    /// Which end of the tunnel it is for.
    pub purpose: Purpose,
    /// First second of validity, Unix time.
    pub not_before: i64,
    /// Last second of validity, Unix time.
    pub not_after: i64,
    /// When it was issued, Unix time.
    pub created: i64,
    /// SHA-256 of the certificate in hexadecimal digits.
    pub fingerprint: String,
    /// The device that holds the key, if known.
    pub device: Option<String>,
    /// When, why and by whom it was revoked, if it was.
    pub revoked: Option<Revocation>,
    /// The certificate itself.
    #[serde(skip)]
    pub certificate: Vec<u8>,
}

impl Entry {
    /// Whether the certificate can be used at `now`, Unix time. Revoked stays revoked after its time.
    pub fn state(&self, now: i64) -> State {
        match self.revoked {
            Some(_) => State::Revoked,
            None => State::at(self.not_before, self.not_after, now),
        }
    }
}

/// Whether a certificate can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It can.
    Valid,
    /// Its time has not come.
    NotYetValid,
    /// Its time is over.
    Expired,
    /// The authority took it back.
    Revoked,
}

impl State {
    /// That of a certificate which nobody revoked, by its first and last second of validity.
    pub fn at(not_before: i64, not_after: i64, now: i64) -> Self {
        if now < not_before {
            Self::NotYetValid
        } else if now > not_after {
            Self::Expired
        } else {
            Self::Valid
        }
    }

    /// The word for it in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::NotYetValid => "not-yet-valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Index {
    /// Opens the index at `path`; an empty file becomes an index.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        // Without the flag to create one: a missing index is a fault, not an empty index.
        let flags =
            rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::prepare(Connection::open_with_flags(path, flags)?)
    }

    /// An index that ends with the program.
    pub(crate) fn in_memory() -> Result<Self, IndexError> {
        Self::prepare(Connection::open_in_memory()?)
    }

    fn prepare(mut connection: Connection) -> Result<Self, IndexError> {
        connection.busy_timeout(PATIENCE)?;
        // "Issued" must survive a power cut, and the folder a copy with `cp`: a rollback journal
        // that is synced along with its folder, and no write-ahead log.
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        if version(&connection)? == 0 {
            let transaction = begin(&mut connection)?;
            if version(&transaction)? == 0 {
                transaction.execute_batch(SCHEMA)?;
                transaction.execute_batch(invitations::SCHEMA)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            transaction.commit()?;
        }
        match version(&connection)? {
            VERSION => Ok(Self { connection }),
            version => Err(IndexError::Version { version }),
        }
    }

    /// Adds a certificate that an operator issued; it is on the disk when this returns. If everything of
    /// its principal was revoked before, it may be renewed again from now on.
    pub fn record(&mut self, entry: &Entry) -> Result<(), IndexError> {
        let transaction = begin(&mut self.connection)?;
        insert(&transaction, entry)?;
        invitations::lift(&transaction, &entry.principal)?;
        Ok(transaction.commit()?)
    }

    /// All certificates, oldest first.
    pub fn entries(&self) -> Result<Vec<Entry>, IndexError> {
        select(&self.connection, "", [])
    }

    /// The certificates of a principal, oldest first.
    pub fn by_principal(&self, principal: &str) -> Result<Vec<Entry>, IndexError> {
        select(&self.connection, "WHERE principal = ?1", [principal])
    }

    /// The certificate of a serial number, given in lower-case hexadecimal digits.
    pub fn by_serial(&self, serial: &str) -> Result<Option<Entry>, IndexError> {
        let mut found = select(&self.connection, "WHERE serial = ?1", [serial])?;
        Ok(found.pop())
    }
}

/// What went wrong with the index.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The database refused.
    #[error("the index of issued certificates cannot be used")]
    Database(#[from] rusqlite::Error),
    /// Made by another version of this program.
    #[error("the index has schema version {version}, this program knows version {VERSION}")]
    Version {
        /// The schema version found.
        version: i64,
    },
}

/// A transaction that writes. Immediate: to wait for another writer at the start, where waiting is possible.
fn begin(connection: &mut Connection) -> Result<Transaction<'_>, IndexError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn insert(connection: &Connection, entry: &Entry) -> rusqlite::Result<usize> {
    connection.execute(
        INSERT,
        params![
            entry.serial,
            entry.principal,
            json(&entry.names),
            json(&entry.groups),
            entry.issued_by,
            entry.purpose.name(),
            entry.not_before,
            entry.not_after,
            entry.created,
            entry.fingerprint,
            entry.device,
            entry.certificate,
        ],
    )
}

fn select<P: rusqlite::Params>(
    connection: &Connection,
    condition: &str,
    parameters: P,
) -> Result<Vec<Entry>, IndexError> {
    let sql = format!("SELECT {COLUMNS} FROM certificate {condition} ORDER BY created, rowid");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(parameters, entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let bad = |column: usize, name: &str| {
        rusqlite::Error::InvalidColumnType(column, name.to_owned(), rusqlite::types::Type::Text)
    };
    let list = |column: usize, name: &str| -> rusqlite::Result<Vec<String>> {
        serde_json::from_str(&row.get::<_, String>(column)?).map_err(|_| bad(column, name))
    };
    let purpose: String = row.get(5)?;
    let revoked = match row.get::<_, Option<i64>>(12)? {
        None => None,
        Some(at) => Some(Revocation {
            at,
            reason: row
                .get::<_, String>(13)?
                .parse()
                .map_err(|()| bad(13, "revocation_reason"))?,
            by: row.get(14)?,
        }),
    };
    Ok(Entry {
        serial: row.get(0)?,
        principal: row.get(1)?,
        names: list(2, "names")?,
        groups: list(3, "groups")?,
        issued_by: row.get(4)?,
        purpose: purpose.parse().map_err(|()| bad(5, "purpose"))?,
        not_before: row.get(6)?,
        not_after: row.get(7)?,
        created: row.get(8)?,
        fingerprint: row.get(9)?,
        device: row.get(10)?,
        revoked,
        certificate: row.get(11)?,
    })
}

fn json(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

/// How long to wait for other processes: each holds the index for one short transaction.
const PATIENCE: Duration = Duration::from_secs(20);

/// Raised with every change of the schema.
const VERSION: i64 = 3;

const SCHEMA: &str = "
    CREATE TABLE certificate (
        serial TEXT NOT NULL UNIQUE,
        principal TEXT NOT NULL,
        names TEXT NOT NULL,
        groups TEXT NOT NULL,
        issued_by TEXT NOT NULL,
        purpose TEXT NOT NULL CHECK (purpose IN ('client', 'gateway', 'authority')),
        not_before INTEGER NOT NULL,
        not_after INTEGER NOT NULL,
        created INTEGER NOT NULL,
        fingerprint TEXT NOT NULL UNIQUE,
        device TEXT,
        certificate BLOB NOT NULL,
        revoked INTEGER,
        revocation_reason TEXT,
        revoked_by TEXT,
        CHECK ((revoked IS NULL) = (revocation_reason IS NULL)),
        CHECK ((revoked IS NULL) = (revoked_by IS NULL))
    ) STRICT;
    CREATE INDEX certificate_by_principal ON certificate (principal);
    CREATE TABLE list (
        number INTEGER PRIMARY KEY,
        this_update INTEGER NOT NULL,
        next_update INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        der BLOB NOT NULL
    ) STRICT;
";

const COLUMNS: &str = "serial, principal, names, groups, issued_by, purpose, not_before, not_after, \
    created, fingerprint, device, certificate, revoked, revocation_reason, revoked_by";

const INSERT: &str = "INSERT INTO certificate (serial, principal, names, groups, issued_by, purpose, \
    not_before, not_after, created, fingerprint, device, certificate) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn entry(serial: &str) -> Entry {
        Entry {
            serial: serial.to_owned(),
            principal: "alice@example.com".to_owned(),
            names: vec!["alice@example.com".to_owned()],
            groups: vec!["eng".to_owned(), "o\"ps".to_owned()],
            issued_by: "root@host".to_owned(),
            purpose: Purpose::Client,
            not_before: 100,
            not_after: 200,
            created: 100,
            fingerprint: format!("{serial}00"),
            device: None,
            revoked: None,
            certificate: vec![0, 1, 2],
        }
    }

    fn empty() -> tempfile::NamedTempFile {
        tempfile::NamedTempFile::new().unwrap()
    }

    #[test]
    fn what_was_recorded_is_read_back_after_reopening() {
        let file = empty();
        Index::open(file.path())
            .unwrap()
            .record(&entry("01"))
            .unwrap();
        let index = Index::open(file.path()).unwrap();
        assert_eq!(index.entries().unwrap(), [entry("01")]);
        assert_eq!(index.by_serial("01").unwrap(), Some(entry("01")));
        assert_eq!(index.by_principal("alice@example.com").unwrap().len(), 1);
        assert!(index.by_serial("02").unwrap().is_none());
    }

    #[test]
    fn a_serial_is_recorded_once() {
        let file = empty();
        let mut index = Index::open(file.path()).unwrap();
        index.record(&entry("01")).unwrap();
        assert!(index.record(&entry("01")).is_err());
        assert_eq!(index.entries().unwrap().len(), 1);
    }

    #[test]
    fn an_index_of_an_unknown_version_is_refused() {
        let file = empty();
        drop(Index::open(file.path()).unwrap());
        let connection = Connection::open(file.path()).unwrap();
        connection
            .pragma_update(None, "user_version", VERSION + 1)
            .unwrap();
        assert!(matches!(
            Index::open(file.path()),
            Err(IndexError::Version { version: 4 })
        ));
    }

    #[test]
    fn a_missing_index_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Index::open(&folder.path().join("index.db")).is_err());
    }

    #[test]
    fn the_state_includes_both_ends_of_the_validity() {
        let states = [99, 100, 200, 201].map(|now| entry("01").state(now));
        assert_eq!(
            states,
            [
                State::NotYetValid,
                State::Valid,
                State::Valid,
                State::Expired
            ]
        );
    }
}
