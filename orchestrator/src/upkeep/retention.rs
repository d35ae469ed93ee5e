//! Retention: raises the floors, creates partitions of history ahead of time, and deletes what is below the floor.

use crate::{
    config::RetentionDays,
    engine::shared::Shared,
    store::{
        PgStore, floor,
        floor::{FloorStatus, Overaged},
        history::HISTORY,
    },
    telemetry,
};
use chrono::TimeDelta;
use saga_core::{definition::SagaDefinition, ids::Timestamp};
use saga_messaging::partition::{CommittedValue, PartitionedTable, Span, reach_of};
use std::{sync::Arc, time::Duration};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{error, warn};

/// The room ahead below which an error is logged, because an operator must then find out why partitions are not
/// created.
const AHEAD_ALARM: TimeDelta = TimeDelta::days(1);
/// The time that a saga may take beyond its deadline, for its compensation.
const SLACK: TimeDelta = TimeDelta::days(1);
/// The time between two log messages about live sagas that hold the floor. These sagas are not logged in every round.
const OVERAGED_TOLD_EVERY: Duration = Duration::from_hours(1);
/// The number of rows that one statement deletes.
const FORGET_LIMIT: i64 = 10_000;

pub(crate) type UpkeepResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The state of retention. Losing what it holds in memory only costs a round.
pub struct Retention {
    store: PgStore,
    shared: Arc<Shared>,
    table: PartitionedTable,
    /// The time for which sagas are kept. `None` if nothing is ever forgotten.
    keep: Option<TimeDelta>,
    ahead: TimeDelta,
    settled: CommittedValue,
    /// The floor as of the last round.
    floor_ms: i64,
    /// True if a partition can be dropped as soon as the floor follows the start floor that was announced.
    pending: bool,
    overaged_told: Option<Instant>,
}

impl Retention {
    pub fn new(store: PgStore, shared: Arc<Shared>, keep: RetentionDays, ahead: TimeDelta) -> Self {
        Self {
            store,
            shared,
            table: HISTORY,
            keep: keep.time(),
            ahead,
            settled: CommittedValue::default(),
            floor_ms: 0,
            pending: false,
            overaged_told: None,
        }
    }

    /// Sets another width of partitions, for tests of retention, which cannot wait for weeks.
    #[must_use]
    pub fn partition_width(mut self, width: TimeDelta) -> Self {
        self.table.width_ms = width.num_milliseconds();
        self
    }

    /// Returns whether another round will soon have something to drop.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// Raises the floors, and creates the partitions of history from the floor to some time ahead.
    pub async fn make_room(&mut self) -> UpkeepResult {
        let pool = self.store.reporting();
        let keep_ms = self.keep.map(|keep| keep.num_milliseconds());
        let status = floor::raise(pool, keep_ms, &mut self.settled).await?;
        self.shared.clock.set(status.now);
        self.floor_ms = status.floors.floor_ms;
        let now_ms = status.now.timestamp_millis();
        let last_ms = now_ms + self.ahead.num_milliseconds();
        let wanted = Span::covering(self.floor_ms, last_ms, self.table.width_ms);
        let made = self.table.make(pool, wanted).await;
        self.look_around(&status).await?;
        made?;
        self.store.alarm().clear();
        if let Some(floor) = Timestamp::from_timestamp_millis(self.floor_ms) {
            self.shared.raise_floor(floor);
        }
        self.report(&status).await
    }

    /// Checks the partitions of history. This is done even if partitions could not be created, because it matters most
    /// then.
    async fn look_around(&mut self, status: &FloorStatus) -> UpkeepResult {
        let stand = self.table.partitions(self.store.reporting()).await?;
        let reach = status.floors.starts_from_ms;
        let reach = status
            .oldest_live_ms
            .map_or(reach, |oldest| reach.min(oldest));
        self.pending = stand
            .iter()
            .any(|partition| (self.floor_ms + 1..=reach).contains(&partition.span.to_ms));
        let now_ms = status.now.timestamp_millis();
        let room = TimeDelta::milliseconds(reach_of(&stand, now_ms) - now_ms);
        telemetry::partitions_ahead_days(room.num_seconds() as f64 / 86_400.0);
        if room < AHEAD_ALARM {
            error!(
                room_ahead_s = room.num_seconds(),
                "history is about to run out of partitions"
            );
        }
        Ok(())
    }

    async fn report(&mut self, status: &FloorStatus) -> UpkeepResult {
        let now_ms = status.now.timestamp_millis();
        let oldest_age_ms = status.oldest_live_ms.map_or(0, |oldest| now_ms - oldest);
        telemetry::ages(now_ms - self.floor_ms, oldest_age_ms);
        let starts_from_ms = status.floors.starts_from_ms;
        let held = self.keep.is_some()
            && status
                .oldest_live_ms
                .is_some_and(|oldest| oldest < starts_from_ms);
        let overaged = if held {
            floor::overaged(self.store.reporting(), starts_from_ms).await?
        } else {
            Overaged::default()
        };
        telemetry::overaged(overaged.count);
        if overaged.count == 0 {
            self.overaged_told = None;
        } else if self
            .overaged_told
            .is_none_or(|told| told.elapsed() >= OVERAGED_TOLD_EVERY)
        {
            self.overaged_told = Some(Instant::now());
            error!(
                sagas = overaged.count,
                oldest = ?overaged.ids,
                "live sagas are older than the retention: nothing can be forgotten until they end or are abandoned"
            );
        }
        Ok(())
    }

    /// Drops the partitions of history below the floor, and deletes the audit rows of what operators decided there.
    pub async fn forget(&self) -> UpkeepResult {
        let pool = self.store.reporting();
        let dropped = self.table.drop_below(pool, self.floor_ms).await?;
        telemetry::history_left(dropped.left);
        if dropped.left > 0 {
            warn!(
                left = dropped.left,
                "partitions of history could not be dropped while others use the table, trying again"
            );
        }
        let full = FORGET_LIMIT.cast_unsigned();
        while floor::forget_actions(pool, self.floor_ms, FORGET_LIMIT).await? >= full {}
        while floor::forget_letters(pool, self.floor_ms, FORGET_LIMIT).await? >= full {}
        Ok(())
    }
}

/// The retention is so short that a saga could be forgotten while it still has to end.
#[derive(Debug, Error)]
#[error(
    "retention_days = {retention_days} is too short for definition '{name}' version {version}: its deadline of \
     {deadline_hours} h and {slack_hours} h to undo what was done must fit in; raise retention_days, or shorten the \
     definition's deadline"
)]
pub struct RetentionTooShort {
    retention_days: u32,
    name: String,
    version: u32,
    deadline_hours: u64,
    slack_hours: i64,
}

/// Checks that every saga of these definitions ends, as far as it ends by itself, before it would hold the floor.
pub fn check_deadlines<'a>(
    retention: RetentionDays,
    definitions: impl IntoIterator<Item = &'a SagaDefinition>,
) -> Result<(), RetentionTooShort> {
    let RetentionDays::Days(retention_days) = retention else {
        return Ok(());
    };
    let kept_ms = u64::from(retention_days) * 24 * 3_600 * 1_000;
    let slack_ms = SLACK.num_milliseconds().cast_unsigned();
    for definition in definitions {
        if definition.deadline_ms.saturating_add(slack_ms) > kept_ms {
            return Err(RetentionTooShort {
                retention_days,
                name: definition.name.clone(),
                version: definition.version,
                deadline_hours: definition.deadline_ms.div_ceil(3_600_000),
                slack_hours: SLACK.num_hours(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    #[test]
    fn a_retention_that_a_saga_may_outlive_is_refused_by_the_names_of_both() {
        let sources = registry::read(true, None).unwrap();
        let check = |retention| {
            let definitions = sources.iter().map(|source| &source.definition);
            check_deadlines(retention, definitions).map_err(|error| error.to_string())
        };
        // The shipped definitions may take a day.
        let told = check(RetentionDays::Days(1)).unwrap_err();
        for part in ["retention_days = 1", "'place-order", "deadline of 24 h"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(check(RetentionDays::Days(2)), Ok(()));
        assert_eq!(check(RetentionDays::Off), Ok(()));
    }
}
