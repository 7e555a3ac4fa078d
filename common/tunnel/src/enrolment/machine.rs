//! The control machine of an enrolment on a link.

use std::time::Instant;

use adit_core::close::Refusal;
use adit_core::session::Action;
use adit_core::session::certificate::Issued;
use adit_core::session::enrolment::{Control, EnrolmentConfig};
use quinn_proto::{Connection, Dir};

use crate::link::{Machine, forward_to_control};

impl Machine for Control {
    type Config = EnrolmentConfig;
    type Report = Result<Issued, Refusal>;

    fn open(now: Instant, config: &Self::Config, connection: &mut Connection) -> Option<Self> {
        let control = connection.streams().open(Dir::Uni)?;
        let request = connection.streams().open(Dir::Bi)?;
        Some(Self::new(now, control.into(), request.into(), config))
    }

    forward_to_control!();

    fn poll_report(&mut self) -> Option<Result<Issued, Refusal>> {
        Self::poll_outcome(self)
    }
}
