//! A certificate to follow the present one, asked for within the session.

use std::time::Instant;

use quinn_proto::Dir;

use super::{Client, Phase};

impl Client {
    /// Asks the gateway for a certificate; says whether it can be asked now: there is a session, and
    /// nothing asked that is not answered. [`ClientEvent::Certificate`](super::ClientEvent::Certificate)
    /// tells what became of it, unless the session ends before.
    pub fn ask_certificate(&mut self, now: Instant, request: Vec<u8>) -> bool {
        let Phase::Up(tunnel) = &self.phase else {
            return false;
        };
        let Some(link) = self.links.touch(tunnel.key) else {
            return false;
        };
        let Some(machine) = link
            .machine
            .as_mut()
            .filter(|machine| machine.can_ask_certificate())
        else {
            return false;
        };
        let Some(stream) = link.connection.streams().open(Dir::Bi) else {
            return false;
        };
        machine.ask_certificate(now, stream.into(), request)
    }
}
