//! Minimizes a failing run: leaves faults out as long as the same check fails.

use super::{
    Outcome, Plan,
    faults::{Allowed, FaultKey},
    run,
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// A failing run with as few faults as could be found.
#[derive(Debug)]
pub struct Minimized {
    pub faults: BTreeSet<FaultKey>,
    /// Outcome of the run, with its trace as text.
    pub outcome: Outcome,
    pub runs: u32,
}

/// Leaves out halves, quarters, … and single faults of the remaining faults (delta debugging: Zeller, Hildebrandt,
/// 2002), until none can be left out or `budget` of real time is spent.
pub fn minimize(seed: u64, failed: &Outcome, budget: Duration) -> Option<Minimized> {
    let check = failed.violation.as_ref()?.check;
    let deadline = Instant::now() + budget;
    let mut faults: Vec<FaultKey> = failed.injected.clone();
    faults.sort();
    faults.dedup();
    let mut runs = 0;
    let mut chunk = faults.len().div_ceil(2).max(1);
    loop {
        let mut first = 0;
        let mut shrunk = false;
        while first < faults.len() && Instant::now() < deadline {
            let end = (first + chunk).min(faults.len());
            let rest: Vec<FaultKey> = [&faults[..first], &faults[end..]].concat();
            runs += 1;
            if fails(seed, &rest, check) {
                faults = rest;
                shrunk = true;
            } else {
                first = end;
            }
        }
        if chunk == 1 && !shrunk || Instant::now() >= deadline {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    let faults: BTreeSet<FaultKey> = faults.into_iter().collect();
    let outcome = run(&Plan {
        seed,
        allowed: Allowed::Only(faults.clone()),
        traced: true,
    });
    Some(Minimized {
        faults,
        outcome,
        runs,
    })
}

fn fails(seed: u64, faults: &[FaultKey], check: &str) -> bool {
    let outcome = run(&Plan {
        seed,
        allowed: Allowed::Only(faults.iter().cloned().collect()),
        traced: false,
    });
    outcome
        .violation
        .is_some_and(|violation| violation.check == check)
}
