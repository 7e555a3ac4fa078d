//! Requests for certificates within a session: passed on to the front desk, whose answer comes back.

use adit_core::close::{Refusal, RefusalKind};
use adit_core::session::certificate::{CertificateAsk, Issued};
use adit_core::session::gateway::Control;

use super::{Gateway, SessionId};
use crate::links::Key;
use crate::reception::ToReception;

impl Gateway {
    pub(super) fn ask_certificate(&mut self, key: Key, stream: u64, ask: CertificateAsk) {
        let remote = self.remote(key);
        match self.session(key) {
            Some(session) => {
                let message = ToReception::CertificateAsked {
                    session: session.id,
                    principal: session.grant.principal.clone(),
                    remote,
                    stream,
                    ask,
                };
                self.messages.push_back(message);
            }
            None => {
                let refusal = Refusal::new(RefusalKind::CertificateRequired, "");
                if let Some(machine) = self.machine(key) {
                    machine.refuse_certificate(stream, &refusal);
                }
            }
        }
    }

    pub(super) fn answer_certificate(
        &mut self,
        session: SessionId,
        stream: u64,
        outcome: Result<Box<Issued>, Refusal>,
    ) {
        let Some(&key) = self.by_id.get(&session) else {
            return;
        };
        if let Some(machine) = self.machine(key) {
            match outcome {
                Ok(issued) => machine.issue(stream, &issued),
                Err(refusal) => machine.refuse_certificate(stream, &refusal),
            }
        }
    }

    fn machine(&mut self, key: Key) -> Option<&mut Control> {
        self.links.touch(key)?.machine.as_mut()
    }
}
