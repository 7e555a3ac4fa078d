//! The client's control machine on a link.

use std::time::Instant;

use adit_core::session::Action;
use adit_core::session::client::{ClientControlConfig, ClientEvent, Control};
use quinn_proto::{Connection, Dir};

use crate::handover::Secret;
use crate::link::Machine;

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

    fn poll_report(&mut self) -> Option<ClientEvent> {
        Self::poll_event(self)
    }
}
