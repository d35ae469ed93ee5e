//! The memory of the check that the system comes to rest.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

const SHARDS: usize = 64;

/// The states that are known to come to an end, by their hash.
pub struct KnownEnds {
    good: [Mutex<HashSet<u64>>; SHARDS],
}

impl Default for KnownEnds {
    fn default() -> Self {
        Self {
            good: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl KnownEnds {
    /// Returns the set in which the state with this hash is, if its end is known.
    pub(super) fn shard(&self, hash: u64) -> MutexGuard<'_, HashSet<u64>> {
        let shard = (hash % SHARDS as u64) as usize;
        self.good[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
