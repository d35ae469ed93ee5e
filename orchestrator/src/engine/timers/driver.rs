//! Carries the timers out: looks at what is due, reads offsets, produces.

use super::{
    offsets::Offsets,
    queue::{Candidate, CurrentTimers, DueRow, Planned, QueuedRow, Seen},
};
use crate::engine::shared::Shared;
use async_trait::async_trait;
use chrono::TimeDelta;
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::SagaInstance,
    transition,
};
use saga_messaging::{crash_point::CrashPoint, log::LogWriter};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// What the timers need of a store.
#[async_trait]
pub trait TimerStore: Send + Sync + 'static {
    /// Rows of these home partitions that fall due before `until`, and the database's clock.
    async fn due_rows(
        &self,
        home_partitions: &[i32],
        ahead: TimeDelta,
    ) -> Result<(Timestamp, Vec<DueRow>), TimerStoreError>;

    /// Of the first `limit` live sagas behind `after`, in id order and whatever they wait for: those of these home
    /// partitions that know a command of theirs to be queued.
    async fn queued_rows(
        &self,
        home_partitions: &[i32],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<QueuedPage, TimerStoreError>;

    /// Live sagas as they stand, unlocked.
    async fn live(&self, sagas: &[SagaId]) -> Result<Vec<SagaInstance>, TimerStoreError>;
}

/// A page of live sagas, of which only those with queued commands are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuedPage {
    pub rows: Vec<QueuedRow>,
    /// The next page begins behind it. `None` if there was nothing to look at any more.
    pub last: Option<SagaId>,
}

#[derive(Debug, thiserror::Error)]
#[error("the timers cannot read the store")]
pub struct TimerStoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Between two looks at the queue.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at commands that are known to be queued.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Between two searches for rows that memory misses.
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);
/// How far ahead a rescan looks: beyond the next one.
const RESCAN_AHEAD: TimeDelta = TimeDelta::seconds(90);
/// Sagas looked at in one tick. More wait for the next: 100 ms later.
const TICK_LIMIT: usize = 500;

/// The timers of one process.
pub struct TimerDriver<S, W> {
    pub store: S,
    pub writer: W,
    pub offsets: Arc<Offsets>,
    pub shared: Arc<Shared>,
    /// The orchestrator's own consumer group.
    pub group: String,
}

impl<S: TimerStore, W: LogWriter> TimerDriver<S, W> {
    /// Ticks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rescanned = Rescanned::default();
        let mut watched_at: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.rescan_when_due(&mut rescanned).await;
            let watch = watched_at.is_none_or(|at| at.elapsed() >= WATCH_INTERVAL);
            if watch {
                watched_at = Some(Instant::now());
            }
            if let Err(error) = self.tick(watch).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "timers have to wait"
                );
            }
        }
    }

    async fn rescan_when_due(&self, rescanned: &mut Rescanned) {
        let (owned, assignments) = {
            let timers = self.shared.timers();
            (timers.owned(), timers.assignments())
        };
        let fresh = rescanned.assignments != assignments;
        let old = rescanned
            .at
            .is_none_or(|at| at.elapsed() >= RESCAN_INTERVAL);
        if owned.is_empty() || !(fresh || old) {
            return;
        }
        match self.store.due_rows(&owned, RESCAN_AHEAD).await {
            Ok((now, rows)) => {
                self.shared.clock.set(now);
                self.shared.timers().rescanned(&rows);
                rescanned.at = Some(Instant::now());
                rescanned.assignments = assignments;
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "due times cannot be loaded"
                );
            }
        }
    }

    /// One look at everything that is due.
    pub async fn tick(&self, watch: bool) -> Result<(), TimerStoreError> {
        let Some(now) = self.shared.clock.now() else {
            return Ok(());
        };
        let (mut candidates, watched) = {
            let timers = self.shared.timers();
            let watched = if watch {
                timers.watched_participants()
            } else {
                BTreeSet::new()
            };
            (timers.due(now, TICK_LIMIT), watched)
        };
        if candidates.is_empty() && watched.is_empty() {
            return Ok(());
        }
        let mut seen = Seen::default();
        self.look_at(&watched, &mut seen).await;
        let moved = self.shared.timers().no_longer_queued(&seen, TICK_LIMIT);
        candidates.extend(moved);
        candidates.sort_by_key(|candidate| candidate.id);
        candidates.dedup_by_key(|candidate| candidate.id);
        if candidates.is_empty() {
            return Ok(());
        }
        let current = self.current(&candidates).await?;
        self.look_for(&current, &mut seen).await;
        let planned = self.shared.timers().plan(now, &candidates, &current, &seen);
        self.produce(now, planned).await;
        Ok(())
    }

    async fn current(
        &self,
        candidates: &[Candidate],
    ) -> Result<Vec<CurrentTimers>, TimerStoreError> {
        let ids: Vec<SagaId> = candidates.iter().map(|candidate| candidate.id).collect();
        let instances = self.store.live(&ids).await?;
        Ok(instances
            .into_iter()
            .filter_map(|instance| {
                let definition = self.shared.registry.by_hash(&instance.definition_hash)?;
                Some(CurrentTimers {
                    id: instance.id,
                    timers: transition::timers(&definition, &instance),
                    trace: instance.trace,
                })
            })
            .collect())
    }

    /// The offsets that decide about these sagas.
    async fn look_for(&self, current: &[CurrentTimers], seen: &mut Seen) {
        let participants: BTreeSet<String> = current
            .iter()
            .flat_map(|row| {
                row.timers
                    .iter()
                    .filter_map(|timer| timer.participant.clone())
            })
            .collect();
        self.look_at(&participants, seen).await;
        seen.inputs = self
            .offsets
            .seen(&self.shared.settings.inputs_topic, &self.group)
            .await;
    }

    async fn look_at(&self, participants: &BTreeSet<String>, seen: &mut Seen) {
        for name in participants {
            if seen.participants.contains_key(name) {
                continue;
            }
            if let Some(participant) = self.shared.settings.participants.get(name)
                && let Some(topic) = self
                    .offsets
                    .seen(&participant.topic, &participant.group)
                    .await
            {
                seen.participants.insert(name.clone(), topic);
            }
        }
    }

    async fn produce(&self, now: Timestamp, planned: Vec<Planned>) {
        if planned.is_empty() {
            return;
        }
        let settings = &self.shared.settings;
        let records: Vec<_> = planned
            .iter()
            .map(
                |Planned {
                     home_partition,
                     timer,
                 }| {
                    debug!(
                        saga.id = %timer.saga_id,
                        correlation.id = timer.trace.correlation_id,
                        kind = ?timer.kind,
                        verdict = ?timer.verdict,
                        "a timer is due"
                    );
                    timer.encode(
                        &settings.inputs_topic,
                        Some(*home_partition),
                        &settings.source,
                        now,
                    )
                },
            )
            .collect();
        CrashPoint::TimersBeforeProduce.pass();
        let produced = self.writer.publish(&records).await;
        CrashPoint::TimersAfterProduce.pass();
        if let Err(error) = produced {
            warn!(
                error = &error as &dyn std::error::Error,
                "due timers could not be produced"
            );
            self.shared.timers().unproduced(now, &planned);
        }
        for Planned { timer, .. } in &planned {
            crate::telemetry::timer(timer);
        }
    }
}

/// What the last rescan covered.
#[derive(Default)]
struct Rescanned {
    at: Option<Instant>,
    assignments: u64,
}
