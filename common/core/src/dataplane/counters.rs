//! What passed and what did not, per session.

use std::collections::BTreeMap;

use super::DropReason;

/// Counters of one session, or of many together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets from the client into the tunnel.
    pub from_client: DirectionCounters,
    /// Packets through the tunnel to the client.
    pub to_client: DirectionCounters,
}

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    packets_in: u64,
    forwarded: u64,
    forwarded_bytes: u64,
    replied: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Adds the counts of an ended session.
    pub fn add(&mut self, other: &Self) {
        self.from_client.add(&other.from_client);
        self.to_client.add(&other.to_client);
    }

    /// The drops of both directions by name; reasons that did not occur are left out.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<String, u64> {
        DropReason::ALL
            .iter()
            .map(|&reason| {
                let count = self.from_client.dropped(reason) + self.to_client.dropped(reason);
                (reason.name().to_owned(), count)
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl DirectionCounters {
    /// A packet of `bytes` went on.
    pub fn forward(&mut self, bytes: usize) {
        self.packets_in += 1;
        self.forwarded += 1;
        self.forwarded_bytes += bytes as u64;
    }

    /// A packet was answered.
    pub fn reply(&mut self) {
        self.packets_in += 1;
        self.replied += 1;
    }

    /// A packet was dropped.
    pub fn drop(&mut self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    /// So many packets were dropped.
    pub fn drop_many(&mut self, reason: DropReason, packets: usize) {
        self.packets_in += packets as u64;
        self.dropped[reason as usize] += packets as u64;
    }

    /// Packets that went on.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.forwarded
    }

    /// Bytes of the packets that went on.
    #[must_use]
    pub fn forwarded_bytes(&self) -> u64 {
        self.forwarded_bytes
    }

    /// Packets that were answered with ICMP.
    #[must_use]
    pub fn replied(&self) -> u64 {
        self.replied
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Packets that came in.
    #[must_use]
    pub fn packets_in(&self) -> u64 {
        self.packets_in
    }

    /// Whether every packet that came in is accounted for.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.packets_in == self.forwarded + self.replied + self.dropped.iter().sum::<u64>()
    }

    fn add(&mut self, other: &Self) {
        self.packets_in += other.packets_in;
        self.forwarded += other.forwarded;
        self.forwarded_bytes += other.forwarded_bytes;
        self.replied += other.replied;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_counted_balances_and_adds_up() {
        let mut counters = Counters::default();
        counters.from_client.forward(100);
        counters.from_client.reply();
        counters.to_client.drop(DropReason::TooBig);
        let mut total = counters.clone();
        total.add(&counters);
        assert!(total.from_client.balances() && total.to_client.balances());
        assert_eq!(total.from_client.forwarded_bytes(), 200);
        assert_eq!(total.drops(), [("too-big".to_owned(), 2)].into());
    }
}
