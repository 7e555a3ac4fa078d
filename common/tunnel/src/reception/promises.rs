//! An address is promised when the lease that says so outlives the process, and not before.
//!
//! ```text
//! request ─ judged ─ lease is saved? ─ yes ──────────────────────────────────────► session
//!                         └─ no ─ waits ─ one table for all who wait ─ is saved ──► session
//!                                                                   └─ is not ───► refusal
//! ```
//!
//! Whoever comes back to a lease waits for nothing. One table is written at a time; those who come meanwhile
//! share the next, which begins after a rest as long as the write was: a storm of newcomers costs a few tables. A session
//! that a reload gives another address hears of it afterwards too, but a disk that fails does not keep a policy from counting.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::Principal;
use adit_core::table::leases::LeaseEntry;

use super::{Reception, Request};
use crate::gateway::GatewayEvent;
use crate::holder::Holder;
use crate::links::Key;
use crate::path::InnerMtu;

/// All leases, to be written down where they outlive the process.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    /// Which state of the leases this is.
    pub revision: u64,
    /// Everything that is held.
    pub entries: Vec<LeaseEntry>,
}

/// Who waits for the lease table, and what is known of it.
#[derive(Debug, Default)]
pub(super) struct Promises {
    waiting: BTreeMap<Key, Waiting>,
    /// Counts those who ever waited.
    next: u64,
    /// Messages to engines wait until this revision is saved.
    held: Option<u64>,
    /// Since when a table is being written.
    began: Option<Instant>,
    /// When the next one may begin.
    rested: Option<Instant>,
    /// When a table is written for which nobody waits: who was here when, which leases ended.
    due: Option<Instant>,
    /// The revision that was told to the control plane.
    told: u64,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Who came first is first admitted.
    number: u64,
    holder: Holder,
    request: Request,
    path: Option<InnerMtu>,
}

impl Promises {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match (self.began, self.is_awaited()) {
            (Some(_), _) => None,
            (None, true) => self.rested,
            (None, false) => {
                let rested = |due: Instant| self.rested.map_or(due, |rested| due.max(rested));
                self.due.map(rested)
            }
        }
    }

    fn is_awaited(&self) -> bool {
        !self.waiting.is_empty() || self.held.is_some()
    }

    fn take(&mut self, key: Key) -> Option<(Principal, Waiting)> {
        let waiting = self.waiting.remove(&key)?;
        Some((waiting.holder.identity.principal.clone(), waiting))
    }

    /// Everybody, in the order in which they came.
    fn in_order(&self) -> Vec<Key> {
        let mut waiting: Vec<(u64, Key)> = self
            .waiting
            .iter()
            .map(|(&key, waiting)| (waiting.number, key))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, key)| key).collect()
    }
}

impl Reception {
    /// The leases, when they are to be written down. Answer with [`Self::leases_saved`] or
    /// [`Self::leases_not_saved`]; there is no other table before that.
    pub fn poll_leases(&mut self, now: Instant) -> Option<LeaseTable> {
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let is_wanted = self.promises.is_awaited() || is_over(self.promises.due);
        // What a policy takes away it takes away at once.
        let is_urgent = self.promises.held.is_some() || self.promises.rested.is_none();
        let has_rested = is_urgent || is_over(self.promises.rested);
        if self.promises.began.is_some() || !is_wanted || !has_rested {
            return None;
        }
        self.promises.began = Some(now);
        self.promises.due = None;
        Some(LeaseTable {
            revision: self.admission.leases().revision(),
            entries: self.leases(now),
        })
    }

    /// The table of this revision outlives the process: whoever waited for it has a session now.
    pub fn leases_saved(&mut self, now: Instant, revision: u64) {
        self.admission.leases_saved(revision);
        self.written(now);
        if self.promises.held.is_some_and(|held| held <= revision) {
            self.promises.held = None;
        }
        for key in self.promises.in_order() {
            let principal = self.promises.waiting.get(&key);
            let principal = principal.map(|waiting| &waiting.holder.identity.principal);
            if principal.is_some_and(|principal| self.admission.leases().is_saved(principal))
                && let Some(waiting) = self.give_up_waiting(now, key)
            {
                // Judged anew: the policy may be another, and others may have come meanwhile.
                self.admit(now, key, waiting.request, waiting.path);
            }
        }
    }

    /// The table could not be written: whoever waited is told to come again.
    pub fn leases_not_saved(&mut self, now: Instant) {
        self.written(now);
        self.promises.held = None;
        self.promises.due = Some(now + AGAIN);
        for key in self.promises.in_order() {
            if let Some(waiting) = self.give_up_waiting(now, key) {
                let refusal = Refusal::new(RefusalKind::LeaseNotSaved, "");
                self.refuse(now, key, Some(waiting.holder), refusal);
            }
        }
    }

    /// Whether words to engines wait for the disk.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.promises.held.is_some()
    }

    /// Keeps a request until its lease is saved; what it was given is in use meanwhile.
    pub(super) fn promise(
        &mut self,
        now: Instant,
        key: Key,
        holder: Holder,
        request: Request,
        path: Option<InnerMtu>,
    ) {
        // A client has one request, and it is answered once.
        self.give_up_waiting(now, key);
        self.admission.connect(&holder.identity.principal);
        self.promises.next += 1;
        let waiting = Waiting {
            number: self.promises.next,
            holder,
            request,
            path,
        };
        self.promises.waiting.insert(key, waiting);
    }

    /// The link is gone, or its request is answered.
    pub(super) fn give_up_waiting(&mut self, now: Instant, key: Key) -> Option<Waiting> {
        let (principal, waiting) = self.promises.take(key)?;
        self.admission.release(&principal, self.epoch.unix(now));
        Some(waiting)
    }

    /// Sessions that run have leases that are not saved: their engines hear of it when they are.
    pub(super) fn hold_back<'a>(&mut self, mut given: impl Iterator<Item = &'a Principal>) {
        let leases = self.admission.leases();
        if given.any(|principal| !leases.is_saved(principal)) {
            self.promises.held = Some(leases.revision());
        }
    }

    /// Somebody came, went, or lost a lease, which is written down in a moment.
    pub(super) fn leases_changed(&mut self, now: Instant) {
        self.promises.due.get_or_insert(now + SOON);
    }

    fn written(&mut self, now: Instant) {
        let took = self.promises.began.take().map(|began| now - began);
        self.promises.rested = Some(now + took.unwrap_or_default().max(REST));
        let revision = self.admission.leases().revision();
        if self.promises.told != revision {
            self.promises.told = revision;
            self.events.push_back(GatewayEvent::LeasesChanged);
        }
    }
}

/// The least time between two tables.
const REST: Duration = Duration::from_millis(10);
/// How long a table waits for whose sake nobody waits.
const SOON: Duration = Duration::from_secs(1);
/// When what could not be written is tried again, unless somebody comes earlier.
const AGAIN: Duration = Duration::from_secs(10);
