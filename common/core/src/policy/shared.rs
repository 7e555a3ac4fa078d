//! Filters in use, one for each set of rules.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::filter::Filter;

/// Gives identities with the same rules the same filter, while somebody holds it.
#[derive(Debug, Default)]
pub(super) struct SharedFilters(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    filters: BTreeMap<Arc<[u32]>, Weak<Filter>>,
    /// How many are known when those that nobody holds are next looked for.
    clean_at: usize,
}

impl SharedFilters {
    /// The filter of `rules`, which `compile` makes if nobody holds it.
    pub(super) fn get(&self, rules: &[u32], compile: impl FnOnce() -> Filter) -> Arc<Filter> {
        if let Some(filter) = self.lock(|known| known.filters.get(rules).and_then(Weak::upgrade)) {
            return filter;
        }
        // Outside the lock: a large filter takes milliseconds.
        let made = Arc::new(compile());
        self.lock(|known| {
            if let Some(filter) = known.filters.get(rules).and_then(Weak::upgrade) {
                return filter;
            }
            // Twice as many as were in use: each look is paid for by as many that came.
            if known.filters.len() >= known.clean_at {
                known.filters.retain(|_, filter| filter.strong_count() > 0);
                known.clean_at = (2 * known.filters.len()).max(MIN_CLEAN);
            }
            known.filters.insert(rules.into(), Arc::downgrade(&made));
            made
        })
    }

    fn lock<T>(&self, action: impl FnOnce(&mut Known) -> T) -> T {
        // A filter is inserted whole or not at all: a poisoned lock still guards a sound map.
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Below this it is not worth looking.
const MIN_CLEAN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::networks::Networks;

    #[test]
    fn what_nobody_holds_is_forgotten_and_what_somebody_holds_is_shared() {
        let shared = SharedFilters::default();
        let empty = || Filter::new(Vec::new(), &Networks::default());
        let held = shared.get(&[7], empty);
        for n in 0..10_000 {
            shared.get(&[8, n], empty);
        }
        let same = shared.get(&[7], || panic!("it is known"));
        assert!(Arc::ptr_eq(&held, &same));
        assert!(shared.lock(|known| known.filters.len()) <= 2 * MIN_CLEAN);
    }
}
