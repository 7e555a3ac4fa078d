//! Revocations and the list that tells of them: one step, so that neither is without the other.

use rusqlite::{OptionalExtension, params};

use super::invitations::stop;
use super::{Entry, Index, IndexError, begin, select};
use crate::revocation::Revocation;

/// A signed revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Its number; the next one has a larger one.
    pub number: i64,
    /// When it was signed, Unix time.
    pub this_update: i64,
    /// When the next one is due, Unix time.
    pub next_update: i64,
    /// How many certificates it revokes.
    pub entries: usize,
    /// The list itself.
    pub der: Vec<u8>,
}

impl List {
    /// The moment from which on there should be another, Unix time: half of its life is over then.
    pub fn half_life(&self) -> i64 {
        let life = self.next_update.saturating_sub(self.this_update);
        self.this_update.saturating_add(life / 2)
    }
}

/// What was taken back from a principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The certificates, as they were before.
    pub revoked: Vec<Entry>,
    /// How many open invitations.
    pub withdrawn: usize,
    /// The list that says so; `None` if there was nothing to take back.
    pub list: Option<List>,
}

impl Index {
    /// Revokes certificates, then keeps the list that `sign` makes of its number and of everything that
    /// is revoked and would be valid at `since`, Unix time. Who is revoked already stays so by the
    /// first reason. All of it is on the disk when this returns, or nothing is.
    pub fn issue_list<E: From<IndexError>>(
        &mut self,
        revoke: &[String],
        revocation: Option<&Revocation>,
        since: i64,
        sign: impl FnOnce(i64, &[Entry]) -> Result<List, E>,
    ) -> Result<List, E> {
        let transaction = begin(&mut self.connection)?;
        if let Some(Revocation { at, reason, by }) = revocation {
            for serial in revoke {
                transaction
                    .execute(REVOKE, params![serial, at, reason.name(), by])
                    .map_err(IndexError::from)?;
            }
        }
        let list = keep_list(&transaction, since, sign)?;
        transaction.commit().map_err(IndexError::from)?;
        Ok(list)
    }

    /// Revokes everything of `principal` that is not over, takes its open invitations back, lets
    /// nothing of it be renewed, and keeps a list as [`Index::issue_list`] does: one step, so that what
    /// is issued at the same time is either revoked or refused. Without anything to revoke or to take
    /// back there is no new list.
    pub(crate) fn revoke_principal<E: From<IndexError>>(
        &mut self,
        principal: &str,
        revocation: &Revocation,
        since: i64,
        sign: impl FnOnce(i64, &[Entry]) -> Result<List, E>,
    ) -> Result<Stopped, E> {
        let transaction = begin(&mut self.connection)?;
        let Revocation { at, reason, by } = revocation;
        let revoked = select(
            &transaction,
            "WHERE principal = ?1 AND revoked IS NULL AND not_after >= ?2",
            params![principal, at],
        )?;
        for entry in &revoked {
            transaction
                .execute(REVOKE, params![entry.serial, at, reason.name(), by])
                .map_err(IndexError::from)?;
        }
        let withdrawn = stop(&transaction, principal, *at, by).map_err(IndexError::from)?;
        let mut stopped = Stopped {
            revoked,
            withdrawn,
            list: None,
        };
        if stopped.revoked.is_empty() && withdrawn == 0 {
            // What a predecessor issued is renewed no more, either.
            transaction.commit().map_err(IndexError::from)?;
            return Ok(stopped);
        }
        stopped.list = Some(keep_list(&transaction, since, sign)?);
        transaction.commit().map_err(IndexError::from)?;
        Ok(stopped)
    }

    /// Gives the newest list to `write`, while no other process can issue one: of two that write at
    /// once, both write the newest.
    pub fn publish_list<E: From<IndexError>>(
        &mut self,
        write: impl FnOnce(&List) -> Result<(), E>,
    ) -> Result<(), E> {
        let transaction = begin(&mut self.connection)?;
        match newest(&transaction)? {
            Some(list) => write(&list),
            None => Ok(()),
        }
    }

    /// The newest list; `None` in an index that has just been made.
    pub fn list(&self) -> Result<Option<List>, IndexError> {
        newest(&self.connection)
    }
}

/// Keeps the list that `sign` makes of its number and of what is revoked and would be valid at `since`.
fn keep_list<E: From<IndexError>>(
    transaction: &rusqlite::Transaction<'_>,
    since: i64,
    sign: impl FnOnce(i64, &[Entry]) -> Result<List, E>,
) -> Result<List, E> {
    let number = transaction
        .query_row(NEXT_NUMBER, [], |row| row.get(0))
        .map_err(IndexError::from)?;
    let revoked = select(
        transaction,
        "WHERE revoked IS NOT NULL AND not_after >= ?1",
        [since],
    )?;
    let list = sign(number, &revoked)?;
    transaction
        .execute("DELETE FROM list", [])
        .map_err(IndexError::from)?;
    let entries = i64::try_from(list.entries).unwrap_or(i64::MAX);
    transaction
        .execute(
            INSERT,
            params![
                list.number,
                list.this_update,
                list.next_update,
                entries,
                list.der
            ],
        )
        .map_err(IndexError::from)?;
    Ok(list)
}

fn newest(connection: &rusqlite::Connection) -> Result<Option<List>, IndexError> {
    let list = connection
        .query_row(NEWEST, [], |row| {
            let entries: i64 = row.get(3)?;
            Ok(List {
                number: row.get(0)?,
                this_update: row.get(1)?,
                next_update: row.get(2)?,
                entries: usize::try_from(entries).unwrap_or_default(),
                der: row.get(4)?,
            })
        })
        .optional()?;
    Ok(list)
}

const REVOKE: &str = "UPDATE certificate SET revoked = ?2, revocation_reason = ?3, revoked_by = ?4 \
    WHERE serial = ?1 AND revoked IS NULL";

const NEXT_NUMBER: &str = "SELECT coalesce(max(number), 0) + 1 FROM list";

const NEWEST: &str = "SELECT number, this_update, next_update, entries, der FROM list \
    ORDER BY number DESC LIMIT 1";

const INSERT: &str = "INSERT INTO list (number, this_update, next_update, entries, der) \
    VALUES (?1, ?2, ?3, ?4, ?5)";

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::tests::entry;
    use super::*;
    use crate::revocation::Reason;

    fn revocation(at: i64) -> Revocation {
        Revocation {
            at,
            reason: Reason::KeyCompromise,
            by: "olga@host".to_owned(),
        }
    }

    fn list(number: i64, revoked: &[Entry]) -> List {
        List {
            number,
            this_update: 1,
            next_update: 2,
            entries: revoked.len(),
            der: revoked
                .iter()
                .map(|entry| entry.serial.as_bytes()[1])
                .collect(),
        }
    }

    fn issue(index: &mut Index, serials: &[&str], at: i64) -> Result<List, IndexError> {
        let serials: Vec<String> = serials.iter().map(|&serial| serial.to_owned()).collect();
        index.issue_list(&serials, Some(&revocation(at)), 0, |number, revoked| {
            Ok(list(number, revoked))
        })
    }

    #[test]
    fn a_revocation_and_its_list_are_read_back_together() {
        let mut index = Index::in_memory().unwrap();
        index.record(&entry("01")).unwrap();
        index.record(&entry("02")).unwrap();
        assert_eq!(index.list().unwrap(), None);
        let first = issue(&mut index, &["02"], 150).unwrap();
        assert_eq!((first.number, first.entries), (1, 1));
        assert_eq!(index.list().unwrap(), Some(first));
        let revoked = index.by_serial("02").unwrap().unwrap();
        assert_eq!(revoked.revoked, Some(revocation(150)));
        assert_eq!(revoked.state(150), State::Revoked);
        assert_eq!(revoked.state(1000), State::Revoked);
        assert_eq!(index.by_serial("01").unwrap().unwrap().revoked, None);
    }

    #[test]
    fn numbers_grow_and_the_first_reason_stays() {
        let mut index = Index::in_memory().unwrap();
        index.record(&entry("01")).unwrap();
        let numbers = [110, 120, 130].map(|at| issue(&mut index, &["01"], at).unwrap().number);
        assert_eq!(numbers, [1, 2, 3]);
        let revoked = index.by_serial("01").unwrap().unwrap().revoked;
        assert_eq!(revoked, Some(revocation(110)));
    }

    #[test]
    fn a_list_that_cannot_be_signed_leaves_nothing_revoked() {
        let mut index = Index::in_memory().unwrap();
        index.record(&entry("01")).unwrap();
        let serials = ["01".to_owned()];
        let failed = index.issue_list(&serials, Some(&revocation(110)), 0, |_, _| {
            Err(IndexError::Version { version: 0 })
        });
        assert!(failed.is_err());
        assert_eq!(index.by_serial("01").unwrap(), Some(entry("01")));
        assert_eq!(issue(&mut index, &["01"], 120).unwrap().number, 1);
    }

    #[test]
    fn what_has_expired_leaves_the_list() {
        let mut index = Index::in_memory().unwrap();
        index.record(&entry("01")).unwrap();
        issue(&mut index, &["01"], 110).unwrap();
        let since = |index: &mut Index, since| {
            let list = index.issue_list(&[], None, since, |number, revoked| {
                Ok::<_, IndexError>(list(number, revoked))
            });
            list.unwrap().entries
        };
        assert_eq!(since(&mut index, 200), 1);
        assert_eq!(since(&mut index, 201), 0);
    }
}
