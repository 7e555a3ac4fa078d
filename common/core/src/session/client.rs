//! The client's end of the control session.
//!
//! It waits for the gateway's SETTINGS, sends one CONNECT-IP request and, if configured, one
//! ADDRESS_REQUEST for any address of each family, and then follows the lists that the gateway
//! sends. A gateway that answers no ADDRESS_REQUEST, or sends no list at all, is tolerated.
//!
//! What is not a tunnel: a status that is not 2xx, 204 to 206 and content fields (RFC 9297 §3.2),
//! and a gateway without extended CONNECT or HTTP datagrams. The `capsule-protocol` field of the
//! answer is not required, for the reason given in [`super::gateway`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;

use super::certificate::{CertificateAsk, Issued, Occasion};
use super::post::Post;
use super::tunnel::{Abort, Said, Tunnel, answer};
use super::{Action, Place, Proof, UserAgent, handover, problem};
use crate::close::{Refusal, RefusalKind};
use crate::h3::connection::{Connection, Event};
use crate::h3::message::ResponseHead;
use crate::h3::qpack::Field;
use crate::h3::settings::Settings;
use crate::h3::{ErrorCode, Role};
use crate::range::RouteRange;
use crate::wire::capsule::{Capsule, RequestedAddress};

/// What the client asks for.
#[derive(Debug, Clone)]
pub struct ClientControlConfig {
    /// The `:authority`: the gateway's name and, unless 443, its port.
    pub authority: String,
    /// The `:path`, expanded.
    pub path: String,
    /// How long the gateway may take to answer, counted from [`Control::new`].
    pub request_timeout: Duration,
    /// Whether to send ADDRESS_REQUEST; some gateways abort the request on it, and one that
    /// assigns addresses unasked does not need it.
    pub request_addresses: bool,
    /// Proves that the session of another connection is to go on over this one.
    pub handover: Option<Proof>,
    /// What is said about this client and its host.
    pub user_agent: Option<UserAgent>,
}

impl ClientControlConfig {
    /// Asks for everything that is allowed, on the path of RFC 9484 §3.
    pub fn new(authority: impl Into<String>) -> Self {
        Self {
            authority: authority.into(),
            path: "/.well-known/masque/ip/*/*/".to_owned(),
            request_timeout: super::REQUEST_TIMEOUT,
            request_addresses: true,
            handover: None,
            user_agent: None,
        }
    }
}

/// What the engine must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The gateway answered 2xx: datagrams may flow.
    Established,
    /// The addresses that are ours (full list, only when it changed).
    Assigned(Vec<IpNet>),
    /// What may be reached through the tunnel (full list, only when it changed).
    Routes(Vec<RouteRange>),
    /// An IP packet came in a DATAGRAM capsule on the stream instead of a QUIC datagram.
    Packet(Bytes),
    /// The gateway answered no, or is no CONNECT-IP gateway. The session is over.
    Refused(Refusal),
    /// The session is over: without an answer, or the tunnel ended, or for a violation.
    Ended {
        /// Why, for logs and the user.
        reason: String,
    },
    /// What became of a request for a certificate.
    Certificate(Result<Issued, Refusal>),
    /// The gateway is about to go: connect again elsewhere or later.
    GoingAway,
}

/// The client's control machine for one QUIC connection.
#[derive(Debug)]
pub struct Control {
    h3: Connection,
    config: ClientControlConfig,
    stream: u64,
    phase: Phase,
    tunnel: Tunnel,
    assigned: Option<Vec<IpNet>>,
    routes: Option<Vec<RouteRange>>,
    place: Option<Place>,
    /// The request for a certificate that is not answered, and until when it is waited for.
    post: Option<(Post, Instant)>,
    deadline: Instant,
    events: VecDeque<ClientEvent>,
}

impl Control {
    /// Starts the session on two streams that the caller opened: queues SETTINGS on the
    /// unidirectional `control_stream`; the request goes to the bidirectional `request_stream` once
    /// the gateway's SETTINGS are there (RFC 9220 §3).
    pub fn new(
        now: Instant,
        control_stream: u64,
        request_stream: u64,
        config: ClientControlConfig,
    ) -> Self {
        let settings = Settings {
            extended_connect: false,
            datagrams: true,
        };
        let mut h3 = Connection::new(Role::Client, control_stream, settings);
        h3.open_request(request_stream);
        Self {
            h3,
            deadline: now + config.request_timeout,
            config,
            stream: request_stream,
            phase: Phase::AwaitingSettings,
            tunnel: Tunnel::default(),
            assigned: None,
            routes: None,
            place: None,
            post: None,
            events: VecDeque::new(),
        }
    }

    /// Takes bytes of a stream on which the gateway sends.
    pub fn handle_stream(&mut self, _now: Instant, stream: u64, data: &[u8], fin: bool) {
        self.h3.handle_stream(stream, data, fin);
        self.handle_events();
    }

    /// Takes a RESET_STREAM.
    pub fn handle_reset(&mut self, _now: Instant, stream: u64, code: u64) {
        self.h3.handle_reset(stream, code);
        self.handle_events();
    }

    /// Takes a STOP_SENDING.
    pub fn handle_stopped(&mut self, _now: Instant, stream: u64, code: u64) {
        self.h3.handle_stopped(stream, code);
        self.handle_events();
    }

    /// Takes the passing of time: a gateway that does not answer is not waited for.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((post, _)) = self.post.take_if(|(_, deadline)| now >= *deadline) {
            self.h3.abort(post.stream(), ErrorCode::RequestCancelled);
            let outcome = Err(Refusal::new(RefusalKind::Unreachable, "no answer in time"));
            self.events.push_back(ClientEvent::Certificate(outcome));
        }
        if self.is_waiting() && now >= self.deadline {
            if let Phase::Refused { status, body } = &self.phase {
                // The status is known; only the end of its body is not.
                self.refuse(problem::to_refusal(*status, body));
            }
            let seconds = self.config.request_timeout.as_secs();
            let reason = format!("the gateway did not answer the request within {seconds} s");
            self.h3.close(ErrorCode::RequestCancelled.code(), &reason);
            self.handle_events();
        }
    }

    /// Asks for a certificate to follow the present one, with this request (PKCS#10, in DER), on a bidirectional
    /// stream that the caller opened, within the open session and one at a time; says whether it does.
    /// [`ClientEvent::Certificate`] tells what became of it.
    pub fn ask_certificate(&mut self, now: Instant, stream: u64, request: Vec<u8>) -> bool {
        let can = self.can_ask_certificate();
        if can {
            let ask = CertificateAsk {
                occasion: Occasion::Renewal,
                request,
                user_agent: self.config.user_agent.clone(),
            };
            let post = Post::send(&mut self.h3, stream, &self.config.authority, &ask);
            self.post = Some((post, now + self.config.request_timeout));
        }
        can
    }

    /// Says whether there is a session, and no request for a certificate that is not answered.
    pub fn can_ask_certificate(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.post.is_none() && !self.is_going_away()
    }

    /// Says whether the gateway takes no further request on this connection (GOAWAY, RFC 9114 §5.2).
    pub fn is_going_away(&self) -> bool {
        self.h3.is_peer_going_away()
    }

    /// Ends the session from our side: FIN on the request stream.
    pub fn finish(&mut self) {
        if !matches!(self.phase, Phase::Over) {
            self.h3.write_data(self.stream, &[], true);
            self.phase = Phase::Over;
        }
    }

    /// The request stream, from the 2xx until the session ends.
    pub fn established(&self) -> Option<u64> {
        matches!(self.phase, Phase::Open).then_some(self.stream)
    }

    /// The request stream, whatever became of the request.
    pub fn request_stream(&self) -> u64 {
        self.stream
    }

    /// Where the next connection of this client should begin for the session to move to it; `None` when the
    /// gateway does not offer that.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// Says whether the gateway's SETTINGS arrived and allow HTTP datagrams.
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
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`Control::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.is_waiting().then_some(self.deadline);
        let post = self.post.as_ref().map(|(_, deadline)| *deadline);
        own.into_iter().chain(post).min()
    }

    /// Says whether the answer to the request for the tunnel is not complete.
    fn is_waiting(&self) -> bool {
        !matches!(self.phase, Phase::Open | Phase::Over)
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.h3.poll_event() {
            match event {
                event if self.is_post(event.stream()) => self.handle_post(event),
                Event::Settings(settings) => self.handle_settings(settings),
                Event::Headers { stream, fields } if stream == self.stream => {
                    self.handle_response(fields);
                }
                Event::Data { stream, bytes } if stream == self.stream => self.handle_data(&bytes),
                Event::Finished { stream } if stream == self.stream => self.handle_finished(),
                Event::Aborted { stream, code } if stream == self.stream => {
                    if let Phase::Refused { status, body } = &self.phase {
                        self.refuse(problem::to_refusal(*status, body));
                    } else {
                        self.abort(Abort {
                            code: ErrorCode::RequestCancelled,
                            reason: format!("the gateway aborted the request with code {code:#x}"),
                        });
                    }
                }
                // RFC 9114 §4.1: before the answer this only says that the rest of the request is
                // not needed; the answer follows.
                Event::Stopped { stream, code } if stream == self.stream => {
                    if matches!(self.phase, Phase::Open) {
                        self.abort(Abort {
                            code: ErrorCode::RequestCancelled,
                            reason: format!("the gateway stopped the request with code {code:#x}"),
                        });
                    }
                }
                Event::GoAway { stream } => {
                    self.events.push_back(ClientEvent::GoingAway);
                    if self.stream >= stream && !matches!(self.phase, Phase::Refused { .. }) {
                        // RFC 9114 §5.2: the request was not and will not be processed.
                        self.abort(Abort {
                            code: ErrorCode::RequestCancelled,
                            reason: "the gateway is going away and takes no request".to_owned(),
                        });
                    }
                }
                Event::Closed { reason } => self.end(&reason),
                _ => {}
            }
        }
    }

    fn is_post(&self, stream: Option<u64>) -> bool {
        let post = self.post.as_ref().map(|(post, _)| post.stream());
        post.is_some() && post == stream
    }

    fn handle_post(&mut self, event: Event) {
        if let Some((post, _)) = &mut self.post
            && let Some(outcome) = post.handle(&mut self.h3, event)
        {
            self.post = None;
            self.events.push_back(ClientEvent::Certificate(outcome));
        }
    }

    fn handle_settings(&mut self, settings: Settings) {
        if !matches!(self.phase, Phase::AwaitingSettings) {
            return;
        }
        // RFC 9220 §3, RFC 9297 §2.1.1: without both there is no CONNECT-IP here.
        let missing = match settings {
            Settings {
                extended_connect: false,
                ..
            } => "extended CONNECT",
            Settings {
                datagrams: false, ..
            } => "HTTP datagrams",
            _ => return self.request(),
        };
        let detail = format!("the gateway does not offer {missing}");
        self.refuse(Refusal {
            kind: RefusalKind::NotConnectIp,
            detail,
        });
    }

    fn request(&mut self) {
        self.phase = Phase::Requested;
        let proof = self.config.handover.map(|proof| proof.to_string());
        let mut fields = vec![
            (":method", "CONNECT"),
            (":protocol", "connect-ip"),
            (":scheme", "https"),
            (":authority", &self.config.authority),
            (":path", &self.config.path),
            ("capsule-protocol", "?1"),
        ];
        if let Some(proof) = &proof {
            fields.push((handover::FIELD, proof));
        }
        if let Some(user_agent) = &self.config.user_agent {
            fields.push(("user-agent", user_agent.as_str()));
        }
        self.h3.write_headers(self.stream, &fields, false);
        if self.config.request_addresses {
            let requests = vec![
                RequestedAddress::any(1, false),
                RequestedAddress::any(2, true),
            ];
            self.write_capsule(&Capsule::AddressRequest(requests));
        }
    }

    fn handle_response(&mut self, fields: Vec<Field>) {
        match self.phase {
            Phase::Requested => {}
            Phase::Open => {
                // RFC 9114 §4.4: after CONNECT succeeded there is only DATA.
                return self
                    .h3
                    .violate(ErrorCode::FrameUnexpected, "HEADERS inside the tunnel");
            }
            // Trailers of a refusal, or an answer that is no longer wanted.
            Phase::Refused { .. } | Phase::Over => return,
            Phase::AwaitingSettings => {
                return self
                    .h3
                    .violate(ErrorCode::GeneralProtocol, "an answer without a request");
            }
        }
        let head = match ResponseHead::parse(fields) {
            Ok(head) => head,
            Err(error) => {
                return self.abort(Abort {
                    code: ErrorCode::Message,
                    reason: format!("the gateway's answer is malformed: {error}"),
                });
            }
        };
        if head.is_interim() {
            return;
        }
        if !(200..300).contains(&head.status) {
            self.phase = Phase::Refused {
                status: head.status,
                body: Vec::new(),
            };
            return;
        }
        // RFC 9297 §3.2: these cannot start the capsule protocol.
        if matches!(head.status, 204..=206) || head.fields.check_for_capsules().is_err() {
            self.h3.abort(self.stream, ErrorCode::Message);
            let detail = format!("the gateway's answer {} cannot carry a tunnel", head.status);
            return self.refuse(Refusal {
                kind: RefusalKind::NotConnectIp,
                detail,
            });
        }
        let place = head.fields.single(handover::FIELD);
        self.place = place.and_then(Place::read);
        self.phase = Phase::Open;
        self.events.push_back(ClientEvent::Established);
    }

    fn handle_data(&mut self, bytes: &[u8]) {
        match &mut self.phase {
            Phase::Open => match self.tunnel.read(bytes) {
                Ok(said) => self.handle_said(said),
                Err(abort) => self.abort(abort),
            },
            Phase::Refused { body, .. } => {
                let room = problem::MAX_BODY - body.len();
                body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            _ => {}
        }
    }

    fn handle_said(&mut self, said: Said) {
        if said.assigned.is_some() && said.assigned != self.assigned {
            self.assigned = said.assigned;
            self.events
                .extend(self.assigned.clone().map(ClientEvent::Assigned));
        }
        if said.routes.is_some() && said.routes != self.routes {
            self.routes = said.routes;
            self.events
                .extend(self.routes.clone().map(ClientEvent::Routes));
        }
        self.events
            .extend(said.packets.into_iter().map(ClientEvent::Packet));
        if !said.requested.is_empty() {
            // We assign nothing to gateways, but every request gets its answer.
            self.write_capsule(&answer(&[], &said.requested));
        }
    }

    fn handle_finished(&mut self) {
        match &self.phase {
            Phase::Open => match self.tunnel.finish() {
                Ok(()) => {
                    self.h3.write_data(self.stream, &[], true);
                    self.end("the gateway closed the session");
                }
                Err(abort) => self.abort(abort),
            },
            Phase::Refused { status, body } => {
                let refusal = problem::to_refusal(*status, body);
                self.h3.write_data(self.stream, &[], true);
                self.refuse(refusal);
            }
            Phase::Over => {}
            Phase::AwaitingSettings | Phase::Requested => self.abort(Abort {
                code: ErrorCode::RequestCancelled,
                reason: "the gateway closed the request without an answer".to_owned(),
            }),
        }
    }

    fn write_capsule(&mut self, capsule: &Capsule) {
        let mut bytes = Vec::new();
        capsule.encode(&mut bytes);
        self.h3.write_data(self.stream, &bytes, false);
    }

    fn abort(&mut self, abort: Abort) {
        self.h3.abort(self.stream, abort.code);
        self.end(&abort.reason);
    }

    fn refuse(&mut self, refusal: Refusal) {
        if !matches!(std::mem::replace(&mut self.phase, Phase::Over), Phase::Over) {
            self.events.push_back(ClientEvent::Refused(refusal));
        }
    }

    fn end(&mut self, reason: &str) {
        if !matches!(std::mem::replace(&mut self.phase, Phase::Over), Phase::Over) {
            self.tunnel = Tunnel::default();
            if self.post.take().is_some() {
                let outcome = Err(Refusal::new(RefusalKind::Unreachable, reason));
                self.events.push_back(ClientEvent::Certificate(outcome));
            }
            self.events.push_back(ClientEvent::Ended {
                reason: reason.to_owned(),
            });
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// The gateway's SETTINGS are not here yet.
    AwaitingSettings,
    /// The request was sent.
    Requested,
    /// The tunnel is up.
    Open,
    /// The gateway said no and is saying why.
    Refused { status: u16, body: Vec<u8> },
    /// Nothing more happens.
    Over,
}
