//! Runs the timers: checks the sagas that are due, reads offsets, and produces timer messages.

use super::{
    saga_store::DefinitionStore,
    shared::Shared,
    timers::{
        offsets::{OffsetReader, Offsets, READ_INTERVAL},
        queue::{Candidate, CurrentTimers, DueRow, Planned, QueuedRow},
    },
};
use async_trait::async_trait;
use chrono::TimeDelta;
use saga_core::{
    ids::{SagaId, Timestamp},
    instance::SagaInstance,
    transition,
};
use saga_messaging::{
    crash_point::CrashPoint,
    log::LogWriter,
    progress::{Begun, Progress},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// The interface of the store that the timers use.
#[async_trait]
pub trait TimerStore: DefinitionStore {
    /// Returns the rows of these home partitions that fall due before the time `ahead` of the database's clock, and
    /// that clock.
    async fn due_rows(
        &self,
        home_partitions: &[i32],
        ahead: TimeDelta,
    ) -> Result<(Timestamp, Vec<DueRow>), TimerStoreError>;

    /// Reads the first `limit` live sagas after `after`, in id order and whatever they wait for. Returns those of these
    /// home partitions that have recorded a command as queued.
    async fn queued_rows(
        &self,
        home_partitions: &[i32],
        after: Option<SagaId>,
        limit: usize,
    ) -> Result<QueuedPage, TimerStoreError>;

    /// Returns live sagas as they are stored now, without locking them.
    async fn live(&self, sagas: &[SagaId]) -> Result<Vec<SagaInstance>, TimerStoreError>;
}

/// A page of live sagas, of which only those with queued commands are returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuedPage {
    pub rows: Vec<QueuedRow>,
    /// The last saga of the page, after which the next page begins. `None` if there was no saga left to read.
    pub last: Option<SagaId>,
}

#[derive(Debug, thiserror::Error)]
#[error("the timers cannot read the store")]
pub struct TimerStoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The time between two ticks of the timers.
const TICK: Duration = Duration::from_millis(100);
/// The age that a reading of the offsets may have if it decides about due timers: it must be of the present tick.
const PROMPT: Duration = Duration::from_millis(50);
/// The shortest interval between two readings that check whether an unanswered command was picked up. The interval is a
/// quarter of the command's age, but at least this and at most [`READ_INTERVAL`].
const PICK_UP_INTERVAL: Duration = Duration::from_millis(100);
/// The time between two checks of the commands that are known to be queued.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two rescans, which find due rows that memory lacks.
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);
/// The time ahead that a rescan covers: it reaches beyond the next rescan.
const RESCAN_AHEAD: TimeDelta = TimeDelta::seconds(90);
/// The number of live rows in a page of the search for queued commands, of which a few columns are read. A new owner
/// reads one page a tick, and so a million rows in five seconds. No tick waits for more than one page.
const QUEUED_PAGE: usize = 20_000;
/// The time between two pages once all pages have been read. Memory then knows what is queued, and the search finds
/// what memory happens to lack: within twenty seconds in a small table, and within nine minutes among a million rows.
/// Its cost does not grow with the number of rows.
const QUEUED_INTERVAL: Duration = Duration::from_secs(10);
/// The number of rows that are added to memory under one hold of the lock, which the engine needs too. Adding them
/// takes one or two milliseconds.
const ROWS_AT_ONCE: usize = 1_000;
/// The number of due sagas, and of sagas with consumed commands, that one tick checks. More of them wait for the next
/// tick, 100 ms later.
const TICK_LIMIT: usize = 500;

/// The timers of one process.
pub struct TimerDriver<S, W> {
    pub store: S,
    pub writer: W,
    pub offsets: Arc<OffsetReader>,
    pub shared: Arc<Shared>,
    /// The orchestrator's own consumer group.
    pub group: String,
    /// The progress of the ticks, for a health check.
    pub progress: Progress,
}

impl<S: TimerStore, W: LogWriter> TimerDriver<S, W> {
    /// Ticks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut merge_rescan = Rescanned::default();
        let mut search = Search::default();
        let mut watched_at: Option<Instant> = None;
        // Until everything that a tick does succeeds, ticks are one piece of work.
        let mut ticking: Option<Begun> = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            ticking.get_or_insert_with(|| self.progress.begin());
            let mut succeeded = self.rescan_when_due(&mut merge_rescan).await;
            succeeded &= self.search_when_due(&mut search).await;
            let watch = watched_at.is_none_or(|at| at.elapsed() >= WATCH_INTERVAL);
            if watch {
                watched_at = Some(Instant::now());
            }
            match self.tick(watch).await {
                Ok(Ticked::All) => {}
                Ok(Ticked::MoreToCome) => watched_at = None,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "due timers could not be handled, trying again"
                    );
                    succeeded = false;
                }
            }
            if succeeded {
                ticking = None;
            }
        }
    }

    /// Loads the next due times, unless that has to wait. Returns false if it fails.
    async fn rescan_when_due(&self, merge_rescan: &mut Rescanned) -> bool {
        let (owned, assignments) = {
            let timers = self.shared.timers();
            (timers.owned(), timers.assignments())
        };
        let fresh = merge_rescan.assignments != assignments;
        let old = merge_rescan
            .at
            .is_none_or(|at| at.elapsed() >= RESCAN_INTERVAL);
        if owned.is_empty() || !(fresh || old) {
            return true;
        }
        match self.store.due_rows(&owned, RESCAN_AHEAD).await {
            Ok((now, rows)) => {
                self.shared.clock.set(now);
                for rows in rows.chunks(ROWS_AT_ONCE) {
                    self.shared.timers().merge_rescan(rows);
                }
                merge_rescan.at = Some(Instant::now());
                merge_rescan.assignments = assignments;
                true
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "due times cannot be loaded"
                );
                false
            }
        }
    }

    /// Reads the next page of the search for queued commands, unless it has to wait. Returns false if it fails.
    async fn search_when_due(&self, search: &mut Search) -> bool {
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
            return true;
        };
        if owned.is_empty() || search.has_to_wait() {
            return true;
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
                true
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "queued commands cannot be loaded"
                );
                false
            }
        }
    }

    /// Handles everything that is due. If `watch` is set, checks the commands that are known to be queued, too.
    pub async fn tick(&self, watch: bool) -> Result<Ticked, TimerStoreError> {
        let Some(now) = self.shared.clock.now() else {
            return Ok(Ticked::All);
        };
        let (mut candidates, watched, unanswered) = {
            let timers = self.shared.timers();
            let watched = if watch {
                timers.watched_participants()
            } else {
                BTreeSet::new()
            };
            let unanswered = timers.unanswered(now);
            (timers.due(now, TICK_LIMIT), watched, unanswered)
        };
        if candidates.is_empty() && watched.is_empty() && unanswered.is_empty() {
            return Ok(Ticked::All);
        }
        let mut seen = Offsets::default();
        for participant in &watched {
            self.look_at(participant, READ_INTERVAL, &mut seen).await;
        }
        for (participant, age) in &unanswered {
            let age = age.to_std().unwrap_or_default();
            let interval = (age / 4).clamp(PICK_UP_INTERVAL, READ_INTERVAL);
            self.look_at(participant, interval, &mut seen).await;
        }
        let moved = {
            let mut timers = self.shared.timers();
            timers.note_pick_ups(&seen);
            timers.dequeued(&seen, TICK_LIMIT)
        };
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
        let registry = &self.shared.registry;
        let lacks_one =
            |instance: &SagaInstance| registry.by_hash(&instance.definition_hash).is_none();
        if instances.iter().any(lacks_one) {
            let catalog = self.store.catalog().await;
            self.shared
                .learn(catalog.map_err(|error| TimerStoreError(Box::new(error)))?);
        }
        Ok(instances
            .into_iter()
            .filter_map(|instance| {
                let definition = registry.by_hash(&instance.definition_hash)?;
                Some(CurrentTimers {
                    id: instance.id,
                    timers: transition::timers(&definition, &instance),
                    trace: instance.trace,
                })
            })
            .collect())
    }

    /// Reads the offsets that decide about these sagas: those of their participants, and those of `saga.inputs`.
    async fn look_for(&self, current: &[CurrentTimers], seen: &mut Offsets) {
        let participants: BTreeSet<String> = current
            .iter()
            .flat_map(|row| {
                row.timers
                    .iter()
                    .filter_map(|timer| timer.participant.clone())
            })
            .collect();
        for participant in &participants {
            self.look_at(participant, PROMPT, seen).await;
        }
        seen.inputs = self
            .offsets
            .seen_within(&self.shared.settings.inputs_topic, &self.group, PROMPT)
            .await;
    }

    async fn look_at(&self, name: &str, age: Duration, seen: &mut Offsets) {
        if let Some(participant) = self.shared.settings.participants.get(name)
            && let Some(topic) = self
                .offsets
                .seen_within(&participant.topic, &participant.group, age)
                .await
        {
            seen.participants.insert(name.to_owned(), topic);
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
            self.shared.timers().produce_failed(now, &planned);
        }
        for Planned { timer, .. } in &planned {
            crate::telemetry::timer(timer);
        }
    }
}

/// The result of a tick: all sagas whose commands are no longer queued were handled, or more of them are left. A
/// participant may have consumed at once everything that a new owner finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticked {
    All,
    MoreToCome,
}

/// The time and the assignment of the last rescan.
#[derive(Default)]
struct Rescanned {
    at: Option<Instant>,
    assignments: u64,
}

/// The progress of the search for queued commands. The search begins anew when partitions are assigned, and when it has
/// reached the end of the table.
#[derive(Default)]
struct Search {
    assignments: u64,
    after: Option<SagaId>,
    at: Option<Instant>,
    /// True once every row has been read since the assignment.
    is_through: bool,
}

impl Search {
    fn has_to_wait(&self) -> bool {
        self.is_through && self.at.is_some_and(|at| at.elapsed() < QUEUED_INTERVAL)
    }
}
