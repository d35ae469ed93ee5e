//! What has to be done now and then, by any orchestrator: partitions ahead, the floor, homes that are gone, definitions
//! that another one registered, and gauges. Each job is idempotent; two processes doing it do no harm.

use crate::{
    config::Config,
    engine::{shared::Shared, timers::offsets::Offsets},
    store::{PgStore, definition, history, intake, listing},
    telemetry,
};
use chrono::TimeDelta;
use saga_core::ids::{SagaId, Timestamp};
use saga_messaging::{kafka::KafkaWriter, outbox::Outbox};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Between two rounds. Commands carry the floor of the last one.
const INTERVAL: Duration = Duration::from_secs(30);
/// Below this much room ahead somebody should look why partitions are not made.
const AHEAD_ALARM: TimeDelta = TimeDelta::days(1);
/// An id may lie this far behind the floor's start: history is made for it too.
const MARGIN: TimeDelta = TimeDelta::days(2);

pub struct Upkeep {
    pub store: PgStore,
    pub shared: Arc<Shared>,
    pub offsets: Arc<Offsets>,
    pub writer: KafkaWriter,
    pub outbox: Outbox,
    pub group: &'static str,
    pub retention: TimeDelta,
    pub ahead: TimeDelta,
}

type UpkeepResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Upkeep {
    pub fn retention(config: &Config) -> TimeDelta {
        TimeDelta::days(i64::from(config.retention_days))
    }

    pub fn ahead(config: &Config) -> TimeDelta {
        TimeDelta::days(i64::from(config.engine.history_ahead_days))
    }

    /// What nothing can run without: partitions, the floor, and homes that exist.
    pub async fn before_start(&self) -> UpkeepResult {
        self.make_room().await?;
        self.rehome().await
    }

    /// Rounds until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            self.round().await;
        }
    }

    /// Every job, each for itself: one that fails does not keep the others from being done.
    async fn round(&self) {
        let jobs = [
            ("partitions and the floor", self.make_room().await),
            ("definitions", self.learn_definitions().await),
            ("homes", self.rehome().await),
            ("idempotency keys", self.forget_keys().await),
            ("offsets", self.note_offsets().await),
            ("gauges", self.measure().await),
        ];
        for (job, result) in jobs {
            if let Err(error) = result {
                warn!(
                    error = &*error as &dyn std::error::Error,
                    job, "upkeep has to wait"
                );
            }
        }
    }

    /// Partitions of history from the floor to some time ahead; then the floor.
    async fn make_room(&self) -> UpkeepResult {
        let (now, oldest) = history::oldest_live(self.store.reporting()).await?;
        self.shared.clock.set(now);
        let oldest: Option<Timestamp> = oldest
            .and_then(SagaId::created_at_ms)
            .and_then(Timestamp::from_timestamp_millis);
        let kept = now - self.retention;
        let floor = oldest.map_or(kept, |oldest| oldest.min(kept));
        if oldest.is_some_and(|oldest| oldest < kept) {
            warn!(
                oldest = %floor,
                "a live saga is older than the retention: nothing can be forgotten until it ends"
            );
        }
        let room =
            history::make_partitions(self.store.pool(), floor - MARGIN, now, self.ahead).await?;
        telemetry::partitions_ahead_days(room.num_seconds() as f64 / 86_400.0);
        if room < AHEAD_ALARM {
            error!(
                room_ahead_s = room.num_seconds(),
                "history is about to run out of partitions"
            );
        }
        self.shared.raise_floor(floor);
        telemetry::ages(
            (now - floor).num_milliseconds(),
            oldest.map_or(0, |oldest| (now - oldest).num_milliseconds()),
        );
        Ok(())
    }

    async fn learn_definitions(&self) -> UpkeepResult {
        for definition in definition::all(self.store.reporting()).await? {
            if self.shared.registry.by_hash(&definition.hash).is_none() {
                info!(
                    definition = definition.name,
                    version = definition.version,
                    "learned"
                );
                self.shared.hold(definition);
            }
        }
        Ok(())
    }

    async fn rehome(&self) -> UpkeepResult {
        let topic = &self.shared.settings.inputs_topic;
        // Asked anew: by a count from before partitions were added, their sagas would be moved away from where their
        // replies and cancels arrive.
        let partitions = self.writer.refresh_partition_count(topic).await?;
        let moved = history::rehome(self.store.reporting(), partitions).await?;
        if moved > 0 {
            warn!(
                moved,
                partitions, "sagas whose home partition does not exist have a new one"
            );
        }
        Ok(())
    }

    async fn forget_keys(&self) -> UpkeepResult {
        intake::forget_old_keys(self.store.reporting()).await?;
        Ok(())
    }

    /// Log entries below a committed offset can never be redelivered.
    async fn note_offsets(&self) -> UpkeepResult {
        let topic = &self.shared.settings.inputs_topic;
        if let Some(seen) = self.offsets.seen(topic, self.group).await {
            telemetry::backlog(seen.lag(), self.outbox.backlog().cast_signed());
            let committed = seen
                .partitions
                .iter()
                .map(|(partition, seen)| (*partition, seen.committed))
                .collect();
            self.shared.set_committed(committed);
        }
        Ok(())
    }

    /// A participant that is down cannot tell its own lag, just when people look for it.
    async fn measure_lags(&self) {
        for participant in self.shared.settings.participants.0.values() {
            if let Some(seen) = self
                .offsets
                .seen(&participant.topic, &participant.group)
                .await
            {
                telemetry::participant_lag(&participant.topic, &participant.group, seen.lag());
            }
        }
    }

    async fn measure(&self) -> UpkeepResult {
        telemetry::live(&listing::live_by_status(self.store.reporting()).await?);
        let (held, watched) = {
            let timers = self.shared.timers();
            (timers.len(), timers.watched_len())
        };
        telemetry::timers_held(held, watched);
        self.measure_lags().await;
        Ok(())
    }
}
