//! The simulation with a fixed number of seeds: it is deterministic, and no check finds a violation.

use saga_simulation::{Plan, hunt, minimize::minimize, run};
use std::{ops::Range, time::Duration};

/// The seeds are the same everywhere, so that the test passes or fails everywhere. To run more seeds, use
/// `cargo run --release -p saga-simulation --bin simulate`.
const SEEDS: Range<u64> = 1..101;

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        let plan = Plan {
            seed,
            traced: true,
            ..Plan::default()
        };
        let (one, other) = (run(&plan), run(&plan));
        for (line, again) in one.trace.iter().zip(&other.trace) {
            assert_eq!(line, again, "seed {seed}");
        }
        assert_eq!((one.events, one.hash), (other.events, other.hash));
        assert_eq!(one.injected, other.injected);
    }
}

#[test]
fn different_seeds_give_different_traces() {
    let hash = |seed| {
        let plan = Plan {
            seed,
            ..Plan::default()
        };
        run(&plan).hash
    };
    assert_ne!(hash(1), hash(2));
}

#[test]
fn no_check_finds_anything() {
    let hunt = hunt(SEEDS, Duration::MAX);
    println!(
        "{} seeds, {} events in {:?}",
        hunt.seeds, hunt.events, hunt.elapsed
    );
    if let Some((seed, outcome)) = &hunt.found {
        let small = minimize(*seed, outcome, Duration::from_secs(20)).unwrap();
        for line in &small.outcome.trace {
            println!("{line}");
        }
        println!("enough: {:#?}", small.faults);
        panic!(
            "seed {seed}: {:?}; again: cargo run --release -p saga-simulation --bin simulate -- --seed {seed} --seeds 1",
            outcome.violation
        );
    }
}
