//! Who is served next when there is more than can be done: every session its share, every flow of a
//! session its share of that, and what is sparse before what is bulky.
//!
//! Deficit round robin on two levels (RFC 8290 §4, whose flow queues this follows): lanes are served
//! in turn, 64 KiB each; a lane that was empty goes before those that have a backlog. When
//! the queue is full, the longest flow of the longest session loses its oldest item: whoever floods
//! pays for it. Order within a flow is kept.
//!
//! Sessions and flows are told apart by hashes. Two that share a lane share its turn, nothing else.

use std::collections::VecDeque;

/// Which lane an item belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// A hash of the session.
    pub session: u64,
    /// A hash of the flow within it.
    pub flow: u64,
}

/// Items in lanes, with their sizes in bytes.
#[derive(Debug)]
pub struct FairQueue<T> {
    sessions: Robin<Robin<Fifo<T>>>,
    limit: usize,
}

impl<T> FairQueue<T> {
    /// An empty queue for at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            sessions: Robin::new(SESSIONS, || Robin::new(FLOWS, Fifo::default)),
            limit,
        }
    }

    /// Takes an item of `bytes` bytes; returns how many had to go for it.
    pub fn push(&mut self, lane: Lane, bytes: usize, item: T) -> usize {
        self.sessions.enter(
            lane.session,
            |flows| {
                flows.enter(lane.flow, |fifo| fifo.push(bytes, item), bytes);
            },
            bytes,
        );
        let mut dropped = 0;
        while self.sessions.bytes() > self.limit && self.sessions.drop_oldest() > 0 {
            dropped += 1;
        }
        dropped
    }

    /// The next item in turn.
    pub fn pop(&mut self) -> Option<T> {
        self.sessions.pop().map(|(_, item)| item)
    }

    /// Bytes of all items.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sessions.bytes()
    }

    /// Whether more than one session or flow waits: then it matters who is served, and who loses.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        self.sessions.active() > 1
            || self
                .sessions
                .first()
                .is_some_and(|flows| flows.active() > 1)
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.bytes() == 0
    }
}

/// The lane of an inside packet, by addresses, protocol and ports; `seed` keeps others from choosing
/// whose lane they share. Of the two addresses `of` says which is the session's.
#[must_use]
pub fn lane_of(packet: &[u8], of: SessionAddress, seed: u64) -> Lane {
    let (addresses, protocol, transport): (&[u8], u8, usize) = match packet.first().map(|b| b >> 4)
    {
        Some(4) if packet.len() >= 20 => (
            &packet[12..20],
            packet[9],
            // Only the first part of a fragmented packet has ports: by addresses alone they stay together.
            if packet[6] & 0x3f == 0 && packet[7] == 0 {
                usize::from(packet[0] & 0x0f) * 4
            } else {
                packet.len()
            },
        ),
        Some(6) if packet.len() >= 40 => (&packet[8..40], packet[6], 40),
        _ => return Lane::default(),
    };
    let ports = match protocol {
        6 | 17 => packet.get(transport..transport + 4).unwrap_or_default(),
        _ => &[],
    };
    let session = match of {
        SessionAddress::Destination => hash(seed, &addresses[addresses.len() / 2..]),
        SessionAddress::Either => 0,
    };
    Lane {
        session,
        flow: hash(hash(seed ^ u64::from(protocol), addresses), ports),
    }
}

/// Which address of a packet names its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAddress {
    /// The gateway's packets from inside go to a session.
    Destination,
    /// A client has one session.
    Either,
}

/// Mixes bytes into a hash that nobody without the seed can aim at.
#[must_use]
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words
        .iter()
        .chain(std::iter::once(&last))
        .fold(seed, |hash, word| {
            let mixed =
                u128::from(hash ^ u64::from(u32::from_ne_bytes(*word))) * u128::from(MULTIPLIER);
            (mixed as u64) ^ (mixed >> 64) as u64
        })
}

/// What lanes are made of: items, or lanes again.
trait Queue {
    type Item;
    fn bytes(&self) -> usize;
    fn pop(&mut self) -> Option<(usize, Self::Item)>;
    /// Drops the oldest item of the longest lane; returns its bytes, 0 when there is none.
    fn drop_oldest(&mut self) -> usize;
}

#[derive(Debug)]
struct Fifo<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Fifo<T> {
    fn push(&mut self, bytes: usize, item: T) {
        self.bytes += bytes;
        self.items.push_back((bytes, item));
    }
}

impl<T> Queue for Fifo<T> {
    type Item = T;

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn pop(&mut self) -> Option<(usize, T)> {
        let (bytes, item) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some((bytes, item))
    }

    fn drop_oldest(&mut self) -> usize {
        self.pop().map_or(0, |(bytes, _)| bytes)
    }
}

/// Lanes that are served in turn.
#[derive(Debug)]
struct Robin<Q> {
    lanes: Vec<RobinLane<Q>>,
    /// Lanes that were empty a moment ago, then those with a backlog.
    sparse: VecDeque<usize>,
    bulky: VecDeque<usize>,
    bytes: usize,
}

#[derive(Debug)]
struct RobinLane<Q> {
    queue: Q,
    /// Bytes it may still take in this turn.
    deficit: usize,
    listed: bool,
}

impl<Q: Queue> Robin<Q> {
    fn new(lanes: usize, queue: impl Fn() -> Q) -> Self {
        let lane = |_| RobinLane {
            queue: queue(),
            deficit: 0,
            listed: false,
        };
        Self {
            lanes: (0..lanes).map(lane).collect(),
            sparse: VecDeque::new(),
            bulky: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Lanes that have something, or had a moment ago.
    fn active(&self) -> usize {
        self.sparse.len() + self.bulky.len()
    }

    fn first(&self) -> Option<&Q> {
        let at = self.sparse.front().or_else(|| self.bulky.front())?;
        self.lanes.get(*at).map(|lane| &lane.queue)
    }

    fn enter(&mut self, hash: u64, push: impl FnOnce(&mut Q), bytes: usize) {
        let at = (hash % self.lanes.len() as u64) as usize;
        let lane = &mut self.lanes[at];
        push(&mut lane.queue);
        self.bytes += bytes;
        if !lane.listed {
            lane.listed = true;
            lane.deficit = QUANTUM;
            self.sparse.push_back(at);
        }
    }
}

impl<Q: Queue> Queue for Robin<Q> {
    type Item = Q::Item;

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn pop(&mut self) -> Option<(usize, Q::Item)> {
        loop {
            let (at, was_sparse) = match self.sparse.front() {
                Some(&at) => (at, true),
                None => (*self.bulky.front()?, false),
            };
            let lane = &mut self.lanes[at];
            let list = if was_sparse {
                &mut self.sparse
            } else {
                &mut self.bulky
            };
            if lane.deficit == 0 {
                lane.deficit = QUANTUM;
                list.pop_front();
                self.bulky.push_back(at);
                continue;
            }
            match lane.queue.pop() {
                Some((bytes, item)) => {
                    lane.deficit = lane.deficit.saturating_sub(bytes);
                    self.bytes -= bytes;
                    return Some((bytes, item));
                }
                None => {
                    list.pop_front();
                    // One more round among the bulky, or whoever sends one packet at a time would
                    // always go first (RFC 8290 §4.2).
                    if was_sparse && !self.bulky.is_empty() {
                        self.bulky.push_back(at);
                    } else {
                        lane.listed = false;
                    }
                }
            }
        }
    }

    fn drop_oldest(&mut self) -> usize {
        let longest = self.lanes.iter_mut().max_by_key(|lane| lane.queue.bytes());
        let dropped = longest.map_or(0, |lane| lane.queue.drop_oldest());
        self.bytes -= dropped;
        dropped
    }
}

/// The golden ratio, whose bits have no pattern.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Lanes of sessions: a thousand busy ones share each with three others.
const SESSIONS: usize = 256;
/// Lanes of a session's flows.
const FLOWS: usize = 16;
/// What a lane may take in its turn: one packet of 64 KiB from the device, or one batch from the socket.
const QUANTUM: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(session: u64, flow: u64) -> Lane {
        Lane { session, flow }
    }

    #[test]
    fn a_flood_takes_no_more_than_its_share() {
        let mut queue = FairQueue::new(usize::MAX);
        for n in 0..1000 {
            queue.push(lane(1, 0), 1400, ("flood", n));
        }
        for n in 0..100 {
            queue.push(lane(2, 0), 1400, ("calm", n));
        }
        let first: Vec<_> = (0..200).filter_map(|_| queue.pop()).collect();
        let calm = first.iter().filter(|(who, _)| *who == "calm").count();
        assert!((90..=100).contains(&calm), "{calm} of 200");
    }

    #[test]
    fn a_session_with_many_flows_gets_one_share() {
        let mut queue = FairQueue::new(usize::MAX);
        for n in 0..1600 {
            queue.push(lane(1, n % 16), 1400, "many");
            queue.push(lane(2, 0), 1400, "one");
        }
        let first: Vec<_> = (0..400).filter_map(|_| queue.pop()).collect();
        let one = first.iter().filter(|who| **who == "one").count();
        assert!((150..=250).contains(&one), "{one} of 400");
    }

    #[test]
    fn a_lone_packet_goes_before_the_backlog_of_its_session() {
        let mut queue = FairQueue::new(usize::MAX);
        for _ in 0..100 {
            queue.push(lane(1, 0), 64_000, "bulk");
        }
        for _ in 0..5 {
            queue.pop();
        }
        queue.push(lane(1, 1), 84, "ping");
        let waited = std::iter::from_fn(|| queue.pop())
            .position(|item| item == "ping")
            .unwrap();
        assert!(waited <= 2, "{waited} packets before it");
    }

    #[test]
    fn a_single_flow_is_no_contention_and_two_are() {
        for second in [lane(1, 1), lane(2, 0)] {
            let mut queue = FairQueue::new(usize::MAX);
            assert!(!queue.is_contended());
            queue.push(lane(1, 0), 1400, 0);
            queue.push(lane(1, 0), 1400, 1);
            assert!(!queue.is_contended());
            queue.push(second, 84, 2);
            assert!(queue.is_contended());
        }
    }

    #[test]
    fn order_within_a_flow_is_kept_and_nothing_is_lost_below_the_limit() {
        let mut queue = FairQueue::new(usize::MAX);
        for n in 0..10_000u64 {
            assert_eq!(
                queue.push(lane(n % 3, n % 7), 100 + n as usize % 60_000, n),
                0
            );
        }
        let mut last = std::collections::BTreeMap::new();
        let mut count = 0;
        while let Some(n) = queue.pop() {
            count += 1;
            assert!(
                last.insert((n % 3, n % 7), n)
                    .is_none_or(|before| before < n)
            );
        }
        assert_eq!((count, queue.bytes(), queue.is_empty()), (10_000, 0, true));
    }

    #[test]
    fn when_it_is_full_the_longest_flow_of_the_longest_session_pays() {
        let mut queue = FairQueue::new(100_000);
        for _ in 0..10 {
            queue.push(lane(1, 0), 1000, "calm");
        }
        let mut dropped = 0;
        for n in 0..1000 {
            dropped += queue.push(lane(2, n % 2), 1000, "flood");
        }
        assert_eq!(dropped, 1000 - 90);
        assert!(queue.bytes() <= 100_000);
        let left: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(left.iter().filter(|who| **who == "calm").count(), 10);
    }

    #[test]
    fn packets_of_a_flow_share_a_lane_and_sessions_are_told_by_their_address() {
        let packet = |to: u8, port: u8, fragment: u8| {
            let mut packet = [0u8; 28];
            packet[0] = 0x45;
            packet[7] = fragment;
            packet[9] = 17;
            packet[19] = to;
            packet[23] = port;
            packet
        };
        let lane = |packet: [u8; 28]| lane_of(&packet, SessionAddress::Destination, 7);
        assert_eq!(lane(packet(1, 53, 0)), lane(packet(1, 53, 0)));
        assert_ne!(lane(packet(1, 53, 0)).flow, lane(packet(1, 54, 0)).flow);
        assert_eq!(
            lane(packet(1, 53, 0)).session,
            lane(packet(1, 54, 0)).session
        );
        assert_ne!(
            lane(packet(1, 53, 0)).session,
            lane(packet(2, 53, 0)).session
        );
        assert_eq!(lane(packet(1, 53, 9)), lane(packet(1, 54, 9)), "fragments");
        assert_eq!(lane_of(&[], SessionAddress::Either, 7), Lane::default());
    }
}
