//! Another policy, other authorities, another certificate, while sessions go on.
//!
//! Everything is judged first and told afterwards: to each engine what its sessions have now, to the others whose
//! the addresses are. Prefixes are claimed before others are renounced, so that what stays permitted always has
//! an owner. A session that the new state of things gives nothing is dismissed.

use std::sync::Arc;
use std::time::Instant;

use adit_core::admission::diff::{Comparison, Difference};
use adit_core::admission::{Admission, Grant};
use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::{Identity, Principal};
use adit_core::policy::Policy;

use super::admit::narrow;
use super::{Reception, Regrant, Seated, SecondConnection, ToEngine, server_config};
use crate::epoch::Epoch;
use crate::gateway::{GatewayEvent, InsideAddresses, SessionId};
use crate::tls::{Authorities, QuicServer};
use crate::transport::Limits;

/// Everything about a gateway that may change while it runs.
#[derive(Clone)]
pub struct Renewal {
    /// TLS with the gateway's certificate, for new handshakes.
    pub tls: Arc<QuicServer>,
    /// The authorities behind it.
    pub authorities: Arc<Authorities>,
    /// The policy.
    pub policy: Arc<Policy>,
    /// The gateway's own inner addresses.
    pub inside: InsideAddresses,
    /// Limits of new connections.
    pub limits: Limits,
    /// MTU of the TUN device.
    pub tunnel_mtu: u16,
    /// Replace or refuse.
    pub second_connection: SecondConnection,
}

/// What a renewal would mean for the sessions.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// In words and numbers; the engines know what flows it would cost.
    pub difference: Difference,
    /// What to ask them about each session that would not go on as it is.
    pub stakes: Vec<Stake>,
}

/// What a session would have.
#[derive(Clone, Debug)]
pub struct Stake {
    pub(crate) session: SessionId,
    /// `None` when it would end.
    pub(crate) grant: Option<Grant>,
}

/// What the new state of things says about a session.
type Verdict = Result<(Identity, Grant), Refusal>;

impl Reception {
    /// Goes over to something else, and judges every session again. Handshakes under way are judged by the new
    /// at their admission.
    pub fn reload(&mut self, now: Instant, renewal: Renewal) -> Difference {
        self.server = server_config(renewal.tls, &renewal.limits);
        self.door.set_server_config(Some(Arc::clone(&self.server)));
        self.second_connection = renewal.second_connection;
        self.tunnel_mtu = renewal.tunnel_mtu;
        self.admission.change(renewal.policy, &renewal.inside.all());
        for engine in self.seats.engines() {
            let message = ToEngine::Inside {
                addresses: renewal.inside,
                tunnel_mtu: renewal.tunnel_mtu,
            };
            self.messages.push_back((engine, message));
        }
        let doubted = (!self.authorities.is_same(&renewal.authorities)).then(|| {
            self.unproven.extend(self.links.keys());
            Arc::clone(&renewal.authorities)
        });
        self.authorities = renewal.authorities;
        let everybody: Vec<Principal> = self.sessions.keys().cloned().collect();
        let difference = self.judge_again(now, &everybody, doubted.as_deref());
        self.leases_changed(now);
        difference
    }

    /// What [`Self::reload`] would do to the sessions; nothing is done.
    #[must_use]
    pub fn rehearse(&self, now: Instant, renewal: &Renewal) -> Rehearsal {
        let mut admission = self.admission.clone();
        admission.change(Arc::clone(&renewal.policy), &renewal.inside.all());
        let doubted = !self.authorities.is_same(&renewal.authorities);
        let doubted = doubted.then_some(&*renewal.authorities);
        let mut comparison = Comparison::default();
        let mut stakes = Vec::new();
        for seated in self.sessions.values().filter(|seated| !seated.dismissed) {
            let verdict = judge(&mut admission, doubted, seated, &self.epoch, now);
            let after = verdict.as_ref().map(|(_, grant)| grant);
            if !comparison.add(&seated.grant, after) {
                let session = seated.id;
                let grant = verdict.ok().map(|(_, grant)| grant);
                stakes.push(Stake { session, grant });
            }
        }
        Rehearsal {
            difference: comparison.finish(),
            stakes,
        }
    }

    /// Judges those again about whom the policy may say something else by now.
    pub(super) fn regrant(&mut self, now: Instant) {
        let due = self.timetable.take(now);
        if due.is_empty() {
            return;
        }
        let difference = self.judge_again(now, &due, None);
        if !difference.is_empty() {
            let event = GatewayEvent::Regranted(Box::new(difference));
            self.events.push_back(event);
            self.leases_changed(now);
        }
    }

    /// When the policy may say something else about a session without having changed.
    pub(super) fn schedule(&mut self, principal: &Principal, grant: &Grant) {
        let due = grant.changes_at.and_then(|at| self.epoch.instant_of(at));
        self.timetable.set(principal, due);
    }

    /// Judges sessions, all of them before anything is told. With `doubted`, their certificates as well.
    fn judge_again(
        &mut self,
        now: Instant,
        principals: &[Principal],
        doubted: Option<&Authorities>,
    ) -> Difference {
        let mut comparison = Comparison::default();
        let mut renounced = Vec::new();
        for principal in principals {
            let Some(seated) = self.sessions.get(principal).filter(|s| !s.dismissed) else {
                continue;
            };
            let verdict = judge(&mut self.admission, doubted, seated, &self.epoch, now);
            let after = verdict.as_ref().map(|(_, grant)| grant);
            comparison.add(&seated.grant, after);
            match verdict {
                Ok((identity, grant)) => {
                    self.schedule(principal, &grant);
                    renounced.extend(self.adopt(principal, identity, grant));
                }
                Err(refusal) => self.dismiss(principal, refusal.kind),
            }
        }
        for (seated, engine, prefixes) in renounced {
            self.renounce(seated, engine, &prefixes);
        }
        self.hold_back(principals.iter());
        comparison.finish()
    }

    /// Gives a session what it has from now on; returns what it has to renounce.
    fn adopt(
        &mut self,
        principal: &Principal,
        identity: Identity,
        grant: Grant,
    ) -> Option<(SessionId, u8, Vec<ipnet::IpNet>)> {
        let seated = self.sessions.get_mut(principal)?;
        let is_same = Arc::ptr_eq(&seated.grant.filter, &grant.filter)
            && seated.grant.addresses == grant.addresses
            && seated.grant.routes == grant.routes
            && seated.grant.groups == grant.groups
            && seated.grant.maximum == grant.maximum
            && seated.identity == identity;
        let before = std::mem::replace(&mut seated.grant, grant.clone());
        seated.identity.clone_from(&identity);
        let (id, engine) = (seated.id, seated.engine);
        if is_same {
            return None;
        }
        let mut gained = grant.addresses.clone();
        gained.retain(|prefix| !before.addresses.contains(prefix));
        let mut lost = before.addresses;
        lost.retain(|prefix| !grant.addresses.contains(prefix));
        if !gained.is_empty() {
            self.claim(id, engine, &gained);
        }
        let regrant = Regrant {
            session: id,
            identity,
            grant,
        };
        let message = ToEngine::Regrant(Box::new(regrant));
        self.messages.push_back((engine, message));
        (!lost.is_empty()).then_some((id, engine, lost))
    }

    fn dismiss(&mut self, principal: &Principal, kind: RefusalKind) {
        if let Some(seated) = self.sessions.get_mut(principal) {
            seated.dismissed = true;
            let session = seated.id;
            let message = ToEngine::Dismissal { session, kind };
            self.messages.push_back((seated.engine, message));
        }
    }
}

fn judge(
    admission: &mut Admission,
    doubted: Option<&Authorities>,
    seated: &Seated,
    epoch: &Epoch,
    now: Instant,
) -> Verdict {
    let identity = match doubted {
        Some(authorities) => authorities.vouch_still(&seated.chain, epoch.unix_time(now))?,
        None => seated.identity.clone(),
    };
    if identity.principal != seated.identity.principal {
        let detail = format!("its certificate names {} now", identity.principal);
        return Err(Refusal::new(RefusalKind::AccessWithdrawn, detail));
    }
    let mut grant = match admission.judge(&identity, epoch.unix(now)) {
        Ok(grant) => grant,
        // It had access: the word for newcomers would mislead.
        Err(refusal) if refusal.kind == RefusalKind::NoAccess => {
            return Err(Refusal::new(RefusalKind::AccessWithdrawn, ""));
        }
        Err(refusal) => return Err(refusal),
    };
    narrow(&mut grant, &seated.scope);
    Ok((identity, grant))
}
