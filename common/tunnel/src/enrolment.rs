//! The engine of a machine that has no certificate yet: one connection, one request, one answer.
//!
//! Contract: after any number of [`Enrolment::handle_udp`], call [`Enrolment::handle_timeout`] once and
//! then drain `poll_transmit` and `poll_outcome`; sleep until `poll_timeout` or input. Gateway addresses are
//! tried in turn until one answers the handshake. After that the code may be spent: if the answer does not come,
//! the same is asked once more, because for the same key the code is still good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::close::{Refusal, RefusalKind, Retry};
use adit_core::h3::ErrorCode;
use adit_core::session::certificate::Issued;
use adit_core::session::enrolment::{Control, EnrolmentConfig as Asked};
use quinn_proto::{Transmit, TransportConfig};

use crate::endpoints::Endpoints;
use crate::link::Notice;
use crate::links::{Datagram, Key, Links};
use crate::refusal;
use crate::tls::QuicClient;
use crate::transport::{EngineKeys, Limits, transport_config};

mod machine;

/// Everything an enrolment is made of.
pub struct EnrolmentConfig {
    /// Keys and seeds.
    pub keys: EngineKeys,
    /// Limits of this machine.
    pub limits: Limits,
    /// TLS that knows the gateway by its key.
    pub tls: Arc<QuicClient>,
    /// The name the gateway's certificate must carry.
    pub server_name: String,
    /// The request.
    pub asked: Asked,
    /// The gateway's addresses, in the order to try them.
    pub gateways: Vec<SocketAddr>,
}

/// One attempt to get a certificate.
pub struct Enrolment {
    links: Links<Control>,
    endpoints: Endpoints,
    tls: Arc<QuicClient>,
    transport: Arc<TransportConfig>,
    server_name: String,
    asked: Asked,
    gateways: Vec<SocketAddr>,
    /// Whether what was asked may be asked once more.
    may_repeat: bool,
    state: State,
}

enum State {
    /// An address is being tried.
    Dialing {
        key: Key,
        candidate: usize,
        gives_up_at: Instant,
    },
    /// The handshake is complete, and the request on its way.
    Asked { key: Key, candidate: usize },
    /// It is over.
    Over(Option<Result<Issued, Refusal>>),
}

impl Enrolment {
    /// Begins with the first address.
    #[must_use]
    pub fn new(now: Instant, config: EnrolmentConfig) -> Self {
        let mut enrolment = Self {
            links: Links::new(),
            endpoints: Endpoints::new(&config.keys, &config.limits),
            tls: config.tls,
            transport: transport_config(&config.limits),
            server_name: config.server_name,
            asked: config.asked,
            gateways: config.gateways,
            may_repeat: true,
            state: State::Over(None),
        };
        let none = Refusal::new(RefusalKind::Unreachable, "no address for the gateway");
        enrolment.dial_from(now, 0, none);
        enrolment
    }

    /// One UDP datagram from outside.
    pub fn handle_udp(&mut self, now: Instant, datagram: Datagram) {
        // What names no link of ours is nobody's.
        drop(self.links.handle_udp(now, datagram));
    }

    /// Fires what is due and looks at every link that something happened to.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.links.handle_timeout(now);
        if let State::Dialing {
            key, gives_up_at, ..
        } = self.state
            && gives_up_at <= now
        {
            self.close(now, key);
            self.fail(
                now,
                key,
                Refusal::new(RefusalKind::Unreachable, "no answer"),
            );
        }
        let mut notices = Vec::new();
        while let Some(key) = self.links.poll_service(now, &self.asked, &mut notices) {
            for notice in notices.drain(..) {
                match notice {
                    Notice::Connected => self.connected(key),
                    Notice::Lost(error) => {
                        self.fail(now, key, refusal::of_connection_error(&error));
                    }
                    Notice::Report(Ok(issued)) => {
                        self.close(now, key);
                        self.state = State::Over(Some(Ok(issued)));
                    }
                    Notice::Report(Err(refusal)) => {
                        self.close(now, key);
                        self.fail(now, key, refusal);
                    }
                }
            }
        }
    }

    /// The next bytes to send: `buf` holds datagrams of `segment_size` bytes, the last may be shorter.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.links.poll_transmit(now, buf)
    }

    /// What became of it, once. What is to be sent should be sent before the end: it says goodbye.
    pub fn poll_outcome(&mut self) -> Option<Result<Issued, Refusal>> {
        match &mut self.state {
            State::Over(outcome) => outcome.take(),
            State::Dialing { .. } | State::Asked { .. } => None,
        }
    }

    /// When [`Self::handle_timeout`] must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let gives_up_at = match &self.state {
            State::Dialing { gives_up_at, .. } => Some(*gives_up_at),
            State::Asked { .. } | State::Over(_) => None,
        };
        gives_up_at
            .into_iter()
            .chain(self.links.poll_timeout())
            .min()
    }

    fn connected(&mut self, connected: Key) {
        if let State::Dialing { key, candidate, .. } = self.state
            && key == connected
        {
            self.state = State::Asked { key, candidate };
        }
    }

    fn dial_from(&mut self, now: Instant, first: usize, mut refusal: Refusal) {
        for candidate in first..self.gateways.len() {
            let gateway = self.gateways[candidate];
            let mut config = quinn_proto::ClientConfig::new(Arc::clone(&self.tls) as _);
            config.transport_config(Arc::clone(&self.transport));
            match self
                .endpoints
                .connect(now, config, gateway, &self.server_name)
            {
                Ok(link) => {
                    let key = self.links.insert(link);
                    self.state = State::Dialing {
                        key,
                        candidate,
                        gives_up_at: now + PATIENCE,
                    };
                    return;
                }
                Err(error) => {
                    let detail = format!("cannot dial {gateway}: {error}");
                    refusal = Refusal::new(RefusalKind::Unreachable, detail);
                }
            }
        }
        self.state = State::Over(Some(Err(refusal)));
    }

    fn fail(&mut self, now: Instant, lost: Key, refusal: Refusal) {
        match self.state {
            State::Dialing { key, candidate, .. } if key == lost => {
                if refusal.kind.retry() == Retry::Never {
                    self.state = State::Over(Some(Err(refusal)));
                } else {
                    self.dial_from(now, candidate + 1, refusal);
                }
            }
            State::Asked { key, candidate } if key == lost => {
                if refusal.kind == RefusalKind::Unreachable && self.may_repeat {
                    self.may_repeat = false;
                    self.dial_from(now, candidate, refusal);
                } else {
                    self.state = State::Over(Some(Err(refusal)));
                }
            }
            State::Dialing { .. } | State::Asked { .. } | State::Over(_) => {}
        }
    }

    fn close(&mut self, now: Instant, key: Key) {
        let code = ErrorCode::NoError.code();
        self.links.close(now, key, code, "");
    }
}

/// How long one address may take to complete the handshake: five retransmissions.
const PATIENCE: Duration = Duration::from_secs(5);
