//! On bad paths nobody knows what arrives: whatever does is looked at, whether it was allowed on its way.

use std::time::{Duration, Instant};

use adit_core::policy::Direction;

use super::oracle::{access, allows, ends};
use super::packet::{Packet, number};
use super::{Life, Sent};

impl Life {
    /// Runs on, and looks at everything that the gateway let pass meanwhile.
    pub fn pass_looking(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            let from = self.world.now;
            // Up to the moment before a boundary, then across it.
            let rest = self.until_boundary();
            let step = match rest.checked_sub(Duration::from_micros(1)) {
                Some(before) if !before.is_zero() => before,
                _ => rest,
            };
            self.run_world_to(end.min(from + step));
            self.on_the_way.clear();
            self.look(from);
        }
    }

    /// What arrived since `from` was allowed on its way.
    pub fn look(&mut self, from: Instant) {
        let now = self.world.now;
        for bytes in std::mem::take(&mut self.world.office) {
            let Some(number) = number(&bytes) else {
                continue;
            };
            let Sent { by, packet, .. } = self.sent[&number];
            let by = by.unwrap();
            let permitted = [from, now]
                .iter()
                .any(|&at| self.permits(at, by, Direction::FromClient, &packet));
            assert!(permitted, "{}: {by} got out {packet:?}", self.moment());
        }
        for (&to, &client) in &self.clients {
            for bytes in std::mem::take(&mut self.world.clients[client].received) {
                let Some(number) = number(&bytes) else {
                    continue;
                };
                let Sent { at, by, packet } = self.sent[&number];
                // One from inside was judged when it was sent, one from a client at some time since.
                let step = Duration::from_secs(1);
                let times = std::iter::successors(Some(at), |&at| (at < now).then(|| at + step));
                let reloads = self.history.iter().map(|(at, _)| *at);
                let reloads = reloads.filter(|&reload| reload > at && reload <= now);
                let permitted = times.chain(reloads).chain([now]).any(|at| {
                    self.permits(at, to, Direction::ToClient, &packet)
                        && by.is_none_or(|by| self.permits(at, by, Direction::FromClient, &packet))
                });
                assert!(
                    permitted,
                    "{}: {to} got {packet:?} of {by:?}",
                    self.moment()
                );
            }
        }
    }

    /// Whether a packet could pass at that time: it may begin its flow, or the other side may, and has.
    fn permits(&self, at: Instant, who: &str, direction: Direction, packet: &Packet) -> bool {
        let mut policies = self.history.iter().rev();
        let (_, policy) = policies.find(|(began, _)| *began <= at).unwrap();
        let Ok(access) = access(policy, &self.oracle.epoch, who, at) else {
            return false;
        };
        let other = match direction {
            Direction::FromClient => Direction::ToClient,
            Direction::ToClient => Direction::FromClient,
        };
        let asked = |sent: &Sent| {
            sent.at <= at
                && sent.packet.protocol() == packet.protocol()
                && ends(other, &sent.packet) == ends(direction, packet)
        };
        // A connection of an earlier session goes on by a segment of either side.
        let is_segment = packet.flags().is_some();
        allows(&access.filter, direction, direction, packet)
            || allows(&access.filter, other, direction, packet)
                && (is_segment || self.sent.values().any(asked))
    }
}
