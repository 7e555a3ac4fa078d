//! From a request to a session, and back: the only place where sessions begin and end.

use std::time::Instant;

use adit_core::admission::Grant;
use adit_core::close::{Refusal, RefusalKind};
use adit_core::dataplane::Counters;
use adit_core::identity::{Identity, Principal};
use adit_core::session::gateway::Scope;
use quinn_proto::ConnectionError;

use super::session::{self, Session, SessionId};
use super::{Gateway, GatewayEvent, Lingering, SecondConnection};
use crate::links::Key;
use crate::path::{InnerMtu, Ipv6};

impl Gateway {
    /// A client whose certificate the handshake accepted asks for the tunnel.
    pub(super) fn admit(&mut self, now: Instant, key: Key, stream: u64, scope: Scope) {
        if self.links.max_datagram(key).flatten().unwrap_or(0) < SMALLEST_DATAGRAM {
            // RFC 9221 §3: whatever its SETTINGS say, packets could not reach this client, and
            // hosts inside would be told to send it ever smaller ones.
            let detail = format!("max_datagram_frame_size must be {SMALLEST_DATAGRAM} or more");
            let refusal = Refusal::new(RefusalKind::BadRequest, detail);
            return self.refuse(now, key, None, refusal);
        }
        let Some(link) = self.links.get(key) else {
            return;
        };
        let chain = link.peer_chain();
        let identity = match self.authorities.identify(&chain, self.epoch.unix_time(now)) {
            Ok(identity) => identity,
            Err(error) => return self.refuse(now, key, None, error.into()),
        };
        let principal = identity.principal.clone();
        let holder = self.by_principal.get(&principal).copied();
        if holder.is_some() && self.second_connection == SecondConnection::Refuse {
            let refusal = Refusal::new(RefusalKind::AlreadyConnected, principal.to_string());
            return self.refuse(now, key, Some(principal), refusal);
        }
        match self.admission.admit(&identity, self.epoch.unix(now)) {
            Ok(mut grant) => {
                // The client may want less than it could have (RFC 9484 §4.6).
                grant.routes = grant
                    .routes
                    .iter()
                    .filter_map(|range| range.narrowed(scope.target, scope.protocol))
                    .collect();
                if let Some(holder) = holder {
                    self.end(now, holder, RefusalKind::Replaced);
                }
                self.open(now, key, stream, identity, grant);
            }
            Err(refusal) => self.refuse(now, key, Some(principal), refusal),
        }
    }

    fn open(&mut self, now: Instant, key: Key, stream: u64, identity: Identity, grant: Grant) {
        let Some(link) = self.links.touch(key) else {
            return;
        };
        let max_datagram = link.connection.datagrams().max_size();
        let mtu = InnerMtu::new(
            now,
            stream,
            self.tunnel_mtu,
            link.connection.rtt(),
            max_datagram,
        );
        let ipv6 = mtu.ipv6(now);
        if let Some(machine) = &mut link.machine {
            machine.admit(&session::assignment(&grant, ipv6));
        }
        let remote = link.connection.remote_address();
        for prefix in &grant.addresses {
            self.owners.insert(*prefix, key);
        }
        let session = Session {
            id: SessionId(self.next_id),
            deadline: self.epoch.instant_of(identity.not_after),
            identity,
            grant,
            stream,
            since_unix: self.epoch.unix(now),
            mtu,
            ipv6,
            counters: Counters::default(),
            answers: session::answer_limit(now),
        };
        self.next_id += 1;
        self.by_principal
            .insert(session.grant.principal.clone(), key);
        if let Some(due) = session.timeout() {
            self.timers.insert((due, key));
        }
        self.events
            .push_back(GatewayEvent::Opened(session.info(remote)));
        self.events.push_back(GatewayEvent::LeasesChanged);
        if self.sessions.len() <= key {
            self.sessions.resize_with(key + 1, || None);
        }
        self.sessions[key] = Some(session);
    }

    /// Says no over HTTP, so that the client can read why, and closes the link a little later.
    fn refuse(&mut self, now: Instant, key: Key, principal: Option<Principal>, refusal: Refusal) {
        if let Some(link) = self.links.touch(key) {
            if let Some(machine) = &mut link.machine {
                machine.refuse(&refusal);
            }
            let kind = refusal.kind;
            self.events.push_back(GatewayEvent::Refused {
                remote: link.connection.remote_address(),
                principal,
                refusal,
            });
            self.linger(now, key, kind);
        }
    }

    /// Ends a link with its session, telling both ends why.
    pub(super) fn end(&mut self, now: Instant, key: Key, kind: RefusalKind) {
        self.forget_session(now, key, kind.text());
        self.links.close(now, key, kind.code(), kind.text());
    }

    /// Takes back everything a session holds. The link itself is the caller's to close.
    pub(super) fn forget_session(&mut self, now: Instant, key: Key, reason: &str) {
        let Some(session) = self.sessions.get_mut(key).and_then(Option::take) else {
            return;
        };
        for prefix in &session.grant.addresses {
            self.owners.remove(prefix, key);
        }
        self.by_principal.remove(&session.grant.principal);
        self.admission
            .release(&session.grant.principal, self.epoch.unix(now));
        if let Some(due) = session.timeout() {
            self.timers.remove(&(due, key));
        }
        self.totals.add(&session.counters);
        let remote = self.links.get(key).map_or_else(
            || std::net::SocketAddr::from(([0, 0, 0, 0], 0)),
            |link| link.connection.remote_address(),
        );
        self.events.push_back(GatewayEvent::Closed {
            session: session.info(remote),
            reason: reason.to_owned(),
        });
        self.events.push_back(GatewayEvent::LeasesChanged);
    }

    pub(super) fn handle_lost(&mut self, now: Instant, key: Key, error: &ConnectionError) {
        if self.handshakes.remove(&key)
            && let Some(link) = self.links.get(key)
        {
            // Our own verdict on the certificate; what the peer did to itself is no refusal.
            if let ConnectionError::TransportError(error) = error {
                let refusal = crate::refusal::of_transport_error(error);
                self.events.push_back(GatewayEvent::Refused {
                    remote: link.connection.remote_address(),
                    principal: None,
                    refusal,
                });
            }
        }
        self.forget_session(now, key, &error.to_string());
    }

    pub(super) fn handle_session_timeout(&mut self, now: Instant, key: Key) {
        let Some(session) = self.session(key) else {
            return;
        };
        if session.deadline.is_some_and(|deadline| deadline <= now) {
            self.end(now, key, RefusalKind::SessionExpired);
        } else {
            self.follow_path(now, key);
        }
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
        if ipv6 != session.ipv6 && !(session.ipv6 != Ipv6::Pending && ipv6 == Ipv6::Pending) {
            session.ipv6 = ipv6;
            let assignment = session.assignment();
            if let Some(machine) = self.links.touch(key).and_then(|link| link.machine.as_mut()) {
                machine.assign(&assignment);
            }
        }
        let after = session.timeout();
        if before != after {
            if let Some(due) = before {
                self.timers.remove(&(due, key));
            }
            if let Some(due) = after {
                self.timers.insert((due, key));
            }
        }
    }

    pub(super) fn close_lingering(&mut self, now: Instant) {
        while let Some(entry) = self.lingering.first_entry() {
            let (due, key) = *entry.key();
            if due > now {
                break;
            }
            let Lingering { serial, kind } = entry.remove();
            let is_same = self
                .links
                .get(key)
                .is_some_and(|link| link.serial == serial);
            if is_same && self.session(key).is_none() {
                self.links.close(now, key, kind.code(), kind.text());
            }
        }
    }
}

/// What a client must be able to take: the packet every IPv4 host takes (RFC 791 §3.2) with the
/// longest prefix. A QUIC path alone, at its smallest, carries twice as much.
const SMALLEST_DATAGRAM: usize = 576 + 9;
