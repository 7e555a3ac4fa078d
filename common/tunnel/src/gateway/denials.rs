//! Packets that the policy denies, told to the control plane: never one by one.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Gateway, GatewayEvent, Session};
use crate::links::Key;

impl Gateway {
    /// Tells what is due.
    pub(super) fn tell_denials(&mut self, now: Instant) {
        while let Some(&(due, key)) = self.denials.first() {
            if due > now {
                break;
            }
            self.denials.pop_first();
            let remote = self.remote(key);
            if let Some(session) = self.sessions.get_mut(key).and_then(Option::as_mut) {
                self.events.extend(event(session, now, remote));
            }
        }
    }

    /// Tells what is left of a session that ends.
    pub(super) fn tell_last_denials(&mut self, key: Key, session: &mut Session) {
        if let Some(due) = session.denials.due() {
            self.denials.remove(&(due, key));
            let remote = self.remote(key);
            self.events.extend(event(session, due, remote));
        }
    }
}

fn event(session: &mut Session, now: Instant, remote: SocketAddr) -> Option<GatewayEvent> {
    let denied = session.denials.take(now)?;
    let session = session.info(remote);
    Some(GatewayEvent::Denied { session, denied })
}
