//! Where links went: a datagram that was under way when its link moved is sent after it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use quinn_proto::ConnectionId;

/// Connection ids of links that left for an engine not long ago: their datagrams may still come here.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// With the engine.
    ids: HashMap<ConnectionId, u8>,
    order: VecDeque<(Instant, Vec<ConnectionId>)>,
}

impl Departed {
    pub(super) fn add(&mut self, now: Instant, ids: &[ConnectionId], engine: u8) {
        self.ids.extend(ids.iter().map(|id| (*id, engine)));
        self.order.push_back((now + REMEMBERED, ids.to_vec()));
    }

    pub(super) fn engine(&self, id: &ConnectionId) -> Option<u8> {
        self.ids.get(id).copied()
    }

    pub(super) fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            for id in self
                .order
                .pop_front()
                .map(|(_, ids)| ids)
                .into_iter()
                .flatten()
            {
                self.ids.remove(&id);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.order.front().map(|(until, _)| *until)
    }
}

/// Longer than a datagram waits between two threads, and than a client's first retransmissions take.
const REMEMBERED: Duration = Duration::from_secs(3);
