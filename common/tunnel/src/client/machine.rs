//! The client's control machine on a link.

use std::time::Instant;

use adit_core::session::Action;
use adit_core::session::client::{ClientControlConfig, ClientEvent, Control};
use quinn_proto::{Connection, Dir};

use crate::handover::Secret;
use crate::link::{Machine, forward_to_control};

/// What the machine of a new link is told.
pub(crate) struct Opening {
    /// What it asks for.
    pub(crate) control: ClientControlConfig,
    /// The secret of the link whose session is to go on over it.
    pub(crate) predecessor: Option<Secret>,
}

impl Machine for Control {
    type Config = Opening;
    type Report = ClientEvent;

    fn open(now: Instant, config: &Self::Config, connection: &mut Connection) -> Option<Self> {
        let control = connection.streams().open(Dir::Uni)?;
        let request = connection.streams().open(Dir::Bi)?;
        let next = Secret::of(connection);
        let handover = config.predecessor.as_ref().zip(next.as_ref());
        let config = ClientControlConfig {
            handover: handover.map(|(predecessor, next)| predecessor.prove(next)),
            ..config.control.clone()
        };
        Some(Self::new(now, control.into(), request.into(), config))
    }

    forward_to_control!();

    fn poll_report(&mut self) -> Option<ClientEvent> {
        Self::poll_event(self)
    }
}
