//! Which queue of a device the packets of an address go to.
//!
//! The kernel puts what it sends to an address into the queue that packets from there were last written to, and drops
//! what does not fit. So whoever is flooded fills one queue; this moves everybody else out of it.

use adit_core::fair;

use super::MAX_QUEUES;

/// Addresses share places, and a place is in a queue.
#[derive(Debug)]
pub(super) struct Steering {
    queue_of: [u8; PLACES],
    queues: Vec<Backlog>,
}

/// What was read of a queue since it was last empty.
#[derive(Clone, Copy, Debug, Default)]
struct Backlog {
    packets: u32,
    /// The place most of them were for (the majority vote of Boyer and Moore), and by how many.
    place: usize,
    lead: u32,
}

impl Steering {
    /// Between so many queues, [`MAX_QUEUES`] at most.
    pub(super) fn new(queues: usize) -> Self {
        let queues = queues.clamp(1, usize::from(MAX_QUEUES));
        Self {
            queue_of: std::array::from_fn(|place| (place % queues) as u8),
            queues: vec![Backlog::default(); queues],
        }
    }

    /// `packet` was read from `queue`: somebody's packet from inside.
    pub(super) fn read(&mut self, queue: usize, packet: &[u8]) {
        if self.has_no_choice() {
            return;
        }
        let place = place(address(packet, End::Destination));
        let backlog = &mut self.queues[queue];
        backlog.packets = backlog.packets.saturating_add(1);
        if backlog.place == place {
            backlog.lead = (backlog.lead + 1).min(MAX_LEAD);
        } else if backlog.lead == 0 {
            (backlog.place, backlog.lead) = (place, 1);
        } else {
            backlog.lead -= 1;
        }
    }

    /// `queue` was found empty.
    pub(super) fn empty(&mut self, queue: usize) {
        self.queues[queue] = Backlog::default();
    }

    /// The queue to write `packet` to, which comes from outside.
    pub(super) fn queue_for(&mut self, packet: &[u8]) -> usize {
        if self.has_no_choice() {
            return 0;
        }
        let place = place(address(packet, End::Source));
        let queue = usize::from(self.queue_of[place]);
        let backlog = self.queues[queue];
        if backlog.packets < LONG || backlog.place == place {
            return queue;
        }
        let shortest = (0..self.queues.len()).min_by_key(|&other| self.queues[other].packets);
        match shortest {
            Some(other) if self.queues[other].packets < LONG => {
                self.queue_of[place] = other as u8;
                other
            }
            Some(_) | None => queue,
        }
    }

    fn has_no_choice(&self) -> bool {
        self.queues.len() == 1
    }
}

#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

fn address(packet: &[u8], end: End) -> &[u8] {
    let (from, len) = match (packet.first().map(|first| first >> 4), end) {
        (Some(4), End::Source) => (12, 4),
        (Some(4), End::Destination) => (16, 4),
        (_, End::Source) => (8, 16),
        (_, End::Destination) => (24, 16),
    };
    packet.get(from..from + len).unwrap_or_default()
}

fn place(address: &[u8]) -> usize {
    // No seed: nobody chooses the address it is given.
    (fair::hash(0, address) >> (64 - PLACES.ilog2())) as usize
}

const PLACES: usize = 256;
/// So many packets without an end are more than a burst: a tenth of what a queue of the device holds.
const LONG: u32 = 200;
/// A flood that ended is forgotten after so many packets for others.
const MAX_LEAD: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: u8, destination: u8) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&[10, 99, 0, source]);
        packet[16..20].copy_from_slice(&[10, 99, 0, destination]);
        packet
    }

    /// Somebody whose packets go to the queue of another.
    fn neighbour(steering: &mut Steering, of: u8) -> u8 {
        let queue = steering.queue_for(&packet(of, 1));
        let shares = |other: &u8| {
            place(&[10, 99, 0, *other]) != place(&[10, 99, 0, of])
                && steering.queue_for(&packet(*other, 1)) == queue
        };
        (of + 1..=255).find(shares).expect("eight queues only")
    }

    #[test]
    fn whoever_shares_a_queue_with_a_flood_leaves_it() {
        let mut steering = Steering::new(8);
        let other = neighbour(&mut steering, 2);
        let queue = steering.queue_for(&packet(2, 1));
        for _ in 0..1000 {
            steering.read(queue, &packet(1, 2));
        }
        let new = steering.queue_for(&packet(other, 1));
        assert_ne!(new, queue);
        assert_eq!(steering.queue_for(&packet(2, 1)), queue, "the flood stays");
        steering.empty(queue);
        assert_eq!(
            steering.queue_for(&packet(other, 1)),
            new,
            "and so do others"
        );
    }

    #[test]
    fn a_burst_moves_nobody() {
        let mut steering = Steering::new(8);
        let other = neighbour(&mut steering, 2);
        let queue = steering.queue_for(&packet(2, 1));
        for _ in 0..100 {
            (0..150).for_each(|_| steering.read(queue, &packet(1, 2)));
            steering.empty(queue);
        }
        assert_eq!(steering.queue_for(&packet(other, 1)), queue);
    }

    #[test]
    fn two_floods_of_one_queue_part() {
        let mut steering = Steering::new(2);
        let other = neighbour(&mut steering, 2);
        let queue = steering.queue_for(&packet(2, 1));
        for _ in 0..1000 {
            steering.read(queue, &packet(1, 2));
            steering.read(queue, &packet(1, other));
        }
        let queues = [2, other].map(|from| steering.queue_for(&packet(from, 1)));
        assert_ne!(queues[0], queues[1]);
    }

    #[test]
    fn where_every_queue_is_flooded_nobody_moves() {
        let mut steering = Steering::new(2);
        let other = neighbour(&mut steering, 2);
        let queue = steering.queue_for(&packet(2, 1));
        for _ in 0..1000 {
            steering.read(0, &packet(1, 2));
            steering.read(1, &packet(1, 2));
        }
        assert_eq!(steering.queue_for(&packet(other, 1)), queue);
    }

    #[test]
    fn any_bytes_have_a_queue() {
        let mut steering = Steering::new(3);
        for bytes in [&[][..], &[0x45], &[0x60; 30], &[0xff; 64]] {
            steering.read(1, bytes);
            assert!(steering.queue_for(bytes) < 3);
        }
    }
}
