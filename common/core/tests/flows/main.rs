//! The flow table as its users see it: against a naive model, and against people who mean it ill.

#![allow(clippy::unwrap_used, clippy::unwrap_in_result, unreachable_pub)]

mod hostile;
mod life;
mod model;
mod packets;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_core::flow::{FlowReport, FlowTable, HashKey, Passage, Refused};
use adit_core::policy::{Decision, Direction, Flow, RuleId};
use adit_core::wire::ip::IpPacket;

pub const FROM_CLIENT: Direction = Direction::FromClient;
pub const TO_CLIENT: Direction = Direction::ToClient;

/// A table, its clock and what has passed.
pub struct Session {
    pub table: FlowTable,
    pub now: Instant,
}

impl Session {
    /// A session that has just begun.
    pub fn beginning() -> Self {
        let now = Instant::now();
        let words = std::array::from_fn(|at| (at as u128 + 1).wrapping_mul(SPREAD));
        Self {
            table: FlowTable::new(now, HashKey::new(words)),
            now,
        }
    }

    /// A session that has begun long ago: nothing is taken up any more.
    pub fn settled() -> Self {
        let mut session = Self::beginning();
        session.wait(1000);
        session
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Judges a packet, and counts it when it passes.
    pub fn judge(
        &mut self,
        filter: impl Fn(&Flow) -> Decision,
        direction: Direction,
        bytes: &[u8],
    ) -> Result<Passage, Refused> {
        let packet = IpPacket::parse(bytes).unwrap();
        let passage = self.table.judge(self.now, &filter, direction, &packet)?;
        self.table.count(passage, direction, 1, bytes.len());
        Ok(passage)
    }

    /// The live flow between these ends, as it is shown to an operator.
    pub fn flow(
        &self,
        protocol: u8,
        client: (IpAddr, u16),
        far: (IpAddr, u16),
    ) -> Option<FlowReport> {
        let ends = (protocol, client, far);
        let mut flows = self.table.iter(self.now);
        flows.find(|flow| (flow.protocol, flow.client, flow.far) == ends)
    }
}

pub const RULE: RuleId = RuleId { index: 3, line: 30 };

/// The client may begin anything, nobody else may.
pub fn outgoing(flow: &Flow) -> Decision {
    match flow.direction {
        Direction::FromClient => Decision::Allow(RULE),
        Direction::ToClient => Decision::Deny(None),
    }
}

pub fn anything(_: &Flow) -> Decision {
    Decision::Allow(RULE)
}

pub fn nothing(_: &Flow) -> Decision {
    Decision::Deny(None)
}

/// Any large odd number with bits everywhere.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
