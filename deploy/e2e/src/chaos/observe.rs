//! Observes the system from outside while faults begin and end: since when there is no fault, how long a saga has not
//! moved, and how long a takeover took.

use super::{
    plan::{Kind, Planned},
    store::{LiveSaga, Watcher},
};
use anyhow::Result;
use saga_service::clock;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How often the sagas are read. This is also the precision with which a standstill is measured.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// The active faults, and a record of all injected faults.
#[derive(Debug)]
pub struct Trouble {
    log: Mutex<File>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The active faults by number.
    active: BTreeMap<usize, String>,
    last_end: Instant,
    /// The number of injected faults by kind.
    injected: BTreeMap<Kind, u64>,
    /// The faults that could not be injected as planned.
    failed: Vec<String>,
    /// The times of the takeovers by the wall clock, in milliseconds.
    takeovers: Vec<i64>,
    next: usize,
}

impl Trouble {
    pub fn new(log: &Path) -> Result<Self> {
        let state = State {
            active: BTreeMap::new(),
            last_end: Instant::now(),
            injected: BTreeMap::new(),
            failed: Vec::new(),
            takeovers: Vec::new(),
            next: 0,
        };
        Ok(Self {
            log: Mutex::new(File::create(log)?),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the state is half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, text: &str) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not end the run.
        drop(writeln!(log, "{} {text}", clock::now().to_rfc3339()));
    }

    /// Records the start of a fault and returns the number to end it with.
    pub fn begin(&self, planned: Planned) -> usize {
        let text = format!("{:?} for {:?}", planned.fault, planned.lasts);
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        *state.injected.entry(planned.kind).or_default() += 1;
        if planned.kind == Kind::Takeover {
            state.takeovers.push(clock::now().timestamp_millis());
        }
        state.active.insert(number, planned.kind.to_string());
        drop(state);
        self.note(&format!("begin {number} {text}"));
        number
    }

    pub fn end(&self, number: usize, outcome: &Result<()>) {
        let mut state = self.state();
        let what = state.active.remove(&number).unwrap_or_default();
        state.last_end = Instant::now();
        if let Err(error) = outcome {
            state.failed.push(format!("{what}: {error:#}"));
        }
        drop(state);
        self.note(&format!("end   {number} {outcome:?}"));
    }

    /// Returns the end of the last fault if no fault is active.
    pub fn calm_since(&self) -> Option<Instant> {
        let state = self.state();
        state.active.is_empty().then_some(state.last_end)
    }

    pub fn active(&self) -> Vec<String> {
        self.state().active.values().cloned().collect()
    }

    pub fn injected(&self) -> BTreeMap<Kind, u64> {
        self.state().injected.clone()
    }

    pub fn failed(&self) -> Vec<String> {
        self.state().failed.clone()
    }

    pub fn takeovers(&self) -> Vec<i64> {
        self.state().takeovers.clone()
    }
}

/// The longest time that a saga did not move while no fault was active.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standstill {
    pub ms: u64,
    pub saga: Option<Uuid>,
    /// The kind of event that the saga waited for.
    pub waiting_kind: String,
}

/// Tracks the version of every live saga.
#[derive(Debug, Default)]
pub struct Movement {
    seen: BTreeMap<Uuid, (i64, Instant)>,
    longest: Standstill,
}

impl Movement {
    /// Compares the sagas with the last call, and updates the longest standstill. Ignores parked sagas, which wait for
    /// a person.
    pub fn look(&mut self, sagas: &[LiveSaga], calm_since: Option<Instant>, now: Instant) {
        let present: BTreeSet<Uuid> = sagas.iter().map(|saga| saga.id).collect();
        self.seen.retain(|id, _| present.contains(id));
        for saga in sagas.iter().filter(|saga| saga.status != "parked") {
            let (version, since) = self.seen.entry(saga.id).or_insert((saga.version, now));
            if *version != saga.version {
                (*version, *since) = (saga.version, now);
            }
            let Some(calm_since) = calm_since else {
                continue;
            };
            let still = now.saturating_duration_since(calm_since.max(*since));
            let ms = still.as_millis() as u64;
            if ms > self.longest.ms {
                self.longest = Standstill {
                    ms,
                    saga: Some(saga.id),
                    waiting_kind: saga.waiting_kind.clone(),
                };
            }
        }
    }
}

/// The watcher's latest results.
#[derive(Debug, Default)]
pub struct Watch {
    movement: Mutex<Movement>,
    live: Mutex<usize>,
}

impl Watch {
    /// Reads the live sagas repeatedly, until the task is aborted.
    pub async fn run(&self, url: String, trouble: &Trouble) {
        let mut watcher = Watcher::new(url);
        loop {
            // While Postgres is unavailable there is nothing to record.
            if let Ok(sagas) = watcher.live().await {
                *self.live.lock().unwrap_or_else(PoisonError::into_inner) = sagas.len();
                let mut movement = self.movement.lock().unwrap_or_else(PoisonError::into_inner);
                movement.look(&sagas, trouble.calm_since(), Instant::now());
            }
            sleep(LOOK_PERIOD).await;
        }
    }

    pub fn live(&self) -> usize {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn longest(&self) -> Standstill {
        let movement = self.movement.lock().unwrap_or_else(PoisonError::into_inner);
        movement.longest.clone()
    }
}

/// A takeover counts as this long at most. If a partition has not moved by then, something else is wrong.
const TAKEOVER_WINDOW_MS: i64 = 16_000;

/// Returns, for each kill of an orchestrator, how long it took until every partition moved again. A saga's events are
/// in the partition with the same number as its inputs, and every event with a timestamp after the kill was sent by the
/// other copy.
pub fn takeovers(kills: &[i64], events: &[(i32, i64)], partitions: i32) -> Vec<u64> {
    kills
        .iter()
        .map(|kill| {
            let first = |partition: i32| {
                let after = events
                    .iter()
                    .filter(|(of, at)| *of == partition && at > kill);
                let first = after.map(|(_, at)| at - kill).min();
                first.map_or(TAKEOVER_WINDOW_MS, |ms| ms.min(TAKEOVER_WINDOW_MS))
            };
            let slowest = (0..partitions).map(first).max();
            slowest.unwrap_or_default().unsigned_abs()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saga(version: i64) -> LiveSaga {
        LiveSaga {
            id: Uuid::from_u128(1),
            version,
            status: "running".to_owned(),
            waiting_kind: "reply".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_standstill_counts_from_the_end_of_the_last_fault() {
        let mut movement = Movement::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        movement.look(&[saga(1)], None, at(0));
        movement.look(&[saga(1)], None, at(10));
        assert_eq!(movement.longest.ms, 0, "something was wrong all the time");
        movement.look(&[saga(1)], Some(at(10)), at(13));
        assert_eq!(movement.longest.ms, 3_000);
        movement.look(&[saga(2)], Some(at(10)), at(14));
        movement.look(&[saga(2)], Some(at(10)), at(16));
        assert_eq!(movement.longest.ms, 3_000, "it has moved");
        movement.look(&[], Some(at(10)), at(60));
        movement.look(&[saga(2)], Some(at(10)), at(61));
        assert_eq!(movement.longest.ms, 3_000, "it was not there");
    }

    #[test]
    fn a_takeover_is_over_when_the_slowest_partition_moves() {
        let events = [(0, 90), (1, 95), (0, 110), (1, 6_100), (0, 6_200)];
        assert_eq!(takeovers(&[100], &events, 2), [6_000]);
        assert_eq!(takeovers(&[100], &events, 3), [16_000]);
    }
}
