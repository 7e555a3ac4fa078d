//! Requests for certificates: from whom, on what, and the way of the answer back.
//!
//! Whoever has a session asks on its engine, which passes it on; whoever has no certificate asks here. The
//! authority is the control plane's; here is decided who may ask at all.

use std::net::SocketAddr;
use std::time::Instant;

use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::{Identity, Principal};
use adit_core::session::UserAgent;
use adit_core::session::certificate::{CertificateAsk, Issued, Occasion, Secret};
use rustls::pki_types::CertificateDer;

use super::{Reception, ToEngine};
use crate::gateway::{GatewayEvent, SessionId};
use crate::links::Key;

/// A request for a certificate, to be decided.
#[derive(Debug)]
pub struct CertificateQuestion {
    /// What to answer with.
    pub ticket: Ticket,
    /// Where from.
    pub remote: SocketAddr,
    /// On what it is asked.
    pub standing: Standing,
    /// The certificate request (PKCS#10), in DER, as it came.
    pub request: Vec<u8>,
    /// What the client says of itself.
    pub user_agent: Option<UserAgent>,
}

/// On what a certificate is asked.
#[derive(Debug)]
pub enum Standing {
    /// Whoever asks has this secret of an invitation, or pretends to.
    Invited(Secret),
    /// Whoever asks has an open session by this certificate.
    Holds {
        /// What it says.
        identity: Identity,
        /// The certificate, in DER.
        certificate: CertificateDer<'static>,
    },
}

/// Where an answer is to go.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    holder: Holder,
    stream: u64,
}

#[derive(Clone, Copy, Debug)]
enum Holder {
    /// A link of the front desk.
    Stranger {
        key: Key,
        /// Tells the link from a later one at the same place.
        serial: u64,
        remote: SocketAddr,
    },
    Session {
        engine: u8,
        session: SessionId,
    },
}

impl Reception {
    /// Answers a question. Whoever asked may have gone meanwhile; then nobody hears it.
    pub fn answer(&mut self, ticket: Ticket, outcome: Result<Box<Issued>, Refusal>) {
        let stream = ticket.stream;
        match ticket.holder {
            Holder::Session { engine, session } => {
                let message = ToEngine::Certificate {
                    session,
                    stream,
                    outcome,
                };
                self.messages.push_back((engine, message));
            }
            Holder::Stranger {
                key,
                serial,
                remote,
            } => {
                let guessed = outcome
                    .as_ref()
                    .is_err_and(|refusal| refusal.kind == RefusalKind::InvitationRefused);
                if !guessed {
                    self.guesses.give_back(remote.ip());
                }
                if self
                    .links
                    .get(key)
                    .is_some_and(|link| link.serial == serial)
                    && let Some(machine) =
                        self.links.touch(key).and_then(|link| link.machine.as_mut())
                {
                    match outcome {
                        Ok(issued) => machine.issue(stream, &issued),
                        Err(refusal) => machine.refuse_certificate(stream, &refusal),
                    }
                }
            }
        }
    }

    /// A handshake is complete: whoever showed no certificate is one of a limited number.
    pub(super) fn look_at(&mut self, now: Instant, key: Key) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let remote = link.connection.remote_address();
        if link.peer_chain().is_empty() && !self.strangers.admit(key, remote.ip()) {
            let refusal = Refusal::new(RefusalKind::IssuingFailed, "too many ask at once");
            let (code, reason) = (refusal.kind.code(), refusal.to_string());
            self.links.close(now, key, code, &reason);
            self.events.push_back(GatewayEvent::Refused {
                remote,
                holder: None,
                refusal,
            });
        }
    }

    /// Somebody without a session asks for a certificate.
    pub(super) fn ask_enrolment(
        &mut self,
        now: Instant,
        key: Key,
        stream: u64,
        ask: CertificateAsk,
    ) {
        let Some(link) = self.links.touch(key) else {
            return;
        };
        if link.peer_chain().is_empty() && !self.strangers.contains(key) {
            // It was turned away, and asked in the same breath as it came.
            return;
        }
        let remote = link.connection.remote_address();
        let mut refuse = |kind| {
            if let Some(machine) = &mut link.machine {
                machine.refuse_certificate(stream, &Refusal::new(kind, ""));
            }
        };
        let Occasion::Enrolment(secret) = ask.occasion else {
            return refuse(RefusalKind::CertificateRequired);
        };
        if !self.guesses.take(now, remote.ip()) {
            refuse(RefusalKind::TooManyGuesses);
            return self.events.push_back(GatewayEvent::GuessRefused { remote });
        }
        let holder = Holder::Stranger {
            key,
            serial: link.serial,
            remote,
        };
        self.ask(CertificateQuestion {
            ticket: Ticket { holder, stream },
            remote,
            standing: Standing::Invited(secret),
            request: ask.request,
            user_agent: ask.user_agent,
        });
    }

    /// A session asks for a certificate to follow its own. One that is over, or about to be, gets none.
    pub(super) fn ask_renewal(
        &mut self,
        session: SessionId,
        principal: &Principal,
        remote: SocketAddr,
        stream: u64,
        ask: CertificateAsk,
    ) {
        let Some(seated) = self.sessions.get(principal) else {
            return;
        };
        let Some(certificate) = seated.chain.first() else {
            return;
        };
        if seated.id != session || seated.dismissed {
            return;
        }
        let holder = Holder::Session {
            engine: seated.engine,
            session,
        };
        let standing = Standing::Holds {
            identity: seated.identity.clone(),
            certificate: certificate.clone(),
        };
        self.ask(CertificateQuestion {
            ticket: Ticket { holder, stream },
            remote,
            standing,
            request: ask.request,
            user_agent: ask.user_agent,
        });
    }

    fn ask(&mut self, question: CertificateQuestion) {
        let event = GatewayEvent::CertificateAsked(Box::new(question));
        self.events.push_back(event);
    }
}
