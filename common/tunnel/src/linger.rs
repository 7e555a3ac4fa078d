//! Links that are closed a little later: whoever was refused has time to read why.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_core::close::RefusalKind;

use crate::link::Machine;
use crate::links::{Key, Links};

/// When to close which link, and with what words.
#[derive(Debug, Default)]
pub(crate) struct Lingering {
    entries: BTreeMap<(Instant, Key), Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Tells the link from a later one at the same place.
    serial: u64,
    kind: RefusalKind,
}

impl Lingering {
    /// Gives a link a little time, then closes it for `kind`.
    pub(crate) fn add<M: Machine>(
        &mut self,
        now: Instant,
        links: &Links<M>,
        key: Key,
        kind: RefusalKind,
    ) {
        if let Some(link) = links.get(key) {
            let serial = link.serial;
            self.entries
                .insert((now + LINGER, key), Entry { serial, kind });
        }
    }

    /// Closes what is due, except where `spared` says that something came of it.
    pub(crate) fn handle_timeout<M: Machine>(
        &mut self,
        now: Instant,
        links: &mut Links<M>,
        spared: impl Fn(Key) -> bool,
    ) {
        while let Some(entry) = self.entries.first_entry() {
            let (due, key) = *entry.key();
            if due > now {
                break;
            }
            let Entry { serial, kind } = entry.remove();
            let is_same = links.get(key).is_some_and(|link| link.serial == serial);
            if is_same && !spared(key) {
                links.close(now, key, kind.code(), kind.text());
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.entries.keys().next().map(|(due, _)| *due)
    }
}

/// How long a refused client has to read the refusal before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);
