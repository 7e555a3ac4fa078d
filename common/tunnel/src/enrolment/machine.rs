//! The control machine of an enrolment on a link.

use std::time::Instant;

use adit_core::close::Refusal;
use adit_core::session::Action;
use adit_core::session::certificate::Issued;
use adit_core::session::enrolment::{Control, EnrolmentConfig};
use quinn_proto::{Connection, Dir};

use crate::link::Machine;

impl Machine for Control {
    type Config = EnrolmentConfig;
    type Report = Result<Issued, Refusal>;

    fn open(now: Instant, config: &Self::Config, connection: &mut Connection) -> Option<Self> {
        let control = connection.streams().open(Dir::Uni)?;
        let request = connection.streams().open(Dir::Bi)?;
        Some(Self::new(now, control.into(), request.into(), config))
    }

    fn handle_stream(&mut self, now: Instant, stream: u64, data: &[u8], fin: bool) {
        Self::handle_stream(self, now, stream, data, fin);
    }

    fn handle_reset(&mut self, now: Instant, stream: u64, code: u64) {
        Self::handle_reset(self, now, stream, code);
    }

    fn handle_stopped(&mut self, now: Instant, stream: u64, code: u64) {
        Self::handle_stopped(self, now, stream, code);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Self::handle_timeout(self, now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Self::poll_timeout(self)
    }

    fn poll_action(&mut self) -> Option<Action> {
        Self::poll_action(self)
    }

    fn poll_report(&mut self) -> Option<Result<Issued, Refusal>> {
        Self::poll_outcome(self)
    }
}
