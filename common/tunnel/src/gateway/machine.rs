//! The gateway's control machine on a link.

use std::time::Instant;

use adit_core::session::Action;
use adit_core::session::gateway::{Control, GatewayControlConfig, GatewayEvent};
use quinn_proto::{Connection, Dir};

use crate::link::{Machine, forward_to_control};

impl Machine for Control {
    type Config = GatewayControlConfig;
    type Report = GatewayEvent;

    fn open(now: Instant, config: &Self::Config, connection: &mut Connection) -> Option<Self> {
        let control = connection.streams().open(Dir::Uni)?;
        Some(Self::new(now, control.into(), config.clone()))
    }

    forward_to_control!();

    fn poll_report(&mut self) -> Option<GatewayEvent> {
        Self::poll_event(self)
    }
}
