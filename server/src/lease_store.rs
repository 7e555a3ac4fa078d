//! The leases on the disk: written by a thread of its own, one table after the other.
//!
//! ```text
//! desk ── table ──► store ── saved, or not ──► desk ── now the addresses can be told
//! ```
//!
//! Neither a packet nor a handshake waits for the disk. While one table is being written the desk gathers who comes,
//! and they share the next. While the state moves to another directory, a table is saved when both have it.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use adit_core::table::leases::LeaseEntry;
use adit_tunnel::LeaseTable;
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::desk::Desk;
use crate::state::{State, StateError};

/// What the store is told.
enum Job {
    Save(LeaseTable),
    Join(State, oneshot::Sender<Result<(), StateError>>),
    Leave(State, oneshot::Sender<()>),
    Close,
}

/// The way to the store; one per thread that talks to it.
#[derive(Clone)]
pub struct LeaseStore(Sender<Job>);

/// The store's own end.
pub struct Jobs(Receiver<Job>);

/// A way to a store that does not run yet.
pub fn lease_store() -> (LeaseStore, Jobs) {
    let (sender, receiver) = channel();
    (LeaseStore(sender), Jobs(receiver))
}

impl LeaseStore {
    /// Has a table written; the desk is told when it is.
    pub fn save(&self, table: LeaseTable) {
        // The store is gone only while the process ends.
        let _ = self.0.send(Job::Save(table));
    }

    /// From now on leases are saved there as well, beginning with those that are saved already; `None` when the store
    /// has closed.
    pub async fn join(&self, place: &State) -> Option<Result<(), StateError>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Job::Join(place.clone(), reply)).ok()?;
        answer.await.ok()
    }

    /// From now on nothing is saved there; when this returns, nothing is being written there either.
    pub async fn leave(&self, place: &State) {
        let (reply, answer) = oneshot::channel();
        if self.0.send(Job::Leave(place.clone(), reply)).is_ok() {
            let _ = answer.await;
        }
    }

    /// Ends the thread after all it was told.
    pub fn close(&self) {
        let _ = self.0.send(Job::Close);
    }
}

/// Starts the thread, with the leases that are in `place` already.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(
    jobs: Jobs,
    place: State,
    saved: Vec<LeaseEntry>,
    desk: Desk,
) -> io::Result<JoinHandle<()>> {
    let mut store = Store {
        places: vec![place],
        saved,
        fails: false,
    };
    std::thread::Builder::new()
        .name("leases".to_owned())
        .spawn(move || {
            adit_net::priority::yield_to_others();
            for job in jobs.0 {
                match job {
                    Job::Save(table) => {
                        let revision = table.revision;
                        let is_saved = store.save(table);
                        desk.leases_saved(is_saved.then_some(revision));
                    }
                    // Who asked may have gone away meanwhile.
                    Job::Join(place, reply) => drop(reply.send(store.join(place))),
                    Job::Leave(place, reply) => {
                        store.leave(&place);
                        let _ = reply.send(());
                    }
                    Job::Close => return,
                }
            }
        })
}

struct Store {
    places: Vec<State>,
    /// What is in all of them.
    saved: Vec<LeaseEntry>,
    /// Whether the last table could not be written, which is told once.
    fails: bool,
}

impl Store {
    fn save(&mut self, table: LeaseTable) -> bool {
        let written = self
            .places
            .iter()
            .try_for_each(|place| place.save_leases(&table.entries));
        match &written {
            Ok(()) => {
                self.saved = table.entries;
                if self.fails {
                    info!("the leases are saved again");
                }
            }
            Err(error) if !self.fails => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                error!(
                    %error,
                    cause,
                    "the leases cannot be saved: who has none yet is refused until they can be"
                );
            }
            Err(_) => {}
        }
        self.fails = written.is_err();
        written.is_ok()
    }

    fn join(&mut self, place: State) -> Result<(), StateError> {
        place.save_leases(&self.saved)?;
        self.places.push(place);
        Ok(())
    }

    fn leave(&mut self, place: &State) {
        self.places
            .retain(|other| other.directory() != place.directory());
    }
}

#[cfg(test)]
mod tests {
    use adit_core::identity::Principal;

    use super::*;

    fn table(revision: u64, principal: &str) -> LeaseTable {
        let entry = LeaseEntry {
            principal: Principal::parse(principal).unwrap(),
            v4: Some([10, 99, 0, 7].into()),
            v6: None,
            last_used: 1,
        };
        LeaseTable {
            revision,
            entries: vec![entry],
        }
    }

    #[test]
    fn a_table_is_saved_when_every_place_has_it() {
        let root = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| State::open(&root.path().join(name)).unwrap());
        let mut store = Store {
            places: vec![old.clone()],
            saved: Vec::new(),
            fails: false,
        };
        let one = table(1, "alice@example.com");
        assert!(store.save(one.clone()));
        store.join(new.clone()).unwrap();
        assert_eq!(
            new.leases().unwrap(),
            one.entries,
            "what is saved is there at once"
        );
        let two = table(2, "bob@example.com");
        assert!(store.save(two.clone()));
        assert_eq!(
            [&old, &new].map(|place| place.leases().unwrap()),
            [two.entries.clone(), two.entries.clone()]
        );
        // A place that is gone cannot be written to.
        std::fs::remove_dir_all(new.directory()).unwrap();
        assert!(!store.save(table(3, "carol@example.com")));
        store.leave(&new);
        assert!(store.save(two));
        assert!(!new.directory().exists(), "nothing is made where nobody is");
    }
}
