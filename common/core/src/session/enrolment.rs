//! The end of a laptop that has no certificate yet: one request, one answer, and nothing else.
//!
//! The gateway is known by its key alone, which the code names; that is the handshake's business.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Action;
use super::certificate::{CertificateAsk, Issued};
use super::post::Post;
use crate::close::{Refusal, RefusalKind};
use crate::h3::connection::{Connection, Event};
use crate::h3::settings::Settings;
use crate::h3::{ErrorCode, Role};

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub struct EnrolmentConfig {
    /// The `:authority`: the gateway's name and, unless 443, its port.
    pub authority: String,
    /// The request.
    pub ask: CertificateAsk,
    /// How long the gateway may take to answer, counted from [`Control::new`].
    pub request_timeout: Duration,
}

impl EnrolmentConfig {
    /// The same patience as for a tunnel.
    #[must_use]
    pub fn new(authority: impl Into<String>, ask: CertificateAsk) -> Self {
        Self {
            authority: authority.into(),
            ask,
            request_timeout: super::REQUEST_TIMEOUT,
        }
    }
}

/// The control machine for one QUIC connection; its one event is the outcome.
#[derive(Debug)]
pub struct Control {
    h3: Connection,
    /// `None` when it is answered.
    post: Option<Post>,
    timeout: Duration,
    deadline: Instant,
    outcomes: VecDeque<Result<Issued, Refusal>>,
}

impl Control {
    /// Queues SETTINGS and the request on two streams that the caller opened. A request that needs no
    /// setting of the gateway's need not wait for them (RFC 9114 §7.2.4.2).
    #[must_use]
    pub fn new(
        now: Instant,
        control_stream: u64,
        request_stream: u64,
        config: &EnrolmentConfig,
    ) -> Self {
        let mut h3 = Connection::new(Role::Client, control_stream, Settings::default());
        let post = Post::send(&mut h3, request_stream, &config.authority, &config.ask);
        Self {
            h3,
            post: Some(post),
            timeout: config.request_timeout,
            deadline: now + config.request_timeout,
            outcomes: VecDeque::new(),
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
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            let seconds = self.timeout.as_secs();
            let reason = format!("the gateway did not answer the request within {seconds} s");
            self.h3.close(ErrorCode::RequestCancelled.code(), &reason);
            self.handle_events();
        }
    }

    /// The next thing to do on the connection.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.h3.poll_action()
    }

    /// What became of the request; once.
    pub fn poll_outcome(&mut self) -> Option<Result<Issued, Refusal>> {
        self.outcomes.pop_front()
    }

    /// When [`Control::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.post.is_some().then_some(self.deadline)
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.h3.poll_event() {
            let outcome = match (&mut self.post, event) {
                (None, _) => None,
                (Some(post), event) if event.stream() == Some(post.stream()) => {
                    post.handle(&mut self.h3, event)
                }
                (Some(post), Event::GoAway { stream }) if post.stream() >= stream => Some(
                    unreachable("the gateway is going away and takes no request"),
                ),
                (Some(_), Event::Closed { reason }) => Some(unreachable(&reason)),
                (Some(_), _) => None,
            };
            if let Some(outcome) = outcome {
                self.post = None;
                self.outcomes.push_back(outcome);
            }
        }
    }
}

fn unreachable(reason: &str) -> Result<Issued, Refusal> {
    Err(Refusal::new(RefusalKind::Unreachable, reason))
}
