//! Runs seeds of the simulation, and minimizes a failing one. See `saga_simulation`.

use clap::Parser;
use saga_simulation::{Outcome, Plan, minimize::minimize, run};
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Runs the real engine, participants and relay in a simulated world with failures, seed by seed.
///
/// Exit status: 0 if no check found anything, 1 if one did, 2 for a wrong command line.
#[derive(Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after this many seconds, even if seeds are left.
    #[arg(long)]
    seconds: Option<u64>,
    /// Number of seeds that run in parallel.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Print the whole trace of every seed.
    #[arg(long)]
    trace: bool,
    /// Real seconds to spend on minimizing a failing seed.
    #[arg(long, default_value_t = 30)]
    minimize_seconds: u64,
    /// Continue after a failing seed.
    #[arg(long)]
    keep_going: bool,
    /// Build a fault into the product instead of looking for one: a mutant's name, or `all`. Exit status 1 if one
    /// survives.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<String>,
    /// Real seconds to spend on each mutant.
    #[cfg(feature = "mutants")]
    #[arg(long, default_value_t = 60)]
    mutant_seconds: u64,
}

/// Sums over all seeds so far.
#[derive(Default)]
struct Totals {
    seeds: AtomicU64,
    events: AtomicU64,
    sagas: AtomicU64,
    faults: AtomicU64,
    failures: Mutex<Vec<(u64, Outcome)>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "mutants")]
    if let Some(name) = &arguments.mutant {
        return kill_mutants(name, &arguments);
    }
    let totals = Totals::default();
    let began = Instant::now();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| work(&arguments, &totals, &next, began));
        }
    });
    let mut failures = totals
        .failures
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    failures.sort_by_key(|(seed, _)| *seed);
    say(&summary(&arguments, &totals, began.elapsed()));
    for (seed, outcome) in failures.iter() {
        report(&arguments, *seed, outcome);
        if !arguments.keep_going {
            break;
        }
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}

fn work(arguments: &Arguments, totals: &Totals, next: &AtomicU64, began: Instant) {
    let failures = || {
        totals
            .failures
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let late = arguments
            .seconds
            .is_some_and(|seconds| began.elapsed() > Duration::from_secs(seconds));
        let found = !failures().is_empty() && !arguments.keep_going;
        if index >= arguments.seeds || late || found {
            return;
        }
        let seed = arguments.seed + index;
        let outcome = run(&Plan {
            seed,
            traced: arguments.trace,
            ..Plan::default()
        });
        for line in &outcome.trace {
            say(line);
        }
        totals.seeds.fetch_add(1, Ordering::Relaxed);
        totals.events.fetch_add(outcome.events, Ordering::Relaxed);
        totals
            .sagas
            .fetch_add(outcome.sagas as u64, Ordering::Relaxed);
        totals
            .faults
            .fetch_add(outcome.injected.len() as u64, Ordering::Relaxed);
        if outcome.violation.is_some() {
            failures().push((seed, outcome));
        }
        progress(arguments, totals, began.elapsed());
    }
}

/// Overwrites a progress line on the standard error, if that is a terminal.
fn progress(arguments: &Arguments, totals: &Totals, elapsed: Duration) {
    let mut error = std::io::stderr();
    if error.is_terminal() {
        let line = summary(arguments, totals, elapsed);
        // A terminal that is closed is no reason to stop.
        drop(write!(error, "\r{line}\x1b[K"));
    }
}

fn summary(arguments: &Arguments, totals: &Totals, elapsed: Duration) -> String {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let minutes = elapsed.as_secs_f64() / 60.0 * arguments.jobs.max(1) as f64;
    let rate = |counter: &AtomicU64| count(counter) as f64 / minutes.max(1e-9);
    format!(
        "{} of {} seeds, {} sagas, {} faults, {} events in {:.1} s: {:.0} seeds and {:.0} events a core-minute",
        count(&totals.seeds),
        arguments.seeds,
        count(&totals.sagas),
        count(&totals.faults),
        count(&totals.events),
        elapsed.as_secs_f64(),
        rate(&totals.seeds),
        rate(&totals.events),
    )
}

fn report(arguments: &Arguments, seed: u64, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else {
        return;
    };
    say(&format!("\nseed {seed} violates {violation}"));
    say(&format!(
        "again: cargo run --release -p saga-simulation --bin simulate -- --seed {seed} --seeds 1"
    ));
    let budget = Duration::from_secs(arguments.minimize_seconds);
    let Some(small) = minimize(seed, outcome, budget) else {
        return;
    };
    say(&format!(
        "{} of its {} faults are enough ({} runs):",
        small.faults.len(),
        outcome.injected.len(),
        small.runs
    ));
    for fault in &small.faults {
        say(&format!("  {fault}"));
    }
    say("the trace with only these:");
    for line in &small.outcome.trace {
        say(&format!("  {line}"));
    }
    if let Some(violation) = &small.outcome.violation {
        say(&format!("  → {violation}"));
    }
}

fn say(line: &str) {
    // The reader may have closed the pipe.
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Prints a line for each mutant: the check that found it, and how many seeds and seconds that took.
#[cfg(feature = "mutants")]
fn kill_mutants(name: &str, arguments: &Arguments) -> ExitCode {
    use saga_core::mutant::Mutant;
    use saga_simulation::mutants::try_to_kill;

    let wanted: Vec<Mutant> = Mutant::ALL
        .iter()
        .copied()
        .filter(|mutant| name == "all" || name == mutant.name())
        .collect();
    if wanted.is_empty() {
        let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        say(&format!(
            "no mutant is called {name}; there are: all, {}",
            names.join(", ")
        ));
        return ExitCode::from(2);
    }
    let budget = Duration::from_secs(arguments.mutant_seconds);
    let (began, next, alive) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = wanted.get(index as usize) else {
                        return;
                    };
                    let fate = try_to_kill(*mutant, budget);
                    alive.fetch_add(u64::from(!fate.is_killed()), Ordering::Relaxed);
                    say(&epitaph(&fate));
                }
            });
        }
    });
    let alive = alive.into_inner();
    say(&format!(
        "{} mutants, {alive} alive, in {:.1} s",
        wanted.len(),
        began.elapsed().as_secs_f64()
    ));
    ExitCode::from(u8::from(alive > 0))
}

#[cfg(feature = "mutants")]
fn epitaph(fate: &saga_simulation::mutants::Fate) -> String {
    let verdict = match fate.check() {
        Some(check) if fate.is_killed() => format!("killed by {check}"),
        Some(check) => format!("ALIVE to its own checks, found by {check}"),
        None => "ALIVE".to_owned(),
    };
    format!(
        "{:<32} {verdict:<64} {:>5} seeds {:>6.1} s",
        fate.mutant.name(),
        fate.seeds,
        fate.elapsed.as_secs_f64()
    )
}
