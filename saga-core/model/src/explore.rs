//! Explores a scenario, and returns what was found.

use crate::{
    properties::reach,
    world::{Event, Scenario, System},
};
use stateright::{Checker, HasDiscoveries, Model};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

/// Time between two reports of the progress.
const LOOK: Duration = Duration::from_millis(20);

/// The result of an exploration.
#[derive(Debug)]
pub struct Explored {
    /// The number of different states of the whole system.
    pub states: usize,
    /// The number of events on the longest path.
    pub depth: usize,
    pub time: Duration,
    /// True if nothing was left to explore, or the property to break was broken.
    pub finished: bool,
    /// The properties that do not hold, with the shortest path to each that was found.
    pub broken: Vec<Broken>,
    pub reached: BTreeSet<&'static str>,
}

#[derive(Debug)]
pub struct Broken {
    pub property: &'static str,
    pub events: Vec<Event>,
}

/// Explores until every state was seen, or until the property `breaks` is broken, or until `limit` is over. `progress`
/// gets the number of states from time to time.
pub fn explore(
    scenario: Scenario,
    breaks: Option<&'static str>,
    limit: Duration,
    mut progress: impl FnMut(usize),
) -> Explored {
    let began = Instant::now();
    let finish = match breaks {
        Some(property) => HasDiscoveries::AnyOf([property].into()),
        None => HasDiscoveries::AnyFailures,
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let checker = System::new(scenario)
        .checker()
        .threads(threads)
        .timeout(limit)
        .finish_when(finish)
        .spawn_bfs();
    while !checker.is_done() && began.elapsed() < limit {
        thread::sleep(LOOK);
        progress(checker.unique_state_count());
    }
    let checker = checker.join();
    let time = began.elapsed();
    let mut broken = Vec::new();
    let mut reached = BTreeSet::new();
    for (property, path) in checker.discoveries() {
        if reach::ALL.contains(&property) {
            reached.insert(property);
        } else {
            let events = path.into_actions();
            broken.push(Broken { property, events });
        }
    }
    broken.sort_by_key(|broken| broken.property);
    Explored {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        time,
        finished: time < limit,
        broken,
        reached,
    }
}
