//! Requests to take a session over, answered when it is known what the new path carries.
//!
//! A QUIC path begins at 1200 bytes. A session that went over to it at once would lose its larger packets, and
//! IPv6, for the time of the search; the connection before carries them meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_core::session::gateway::Scope;
use adit_core::session::{Proof, UserAgent};

use super::Reception;
use crate::links::Key;
use crate::path::InnerMtu;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) stream: u64,
    /// What it limits itself to.
    pub(super) scope: Scope,
    /// Proves that it has the connection of the session that its principal has.
    pub(super) handover: Option<Proof>,
    /// What it says about itself.
    pub(super) user_agent: Option<UserAgent>,
}

/// Links whose request waits for the path.
#[derive(Debug, Default)]
pub(super) struct Awaited(BTreeMap<Key, Waiting>);

#[derive(Debug)]
struct Waiting {
    request: Request,
    mtu: InnerMtu,
    /// When the request is answered whatever the path carries.
    until: Instant,
}

impl Awaited {
    /// The link is gone, or will be.
    pub(super) fn remove(&mut self, key: Key) {
        self.0.remove(&key);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.values().map(Waiting::due).min()
    }

    fn due(&self, now: Instant) -> Vec<Key> {
        let due = self.0.iter().filter(|(_, waiting)| waiting.due() <= now);
        due.map(|(&key, _)| key).collect()
    }
}

impl Waiting {
    fn due(&self) -> Instant {
        self.until.min(self.mtu.settles_at())
    }
}

impl Reception {
    /// A client asks for the tunnel: what it asks is judged now, or when the path is known.
    pub(super) fn consider(&mut self, now: Instant, key: Key, request: Request) {
        if request.handover.is_none() {
            return self.admit(now, key, request, None);
        }
        let Some(max_datagram) = self.links.max_datagram(key) else {
            return;
        };
        let rtt = self.links.get(key).map(|link| link.connection.rtt());
        let mtu = InnerMtu::new(
            now,
            request.stream,
            self.tunnel_mtu,
            rtt.unwrap_or_default(),
            max_datagram,
        );
        let until = now + PATIENCE;
        let waiting = Waiting {
            request,
            mtu,
            until,
        };
        self.awaited.0.insert(key, waiting);
        self.follow_path(now, key);
    }

    /// Looks again at what a link carries that waits for that.
    pub(super) fn follow_path(&mut self, now: Instant, key: Key) {
        let Some(waiting) = self.awaited.0.get_mut(&key) else {
            return;
        };
        if let Some(max_datagram) = self.links.max_datagram(key) {
            waiting.mtu.update(now, max_datagram);
        }
        if waiting.due() <= now
            && let Some(waiting) = self.awaited.0.remove(&key)
        {
            self.admit(now, key, waiting.request, Some(waiting.mtu));
        }
    }

    /// Answers those who have waited long enough.
    pub(super) fn answer_awaited(&mut self, now: Instant) {
        for key in self.awaited.due(now) {
            self.follow_path(now, key);
        }
    }
}

/// Half of what a client waits for an answer to its request; the search takes longer only on paths of 175 ms and
/// more that carry less than the tunnel's MTU.
const PATIENCE: Duration = Duration::from_secs(5);
