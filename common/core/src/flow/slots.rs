//! The flows of a session: found by hash, in lists by phase, the longest silent first.
//!
//! One vector without holes, so that memory goes back when flows end: the last flow moves into the
//! place of the one that goes. Everything takes the same time however many flows there are.

use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::Volume;
use super::key::{HashKey, Key};
use super::phase::{Phase, Progress};

/// One flow.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    /// Different from that of every flow before and after, in this table.
    pub(super) serial: u64,
    pub(super) volumes: [Volume; 2],
    /// The place of the rule that allows it.
    pub(super) rule: u32,
    /// The filter that has judged it last.
    pub(super) generation: u32,
    /// The second of its last packet.
    pub(super) used: u32,
    pub(super) progress: Progress,
    /// Neighbours in the list of its phase: used before and after it.
    before: u32,
    after: u32,
}

impl Slot {
    pub(super) fn new(
        key: Key,
        serial: u64,
        rule: u32,
        generation: u32,
        now: u32,
        progress: Progress,
    ) -> Self {
        Self {
            key,
            serial,
            volumes: [Volume::default(); 2],
            rule,
            generation,
            used: now,
            progress,
            before: NONE,
            after: NONE,
        }
    }

    pub(super) fn has_expired(&self, now: u32) -> bool {
        u64::from(self.used) + self.progress.phase.timeout().as_secs() <= u64::from(now)
    }
}

#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    places: HashTable<u32>,
    hash: HashKey,
    lists: [List; Phase::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct List {
    /// The longest silent.
    first: u32,
    last: u32,
}

impl Slots {
    pub(super) fn new(hash: HashKey) -> Self {
        let empty = List {
            first: NONE,
            last: NONE,
        };
        Self {
            slots: Vec::new(),
            places: HashTable::new(),
            hash,
            lists: [empty; Phase::ALL.len()],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Where the flow of this name is; `guess` is looked at first.
    pub(super) fn find(&self, key: &Key, guess: u32) -> Option<u32> {
        if self
            .slots
            .get(guess as usize)
            .is_some_and(|slot| slot.key == *key)
        {
            return Some(guess);
        }
        if self.slots.is_empty() {
            return None;
        }
        let same = |&at: &u32| self.slots[at as usize].key == *key;
        self.places.find(self.hash.hash(key), same).copied()
    }

    pub(super) fn get(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// Adds a flow whose name is new.
    pub(super) fn insert(&mut self, slot: Slot) -> u32 {
        let at = self.slots.len() as u32;
        let (slots, hash) = (&self.slots, &self.hash);
        self.places.insert_unique(hash.hash(&slot.key), at, |&at| {
            hash.hash(&slots[at as usize].key)
        });
        self.slots.push(slot);
        self.link(at);
        at
    }

    pub(super) fn remove(&mut self, at: u32) -> Slot {
        self.unlink(at);
        self.forget(at);
        let last = self.slots.len() as u32 - 1;
        if at != last {
            let moved = &self.slots[last as usize];
            let hash = self.hash.hash(&moved.key);
            if let Some(place) = self.places.find_mut(hash, |&place| place == last) {
                *place = at;
            }
            self.rejoin(last, at);
        }
        self.slots.swap_remove(at as usize)
    }

    /// The flow was used, and may be in another phase than `before`.
    pub(super) fn touch(&mut self, at: u32, before: Phase, now: u32) {
        let slot = &mut self.slots[at as usize];
        if slot.used == now && slot.progress.phase == before {
            return;
        }
        slot.used = now;
        self.unlink_from(at, before);
        self.link(at);
    }

    /// The one that was silent for longest in this phase.
    pub(super) fn oldest(&self, phase: Phase) -> Option<u32> {
        match self.lists[phase as usize].first {
            NONE => None,
            first => Some(first),
        }
    }

    /// Gives memory back that is far more than what is needed.
    pub(super) fn shrink(&mut self) {
        let needed = self.slots.len() * 2;
        if self.slots.capacity() > needed * 2 {
            self.slots.shrink_to(needed);
            let (slots, hash) = (&self.slots, &self.hash);
            self.places
                .shrink_to(needed, |&at| hash.hash(&slots[at as usize].key));
        }
    }

    /// For how many flows there is memory.
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity().max(self.places.capacity())
    }

    fn forget(&mut self, at: u32) {
        let hash = self.hash.hash(&self.slots[at as usize].key);
        if let Ok(entry) = self.places.find_entry(hash, |&place| place == at) {
            entry.remove();
        }
    }

    /// Appends to the list of its phase.
    fn link(&mut self, at: u32) {
        let phase = self.slots[at as usize].progress.phase;
        let last = self.lists[phase as usize].last;
        let slot = &mut self.slots[at as usize];
        (slot.before, slot.after) = (last, NONE);
        self.rejoin(at, at);
    }

    fn unlink(&mut self, at: u32) {
        self.unlink_from(at, self.slots[at as usize].progress.phase);
    }

    fn unlink_from(&mut self, at: u32, phase: Phase) {
        let Slot { before, after, .. } = self.slots[at as usize];
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = after,
            None => self.lists[phase as usize].first = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(slot) => slot.before = before,
            None => self.lists[phase as usize].last = before,
        }
    }

    /// Makes the neighbours of the flow at `from` know it at `at`.
    fn rejoin(&mut self, from: u32, at: u32) {
        let Slot {
            before,
            after,
            progress,
            ..
        } = self.slots[from as usize];
        let list = &mut self.lists[progress.phase as usize];
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = at,
            None => list.first = at,
        }
        match self.slots.get_mut(after as usize) {
            Some(slot) => slot.before = at,
            None => list.last = at,
        }
    }
}

impl Index<u32> for Slots {
    type Output = Slot;

    fn index(&self, at: u32) -> &Slot {
        &self.slots[at as usize]
    }
}

impl IndexMut<u32> for Slots {
    fn index_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[at as usize]
    }
}

/// No neighbour: no table has as many flows.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::flow::key::Part;
    use crate::policy::Direction;
    use crate::wire::ip::UDP;

    fn key(port: u16) -> Key {
        let (client, far) = ("10.99.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
        Key::new(UDP, (client, port), (far, 53), None)
    }

    fn slot(port: u16, phase: Phase, now: u32) -> Slot {
        let mut progress = Progress::new(Direction::FromClient, Part::Datagram);
        progress.phase = phase;
        Slot::new(key(port), port.into(), 0, 0, now, progress)
    }

    proptest! {
        /// A port, and the phase it comes into; none for one that goes.
        #[test]
        fn the_lists_are_in_the_order_of_use_whatever_comes_moves_and_goes(
            steps in vec((0..20u16, prop::option::of(0..3usize)), 1..200),
        ) {
            let mut slots = Slots::new(HashKey::new([3; 6]));
            // Ports by phase, the oldest first.
            let mut model: [Vec<u16>; 3] = Default::default();
            for (now, (port, into)) in steps.into_iter().enumerate() {
                let now = now as u32 + 1;
                let at = slots.find(&key(port), 0);
                prop_assert_eq!(at.is_some(), model.iter().any(|list| list.contains(&port)));
                model.iter_mut().for_each(|list| list.retain(|&other| other != port));
                match (at, into) {
                    (Some(at), Some(phase)) => {
                        let before = slots[at].progress.phase;
                        slots[at].progress.phase = Phase::ALL[phase];
                        slots.touch(at, before, now);
                    }
                    (None, Some(phase)) => {
                        slots.insert(slot(port, Phase::ALL[phase], now));
                    }
                    (Some(at), None) => prop_assert_eq!(slots.remove(at).key, key(port)),
                    (None, None) => {}
                }
                if let Some(phase) = into {
                    model[phase].push(port);
                }
                if now.is_multiple_of(16) {
                    slots.shrink();
                }
                for (phase, ports) in model.iter().enumerate() {
                    let mut found = Vec::new();
                    let mut next = slots.oldest(Phase::ALL[phase]);
                    while let Some(slot) = next.and_then(|at| slots.get(at)) {
                        found.push(slot.key.client_port());
                        next = Some(slot.after);
                    }
                    prop_assert_eq!(&found, ports);
                }
                prop_assert_eq!(slots.len(), model.iter().map(Vec::len).sum::<usize>());
            }
        }
    }
}
