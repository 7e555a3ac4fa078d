//! A session goes over to a new link of its client without losing a packet.
//!
//! ```text
//!               ┌── new link ──┐   from now on: both ways
//! client ───────┤              ├── session: flows, counters, rates, denials go on
//!               └── tail ──────┘   what is under way from the client, for a moment
//! ```
//!
//! Whether a link may take over is the front desk's to say. What the client sent on the old link before it heard
//! of the new one is judged as what comes on the new one.

use std::time::{Duration, Instant};

use adit_core::close::RefusalKind;
use adit_core::dataplane::gateway::Place;
use adit_core::session::gateway::Control;

use super::{Gateway, GatewayEvent, Session, SessionId};
use crate::link::Link;
use crate::links::Key;
use crate::reception::ToReception;

/// The link that a session had before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    /// The session as it is numbered now.
    session: SessionId,
    /// The stream that the datagrams of this link belong to.
    stream: u64,
    /// When it is closed if the client does not do it.
    until: Instant,
}

impl Gateway {
    /// Joins a session with a link that takes over from `predecessor`; if that has ended, the session begins.
    pub(super) fn hand_over(
        &mut self,
        now: Instant,
        predecessor: SessionId,
        link: Link<Control>,
        arrived: Session,
    ) {
        let tail = self.by_id.get(&predecessor).copied();
        let session = tail.and_then(|tail| Some((tail, self.sessions.get_mut(tail)?.take()?)));
        let Some((tail, mut session)) = session else {
            return self.open(link, arrived);
        };
        let key = self.links.insert(link);
        self.by_id.remove(&predecessor);
        if let Some(due) = session.timeout() {
            self.timers.remove(&(due, tail));
        }
        if let Some(due) = session.denials.due() {
            self.denials.remove(&(due, tail));
            self.denials.insert((due, key));
        }
        let stream = session.stream;
        let before = session.take_over(arrived);
        for prefix in &session.grant.addresses {
            self.owners.insert(*prefix, Place::Here(key));
        }
        for prefix in &before.grant.addresses {
            if !session.grant.addresses.contains(prefix) {
                self.owners.remove(prefix, Place::Here(tail));
            }
        }
        self.events.push_back(GatewayEvent::HandedOver {
            session: session.info(self.remote(key)),
            before: predecessor,
            serial: before.serial,
        });
        self.messages.push_back(ToReception::Ended {
            engine: self.number,
            session: predecessor,
            principal: session.grant.principal.clone(),
        });
        let id = session.id;
        self.seat(key, session);
        for other in self.tails.values_mut() {
            if other.session == predecessor {
                other.session = id;
            }
        }
        let until = now + TAIL;
        let session = id;
        self.timers.insert((until, tail));
        self.tails.insert(
            tail,
            Tail {
                session,
                stream,
                until,
            },
        );
    }

    /// The session whose packets a link carries, by the session's own link, and on which stream of this one.
    pub(super) fn carried(&self, link: Key) -> Option<(Key, u64)> {
        if let Some(session) = self.session(link) {
            return Some((link, session.stream));
        }
        let tail = self.tails.get(&link)?;
        Some((*self.by_id.get(&tail.session)?, tail.stream))
    }

    /// Closes a link whose time as a tail is over.
    pub(super) fn handle_tail_timeout(&mut self, now: Instant, key: Key) {
        if self.tails.get(&key).is_some_and(|tail| tail.until <= now) {
            self.close_tail(now, key, RefusalKind::HandedOver);
        }
    }

    /// The session is over, so nothing is under way to it any more.
    pub(super) fn close_tails(&mut self, now: Instant, session: SessionId, kind: RefusalKind) {
        let tails = self.tails.iter();
        let tails = tails.filter(|(_, tail)| tail.session == session);
        let keys: Vec<Key> = tails.map(|(&key, _)| key).collect();
        for key in keys {
            self.close_tail(now, key, kind);
        }
    }

    /// The link is gone, or has another part to play.
    pub(super) fn forget_tail(&mut self, key: Key) {
        if let Some(tail) = self.tails.remove(&key) {
            self.timers.remove(&(tail.until, key));
        }
    }

    fn close_tail(&mut self, now: Instant, key: Key, kind: RefusalKind) {
        self.forget_tail(key);
        self.links.close(now, key, kind.code(), kind.text());
    }
}

/// How long a client may take to go over: to hear of it over a bad path, and for its own search for the path's
/// MTU. Ours has gone over two seconds after that, and then closes the old link itself.
const TAIL: Duration = Duration::from_secs(15);
