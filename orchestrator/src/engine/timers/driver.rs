//! Carries the timers out: looks at what is due, reads offsets, produces.

use super::{
    offsets::{Offsets, Seen},
    queue::{Candidate, CurrentTimers, DueRow, Planned, QueuedRow},
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
/// Live rows in a page of the search for queued commands, of which it reads a few columns. A new owner reads a page a
/// tick, a million in five seconds, and no tick waits for more than one.
const QUEUED_PAGE: usize = 20_000;
/// Between two pages once all have been read: memory knows what is queued, and this finds what it should happen to miss,
/// in a small table within twenty seconds and among a million rows within nine minutes. What it costs does not grow with
/// them.
const QUEUED_INTERVAL: Duration = Duration::from_secs(10);
/// Rows that are put into memory under one hold of a lock that the engine needs: a millisecond or two.
const ROWS_AT_ONCE: usize = 1_000;
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
        let mut search = Search::default();
        let mut watched_at: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.rescan_when_due(&mut rescanned).await;
            self.search_when_due(&mut search).await;
            let watch = watched_at.is_none_or(|at| at.elapsed() >= WATCH_INTERVAL);
            if watch {
                watched_at = Some(Instant::now());
            }
            match self.tick(watch).await {
                Ok(Ticked::All) => {}
                Ok(Ticked::MoreToCome) => watched_at = None,
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "timers have to wait"
                ),
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
                for rows in rows.chunks(ROWS_AT_ONCE) {
                    self.shared.timers().rescanned(rows);
                }
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

    /// One page of the search for queued commands.
    async fn search_when_due(&self, search: &mut Search) {
        let (owned, assignments) = {
            let timers = self.shared.timers();
            (timers.owned(), timers.assignments())
        };
        if search.assignments != assignments {
            *search = Search {
                assignments,
                ..Search::default()
            };
        }
        // The clock is set by the first rescan.
        let Some(now) = self.shared.clock.now() else {
            return;
        };
        if owned.is_empty() || search.has_to_wait() {
            return;
        }
        match self
            .store
            .queued_rows(&owned, search.after, QUEUED_PAGE)
            .await
        {
            Ok(QueuedPage { rows, last }) => {
                let mut rows = rows.into_iter().peekable();
                while rows.peek().is_some() {
                    let some = rows.by_ref().take(ROWS_AT_ONCE).collect();
                    self.shared.timers().queued(now, some);
                }
                search.at = Some(Instant::now());
                search.is_through |= last.is_none();
                search.after = last;
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "queued commands cannot be loaded"
                );
            }
        }
    }

    /// One look at everything that is due.
    pub async fn tick(&self, watch: bool) -> Result<Ticked, TimerStoreError> {
        let Some(now) = self.shared.clock.now() else {
            return Ok(Ticked::All);
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
            return Ok(Ticked::All);
        }
        let mut seen = Seen::default();
        self.look_at(&watched, &mut seen).await;
        let moved = self.shared.timers().no_longer_queued(&seen, TICK_LIMIT);
        let ticked = if moved.len() < TICK_LIMIT {
            Ticked::All
        } else {
            Ticked::MoreToCome
        };
        candidates.extend(moved);
        candidates.sort_by_key(|candidate| candidate.id);
        candidates.dedup_by_key(|candidate| candidate.id);
        if candidates.is_empty() {
            return Ok(ticked);
        }
        let current = self.current(&candidates).await?;
        self.look_for(&current, &mut seen).await;
        let planned = self.shared.timers().plan(now, &candidates, &current, &seen);
        self.produce(now, planned).await;
        Ok(ticked)
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

/// What a tick has looked at of the commands that are no longer queued. All that a new owner finds may be passed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticked {
    All,
    MoreToCome,
}

/// What the last rescan covered.
#[derive(Default)]
struct Rescanned {
    at: Option<Instant>,
    assignments: u64,
}

/// How far the search for queued commands is. It begins anew when partitions are assigned, and when it is through.
#[derive(Default)]
struct Search {
    assignments: u64,
    after: Option<SagaId>,
    at: Option<Instant>,
    /// Every row has been looked at since the assignment.
    is_through: bool,
}

impl Search {
    fn has_to_wait(&self) -> bool {
        self.is_through && self.at.is_some_and(|at| at.elapsed() < QUEUED_INTERVAL)
    }
}
