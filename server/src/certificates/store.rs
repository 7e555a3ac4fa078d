//! `certificates.db`: what the gateway has seen of certificates, over restarts.
//!
//! Knowledge, not authority: nothing is decided by it. A write that was interrupted by a kill is
//! there whole or not at all; a power cut may take the last few seconds. A file that is damaged, or
//! of another version, is set aside under another name, and a new one begun. The number of rows is
//! bounded.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_net::files::{self, FileError};
use adit_pki::certificate::pem;
use adit_pki::description::certificates;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, params};
use tracing::warn;

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    /// Where it is, unless in memory.
    path: Option<PathBuf>,
}

/// What is known, to be read where nobody waits for it.
#[derive(Debug)]
pub(super) enum Source {
    /// As it is in a file when it is read, which somebody may be writing.
    File(PathBuf),
    /// As it was.
    Rows(Vec<Known>),
}

impl Source {
    /// Everything that is known, by principal; `None` when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn read(&self) -> Result<Option<Vec<Known>>, StoreError> {
        match self {
            Self::File(path) => Store::read_only(path)?.map(|store| store.all()).transpose(),
            Self::Rows(rows) => Ok(Some(rows.clone())),
        }
    }
}

/// What is known of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub(super) fingerprint: String,
    /// The certificate in DER.
    pub(super) certificate: Vec<u8>,
    /// The intermediates above it, in DER, as they were shown last.
    pub(super) issuers: Vec<Vec<u8>>,
    /// Whose it was when it was seen last.
    pub(super) principal: String,
    /// Which authority vouched then.
    pub(super) authority: String,
    /// The groups it named then.
    pub(super) groups: Vec<String>,
    /// When it was seen first, since 1970.
    pub(super) first_seen: i64,
    /// How many sessions began with it.
    pub(super) sessions: u64,
    /// The last use, if there was one.
    pub(super) used: Option<Use>,
    /// What its last client said about itself.
    pub(super) user_agent: Option<String>,
    /// The last refusal, if there was one.
    pub(super) refused: Option<Refusal>,
}

/// A use of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// When, since 1970.
    pub(super) at: i64,
    /// From which outer address.
    pub(super) source: String,
}

/// A refusal of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// When, since 1970.
    pub(super) at: i64,
    /// Why, in words.
    pub(super) reason: String,
    /// From which outer address.
    pub(super) source: String,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not what it should be.
    #[error("it is damaged")]
    Damaged(#[source] rusqlite::Error),
    /// Another version of this program made it.
    #[error("it has version {0}, this program knows version {VERSION}")]
    Version(i64),
    /// The disk or the permissions do not allow it.
    #[error("it cannot be used")]
    Database(#[source] rusqlite::Error),
    /// The same, said by the file system.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
            | None => Self::Damaged(error),
            Some(_) => Self::Database(error),
        }
    }
}

impl Store {
    /// Opens the file at `path`, made if it is missing. One that is damaged is set aside, which is told.
    ///
    /// # Errors
    /// When the disk or the permissions do not allow it.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        match Self::prepare(path) {
            Err(error @ (StoreError::Damaged(_) | StoreError::Version(_))) => {
                let aside = set_aside(path)?;
                let source = std::error::Error::source(&error).map(ToString::to_string);
                warn!(
                    path = %path.display(),
                    aside = %aside.display(),
                    %error,
                    cause = source,
                    "what was known of certificates is set aside; the inventory begins anew"
                );
                Self::prepare(path)
            }
            other => other,
        }
    }

    /// Opens the file of a gateway that does not run, to read it; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn read_only(path: &Path) -> Result<Option<Self>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        match version(&connection)? {
            VERSION => Ok(Some(Self {
                connection,
                path: Some(path.to_owned()),
            })),
            version => Err(StoreError::Version(version)),
        }
    }

    /// One that ends with the program.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn in_memory() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        lay_out(&mut connection)?;
        Ok(Self {
            connection,
            path: None,
        })
    }

    fn prepare(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            // SQLite gives its other files the mode of this one.
            files::create_private(path, b"")?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        // A commit is one write, and no wait for the disk: the control plane is waited for.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        lay_out(&mut connection)?;
        let verdict: String =
            connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        if verdict != "ok" {
            let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(StoreError::Damaged(rusqlite::Error::SqliteFailure(
                error,
                Some(verdict),
            )));
        }
        Ok(Self {
            connection,
            path: Some(path.to_owned()),
        })
    }

    /// Adds what was seen: certificates, their sessions since the last call, and what was said of them
    /// last. All of it, or nothing. Of too many rows the least useful go.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write<'a>(
        &mut self,
        seen: impl Iterator<Item = &'a Known>,
        now: i64,
    ) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        {
            let mut upsert = transaction.prepare_cached(UPSERT)?;
            for known in seen {
                let (used, refused) = (known.used.as_ref(), known.refused.as_ref());
                upsert.execute(params![
                    known.fingerprint,
                    known.certificate,
                    known.principal,
                    known.authority,
                    serde_json::Value::from(known.groups.as_slice()).to_string(),
                    known.first_seen,
                    i64::try_from(known.sessions).unwrap_or(i64::MAX),
                    used.map(|used| used.at),
                    used.map(|used| &used.source),
                    known.user_agent,
                    refused.map(|refused| refused.at),
                    refused.map(|refused| &refused.reason),
                    refused.map(|refused| &refused.source),
                    ends(&known.certificate),
                    known.issuers.iter().map(|der| pem(der)).collect::<String>(),
                ])?;
            }
        }
        prune(&transaction, now, &LIMITS)?;
        Ok(transaction.commit()?)
    }

    /// Writes all of it to another file, unless there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        if path.exists() {
            return Ok(());
        }
        // For its mode; SQLite takes an empty file.
        files::create_private(path, b"")?;
        self.connection
            .execute("VACUUM INTO ?1", [path.to_string_lossy()])?;
        Ok(())
    }

    /// What is known, to be read elsewhere. One in memory is read at once: it is young, and an exception.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn source(&self) -> Result<Source, StoreError> {
        match &self.path {
            Some(path) => Ok(Source::File(path.clone())),
            None => Ok(Source::Rows(self.all()?)),
        }
    }

    /// Everything that is known, by principal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn all(&self) -> Result<Vec<Known>, StoreError> {
        let mut statement = self.connection.prepare_cached(ALL)?;
        let rows = statement.query_map([], known)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn lay_out(connection: &mut Connection) -> Result<(), StoreError> {
    if version(connection)? == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    match version(connection)? {
        VERSION => {}
        version => return Err(StoreError::Version(version)),
    }
    // Columns that are not there are noticed now, and not by the first write.
    for statement in [ALL, UPSERT, FORGET] {
        connection.prepare_cached(statement)?;
    }
    Ok(())
}

/// Last second of validity, by which rows go when there are too many.
fn ends(certificate: &[u8]) -> i64 {
    adit_pki::inventory::Row::of_certificate(certificate, 0).map_or(0, |row| row.expires)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let groups: String = row.get(4)?;
    let sessions: i64 = row.get(6)?;
    let used: Option<i64> = row.get(7)?;
    let refused: Option<i64> = row.get(10)?;
    let issuers: String = row.get(13)?;
    Ok(Known {
        fingerprint: row.get(0)?,
        certificate: row.get(1)?,
        issuers: certificates(issuers.as_bytes()).unwrap_or_default(),
        principal: row.get(2)?,
        authority: row.get(3)?,
        groups: serde_json::from_str(&groups).unwrap_or_default(),
        first_seen: row.get(5)?,
        sessions: u64::try_from(sessions).unwrap_or_default(),
        used: match used {
            Some(at) => Some(Use {
                at,
                source: row.get(8)?,
            }),
            None => None,
        },
        user_agent: row.get(9)?,
        refused: match refused {
            Some(at) => Some(Refusal {
                at,
                reason: row.get(11)?,
                source: row.get(12)?,
            }),
            None => None,
        },
    })
}

/// How many rows there may be.
struct Limits {
    /// Of certificates that were never let in.
    strangers: i64,
    /// Of all.
    rows: i64,
}

fn prune(transaction: &Transaction<'_>, now: i64, limits: &Limits) -> rusqlite::Result<()> {
    let count = |sql| transaction.query_row(sql, [], |row| row.get::<_, i64>(0));
    let excess = count("SELECT count(*) FROM certificate WHERE sessions = 0")? - limits.strangers;
    if excess > 0 {
        transaction.execute(FORGET_STRANGERS, [excess])?;
    }
    let excess = count("SELECT count(*) FROM certificate")? - limits.rows;
    if excess > 0 {
        transaction.execute(FORGET, [excess, now])?;
    }
    Ok(())
}

/// Moves the file away, with those that SQLite keeps beside it. One that was moved before is lost.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let aside = beside(path, ".damaged");
    for ending in ["-wal", "-shm"] {
        files::remove(&beside(&aside, ending))?;
        // Without its journal the file would be older still; without a journal there is nothing to move.
        let _ = fs::rename(beside(path, ending), beside(&aside, ending));
    }
    fs::rename(path, &aside).map_err(|source| {
        let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        StoreError::Database(rusqlite::Error::SqliteFailure(
            error,
            Some(source.to_string()),
        ))
    })?;
    Ok(aside)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Somebody may read the file meanwhile, for as long as a query takes.
const PATIENCE: Duration = Duration::from_secs(1);
/// Raised with every change of the schema.
const VERSION: i64 = 2;
/// A row is some four kilobytes: 200 MB at most. Who is never let in needs a certificate of an authority for
/// each row.
const LIMITS: Limits = Limits {
    strangers: 1000,
    rows: 50_000,
};

const SCHEMA: &str = "
    CREATE TABLE certificate (
        fingerprint TEXT PRIMARY KEY NOT NULL,
        certificate BLOB NOT NULL,
        issuers TEXT NOT NULL,
        principal TEXT NOT NULL,
        authority TEXT NOT NULL,
        groups TEXT NOT NULL,
        first_seen INTEGER NOT NULL,
        sessions INTEGER NOT NULL,
        used INTEGER,
        used_source TEXT,
        user_agent TEXT,
        refused INTEGER,
        refused_because TEXT,
        refused_source TEXT,
        ends INTEGER NOT NULL,
        CHECK ((used IS NULL) = (used_source IS NULL)),
        CHECK ((refused IS NULL) = (refused_because IS NULL)),
        CHECK ((refused IS NULL) = (refused_source IS NULL))
    ) STRICT;
    CREATE INDEX stranger ON certificate (refused) WHERE sessions = 0;
";

const UPSERT: &str = "
    INSERT INTO certificate (fingerprint, certificate, principal, authority, groups, first_seen,
        sessions, used, used_source, user_agent, refused, refused_because, refused_source, ends,
        issuers)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
    ON CONFLICT (fingerprint) DO UPDATE SET
        issuers = excluded.issuers,
        principal = excluded.principal,
        authority = excluded.authority,
        groups = excluded.groups,
        sessions = sessions + excluded.sessions,
        used = coalesce(excluded.used, used),
        used_source = coalesce(excluded.used_source, used_source),
        user_agent = coalesce(excluded.user_agent, user_agent),
        refused = coalesce(excluded.refused, refused),
        refused_because = coalesce(excluded.refused_because, refused_because),
        refused_source = coalesce(excluded.refused_source, refused_source)";

const ALL: &str = "
    SELECT fingerprint, certificate, principal, authority, groups, first_seen, sessions, used,
        used_source, user_agent, refused, refused_because, refused_source, issuers
    FROM certificate ORDER BY principal, first_seen, fingerprint";

const FORGET_STRANGERS: &str = "
    DELETE FROM certificate WHERE fingerprint IN (
        SELECT fingerprint FROM certificate WHERE sessions = 0 ORDER BY refused LIMIT ?1)";

/// Strangers first, then what has ended, the longest ago first, then what was used the longest ago.
const FORGET: &str = "
    DELETE FROM certificate WHERE fingerprint IN (
        SELECT fingerprint FROM certificate
        ORDER BY sessions > 0, ends >= ?2, CASE WHEN ends < ?2 THEN ends ELSE used END LIMIT ?1)";

#[cfg(test)]
mod crash;
#[cfg(test)]
pub(super) mod tests;
