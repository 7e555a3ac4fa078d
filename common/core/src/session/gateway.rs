//! The gateway's end of the control session.
//!
//! It answers requests on one connection: the first CONNECT-IP request becomes the tunnel if the
//! caller admits it, every other request is answered with a status and a problem body (RFC 9457).
//!
//! | request | answer |
//! | --- | --- |
//! | malformed (RFC 9114 §4.1.2), or with content fields (RFC 9297 §3.2) | H3_MESSAGE_ERROR |
//! | CONNECT without or with another `:protocol` | 501 (RFC 9110 §15.6.2, RFC 9220 §3) |
//! | CONNECT-IP on an unknown path | 404 |
//! | CONNECT-IP with a bad target or ipproto, a DNS name as target, or a scheme other than https | 400 |
//! | CONNECT-IP from a client that takes no HTTP datagrams | 400 |
//! | a second CONNECT-IP request | 409, and the first goes on |
//! | a request for a certificate | as [`super::certificate`] says |
//! | another method on a tunnel's path | 405 |
//! | another method elsewhere | 404, or 501 if the method is unknown |
//!
//! The `capsule-protocol` field is not required of requests. RFC 9297 §3.4 makes it a hint for
//! intermediaries; what puts the capsule protocol in use is the upgrade token `connect-ip`
//! (RFC 9484 §4.2). A missing, false or unreadable field therefore changes nothing, as §3.4 demands
//! for values of a wrong type. Our own messages always carry `?1`.
//!
//! Packets to a client travel in QUIC datagrams only, and RFC 9297 §2.1.1 permits none before its
//! SETTINGS allow them. Streams may overtake each other, so a request that comes before the
//! SETTINGS waits for them, within the request timeout.
//!
//! A connection carries one tunnel: once it has ended, further CONNECT-IP requests are refused too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;

use super::certificate::{CertificateAsk, Resource};
use super::tunnel::{Abort, Tunnel, answer};
use super::{Action, Assignment, Place, Proof, UserAgent, handover, problem};
use crate::close::{Refusal, RefusalKind};
use crate::h3::connection::{Connection, Event};
use crate::h3::message::RequestHead;
use crate::h3::qpack::Field;
use crate::h3::settings::Settings;
use crate::h3::{ErrorCode, Role};
use crate::range::RouteRange;
use crate::wire::capsule::{Capsule, RequestedAddress};

mod exchange;

use exchange::Exchange;

pub use super::template::{PathTemplate, Scope, ScopeError, TemplateError};

/// What the gateway's operator decides about requests.
#[derive(Debug, Clone)]
pub struct GatewayControlConfig {
    /// The request paths that lead to the tunnel.
    pub paths: Vec<PathTemplate>,
    /// How long a connection may exist without an admitted request.
    pub request_timeout: Duration,
}

impl Default for GatewayControlConfig {
    fn default() -> Self {
        Self {
            paths: vec![PathTemplate::default()],
            request_timeout: super::REQUEST_TIMEOUT,
        }
    }
}

/// What the engine must know or decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayEvent {
    /// A client asks for the tunnel: answer with [`Control::admit`] or [`Control::refuse`].
    Requested {
        /// The request stream.
        stream: u64,
        /// The `:authority` of the request.
        authority: String,
        /// The `:path` of the request, as sent.
        path: String,
        /// What the client limits its request to.
        scope: Scope,
        /// What proves that the client has another connection, whose session is to go on over this one.
        handover: Option<Proof>,
        /// What the client says about itself, if it is fit to be shown.
        user_agent: Option<UserAgent>,
    },
    /// Somebody asks for a certificate: answer with [`Control::issue`] or [`Control::refuse_certificate`].
    CertificateAsked {
        /// The request stream.
        stream: u64,
        /// What was asked.
        ask: CertificateAsk,
    },
    /// The client assigned these networks to the gateway's side (full list).
    PeerAssigned(Vec<IpNet>),
    /// The client advertises these routes behind it (full list).
    PeerRoutes(Vec<RouteRange>),
    /// An IP packet came in a DATAGRAM capsule on the stream instead of a QUIC datagram.
    Packet(Bytes),
    /// The session is over: the request stream ended, or the connection was closed for a violation.
    Ended {
        /// Why, for logs.
        reason: String,
    },
}

/// The gateway's control machine for one QUIC connection.
#[derive(Debug)]
pub struct Control {
    h3: Connection,
    config: GatewayControlConfig,
    phase: Phase,
    tunnel: Tunnel,
    /// The request that was asked before the client's SETTINGS arrived.
    early: Option<GatewayEvent>,
    /// Requests for addresses that are not decided yet.
    pending: Vec<RequestedAddress>,
    /// Where the client's next connection should begin.
    place: Option<Place>,
    exchange: Option<Exchange>,
    deadline: Instant,
    events: VecDeque<GatewayEvent>,
}

impl Control {
    /// Starts the session and queues SETTINGS on `control_stream`, a unidirectional stream that the
    /// caller opened.
    pub fn new(now: Instant, control_stream: u64, config: GatewayControlConfig) -> Self {
        let settings = Settings {
            extended_connect: true,
            datagrams: true,
        };
        Self {
            h3: Connection::new(Role::Gateway, control_stream, settings),
            deadline: now + config.request_timeout,
            config,
            phase: Phase::Idle,
            tunnel: Tunnel::default(),
            early: None,
            pending: Vec::new(),
            place: None,
            exchange: None,
            events: VecDeque::new(),
        }
    }

    /// Takes bytes of a stream on which the client sends.
    pub fn handle_stream(&mut self, now: Instant, stream: u64, data: &[u8], fin: bool) {
        self.h3.handle_stream(stream, data, fin);
        self.handle_events(now);
    }

    /// Takes a RESET_STREAM.
    pub fn handle_reset(&mut self, now: Instant, stream: u64, code: u64) {
        self.h3.handle_reset(stream, code);
        self.handle_events(now);
    }

    /// Takes a STOP_SENDING.
    pub fn handle_stopped(&mut self, now: Instant, stream: u64, code: u64) {
        self.h3.handle_stopped(stream, code);
        self.handle_events(now);
    }

    /// Takes the passing of time: a client that asks for nothing is not kept.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_exchange(now);
        if self.is_waiting() && now >= self.deadline {
            let seconds = self.config.request_timeout.as_secs();
            let reason = format!("no request was admitted within {seconds} s");
            self.h3.close(RefusalKind::RequestTimeout.code(), &reason);
            self.handle_events(now);
        }
    }

    /// Tells the client, with the 200 of [`Self::admit`], where its next connection should begin for the session
    /// to move to it.
    pub fn offer_handover(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Answers [`GatewayEvent::Requested`] with 200 and the assignment.
    pub fn admit(&mut self, assignment: &Assignment) {
        let Phase::Asked { stream } = self.phase else {
            return;
        };
        let place = self.place.map(|place| place.to_string());
        let mut fields = vec![(":status", "200"), ("capsule-protocol", "?1")];
        if let Some(place) = &place {
            fields.push((handover::FIELD, place));
        }
        self.h3.write_headers(stream, &fields, false);
        let mut bytes = Vec::new();
        answer(&assignment.addresses, &self.take_decided(assignment)).encode(&mut bytes);
        Capsule::RouteAdvertisement(assignment.routes.clone()).encode(&mut bytes);
        self.h3.write_data(stream, &bytes, false);
        self.phase = Phase::Open {
            stream,
            assignment: assignment.clone(),
        };
    }

    /// Answers [`GatewayEvent::Requested`] with the refusal's status and a problem body.
    ///
    /// The client may ask again on the same connection until the request timeout.
    pub fn refuse(&mut self, refusal: &Refusal) {
        let Phase::Asked { stream } = self.phase else {
            return;
        };
        self.respond_refused(stream, refusal);
        self.phase = Phase::Idle;
        self.tunnel = Tunnel::default();
        self.pending.clear();
    }

    /// Replaces the assignment of an admitted client; writes only what changed, and the answers to
    /// requests for addresses that are decided by it.
    pub fn assign(&mut self, assignment: &Assignment) {
        let Phase::Open {
            stream,
            assignment: before,
        } = &mut self.phase
        else {
            return;
        };
        let stream = *stream;
        let before = std::mem::replace(before, assignment.clone());
        let decided = self.take_decided(assignment);
        let mut bytes = Vec::new();
        if before.addresses != assignment.addresses || !decided.is_empty() {
            answer(&assignment.addresses, &decided).encode(&mut bytes);
        }
        if before.routes != assignment.routes {
            Capsule::RouteAdvertisement(assignment.routes.clone()).encode(&mut bytes);
        }
        if !bytes.is_empty() {
            self.h3.write_data(stream, &bytes, false);
        }
    }

    /// Announces that no further request is taken (GOAWAY, RFC 9114 §5.2).
    pub fn shutdown(&mut self) {
        self.h3.go_away();
    }

    /// The request stream, from the 2xx until the session ends.
    pub fn established(&self) -> Option<u64> {
        match self.phase {
            Phase::Open { stream, .. } => Some(stream),
            _ => None,
        }
    }

    /// Says whether the client's SETTINGS arrived and allow HTTP datagrams.
    pub fn peer_datagrams(&self) -> bool {
        self.h3
            .peer_settings()
            .is_some_and(|settings| settings.datagrams)
    }

    /// The next thing to do on the connection.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.h3.poll_action()
    }

    /// The next thing the engine must know.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }

    /// When [`Control::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.is_waiting().then_some(self.deadline);
        own.into_iter().chain(self.exchange_deadline()).min()
    }

    /// Says whether no tunnel was admitted yet.
    fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Asked { .. })
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.h3.poll_event() {
            match event {
                Event::Headers { stream, fields } => self.handle_request(now, stream, fields),
                Event::Settings(_) => {
                    if let Some(request) = self.early.take() {
                        self.consider(request);
                    }
                }
                Event::Data { stream, bytes } if self.phase.stream() == Some(stream) => {
                    match self.tunnel.read(&bytes) {
                        Ok(said) => self.handle_said(said),
                        Err(abort) => self.abort(stream, abort),
                    }
                }
                Event::Finished { stream } if self.phase.stream() == Some(stream) => {
                    match self.tunnel.finish() {
                        Ok(()) => {
                            self.h3.write_data(stream, &[], true);
                            self.end("the client closed the request");
                        }
                        Err(abort) => self.abort(stream, abort),
                    }
                }
                Event::Aborted { stream, code } | Event::Stopped { stream, code }
                    if self.phase.stream() == Some(stream) =>
                {
                    let reason = format!("the client aborted the request with code {code:#x}");
                    self.abort(
                        stream,
                        Abort {
                            code: ErrorCode::RequestCancelled,
                            reason,
                        },
                    );
                }
                Event::Data { stream, bytes } => self.read_exchange(stream, &bytes),
                Event::Finished { stream } => self.finish_exchange(stream),
                Event::Aborted { stream, .. } | Event::Stopped { stream, .. }
                    if self.is_exchange(stream) =>
                {
                    self.drop_exchange();
                }
                Event::Closed { reason } => self.end(&reason),
                _ => {}
            }
        }
    }

    fn handle_request(&mut self, now: Instant, stream: u64, fields: Vec<Field>) {
        let Ok(head) = RequestHead::parse(fields) else {
            return self.h3.abort(stream, ErrorCode::Message);
        };
        let path = head.path.as_deref().unwrap_or_default();
        if is_plain_method(&head.method)
            && let Some(resource) = Resource::at(path)
        {
            return self.begin_exchange(now, stream, resource, &head);
        }
        match self.judge(&head) {
            Judgement::Tunnel(scope) => {
                self.phase = Phase::Asked { stream };
                let proof = head.fields.single(handover::FIELD);
                let handover = proof.and_then(Proof::read);
                let user_agent = head.fields.single("user-agent").and_then(UserAgent::read);
                let request = GatewayEvent::Requested {
                    stream,
                    authority: head.authority.unwrap_or_default(),
                    path: head.path.unwrap_or_default(),
                    scope,
                    handover,
                    user_agent,
                };
                if self.h3.peer_settings().is_some() {
                    self.consider(request);
                } else {
                    self.early = Some(request);
                }
            }
            Judgement::Malformed => self.h3.abort(stream, ErrorCode::Message),
            Judgement::Refused(refusal) => self.respond_refused(stream, &refusal),
            Judgement::Answer {
                status,
                title,
                detail,
            } => {
                // RFC 9110 §15.5.6: a 405 names what is allowed; §9.3.2: HEAD has no body.
                let allow: &[_] = if status == 405 {
                    &[("allow", "CONNECT")]
                } else {
                    &[]
                };
                let body = problem::plain(status, title, detail);
                let body = if head.method == "HEAD" {
                    &[]
                } else {
                    &body[..]
                };
                self.respond(stream, status, allow, body);
            }
        }
    }

    /// Asks the caller, unless the client could not be sent a single packet.
    fn consider(&mut self, request: GatewayEvent) {
        if self.peer_datagrams() {
            self.events.push_back(request);
        } else {
            let detail = "SETTINGS_H3_DATAGRAM is required";
            self.refuse(&Refusal::new(RefusalKind::BadRequest, detail));
        }
    }

    /// The table in the module documentation.
    fn judge(&self, head: &RequestHead) -> Judgement {
        let refused = |kind, detail: &str| Judgement::Refused(Refusal::new(kind, detail));
        let answer = |status, title, detail| Judgement::Answer {
            status,
            title,
            detail,
        };
        let path = head.path.as_deref().unwrap_or_default();
        let scope = self
            .config
            .paths
            .iter()
            .find_map(|template| template.expand(path));
        match (head.method.as_str(), head.protocol.as_deref()) {
            ("CONNECT", Some("connect-ip")) => {}
            ("CONNECT", Some(_)) => {
                return refused(
                    RefusalKind::NotConnectIp,
                    "the only :protocol is connect-ip",
                );
            }
            ("CONNECT", None) => {
                return refused(
                    RefusalKind::NotConnectIp,
                    "CONNECT needs :protocol connect-ip",
                );
            }
            (method, _) if is_plain_method(method) => {
                return match scope {
                    None => answer(404, "Not Found", "there is nothing at this path"),
                    Some(_) => answer(405, "Method Not Allowed", "this path is for CONNECT"),
                };
            }
            _ => return answer(501, "Not Implemented", "the method is unknown"),
        }
        if head.fields.check_for_capsules().is_err() {
            return Judgement::Malformed;
        }
        if head.scheme.as_deref() != Some("https") {
            return refused(RefusalKind::BadRequest, "the scheme is not https");
        }
        match scope {
            None => refused(RefusalKind::NotFound, ""),
            // RFC 9484 §4.2 calls these malformed; RFC 9114 §4.1.2 lets us say why.
            Some(Err(error)) => refused(RefusalKind::BadRequest, &error.to_string()),
            Some(Ok(_)) if !matches!(self.phase, Phase::Idle) => {
                refused(RefusalKind::SecondRequest, "")
            }
            Some(Ok(scope)) => Judgement::Tunnel(scope),
        }
    }

    fn handle_said(&mut self, said: super::tunnel::Said) {
        self.events
            .extend(said.assigned.map(GatewayEvent::PeerAssigned));
        self.events
            .extend(said.routes.map(GatewayEvent::PeerRoutes));
        self.pending.extend(said.requested);
        if let Phase::Open { stream, assignment } = &self.phase {
            self.events
                .extend(said.packets.into_iter().map(GatewayEvent::Packet));
            let (stream, assignment) = (*stream, assignment.clone());
            let decided = self.take_decided(&assignment);
            if !decided.is_empty() {
                let mut bytes = Vec::new();
                answer(&assignment.addresses, &decided).encode(&mut bytes);
                self.h3.write_data(stream, &bytes, false);
            }
        }
    }

    /// Takes the pending requests that this assignment decides.
    fn take_decided(&mut self, assignment: &Assignment) -> Vec<RequestedAddress> {
        let decided =
            |request: &mut RequestedAddress| assignment.is_decided(request.prefix.addr().is_ipv6());
        self.pending.extract_if(.., decided).collect()
    }

    fn respond_refused(&mut self, stream: u64, refusal: &Refusal) {
        self.respond(
            stream,
            refusal.kind.http_status(),
            &[],
            &problem::of_refusal(refusal),
        );
    }

    fn respond(&mut self, stream: u64, status: u16, extra: &[(&str, &str)], body: &[u8]) {
        let status = status.to_string();
        let fields = [
            &[
                (":status", &status[..]),
                ("content-type", problem::MEDIA_TYPE),
            ],
            extra,
        ]
        .concat();
        self.h3.write_headers(stream, &fields, body.is_empty());
        if !body.is_empty() {
            self.h3.write_data(stream, body, true);
        }
        self.h3.stop_reading(stream);
    }

    fn abort(&mut self, stream: u64, abort: Abort) {
        self.h3.abort(stream, abort.code);
        self.end(&abort.reason);
    }

    fn end(&mut self, reason: &str) {
        if !matches!(std::mem::replace(&mut self.phase, Phase::Over), Phase::Over) {
            self.drop_exchange();
            self.early = None;
            self.pending.clear();
            self.tunnel = Tunnel::default();
            self.events.push_back(GatewayEvent::Ended {
                reason: reason.to_owned(),
            });
        }
    }
}

/// The methods of RFC 9110 §9 that are not CONNECT, and PATCH (RFC 5789).
fn is_plain_method(method: &str) -> bool {
    matches!(
        method,
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "TRACE" | "PATCH"
    )
}

#[derive(Debug)]
enum Phase {
    /// No CONNECT-IP request is being answered.
    Idle,
    /// The caller is deciding about one.
    Asked { stream: u64 },
    /// The tunnel is up.
    Open { stream: u64, assignment: Assignment },
    /// The tunnel has ended.
    Over,
}

impl Phase {
    fn stream(&self) -> Option<u64> {
        match self {
            Self::Asked { stream } | Self::Open { stream, .. } => Some(*stream),
            Self::Idle | Self::Over => None,
        }
    }
}

enum Judgement {
    Tunnel(Scope),
    Malformed,
    Refused(Refusal),
    Answer {
        status: u16,
        title: &'static str,
        detail: &'static str,
    },
}
