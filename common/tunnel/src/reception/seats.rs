//! How sessions are spread over the engines: a newcomer goes where the fewest are.
//!
//! Connection ids name the engine from the first answer on, long before anybody knows whether the
//! client will be admitted. So whoever shakes hands holds a seat already: many who come at once are
//! spread as well as many who come one by one.

use std::collections::BTreeMap;

use crate::links::Key;

/// Who is, or will be, on which engine.
#[derive(Debug)]
pub(super) struct Seats {
    /// By engine: sessions, and links at the front desk.
    taken: Vec<usize>,
    /// Links at the front desk.
    guests: BTreeMap<Key, u8>,
}

impl Seats {
    /// Nobody is on any of so many engines.
    pub(super) fn new(engines: u8) -> Self {
        Self {
            taken: vec![0; usize::from(engines.max(1))],
            guests: BTreeMap::new(),
        }
    }

    /// Every engine.
    pub(super) fn engines(&self) -> impl Iterator<Item = u8> + use<> {
        // Made from a `u8`.
        0..u8::try_from(self.taken.len()).unwrap_or(u8::MAX)
    }

    /// The engine with the fewest; of several, the first.
    pub(super) fn next(&self) -> u8 {
        self.engines()
            .min_by_key(|&engine| self.taken[usize::from(engine)])
            .unwrap_or(0)
    }

    /// Whether there is an engine of this number.
    pub(super) fn has(&self, engine: u8) -> bool {
        usize::from(engine) < self.taken.len()
    }

    /// The engine that a link at the front desk will be on.
    pub(super) fn of(&self, key: Key) -> Option<u8> {
        self.guests.get(&key).copied()
    }

    /// A link at the front desk holds a seat.
    pub(super) fn reserve(&mut self, key: Key, engine: u8) {
        self.taken[usize::from(engine)] += 1;
        self.guests.insert(key, engine);
    }

    /// The link becomes a session and keeps its seat: on which engine?
    pub(super) fn keep(&mut self, key: Key) -> u8 {
        self.guests.remove(&key).unwrap_or(0)
    }

    /// The link is gone without a session.
    pub(super) fn give_up(&mut self, key: Key) {
        if let Some(engine) = self.guests.remove(&key) {
            self.leave(engine);
        }
    }

    /// A session of the engine is over.
    pub(super) fn leave(&mut self, engine: u8) {
        if let Some(taken) = self.taken.get_mut(usize::from(engine)) {
            *taken = taken.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_goes_where_the_fewest_are() {
        let mut seats = Seats::new(3);
        let come = |seats: &mut Seats, key| {
            let engine = seats.next();
            seats.reserve(key, engine);
            engine
        };
        let first: Vec<u8> = (0..6).map(|key| come(&mut seats, key)).collect();
        assert_eq!(first, [0, 1, 2, 0, 1, 2]);
        // A session that ends and a handshake that fails leave a seat each; an admission none.
        assert_eq!(seats.keep(1), 1);
        assert_eq!(come(&mut seats, 6), 0);
        seats.leave(1);
        assert_eq!(come(&mut seats, 7), 1);
        seats.give_up(2);
        seats.give_up(2);
        assert_eq!(come(&mut seats, 8), 2);
        assert_eq!(come(&mut seats, 9), 1);
    }
}
