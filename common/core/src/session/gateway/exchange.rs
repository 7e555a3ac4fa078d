//! Requests for certificates on the gateway: the body is collected, somebody else decides.
//!
//! | request | answer |
//! | --- | --- |
//! | another method than POST | 405 |
//! | while another one is not answered | 429 |
//! | `renew` without an open session, `enroll` with one | 403, 409 |
//! | a scheme other than https | 400 |
//! | another content type | 415 |
//! | `enroll` without a bearer token | 401 |
//! | more than 16 KiB | 413 |
//! | nothing | 400 |
//! | a body of another length than `content-length` says (RFC 9114 §4.1.2) | H3_MESSAGE_ERROR |
//! | a body that does not come in time | 408 |
//! | no decision in time | 503 |

use std::time::Instant;

use super::{Control, GatewayEvent, Phase};
use crate::close::Refusal;
use crate::h3::ErrorCode;
use crate::h3::message::RequestHead;
use crate::session::certificate::{
    ANSWER_TYPE, CertificateAsk, Issued, MAX_REQUEST, Occasion, REQUEST_TYPE, Resource, Secret,
};
use crate::session::{UserAgent, problem};

/// The one request for a certificate that is being read or decided.
#[derive(Debug)]
pub(super) struct Exchange {
    stream: u64,
    /// `content-length`.
    announced: Option<usize>,
    deadline: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The body is on its way.
    Reading(CertificateAsk),
    /// The caller decides.
    Asked,
}

/// A status with its title and what is wrong in particular.
struct Answer(u16, &'static str, &'static str);

/// Why a request goes no further than its head.
enum Fault {
    Malformed,
    Answer(Answer),
}

impl Control {
    /// Answers [`GatewayEvent::CertificateAsked`] with a certificate.
    pub fn issue(&mut self, stream: u64, issued: &Issued) {
        if self.take_asked(stream) {
            let fields = [
                (":status", "200"),
                ("content-type", ANSWER_TYPE),
                // RFC 9111 §5.2.2.5: it is for one recipient.
                ("cache-control", "no-store"),
            ];
            self.h3.write_headers(stream, &fields, false);
            self.h3.write_data(stream, &issued.encode(), true);
        }
    }

    /// Answers [`GatewayEvent::CertificateAsked`] with the refusal's status and a problem body.
    pub fn refuse_certificate(&mut self, stream: u64, refusal: &Refusal) {
        if self.take_asked(stream) {
            self.respond_refused(stream, refusal);
        }
    }

    pub(super) fn exchange_deadline(&self) -> Option<Instant> {
        self.exchange.as_ref().map(|exchange| exchange.deadline)
    }

    /// Reads the head of a request for a resource that gives certificates.
    pub(super) fn begin_exchange(
        &mut self,
        now: Instant,
        stream: u64,
        resource: Resource,
        head: &RequestHead,
    ) {
        if head.method != "POST" {
            let detail = "this path is for POST";
            let body = problem::plain(405, "Method Not Allowed", detail);
            // RFC 9110 §9.3.2: HEAD has no body.
            let body = if head.method == "HEAD" {
                &[]
            } else {
                &body[..]
            };
            return self.respond(stream, 405, &[("allow", "POST")], body);
        }
        match self.ask_of(resource, head) {
            Ok((announced, ask)) => {
                self.exchange = Some(Exchange {
                    stream,
                    announced,
                    deadline: now + self.config.request_timeout,
                    state: State::Reading(ask),
                });
            }
            Err(Fault::Malformed) => self.h3.abort(stream, ErrorCode::Message),
            Err(Fault::Answer(answer)) => {
                // RFC 9110 §11.6.1: a 401 names the scheme.
                let challenge: &[_] = match answer.0 {
                    401 => &[("www-authenticate", "Bearer")],
                    _ => &[],
                };
                self.reply(stream, challenge, &answer);
            }
        }
    }

    /// Takes a piece of a body.
    pub(super) fn read_exchange(&mut self, stream: u64, bytes: &[u8]) {
        let Some(Exchange {
            state: State::Reading(ask),
            ..
        }) = self.reading(stream)
        else {
            return;
        };
        if ask.request.len() + bytes.len() <= MAX_REQUEST {
            ask.request.extend_from_slice(bytes);
        } else {
            self.exchange = None;
            self.reply(stream, &[], &TOO_LARGE);
        }
    }

    /// Takes the end of a body, and asks the caller.
    pub(super) fn finish_exchange(&mut self, stream: u64) {
        let Some(exchange) = self.reading(stream) else {
            return;
        };
        let State::Reading(ask) = std::mem::replace(&mut exchange.state, State::Asked) else {
            return;
        };
        if exchange
            .announced
            .is_some_and(|announced| announced != ask.request.len())
        {
            self.exchange = None;
            self.h3.abort(stream, ErrorCode::Message);
        } else if ask.request.is_empty() {
            self.exchange = None;
            let answer = Answer(400, "Bad Request", "there is no certificate request");
            self.reply(stream, &[], &answer);
        } else {
            let asked = GatewayEvent::CertificateAsked { stream, ask };
            self.events.push_back(asked);
        }
    }

    /// The client wants no answer any more, or no request can be answered any more.
    pub(super) fn drop_exchange(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            self.h3.abort(exchange.stream, ErrorCode::RequestCancelled);
        }
    }

    /// Says whether this is the stream of the exchange.
    pub(super) fn is_exchange(&self, stream: u64) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|exchange| exchange.stream == stream)
    }

    /// Nobody waits longer for the client's body, and the client waits no longer for us.
    pub(super) fn expire_exchange(&mut self, now: Instant) {
        let Some(exchange) = self.exchange.take_if(|exchange| now >= exchange.deadline) else {
            return;
        };
        let answer = match exchange.state {
            State::Reading(_) => Answer(408, "Request Timeout", "the body did not come in time"),
            State::Asked => Answer(503, "Service Unavailable", "no decision in time"),
        };
        self.reply(exchange.stream, &[], &answer);
    }

    fn ask_of(
        &self,
        resource: Resource,
        head: &RequestHead,
    ) -> Result<(Option<usize>, CertificateAsk), Fault> {
        let no = |status, title, detail| Err(Fault::Answer(Answer(status, title, detail)));
        let fields = &head.fields;
        let announced = match fields.single("content-length") {
            Some(value) => Some(length(value).ok_or(Fault::Malformed)?),
            // RFC 9110 §8.6: several that agree could be taken for one; nobody sends them.
            None if fields.contains("content-length") => return Err(Fault::Malformed),
            None => None,
        };
        match (resource, &self.phase) {
            _ if self.exchange.is_some() => {
                return no(
                    429,
                    "Too Many Requests",
                    "another request is being answered",
                );
            }
            (Resource::Renew, Phase::Open { .. }) | (Resource::Enroll, Phase::Idle) => {}
            (Resource::Renew, _) => {
                return no(
                    403,
                    "Forbidden",
                    "a certificate is renewed within an open session",
                );
            }
            (Resource::Enroll, _) => {
                return no(
                    409,
                    "Conflict",
                    "this connection has a certificate and uses it",
                );
            }
        }
        if head.scheme.as_deref() != Some("https") {
            return no(400, "Bad Request", "the scheme is not https");
        }
        if !fields.single("content-type").is_some_and(is_request_type) {
            return no(
                415,
                "Unsupported Media Type",
                "the body must be application/pkcs10",
            );
        }
        let occasion = match resource {
            Resource::Renew => Occasion::Renewal,
            Resource::Enroll => match fields.single("authorization").and_then(bearer) {
                Some(secret) => Occasion::Enrolment(secret),
                None => {
                    return no(
                        401,
                        "Unauthorized",
                        "the code's secret must come as bearer token",
                    );
                }
            },
        };
        if announced.is_some_and(|announced| announced > MAX_REQUEST) {
            return Err(Fault::Answer(TOO_LARGE));
        }
        let ask = CertificateAsk {
            occasion,
            request: Vec::new(),
            user_agent: fields.single("user-agent").and_then(UserAgent::read),
        };
        Ok((announced, ask))
    }

    fn reading(&mut self, stream: u64) -> Option<&mut Exchange> {
        self.exchange
            .as_mut()
            .filter(|exchange| exchange.stream == stream)
    }

    /// Says whether the caller decides about this stream, and ends the exchange if so.
    fn take_asked(&mut self, stream: u64) -> bool {
        let asked = |exchange: &mut Exchange| {
            exchange.stream == stream && matches!(exchange.state, State::Asked)
        };
        self.exchange.take_if(asked).is_some()
    }

    fn reply(&mut self, stream: u64, extra: &[(&str, &str)], answer: &Answer) {
        let Answer(status, title, detail) = *answer;
        self.respond(
            stream,
            status,
            extra,
            &problem::plain(status, title, detail),
        );
    }
}

/// RFC 9110 §8.6: digits and nothing else. What does not fit a number is larger than any limit.
fn length(value: &[u8]) -> Option<usize> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let value = std::str::from_utf8(value).ok().filter(|_| digits)?;
    Some(value.parse().unwrap_or(usize::MAX))
}

/// RFC 9110 §8.3.1: case does not matter, and parameters follow a semicolon.
fn is_request_type(value: &[u8]) -> bool {
    let end = value.iter().position(|&byte| byte == b';');
    value[..end.unwrap_or(value.len())]
        .trim_ascii()
        .eq_ignore_ascii_case(REQUEST_TYPE.as_bytes())
}

/// RFC 6750 §2.1, RFC 9110 §11.1: the scheme in any case, then the token.
fn bearer(value: &[u8]) -> Option<Secret> {
    let (scheme, token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| Secret::parse(token.trim_matches(' ')))?
}

const TOO_LARGE: Answer = Answer(
    413,
    "Content Too Large",
    "a certificate request has at most 16 KiB",
);
