//! The life of a session on its engine: it arrives, follows its path, and ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_core::close::RefusalKind;
use adit_core::dataplane::gateway::Place;
use adit_core::session::gateway::Control;

use super::{Gateway, GatewayEvent, Session};
use crate::link::Link;
use crate::links::Key;
use crate::path::Ipv6;
use crate::reception::{Regrant, ToReception};

impl Gateway {
    pub(super) fn open(&mut self, link: Link<Control>, session: Session) {
        let remote = link.connection.remote_address();
        let key = self.links.insert(link);
        for prefix in &session.grant.addresses {
            self.owners.insert(*prefix, Place::Here(key));
        }
        self.events
            .push_back(GatewayEvent::Opened(session.info(remote)));
        self.seat(key, session);
    }

    /// A session has this link from now on.
    pub(super) fn seat(&mut self, key: Key, session: Session) {
        self.by_id.insert(session.id, key);
        if let Some(due) = session.timeout() {
            self.timers.insert((due, key));
        }
        if self.sessions.len() <= key {
            self.sessions.resize_with(key + 1, || None);
        }
        self.sessions[key] = Some(session);
    }

    /// Gives a session what it has from now on, and tells its client what of that is new (RFC 9484 §4.7).
    pub(super) fn regrant(&mut self, now: Instant, regrant: Regrant) {
        let Some(&key) = self.by_id.get(&regrant.session) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        session.identity = regrant.identity;
        let due = session.timeout();
        let before = session.replace_grant(regrant.grant);
        session.term.change(now, session.grant.maximum, &self.epoch);
        let due_now = session.timeout();
        for prefix in &session.grant.addresses {
            if !before.addresses.contains(prefix) {
                self.owners.insert(*prefix, Place::Here(key));
            }
        }
        for prefix in &before.addresses {
            if !session.grant.addresses.contains(prefix) {
                self.owners.remove(prefix, Place::Here(key));
            }
        }
        self.rearm(key, due, due_now);
        self.tell_assignment(key);
    }

    /// Moves a session's place among the timers.
    fn rearm(&mut self, key: Key, before: Option<Instant>, after: Option<Instant>) {
        if let Some(due) = before {
            self.timers.remove(&(due, key));
        }
        if let Some(due) = after {
            self.timers.insert((due, key));
        }
    }

    /// Tells a client what addresses and routes it has; what it was told already is not told again.
    fn tell_assignment(&mut self, key: Key) {
        let Some(assignment) = self.session(key).map(Session::assignment) else {
            return;
        };
        if let Some(machine) = self.links.touch(key).and_then(|link| link.machine.as_mut()) {
            machine.assign(&assignment);
        }
    }

    /// Ends a link with its session, telling both ends why.
    pub(super) fn end(&mut self, now: Instant, key: Key, kind: RefusalKind) {
        if let Some(session) = self.session(key).map(|session| session.id) {
            self.close_tails(now, session, kind);
        }
        self.forget_tail(key);
        self.forget_session(now, key, kind.text());
        self.links.close(now, key, kind.code(), kind.text());
    }

    /// Takes back everything a session holds. The link itself is the caller's to close.
    pub(super) fn forget_session(&mut self, now: Instant, key: Key, reason: &str) {
        let Some(mut session) = self.sessions.get_mut(key).and_then(Option::take) else {
            return;
        };
        for prefix in &session.grant.addresses {
            self.owners.remove(prefix, Place::Here(key));
        }
        self.by_id.remove(&session.id);
        self.close_tails(now, session.id, RefusalKind::HandedOver);
        if let Some(due) = session.timeout() {
            self.timers.remove(&(due, key));
        }
        self.totals.add(&session.counters);
        self.tell_last_denials(key, &mut session);
        self.events.push_back(GatewayEvent::Closed {
            session: session.info(self.remote(key)),
            rules: session.accounts(),
            counters: Box::new(session.counters),
            reason: reason.to_owned(),
        });
        self.messages.push_back(ToReception::Ended {
            engine: self.number,
            session: session.id,
            principal: session.grant.principal,
        });
    }

    /// Where a link's packets come from.
    pub(super) fn remote(&self, key: Key) -> SocketAddr {
        self.links.get(key).map_or_else(
            || SocketAddr::from(([0, 0, 0, 0], 0)),
            |link| link.connection.remote_address(),
        )
    }

    /// Makes sure that flows are forgotten, and their memory given back, when no packet comes.
    pub(super) fn keep_sweeping(&mut self, now: Instant) {
        if self.sweep.is_none() {
            self.sweep = Some(now + SWEEP);
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        if self.sweep.is_none_or(|due| due > now) {
            return;
        }
        self.sweep = None;
        for session in self.sessions.iter_mut().flatten() {
            session.flows.expire(now);
            if !session.flows.is_empty() {
                self.sweep = Some(now + SWEEP);
            }
        }
    }

    pub(super) fn handle_session_timeout(&mut self, now: Instant, key: Key) {
        let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        if let Some(kind) = session.term.over(now) {
            return self.end(now, key, kind);
        }
        let before = session.timeout();
        if session.term.take_notice(now) {
            let after = session.timeout();
            self.rearm(key, before, after);
            // RFC 9114 §5.2: what is open goes on, and the next request belongs on another connection.
            if let Some(machine) = self.links.touch(key).and_then(|link| link.machine.as_mut()) {
                machine.shutdown();
            }
        }
        self.follow_path(now, key);
    }

    /// Adopts QUIC's current limit and gives or takes IPv6 accordingly.
    pub(super) fn follow_path(&mut self, now: Instant, key: Key) {
        let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let Some(max_datagram) = self.links.max_datagram(key) else {
            return;
        };
        let before = session.timeout();
        session.mtu.update(now, max_datagram);
        let ipv6 = session.mtu.ipv6(now);
        // IPv6 that was given is taken back only when the path is known to be too small.
        let changes =
            ipv6 != session.ipv6 && !(session.ipv6 != Ipv6::Pending && ipv6 == Ipv6::Pending);
        if changes {
            session.ipv6 = ipv6;
        }
        let after = session.timeout();
        if before != after {
            self.rearm(key, before, after);
        }
        if changes {
            // Addresses that the path does not carry are nobody's.
            self.owners.invalidate();
            self.tell_assignment(key);
        }
    }
}

/// How often expired flows are looked for: half as long as the shortest of them lives.
const SWEEP: Duration = Duration::from_secs(30);
