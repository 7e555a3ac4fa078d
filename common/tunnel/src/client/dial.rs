//! Getting a session and getting it back: candidates in order, then back-off with jitter.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::close::{Refusal, RefusalKind, Retry};
use adit_core::dataplane::client::ClientView;
use adit_core::session::Assignment;

use super::{Client, ClientEvent, Phase, Told, Tunnel};
use crate::links::Key;
use crate::path::InnerMtu;
use crate::tls::QuicClient;

impl Client {
    /// The gateway's addresses, in the order to try them; the answer to
    /// [`ClientEvent::NeedAddresses`]. An empty list counts as an unreachable gateway.
    pub fn set_gateways(&mut self, now: Instant, gateways: Vec<SocketAddr>) {
        if !matches!(self.phase, Phase::Resolving) {
            return;
        }
        self.gateways = gateways;
        let none = Refusal::new(RefusalKind::Unreachable, "no address for the gateway");
        self.dial_from(now, 0, none);
    }

    /// The local address changed (another network, a new socket): probe the path anew.
    pub fn local_address_changed(&mut self) {
        let keys: Vec<Key> = self.links.keys().collect();
        for key in keys {
            if let Some(link) = self.links.touch(key) {
                link.connection.local_address_changed();
                link.connection.ping();
            }
        }
    }

    /// Ends the session and everything else: the last thing before the process ends.
    pub fn shutdown(&mut self, now: Instant) {
        let code = adit_core::h3::ErrorCode::NoError.code();
        let keys: Vec<Key> = self.links.keys().collect();
        for key in keys {
            self.links.close(now, key, code, "the client was stopped");
        }
        self.renewal = None;
        self.retired.clear();
        self.phase = Phase::Stopped;
    }

    /// Dials the first candidate from `first` on that can be dialled at all.
    fn dial_from(&mut self, now: Instant, first: usize, mut refusal: Refusal) {
        self.opening.predecessor = None;
        for candidate in first..self.gateways.len() {
            let gateway = self.gateways[candidate];
            let mut config = quinn_proto::ClientConfig::new(Arc::clone(&self.tls) as _);
            config.transport_config(Arc::clone(&self.transport));
            let link = self
                .endpoints
                .connect(now, config, gateway, &self.server_name);
            match link {
                Ok(link) => {
                    let key = self.links.insert(link);
                    let last = candidate + 1 == self.gateways.len();
                    let patience = if last { LAST_PATIENCE } else { PATIENCE };
                    self.phase = Phase::Dialing {
                        key,
                        candidate,
                        tls: Arc::clone(&self.tls),
                        gives_up_at: now + patience,
                    };
                    self.events.push_back(ClientEvent::Dialing(gateway));
                    return;
                }
                Err(error) => {
                    refusal = Refusal::new(
                        RefusalKind::Unreachable,
                        format!("cannot dial {gateway}: {error}"),
                    );
                }
            }
        }
        self.wait(now, refusal);
    }

    fn wait(&mut self, now: Instant, refusal: Refusal) {
        let retry_in = self.backoff.after_failure();
        self.phase = Phase::Waiting {
            until: now + retry_in,
        };
        self.events
            .push_back(ClientEvent::Lost { refusal, retry_in });
    }

    /// The link is gone, or is being closed for `refusal`.
    pub(super) fn fail(&mut self, now: Instant, key: Key, refusal: Refusal) {
        let (candidate, held, shown) = match &self.phase {
            Phase::Dialing {
                key: dialed,
                candidate,
                tls,
                ..
            } if *dialed == key => (*candidate, None, Arc::clone(tls)),
            Phase::Up(tunnel) if tunnel.key == key => {
                let held = now.duration_since(tunnel.since);
                (tunnel.candidate, Some(held), Arc::clone(&tunnel.tls))
            }
            // An older link that lingers, or one that is not needed yet.
            _ => return self.fail_renewal(now, key, refusal),
        };
        let is_final = refusal.kind.retry() == Retry::Never;
        self.adopt_renewed(is_final);
        // What is said of one certificate does not count for another; of two devices it does.
        let is_renewed = !Arc::ptr_eq(&shown, &self.tls);
        if is_final && (!is_renewed || refusal.kind == RefusalKind::Replaced) {
            self.abandon_renewal(now);
            self.phase = Phase::Stopped;
            self.events.push_back(ClientEvent::Stopped(refusal));
            return;
        }
        if refusal.kind == RefusalKind::GatewayShutdown {
            // The successor's link leads to the same gateway.
            self.abandon_renewal(now);
        }
        if self.fall_back_on_successor(now, &refusal) {
            return;
        }
        if is_renewed && is_final {
            self.dial_anew(now, candidate, refusal);
            return;
        }
        match held {
            // It worked for a while: the same gateway again, without waiting.
            Some(held) if held >= WORKED => {
                self.backoff.reset();
                self.dial_anew(now, candidate, refusal);
            }
            Some(_) => self.wait(now, refusal),
            None => self.dial_from(now, candidate + 1, refusal),
        }
    }

    /// The same gateway again, at once.
    fn dial_anew(&mut self, now: Instant, candidate: usize, refusal: Refusal) {
        self.events.push_back(ClientEvent::Lost {
            refusal: refusal.clone(),
            retry_in: Duration::ZERO,
        });
        self.dial_from(now, candidate, refusal);
    }

    /// Closes the link from this side and goes on as after a loss.
    pub(super) fn hang_up(&mut self, now: Instant, key: Key, refusal: Refusal) {
        let code = adit_core::h3::ErrorCode::NoError.code();
        self.links.close(now, key, code, "");
        self.fail(now, key, refusal);
    }

    pub(super) fn handle_phase_timeout(&mut self, now: Instant) {
        match &self.phase {
            Phase::Dialing {
                key, gives_up_at, ..
            } if *gives_up_at <= now => {
                let key = *key;
                self.hang_up(
                    now,
                    key,
                    Refusal::new(RefusalKind::Unreachable, "no answer"),
                );
            }
            Phase::Waiting { until } if *until <= now => {
                self.phase = Phase::Resolving;
                self.events.push_back(ClientEvent::NeedAddresses);
            }
            _ => {}
        }
    }

    /// The gateway said 2xx: packets may flow as soon as addresses are assigned.
    pub(super) fn establish(&mut self, now: Instant, key: Key) {
        let (candidate, tls) = match &self.phase {
            Phase::Dialing {
                key: dialed,
                candidate,
                tls,
                ..
            } if *dialed == key => (*candidate, Arc::clone(tls)),
            _ => return self.establish_successor(now, key),
        };
        let Some(tunnel) = self.tunnel(now, key, candidate, tls) else {
            return;
        };
        self.phase = Phase::Up(tunnel);
        self.events
            .extend(self.remote(key).map(ClientEvent::Connected));
        self.renew_if_outdated(now);
    }

    /// What carries packets over a link whose request was accepted.
    pub(super) fn tunnel(
        &mut self,
        now: Instant,
        key: Key,
        candidate: usize,
        tls: Arc<QuicClient>,
    ) -> Option<Tunnel> {
        let link = self.links.touch(key)?;
        let machine = link.machine.as_ref()?;
        let stream = machine.established()?;
        let place = machine.place();
        let mtu = InnerMtu::new(
            now,
            stream,
            self.tunnel_mtu,
            link.connection.rtt(),
            link.connection.datagrams().max_size(),
        );
        Some(Tunnel {
            key,
            candidate,
            tls,
            since: now,
            stream,
            place,
            mtu,
            view: ClientView::default(),
            assignment: Assignment::default(),
            told: Told::default(),
        })
    }

    pub(super) fn remote(&self, key: Key) -> Option<SocketAddr> {
        Some(self.links.get(key)?.connection.remote_address())
    }

    pub(super) fn reassign(&mut self, key: Key, change: impl FnOnce(&mut Assignment, &mut Told)) {
        let Some(tunnel) = self.tunnel_of(key) else {
            return;
        };
        change(&mut tunnel.assignment, &mut tunnel.told);
        tunnel.told.changed = true;
        tunnel.view = ClientView::new(
            tunnel.assignment.addresses.clone(),
            tunnel.assignment.routes.clone(),
        );
    }

    /// One report for all capsules that came together.
    pub(super) fn report_assignment(&mut self) {
        let Phase::Up(tunnel) = &mut self.phase else {
            return;
        };
        let told = &mut tunnel.told;
        if told.changed && told.addresses && told.routes {
            told.changed = false;
            let assignment = tunnel.assignment.clone();
            self.events.push_back(ClientEvent::Assigned(assignment));
        }
    }

    pub(super) fn follow_path(&mut self, now: Instant, key: Key) {
        let Some(max_datagram) = self.links.max_datagram(key) else {
            return;
        };
        if let Some(tunnel) = self.tunnel_of(key) {
            tunnel.mtu.update(now, max_datagram);
        }
    }

    /// What carries packets over this link, or is about to.
    fn tunnel_of(&mut self, key: Key) -> Option<&mut Tunnel> {
        match &mut self.phase {
            Phase::Up(tunnel) if tunnel.key == key => Some(tunnel),
            _ => {
                let successor = self.renewal.as_mut()?.successor()?;
                (successor.key == key).then_some(successor)
            }
        }
    }
}

/// How long one candidate may take while others wait: three handshake retransmissions.
const PATIENCE: Duration = Duration::from_secs(3);
/// The last candidate may take longer: a hotel's network may have a second of delay each way.
const LAST_PATIENCE: Duration = Duration::from_secs(9);
/// A session of this length proves that gateway and certificate are in order.
const WORKED: Duration = Duration::from_secs(5);
