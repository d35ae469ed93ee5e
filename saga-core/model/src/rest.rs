//! Checks that the system comes to rest, and that the saga has then ended or parked.
//!
//! From every state that the exploration reaches, the check follows *every* path on which the system can go on without
//! further trouble. If a path stops where the saga has neither ended nor parked, the saga is stuck. If a path returns
//! to one of its own states, it never stops. States that are known to come to an end are remembered, so each is
//! followed once.

use crate::world::{System, World};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The outcome of a path without further trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoesOn {
    ToAnEnd,
    /// Nothing can happen any more, and the saga has neither ended nor parked.
    ToAStandstill,
    ForEver,
}

impl System {
    pub fn goes_on(&self, world: &World) -> GoesOn {
        self.follow(world, &mut Vec::new())
    }

    /// Follows the paths from `world`. `path` holds the hashes of the states between the first state and this one.
    fn follow(&self, world: &World, path: &mut Vec<u64>) -> GoesOn {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        let hash = hasher.finish();
        if self.known_ends.shard(hash).contains(&hash) {
            return GoesOn::ToAnEnd;
        }
        if path.contains(&hash) {
            return GoesOn::ForEver;
        }
        let mut events = Vec::new();
        self.progress(world, &mut events);
        if events.is_empty() && !world.is_at_an_end() {
            return GoesOn::ToAStandstill;
        }
        path.push(hash);
        for event in events {
            let mut next = world.clone();
            self.happen(&mut next, event);
            let goes_on = self.follow(&next, path);
            if goes_on != GoesOn::ToAnEnd {
                return goes_on;
            }
        }
        path.pop();
        self.known_ends.shard(hash).insert(hash);
        GoesOn::ToAnEnd
    }
}
