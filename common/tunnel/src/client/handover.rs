//! The session moves to a second connection while the first carries packets: to show a renewed certificate, or since
//! the gateway announced the end of the first (RFC 9114 §5.2).
//!
//! ```text
//! begin ─► Dialing ─2xx─► Ready ─addresses, path─► move: new packets take the new link
//!             │ failed                             the old one is heard for a moment, then closed
//!             └─► Waiting ─► Dialing …             (or the session is lost, and the successor takes its place)
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::close::{Refusal, RefusalKind, Retry};
use adit_core::session::client::Control;
use adit_core::status::ClientCertificate;

use super::{Client, ClientEvent, Phase, Tunnel};
use crate::handover::Secret;
use crate::links::Key;
use crate::tls::QuicClient;

/// The present session's way to another connection.
pub(super) struct Renewal {
    /// With the certificate that is shown there.
    tls: Arc<QuicClient>,
    /// Whether the gateway has refused it for good: then the old one is the better one as long as it lasts.
    is_refused: bool,
    step: Step,
}

enum Step {
    /// There is no session, or the gateway does not let it move: the next one begins with the certificate.
    Idle,
    Waiting {
        until: Instant,
    },
    Dialing {
        key: Key,
        gives_up_at: Instant,
    },
    /// Admitted; packets go over it as soon as it carries what the present one does.
    Ready {
        tunnel: Box<Tunnel>,
        moves_at: Instant,
    },
}

/// A link that the session has left.
pub(super) struct Retired {
    key: Key,
    stream: u64,
    until: Instant,
}

impl Renewal {
    /// The tunnel that is about to carry packets.
    pub(super) fn successor(&mut self) -> Option<&mut Tunnel> {
        match &mut self.step {
            Step::Ready { tunnel, .. } => Some(tunnel),
            Step::Idle | Step::Waiting { .. } | Step::Dialing { .. } => None,
        }
    }
}

impl Client {
    /// From now on another certificate of the same holder is shown; a session that is up moves to it without losing
    /// a packet.
    pub fn renew(&mut self, now: Instant, tls: Arc<QuicClient>) {
        self.abandon_renewal(now);
        self.tls = tls;
        self.renewal_backoff.reset();
        self.renew_if_outdated(now);
    }

    /// Begins to move the session if it does not have the certificate for the next one.
    pub(super) fn renew_if_outdated(&mut self, now: Instant) {
        let Phase::Up(tunnel) = &self.phase else {
            return;
        };
        if self.renewal.is_none() && !Arc::ptr_eq(&tunnel.tls, &self.tls) {
            self.renewal = Some(Renewal {
                tls: Arc::clone(&self.tls),
                is_refused: false,
                step: Step::Idle,
            });
        }
        self.dial_successor(now);
    }

    /// The gateway wants the session on another connection.
    pub(super) fn leave(&mut self, now: Instant, key: Key) {
        let is_present = matches!(&self.phase, Phase::Up(tunnel) if tunnel.key == key);
        let machine = self.links.get(key).and_then(|link| link.machine.as_ref());
        let is_asked = machine.is_some_and(Control::is_going_away);
        if is_present && is_asked && self.renewal.is_none() {
            self.renewal = Some(Renewal {
                tls: Arc::clone(&self.tls),
                is_refused: false,
                step: Step::Idle,
            });
            self.dial_successor(now);
        }
    }

    /// The certificate of the present session, or of the next one while there is none; and the one to come.
    pub(super) fn certificates(&self) -> (&ClientCertificate, Option<&ClientCertificate>) {
        let shown = match &self.phase {
            Phase::Up(tunnel) => &tunnel.tls,
            Phase::Dialing { tls, .. } => tls,
            Phase::Resolving | Phase::Waiting { .. } | Phase::Stopped => &self.tls,
        };
        let renewed = self.renewal.as_ref().map(|renewal| &renewal.tls);
        let renewed = renewed.filter(|renewed| !Arc::ptr_eq(renewed, shown));
        (
            shown.certificate(),
            renewed.map(|renewed| renewed.certificate()),
        )
    }

    /// Whether packets of the session may come over this link, on this stream of it.
    pub(super) fn carries(&self, key: Key, stream: Option<u64>) -> bool {
        let is = |other: Key, its: u64| other == key && stream.is_none_or(|stream| stream == its);
        let present = match &self.phase {
            Phase::Up(tunnel) => is(tunnel.key, tunnel.stream),
            _ => return false,
        };
        present
            || self.retired.iter().any(|link| is(link.key, link.stream))
            || match self.renewal.as_ref().map(|renewal| &renewal.step) {
                // The gateway may have moved already, and its answer may be late.
                Some(Step::Dialing { key, .. }) => {
                    let machine = self.links.get(*key).and_then(|link| link.machine.as_ref());
                    machine.is_some_and(|machine| is(*key, machine.request_stream()))
                }
                Some(Step::Ready { tunnel, .. }) => is(tunnel.key, tunnel.stream),
                Some(Step::Idle | Step::Waiting { .. }) | None => false,
            }
    }

    /// When something is due here.
    pub(super) fn renewal_timeout(&self) -> Option<Instant> {
        let step = match self.renewal.as_ref().map(|renewal| &renewal.step) {
            Some(Step::Waiting { until }) => Some(*until),
            Some(Step::Dialing { gives_up_at, .. }) => Some(*gives_up_at),
            Some(Step::Ready { moves_at, .. }) => Some(*moves_at),
            Some(Step::Idle) | None => None,
        };
        let retired = self.retired.iter().map(|link| link.until);
        retired.chain(step).min()
    }

    pub(super) fn handle_renewal_timeout(&mut self, now: Instant) {
        let due = self.retired.extract_if(.., |link| link.until <= now);
        let due: Vec<Key> = due.map(|link| link.key).collect();
        for key in due {
            self.close_quietly(now, key);
        }
        match self.renewal.as_ref().map(|renewal| &renewal.step) {
            Some(Step::Waiting { until }) if *until <= now => self.dial_successor(now),
            Some(Step::Dialing { key, gives_up_at }) if *gives_up_at <= now => {
                let (key, refusal) = (*key, Refusal::new(RefusalKind::Unreachable, "no answer"));
                self.close_quietly(now, key);
                self.fail_renewal(now, key, refusal);
            }
            Some(Step::Ready { tunnel, moves_at })
                if *moves_at <= now && !(tunnel.told.addresses && tunnel.told.routes) =>
            {
                let detail = "no addresses were assigned";
                let refusal = Refusal::new(RefusalKind::ProtocolError, detail);
                let key = tunnel.key;
                self.close_quietly(now, key);
                self.fail_renewal(now, key, refusal);
            }
            _ => {}
        }
    }

    /// The gateway accepted the request on a second link.
    pub(super) fn establish_successor(&mut self, now: Instant, key: Key) {
        let (Phase::Up(present), Some(renewal)) = (&self.phase, &self.renewal) else {
            return;
        };
        if !matches!(renewal.step, Step::Dialing { key: dialed, .. } if dialed == key) {
            return;
        }
        let (candidate, tls) = (present.candidate, Arc::clone(&renewal.tls));
        let Some(tunnel) = self.tunnel(now, key, candidate, tls) else {
            return;
        };
        self.step(Step::Ready {
            tunnel: Box::new(tunnel),
            moves_at: now + PATH_PATIENCE,
        });
    }

    /// Moves the session when its successor has addresses and routes, and carries what the present link does.
    pub(super) fn move_when_ready(&mut self, now: Instant) {
        let (Phase::Up(present), Some(renewal)) = (&self.phase, &self.renewal) else {
            return;
        };
        let Step::Ready { tunnel, moves_at } = &renewal.step else {
            return;
        };
        let is_as_wide = tunnel.mtu.largest_packet() >= present.mtu.largest_packet();
        let is_told = tunnel.told.addresses && tunnel.told.routes;
        if is_told && (is_as_wide || *moves_at <= now) {
            self.move_over(now);
        }
    }

    /// The session is lost: a successor that is on its way takes its place. Says whether there is one.
    pub(super) fn fall_back_on_successor(&mut self, now: Instant, refusal: &Refusal) -> bool {
        let Some(renewal) = &self.renewal else {
            return false;
        };
        // One that was refused may be accepted later.
        let is_adopted = Arc::ptr_eq(&renewal.tls, &self.tls);
        let Phase::Up(present) = &self.phase else {
            self.renewal.take_if(|_| is_adopted);
            return false;
        };
        let (candidate, tls) = (present.candidate, Arc::clone(&renewal.tls));
        match renewal.step {
            Step::Ready { .. } => self.move_over(now),
            Step::Dialing { key, gives_up_at } => {
                self.renewal = None;
                self.phase = Phase::Dialing {
                    key,
                    candidate,
                    tls,
                    gives_up_at,
                };
                self.events.push_back(ClientEvent::Lost {
                    refusal: refusal.clone(),
                    retry_in: Duration::ZERO,
                });
            }
            Step::Idle | Step::Waiting { .. } => {
                self.step(Step::Idle);
                self.renewal.take_if(|_| is_adopted);
                return false;
            }
        }
        true
    }

    /// The next session begins with the renewed certificate, unless that was refused and the present one was not.
    pub(super) fn adopt_renewed(&mut self, present_is_refused: bool) {
        if let Some(renewal) = &self.renewal
            && (present_is_refused || !renewal.is_refused)
        {
            self.tls = Arc::clone(&renewal.tls);
        }
    }

    /// A link was lost, or is closed for `refusal`, that is not the session's: perhaps its successor's.
    pub(super) fn fail_renewal(&mut self, now: Instant, key: Key, refusal: Refusal) {
        self.retired.retain(|link| link.key != key);
        let is_successor = match self.renewal.as_ref().map(|renewal| &renewal.step) {
            Some(Step::Dialing { key: dialed, .. }) => *dialed == key,
            Some(Step::Ready { tunnel, .. }) => tunnel.key == key,
            Some(Step::Idle | Step::Waiting { .. }) | None => false,
        };
        if is_successor {
            self.opening.predecessor = None;
            self.postpone(now, refusal);
        }
    }

    /// Gives up moving the session.
    pub(super) fn abandon_renewal(&mut self, now: Instant) {
        self.opening.predecessor = None;
        let key = match self.renewal.take().map(|renewal| renewal.step) {
            Some(Step::Dialing { key, .. }) => key,
            Some(Step::Ready { tunnel, .. }) => tunnel.key,
            Some(Step::Idle | Step::Waiting { .. }) | None => return,
        };
        self.close_quietly(now, key);
    }

    fn dial_successor(&mut self, now: Instant) {
        let (Phase::Up(present), Some(renewal)) = (&self.phase, &self.renewal) else {
            return;
        };
        let Some(place) = present.place else {
            return self.step(Step::Idle);
        };
        let Some(link) = self.links.get(present.key) else {
            return;
        };
        let gateway: SocketAddr = link.connection.remote_address();
        self.opening.predecessor = Secret::of(&link.connection);
        let mut config = quinn_proto::ClientConfig::new(Arc::clone(&renewal.tls) as _);
        config.transport_config(Arc::clone(&self.transport));
        let id = self.endpoints.id_at(place);
        config.initial_dst_cid_provider(Arc::new(move || id));
        let link = self
            .endpoints
            .connect(now, config, gateway, &self.server_name);
        match link {
            Ok(link) => {
                let key = self.links.insert(link);
                let gives_up_at = now + PATIENCE;
                self.step(Step::Dialing { key, gives_up_at });
            }
            Err(error) => {
                let detail = format!("cannot dial {gateway}: {error}");
                self.postpone(now, Refusal::new(RefusalKind::Unreachable, detail));
            }
        }
    }

    /// Tries again later.
    fn postpone(&mut self, now: Instant, refusal: Refusal) {
        let retry_in = self.renewal_backoff.after_failure().max(SOONEST);
        if let Some(renewal) = &mut self.renewal {
            renewal.is_refused = refusal.kind.retry() == Retry::Never;
            if renewal.is_refused
                && let Phase::Up(present) = &self.phase
            {
                self.tls = Arc::clone(&present.tls);
            }
            renewal.step = Step::Waiting {
                until: now + retry_in,
            };
            self.events
                .push_back(ClientEvent::Stayed { refusal, retry_in });
        }
    }

    fn move_over(&mut self, now: Instant) {
        let Some(Renewal {
            tls,
            step: Step::Ready { mut tunnel, .. },
            ..
        }) = self.renewal.take()
        else {
            return;
        };
        self.opening.predecessor = None;
        self.renewal_backoff.reset();
        let Phase::Up(before) = &self.phase else {
            return;
        };
        tunnel.since = before.since;
        // The host is told what is new to it.
        tunnel.told.changed = before.told.changed || tunnel.assignment != before.assignment;
        self.retired.push(Retired {
            key: before.key,
            stream: before.stream,
            until: now + RETIREMENT,
        });
        let serial = (!Arc::ptr_eq(&tls, &before.tls)).then(|| tls.certificate().serial.clone());
        self.tls = tls;
        if let Some(gateway) = self.remote(tunnel.key) {
            self.events
                .push_back(ClientEvent::MovedOver { gateway, serial });
        }
        let key = tunnel.key;
        self.phase = Phase::Up(*tunnel);
        // It may have been asked while the other connection was in use.
        self.leave(now, key);
    }

    fn step(&mut self, step: Step) {
        if let Some(renewal) = &mut self.renewal {
            renewal.step = step;
        }
    }

    fn close_quietly(&mut self, now: Instant, key: Key) {
        let code = adit_core::h3::ErrorCode::NoError.code();
        self.links.close(
            now,
            key,
            code,
            "the session goes on over another connection",
        );
    }
}

/// A handshake and the gateway's search for what the path carries, of five seconds at most.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the present link is the better one because it carries larger packets: a search for that takes as long on
/// paths with long round trips, and the gateway hears the old link longer than this.
const PATH_PATIENCE: Duration = Duration::from_secs(5);
/// What the gateway sent over the old link is here by then, also by satellite and after a queue.
const RETIREMENT: Duration = Duration::from_secs(2);
/// A gateway that refuses at once is not asked again at once.
const SOONEST: Duration = Duration::from_secs(1);
