//! The outer congestion controller of the default mode: none, with a ceiling and a fuse.
//!
//! RFC 9484 §10 lets an endpoint disable congestion control for packets that carry only tunnelled
//! IP packets, because the inner flows control themselves; a second loop on top makes both worse.
//! What remains is a finite window, without which the table of packets in flight would grow
//! without bound on a dead path, and a circuit breaker (RFC 8084): when nothing but loss is
//! reported for a while, the window closes to a trickle until an acknowledgement comes.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

/// Builds [`Relay`] controllers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RelayFactory;

impl ControllerFactory for RelayFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Relay {
            mtu: u64::from(current_mtu),
            last_ack: now,
            broken: false,
        })
    }
}

#[derive(Clone, Debug)]
struct Relay {
    mtu: u64,
    last_ack: Instant,
    broken: bool,
}

impl Controller for Relay {
    fn on_ack(
        &mut self,
        now: Instant,
        _sent: Instant,
        _bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.last_ack = now;
        self.broken = false;
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        _lost_bytes: u64,
    ) {
        // An acknowledgement within the last second means that the path carries something; what
        // is lost beside it is the inner flows' business.
        if is_persistent_congestion && now.duration_since(self.last_ack) > DEAD_AFTER {
            self.broken = true;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.broken {
            TRICKLE_PACKETS * self.mtu
        } else {
            WINDOW
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// 32 MiB in flight: 2.5 Gbit/s over 100 ms, and a table of at most some 25,000 full packets.
const WINDOW: u64 = 32 * 1024 * 1024;
/// How long nothing must have been acknowledged before persistent congestion closes the window.
const DEAD_AFTER: Duration = Duration::from_secs(1);
/// What may be in flight on a path that seems dead: enough to notice that it lives again.
const TRICKLE_PACKETS: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(now: Instant) -> Relay {
        Relay {
            mtu: 1200,
            last_ack: now,
            broken: false,
        }
    }

    #[test]
    fn loss_beside_acknowledgements_leaves_the_window_open() {
        let now = Instant::now();
        let mut relay = relay(now);
        relay.on_congestion_event(now, now, true, 100_000);
        assert_eq!(relay.window(), WINDOW);
    }

    #[test]
    fn persistent_loss_without_acknowledgement_closes_the_window_to_a_trickle() {
        let now = Instant::now();
        let mut relay = relay(now);
        relay.on_congestion_event(now + Duration::from_secs(2), now, true, 100_000);
        assert_eq!(relay.window(), 4 * 1200);
        relay.on_mtu_update(1400);
        assert_eq!(relay.window(), 4 * 1400);
    }
}
