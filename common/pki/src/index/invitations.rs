//! Invitations and renewals: a certificate is recorded in the transaction that decides about it.

use rusqlite::{OptionalExtension, Row, params};
use time::Duration;

use super::{Entry, Index, IndexError, begin, insert, json, select};
use crate::invitation::{Invitation, OpenInvitation};
use crate::request::SKEW;

/// How it stands with a code.
pub(crate) enum Standing {
    /// There is no such invitation.
    Unknown,
    /// It can be used, until it expires.
    Open {
        /// What it is good for.
        invitation: Invitation,
        /// Who made it.
        invited_by: String,
    },
    /// It has been used.
    Used {
        /// Until when it could be.
        expires: i64,
        /// What was issued for it.
        entry: Box<Entry>,
    },
    /// It was taken back.
    Withdrawn,
}

/// A certificate that may be renewed.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) entry: Entry,
    /// Whether everything of its principal was revoked since.
    pub(crate) stopped: bool,
    /// For how long the next one is to be valid, seconds.
    pub(crate) life: i64,
}

impl Holder {
    /// Of a principal that was not stopped; the next one as long as this one.
    pub(crate) fn of(entry: Entry) -> Self {
        Self {
            life: entry.not_after - entry.not_before,
            stopped: false,
            entry,
        }
    }
}

impl Index {
    /// Keeps an invitation; what was stopped for its principal is not any more.
    pub(crate) fn invite(
        &mut self,
        code: &[u8],
        invitation: &Invitation,
        created: i64,
        by: &str,
    ) -> Result<(), IndexError> {
        let transaction = begin(&mut self.connection)?;
        transaction.execute(
            INVITE,
            params![
                code,
                invitation.principal,
                json(&invitation.groups),
                invitation.validity.whole_seconds(),
                created,
                by,
                invitation.expires,
            ],
        )?;
        transaction.execute(LIFT, [&invitation.principal])?;
        Ok(transaction.commit()?)
    }

    /// Asks `decide` about the code that is kept as `code`. An entry that it gives is recorded, and the
    /// code is used up, before this returns; of an error nothing is left.
    pub(crate) fn redeem<T, E: From<IndexError>>(
        &mut self,
        code: &[u8],
        decide: impl FnOnce(Standing) -> Result<(T, Option<Entry>), E>,
    ) -> Result<T, E> {
        let transaction = begin(&mut self.connection)?;
        let (answer, entry) = decide(standing(&transaction, code)?)?;
        if let Some(entry) = entry {
            insert(&transaction, &entry).map_err(IndexError::from)?;
            transaction
                .execute(USE, params![code, entry.serial])
                .map_err(IndexError::from)?;
        }
        transaction.commit().map_err(IndexError::from)?;
        Ok(answer)
    }

    /// Asks `decide` about the certificate with this fingerprint; `elsewhere` knows what is not in here. The entry that `decide` gives is recorded before this
    /// returns; of an error nothing is left.
    pub(crate) fn renew<T, E: From<IndexError>>(
        &mut self,
        fingerprint: &str,
        elsewhere: impl FnOnce() -> Result<Option<Holder>, IndexError>,
        decide: impl FnOnce(Option<Holder>) -> Result<(T, Entry), E>,
    ) -> Result<T, E> {
        let transaction = begin(&mut self.connection)?;
        let mut found = holder(&transaction, fingerprint)?;
        if found.is_none() {
            found = elsewhere()?;
            if let Some(holder) = &mut found {
                holder.stopped |= is_stopped(&transaction, &holder.entry.principal)?;
            }
        }
        let (answer, entry) = decide(found)?;
        insert(&transaction, &entry).map_err(IndexError::from)?;
        transaction.commit().map_err(IndexError::from)?;
        Ok(answer)
    }

    /// The certificate with this fingerprint.
    pub(crate) fn holder(&self, fingerprint: &str) -> Result<Option<Holder>, IndexError> {
        holder(&self.connection, fingerprint)
    }

    /// The longest that a certificate of `principal` was or was to be valid, in seconds; 0 if there is none.
    pub(crate) fn longest_life(&self, principal: &str) -> Result<i64, IndexError> {
        let parameters = params![principal, SKEW.whole_seconds()];
        let longest = self
            .connection
            .query_row(LONGEST, parameters, |row| row.get(0));
        Ok(longest?)
    }

    /// The invitations that can be used at `now`, oldest first.
    pub(crate) fn invitations(&self, now: i64) -> Result<Vec<OpenInvitation>, IndexError> {
        let mut statement = self.connection.prepare(OPEN)?;
        let rows = statement.query_map([now], open)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Takes an open invitation back; false if there is none.
    pub(crate) fn withdraw(&mut self, number: i64, at: i64, by: &str) -> Result<bool, IndexError> {
        Ok(self.connection.execute(WITHDRAW, params![number, at, by])? == 1)
    }
}

fn holder(
    connection: &rusqlite::Connection,
    fingerprint: &str,
) -> Result<Option<Holder>, IndexError> {
    let found = select(connection, "WHERE fingerprint = ?1", [fingerprint])?.pop();
    let Some(mut holder) = found.map(Holder::of) else {
        return Ok(None);
    };
    holder.stopped = is_stopped(connection, &holder.entry.principal)?;
    Ok(Some(holder))
}

fn is_stopped(connection: &rusqlite::Connection, principal: &str) -> Result<bool, IndexError> {
    Ok(connection.query_row(STOPPED, [principal], |row| row.get(0))?)
}

/// Takes everything open of `principal` back and lets nothing of it be renewed; how many it were.
pub(super) fn stop(
    connection: &rusqlite::Connection,
    principal: &str,
    at: i64,
    by: &str,
) -> rusqlite::Result<usize> {
    connection.execute(STOP, params![principal, at, by])?;
    connection.execute(WITHDRAW_ALL, params![principal, at, by])
}

/// What an operator issues anew ends that.
pub(super) fn lift(connection: &rusqlite::Connection, principal: &str) -> rusqlite::Result<usize> {
    connection.execute(LIFT, [principal])
}

fn standing(connection: &rusqlite::Connection, code: &[u8]) -> Result<Standing, IndexError> {
    let found = connection
        .query_row(FIND, [code], |row| {
            let serial: Option<String> = row.get(5)?;
            let withdrawn: Option<i64> = row.get(6)?;
            let invitation = Invitation {
                principal: row.get(0)?,
                groups: groups(row, 1)?,
                validity: Duration::seconds(row.get(2)?),
                expires: row.get(3)?,
            };
            let invited_by: String = row.get(4)?;
            Ok((invitation, invited_by, serial, withdrawn))
        })
        .optional()?;
    Ok(match found {
        None => Standing::Unknown,
        Some((_, _, _, Some(_))) => Standing::Withdrawn,
        Some((invitation, invited_by, None, None)) => Standing::Open {
            invitation,
            invited_by,
        },
        Some((invitation, _, Some(serial), None)) => {
            match select(connection, "WHERE serial = ?1", [serial])?.pop() {
                Some(entry) => Standing::Used {
                    expires: invitation.expires,
                    entry: Box::new(entry),
                },
                None => Standing::Unknown,
            }
        }
    })
}

fn open(row: &Row<'_>) -> rusqlite::Result<OpenInvitation> {
    Ok(OpenInvitation {
        number: row.get(0)?,
        principal: row.get(1)?,
        groups: groups(row, 2)?,
        validity: row.get(3)?,
        expires: row.get(4)?,
        created: row.get(5)?,
        invited_by: row.get(6)?,
    })
}

fn groups(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(&row.get::<_, String>(column)?).map_err(|_| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::InvalidColumnType(column, "groups".to_owned(), kind)
    })
}

pub(super) const SCHEMA: &str = "
    CREATE TABLE invitation (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        code BLOB NOT NULL UNIQUE CHECK (length(code) = 32),
        principal TEXT NOT NULL,
        groups TEXT NOT NULL,
        validity INTEGER NOT NULL,
        created INTEGER NOT NULL,
        invited_by TEXT NOT NULL,
        expires INTEGER NOT NULL,
        serial TEXT UNIQUE REFERENCES certificate (serial),
        withdrawn INTEGER,
        withdrawn_by TEXT,
        CHECK (serial IS NULL OR withdrawn IS NULL),
        CHECK ((withdrawn IS NULL) = (withdrawn_by IS NULL))
    ) STRICT;
    CREATE TABLE stop (
        principal TEXT PRIMARY KEY,
        at INTEGER NOT NULL,
        by TEXT NOT NULL
    ) STRICT;
";

const INVITE: &str = "INSERT INTO invitation \
    (code, principal, groups, validity, created, invited_by, expires) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const FIND: &str = "SELECT principal, groups, validity, expires, invited_by, serial, withdrawn \
    FROM invitation WHERE code = ?1";

const USE: &str = "UPDATE invitation SET serial = ?2 WHERE code = ?1";

const OPEN: &str = "SELECT number, principal, groups, validity, expires, created, invited_by \
    FROM invitation WHERE serial IS NULL AND withdrawn IS NULL AND expires >= ?1 ORDER BY number";

const WITHDRAW: &str = "UPDATE invitation SET withdrawn = ?2, withdrawn_by = ?3 \
    WHERE number = ?1 AND serial IS NULL AND withdrawn IS NULL";

const WITHDRAW_ALL: &str = "UPDATE invitation SET withdrawn = ?2, withdrawn_by = ?3 \
    WHERE principal = ?1 AND serial IS NULL AND withdrawn IS NULL AND expires >= ?2";

const STOP: &str = "INSERT OR REPLACE INTO stop (principal, at, by) VALUES (?1, ?2, ?3)";

const LIFT: &str = "DELETE FROM stop WHERE principal = ?1";

const LONGEST: &str = "SELECT max(\
    coalesce((SELECT max(not_after - not_before) FROM certificate \
        WHERE principal = ?1 AND purpose = 'client'), 0), \
    coalesce((SELECT max(validity) + ?2 FROM invitation \
        WHERE principal = ?1 AND serial IS NOT NULL), 0))";

const STOPPED: &str = "SELECT EXISTS (SELECT 1 FROM stop WHERE principal = ?1)";
