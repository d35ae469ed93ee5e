//! Every mutant is found by one of its own checks. Meant for a release build:
//! `cargo test --release -p saga-simulation --features mutants --test mutants`.

use saga_core::mutant::Mutant;
use saga_simulation::mutants::{killers, try_to_kill};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Real time for each mutant, many times what each of them needs.
const BUDGET: Duration = Duration::from_mins(1);

#[test]
fn every_mutant_is_killed_by_an_expected_check() {
    let next = AtomicUsize::new(0);
    let alive = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let fate = try_to_kill(*mutant, BUDGET);
                    if !fate.is_killed() {
                        let found = fate.check().unwrap_or("nothing");
                        alive.lock().unwrap().push(format!(
                            "{} in {} seeds: expected {:?}, found {found}",
                            mutant.name(),
                            fate.seeds,
                            killers(*mutant)
                        ));
                    }
                }
            });
        }
    });
    let alive = alive.into_inner().unwrap();
    assert!(alive.is_empty(), "alive: {alive:#?}");
}
