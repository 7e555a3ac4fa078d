//! From a request to a session: the only place where sessions begin.

use std::time::Instant;

use adit_core::admission::Grant;
use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::Principal;
use adit_core::session::gateway::Scope;
use quinn_proto::ConnectionError;

use super::{Arrival, Reception, Request, Seated, SecondConnection, ToEngine};
use crate::gateway::{GatewayEvent, Session, SessionId};
use crate::handover::Secret;
use crate::holder::Holder;
use crate::links::Key;
use crate::path::InnerMtu;

impl Reception {
    /// A client whose certificate the handshake accepted asks for the tunnel; `path` is what is known of its path
    /// beyond what QUIC knows at present.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        key: Key,
        request: Request,
        path: Option<InnerMtu>,
    ) {
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
        if chain.is_empty() {
            let refusal = Refusal::new(RefusalKind::CertificateRequired, "");
            return self.refuse(now, key, None, refusal);
        }
        let unix = self.epoch.unix_time(now);
        let identity = if self.unproven.contains(&key) {
            self.authorities.vouch(&chain, unix)
        } else {
            let identity = self.authorities.identify(&chain, unix);
            identity.map_err(Refusal::from)
        };
        let identity = match identity {
            Ok(identity) => identity,
            Err(refusal) => {
                let known = self.authorities.recognise(&chain, unix);
                let holder =
                    known.map(|identity| Holder::new(identity, &chain, request.user_agent));
                return self.refuse(now, key, holder, refusal);
            }
        };
        let holder = Holder::new(identity.clone(), &chain, request.user_agent.clone());
        let principal = identity.principal.clone();
        let predecessor = self.predecessor(key, &principal, &request);
        if let Some((_, engine)) = predecessor
            && self.seats.of(key) != Some(engine)
        {
            // Under a flood of handshakes (RFC 9000 §8.1.2) the client could not begin at its place.
            let detail = "the session cannot move to this connection; try again";
            let refusal = Refusal::new(RefusalKind::AlreadyConnected, detail);
            return self.refuse(now, key, Some(holder), refusal);
        }
        if predecessor.is_none()
            && self.sessions.contains_key(&principal)
            && self.second_connection == SecondConnection::Refuse
        {
            let refusal = Refusal::new(RefusalKind::AlreadyConnected, principal.to_string());
            return self.refuse(now, key, Some(holder), refusal);
        }
        let mut grant = match self.admission.judge(&identity, self.epoch.unix(now)) {
            Ok(grant) => grant,
            Err(refusal) => return self.refuse(now, key, Some(holder), refusal),
        };
        if !self.admission.leases().is_saved(&principal) {
            return self.promise(now, key, holder, request, path);
        }
        self.admission.connect(&principal);
        narrow(&mut grant, &request.scope);
        let ends = self.authorities.ends(&chain, unix, identity.not_after);
        let Some(mut link) = self.links.take(key) else {
            return;
        };
        let max_datagram = link.connection.datagrams().max_size();
        let rtt = link.connection.rtt();
        let mtu = path.unwrap_or_else(|| {
            InnerMtu::new(now, request.stream, self.tunnel_mtu, rtt, max_datagram)
        });
        let id = SessionId(self.next_id);
        self.next_id += 1;
        let engine = self.seats.keep(key);
        let seated = Seated {
            id,
            engine,
            identity,
            chain,
            scope: request.scope,
            grant: grant.clone(),
            secret: Secret::of(&link.connection),
            dismissed: false,
        };
        let hash = self.endpoints.hash_key();
        let session = Session::new(now, id, holder, grant, mtu, hash, &self.epoch);
        let session = session.ending(now, ends, &self.epoch);
        if let Some(machine) = &mut link.machine {
            machine.offer_handover(self.endpoints.place(engine));
            machine.admit(&session.assignment());
        }
        if self.sessions.contains_key(&principal) {
            // The end of the old one is not the principal's: it is connected once, by the new one.
            self.admission.release(&principal, self.epoch.unix(now));
        }
        if predecessor.is_some() {
            self.reseat(principal, seated);
        } else {
            self.replace(principal, seated);
        }
        self.departed.add(now, link.ids(), engine);
        let arrival = ToEngine::Arrival(Box::new(Arrival {
            link,
            session,
            predecessor: predecessor.map(|(id, _)| id),
        }));
        self.messages.push_back((engine, arrival));
        self.leases_changed(now);
    }

    /// The session that goes on over this link, and its engine: that of its principal, if the client proves that it
    /// is at the other end of both. Without the proof it may be another device with a copy of the certificate.
    fn predecessor(
        &self,
        key: Key,
        principal: &Principal,
        request: &Request,
    ) -> Option<(SessionId, u8)> {
        let proof = request.handover.as_ref()?;
        let seated = self.sessions.get(principal)?;
        let next = Secret::of(&self.links.get(key)?.connection)?;
        let is_proved = seated.secret.as_ref()?.is_proved(&next, proof);
        // One that is to end does not go on.
        (is_proved && !seated.dismissed).then_some((seated.id, seated.engine))
    }

    /// Seats a session in place of another of the same principal, if there is one.
    fn replace(&mut self, principal: Principal, seated: Seated) {
        if let Some(old) = self.unseat(&principal) {
            let message = ToEngine::Dismissal {
                session: old.id,
                kind: RefusalKind::Replaced,
            };
            self.messages.push_back((old.engine, message));
        }
        self.seat(principal, seated);
    }

    /// Says no over HTTP, so that the client can read why, and closes the link a little later.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        key: Key,
        holder: Option<Holder>,
        refusal: Refusal,
    ) {
        if let Some(link) = self.links.touch(key) {
            if let Some(machine) = &mut link.machine {
                machine.refuse(&refusal);
            }
            let kind = refusal.kind;
            self.events.push_back(GatewayEvent::Refused {
                remote: link.connection.remote_address(),
                holder: holder.map(Box::new),
                refusal,
            });
            self.lingering.add(now, &self.links, key, kind);
        }
    }

    pub(super) fn handle_lost(&mut self, now: Instant, key: Key, error: &ConnectionError) {
        if self.handshakes.remove(&key)
            && let Some(link) = self.links.get(key)
        {
            // Our own verdict on the certificate; what the peer did to itself is no refusal.
            if let ConnectionError::TransportError(error) = error {
                let refusal = crate::refusal::of_transport_error(error);
                let chain = link.refused_chain();
                let known = self
                    .authorities
                    .recognise(&chain, self.epoch.unix_time(now));
                let holder = known.map(|identity| Holder::new(identity, &chain, None));
                self.events.push_back(GatewayEvent::Refused {
                    remote: link.connection.remote_address(),
                    holder: holder.map(Box::new),
                    refusal,
                });
            }
        }
    }
}

/// The client may want less than it could have (RFC 9484 §4.6).
pub(super) fn narrow(grant: &mut Grant, scope: &Scope) {
    grant.routes = grant
        .routes
        .iter()
        .filter_map(|range| range.narrowed(scope.target, scope.protocol))
        .collect();
}

/// What a client must be able to take: the packet every IPv4 host takes (RFC 791 §3.2) with the
/// longest prefix. A QUIC path alone, at its smallest, carries twice as much.
const SMALLEST_DATAGRAM: usize = 576 + 9;
