//! The state that the processes of a run share: time, randomness, faults, the log, and the history.

use super::{
    checker::history::{History, Observed},
    faults::{Allowed, FaultKey, Faults, Site},
    log::Broker,
    random::Dice,
    trace::Trace,
};
use saga_core::ids::{SagaId, Timestamp};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// The simulated time at the start of a run: 2026-09-21T14:13:20Z.
const EPOCH_MS: i64 = 1_790_000_000_000;

/// Locks a mutex. A poisoned lock can be used, because a panic ends the whole run.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The parameters of a run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub seed: u64,
    pub allowed: Allowed,
    /// True to keep the trace as text.
    pub traced: bool,
}

/// The world of one run.
pub struct World {
    pub seed: u64,
    began: Instant,
    dice: Mutex<Dice>,
    faults: Mutex<Faults>,
    trace: Mutex<Trace>,
    history: Mutex<History>,
    skew: Mutex<chrono::TimeDelta>,
    pub broker: Broker,
}

impl World {
    /// Makes a world. Must be called inside a runtime whose clock is paused.
    pub fn new(plan: &Plan) -> Arc<Self> {
        let trace = if plan.traced {
            Trace::kept()
        } else {
            Trace::default()
        };
        Arc::new(Self {
            seed: plan.seed,
            began: Instant::now(),
            dice: Mutex::new(Dice::new(plan.seed)),
            faults: Mutex::new(Faults::new(plan.seed, plan.allowed.clone())),
            trace: Mutex::new(trace),
            history: Mutex::default(),
            skew: Mutex::new(chrono::TimeDelta::zero()),
            broker: Broker::new(plan.seed),
        })
    }

    pub fn dice(&self) -> MutexGuard<'_, Dice> {
        lock(&self.dice)
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub fn trace(&self) -> MutexGuard<'_, Trace> {
        lock(&self.trace)
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        lock(&self.trace).note(self.elapsed(), who, what);
    }

    /// Records a violation that could not be found later. Only the first one of each check is kept.
    pub fn observe(&self, check: &'static str, detail: String) {
        let mut history = self.history();
        if history.observed.iter().all(|known| known.check != check) {
            self.note("checker", format_args!("{check}: {detail}"));
            history.observed.push(Observed {
                check,
                detail,
                at: self.elapsed(),
            });
        }
    }

    /// Returns true if a fault strikes at `site` now, and notes it in the trace.
    pub fn strikes(&self, site: Site, who: &str) -> bool {
        let struck = self.faults().strikes(site, who);
        if struck {
            self.note(who, format_args!("FAULT {}", site.name()));
        }
        struck
    }

    pub fn admit(&self, key: FaultKey) -> bool {
        let told = key.to_string();
        let admitted = self.faults().admit(key);
        if admitted {
            self.note("nemesis", format_args!("FAULT {told}"));
        }
        admitted
    }

    /// Returns the time by a clock that is `offset` ahead of the run's.
    pub fn now(&self, offset: chrono::TimeDelta) -> Timestamp {
        let epoch = Timestamp::from_timestamp_millis(EPOCH_MS).unwrap_or_default();
        epoch + self.elapsed() + *lock(&self.skew) + offset
    }

    /// Advances every clock without any event in between.
    pub fn pass(&self, time: chrono::TimeDelta) {
        *lock(&self.skew) += time;
    }

    /// Waits for the time between a request for an effect and the effect: usually none, sometimes long.
    pub async fn latency(&self, who: &str) {
        let milliseconds = {
            let mut dice = self.dice();
            match dice.below(100, "latency", who) {
                0..50 => 0,
                50..90 => dice.between(1, 3, "short latency", who),
                90..99 => dice.between(3, 20, "latency", who),
                _ => dice.between(20, 200, "long latency", who),
            }
        };
        if milliseconds > 0 {
            sleep(Duration::from_millis(milliseconds)).await;
        }
    }

    pub fn milliseconds(&self, least: u64, most: u64, what: &str, who: &str) -> Duration {
        Duration::from_millis(self.dice().between(least, most, what, who))
    }
}

/// Returns the number in a saga's id, by which traces name the saga.
pub fn number_of(saga: SagaId) -> u64 {
    saga.0.as_u128() as u64 & 0xffff_ffff
}

/// Makes a UUIDv7 of an instant that contains the number.
pub fn saga_id(at: Timestamp, number: u64) -> SagaId {
    let milliseconds = u128::from(at.timestamp_millis().cast_unsigned()) & 0xffff_ffff_ffff;
    let spread = u128::from(super::random::mix(number)) & 0x0fff_ffff;
    SagaId(Uuid::from_u128(
        (milliseconds << 80) | (7 << 76) | (2 << 62) | (spread << 32) | u128::from(number),
    ))
}
