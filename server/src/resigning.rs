//! The revocation list of the authority that the gateway issues with: signed anew in time, so that nobody need.
//!
//! From half of a list's life on the authority's folder gets another that says the same, is good for as long and has
//! the next number. The folder's own functions do it, which lock out operators at work and survive a kill at any
//! write; the new file is then noticed like any other (`lists.rs`). What fails is told, and tried again.

use std::sync::Arc;

use adit_net::exit;
use adit_pki::AuthorityError;
use adit_pki::description::instant;
use adit_pki::index::List;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};
use tracing::info;

use crate::issuing::Issuing;

/// When the list is looked at next, and what came of it last.
#[derive(Debug, Default)]
pub struct Resigning {
    /// Unix time; at the beginning, at once.
    due: i64,
    /// A thread is at it.
    attempt: Option<Receiver<Outcome>>,
    failure: Option<String>,
}

/// What came of an attempt, at which folder.
type Outcome = (String, Result<(List, bool), AuthorityError>);

impl Resigning {
    /// Looks at the list if it is time to at `now`, Unix time, and has it signed anew if that must be; both on a thread,
    /// for they wait for a disk. To be called often: it costs nothing. Within a tokio runtime.
    pub fn look(&mut self, issuing: Option<&Arc<Issuing>>, now: i64) {
        if let Some(attempt) = &mut self.attempt {
            match attempt.try_recv() {
                Ok(outcome) => self.take(outcome, now),
                Err(TryRecvError::Empty) => return,
                // It panicked, which is in the log.
                Err(TryRecvError::Closed) => self.due = now + LOOK_EVERY_S,
            }
            self.attempt = None;
        }
        let Some(issuing) = issuing else {
            self.failure = None;
            return;
        };
        if now >= self.due {
            let (reply, outcome) = oneshot::channel();
            let issuing = Arc::clone(issuing);
            tokio::task::spawn_blocking(move || {
                let authority = issuing.authority();
                let folder = authority.folder().unwrap_or_else(|| "".as_ref());
                let folder = folder.display().to_string();
                // The control plane is gone only while the process ends.
                let _ = reply.send((folder, authority.keep_list_young(now)));
            });
            self.attempt = Some(outcome);
        }
    }

    /// That the list could not be signed anew, if so.
    pub fn warning(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn take(&mut self, (folder, outcome): Outcome, now: i64) {
        // An operator may sign one with a shorter life meanwhile, and a reload may bring another authority.
        self.due = now + LOOK_EVERY_S;
        match outcome {
            Ok((list, written)) => {
                self.due = self.due.min(list.half_life());
                self.failure = None;
                if written {
                    let (number, entries) = (list.number, list.entries);
                    let due = instant(list.next_update);
                    info!(
                        number,
                        entries, "{folder} has a new revocation list; the next is due by {due}"
                    );
                }
            }
            Err(error) => {
                let error = exit::chain(&error);
                self.failure = Some(format!(
                    "{folder}: the revocation list cannot be signed anew: {error}; it is tried again every minute"
                ));
            }
        }
    }
}

/// How long it may take until a list that somebody else signed, or another authority, is known.
const LOOK_EVERY_S: i64 = 60;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::issuing::tests::{House, NOW};

    /// Half of the week for which a list is good.
    const HALF: i64 = 7 * 86_400 / 2;

    /// A gateway's control plane as far as it looks after the list.
    struct Gateway {
        house: House,
        resigning: Resigning,
    }

    impl Gateway {
        fn new(name: &str) -> Self {
            Self {
                house: House::new(name),
                resigning: Resigning::default(),
            }
        }

        fn list(&self) -> PathBuf {
            self.house.root.join("issuing/crl.pem")
        }

        /// Looks at `now`, until what that begins is done; returns the number of the list in force.
        async fn look(&mut self, now: i64) -> i64 {
            self.resigning.look(Some(&self.house.issuing), now);
            while self.resigning.attempt.is_some() {
                tokio::task::yield_now().await;
                self.resigning.look(Some(&self.house.issuing), now);
            }
            let list = self.house.issuing.authority().list().unwrap();
            list.unwrap().number
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(test);
    }

    #[test]
    fn a_list_is_signed_anew_from_half_its_life_on_and_once() {
        run(async {
            let mut gateway = Gateway::new("resigning");
            for (after, number) in [(0, 1), (HALF - 1, 1), (HALF, 2), (HALF + 60, 2)] {
                assert_eq!(gateway.look(NOW + after).await, number, "{after}");
            }
            // A gateway that was off when it was time.
            assert_eq!(gateway.look(NOW + 100 * HALF).await, 3);
            assert_eq!(gateway.resigning.warning(), None);
        });
    }

    #[test]
    fn the_index_is_asked_once_a_minute_and_not_with_every_look() {
        run(async {
            let mut gateway = Gateway::new("rhythm");
            gateway.look(NOW).await;
            let issuing = Some(&gateway.house.issuing);
            gateway.resigning.look(issuing, NOW + 59);
            assert!(gateway.resigning.attempt.is_none());
            gateway.resigning.look(issuing, NOW + 60);
            assert!(gateway.resigning.attempt.is_some());
        });
    }

    #[test]
    fn what_cannot_be_written_is_told_and_written_when_it_can_be() {
        run(async {
            let mut gateway = Gateway::new("failing");
            let (list, aside) = (gateway.list(), gateway.house.root.join("aside"));
            let before = fs::read(&list).unwrap();
            fs::rename(&list, &aside).unwrap();
            fs::create_dir(&list).unwrap();
            gateway.look(NOW + HALF).await;
            let warning = gateway.resigning.warning().unwrap();
            assert!(
                warning.contains("issuing: the revocation list") && warning.contains("crl.pem"),
                "{warning}"
            );
            gateway.look(NOW + HALF + 59).await;
            assert!(
                gateway.resigning.warning().is_some(),
                "it is not mended yet"
            );
            fs::remove_dir(&list).unwrap();
            assert_eq!(gateway.look(NOW + HALF + 60).await, 2);
            assert_eq!(gateway.resigning.warning(), None);
            assert_ne!(fs::read(&list).unwrap(), before);
        });
    }

    #[test]
    fn a_gateway_that_issues_nothing_signs_nothing() {
        run(async {
            let mut resigning = Resigning::default();
            resigning.look(None, NOW);
            assert!(resigning.attempt.is_none() && resigning.warning().is_none());
        });
    }
}
