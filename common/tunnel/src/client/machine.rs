//! The client's control machine on a link.

use std::time::Instant;

use adit_core::session::Action;
use adit_core::session::client::{ClientControlConfig, ClientEvent, Control};
use quinn_proto::{Dir, Streams};

use crate::link::Machine;

impl Machine for Control {
    type Config = ClientControlConfig;
    type Report = ClientEvent;

    fn open(now: Instant, config: &Self::Config, streams: &mut Streams<'_>) -> Option<Self> {
        let control = streams.open(Dir::Uni)?;
        let request = streams.open(Dir::Bi)?;
        Some(Self::new(
            now,
            control.into(),
            request.into(),
            config.clone(),
        ))
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
