//! The control plane's part in enrolment: questions go to the authority, what came of them into the records.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_core::close::{Refusal, RefusalKind};
use adit_core::identity::Principal;
use adit_core::session::UserAgent;
use adit_net::clock;
use adit_net::exit::Failure;
use adit_tunnel::{CertificateQuestion, Standing};
use tracing::{info, warn};

use crate::audit::Event;
use crate::cli::Invited;
use crate::control::Control;
use crate::conversations::{Conversation, Message};
use crate::invite::{self, Answer, Pending};
use crate::issuing::{Decision, Verdict};

impl Control<'_> {
    /// Has the authority decide, beside everything else: it waits for a disk.
    pub(crate) fn decide(&mut self, question: CertificateQuestion) {
        let Some(issuing) = &self.loaded.issuing else {
            let refusal = Refusal::new(RefusalKind::NotIssuing, "");
            self.desk.answer(question.ticket, Err(refusal.clone()));
            let principal = match question.standing {
                Standing::Holds { identity, .. } => Some(identity.principal),
                Standing::Invited(_) => None,
            };
            return self.record(&Decision {
                remote: question.remote,
                user_agent: question.user_agent,
                verdict: Verdict::Refused {
                    principal,
                    kind: refusal.kind.name(),
                    reason: refusal.to_string(),
                },
            });
        };
        let (issuing, desk) = (Arc::clone(issuing), self.desk.clone());
        let decided = self.decided.clone();
        tokio::task::spawn_blocking(move || {
            let (ticket, outcome, decision) = issuing.decide(question, clock::unix_seconds());
            desk.answer(ticket, outcome);
            // The control plane is gone only while the process ends.
            let _ = decided.send(decision);
        });
    }

    /// Somebody guesses codes.
    pub(crate) fn guessed(&mut self, remote: SocketAddr) {
        let kind = RefusalKind::TooManyGuesses;
        self.record(&Decision {
            remote,
            user_agent: None,
            verdict: Verdict::Refused {
                principal: None,
                kind: kind.name(),
                reason: kind.text().to_owned(),
            },
        });
    }

    /// Writes down what became of a question.
    pub(crate) fn record(&mut self, decision: &Decision) {
        let Decision {
            remote,
            user_agent,
            verdict,
        } = decision;
        let (remote, device) = (*remote, user_agent.as_ref().map(UserAgent::as_str));
        match verdict {
            Verdict::Enrolled(facts) => {
                let (principal, serial) = (&facts.principal, &facts.serial);
                info!(principal, serial, %remote, device, "enrolled");
                self.audit.write(&Event::Enrol {
                    remote,
                    principal,
                    serial,
                    not_after: facts.not_after,
                    device,
                });
            }
            Verdict::Renewed {
                facts,
                serial_before,
            } => {
                let (principal, serial) = (&facts.principal, &facts.serial);
                info!(principal, serial, serial_before, %remote, device, "certificate renewed");
                self.audit.write(&Event::Renew {
                    remote,
                    principal,
                    serial,
                    serial_before,
                    not_after: facts.not_after,
                    device,
                });
            }
            Verdict::Refused {
                principal,
                kind,
                reason,
            } => {
                let Some(suppressed) = self.refusals.take(Instant::now()) else {
                    return;
                };
                let principal = principal.as_ref().map(Principal::as_str);
                warn!(%remote, principal, kind, reason, device, suppressed, "no certificate");
                self.audit.write(&Event::EnrolRefused {
                    remote,
                    principal,
                    kind,
                    reason,
                    device,
                    suppressed,
                });
            }
        }
    }

    /// Invites somebody: the authority waits for a disk, and for operators at work in its folder.
    pub(crate) fn invite(&self, invited: Invited, conversation: Conversation) {
        let Some(issuing) = self.loaded.issuing.clone() else {
            return conversation.answer(Err::<(), _>(invite::off()));
        };
        let (config, policy) = (self.loaded.config.clone(), Arc::clone(&self.loaded.policy));
        let gateway = invite::gateway_name(&config, &self.loaded.credentials);
        conversation.come_back_with(move || {
            let now = clock::unix_seconds();
            let code = invite::make(&issuing, &gateway, &config, &policy, &invited, now);
            Message::Invited(code)
        });
    }

    /// Writes down that somebody was invited, before the code is told.
    pub(crate) fn invited(&mut self, outcome: Result<Answer, Failure>, conversation: Conversation) {
        if let Ok(answer) = &outcome {
            info!(
                principal = answer.principal,
                groups = ?answer.groups,
                "invited"
            );
            self.audit.write(&answer.event());
        }
        conversation.answer(outcome);
    }

    /// Tells the invitations that may still be redeemed.
    pub(crate) fn invitations(&self, conversation: Conversation) {
        let Some(issuing) = self.loaded.issuing.clone() else {
            return conversation.answer(Err::<(), _>(invite::off()));
        };
        conversation.answer_from_disk(move || invite::pending(&issuing, clock::unix_seconds()));
    }

    /// Takes an invitation back.
    pub(crate) fn withdraw(&self, number: i64, conversation: Conversation) {
        let Some(issuing) = self.loaded.issuing.clone() else {
            return conversation.answer(Err::<(), _>(invite::off()));
        };
        conversation.come_back_with(move || {
            let withdrawn = invite::take_back(&issuing, number, clock::unix_seconds());
            Message::Withdrawn(withdrawn)
        });
    }

    /// Writes down that an invitation was taken back, before that is told.
    pub(crate) fn withdrawn(
        &mut self,
        outcome: Result<Pending, Failure>,
        conversation: Conversation,
    ) {
        if let Ok(withdrawn) = &outcome {
            info!(
                principal = withdrawn.principal,
                invitation = withdrawn.number,
                "invitation withdrawn"
            );
            self.audit.write(&withdrawn.event());
        }
        conversation.answer(outcome);
    }
}
